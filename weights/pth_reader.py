# SPDX-License-Identifier: Apache-2.0
"""Read a PyTorch state dict (.pth) with NumPy alone, without running any code in it:

    from weights.pth_reader import read_state_dict
    arrays = read_state_dict("latest_net_G_A.pth")      # {"encoder_img.1.weight": array of (64, 3, 7, 7), ...}

A .pth file is a pickle (pickle_machine.py), which describes tensors, with their numbers behind it. Before memory is
allocated for them, each length is checked against the size of the file. Both formats of torch.save are read: pickles
followed by raw data (before PyTorch 1.6), and zip archives.
"""

from __future__ import annotations

import io
import math
import os
import struct
import zipfile
from pathlib import Path
from typing import Any, BinaryIO, Dict

import numpy as np

from common.errors import UserError
from weights.pickle_machine import Machine, Tensor, Unreadable, damaged, excerpt, expect, refused

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001

# A generator's pickle has 20 kB. The limit is needed because objects can take a hundred times their pickled size.
_MAX_PICKLE_BYTES = 1 << 19
# The most bytes read from an archive at once; it also limits the archive's directory, which `zipfile` reads at once.
_MAX_READ_BYTES = 1 << 22

def read_state_dict(path: str | Path) -> Dict[str, np.ndarray]:
    """Read the tensors of a state dict: arrays by name, in the file's order, with their saved shapes and types.

    If every name starts with `module.`, as `DataParallel` saves them, this prefix is removed. No code of the file is
    run, and memory is limited to a few times the file's size.

    Raises:
        UserError: where the file is missing, damaged, not a state dict, or contains anything but tensors.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise Unreadable("is missing or is not a file; give a .pth file")
        with path.open("rb") as file:
            return _without_module_prefix(_read(file))
    except Unreadable as error:
        raise UserError(f"{path}: {error}") from None
    except PermissionError:
        raise UserError(f"{path}: there is no permission to read it; add that (chmod u+r)") from None
    # errors of zipfile, pickletools and NumPy on damaged files
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, ValueError, LookupError, ArithmeticError) as error:
        raise UserError(f"{path}: {damaged(str(error))}") from None
    except (TypeError, struct.error, MemoryError) as error:
        raise UserError(f"{path}: {damaged(str(error))}") from None


def _read(file: BinaryIO) -> Dict[str, np.ndarray]:
    size = os.fstat(file.fileno()).st_size
    start = file.read(4)
    file.seek(0)
    if start == b"PK\x03\x04":
        return _read_archive(file, size)
    # every pickle of protocol 2 and newer starts with this byte; a saved web page, for example, does not
    if start[:1] != b"\x80":
        content = f"starts with {start!r}" if start else "is empty"
        raise Unreadable(f"is not a PyTorch file (it {content}); give one that torch.save wrote")
    return _read_legacy(file, size)


def _read_legacy(file: BinaryIO, size: int) -> Dict[str, np.ndarray]:
    """Read five pickles (magic number, version, system, state dict, order of the storages), then the storages."""
    stream = io.BytesIO(file.read(_MAX_PICKLE_BYTES))
    machine = Machine()
    magic = machine.run(stream)
    if type(magic) is not int or magic != _LEGACY_MAGIC:
        raise Unreadable("is a pickle, but not one of torch.save; give a state dict that PyTorch wrote")
    if machine.run(stream) != _LEGACY_PROTOCOL:
        raise Unreadable(f"is of an unknown version of PyTorch's old format (not {_LEGACY_PROTOCOL})")
    machine.run(stream)
    state = machine.run(stream)
    keys = machine.run(stream)
    expect(keys, list)
    position = stream.tell()
    data: Dict[str, np.ndarray] = {}
    for key in keys:
        expect(key, str)
        if key not in machine.storages or key in data:
            raise Unreadable(damaged(f"data {excerpt(key)} that no tensor has, or twice"))
        storage = machine.storages[key]
        file.seek(position)
        count = file.read(8)
        if count != struct.pack("<q", storage.count) or storage.nbytes > size - position - 8:
            raise Unreadable(damaged(f"data {excerpt(key)} is not as long as it should be"))
        # little-endian on every machine, whatever the third pickle says
        data[key] = np.frombuffer(file.read(storage.nbytes), "<" + storage.dtype)
        position += 8 + storage.nbytes
    return _arrays(state, data, size)


def _read_archive(file: BinaryIO, size: int) -> Dict[str, np.ndarray]:
    """Read a zip archive of NAME/data.pkl, NAME/data/KEY for each storage, and perhaps NAME/byteorder."""
    with zipfile.ZipFile(_PieceByPiece(file)) as archive:  # type: ignore[arg-type]
        members = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in members if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise Unreadable("is a zip archive without one data.pkl, so not of torch.save; give a .pth file")
        folder = pickles[0][: -len("data.pkl")]
        machine = Machine()
        state = machine.run(io.BytesIO(_member(archive, members[pickles[0]], _MAX_PICKLE_BYTES)))
        order = "<"
        if folder + "byteorder" in members:
            order = ">" if bytes(_member(archive, members[folder + "byteorder"], 16)) == b"big" else "<"
        if sum(storage.nbytes for storage in machine.storages.values()) > size:
            raise Unreadable(damaged("its tensors are larger than the file"))
        data = {}
        for key, storage in machine.storages.items():
            info = members.get(f"{folder}data/{key}")
            if info is None or info.file_size != storage.nbytes:
                raise Unreadable(damaged(f"data {excerpt(key)} is missing or not as long as it should be"))
            data[key] = np.frombuffer(_member(archive, info, size), order + storage.dtype)
    return _arrays(state, data, size)


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, limit: int) -> bytearray:
    """Read one file of the archive, of at most `limit` bytes, and verify its checksum."""
    if info.compress_type != zipfile.ZIP_STORED:
        # a compressed file may expand a thousandfold
        raise refused(f"has the compressed part {excerpt(info.filename)}")
    if info.file_size > limit:
        raise Unreadable(damaged(f"{excerpt(info.filename)} is larger than it can be"))
    buffer = bytearray(info.file_size)
    with archive.open(info) as member:
        for start in range(0, len(buffer), _MAX_READ_BYTES):
            piece = member.read(min(_MAX_READ_BYTES, len(buffer) - start))
            buffer[start : start + len(piece)] = piece
        # zipfile compares the checksum only when one reads on at the end
        if member.read(1) or len(buffer) != info.file_size:
            raise Unreadable(damaged(f"{excerpt(info.filename)} is not as long as it should be"))
    return buffer


class _PieceByPiece:
    """A file of which at most `_MAX_READ_BYTES` can be read at once."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek = file.seek
        self.tell = file.tell
        self.seekable = file.seekable

    def read(self, count: int = -1) -> bytes:
        """Read like a file."""
        if count > _MAX_READ_BYTES:
            raise Unreadable(damaged("the archive's directory is too large"))
        return self._file.read(_MAX_READ_BYTES if count < 0 else count)


