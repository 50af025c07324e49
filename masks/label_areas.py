# SPDX-License-Identifier: Apache-2.0
"""The areas of a label map, and its pixels outside of them: the material on which masks.label_edges decides.

A value is *solid* if it fills areas. A *crumb* is a pixel that neither is in an area nor touches one of its own value:
an edge colour, or an instance of a few pixels. Colours are levels, 0 to 255 but in maps of 16 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Iterator, List, Tuple

import numpy as np
from scipy.ndimage import maximum_filter, minimum_filter

# Takes values (N,) of a label map, and returns their colours (N, 1) or (N, 3) float32.
ColoursOf = Callable[[np.ndarray], np.ndarray]

RADII = (1, 2, 4, 8)  # of the square around a crumb in which solid values are looked for, the first with two of them
SOLID_PART = 0.2  # a value is solid if this part of its pixels is in the middle of 3x3 equal ones
THIN_PIXELS = 12  # a line without such pixels may be solid if it has this many
SAMPLE_OF_VALUE = 40
# an edge colour's distance from the line between two colours: this part of the line's length, or at least these levels
OFF_LINE = 0.08
ROUNDING = 3.0
OVERSHOOT = 0.15  # of bicubic and Lanczos resizing beyond the ends of that line, as a part of it
LIKE = 24  # levels between colours that JPEG may have made of one
SMOOTH_PIXELS = 12  # of the smallest area in a map with JPEG's noise
MOST_SMOOTH = 256
WINDOW_PIXELS = 2_000_000  # that are worked on together, which bounds the memory


@dataclass(frozen=True)
class Areas:
    """The areas of a label map: their `values` (N,), sorted; the map (H, W) with one value in each area; and whether
    pixels are inside of one, (H, W) bool."""

    values: np.ndarray
    labels: np.ndarray
    inside: np.ndarray


@dataclass(frozen=True)
class Blocks:
    """Where equal pixels are together, (H, W) bool each: in 2x2 of them, in 3x3 of them, in the middle of these."""

    in_square: np.ndarray
    in_block: np.ndarray
    middle: np.ndarray


def find_blocks(labels: np.ndarray) -> Blocks:
    """Find the blocks of equal pixels in a label map (H, W)."""
    in_square = np.zeros(labels.shape, bool)
    middle = np.zeros(labels.shape, bool)
    equal = labels[:, 1:] == labels[:, :-1]
    square = equal[1:] & equal[:-1]
    square &= labels[1:, 1:] == labels[:-1, 1:]
    for rows in (slice(0, -1), slice(1, None)):
        for columns in (slice(0, -1), slice(1, None)):
            in_square[rows, columns] |= square
    middle[1:-1, 1:-1] = square[1:, 1:] & square[1:, :-1] & square[:-1, 1:] & square[:-1, :-1]
    wide = middle.copy()
    wide[:, 1:] |= middle[:, :-1]
    wide[:, :-1] |= middle[:, 1:]
    in_block = wide.copy()
    in_block[1:] |= wide[:-1]
    in_block[:-1] |= wide[1:]
    return Blocks(in_square, in_block, middle)


def count_values(values: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """The different values of an array (N,), sorted, and how often each occurs; quick where equal ones are in a row."""
    if not len(values):
        return values, np.zeros(0, np.int64)
    starts = np.concatenate([[0], np.flatnonzero(values[1:] != values[:-1]) + 1])
    lengths = np.diff(np.append(starts, len(values)))
    different, index = np.unique(values[starts], return_inverse=True)
    return different, np.bincount(index.ravel(), lengths, len(different)).astype(np.int64)


def exact_areas(labels: np.ndarray, blocks: Blocks, colours_of: ColoursOf) -> Areas:
    """The areas of a map without noise: of values with blocks, and lines whose colours are not those of edges."""
    flat = labels.ravel()
    inside = blocks.in_block.copy()
    outside = np.flatnonzero(~blocks.in_block)
    values, pixels, middles = _count_all(flat, blocks, outside)
    is_strong = middles >= np.maximum(1, SOLID_PART * pixels)
    strong = values[is_strong]
    inside.ravel()[outside] = blocks.in_square.ravel()[outside] & np.isin(flat[outside], strong)
    doubtful = values[~is_strong & (middles > 0)]
    if len(doubtful):
        in_block = np.flatnonzero(blocks.in_block)
        inside.ravel()[in_block[np.isin(flat[in_block], doubtful)]] = False
    areas = Areas(strong, labels, inside)
    weak = values[~is_strong & (pixels >= THIN_PIXELS)]
    if not len(weak) or not len(strong):
        return areas
    thin = _without_alike(weak[_are_unlike_edges(areas, weak, colours_of)], strong, values, pixels, colours_of)
    inside |= np.isin(flat, thin).reshape(labels.shape)
    return Areas(np.union1d(strong, thin), labels, inside)


def _count_all(flat: np.ndarray, blocks: Blocks, outside: np.ndarray) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All values of a map, the number of pixels of each, and of those in the middle of blocks: (N,) each."""
    counted = [count_values(flat[blocks.in_block.ravel()]), count_values(flat[outside])]
    values = np.union1d(counted[0][0], counted[1][0])
    pixels = np.zeros(len(values), np.int64)
    for some, counts in counted:
        pixels[np.searchsorted(values, some)] += counts
    middles = np.zeros(len(values), np.int64)
    some, counts = count_values(flat[blocks.middle.ravel()])
    middles[np.searchsorted(values, some)] = counts
    return values, pixels, middles


