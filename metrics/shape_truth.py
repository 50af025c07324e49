# SPDX-License-Identifier: Apache-2.0
"""What is known about the pictures of `datasets/generate_shapes_dataset.py`, where the right translation is no secret.

An instance of domain A should become the shape of domain B at the same centre and of the same `size`, in B's colour.
Pictures are (H, W, 3) uint8, masks (H, W) bool, lengths in pixels of the picture as it is on the disk.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import numpy as np
from PIL import Image

from common.errors import UserError
from data.instances import iou
from data.shapes import SHAPES, shape_mask

sys.path.insert(0, str(Path(__file__).resolve().parent / "datasets"))


from data import pictures

# how far each channel of a pixel may be from a colour, of 255, to be taken for painted in it; instances are within 20
# of their domain's colour, red and blue are 190 apart
SAME_COLOUR = 70
# painted pixels are looked for up to so many times an instance's size from its centre
REACH = 1.5
# circle and square, which are much alike, overlap by 0.79
LEAST_OVERLAP = 0.5

Instance = Dict[str, Any]


@dataclass(frozen=True)
class Target:
    """What the instances of a domain are to become: a shape (key of SHAPES), and the mean colour (3,) of its kind."""

    shape: str
    colour: np.ndarray


def read_instances(root: str | Path, phase: str, domain: str) -> Optional[Dict[str, List[Instance]]]:
    """The instances of each picture of PHASE + domain ("A" or "B"), by name; None for a data set without such truth.

    Raises:
        UserError: where the file is there and is not what the generator writes.
    """
    path = Path(root) / f"{phase}{domain}.json"
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        for instance in (i for instances in found.values() for i in instances):
            if instance["shape"] not in SHAPES or not float(instance["size"]) > 0:
                raise ValueError(f"no shape {instance['shape']!r} of size {instance['size']}")
            np.array([*instance["centre"], *instance["colour"]], float).reshape(5)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no truth about shapes ({error}); make the data set anew, or delete it") from None
    return found


def target_of(instances: Dict[str, List[Instance]]) -> Optional[Target]:
    """What the instances of a domain have in common; None where it has none."""
    every = [instance for found in instances.values() for instance in found]
    return Target(every[0]["shape"], np.mean([i["colour"] for i in every], axis=0)) if every else None


def ideal_mask(shape: str, instance: Instance, own_size: Sequence[int], size: Sequence[int]) -> np.ndarray:
    """The mask of `shape` where `instance` is, as the generator would draw it in a picture of `own_size` = (height,
    width), read at `size`."""
    coverage = shape_mask(shape, instance["centre"], instance["size"], *own_size)
    mask = Image.fromarray((coverage >= 0.5).astype(np.float32))
    return np.asarray(pictures.resized(mask, tuple(size))) > 0.5


def painted_mask(
    picture: np.ndarray, colour: np.ndarray, instances: Sequence[Instance], index: int, own_size: Sequence[int]
) -> np.ndarray:
    """Where the picture itself, whatever the masks say, shows an instance: pixels of `colour` near `instances[index]`
    and not on the square of another."""
    height, width = picture.shape[:2]
    rows = (np.arange(height) + 0.5)[:, None] * own_size[0] / height
    columns = (np.arange(width) + 0.5)[None, :] * own_size[1] / width

    def near(instance: Instance, reach: float) -> np.ndarray:
        x, y = instance["centre"]
        return np.maximum(np.abs(columns - x), np.abs(rows - y)) <= reach

    own = instances[index]
    where = near(own, REACH * own["size"])
    for other in (*instances[:index], *instances[index + 1 :]):
        where &= ~near(other, other["size"] + 1)
    return where & (np.abs(picture.astype(np.float32) - colour).max(axis=2) <= SAME_COLOUR)


def nearest_shape(mask: np.ndarray, instance: Instance, own_size: Sequence[int]) -> Optional[str]:
    """The shape, at the instance's centre and of its size, that a mask (H, W) overlaps best (by IoU).

    None where that is by less than LEAST_OVERLAP: a speck, or a mask of everything, is no shape.
    """
    overlap = {shape: iou(mask, ideal_mask(shape, instance, own_size, mask.shape)) for shape in SHAPES}
    best = max(overlap, key=lambda shape: overlap[shape])
    return best if overlap[best] >= LEAST_OVERLAP else None


def colour_error(picture: np.ndarray, where: np.ndarray, colour: np.ndarray) -> Optional[float]:
    """How far the mean of the pixels `where` (H, W) is from `colour`: mean over the channels, of 255; None if none."""
    return float(np.abs(picture[where].mean(axis=0) - colour).mean()) if where.any() else None
