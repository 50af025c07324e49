# SPDX-License-Identifier: Apache-2.0
"""A process that measures: a case as JSON on a line of its input, {"seconds": ..., "memory": ...} on one of its output.

Needs nothing but Python, since both sides use it, cpu.py and pytorch_twin.py, which run in environments of their own.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from typing import Any, Callable, Dict


def serve(work_of: Callable[[Dict[str, Any]], Callable[[], Any]]) -> None:
    """Answer the cases on stdin, each with the mean seconds of its work and the peak memory so far in bytes.

    Work is done once, or again and again for 0.1 s. A line that is as the last one goes on with the same networks.
    """
    last, work = "", None
    for line in sys.stdin:
        if line != last:
            last, work = line, work_of(json.loads(line))
        times, start = 0, time.perf_counter()
        while not times or time.perf_counter() - start < 0.1:
            work()
            times += 1
        seconds = (time.perf_counter() - start) / times
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"seconds": seconds, "memory": memory}), flush=True)
