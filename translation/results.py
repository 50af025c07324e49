# SPDX-License-Identifier: Apache-2.0
"""The output folder of translate.py: pictures, masks, and a page over everything that was ever translated into it."""

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
from translation.keep_size import PlacedMask

SHOWN = 1024  # pixels of the longer side of what the page shows; larger pictures are shown smaller


@dataclass(frozen=True)
class Translation:
    """A translated picture: `before` and `after` (H, W, 3) uint8, masks by number that are placed in it, those of all
    its instances and what became of some of these (`new`), and what colours mean (`pictures.colour_profile`)."""

    before: np.ndarray
    after: np.ndarray
    old: Dict[int, PlacedMask]
    new: Dict[int, PlacedMask]
    profile: bytes | None


class Results:
    """The output folder: pictures, masks, and a page over everything that was ever translated into it."""

    def __init__(self, folder: str | Path, overwrite: bool) -> None:
        self.folder = Path(folder)
        self.overwrite = overwrite
        self._record = self.folder / "translations.json"
        # by name
        self.done = gallery.read_comparisons(self._record) if self._record.is_file() else {}

    def check(self, items: Sequence[Item]) -> None:
        """Raise UserError where anything would be overwritten without having been asked, or an input in any case."""
        ours = ("inputs", "images", "masks", "page")
        folders = {(self.folder / name).resolve() for name in ours}
        for path in (path for item in items for path in item.files):
            if path.resolve().parent in folders:
                raise UserError(f"{path} is where a result would be written; give another --output")
        files.refuse_foreign(self.folder, [*ours, "index.html"], self._record.name, self.overwrite)
        taken = [item.name for item in items if (self.folder / "images" / f"{item.name}.png").exists()]
        if taken and not self.overwrite:
            raise UserError(f"{self.folder} already holds images/{taken[0]}.png; give another --output, or --overwrite")

    def add(self, name: str, translation: Translation, title: str) -> None:
        """Write one translated picture, and its masks under the numbers of the input's masks."""
        for old in (self.folder / "masks").glob(f"{glob.escape(name)}_*.png"):
            if old.stem.rpartition("_")[0] == name:
                old.unlink()
        size, profile = translation.after.shape[:2], translation.profile
        shown, image, small = shown_size(size), f"images/{name}.png", f"page/small_{name}.png"
        before = self._write(f"inputs/{name}.png", _smaller(translation.before, shown), profile)
        # where nothing was translated, or by a model without masks, there is nothing to look for
        ranks = {number: rank for rank, number in enumerate(sorted(translation.old)) if translation.new}
        old = {rank: _smaller(translation.old[number].at(size), shown) for number, rank in ranks.items()}
        links, new = [], {}
        for number, rank in ranks.items():
            caption, path = f"{number}, left as it is", before
            if number in translation.new:
                whole = translation.new[number].at(size)
                caption, path = f"mask {number}", self._write(f"masks/{name}_{number}.png", whole)
                new[rank] = _smaller(whole, shown)
            links.append(Link(caption, path, f"#{bytes(instance_colour(rank)).hex()}"))
        (self.folder / small).unlink(missing_ok=True)
        if shown != size:
            links.insert(0, Link(f"full size ({size[1]}x{size[0]})", image))
            self._write(small, _smaller(translation.after, shown), profile)
        outlines = self._outline(f"page/before_{name}.png", old), self._outline(f"page/after_{name}.png", new)
        # last: where it is, all of the picture's files are
        self._write(image, translation.after, profile)
        self.done[name] = Comparison(name, title, before, image if shown == size else small, *outlines, links)

    def _write(self, path: str, array: np.ndarray, profile: bytes | None = None) -> str:
        pictures.write_png(self.folder / path, array, profile)
        return path

    def _outline(self, path: str, masks: Dict[int, np.ndarray]) -> str:
        """Write the outlines of masks (H, W) uint8 by the number of their colour; gives the path, or an empty string
        where there is no mask."""
        if not masks:
            (self.folder / path).unlink(missing_ok=True)
            return ""
        return self._write(path, outline_masks(np.array([*masks.values()]) > 127, [*masks]))

    def write_page(self) -> None:
        """Write index.html over all that was translated so far."""
        gallery.write_comparisons(self._record, self.done)
        shown = [one for _, one in sorted(self.done.items())]
        section = gallery.Section(f"{len(shown)} picture{'s' * (len(shown) != 1)}", "", comparisons=shown)
        gallery.write_page(self.folder / "index.html", "InstaGAN: translated pictures", [section])


def shown_size(size: Tuple[int, int]) -> Tuple[int, int]:
    """The (height, width) at which the page shows a picture of this size."""
    scale = min(1.0, SHOWN / max(size))
    height, width = (max(1, round(side * scale)) for side in size)
    return height, width


def _smaller(array: np.ndarray, size: Tuple[int, int]) -> np.ndarray:
    """A picture or mask reduced to `size`, every pixel of it counted."""
    return array if array.shape[:2] == size else np.asarray(Image.fromarray(array).resize(size[::-1], Image.BOX))
