# SPDX-License-Identifier: Apache-2.0
"""The worker process: it reads a case as a line of JSON on stdin, and writes the figures of its work to stdout.

It imports only the standard library, since cpu.py, gpu.py and pytorch_twin.py use it in separate environments.
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
# the messages of CUDA, NNabla, PyTorch, cuDNN and cuBLAS, and C++
_NO_MEMORY = re.compile("out of memory|failed to allocate|allocation failed|ALLOC_FAILED|bad_alloc", re.IGNORECASE)


class Device:
    """The CPU as a device to measure, and the base class of GPUs; `about` holds versions by library."""

    def __init__(self, **about: Any) -> None:
        self.about = about

    def synchronize(self) -> None:
        """Wait until all work is done."""

    def used(self) -> int:
        """The bytes of its memory in use; on the CPU, the process's peak."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def reserved(self) -> Optional[int]:
        """The peak of the bytes that the library has reserved, or None if it does not count them."""
        return None

    def record(self) -> Any:
        """Return an event that is reached once all work submitted so far is done."""
        return time.perf_counter()

    def elapsed(self, first: Any, last: Any) -> float:
        """The seconds between two events that have been reached."""
        return last - first


def serve(work_of: WorkOf) -> None:
    """Answer the cases on stdin, each with the mean seconds of its work and the peak memory so far in bytes.

    Work is done once, or repeatedly for 0.1 s. If a line equals the previous one, its networks are used again.
    """
    device = Device()
    previous = ""
    work = None
    for line in sys.stdin:
        if line != previous:
            previous = line
            work = work_of(json.loads(line))
        times = 0
        start = time.perf_counter()
        while not times or time.perf_counter() - start < 0.1:
            work()
            times += 1
        seconds = (time.perf_counter() - start) / times
        print(json.dumps({"seconds": seconds, "memory": device.used()}), flush=True)


def serve_once(device_of: Callable[[Case], Device], work_of: WorkOf) -> None:
    """Answer the case on stdin with the figures of `timed`, or with {"failed": reason, "traceback": ...}."""
    answers = os.fdopen(os.dup(1), "w")
    # so that output of libraries does not mix with the answer
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    case = json.loads(sys.stdin.readline())
    try:
        answer = timed(case, device_of(case), work_of)
    except Exception as error:
        answer = {"failed": reason(error), "traceback": traceback.format_exc()}
    print(json.dumps(answer), file=answers, flush=True)


def timed(case: Case, device: Device, work_of: WorkOf) -> Dict[str, Any]:
    """Do the work of a case `warm_up` times, then `times` times between two synchronisations of the device.

    Returns, each for one repetition of the work: "seconds" on the clock, "device" seconds between events on the device,
    and "host" seconds until all work was submitted. Further "memory", the bytes in use on the device more than before,
    "reserved" and "about" (see Device).
    """
    before = device.used()
    work = work_of(case)
    for _ in range(case["warm_up"]):
        work()
    device.synchronize()
    start = time.perf_counter()
    first = device.record()
    for _ in range(case["times"]):
        work()
    last = device.record()
    submitted = time.perf_counter()
    device.synchronize()
    end = time.perf_counter()
    return {
        "seconds": (end - start) / case["times"],
        "device": device.elapsed(first, last) / case["times"],
        "host": (submitted - start) / case["times"],
        "memory": device.used() - before,
        "reserved": device.reserved(),
        "about": device.about,
    }


def reason(error: Exception) -> str:
    """Return in one line why work could not be done."""
    if isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)):
        return OUT_OF_MEMORY
    lines = str(error).strip().split("\n")
    # NNabla's messages have the cause in the last line, below function and source file
    return f"{type(error).__name__}: {lines[-1]}"
