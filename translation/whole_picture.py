# SPDX-License-Identifier: Apache-2.0
"""Translate a picture as a whole, at the size the model works at (the other way: keep_size.py)."""

from __future__ import annotations

from typing import List, Sequence, Tuple

import numpy as np

from data import pictures
from translation.keep_size import Translate
from translation.placed_mask import PlacedMask, Window


def translate_whole(
    picture: np.ndarray, instances: Sequence[PlacedMask], translate: Translate
) -> Tuple[np.ndarray, List[PlacedMask]]:
    """Translate instances of a picture (H, W, 3) uint8, in the order given; return the picture and the new masks."""
    size = picture.shape[:2]
    inside = np.array([mask.at(size) > 127 for mask in instances], bool).reshape(-1, *size)
    y, b = translate(pictures.to_network(picture), pictures.masks_to_network(inside))
    return pictures.to_picture(y), [PlacedMask(Window(0, 0, *size), pictures.to_picture(mask)) for mask in b]
