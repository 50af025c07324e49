# SPDX-License-Identifier: Apache-2.0
"""The choice between NNabla's own CPU kernels and oneDNN's, and the way to the latter.

Only backend imports `backend.onednn`; the rest of the project finds here what it uses of it.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import Any, Callable, List, Optional, Sequence

import threadpoolctl

from backend.arrays import on_cpu
from backend.onednn import library
from backend.onednn.adam import Adam
from backend.onednn.functions import kept_arrays
from backend.onednn.memory import block_size
from backend.onednn.threads import count, in_turn, side_by_side
from common.errors import UserError

__all__ = [
    "Adam",
    "active",
    "configure",
    "in_turn",
    "kept_arrays",
    "lanes",
    "problem",
    "side_by_side",
]


@dataclass
class _Choice:
    """The choice of oneDNN, and the limit on NumPy's threads that goes with it."""

    onednn: bool = False
    blas_limit: Optional[threadpoolctl.threadpool_limits] = None


_choice = _Choice()


def active() -> bool:
    """Return whether new graphs use oneDNN's kernels."""
    return _choice.onednn


def lanes(run_both: Callable[[Sequence[Callable[[], Any]]], List[Any]]) -> int:
    """Return how many tasks `in_turn` or `side_by_side` runs at the same time: 1 or 2."""
    return 2 if run_both is side_by_side and count() > 1 else 1


def configure(choice: str) -> str:
    """Choose the kernels of graphs made from here on: "onednn", "nnabla", or "auto", which takes oneDNN where it works.

    Call it after `set_context`. Returns a sentence for the user, empty where the context is not cpu.

    Raises:
        UserError: where oneDNN is asked for and does not work.
    """
    _choice.onednn = False
    if _choice.blas_limit:
        _choice.blas_limit.restore_original_limits()
    _choice.blas_limit = None
    if not on_cpu():
        if choice == "onednn":
            raise UserError("--cpu-kernels onednn is for --context cpu; leave it out on a GPU")
        return ""
    reason = "as asked" if choice == "nnabla" else problem()
    if choice == "onednn" and reason:
        raise UserError(f"--cpu-kernels onednn does not work here ({reason}); leave it out to use NNabla's own")
    if reason:
        return f"CPU kernels: NNabla's own ({reason})"
    _choice.onednn = True
    # NumPy's products are small here, and the threads that help with them go on to spin for a while, on all cores
    _choice.blas_limit = threadpoolctl.threadpool_limits(limits=1, user_api="blas")
    version = ".".join(map(str, library.library().version))
    return f"CPU kernels: oneDNN {version}, {'AVX-512' if block_size() == 16 else 'AVX2'}"


def problem() -> str:
    """Return the reason why oneDNN does not work here, or an empty string."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return f"oneDNN's kernels are for x86-64 Linux, this is {platform.machine()} {platform.system()}"
    if not library.PATH.exists():
        return "the package onednn-cpu-gomp is not installed in this environment"
    try:
        loaded = library.library()
    except (OSError, RuntimeError) as error:
        hint = "; install libgomp1" if "libgomp" in str(error) else ""
        return f"oneDNN does not load: {error}{hint}"
    if loaded.version[:2] != library.VERSION:
        return f"oneDNN is {loaded.version}, not {library.VERSION}"
    if loaded.isa & library.ISA_AVX2 != library.ISA_AVX2:
        return "the CPU has no AVX2"
    return ""
