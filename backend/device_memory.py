# SPDX-License-Identifier: Apache-2.0
"""The memory of the device where NNabla computes, as far as the system reports it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Optional

from backend import arrays

MEMORY_INFO = Path("/proc/meminfo")
PROCESS_STATUS = Path("/proc/self/status")
CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")


def free() -> Optional[int]:
    """Return the bytes that this process can still take on the device; None where that is not known."""
    return _free_for_cpu() if arrays.on_cpu() else _free_on_gpu()


def used() -> int:
    """Return the bytes that this process takes on the device; 0 on a GPU, and where that is not known."""
    return (_kilobytes(PROCESS_STATUS, "VmRSS") or 0) if arrays.on_cpu() else 0


def _free_for_cpu() -> Optional[int]:
    available = _kilobytes(MEMORY_INFO, "MemAvailable")
    limit = _text(CONTAINER_LIMIT).strip()
    if available is None or not limit.isdigit():
        # "max" is no limit
        return available
    return min(available, max(0, int(limit) - used()))


def _free_on_gpu() -> Optional[int]:
    try:
        from nnabla_ext.cuda.init import get_device_memory_size

        free_bytes, _ = get_device_memory_size()
    except (ImportError, RuntimeError):
        return None
    return free_bytes


def _kilobytes(path: Path, name: str) -> Optional[int]:
    """The bytes in a line "NAME: 123 kB" of a file of /proc; None where there is no such line."""
    match = re.search(rf"^{name}:\s+(\d+) kB$", _text(path), re.MULTILINE)
    return int(match[1]) << 10 if match else None


def _text(path: Path) -> str:
    """The text of a file of the system; empty where there is none, as on Windows."""
    try:
        return path.read_text()
    except OSError:
        return ""