def _are_unlike_edges(areas: Areas, weak: np.ndarray, colours_of: ColoursOf) -> np.ndarray:
    """Return which of the values `weak` (N,) have colours that are not between, or near, those around them."""
    places = _sample_each(areas.labels.ravel(), weak)
    y, x = np.divmod(places, areas.labels.shape[1])
    of_place = areas.labels[y, x]
    common = np.union1d(areas.values, weak)
    is_like_edge = np.zeros(len(places), bool)
    for part in parts(len(places), 81 + len(areas.values)):
        counts = count_around(areas, y[part], x[part], 4)
        two = two_most(counts)
        own = colours_of(of_place[part])
        first = colours_of(areas.values[two[:, 0]])
        t, off = on_line(own, first, colours_of(areas.values[two[:, 1]]))
        is_between_areas = ((counts > 0).sum(axis=1) > 1) & (off <= 1) & (t > -OVERSHOOT) & (t < 1 + OVERSHOOT)
        around = windows(areas.labels, y[part], x[part], 2)
        t, off = on_line(own[:, None], first[:, None], colours_of(around))
        is_half_way = ((off <= 1) & (t > 0.03) & (t < 1 - OVERSHOOT) & np.isin(around, common)).any(axis=1)
        is_like_edge[part] = is_between_areas | is_half_way
    index = np.searchsorted(weak, of_place)
    return np.bincount(index, is_like_edge, len(weak)) < 0.5 * np.bincount(index, minlength=len(weak))


