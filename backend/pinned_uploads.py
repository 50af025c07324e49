# SPDX-License-Identifier: Apache-2.0
"""Uploads to a GPU that nobody waits for.

NNabla uploads from ordinary memory, for which CUDA first waits for all that it was given to do before. From
page-locked memory a copy can be queued behind that, like the work of NNabla itself (which is on the null stream, so
that the order of all of it is that of the calls), while the next work is being prepared.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, List, Optional

import nnabla as nn
import numpy as np

_TO_DEVICE, _PORTABLE, _NO_TIMING, _NOT_READY = 1, 1, 2, 600


@dataclass
class _Buffer:
    """Page-locked memory, and the event that tells that what was last copied out of it is there."""

    memory: np.ndarray
    copied: ctypes.c_void_p


class Uploader:
    """Uploads to one GPU through buffers that are used again once their copies are done.

    `cudart` is CUDA's runtime library. How many buffers there are follows from how far the host runs ahead.
    """

    def __init__(self, cudart: Any, device_id: int) -> None:
        self._cudart, self._device_id = cudart, device_id
        self._buffers: List[_Buffer] = []

    def upload(self, values: np.ndarray) -> nn.NdArray:
        """An array with these float32 values, in the default context; the copy is queued, and the values are taken.

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
        self._call("cudaMemcpyAsync", ctypes.c_void_p(address), source, count, _TO_DEVICE, None)
        self._call("cudaEventRecord", buffer.copied, None)
        return array

    def _free_buffer(self, nbytes: int) -> _Buffer:
        for buffer in self._buffers:
            if buffer.memory.nbytes >= nbytes and self._is_copied(buffer):
                return buffer
        # sizes of powers of two, so that batches of other numbers of masks find one that fits
        size = 1 << max(12, (nbytes - 1).bit_length())
        memory, event = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cudaHostAlloc", ctypes.byref(memory), ctypes.c_size_t(size), _PORTABLE)
        self._call("cudaEventCreateWithFlags", ctypes.byref(event), _NO_TIMING)
        view = np.ctypeslib.as_array(ctypes.cast(memory, ctypes.POINTER(ctypes.c_uint8)), (size,))
        self._buffers.append(_Buffer(view, event))
        return self._buffers[-1]

    def _is_copied(self, buffer: _Buffer) -> bool:
        status = self._cudart.cudaEventQuery(buffer.copied)
        if status == _NOT_READY:
            # that is remembered as an error, and NNabla would take it for one of its next kernel's
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
    """That of a GPU; None where CUDA's runtime is none that is known here, and NNabla is to upload."""
    try:
        # it is loaded already: by cuda_libraries, or with the extension
        return Uploader(ctypes.CDLL("libcudart.so.12"), int(device_id))
    except OSError:
        return None
