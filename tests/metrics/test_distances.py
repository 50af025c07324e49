# SPDX-License-Identifier: Apache-2.0
"""Distances by features, against closed forms of Gaussians and sums over all pairs; and what their intervals cover."""

from __future__ import annotations

import numpy as np
import pytest

from metrics import distances
from metrics.distances import Features

D = 24


def features(values, of_picture=None):
    return Features(np.asarray(values, np.float32), np.arange(len(values)) if of_picture is None else of_picture)


def gaussians(shift, seed=1):
    """Mean and standard deviation of two Gaussians of D independent features."""
    rng = np.random.default_rng(seed)
    mean = np.abs(rng.normal(0.4, 0.3, D))
    deviation = 1 / np.sqrt(np.arange(1, D + 1))
    return (mean, deviation), (mean + shift * rng.normal(size=D), deviation * (1 + shift))


def drawn(gaussian, count, rng):
    mean, deviation = gaussian
    return features(mean + rng.normal(size=(count, D)) * deviation)


def true_frechet(one, other):
    return ((one[0] - other[0]) ** 2).sum() + ((one[1] - other[1]) ** 2).sum()


def true_kernel(one, other):
    """E k(x, x') + E k(y, y') - 2 E k(x, y), by the moments of a product of two Gaussian vectors."""

    def mean_kernel(m, s, n, t):
        c, d = np.diag(s**2), np.diag(t**2)
        first = m @ n
        second = ((c + np.outer(m, m)) * (d + np.outer(n, n))).sum()
        third = first**3 + 3 * first * (m @ d @ m + n @ c @ n + (c * d).sum()) + 6 * m @ d @ c @ n
        return 1 + 3 * first / D + 3 * second / D**2 + third / D**3

    return mean_kernel(*one, *one) + mean_kernel(*other, *other) - 2 * mean_kernel(*one, *other)


@pytest.mark.parametrize("shift", [0, 0.2])
def test_of_many_samples_distances_are_those_of_the_gaussians(monkeypatch, shift):
    monkeypatch.setattr(distances, "DRAWS", 10)
    one, other = gaussians(shift)
    rng = np.random.default_rng(0)
    sets = drawn(one, 1000, rng), drawn(other, 1000, rng)
    assert distances.diagonal_frechet(*sets).value == pytest.approx(true_frechet(one, other), rel=0.15, abs=0.02)
    assert distances.kernel(*sets, rng).value == pytest.approx(true_kernel(one, other), rel=0.15, abs=0.003)


@pytest.mark.parametrize("shift", [0, 0.1, 0.3])
def test_of_few_samples_they_are_unbiased_and_their_intervals_cover(monkeypatch, shift):
    monkeypatch.setattr(distances, "DRAWS", 200)
    one, other = gaussians(shift)
    rng = np.random.default_rng(0)
    truths = true_frechet(one, other), true_kernel(one, other)
    estimates = []
    for _ in range(150):
        sets = drawn(one, 16, rng), drawn(other, 60, rng)
        estimates.append((distances.diagonal_frechet(*sets), distances.kernel(*sets, rng)))
    for truth, of_metric in zip(truths, zip(*estimates)):
        values = np.array([estimate.value for estimate in of_metric])
        # the mean of 150 is known up to its standard error; the plain distance is off by many times as much
        assert abs(values.mean() - truth) < 4 * values.std() / 150**0.5 + 0.01
        # 95 %, and the deviation of a share of 150
        assert np.mean([estimate.low <= truth <= estimate.high for estimate in of_metric]) > 0.88


def test_the_plain_frechet_distance_is_biased_by_more():
    """Of sets of the same distribution, whose distance is 0."""
    one, _ = gaussians(0)
    rng = np.random.default_rng(0)
    plain, corrected = [], []
    for _ in range(50):
        sets = drawn(one, 16, rng), drawn(one, 60, rng)
        x, y = (features_.values for features_ in sets)
        plain.append(((x.mean(0) - y.mean(0)) ** 2).sum() + ((x.std(0, ddof=1) - y.std(0, ddof=1)) ** 2).sum())
        corrected.append(distances.diagonal_frechet(*sets).value)
    assert np.mean(plain) > 0.3 > 5 * abs(np.mean(corrected))


