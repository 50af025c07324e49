# SPDX-License-Identifier: Apache-2.0
"""What users are told where no field or file of theirs is the cause: full disks, a lack of memory, and bugs."""

from __future__ import annotations

import errno
import sys
import traceback
from contextlib import suppress
from typing import Tuple

from common.errors import DEBUG, is_lack_of_memory, printable

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def explain(error: Exception, place: str) -> Tuple[int, str]:
    """The HTTP status and the reason of an error, without anything about the inside of the server.

    The server's terminal gets what is not explained by that, with the `place` where it happened.
    """
    if is_lack_of_memory(error):
        return 503, "there is not enough memory for this picture; use a smaller one"
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return 507, f"the server could not write a file ({error.strerror}); make room on its disk"
    report(error, place)
    if isinstance(error, OSError):
        # its text names files of the server
        cause = error.strerror or type(error).__name__
        return 500, f"the server could not read or write a file ({cause}); its terminal says more"
    return 500, "an unexpected error, which is a bug in this program; the server's terminal says more"


def report(error: Exception, place: str) -> None:
    """Print an unexpected error to the terminal, with the traceback if `DEBUG` is given."""
    # nobody may read it, and the stream may be closed
    with suppress(OSError, ValueError):
        print(printable(f"{place}: unexpected {type(error).__name__}: {error}"), file=sys.stderr)
        if DEBUG in sys.argv:
            traceback.print_exception(type(error), error, error.__traceback__)
