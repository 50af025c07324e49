# SPDX-License-Identifier: Apache-2.0
"""The networks of InstaGAN (Mo, Cho, Shin, ICLR 2019, section 2.1 and appendix), as the authors' code builds them.

    generator       G: (x, a) -> (y', b')                    figure 2, equation 1
    discriminator   D: (x, a) -> scores of patches           figure 2

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
from typing import Dict, List, Optional, Sequence, Tuple

import nnabla as nn
import nnabla.functions as F
import nnabla.parametric_functions as PF
import numpy as np
from nnabla.initializer import ConstantInitializer, NormalInitializer

from backend import reductions
from backend.layers import Tensor, activate, add, convolution, plain, spectral_normalization

# the paper's domains X and Y are the data set's A and B
DOMAINS = {"x": "A", "y": "B"}
OTHER = {"x": "y", "y": "x"}
# scopes of parameters: gen_x2y translates A to B, dis_y judges pictures of B
GENERATORS = {"AtoB": "gen_x2y", "BtoA": "gen_y2x"}
NETWORKS = ("gen_x2y", "gen_y2x", "dis_x", "dis_y")
# what stays around the instances of a translated picture: the original, or what the network makes of it
BACKGROUNDS = ("keep", "network")
LARGEST_SIDE = 4096  # limit of a picture's height and width in pixels, against typing errors

Pair = Tuple[nn.Variable, nn.Variable]  # (x, a), or (weight, bias), or masks with their membership


@dataclass(frozen=True)
class Architecture:
    """The numbers that fix the shape of every parameter.

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
    """The use that a network is built for: `batch_stat` uses (and updates) the statistics of the batch under
    `norm="batch"`, `fix_parameters` takes the weights as constants, so that no gradient is computed for them."""

    batch_stat: bool = True
    fix_parameters: bool = False


TRAIN = Mode()
FROZEN = Mode(fix_parameters=True)
INFERENCE = Mode(batch_stat=False, fix_parameters=True)


def generator(
    x: nn.Variable,
    a: nn.Variable,
    membership: nn.Variable,
    arch: Architecture,
    mode: Mode = TRAIN,
    keep_background: bool = False,
) -> Pair:
    """Translate pictures and their masks: (x, a) -> (y', b') of the same shapes, both in [-1, 1].

    Equation 1 of the paper: the picture decoder sees the picture's features and S, the sum of its masks' features;
    the mask decoder, shared by all masks, sees the features of its mask, of the picture, and S.

    With `keep_background`, which the authors' code does not have, y' is x outside of the masks (see `composite`).
    """
    instances, is_instance = _instances(a, membership)
    with nn.parameter_scope("encoder_image"):
        picture_features = _encoder(x, arch, mode)
    with nn.parameter_scope("encoder_mask"):
        mask_features = _encoder(a, arch, mode)
    if arch.norm == "instance":
        # A constant mask normalizes to exactly 0; in floating point only noise is left, which later normalizations
        # amplify, so zero it.
        mask_features = mask_features * _not_empty(a)
    # [h_GX(x), S] with S = the sum of h_GA(a_i), for each picture
    context = F.concatenate(picture_features, _sum_over_instances(mask_features, instances), axis=1)
    with nn.parameter_scope("decoder_image"):
        y = _decoder(context, x.shape[1], arch, mode)
    with nn.parameter_scope("decoder_mask"):
        b = _decoder(F.concatenate(mask_features, _of_owner(context, membership), axis=1), 1, arch, mode)
    b = is_instance * b + (1 - is_instance) * a
    if keep_background:
        y = composite(x, a, y, b, membership)
    return y, b


def generator_on_two_batches(
    first: Pair, second: Pair, membership: nn.Variable, arch: Architecture, keep_background: bool = False
) -> List[Pair]:
    """Translate two batches (x, a) that share a membership, for training.

    They are translated as one batch, which is faster, where that gives the same; under batch normalization each batch
    has its own statistics, so there it does not.
    """
    if arch.norm == "batch":
        return [generator(x, a, membership, arch, TRAIN, keep_background) for x, a in (first, second)]
    x = F.concatenate(first[0], second[0], axis=0)
    a = F.concatenate(first[1], second[1], axis=0)
    nobody = F.constant(0, membership.shape)
    upper = F.concatenate(membership, nobody, axis=1)
    lower = F.concatenate(nobody, membership, axis=1)
    y, b = generator(x, a, F.concatenate(upper, lower, axis=0), arch, TRAIN, keep_background)
    pictures, masks = membership.shape
    return [(y[:pictures], b[:masks]), (y[pictures:], b[masks:])]


