# SPDX-License-Identifier: Apache-2.0
"""A disk that takes its time, so that a test can act while a checkpoint is being written."""

import sys
import time

SECONDS = 2


def hold_first_checkpoint() -> None:
    """Have the first checkpoint that this process writes lie there unfinished, all of its bytes written, for a while.

    Without it, it lies there for some milliseconds, which a test that waits for it misses on a busy machine.
    """
    held = []

    def look(event: str, arguments: tuple) -> None:
        if event == "os.rename" and str(arguments[0]).endswith(".part.npz") and not held:
            held.append(arguments)
            time.sleep(SECONDS)

    sys.addaudithook(look)
