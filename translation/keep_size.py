# SPDX-License-Identifier: Apache-2.0
"""Translate instances of a picture of any size in their place: cut out with context, scaled to what the network was
trained on, translated, scaled back, and blended in where the old or the new instance is. The rest is not touched.

Everything is done cut-out by cut-out, and a mask kept no larger than its instance, so that memory grows with the
picture, and not with the picture times the number of instances.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, List, Sequence, Tuple

import numpy as np
from PIL import Image
from scipy.ndimage import uniform_filter

from data import pictures
from data.instances import bounding_box

Size = Tuple[int, int]
# a picture (3, h, w) and masks (n, h, w) in [-1, 1], and the same translated
Translate = Callable[[np.ndarray, np.ndarray], Tuple[np.ndarray, np.ndarray]]

LEAST_FEATHER = 2  # pixels
# instances are translated together where the cut-out of one is at most so many times as large as the other's, and
# shows so much of the other's height and width around it
ALIKE, MARGIN = 1.5, 0.5


@dataclass(frozen=True)
class Window:
    """A part of a picture: rows from `top` to `bottom`, columns from `left` to `right`, ends not included."""

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
        """What cuts it out of an array (H, W, ...)."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def within(self, other: Window) -> Window:
        """Where this window is, counted from the upper left corner of the other."""
        return Window(
            self.top - other.top, self.left - other.left, self.bottom - other.top, self.right - other.left
        )

    def holds(self, other: Window) -> bool:
        """Whether all of the other is in it."""
        corners = other.top >= self.top, other.left >= self.left
        return all(corners) and other.bottom <= self.bottom and other.right <= self.right

    def common(self, other: Window) -> Window | None:
        """What both have, None where that is nothing."""
        top, left = max(self.top, other.top), max(self.left, other.left)
        bottom, right = min(self.bottom, other.bottom), min(self.right, other.right)
        return Window(top, left, bottom, right) if top < bottom and left < right else None


@dataclass(frozen=True)
class PlacedMask:
    """A mask that is kept for a part of the picture only, and black elsewhere: `level` (h, w) uint8, 255 inside, stands
    for all of `window`, at its size or at another."""

    window: Window
    level: np.ndarray

    def at(self, size: Size) -> np.ndarray:
        """The mask of the whole picture, whose (height, width) is `size`, as uint8."""
        whole = np.zeros(size, np.uint8)
        whole[self.window.slices] = self.in_window()
        return whole

    def in_window(self) -> np.ndarray:
        """Its part in the window, at the picture's scale, as uint8."""
        return np.asarray(pictures.resized(Image.fromarray(self.level), self.window.size))

    @property
    def area(self) -> int:
        """Its pixels that are inside; for a mask that is kept at its own size."""
        return int((self.level > 127).sum())

    def overlaps(self, other: PlacedMask) -> bool:
        """Whether both have a pixel in common; for masks that are kept at their own size."""
        common = self.window.common(other.window)
        if common is None:
            return False
        inside = (m.level[common.within(m.window).slices] > 127 for m in (self, other))
        return bool(np.logical_and(*inside).any())


def placed(mask: np.ndarray) -> PlacedMask:
    """Keep of a mask (H, W) bool no more than the smallest window around its instance; of an empty one, nothing."""
    rows, columns = bounding_box(mask)
    window = Window(rows.start, columns.start, rows.stop, columns.stop)
    return PlacedMask(window, mask[window.slices].astype(np.uint8) * 255)


@dataclass(frozen=True)
class View:
    """What the network is used to see: pictures of this `size` (height, width), in which the height or the width of an
    instance takes a `share` in (0, 1]."""

    size: Size
    share: float


def cut_out(instance: Window, picture: Size, view: View) -> Window:
    """The part of a picture, whose (height, width) is given, to show to the network with an instance: as large as makes
    the instance look as large as in training, though never enlarged, and of the network's proportions, as far as the
    picture allows."""
    scale = max(1.0, *(side / view.share / seen for side, seen in zip(instance.size, view.size)))
    size = [min(int(np.ceil(seen * scale)), most) for seen, most in zip(view.size, picture)]
    middle = (instance.top + instance.bottom) / 2, (instance.left + instance.right) / 2
    top, left = (int(min(max(m - side / 2, 0), most - side)) for m, side, most in zip(middle, size, picture))
    return Window(top, left, top + size[0], left + size[1])


