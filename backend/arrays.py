# SPDX-License-Identifier: Apache-2.0
"""Arrays where NNabla computes, on the CPU or a GPU: put there, joined, cut, copied, read back.

On a GPU all of these return before the work is done, except for `read`, which waits for it. Training waits nowhere else
but, in half precision, where it looks for overflows.
"""

from __future__ import annotations

from functools import lru_cache
from typing import List, Sequence, Tuple

import nnabla as nn
import nnabla.functions as F
import numpy as np

from backend import pinned_uploads


def upload(values: np.ndarray) -> nn.NdArray:
    """An array with these values, float32, on its way to the device."""
    values = np.ascontiguousarray(values, np.float32)
    if not on_cpu():
        uploader = pinned_uploads.uploader(nn.get_current_context().device_id)
        if uploader is not None:
            return uploader.upload(values)
    return nn.NdArray.from_numpy_array(values)


def read(array: nn.NdArray) -> np.ndarray:
    """The values of an array, float32, in memory of their own. Waits until they are there."""
    # "r": with `array.data` the next use on a GPU would upload them again
    return np.array(array.get_data("r"), np.float32)


def copy(array: nn.NdArray) -> nn.NdArray:
    """The same values in an array that stays as it is, whatever the graph that they come from goes on to do."""
    return F.identity(array)


def concatenate(parts: Sequence[nn.NdArray]) -> nn.NdArray:
    """One array of several, along the first axis."""
    return parts[0] if len(parts) == 1 else F.concatenate(*parts, axis=0)


def pieces(array: nn.NdArray, counts: Sequence[int]) -> List[nn.NdArray]:
    """An array cut along the first axis into pieces of `counts` rows; the inverse of `concatenate`."""
    if len(counts) == 1:
        return [array]
    ends = np.cumsum(counts).tolist()
    rest = array.shape[1:]
    return [
        F.slice(array, start=(end - count, *[0] * len(rest)), stop=(end, *rest)) for count, end in zip(counts, ends)
    ]


@lru_cache(256)
def membership(counts: Tuple[int, ...]) -> nn.NdArray:
    """(B, M) with 1 where mask m belongs to picture b, for B pictures with `counts` masks each, one after another.

    The few that occur are kept, so that they need not be uploaded again.
    """
    return upload(np.repeat(np.eye(len(counts), dtype=np.float32), counts, axis=1))


@lru_cache(8)
def constant(value: float) -> nn.NdArray:
    """A (1, 1, 1, 1) array, kept too."""
    return upload(np.full((1, 1, 1, 1), value))


def on_cpu() -> bool:
    """Whether the default context is the CPU's. A GPU's names the CPU too, for functions that a GPU has not."""
    return not any(backend.startswith("cud") for backend in nn.get_current_context().backend)
