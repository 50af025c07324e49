# SPDX-License-Identifier: Apache-2.0
"""Run the pickle of a PyTorch state dict without running any code that it names.

A pickle is a program for a small stack machine, which can name any function of Python and call it. The machine here has
only the operations that build dictionaries, tuples and lists, and knows only the few names that describe a tensor;
these become inert descriptions.
"""

from __future__ import annotations

import io
import pickletools
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Tuple

import numpy as np

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


class Unreadable(Exception):
    """The reason why a file is refused; the message continues its name."""


@dataclass(frozen=True)
class _Name:
    """The name of a function or class that a pickle refers to; the object itself is never looked up."""

    full: str


@dataclass(frozen=True)
class Storage:
    """An array of `count` numbers of one type somewhere in the file."""

    key: str
    dtype: str
    count: int

    @property
    def nbytes(self) -> int:
        """The length of the numbers in bytes."""
        return self.count * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Tensor:
    """A view of a storage; offset and strides count numbers, not bytes."""

    storage: Storage
    offset: int
    size: Tuple[int, ...]
    stride: Tuple[int, ...]


class Machine:
    """Runs pickles of state dicts; it calls nothing that they name. Values are plain data or of the classes above."""

    def __init__(self) -> None:
        self.storages: Dict[str, Storage] = {}

    def run(self, stream: io.BytesIO) -> Any:
        """Return the value of the pickle at the stream's position, and leave the position just behind the pickle."""
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
                raise refused(f"uses the pickle operation {name}")
        raise Unreadable(damaged("the pickle has no end"))

    def _since_mark(self) -> List[Any]:
        items = self._stack
        self._stack = self._outer.pop()
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
            raise Unreadable(damaged("the pickle takes more values than there are"))
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
        expect(self._stack[-1], list)
        self._stack[-1].extend(items)

    def _set_item(self, _: Any) -> None:
        value = self._stack.pop()
        key = self._stack.pop()
        self._update([key, value])

    def _set_items_since_mark(self, _: Any) -> None:
        self._update(self._since_mark())

    def _update(self, items: List[Any]) -> None:
        expect(self._stack[-1], dict)
        for key, value in zip(items[::2], items[1::2]):
            # hashing other keys, such as deeply nested tuples, could exhaust the C stack
            if type(key) not in (str, int):
                raise refused("has a dictionary whose keys are not names")
            self._stack[-1][key] = value

    def _global(self, argument: str) -> None:
        self._push_name(argument.replace(" ", "."))

    def _stack_global(self, _: Any) -> None:
        name = self._stack.pop()
        module = self._stack.pop()
        expect(name, str)
        expect(module, str)
        self._push_name(f"{module}.{name}")

    def _push_name(self, full: str) -> None:
        if full.startswith("torch.") and full.endswith("Storage") and full not in _DTYPES:
            raise refused(f"has data of the type {excerpt(full)}")
        if full not in _DTYPES and full not in _BUILDERS:
            raise refused(f"wants to run {excerpt(full)}")
        self._stack.append(_Name(full))

    def _reduce(self, _: Any) -> None:
        arguments = self._stack.pop()
        function = self._stack.pop()
        expect(function, _Name)
        expect(arguments, tuple)
        if function.full not in _BUILDERS:
            raise refused(f"wants to run {function.full}")
        self._stack.append(_BUILDERS[function.full](*arguments))

    def _build(self, _: Any) -> None:
        # the attributes of a state dict (`_metadata`, the versions of its layers) say nothing about its tensors
        self._stack.pop()
        expect(self._stack[-1], dict)

    def _persistent(self, _: Any) -> None:
        reference = self._stack.pop()
        expect(reference, tuple)
        # (mark, type, key, device, length) and, in the old format, what it is a part of
        if len(reference) not in (5, 6) or reference[0] != "storage":
            raise Unreadable(damaged("a damaged reference to data"))
        kind, key, _, count = reference[1:5]
        expect(kind, _Name)
        expect(key, str)
        if kind.full not in _DTYPES:
            raise refused(f"has data of the type {kind.full}")
        if reference[5:] not in ((), (None,)):
            raise refused("has data that is part of other data")
        storage = Storage(key, _DTYPES[kind.full], _whole(count))
        if self.storages.setdefault(key, storage) != storage:
            raise Unreadable(damaged(f"two descriptions of the data {excerpt(key)}"))
        self._stack.append(storage)


