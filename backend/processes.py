# SPDX-License-Identifier: Apache-2.0
"""One process, or the several that `mpirun -n 4 python train.py ...` starts, with a GPU each.

Each of N processes trains on its own pictures of every batch. What they add up, gradients above all, makes them the
same as one process on a batch N times as large: the same weights in all of them after each update.
"""

from __future__ import annotations

import argparse
import atexit
import os
import sys
from typing import Any, List, Sequence

import nnabla as nn
import numpy as np
from nnabla.ext_utils import get_extension_context

from backend import arrays
from common.errors import UserError, cause_of

# what Open MPI, the one that NNabla knows, tells the processes that its mpirun starts: how many there are, which one
# it is that is told, and which of those on its machine
_SIZE, _RANK, _LOCAL_RANK = (f"OMPI_COMM_WORLD_{name}" for name in ("SIZE", "RANK", "LOCAL_RANK"))
_WORD = 4  # bytes


class Processes:
    """The processes that train together: here, the only one."""

    rank, size = 0, 1

    def add_up(self, gradients: Sequence[nn.NdArray]) -> None:
        """Make each array the sum of those that the processes have of it. All of them must call it, here and below."""

    def total(self, values: np.ndarray) -> np.ndarray:
        """The sum of what the processes give; as float32 where there are several."""
        return np.asarray(values)

    def gather(self, data: bytes) -> List[bytes]:
        """What each of the processes gives, by rank."""
        return [data]

    def fail(self) -> None:
        """End the other processes when this one ends, which is about to: they would wait for it for ever."""


class Several(Processes):
    """Processes joined by a communicator of NNabla, that is initialised, or by one with the same methods."""

    def __init__(self, communicator: Any) -> None:
        self._communicator = communicator
        self.rank, self.size = communicator.rank, communicator.size

    def add_up(self, gradients: Sequence[nn.NdArray]) -> None:
        """Make each array the sum of those that the processes have of it."""
        self._communicator.all_reduce(list(gradients), division=False, inplace=False)

    def total(self, values: np.ndarray) -> np.ndarray:
        """The sum of what the processes give, as float32."""
        array = arrays.upload(np.asarray(values))
        self.add_up([array])
        return arrays.read(array)

    def gather(self, data: bytes) -> List[bytes]:
        """What each of the processes gives, by rank."""
        # in two parts, since float32 has 24 bits for whole numbers
        lengths = [self.total(by_rank(self, part)) for part in divmod(len(data), 1 << 20)]
        sizes = [(int(high) << 20) + int(low) for high, low in zip(*lengths)]
        padded = data.ljust(-(-max(sizes) // _WORD) * _WORD, b"\0")
        found = [nn.NdArray((len(padded) // _WORD,)) for _ in sizes]
        self._communicator.all_gather(arrays.upload(np.frombuffer(padded, np.float32)), found)
        return [arrays.read(array).tobytes()[:size] for array, size in zip(found, sizes)]

    def fail(self) -> None:
        """End the other processes when this one ends, which is about to: they would wait for it for ever."""
        # not before it has said why
        atexit.register(self._communicator.abort)


ALONE = Processes()


def by_rank(joined: Processes, value: float) -> np.ndarray:
    """What this process adds to a sum (size,) that is to hold a value of each process, by rank."""
    values = np.zeros(joined.size)
    values[joined.rank] = value
    return values


def count() -> int:
    """How many processes mpirun has started; 1 where there was none."""
    told = os.environ.get(_SIZE, "")
    return int(told) if told.isdigit() else 1


def leads() -> bool:
    """Whether this process is the one that checks, prints and writes for all."""
    return count() == 1 or os.environ.get(_RANK, "0") == "0"


def take_place(args: argparse.Namespace) -> None:
    """Be one of the processes that mpirun has started, if there are several: on a GPU of one's own, in place of
    `--device-id`; and without a word, but for errors, since the first one speaks for all."""
    if count() > 1:
        args.device_id = os.environ.get(_LOCAL_RANK, "0")
        if not leads():
            sys.stdout = open(os.devnull, "w")


def join() -> Processes:
    """Meet the other processes, if there are any; the default context must have been set.

    Raises:
        UserError: where there are several but they cannot be joined.
    """
    if count() == 1:
        return ALONE
    if arrays.on_cpu():
        raise UserError(f"mpirun has started {count()} processes, and each needs a GPU; on a CPU start one, without it")
    import nnabla.communicators as C

    try:
        # in float, whatever layers compute in: a communicator of a half context would add up gradients in half
        single = get_extension_context("cudnn", device_id=nn.get_current_context().device_id)
        communicator = C.MultiProcessDataParallelCommunicator(single)
        communicator.init()
    except Exception as error:  # NNabla's own errors, where it finds no NCCL or MPI
        takes = "that takes NCCL and Open MPI's libmpi.so, see README, GPUs"
        raise UserError(f"the {count()} processes cannot be joined; {takes} ({cause_of(error)})") from error
    return Several(communicator)

