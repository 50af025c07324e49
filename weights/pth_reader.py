# SPDX-License-Identifier: Apache-2.0
"""Read a PyTorch state dict (.pth) with NumPy alone, and without running anything that is in it:

    from weights.pth_reader import read_state_dict
    arrays = read_state_dict("latest_net_G_A.pth")      # {"encoder_img.1.weight": array of (64, 3, 7, 7), ...}

A .pth file is a pickle, that is a program for a small stack machine, which may name any function of Python and have
it called. The machine here knows only the operations that build dictionaries, tuples and lists, and the few names
that describe a tensor. Those names become inert descriptions; the numbers are read afterwards, each length compared
with what the file holds before memory is taken for it. Both formats are read: the one of torch.save before 1.6
(pickles, then raw data) and the zip archive since.
"""

from __future__ import annotations

import io
import math
import os
import pickletools
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Callable, Dict, List, Tuple

import numpy as np

from common.errors import UserError

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001

# The pickle of a generator has 20 kB. Objects take up to a hundred times their pickled size, hence a limit.
_MAX_PICKLE_BYTES = 1 << 19
# The longest piece taken from an archive at once; also bounds its directory, which `zipfile` reads in one piece.
_MAX_PIECE = 1 << 22

_DTYPES = {
    "torch.FloatStorage": "f4",
    "torch.DoubleStorage": "f8",
    "torch.HalfStorage": "f2",
    "torch.LongStorage": "i8",
    "torch.IntStorage": "i4",
    "torch.ShortStorage": "i2",
    "torch.CharStorage": "i1",
    "torch.ByteStorage": "u1",
    "torch.BoolStorage": "?",
}


