# SPDX-License-Identifier: Apache-2.0
"""Masks from the shapes in annotation files: polygons, circles, run lengths, small PNGs in base64.

The shapes may be damaged or meant to do harm. All functions raise ValueError, with a few words about the cause, for
shapes that cannot be drawn.

Points are x to the right and y down, in pixels from the picture's top left corner: the pixel in row r and column c is
the square from (c, r) to (c + 1, r + 1). Sizes are (height, width), masks (H, W) bool.
"""

from __future__ import annotations

import base64
import io
from array import array
from typing import Any, Dict, List, Sequence, Tuple

import numpy as np
import pycocotools.mask
from PIL import Image

from data.pictures import MOST_PIXELS, Size

# more than any picture has pixels, but small enough for exact arithmetic
FARTHEST = 1e9
# pixels along a polygon's edges inside its picture; pycocotools allocates 80 bytes for each, and does not check whether
# it got them
LONGEST = 1 << 22


def numbers(values: Any) -> np.ndarray:
    """Convert a list of numbers to (N,) float64, all finite and within `FARTHEST` of 0."""
    try:
        converted = np.array(array("d", values))
    except (TypeError, ValueError, OverflowError):
        raise ValueError("it holds something else where numbers belong") from None
    if not (np.abs(converted) <= FARTHEST).all():
        raise ValueError("it holds numbers that lie far outside of any picture")
    return converted


def points(values: Any) -> np.ndarray:
    """Convert a list of [x, y] to (N, 2) float64."""
    if not isinstance(values, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in values):
        raise ValueError("its points are not a list of [x, y]")
    return numbers([coordinate for pair in values for coordinate in pair]).reshape(-1, 2)


def polygon_mask(corners: np.ndarray, size: Size) -> np.ndarray:
    """The pixels inside a polygon (N, 2), drawn by COCO's own code after clipping it to the picture."""
    mask = np.zeros(size, bool)
    corners = _clipped(corners, size)
    if len(corners) < 3:
        return mask
    if np.abs(corners - np.roll(corners, -1, axis=0)).max(axis=1).sum() > LONGEST:
        raise ValueError("its outline is too long")
    # pycocotools rounds to fifths of a pixel; rounded here already, a polygon is drawn the same in any window
    corners = np.floor(5 * corners + 0.5) / 5
    # drawn in its window only, since most polygons are small and pictures may be large
    left, top = np.floor(corners.min(axis=0)).astype(int)
    right, bottom = np.ceil(corners.max(axis=0)).astype(int)
    if left < right and top < bottom:
        outline = (corners - (left, top)).ravel()
        (runs,) = pycocotools.mask.frPyObjects([outline], bottom - top, right - left)
        mask[top:bottom, left:right] = pycocotools.mask.decode(runs)
    return mask


def outline_mask(polygons: Sequence[np.ndarray], size: Size) -> Tuple[np.ndarray, List[str]]:
    """The pixels inside any of the polygons (N, 2) of an instance; and why some of them add none, each reason once.

    That a polygon is too thin for a pixel is told only where that leaves nothing of the instance.
    """
    mask = np.zeros(size, bool)
    flaws = []
    for corners in polygons:
        flaw = _flaw(corners, size)
        if flaw:
            flaws.append(flaw)
        else:
            mask |= polygon_mask(corners, size)
    if not mask.any() and not flaws:
        flaws.append("its outline encloses no pixel")
    return mask, list(dict.fromkeys(flaws))


def _flaw(corners: np.ndarray, size: Size) -> str:
    """The reason why a polygon (N, 2) cannot be one in a picture of `size`; an empty string if it can."""
    if len(corners) < 3:
        return "an outline needs three points or more (four numbers may be a box: draw its four corners)"
    # converters round to just below 0 or above 1
    if (np.abs(corners - 0.5) <= 0.55).all() and (corners % 1 > 0).any():
        return "its coordinates are between 0 and 1, not in pixels: multiply them by the picture's sides"
    if (corners.max(axis=0) <= 0).any() or (corners.min(axis=0) >= size[::-1]).any():
        return "it lies outside of the picture"
    return ""


def _clipped(corners: np.ndarray, size: Size) -> np.ndarray:
    """The part of a polygon (N, 2) inside the picture, clipped at one border after the other (Sutherland, Hodgman)."""
    height, width = size
    corners = _clipped_at(corners, axis=0, border=0, side=1)
    corners = _clipped_at(corners, axis=0, border=width, side=-1)
    corners = _clipped_at(corners, axis=1, border=0, side=1)
    return _clipped_at(corners, axis=1, border=height, side=-1)


