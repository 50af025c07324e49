# SPDX-License-Identifier: Apache-2.0
"""Ideal shapes: circle, square, triangle, diamond.

Lengths are in pixels, x to the right and y down from the picture's top left corner, so the pixel in row r and column c
is the square from (c, r) to (c + 1, r + 1). The `size` of a shape is half the side of the square around its centre that
it touches on all four sides.
"""

from __future__ import annotations

from typing import Callable

import numpy as np

# For offsets (x, y) from the centre, in units of `size`: whether they are inside.
SHAPES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "circle": lambda x, y: x * x + y * y <= 1,
    "square": lambda x, y: np.maximum(np.abs(x), np.abs(y)) <= 1,
    "triangle": lambda x, y: (2 * np.abs(x) <= y + 1) & (y <= 1),
    "diamond": lambda x, y: np.abs(x) + np.abs(y) <= 1,
}
SAMPLES = 8  # points per pixel and axis that are tested for coverage


def shape_mask(shape: str, centre: tuple[float, float], size: float, height: int, width: int) -> np.ndarray:
    """Return the part of each pixel that a shape covers: (height, width) float32 in [0, 1], in steps of 1/64.

    `shape` is a key of SHAPES; `centre` (x, y) and `size` are in pixels. Parts outside the picture are cut off.

    Raises:
        KeyError: for an unknown shape.
    """
    inside = SHAPES[shape]
    coverage = np.zeros((height, width), np.float32)
    left, right = (int(np.clip(edge, 0, width)) for edge in (centre[0] - size, np.ceil(centre[0] + size)))
    top, bottom = (int(np.clip(edge, 0, height)) for edge in (centre[1] - size, np.ceil(centre[1] + size)))
    if left < right and top < bottom:
        x = (left + (np.arange((right - left) * SAMPLES) + 0.5) / SAMPLES - centre[0]) / size
        y = (top + (np.arange((bottom - top) * SAMPLES) + 0.5) / SAMPLES - centre[1]) / size
        points = inside(x[None, :], y[:, None]).reshape(bottom - top, SAMPLES, right - left, SAMPLES)
        coverage[top:bottom, left:right] = points.mean(axis=(1, 3))
    return coverage
