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
from typing import Any, Dict, List, Optional, Sequence, Tuple

import nnabla as nn
import nnabla.functions as F
import nnabla.parametric_functions as PF
import numpy as np
from nnabla.initializer import ConstantInitializer, NormalInitializer

from backend.layers import Tensor, activate, add, convolution, plain, spectral_normalization

GENERATORS = {"AtoB": "gen_x2y", "BtoA": "gen_y2x"}
NETWORKS = ("gen_x2y", "gen_y2x", "dis_x", "dis_y")
LARGEST_SIDE = 4096  # pixels that pictures may be high or wide; a mistyped one shall not ask for all the memory


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


def generator_twice(
    one: Tuple[nn.Variable, nn.Variable],
    other: Tuple[nn.Variable, nn.Variable],
    membership: nn.Variable,
    arch: Architecture,
) -> List[Tuple[nn.Variable, nn.Variable]]:
    """Translate two batches (x, a) of one membership, for training; together, which is faster, where that is the same.

    Under batch normalization each batch has its own statistics.
    """
    if arch.norm == "batch":
        return [generator(x, a, membership, arch) for x, a in (one, other)]
    x, a = (F.concatenate(*pair, axis=0) for pair in zip(one, other))
    nobody = F.constant(0, membership.shape)
    rows = F.concatenate(membership, nobody, axis=1), F.concatenate(nobody, membership, axis=1)
    y, b = generator(x, a, F.concatenate(*rows, axis=0), arch)
    pictures, masks = membership.shape
    return [(y[:pictures], b[:masks]), (y[pictures:], b[masks:])]


