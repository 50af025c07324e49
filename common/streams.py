# SPDX-License-Identifier: Apache-2.0
"""Standard streams that can be written to, whatever has become of them: closed from the start, or lost with a terminal
or a connection."""

from __future__ import annotations

import errno
import io
import os
import signal
import stat
import sys
from contextlib import contextmanager, suppress
from typing import Any, Iterator

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
            setattr(sys, name, _text_stream(_Terminal(stream.fileno(), "w", closefd=False), stream))


def outlive_readers() -> None:
    """From now on, what cannot be printed, to a pipe without a reader or a file on a full disk, is dropped.

    For servers, whose answers do not depend on what they print.
    """
    for name in _NAMES[1:]:
        stream = getattr(sys, name)
        # a notebook, and pytest, put objects of their own there
        if type(stream) is io.TextIOWrapper:
            with suppress(OSError):
                stream.flush()
            setattr(sys, name, _text_stream(_Optional(stream.fileno(), "w", closefd=False), stream))


@contextmanager
def stopping_without_reader() -> Iterator[None]:
    """Within the block, a pipe whose reader has gone raises no error: the process gets a SIGHUP, and what is printed is
    dropped.

    So a training stops with a checkpoint where `| tee log` or a pager ends, as it does where a connection closes.
    """
    before = {name: getattr(sys, name) for name in _NAMES[1:]}
    for name, stream in before.items():
        # pytest's is of a subclass that has no number; Windows has no SIGHUP
        if type(stream) is io.TextIOWrapper and _is_pipe(stream.fileno()) and hasattr(signal, "SIGHUP"):
            stream.flush()
            setattr(sys, name, _text_stream(_Pipe(stream.fileno(), "w", closefd=False), stream))
    try:
        yield
    finally:
        for name, stream in before.items():
            getattr(sys, name).flush()
            setattr(sys, name, stream)


def leave_pipes() -> None:
    """Drop all further output, except what goes into a file: whoever reads it ends with the connection."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        if not stat.S_ISREG(os.fstat(number).st_mode):
            os.dup2(nowhere, number)
    os.close(nowhere)


def _is_pipe(number: int) -> bool:
    mode = os.fstat(number).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _text_stream(raw: io.FileIO, like: io.TextIOWrapper) -> io.TextIOWrapper:
    """A stream of text on `raw`, written at each line, with the encoding of another."""
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding=like.encoding, errors=like.errors, line_buffering=True)


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


class _Optional(io.FileIO):
    """A raw stream; what cannot be written to it is dropped."""

    def write(self, data: Any) -> int:
        """As `FileIO.write`."""
        try:
            return super().write(data)
        except OSError:
            return len(data)


class _Pipe(io.FileIO):
    """A pipe as a raw stream; once its reader is gone, what is written is dropped, and the process told once."""

    _has_reader = True

    def write(self, data: Any) -> int:
        """As `FileIO.write`."""
        try:
            return super().write(data)
        except BrokenPipeError:
            if self._has_reader:
                self._has_reader = False
                os.kill(os.getpid(), signal.SIGHUP)
            return len(data)