def test_the_jackknife_is_that_of_leaving_pictures_out():
    """Against the definition, computed for each picture from the start; pictures have several crops."""
    rng = np.random.default_rng(0)
    owners = [np.repeat(np.arange(count), rng.integers(1, 4, count)) for count in (6, 9)]
    one, other = (features(rng.normal(3, 1, (len(owner), 5)), owner) for owner in owners)

    def plain(x, y):
        return ((x.mean(0) - y.mean(0)) ** 2 + (x.std(0, ddof=1) - y.std(0, ddof=1)) ** 2).sum()

    x, y = (f.values.astype(np.float64) for f in (one, other))
    without_x = np.array([plain(x[owners[0] != i], y) for i in range(6)])
    without_y = np.array([plain(x, y[owners[1] != i]) for i in range(9)])
    value = plain(x, y) - 5 * (without_x.mean() - plain(x, y)) - 8 * (without_y.mean() - plain(x, y))
    estimate = distances.diagonal_frechet(one, other)
    assert estimate.value == pytest.approx(value)
    error = (5 * without_x.var() + 8 * without_y.var()) ** 0.5
    # Student's t with 5 degrees of freedom
    assert estimate.high - estimate.value == pytest.approx(2.570582 * error) == estimate.value - estimate.low


def test_the_kernel_distance_is_the_sum_over_pairs_of_different_pictures():
    rng = np.random.default_rng(0)
    owners = np.array([0, 0, 1, 2, 2]), np.array([0, 1, 1, 2])
    x, y = rng.normal(size=(5, 3)), rng.normal(0.5, 1, (4, 3))

    def k(one, other):
        return (one @ other / 3 + 1) ** 3

    def within(values, owner):
        pairs = [(i, j) for i in range(len(values)) for j in range(len(values)) if owner[i] != owner[j]]
        return np.mean([k(values[i], values[j]) for i, j in pairs])

    expected = within(x, owners[0]) + within(y, owners[1]) - 2 * np.mean([[k(a, b) for b in y] for a in x])
    sets = Features(x, owners[0]), Features(y, owners[1])
    assert distances.kernel(*sets, rng).value == pytest.approx(expected)


def test_a_distance_does_not_depend_on_which_set_comes_first():
    one, other = gaussians(0.2)
    rng = np.random.default_rng(0)
    x, y = drawn(one, 10, rng), drawn(other, 20, rng)
    assert distances.diagonal_frechet(x, y).value == pytest.approx(distances.diagonal_frechet(y, x).value)
    assert distances.kernel(x, y, rng).value == pytest.approx(distances.kernel(y, x, rng).value)


def test_more_pictures_give_narrower_intervals():
    one, other = gaussians(0.2)
    rng = np.random.default_rng(0)
    few, many = (
        (distances.diagonal_frechet(*sets), distances.kernel(*sets, rng))
        for sets in ((drawn(one, count, rng), drawn(other, count, rng)) for count in (10, 160))
    )
    for narrow, wide in zip(many, few):
        assert narrow.high - narrow.low < (wide.high - wide.low) / 2


def test_three_pictures_are_enough():
    one, other = gaussians(0)
    rng = np.random.default_rng(0)
    sets = drawn(one, 3, rng), drawn(other, 3, rng)
    assert np.isfinite([*distances.diagonal_frechet(*sets), *distances.kernel(*sets, rng)]).all()


# between two pictures


def maps(seed):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(6, 8, 8)), rng.normal(size=(10, 4, 4))]


def test_opposite_features_have_the_distance_4_and_the_same_0():
    """|u - (-u)|^2 of a vector of length 1."""
    one, everywhere = maps(0), np.ones((16, 16), bool)
    assert distances.between_maps(one, one, everywhere) == 0
    assert distances.between_maps(one, [-features for features in one], everywhere) == pytest.approx(4)
    assert distances.between_maps(one, [3 * features for features in one], everywhere) == pytest.approx(0)


def test_places_count_by_their_share():
    one, other = maps(0), maps(0)
    for features_ in other:
        features_[:, :, : features_.shape[2] // 2] *= -1  # the left half is opposite
    where = np.ones((16, 16), bool)
    assert distances.between_maps(one, other, where) == pytest.approx(2)
    where[:, :8] = False
    assert distances.between_maps(one, other, where) == 0
    where[:, 4:8] = True
    # a third of what counts
    assert distances.between_maps(one, other, where) == pytest.approx(4 / 3, rel=1e-5)
    assert distances.between_maps(one, other, np.zeros((16, 16), bool)) is None
