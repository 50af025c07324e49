# SPDX-License-Identifier: Apache-2.0
"""Adam for networks that are updated together, with what half precision and several processes add to it."""

from __future__ import annotations

import operator
from typing import Any, Callable, Dict, List, Sequence, Tuple, Union

import nnabla as nn
import nnabla.solvers as S
import numpy as np

from backend import arrays, kernels
from backend.processes import Processes
from training.divergence import Diverged
from training.loss_scale import LossScale

# The CPU kernels' Adam has as much of the interface of NNabla's as training in float32 needs.
Adam = Union[S.Solver, kernels.Adam]
# runs functions without arguments, one after another or at the same time, and returns their results in order
RunAll = Callable[[Sequence[Callable[[], Any]]], List[Any]]


class Optimizer:
    """Adam on the parameters of `networks`, which exist in NNabla's current scope.

        while True:
            optimizer.zero_grad()
            ...  # add `optimizer.loss_scale` times the gradients of the loss
            if optimizer.update():
                break

    In float32 the loss scale is 1 and the first update succeeds. With several `processes` the gradients are added up
    over all of them. `run_all` runs the updates of several networks.
    """

    def __init__(
        self,
        name: str,
        networks: Sequence[str],
        learning_rate: float,
        betas: Tuple[float, float],
        processes: Processes,
        run_all: RunAll,
    ) -> None:
        self.name = name
        self.scale = LossScale()
        self.parameters: Dict[str, Dict[str, nn.Variable]] = {}
        self.solvers: Dict[str, Adam] = {}
        adam = kernels.Adam if kernels.active() else S.Adam
        for network in networks:
            with nn.parameter_scope(network):
                self.parameters[network] = nn.get_parameters()
            self.solvers[network] = adam(learning_rate, *betas)
            self.solvers[network].set_parameters(self.parameters[network])
        self._gradients = [p.grad for parameters in self.parameters.values() for p in parameters.values()]
        self._processes = processes
        self._run_all = run_all

    @property
    def loss_scale(self) -> float:
        """The factor on the loss: 1 except in half precision (see `LossScale`)."""
        return self.scale.value

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for solver in self.solvers.values():
            solver.zero_grad()

    def update(self) -> bool:
        """Take one step. Returns False where gradients overflowed in half precision: try again, at a smaller scale.

        Raises:
            Diverged: where they overflow at every scale.
        """
        # before checking for an overflow, so that all processes come to the same decision
        self._processes.add_up(self._gradients)
        solvers = list(self.solvers.values())
        try:
            if not self.scale.unscale_and_adapt(solvers, self._gradients):
                return False
        except ArithmeticError as error:
            raise Diverged(f"{self.name}: {error}") from error
        self._run_all([solver.update for solver in solvers])
        return True

    def set_learning_rate(self, rate: float) -> None:
        """Take steps of this size from here on."""
        for solver in self.solvers.values():
            solver.set_learning_rate(rate)

    def state(self) -> Tuple[Dict[str, np.ndarray], Dict[str, int]]:
        """Adam's moments as NETWORK/PARAMETER/{mean,var}, and the number of updates of each NETWORK/PARAMETER."""
        moments: Dict[str, np.ndarray] = {}
        updates: Dict[str, int] = {}
        for network, solver in self.solvers.items():
            for parameter, state in solver.get_states().items():
                name = f"{network}/{parameter}"
                updates[name] = state.t
                for kind, moment in state.pstate.items():
                    moments[f"{name}/{kind}"] = arrays.read(moment.data)
        return moments, updates

    def set_state(self, moments: Dict[str, np.ndarray], updates: Dict[str, int]) -> None:
        """Go on from a `state()`.

        Raises:
            KeyError, TypeError or ValueError: where it is the state of other networks.
        """
        for network, solver in self.solvers.items():
            states = solver.get_states()
            for parameter, state in states.items():
                name = f"{network}/{parameter}"
                state.t = operator.index(updates[name])
                for kind, moment in state.pstate.items():
                    values = moments[f"{name}/{kind}"]
                    if values.shape != moment.shape:
                        raise ValueError(f"{kind} of {name} is {values.shape}, not {moment.shape}")
                    moment.d = values
            solver.set_states(states)
