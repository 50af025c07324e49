# SPDX-License-Identifier: Apache-2.0
"""Convolution and deconvolution with their gradients, on the addresses of tensors."""

from __future__ import annotations

import math
from ctypes import c_int, c_void_p
from dataclasses import dataclass
from typing import Any, Dict

import numpy as np

from backend.onednn.library import ANY, DIRECT, FORWARD, library
from backend.onednn.memory import ARENA, Layout, Shape, blocked, descriptor, dims, plain, view
from backend.onednn.primitives import Primitive, attributes, in_layout, reorder
from backend.onednn.threads import GRADIENTS, per_thread


@dataclass(frozen=True)
class Geometry:
    """A convolution of x (N, C, H, W) by w (O, C, kh, kw), or a deconvolution by w (C, O, kh, kw).

    In a `depthwise` convolution each channel has a kernel of its own, w (C, 1, kh, kw).
    """

    x: Shape
    w: Shape
    stride: int = 1
    pad: int = 0
    transposed: bool = False
    output_padding: int = 0
    depthwise: bool = False

    @property
    def grouped_w(self) -> Shape:
        """The shape of w as oneDNN takes it: in groups of one channel where the convolution is `depthwise`."""
        return (self.w[0], 1, *self.w[1:]) if self.depthwise else self.w

    @property
    def y(self) -> Shape:
        """The shape of the result."""
        sizes = self.x[2:]
        kernels = self.w[2:]
        if self.transposed:
            channels = self.w[1]
            out = [(s - 1) * self.stride - 2 * self.pad + k + self.output_padding for s, k in zip(sizes, kernels)]
        else:
            channels = self.w[0]
            out = [(s + 2 * self.pad - k) // self.stride + 1 for s, k in zip(sizes, kernels)]
        return (self.x[0], channels, *out)

    @property
    def products(self) -> int:
        """The number of multiply-adds of the result, and of each of its gradients."""
        dst = self.x if self.transposed else self.y
        return dst[0] * math.prod(dst[2:]) * math.prod(self.w)


@dataclass(frozen=True)
class _Kernel:
    """One of the three products of a convolution, and the layouts of its tensors (of their gradients)."""

    primitive: Primitive
    src: Layout
    weights: Layout
    dst: Layout


class _Convolution:
    """Convolution and its two gradients, between x in `x_layout` and y in `y_layout`; weights and theirs are plain.

    A deconvolution is the gradient of a convolution with respect to its source. So oneDNN is given a convolution from
    src to dst in both cases, with src = x and dst = y, or for a deconvolution src = y and dst = x.
    """

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = geometry
        src, dst = (geometry.y, geometry.x) if geometry.transposed else (geometry.x, geometry.y)
        self._src_shape = src
        self._dst_shape = dst
        left = (geometry.pad, geometry.pad)
        right = [
            (d - 1) * geometry.stride + kernel - s - geometry.pad
            for s, d, kernel in zip(src[2:], dst[2:], geometry.w[2:])
        ]
        dilation = (0, 0)
        strides = (geometry.stride, geometry.stride)
        self._window = (dims(strides), dims(dilation), dims(left), dims(right))
        self._any_src = descriptor(src, ANY)
        self._any_weights = descriptor(geometry.grouped_w, ANY)
        any_dst = descriptor(dst, ANY)
        # the gradients' descriptors are made with a hint from the forward one
        self._hint = self._describe_forward(self._any_src, any_dst)
        self._src = blocked(src) or Layout.of(library().memory_descriptor(self._hint, "src"))
        self._dst = blocked(dst) or Layout.of(library().memory_descriptor(self._hint, "dst"))
        self._weights = plain(geometry.grouped_w)
        self.x_layout, self.y_layout = (self._dst, self._src) if geometry.transposed else (self._src, self._dst)
        self._kernels: Dict[str, _Kernel] = {}

    def forward(self, x: int, w: int, y: int) -> None:
        """Write y."""
        if self.geometry.transposed:
            self._write_src(x, w, y)
        else:
            self._write_dst(x, w, y)

    def backward(self, x: int, w: int, dy: int, dx: int, dw: int, accumulate: bool) -> None:
        """Write dx, and write or add dw, each unless its address is 0; x is needed for dw only."""
        if dw:
            self._weight_gradient(x, dy, dw, accumulate)
        if dx:
            self._data_gradient(w, dy, dx)

    def _data_gradient(self, w: int, dy: int, dx: int) -> None:
        if self.geometry.transposed:
            self._write_dst(dy, w, dx)
        else:
            self._write_src(dy, w, dx)

    def _weight_gradient(self, x: int, dy: int, dw: int, accumulate: bool) -> None:
        kernel = self._kernel("weights")
        src, dst = (dy, x) if self.geometry.transposed else (x, dy)
        src = in_layout(self._src, src, kernel.src)
        dst = in_layout(self._dst, dst, kernel.dst)
        if kernel.weights is self._weights and not accumulate:
            kernel.primitive(src, dw, dst)
            return
        gradient = ARENA.take(kernel.weights.nbytes)
        kernel.primitive(src, gradient, dst)
        with GRADIENTS:
            reorder(kernel.weights, gradient, self._weights, dw, accumulate)

    def _write_dst(self, src: int, w: int, dst: int) -> None:
        """dst = the convolution of src by w."""
        kernel = self._kernel("forward")
        src = in_layout(self._src, src, kernel.src)
        weights = in_layout(self._weights, w, kernel.weights)
        result = dst if kernel.dst is self._dst else ARENA.take(kernel.dst.nbytes)
        kernel.primitive(src, weights, result)
        if result != dst:
            reorder(kernel.dst, result, self._dst, dst)

    def _write_src(self, dst: int, w: int, src: int) -> None:
        """src = the gradient of that convolution with respect to its source, where that of the result is dst."""
        kernel = self._kernel("data")
        dst = in_layout(self._dst, dst, kernel.dst)
        weights = in_layout(self._weights, w, kernel.weights)
        result = src if kernel.src is self._src else ARENA.take(kernel.src.nbytes)
        kernel.primitive(dst, weights, result)
        if result != src:
            reorder(kernel.src, result, self._src, src)

    def _kernel(self, kind: str) -> _Kernel:
        """Return the product "forward", "data" or "weights"; it is made when first needed."""
        if kind not in self._kernels:
            self._kernels[kind] = self._make(kind)
        return self._kernels[kind]

    def _make(self, kind: str) -> _Kernel:
        lib = library()
        describe = {
            "forward": self._describe_forward,
            "data": self._describe_data_gradient,
            "weights": self._describe_weight_gradient,
        }[kind]
        # for few channels oneDNN reads plain tensors well, but is very slow at writing them
        any_src = kind == "data" and not blocked(self._src_shape)
        chosen = describe(self._any_src if any_src else self._src.descriptor, self._dst.descriptor)
        if lib.implementation(chosen).startswith("ref"):
            # the reference implementation: plain loops, hundreds of times as slow, for want of a better one for some
            # numbers of channels in blocks
            chosen = describe(plain(self._src_shape).descriptor, plain(self._dst_shape).descriptor)
        src_role, weights_role, dst_role = {
            "forward": ("src", "weights", "dst"),
            "data": ("diff_src", "weights", "diff_dst"),
            "weights": ("src", "diff_weights", "diff_dst"),
        }[kind]
        src = Layout.of(lib.memory_descriptor(chosen, src_role))
        weights = Layout.of(lib.memory_descriptor(chosen, weights_role))
        dst = Layout.of(lib.memory_descriptor(chosen, dst_role))
        # in the order of the addresses when it is called
        if kind == "data":
            roles = {dst_role: dst, weights_role: weights, src_role: src}
        else:
            roles = {src_role: src, weights_role: weights, dst_role: dst}
        return _Kernel(Primitive(chosen, roles, self.geometry.products), src, weights, dst)

    def _describe_forward(self, src: c_void_p, dst: c_void_p) -> c_void_p:
        sides = (src, self._any_weights, None, dst)
        options = (c_int(FORWARD), c_int(DIRECT))
        return library().primitive_descriptor("convolution_forward", *options, *sides, *self._window, attributes())

    def _describe_data_gradient(self, src: c_void_p, dst: c_void_p) -> c_void_p:
        rest = (*self._window, self._hint, attributes())
        sides = (src, self._any_weights, dst)
        return library().primitive_descriptor("convolution_backward_data", c_int(DIRECT), *sides, *rest)

    def _describe_weight_gradient(self, src: c_void_p, dst: c_void_p) -> c_void_p:
        rest = (*self._window, self._hint, attributes())
        sides = (src, self._any_weights, None, dst)
        return library().primitive_descriptor("convolution_backward_weights", c_int(DIRECT), *sides, *rest)


class _FewOutputs:
    """A wide convolution to very few channels, which oneDNN would pad to 16: faster with columns as channels.

    The kernel's columns become output channels of a convolution with one column, t[o, j, p, q], and
    y[o, p, q] = sum over j of t[o, j, p, q + j].
    """

    def __init__(self, geometry: Geometry) -> None:
        out, channels, height, width = geometry.w
        self.geometry = geometry
        self._inner = _Convolution(Geometry(geometry.x, (out * width, channels, height, 1)))
        self._t = plain(self._inner.geometry.y)
        self._w = plain(self._inner.geometry.w)
        self._t_shape = (geometry.x[0], out, width, *self._inner.geometry.y[2:])
        self.x_layout = self._inner.x_layout
        self.y_layout = plain(geometry.y)

    def forward(self, x: int, w: int, y: int) -> None:
        """Write y."""
        inner_y = ARENA.take(self._inner.y_layout.nbytes)
        self._inner.forward(x, self._columns_first(w), inner_y)
        t = view(in_layout(self._inner.y_layout, inner_y, self._t), self._t_shape)
        result = view(y, self.geometry.y)
        width = result.shape[3]
        terms = [t[:, :, j, :, j : j + width] for j in range(t.shape[2])]
        while len(terms) > 1:  # in pairs, which rounds less than one after the other
            sums = [first + second for first, second in zip(terms[0::2], terms[1::2])]
            terms = sums + terms[2 * len(sums) :]
        result[...] = terms[0]

    def backward(self, x: int, w: int, dy: int, dx: int, dw: int, accumulate: bool) -> None:
        """See `_Convolution.backward`."""
        dt_plain = ARENA.take(self._t.nbytes)
        t = view(dt_plain, self._t_shape)
        gradient = view(dy, self.geometry.y)
        t[...] = 0
        for j in range(t.shape[2]):
            t[:, :, j, :, j : j + gradient.shape[3]] = gradient
        dt = in_layout(self._t, dt_plain, self._inner.y_layout)
        columns = ARENA.take(self._w.nbytes) if dw else 0
        self._inner.backward(x, self._columns_first(w) if dx else 0, dt, dx, columns, False)
        if dw:
            out, channels, height, width = self.geometry.w
            term = view(columns, (out, width, channels, height)).transpose(0, 2, 3, 1)
            total = view(dw, self.geometry.w)
            with GRADIENTS:
                if accumulate:
                    np.add(total, term, out=total)
                else:
                    np.copyto(total, term)

    def _columns_first(self, w: int) -> int:
        out, channels, height, width = self.geometry.w
        copy = ARENA.take(self._w.nbytes)
        view(copy, (out, width, channels, height))[...] = view(w, self.geometry.w).transpose(0, 3, 1, 2)
        return copy


class _FewInputs(_Convolution):
    """A wide convolution from very few channels, with a data gradient by columns, as in `_FewOutputs`."""

    def __init__(self, geometry: Geometry) -> None:
        super().__init__(geometry)
        batch, channels, height, _ = geometry.x
        out, _, rows, columns = geometry.w
        y_width = geometry.y[3]
        self._t_shape = (batch, channels, columns, height, y_width)
        inner_x = (batch, channels * columns, height, y_width)
        self._inner = _Convolution(Geometry(inner_x, (out, channels * columns, rows, 1)))

    def _data_gradient(self, w: int, dy: int, dx: int) -> None:
        inner = self._inner
        out, channels, rows, columns = self.geometry.w
        inner_w = ARENA.take(4 * math.prod(self.geometry.w))
        view(inner_w, (out, channels, columns, rows))[...] = view(w, self.geometry.w).transpose(0, 1, 3, 2)
        inner_dx = ARENA.take(inner.x_layout.nbytes)
        inner.backward(0, inner_w, in_layout(self.y_layout, dy, inner.y_layout), inner_dx, 0, False)
        t = view(in_layout(inner.x_layout, inner_dx, plain(inner.geometry.x)), self._t_shape)
        layout = plain(self.geometry.x)
        dx_plain = dx if self.x_layout is layout else ARENA.take(layout.nbytes)
        total = view(dx_plain, self.geometry.x)
        total[...] = 0
        for j in range(columns):
            total[..., j : j + t.shape[4]] += t[:, :, j]
        reorder(layout, dx_plain, self.x_layout, dx)


@per_thread
def convolution(geometry: Geometry) -> Any:
    """Return the fastest of the three for this shape."""
    wide = min(geometry.w[2:]) >= 5 and geometry.stride == 1 and geometry.pad == 0 and not geometry.transposed
    if geometry.depthwise:
        return _Convolution(geometry)
    if wide and geometry.w[0] <= 4:
        return _FewOutputs(geometry)
    if wide and geometry.w[1] <= 4:
        return _FewInputs(geometry)
    return _Convolution(geometry)
