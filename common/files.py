# SPDX-License-Identifier: Apache-2.0
"""Write files so that each is whole or absent: under another name first, then renamed; make and lock their folders."""

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
    """Give a hidden temporary path beside `path`; when the block ends well, it becomes `path` on the disk at once.

    The temporary keeps the extension, for writers that look at it, and is removed when the block raises.
    """
    path = Path(path)
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        yield part
        with open(part, "rb+") as f:
            os.fsync(f.fileno())
        os.replace(part, path)
    except OSError as error:
        # nobody knows the temporary's name
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        part.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def remove_unfinished(folder: Path, patterns: Sequence[str]) -> None:
    """Delete what writers of files of such names (STEM.ENDING) left in `folder` when they were killed; call it where
    none can be at work (`locked`)."""
    for pattern in patterns:
        stem, _, ending = pattern.rpartition(".")
        for part in folder.glob(f".{stem}.part.{ending}"):
            part.unlink()


@contextmanager
def locked(path: Path, busy: str) -> Iterator[None]:
    """Hold `path`, a folder or a file (made where it is missing), against other processes while the block runs.

    The lock dies with the process, so that a killed one blocks nobody.

    Raises:
        UserError: with the words `busy`, where another process holds it.
    """
    # network file systems lock only what is opened for writing, which a folder cannot be
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if fcntl is not None:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(busy) from None
            except OSError as error:
                # no reason to refuse a file system: some cannot lock
                print(f"{path} cannot be locked ({error.strerror}): start no second run there", file=sys.stderr)
        yield
    finally:
        os.close(handle)


def refuse_foreign(folder: Path, names: Sequence[str], ours: str, overwrite: bool) -> None:
    """Raise UserError where one of the files or folders that are to be written is there, but not the file `ours`, which
    says that this program made them; unless `overwrite`."""
    found = [name for name in names if (folder / name).exists()]
    if found and not overwrite and not (folder / ours).exists():
        raise UserError(f"{folder} holds {found[0]}, which would be replaced; give another --output, or --overwrite")


def make_folder(path: Path, flag: str) -> None:
    """Make a folder with its parents; one that is there is left alone.

    Raises:
        UserError: where that cannot be done; it names `flag`, the one to change.
    """
    try:
        if path.exists() and not path.is_dir():
            raise UserError(f"{path} is a file, not a folder; give another {flag}")
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {path}: {error.strerror}; give another {flag}") from None


def numbered(folder: str | Path, stem: str, ending: str) -> List[Path]:
    """The files STEM_NUMBER.ENDING in `folder`, by number."""
    found = [path for path in Path(folder).glob(f"{stem}_*.{ending}") if re.fullmatch(stem + "_[0-9]+", path.stem)]
    return sorted(found, key=number)


def number(path: Path) -> int:
    """NUMBER of a file STEM_NUMBER.ENDING."""
    return int(path.stem.rpartition("_")[2])


def keep_last(folder: str | Path, stem: str, ending: str, count: int) -> None:
    """Delete all but the last `count` of the files STEM_NUMBER.ENDING in `folder`."""
    for path in numbered(folder, stem, ending)[:-count]:
        path.unlink()
