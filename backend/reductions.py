# SPDX-License-Identifier: Apache-2.0
"""Sums and means over axes of a tensor, by the same call on a CPU and on a GPU.

NNabla 1.39's own reductions end on a Hopper GPU (H100, H200) with "an illegal instruction was encountered": their warp
shuffles name 28 of the 32 lanes (a mask of 0xfffffff), which earlier GPUs tolerate. `F.sum`, `F.max`, `F.min`,
`F.cumsum`, `F.instance_normalization`, `F.spectral_norm`, and `F.mean` over the last axes use them. `F.mean` over other
axes is cuDNN's, so on a GPU a last axis of size 1 is added that is not reduced, and a sum is a mean times its count.
"""

from __future__ import annotations

from typing import Sequence, TypeVar

import nnabla as nn
import nnabla.functions as F

from backend import arrays

# a result is of the type of x: a variable is part of a graph, an array is computed at once
Tensor = TypeVar("Tensor", nn.Variable, nn.NdArray)


def total(x: Tensor, axes: Sequence[int] | None = None, keepdims: bool = False) -> Tensor:
    """The sum of x over `axes`; None: over all of them, to a scalar. `keepdims` keeps them, with size 1."""
    if arrays.on_cpu():
        return F.sum(x, axis=axes, keepdims=keepdims)
    average = mean(x, axes, keepdims)
    return average * (x.size / average.size)


def mean(x: Tensor, axes: Sequence[int] | None = None, keepdims: bool = False) -> Tensor:
    """The mean of x over `axes`; None: over all of them, to a scalar. `keepdims` keeps them, with size 1."""
    if arrays.on_cpu():
        return F.mean(x, axis=axes, keepdims=keepdims)
    if axes is None:
        axes = range(len(x.shape))
    average = F.mean(F.reshape(x, (*x.shape, 1)), axis=tuple(axes), keepdims=keepdims)
    return F.reshape(average, average.shape[:-1])
