# SPDX-License-Identifier: Apache-2.0
"""Errors that a user can cause, and how they end: one line that names the cause and the mend, exit code 2."""

from __future__ import annotations

import errno
import logging
import os
import re
import signal
import sys
import traceback
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Callable, Iterator, List, Tuple

DEBUG = "--debug"  # every script knows it
# in NNabla's own errors and CUDA's, where memory does not suffice
_NO_MEMORY = re.compile("out of memory|failed to allocate|allocation failed|ALLOC_FAILED|bad_alloc", re.IGNORECASE)

class UserError(Exception):
    """Something the user can put right. The message is one line: what is wrong, then what to do about it."""


def begin_script() -> None:
    """Prepare the process of a script; call it before the imports that take long, above all NNabla's.

    NNabla sets up logging when it is imported, and it and others then greet on standard error. Set up here first, only
    warnings are shown. And Ctrl-C during the imports, which take seconds, ends the script without a traceback;
    `run_main` undoes this.
    """
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def collected(failures: List[str], path: Path) -> Iterator[None]:
    """Add to `failures` why a picture at `path`, one of many, could not be worked on: a `UserError`, or a name that is
    too long once ours is added. Any other error of the system would meet the next picture too, and is raised."""
    try:
        yield
    except UserError as error:
        failures.append(str(error))
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        failures.append(f"{path}: its name is too long; shorten it")


def run_main(main: Callable[[], int | None]) -> None:
    """Run a script's `main` and exit with its return value (None counts as 0).

    A `UserError` is printed as one line on standard error and exits with 2, as is what the system refuses (a full
    disk, a folder that may not be written, memory); Ctrl-C exits with 130. Anything else is a fault of the program:
    one line too, and exit code 1. With `--debug` the traceback comes before the line. SIGTERM ends it as Ctrl-C does.
    """
    before = signal.signal(signal.SIGTERM, _terminate)
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # a terminal may not know the letters of a file's name
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _run(main)
        sys.stdout.flush()
    except BrokenPipeError:
        # whoever read the output wants no more of it (`| head`)
        code = 128 + 13
    except (Exception, KeyboardInterrupt) as error:
        what, code = _ending(error)
        if DEBUG in sys.argv:
            traceback.print_exc()
        print(printable(f"{Path(sys.argv[0]).name}: {what}"), file=sys.stderr)
    finally:
        signal.signal(signal.SIGTERM, before)
        _give_up_output()
    sys.exit(code)


class Terminated(KeyboardInterrupt):
    """SIGTERM came; what Ctrl-C would tidy up is tidied up."""


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def _give_up_output() -> None:
    """Drop what cannot be written; Python would try again when it ends, and complain."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(main: Callable[[], int | None]) -> int:
    try:
        return main() or 0
    except SystemExit as end:  # of argparse, after --help
        return int(end.code or 0)


def _ending(error: BaseException) -> Tuple[str, int]:
    """What to say of an error that ends the program, and the exit code."""
    # NNabla's compiled code puts an error of its own around a Ctrl-C
    for cause in _causes(error):
        if isinstance(cause, KeyboardInterrupt):
            return ("terminated", 143) if isinstance(cause, Terminated) else ("interrupted", 130)
    if isinstance(error, UserError):
        return f"error: {error}", 2
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"error: {where}{error.strerror or error}; {_mend(error)}", 2
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error))):
        return "error: there is not enough memory; work at smaller sizes, or with fewer things at a time", 2
    return f"unexpected {type(error).__name__}: {error} (a fault of this program; {DEBUG} shows where)", 1


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error:
        yield error
        error = error.__cause__ or error.__context__


def _mend(error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return "make room there, or write to another place"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "give yourself the right to it, or use another place"
    return "mend that, or use another place"


def printable(text: str) -> str:
    """`text` in one line that does nothing to a terminal: what is not printable is shown as an escape sequence."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def cause_of(error: object) -> str:
    """The cause in an error of NNabla's: the last of its lines, below function and source file."""
    return str(error).strip().split("\n")[-1].rstrip(".")
