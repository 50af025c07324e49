# SPDX-License-Identifier: Apache-2.0
"""A disk on which a write takes as long as a test needs, so that the test can act during the write."""

import sys
import time
from pathlib import Path

from tests.helpers.scripts import DEADLINE


def hold_first_checkpoint(release: Path) -> None:
    """Hold the first checkpoint that this process writes until the file `release` exists.

    Until then all of its bytes are written, but it does not have its final name. Otherwise this state lasts
    milliseconds, which a test that waits for it misses on a busy machine.
    """
    held = []

    def hold(event: str, arguments: tuple) -> None:
        if event == "os.rename" and str(arguments[0]).endswith(".part.npz") and not held:
            held.append(arguments)
            deadline = time.monotonic() + DEADLINE
            while not release.exists() and time.monotonic() < deadline:
                time.sleep(0.01)

    sys.addaudithook(hold)
