# SPDX-License-Identifier: Apache-2.0
"""Masks stored only for the part of a picture around their instance, which saves memory in large pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

import numpy as np
from PIL import Image

from data import pictures
from data.instances import bounding_box

Size = Tuple[int, int]


@dataclass(frozen=True)
class Window:
    """A part of a picture: rows from `top` to `bottom`, columns from `left` to `right`, ends excluded."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def size(self) -> Size:
        """(height, width)."""
        return self.bottom - self.top, self.right - self.left

    @property
    def slices(self) -> Tuple[slice, slice]:
        """The index of this window in an array (H, W, ...)."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def within(self, other: Window) -> Window:
        """This window in coordinates relative to the upper left corner of the other."""
        return Window(
            self.top - other.top, self.left - other.left, self.bottom - other.top, self.right - other.left
        )

    def contains(self, other: Window) -> bool:
        """Return whether all of the other window lies in this one."""
        rows = self.top <= other.top and other.bottom <= self.bottom
        columns = self.left <= other.left and other.right <= self.right
        return rows and columns

    def intersection(self, other: Window) -> Window | None:
        """The part that both windows share, None where there is none."""
        top = max(self.top, other.top)
        left = max(self.left, other.left)
        bottom = min(self.bottom, other.bottom)
        right = min(self.right, other.right)
        return Window(top, left, bottom, right) if top < bottom and left < right else None


@dataclass(frozen=True)
class PlacedMask:
    """A mask of which only a `window` of the picture is stored; it is black elsewhere.

    `level` (h, w) uint8, 255 inside the instance, covers the window, at the picture's scale or at another.
    """

    window: Window
    level: np.ndarray

    @staticmethod
    def of(mask: np.ndarray) -> PlacedMask:
        """Place a mask (H, W) bool: store the smallest window around its instance; an empty mask has an empty one."""
        rows, columns = bounding_box(mask)
        window = Window(rows.start, columns.start, rows.stop, columns.stop)
        return PlacedMask(window, mask[window.slices].astype(np.uint8) * 255)

    @property
    def area(self) -> int:
        """Number of pixels inside the instance; for masks stored at the picture's scale."""
        return int((self.level > 127).sum())

    def at(self, size: Size) -> np.ndarray:
        """The mask of the whole picture, whose (height, width) is `size`, as uint8."""
        whole = np.zeros(size, np.uint8)
        whole[self.window.slices] = self.in_window()
        return whole

    def in_window(self) -> np.ndarray:
        """The part in the window, at the picture's scale, as uint8."""
        return np.asarray(pictures.resized(Image.fromarray(self.level), self.window.size))

    def overlaps(self, other: PlacedMask) -> bool:
        """Return whether the instances share a pixel; for masks stored at the picture's scale."""
        shared = self.window.intersection(other.window)
        if shared is None:
            return False
        inside = self.level[shared.within(self.window).slices] > 127
        inside_other = other.level[shared.within(other.window).slices] > 127
        return bool((inside & inside_other).any())