_CONSTANTS: Dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    # not dict, which allocates eight entries in Python 3.8
    "EMPTY_DICT": lambda: {},
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}
# Python 2 writes BINSTRING and SHORT_BINSTRING
_LITERALS = frozenset(
    "BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE SHORT_BINUNICODE BINSTRING SHORT_BINSTRING".split()
)
_OPERATIONS: Dict[str, Callable[[Machine, Any], None]] = {
    "MARK": Machine._mark,
    "BINPUT": Machine._remember,
    "LONG_BINPUT": Machine._remember,
    "MEMOIZE": Machine._remember,
    "BINGET": Machine._recall,
    "LONG_BINGET": Machine._recall,
    "TUPLE": Machine._tuple_since_mark,
    "TUPLE1": lambda machine, _: machine._tuple(1),
    "TUPLE2": lambda machine, _: machine._tuple(2),
    "TUPLE3": lambda machine, _: machine._tuple(3),
    "APPEND": Machine._append,
    "APPENDS": Machine._append_since_mark,
    "SETITEM": Machine._set_item,
    "SETITEMS": Machine._set_items_since_mark,
    "GLOBAL": Machine._global,
    "INST": Machine._global,
    "STACK_GLOBAL": Machine._stack_global,
    "REDUCE": Machine._reduce,
    "BUILD": Machine._build,
    "BINPERSID": Machine._persistent,
}


def _ordered_dict(pairs: Any = ()) -> Dict[str, Any]:
    """An OrderedDict, which Python 3 pickles empty and Python 2 as a list of [key, value]."""
    if any(type(pair) is not list or len(pair) != 2 or type(pair[0]) is not str for pair in pairs):
        raise Unreadable(damaged("a damaged dictionary"))
    return dict(pairs)


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Tensor:
    """Return a tensor after checking that all of it lies inside its storage; `rest` does not affect its numbers."""
    expect(storage, Storage)
    expect(size, tuple)
    expect(stride, tuple)
    if len(size) != len(stride) or len(size) > 8 or (len(rest) > 2 and rest[2]):
        raise Unreadable(damaged("a tensor of a kind that state dicts do not have"))
    numbers = 1
    last = _whole(offset)
    for length, step in zip(size, stride):
        if _whole(length) == 0:
            raise Unreadable("holds an empty tensor, which no network has; give the state dict of a network")
        numbers *= length
        last += (length - 1) * _whole(step)
    if last >= storage.count or numbers > storage.count:
        raise Unreadable(damaged("a tensor reaches outside its data"))
    return Tensor(storage, offset, size, stride)


def _parameter(data: Any, *_: Any) -> Tensor:
    expect(data, Tensor)
    return data


_BUILDERS: Dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
}


def expect(value: Any, kind: type) -> None:
    """Raise Unreadable unless `value` is of exactly this type."""
    if type(value) is not kind:
        raise Unreadable(damaged(f"{type(value).__name__} where {kind.__name__} belongs"))


def _whole(value: Any) -> int:
    """Return `value` after checking that it is an integer from 0 up."""
    expect(value, int)
    if value < 0:
        raise Unreadable(damaged("a negative length or position"))
    return value


def excerpt(text: str) -> str:
    """The start of a text from the file, safe to print on one line of a terminal."""
    return ascii(text)[1:-1][:80]


def refused(reason: str) -> Unreadable:
    """The error for a file that contains something a state dict does not have."""
    return Unreadable(
        f"refused: the file {reason}, unlike any state dict of such a network; only tensors are read; "
        "give a file written by torch.save(network.state_dict(), path)"
    )


def damaged(cause: str) -> str:
    """The message for a damaged file."""
    return f"damaged or cut short ({excerpt(cause)}); copy or download it again"
