# SPDX-License-Identifier: Apache-2.0
"""Dynamic loss scaling for half precision (Micikevicius et al., Mixed Precision Training, 2018)."""

from __future__ import annotations

from typing import Any, Dict, Sequence

import nnabla as nn
import nnabla.functions as F
import nnabla.solvers as S
import numpy as np

from backend import arrays, reductions
from backend.precision import is_half

START = 2.0**13  # small networks overflow at once with 2^17
INTERVAL = 2000  # updates without an overflow until the scale doubles


class LossScale:
    """The factor on a loss while its gradients are computed in half precision; they are divided by it again.

    Half has no number between 0 and 6e-8, where most gradients of these losses are, and none above 65504. So the
    factor doubles after `INTERVAL` updates without an overflow, and is halved upon one; that update is then done
    again. `value` stays 1 where training is in float32. `clean` counts the updates since the last change.
    """

    def __init__(self) -> None:
        self.value = START if is_half() else 1.0
        self.clean = 0

    def unscale_and_adapt(self, solvers: Sequence[S.Solver], gradients: Sequence[nn.NdArray]) -> bool:
        """Divide the gradients by the scale, and adapt it. Returns False where they overflowed; compute them again.

        Raises:
            ArithmeticError: where no factor helps.
        """
        if not is_half():
            return True
        if not _finite(gradients):
            self.value /= 2
            self.clean = 0
            if self.value < 1:
                raise ArithmeticError("gradients are NaN or infinite at every loss scale")
            return False
        for solver in solvers:
            solver.scale_grad(1 / self.value)
        self.clean += 1
        if self.clean == INTERVAL:
            self.value *= 2
            self.clean = 0
        return True

    def state(self) -> Dict[str, Any]:
        """The scale as plain values that JSON can hold."""
        return {"value": self.value, "clean": self.clean}

    def set_state(self, state: Dict[str, Any]) -> None:
        """Go on from a `state()`.

        Raises:
            KeyError, TypeError or ValueError: where it is not one.
        """
        self.value = float(state["value"])
        self.clean = int(state["clean"])


def _finite(gradients: Sequence[nn.NdArray]) -> bool:
    """Return whether all numbers are finite. Waits for the device once; NNabla's own check does for each array."""
    sums = F.stack(*[reductions.total(gradient) for gradient in gradients])
    return bool(np.isfinite(arrays.read(sums)).all())
