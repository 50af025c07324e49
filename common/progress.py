# SPDX-License-Identifier: Apache-2.0
"""Show progress: work on many files in parallel below a bar, and print lines above one."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Callable, List, Sequence, TypeVar

from tqdm import tqdm

from common.errors import printable

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_parallel(
    function: Callable[[Item], Result], items: Sequence[Item], description: str, workers: int | None = None
) -> List[Result]:
    """Return `function(item)` for every item, in order; the first exception ends the work.

    A progress bar appears after a second. The work runs in `workers` threads (None: one for each core, at most 8);
    reading and decoding files and NumPy release Python's lock, so they run in parallel.
    """
    with ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1)) as pool:
        futures = [pool.submit(function, item) for item in items]
        try:
            # disable=None: no bar in a log file or pipe
            bar = tqdm(futures, desc=description, unit="file", disable=None, delay=1)
            return [future.result() for future in bar]
        except BaseException:
            for future in futures:
                future.cancel()
            raise


def say(text: str) -> None:
    """Print a line above the progress bar, safe for a terminal (`printable`)."""
    tqdm.write(printable(text))
