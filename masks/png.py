# SPDX-License-Identifier: Apache-2.0
"""Masks in PNG files: one for each instance, or label maps."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator

import numpy as np

from common.errors import UserError
from data import pictures
from data.items import list_files
from masks.annotation_shapes import Size
from masks.mask_source import Instance, MaskSource, _by_stem

# no picture shows so many instances; a photo, or a label map that was saved as JPEG, has so many colours
MOST_LABELS = 5000
STRIP = 256  # rows
VOID, VOID_COLOUR = 255, [224, 224, 192]  # Pascal VOC, and what LabelMe makes for it: "no label", by index and colour


class MaskFolder(MaskSource):
    """Masks NAME_{i}.png in one folder."""

    format = "masks"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._masks = list_files(path, path).masks

    def _read(self, image: Path, size: Size) -> Iterator[Instance]:
        for _, paths in sorted(self._masks.get(image.stem, {}).items()):
            for path in paths:
                mask = pictures.read_mask(path)
                if mask.shape != size and pictures.same_proportions(mask.shape, size):
                    # as where a data set is read
                    yield Instance("", pictures.read_mask(path, size))
                else:
                    yield Instance("", self._fitting(mask.shape, size, image, path)(mask))


class LabelMaps(MaskSource):
    """Label maps NAME.png in one folder, or one file."""

    format = "labels"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._maps = _by_stem(path, ".png") if path.is_dir() else {}

    def _read(self, image: Path, size: Size) -> Iterator[Instance]:
        path = self._maps.get(image.stem) if self.path.is_dir() else self.path
        if path is None:
            return
        labels = read_labels(path)
        if _is_soft(labels):
            mend = "call it NAME_0.png, as one instance's mask"
            raise UserError(f"{path} is a mask with soft edges, and no label map; {mend}")
        upright = self._fitting(labels.shape, size, image, path)
        values = {int(v) for top in range(0, len(labels), STRIP) for v in np.unique(labels[top : top + STRIP])}
        if len(values) > MOST_LABELS:
            mend = "give a map with one value for each instance, never saved as JPEG"
            raise UserError(f"{path} has {len(values)} values, too many for a label map; {mend}")
        for value in sorted(values - {0}):
            yield Instance("", upright(labels == value))


def _is_soft(labels: np.ndarray) -> bool:
    """Whether a label map is a mask with grey edges: nearly all is black or white, and the rest of many greys."""
    if labels.dtype != np.uint8:
        return False
    counts = np.bincount(labels.ravel(), minlength=256)
    return np.count_nonzero(counts[1:255]) > 8 and counts[255] > 0.7 * counts[1:].sum()


def read_labels(path: Path) -> np.ndarray:
    """A label map as it is stored: (H, W), upright, unsigned or signed integers, 0 where no label is.

    Greys are taken as they are, palettes by index (VOC's index for "no label" becomes 0), colours as 0xRRGGBB; what is
    wholly transparent is 0.

    Raises:
        UserError: where the file is no picture, or has colours of 16 bits, of which only 8 can be read.
    """
    header, image = pictures.open_with_header(path)
    if image.mode == "F" or header.deep and not image.mode.startswith("I"):
        raise UserError(f"{path} has colours of 16 bits, of which only 8 can be read; save it in grey or 8-bit colours")
    if image.mode in ("1", "L", "P") or image.mode.startswith("I"):
        labels = np.array(image, np.uint8) if image.mode in "1LP" else np.asarray(image)
        if image.mode == "P" and (image.getpalette() or [])[3 * VOID : 3 * VOID + 3] == VOID_COLOUR:
            labels[labels == VOID] = 0
        return labels
    if image.mode not in ("RGB", "RGBA", "LA"):
        raise UserError(f"{path} is of Pillow's mode {image.mode}, which is no label map; save it in grey or colours")
    channels = np.asarray(image)
    if image.mode == "LA":
        return channels[..., 0] * (channels[..., 1] > 0)
    labels = np.zeros(channels.shape[:2], np.uint32)
    for channel in range(3):
        labels <<= np.uint32(8)
        labels |= channels[..., channel]
    return labels * (channels[..., 3] > 0) if image.mode == "RGBA" else labels