def _clipped_at(corners: np.ndarray, axis: int, border: int, side: int) -> np.ndarray:
    """The part of a polygon (N, 2) above (`side` 1) or below (-1) the value `border` of one axis."""
    following = np.roll(corners, -1, axis=0)
    distance = side * (corners[:, axis] - border)
    next_distance = side * (following[:, axis] - border)
    is_inside = distance >= 0
    crosses = is_inside != (next_distance >= 0)
    share = np.divide(distance, distance - next_distance, out=np.zeros_like(distance), where=crosses)
    crossing = corners + share[:, None] * (following - corners)
    # each corner that is inside, then the point where the edge after it crosses the border
    clipped = np.stack([corners, crossing], axis=1)[np.stack([is_inside, crosses], axis=1)]
    # rounding may have put crossings just beyond the border
    low, high = sorted((border, border + side * FARTHEST))
    clipped[:, axis] = np.clip(clipped[:, axis], low, high)
    return clipped


def rectangle(corners: np.ndarray) -> np.ndarray:
    """The four corners (4, 2) of a rectangle, of which two opposite ones (2, 2) or all are given."""
    if len(corners) == 4:
        return corners
    if len(corners) != 2:
        raise ValueError("a rectangle has two points or four")
    (left, top), (right, bottom) = corners
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


def circle_mask(corners: np.ndarray, size: Size) -> np.ndarray:
    """The pixels whose middle is inside a circle, given by its centre and a point on it (2, 2)."""
    if len(corners) != 2:
        raise ValueError("a circle has two points, its centre and one on it")
    x, y = corners[0]
    radius = np.hypot(*(corners[1] - corners[0]))
    rows = np.arange(size[0])[:, None] + 0.5
    columns = np.arange(size[1])[None, :] + 0.5
    # arranged so that only the result is as large as the picture
    return (columns - x) ** 2 <= radius**2 - (rows - y) ** 2


def rle_mask(rle: Dict[str, Any], size: Size) -> np.ndarray:
    """Decode run lengths {"size": [height, width], "counts": list or text}, which go down one column after the other.

    Not with pycocotools, which trusts the counts and reads and writes out of bounds if they are wrong.
    """
    if rle.get("size") != list(size):
        raise ValueError(f"its run lengths are for another size than {size[0]}x{size[1]} (height x width)")
    counts = rle.get("counts")
    runs = _decompressed(counts) if isinstance(counts, str) else numbers(counts)
    area = size[0] * size[1]
    if ((runs < 0) | (runs > area) | (runs != np.floor(runs))).any() or runs.sum() != area:
        raise ValueError("its run lengths do not add up to its picture")
    values = np.arange(len(runs)) % 2 == 1
    return np.ascontiguousarray(np.repeat(values, runs.astype(np.int64)).reshape(size[::-1]).T)


def _decompressed(text: str) -> np.ndarray:
    """Decode COCO's compressed counts: (N,) int64.

    Each character holds 5 bits of a number, lowest first, and a sixth that is set if more follow; the sign is extended
    from the last one's highest bit. From the fourth on, a number is the difference from the one two places before it.
    """
    codes = np.frombuffer(text.encode("ascii", "replace"), np.uint8).astype(np.int64) - 48
    last = np.flatnonzero((codes & 32) == 0)
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or not len(last) or last[-1] != len(codes) - 1:
        raise ValueError("its compressed run lengths are damaged")
    first = np.concatenate([[0], last[:-1] + 1])
    lengths = last - first + 1
    if lengths.max() > 7:
        raise ValueError("its compressed run lengths are damaged")
    places = np.arange(len(codes)) - np.repeat(first, lengths)
    runs = np.add.reduceat((codes & 31) << (5 * places), first)
    runs -= np.where(codes[last] & 16, np.int64(1) << (5 * lengths), 0)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs


def png_mask(text: Any, corners: np.ndarray, size: Size) -> np.ndarray:
    """Decode a mask from a PNG in base64, 0 outside; `corners` (2, 2) are its first and last pixel in the picture."""
    if not isinstance(text, str) or len(corners) != 2:
        raise ValueError("a mask has two points and a PNG in base64")
    (left, top), (right, bottom) = np.trunc(corners).astype(int)
    try:
        image = Image.open(io.BytesIO(base64.b64decode(text)), formats=["PNG"])
        fits = image.size == (right - left + 1, bottom - top + 1) and image.width * image.height <= MOST_PIXELS
        part = np.asarray(image) != 0 if fits else None
    except Exception as error:  # Pillow raises all sorts of errors on damaged bytes
        raise ValueError(f"its PNG cannot be read ({type(error).__name__})") from None
    if part is None or part.ndim != 2:
        raise ValueError("its PNG is not of the size that its points say, or has colours")
    # the part may reach beyond the picture on all sides
    mask = np.zeros(size, bool)
    target = mask[max(top, 0) : max(bottom + 1, 0), max(left, 0) : max(right + 1, 0)]
    height, width = target.shape
    first_row = max(-top, 0)
    first_column = max(-left, 0)
    target[:] = part[first_row : first_row + height, first_column : first_column + width]
    return mask
