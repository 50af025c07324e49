# SPDX-License-Identifier: Apache-2.0
"""Errors that a user can cause: a script ends with one line that names the cause and the fix, and exit code 2."""

from __future__ import annotations

import errno
import logging
import os
import re
import signal
import sys
import traceback
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Callable, Iterator, List, Tuple

from common import streams

DEBUG = "--debug"  # an argument of every script
# how NNabla and CUDA word it when memory runs out
_NO_MEMORY = re.compile("out of memory|failed to allocate|allocation failed|ALLOC_FAILED|bad_alloc", re.IGNORECASE)


class UserError(Exception):
    """An error the user can fix. The message is one line: what is wrong, then what to do about it."""


# signals that ask a process to end; Windows has no SIGHUP, which arrives when a terminal or a connection closes
ENDING_SIGNALS = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP (`number`) arrived; scripts clean up as after Ctrl-C."""

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__()
        self.number = number


def begin_script(name: str) -> None:
    """Prepare the process of a script, whose `__name__` is `name`; call it before the slow imports, above all NNabla's.

    On import, NNabla and other packages configure logging and print greetings to standard error; with logging
    configured first, only warnings appear. Ctrl-C during the imports, which can take seconds, ends the script without a
    traceback; `run_main` restores Python's own handling. A program that imports the script keeps its own.

    Nothing else in the user's environment reaches the results either: file names are UTF-8 in any locale, and standard
    streams may be closed.
    """
    if name == "__main__":
        streams.open_missing()
        _use_utf8()
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")


def run_main(main: Callable[[], int | None]) -> None:
    """Run a script's `main` and exit with its return value (None counts as 0).

    A `UserError`, an error of the operating system (a full disk, a folder without write permission) and a lack of
    memory are printed as one line on standard error, with exit code 2; Ctrl-C exits with 130, SIGTERM with 143, SIGHUP
    with 129 (under nohup it is ignored). Anything else is a bug: one line too, and exit code 1. With `--debug` the
    traceback comes before the line.
    """
    previous_handlers = {number: signal.getsignal(number) for number in ENDING_SIGNALS}
    for number in previous_handlers:
        if not stays_ignored(number):
            signal.signal(number, _terminate)
    streams.outlive_terminal()
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # a terminal's encoding may lack characters of a file's name
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _run(main)
        sys.stdout.flush()
    except BrokenPipeError:
        # the reader of the output has closed the pipe (`| head`)
        code = 128 + 13
    except (Exception, KeyboardInterrupt) as error:
        message, code = _ending(error)
        # nobody may read it
        with suppress(OSError):
            if DEBUG in sys.argv:
                traceback.print_exc()
            print(printable(f"{Path(sys.argv[0]).name}: {message}"), file=sys.stderr)
    finally:
        for number, handler in previous_handlers.items():
            signal.signal(number, handler)
        _discard_unwritable_output()
    sys.exit(code)


def stays_ignored(number: int) -> bool:
    """Return whether a signal is ignored and is to stay so: SIGHUP under nohup.

    SIGINT is handled all the same, since shells let background jobs ignore it.
    """
    return number not in (signal.SIGINT, signal.SIGTERM) and signal.getsignal(number) == signal.SIG_IGN


@contextmanager
def collected(failures: List[str], path: Path) -> Iterator[None]:
    """Append to `failures` why the picture at `path`, one of many, could not be processed.

    That covers a `UserError`, and a file name that becomes too long with our suffix. Other errors of the operating
    system would also hit the next picture, so they are raised.
    """
    try:
        yield
    except UserError as error:
        failures.append(str(error))
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        failures.append(f"{path}: its name is too long; shorten it")


def printable(text: str) -> str:
    """`text` as one line that is safe to print to a terminal: unprintable characters become escape sequences."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def is_lack_of_memory(error: BaseException) -> bool:
    """Return whether an error of Python, NNabla or CUDA says that memory ran out."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error)) is not None
    )


def cause_of(error: object) -> str:
    """The cause in an error message of NNabla's: its last line, below the function and the source file."""
    return str(error).strip().split("\n")[-1].rstrip(".")


def _use_utf8() -> None:
    """Start the script again in Python's UTF-8 mode, in a locale with another encoding of file names.

    There, names would be decoded wrongly, and so stand in pages and records. Messages keep the terminal's encoding.
    """
    if sys.getfilesystemencoding() == "utf-8" or os.environ.get("PYTHONUTF8") == "1" or not sys.executable:
        return
    os.environ["PYTHONUTF8"] = "1"
    os.environ.setdefault("PYTHONIOENCODING", f"{sys.stdout.encoding}:backslashreplace")
    # Python's own options stay; 3.8 and 3.9 do not know them
    arguments = sys.orig_argv[1:] if hasattr(sys, "orig_argv") else sys.argv
    os.execv(sys.executable, [sys.executable, *arguments])


def _terminate(number: int, frame: FrameType | None) -> None:
    if number != signal.SIGTERM:
        streams.leave_pipes()
    raise Terminated(number)


def _run(main: Callable[[], int | None]) -> int:
    try:
        return main() or 0
    except SystemExit as end:  # of argparse, after --help
        return int(end.code or 0)


def _ending(error: BaseException) -> Tuple[str, int]:
    """The message and the exit code for an error that ends the script."""
    # NNabla's compiled code wraps a Ctrl-C in an error of its own
    for cause in _causes(error):
        if isinstance(cause, Terminated):
            return "terminated", 128 + cause.number
        if isinstance(cause, KeyboardInterrupt):
            return "interrupted", 130
    if isinstance(error, UserError):
        return f"error: {error}", 2
    # pathlib's, up to Python 3.12
    if isinstance(error, RuntimeError) and "Symlink loop" in str(error):
        return f"error: {error}; fix that link, or remove it", 2
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return f"error: {place}{error.strerror or error}; {_fix(error)}", 2
    if is_lack_of_memory(error):
        return "error: there is not enough memory; use smaller sizes, or fewer pictures or masks at a time", 2
    return f"unexpected {type(error).__name__}: {error} (a bug in this program; {DEBUG} shows where)", 1


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error:
        yield error
        error = error.__cause__ or error.__context__


def _fix(error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return "make room there, or write to another place"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "change its permissions, or use another place"
    return "fix that, or use another place"


def _discard_unwritable_output() -> None:
    """Drop output that cannot be written; otherwise Python tries again at exit and prints a second error."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
