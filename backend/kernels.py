# SPDX-License-Identifier: Apache-2.0
"""Fast convolutional layers for NNabla's cpu context, on oneDNN (the library under PyTorch's CPU convolutions).

NNabla's own CPU convolution is single-threaded SSE. oneDNN is a plain C library without dependencies, which the
package `onednn-cpu-gomp` puts into the environment's `lib`; it is called here through ctypes. This file holds, from
the bottom up: the binding of the few C calls needed, layouts and primitives made once per shape, convolution and
instance normalization on them, and `Layer`, the NNabla function of a whole layer: reflection padding, convolution or
deconvolution, instance normalization, activation and skip connection, forward and backward.

oneDNN is fastest in blocked layouts (channels in groups of 8 or 16), so layers hand these to each other: in variables
of the shape NCHW that only another layer, or `unblock`, may read. `layers.Blocked` sees to that.

Two threads may train side by side (`side_by_side`). NNabla is used by the one that holds `_NNABLA`; without it a thread
works on addresses only, with primitives and scratch memory of its own. Gradients that both add to are added to under
`_GRADIENTS`, which is taken after `_NNABLA`, if both are held, and never the other way round.
"""

from __future__ import annotations

import ctypes
import math
import os
import platform
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from ctypes import POINTER, byref, c_char_p, c_float, c_int, c_int64, c_size_t, c_uint, c_void_p
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Set, Tuple

import nnabla as nn
import numpy as np
import threadpoolctl
from nnabla.function import PythonFunction

from backend.arrays import on_cpu
from common.errors import UserError

VERSION = (3, 2)
EPS = 1e-5
_SAMPLES = 4  # pictures or masks that go through a layer at a time
_PIECE = 1 << 15  # numbers that one thread works on at a time: a few such arrays fit into the cache of a core

# Constants of dnnl_types.h, version 3.2.
_CPU, _F32, _ANY, _IN_ORDER, _DIRECT, _USER_SCRATCHPAD = 1, 3, 1, 1, 1, 1
_GIVEN_STATISTICS, _FUSE_RELU = 1, 8
_TAGS = {"a": 2, "nchw": 5, "nChw16c": 78, "nChw8c": 102}
_FORWARD, _BACKWARD, _IMPLEMENTATION = 64, 128, 8
_MD = {"src": 129, "diff_src": 130, "weights": 131, "diff_weights": 132, "dst": 133, "diff_dst": 134}
_MD.update(workspace=135, scratchpad=136)
_ARG = {"src": 1, "dst": 17, "weights": 33, "bias": 41, "mean": 49, "variance": 50, "workspace": 64, "scratchpad": 80}
_ARG.update(diff_src=129, diff_dst=145, diff_weights=161, diff_bias=169)
# This one takes the gradient from the activation's result, so that its input need not be kept.
_RELU_FROM_RESULT = 256
_SLOPE = {"relu": 0.0, "leaky_relu": 0.2}
_ISA_AVX2, _ISA_AVX512 = 0x7, 0x27

# what functions are called in NNabla's graphs
_LAYER, _SPECTRAL_NORMALIZATION = "OneDnnLayer", "BlasSpectralNormalization"

Shape = Tuple[int, ...]
# the address of a gradient, and whether to add to what is there
Gradient = Tuple[int, bool]


class _ExecArg(ctypes.Structure):
    _fields_ = [("arg", c_int), ("memory", c_void_p)]


class _Version(ctypes.Structure):
    _fields_ = [(name, c_int) for name in ("major", "minor", "patch")]


class _Library:
    """libdnnl with an engine and a stream. `call` runs one of its functions and raises RuntimeError on its errors."""

    def __init__(self) -> None:
        # read when libgomp is loaded: its threads are not to spin for long while they wait for each other, since
        # on a machine that does other work too they wait for one that is not running, and a step takes minutes
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")
        path = str(Path(sys.prefix) / "lib" / "libdnnl.so.3")
        self._lib = ctypes.CDLL(path)
        self._lib.dnnl_version.restype = POINTER(_Version)
        self._lib.dnnl_memory_desc_get_size.restype = c_size_t
        self._lib.dnnl_primitive_desc_query_md.restype = c_void_p
        # calls through PyDLL keep the interpreter: to hand it to another thread and back takes longer than short ones
        short = ctypes.PyDLL(path)
        self.set_handle, self.execute_short = short.dnnl_memory_set_data_handle, short.dnnl_primitive_execute
        self.execute = self._lib.dnnl_primitive_execute
        self.set_handle.argtypes = [c_void_p, c_void_p]
        self.execute.argtypes = self.execute_short.argtypes = [c_void_p, c_void_p, c_int, c_void_p]
        version = self._lib.dnnl_version().contents
        self.version = (version.major, version.minor, version.patch)
        self.isa: int = self._lib.dnnl_get_effective_cpu_isa()
        self.engine = self.new("engine_create", c_int(_CPU), c_size_t(0))
        self.stream = self.new("stream_create", self.engine, c_uint(_IN_ORDER))

    def call(self, name: str, *args: Any) -> None:
        status = getattr(self._lib, "dnnl_" + name)(*args)
        if status:
            raise RuntimeError(f"oneDNN: {name} fails with status {status}")

    def new(self, name: str, *args: Any) -> c_void_p:
        """The object that a create function makes; it lives as long as the process, as all that is made here does."""
        result = c_void_p()
        self.call(name, byref(result), *args)
        return result

    def size(self, descriptor: c_void_p) -> int:
        return self._lib.dnnl_memory_desc_get_size(descriptor)

    def equal(self, one: c_void_p, other: c_void_p) -> bool:
        return bool(self._lib.dnnl_memory_desc_equal(one, other))

    def implementation(self, primitive_desc: c_void_p) -> str:
        """What oneDNN calls the code it has chosen."""
        name = c_char_p()
        self.call("primitive_desc_query", primitive_desc, c_int(_IMPLEMENTATION), c_int(0), byref(name))
        return name.value.decode()

    def query(self, primitive_desc: c_void_p, role: str) -> c_void_p:
        return c_void_p(self._lib.dnnl_primitive_desc_query_md(primitive_desc, c_int(_MD[role]), c_int(0)))


@lru_cache(maxsize=None)
def _library() -> _Library:
    return _Library()


class _Arena(threading.local):
    """A thread's memory for what lives within one call. `take` hands out pieces until `reset` takes them all back."""

    def __init__(self) -> None:
        self._blocks: List[np.ndarray] = []
        self._add(64)

    def _add(self, nbytes: int) -> None:
        block = np.empty(nbytes, np.uint8)
        self._blocks.append(block)
        self._first = self._next = block.ctypes.data
        self._end = self._first + nbytes

    def reset(self) -> None:
        self._next = self._first
        if len(self._blocks) > 1:
            total = sum(block.size for block in self._blocks)
            self._blocks.clear()
            self._add(total)

    def take(self, nbytes: int) -> int:
        """The address of `nbytes` bytes, aligned to a cache line."""
        start = (self._next + 63) & ~63
        if start + nbytes > self._end:
            # what has been handed out stays where it is; the next reset makes one block of all
            self._add(nbytes + 64)
            start = (self._next + 63) & ~63
        self._next = start + nbytes
        return start


# NNabla's compiled modules say "import nnabla" whenever they call back into Python, and each time look for a module
# nnabla.nnabla first: 7000 searches of the disk in a training step. It finds NNabla now.
sys.modules.setdefault("nnabla.nnabla", nn)