def groups(instances: Sequence[PlacedMask], ins_per: int, cut_outs: Sequence[Window]) -> List[List[int]]:
    """Which instances to translate together: the first that is left, and up to `ins_per` - 1 more that its cut-out
    `shows`.

    Instances that overlap are translated in the order given: none is taken before one that it overlaps.
    """
    left, found = list(range(len(instances))), []
    while left:
        group, waiting = [left[0]], []
        for i in left[1:]:
            fits = len(group) < ins_per and shows(cut_outs[group[0]], instances[i].window, cut_outs[i])
            if fits and not any(instances[i].overlaps(instances[j]) for j in waiting):
                group.append(i)
            else:
                waiting.append(i)
        found.append(group)
        left = waiting
    return found


def shows(window: Window, instance: Window, own: Window) -> bool:
    """Whether a window does for an instance what its `own` cut-out does: it is shown at about the same scale, with room
    around it for what becomes of it."""
    height, width = (int(side * MARGIN) for side in instance.size)
    # no farther than its own: there the picture ends
    top, left = max(instance.top - height, own.top), max(instance.left - width, own.left)
    bottom, right = min(instance.bottom + height, own.bottom), min(instance.right + width, own.right)
    scales = [a / b for a, b in zip(window.size, own.size)]
    return max(scales) <= ALIKE and window.holds(Window(top, left, bottom, right))


def translate_in_place(
    picture: np.ndarray, instances: Sequence[PlacedMask], translate: Translate, view: View, ins_per: int
) -> Tuple[np.ndarray, List[PlacedMask]]:
    """Translate instances of a picture (H, W, 3) uint8, in the order given, `ins_per` at a time, on the result so far;
    `translate` works at the size of the `view`.

    Returns the picture and the new masks. Farther from all old and new masks than a pixel of the network is wide (at
    least `LEAST_FEATHER` pixels), it is the same as before, bit for bit.
    """
    picture = picture.copy()
    size = picture.shape[:2]
    cut_outs = [cut_out(instance.window, size, view) for instance in instances]
    new: List[PlacedMask] = [*instances]
    for group in groups(instances, ins_per, cut_outs):
        window = cut_outs[group[0]]
        old = [PlacedMask(instances[i].window.within(window), instances[i].level).at(window.size) for i in group]
        x = pictures.to_network(np.asarray(pictures.resized(Image.fromarray(picture[window.slices]), view.size)))
        a = pictures.masks_to_network(np.array([_scaled_down(mask, view.size) for mask in old]))
        y, b = translate(x, a)
        for i, mask in zip(group, b):
            new[i] = PlacedMask(window, pictures.to_picture(mask))
        union = np.any(old, axis=0)
        for i in group:
            union |= new[i].in_window() > 127
        blend(picture, window, pictures.to_picture(y), union)
    return picture, new


def _scaled_down(mask: np.ndarray, size: Size) -> np.ndarray:
    """A mask (H, W) uint8 at another size, cut in the middle as `pictures.read_mask` does; what is so thin that it
    would vanish there keeps its strongest pixels."""
    level = np.asarray(pictures.resized(Image.fromarray(mask.astype(np.float32) / 255), size))
    return level > min(0.5, level.max() / 2)


def blend(picture: np.ndarray, window: Window, translated: np.ndarray, union: np.ndarray) -> None:
    """Put `translated` (h, w, 3) uint8, scaled to `window`, into a picture (H, W, 3) uint8 where `union`, a mask of the
    window's size, is True, and let it fade out around there over as many pixels as one of the translation is wide."""
    width = max(LEAST_FEATHER, round(max(a / b for a, b in zip(window.size, translated.shape))))
    weight = feathered(union, width, window, picture.shape[:2])
    touched = bounding_box(weight)
    if not touched[0].stop:
        return
    weight, part = weight[touched], picture[window.slices][touched]
    scaled = np.asarray(pictures.resized(Image.fromarray(translated), window.size))[touched]
    for channel in range(3):
        before = part[..., channel]
        # 0 where the weight is, so that not even rounding changes anything there
        change = weight * (scaled[..., channel].astype(np.float32) - before)
        before[...] = np.clip(np.rint(before + change), 0, 255)


def feathered(union: np.ndarray, width: int, window: Window, picture: Size) -> np.ndarray:
    """Weights (h, w) float32: 1 where `union` (h, w) bool is True, falling to 0 within `width` pixels, and at edges
    of the window that are not the picture's."""
    inside = union.astype(np.float32)
    edges = window.top > 0, window.bottom < picture[0], window.left > 0, window.right < picture[1]
    sides = inside[:width], inside[-width:], inside[:, :width], inside[:, -width:]
    for is_inner, side in zip(edges, sides):
        if is_inner:
            side[...] = 0
    # the mean over a square is about a half where a straight border passes through its middle; its corners are `width`
    # from there
    square = 2 * int(width / 2**0.5) + 1
    weight = np.clip(2 * uniform_filter(inside, square, mode="nearest"), inside, 1)
    # the filter's running sums leave a little where there is nothing
    weight[weight < 1e-6] = 0
    return weight
