# SPDX-License-Identifier: Apache-2.0
"""The parts of a layer around its convolution: reflection padding, instance normalization and activations."""

from __future__ import annotations

from ctypes import c_float, c_int, c_uint, c_void_p
from typing import Union

import numpy as np

from backend.onednn.library import (
    BACKWARD,
    CLIP_FROM_RESULT,
    FORWARD,
    FUSE_RELU,
    GIVEN_STATISTICS,
    RELU_FROM_RESULT,
    library,
)
from backend.onednn.memory import ARENA, Layout, Shape, block_size, blocked, plain, spatial_shape, view
from backend.onednn.primitives import Primitive, attributes, in_layout, reorder

EPS = 1e-5
# oneDNN's algorithm and its two parameters: the slope below 0 of a ReLU, the bounds of a clip
_RECTIFIERS = {
    "relu": (RELU_FROM_RESULT, 0.0, 0.0),
    "leaky_relu": (RELU_FROM_RESULT, 0.2, 0.0),
    "relu6": (CLIP_FROM_RESULT, 0.0, 6.0),
}


class Padding:
    """Reflection padding by `width` of a tensor (N, C, H, W), and its gradient.

    The tensor comes in layout `outer`; the padded one is written in layout `target`.
    """

    def __init__(self, shape: Shape, outer: Layout, width: int, target: Layout) -> None:
        batch, channels, height, image_width = shape
        self.width = width
        self.target = target
        self._outer = outer
        padded = (batch, channels, height + 2 * width, image_width + 2 * width)
        # pads in the target's layout where NumPy can address it, else in the plain one
        self._stage = target if spatial_shape(target, padded) else plain(padded)
        self._stage_shape = spatial_shape(self._stage, padded)
        self._inner = self._stage.window(shape, (0, 0, width, width)) if width else self._outer

    @property
    def copies(self) -> bool:
        """Return whether the padded tensor is a copy: there is padding, or the layouts differ."""
        return self.target is not self._outer

    def forward(self, x: int, padded: int) -> None:
        """Write the padded tensor."""
        if not self.width:
            reorder(self._outer, x, self.target, padded)
            return
        stage = padded if self._stage is self.target else ARENA.take(self._stage.nbytes)
        reorder(self._outer, x, self._inner, stage)
        r = self.width
        p = view(stage, self._stage_shape)
        inside = p[:, r:-r]
        inside[:, :, :r] = inside[:, :, 2 * r : r : -1]
        inside[:, :, -r:] = inside[:, :, -r - 2 : -2 * r - 2 : -1]
        p[:, :r] = p[:, 2 * r : r : -1]
        p[:, -r:] = p[:, -r - 2 : -2 * r - 2 : -1]
        reorder(self._stage, stage, self.target, padded)

    def backward(self, dpadded: int, dx: int, accumulate: bool) -> None:
        """Write or add dx. The tensor at `dpadded` is overwritten."""
        if not self.width:
            reorder(self.target, dpadded, self._outer, dx, accumulate)
            return
        stage = in_layout(self.target, dpadded, self._stage)
        r = self.width
        p = view(stage, self._stage_shape)
        p[:, 2 * r : r : -1] += p[:, :r]
        p[:, -r - 2 : -2 * r - 2 : -1] += p[:, -r:]
        inside = p[:, r:-r]
        inside[:, :, 2 * r : r : -1] += inside[:, :, :r]
        inside[:, :, -r - 2 : -2 * r - 2 : -1] += inside[:, :, -r:]
        reorder(self._inner, stage, self._outer, dx, accumulate)


