# SPDX-License-Identifier: Apache-2.0
"""The Adam solver against NNabla's own."""

import nnabla as nn
import nnabla.solvers as S
import numpy as np

from backend import kernels
from tests.helpers.closeness import assert_close


def test_adam_and_its_states_are_those_of_nnabla():
    value = np.random.default_rng(0).normal(size=(300, 301)).astype(np.float32)
    results = []
    for solver in (S.Adam(2e-4, 0.5, 0.999), kernels.Adam(2e-4, 0.5, 0.999)):
        p = nn.Variable(value.shape, need_grad=True)
        rng = np.random.default_rng(1)
        p.d = value
        solver.set_parameters({"p": p})
        for rate in (2e-4, 1e-4, 1e-3):
            solver.zero_grad()
            solver.set_learning_rate(rate)
            p.g = p.g + rng.normal(size=value.shape)
            solver.update()
        state = solver.get_states()["p"]
        assert state.t == 3
        results.append([p.d.copy(), state.pstate["mean"].d.copy(), state.pstate["var"].d.copy()])
    # NNabla takes 1 - beta2 from a float32 beta2, which is off by 1.3e-5
    assert_close(results[1], results[0], 2e-5)
