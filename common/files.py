# SPDX-License-Identifier: Apache-2.0
"""Write files whole or not at all, lock and create output folders, and find numbered files.

A file is written under a temporary name first and then renamed, so that readers never see a part of it.
"""

from __future__ import annotations

import os
import re
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, List, Sequence

from common.errors import UserError

try:
    import fcntl
except ImportError:  # Windows has no flock: two runs at once into one folder go unnoticed there
    fcntl = None


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a hidden temporary path beside `path`; when the block succeeds, rename it to `path` and sync it to disk.

    The temporary path keeps the extension, by which writers choose the format, and is removed if the block raises.
    """
    path = Path(path)
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        yield part
        with open(part, "rb+") as f:
            os.fsync(f.fileno())
        os.replace(part, path)
    except OSError as error:
        # the user knows `path`, not the temporary name
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        part.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def remove_unfinished(folder: Path, patterns: Sequence[str]) -> None:
    """Delete the temporary files that killed writers of files named by `patterns` (STEM.ENDING) left in `folder`.

    Call it while holding the folder's lock (`locked`), so that no writer is active.
    """
    for pattern in patterns:
        stem, _, ending = pattern.rpartition(".")
        for part in folder.glob(f".{stem}.part.{ending}"):
            part.unlink()


@contextmanager
def locked(path: Path, busy: str) -> Iterator[None]:
    """Lock `path`, a folder or a file (created if missing), against other processes while the block runs.

    The lock ends with the process, so a killed one blocks nobody.

    Raises:
        UserError: with the message `busy`, where another process holds the lock.
    """
    # network file systems lock only files opened for writing, which a folder cannot be
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if fcntl is not None:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(busy) from None
            except OSError as error:
                # some file systems cannot lock, which is no reason to refuse them
                print(f"{path} cannot be locked ({error.strerror}): start no second run there", file=sys.stderr)
        yield
    finally:
        os.close(handle)


def make_folder(path: Path, flag: str) -> None:
    """Create a folder and its parents; an existing one is left as it is.

    Raises:
        UserError: where that fails; the message names `flag`, the argument to change.
    """
    try:
        if path.exists() and not path.is_dir():
            raise UserError(f"{path} is a file, not a folder; give another {flag}")
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {path}: {error.strerror}; give another {flag}") from None


def refuse_foreign(folder: Path, names: Sequence[str], marker: str, overwrite: bool) -> None:
    """Refuse to replace files in `folder` that this program has not written.

    Raises:
        UserError: where one of the files or folders `names`, which are about to be written, exists, the file `marker`,
            which this program leaves in its output folders, does not, and `overwrite` is False.
    """
    existing = [name for name in names if (folder / name).exists()]
    if existing and not overwrite and not (folder / marker).exists():
        raise UserError(f"{folder} holds {existing[0]}, which would be replaced; give another --output, or --overwrite")


def numbered_files(folder: str | Path, stem: str, ending: str) -> List[Path]:
    """The files STEM_NUMBER.ENDING in `folder`, sorted by number."""
    paths = Path(folder).glob(f"{stem}_*.{ending}")
    return sorted((path for path in paths if re.fullmatch(stem + "_[0-9]+", path.stem)), key=number_of)


def number_of(path: Path) -> int:
    """NUMBER of a file STEM_NUMBER.ENDING."""
    return int(path.stem.rpartition("_")[2])


def keep_newest(folder: str | Path, stem: str, ending: str, count: int) -> None:
    """Delete all but the `count` highest-numbered files STEM_NUMBER.ENDING in `folder`."""
    for path in numbered_files(folder, stem, ending)[:-count]:
        path.unlink()
