# SPDX-License-Identifier: Apache-2.0
"""Memory by address: scratch memory of a thread, NumPy's view of an address, and the layouts of tensors."""

from __future__ import annotations

import math
import threading
from ctypes import Array, c_float, c_int, c_int64, c_void_p
from functools import lru_cache
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from backend.onednn.library import F32, ISA_AVX512, TAGS, library

Shape = Tuple[int, ...]


class _Arena(threading.local):
    """A thread's scratch memory, for one call of a layer. `take` hands out pieces until `reset` takes them all back."""

    def __init__(self) -> None:
        self._blocks: List[np.ndarray] = []
        self._add(64)

    def _add(self, nbytes: int) -> None:
        block = np.empty(nbytes, np.uint8)
        self._blocks.append(block)
        self._first = block.ctypes.data
        self._next = self._first
        self._end = self._first + nbytes

    def reset(self) -> None:
        """Take back all pieces."""
        self._next = self._first
        if len(self._blocks) > 1:
            total = sum(block.size for block in self._blocks)
            self._blocks.clear()
            self._add(total)

    def take(self, nbytes: int) -> int:
        """Return the address of `nbytes` bytes, aligned to a cache line (64 bytes)."""
        start = (self._next + 63) & ~63
        if start + nbytes > self._end:
            # the pieces handed out so far stay where they are; the next reset joins all blocks into one
            self._add(nbytes + 64)
            start = (self._next + 63) & ~63
        self._next = start + nbytes
        return start


ARENA = _Arena()


def view(address: int, shape: Shape) -> np.ndarray:
    """Return the float32 array at `address`. The caller makes sure that the memory outlives it."""
    return np.ndarray(shape, np.float32, _floats(math.prod(shape)).from_address(address))


@lru_cache(maxsize=None)
def _floats(count: int) -> Any:
    return c_float * count


class Layout:
    """The layout of a tensor in memory: oneDNN's memory descriptor. Equal layouts are the same object."""

    _by_size: Dict[int, List[Layout]] = {}
    _lock = threading.Lock()

    def __init__(self, descriptor: c_void_p) -> None:
        self.descriptor = descriptor
        self.nbytes = library().size(descriptor)

    @classmethod
    def of(cls, descriptor: c_void_p) -> Layout:
        """Return the one object for this descriptor."""
        with cls._lock:
            candidates = cls._by_size.setdefault(library().size(descriptor), [])
            for layout in candidates:
                if library().equal(layout.descriptor, descriptor):
                    return layout
            candidates.append(cls(descriptor))
            return candidates[-1]

    @classmethod
    @lru_cache(maxsize=None)
    def tagged(cls, shape: Shape, tag: str) -> Layout:
        """Return one of the layouts in `TAGS`. Cached, since descriptors are never freed."""
        return cls.of(descriptor(shape, TAGS[tag]))

    def window(self, shape: Shape, offset: Shape) -> Layout:
        """Return the layout of the part of this one that starts at `offset`."""
        part = library().new("memory_desc_create_submemory", self.descriptor, dims(shape), dims(offset))
        return Layout.of(part)


def dims(values: Sequence[int]) -> Array:
    """Return sizes as oneDNN's dnnl_dims_t."""
    return (c_int64 * 12)(*values)


def descriptor(shape: Shape, tag: int) -> c_void_p:
    """Return a new memory descriptor of a float32 tensor; `tag` is one of dnnl_format_tag_t."""
    return library().new("memory_desc_create_with_tag", c_int(len(shape)), dims(shape), c_int(F32), c_int(tag))


def plain(shape: Shape) -> Layout:
    """Return the layout NCHW, or of the weights (groups, O, C, kh, kw) of a convolution in groups."""
    return Layout.tagged(shape, "nchw" if len(shape) == 4 else "goihw")


def block_size() -> int:
    """Return the number of channels in a group of the blocked layout that oneDNN's kernels for this CPU want."""
    return 16 if library().isa & ISA_AVX512 == ISA_AVX512 else 8


def blocked(shape: Shape) -> Optional[Layout]:
    """Return the blocked layout where it holds these channels without padding, else None."""
    return None if shape[1] % block_size() else Layout.tagged(shape, f"nChw{block_size()}c")


def spatial_shape(layout: Layout, shape: Shape) -> Optional[Shape]:
    """Return (groups, H, W, channels in a group) of a plain or blocked tensor (N, C, H, W); None in other layouts."""
    batch, channels, height, width = shape
    if layout is plain(shape):
        return batch * channels, height, width, 1
    if layout is blocked(shape):
        return batch * channels // block_size(), height, width, block_size()
    return None
