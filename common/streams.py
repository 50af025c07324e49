# SPDX-License-Identifier: Apache-2.0
"""Standard streams that can be written to, whatever has become of them: closed from the start, or lost with a terminal
or a connection."""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
from typing import Any

_NAMES = ("stdin", "stdout", "stderr")


def open_missing() -> None:
    """Open those of the standard streams that were closed when the process began, on nothing.

    Python sets them to None. Without this, the next file that is opened gets the number 1 or 2, to which libraries
    print.
    """
    for number, name in enumerate(_NAMES):
        try:
            os.fstat(number)
        except OSError:
            # the lowest free number is given, which is this one
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))


def outlive_terminal() -> None:
    """From now on, what is printed to a terminal that is gone is dropped, instead of ending the program by an error.

    A connection can close at any moment, with or without a SIGHUP.
    """
    for name in _NAMES[1:]:
        stream = getattr(sys, name)
        # a notebook, and pytest, put objects of their own there
        if isinstance(stream, io.TextIOWrapper) and stream.isatty():
            stream.flush()
            raw = _Terminal(stream.fileno(), "w", closefd=False)
            options = {"encoding": stream.encoding, "errors": stream.errors, "line_buffering": True}
            setattr(sys, name, io.TextIOWrapper(io.BufferedWriter(raw), **options))


def leave_pipes() -> None:
    """Drop all further output, except what goes into a file: whoever reads it ends with the connection."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        if not stat.S_ISREG(os.fstat(number).st_mode):
            os.dup2(nowhere, number)
    os.close(nowhere)


class _Terminal(io.FileIO):
    """A terminal as a raw stream; once it is gone, what is written to it is dropped."""

    def write(self, data: Any) -> int:
        """As `FileIO.write`."""
        try:
            return super().write(data)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return len(data)
