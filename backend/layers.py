# SPDX-License-Identifier: Apache-2.0
"""The layers of the networks: NNabla's own functions, or where `cpu_kernels` is active, one function for all of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Optional, Tuple, Union

import nnabla as nn
import nnabla.functions as F

from backend import arrays, kernels, precision


@dataclass(frozen=True)
class Blocked:
    """A tensor (N, C, H, W) on its way from layer to layer, in memory as the CPU kernels like it; see `plain`."""

    variable: nn.Variable

    @property
    def shape(self) -> Tuple[int, ...]:
        """(N, C, H, W)."""
        return self.variable.shape


Tensor = Union[nn.Variable, Blocked]


def plain(x: Tensor) -> nn.Variable:
    """What convolutions gave, as a variable that other functions understand."""
    return kernels.unblock(x.variable) if isinstance(x, Blocked) else x


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
) -> Tensor:
    """Pad x (N, C, H, W) by `reflect`, convolve it with w, normalize each channel of each sample, activate.

    The result is for another convolution, or for `plain`.

    `transposed` is a deconvolution to `stride` times the size; `activation` is "", "relu", "leaky_relu" (slope 0.2)
    or "tanh"; `skip`, which needs `activation` "", is added to the result.
    """
    if kernels.active():
        height, width = (size + 2 * reflect for size in x.shape[2:])
        shape = (*x.shape[:2], height, width)
        geometry = kernels.Geometry(shape, w.shape, stride, pad, transposed, stride - 1 if transposed else 0)
        blocked = kernels.can_be_blocked(geometry.y) and not isinstance(skip, nn.Variable)
        layouts = {"x_blocked": isinstance(x, Blocked), "y_blocked": blocked}
        description = kernels.Description(geometry, reflect, normalize, activation, **layouts)
        x, skip = (v.variable if isinstance(v, Blocked) else v for v in (x, skip))
        y = kernels.layer(x, w, b, skip, description)
        return Blocked(y) if blocked else y
    with precision.of_layers():
        h = F.pad(x, (reflect,) * 4, mode="reflect") if reflect else x
        window = {"pad": (pad, pad), "stride": (stride, stride)}
        if transposed:
            h = F.deconvolution(h, w, b, output_padding=(stride - 1, stride - 1), **window)
        else:
            h = F.convolution(h, w, b, **window)
    return add(skip, activate(instance_normalization(h) if normalize else h, activation))


def spectral_normalization(w: nn.Variable, u: nn.Variable) -> nn.Variable:
    """w (O, I, kh, kw) divided by its largest singular value, by one power iteration, which moves u (1, O)."""
    return kernels.spectral_normalization(w, u) if kernels.active() else F.spectral_norm(w, u, dim=0, itr=1)


def activate(x: nn.Variable, activation: str) -> nn.Variable:
    """Apply "relu", "leaky_relu" (slope 0.2), "tanh", or nothing for ""."""
    if activation == "tanh":
        # in half precision -0.9998 is -1, and a mask that has faded would be taken for an empty one
        return F.tanh(x)
    with precision.of_layers():
        return {"": lambda v: v, "relu": F.relu, "leaky_relu": partial(F.leaky_relu, alpha=0.2)}[activation](x)


def add(skip: Optional[nn.Variable], x: nn.Variable) -> nn.Variable:
    """The sum of a skip connection, where there is one, and what it skips."""
    if skip is None:
        return x
    with precision.of_layers():
        return skip + x


def instance_normalization(x: nn.Variable) -> nn.Variable:
    """(x - mean) / sqrt(variance + 1e-5) over each channel (B, C, H, W) of each sample, without affine parameters.

    On a CPU `F.instance_normalization` takes the variance as E[x^2] - E[x]^2 and adds a whole channel up in one
    float32: its error is 6e-4 where the mean is 10 deviations from zero, and 2e-4 in the output of G. Here the mean is
    taken off first, and sums go over rows and then over columns, which leaves 6e-6 in the output of G, as in PyTorch.
    """
    if not arrays.on_cpu():
        return _on_a_gpu(x)
    centred = x - _spatial_mean(x)
    return centred * (_spatial_mean(centred**2) + 1e-5) ** -0.5


def _on_a_gpu(x: nn.Variable) -> nn.Variable:
    """Instance normalization by cuDNN: that of a batch of one sample, which has each channel of each sample as its own.

    One kernel forward, one backward. In half precision it reads and gives out half, with statistics in float32, also
    those that are kept for the gradient; `F.instance_normalization` keeps them in half.
    """
    samples, channels, height, width = x.shape
    running = [nn.Variable((1, samples * channels, 1, 1)) for _ in ("mean", "variance")]  # written, never read
    for statistic in running:
        statistic.data.zero()
    with precision.of_layers():
        flat = F.reshape(x, (1, samples * channels, height, width))
        y = F.batch_normalization(flat, None, None, *running, axes=[1], eps=1e-5)
        return F.reshape(y, x.shape)


def _spatial_mean(x: nn.Variable) -> nn.Variable:
    return F.mean(F.mean(x, axis=3, keepdims=True), axis=2, keepdims=True)
