# SPDX-License-Identifier: Apache-2.0
"""The losses of iterations until they are read and passed to the monitors."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Dict, List, Tuple

import nnabla as nn
import numpy as np

from backend import arrays
from backend.processes import Processes
from training.divergence import check_finite
from training.monitors import Monitors


class StepLosses:
    """The losses of one iteration, weighted as in the total; on the device until they are `read`."""

    def __init__(self) -> None:
        self._passes: List[Dict[str, List[Tuple[float, nn.NdArray]]]] = []

    def begin_pass(self) -> None:
        """Put the losses that follow down to the next pass."""
        self._passes.append(defaultdict(list))

    def add(self, name: str, share: float, value: nn.NdArray) -> None:
        """Take a loss of this pass, or a term of it; `share` is its part in the mean over all processes."""
        self._passes[-1][name].append((share, value))

    def read(self, processes: Processes) -> Dict[str, float]:
        """Return each loss: its mean over the passes in which it existed. Waits for the device."""
        names = [name for losses in self._passes for name in losses]
        if not names:
            return {}
        sums = [
            sum(share * float(arrays.read(value)) for share, value in terms)
            for losses in self._passes
            for terms in losses.values()
        ]
        by_name: Dict[str, List[float]] = defaultdict(list)
        for name, value in zip(names, processes.total(np.array(sums))):
            by_name[name].append(value)
        return {name: float(np.mean(values)) for name, values in by_name.items()}


@dataclass(frozen=True)
class Iteration:
    """An iteration that has been started: its number, the names of each domain's pictures in it, and its losses."""

    number: int
    names: Dict[str, List[str]]
    losses: StepLosses


class PendingLosses:
    """The losses of the iterations since the last `read`, on their way to the monitors.

    A GPU is not waited for in each iteration, so a loss may turn out to be NaN some iterations later. `suspect` is the
    iteration that is blamed for a divergence.
    """

    def __init__(self, monitors: Monitors, processes: Processes) -> None:
        self._monitors = monitors
        self._processes = processes
        self._unread: List[Iteration] = []
        self.suspect = Iteration(0, {}, StepLosses())

    def start(self, number: int, names: Dict[str, List[str]]) -> None:
        """Note the iteration that is started now."""
        self.suspect = Iteration(number, names, StepLosses())

    def add(self, losses: StepLosses) -> None:
        """Take the losses of the iteration that was started last."""
        self._unread.append(replace(self.suspect, losses=losses))

    def read(self) -> Dict[str, float]:
        """Read all losses since the last call, pass them to the monitors, and return the newest.

        Raises:
            Diverged: where one is NaN or infinite.
        """
        losses: Dict[str, float] = {}
        for iteration in self._unread:
            self.suspect = iteration
            losses = iteration.losses.read(self._processes)
            check_finite(losses)
            if self._processes.rank == 0:
                self._monitors.add(iteration.number, losses)
        self._unread.clear()
        return losses

    def check_parameters(self, number: int, parameters: Dict[str, np.ndarray]) -> None:
        """Raise Diverged where a parameter, or a moment of Adam, is not finite after `number` iterations.

        That number is reported; the pictures are those of the last iteration.
        """
        self.suspect = replace(self.suspect, number=number)
        check_finite(parameters)
