# SPDX-License-Identifier: Apache-2.0
"""The networks of InstaGAN (Mo, Cho, Shin, ICLR 2019, section 2.1 and appendix D), as the authors' code builds them.

Both networks take pictures together with a *set* of instance masks for each picture. The masks of all pictures of
a batch are stacked along the first axis, without empty slots, and a membership matrix says whose they are:

    x           (B, 3, H, W)  pictures, in [-1, 1]
    a           (M, 1, H, W)  masks, +1 inside the instance and -1 outside
    membership  (B, M)        1 where mask m belongs to picture b, else 0; each mask has one owner

So a picture with one mask costs one mask, sums over instances stay within a picture, and batch statistics see
instances only. H and W must be multiples of 4. A mask that is -1 everywhere is empty: it is not summed and comes
back as it went in; a picture whose masks are all empty has its first one treated as an instance (as the authors do).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Sequence, Tuple

import nnabla as nn
import nnabla.functions as F
import nnabla.parametric_functions as PF
import numpy as np
from nnabla.initializer import ConstantInitializer, NormalInitializer

GENERATORS = {"AtoB": "gen_x2y", "BtoA": "gen_y2x"}
NETWORKS = ("gen_x2y", "gen_y2x", "dis_x", "dis_y")


@dataclass(frozen=True)
class Architecture:
    """What fixes the shape of every parameter.

    `ngf` and `ndf` are the channels of the first layer of G and D, `n_blocks` the residual blocks of each encoder,
    `n_layers_D` the stride-2 layers of D's feature extractors, `norm` is "instance" or "batch".
    """

    ngf: int = 64
    ndf: int = 64
    n_blocks: int = 9
    n_layers_D: int = 3
    norm: str = "instance"


@dataclass(frozen=True)
class Mode:
    """How a network is called: `batch_stat` uses (and updates) the statistics of the batch under `norm="batch"`,
    `fix_parameters` takes the weights as constants, so that no gradient is computed for them."""

    batch_stat: bool = True
    fix_parameters: bool = False


TRAIN = Mode()
FROZEN = Mode(fix_parameters=True)
INFERENCE = Mode(batch_stat=False, fix_parameters=True)


def generator(
    x: nn.Variable, a: nn.Variable, membership: nn.Variable, arch: Architecture, mode: Mode = TRAIN
) -> Tuple[nn.Variable, nn.Variable]:
    """Translate pictures and their masks: (x, a) -> (y', b') of the same shapes, both in [-1, 1].

    The picture decoder sees the picture's features and S, the sum of its masks' features; the mask decoder, shared
    by all masks, sees the features of its mask, of the picture, and S (paper, equation 1).
    """
    owned, gate = _instances(a, membership)
    with nn.parameter_scope("encoder_image"):
        picture = _encoder(x, arch, mode)
    with nn.parameter_scope("encoder_mask"):
        mask = _encoder(a, arch, mode)
    if arch.norm == "instance":
        # of a constant mask nothing but rounding noise is left, and each normalization blows it up: exactly, it is 0
        mask = mask * _filled(a)
    scene = F.concatenate(picture, _sum_over_instances(mask, owned), axis=1)
    with nn.parameter_scope("decoder_image"):
        y = _decoder(scene, x.shape[1], arch, mode)
    with nn.parameter_scope("decoder_mask"):
        b = _decoder(F.concatenate(mask, _of_owner(scene, membership), axis=1), 1, arch, mode)
    return y, gate * b + (1 - gate) * a


def discriminator(
    x: nn.Variable, a: nn.Variable, membership: nn.Variable, arch: Architecture, mode: Mode = TRAIN
) -> nn.Variable:
    """Score patches of pictures with their masks: (B, 1, h, w), to be read against 1 (real) and 0 (fake).

    Every weight is divided by its largest singular value (spectral normalization, Miyato et al., ICLR 2018),
    estimated with one power iteration per forward.
    """
    owned, _ = _instances(a, membership)
    with nn.parameter_scope("feature_image"):
        picture = _features(x, arch, mode)
    with nn.parameter_scope("feature_mask"):
        masks = _sum_over_instances(_features(a, arch, mode), owned)
    with nn.parameter_scope("classifier"):
        channels = 2 * arch.ndf * min(2**arch.n_layers_D, 8)
        h = _spectral_conv(F.concatenate(picture, masks, axis=1), "conv1", channels, 1, mode)
        h = F.leaky_relu(_normalize(h, "norm1", arch, mode), 0.2)
        return _spectral_conv(h, "conv2", 1, 1, mode)


def create_parameters(arch: Architecture, rng: np.random.RandomState, networks: Sequence[str] = NETWORKS) -> None:
    """Create the parameters of `networks` in NNabla's current scope: weights normal(0, 0.02) from `rng`, biases 0.

    Parameters that exist keep their values. Each network's are in a scope of its name.
    """
    prng, nn.random.prng = nn.random.prng, rng
    try:
        size = 2 ** (arch.n_layers_D + 2)
        x, a, r = nn.Variable((1, 3, size, size)), nn.Variable((1, 1, size, size)), nn.Variable((1, 1))
        for name in networks:
            with nn.parameter_scope(name):
                (generator if name.startswith("gen") else discriminator)(x, a, r, arch)
    finally:
        nn.random.prng = prng


def smallest_size(arch: Architecture) -> int:
    """The smallest height and width, a multiple of 4, that G can pad and for which D has a patch to score."""
    return max(-(-(2**arch.n_layers_D * 3) // 4) * 4, 8)


def number_of_parameters(parameters: Dict[str, nn.Variable]) -> int:
    """How many trainable numbers there are: without power-iteration vectors and running statistics."""
    return sum(p.size for name, p in parameters.items() if name.rsplit("/", 1)[-1] not in ("u", "mean", "var"))


def _instances(a: nn.Variable, membership: nn.Variable) -> Tuple[nn.Variable, nn.Variable]:
    """Membership (B, M) without empty masks, and (M, 1, 1, 1) with 1 for a mask that is an instance, else 0."""
    owned = membership * F.reshape(_filled(a), (1, a.shape[0]))
    first = membership * F.equal_scalar(F.cumsum(membership, axis=1), 1.0)
    owned = owned + first * F.equal_scalar(F.sum(owned, axis=1, keepdims=True), 0.0)
    owned.need_grad = False
    return owned, F.reshape(F.sum(owned, axis=0), (a.shape[0], 1, 1, 1))


def _filled(a: nn.Variable) -> nn.Variable:
    """(M, 1, 1, 1) with 0 for a mask that is empty, -1 everywhere, else 1."""
    filled = F.reshape(F.greater_scalar(F.max(a, axis=(1, 2, 3)), -1.0), (a.shape[0], 1, 1, 1))
    # a decision, not something to differentiate
    filled.need_grad = False
    return filled


def _sum_over_instances(features: nn.Variable, owned: nn.Variable) -> nn.Variable:
    """Sum (M, C, h, w) over the instances of each picture: (B, C, h, w)."""
    total = F.affine(owned, F.reshape(features, (features.shape[0], -1)))
    return F.reshape(total, (owned.shape[0],) + features.shape[1:])


def _of_owner(features: nn.Variable, membership: nn.Variable) -> nn.Variable:
    """The features (B, C, h, w) of each mask's picture: (M, C, h, w)."""
    owner = F.affine(F.transpose(membership, (1, 0)), F.reshape(features, (features.shape[0], -1)))
    return F.reshape(owner, (membership.shape[1],) + features.shape[1:])


