# SPDX-License-Identifier: Apache-2.0
"""The object in a box that a user drew loosely around it: by the colours inside and around the box, and by edges."""

from __future__ import annotations

from typing import Tuple

import numpy as np
from PIL import Image
from scipy import ndimage
from skimage.color import rgb2lab
from skimage.segmentation import random_walker

from common.errors import UserError

Box = Tuple[int, int, int, int]
Size = Tuple[int, int]

SIDE = 96  # pixels: the box's larger side where the object is looked for
RING = 0.2  # of the box's sides, shown around it
ROUNDS = 3  # each with the colours of what the one before found
BINS = 16  # of each colour axis
COLOUR_WEIGHT = 1.0  # of what colours say, against the place
PLACE_WEIGHT = 0.5  # log odds of the box's centre, and about minus those of its corners, to belong to the object
SURE = 0.2  # of a box's pixels are taken for the object, and as many for what is around it, to start the walker
EDGE = 1000.0  # the walker's beta: how much a change of colour separates neighbours
OBJECT, BESIDE = 1, 2  # labels of the walker
LEAST_CONTRAST = 0.2  # mean log likelihood ratio of an object's colours; below it they are those around it
LEAST, MOST = 0.1, 0.99  # of the box that is an object; its ellipse has 0.79


class NothingFound(UserError):
    """No object stands out in a box; `mask` (H, W) bool is the ellipse in it, to be taken instead."""

    def __init__(self, message: str, mask: np.ndarray) -> None:
        super().__init__(message)
        self.mask = mask


def clipped(box: Box, size: Size) -> Box:
    """The part of a box that is in a picture of `size` = (height, width).

    Raises:
        UserError: where there is none.
    """
    (x0, y0, x1, y1), (height, width) = box, size
    if x0 >= x1 or y0 >= y1:
        raise UserError(f"the box {_text(box)} has no area; give x0,y0,x1,y1 with x0 < x1 and y0 < y1")
    x0, y0, x1, y1 = max(0, x0), max(0, y0), min(width, x1), min(height, y1)
    if x0 >= x1 or y0 >= y1:
        raise UserError(f"the box {_text(box)} is outside of the picture of {width}x{height} (width x height)")
    return x0, y0, x1, y1


def ellipse(box: Box, size: Size) -> np.ndarray:
    """The ellipse that touches the sides of a box within the picture, as (H, W) bool of `size`; never empty."""
    mask = np.zeros(size, bool)
    x0, y0, x1, y1 = box
    inside = _radius(y1 - y0, x1 - x0) <= 1
    mask[y0:y1, x0:x1] = inside
    return mask


def find_object(picture: np.ndarray, box: Box) -> np.ndarray:
    """The object of a picture (H, W, 3) uint8 that a box (x0, y0, x1, y1) was drawn around: (H, W) bool.

    Nothing outside of the box is marked. Worked out at a bounded size, whatever that of the picture.

    Raises:
        UserError: where the box has no area in the picture.
        NothingFound: where no object stands out; it has a mask to go on with.
    """
    size = picture.shape[:2]
    box = x0, y0, x1, y1 = clipped(box, size)
    mask = np.zeros(size, bool)
    likely = _likely(*_surroundings(picture, box))
    enlarged = Image.fromarray(likely.astype(np.float32)).resize((x1 - x0, y1 - y0), Image.BILINEAR)
    mask[y0:y1, x0:x1] = np.asarray(enlarged) > 0.5
    share = mask[y0:y1, x0:x1].mean()
    if not LEAST <= share <= MOST:
        raise NothingFound(f"nothing stands out in the box {_text(box)}; draw it closer", ellipse(box, size))
    return mask


def _text(box: Box) -> str:
    return ",".join(map(str, box))


def _radius(height: int, width: int) -> np.ndarray:
    """How far each pixel of a box is from its centre, squared, 1 on the ellipse in it: (height, width)."""
    y, x = ((np.arange(n) + 0.5) * 2 / n - 1 for n in (height, width))
    return y[:, None] ** 2 + x[None, :] ** 2


