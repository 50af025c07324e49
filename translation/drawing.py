# SPDX-License-Identifier: Apache-2.0
"""Draw masks so that one can look at them: in colours, as outlines, side by side."""

from __future__ import annotations

import colorsys
from typing import Sequence, Tuple

import numpy as np
from PIL import Image

from data.instances import bounding_box
from data.pictures import masks_to_network, resized

OUTLINES = 384  # pixels of the longer side that outlines have at least
# of the first instances of a picture
COLOURS = ((255, 255, 255), (255, 176, 0), (100, 143, 255), (220, 38, 127), (0, 190, 140), (160, 110, 255))


def colour_masks(masks: np.ndarray) -> np.ndarray:
    """Show masks (N, H, W) in [-1, 1] in one picture (H, W, 3) uint8, black where no instance is, a colour for each."""
    height, width = masks.shape[1:]
    shown = np.zeros((height, width, 3), np.float32)
    for i, mask in enumerate(masks):
        inside = (mask[..., None] + 1) / 2
        shown = shown * (1 - inside) + inside * np.array(instance_colour(i), np.float32)
    return shown.round().astype(np.uint8)


def outline_masks(masks: np.ndarray, numbers: Sequence[int] | None = None, width: float = 0.009) -> np.ndarray:
    """Draw the outlines of masks (N, H, W), bool or in [-1, 1], on a transparent ground: (s * H, s * W, 4) uint8.

    Each line has the colour of its instance's number (`instance_colour`; None: as they come) and a dark rim, so that it
    is seen on any ground; `width` is that of the coloured part, as a share of the side of a square of the picture's
    area. A line is where its mask crosses the middle, and along the edge of the picture where that cuts an instance. s
    is 1 for all but small pictures, which lines as wide as their pixels would hide.
    """
    masks = masks_to_network(masks) if masks.dtype == bool else masks
    height, wide = masks.shape[1:]
    scale = -(-OUTLINES // max(height, wide))
    line = width * scale * (height * wide) ** 0.5
    drawn = np.zeros((scale * height, scale * wide, 4), np.float32)
    for number, mask in zip(range(len(masks)) if numbers is None else numbers, masks):
        inside = np.asarray(resized(Image.fromarray(mask.astype(np.float32)), drawn.shape[:2])) > 0
        window, distance = _distance_to_edge(inside, int(line) + 2)
        for colour, thick in (((0, 0, 0, 190), 1.8 * line), ((*instance_colour(number), 255), line)):
            # a pixel that the line's own edge passes through has a part of it
            cover = np.clip(thick / 2 - distance + 0.5, 0, 1)[..., None] * np.float32(colour[3] / 255)
            part = drawn[window]
            part[..., :3] += cover * (np.array(colour[:3], np.float32) - part[..., :3])
            part[..., 3:] += cover * (255 - part[..., 3:])
    return drawn.round().astype(np.uint8)


def _distance_to_edge(inside: np.ndarray, margin: int) -> Tuple[Tuple[slice, slice], np.ndarray]:
    """How far pixels are from the edge of an instance (H, W) bool, for those up to `margin` around it, and where these
    are; the edge of the picture is one too."""
    # slow to import, and training does without
    from scipy.ndimage import distance_transform_edt

    box = bounding_box(inside)
    if not box[0].stop:
        return box, np.zeros((0, 0), np.float32)
    window = tuple(slice(max(0, span.start - margin), span.stop + margin) for span in box)
    part = np.pad(inside[window], 1)
    # to the nearest pixel of the other kind; the edge is half a pixel before it
    distance = np.where(part, distance_transform_edt(part), distance_transform_edt(~part)) - 0.5
    return window, distance[1:-1, 1:-1].astype(np.float32)


def instance_colour(number: int) -> Tuple[int, int, int]:
    """The colour of a picture's instance of this number, by which it is known on pages: those of COLOURS, then others
    without end."""
    if number < len(COLOURS):
        return COLOURS[number]
    # a golden section of the circle away from the one before, so that neighbours differ
    red, green, blue = colorsys.hsv_to_rgb(number * 0.618034 % 1, 0.55 if number % 2 else 0.85, 1)
    return round(red * 255), round(green * 255), round(blue * 255)


GAP = 4


def stack(images: Sequence[np.ndarray], axis: int, gap: int = GAP) -> np.ndarray:
    """Put pictures (H, W, 3) beside (axis 1) or below (axis 0) each other with white between them."""
    other = max(image.shape[1 - axis] for image in images)
    parts = []
    for i, image in enumerate(images):
        margin = [(0, 0), (0, 0), (0, 0)]
        margin[axis] = (gap if i else 0, 0)
        margin[1 - axis] = (0, other - image.shape[1 - axis])
        parts.append(np.pad(image, margin, constant_values=255))
    return np.concatenate(parts, axis=axis)
