# SPDX-License-Identifier: Apache-2.0
"""Read the arrays of a .h5 file (HDF5) with NumPy alone:

    from weights.h5_reader import read_arrays
    arrays = read_arrays("params_000100.h5")    # {"gen_x2y/encoder_image/conv1/W": array of (64, 3, 7, 7), ...}

HDF5's own library crashes on some damaged files, and opens other files that a file refers to. The files of train.py,
NNabla and convert_pytorch.py use a small part of the format, which every version of the library writes by default:
groups that are B-trees of names, and arrays of little-endian 32-bit floats, each in one piece. This module reads that
part and refuses the rest. The format is the HDF Group's "HDF5 File Format Specification", versions 1 and 2.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import BinaryIO, Dict, Iterator, List, Tuple

import numpy as np

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
# version 0 of all parts, and addresses and lengths of 8 bytes
_SUPERBLOCK = _SIGNATURE + bytes([0, 0, 0, 0, 0, 8, 8, 0])
# the description of a little-endian IEEE float of 32 bits: the places of sign, exponent and mantissa
_FLOAT32 = struct.pack("<B3BIHHBBBBI", 0x11, 0x20, 31, 0, 4, 0, 32, 23, 8, 0, 23, 127)
_DATASPACE, _DATATYPE, _LAYOUT, _CONTINUATION, _SYMBOL_TABLE = 1, 3, 8, 16, 17
_SHARED = 2  # flag of a message that is stored elsewhere
_LONGEST_NAME = 255


def read_arrays(path: str | Path) -> Dict[str, np.ndarray]:
    """Read all arrays of a file, by full name: float32, read-only, together no larger than the file.

    Raises:
        OSError, ValueError: where the file cannot be opened, is damaged, or holds anything but such arrays.
    """
    with open(path, "rb") as file:
        return _Reader(file).arrays()


class _Reader:
    """Reads the parts of a file, each once.

    Damaged files with shared parts or cycles would need more bytes than the file has, which is refused. So time and
    memory are bounded by the file's size.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = file.seek(0, 2)
        self._unread = self._size

    def arrays(self) -> Dict[str, np.ndarray]:
        """All arrays by full name."""
        start = self._bytes(0, 96)
        if not start.startswith(_SIGNATURE):
            raise ValueError("it is not an HDF5 file")
        (base,) = struct.unpack_from("<Q", start, 24)
        (root,) = struct.unpack_from("<Q", start, 64)
        if not start.startswith(_SUPERBLOCK) or base:
            raise ValueError("it is HDF5 of another version")
        arrays: Dict[str, np.ndarray] = {}
        waiting = [("", root)]
        while waiting:
            name, address = waiting.pop()
            messages = self._messages(address)
            if _SYMBOL_TABLE in messages:
                tree, heap = _unpack("<QQ", messages[_SYMBOL_TABLE])
                # reversed, since the last one is popped next
                waiting += reversed(list(self._group(name, tree, heap)))
            elif name in arrays:
                raise ValueError("a name occurs twice")
            else:
                arrays[name] = self._array(name, messages)
        return arrays

    def _bytes(self, address: int, count: int) -> bytes:
        if address + count > self._size:
            raise ValueError("it is cut short")
        self._unread -= count
        if self._unread < 0:
            raise ValueError("its parts overlap")
        self._file.seek(address)
        data = self._file.read(count)
        if len(data) != count:
            raise ValueError("it is cut short")
        return data

    def _messages(self, address: int) -> Dict[int, bytes]:
        """The messages in the header of a group or array at `address`, by kind; kinds that this reader ignores are left
        out."""
        version, count, size = struct.unpack("<BxHxxxxIxxxx", self._bytes(address, 16))
        if version != 1:
            raise ValueError("it holds an object of another version")
        blocks = [(address + 16, size)]
        messages: Dict[int, bytes] = {}
        while blocks and count:
            block = self._bytes(*blocks.pop(0))
            at = 0
            while count and at + 8 <= len(block):
                kind, length, flags = struct.unpack_from("<HHB", block, at)
                content = block[at + 8 : at + 8 + length]
                at += 8 + length
                count -= 1
                if kind == _CONTINUATION:
                    blocks.append(_unpack("<QQ", content))
                elif kind in (_DATASPACE, _DATATYPE, _LAYOUT, _SYMBOL_TABLE):
                    if kind in messages or flags & _SHARED:
                        raise ValueError("an object is described in an unknown way")
                    messages[kind] = content
        return messages

    def _group(self, parent: str, tree: int, heap: int) -> Iterator[Tuple[str, int]]:
        """Name and address of everything in a group, by name."""
        signature, length, place = struct.unpack("<8sQ8xQ", self._bytes(heap, 32))
        if signature != b"HEAP\0\0\0\0":
            raise ValueError("a group's names are missing")
        names = self._bytes(place, length)
        for leaf in self._leaves(tree):
            signature, count = struct.unpack("<6sH", self._bytes(leaf, 8))
            if signature != b"SNOD\1\0":
                raise ValueError("a group's list is missing")
            for start, address, link in struct.iter_unpack("<QQI20x", self._bytes(leaf + 8, 40 * count)):
                if link == 2:
                    raise ValueError("it holds a link")
                yield _full_name(parent, names, start), address

    def _leaves(self, tree: int) -> List[int]:
        """The addresses of the leaves of a group's B-tree, in order; they are lists of names."""
        nodes = [tree]
        level_below = None
        while level_below != 0:
            children: List[int] = []
            levels = set()
            for node in nodes:
                signature, level, count = struct.unpack("<5sBH16x", self._bytes(node, 24))
                if signature != b"TREE\0":
                    raise ValueError("a group's tree is missing")
                # each child follows its key
                children += [child for _, child in struct.iter_unpack("<QQ", self._bytes(node + 24, 16 * count))]
                levels.add(level)
            if len(levels) > 1 or level_below not in (None, *(level + 1 for level in levels)):
                raise ValueError("a group's tree is not balanced")
            nodes = children
            level_below = levels.pop() if levels else 0
        return nodes

    def _array(self, name: str, messages: Dict[int, bytes]) -> np.ndarray:
        if {_DATASPACE, _DATATYPE, _LAYOUT} - messages.keys():
            raise ValueError(f"{name or 'the root'} is not an array, or not one as train.py writes them")
        if messages[_DATATYPE][: len(_FLOAT32)] != _FLOAT32:
            raise ValueError(f"{name} is not an array of 32-bit floats")
        version, rank = _unpack("<BB", messages[_DATASPACE])
        if version != 1:
            raise ValueError(f"{name} has a shape of an unknown kind")
        shape = _unpack(f"<{rank}Q", messages[_DATASPACE][8:])
        kind, address, size = _unpack("<HQQ", messages[_LAYOUT])
        # version 3, class 1: in one piece; other classes are compressed, or in several pieces
        if kind != 0x0103:
            raise ValueError(f"{name} is not in one piece")
        if not size or size != 4 * math.prod(shape):
            raise ValueError(f"{name} is empty, or its length does not match its shape")
        return np.frombuffer(self._bytes(address, size), "<f4").reshape(shape)


def _unpack(layout: str, content: bytes) -> Tuple[int, ...]:
    """Unpack the start of `content` like struct, which may be too short."""
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