def _surroundings(picture: np.ndarray, box: Box) -> Tuple[np.ndarray, Tuple[slice, slice]]:
    """The box with a ring around it, made smaller: (h, w, 3) uint8, and where the box is in it."""
    x0, y0, x1, y1 = box
    scale = min(1.0, SIDE / max(x1 - x0, y1 - y0))
    own = [max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale))]
    steps = [(x1 - x0) / own[0], (y1 - y0) / own[1]]
    # whole pixels of the smaller picture on each side, as many as there are up to the border
    before = [min(int(RING * n), int(start / step)) for n, start, step in zip(own, (x0, y0), steps)]
    after = [
        min(int(RING * n), int((full - end) / step))
        for n, full, end, step in zip(own, picture.shape[1::-1], (x1, y1), steps)
    ]
    left, top = (start - n * step for start, n, step in zip((x0, y0), before, steps))
    right, bottom = (end + n * step for end, n, step in zip((x1, y1), after, steps))
    # a copy of the part only: the picture may be large
    rows, columns = (slice(int(low), int(np.ceil(high - 1e-6))) for low, high in ((top, bottom), (left, right)))
    part = Image.fromarray(np.ascontiguousarray(picture[rows, columns]))
    ends = min(right - columns.start, part.width), min(bottom - rows.start, part.height)
    small_size = (before[0] + own[0] + after[0], before[1] + own[1] + after[1])
    small = part.resize(small_size, Image.BOX, (left - columns.start, top - rows.start, *ends))
    return np.asarray(small), (slice(before[1], before[1] + own[1]), slice(before[0], before[0] + own[0]))


def _likely(small: np.ndarray, inside: Tuple[slice, slice]) -> np.ndarray:
    """How likely each pixel of the box `inside` a picture (h, w, 3) uint8 belongs to the object, in [0, 1].

    All are 0 where no colours stand out.
    """
    colours = rgb2lab(small)
    bins = _bins(colours)
    radius = _radius(*small[inside].shape[:2])
    likely = np.zeros(small.shape[:2])
    # the middle of a box is most likely the object's
    likely[inside] = np.clip(1 - radius, 0, 1)
    place = np.full(small.shape[:2], -np.inf)
    place[inside] = PLACE_WEIGHT * (1 - radius)
    for _ in range(ROUNDS):
        ratio = _log_ratio(bins, likely)
        likely = _spread(colours, _sigmoid(place + COLOUR_WEIGHT * ratio), inside)
    found = likely > 0.5
    if not found.any() or ratio[found].mean() < LEAST_CONTRAST:
        return np.zeros(radius.shape)
    return _main_part(likely[inside])


def _bins(colours: np.ndarray) -> np.ndarray:
    """The number of the bin of each colour (h, w, 3) in Lab."""
    scaled = (colours + [0, 64, 64]) / [100, 128, 128]
    index = np.clip((scaled * BINS).astype(int), 0, BINS - 1)
    return (index[..., 0] * BINS + index[..., 1]) * BINS + index[..., 2]


def _log_ratio(bins: np.ndarray, likely: np.ndarray) -> np.ndarray:
    """How much more common each pixel's colour is in the object than beside it: log likelihood ratios (h, w)."""

    def common(weights: np.ndarray) -> np.ndarray:
        counts = np.bincount(bins.ravel(), weights.ravel(), BINS**3).reshape((BINS,) * 3)
        smooth = ndimage.gaussian_filter(counts, 0.8, mode="nearest").ravel()
        return (smooth / max(smooth.sum(), 1e-9) + 1e-5)[bins]

    return np.log(common(likely) / common(1 - likely))


def _spread(colours: np.ndarray, prior: np.ndarray, inside: Tuple[slice, slice]) -> np.ndarray:
    """How likely each pixel (h, w) belongs to the object, by a random walker (Grady, 2006) that starts where `prior` is
    surest."""
    least, most = np.quantile(prior[inside], (SURE, 1 - SURE))
    seeds = np.full(prior.shape, BESIDE)
    seeds[inside] = np.where(prior[inside] >= most, OBJECT, np.where(prior[inside] <= least, BESIDE, 0))
    if seeds.all() or not (seeds == OBJECT).any():
        return (seeds == OBJECT).astype(float)
    return random_walker(colours / 100, seeds, EDGE, mode="bf", channel_axis=-1, return_full_prob=True)[0]


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _main_part(likely: np.ndarray) -> np.ndarray:
    """Without what does not hang together with the largest part, and without holes."""
    labels, _ = ndimage.label(likely > 0.5)
    largest = labels == 1 + np.bincount(labels.ravel())[1:].argmax()
    filled = ndimage.binary_fill_holes(largest)
    return np.where(filled, np.maximum(likely, filled & ~largest), np.minimum(likely, 0.5))