def discriminator(
    x: nn.Variable,
    a: nn.Variable,
    membership: nn.Variable,
    arch: Architecture,
    mode: Mode = TRAIN,
    earlier: Optional[Tuple[nn.Variable, nn.Variable]] = None,
) -> nn.Variable:
    """Score patches of pictures with their masks: (B, 1, h, w), to be read against 1 (real) and 0 (fake).

    `earlier` are more masks (P, 1, H, W) of the same pictures with their membership (B, P), which come before a; where
    they are constants, what is computed of them is not kept for gradients.

    Every weight is divided by its largest singular value (spectral normalization, Miyato et al., ICLR 2018),
    estimated with one power iteration per forward.
    """
    parts = [a]
    if earlier:
        parts = [earlier[0], a]
        a, membership = F.concatenate(*parts, axis=0), F.concatenate(earlier[1], membership, axis=1)
    owned, _ = _instances(a, membership)
    if arch.norm == "batch":
        # its statistics are those of all masks
        parts = [a]
    with nn.parameter_scope("feature_image"):
        (picture,) = _features([x], arch, mode)
    with nn.parameter_scope("feature_mask"):
        ends = np.cumsum([part.shape[0] for part in parts]).tolist()
        columns = [owned[:, end - part.shape[0] : end] if earlier else owned for part, end in zip(parts, ends)]
        masks, *more = map(_sum_over_instances, _features(parts, arch, mode), columns)
        for others in more:
            masks = masks + others
    with nn.parameter_scope("classifier"):
        channels = 2 * arch.ndf * min(2**arch.n_layers_D, 8)
        (h,) = _judging_layer([F.concatenate(picture, masks, axis=1)], "1", channels, 1, arch, mode)
        w, b = _spectral_weights("conv2", (1, channels), mode)
        return plain(convolution(h, w, b, pad=1))


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
    # no picture has the size that 30 layers take, and with a number out of a damaged file 2**n could take all memory
    return max(-(-(2 ** min(arch.n_layers_D, 30) * 3) // 4) * 4, 8)


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
    h = _layer(x, "1", arch.ngf, 7, arch, mode, reflect=3)
    for i, channels in ((2, 2 * arch.ngf), (3, 4 * arch.ngf)):
        h = _layer(h, f"{i}", channels, 3, arch, mode, stride=2, pad=1)
    for i in range(arch.n_blocks):
        with nn.parameter_scope(f"block{i + 1}"):
            h = _residual_block(h, arch, mode)
    return plain(h)


def _residual_block(x: Tensor, arch: Architecture, mode: Mode) -> Tensor:
    h = _layer(x, "1", x.shape[1], 3, arch, mode, reflect=1)
    return _layer(h, "2", x.shape[1], 3, arch, mode, reflect=1, activation="", skip=x)


def _decoder(x: nn.Variable, channels: int, arch: Architecture, mode: Mode) -> nn.Variable:
    h = x
    for i in (1, 2):
        # twice as high and wide
        window = {"stride": 2, "pad": 1, "transposed": True}
        h = _layer(h, f"{i}", h.shape[1] // 2, 3, arch, mode, conv="deconv", **window)
    w, b = _weights("conv", (channels, h.shape[1], 7, 7), channels, mode)
    return plain(convolution(h, w, b, reflect=3, activation="tanh"))


def _features(parts: Sequence[nn.Variable], arch: Architecture, mode: Mode) -> List[nn.Variable]:
    """What D sees in each of several batches of pictures, or of masks."""
    w, b = _spectral_weights("conv1", (arch.ndf, parts[0].shape[1]), mode)
    found: List[Tensor] = [convolution(part, w, b, stride=2, pad=1, activation="leaky_relu") for part in parts]
    for i in range(2, arch.n_layers_D + 1):
        found = _judging_layer(found, f"{i}", arch.ndf * min(2 ** (i - 1), 8), 2, arch, mode)
    return [plain(h) for h in found]


def _judging_layer(
    parts: Sequence[Tensor], number: str, channels: int, stride: int, arch: Architecture, mode: Mode
) -> List[Tensor]:
    """A layer of D on each of several batches: kernel 4, pad 1, normalization, LeakyReLU."""
    w, b = _spectral_weights(f"conv{number}", (channels, parts[0].shape[1]), mode)
    how = {"stride": stride, "pad": 1, "activation": "leaky_relu"}
    return [_normalized(part, w, b, f"norm{number}", arch, mode, **how) for part in parts]


def _layer(
    x: Tensor,
    number: str,
    channels: int,
    kernel: int,
    arch: Architecture,
    mode: Mode,
    conv: str = "conv",
    activation: str = "relu",
    **how: Any,
) -> Tensor:
    """A layer of G: convolution or deconvolution, as `how` tells `layers.convolution`, normalization, activation."""
    sides = (x.shape[1], channels) if conv == "deconv" else (channels, x.shape[1])
    w, b = _weights(conv + number, (*sides, kernel, kernel), channels, mode)
    return _normalized(x, w, b, f"norm{number}", arch, mode, activation=activation, **how)


def _weights(name: str, shape: Tuple[int, ...], channels: int, mode: Mode) -> Tuple[nn.Variable, nn.Variable]:
    """Weight and bias of a convolution, created when they are not there."""
    trainable = not mode.fix_parameters
    with nn.parameter_scope(name):
        w = nn.parameter.get_parameter_or_create("W", shape, NormalInitializer(0.02), as_need_grad=trainable)
        b = nn.parameter.get_parameter_or_create("b", (channels,), ConstantInitializer(0), as_need_grad=trainable)
    return w, b


def _spectral_weights(name: str, channels: Tuple[int, int], mode: Mode) -> Tuple[nn.Variable, nn.Variable]:
    """The same for kernel 4 and (out, in) channels, with the weight divided by its largest singular value."""
    w, b = _weights(name, (*channels, 4, 4), channels[0], mode)
    with nn.parameter_scope(name):
        u = nn.parameter.get_parameter_or_create("u", (1, channels[0]), NormalInitializer(1.0), need_grad=False)
    # the forward moves u: one power iteration, also where the weights are fixed (as in the authors' code)
    return spectral_normalization(w, u), b


def _normalized(
    x: Tensor,
    w: nn.Variable,
    b: nn.Variable,
    norm: str,
    arch: Architecture,
    mode: Mode,
    activation: str,
    skip: Optional[Tensor] = None,
    **how: Any,
) -> Tensor:
    if arch.norm == "instance":
        return convolution(x, w, b, normalize=True, activation=activation, skip=skip, **how)
    h = PF.batch_normalization(
        plain(convolution(x, w, b, **how)),
        decay_rate=0.9,
        eps=1e-5,
        batch_stat=mode.batch_stat,
        fix_parameters=mode.fix_parameters,
        name=norm,
    )
    return add(skip, activate(h, activation))


DOMAINS = {"x": "A", "y": "B"}
OTHER = {"x": "y", "y": "x"}
