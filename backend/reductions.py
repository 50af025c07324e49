# SPDX-License-Identifier: Apache-2.0
"""Sums and means over axes of a tensor, in the same words on a CPU and on a GPU.

NNabla 1.39's own reductions end on a Hopper GPU (H100, H200) with "an illegal instruction was encountered": their warp
shuffles name 28 of the 32 lanes (a mask of 0xfffffff), which earlier GPUs bear with. `F.sum` and `F.mean` over the last
axes, `F.max`, `F.min`, `F.cumsum`, `F.instance_normalization` and `F.spectral_norm` use them. Sums and means over other
axes go to cuDNN instead, so on a GPU a last axis of size 1 is added here, which is not summed over.
"""

from __future__ import annotations

from typing import Callable, Sequence, TypeVar

import nnabla as nn
import nnabla.functions as F

from backend import arrays

# a result is of the type of x: a variable is part of a graph, an array is computed at once
Tensor = TypeVar("Tensor", nn.Variable, nn.NdArray)


def total(x: Tensor, axes: Sequence[int] | None = None, keepdims: bool = False) -> Tensor:
    """The sum of x over `axes`; None: over all of them, to a scalar. `keepdims` keeps them, with size 1."""
    return _reduced(F.sum, x, axes, keepdims)


def mean(x: Tensor, axes: Sequence[int] | None = None, keepdims: bool = False) -> Tensor:
    """The mean of x over `axes`; None: over all of them, to a scalar. `keepdims` keeps them, with size 1."""
    return _reduced(F.mean, x, axes, keepdims)


def _reduced(function: Callable, x: Tensor, axes: Sequence[int] | None, keepdims: bool) -> Tensor:
    if arrays.on_cpu():
        return function(x, axis=axes, keepdims=keepdims)
    if axes is None:
        axes = range(len(x.shape))
    reduced = function(F.reshape(x, (*x.shape, 1)), axis=tuple(axes), keepdims=keepdims)
    return F.reshape(reduced, reduced.shape[:-1])
