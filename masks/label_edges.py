# SPDX-License-Identifier: Apache-2.0
"""Edge colours in label maps: found, and given to the objects that they border on.

Drawing with anti-aliasing, a soft brush, resizing other than NEAREST, and JPEG leave colours at the edges of objects
that are not labels. They are between the colours of two areas, and follow from what is around them: the nearer to an
area a pixel is, the more of its colour it has. Instances of a few pixels, whose values are arbitrary, do not. So a map
is changed only if nearly all of its crumbs (masks.label_areas) are between two areas' colours, *and* their colours
correlate with those around.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.ndimage import label

from data.instances import bounding_box
from masks.label_areas import (
    LIKE,
    OVERSHOOT,
    Areas,
    Blocks,
    ColoursOf,
    count_nearest,
    count_values,
    exact_areas,
    find_blocks,
    find_crumbs,
    on_line,
    parts,
    smooth_areas,
    two_most,
    windows,
)

FEWEST_CRUMBS = 8  # fewer cannot be judged
SAMPLE = 4000  # crumbs that are judged
# what JPEG adds to the tolerance of a line
NOISE = 3.0
# JPEG makes many colours: at least this many in a map, and in coloured maps hardly one twice
FEWEST_NOISE_VALUES = 16
MANY_COLOURS = 200
# middles of 3x3 equal pixels: noise has fewer of one value, and edges in maps without noise hardly any
RARE_CORES = 20
RARE_EDGE_CORES = 4
# an object without an even area has this many crumbs that belong to nothing around them
LOST_PIXELS = 9
MOST_SCATTERED = 2000  # pixels; more are an object, with pieces or without
NEIGHBOURS = np.ones((3, 3), bool)


class UnclearEdges(Exception):
    """Edge colours that cannot be given to objects."""


@dataclass(frozen=True)
class Evidence:
    """The facts about a map's crumbs.

    `explained` is the part of them whose colours are on the line between two areas; `between` the number of those that
    are at neither end, and `levels` of their different colours; `correlation` that of their places on the line with
    those of their neighbours.
    """

    explained: float
    between: int
    levels: int
    correlation: float

    def shows_edges(self) -> bool:
        """Return whether the crumbs are edge colours."""
        return self.explained >= 0.75 and self.between >= 12 and self.levels >= 3 and self.correlation >= 0.5

    def shows_noisy_edges(self) -> bool:
        """Return whether the crumbs are edge colours with JPEG's noise, which explains more colours."""
        return self.explained >= 0.85 and self.between >= 24 and self.correlation >= 0.7

    def is_suspicious(self) -> bool:
        """Return whether many crumbs are edge colours, too many for what they are in a map without such colours."""
        # instances of a few pixels correlate by chance, the fewer the more
        if self.levels < 40:
            return self.explained >= 0.5 and self.levels >= 20 and self.correlation >= 0.6
        return self.between >= 40 and self.correlation >= 0.45


def merge_edges(labels: np.ndarray, colours_of: ColoursOf) -> np.ndarray | None:
    """Give the edge colours of a label map (H, W) to the objects that they border on.

    Returns a new map, or None if the map has no edge colours.

    Raises:
        UnclearEdges: if it has some, and it is not clear which objects there are.
    """
    if min(labels.shape) < 3:
        return None
    blocks = find_blocks(labels)
    if np.count_nonzero(~blocks.in_block) < FEWEST_CRUMBS:
        return None
    exact = exact_areas(labels, blocks, colours_of)
    y, x = find_crumbs(exact)
    if len(y) < FEWEST_CRUMBS or not len(exact.values):
        return None
    evidence = _judge(labels, exact, y, x, colours_of, 1.0)
    if evidence.shows_edges() and _loses_area(labels, blocks, exact, colours_of):
        raise UnclearEdges
    if evidence.shows_edges() and not _have_alike(exact.values, colours_of):
        return _merged(labels, exact, y, x, colours_of, 1.0)
    if _are_scattered(labels, y, x):
        merged = _merged_noise(labels, blocks, exact, y, x, colours_of, evidence)
        if merged is not None:
            return merged
    elif evidence.shows_edges():
        return _merged(labels, exact, y, x, colours_of, 1.0)
    if evidence.shows_edges() or evidence.is_suspicious():
        raise UnclearEdges
    return None


