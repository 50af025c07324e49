# SPDX-License-Identifier: Apache-2.0
"""Masks in PNG files: one for each instance, or label maps."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator

import numpy as np
from PIL import Image

from common.errors import UserError
from data import pictures
from data.items import comparable, files_by_stem, list_files
from data.pictures import Size
from masks.mask_source import Instance, MaskSource

# no picture shows more instances; a photo, or a label map that was saved as JPEG, has more colours
MOST_LABELS = 5000
STRIP = 256  # rows
# "no label" in Pascal VOC's palettes, and in those that LabelMe exports: its index and its colour
VOID = 255
VOID_COLOUR = [224, 224, 192]


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

    def _read(self, image: Path, size: Size, category: str | None) -> Iterator[Instance]:
        path = self._maps.get(comparable(image.stem)) if self.path.is_dir() else self.path
        if path is None:
            return
        labels = read_labels(path)
        if _is_soft_mask(labels):
            fix = "call it NAME_0.png, as one instance's mask"
            raise UserError(f"{path} is a mask with soft edges, and no label map; {fix}")
        upright = self._upright(labels.shape, image, size, path)
        # in strips, since np.unique sorts a copy
        values = {int(v) for top in range(0, len(labels), STRIP) for v in np.unique(labels[top : top + STRIP])}
        if len(values) > MOST_LABELS:
            fix = "give a map with one value for each instance, never saved as JPEG"
            raise UserError(f"{path} has {len(values)} values, too many for a label map; {fix}")
        for value in sorted(values - {0}):
            yield Instance("", upright(labels == value))


def _is_soft_mask(labels: np.ndarray) -> bool:
    """Return whether a label map is a mask with grey edges: nearly all black or white, and many greys in the rest."""
    if labels.dtype != np.uint8:
        return False
    counts = np.bincount(labels.ravel(), minlength=256)
    return np.count_nonzero(counts[1:255]) > 8 and counts[255] > 0.7 * counts[1:].sum()


def read_labels(path: Path) -> np.ndarray:
    """Read the stored values of a label map: (H, W), upright, unsigned or signed integers, 0 for no label.

    Greys are taken as they are, palettes by index (VOC's index for "no label" becomes 0), colours as 0xRRGGBB; wholly
    transparent pixels are 0.

    Raises:
        UserError: if the file is not a picture, or has colours of 16 bits, of which only 8 can be read.
    """
    header, image = pictures.open_with_header(path)
    if image.mode == "F" or header.deep and not image.mode.startswith("I"):
        raise UserError(f"{path} has colours of 16 bits, of which only 8 can be read; save it in grey or 8-bit colours")
    if image.mode.startswith("I"):
        return np.asarray(image)
    if image.mode in ("1", "L", "P"):
        return _grey_or_palette_labels(image)
    if image.mode == "LA":
        channels = np.asarray(image)
        return channels[..., 0] * (channels[..., 1] > 0)
    if image.mode in ("RGB", "RGBA"):
        return _colour_labels(np.asarray(image))
    raise UserError(f"{path} is of Pillow's mode {image.mode}, which no label map has; save it in grey or colours")


def _grey_or_palette_labels(image: Image.Image) -> np.ndarray:
    labels = np.array(image, np.uint8)
    if image.mode == "P" and (image.getpalette() or [])[3 * VOID : 3 * VOID + 3] == VOID_COLOUR:
        labels[labels == VOID] = 0
    return labels


def _colour_labels(channels: np.ndarray) -> np.ndarray:
    """Colours (H, W, 3), or with alpha (H, W, 4), as 0xRRGGBB: (H, W)."""
    labels = np.zeros(channels.shape[:2], np.uint32)
    for channel in range(3):
        labels <<= np.uint32(8)
        labels |= channels[..., channel]
    return labels * (channels[..., 3] > 0) if channels.shape[2] == 4 else labels