class _Team(threading.local):
    """How many threads the kernels that this thread calls may use, and whether it is a lane (see `side_by_side`)."""

    size, is_lane = 0, False


class _OfThread(threading.local):
    """Remembers what `make` gave for each key, for each thread its own: primitives hold the addresses they work on."""

    def __init__(self, make: Callable[..., Any]) -> None:
        self._known = lru_cache(maxsize=None)(make)

    def __call__(self, *key: Any) -> Any:
        return self._known(*key)


_ARENA, _TEAM = _Arena(), _Team()
# held by the lane that uses NNabla, which is not made for more than one thread
_NNABLA = threading.Lock()
# held while something is added to the gradient of a parameter, which layers of both lanes may share
_GRADIENTS = threading.Lock()


def _is_long(products: int) -> bool:
    """Whether so much work, about 0.4 ms on one thread, is worth letting another thread have its turn for."""
    return products > 15_000_000


def _view(address: int, shape: Shape) -> np.ndarray:
    """The float32 array at `address`; the caller knows that the memory outlives it."""
    return np.ndarray(shape, np.float32, _floats(math.prod(shape)).from_address(address))


@lru_cache(maxsize=None)
def _floats(count: int) -> Any:
    return c_float * count


def _threads() -> int:
    """A lane's share, else as many as OpenMP takes: OMP_NUM_THREADS, or one for each core that the process may use."""
    if not _TEAM.size:
        asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
        _TEAM.size = max(1, int(asked)) if asked.isdigit() else len(os.sched_getaffinity(0))
    return _TEAM.size


@lru_cache(maxsize=None)
def _helpers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(len(os.sched_getaffinity(0)))