def _merged_noise(
    labels: np.ndarray,
    blocks: Blocks,
    exact: Areas,
    y: np.ndarray,
    x: np.ndarray,
    colours_of: ColoursOf,
    evidence: Evidence,
) -> np.ndarray | None:
    """As `merge_edges`, for a map whose exact areas have the crumbs at `y` and `x`, if these are noise of JPEG."""
    smooth = smooth_areas(labels, colours_of)
    if len(smooth.values) < 2:
        return None
    would_join = _joins_areas(labels, blocks, smooth)
    y_noisy, x_noisy = find_crumbs(smooth)
    if not would_join and _are_variants(labels, exact, y, x, colours_of):
        return _merged(labels, smooth, y_noisy, x_noisy, colours_of, NOISE)
    if len(y_noisy) < FEWEST_CRUMBS:
        return None
    noisy = _judge(labels, smooth, y_noisy, x_noisy, colours_of, NOISE)
    if noisy.shows_noisy_edges() or noisy.explained >= 0.9 and evidence.is_suspicious():
        if would_join:
            raise UnclearEdges
        return _merged(labels, smooth, y_noisy, x_noisy, colours_of, NOISE)
    if noisy.is_suspicious():
        raise UnclearEdges
    return None


def _have_alike(values: np.ndarray, colours_of: ColoursOf) -> bool:
    """Return whether two of the values (N,) have colours that JPEG could have made of one."""
    colours = colours_of(values)
    return any((np.abs(colours[:n] - colours[n]).max(axis=1) <= LIKE).any() for n in range(1, len(values)))


def _loses_area(labels: np.ndarray, blocks: Blocks, exact: Areas, colours_of: ColoursOf) -> bool:
    """Return whether a value that fills some area, and is unlike all in `exact`, is not among them."""
    values, cores = count_values(labels.ravel()[blocks.middle.ravel()])
    doubtful = values[(cores >= RARE_EDGE_CORES) & ~np.isin(values, exact.values)]
    solid = colours_of(exact.values)
    return any((np.abs(solid - colour).max(axis=1) > LIKE).all() for colour in colours_of(doubtful))


def _joins_areas(labels: np.ndarray, blocks: Blocks, smooth: Areas) -> bool:
    """Return whether an area of a map is none of `smooth`: lost, or joined with one that is not much larger."""
    middle = blocks.middle.ravel()
    of_middle = labels.ravel()[middle]
    values, cores = count_values(of_middle)
    owners = np.zeros(len(values), smooth.labels.dtype)
    owners[np.searchsorted(values, of_middle)] = smooth.labels.ravel()[middle]
    is_lost = ~np.isin(owners, smooth.values)
    if (cores[is_lost] > RARE_CORES).any():
        return True
    for owner in smooth.values:
        sizes = np.sort(cores[owners == owner])
        if len(sizes) > 1 and sizes[-2] > max(RARE_CORES, sizes[-1] / 4):
            return True
    return False


def _are_scattered(labels: np.ndarray, y: np.ndarray, x: np.ndarray) -> bool:
    """Return whether the values of crumbs are many, and come up in several places each or in very many colours."""
    own = labels[y, x]
    number_values = len(np.unique(own))
    if number_values < FEWEST_NOISE_VALUES:
        return False
    number_pieces = 0
    for part in parts(len(y), 9):
        # the first pixel of a piece, in reading order, has none of its value before it
        before = windows(labels, y[part], x[part], 1)[:, :4]
        number_pieces += np.count_nonzero((before != own[part, None]).all(axis=1))
    return number_pieces >= 2 * number_values or number_values >= MANY_COLOURS


def _are_variants(labels: np.ndarray, areas: Areas, y: np.ndarray, x: np.ndarray, colours_of: ColoursOf) -> bool:
    """Return whether nearly all crumbs have a colour like that of an area around."""
    is_like = np.zeros(len(y), bool)
    for part in parts(len(y), 81 + 8 * len(areas.values)):
        counts = count_nearest(areas, y[part], x[part])
        own = colours_of(labels[y[part], x[part]])
        is_like[part] = _distances(own, counts, areas, colours_of).min(axis=1) <= LIKE
    return is_like.mean() >= 0.9


def _judge(
    labels: np.ndarray, areas: Areas, y: np.ndarray, x: np.ndarray, colours_of: ColoursOf, tolerance: float
) -> Evidence:
    """The evidence of some of the crumbs at rows `y` and columns `x`."""
    if len(y) > SAMPLE:
        chosen = np.linspace(0, len(y) - 1, SAMPLE).astype(np.int64)
        y = y[chosen]
        x = x[chosen]
    place = _places(labels, areas, y, x, colours_of, tolerance)
    between = place.is_between & (place.t > 0.02) & (place.t < 0.98)
    own = labels[y, x]
    around = windows(labels, y, x, 1)[between]
    other = around != own[between, None]
    t, _ = on_line(colours_of(around), place.start[between, None], place.end[between, None])
    t_around = (np.clip(t, 0, 1) * other).sum(axis=1) / np.maximum(1, other.sum(axis=1))
    number = int(between.sum())
    kinds = np.stack([own[between].astype(np.int64), place.pair[between, 0], place.pair[between, 1]])
    levels = np.unique(kinds, axis=1).shape[1] if number else 0
    return Evidence(float(place.is_explained.mean()), number, levels, _correlation(place.t[between], t_around))


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    """The correlation of two arrays (N,), 0 if one of them is constant."""
    if len(one) < 3 or one.std() < 1e-4 or other.std() < 1e-4:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])


