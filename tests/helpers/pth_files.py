# SPDX-License-Identifier: Apache-2.0
"""Small .pth files without PyTorch, put together operation by operation: a hostile one does not follow a pickler."""

from __future__ import annotations

import struct
import zipfile

FORMATS = ("legacy", "zip")
MAGIC = 0x1950A86A20F9469CFC6C


# The operations of a pickle that torch.save uses.


def text(value):
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def whole(value):
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def tup(*items):
    return b"(" + b"".join(items) + b"t"


def name(module, attribute):
    return f"c{module}\n{attribute}\n".encode()


def call(function, *arguments):
    return function + tup(*arguments) + b"R"


ORDERED_DICT = call(name("collections", "OrderedDict"))
METADATA = b"}" + text("_metadata") + b"}" + text("") + b"}" + text("version") + b"K\x01s" + b"s" + b"s" + b"b"


def storage(key, kind, count, fmt):
    part = b"N" if fmt == "legacy" else b""
    return tup(text("storage"), name("torch", kind), text(key), text("cpu"), whole(count), part) + b"Q"


def tensor(data, offset, size, stride):
    where = (whole(offset), tup(*map(whole, size)), tup(*map(whole, stride)))
    return call(name("torch._utils", "_rebuild_tensor_v2"), data, *where, b"\x89", ORDERED_DICT)


def state_dict(entries, after=METADATA):
    return ORDERED_DICT + b"(" + b"".join(text(k) + v for k, v in entries.items()) + b"u" + after


def write_pth(path, fmt, body, data=(), **zip_options):
    """A .pth file of `body`, the operations of the state dict, and `data`, pairs of key and array."""
    if fmt == "legacy":
        path.write_bytes(legacy_bytes(body, data))
    else:
        with zipfile.ZipFile(path, "w", zip_options.pop("compression", zipfile.ZIP_STORED)) as archive:
            archive.writestr("archive/data.pkl", b"\x80\x02" + body + b".")
            for key, array in data:
                archive.writestr(f"archive/data/{key}", array.tobytes())
            for member, content in zip_options.items():
                archive.writestr(f"archive/{member}", content)
    return path


def legacy_bytes(body, data):
    keys = b"](" + b"".join(text(key) for key, _ in data) + b"e"
    pickles = (whole(MAGIC), b"M\xe9\x03", b"}" + text("little_endian") + b"\x88s", body, keys)
    raw = (struct.pack("<q", array.size) + array.tobytes() for _, array in data)
    return b"".join(b"\x80\x02" + p + b"." for p in pickles) + b"".join(raw)


KINDS = {"f4": "FloatStorage", "f8": "DoubleStorage", "f2": "HalfStorage", "i8": "LongStorage", "u1": "ByteStorage"}


def write_arrays(path, fmt, arrays):
    """A state dict of whole arrays, as torch.save would write it."""
    entries, data = {}, []
    for i, (key, array) in enumerate(arrays.items()):
        strides = [step // array.itemsize for step in array.strides]
        held = storage(str(i), KINDS[array.dtype.str[1:]], array.size, fmt)
        entries[key] = tensor(held, 0, array.shape, strides)
        data.append((str(i), array))
    return write_pth(path, fmt, state_dict(entries), data)