def composite(
    x: nn.Variable, a: nn.Variable, y: nn.Variable, b: nn.Variable, membership: nn.Variable
) -> nn.Variable:
    """Put what G painted, y', into the picture where its masks are, before (a) or after (b'), and leave x elsewhere.

    The weight of y' is that which the context preserving loss takes from x (equation 5), as soft as b'; it is a half in
    the pixel around a: there an instance that goes still shines through, where it covered less than half of a pixel.
    All are in [-1, 1], of the shapes of `generator`.
    """
    covered = coverage((a + b + 2) * 0.5, membership)
    edge = widened(coverage((a + 1) * 0.5, membership)) * 0.5
    return x + F.maximum2(covered, edge) * (y - x)


def coverage(inside: nn.Variable, membership: nn.Variable) -> nn.Variable:
    """The union of each picture's masks, min(sum of `inside` over them, 1): (B, 1, H, W), in [0, 1].

    `inside` (M, 1, H, W) is 1 where a mask is, and 0 where it is not.
    """
    masks, _, height, width = inside.shape
    covered = F.affine(membership, F.reshape(inside, (masks, -1)))
    # min(., 1) and not clip(., 0, 1): the sum is never negative
    return F.minimum_scalar(F.reshape(covered, (membership.shape[0], 1, height, width)), 1.0)


def widened(covered: nn.Variable) -> nn.Variable:
    """A coverage (B, 1, H, W) that reaches a pixel further to all sides."""
    return F.max_pooling(covered, (3, 3), (1, 1), pad=(1, 1))


def discriminator(
    x: nn.Variable,
    a: nn.Variable,
    membership: nn.Variable,
    arch: Architecture,
    mode: Mode = TRAIN,
    earlier: Optional[Pair] = None,
) -> nn.Variable:
    """Score patches of pictures with their masks: (B, 1, h, w), to be compared with 1 (real) and 0 (fake).

    `earlier` are the masks (P, 1, H, W) of the same pictures from earlier passes, with their membership (B, P); they
    are part of the set as a is (see `_set_features`).

    Every weight is divided by its largest singular value (spectral normalization, Miyato et al., ICLR 2018),
    estimated with one power iteration per forward.
    """
    with nn.parameter_scope("feature_image"):
        picture_features = _features(x, _feature_layers(x.shape[1], arch, mode), arch, mode)
    with nn.parameter_scope("feature_mask"):
        set_features = _set_features(a, membership, earlier, arch, mode)
    with nn.parameter_scope("classifier"):
        h = F.concatenate(picture_features, set_features, axis=1)
        channels = 2 * arch.ndf * min(2**arch.n_layers_D, 8)
        h = _discriminator_layer(h, _spectral_weights("conv1", (channels, h.shape[1]), mode), "norm1", 1, arch, mode)
        w, b = _spectral_weights("conv2", (1, channels), mode)
        return plain(convolution(h, w, b, pad=1))


def create_parameters(arch: Architecture, rng: np.random.RandomState, networks: Sequence[str] = NETWORKS) -> None:
    """Create the parameters of `networks` in NNabla's current scope: weights normal(0, 0.02) from `rng`, biases 0.

    The power-iteration vectors of spectral normalization are normal(0, 1). Parameters that exist keep their values.
    Each network's are in a scope of its name.
    """
    # initializers without an rng of their own draw from this one
    nnabla_prng = nn.random.prng
    nn.random.prng = rng
    try:
        size = 2 ** (arch.n_layers_D + 2)
        x = nn.Variable((1, 3, size, size))
        a = nn.Variable((1, 1, size, size))
        membership = nn.Variable((1, 1))
        for name in networks:
            build = generator if name.startswith("gen") else discriminator
            with nn.parameter_scope(name):
                build(x, a, membership, arch)
    finally:
        nn.random.prng = nnabla_prng