def _encoder(x: nn.Variable, arch: Architecture, mode: Mode) -> nn.Variable:
    h = _conv(_reflect(x, 3), "conv1", arch.ngf, 7, mode)
    h = F.relu(_normalize(h, "norm1", arch, mode))
    for i, channels in ((2, 2 * arch.ngf), (3, 4 * arch.ngf)):
        h = _conv(h, f"conv{i}", channels, 3, mode, stride=2, pad=1)
        h = F.relu(_normalize(h, f"norm{i}", arch, mode))
    for i in range(arch.n_blocks):
        with nn.parameter_scope(f"block{i + 1}"):
            h = _residual_block(h, arch, mode)
    return h


def _residual_block(x: nn.Variable, arch: Architecture, mode: Mode) -> nn.Variable:
    h = _conv(_reflect(x, 1), "conv1", x.shape[1], 3, mode)
    h = F.relu(_normalize(h, "norm1", arch, mode))
    h = _conv(_reflect(h, 1), "conv2", x.shape[1], 3, mode)
    return x + _normalize(h, "norm2", arch, mode)


def _decoder(x: nn.Variable, channels: int, arch: Architecture, mode: Mode) -> nn.Variable:
    h = x
    for i in (1, 2):
        h = F.relu(_normalize(_deconv(h, f"deconv{i}", h.shape[1] // 2, mode), f"norm{i}", arch, mode))
    return F.tanh(_conv(_reflect(h, 3), "conv", channels, 7, mode))


def _features(x: nn.Variable, arch: Architecture, mode: Mode) -> nn.Variable:
    h = F.leaky_relu(_spectral_conv(x, "conv1", arch.ndf, 2, mode), 0.2)
    for i in range(2, arch.n_layers_D + 1):
        h = _spectral_conv(h, f"conv{i}", arch.ndf * min(2 ** (i - 1), 8), 2, mode)
        h = F.leaky_relu(_normalize(h, f"norm{i}", arch, mode), 0.2)
    return h


def _reflect(x: nn.Variable, width: int) -> nn.Variable:
    return F.pad(x, (width,) * 4, mode="reflect")


def _weights(shape: Tuple[int, ...], channels: int, mode: Mode) -> Tuple[nn.Variable, nn.Variable]:
    """Weight and bias of a convolution, created in the current scope when they are not there."""
    trainable = not mode.fix_parameters
    w = nn.parameter.get_parameter_or_create("W", shape, NormalInitializer(0.02), as_need_grad=trainable)
    b = nn.parameter.get_parameter_or_create("b", (channels,), ConstantInitializer(0), as_need_grad=trainable)
    return w, b


def _conv(
    x: nn.Variable, name: str, channels: int, kernel: int, mode: Mode, stride: int = 1, pad: int = 0
) -> nn.Variable:
    with nn.parameter_scope(name):
        w, b = _weights((channels, x.shape[1], kernel, kernel), channels, mode)
    return F.convolution(x, w, b, pad=(pad, pad), stride=(stride, stride))


def _deconv(x: nn.Variable, name: str, channels: int, mode: Mode) -> nn.Variable:
    """Twice as high and wide: kernel 3, stride 2."""
    with nn.parameter_scope(name):
        w, b = _weights((x.shape[1], channels, 3, 3), channels, mode)
    return F.deconvolution(x, w, b, pad=(1, 1), stride=(2, 2), output_padding=(1, 1))


def _spectral_conv(x: nn.Variable, name: str, channels: int, stride: int, mode: Mode) -> nn.Variable:
    """Kernel 4, pad 1, with the weight divided by its largest singular value."""
    with nn.parameter_scope(name):
        w, b = _weights((channels, x.shape[1], 4, 4), channels, mode)
        u = nn.parameter.get_parameter_or_create("u", (1, channels), NormalInitializer(1.0), need_grad=False)
    # the forward moves u: one power iteration, also where the weights are fixed (as in the authors' code)
    w = F.spectral_norm(w, u, dim=0, itr=1)
    return F.convolution(x, w, b, pad=(1, 1), stride=(stride, stride))


def _normalize(x: nn.Variable, name: str, arch: Architecture, mode: Mode) -> nn.Variable:
    if arch.norm == "instance":
        return instance_normalization(x)
    return PF.batch_normalization(
        x, decay_rate=0.9, eps=1e-5, batch_stat=mode.batch_stat, fix_parameters=mode.fix_parameters, name=name
    )


def instance_normalization(x: nn.Variable) -> nn.Variable:
    """(x - mean) / sqrt(variance + 1e-5) over each channel (B, C, H, W) of each sample, without affine parameters.

    `F.instance_normalization` takes the variance as E[x^2] - E[x]^2 and adds a whole channel up in one float32: its
    error is 6e-4 where the mean is 10 deviations from zero, and 2e-4 in the output of G. Here the mean is taken off
    first, and sums go over rows and then over columns, which leaves 6e-6 in the output of G, as in PyTorch.
    """
    centred = x - _spatial_mean(x)
    return centred * (_spatial_mean(centred**2) + 1e-5) ** -0.5


def _spatial_mean(x: nn.Variable) -> nn.Variable:
    return F.mean(F.mean(x, axis=3, keepdims=True), axis=2, keepdims=True)
