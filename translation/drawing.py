# SPDX-License-Identifier: Apache-2.0
"""Draw masks in colours or as outlines, and put pictures side by side."""

from __future__ import annotations

import colorsys
from typing import Sequence, Tuple

import numpy as np
from PIL import Image

from data.instances import bounding_box
from data.pictures import masks_to_network, resized

LEAST_OUTLINES_SIDE = 384  # pixels of the longer side of a picture of outlines
RIM_WIDTH = 1.8  # of an outline with its dark rim, in widths of the coloured line
RIM_COLOUR = (0, 0, 0, 190)
# of a picture's first instances
COLOURS = ((255, 255, 255), (255, 176, 0), (100, 143, 255), (220, 38, 127), (0, 190, 140), (160, 110, 255))
GAP = 4  # pixels between the pictures of a stack


def instance_colour(number: int) -> Tuple[int, int, int]:
    """The RGB colour that marks a picture's instance number `number` on pages and drawings; all numbers differ."""
    if number < len(COLOURS):
        return COLOURS[number]
    # steps of the golden section around the colour circle, so that neighbouring numbers differ clearly
    red, green, blue = colorsys.hsv_to_rgb(number * 0.618034 % 1, 0.55 if number % 2 else 0.85, 1)
    return round(red * 255), round(green * 255), round(blue * 255)


def colour_masks(masks: np.ndarray) -> np.ndarray:
    """Draw masks (N, H, W) in [-1, 1] into one picture (H, W, 3) uint8: each in its colour, on black."""
    height, width = masks.shape[1:]
    drawn = np.zeros((height, width, 3), np.float32)
    for i, mask in enumerate(masks):
        inside = (mask[..., None] + 1) / 2
        drawn = drawn * (1 - inside) + inside * np.array(instance_colour(i), np.float32)
    return drawn.round().astype(np.uint8)


def outline_masks(masks: np.ndarray, numbers: Sequence[int] | None = None, line_width: float = 0.009) -> np.ndarray:
    """Draw the outlines of masks (N, H, W), bool or in [-1, 1], on a transparent ground: (s * H, s * W, 4) uint8.

    A line follows the border of its mask, and the edge of the picture where that cuts off an instance. It has the
    colour of its instance's number (`instance_colour`; `numbers` None: 0, 1, ...) and a dark rim, so that it is visible
    on any ground. `line_width` is the width of the coloured part, as a share of the side of a square with the picture's
    area. The scale s is 1 except for small pictures, where lines as wide as a pixel would hide too much.
    """
    if masks.dtype == bool:
        masks = masks_to_network(masks)
    if numbers is None:
        numbers = range(len(masks))
    height, width = masks.shape[1:]
    scale = -(-LEAST_OUTLINES_SIDE // max(height, width))
    line = line_width * scale * (height * width) ** 0.5
    drawn = np.zeros((scale * height, scale * width, 4), np.float32)
    for number, mask in zip(numbers, masks):
        inside = np.asarray(resized(Image.fromarray(mask.astype(np.float32)), drawn.shape[:2])) > 0
        window, distance = _distance_to_edge(inside, int(line) + 2)
        for colour, thickness in ((RIM_COLOUR, RIM_WIDTH * line), ((*instance_colour(number), 255), line)):
            # pixels that the line's own border crosses are covered in part
            cover = np.clip(thickness / 2 - distance + 0.5, 0, 1)[..., None] * np.float32(colour[3] / 255)
            part = drawn[window]
            part[..., :3] += cover * (np.array(colour[:3], np.float32) - part[..., :3])
            part[..., 3:] += cover * (255 - part[..., 3:])
    return drawn.round().astype(np.uint8)


def stack(images: Sequence[np.ndarray], axis: int, gap: int = GAP) -> np.ndarray:
    """Put pictures (H, W, 3) beside (axis 1) or below (axis 0) each other, with white between them."""
    other_side = max(image.shape[1 - axis] for image in images)
    parts = []
    for i, image in enumerate(images):
        margin = [(0, 0), (0, 0), (0, 0)]
        margin[axis] = (gap if i else 0, 0)
        margin[1 - axis] = (0, other_side - image.shape[1 - axis])
        parts.append(np.pad(image, margin, constant_values=255))
    return np.concatenate(parts, axis=axis)


def _distance_to_edge(inside: np.ndarray, margin: int) -> Tuple[Tuple[slice, slice], np.ndarray]:
    """Distances in pixels from the edge of an instance (H, W) bool; the edge of the picture counts as one too.

    Returns the window around the instance, with a `margin` of pixels, and the distances in it.
    """
    # slow to import, and not needed in training
    from scipy.ndimage import distance_transform_edt

    rows, columns = bounding_box(inside)
    if not rows.stop:
        return (rows, columns), np.zeros((0, 0), np.float32)
    window = (
        slice(max(0, rows.start - margin), rows.stop + margin),
        slice(max(0, columns.start - margin), columns.stop + margin),
    )
    part = np.pad(inside[window], 1)
    # distance_transform_edt measures to the nearest pixel of the other kind; the edge is half a pixel before it
    distance = np.where(part, distance_transform_edt(part), distance_transform_edt(~part)) - 0.5
    return window, distance[1:-1, 1:-1].astype(np.float32)
