# SPDX-License-Identifier: Apache-2.0
"""The layers of the networks: NNabla's own functions, or one oneDNN function for a layer where `kernels` is active."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple, Union

import nnabla as nn
import nnabla.functions as F

from backend import arrays, kernels, precision, reductions
from backend.onednn import functions, spectral
from backend.onednn.convolution import Geometry
from backend.onednn.layer import Description


@dataclass(frozen=True)
class Blocked:
    """A tensor (N, C, H, W) between two layers, in blocks of channels as oneDNN is fastest; see `plain`."""

    variable: nn.Variable

    @property
    def shape(self) -> Tuple[int, ...]:
        """(N, C, H, W)."""
        return self.variable.shape


Tensor = Union[nn.Variable, Blocked]


def plain(x: Tensor) -> nn.Variable:
    """Return the result of a convolution as a variable that other functions understand."""
    return functions.unblock(x.variable) if isinstance(x, Blocked) else x


def _variable(x: Tensor) -> nn.Variable:
    return x.variable if isinstance(x, Blocked) else x


def convolution(
    x: Tensor,
    w: nn.Variable,
    b: nn.Variable,
    stride: int = 1,
    pad: int = 0,
    reflect: int = 0,
    transposed: bool = False,
    normalize: bool = False,
    activation: str = "",
    skip: Optional[Tensor] = None,
    depthwise: bool = False,
) -> Tensor:
    """Pad x (N, C, H, W) by `reflect`, convolve it with w, normalize each channel of each sample, activate.

    The result is for another convolution, or for `plain`.

    `transposed` is a deconvolution to `stride` times the size; `activation` is "", "relu", "relu6" (at most 6),
    "leaky_relu" (slope 0.2) or "tanh"; `skip`, which needs `activation` "", is added to the result; `depthwise`
    convolves each channel with a kernel of its own, w (C, 1, kh, kw).
    """
    if kernels.active():
        batch, channels, height, width = x.shape
        padded = (batch, channels, height + 2 * reflect, width + 2 * reflect)
        output_padding = stride - 1 if transposed else 0
        geometry = Geometry(padded, w.shape, stride, pad, transposed, output_padding, depthwise)
        # the result has the layout of the skip connection that is added to it
        y_blocked = functions.can_be_blocked(geometry.y) and not isinstance(skip, nn.Variable)
        description = Description(geometry, reflect, normalize, activation, isinstance(x, Blocked), y_blocked)
        y = functions.layer(_variable(x), w, b, None if skip is None else _variable(skip), description)
        return Blocked(y) if y_blocked else y
    with precision.of_layers():
        h = F.pad(x, (reflect, reflect, reflect, reflect), mode="reflect") if reflect else x
        if transposed:
            output_padding = (stride - 1, stride - 1)
            h = F.deconvolution(h, w, b, pad=(pad, pad), stride=(stride, stride), output_padding=output_padding)
        else:
            group = w.shape[0] if depthwise else 1
            h = F.convolution(h, w, b, pad=(pad, pad), stride=(stride, stride), group=group)
    if normalize:
        h = instance_normalization(h)
    return add(skip, activate(h, activation))


def spectral_normalization(w: nn.Variable, u: nn.Variable) -> nn.Variable:
    """Divide w (O, I, kh, kw) by its largest singular value, by one power iteration, which moves u (1, O)."""
    if kernels.active():
        return spectral.spectral_normalization(w, u)
    if arrays.on_cpu():
        return F.spectral_norm(w, u, dim=0, itr=1)
    return _spectral_normalization_by_products(w, u)


def _spectral_normalization_by_products(w: nn.Variable, u: nn.Variable) -> nn.Variable:
    """As `F.spectral_norm(w, u, dim=0, itr=1)`, whose norms a Hopper GPU cannot compute (see backend/reductions.py)."""
    matrix = F.reshape(w, (w.shape[0], -1))
    v = _unit(F.affine(u, matrix))
    column = F.reshape(v, (-1, 1))
    # the forward moves the parameter u; the gradient takes u and v as constants
    column.need_grad = False
    product = F.affine(matrix, column)
    moved = F.assign(u, _unit(F.reshape(product, u.shape)))
    moved.need_grad = False
    sigma = F.affine(moved, product)
    return F.reshape(matrix / sigma, w.shape)


def _unit(vector: nn.Variable) -> nn.Variable:
    """Divide a vector (1, N) by its length."""
    return vector / (reductions.total(vector**2, axes=(1,), keepdims=True) + 1e-12) ** 0.5


def activate(x: nn.Variable, activation: str) -> nn.Variable:
    """Apply "relu", "relu6", "leaky_relu" (slope 0.2), "tanh", or nothing for ""."""
    if activation == "":
        return x
    if activation == "tanh":
        # in float32: half precision rounds -0.9998 to -1, and a faded mask would be taken for an empty one
        return F.tanh(x)
    with precision.of_layers():
        if activation == "relu":
            return F.relu(x)
        if activation == "relu6":
            return F.minimum_scalar(F.relu(x), 6)
        if activation == "leaky_relu":
            return F.leaky_relu(x, alpha=0.2)
    raise ValueError(f"unknown activation {activation}")


def add(skip: Optional[nn.Variable], x: nn.Variable) -> nn.Variable:
    """Return x plus the skip connection, if there is one."""
    if skip is None:
        return x
    with precision.of_layers():
        return skip + x


def instance_normalization(x: nn.Variable) -> nn.Variable:
    """Return (x - mean) / sqrt(variance + 1e-5) over each channel of each sample of x (N, C, H, W).

    There are no affine parameters. On a CPU `F.instance_normalization` takes the variance as E[x^2] - E[x]^2 and adds
    a whole channel up in one float32: its error is 6e-4 where the mean is 10 standard deviations from zero, and 2e-4 in
    the output of G. Here the mean is subtracted first, and sums go over rows and then over columns, which leaves 6e-6
    in the output of G, as in PyTorch.
    """
    if not arrays.on_cpu():
        return _instance_normalization_by_cudnn(x)
    centred = x - _spatial_mean(x)
    return centred * (_spatial_mean(centred**2) + 1e-5) ** -0.5


def _instance_normalization_by_cudnn(x: nn.Variable) -> nn.Variable:
    """Instance normalization as batch normalization of one sample, with the channels of all samples as its channels.

    One cuDNN kernel forward, one backward. In half precision it reads and writes half, with statistics in float32, also
    those that are kept for the gradient; `F.instance_normalization` keeps them in half.
    """
    samples, channels, height, width = x.shape
    statistics_shape = (1, samples * channels, 1, 1)
    # running statistics are written, never read
    running_mean = nn.Variable(statistics_shape)
    running_mean.data.zero()
    running_variance = nn.Variable(statistics_shape)
    running_variance.data.zero()
    with precision.of_layers():
        flat = F.reshape(x, (1, samples * channels, height, width))
        y = F.batch_normalization(flat, None, None, running_mean, running_variance, axes=[1], eps=1e-5)
        return F.reshape(y, x.shape)


def _spatial_mean(x: nn.Variable) -> nn.Variable:
    return F.mean(F.mean(x, axis=3, keepdims=True), axis=2, keepdims=True)
