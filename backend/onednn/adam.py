# SPDX-License-Identifier: Apache-2.0
"""The Adam solver by NumPy on all threads, with NNabla's interface."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Dict, List

import nnabla as nn
import numpy as np

from backend.onednn.memory import view
from backend.onednn.threads import in_pieces, outside_nnabla

_EPS = 1e-8


@dataclass
class AdamState:
    """The moments of one parameter, "mean" and "var", and its number of updates."""

    pstate: Dict[str, nn.Variable]
    t: int = 0


class Adam:
    """`nnabla.solvers.Adam` (alpha, beta1, beta2; eps 1e-8), as far as training needs it."""

    def __init__(self, alpha: float, beta1: float, beta2: float) -> None:
        self._alpha = alpha
        self._beta1 = beta1
        self._beta2 = beta2
        self._parameters: Dict[str, nn.Variable] = {}
        self._states: Dict[str, AdamState] = {}

    def set_parameters(self, parameters: Dict[str, nn.Variable]) -> None:
        """Add parameters to train."""
        self._parameters.update(parameters)
        for name, parameter in parameters.items():
            moments = {kind: nn.Variable(parameter.shape) for kind in ("mean", "var")}
            for moment in moments.values():
                moment.data.zero()
            self._states[name] = AdamState(moments)

    def get_states(self) -> Dict[str, AdamState]:
        """Return the state of each parameter."""
        return dict(self._states)

    def set_states(self, states: Dict[str, AdamState]) -> None:
        """Go on from these states."""
        self._states.update(states)

    def set_learning_rate(self, rate: float) -> None:
        """Set the size of the steps from here on."""
        self._alpha = rate

    def learning_rate(self) -> float:
        """Return the size of the steps."""
        return self._alpha

    def zero_grad(self) -> None:
        """Set the gradients to zero."""
        for parameter in self._parameters.values():
            parameter.grad.zero()

    def update(self) -> None:
        """Take a step."""
        context = nn.get_current_context()
        for name, parameter in self._parameters.items():
            state = self._states[name]
            state.t += 1
            correction = np.sqrt(1 - self._beta2**state.t)
            rate = self._alpha * correction / (1 - self._beta1**state.t)
            eps = _EPS * correction
            arrays = (parameter.data, parameter.grad, state.pstate["mean"].data, state.pstate["var"].data)
            flat = [view(array.data_ptr(np.float32, context), (parameter.size,)) for array in arrays]
            with outside_nnabla(50 * parameter.size):
                in_pieces(partial(self._step, flat, rate, eps), parameter.size)

    def _step(self, arrays: List[np.ndarray], rate: float, eps: float, piece: slice) -> None:
        """Update a piece of `arrays`: a parameter, its gradient, and its two moments."""
        theta, gradient, m, v = (array[piece] for array in arrays)
        work = gradient * np.float32(1 - self._beta1)
        m *= np.float32(self._beta1)
        m += work
        np.multiply(gradient, gradient, out=work)
        work *= np.float32(1 - self._beta2)
        v *= np.float32(self._beta2)
        v += work
        np.sqrt(v, out=work)
        work += np.float32(eps)
        np.divide(m, work, out=work)
        work *= np.float32(rate)
        theta -= work
