# SPDX-License-Identifier: Apache-2.0
"""Errors that a user can cause, and how they end: one line that names the cause and the mend, exit code 2."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Callable

# NNabla sets up logging when it is imported, so that it and others greet on standard error, among our one line. Done
# before, this leaves warnings only; so this module is imported before NNabla (pyproject.toml, isort).
logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")


class UserError(Exception):
    """Something the user can put right. The message is one line: what is wrong, then what to do about it."""


def run_main(main: Callable[[], int | None]) -> None:
    """Run a script's `main` and exit with its return value (None counts as 0).

    A `UserError` is printed as one line on standard error and exits with 2, as is what the system refuses (a full
    disk, a folder that may not be written); Ctrl-C exits with 130.
    """
    program = Path(sys.argv[0]).name
    try:
        code = main()
    except UserError as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        code = 2
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        print(f"{program}: error: {error.strerror or error}:{where}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        code = 130
    sys.exit(code or 0)
