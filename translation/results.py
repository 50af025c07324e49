# SPDX-License-Identifier: Apache-2.0
"""The output folder of translate.py: pictures, masks, and a page of all translations ever written to the folder."""

from __future__ import annotations

import glob
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Sequence, Tuple

import numpy as np
from PIL import Image

from common import files
from common.errors import UserError
from data import pictures
from data.items import Item
from translation import gallery
from translation.drawing import instance_colour, outline_masks
from translation.gallery import Comparison, Link
from translation.placed_mask import PlacedMask

LARGEST_ON_PAGE = 1024  # pixels of the longer side; the page shows larger pictures reduced to this


@dataclass(frozen=True)
class Translation:
    """A picture `before` and `after` its translation, (H, W, 3) uint8, with masks by their numbers in the input.

    `old_masks` are those of all its instances, `new_masks` those of the translated ones; `colour_profile` is the
    input's (`pictures.colour_profile`).
    """

    before: np.ndarray
    after: np.ndarray
    old_masks: Dict[int, PlacedMask]
    new_masks: Dict[int, PlacedMask]
    colour_profile: bytes | None


class Results:
    """The output folder; `comparisons` are those of the page, by name, earlier runs' included."""

    def __init__(self, folder: str | Path, overwrite: bool) -> None:
        self.folder = Path(folder)
        self.overwrite = overwrite
        self._record = self.folder / "translations.json"
        self.comparisons = gallery.read_comparisons(self._record) if self._record.is_file() else {}

    def check(self, items: Sequence[Item]) -> None:
        """Check that translating `items` overwrites no input, and other files only if asked to.

        Raises:
            UserError: where it would.
        """
        made = ("inputs", "images", "masks", "page")
        folders = {(self.folder / name).resolve() for name in made}
        for path in (path for item in items for path in item.files):
            if path.resolve().parent in folders:
                raise UserError(f"{path} is where a result would be written; give another --output")
        files.refuse_foreign(self.folder, [*made, "index.html"], self._record.name, self.overwrite)
        existing = [item.name for item in items if (self.folder / "images" / f"{item.name}.png").exists()]
        if existing and not self.overwrite:
            raise UserError(
                f"{self.folder} already holds images/{existing[0]}.png; give another --output, or --overwrite"
            )

    def add(self, name: str, translation: Translation, title: str) -> None:
        """Write one translation; its new masks keep the numbers of the input's masks."""
        self._remove_masks(name)
        size = translation.after.shape[:2]
        page_size = size_on_page(size)
        profile = translation.colour_profile
        before = self._write(f"inputs/{name}.png", reduced(translation.before, page_size), profile)
        ranks = _ranks(translation)
        old_masks = {
            rank: reduced(translation.old_masks[number].at(size), page_size) for number, rank in ranks.items()
        }
        new_masks: Dict[int, np.ndarray] = {}
        links = []
        for number, rank in ranks.items():
            colour = f"#{bytes(instance_colour(rank)).hex()}"
            if number in translation.new_masks:
                mask = translation.new_masks[number].at(size)
                new_masks[rank] = reduced(mask, page_size)
                links.append(Link(f"mask {number}", self._write(f"masks/{name}_{number}.png", mask), colour))
            else:
                links.append(Link(f"{number}, left as it is", before, colour))
        image = f"images/{name}.png"
        after = image
        small = f"page/small_{name}.png"
        (self.folder / small).unlink(missing_ok=True)
        if page_size != size:
            after = self._write(small, reduced(translation.after, page_size), profile)
            links.insert(0, Link(f"full size ({size[1]}x{size[0]})", image))
        outlines_before = self._write_outlines(f"page/before_{name}.png", old_masks)
        outlines_after = self._write_outlines(f"page/after_{name}.png", new_masks)
        # last: if it exists, so do all other files of this picture
        self._write(image, translation.after, profile)
        self.comparisons[name] = Comparison(name, title, before, after, outlines_before, outlines_after, links)

    def write_page(self) -> None:
        """Write index.html with all translations so far."""
        gallery.write_comparisons(self._record, self.comparisons)
        comparisons = [comparison for _, comparison in sorted(self.comparisons.items())]
        heading = f"{len(comparisons)} picture{'' if len(comparisons) == 1 else 's'}"
        section = gallery.Section(heading, "", comparisons=comparisons)
        gallery.write_page(self.folder / "index.html", "InstaGAN: translated pictures", [section])

    def _remove_masks(self, name: str) -> None:
        """Remove the masks of an earlier translation of the same picture."""
        for path in (self.folder / "masks").glob(f"{glob.escape(name)}_*.png"):
            if path.stem.rpartition("_")[0] == name:
                path.unlink()

    def _write_outlines(self, path: str, masks: Dict[int, np.ndarray]) -> str:
        """Write the outlines of masks (H, W) uint8, by rank; return the path, an empty string if there are no masks."""
        if not masks:
            (self.folder / path).unlink(missing_ok=True)
            return ""
        return self._write(path, outline_masks(np.array(list(masks.values())) > 127, list(masks)))

    def _write(self, path: str, array: np.ndarray, profile: bytes | None = None) -> str:
        pictures.write_png(self.folder / path, array, profile)
        return path


def size_on_page(size: Tuple[int, int]) -> Tuple[int, int]:
    """The (height, width) at which the page shows a picture of this size."""
    scale = min(1.0, LARGEST_ON_PAGE / max(size))
    height, width = (max(1, round(side * scale)) for side in size)
    return height, width


def _ranks(translation: Translation) -> Dict[int, int]:
    """The rank of each instance's number, which gives its colour; empty where no instance was translated."""
    if not translation.new_masks:
        return {}
    return {number: rank for rank, number in enumerate(sorted(translation.old_masks))}


def reduced(array: np.ndarray, size: Tuple[int, int]) -> np.ndarray:
    """A picture or mask reduced to `size`, averaging over all its pixels."""
    return array if array.shape[:2] == size else np.asarray(Image.fromarray(array).resize(size[::-1], Image.BOX))
