# SPDX-License-Identifier: Apache-2.0
"""Masks that `segment.py predict` wrote, told from those that somebody made, by a record in their folder."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Iterator, Sequence, Set, Tuple

import numpy as np

from common import files
from common.errors import printable
from data import pictures
from data.items import Item

# in a folder of masks: the hash and name of each that was predicted, as sha256sum writes and checks them
RECORD = ".predicted.sha256"


class PredictedMasks:
    """The masks of one folder of pictures, of which it knows those that were predicted."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._record = folder, folder / RECORD
        text = self._record.read_text("ascii", "replace") if self._record.is_file() else ""
        self._predicted: Set[str] = set(re.findall(r"^[0-9a-f]{64}(?=  )", text, re.MULTILINE))

    def is_open(self, item: Item, overwrite: bool) -> bool:
        """Whether masks are to be predicted for a picture: it has none, or only predicted ones that may be replaced.

        The first mask is written last: where it is missing, the others are what an interrupted run left.
        """
        if item.masks and 0 in item.masks and not overwrite:
            return False
        return all(map(self.is_predicted, item.masks.values()))

    def is_predicted(self, mask: Path) -> bool:
        """Whether a mask is as it was predicted."""
        return mask.is_file() and _hash(mask.read_bytes()) in self._predicted

    def write(self, item: Item, masks: Iterator[np.ndarray]) -> int:
        """Put predicted `masks` (H, W) bool in the place of those that `item` has. Returns how many there are."""
        contents = [(self.folder / f"{item.name}_{i}.png", pictures.mask_png(mask)) for i, mask in enumerate(masks)]
        # first, so that no predicted mask is ever taken for somebody's own
        self._remember(contents)
        for number in sorted(item.masks):
            item.masks[number].unlink()
        for path, content in reversed(contents):
            with files.replacing(path) as part:
                part.write_bytes(content)
        return len(contents)

    def _remember(self, contents: Sequence[Tuple[Path, bytes]]) -> None:
        # not through a link, which could lead to any file
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        with open(os.open(self._record, flags, 0o666), "a", encoding="utf-8") as record:
            record.writelines(f"{_hash(content)}  {printable(path.name)}\n" for path, content in contents)
            record.flush()
            os.fsync(record.fileno())
        self._predicted.update(_hash(content) for _, content in contents)


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