def _in_pieces(work: Callable[[slice], None], length: int, width: int = 1) -> None:
    """Do `work` on slices of range(`length`) small enough for the cache, `width` numbers each, on all threads.

    NumPy lets other threads run while it computes. Pieces do not depend on the number of threads.
    """
    step = max(1, _PIECE // width)
    pieces = [slice(start, min(start + step, length)) for start in range(0, length, step)]
    share = -(-len(pieces) // _threads())

    def run(some: List[slice]) -> None:
        for piece in some:
            work(piece)

    others = [_helpers().submit(run, pieces[i : i + share]) for i in range(share, len(pieces), share)]
    run(pieces[:share])
    for other in others:
        other.result()


class Layout:
    """How a tensor lies in memory: oneDNN's memory descriptor. Equal layouts are the same object."""

    _known: Dict[int, List[Layout]] = {}
    _lock = threading.Lock()

    def __init__(self, descriptor: c_void_p) -> None:
        self.descriptor, self.nbytes = descriptor, _library().size(descriptor)

    @classmethod
    def of(cls, descriptor: c_void_p) -> Layout:
        """The one object for this layout."""
        with cls._lock:
            known = cls._known.setdefault(_library().size(descriptor), [])
            for layout in known:
                if _library().equal(layout.descriptor, descriptor):
                    return layout
            known.append(cls(descriptor))
            return known[-1]

    @classmethod
    @lru_cache(maxsize=None)
    def tagged(cls, shape: Shape, tag: str) -> Layout:
        """One of the layouts that have a name. A descriptor is made once, since none is ever given back."""
        return cls.of(_descriptor(shape, _TAGS[tag]))

    def window(self, shape: Shape, offset: Shape) -> Layout:
        """The part of this layout that starts at `offset`."""
        return Layout.of(_library().new("memory_desc_create_submemory", self.descriptor, _dims(shape), _dims(offset)))


def _dims(values: Sequence[int]) -> ctypes.Array:
    return (c_int64 * 12)(*values)


def _descriptor(shape: Shape, tag: int) -> c_void_p:
    return _library().new("memory_desc_create_with_tag", c_int(len(shape)), _dims(shape), c_int(_F32), c_int(tag))


def _plain(shape: Shape) -> Layout:
    return Layout.tagged(shape, "nchw")


def _block() -> int:
    """Channels in a group of the blocked layout, as oneDNN's kernels for this CPU want it."""
    return 16 if _library().isa & _ISA_AVX512 == _ISA_AVX512 else 8


def _blocked(shape: Shape) -> Optional[Layout]:
    """The blocked layout, where it holds these channels without padding."""
    return None if shape[1] % _block() else Layout.tagged(shape, f"nChw{_block()}c")


def _spatial_view(layout: Layout, shape: Shape) -> Optional[Shape]:
    """The shape (groups, H, W, channels in a group) that a plain or blocked tensor has; None for other layouts."""
    batch, channels, height, width = shape
    if layout is _plain(shape):
        return batch * channels, height, width, 1
    if layout is _blocked(shape):
        return batch * channels // _block(), height, width, _block()
    return None


class _Primitive:
    """A oneDNN primitive of so many `products`, with its memories. Call it with the addresses of `roles`, in order."""

    def __init__(self, primitive_desc: c_void_p, roles: Dict[str, Layout], products: int = 0) -> None:
        lib = _library()
        self._primitive = lib.new("primitive_create", primitive_desc)
        scratch = lib.query(primitive_desc, "scratchpad")
        self._scratch = lib.size(scratch)
        pairs = [(_ARG[role], layout.descriptor) for role, layout in roles.items()]
        pairs += [(_ARG["scratchpad"], scratch)] if self._scratch else []
        memories = [lib.new("memory_create", descriptor, lib.engine, None) for _, descriptor in pairs]
        self._memories = [memory.value for memory in memories]
        self._args = (_ExecArg * len(pairs))(*[_ExecArg(arg, m) for (arg, _), m in zip(pairs, memories)])
        self._call = (self._primitive, lib.stream, len(pairs), ctypes.addressof(self._args))
        numbers = sum(layout.nbytes for layout in roles.values()) // 4
        self._set_handle = lib.set_handle
        self._execute = lib.execute if _is_long(products + 10 * numbers) else lib.execute_short

    def __call__(self, *addresses: int) -> None:
        if self._scratch:
            addresses += (_ARENA.take(self._scratch),)
        for memory, address in zip(self._memories, addresses):
            self._set_handle(memory, address)
        status = self._execute(*self._call)
        if status:
            raise RuntimeError(f"oneDNN: a primitive fails with status {status}")


@lru_cache(maxsize=None)
def _attributes(accumulate: bool = False) -> c_void_p:
    """Scratch memory is the caller's; with `accumulate` the result is added to what the destination holds."""
    lib = _library()
    attributes = lib.new("primitive_attr_create")
    lib.call("primitive_attr_set_scratchpad_mode", attributes, c_int(_USER_SCRATCHPAD))
    if accumulate:
        post = lib.new("post_ops_create")
        lib.call("post_ops_append_sum", post, c_float(1), c_int(0), c_int(_F32))
        lib.call("primitive_attr_set_post_ops", attributes, post)
    return attributes


@_OfThread
def _reorder(source: Layout, target: Layout, accumulate: bool) -> Optional[_Primitive]:
    """The primitive that copies (or adds); None for the layouts that oneDNN cannot add into others."""
    lib = _library()
    sides = source.descriptor, lib.engine, target.descriptor, lib.engine
    try:
        pd = lib.new("reorder_primitive_desc_create", *sides, _attributes(accumulate))
    except RuntimeError:
        if accumulate:
            return None
        raise
    return _Primitive(pd, {"src": source, "dst": target})


def _move(source: Layout, address: int, target: Layout, to: int, accumulate: bool = False) -> None:
    """Copy (or add) a tensor from one layout into another."""
    if source is not target:
        primitive = _reorder(source, target, accumulate)
        if primitive:
            return primitive(address, to)
        copy = _ARENA.take(target.nbytes)
        _move(source, address, target, copy)
        address = copy
    if accumulate:
        total = _view(to, (target.nbytes // 4,))
        np.add(total, _view(address, total.shape), out=total)
    elif address != to:
        ctypes.memmove(to, address, target.nbytes)
    return None


def _in_layout(source: Layout, address: int, target: Layout) -> int:
    """The address of the tensor in layout `target`: its own where it has it, else that of a copy."""
    if source is target:
        return address
    copy = _ARENA.take(target.nbytes)
    _move(source, address, target, copy)
    return copy


@dataclass(frozen=True)
class Geometry:
    """A convolution of x (N, C, H, W) by w (O, C, kh, kw), or a deconvolution by w (C, O, kh, kw)."""

    x: Shape
    w: Shape
    stride: int = 1
    pad: int = 0
    transposed: bool = False
    output_padding: int = 0

    @property
    def y(self) -> Shape:
        """The shape of the result."""
        sizes, kernels = self.x[2:], self.w[2:]
        if self.transposed:
            out = ((s - 1) * self.stride - 2 * self.pad + k + self.output_padding for s, k in zip(sizes, kernels))
            return (self.x[0], self.w[1], *out)
        return (self.x[0], self.w[0], *((s + 2 * self.pad - k) // self.stride + 1 for s, k in zip(sizes, kernels)))

    @property
    def products(self) -> int:
        """How many products of two numbers it takes, or one of its gradients."""
        far = self.x if self.transposed else self.y
        return far[0] * math.prod(far[2:]) * math.prod(self.w)


@dataclass(frozen=True)
class _Kernel:
    """One of the three products of a convolution, and the layouts in which it takes and gives its tensors."""

    primitive: _Primitive
    near: Layout
    weights: Layout
    far: Layout


class _Convolution:
    """Convolution and its two gradients, between x in `x_layout` and y in `y_layout`; weights and theirs are plain.

    A deconvolution is the gradient of a convolution with respect to its source, so it is the same with x and y
    exchanged: `_near` is the side with the larger picture and `_far` the other one.
    """

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = geometry
        near, far = (geometry.y, geometry.x) if geometry.transposed else (geometry.x, geometry.y)
        right = [(f - 1) * geometry.stride + k - n - geometry.pad for n, f, k in zip(near[2:], far[2:], geometry.w[2:])]
        left = (geometry.pad, geometry.pad)
        self._near_shape, self._far_shape = near, far
        self._window = tuple(map(_dims, ((geometry.stride,) * 2, (0, 0), left, right)))
        self._any = tuple(_descriptor(shape, _ANY) for shape in (near, geometry.w, far))
        self._hint = self._forward_desc(*self._any)
        chosen = (Layout.of(_library().query(self._hint, role)) for role in ("src", "dst"))
        self._near, self._far = (_blocked(shape) or layout for shape, layout in zip((near, far), chosen))
        self.x_layout, self.y_layout = (self._far, self._near) if geometry.transposed else (self._near, self._far)
        self._weights = _plain(geometry.w)
        self._kernels: Dict[str, _Kernel] = {}

    def forward(self, x: int, w: int, y: int) -> None:
        self._run("data" if self.geometry.transposed else "forward", x, w, y)

    def backward(self, x: int, w: int, dy: int, dx: int, dw: int, accumulate: bool) -> None:
        """Write dx and write or add dw, each where it has an address; x is needed for dw only."""
        if dw:
            self._weight_gradient(x, dy, dw, accumulate)
        if dx:
            self._data_gradient(w, dy, dx)

    def _data_gradient(self, w: int, dy: int, dx: int) -> None:
        self._run("forward" if self.geometry.transposed else "data", dy, w, dx)

    def _weight_gradient(self, x: int, dy: int, dw: int, accumulate: bool) -> None:
        kernel = self._kernel("weights")
        near, far = (dy, x) if self.geometry.transposed else (x, dy)
        near, far = _in_layout(self._near, near, kernel.near), _in_layout(self._far, far, kernel.far)
        if kernel.weights is self._weights and not accumulate:
            return kernel.primitive(near, dw, far)
        found = _ARENA.take(kernel.weights.nbytes)
        kernel.primitive(near, found, far)
        with _GRADIENTS:
            _move(kernel.weights, found, self._weights, dw, accumulate)

    def _run(self, kind: str, source: int, w: int, target: int) -> None:
        kernel = self._kernel(kind)
        ours, theirs = (self._near, self._far), (kernel.near, kernel.far)
        (reads, writes), (takes, gives) = (ours, theirs) if kind == "forward" else (ours[::-1], theirs[::-1])
        source, weights = _in_layout(reads, source, takes), _in_layout(self._weights, w, kernel.weights)
        found = target if gives is writes else _ARENA.take(gives.nbytes)
        kernel.primitive(source, weights, found)
        if found != target:
            _move(gives, found, writes, target)

    def _kernel(self, kind: str) -> _Kernel:
        """Made when first needed."""
        if kind not in self._kernels:
            self._kernels[kind] = self._make(kind)
        return self._kernels[kind]

    def _make(self, kind: str) -> _Kernel:
        lib, (near, weights, _) = _library(), self._any
        describe = {"forward": self._forward_desc, "data": self._data_desc, "weights": self._weights_desc}[kind]
        # for few channels oneDNN reads plain tensors well, but is very slow at writing them
        free = kind == "data" and not _blocked(self._near_shape)
        pd = describe(near if free else self._near.descriptor, weights, self._far.descriptor)
        if lib.implementation(pd).startswith("ref"):
            # plain loops, hundreds of times as slow: what oneDNN has for some numbers of channels in blocks
            pd = describe(_plain(self._near_shape).descriptor, weights, _plain(self._far_shape).descriptor)
        roles = {
            "forward": ("src", "weights", "dst"),
            "data": ("diff_src", "weights", "diff_dst"),
            "weights": ("src", "diff_weights", "diff_dst"),
        }[kind]
        layouts = [Layout.of(lib.query(pd, role)) for role in roles]
        # in the order in which it is called: what it reads, weights, what it writes (or both sides of a gradient)
        order = [2, 1, 0] if kind == "data" else [0, 1, 2]
        primitive = _Primitive(pd, {roles[i]: layouts[i] for i in order}, self.geometry.products)
        return _Kernel(primitive, *layouts)

    def _forward_desc(self, near: c_void_p, w: c_void_p, far: c_void_p) -> c_void_p:
        args = (c_int(_FORWARD), c_int(_DIRECT), near, w, None, far, *self._window, _attributes())
        return self._desc("convolution_forward_primitive_desc_create", *args)

    def _data_desc(self, near: c_void_p, w: c_void_p, far: c_void_p) -> c_void_p:
        args = (c_int(_DIRECT), near, w, far, *self._window, self._hint, _attributes())
        return self._desc("convolution_backward_data_primitive_desc_create", *args)

    def _weights_desc(self, near: c_void_p, w: c_void_p, far: c_void_p) -> c_void_p:
        args = (c_int(_DIRECT), near, w, None, far, *self._window, self._hint, _attributes())
        return self._desc("convolution_backward_weights_primitive_desc_create", *args)

    @staticmethod
    def _desc(name: str, *args: Any) -> c_void_p:
        return _library().new(name, _library().engine, *args)


class _FewOutputs:
    """A wide convolution to very few channels, which oneDNN would pad to 16: faster with columns as channels.

    The kernel's columns become output channels of a convolution with one column, t[o, j, p, q], and
    y[o, p, q] = sum over j of t[o, j, p, q + j].
    """

    def __init__(self, geometry: Geometry) -> None:
        (out, channels, height, width), self.geometry = geometry.w, geometry
        self._inner = _Convolution(Geometry(geometry.x, (out * width, channels, height, 1)))
        self._t, self._w = _plain(self._inner.geometry.y), _plain(self._inner.geometry.w)
        self._t_shape = (geometry.x[0], out, width, *self._inner.geometry.y[2:])
        self.x_layout, self.y_layout = self._inner.x_layout, _plain(geometry.y)

    def forward(self, x: int, w: int, y: int) -> None:
        blocked = _ARENA.take(self._inner.y_layout.nbytes)
        self._inner.forward(x, self._columns_first(w), blocked)
        t = _view(_in_layout(self._inner.y_layout, blocked, self._t), self._t_shape)
        total = _view(y, self.geometry.y)
        width = total.shape[3]
        columns = [t[:, :, j, :, j : j + width] for j in range(t.shape[2])]
        while len(columns) > 1:  # by pairs, which rounds less than one after the other
            columns = [
                np.add(*columns[j : j + 2]) if j + 1 < len(columns) else columns[j] for j in range(0, len(columns), 2)
            ]
        total[...] = columns[0]

    def backward(self, x: int, w: int, dy: int, dx: int, dw: int, accumulate: bool) -> None:
        """As that of `_Convolution`."""
        plain = _ARENA.take(self._t.nbytes)
        t, gradient = _view(plain, self._t_shape), _view(dy, self.geometry.y)
        t[...] = 0
        for j in range(t.shape[2]):
            t[:, :, j, :, j : j + gradient.shape[3]] = gradient
        dt = _in_layout(self._t, plain, self._inner.y_layout)
        columns = _ARENA.take(self._w.nbytes) if dw else 0
        self._inner.backward(x, self._columns_first(w) if dx else 0, dt, dx, columns, False)
        if dw:
            out, channels, height, width = self.geometry.w
            found = _view(columns, (out, width, channels, height)).transpose(0, 2, 3, 1)
            total = _view(dw, self.geometry.w)
            with _GRADIENTS:
                np.add(total, found, out=total) if accumulate else np.copyto(total, found)

    def _columns_first(self, w: int) -> int:
        out, channels, height, width = self.geometry.w
        copy = _ARENA.take(self._w.nbytes)
        _view(copy, (out, width, channels, height))[...] = _view(w, self.geometry.w).transpose(0, 3, 1, 2)
        return copy


class _FewInputs(_Convolution):
    """A wide convolution from very few channels; its data gradient is helped as `_FewOutputs` is."""

    def __init__(self, geometry: Geometry) -> None:
        super().__init__(geometry)
        (batch, channels, height, _), (out, _, rows, columns) = geometry.x, geometry.w
        self._t_shape = (batch, channels, columns, height, geometry.y[3])
        inner_x = (batch, channels * columns, height, geometry.y[3])
        self._inner = _Convolution(Geometry(inner_x, (out, channels * columns, rows, 1)))

    def _data_gradient(self, w: int, dy: int, dx: int) -> None:
        inner, (out, channels, rows, columns) = self._inner, self.geometry.w
        folded = _ARENA.take(4 * math.prod(self.geometry.w))
        _view(folded, (out, channels, columns, rows))[...] = _view(w, self.geometry.w).transpose(0, 1, 3, 2)
        blocked = _ARENA.take(inner.x_layout.nbytes)
        inner.backward(0, folded, _in_layout(self.y_layout, dy, inner.y_layout), blocked, 0, False)
        t = _view(_in_layout(inner.x_layout, blocked, _plain(inner.geometry.x)), self._t_shape)
        plain = dx if self.x_layout is _plain(self.geometry.x) else _ARENA.take(_plain(self.geometry.x).nbytes)
        total = _view(plain, self.geometry.x)
        total[...] = 0
        for j in range(columns):
            total[..., j : j + t.shape[4]] += t[:, :, j]
        _move(_plain(self.geometry.x), plain, self.x_layout, dx)


@_OfThread
def _convolution(geometry: Geometry) -> Any:
    """The fastest of the three for this shape."""
    wide = min(geometry.w[2:]) >= 5 and geometry.stride == 1 and geometry.pad == 0 and not geometry.transposed
    if wide and geometry.w[0] <= 4:
        return _FewOutputs(geometry)
    if wide and geometry.w[1] <= 4:
        return _FewInputs(geometry)
    return _Convolution(geometry)


class _Normalization:
    """Instance normalization, with its ReLU, of a tensor (N, C, H, W): batch normalization of (1, N C, H, W).

    oneDNN adds a whole channel up in one float32, which costs two digits where the mean is large. So it is first asked
    for the statistics of each row, batch normalization of (1, N C H, 1, W), which are put together here.
    """

    def __init__(self, shape: Shape, preferred: Layout, relu: bool) -> None:
        blocked, lib = _blocked(shape), _library()
        batch, channels, height, width = shape
        self.layout = blocked if blocked and preferred is blocked else _plain(shape)
        tagged = _plain if self.layout is not blocked else _blocked
        whole, rows = tagged((1, batch * channels, height, width)), tagged((1, batch * channels * height, 1, width))
        group = _block() if self.layout is blocked else 1
        self._rows = (batch * channels // group, height, group)

        flag = _FUSE_RELU if relu else 0
        more = {role: Layout.tagged((batch * channels,), "a") for role in ("mean", "variance")}
        of_rows = {role: Layout.tagged((batch * channels * height,), "a") for role in more}
        hint = self._forward_desc(whole, flag)
        if relu:
            more["workspace"] = Layout.of(lib.query(hint, "workspace"))
        self.kept = [extra.nbytes for extra in more.values()]
        self._of_rows = _Primitive(self._forward_desc(rows, 0), {"src": rows, "dst": rows, **of_rows})
        apply = self._forward_desc(whole, flag | _GIVEN_STATISTICS)
        self._apply = _Primitive(apply, {"src": whole, "dst": whole, **more})
        sides, rest = (whole.descriptor,) * 3, (c_float(EPS), c_uint(flag), hint, _attributes())
        name = "batch_normalization_backward_primitive_desc_create"
        back = lib.new(name, lib.engine, c_int(_BACKWARD), *sides, *rest)
        self.backward = _Primitive(back, {"src": whole, "diff_dst": whole, "diff_src": whole, **more})

    def forward(self, z: int, y: int, mean: int, variance: int, *workspace: int) -> None:
        """Normalize z into y, and write its statistics (N, C)."""
        groups, height, group = self._rows
        of_rows = [_ARENA.take(4 * groups * height * group) for _ in "mv"]
        self._of_rows(z, y, *of_rows)
        means, variances = (_view(address, self._rows) for address in of_rows)
        whole = np.add.reduce(means, axis=1, dtype=np.float64) / height
        apart = means - whole[:, np.newaxis]
        np.multiply(apart, apart, out=apart)
        apart += variances
        _view(mean, (groups, group))[...] = whole
        _view(variance, (groups, group))[...] = np.add.reduce(apart, axis=1) / height
        self._apply(z, y, mean, variance, *workspace)

    @staticmethod
    def _forward_desc(layout: Layout, flags: int) -> c_void_p:
        lib, md = _library(), layout.descriptor
        name = "batch_normalization_forward_primitive_desc_create"
        return lib.new(name, lib.engine, c_int(_FORWARD), md, md, c_float(EPS), c_uint(flags), _attributes())


class _Activation:
    """ReLU or LeakyReLU, in place; the gradient is taken from the result."""

    def __init__(self, kind: str, size: int) -> None:
        lib, layout = _library(), Layout.tagged((size,), "a")
        md, algorithm, numbers = layout.descriptor, c_int(_RELU_FROM_RESULT), (c_float(_SLOPE[kind]), c_float(0))
        name = "eltwise_{}_primitive_desc_create".format
        pd = lib.new(name("forward"), lib.engine, c_int(_FORWARD), algorithm, md, md, *numbers, _attributes())
        back = lib.new(name("backward"), lib.engine, algorithm, md, md, md, *numbers, pd, _attributes())
        self.forward = _Primitive(pd, {"src": layout, "dst": layout})
        self.backward = _Primitive(back, {"dst": layout, "diff_dst": layout, "diff_src": layout})


class _Tanh:
    """As `_Activation`; oneDNN's own is off by 5e-6."""

    def __init__(self, size: int) -> None:
        self._shape = (size,)

    def forward(self, y: int, _: int) -> None:
        """In place."""
        values = _view(y, self._shape)
        np.tanh(values, out=values)

    def backward(self, y: int, dy: int, dx: int) -> None:
        """dx = dy (1 - y^2)."""
        values, gradient = _view(y, self._shape), _view(dx, self._shape)
        np.multiply(values, values, out=gradient)
        np.subtract(1, gradient, out=gradient)
        np.multiply(gradient, _view(dy, self._shape), out=gradient)


class _Padding:
    """Reflection padding by `width` of a tensor in layout `outer` into `target`, one of the padded; its gradient."""

    def __init__(self, shape: Shape, outer: Layout, width: int, target: Layout) -> None:
        batch, channels, *size = shape
        self.width, self.target, self._outer = width, target, outer
        padded = (batch, channels, *(s + 2 * width for s in size))
        self._stage = target if _spatial_view(target, padded) else _plain(padded)
        self._view = _spatial_view(self._stage, padded)
        self._inner = self._stage.window(shape, (0, 0, width, width)) if width else self._outer

    @property
    def copies(self) -> bool:
        """Whether the padded tensor is another than the one that comes in."""
        return self.target is not self._outer

    def forward(self, x: int, padded: int) -> None:
        if not self.width:
            return _move(self._outer, x, self.target, padded)
        stage = padded if self._stage is self.target else _ARENA.take(self._stage.nbytes)
        _move(self._outer, x, self._inner, stage)
        r, p = self.width, _view(stage, self._view)
        inside = p[:, r:-r]
        inside[:, :, :r] = inside[:, :, 2 * r : r : -1]
        inside[:, :, -r:] = inside[:, :, -r - 2 : -2 * r - 2 : -1]
        p[:, :r] = p[:, 2 * r : r : -1]
        p[:, -r:] = p[:, -r - 2 : -2 * r - 2 : -1]
        return _move(self._stage, stage, self.target, padded)

    def backward(self, dpadded: int, dx: int, accumulate: bool) -> None:
        """Write or add dx; what is at `dpadded` is spoilt."""
        if not self.width:
            return _move(self.target, dpadded, self._outer, dx, accumulate)
        stage = _in_layout(self.target, dpadded, self._stage)
        r, p = self.width, _view(stage, self._view)
        p[:, 2 * r : r : -1] += p[:, :r]
        p[:, -r - 2 : -2 * r - 2 : -1] += p[:, -r:]
        inside = p[:, r:-r]
        inside[:, :, 2 * r : r : -1] += inside[:, :, :r]
        inside[:, :, -r - 2 : -2 * r - 2 : -1] += inside[:, :, -r:]
        return _move(self._inner, stage, self._outer, dx, accumulate)


@dataclass(frozen=True)
class Description:
    """What a layer does to x (N, C, H, W): reflection padding, convolution, then normalization and activation.

    `geometry.x` is the shape after padding by `reflect`. `activation` is "", "relu", "leaky_relu" (slope 0.2) or
    "tanh". `x_blocked` and `y_blocked`: whether x comes, and y goes, in blocks of channels (see `can_be_blocked`).
    """

    geometry: Geometry
    reflect: int = 0
    normalize: bool = False
    activation: str = ""
    x_blocked: bool = False
    y_blocked: bool = False

    def of(self, samples: int) -> Description:
        """The same for a batch of so many samples."""
        return replace(self, geometry=replace(self.geometry, x=(samples, *self.geometry.x[1:])))

    @property
    def x(self) -> Shape:
        """The shape of the input."""
        batch, channels, *size = self.geometry.x
        return (batch, channels, *(s - 2 * self.reflect for s in size))


class _Plan:
    """All that a layer of one description needs, made once. Tensors come as addresses.

    What the gradients need of the forward pass goes into `kept`: the padded input (where the weights' gradient is
    wanted), and under normalization its input and statistics.
    """

    def __init__(self, description: Description, for_weights: bool) -> None:
        self.shape = description.geometry.y
        self._conv = _convolution(description.geometry)
        outer = _blocked(description.x) if description.x_blocked else _plain(description.x)
        self._padding = _Padding(description.x, outer, description.reflect, self._conv.x_layout)
        fused = description.normalize and description.activation == "relu"
        layout = self._conv.y_layout
        self._norm = _Normalization(self.shape, layout, fused) if description.normalize else None
        self._last = self._norm.layout if self._norm else layout
        self._y = _blocked(self.shape) if description.y_blocked else _plain(self.shape)
        self._group = _block() if description.y_blocked else 1
        rest = "" if fused else description.activation
        size = self._y.nbytes // 4
        self._activation: Any = None
        if rest:
            self._activation = _Tanh(size) if rest == "tanh" else _Activation(rest, size)
        sizes = [self._conv.x_layout.nbytes if for_weights and self._padding.copies else 0]
        sizes += [self._norm.layout.nbytes, *self._norm.kept] if self._norm else []
        ends = np.cumsum([-(-size // 64) * 64 for size in sizes])
        self._keeps_x, self._offsets, self.kept = sizes[0] > 0, [0, *ends[:-1].tolist()], int(ends[-1])
        # (i, j): the gradient of input i needs input j; 0 is x, 1 is w
        self.needs = {(0, 1)} if self._keeps_x else {(0, 1), (1, 0)}
        self.needs_y = self._activation is not None

    def forward(self, y: int, kept: int, x: int, w: int, b: int = 0, skip: int = 0) -> None:
        """Write y, and `kept` where it has an address; `skip` is added to y where it has one."""
        _ARENA.reset()
        kept_anyway = kept or _ARENA.take(self.kept)
        padded = x
        if self._padding.copies:
            padded = kept if kept and self._keeps_x else _ARENA.take(self._conv.x_layout.nbytes)
            self._padding.forward(x, padded)
        # where the last result goes that is not y yet
        last = y if self._last is self._y and not skip else _ARENA.take(self._last.nbytes)
        if self._norm:
            self._normalized(padded, w, last, kept_anyway)
        else:
            self._conv.forward(padded, w, last)
        if skip:
            ctypes.memmove(y, skip, self._y.nbytes)
        if last != y:
            _move(self._last, last, self._y, y, bool(skip))
        if not self._norm:
            out, bias = self._by_channel(y, b)
            out += bias
        if self._activation:
            self._activation.forward(y, y)

    def _normalized(self, padded: int, w: int, y: int, kept: int) -> None:
        z, *statistics = (kept + offset for offset in self._offsets[1:])
        same = self._conv.y_layout is self._norm.layout
        h = z if same else _ARENA.take(self._conv.y_layout.nbytes)
        self._conv.forward(padded, w, h)
        if not same:
            _move(self._conv.y_layout, h, self._norm.layout, z)
        self._norm.forward(z, y, *statistics)

    def backward(self, x: int, w: int, y: int, dy: int, kept: int, wanted: Dict[str, Gradient]) -> None:
        """Write or add the gradients of x, w, b and skip that are wanted. y is needed for activations only."""
        _ARENA.reset()
        (dx, add_x), (dw, add_w), (db, add_b), (dskip, add_skip) = (
            wanted.get(name, (0, False)) for name in ("x", "w", "b", "skip")
        )
        if dskip:
            _move(self._y, dy, self._y, dskip, add_skip)
        if self._activation:
            before = _ARENA.take(self._y.nbytes)
            self._activation.backward(y, dy, before)
            dy = before
        if db:
            self._bias_gradient(dy, db, add_b)
        if not (dx or dw):
            return
        dh = _in_layout(self._y, dy, self._last)
        if self._norm:
            z, *statistics = (kept + offset for offset in self._offsets[1:])
            dz = _ARENA.take(self._last.nbytes)
            self._norm.backward(z, dh, dz, *statistics)
            dh = _in_layout(self._last, dz, self._conv.y_layout)
        direct = dx and not self._padding.copies and not add_x
        dpadded = dx if direct or not dx else _ARENA.take(self._conv.x_layout.nbytes)
        self._conv.backward(kept if self._keeps_x else x, w, dh, dpadded, dw, add_w)
        if dx and not direct:
            self._padding.backward(dpadded, dx, add_x)

    def _bias_gradient(self, dy: int, db: int, accumulate: bool) -> None:
        gradient, total = self._by_channel(dy, db)
        with _GRADIENTS:
            if not accumulate:
                total[...] = 0
            total += gradient.sum(axis=(2, 3), keepdims=True).sum(axis=0)

    def _by_channel(self, y: int, b: int) -> Tuple[np.ndarray, np.ndarray]:
        """A tensor in y's layout as (N, groups of channels, H, W, channels in a group), and one number per channel."""
        (batch, channels, height, width), group = self.shape, self._group
        return _view(y, (batch, channels // group, height, width, group)), _view(b, (channels // group, 1, 1, group))


@_OfThread
def _plan(description: Description, for_weights: bool) -> _Plan:
    return _Plan(description, for_weights)


class _Function(PythonFunction):
    """Access to NNabla's arrays by address, without copies."""

    def _read(self, array: nn.NdArray) -> int:
        return array.data_ptr(np.float32, self.ctx)

    def _write(self, array: nn.NdArray) -> int:
        """For what is written in full: its old content need not be there."""
        return array.data_ptr(np.float32, self.ctx, True)

    def _gradient(self, parameter: nn.Variable, accumulate: bool) -> Gradient:
        """The address of a parameter's gradient, and whether to add to what is there.

        NNabla has the first gradient written and the next ones added. The other lane may be faster with its own, so
        that in a lane the first one is added too, to zeros.
        """
        if accumulate:
            return self._read(parameter.grad), True
        address = self._write(parameter.grad)
        if _TEAM.is_lane:
            ctypes.memset(address, 0, 4 * parameter.size)
        return address, _TEAM.is_lane


class Layer(_Function):
    """A layer as an NNabla function of `roles`: "x", "w", "b" if there is no normalization, "skip" if there is one.

    Its outputs are y and, for its gradients, what it keeps: as an output so that NNabla's memory is used for it; see
    `kept_arrays` for how to give it back.
    """

    def __init__(self, description: Description, roles: Sequence[str], wanted: Sequence[bool], ctx: nn.Context) -> None:
        super().__init__(ctx)
        self._description, self._roles, self._of_thread = description, roles, {}
        self._differentiable, self._for_weights = any(wanted[:2]), wanted[1]
        self._shape, self._products = description.geometry.y, description.geometry.products
        self._needs, self._needs_y, kept = self._contract(self._parts())
        self._kept = kept if self._differentiable else 0

    @staticmethod
    def _contract(parts: List[Tuple[_Plan, Dict[str, int]]]) -> Tuple[Set[Tuple[int, int]], bool, int]:
        """What NNabla was told: which inputs and outputs the gradients need, and the bytes that are kept."""
        plans = [plan for plan, _ in parts]
        needs = set().union(*(plan.needs for plan in plans))
        return needs, any(plan.needs_y for plan in plans), sum(plan.kept for plan in plans)

    def _parts(self) -> List[Tuple[_Plan, Dict[str, int]]]:
        """This thread's plans for a few samples at a time, with the offsets in bytes of these in each tensor.

        So there are few primitives, however many masks a picture has, and little scratch memory.
        """
        thread = threading.get_ident()
        if thread not in self._of_thread:
            batch, parts, kept = self._description.x[0], [], 0
            x, y = (4 * math.prod(shape[1:]) for shape in (self._description.x, self._description.geometry.y))
            for start in range(0, batch, _SAMPLES):
                plan = _plan(self._description.of(min(_SAMPLES, batch - start)), self._for_weights)
                parts.append((plan, {"x": start * x, "y": start * y, "skip": start * y, "kept": kept}))
                kept += plan.kept
            known = next(iter(self._of_thread.values()), parts)
            if self._contract(parts) != self._contract(known):
                raise RuntimeError("oneDNN lays out a layer otherwise for another number of threads")
            self._of_thread[thread] = parts
        return self._of_thread[thread]

    @property
    def name(self) -> str:
        """As it shows in NNabla's graphs."""
        return _LAYER

    def min_outputs(self) -> int:
        """Two where the gradients need something from the forward pass."""
        return 2 if self._kept else 1

    def setup_impl(self, inputs: List[nn.Variable], outputs: List[nn.Variable]) -> None:
        """Shape the outputs."""
        outputs[0].reset_shape(self._shape, True)
        if self._kept:
            outputs[1].reset_shape((self._kept // 4,), True)

    def forward_impl(self, inputs: List[nn.Variable], outputs: List[nn.Variable]) -> None:
        """Compute y."""
        sources = {role: self._read(v.data) for role, v in zip(self._roles, inputs)}
        y = self._write(outputs[0].data)
        kept = self._write(outputs[1].data) if self._kept else 0
        with _outside_nnabla(self._products):
            for plan, offsets in self._parts():
                own = {role: address + offsets.get(role, 0) for role, address in sources.items()}
                plan.forward(y + offsets["y"], kept and kept + offsets["kept"], **own)

    def backward_impl(
        self,
        inputs: List[nn.Variable],
        outputs: List[nn.Variable],
        propagate_down: List[bool],
        accum: List[bool],
    ) -> None:
        """Compute, or add, the gradients that are asked for."""
        if not any(propagate_down):
            return
        if any(propagate_down[:2]) and not self._differentiable:
            raise RuntimeError("the graph was built for inference: need_grad was set after it")
        wanted = {}
        for role, v, down, add in zip(self._roles, inputs, propagate_down, accum):
            if down and role in ("w", "b"):
                wanted[role] = self._gradient(v, add)
            elif down:
                wanted[role] = (self._read if add else self._write)(v.grad), add
        x, w = (self._read(v.data) for v in inputs[:2])
        y, dy = self._read(outputs[0].data), self._read(outputs[0].grad)
        kept = self._read(outputs[1].data) if self._kept else 0
        with _outside_nnabla(self._products):
            sums = self._sums({role: v.size for role, v in zip(self._roles, inputs) if role in wanted})
            for plan, at in self._parts():
                own = {role: (address + at.get(role, 0), add) for role, (address, add) in wanted.items()}
                own.update({role: (total.ctypes.data, True) for role, total in sums.items()})
                plan.backward(x + at["x"], w, y + at["y"], dy + at["y"], kept and kept + at["kept"], own)
            for role, total in sums.items():
                address, add = wanted[role]
                with _GRADIENTS:
                    gradient = _view(address, total.shape)
                    np.add(gradient, total, out=gradient) if add else np.copyto(gradient, total)

    def _sums(self, sizes: Dict[str, int]) -> Dict[str, np.ndarray]:
        """Where several parts add up their gradients of parameters, so that the whole layer adds one term to them.

        Between the terms of a part and the next the other lane's could come, and the sum would depend on when.
        """
        several = len(self._parts()) > 1
        return {role: np.zeros(sizes[role], np.float32) for role in ("w", "b") if several and role in sizes}

    def grad_depends_input_data(self, i: int, j: int) -> bool:
        """The gradient of x needs w, that of w needs x unless its padded copy is kept."""
        return (i, j) in self._needs

    def grad_depends_output_data(self, i: int, o: int) -> bool:
        """Activations need y; all but the skip connection need what is kept."""
        return self._roles[i] != "skip" and (o == 1 or self._needs_y)


class SpectralNormalization(_Function):
    """W / sigma as a function of (W, u), where sigma is W's largest singular value; W is (O, I, kh, kw), u (1, O).

    As `F.spectral_norm(W, u, dim=0, itr=1)`: the forward moves u by one power iteration, and the gradient takes u and v
    as constants. Outputs W / sigma, and u, v and sigma as they were.
    """

    @property
    def name(self) -> str:
        """As it shows in NNabla's graphs."""
        return _SPECTRAL_NORMALIZATION

    def min_outputs(self) -> int:
        """The weight, and what its gradient needs."""
        return 2

    def setup_impl(self, inputs: List[nn.Variable], outputs: List[nn.Variable]) -> None:
        """Shape the outputs."""
        self._shape = (inputs[0].shape[0], inputs[0].size // inputs[0].shape[0])
        outputs[0].reset_shape(inputs[0].shape, True)
        outputs[1].reset_shape((sum(self._shape) + 1,), True)

    def forward_impl(self, inputs: List[nn.Variable], outputs: List[nn.Variable]) -> None:
        """One power iteration."""
        w, u = _view(self._read(inputs[0].data), self._shape), _view(self._read(inputs[1].data), self._shape[:1])
        normalized = _view(self._write(outputs[0].data), self._shape)
        kept = _view(self._write(outputs[1].data), outputs[1].shape)
        with _outside_nnabla(10 * w.size):
            v = _unit(u @ w)
            moved = w @ v
            u[...] = _unit(moved)
            sigma = u @ moved
            _in_pieces(lambda rows: np.multiply(w[rows], 1 / sigma, out=normalized[rows]), *self._shape)
            np.concatenate([u, v, [sigma]], out=kept)

    def backward_impl(
        self, inputs: List[nn.Variable], outputs: List[nn.Variable], propagate_down: List[bool], accum: List[bool]
    ) -> None:
        """dW = (dY - <dY, W/sigma> u v') / sigma."""
        if not propagate_down[0]:
            return
        kept = _view(self._read(outputs[1].data), outputs[1].shape)
        u, v, sigma = kept[: self._shape[0]], kept[self._shape[0] : -1], kept[-1]
        dy = _view(self._read(outputs[0].grad), self._shape)
        address, accumulate = self._gradient(inputs[0], accum[0])
        dw = _view(address, self._shape)
        normalized = _view(self._read(outputs[0].data), self._shape)

        def work(rows: slice) -> None:
            gradient = np.multiply.outer(along[rows], v)
            gradient += dy[rows]
            gradient *= 1 / sigma
            if accumulate:
                dw[rows] += gradient
            else:
                dw[rows] = gradient

        with _outside_nnabla(10 * dw.size), _GRADIENTS:
            along = u * -np.vdot(dy, normalized)
            _in_pieces(work, *self._shape)

    def grad_depends_input_data(self, i: int, j: int) -> bool:
        """All that is needed is kept."""
        return False

    def grad_depends_output_data(self, i: int, o: int) -> bool:
        """W / sigma, u, v and sigma."""
        return True


def _unit(x: np.ndarray) -> np.ndarray:
    return x / (np.sqrt(x @ x) + 1e-12)


class Unblock(_Function):
    """The tensor that a layer gave out in blocks of channels, in plain NCHW."""

    @property
    def name(self) -> str:
        """As it shows in NNabla's graphs."""
        return "OneDnnReorder"

    def min_outputs(self) -> int:
        """The tensor."""
        return 1

    def setup_impl(self, inputs: List[nn.Variable], outputs: List[nn.Variable]) -> None:
        """Shape the output."""
        outputs[0].reset_shape(inputs[0].shape, True)

    def forward_impl(self, inputs: List[nn.Variable], outputs: List[nn.Variable]) -> None:
        """Copy."""
        shape, x, y = inputs[0].shape, self._read(inputs[0].data), self._write(outputs[0].data)
        with _outside_nnabla(10 * inputs[0].size):
            _ARENA.reset()
            _move(_blocked(shape), x, _plain(shape), y)

    def backward_impl(
        self, inputs: List[nn.Variable], outputs: List[nn.Variable], propagate_down: List[bool], accum: List[bool]
    ) -> None:
        """Copy back."""
        if not propagate_down[0]:
            return
        shape, dy = inputs[0].shape, self._read(outputs[0].grad)
        dx = (self._read if accum[0] else self._write)(inputs[0].grad)
        with _outside_nnabla(10 * inputs[0].size):
            _ARENA.reset()
            _move(_plain(shape), dy, _blocked(shape), dx, accum[0])

    def grad_depends_input_data(self, i: int, j: int) -> bool:
        """It does not."""
        return False

    def grad_depends_output_data(self, i: int, o: int) -> bool:
        """It does not."""
        return False


def layer(
    x: nn.Variable, w: nn.Variable, b: nn.Variable, skip: Optional[nn.Variable], description: Description
) -> nn.Variable:
    """Apply a layer; see `Description`. Under normalization b is left out: the mean that is taken off contains it."""
    inputs = {"x": x, "w": w, "b": None if description.normalize else b, "skip": skip}
    inputs = {role: v for role, v in inputs.items() if v is not None}
    wanted = [v.need_grad for v in inputs.values()]
    outputs = Layer(description, list(inputs), wanted, nn.get_current_context())(*inputs.values())
    return outputs[0] if isinstance(outputs, (list, tuple)) else outputs


def can_be_blocked(shape: Shape) -> bool:
    """Whether a layer can give out a tensor (N, C, H, W) in blocks of channels, without a gap in the last one."""
    return _blocked(shape) is not None


def unblock(x: nn.Variable) -> nn.Variable:
    """A blocked tensor in plain NCHW."""
    return Unblock(nn.get_current_context())(x)


def spectral_normalization(w: nn.Variable, u: nn.Variable) -> nn.Variable:
    """W / sigma; see `SpectralNormalization`."""
    return SpectralNormalization(nn.get_current_context())(w, u)[0]


def kept_arrays(y: nn.Variable) -> List[nn.NdArray]:
    """What the functions of this module keep for their gradients in the graph that ends in y.

    NNabla clears only what another function has read, so these are to be cleared after the backward pass, or each of
    several graphs holds on to its own.
    """
    found = []

    def visit(function: nn.function.Function) -> None:
        # the weight over sigma, of which a frozen discriminator does not ask the gradient, is never given back either
        first = {_LAYER: 1, _SPECTRAL_NORMALIZATION: 0}.get(function.info.type_name)
        if first is not None:
            found.extend(output.data for output in function.outputs[first:])

    y.visit(visit)
    return found


@dataclass
class AdamState:
    """The moments of one parameter, and how many updates it has had."""

    pstate: Dict[str, nn.Variable]
    t: int = 0


class Adam:
    """`nnabla.solvers.Adam` (alpha, beta1, beta2; eps 1e-8) on all threads, as far as training needs it."""

    def __init__(self, alpha: float, beta1: float, beta2: float) -> None:
        self._alpha, self._betas = alpha, (beta1, beta2)
        self._parameters: Dict[str, nn.Variable] = {}
        self._states: Dict[str, AdamState] = {}

    def set_parameters(self, parameters: Dict[str, nn.Variable]) -> None:
        """Begin to train these."""
        self._parameters.update(parameters)
        for name, parameter in parameters.items():
            moments = {kind: nn.Variable(parameter.shape) for kind in ("mean", "var")}
            for moment in moments.values():
                moment.data.zero()
            self._states[name] = AdamState(moments)

    def get_states(self) -> Dict[str, AdamState]:
        """What is kept of each parameter."""
        return dict(self._states)

    def set_states(self, states: Dict[str, AdamState]) -> None:
        """Go on from these."""
        self._states.update(states)

    def set_learning_rate(self, rate: float) -> None:
        """Take steps of this size from here on."""
        self._alpha = rate

    def learning_rate(self) -> float:
        """The size of the steps."""
        return self._alpha

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self._parameters.values():
            parameter.grad.zero()

    def update(self) -> None:
        """Take a step."""
        context, (beta1, beta2) = nn.get_current_context(), self._betas
        for name, parameter in self._parameters.items():
            state = self._states[name]
            state.t += 1
            rate = self._alpha * np.sqrt(1 - beta2**state.t) / (1 - beta1**state.t)
            eps = 1e-8 * np.sqrt(1 - beta2**state.t)
            arrays = (parameter.data, parameter.grad, state.pstate["mean"].data, state.pstate["var"].data)
            flat = [_view(array.data_ptr(np.float32, context), (parameter.size,)) for array in arrays]
            with _outside_nnabla(50 * parameter.size):
                step = partial(self._step, flat, rate, eps)
                _in_pieces(step, parameter.size)

    def _step(self, arrays: List[np.ndarray], rate: float, eps: float, piece: slice) -> None:
        beta1, beta2 = self._betas
        theta, gradient, m, v = (array[piece] for array in arrays)
        work = gradient * np.float32(1 - beta1)
        m *= np.float32(beta1)
        m += work
        np.multiply(gradient, gradient, out=work)
        work *= np.float32(1 - beta2)
        v *= np.float32(beta2)
        v += work
        np.sqrt(v, out=work)
        work += np.float32(eps)
        np.divide(m, work, out=work)
        work *= np.float32(rate)
        theta -= work


class _outside_nnabla:
    """While a lane computes with nothing but addresses, for long enough, the other one may use NNabla."""

    def __init__(self, products: int) -> None:
        self._leaves = _TEAM.is_lane and _is_long(products)

    def __enter__(self) -> None:
        if self._leaves:
            _NNABLA.release()

    def __exit__(self, *_: Any) -> None:
        if self._leaves:
            _NNABLA.acquire()


@lru_cache(maxsize=None)
def _lanes() -> List[ThreadPoolExecutor]:
    shares = (_threads() + 1) // 2, _threads() // 2
    return [ThreadPoolExecutor(1, initializer=_become_lane, initargs=(share,)) for share in shares]


def _become_lane(threads: int) -> None:
    _TEAM.size, _TEAM.is_lane = threads, True
    ctypes.CDLL("libgomp.so.1").omp_set_num_threads(threads)


def side_by_side(tasks: Sequence[Callable[[], Any]]) -> List[Any]:
    """Do one or two tasks that use NNabla, at the same time where that is possible; gives their results in order.

    Two tasks on half of the threads each are faster than one after the other on all of them: what Python and NNabla
    do between the kernels is done by one thread, while the other one computes. NNabla is not made for two threads, so
    a task has it to itself until one of the kernels here runs. The tasks may read the same parameters and add to
    the same gradients, each of them once: of two terms, the sum does not depend on the order.
    Not to be nested. Measured on 2 cores only.
    """
    if len(tasks) < 2 or _threads() < 2:
        return in_turn(tasks)

    def work(task: Callable[[], Any]) -> Any:
        with _NNABLA:
            return task()

    running = [lane.submit(work, task) for lane, task in zip(_lanes(), tasks)]
    wait(running)
    return [done.result() for done in running]


def in_turn(tasks: Sequence[Callable[[], Any]]) -> List[Any]:
    """The same, one after the other."""
    return [task() for task in tasks]


_state: Dict[str, Any] = {"active": False, "blas": None}


def active() -> bool:
    """Whether new graphs are to use these kernels."""
    return _state["active"]


def configure(choice: str) -> str:
    """Choose the kernels of graphs made from here on: "onednn", "nnabla", or "auto", which takes oneDNN where it works.

    Call it after `set_context`. Returns a sentence for the user, empty where the context is not cpu.

    Raises:
        UserError: where oneDNN is asked for and cannot be had.
    """
    _state["active"] = False
    if _state["blas"]:
        _state["blas"].restore_original_limits()
    _state["blas"] = None
    if not on_cpu():
        if choice == "onednn":
            raise UserError("--cpu-kernels onednn is for --context cpu; leave it out on a GPU")
        return ""
    problem = _problem() if choice != "nnabla" else "as asked"
    if choice == "onednn" and problem:
        raise UserError(f"--cpu-kernels onednn does not work here ({problem}); leave it out to use NNabla's own")
    _state["active"] = not problem
    if problem:
        return f"CPU kernels: NNabla's own ({problem})"
    # NumPy's products are small here, and the threads that help with them go on to spin for a while, on all cores
    _state["blas"] = threadpoolctl.threadpool_limits(limits=1, user_api="blas")
    return f"CPU kernels: oneDNN {'.'.join(map(str, _library().version))}, {'AVX-512' if _block() == 16 else 'AVX2'}"


def _problem() -> str:
    """Why oneDNN cannot be used, or an empty string."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return f"oneDNN's kernels are for x86-64 Linux, this is {platform.machine()} {platform.system()}"
    if not (Path(sys.prefix) / "lib" / "libdnnl.so.3").exists():
        return "the package onednn-cpu-gomp is not installed in this environment"
    try:
        library = _library()
    except (OSError, RuntimeError) as error:
        hint = "; install libgomp1" if "libgomp" in str(error) else ""
        return f"oneDNN does not load: {error}{hint}"
    if library.version[:2] != VERSION:
        return f"oneDNN is {library.version}, not {VERSION}"
    return "" if library.isa & _ISA_AVX2 == _ISA_AVX2 else "the CPU has no AVX2"
