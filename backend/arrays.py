# SPDX-License-Identifier: Apache-2.0
"""Arrays on the device where NNabla computes, the CPU or a GPU: upload, join, cut, copy and read them.

On a GPU these functions return before the work is done, except for `read`, which waits for it. Training waits nowhere
else, unless in half precision, where it also checks for overflows.
"""

from __future__ import annotations

from functools import lru_cache
from typing import List, Sequence, Tuple

import nnabla as nn
import nnabla.functions as F
import numpy as np

from backend import pinned_uploads


def upload(values: np.ndarray) -> nn.NdArray:
    """Return an array with these values, float32; the copy to a GPU may still be under way."""
    values = np.ascontiguousarray(values, np.float32)
    if not on_cpu():
        uploader = pinned_uploads.uploader(nn.get_current_context().device_id)
        if uploader is not None:
            return uploader.upload(values)
    return nn.NdArray.from_numpy_array(values)


def read(array: nn.NdArray) -> np.ndarray:
    """Return a copy of an array's values, float32, once they are computed."""
    # "r": after `array.data` the next use on a GPU would upload them again
    return np.array(array.get_data("r"), np.float32)


def copy(array: nn.NdArray) -> nn.NdArray:
    """Return a copy of `array` that later runs of the graph do not overwrite."""
    return F.identity(array)


def concatenate(parts: Sequence[nn.NdArray]) -> nn.NdArray:
    """Join arrays along the first axis. A single one is returned as it is, not copied."""
    if len(parts) == 1:
        return parts[0]
    return F.concatenate(*parts, axis=0)


def pieces(array: nn.NdArray, counts: Sequence[int]) -> List[nn.NdArray]:
    """Cut an array along the first axis into pieces of `counts` rows; the inverse of `concatenate`."""
    if len(counts) == 1:
        return [array]
    rest = array.shape[1:]
    zeros = [0] * len(rest)
    parts = []
    start = 0
    for count in counts:
        stop = start + count
        parts.append(F.slice(array, start=(start, *zeros), stop=(stop, *rest)))
        start = stop
    return parts


@lru_cache(256)
def membership(counts: Tuple[int, ...]) -> nn.NdArray:
    """Return (B, M) with 1 where mask m belongs to picture b, else 0; picture b has `counts[b]` masks.

    Masks come in the order of their pictures. Cached: few occur, and each is uploaded once.
    """
    return upload(np.repeat(np.eye(len(counts), dtype=np.float32), counts, axis=1))


@lru_cache(8)
def constant(value: float) -> nn.NdArray:
    """Return a (1, 1, 1, 1) array of this value; cached."""
    return upload(np.full((1, 1, 1, 1), value))


def on_cpu() -> bool:
    """Return whether the default context is the CPU's.

    A GPU's context names the CPU too, for functions that do not exist on GPUs.
    """
    return not any(backend.startswith("cud") for backend in nn.get_current_context().backend)
