# SPDX-License-Identifier: Apache-2.0
"""Read the arrays of a .h5 file (HDF5) with NumPy alone:

    from weights.h5_reader import read_arrays
    arrays = read_arrays("params_000100.h5")    # {"gen_x2y/encoder_image/conv1/W": array of (64, 3, 7, 7), ...}

HDF5's own library crashes on some damaged files, and opens other files where one asks it to. What train.py, NNabla and
convert_pytorch.py write is a small part of the format, the one that every version of the library writes unless told
otherwise: groups that are B-trees of names, and arrays of little-endian 32-bit floats, each in one piece. That part is
read here, and all else refused. The format is the HDF Group's "HDF5 File Format Specification", versions 1 and 2.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import BinaryIO, Dict, Iterator, List, Tuple

import numpy as np

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
# version 0 of all its parts, and addresses and lengths of 8 bytes
_SUPERBLOCK = _SIGNATURE + bytes([0, 0, 0, 0, 0, 8, 8, 0])
# how the format describes a little-endian IEEE float of 32 bits: where its sign, exponent and mantissa are
_FLOAT32 = struct.pack("<B3BIHHBBBBI", 0x11, 0x20, 31, 0, 4, 0, 32, 23, 8, 0, 23, 127)
_DATASPACE, _DATATYPE, _LAYOUT, _CONTINUATION, _SYMBOL_TABLE = 1, 3, 8, 16, 17
_SHARED = 2  # flag of a message that is elsewhere
_LONGEST_NAME = 255


def read_arrays(path: str | Path) -> Dict[str, np.ndarray]:
    """All arrays of a file by full name: float32, read-only, together no larger than the file.

    Raises:
        OSError, ValueError: where the file cannot be opened, is damaged, or holds anything but such arrays.
    """
    with open(path, "rb") as file:
        return _Reader(file).arrays()


class _Reader:
    """Reads each part of a file once: where a damaged one has parts in common, or circles, more would be read than the
    file has bytes, and that is refused. So time and memory are bounded by the file's size."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = self._left = file.seek(0, 2)

    def arrays(self) -> Dict[str, np.ndarray]:
        """All arrays by full name."""
        start = self._bytes(0, 96)
        if not start.startswith(_SIGNATURE):
            raise ValueError("it is no HDF5 file")
        base, root = struct.unpack_from("<Q", start, 24)[0], struct.unpack_from("<Q", start, 64)[0]
        if not start.startswith(_SUPERBLOCK) or base:
            raise ValueError("it is HDF5 of another version")
        found: Dict[str, np.ndarray] = {}
        todo = [("", root)]
        while todo:
            name, address = todo.pop()
            messages = self._messages(address)
            if _SYMBOL_TABLE in messages:
                # the last is taken next: reversed, they come in the order of the file
                todo += [*self._group(name, *_unpack("<QQ", messages[_SYMBOL_TABLE]))][::-1]
            elif name in found:
                raise ValueError("a name occurs twice")
            else:
                found[name] = self._array(name, messages)
        return found

    def _bytes(self, address: int, count: int) -> bytes:
        if address + count > self._size:
            raise ValueError("it is cut short")
        self._left -= count
        if self._left < 0:
            raise ValueError("its parts overlap")
        self._file.seek(address)
        data = self._file.read(count)
        if len(data) != count:
            raise ValueError("it is cut short")
        return data

    def _messages(self, address: int) -> Dict[int, bytes]:
        """What the header at `address` says of a group or array: what this reader knows, by kind."""
        version, count, size = struct.unpack("<BxHxxxxIxxxx", self._bytes(address, 16))
        if version != 1:
            raise ValueError("it holds an object of another version")
        blocks, messages = [(address + 16, size)], {}
        while blocks and count:
            block = self._bytes(*blocks.pop(0))
            at = 0
            while count and at + 8 <= len(block):
                kind, length, flags = struct.unpack_from("<HHB", block, at)
                content = block[at + 8 : at + 8 + length]
                at, count = at + 8 + length, count - 1
                if kind == _CONTINUATION:
                    blocks.append(_unpack("<QQ", content))
                elif kind in (_DATASPACE, _DATATYPE, _LAYOUT, _SYMBOL_TABLE):
                    if kind in messages or flags & _SHARED:
                        raise ValueError("an object is described in a way that is not known")
                    messages[kind] = content
        return messages

    def _group(self, parent: str, tree: int, heap: int) -> Iterator[Tuple[str, int]]:
        """Name and address of everything in a group, by name."""
        signature, length, place = struct.unpack("<8sQ8xQ", self._bytes(heap, 32))
        if signature != b"HEAP\0\0\0\0":
            raise ValueError("a group's names are not there")
        names = self._bytes(place, length)
        for leaf in self._leaves(tree):
            signature, count = struct.unpack("<6sH", self._bytes(leaf, 8))
            if signature != b"SNOD\1\0":
                raise ValueError("a group's list is not there")
            for start, address, link in struct.iter_unpack("<QQI20x", self._bytes(leaf + 8, 40 * count)):
                if link == 2:
                    raise ValueError("it holds a link")
                yield _full_name(parent, names, start), address

    def _leaves(self, tree: int) -> List[int]:
        """The addresses of the lists of names that a group's B-tree has, in order."""
        nodes, below = [tree], None
        while below != 0:
            children, levels = [], set()
            for node in nodes:
                signature, level, count = struct.unpack("<5sBH16x", self._bytes(node, 24))
                if signature != b"TREE\0":
                    raise ValueError("a group's tree is not there")
                # a key stands before each child
                children += [child for _, child in struct.iter_unpack("<QQ", self._bytes(node + 24, 16 * count))]
                levels.add(level)
            if len(levels) > 1 or below not in (None, *(level + 1 for level in levels)):
                raise ValueError("a group's tree is not even")
            nodes, below = children, (levels or {0}).pop()
        return nodes

    def _array(self, name: str, messages: Dict[int, bytes]) -> np.ndarray:
        if {_DATASPACE, _DATATYPE, _LAYOUT} - messages.keys():
            raise ValueError(f"{name or 'the root'} is no array, or one in a way that train.py does not write")
        if messages[_DATATYPE][: len(_FLOAT32)] != _FLOAT32:
            raise ValueError(f"{name} is no array of 32-bit floats")
        version, rank = _unpack("<BB", messages[_DATASPACE])
        if version != 1:
            raise ValueError(f"{name} has a shape of a kind that is not known")
        shape = _unpack(f"<{rank}Q", messages[_DATASPACE][8:])
        kind, address, size = _unpack("<HQQ", messages[_LAYOUT])
        # version 3, class 1: in one piece; others are compressed, or in pieces
        if kind != 0x0103:
            raise ValueError(f"{name} is not in one piece")
        if not size or size != 4 * math.prod(shape):
            raise ValueError(f"{name} is empty, or not as long as its shape says")
        return np.frombuffer(self._bytes(address, size), "<f4").reshape(shape)


def _unpack(layout: str, content: bytes) -> Tuple[int, ...]:
    """As struct's, of a part that may be too short, or have more behind."""
    if len(content) < struct.calcsize(layout):
        raise ValueError("a description is cut short")
    return struct.unpack_from(layout, content)


def _full_name(parent: str, names: bytes, start: int) -> str:
    end = names.find(b"\0", start, start + _LONGEST_NAME) if start < len(names) else -1
    name = names[start:end].decode() if end > start else ""
    full = f"{parent}/{name}" if parent else name
    if not name or "/" in name or not name.isprintable() or len(full) > _LONGEST_NAME:
        raise ValueError("a name is damaged")
    return full