def _arrays(state: Any, data: Dict[str, np.ndarray], limit: int) -> Dict[str, np.ndarray]:
    """Copy the tensors of `state` into arrays, of at most `limit` bytes together."""
    if type(state) is not dict:
        raise Unreadable("holds no state dict; save one with torch.save(network.state_dict(), path)")
    arrays = {}
    total = 0
    for name, tensor in state.items():
        if type(name) is not str or type(tensor) is not Tensor:
            raise Unreadable(
                f"is not a state dict: its entry {excerpt(str(name))} is not a tensor; "
                "save one with torch.save(network.state_dict(), path)"
            )
        if tensor.storage.key not in data:
            raise Unreadable(damaged(f"the data of {excerpt(name)} is missing"))
        total += math.prod(tensor.size) * np.dtype(tensor.storage.dtype).itemsize
        # tensors can share data, so that a small file could become a huge dictionary
        if total > limit:
            raise Unreadable(damaged("its tensors are larger than the file"))
        arrays[name] = _array(tensor, data[tensor.storage.key])
    return arrays


def _array(tensor: Tensor, numbers: np.ndarray) -> np.ndarray:
    # a dimension of length 1 can have any stride, even one that NumPy cannot express
    strides = [step * numbers.itemsize if n > 1 else 0 for n, step in zip(tensor.size, tensor.stride)]
    view = np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.size, strides, writeable=False)
    return np.array(view, numbers.dtype.newbyteorder("="), order="C")


def _without_module_prefix(arrays: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
    prefix = "module."
    if all(name.startswith(prefix) for name in arrays):
        return {name[len(prefix) :]: array for name, array in arrays.items()}
    return arrays
