# SPDX-License-Identifier: Apache-2.0
"""The threads that compute: how many, work in pieces on all of them, and two training tasks side by side.

Two threads may train side by side (`side_by_side`); each is called a lane. NNabla is used by the lane that holds
`_NNABLA`; without it a lane works on addresses only, with primitives and scratch memory that no other thread uses.
Both lanes may add to the same gradients, which they do under `GRADIENTS`. A thread that takes both locks takes
`_NNABLA` first.
"""

from __future__ import annotations

import ctypes
import os
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from functools import lru_cache
from typing import Any, Callable, List, Sequence

# floats that one thread works on at a time: a few such arrays fit into the cache of a core
_PIECE = 1 << 15

# held by the lane that uses NNabla, which is not made for more than one thread
_NNABLA = threading.Lock()
# held while something is added to the gradient of a parameter, which layers of both lanes may share
GRADIENTS = threading.Lock()


class _Team(threading.local):
    """The threads that kernels called from this one may use (0: not known yet), and whether it is a lane."""

    size = 0
    is_lane = False


TEAM = _Team()


class per_thread(threading.local):
    """A decorator that caches a function's results for each thread separately.

    For primitives, which hold the addresses that they work on.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._cached = lru_cache(maxsize=None)(function)

    def __call__(self, *key: Any) -> Any:
        """Return this thread's result for these arguments."""
        return self._cached(*key)


def count() -> int:
    """Return a lane's share of the threads, elsewhere as many as OpenMP takes.

    That is OMP_NUM_THREADS, or one for each core that the process may use.
    """
    if not TEAM.size:
        requested = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
        TEAM.size = max(1, int(requested)) if requested.isdigit() else len(os.sched_getaffinity(0))
    return TEAM.size


def is_long(products: int) -> bool:
    """Return whether this many multiply-adds (about 0.4 ms on one thread) justify releasing a lock."""
    return products > 15_000_000


@lru_cache(maxsize=None)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(len(os.sched_getaffinity(0)))


def in_pieces(work: Callable[[slice], None], length: int, width: int = 1) -> None:
    """Call `work` on slices of range(`length`) on all threads.

    An index stands for `width` floats; a slice is small enough for the cache. NumPy releases the interpreter lock
    while it computes. The slices do not depend on the number of threads.
    """
    step = max(1, _PIECE // width)
    pieces = [slice(start, min(start + step, length)) for start in range(0, length, step)]
    share = -(-len(pieces) // count())

    def run(some: List[slice]) -> None:
        for piece in some:
            work(piece)

    others = [_pool().submit(run, pieces[i : i + share]) for i in range(share, len(pieces), share)]
    run(pieces[:share])
    for other in others:
        other.result()


class outside_nnabla:
    """A `with` block in which a lane uses addresses only: if its work is long, the other lane may use NNabla."""

    def __init__(self, products: int) -> None:
        self._releases = TEAM.is_lane and is_long(products)

    def __enter__(self) -> None:
        if self._releases:
            _NNABLA.release()

    def __exit__(self, *_: Any) -> None:
        if self._releases:
            _NNABLA.acquire()


@lru_cache(maxsize=None)
def _lanes() -> List[ThreadPoolExecutor]:
    shares = [(count() + 1) // 2, count() // 2]
    return [ThreadPoolExecutor(1, initializer=_become_lane, initargs=(share,)) for share in shares]


def _become_lane(threads: int) -> None:
    TEAM.size = threads
    TEAM.is_lane = True
    ctypes.CDLL("libgomp.so.1").omp_set_num_threads(threads)


def side_by_side(tasks: Sequence[Callable[[], Any]]) -> List[Any]:
    """Run one or two tasks that use NNabla, at the same time where possible, and return their results in order.

    Two tasks on half of the threads each are faster than one after the other on all of them: Python and NNabla run
    on one thread between the kernels, and the other task computes meanwhile. NNabla is not made for two threads, so
    a task has it to itself until one of the kernels here runs. The tasks may read the same parameters and add to
    the same gradients, each of them once: a sum of two terms does not depend on their order.
    Not to be nested. Measured on 2 cores only.
    """
    if len(tasks) < 2 or count() < 2:
        return in_turn(tasks)

    def run(task: Callable[[], Any]) -> Any:
        with _NNABLA:
            return task()

    running = [lane.submit(run, task) for lane, task in zip(_lanes(), tasks)]
    wait(running)
    return [future.result() for future in running]


def in_turn(tasks: Sequence[Callable[[], Any]]) -> List[Any]:
    """Run the tasks one after the other, and return their results in order."""
    return [task() for task in tasks]
