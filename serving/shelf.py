# SPDX-License-Identifier: Apache-2.0
"""Uploads and results that are kept for a while: a bounded number of them, of bounded size, for a bounded time."""

from __future__ import annotations

import os
import shutil
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Tuple


@dataclass(frozen=True)
class Bounds:
    """The most things that are kept, the most bytes of their files together, and the seconds since their last use."""

    things: int
    total_bytes: int
    seconds: float


class Shelf:
    """Things by their ids, each with a folder of files, which goes with it. The longest unused ones go first."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self._lock = Lock()
        # id to thing, folder, bytes and time of the last use; the longest unused first
        self._kept: OrderedDict[str, Tuple[Any, Path, int, float]] = OrderedDict()

    def put(self, id: str, thing: Any, folder: Path) -> None:
        """Keep a thing, and make room for it."""
        with self._lock:
            self._kept[id] = (thing, folder, size_of_folder(folder), time.monotonic())
        self.tidy()

    def get(self, id: str) -> Any | None:
        """The thing, which counts as used; None if there is none, or not any more."""
        self.tidy()
        with self._lock:
            if id not in self._kept:
                return None
            thing, folder, size, _ = self._kept.pop(id)
            self._kept[id] = (thing, folder, size, time.monotonic())
            return thing

    def drop(self, id: str) -> None:
        """Forget a thing and delete its files; nothing happens if there is none."""
        with self._lock:
            kept = self._kept.pop(id, None)
        if kept:
            shutil.rmtree(kept[1], ignore_errors=True)

    def tidy(self) -> None:
        """Drop what is beyond the bounds; the newest thing stays, whatever its size."""
        oldest = time.monotonic() - self.bounds.seconds
        with self._lock:
            total = sum(size for _, _, size, _ in self._kept.values())
            too_many = len(self._kept) - self.bounds.things
            gone = []
            for id, (_, _, size, used) in self._kept.items():
                is_last = len(gone) == len(self._kept) - 1
                if used > oldest and (is_last or (too_many <= len(gone) and total <= self.bounds.total_bytes)):
                    break
                gone.append(id)
                total -= size
        for id in gone:
            self.drop(id)


def size_of_folder(folder: Path) -> int:
    """The bytes of all files in a folder and its subfolders; one that goes meanwhile does not count."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(root, name)).st_size
    return total
