# SPDX-License-Identifier: Apache-2.0
"""One process, or the several that `mpirun -n 4 python train.py ...` starts, with a GPU each.

Each of N processes trains on its own pictures of every batch. They add up their gradients, and train as one process
does on a batch N times as large: all of them have the same weights after each update.
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

# Environment variables that Open MPI's mpirun sets for each process (NNabla works with Open MPI only).
_SIZE = "OMPI_COMM_WORLD_SIZE"
_RANK = "OMPI_COMM_WORLD_RANK"
_LOCAL_RANK = "OMPI_COMM_WORLD_LOCAL_RANK"  # among the processes of this machine
_FLOAT_BYTES = 4


class Processes:
    """The processes that train together: here, a single one.

    All processes must call `add_up`, `total` and `gather` together.
    """

    rank = 0
    size = 1

    def add_up(self, gradients: Sequence[nn.NdArray]) -> None:
        """Replace each array by its sum over the processes."""

    def total(self, values: np.ndarray) -> np.ndarray:
        """Return the sum of `values` over the processes; as float32 where there are several."""
        return np.asarray(values)

    def gather(self, data: bytes) -> List[bytes]:
        """Return the `data` of each process, by rank."""
        return [data]

    def fail(self) -> None:
        """End the other processes when this one ends, which is about to: they would wait for it forever."""


class Several(Processes):
    """Several processes, joined by an initialised communicator of NNabla or an object with the same methods."""

    def __init__(self, communicator: Any) -> None:
        self._communicator = communicator
        self.rank = communicator.rank
        self.size = communicator.size

    def add_up(self, gradients: Sequence[nn.NdArray]) -> None:
        """Replace each array by its sum over the processes."""
        self._communicator.all_reduce(list(gradients), division=False, inplace=False)

    def total(self, values: np.ndarray) -> np.ndarray:
        """Return the sum of `values` over the processes, as float32."""
        array = arrays.upload(np.asarray(values))
        self.add_up([array])
        return arrays.read(array)

    def gather(self, data: bytes) -> List[bytes]:
        """Return the `data` of each process, by rank."""
        # lengths go in two parts, since float32 represents whole numbers exactly only up to 24 bits
        high, low = divmod(len(data), 1 << 20)
        highs = self.total(by_rank(self, high))
        lows = self.total(by_rank(self, low))
        lengths = [(int(high) << 20) + int(low) for high, low in zip(highs, lows)]
        floats = -(-max(lengths) // _FLOAT_BYTES)
        padded = data.ljust(floats * _FLOAT_BYTES, b"\0")
        gathered = [nn.NdArray((floats,)) for _ in lengths]
        self._communicator.all_gather(arrays.upload(np.frombuffer(padded, np.float32)), gathered)
        return [arrays.read(array).tobytes()[:length] for array, length in zip(gathered, lengths)]

    def fail(self) -> None:
        """End the other processes when this one ends, which is about to: they would wait for it forever."""
        # at exit, so that the error is printed first
        atexit.register(self._communicator.abort)


ALONE = Processes()


def by_rank(joined: Processes, value: float) -> np.ndarray:
    """Return (size,) with `value` at this process's rank, else 0: added up, each process's value by rank."""
    values = np.zeros(joined.size)
    values[joined.rank] = value
    return values


def count() -> int:
    """Return the number of processes that mpirun has started; 1 without mpirun."""
    size = os.environ.get(_SIZE, "")
    return int(size) if size.isdigit() else 1


def leads() -> bool:
    """Return whether this process is the one that checks, prints and writes for all."""
    return count() == 1 or os.environ.get(_RANK, "0") == "0"


def take_place(args: argparse.Namespace) -> None:
    """Prepare one of several processes that mpirun has started.

    Each computes on the GPU of its local rank, in place of `args.device_id`. Only the first one prints, apart from
    errors.
    """
    if count() > 1:
        args.device_id = os.environ.get(_LOCAL_RANK, "0")
        if not leads():
            sys.stdout = open(os.devnull, "w")


def join() -> Processes:
    """Join the other processes, if there are any; the default context must be set before.

    Raises:
        UserError: where there are several but they cannot be joined.
    """
    if count() == 1:
        return ALONE
    if arrays.on_cpu():
        raise UserError(f"mpirun has started {count()} processes, and each needs a GPU; on a CPU start one, without it")
    import nnabla.communicators as C

    try:
        # in float, whatever layers compute in: with a half context it would add up gradients in half
        single = get_extension_context("cudnn", device_id=nn.get_current_context().device_id)
        communicator = C.MultiProcessDataParallelCommunicator(single)
        communicator.init()
    except Exception as error:  # NNabla's own errors, where it finds no NCCL or MPI
        needs = "that takes NCCL and Open MPI's libmpi.so, see README, GPUs"
        raise UserError(f"the {count()} processes cannot be joined; {needs} ({cause_of(error)})") from error
    return Several(communicator)
