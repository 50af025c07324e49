# SPDX-License-Identifier: Apache-2.0
"""Ways in which tests damage files."""

from __future__ import annotations

from hypothesis import strategies as st

EDITS = st.lists(
    st.tuples(st.sampled_from(["flip", "set", "insert", "cut", "copy"]), st.integers(0, 2**16), st.integers(0, 2**16)),
    min_size=1,
    max_size=4,
)


def edited(raw, edits):
    """`raw` with each of `EDITS`, (kind, where, value), made to it."""
    raw = bytearray(raw)
    for kind, where, value in edits:
        where %= len(raw) or 1
        if kind == "insert":
            raw[where:where] = bytes([value % 256]) * (1 + value % 5)
        elif kind == "cut":
            del raw[where : where + 1 + value % 5]
        elif kind == "copy":
            start = value % (len(raw) or 1)
            raw[where : where + 8] = raw[start : start + 8]
        elif raw:
            raw[where] = value % 256 if kind == "set" else raw[where] ^ (1 << value % 8)
    return bytes(raw)
