# SPDX-License-Identifier: Apache-2.0
"""The object in a box that a user drew loosely around it: by the colours inside and around the box, and by edges."""

from __future__ import annotations

from typing import NamedTuple, Tuple

import numpy as np
from PIL import Image
from scipy import ndimage
from skimage.color import rgb2lab
from skimage.segmentation import random_walker

from common.errors import UserError
from data.pictures import Size

Box = Tuple[int, int, int, int]  # x0, y0, x1, y1

SIDE = 96  # pixels: the box's larger side at the size at which the object is searched
RING = 0.2  # width of the surroundings, as a share of the box's sides
ROUNDS = 3  # each with the colours of the object that the round before found
BINS = 16  # of each colour axis
COLOUR_WEIGHT = 1.0  # of the colours' log likelihood ratio, against that of the place
PLACE_WEIGHT = 0.5  # log odds of the box's centre, and about minus those of its corners, to belong to the object
SURE = 0.2  # share of a box's pixels that start the walker as object, and as background
EDGE = 1000.0  # the walker's beta: a larger one lets a change of colour separate neighbours more
OBJECT, BACKGROUND = 1, 2  # labels of the walker
LEAST_CONTRAST = 0.2  # mean log likelihood ratio of an object's colours; below it they are those of the background
LEAST, MOST = 0.1, 0.99  # share of the box that an object can fill; its ellipse has 0.79


class NothingFound(UserError):
    """No object stands out in a box; `mask` (H, W) bool is the ellipse in it, to use instead."""

    def __init__(self, message: str, mask: np.ndarray) -> None:
        super().__init__(message)
        self.mask = mask


def clipped(box: Box, size: Size) -> Box:
    """The part of a box inside a picture of `size` (height, width).

    Raises:
        UserError: if it is empty.
    """
    x0, y0, x1, y1 = box
    height, width = size
    if x0 >= x1 or y0 >= y1:
        raise UserError(f"the box {_text(box)} has no area; give x0,y0,x1,y1 with x0 < x1 and y0 < y1")
    x0 = max(0, x0)
    y0 = max(0, y0)
    x1 = min(width, x1)
    y1 = min(height, y1)
    if x0 >= x1 or y0 >= y1:
        raise UserError(f"the box {_text(box)} is outside of the picture of {width}x{height} (width x height)")
    return x0, y0, x1, y1


def ellipse(box: Box, size: Size) -> np.ndarray:
    """The ellipse that touches the sides of a box within the picture, as (H, W) bool of `size`; never empty."""
    x0, y0, x1, y1 = box
    mask = np.zeros(size, bool)
    mask[y0:y1, x0:x1] = _squared_radius(y1 - y0, x1 - x0) <= 1
    return mask


def find_object(picture: np.ndarray, box: Box) -> np.ndarray:
    """The object in a picture (H, W, 3) uint8 that a box (x0, y0, x1, y1) was drawn around: (H, W) bool.

    Nothing outside the box is marked. Computed at a bounded size, whatever that of the picture.

    Raises:
        UserError: if the box has no area in the picture.
        NothingFound: if no object stands out; it has a mask to continue with.
    """
    size = picture.shape[:2]
    box = clipped(box, size)
    x0, y0, x1, y1 = box
    small, inside = _surroundings(picture, box)
    probability = Image.fromarray(_probability(small, inside).astype(np.float32))
    mask = np.zeros(size, bool)
    mask[y0:y1, x0:x1] = np.asarray(probability.resize((x1 - x0, y1 - y0), Image.BILINEAR)) > 0.5
    share = mask[y0:y1, x0:x1].mean()
    if not LEAST <= share <= MOST:
        raise NothingFound(f"nothing stands out in the box {_text(box)}; draw it closer", ellipse(box, size))
    return mask


def _text(box: Box) -> str:
    return ",".join(map(str, box))


def _squared_radius(height: int, width: int) -> np.ndarray:
    """The squared distance of each pixel of a box from its centre, 1 on the ellipse in it: (height, width)."""
    y, x = ((np.arange(n) + 0.5) * 2 / n - 1 for n in (height, width))
    return y[:, None] ** 2 + x[None, :] ** 2


class _Span(NamedTuple):
    """One axis of a box with its surroundings, scaled down.

    `start` and `stop` are in pixels of the picture, not whole; `before`, `length` and `after` are the pixels of the
    smaller picture before, in and after the box.
    """

    start: float
    stop: float
    before: int
    length: int
    after: int