def read_state_dict(path: str | Path) -> Dict[str, np.ndarray]:
    """Read the tensors of a state dict: name to array, in the file's order, shapes and types as they were saved.

    Where every name starts with `module.`, as `DataParallel` saves them, that prefix is taken off.

    Raises:
        UserError: where the file is missing, damaged, not a state dict, or contains anything but tensors. Nothing
            that the file asks for is run, and no more memory is taken than a few times the file's size.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise _Unreadable("is not there or is not a file; give a .pth file")
        with path.open("rb") as file:
            return _without_module_prefix(_read(file))
    except _Unreadable as error:
        raise UserError(f"{path}: {error}") from None
    except PermissionError:
        raise UserError(f"{path}: may not be read; give yourself the right to (chmod u+r)") from None
    # what zipfile, pickletools and NumPy raise on bytes that make no sense
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, ValueError, LookupError, ArithmeticError) as error:
        raise UserError(f"{path}: {_damaged(str(error))}") from None
    except (TypeError, struct.error, MemoryError) as error:
        raise UserError(f"{path}: {_damaged(str(error))}") from None


class _Unreadable(Exception):
    """Why a file is not read, to be told behind its name."""


@dataclass(frozen=True)
class _Name:
    """A function or class that the pickle names: only the name."""

    full: str


@dataclass(frozen=True)
class _Storage:
    """A run of `count` numbers of one type somewhere in the file."""

    key: str
    dtype: str
    count: int

    @property
    def nbytes(self) -> int:
        return self.count * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class _Tensor:
    """A view of a storage; offset and strides count numbers, not bytes."""

    storage: _Storage
    offset: int
    size: Tuple[int, ...]
    stride: Tuple[int, ...]


class _Machine:
    """Runs pickles of state dicts. Nothing in them is called: every value is plain data or one of the above."""

    def __init__(self) -> None:
        self.storages: Dict[str, _Storage] = {}

    def run(self, stream: io.BytesIO) -> Any:
        """The value of the pickle at the stream's position, which is left just behind the pickle."""
        self._stack: List[Any] = []
        self._outer: List[List[Any]] = []
        self._memo: Dict[int, Any] = {}
        for operation, argument, _ in pickletools.genops(stream):
            name = operation.name
            if name == "STOP":
                return self._stack.pop()
            if name in _CONSTANTS:
                self._stack.append(_CONSTANTS[name]())
            elif name in _LITERALS:
                self._stack.append(argument)
            elif name in _OPERATIONS:
                _OPERATIONS[name](self, argument)
            elif name not in ("PROTO", "FRAME"):
                raise _refused(f"uses the pickle operation {name}")
        raise _Unreadable(_damaged("the pickle has no end"))

    def _since_mark(self) -> List[Any]:
        items, self._stack = self._stack, self._outer.pop()
        return items

    def _mark(self, _: Any) -> None:
        self._outer.append(self._stack)
        self._stack = []

    def _remember(self, index: int | None) -> None:
        self._memo[len(self._memo) if index is None else index] = self._stack[-1]

    def _recall(self, index: int) -> None:
        self._stack.append(self._memo[index])

    def _tuple(self, length: int) -> None:
        start = len(self._stack) - length
        if start < 0:
            raise _Unreadable(_damaged("the pickle takes more than is there"))
        self._stack[start:] = [tuple(self._stack[start:])]

    def _tuple_since_mark(self, _: Any) -> None:
        items = tuple(self._since_mark())
        self._stack.append(items)

    def _append(self, _: Any) -> None:
        item = self._stack.pop()
        self._extend([item])

    def _append_since_mark(self, _: Any) -> None:
        self._extend(self._since_mark())

    def _extend(self, items: List[Any]) -> None:
        _expect(self._stack[-1], list)
        self._stack[-1].extend(items)

    def _set_item(self, _: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._update([key, value])

    def _set_items_since_mark(self, _: Any) -> None:
        self._update(self._since_mark())

    def _update(self, items: List[Any]) -> None:
        _expect(self._stack[-1], dict)
        for key, value in zip(items[::2], items[1::2]):
            # a key is hashed: nested tuples, for one, could exhaust the C stack
            if type(key) not in (str, int):
                raise _refused("has a dictionary whose keys are not names")
            self._stack[-1][key] = value

    def _global(self, argument: str) -> None:
        self._push_name(argument.replace(" ", "."))

    def _stack_global(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        _expect(name, str)
        _expect(module, str)
        self._push_name(f"{module}.{name}")

    def _push_name(self, full: str) -> None:
        if full.startswith("torch.") and full.endswith("Storage") and full not in _DTYPES:
            raise _refused(f"has data of the type {_shown(full)}")
        if full not in _DTYPES and full not in _BUILDERS:
            raise _refused(f"wants to run {_shown(full)}")
        self._stack.append(_Name(full))

    def _reduce(self, _: Any) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        _expect(function, _Name)
        _expect(arguments, tuple)
        if function.full not in _BUILDERS:
            raise _refused(f"wants to run {function.full}")
        self._stack.append(_BUILDERS[function.full](*arguments))

    def _build(self, _: Any) -> None:
        # the attributes of a state dict (`_metadata`, the versions of its layers) say nothing about its tensors
        self._stack.pop()
        _expect(self._stack[-1], dict)

    def _persistent(self, _: Any) -> None:
        reference = self._stack.pop()
        _expect(reference, tuple)
        # (mark, type, key, device, length) and, in the old format, what it is a part of
        if len(reference) not in (5, 6) or reference[0] != "storage":
            raise _Unreadable(_damaged("a reference to data that is none"))
        kind, key, count = reference[1], reference[2], reference[4]
        _expect(kind, _Name)
        _expect(key, str)
        if kind.full not in _DTYPES:
            raise _refused(f"has data of the type {kind.full}")
        if reference[5:] not in ((), (None,)):
            raise _refused("has data that is a part of other data")
        storage = _Storage(key, _DTYPES[kind.full], _whole(count))
        if self.storages.setdefault(key, storage) != storage:
            raise _Unreadable(_damaged(f"two descriptions of the data {_shown(key)}"))
        self._stack.append(storage)


_CONSTANTS: Dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    # the display, because dict() takes room for eight entries in Python 3.8
    "EMPTY_DICT": lambda: {},
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}
# BINSTRING and SHORT_BINSTRING are what Python 2 writes
_LITERALS = frozenset(
    "BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE SHORT_BINUNICODE BINSTRING SHORT_BINSTRING".split()
)
_OPERATIONS: Dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine._mark,
    "BINPUT": _Machine._remember,
    "LONG_BINPUT": _Machine._remember,
    "MEMOIZE": _Machine._remember,
    "BINGET": _Machine._recall,
    "LONG_BINGET": _Machine._recall,
    "TUPLE": _Machine._tuple_since_mark,
    "TUPLE1": lambda machine, _: machine._tuple(1),
    "TUPLE2": lambda machine, _: machine._tuple(2),
    "TUPLE3": lambda machine, _: machine._tuple(3),
    "APPEND": _Machine._append,
    "APPENDS": _Machine._append_since_mark,
    "SETITEM": _Machine._set_item,
    "SETITEMS": _Machine._set_items_since_mark,
    "GLOBAL": _Machine._global,
    "INST": _Machine._global,
    "STACK_GLOBAL": _Machine._stack_global,
    "REDUCE": _Machine._reduce,
    "BUILD": _Machine._build,
    "BINPERSID": _Machine._persistent,
}