@dataclass(frozen=True)
class Places:
    """Where N crumbs are on the lines between the colours of the two areas around them.

    `counts` (N, number of areas) has the areas around, `pair` (N, 2) the indices of two of them, whose colours are
    `start` and `end` (N, C); `t` (N,) is the place on that line.
    """

    counts: np.ndarray
    pair: np.ndarray
    start: np.ndarray
    end: np.ndarray
    t: np.ndarray
    is_between: np.ndarray
    is_explained: np.ndarray


def _places(
    labels: np.ndarray, areas: Areas, y: np.ndarray, x: np.ndarray, colours_of: ColoursOf, tolerance: float
) -> Places:
    counts = count_nearest(areas, y, x)
    pair = np.sort(two_most(counts), axis=1)
    own = colours_of(labels[y, x])
    start = colours_of(areas.values[pair[:, 0]])
    end = colours_of(areas.values[pair[:, 1]])
    t, off = on_line(own, start, end)
    is_between = _has_both(counts, pair) & _is_between(t, off, tolerance)
    is_explained = is_between
    if tolerance > 1:
        is_near = _distances(own, counts, areas, colours_of).min(axis=1) <= 2 * LIKE
        is_explained = is_near | _are_between_any(own, counts, areas, colours_of, tolerance)
    return Places(counts, pair, start, end, t, is_between, is_explained)


def _are_between_any(
    own: np.ndarray, counts: np.ndarray, areas: Areas, colours_of: ColoursOf, tolerance: float
) -> np.ndarray:
    """Return which colours (N, C) are on a line between any two of the four commonest areas around."""
    commonest = np.argsort(-counts, axis=1, kind="stable")[:, :4]
    is_between = np.zeros(len(own), bool)
    for one, other in combinations(range(commonest.shape[1]), 2):
        pair = commonest[:, [one, other]]
        t, off = on_line(own, colours_of(areas.values[pair[:, 0]]), colours_of(areas.values[pair[:, 1]]))
        is_between |= _has_both(counts, pair) & _is_between(t, off, tolerance)
    return is_between


def _has_both(counts: np.ndarray, pair: np.ndarray) -> np.ndarray:
    """Return of which crumbs both areas of the `pair` (N, 2) are around."""
    return (np.take_along_axis(counts, pair, axis=1) > 0).all(axis=1)


def _is_between(t: np.ndarray, off: np.ndarray, tolerance: float) -> np.ndarray:
    """Return which places `on_line` are between its ends, or as far beyond as resizing and JPEG put them."""
    overshoot = OVERSHOOT * min(2.0, tolerance)
    return (off <= tolerance) & (t > -overshoot) & (t < 1 + overshoot)


def _distances(own: np.ndarray, counts: np.ndarray, areas: Areas, colours_of: ColoursOf) -> np.ndarray:
    """The distances of colours (N, C) from those of the areas around, infinite for others: (N, number of areas)."""
    solid = colours_of(areas.values)
    squared = sum((own[:, None, channel] - solid[:, channel]) ** 2 for channel in range(own.shape[1]))
    return np.where(counts > 0, np.sqrt(squared), np.inf)


def _merged(
    labels: np.ndarray, areas: Areas, y: np.ndarray, x: np.ndarray, colours_of: ColoursOf, tolerance: float
) -> np.ndarray:
    """The map with each crumb given to the area around whose colour is nearest.

    Raises:
        UnclearEdges: if many crumbs side by side are like no area: an object that has no even area itself.
    """
    merged = areas.labels.copy()
    is_lost = np.zeros(labels.shape, bool)
    for part in parts(len(y), 81 + 8 * len(areas.values)):
        place = _places(labels, areas, y[part], x[part], colours_of, tolerance)
        own = colours_of(labels[y[part], x[part]])
        distance = _distances(own, place.counts, areas, colours_of)
        merged[y[part], x[part]] = areas.values[distance.argmin(axis=1)]
        is_between = _are_between_any(own, place.counts, areas, colours_of, 1.5 * tolerance)
        is_lost[y[part], x[part]] = ~place.is_explained & ~is_between & (distance.min(axis=1) > LIKE)
    groups, number = label(is_lost, NEIGHBOURS)
    if number and np.bincount(groups.ravel())[1:].max() >= LOST_PIXELS:
        raise UnclearEdges
    if any(_is_scattered(merged == value) for value in areas.values):
        raise UnclearEdges
    return merged


def _is_scattered(mask: np.ndarray) -> bool:
    """Return whether a mask (H, W) bool is in many tiny pieces, as noise is."""
    if np.count_nonzero(mask) > MOST_SCATTERED:
        return False
    mask = mask[bounding_box(mask)]
    pieces = label(mask, NEIGHBOURS)[1]
    return pieces > 3 and mask.sum() < 12 * pieces
