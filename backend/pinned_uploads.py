# SPDX-License-Identifier: Apache-2.0
"""Asynchronous uploads to a GPU, from page-locked memory.

NNabla uploads from ordinary memory, for which CUDA first waits until all earlier work is done. From page-locked memory
a copy can be queued behind that work, while the host prepares the next. NNabla's own work is on the null stream, and so
are these copies: all of it runs in the order of the calls.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, List, Optional

import nnabla as nn
import numpy as np

# Constants of CUDA's runtime.
_HOST_TO_DEVICE = 1  # cudaMemcpyKind
_PORTABLE = 1  # flag of cudaHostAlloc
_NO_TIMING = 2  # flag of cudaEventCreateWithFlags
_NOT_READY = 600  # cudaErrorNotReady


@dataclass
class _Buffer:
    """Page-locked memory, and the event that is recorded behind the last copy out of it."""

    memory: np.ndarray
    copied: ctypes.c_void_p


class Uploader:
    """Uploads to one GPU through buffers that are used again once their copies are done.

    `cudart` is CUDA's runtime library. The number of buffers grows with how far the host runs ahead of the GPU.
    """

    def __init__(self, cudart: Any, device_id: int) -> None:
        self._cudart = cudart
        self._device_id = device_id
        self._buffers: List[_Buffer] = []

    def upload(self, values: np.ndarray) -> nn.NdArray:
        """Return an array with these float32 values, in the default context, and queue the copy to it.

        `values` may be overwritten afterwards.

        Raises:
            RuntimeError: where CUDA fails.
        """
        array = nn.NdArray(values.shape)
        address = array.data_ptr(np.float32, nn.get_current_context(), True)
        self._call("cudaSetDevice", self._device_id)
        buffer = self._free_buffer(values.nbytes)
        buffer.memory[: values.nbytes] = values.reshape(-1).view(np.uint8)
        source = ctypes.c_void_p(buffer.memory.ctypes.data)
        count = ctypes.c_size_t(values.nbytes)
        self._call("cudaMemcpyAsync", ctypes.c_void_p(address), source, count, _HOST_TO_DEVICE, None)
        self._call("cudaEventRecord", buffer.copied, None)
        return array

    def _free_buffer(self, nbytes: int) -> _Buffer:
        for buffer in self._buffers:
            if buffer.memory.nbytes >= nbytes and self._is_copied(buffer):
                return buffer
        # rounded up to a power of two, so that batches with other numbers of masks fit too
        size = 1 << max(12, (nbytes - 1).bit_length())
        memory = ctypes.c_void_p()
        event = ctypes.c_void_p()
        self._call("cudaHostAlloc", ctypes.byref(memory), ctypes.c_size_t(size), _PORTABLE)
        self._call("cudaEventCreateWithFlags", ctypes.byref(event), _NO_TIMING)
        view = np.ctypeslib.as_array(ctypes.cast(memory, ctypes.POINTER(ctypes.c_uint8)), (size,))
        self._buffers.append(_Buffer(view, event))
        return self._buffers[-1]

    def _is_copied(self, buffer: _Buffer) -> bool:
        status = self._cudart.cudaEventQuery(buffer.copied)
        if status == _NOT_READY:
            # CUDA remembers this as an error, and NNabla would blame its next kernel for it
            self._cudart.cudaGetLastError()
        elif status:
            raise RuntimeError(f"CUDA: cudaEventQuery fails with error {status}")
        return status == 0

    def _call(self, name: str, *args: Any) -> None:
        status = getattr(self._cudart, name)(*args)
        if status:
            raise RuntimeError(f"CUDA: {name} fails with error {status}")


@lru_cache(maxsize=None)
def uploader(device_id: str) -> Optional[Uploader]:
    """Return the uploader of a GPU; None where CUDA's runtime has another version, and NNabla must upload."""
    try:
        # loaded already: by cuda_libraries, or with the extension
        return Uploader(ctypes.CDLL("libcudart.so.12"), int(device_id))
    except OSError:
        return None