def _ordered_dict(pairs: Any = ()) -> Dict[str, Any]:
    """An OrderedDict, which Python 3 pickles empty and Python 2 as a list of [key, value]."""
    if any(type(pair) is not list or len(pair) != 2 or type(pair[0]) is not str for pair in pairs):
        raise _Unreadable(_damaged("a dictionary that is none"))
    return dict(pairs)


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> _Tensor:
    """A tensor, once it is certain that all of it lies inside its storage. `rest` has no bearing on its numbers."""
    _expect(storage, _Storage)
    _expect(size, tuple)
    _expect(stride, tuple)
    if len(size) != len(stride) or len(size) > 8 or (len(rest) > 2 and rest[2]):
        raise _Unreadable(_damaged("a tensor of a kind that state dicts do not have"))
    numbers, last = 1, _whole(offset)
    for length, step in zip(size, stride):
        if _whole(length) == 0:
            raise _Unreadable("holds an empty tensor, which no network has; give the state dict of a network")
        numbers *= length
        last += (length - 1) * _whole(step)
    if last >= storage.count or numbers > storage.count:
        raise _Unreadable(_damaged("a tensor reaches outside its data"))
    return _Tensor(storage, offset, size, stride)


def _parameter(data: Any, *_: Any) -> _Tensor:
    _expect(data, _Tensor)
    return data


_BUILDERS: Dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
}


def _expect(value: Any, kind: type) -> None:
    if type(value) is not kind:
        raise _Unreadable(_damaged(f"{type(value).__name__} where {kind.__name__} belongs"))


def _whole(value: Any) -> int:
    """`value`, if it is an integer from 0 up."""
    _expect(value, int)
    if value < 0:
        raise _Unreadable(_damaged("a negative length or position"))
    return value


def _shown(text: str) -> str:
    """Text out of a file, fit for one line of a terminal."""
    return ascii(text)[1:-1][:80]


def _refused(what: str) -> _Unreadable:
    return _Unreadable(
        f"refused: the file {what}, unlike any state dict of such a network; only tensors are read; "
        "give a file written by torch.save(network.state_dict(), path)"
    )


def _damaged(cause: str) -> str:
    return f"damaged or cut short ({_shown(cause)}); copy or download it again"


def _read(file: BinaryIO) -> Dict[str, np.ndarray]:
    size = os.fstat(file.fileno()).st_size
    start = file.read(4)
    file.seek(0)
    if start == b"PK\x03\x04":
        return _read_archive(file, size)
    # every pickle of protocol 2 and newer starts with this byte; a saved web page, for one, does not
    if start[:1] != b"\x80":
        what = f"starts with {start!r}" if start else "is empty"
        raise _Unreadable(f"is not a PyTorch file (it {what}); give one that torch.save wrote")
    return _read_legacy(file, size)


def _read_legacy(file: BinaryIO, size: int) -> Dict[str, np.ndarray]:
    """Five pickles (magic number, version, system, state dict, order of the storages), then the storages."""
    stream, machine = io.BytesIO(file.read(_MAX_PICKLE_BYTES)), _Machine()
    magic = machine.run(stream)
    if type(magic) is not int or magic != _LEGACY_MAGIC:
        raise _Unreadable("is a pickle, but not one of torch.save; give a state dict that PyTorch wrote")
    if machine.run(stream) != _LEGACY_PROTOCOL:
        raise _Unreadable(f"is of a version of PyTorch's old format that is not known (not {_LEGACY_PROTOCOL})")
    machine.run(stream)
    state, keys = machine.run(stream), machine.run(stream)
    _expect(keys, list)
    position, data = stream.tell(), {}
    for key in keys:
        _expect(key, str)
        if key not in machine.storages or key in data:
            raise _Unreadable(_damaged(f"data {_shown(key)} that no tensor has, or twice"))
        storage = machine.storages[key]
        file.seek(position)
        count = file.read(8)
        if count != struct.pack("<q", storage.count) or storage.nbytes > size - position - 8:
            raise _Unreadable(_damaged(f"data {_shown(key)} is not as long as it should be"))
        # little-endian on every machine, whatever the third pickle says
        data[key] = np.frombuffer(file.read(storage.nbytes), "<" + storage.dtype)
        position += 8 + storage.nbytes
    return _arrays(state, data, size)


