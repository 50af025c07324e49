# SPDX-License-Identifier: Apache-2.0
"""The losses of one iteration, and what it means that they diverge."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Dict, List, Tuple

import nnabla as nn
import numpy as np

from backend import arrays
from backend.processes import Processes


class Diverged(Exception):
    """A loss or a parameter is not a finite number any more; the message says which."""


def check_finite(values: Dict[str, Any]) -> None:
    """Raise Diverged where a number, or one in an array, is NaN or infinite."""
    for name, value in values.items():
        if not np.isfinite(value).all():
            raise Diverged(f"{name} is {value}" if np.ndim(value) == 0 else f"{name} holds NaN or infinity")


class StepLosses:
    """The losses of one iteration, weighted as in the total; on the device until they are `read`."""

    def __init__(self) -> None:
        self._passes: List[Dict[str, List[Tuple[float, nn.NdArray]]]] = []

    def begin_pass(self) -> None:
        """What comes now is of the next pass."""
        self._passes.append(defaultdict(list))

    def add(self, name: str, share: float, value: nn.NdArray) -> None:
        """Take a loss of this pass, or a term of it; `share` is its part in the mean over all processes."""
        self._passes[-1][name].append((share, value))

    def read(self, processes: Processes) -> Dict[str, float]:
        """Each loss: its mean over the passes in which it existed; none without a pass. Waits for the device."""
        if not self._passes:
            return {}
        losses = [loss for losses in self._passes for loss in losses.items()]
        own = [sum(share * float(arrays.read(value)) for share, value in terms) for _, terms in losses]
        seen = defaultdict(list)
        for (name, _), value in zip(losses, processes.total(np.array(own))):
            seen[name].append(value)
        return {name: float(np.mean(values)) for name, values in seen.items()}
