# SPDX-License-Identifier: Apache-2.0
"""The binding of the few C calls of oneDNN that are needed, and the constants of its headers."""

from __future__ import annotations

import ctypes
import os
import sys
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_uint, c_void_p
from functools import lru_cache
from pathlib import Path
from typing import Any

VERSION = (3, 2)
PATH = Path(sys.prefix) / "lib" / "libdnnl.so.3"

# Constants of dnnl_types.h, version 3.2.
F32 = 3  # data type
ANY = 1  # format tag: oneDNN chooses the layout
TAGS = {"a": 2, "nchw": 5, "goihw": 6, "nChw16c": 78, "nChw8c": 102}
FORWARD = 64  # propagation kinds
BACKWARD = 128
DIRECT = 1  # convolution algorithm
# These take the gradient from the activation's result, so that its input need not be kept.
RELU_FROM_RESULT = 256
CLIP_FROM_RESULT = 262
GIVEN_STATISTICS = 1  # flags of normalizations
FUSE_RELU = 8
USER_SCRATCHPAD = 1  # scratchpad mode
# arguments of a primitive's execution
ARGUMENTS = {
    "src": 1,
    "dst": 17,
    "weights": 33,
    "mean": 49,
    "variance": 50,
    "workspace": 64,
    "scratchpad": 80,
    "diff_src": 129,
    "diff_dst": 145,
    "diff_weights": 161,
}
ISA_AVX2 = 0x7
ISA_AVX512 = 0x27

_CPU = 1  # engine kind
_IN_ORDER = 1  # stream flag
_IMPLEMENTATION = 8  # query for the name of the implementation
# queries for memory descriptors
_MEMORY_DESCRIPTORS = {
    "src": 129,
    "diff_src": 130,
    "weights": 131,
    "diff_weights": 132,
    "dst": 133,
    "diff_dst": 134,
    "workspace": 135,
    "scratchpad": 136,
}


class ExecArgument(ctypes.Structure):
    """`dnnl_exec_arg_t`: one argument of a primitive's execution and its memory."""

    _fields_ = [("arg", c_int), ("memory", c_void_p)]


class _Version(ctypes.Structure):
    _fields_ = [("major", c_int), ("minor", c_int), ("patch", c_int)]


class Library:
    """libdnnl with an engine and a stream.

    Raises:
        OSError: where it cannot be loaded.
        RuntimeError: on the errors of its functions.
    """

    def __init__(self) -> None:
        # Read when libgomp is loaded: its threads must not spin for long while they wait for each other. On a machine
        # that does other work too they would wait for one that is not running, and a step would take minutes.
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")
        self._lib = ctypes.CDLL(str(PATH))
        self._lib.dnnl_version.restype = POINTER(_Version)
        self._lib.dnnl_memory_desc_get_size.restype = c_size_t
        self._lib.dnnl_primitive_desc_query_md.restype = c_void_p
        # Calls through PyDLL keep the interpreter lock: for short calls, handing it to another thread and back takes
        # longer than the call itself.
        short = ctypes.PyDLL(str(PATH))
        self.set_handle = short.dnnl_memory_set_data_handle
        self.set_handle.argtypes = [c_void_p, c_void_p]
        self.execute_short = short.dnnl_primitive_execute
        self.execute = self._lib.dnnl_primitive_execute
        for execute in (self.execute, self.execute_short):
            execute.argtypes = [c_void_p, c_void_p, c_int, c_void_p]
        version = self._lib.dnnl_version().contents
        self.version = (version.major, version.minor, version.patch)
        self.isa: int = self._lib.dnnl_get_effective_cpu_isa()
        self.engine = self.new("engine_create", c_int(_CPU), c_size_t(0))
        self.stream = self.new("stream_create", self.engine, c_uint(_IN_ORDER))

    def call(self, name: str, *args: Any) -> None:
        """Call the function dnnl_`name`."""
        status = getattr(self._lib, "dnnl_" + name)(*args)
        if status:
            raise RuntimeError(f"oneDNN: {name} fails with status {status}")

    def new(self, name: str, *args: Any) -> c_void_p:
        """Return the object that the create function dnnl_`name` makes.

        It lives as long as the process: nothing here destroys one, so each is made once and kept.
        """
        result = c_void_p()
        self.call(name, byref(result), *args)
        return result

    def primitive_descriptor(self, name: str, *args: Any) -> c_void_p:
        """Return the descriptor that dnnl_`name`_primitive_desc_create makes on this engine."""
        return self.new(f"{name}_primitive_desc_create", self.engine, *args)

    def size(self, descriptor: c_void_p) -> int:
        """Return the bytes that a memory descriptor describes."""
        return self._lib.dnnl_memory_desc_get_size(descriptor)

    def equal(self, one: c_void_p, other: c_void_p) -> bool:
        """Return whether two memory descriptors are equal."""
        return bool(self._lib.dnnl_memory_desc_equal(one, other))

    def implementation(self, primitive_descriptor: c_void_p) -> str:
        """Return the name of the implementation that oneDNN has chosen."""
        name = c_char_p()
        self.call("primitive_desc_query", primitive_descriptor, c_int(_IMPLEMENTATION), c_int(0), byref(name))
        return name.value.decode()

    def memory_descriptor(self, primitive_descriptor: c_void_p, role: str) -> c_void_p:
        """Return the memory descriptor of a primitive's `role`, such as "src"."""
        query = c_int(_MEMORY_DESCRIPTORS[role])
        return c_void_p(self._lib.dnnl_primitive_desc_query_md(primitive_descriptor, query, c_int(0)))


@lru_cache(maxsize=None)
def library() -> Library:
    """The library, loaded by the first call."""
    return Library()