def _read_archive(file: BinaryIO, size: int) -> Dict[str, np.ndarray]:
    """A zip archive: NAME/data.pkl, NAME/data/KEY for each storage, and perhaps NAME/byteorder."""
    with zipfile.ZipFile(_PieceByPiece(file)) as archive:  # type: ignore[arg-type]
        members = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in members if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise _Unreadable("is a zip archive without one data.pkl, so not of torch.save; give a .pth file")
        folder = pickles[0][: -len("data.pkl")]
        machine = _Machine()
        state = machine.run(io.BytesIO(_member(archive, members[pickles[0]], _MAX_PICKLE_BYTES)))
        order = "<"
        if folder + "byteorder" in members:
            order = ">" if bytes(_member(archive, members[folder + "byteorder"], 16)) == b"big" else "<"
        if sum(storage.nbytes for storage in machine.storages.values()) > size:
            raise _Unreadable(_damaged("its tensors are larger than the file"))
        data = {}
        for key, storage in machine.storages.items():
            info = members.get(f"{folder}data/{key}")
            if info is None or info.file_size != storage.nbytes:
                raise _Unreadable(_damaged(f"data {_shown(key)} is not there or not as long as it should be"))
            data[key] = np.frombuffer(_member(archive, info, size), order + storage.dtype)
    return _arrays(state, data, size)


class _PieceByPiece:
    """A file from which no more than `_MAX_PIECE` bytes can be read at once."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, count: int = -1) -> bytes:
        """As a file's `read`."""
        if count > _MAX_PIECE:
            raise _Unreadable(_damaged("the archive's directory is too large"))
        return self._file.read(_MAX_PIECE if count < 0 else count)


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, limit: int) -> bytearray:
    """One file of the archive, of at most `limit` bytes; its checksum is verified."""
    if info.compress_type != zipfile.ZIP_STORED:
        # a compressed file may expand a thousandfold
        raise _refused(f"has the compressed part {_shown(info.filename)}")
    if info.file_size > limit:
        raise _Unreadable(_damaged(f"{_shown(info.filename)} is larger than it can be"))
    buffer = bytearray(info.file_size)
    with archive.open(info) as member:
        for start in range(0, len(buffer), _MAX_PIECE):
            piece = member.read(min(_MAX_PIECE, len(buffer) - start))
            buffer[start : start + len(piece)] = piece
        # reading on at the end is what makes zipfile compare the checksum
        if member.read(1) or len(buffer) != info.file_size:
            raise _Unreadable(_damaged(f"{_shown(info.filename)} is not as long as it should be"))
    return buffer


def _arrays(state: Any, data: Dict[str, np.ndarray], limit: int) -> Dict[str, np.ndarray]:
    """The tensors of `state` as arrays of their own, of at most `limit` bytes together."""
    if type(state) is not dict:
        raise _Unreadable("holds no state dict; save one with torch.save(network.state_dict(), path)")
    arrays, total = {}, 0
    for name, tensor in state.items():
        if type(name) is not str or type(tensor) is not _Tensor:
            raise _Unreadable(
                f"is no state dict: its entry {_shown(str(name))} is no tensor; "
                "save one with torch.save(network.state_dict(), path)"
            )
        if tensor.storage.key not in data:
            raise _Unreadable(_damaged(f"the data of {_shown(name)} is missing"))
        total += math.prod(tensor.size) * np.dtype(tensor.storage.dtype).itemsize
        # tensors may share data, and a small file could so become a huge dictionary
        if total > limit:
            raise _Unreadable(_damaged("its tensors are larger than the file"))
        arrays[name] = _array(tensor, data[tensor.storage.key])
    return arrays


def _array(tensor: _Tensor, numbers: np.ndarray) -> np.ndarray:
    # a dimension of length 1 may have any stride, also one that NumPy cannot express
    strides = [step * numbers.itemsize if n > 1 else 0 for n, step in zip(tensor.size, tensor.stride)]
    view = np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.size, strides, writeable=False)
    return np.array(view, numbers.dtype.newbyteorder("="), order="C")


def _without_module_prefix(arrays: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
    prefix = "module."
    if all(name.startswith(prefix) for name in arrays):
        return {name[len(prefix) :]: array for name, array in arrays.items()}
    return arrays
