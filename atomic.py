# SPDX-License-Identifier: Apache-2.0
"""Write files so that each is whole or absent: under another name first, then renamed; and make their folders."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from errors import UserError


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
    finally:
        part.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def make_folder(path: Path, flag: str) -> None:
    """Make a folder with its parents; one that is there is left alone.

    Raises:
        UserError: where that cannot be done; it names `flag`, the one to change.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {path}: {error.strerror}; give another {flag}") from None
