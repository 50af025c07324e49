# SPDX-License-Identifier: Apache-2.0
"""Adam for networks that are updated together, with what half precision and several processes add to it."""

from __future__ import annotations

import operator
from typing import Any, Callable, Dict, List, Sequence, Tuple, TypeVar

import nnabla as nn
import nnabla.solvers as S
import numpy as np

from backend import arrays, kernels
from backend.processes import Processes
from training.loss_scale import LossScale
from training.step_losses import Diverged

Result = TypeVar("Result")
# runs functions without arguments, one after another or at the same time, and returns their results in order
RunAll = Callable[[Sequence[Callable[[], Any]]], List[Any]]


class Optimizer:
    """Adam on the parameters of `networks`, which exist in NNabla's current scope.

    In half precision the loss is scaled (`LossScale`), and with several `processes` the gradients are added up over
    all of them; otherwise both do nothing.
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
        self.solvers: Dict[str, S.Solver] = {}
        adam = kernels.Adam if kernels.active() else S.Adam
        for network in networks:
            with nn.parameter_scope(network):
                self.parameters[network] = nn.get_parameters()
            self.solvers[network] = adam(learning_rate, *betas)
            self.solvers[network].set_parameters(self.parameters[network])
        self._gradients = [p.grad for parameters in self.parameters.values() for p in parameters.values()]
        self._processes = processes
        self._run_all = run_all

    def step(self, backward: Callable[[float], Result]) -> Result:
        """Take one step. `backward(scale)` adds `scale` times the gradients of the loss; its result is returned.

        In half precision it is called again with a smaller scale as long as the gradients overflow.

        Raises:
            Diverged: where they overflow at every scale.
        """
        solvers = list(self.solvers.values())
        while True:
            for solver in solvers:
                solver.zero_grad()
            result = backward(self.scale.value)
            self._processes.add_up(self._gradients)
            try:
                if self.scale.unscale(solvers, self._gradients):
                    break
            except ArithmeticError as error:
                raise Diverged(f"{self.name}: {error}") from error
        self._run_all([solver.update for solver in solvers])
        return result

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