def _span(low: int, high: int, full: int, scale: float) -> _Span:
    """The span of a box from `low` to `high` along an axis of `full` pixels."""
    length = max(1, round((high - low) * scale))
    step = (high - low) / length
    # whole pixels of the smaller picture on each side, as far as the border allows
    before = min(int(RING * length), int(low / step))
    after = min(int(RING * length), int((full - high) / step))
    return _Span(low - before * step, high + after * step, before, length, after)


def _surroundings(picture: np.ndarray, box: Box) -> Tuple[np.ndarray, Tuple[slice, slice]]:
    """The box with a ring around it, scaled down: (h, w, 3) uint8, and the rows and columns of the box in it."""
    x0, y0, x1, y1 = box
    scale = min(1.0, SIDE / max(x1 - x0, y1 - y0))
    x = _span(x0, x1, picture.shape[1], scale)
    y = _span(y0, y1, picture.shape[0], scale)
    # a copy of this part only: the picture may be large
    top, left = (int(span.start) for span in (y, x))
    bottom, right = (int(np.ceil(span.stop - 1e-6)) for span in (y, x))
    part = Image.fromarray(np.ascontiguousarray(picture[top:bottom, left:right]))
    small_size = (x.before + x.length + x.after, y.before + y.length + y.after)
    source = (x.start - left, y.start - top, min(x.stop - left, part.width), min(y.stop - top, part.height))
    small = np.asarray(part.resize(small_size, Image.BOX, source))
    return small, (slice(y.before, y.before + y.length), slice(x.before, x.before + x.length))


def _probability(small: np.ndarray, inside: Tuple[slice, slice]) -> np.ndarray:
    """The probability that each pixel of the box `inside` a picture (h, w, 3) uint8 belongs to the object.

    0 everywhere if no colours stand out.
    """
    colours = rgb2lab(small)
    bins = _bins(colours)
    radius = _squared_radius(*small[inside].shape[:2])
    probability = np.zeros(small.shape[:2])
    # to start with, the object is assumed in the middle of the box
    probability[inside] = np.clip(1 - radius, 0, 1)
    place = np.full(small.shape[:2], -np.inf)
    place[inside] = PLACE_WEIGHT * (1 - radius)
    for _ in range(ROUNDS):
        ratio = _log_ratio(bins, probability)
        probability = _random_walk(colours, _sigmoid(place + COLOUR_WEIGHT * ratio), inside)
    is_object = probability > 0.5
    if not is_object.any() or ratio[is_object].mean() < LEAST_CONTRAST:
        return np.zeros(radius.shape)
    return _main_part(probability[inside])


def _bins(colours: np.ndarray) -> np.ndarray:
    """The number of the histogram bin of each colour (h, w, 3) in Lab."""
    scaled = (colours + [0, 64, 64]) / [100, 128, 128]
    index = np.clip((scaled * BINS).astype(int), 0, BINS - 1)
    return (index[..., 0] * BINS + index[..., 1]) * BINS + index[..., 2]


def _log_ratio(bins: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """The log likelihood ratio (h, w) of each pixel's colour under the object's colours and the background's."""
    return np.log(_likelihood(bins, probability) / _likelihood(bins, 1 - probability))


def _likelihood(bins: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The share (h, w) of each pixel's colour in the smoothed histogram of all pixels with these weights."""
    counts = np.bincount(bins.ravel(), weights.ravel(), BINS**3).reshape((BINS,) * 3)
    smooth = ndimage.gaussian_filter(counts, 0.8, mode="nearest").ravel()
    return (smooth / max(smooth.sum(), 1e-9) + 1e-5)[bins]


def _random_walk(colours: np.ndarray, prior: np.ndarray, inside: Tuple[slice, slice]) -> np.ndarray:
    """The probability (h, w) that each pixel belongs to the object, by a random walker (Grady, 2006) that starts at the
    pixels with the highest and lowest `prior`."""
    low, high = np.quantile(prior[inside], (SURE, 1 - SURE))
    seeds = np.full(prior.shape, BACKGROUND)
    seeds[inside] = np.where(prior[inside] >= high, OBJECT, np.where(prior[inside] <= low, BACKGROUND, 0))
    if seeds.all() or not (seeds == OBJECT).any():
        return (seeds == OBJECT).astype(float)
    return random_walker(colours / 100, seeds, EDGE, mode="bf", channel_axis=-1, return_full_prob=True)[0]


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _main_part(probability: np.ndarray) -> np.ndarray:
    """Keep the largest connected part of the object, with its holes filled."""
    labels, _ = ndimage.label(probability > 0.5)
    largest = labels == 1 + np.bincount(labels.ravel())[1:].argmax()
    filled = ndimage.binary_fill_holes(largest)
    return np.where(filled, np.maximum(probability, filled & ~largest), np.minimum(probability, 0.5))
