# SPDX-License-Identifier: Apache-2.0
"""A process that measures: a case as JSON on a line of its input, and on one of its output what its work takes.

Needs nothing but Python, since both sides use it, cpu.py or gpu.py and pytorch_twin.py, which run in environments of
their own.
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
import time
import traceback
from typing import Any, Callable, Dict, Optional

Case = Dict[str, Any]
WorkOf = Callable[[Case], Callable[[], Any]]
OUT_OF_MEMORY = "out of memory"
# as CUDA, NNabla, PyTorch, cuDNN and cuBLAS, and C++ say it
_NO_MEMORY = re.compile("out of memory|failed to allocate|allocation failed|ALLOC_FAILED|bad_alloc", re.IGNORECASE)


class Device:
    """A CPU as something that work is done on, and as what a GPU is to be measured like; `about` tells versions."""

    def __init__(self, **about: Any) -> None:
        self.about = about

    def synchronize(self) -> None:
        """Wait until all work is done."""

    def used(self) -> int:
        """Bytes of its memory that are in use, or were at most."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def reserved(self) -> Optional[int]:
        """Bytes that the library says it had at most, where it counts them."""
        return None

    def record(self) -> Any:
        """An event: the moment when the device has done what it was given so far."""
        return time.perf_counter()

    def elapsed(self, first: Any, last: Any) -> float:
        """Seconds between two events that are over."""
        return last - first


def serve(work_of: WorkOf) -> None:
    """Answer the cases on stdin, each with the mean seconds of its work and the peak memory so far in bytes.

    Work is done once, or again and again for 0.1 s. A line that is as the last one goes on with the same networks.
    """
    last, work, device = "", None, Device()
    for line in sys.stdin:
        if line != last:
            last, work = line, work_of(json.loads(line))
        times, start = 0, time.perf_counter()
        while not times or time.perf_counter() - start < 0.1:
            work()
            times += 1
        seconds = (time.perf_counter() - start) / times
        print(json.dumps({"seconds": seconds, "memory": device.used()}), flush=True)


def serve_once(device_of: Callable[[Case], Device], work_of: WorkOf) -> None:
    """Answer the case on stdin with what `timed` finds, or with {"failed": why, "traceback": ...}."""
    answers = os.fdopen(os.dup(1), "w")
    # what libraries print is no answer
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    case = json.loads(sys.stdin.readline())
    try:
        answer = timed(case, device_of(case), work_of)
    except Exception as error:
        answer = {"failed": reason(error), "traceback": traceback.format_exc()}
    print(json.dumps(answer), file=answers, flush=True)


def timed(case: Case, device: Device, work_of: WorkOf) -> Dict[str, Any]:
    """Do the work of a case `warm_up` times, then `times` times between two synchronisations of the device.

    Gives, for one time, "seconds" of the clock, "device" seconds by events on the device, and "host" seconds until it
    had been given all of the work; "memory" in bytes that the device has in use more than before.
    """
    before = device.used()
    work = work_of(case)
    for _ in range(case["warm_up"]):
        work()
    device.synchronize()
    start, first = time.perf_counter(), device.record()
    for _ in range(case["times"]):
        work()
    last, given = device.record(), time.perf_counter()
    device.synchronize()
    end = time.perf_counter()
    spans = {"seconds": end - start, "device": device.elapsed(first, last), "host": given - start}
    found = {name: span / case["times"] for name, span in spans.items()}
    return {**found, "memory": device.used() - before, "reserved": device.reserved(), "about": device.about}


def reason(error: Exception) -> str:
    """Why work could not be done, in a line."""
    if isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)):
        return OUT_OF_MEMORY
    lines = str(error).strip().split("\n")
    # the last one is the cause where NNabla says it, below function and source file
    return f"{type(error).__name__}: {lines[-1]}"
