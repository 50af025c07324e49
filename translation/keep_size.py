# SPDX-License-Identifier: Apache-2.0
"""Translate the instances of a picture of any size in place: cut each out with its surroundings, scale the cut-out to
the network's training scale, translate, scale back, and blend the result in where the old or the new instance is.

The rest of the picture is not touched. Instances are processed one cut-out at a time, and a mask is stored only around
its instance, so memory grows with the picture's size, and not with that times the number of instances.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, List, Sequence, Tuple

import numpy as np
from PIL import Image

from data import pictures
from data.instances import bounding_box
from translation.placed_mask import PlacedMask, Size, Window

# from a picture (3, h, w) and masks (n, h, w) in [-1, 1] to their translations, of the same shapes
Translate = Callable[[np.ndarray, np.ndarray], Tuple[np.ndarray, np.ndarray]]

LEAST_FEATHER = 2  # pixels
# Two instances are translated together only if the first one's cut-out is at most this many times as large as the
# second one's ...
MOST_SCALE = 1.5
# ... and shows at least this share of the second one's height and width on each side of it.
MARGIN = 0.5


@dataclass(frozen=True)
class View:
    """The pictures that the network was trained on: `size` is their (height, width), and an instance's height or width
    usually took `share` in (0, 1] of it."""

    size: Size
    share: float


def translate_in_place(
    picture: np.ndarray, instances: Sequence[PlacedMask], translate: Translate, view: View, ins_per: int
) -> Tuple[np.ndarray, List[PlacedMask]]:
    """Translate instances of a picture (H, W, 3) uint8 in the order given, up to `ins_per` at a time, each time on the
    result so far; `translate` works at `view.size`.

    Returns the picture and the new masks. Pixels farther from all old and new masks than one pixel of the network
    (at least `LEAST_FEATHER` pixels) stay the same bit for bit.
    """
    picture = picture.copy()
    size = picture.shape[:2]
    cut_outs = [cut_out(instance.window, size, view) for instance in instances]
    new_masks = list(instances)
    for group in groups(instances, ins_per, cut_outs):
        window = cut_outs[group[0]]
        old = [PlacedMask(instances[i].window.within(window), instances[i].level).at(window.size) for i in group]
        x = pictures.to_network(np.asarray(pictures.resized(Image.fromarray(picture[window.slices]), view.size)))
        a = pictures.masks_to_network(np.array([_scaled_down(mask, view.size) for mask in old]))
        y, b = translate(x, a)
        union = np.any(old, axis=0)
        for i, mask in zip(group, b):
            new_masks[i] = PlacedMask(window, pictures.to_picture(mask))
            union |= new_masks[i].in_window() > 127
        blend(picture, window, pictures.to_picture(y), union)
    return picture, new_masks


def cut_out(instance: Window, picture: Size, view: View) -> Window:
    """The part of a picture of (height, width) `picture` to show to the network with an instance.

    The instance looks as large in it as in training, but is never enlarged; the part has the network's proportions, as
    far as the picture allows.
    """
    scale = max(1.0, *(side / view.share / seen for side, seen in zip(instance.size, view.size)))
    height, width = (min(int(np.ceil(seen * scale)), limit) for seen, limit in zip(view.size, picture))
    top = _start((instance.top + instance.bottom) / 2, height, picture[0])
    left = _start((instance.left + instance.right) / 2, width, picture[1])
    return Window(top, left, top + height, left + width)


def groups(instances: Sequence[PlacedMask], ins_per: int, cut_outs: Sequence[Window]) -> List[List[int]]:
    """Group instances to translate together: the first remaining one, and up to `ins_per` - 1 more that its cut-out
    shows well enough (`shows`).

    Overlapping instances keep their order: none is taken before an earlier one that it overlaps.
    """
    remaining = list(range(len(instances)))
    result = []
    while remaining:
        first = remaining[0]
        group = [first]
        waiting: List[int] = []
        for i in remaining[1:]:
            fits = len(group) < ins_per and shows(cut_outs[first], instances[i].window, cut_outs[i])
            if fits and not any(instances[i].overlaps(instances[j]) for j in waiting):
                group.append(i)
            else:
                waiting.append(i)
        result.append(group)
        remaining = waiting
    return result


def shows(window: Window, instance: Window, own: Window) -> bool:
    """Return whether `window` can replace an instance's `own` cut-out: it shows the instance at a similar scale, with
    enough room around it for its translation."""
    height, width = (int(side * MARGIN) for side in instance.size)
    # not beyond its own cut-out, which ends where the picture does
    needed = Window(
        max(instance.top - height, own.top),
        max(instance.left - width, own.left),
        min(instance.bottom + height, own.bottom),
        min(instance.right + width, own.right),
    )
    scale = max(side / own_side for side, own_side in zip(window.size, own.size))
    return scale <= MOST_SCALE and window.contains(needed)


def blend(picture: np.ndarray, window: Window, translated: np.ndarray, union: np.ndarray) -> None:
    """Write `translated` (h, w, 3) uint8, scaled to `window`, into a picture (H, W, 3) uint8 where `union`, a mask of
    the window's size, is True; around it, fade out over the width of one pixel of the translation."""
    width = max(LEAST_FEATHER, round(max(side / own for side, own in zip(window.size, translated.shape))))
    weight = feathered(union, width, window, picture.shape[:2])
    touched = bounding_box(weight)
    if not touched[0].stop:
        return
    weight = weight[touched]
    part = picture[window.slices][touched]
    scaled = np.asarray(pictures.resized(Image.fromarray(translated), window.size))[touched]
    for channel in range(3):
        before = part[..., channel]
        # exactly 0 where the weight is 0, so that rounding changes nothing there
        change = weight * (scaled[..., channel].astype(np.float32) - before)
        before[...] = np.clip(np.rint(before + change), 0, 255)


def feathered(union: np.ndarray, width: int, window: Window, picture: Size) -> np.ndarray:
    """Blending weights (h, w) float32: 1 where `union` (h, w) bool is True, falling to 0 within `width` pixels, and
    within the window at those of its edges that are not edges of the picture."""
    # slow to import
    from scipy.ndimage import uniform_filter

    inside = union.astype(np.float32)
    if window.top > 0:
        inside[:width] = 0
    if window.bottom < picture[0]:
        inside[-width:] = 0
    if window.left > 0:
        inside[:, :width] = 0
    if window.right < picture[1]:
        inside[:, -width:] = 0
    # the mean over a square is about 1/2 where a straight border passes through its middle; its corners are `width`
    # pixels away
    square = 2 * int(width / 2**0.5) + 1
    weight = np.clip(2 * uniform_filter(inside, square, mode="nearest"), inside, 1)
    # rounding errors of the filter's running sums
    weight[weight < 1e-6] = 0
    return weight


def _start(middle: float, length: int, limit: int) -> int:
    """The start of an interval of this length around `middle`, moved into [0, limit]."""
    return int(min(max(middle - length / 2, 0), limit - length))


def _scaled_down(mask: np.ndarray, size: Size) -> np.ndarray:
    """A mask (H, W) uint8 at another size, cut at the middle level as `pictures.read_mask` does; of a mask so thin that
    it would vanish, the strongest pixels are kept."""
    level = np.asarray(pictures.resized(Image.fromarray(mask.astype(np.float32) / 255), size))
    return level > min(0.5, level.max() / 2)
