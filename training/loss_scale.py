# SPDX-License-Identifier: Apache-2.0
"""Dynamic loss scaling for half precision (Micikevicius et al., 2018)."""

from __future__ import annotations

from typing import Any, Dict, Sequence

import nnabla as nn
import nnabla.functions as F
import nnabla.solvers as S
import numpy as np

from backend import arrays
from backend.precision import is_half


class LossScale:
    """The factor by which a loss is multiplied before its gradients are taken in half precision, and they are divided.

    Half knows no number between 0 and 6e-8, where most gradients of these losses are, and none above 65504. So the
    factor doubles after `INTERVAL` updates without an overflow, and is halved upon one; that update is then to be done
    again. `value` is 1, for good, where training is in float32.
    """

    # small networks overflow at once with 2^17
    START, INTERVAL = 2.0**13, 2000

    def __init__(self) -> None:
        self.value, self.clean = (self.START, 0) if is_half() else (1.0, 0)

    def unscale(self, solvers: Sequence[S.Solver], gradients: Sequence[nn.NdArray]) -> bool:
        """Divide the gradients of the solvers' parameters; False where they have overflowed and are to be taken anew.

        Raises:
            ArithmeticError: where no factor helps.
        """
        if not is_half():
            return True
        if not _finite(gradients):
            self.value, self.clean = self.value / 2, 0
            if self.value < 1:
                raise ArithmeticError("gradients are infinite or no numbers, whatever the loss scale")
            return False
        for solver in solvers:
            solver.scale_grad(1 / self.value)
        self.clean += 1
        if self.clean == self.INTERVAL:
            self.value, self.clean = self.value * 2, 0
        return True

    def state(self) -> Dict[str, Any]:
        """As plain values that JSON can hold."""
        return {"value": self.value, "clean": self.clean}

    def set_state(self, state: Dict[str, Any]) -> None:
        """Go on from a `state()`.

        Raises:
            KeyError, TypeError or ValueError: where it is none.
        """
        self.value, self.clean = float(state["value"]), int(state["clean"])


def _finite(gradients: Sequence[nn.NdArray]) -> bool:
    """Whether no number is infinite or none. Waits for the device once; `check_inf_or_nan_grad` does for each array."""
    sums = F.stack(*[F.sum(gradient) for gradient in gradients])
    return bool(np.isfinite(arrays.read(sums)).all())
