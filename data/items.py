# SPDX-License-Identifier: Apache-2.0
"""The files of a data set folder: pictures, and the masks that belong to each.

A data set folder holds `PHASE{A,B}/NAME.png` (or .jpg, or another of EXTENSIONS) and `PHASE{A,B}_seg/NAME_{i}.png`,
i = 0, 1, ... NAME is compared in one form (`comparable`).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Sequence

import numpy as np

from common.errors import UserError
from common.progress import say

EXTENSIONS = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff")
# files that systems put into folders of pictures, and annotations, which may lie beside pictures
EXPECTED = ("thumbs.db", "desktop.ini")


@dataclass(frozen=True)
class Item:
    """A picture's file and its mask files, by number (numbers may have gaps)."""

    name: str
    image: Path
    masks: Dict[int, Path] = field(default_factory=dict)

    @property
    def files(self) -> List[Path]:
        """The picture, then its masks."""
        return [self.image, *self.masks.values()]


@dataclass(frozen=True)
class Listing:
    """The files of a picture folder and its mask folder, sorted by what their names say; hidden files are left out.

    `images` has the pictures by name, `masks` the masks by name and number. Each value is a list, since a bad folder
    can have several files for one name or number. `other` has the files of either folder that are neither.
    """

    images: Dict[str, List[Path]]
    masks: Dict[str, Dict[int, List[Path]]]
    other: List[Path]

    def mask_files(self) -> List[Path]:
        """All masks, of whatever picture."""
        return [path for numbers in self.masks.values() for paths in numbers.values() for path in paths]


def find_items(root: str | Path, phase: str, domain: str) -> List[Item]:
    """The pictures of `PHASE` + domain ("A" or "B") with their masks, by name.

    Raises:
        UserError: if the folder is missing or holds no picture, or a name occurs with two extensions.
    """
    folder = Path(root) / f"{phase}{domain}"
    if not folder.is_dir():
        phases = sorted({path.name[:-1] for path in Path(root).glob("*[AB]") if path.is_dir()})
        raise UserError(f"no folder {folder}; {root} has the phases: {', '.join(phases) or 'none'}")
    return find_pictures(folder, mask_folder_of(folder))


def find_items_with_masks(root: str | Path, phase: str, domain: str) -> List[Item]:
    """Those of `find_items` that have masks; there may be none."""
    return [item for item in find_items(root, phase, domain) if item.masks]


def evenly_spaced(items: Sequence[Any], most: int) -> List[Any]:
    """All items, or `most` of them, evenly spaced from the first to the last."""
    return [items[i] for i in np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int)]


def find_pictures(folder: Path, mask_folder: Path | None) -> List[Item]:
    """The pictures of `folder`, each with its masks in `mask_folder` (which may be missing, or None), by name.

    Raises:
        UserError: if there are no pictures, a name or number occurs twice, or a name cannot be written into a page.
    """
    listing = list_files(folder, mask_folder)
    if not listing.images:
        raise UserError(f"no pictures ({', '.join(EXTENSIONS)}) in {folder}")
    for name, paths in listing.images.items():
        if len(paths) > 1:
            raise UserError(f"{paths[1]} and {paths[0].name} share a name; their masks would too: rename one")
        if not is_text(name):
            raise UserError(f"{paths[0]}: its name is not valid UTF-8; rename it")
    for name, numbers in listing.masks.items():
        for number, paths in numbers.items():
            if len(paths) > 1:
                raise UserError(f"{paths[1]} and {paths[0].name} are both mask {number} of {name}; rename one")
    return items_of(listing)


def mask_folder_of(folder: Path) -> Path:
    """The folder with the masks of a folder of pictures: FOLDER_seg beside it.

    Raises:
        UserError: if nothing can be beside it.
    """
    # "." and ".." have no name to append to
    named = folder if folder.name not in ("", "..") else folder.resolve()
    if not named.name:
        raise UserError(f"{folder} has no folder of masks beside it; give another folder of pictures")
    return named.with_name(named.name + "_seg")


def list_files(folder: Path, mask_folder: Path | None) -> Listing:
    """List the files in `folder` and `mask_folder`; the latter may be missing, or None to leave it out."""
    listing = Listing({}, {}, [])
    for path in visible_files(folder):
        if path.suffix.lower() in EXTENSIONS:
            listing.images.setdefault(comparable(path.stem), []).append(path)
        else:
            listing.other.append(path)
    for path in visible_files(mask_folder) if mask_folder and mask_folder.is_dir() else []:
        match = re.fullmatch(r"(.+)_([0-9]{1,9})", path.stem, re.DOTALL)
        if match and path.suffix.lower() == ".png":
            listing.masks.setdefault(comparable(match[1]), {}).setdefault(int(match[2]), []).append(path)
        else:
            listing.other.append(path)
    return listing


def items_of(listing: Listing) -> List[Item]:
    """The pictures of a listing in which each name and number occurs once."""
    masks = {name: {i: numbers[i][0] for i in sorted(numbers)} for name, numbers in listing.masks.items()}
    return [Item(name, paths[0], masks.get(name, {})) for name, paths in listing.images.items()]


def visible_files(folder: Path) -> List[Path]:
    """All entries of a folder but the hidden ones, sorted."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def files_by_stem(folder: Path, suffix: str) -> Dict[str, Path]:
    """The visible files of a folder with this extension, by their names without it (`comparable`)."""
    return {comparable(path.stem): path for path in visible_files(folder) if path.suffix.lower() == suffix}


def comparable(name: str) -> str:
    """A name in one form: letters with accents have two, and macOS stores another one than most programs."""
    return unicodedata.normalize("NFC", name)


def not_taken(folder: Path, mask_folder: Path | None) -> str:
    """A sentence about the files and folders beside the pictures of `folder`, and beside the masks of `mask_folder`,
    that are not used; an empty string if there are none."""
    others = [
        path
        for path in list_files(folder, mask_folder if mask_folder != folder else None).other
        if path.name.lower() not in EXPECTED and path.suffix.lower() != ".json"
    ]
    sentences = []
    strays = [path.name for path in others if path.parent == folder and not path.is_dir()]
    if strays:
        sentences.append(f"{_some(strays)} (pictures are {', '.join(EXTENSIONS)})")
    folders = [path.name for path in others if path.parent == folder and path.is_dir()]
    if folders:
        sentences.append(f"what is in {_some(folders)} (give such folders one by one)")
    masks = [path.name for path in others if path.parent != folder]
    if masks:
        sentences.append(f"{_some(masks)} in {mask_folder} (masks are NAME_0.png, NAME_1.png, ...)")
    return f"{folder}: not taken: {'; '.join(sentences)}" if sentences else ""


def tell_not_taken(folder: Path, mask_folder: Path | None) -> None:
    """Print the sentence of `not_taken`, if there is one."""
    sentence = not_taken(folder, mask_folder)
    if sentence:
        say(sentence)


def _some(names: List[str]) -> str:
    """The first names of a list, and the number of the others."""
    others = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + others


def is_text(name: str) -> bool:
    """Return whether a file's name is valid UTF-8 (Python puts surrogates into names that are not)."""
    return not any("\ud800" <= c <= "\udfff" for c in name)
