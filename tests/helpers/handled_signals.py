# SPDX-License-Identifier: Apache-2.0
"""A process that reports when Python handles its signals, for tests of signals that arrive during a long call."""

from __future__ import annotations

import os
import signal
from types import FrameType

REPORT = "SIGUSR1 is handled"


def report_handling() -> None:
    """Write REPORT to standard error whenever Python handles a SIGUSR1 in this process.

    Python runs handlers in the main thread, between two calls into compiled code, in the order of the signals' numbers:
    that of SIGUSR1 before SIGTERM.
    """
    signal.signal(signal.SIGUSR1, _report)


def _report(number: int, frame: FrameType | None) -> None:
    os.write(2, f"{REPORT}\n".encode())
