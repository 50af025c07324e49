# SPDX-License-Identifier: Apache-2.0
"""A whole layer on the addresses of its tensors: padding, convolution, normalization, activation, skip connection."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, replace
from typing import Dict, List, Optional, Tuple

import numpy as np

from backend.onednn.convolution import Geometry, convolution
from backend.onednn.memory import ARENA, Shape, block_size, blocked, plain, view
from backend.onednn.pointwise import Activation, Normalization, Padding, activation
from backend.onednn.primitives import in_layout, reorder
from backend.onednn.threads import GRADIENTS, per_thread

# the address of a gradient (0: not wanted), and whether to add to the numbers there
Gradient = Tuple[int, bool]
_NOT_WANTED: Gradient = (0, False)


@dataclass(frozen=True)
class Description:
    """A layer on x (N, C, H, W): reflection padding, convolution, then normalization and activation.

    `geometry.x` is the shape after padding by `reflect`. `activation` is "", "relu", "relu6" (at most 6), "leaky_relu"
    (slope 0.2) or "tanh". `x_blocked` and `y_blocked`: whether x comes, and y goes, in blocks of channels (see
    `can_be_blocked`).
    """

    geometry: Geometry
    reflect: int = 0
    normalize: bool = False
    activation: str = ""
    x_blocked: bool = False
    y_blocked: bool = False

    def of(self, samples: int) -> Description:
        """Return the same layer for a batch of `samples`."""
        return replace(self, geometry=replace(self.geometry, x=(samples, *self.geometry.x[1:])))

    @property
    def x(self) -> Shape:
        """The shape of the input."""
        batch, channels, height, width = self.geometry.x
        return (batch, channels, height - 2 * self.reflect, width - 2 * self.reflect)


class Plan:
    """The forward and backward pass of a layer, with primitives that are made once. Tensors come as addresses.

    The forward pass leaves in `kept` (bytes) the tensors that the gradients need: the padded input, where the gradient
    of the weights is wanted, and under normalization its input and statistics.
    """

    def __init__(self, description: Description, for_weights: bool) -> None:
        self.shape = description.geometry.y
        self._convolution = convolution(description.geometry)
        x_layout = blocked(description.x) if description.x_blocked else plain(description.x)
        self._padding = Padding(description.x, x_layout, description.reflect, self._convolution.x_layout)
        relu_is_fused = description.normalize and description.activation == "relu"
        self._normalization: Optional[Normalization] = None
        # the layout of the result before it is converted to y's
        self._last = self._convolution.y_layout
        if description.normalize:
            self._normalization = Normalization(self.shape, self._convolution.y_layout, relu_is_fused)
            self._last = self._normalization.layout
        self._y = blocked(self.shape) if description.y_blocked else plain(self.shape)
        self._group = block_size() if description.y_blocked else 1
        self._activation: Optional[Activation] = None
        if description.activation and not relu_is_fused:
            self._activation = activation(description.activation, self._y.nbytes // 4)

        self._keeps_x = for_weights and self._padding.copies
        sizes = [self._convolution.x_layout.nbytes if self._keeps_x else 0]
        if self._normalization:
            sizes += [self._normalization.layout.nbytes, *self._normalization.kept]
        # in cache lines of 64 bytes
        ends = np.cumsum([-(-size // 64) * 64 for size in sizes]).tolist()
        self._offsets = [0, *ends[:-1]]
        self.kept: int = ends[-1]
        # (i, j): the gradient of input i needs input j; 0 is x, 1 is w
        self.needs = {(0, 1)} if self._keeps_x else {(0, 1), (1, 0)}
        self.needs_y = self._activation is not None

    def forward(self, y: int, kept: int, x: int, w: int, b: int = 0, skip: int = 0) -> None:
        """Write y, and `kept` unless it is 0; add `skip` to y unless it is 0.

        The bias b is read only without normalization.
        """
        ARENA.reset()
        kept_or_scratch = kept or ARENA.take(self.kept)
        padded = x
        if self._padding.copies:
            padded = kept if kept and self._keeps_x else ARENA.take(self._convolution.x_layout.nbytes)
            self._padding.forward(x, padded)
        last = y if self._last is self._y and not skip else ARENA.take(self._last.nbytes)
        if self._normalization:
            self._convolve_and_normalize(padded, w, last, kept_or_scratch)
        else:
            self._convolution.forward(padded, w, last)
        if skip:
            ctypes.memmove(y, skip, self._y.nbytes)
        if last != y:
            reorder(self._last, last, self._y, y, bool(skip))
        if not self._normalization:
            result, bias = self._by_channel(y, b)
            result += bias
        if self._activation:
            self._activation.forward(y)

    def _convolve_and_normalize(self, padded: int, w: int, y: int, kept: int) -> None:
        z, *statistics = self._kept_by_normalization(kept)
        same_layout = self._convolution.y_layout is self._normalization.layout
        h = z if same_layout else ARENA.take(self._convolution.y_layout.nbytes)
        self._convolution.forward(padded, w, h)
        if not same_layout:
            reorder(self._convolution.y_layout, h, self._normalization.layout, z)
        self._normalization.forward(z, y, *statistics)

    def _kept_by_normalization(self, kept: int) -> List[int]:
        """Return the addresses of its input, mean, variance and, with ReLU, workspace."""
        return [kept + offset for offset in self._offsets[1:]]

    def backward(self, x: int, w: int, y: int, dy: int, kept: int, wanted: Dict[str, Gradient]) -> None:
        """Write or add the gradients of "x", "w", "b" and "skip" that are wanted. Only activations read y."""
        ARENA.reset()
        dx, add_dx = wanted.get("x", _NOT_WANTED)
        dw, add_dw = wanted.get("w", _NOT_WANTED)
        db, add_db = wanted.get("b", _NOT_WANTED)
        dskip, add_dskip = wanted.get("skip", _NOT_WANTED)
        if dskip:
            reorder(self._y, dy, self._y, dskip, add_dskip)
        if self._activation:
            before_activation = ARENA.take(self._y.nbytes)
            self._activation.backward(y, dy, before_activation)
            dy = before_activation
        if db:
            self._bias_gradient(dy, db, add_db)
        if not (dx or dw):
            return
        dh = in_layout(self._y, dy, self._last)
        if self._normalization:
            z, *statistics = self._kept_by_normalization(kept)
            dz = ARENA.take(self._last.nbytes)
            self._normalization.backward(z, dh, dz, *statistics)
            dh = in_layout(self._last, dz, self._convolution.y_layout)
        straight_to_dx = dx and not self._padding.copies and not add_dx
        dpadded = dx if straight_to_dx or not dx else ARENA.take(self._convolution.x_layout.nbytes)
        self._convolution.backward(kept if self._keeps_x else x, w, dh, dpadded, dw, add_dw)
        if dx and not straight_to_dx:
            self._padding.backward(dpadded, dx, add_dx)

    def _bias_gradient(self, dy: int, db: int, accumulate: bool) -> None:
        gradient, total = self._by_channel(dy, db)
        with GRADIENTS:
            if not accumulate:
                total[...] = 0
            total += gradient.sum(axis=(2, 3), keepdims=True).sum(axis=0)

    def _by_channel(self, y: int, b: int) -> Tuple[np.ndarray, np.ndarray]:
        """Return a tensor in y's layout as (N, groups, H, W, channels in a group), and b to be broadcast to it."""
        batch, channels, height, width = self.shape
        groups = channels // self._group
        return view(y, (batch, groups, height, width, self._group)), view(b, (groups, 1, 1, self._group))


@per_thread
def plan(description: Description, for_weights: bool) -> Plan:
    """Return this thread's plan for a layer; `for_weights`: whether the gradient of the weights is wanted."""
    return Plan(description, for_weights)