class Normalization:
    """Instance normalization of a tensor (N, C, H, W), with its ReLU: batch normalization of (1, N C, H, W).

    oneDNN adds a whole channel up in one float32, which costs two digits where the mean is large. So it computes the
    statistics of each row, by batch normalization of (1, N C H, 1, W), and those are combined here in float64.
    """

    def __init__(self, shape: Shape, preferred: Layout, relu: bool) -> None:
        batch, channels, height, width = shape
        blocked_layout = blocked(shape)
        is_blocked = blocked_layout is not None and preferred is blocked_layout
        self.layout = blocked_layout if is_blocked else plain(shape)
        layout_of = blocked if is_blocked else plain
        instances = layout_of((1, batch * channels, height, width))
        rows = layout_of((1, batch * channels * height, 1, width))
        group = block_size() if is_blocked else 1
        self._rows_shape = (batch * channels // group, height, group)

        flags = FUSE_RELU if relu else 0
        per_instance = Layout.tagged((batch * channels,), "a")
        per_row = Layout.tagged((batch * channels * height,), "a")
        hint = self._describe_forward(instances, flags)
        kept = {"mean": per_instance, "variance": per_instance}
        if relu:
            kept["workspace"] = Layout.of(library().memory_descriptor(hint, "workspace"))
        # the bytes of each tensor that `backward` needs
        self.kept = [layout.nbytes for layout in kept.values()]
        of_rows = self._describe_forward(rows, 0)
        self._statistics_of_rows = Primitive(of_rows, {"src": rows, "dst": rows, "mean": per_row, "variance": per_row})
        apply = self._describe_forward(instances, flags | GIVEN_STATISTICS)
        self._apply = Primitive(apply, {"src": instances, "dst": instances, **kept})
        backward = library().primitive_descriptor(
            "batch_normalization_backward",
            c_int(BACKWARD),
            *(instances.descriptor, instances.descriptor, instances.descriptor),
            *(c_float(EPS), c_uint(flags), hint, attributes()),
        )
        self.backward = Primitive(backward, {"src": instances, "diff_dst": instances, "diff_src": instances, **kept})

    def forward(self, z: int, y: int, mean: int, variance: int, *workspace: int) -> None:
        """Normalize z into y, and write its statistics (N, C)."""
        groups, height, group = self._rows_shape
        row_means_address = ARENA.take(4 * groups * height * group)
        row_variances_address = ARENA.take(4 * groups * height * group)
        self._statistics_of_rows(z, y, row_means_address, row_variances_address)
        row_means = view(row_means_address, self._rows_shape)
        row_variances = view(row_variances_address, self._rows_shape)
        whole_mean = np.add.reduce(row_means, axis=1, dtype=np.float64) / height
        squares = row_means - whole_mean[:, np.newaxis]
        np.multiply(squares, squares, out=squares)
        squares += row_variances
        view(mean, (groups, group))[...] = whole_mean
        view(variance, (groups, group))[...] = np.add.reduce(squares, axis=1) / height
        self._apply(z, y, mean, variance, *workspace)

    @staticmethod
    def _describe_forward(layout: Layout, flags: int) -> c_void_p:
        return library().primitive_descriptor(
            "batch_normalization_forward",
            c_int(FORWARD),
            *(layout.descriptor, layout.descriptor),
            *(c_float(EPS), c_uint(flags), attributes()),
        )


class Rectifier:
    """ReLU, ReLU6 or LeakyReLU of `size` numbers, in place; the gradient is taken from the result."""

    def __init__(self, kind: str, size: int) -> None:
        layout = Layout.tagged((size,), "a")
        side = layout.descriptor
        number, first, second = _RECTIFIERS[kind]
        algorithm = c_int(number)
        parameters = (c_float(first), c_float(second))
        forward = library().primitive_descriptor(
            "eltwise_forward", c_int(FORWARD), algorithm, side, side, *parameters, attributes()
        )
        backward = library().primitive_descriptor(
            "eltwise_backward", algorithm, side, side, side, *parameters, forward, attributes()
        )
        self._forward = Primitive(forward, {"src": layout, "dst": layout})
        # (y, dy, dx)
        self.backward = Primitive(backward, {"dst": layout, "diff_dst": layout, "diff_src": layout})

    def forward(self, y: int) -> None:
        """Replace y by its activation."""
        self._forward(y, y)


class Tanh:
    """The tanh of `size` numbers, as `Rectifier`; oneDNN's own is off by 5e-6."""

    def __init__(self, size: int) -> None:
        self._shape = (size,)

    def forward(self, y: int) -> None:
        """Replace y by its tanh."""
        values = view(y, self._shape)
        np.tanh(values, out=values)

    def backward(self, y: int, dy: int, dx: int) -> None:
        """dx = dy (1 - y^2)."""
        values = view(y, self._shape)
        gradient = view(dx, self._shape)
        np.multiply(values, values, out=gradient)
        np.subtract(1, gradient, out=gradient)
        np.multiply(gradient, view(dy, self._shape), out=gradient)


Activation = Union[Rectifier, Tanh]


def activation(kind: str, size: int) -> Activation:
    """Return "relu", "relu6", "leaky_relu" (slope 0.2) or "tanh" of `size` numbers."""
    return Tanh(size) if kind == "tanh" else Rectifier(kind, size)
