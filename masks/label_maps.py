# SPDX-License-Identifier: Apache-2.0
"""Label maps as people draw and export them: edge colours, void outlines and backgrounds are no instances."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Tuple

import numpy as np
from PIL import Image
from scipy.ndimage import maximum_filter, minimum_filter

from common.errors import UserError
from masks.label_areas import ColoursOf, count_values
from masks.label_edges import UnclearEdges, merge_edges

# "no label" in Pascal VOC's palettes, and in those that LabelMe exports: its index and its colour
VOID = 255
VOID_COLOUR = [224, 224, 192]
LARGEST_INDEX = 127  # in grey maps whose 255 may be void: these store small numbers
VOID_WIDTH = 9  # pixels; void outlines are thinner
BACKGROUND_PART = 0.9  # of the picture's border that a background fills
SIDES_PART = 0.75  # the same where it touches all four sides
WHITE_PART = 0.6  # the same where it is white, as no instance is likely to be

EDGES_SAID = "colours at the edges of objects, from anti-aliasing or JPEG, are given to the objects"
BACKGROUND_SAID = "the value that surrounds everything is taken as background"
SURROUNDING_SAID = (
    "a value that surrounds most of the map is taken as an instance; if it is the background, make it 0 (black)"
)


@dataclass(frozen=True)
class LabelMap:
    """The values of a label map, (H, W) with 0 for no label, their colours, and whether they are colours themselves.

    `remarks` says what was done to the values.
    """

    labels: np.ndarray
    colours_of: ColoursOf
    is_coloured: bool
    white: int
    remarks: Tuple[str, ...] = ()


def label_map(image: Image.Image, labels: np.ndarray) -> LabelMap:
    """The label map (H, W) of an upright image, whose values are `labels`."""
    if labels.dtype == np.uint32 and image.mode in ("RGB", "RGBA"):
        return LabelMap(labels, _split, True, 0xFFFFFF)
    if image.mode == "P":
        return _palette_map(image, labels)
    white = {"1": 1, "L": 255, "LA": 255}.get(image.mode, 65535)
    return LabelMap(labels, _levels, False, white)


def _split(values: np.ndarray) -> np.ndarray:
    """The colours (..., 3) of values 0xRRGGBB."""
    return np.stack([values >> 16 & 255, values >> 8 & 255, values & 255], axis=-1).astype(np.float32)


def _levels(values: np.ndarray) -> np.ndarray:
    return values[..., None].astype(np.float32)


def _palette_map(image: Image.Image, labels: np.ndarray) -> LabelMap:
    palette = np.zeros(3 * 256, np.float32)
    stored = (image.getpalette() or [])[: 3 * 256]
    palette[: len(stored)] = stored
    colours = palette.reshape(256, 3)
    is_white = (colours == 255).all(axis=1)
    white = int(is_white.argmax()) if is_white.any() else -1
    return LabelMap(labels, lambda values: colours[values], False, white)


def tidy(path: Path, labelled: LabelMap) -> LabelMap:
    """The label map without edge colours, void outlines and a background.

    Raises:
        UserError: if it is not clear which objects it shows.
    """
    try:
        merged = merge_edges(labelled.labels, labelled.colours_of)
    except UnclearEdges:
        raise UserError(
            f"{path} has many colours at the edges of its objects, as anti-aliasing, resizing or JPEG leave, and it is "
            "not clear to which objects they belong; draw it without anti-aliasing, save it as PNG and never as JPEG, "
            "and resize it with NEAREST"
        ) from None
    if merged is not None:
        labelled = replace(labelled, labels=merged, remarks=(EDGES_SAID,))
    return _without_background(path, _without_void(labelled))


def _without_void(labelled: LabelMap) -> LabelMap:
    labels = labelled.labels
    if labelled.is_coloured:
        red, green, blue = VOID_COLOUR
        is_void = labels == (red << 16 | green << 8 | blue)
        is_outline = is_void.any() and bool((labels[~is_void] > 0).any())
    elif labels.dtype == np.uint8:
        is_void = labels == VOID
        is_outline = is_void.any() and _is_outline(labels, is_void)
    else:
        return labelled
    return replace(labelled, labels=np.where(is_void, 0, labels).astype(labels.dtype)) if is_outline else labelled


def _is_outline(labels: np.ndarray, is_void: np.ndarray) -> bool:
    """Return whether the index 255 (H, W) bool of a map of small numbers is thin, and outlines others or the map."""
    largest = labels.max(where=~is_void, initial=0)
    if not 0 < largest <= LARGEST_INDEX:
        return False
    wide = maximum_filter(minimum_filter(is_void, VOID_WIDTH, mode="nearest"), VOID_WIDTH)
    thin_part = 1 - np.count_nonzero(wide & is_void) / np.count_nonzero(is_void)
    borders = _borders(is_void)
    if thin_part > 0.9 and borders.mean() > BACKGROUND_PART:
        return True
    is_label = (labels > 0) & ~is_void
    contacts = 0
    with_void = 0
    for one, other in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        for inner, outer in ((one, other), (other, one)):
            is_contact = is_label[inner] & (labels[inner] != labels[outer])
            contacts += np.count_nonzero(is_contact)
            with_void += np.count_nonzero(is_contact & is_void[outer])
    return thin_part > 0.5 and with_void > 0.6 * contacts


def _borders(values: np.ndarray) -> np.ndarray:
    """The pixels at the border of a map (H, W), in one row; those in corners twice."""
    return np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])


def _without_background(path: Path, labelled: LabelMap) -> LabelMap:
    labels = labelled.labels
    values, counts = count_values(np.sort(_borders(labels)))
    value = values[counts.argmax()]
    part = counts.max() / counts.sum()
    is_white = int(value) == labelled.white
    is_around = all((side == value).any() for side in (labels[0], labels[-1], labels[:, 0], labels[:, -1]))
    least = WHITE_PART if is_white else SIDES_PART if is_around else BACKGROUND_PART
    if value == 0 or (labels == value).all():
        return labelled
    if part <= least:
        remarks = (SURROUNDING_SAID,) if part > 0.5 and is_around and labels.all() else ()
        return replace(labelled, remarks=(*labelled.remarks, *remarks))
    if labels.all():
        remarks = (*labelled.remarks, BACKGROUND_SAID)
        return replace(labelled, labels=np.where(labels == value, 0, labels).astype(labels.dtype), remarks=remarks)
    if is_white and part > BACKGROUND_PART:
        raise UserError(
            f"{path} has white all around, and black in it: is white the background? Black, the value 0, is no label "
            "here; invert the map, or make its background black and its black objects another colour"
        )
    return labelled
