# SPDX-License-Identifier: Apache-2.0
"""The instances of a picture, from mask files, boxes or the segmenter, with remarks for whoever drew or sent them."""

from __future__ import annotations

from typing import Callable, Iterator, List, Sequence, Tuple

import numpy as np

from common.errors import UserError
from data import checks, pictures
from data.items import Item
from data.pictures import Size
from masks.box_object import NothingFound, clipped, find_object
from masks.reader import Box
from serving.networks import Networks
from translation.placed_mask import PlacedMask

MOST_INSTANCES = 100  # in one picture


def read_levels(item: Item, remarks: List[str]) -> Iterator[Tuple[int, np.ndarray]]:
    """The number and the whiteness (h, w) float32 in [0, 1] of each mask file of a picture."""
    for number, path in item.masks.items():
        level = pictures.read_level(path)
        if checks.is_grey((level * 255).round().astype(np.uint8)) or 0 < level.max() <= 0.5:
            remarks.append(f"mask {number}: {checks.GREY}; it is thresholded at half grey")
        yield number, level


def in_boxes(picture: np.ndarray, boxes: Sequence[Box], remarks: List[str]) -> Iterator[Tuple[int, np.ndarray]]:
    """The number and the mask (H, W) bool of the object in each box of a picture (H, W, 3) uint8."""
    for number, box in enumerate(boxes):
        try:
            yield number, find_object(picture, box)
        except NothingFound as nothing:
            remarks.append(f"{nothing}; using the ellipse inside the box")
            yield number, nothing.mask


def segmented(networks: Networks, read: Callable[[], np.ndarray], domain: str, remarks: List[str]) -> List[PlacedMask]:
    """The instances that the segmenter finds in the picture that `read` gives, the largest first."""
    found = networks.segment(read, domain, MOST_INSTANCES + 1)
    if not found:
        remarks.append("the segmenter found no instance in this picture; draw a box around each")
    if len(found) > MOST_INSTANCES:
        many = f"more than {MOST_INSTANCES} instances"
        remarks.append(f"the segmenter found {many}; these are the {MOST_INSTANCES} largest")
    return found[:MOST_INSTANCES]


def expanded(found: Sequence[PlacedMask], size: Size) -> Iterator[Tuple[int, np.ndarray]]:
    """The number and the mask (H, W) bool of each instance in a picture of `size`, one at a time."""
    for number, mask in enumerate(found):
        yield number, mask.at(size) > 127


def check_boxes(boxes: Sequence[Box], size: Size) -> None:
    """Raise UserError if a box has no area in a picture of `size` (height, width)."""
    for box in boxes:
        clipped(box, size)


def check_mask(number: int, size: Size, picture: Size) -> None:
    """Raise UserError if a mask of `size` cannot be one of a picture of that (height, width)."""
    if not pictures.same_proportions(size, picture):
        mask_size, picture_size = (f"{width}x{height}" for height, width in (size, picture))
        raise UserError(
            f"mask {number} is {mask_size}, its picture {picture_size} (width x height); give a mask that was made for "
            "this picture, upright"
        )
