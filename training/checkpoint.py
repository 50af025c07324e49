# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: the whole state of a training run, in one file that is whole or absent.

`checkpoint_NNNNNN.npz` holds arrays by name and, as bytes of JSON text, everything else. It is a zip file with
checksums, and is read without executing anything, and into no more memory than the file has bytes.
"""

from __future__ import annotations

import io
import json
import math
import re
import struct
import sys
import tokenize
import zipfile
from pathlib import Path
from typing import Any, Dict, List, Tuple

import numpy as np

from common import files
from common.errors import UserError, printable
from common.files import numbered_files

Arrays = Dict[str, np.ndarray]
State = Dict[str, Any]

KEPT = 3  # checkpoints in a run's folder, and models beside them
# the errors of zipfile, NumPy and JSON on bytes that make no sense
_DAMAGED = (
    OSError,
    EOFError,
    zipfile.BadZipFile,
    ValueError,
    TypeError,
    LookupError,
    SyntaxError,
    RuntimeError,
    ArithmeticError,
    MemoryError,
    struct.error,
    tokenize.TokenError,
)


def save(folder: str | Path, iteration: int, arrays: Arrays, state: State) -> Path:
    """Write the checkpoint of `iteration` into `folder`. Returns its path."""
    path = Path(folder) / f"checkpoint_{iteration:06d}.npz"
    with files.replacing(path) as part:
        _write(part, arrays, state)
    return path


def dumps(arrays: Arrays, state: State) -> bytes:
    """The bytes that `save` would write, for another process to put into its checkpoint."""
    file = io.BytesIO()
    _write(file, arrays, state)
    return file.getvalue()


def find(folder: str | Path) -> List[Path]:
    """The checkpoints in `folder`, oldest first."""
    return numbered_files(folder, "checkpoint", "npz")


def load(path: str | Path) -> Tuple[Arrays, State]:
    """Read a checkpoint: its arrays by name, and its plain values.

    Raises:
        UserError: where it is damaged, or is not a file of `save`.
    """
    try:
        return _read(path, Path(path).stat().st_size)
    except _DAMAGED as error:
        raise UserError(f"{path} is damaged ({_cause(error)})") from None


def loads(data: bytes) -> Tuple[Arrays, State]:
    """Read the bytes of `dumps`.

    Raises:
        ValueError: where they are something else.
    """
    try:
        return _read(io.BytesIO(data), len(data))
    except _DAMAGED as error:
        raise ValueError(_cause(error)) from None


def load_newest(folder: str | Path) -> Tuple[Path, Arrays, State]:
    """Read the newest checkpoint that is whole, with its path; damaged ones are named on standard error.

    Raises:
        UserError: where there are checkpoints, but no whole one.
    """
    for path in reversed(find(folder)):
        try:
            return (path, *load(path))
        except UserError as error:
            print(f"{error}; using the one before it", file=sys.stderr)
    raise UserError(f"no checkpoint in {folder} is whole; restore one, or start again in another --monitor-path")


def _write(file: str | Path | io.BytesIO, arrays: Arrays, state: State) -> None:
    text = np.frombuffer(json.dumps(state).encode("utf-8"), np.uint8)
    members = {"state": text, **{f"arrays/{name}": array for name, array in arrays.items()}}
    # as np.savez does, which leaves an open archive behind where the disk is full: Python then prints a traceback
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in members.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _read(file: str | Path | io.BytesIO, size: int) -> Tuple[Arrays, State]:
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        # a member that is compressed, or listed several times, could expand to more than the file has
        stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
        if not stored or sum(member.file_size for member in members) > size:
            raise ValueError("it is compressed")
        members_by_name = {member.filename: _array(archive, member) for member in members}
    state = json.loads(members_by_name.pop("state.npy").tobytes())
    names = {name: re.fullmatch(r"arrays/(.+)\.npy", name) for name in members_by_name}
    if type(state) is not dict or not all(names.values()):
        raise ValueError("it is not a checkpoint")
    return {names[name][1]: array for name, array in members_by_name.items()}, state


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """One array of the archive, read-only. Its checksum is verified."""
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran_order, dtype = header(file)
        if dtype.hasobject:
            raise ValueError(f"{member.filename} holds objects")
        data = file.read()
        if len(data) != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{member.filename} is not as long as it says")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran_order else "C")


def _cause(error: BaseException) -> str:
    return printable(" ".join(str(error).split()))[:200] or type(error).__name__