def smallest_size(arch: Architecture) -> int:
    """The smallest height and width, a multiple of 4, that G can pad and for which D has a patch to score."""
    # capped: a damaged file could ask for 2**huge
    return max(-(-(2 ** min(arch.n_layers_D, 30) * 3) // 4) * 4, 8)


def number_of_parameters(parameters: Dict[str, nn.Variable]) -> int:
    """The number of trainable values: without power-iteration vectors and running statistics."""
    return sum(p.size for name, p in parameters.items() if name.rsplit("/", 1)[-1] not in ("u", "mean", "var"))


# --- sets of instances


def _instances(a: nn.Variable, membership: nn.Variable) -> Pair:
    """Membership (B, M) without empty masks, and (M, 1, 1, 1) with 1 for a mask that is an instance, else 0."""
    instances = membership * F.reshape(_not_empty(a), (1, a.shape[0]))
    first = membership * F.equal_scalar(_running_count(membership), 1.0)
    has_none = F.equal_scalar(reductions.total(instances, axes=(1,), keepdims=True), 0.0)
    instances = instances + first * has_none
    instances.need_grad = False
    # a product of matrices: the sum over the pictures, exactly 0 or 1
    is_instance = F.affine(F.constant(1, (1, instances.shape[0])), instances)
    return instances, F.reshape(is_instance, (a.shape[0], 1, 1, 1))


def _running_count(membership: nn.Variable) -> nn.Variable:
    """The masks of each picture up to and including each mask: (B, M)."""
    up_to = np.triu(np.ones((membership.shape[1],) * 2, np.float32))
    return F.affine(membership, nn.Variable.from_numpy_array(up_to))


def _not_empty(a: nn.Variable) -> nn.Variable:
    """(M, 1, 1, 1) with 0 for a mask that is empty, -1 everywhere, else 1."""
    area = reductions.total(a + 1, axes=(1, 2, 3))
    not_empty = F.reshape(F.greater_scalar(area, 0.0), (a.shape[0], 1, 1, 1))
    # a decision, not something to differentiate
    not_empty.need_grad = False
    return not_empty


def _sum_over_instances(features: nn.Variable, instances: nn.Variable) -> nn.Variable:
    """Sum (M, C, h, w) over the instances of each picture: (B, C, h, w)."""
    # a product of matrices, (B, M) times (M, C h w)
    total = F.affine(instances, F.reshape(features, (features.shape[0], -1)))
    return F.reshape(total, (instances.shape[0],) + features.shape[1:])


def _of_owner(features: nn.Variable, membership: nn.Variable) -> nn.Variable:
    """The features (B, C, h, w) of each mask's picture: (M, C, h, w)."""
    owner = F.affine(F.transpose(membership, (1, 0)), F.reshape(features, (features.shape[0], -1)))
    return F.reshape(owner, (membership.shape[1],) + features.shape[1:])


# --- the generator's parts


def _encoder(x: nn.Variable, arch: Architecture, mode: Mode) -> nn.Variable:
    h = _convolution_layer(x, "1", arch.ngf, 7, arch, mode, reflect=3)
    h = _convolution_layer(h, "2", 2 * arch.ngf, 3, arch, mode, stride=2, pad=1)
    h = _convolution_layer(h, "3", 4 * arch.ngf, 3, arch, mode, stride=2, pad=1)
    for i in range(arch.n_blocks):
        with nn.parameter_scope(f"block{i + 1}"):
            h = _residual_block(h, arch, mode)
    return plain(h)


def _residual_block(x: Tensor, arch: Architecture, mode: Mode) -> Tensor:
    h = _convolution_layer(x, "1", x.shape[1], 3, arch, mode, reflect=1)
    return _convolution_layer(h, "2", x.shape[1], 3, arch, mode, reflect=1, activation="", skip=x)


def _decoder(x: nn.Variable, channels: int, arch: Architecture, mode: Mode) -> nn.Variable:
    h = _upsampling_layer(x, "1", x.shape[1] // 2, arch, mode)
    h = _upsampling_layer(h, "2", x.shape[1] // 4, arch, mode)
    w, b = _weights("conv", (channels, h.shape[1], 7, 7), channels, mode)
    return plain(convolution(h, w, b, reflect=3, activation="tanh"))


def _convolution_layer(
    x: Tensor,
    number: str,
    channels: int,
    kernel: int,
    arch: Architecture,
    mode: Mode,
    stride: int = 1,
    pad: int = 0,
    reflect: int = 0,
    activation: str = "relu",
    skip: Optional[Tensor] = None,
) -> Tensor:
    """Padding (zeros, or reflection), convolution, normalization, activation; `skip` is added to the result."""
    w, b = _weights(f"conv{number}", (channels, x.shape[1], kernel, kernel), channels, mode)
    if arch.norm == "instance":
        return convolution(x, w, b, stride, pad, reflect, normalize=True, activation=activation, skip=skip)
    h = _batch_normalization(convolution(x, w, b, stride, pad, reflect), f"norm{number}", mode)
    return add(skip, activate(h, activation))


def _upsampling_layer(x: Tensor, number: str, channels: int, arch: Architecture, mode: Mode) -> Tensor:
    """Deconvolution to twice the height and width, normalization, ReLU."""
    w, b = _weights(f"deconv{number}", (x.shape[1], channels, 3, 3), channels, mode)
    if arch.norm == "instance":
        return convolution(x, w, b, stride=2, pad=1, transposed=True, normalize=True, activation="relu")
    h = convolution(x, w, b, stride=2, pad=1, transposed=True)
    return activate(_batch_normalization(h, f"norm{number}", mode), "relu")


# --- the discriminator's parts


def _set_features(
    a: nn.Variable, membership: nn.Variable, earlier: Optional[Pair], arch: Architecture, mode: Mode
) -> nn.Variable:
    """The sum of the features of each picture's instances: (B, C, h, w).

    Masks of earlier passes are constants, so what is computed of them need not be kept for gradients. That is why
    they are put through the layers by themselves: memory then does not grow with the number of passes. Under batch
    normalization they must go together, since its statistics are those of all masks.
    """
    layers = _feature_layers(a.shape[1], arch, mode)
    if earlier is None:
        instances, _ = _instances(a, membership)
        return _sum_over_instances(_features(a, layers, arch, mode), instances)
    all_masks = F.concatenate(earlier[0], a, axis=0)
    instances, _ = _instances(all_masks, F.concatenate(earlier[1], membership, axis=1))
    if arch.norm == "batch":
        return _sum_over_instances(_features(all_masks, layers, arch, mode), instances)
    count = earlier[0].shape[0]
    before = _sum_over_instances(_features(earlier[0], layers, arch, mode), instances[:, :count])
    return before + _sum_over_instances(_features(a, layers, arch, mode), instances[:, count:])


def _feature_layers(inputs: int, arch: Architecture, mode: Mode) -> List[Pair]:
    """Weights and biases of a feature extractor, after one power iteration, however many tensors it then sees."""
    layers = []
    for i in range(1, arch.n_layers_D + 1):
        channels = arch.ndf * min(2 ** (i - 1), 8)
        layers.append(_spectral_weights(f"conv{i}", (channels, inputs), mode))
        inputs = channels
    return layers


def _features(x: nn.Variable, layers: Sequence[Pair], arch: Architecture, mode: Mode) -> nn.Variable:
    """The features of pictures or of masks: a layer without normalization, then `_discriminator_layer`s."""
    w, b = layers[0]
    h = convolution(x, w, b, stride=2, pad=1, activation="leaky_relu")
    for i, weights in enumerate(layers[1:], 2):
        h = _discriminator_layer(h, weights, f"norm{i}", 2, arch, mode)
    return plain(h)


def _discriminator_layer(x: Tensor, weights: Pair, norm: str, stride: int, arch: Architecture, mode: Mode) -> Tensor:
    """Convolution with kernel 4 and padding 1, normalization, LeakyReLU."""
    w, b = weights
    if arch.norm == "instance":
        return convolution(x, w, b, stride, pad=1, normalize=True, activation="leaky_relu")
    return activate(_batch_normalization(convolution(x, w, b, stride, pad=1), norm, mode), "leaky_relu")


# --- parameters


def _weights(name: str, shape: Tuple[int, ...], channels: int, mode: Mode) -> Pair:
    """Weight and bias of a convolution, created when they are not there."""
    trainable = not mode.fix_parameters
    with nn.parameter_scope(name):
        w = nn.parameter.get_parameter_or_create("W", shape, NormalInitializer(0.02), as_need_grad=trainable)
        b = nn.parameter.get_parameter_or_create("b", (channels,), ConstantInitializer(0), as_need_grad=trainable)
    return w, b


def _spectral_weights(name: str, channels: Tuple[int, int], mode: Mode) -> Pair:
    """The same for kernel 4 and (out, in) channels, with the weight divided by its largest singular value."""
    w, b = _weights(name, (*channels, 4, 4), channels[0], mode)
    with nn.parameter_scope(name):
        u = nn.parameter.get_parameter_or_create("u", (1, channels[0]), NormalInitializer(1.0), need_grad=False)
    # the forward moves u: one power iteration, also where the weights are fixed (as in the authors' code)
    return spectral_normalization(w, u), b


def _batch_normalization(x: Tensor, name: str, mode: Mode) -> nn.Variable:
    return PF.batch_normalization(
        plain(x),
        decay_rate=0.9,
        eps=1e-5,
        batch_stat=mode.batch_stat,
        fix_parameters=mode.fix_parameters,
        name=name,
    )