def _sample_each(flat: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Places of some pixels of each of the sorted `values`, spread over the map."""
    places = np.flatnonzero(np.isin(flat, values))
    index = np.searchsorted(values, flat[places])
    order = np.argsort(index, kind="stable")
    number = np.bincount(index, minlength=len(values))
    rank = np.arange(len(places)) - (np.cumsum(number) - number)[index[order]]
    step = np.maximum(1, number // SAMPLE_OF_VALUE)[index[order]]
    return places[order[rank % step == 0]]


def _without_alike(
    thin: np.ndarray, strong: np.ndarray, values: np.ndarray, pixels: np.ndarray, colours_of: ColoursOf
) -> np.ndarray:
    """Those of the values `thin` that are not rare variants of a commoner one, which soft edges have, sorted."""
    number = pixels[np.searchsorted(values, thin)]
    kept: List[int] = []
    colours = colours_of(thin)
    for index in np.argsort(-number, kind="stable"):
        is_variant = any(
            number[index] < number[other] / 2 and np.abs(colours[index] - colours[other]).max() <= LIKE
            for other in kept
        )
        if not is_variant:
            kept.append(index)
    return np.sort(thin[kept])


def smooth_areas(labels: np.ndarray, colours_of: ColoursOf) -> Areas:
    """The areas of a map with JPEG's noise: where colours are alike, with the commonest of them as value."""
    values, index = np.unique(labels, return_inverse=True)
    index = index.reshape(labels.shape)
    colours = colours_of(values)
    is_smooth = np.ones(labels.shape, bool)
    for channel in colours.T:
        levels = channel[index]
        is_smooth &= maximum_filter(levels, 3) - minimum_filter(levels, 3) <= LIKE
    left = np.bincount(index[is_smooth], minlength=len(values))
    owner = np.full(len(values), -1)
    kept: List[int] = []
    while left.any() and len(kept) < MOST_SMOOTH:
        best = int(left.argmax())
        is_alike = np.abs(colours - colours[best]).max(axis=1) <= LIKE
        number = left[is_alike].sum()
        left[is_alike] = 0
        if number < SMOOTH_PIXELS:
            break
        if all(np.abs(colours[best] - colours[other]).max() > 2 * LIKE for other in kept):
            owner[is_alike & (owner < 0)] = best
            kept.append(best)
    merged = np.where(owner < 0, values, values[owner])
    return Areas(values[np.sort(kept)], merged[index], is_smooth & (owner >= 0)[index])


def find_crumbs(areas: Areas) -> Tuple[np.ndarray, np.ndarray]:
    """The rows and columns of the pixels that are in no area, and touch none of their own value."""
    y, x = np.nonzero(~areas.inside)
    touches = np.zeros(len(y), bool)
    for part in parts(len(y), 9):
        same = windows(areas.labels, y[part], x[part], 1) == areas.labels[y[part], x[part]][:, None]
        touches[part] = (same & windows(areas.inside, y[part], x[part], 1)).any(axis=1)
    return y[~touches], x[~touches]


def parts(number: int, width: int) -> Iterator[slice]:
    """Cut `number` rows of `width` numbers each into parts that fit into little memory."""
    step = max(1, WINDOW_PIXELS // width)
    for start in range(0, number, step):
        yield slice(start, min(start + step, number))


def windows(array: np.ndarray, y: np.ndarray, x: np.ndarray, radius: int) -> np.ndarray:
    """The squares around pixels, (N, (2 * radius + 1) ** 2); beyond the border, its pixels are repeated."""
    offsets = np.arange(-radius, radius + 1)
    rows = np.clip(y[:, None] + offsets, 0, array.shape[0] - 1)
    columns = np.clip(x[:, None] + offsets, 0, array.shape[1] - 1)
    return array[rows[:, :, None], columns[:, None, :]].reshape(len(y), len(offsets) ** 2)


def count_around(areas: Areas, y: np.ndarray, x: np.ndarray, radius: int) -> np.ndarray:
    """The number of pixels of each area's value in the squares around N pixels: (N, number of values)."""
    around = windows(areas.labels, y, x, radius)
    inside = windows(areas.inside, y, x, radius)
    row, _ = np.nonzero(inside)
    number = len(areas.values)
    index = np.searchsorted(areas.values, around[inside])
    return np.bincount(row * number + index, minlength=len(y) * number).reshape(len(y), number)


def count_nearest(areas: Areas, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """As `count_around`, with the smallest of `RADII` at which there are two values, or else the largest."""
    counts = count_around(areas, y, x, RADII[0])
    for radius in RADII[1:]:
        few = np.flatnonzero((counts > 0).sum(axis=1) < 2)
        for part in parts(len(few), (2 * radius + 1) ** 2 + len(areas.values)):
            counts[few[part]] = count_around(areas, y[few[part]], x[few[part]], radius)
    return counts


def two_most(counts: np.ndarray) -> np.ndarray:
    """The indices of the two largest of each row of counts (N, M): (N, 2); twice the same if M is 1."""
    order = np.argsort(-counts, axis=1, kind="stable")
    return order[:, [0, min(1, counts.shape[1] - 1)]]


def on_line(colour: np.ndarray, start: np.ndarray, end: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Where colours (..., C) are on the line from `start` (0) to `end` (1), and how far off it, 1 being the tolerance.

    Where both ends are the same, these are 0 and infinity.
    """
    line = end - start
    squared = (line**2).sum(axis=-1)
    t = ((colour - start) * line).sum(axis=-1) / np.maximum(squared, 1e-6)
    distance = np.sqrt(((colour - start - t[..., None] * line) ** 2).sum(axis=-1))
    off = distance / np.maximum(ROUNDING, OFF_LINE * np.sqrt(squared))
    return np.where(squared > 0, t, 0), np.where(squared > 0, off, np.inf)
