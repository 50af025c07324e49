# SPDX-License-Identifier: Apache-2.0
"""The true shapes in pictures of `datasets/generate_shapes_dataset.py`, for which the right translation is known.

An instance of domain A should become the shape of domain B at the same centre and of the same `size`, in B's colour.
Pictures are (H, W, 3) uint8, masks (H, W) bool, lengths in pixels of the picture as it is on the disk.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import numpy as np
from PIL import Image

from common.errors import UserError
from data import pictures
from data.instances import iou
from data.shapes import SHAPES, shape_mask

# a pixel has a colour if each channel differs from it by at most this, of 255; instances are within 20 of their
# domain's colour, and red and blue are 190 apart
SAME_COLOUR = 70
# painted pixels of an instance are searched up to this many times its size from its centre
REACH = 1.5
# below this IoU a mask has none of the shapes; circle and square, which are similar, have an IoU of 0.79
LEAST_OVERLAP = 0.5

Instance = Dict[str, Any]


@dataclass(frozen=True)
class Target:
    """The looks of a domain's instances: a shape (key of SHAPES), and their mean colour (3,)."""

    shape: str
    colour: np.ndarray


def read_instances(root: str | Path, phase: str, domain: str) -> Optional[Dict[str, List[Instance]]]:
    """The instances of each picture of PHASE + domain ("A" or "B"), by name; None for other data sets.

    Raises:
        UserError: where the file exists but is not as the generator writes it.
    """
    path = Path(root) / f"{phase}{domain}.json"
    if not path.is_file():
        return None
    try:
        by_picture = json.loads(path.read_text(encoding="utf-8"))
        for instance in (instance for instances in by_picture.values() for instance in instances):
            if instance["shape"] not in SHAPES or not float(instance["size"]) > 0:
                raise ValueError(f"no shape {instance['shape']!r} of size {instance['size']}")
            np.array([*instance["centre"], *instance["colour"]], float).reshape(5)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} does not describe shapes ({error}); make the data set again, or delete it") from None
    return by_picture


def target_of(instances: Dict[str, List[Instance]]) -> Optional[Target]:
    """The common looks of a domain's instances; None where it has none."""
    every = [instance for of_picture in instances.values() for instance in of_picture]
    if not every:
        return None
    return Target(every[0]["shape"], np.mean([instance["colour"] for instance in every], axis=0))


def ideal_mask(shape: str, instance: Instance, own_size: Sequence[int], size: Sequence[int]) -> np.ndarray:
    """The mask of `shape` in place of `instance`, as the generator would draw it in a picture of `own_size` (height,
    width), read at `size`."""
    coverage = shape_mask(shape, instance["centre"], instance["size"], *own_size)
    mask = Image.fromarray((coverage >= 0.5).astype(np.float32))
    return np.asarray(pictures.resized(mask, tuple(size))) > 0.5


def painted_mask(
    picture: np.ndarray, colour: np.ndarray, instances: Sequence[Instance], index: int, own_size: Sequence[int]
) -> np.ndarray:
    """The pixels that show an instance in the picture itself, whatever its masks: those of `colour` near
    `instances[index]`, and not in the square around another."""
    height, width = picture.shape[:2]
    rows = (np.arange(height) + 0.5)[:, None] * own_size[0] / height
    columns = (np.arange(width) + 0.5)[None, :] * own_size[1] / width

    def square(instance: Instance, half_side: float) -> np.ndarray:
        x, y = instance["centre"]
        return np.maximum(np.abs(columns - x), np.abs(rows - y)) <= half_side

    searched = square(instances[index], REACH * instances[index]["size"])
    for other in (*instances[:index], *instances[index + 1 :]):
        searched &= ~square(other, other["size"] + 1)
    return searched & (np.abs(picture.astype(np.float32) - colour).max(axis=2) <= SAME_COLOUR)


def nearest_shape(mask: np.ndarray, instance: Instance, own_size: Sequence[int]) -> Optional[str]:
    """The shape with which a mask (H, W) has the highest IoU, at the instance's centre and of its size.

    None where the IoU is below LEAST_OVERLAP, as for a speck or a mask of everything.
    """
    overlap = {shape: iou(mask, ideal_mask(shape, instance, own_size, mask.shape)) for shape in SHAPES}
    best = max(overlap, key=lambda shape: overlap[shape])
    return best if overlap[best] >= LEAST_OVERLAP else None


def colour_error(picture: np.ndarray, where: np.ndarray, colour: np.ndarray) -> Optional[float]:
    """Difference between the mean colour of the pixels `where` (H, W) and `colour`, averaged over the channels, of 255;
    None where there is no such pixel."""
    if not where.any():
        return None
    return float(np.abs(picture[where].mean(axis=0) - colour).mean())
