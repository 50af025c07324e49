# SPDX-License-Identifier: Apache-2.0
"""Two tasks side by side: the numbers of one after the other, the same each time, and errors."""

from functools import partial

import nnabla as nn
import nnabla.functions as F
import numpy as np
import pytest

from backend import layers
from backend.onednn import threads
from tests.helpers.closeness import assert_close


def test_two_tasks_side_by_side_are_as_one_after_the_other():
    """Two graphs that share their weights and add to the same gradients."""
    rng = np.random.default_rng(0)
    w, w2, b, b2 = (nn.Variable(s, need_grad=True) for s in ((32, 32, 3, 3), (32, 32, 3, 3), (32,), (32,)))
    for v in (w, w2, b, b2):
        v.d = rng.normal(size=v.shape) * 0.1
    graphs = []
    for shape in ((1, 32, 48, 48), (9, 32, 24, 16)):
        x = nn.Variable(shape)
        x.d = rng.normal(size=shape)
        h = layers.convolution(x, w, b, reflect=1, activation="relu")
        h = layers.convolution(h, w2, b2, reflect=1, normalize=True, skip=h)
        graphs.append(F.mean(layers.plain(h) ** 2))

    def task(y):
        y.forward(clear_no_need_grad=True)
        value = float(y.d)
        y.backward(clear_buffer=True)
        return value

    results = []
    for run in [threads.in_turn] + [threads.side_by_side] * 20:
        for v in (w, w2, b):
            v.g = 0
        values = run([partial(task, y) for y in graphs])
        results.append((values, w.g.copy(), w2.g.copy(), b.g.copy()))
    alone, together, *others = results
    for values, *gradients in [together, *others]:
        # the kernels of a lane add up in another order than those on all threads
        assert np.allclose(values, alone[0], rtol=1e-6)
        assert_close(gradients, alone[1:], 1e-5)
        assert values == together[0] and all(map(np.array_equal, gradients, together[1:]))


def test_the_error_of_a_task_is_raised_and_the_other_one_is_finished():
    if threads.count() < 2:
        pytest.skip("with one thread, tasks come one after the other")
    done = []

    def fail():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        threads.side_by_side([fail, lambda: done.append(1)])
    assert done == [1]
    assert threads.side_by_side([lambda: 1, lambda: 2]) == [1, 2]
