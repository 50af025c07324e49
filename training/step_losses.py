# SPDX-License-Identifier: Apache-2.0
"""The losses of iterations until they are read and passed to the monitors."""

from __future__ import annotations

from collections import defaultdict
from typing import Dict, List, Tuple

import nnabla as nn
import numpy as np

from backend import arrays
from backend.processes import Processes
from training.divergence import Iteration, check_finite
from training.monitors import Monitors


class StepLosses:
    """The losses of one iteration, weighted as in the total; on the device until they are `read`."""

    def __init__(self) -> None:
        self._passes: List[Dict[str, List[Tuple[float, nn.NdArray]]]] = []

    def begin_pass(self) -> None:
        """Start collecting the losses of the next pass."""
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


class PendingLosses:
    """The losses of the iterations since the last `read`, on their way to the monitors.

    A GPU is not waited for in each iteration, so a loss may turn out to be NaN some iterations later.
    """

    def __init__(self, monitors: Monitors, processes: Processes) -> None:
        self._monitors = monitors
        self._processes = processes
        self._unread: List[Tuple[Iteration, StepLosses]] = []

    def add(self, iteration: Iteration, losses: StepLosses) -> None:
        """Take the losses of an iteration; they may still be being computed."""
        self._unread.append((iteration, losses))

    def read(self) -> Dict[str, float]:
        """Read all losses since the last call, pass them to the monitors, and return the newest.

        Raises:
            Diverged: where one is NaN or infinite, with its iteration.
        """
        values: Dict[str, float] = {}
        for iteration, losses in self._unread:
            values = losses.read(self._processes)
            check_finite(values, iteration)
            if self._processes.rank == 0:
                self._monitors.add(iteration.number, values)
        self._unread.clear()
        return values
