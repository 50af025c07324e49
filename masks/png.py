# SPDX-License-Identifier: Apache-2.0
"""Masks in PNG files: one for each instance, or label maps."""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import Iterator, Sequence, Set, Tuple

import numpy as np
from PIL import Image
from scipy.ndimage import maximum_filter, minimum_filter

from common.errors import UserError
from common.progress import say
from data import pictures
from data.items import comparable, files_by_stem, list_files
from data.pictures import Size
from masks.label_areas import count_values
from masks.label_maps import VOID, VOID_COLOUR, label_map, tidy
from masks.mask_source import Instance, MaskSource

MOST_LABELS = 5000  # no picture shows more instances; a photo has more colours
MOST_COLOURS = 100_000  # more are those of a photo, and not of edges in a label map
STRIP = 256  # rows
HARD_ALPHAS = 4  # different values of alpha in a map without soft edges, at most


class MaskFolder(MaskSource):
    """Masks NAME_{i}.png in one folder."""

    format = "masks"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._masks = list_files(path, path).masks

    def _read(self, image: Path, size: Size, category: str | None) -> Iterator[Instance]:
        for _, paths in sorted(self._masks.get(comparable(image.stem), {}).items()):
            for path in paths:
                mask = pictures.read_mask(path)
                if mask.shape != size and pictures.same_proportions(mask.shape, size):
                    # resized as in a data set
                    yield Instance("", pictures.read_mask(path, size))
                else:
                    yield Instance("", self._upright(mask.shape, image, size, path)(mask))


class LabelMaps(MaskSource):
    """Label maps NAME.png in one folder, or one file."""

    format = "labels"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._maps = files_by_stem(path, ".png") if path.is_dir() else {}
        # pictures are read by several threads
        self._lock = Lock()
        self._said: Set[str] = set()

    def _read(self, image_path: Path, size: Size, category: str | None) -> Iterator[Instance]:
        path = self._maps.get(comparable(image_path.stem)) if self.path.is_dir() else self.path
        if path is None:
            return
        image, labels = _read(path)
        if _is_soft_mask(labels):
            fix = "call it NAME_0.png, as one instance's mask"
            raise UserError(f"{path} is a mask with soft edges, and no label map; {fix}")
        upright = self._upright(labels.shape, image_path, size, path)
        if len(_values(labels)) <= MOST_COLOURS:
            labelled = tidy(path, label_map(image, labels))
            labels = labelled.labels
            self._say_once(path, labelled.remarks)
        values = _values(labels)
        if len(values) > MOST_LABELS:
            fix = "give a map with one value for each instance, never saved as JPEG"
            raise UserError(f"{path} has {len(values)} values, too many for a label map; {fix}")
        for value in sorted(values - {0}):
            yield Instance("", upright(labels == value))

    def _say_once(self, path: Path, remarks: Sequence[str]) -> None:
        """Print each remark about the map `path` that was not printed for another map yet."""
        with self._lock:
            new = [remark for remark in remarks if remark not in self._said]
            self._said.update(new)
        for remark in new:
            also = f", and so on in other maps of {self.path}" if self.path.is_dir() else ""
            say(f"{path.name}: {remark}{also}")


def _values(labels: np.ndarray) -> Set[int]:
    """The different values of a map, counted in strips, since sorting makes a copy."""
    return {int(v) for top in range(0, len(labels), STRIP) for v in count_values(labels[top : top + STRIP].ravel())[0]}


def _is_soft_mask(labels: np.ndarray) -> bool:
    """Return whether a label map is a mask with grey edges: nearly all black or white, and many greys in the rest."""
    if labels.dtype != np.uint8:
        return False
    counts = np.bincount(labels.ravel(), minlength=256)
    greys = counts[1:255]
    if np.count_nonzero(greys) <= 8 or counts[255] <= 0.7 * counts[1:].sum():
        return False
    # objects in grey are even inside, edges are not
    is_grey = (labels > 0) & (labels < 255)
    is_even = maximum_filter(labels, 3) == minimum_filter(labels, 3)
    return np.count_nonzero(is_grey & is_even) < 0.2 * np.count_nonzero(is_grey)


def read_labels(path: Path) -> np.ndarray:
    """Read the stored values of a label map: (H, W), upright, unsigned or signed integers, 0 for no label.

    Greys are taken as they are, palettes by index (VOC's index for "no label" becomes 0), colours as 0xRRGGBB; wholly
    transparent pixels are 0.

    Raises:
        UserError: if the file is not a picture, or has colours of 16 bits, of which only 8 can be read.
    """
    return _read(path)[1]


def _read(path: Path) -> Tuple[Image.Image, np.ndarray]:
    """Read an image and its labels, as `read_labels` does."""
    header, image = pictures.open_with_header(path)
    if image.mode == "F" or header.deep and not image.mode.startswith("I"):
        raise UserError(f"{path} has colours of 16 bits, of which only 8 can be read; save it in grey or 8-bit colours")
    if image.mode.startswith("I"):
        return image, np.asarray(image)
    if image.mode in ("1", "L", "P"):
        return image, _grey_or_palette_labels(image)
    if image.mode == "LA":
        channels = np.asarray(image)
        return image, channels[..., 0] * (channels[..., 1] > 0)
    if image.mode in ("RGB", "RGBA"):
        return image, _colour_labels(np.asarray(image))
    raise UserError(f"{path} is of Pillow's mode {image.mode}, which no label map has; save it in grey or colours")


def _grey_or_palette_labels(image: Image.Image) -> np.ndarray:
    labels = np.array(image, np.uint8)
    if image.mode == "P" and (image.getpalette() or [])[3 * VOID : 3 * VOID + 3] == VOID_COLOUR:
        labels[labels == VOID] = 0
    return labels


def _colour_labels(channels: np.ndarray) -> np.ndarray:
    """Colours (H, W, 3), or with alpha (H, W, 4), as 0xRRGGBB: (H, W).

    Where alpha is soft, as of a brush, colours are multiplied with it, so that they end in 0 at the edges.
    """
    labels = np.zeros(channels.shape[:2], np.uint32)
    has_alpha = channels.shape[2] == 4
    is_soft = has_alpha and np.count_nonzero(np.bincount(channels[..., 3].ravel())) > HARD_ALPHAS
    for channel in range(3):
        labels <<= np.uint32(8)
        level = channels[..., channel]
        labels |= (level * channels[..., 3].astype(np.uint16) + 127) // 255 if is_soft else level
    return labels * (channels[..., 3] > 0) if has_alpha else labels
