# SPDX-License-Identifier: Apache-2.0
"""oneDNN's primitives, called with addresses, and copies of tensors from one layout into another (reorders)."""

from __future__ import annotations

import ctypes
from ctypes import c_float, c_int, c_void_p
from functools import lru_cache
from typing import Dict, Optional

import numpy as np

from backend.onednn.library import ARGUMENTS, F32, USER_SCRATCHPAD, ExecArgument, library
from backend.onednn.memory import ARENA, Layout, view
from backend.onednn.threads import is_long, per_thread


class Primitive:
    """A oneDNN primitive with its memories. Call it with the addresses of the tensors of `roles`, in their order.

    `products` is its number of multiply-adds, without the work that is done once for each number of a tensor.
    """

    def __init__(self, primitive_descriptor: c_void_p, roles: Dict[str, Layout], products: int = 0) -> None:
        lib = library()
        primitive = lib.new("primitive_create", primitive_descriptor)
        descriptors = {role: layout.descriptor for role, layout in roles.items()}
        scratchpad = lib.memory_descriptor(primitive_descriptor, "scratchpad")
        self._scratch = lib.size(scratchpad)  # bytes
        if self._scratch:
            descriptors["scratchpad"] = scratchpad
        memories = {
            role: lib.new("memory_create", descriptor, lib.engine, None) for role, descriptor in descriptors.items()
        }
        self._memories = [memory.value for memory in memories.values()]
        arguments = [ExecArgument(ARGUMENTS[role], memory) for role, memory in memories.items()]
        self._arguments = (ExecArgument * len(arguments))(*arguments)
        self._call = (primitive, lib.stream, len(arguments), ctypes.addressof(self._arguments))
        numbers = sum(layout.nbytes for layout in roles.values()) // 4
        self._set_handle = lib.set_handle
        self._execute = lib.execute if is_long(products + 10 * numbers) else lib.execute_short

    def __call__(self, *addresses: int) -> None:
        """Execute it."""
        if self._scratch:
            addresses += (ARENA.take(self._scratch),)
        for memory, address in zip(self._memories, addresses):
            self._set_handle(memory, address)
        status = self._execute(*self._call)
        if status:
            raise RuntimeError(f"oneDNN: a primitive fails with status {status}")


@lru_cache(maxsize=None)
def attributes(accumulate: bool = False) -> c_void_p:
    """Return attributes by which scratch memory is the caller's.

    With `accumulate` the result is added to the destination.
    """
    lib = library()
    result = lib.new("primitive_attr_create")
    lib.call("primitive_attr_set_scratchpad_mode", result, c_int(USER_SCRATCHPAD))
    if accumulate:
        post_ops = lib.new("post_ops_create")
        lib.call("post_ops_append_sum", post_ops, c_float(1), c_int(0), c_int(F32))
        lib.call("primitive_attr_set_post_ops", result, post_ops)
    return result


@per_thread
def _reorder(source: Layout, target: Layout, accumulate: bool) -> Optional[Primitive]:
    """Return the primitive that copies (or adds); None for layouts between which oneDNN can copy but not add."""
    lib = library()
    sides = (source.descriptor, lib.engine, target.descriptor, lib.engine)
    try:
        # unlike the others, it takes an engine with each side
        primitive_descriptor = lib.new("reorder_primitive_desc_create", *sides, attributes(accumulate))
    except RuntimeError:
        if accumulate:
            return None
        raise
    return Primitive(primitive_descriptor, {"src": source, "dst": target})


def reorder(source: Layout, address: int, target: Layout, target_address: int, accumulate: bool = False) -> None:
    """Copy (or add) a tensor in layout `source` to one in layout `target`."""
    if source is not target:
        primitive = _reorder(source, target, accumulate)
        if primitive:
            primitive(address, target_address)
            return
        copy = ARENA.take(target.nbytes)
        reorder(source, address, target, copy)
        address = copy
    if accumulate:
        total = view(target_address, (target.nbytes // 4,))
        np.add(total, view(address, total.shape), out=total)
    elif address != target_address:
        ctypes.memmove(target_address, address, target.nbytes)


def in_layout(source: Layout, address: int, target: Layout) -> int:
    """Return the address of the tensor in layout `target`: `address` where it has that layout, else a copy's."""
    if source is target:
        return address
    copy = ARENA.take(target.nbytes)
    reorder(source, address, target, copy)
    return copy
