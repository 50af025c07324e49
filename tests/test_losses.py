# SPDX-License-Identifier: Apache-2.0
"""The losses against NumPy in float64, and their gradients against finite differences."""

from __future__ import annotations

import nnabla as nn
import numpy as np
import pytest

from losses import context_preserving_loss, lsgan_loss, set_l1_loss, vacated_region_loss

HEIGHT, WIDTH = 5, 4
COUNTS = [(1,), (3,), (2, 1), (1, 2, 1)]


def draw(counts, seed=0):
    """Two pictures with masks (x, a), (y, b) for each of `counts`, and the membership."""
    rng = np.random.default_rng(seed)
    membership = np.zeros((len(counts), sum(counts)))
    membership[np.repeat(np.arange(len(counts)), counts), np.arange(sum(counts))] = 1
    x, y = rng.uniform(-1, 1, (2, len(counts), 3, HEIGHT, WIDTH))
    # mostly outside the instances, so that pixels are covered not at all, in part, and more than once
    a, b = np.clip(rng.uniform(-2.5, 1, (2, sum(counts), 1, HEIGHT, WIDTH)), -1, 1)
    return x, a, y, b, membership


def variables(*arrays, need_grad=False):
    result = [nn.Variable(v.shape, need_grad=need_grad) for v in arrays]
    for variable, value in zip(result, arrays):
        variable.d = value
    return result


def forward(loss):
    assert loss.shape == ()
    loss.forward()
    return float(loss.d)


def np_set_l1(x, a, y, b, membership, slots):
    """The mean over all channels of every picture, its masks padded to `slots` with empty ones on both sides."""
    means = []
    for i, row in enumerate(membership):
        pad = -np.ones((slots - int(row.sum()), HEIGHT, WIDTH))
        one, other = (np.concatenate([p[i], m[row > 0, 0], pad]) for p, m in ((x, a), (y, b)))
        means.append(np.abs(one - other).mean())
    return np.mean(means)


def np_context(x, a, y, b, membership):
    means = []
    for i, row in enumerate(membership):
        mine = np.concatenate([a[row > 0, 0], b[row > 0, 0]])
        weight = 1 - np.clip(((mine + 1) / 2).sum(axis=0), 0, 1)
        means.append((weight * np.abs(x[i] - y[i])).mean())
    return np.mean(means)


@pytest.mark.parametrize("target", [1.0, 0.0])
def test_lsgan(target):
    score = np.random.default_rng(0).normal(size=(2, 1, 4, 3))
    want = ((score - target) ** 2).mean()
    assert forward(lsgan_loss(*variables(score), target)) == pytest.approx(want, rel=1e-5)
    (given,) = variables(np.full((1, 1, 1, 1), target))
    assert forward(lsgan_loss(*variables(score), given)) == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("counts", COUNTS)
def test_set_l1(counts):
    x, a, y, b, membership = draw(counts)
    for slots in (max(counts), max(counts) + 2):
        real, other = variables(x, a), variables(y, b)
        want = np_set_l1(x, a, y, b, membership, slots)
        assert forward(set_l1_loss(real, other, slots)) == pytest.approx(want, rel=1e-5)


def test_empty_slots_count_in_the_mean_of_set_l1():
    """The same with a slot that is left away as with one that is there and empty."""
    x, a, y, b, _ = draw((1,))
    empty = -np.ones((1, 1, HEIGHT, WIDTH))
    without = forward(set_l1_loss(variables(x, a), variables(y, b), 2))
    padded = variables(x, np.concatenate([a, empty])), variables(y, np.concatenate([b, empty]))
    assert forward(set_l1_loss(*padded, 2)) == pytest.approx(without, rel=1e-6)
    assert forward(set_l1_loss(variables(x, a), variables(y, b), 1)) == pytest.approx(without * 5 / 4, rel=1e-5)


def test_without_slots_set_l1_compares_pictures_alone():
    x, a, y, b, _ = draw((2,))
    found = forward(set_l1_loss(variables(x, a), variables(y, b), 0))
    assert found == pytest.approx(np.abs(x - y).mean(), rel=1e-5)


@pytest.mark.parametrize("counts", COUNTS)
def test_context_preserving(counts):
    arrays = draw(counts)
    assert forward(context_preserving_loss(*variables(*arrays))) == pytest.approx(np_context(*arrays), rel=1e-5)


