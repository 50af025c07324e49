# SPDX-License-Identifier: Apache-2.0
"""One of several processes on a CPU, joined by sockets.

    python -m tests.helpers.several_processes SOCKET RANK SIZE ARGUMENTS...

ARGUMENTS are those of `train.py`, or `steps FILE`, which trains on noise and writes losses and parameters to FILE.npz.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import suppress
from multiprocessing.connection import Client, Listener
from pathlib import Path
from typing import List

import nnabla as nn
import numpy as np

import train
from args import train_args
from backend import kernels, processes
from backend.context import set_context
from common.errors import run_main
from data.loader import Sample
from instagan import InstaGAN
from tests.helpers.scripts import DEADLINE
from training.data_parallel import exchange
from training.settings import Settings
from translation.sequence import Batch

HEIGHT, WIDTH = 12, 16
# instances of x and of y in each of four pictures; with two in a pass some have one pass, some two, one has none
COUNTS = {"x": [3, 1, 2, 2], "y": [1, 4, 0, 1]}
FLAGS = f"--loadSizeH {HEIGHT} --loadSizeW {WIDTH} --fineSizeH {HEIGHT} --fineSizeW {WIDTH} --n-layers-D 1".split()
FLAGS += "--ngf 2 --ndf 2 --n-blocks 1 --pool-size 50".split()


class SocketCommunicator:
    """The methods of `nnabla.communicators.MultiProcessDataParallelCommunicator` that are used, with their signatures.

    Everything goes through the process of rank 0, which adds up in the order of ranks.
    """

    def __init__(self, socket: str, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        if rank == 0:
            with Listener(socket, "AF_UNIX") as listener:
                self._others = dict(sorted((c.recv(), c) for c in (listener.accept() for _ in range(size - 1))))
            return
        deadline = time.monotonic() + DEADLINE
        while not hasattr(self, "_first"):
            assert time.monotonic() < deadline
            # the process of rank 0 may be a little behind
            with suppress(OSError):
                self._first = Client(socket, "AF_UNIX")
            time.sleep(0.01)
        self._first.send(rank)

    def all_reduce(
        self, data: List[nn.NdArray], division: bool = False, inplace: bool = False, group: str = "world"
    ) -> None:
        """Replace each array by its sum over the processes."""
        assert type(data) is list and not division
        for array, total in zip(data, self._exchange([np.array(a.data, np.float32) for a in data], sum_up)):
            array.data = total

    def all_gather(self, ndarray: nn.NdArray, ndarray_list: List[nn.NdArray], group: str = "world") -> None:
        """Put the array of each process into `ndarray_list`, by rank."""
        for array, values in zip(ndarray_list, self._exchange(ndarray.data.tobytes(), list)):
            assert len(values) == 4 * array.size
            array.data = np.frombuffer(values, np.float32)

    def abort(self) -> None:
        """Report the call; the real one ends all processes."""
        print("the communicator is aborted", file=sys.stderr)

    def _exchange(self, mine, combine):
        if self.rank:
            self._first.send(mine)
            return self._first.recv()
        result = combine([mine, *(other.recv() for other in self._others.values())])
        for other in self._others.values():
            other.send(result)
        return result


def sum_up(parts: List[List[np.ndarray]]) -> List[np.ndarray]:
    """Sums over processes of each array."""
    return [np.sum(arrays, axis=0) for arrays in zip(*parts)]


def sample(instances: int, seed: int) -> Sample:
    """A picture of noise with N `instances`."""
    random = np.random.default_rng([seed, instances])
    masks = -np.ones((instances, HEIGHT, WIDTH), np.float32)
    for i in range(instances):
        masks[i, 2 * i : 2 * i + 3, 1 : 12 - 2 * i] = 1
    return Sample(str(seed), random.uniform(-1, 1, (3, HEIGHT, WIDTH)).astype(np.float32), masks)


def steps(joined: processes.Processes, file: Path) -> None:
    """Train two iterations, each on four pictures of each domain, split among the processes."""
    set_context("cpu")
    kernels.configure("nnabla")
    each = 4 // joined.size
    model, losses = InstaGAN(Settings.from_args(train_args("", [*FLAGS, "--batch-size", str(each)])), joined), []
    for iteration in range(2):
        batches = {}
        for domain, counts in COUNTS.items():
            own = range(joined.rank * each, (joined.rank + 1) * each)
            samples = [sample(counts[i], 10 * iteration + i + 100 * (domain == "y")) for i in own]
            batches[domain] = Batch.from_samples(samples, model.settings.ins_per)
        _, shares = exchange(joined, 0, batches, model.settings.passes)
        losses.append(model.step(batches, shares).read(joined))
    parameters = {name.replace("/", "."): value for name, value in model.parameters().items()}
    states = model.optimizers["dis_x"].solvers["dis_x"].get_states()
    np.savez(file, losses=json.dumps(losses), updates=next(iter(states.values())).t, **parameters)


def main() -> int:
    """Run the command line."""
    socket, rank, size, *rest = sys.argv[1:]
    joined = processes.Several(SocketCommunicator(socket, int(rank), int(size))) if int(size) > 1 else processes.ALONE
    if rest[0] == "steps":
        steps(joined, Path(rest[1]))
        return 0
    os.environ.update({f"OMPI_COMM_WORLD_{k}": v for k, v in (("SIZE", size), ("RANK", rank), ("LOCAL_RANK", rank))})
    processes.join = lambda: joined
    sys.argv[1:] = rest
    return train.main()


if __name__ == "__main__":
    run_main(main)
