# SPDX-License-Identifier: Apache-2.0
"""Sets of instance masks: order, mini-batches, packing, overlap. Pure functions on NumPy arrays.

The masks of one picture are an array (N, H, W), +1 inside an instance and -1 outside; N may be 0.
"""

from __future__ import annotations

from typing import List, Sequence, Tuple

import numpy as np


def areas(masks: np.ndarray) -> np.ndarray:
    """The number of pixels inside each mask: (N,)."""
    return (masks > 0).sum(axis=(1, 2))


def select(masks: np.ndarray, ins_max: int | None, set_order: str, rng: np.random.Generator) -> np.ndarray:
    """Indices of the masks to translate, in the order to translate them (`select_by_area`)."""
    return select_by_area(areas(masks), ins_max, set_order, rng)


def select_by_area(area: np.ndarray, ins_max: int | None, set_order: str, rng: np.random.Generator) -> np.ndarray:
    """Indices of the masks to translate, in the order to translate them, by the `area` (N,) of each.

    Empty masks are left out, the `ins_max` largest kept (None: all), and put in decreasing order of area or, with
    `set_order="random"`, shuffled by `rng`.
    """
    order = np.argsort(-area, kind="stable")
    order = order[area[order] > 0][:ins_max]
    return rng.permutation(order) if set_order == "random" else order


def mini_batches(count: int, ins_per: int) -> List[slice]:
    """Cut `count` instances into the passes of the sequential mini-batch, `ins_per` each (paper, section 2.3).

    `ins_per` 0 is translation without masks, as in CycleGAN: one pass without instances, whatever `count` is.
    """
    if ins_per == 0:
        return [slice(0, 0)]
    return [slice(i, min(i + ins_per, count)) for i in range(0, count, ins_per)]


def pack(sets: Sequence[np.ndarray]) -> np.ndarray:
    """Stack the masks of B pictures, (N_b, H, W) each, for the networks: (M, 1, H, W) float32.

    A picture without a mask gets an empty one, since the networks need at least one mask for each picture.
    """
    padded = [masks if len(masks) else -np.ones((1,) + masks.shape[1:], np.float32) for masks in sets]
    return np.concatenate(padded)[:, None].astype(np.float32)


def union(masks: np.ndarray) -> np.ndarray:
    """Union (H, W) in [-1, 1] of masks (N, H, W): their inside parts added up and clipped, as in the authors' code."""
    return np.clip(((masks + 1) / 2).sum(axis=0), 0, 1) * 2 - 1


def iou(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two masks (H, W) bool; 1 if both are empty."""
    total = np.count_nonzero(one | other)
    return np.count_nonzero(one & other) / total if total else 1.0


def bounding_box(mask: np.ndarray) -> Tuple[slice, slice]:
    """The rows and columns of the smallest window that holds all nonzero pixels of `mask` (H, W).

    Both slices have plain integers as start and stop; of an empty mask, they are `slice(0, 0)`.
    """
    rows = np.flatnonzero(mask.any(axis=1))
    columns = np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return slice(0, 0), slice(0, 0)
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