def test_masks_cover_their_own_picture_only():
    """One picture is covered altogether, the other not at all."""
    x, a, y, b, membership = draw((2, 1))
    a[:2], a[2], b[:] = 1, -1, -1
    want = np.abs(x[1] - y[1]).mean() / 2
    assert forward(context_preserving_loss(*variables(x, a, y, b, membership))) == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("counts", [(2,), (2, 1)])
def test_gradients_of_context_preserving(counts):
    """The gradients of all inputs, b too: a pixel that a mask covers in part costs less if it covers more."""
    arrays = list(draw(counts, seed=1))
    inputs = [*variables(*arrays[:4], need_grad=True), *variables(arrays[4])]
    loss = context_preserving_loss(*inputs)
    for v in inputs[:4]:
        v.grad.zero()
    loss.forward()
    loss.backward()
    step = 1e-6
    for which, array in enumerate(arrays[:4]):
        want = np.zeros_like(array)
        for index in np.ndindex(array.shape):
            values = []
            for sign in (1, -1):
                moved = [v.copy() for v in arrays]
                moved[which][index] += sign * step
                values.append(np_context(*moved))
            want[index] = (values[0] - values[1]) / (2 * step)
        # where the sum of the masks is next to 1, or a mask at the end of its range, both sides differ
        smooth = np.ones(array.shape, bool)
        if which in (1, 3):
            cover = ((arrays[1] + arrays[3] + 2) / 2).reshape(len(arrays[1]), -1)
            total = arrays[4].T @ (arrays[4] @ cover)
            smooth = np.abs(total - 1).reshape(array.shape) > 1e-3
            # a sum of 0 is the other end of the clip
            smooth &= total.reshape(array.shape) > 1e-3
            assert (want[smooth] < 0).any()
            assert (want[smooth] == 0).any()
        np.testing.assert_allclose(inputs[which].g[smooth], want[smooth], rtol=1e-3, atol=1e-6)


def test_gradient_of_set_l1():
    x, a, y, b, _ = draw((2, 1), seed=2)
    real, other = variables(x, a, need_grad=True), variables(y, b, need_grad=True)
    loss = set_l1_loss(real, other, 4)
    for v in (*real, *other):
        v.grad.zero()
    loss.forward()
    loss.backward()
    # of the mean over two pictures of seven channels
    share = 1 / (2 * 7 * HEIGHT * WIDTH)
    for variable, one, two in ((real[0], x, y), (real[1], a, b), (other[0], y, x), (other[1], b, a)):
        # where both are the same the loss has a corner, and any gradient between these two is one
        apart = one != two
        assert apart.mean() > 0.5
        np.testing.assert_allclose(variable.g[apart], (np.sign(one - two) * share)[apart], rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("counts", COUNTS)
def test_a_vacated_region_trains_the_picture_alone(counts):
    """Its values are checked in test_train.py. It is linear in y, so that large steps give exact differences."""
    x, _, y, b, membership = draw(counts)
    a = -np.ones_like(b)
    a[:, :, 1:4, :2] = 1
    # new masks that cover a tenth, since those that cover half of a pixel have it
    b = 0.1 * (b + 1) - 1
    inputs = variables(x, a, y, b, need_grad=True)
    loss = vacated_region_loss(*inputs, *variables(membership))
    for variable in inputs:
        variable.grad.zero()
    loss.forward()
    loss.backward(clear_buffer=False)
    assert all((variable.g == 0).all() for variable in (inputs[1], inputs[3]))
    got = inputs[2].g.copy()
    assert (got != 0).any()
    start = inputs[2].d.copy()
    for index in zip(*np.nonzero(np.random.default_rng(1).random(y.shape) < 0.2)):
        moved = []
        for step in (-1e-3, 1e-3):
            inputs[2].d = start
            inputs[2].d[index] += step
            moved.append(forward(loss))
        assert (moved[1] - moved[0]) / 2e-3 == pytest.approx(got[index], abs=1e-3)


def test_a_picture_that_is_all_instance_has_no_surroundings():
    x, a, y, b, membership = draw((1,))
    loss = vacated_region_loss(*variables(x, np.ones_like(a), y, -np.ones_like(b), membership))
    assert forward(loss) == 0
