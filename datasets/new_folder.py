# SPDX-License-Identifier: Apache-2.0
"""Make a folder that exists whole or not at all.

    with new_folder("datasets/circle2square", overwrite=False) as folder:
        ...  # write into `folder`; it gets its final name when this block succeeds
"""

from __future__ import annotations

import re
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from common import files
from common.errors import UserError

PART_OF_A_DATA_SET = re.compile(r"\w+[AB](_seg)?(\.json)?")


@contextmanager
def new_folder(target: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """Build the data set folder `target` in a hidden sibling, `.NAME.part`, and rename it when the block succeeds.

    If the block raises, Ctrl-C included, `target` stays as it was and the sibling is removed. A killed run leaves its
    sibling, which the next run removes. With `overwrite` an old data set is replaced, once the new one is whole.

    Yields:
        the folder to write into, which is empty.

    Raises:
        UserError: if `target` is a file, or holds something that may not be replaced, if another run is making it, or
            if the block or the renaming raises OSError.
    """
    final = Path(target).resolve()
    part = _sibling(final, "part")
    try:
        part.mkdir(parents=True, exist_ok=True)
        with files.locked(part, f"another run is writing {part}; wait for it or choose another --save_root"):
            try:
                _recover(final)
                _check_free(final, target, overwrite)
                _clear(part)
                yield part
                _put_in_place(part, final, target, overwrite)
            except BaseException:
                shutil.rmtree(part, ignore_errors=True)
                raise
    except OSError as error:
        raise UserError(f"{target} was not made: {error}; fix that or choose another --save_root") from error


def _sibling(final: Path, suffix: str) -> Path:
    if not final.name:
        raise UserError(f"{final} cannot be a data set folder; choose another --save_root")
    return final.with_name(f".{final.name}.{suffix}")


def _recover(final: Path) -> None:
    """Finish what a run killed in the middle of `_put_in_place` left undone."""
    old = _sibling(final, "old")
    if old.exists() and final.exists():
        shutil.rmtree(old)
    elif old.exists():
        old.rename(final)


def _check_free(final: Path, target: str | Path, overwrite: bool) -> None:
    if final.exists() and not final.is_dir():
        raise UserError(f"{target} is a file; choose another --save_root")
    entries = sorted(entry.name for entry in final.iterdir()) if final.exists() else []
    if entries and not overwrite:
        raise UserError(f"{target} exists; replace it with --overwrite or choose another --save_root")
    # --overwrite with a mistyped path must not delete a folder of something else
    for name in entries:
        if not PART_OF_A_DATA_SET.fullmatch(name):
            raise UserError(
                f"{target} holds {name!r}, which is not part of a data set and --overwrite would delete; "
                "move it away or choose another --save_root"
            )


def _clear(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _put_in_place(part: Path, final: Path, target: str | Path, overwrite: bool) -> None:
    _check_free(final, target, overwrite)  # again: it may have been made in the meantime
    old = _sibling(final, "old")
    if final.exists():
        final.rename(old)
    try:
        part.rename(final)
    except BaseException:
        if old.exists():
            old.rename(final)
        raise
    shutil.rmtree(old, ignore_errors=True)
