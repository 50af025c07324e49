# SPDX-License-Identifier: Apache-2.0
"""A record of the masks that `segment.py predict` wrote, which distinguishes them from masks that somebody made."""

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

# in a folder of masks: the hash and name of each predicted one, in the format of sha256sum
RECORD = ".predicted.sha256"


class PredictedMasks:
    """The predicted masks in one folder of masks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._record = folder / RECORD
        text = self._record.read_text("ascii", "replace") if self._record.is_file() else ""
        self._hashes: Set[str] = set(re.findall(r"^[0-9a-f]{64}(?=  )", text, re.MULTILINE))

    def needs_prediction(self, item: Item, overwrite: bool) -> bool:
        """Return whether to predict masks for a picture: it has none, or only predicted ones that may be replaced.

        Mask 0 is written last: if it is missing, an interrupted run left the others.
        """
        if 0 in item.masks and not overwrite:
            return False
        return all(map(self.is_predicted, item.masks.values()))

    def is_predicted(self, mask: Path) -> bool:
        """Return whether a mask was predicted, and not changed since."""
        return mask.is_file() and _hash(mask.read_bytes()) in self._hashes

    def write(self, item: Item, masks: Iterator[np.ndarray]) -> int:
        """Replace the masks of `item` with predicted `masks` (H, W) bool. Returns the number of the new ones."""
        contents = [(self.folder / f"{item.name}_{i}.png", pictures.mask_png(mask)) for i, mask in enumerate(masks)]
        # recorded first, so that a predicted mask is never taken for one that somebody made
        self._add_to_record(contents)
        for number in sorted(item.masks):
            item.masks[number].unlink()
        for path, content in reversed(contents):
            with files.replacing(path) as part:
                part.write_bytes(content)
        return len(contents)

    def _add_to_record(self, contents: Sequence[Tuple[Path, bytes]]) -> None:
        # not through a link, which could lead to any file
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        with open(os.open(self._record, flags, 0o666), "a", encoding="utf-8") as record:
            record.writelines(f"{_hash(content)}  {printable(path.name)}\n" for path, content in contents)
            record.flush()
            os.fsync(record.fileno())
        self._hashes.update(_hash(content) for _, content in contents)


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
