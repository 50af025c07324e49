# SPDX-License-Identifier: Apache-2.0
"""The classifier on features: a logistic regression at its optimum, an honest accuracy; and the store of features."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize

from common.errors import UserError
from metrics import feature_classifier
from metrics.distances import Features
from metrics.feature_classifier import FeatureClassifier, cross_validated_accuracy, fit, loss
from metrics.features import FeatureStore


class Means:
    """Replaces the network: its features are the mean colours of a picture, then zeros. It counts its pictures."""

    def __init__(self):
        self.seen = 0

    def features(self, images):
        self.seen += len(images)
        found = np.zeros((len(images), 1280), np.float32)
        if images:
            found[:, :3] = [image.mean(axis=(0, 1)) for image in images]
        return found


def samples(shift, count=30, seed=0, size=7):
    return np.random.default_rng(seed).normal(shift, 1, (count, size))


def test_the_gradient_is_that_of_finite_differences():
    rng = np.random.default_rng(0)
    x, signs, shares = rng.normal(size=(12, 5)), np.repeat([-1.0, 1.0], 6), np.full(12, 1 / 12)
    wb = rng.normal(size=6)
    gradient = loss(wb, x, signs, shares)[1]
    expected = optimize.approx_fprime(wb, lambda wb: loss(wb, x, signs, shares)[0], 1e-7)
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


def test_the_fit_is_where_newtons_method_ends():
    """Against Newton steps with the Hessian, on the standardized features; few of A and many of B count the same."""
    a, b = samples(0, 10), samples(0.7, 40, seed=1)
    regression = fit(a, b)
    x = (np.concatenate([a, b]) - regression.mean) / regression.deviation
    x = np.column_stack([x, np.ones(50)])
    y, shares = np.repeat([0, 1], [10, 40]), np.repeat([0.05, 0.0125], [10, 40])
    decay = np.diag([feature_classifier.DECAY] * 7 + [0])
    wb = np.zeros(8)
    for _ in range(30):
        p = 1 / (1 + np.exp(-x @ wb))
        wb -= np.linalg.solve((x.T * (shares * p * (1 - p))) @ x + decay, x.T @ (shares * (p - y)) + decay @ wb)
    np.testing.assert_allclose([*regression.w, regression.b], wb, atol=1e-4)


def test_both_domains_count_the_same_in_the_standardization():
    """A domain whose samples are repeated is the same distribution, so the classifier stays the same."""
    a, b = samples(0, 10), samples(0.7, 12, seed=1)
    once, often = fit(a, b), fit(a, np.tile(b, (5, 1)))
    np.testing.assert_allclose(often.mean, (a.mean(axis=0) + b.mean(axis=0)) / 2)
    np.testing.assert_allclose(often.deviation, once.deviation)
    np.testing.assert_allclose(often.logits(a), once.logits(a), atol=1e-3)


def test_accuracy_is_measured_on_pictures_that_were_not_learned_from():
    """Each picture has a feature of its own, which tells nothing about others: no better than chance."""
    own = np.eye(40).repeat(3, axis=0)
    owner = np.arange(20).repeat(3)
    a, b = Features(own[:60], owner), Features(own[60:], owner)
    regression = fit(a.values, b.values)
    assert (regression.logits(a.values) < 0).all() and (regression.logits(b.values) > 0).all()
    assert cross_validated_accuracy(a, b) == pytest.approx(0.5)


def test_accuracy_of_gaussians_is_that_of_the_best_rule():
    """The best rule is right as often as a normal variable is below half of the distance of the means."""
    count, shift = 400, 0.6
    a, b = (Features(samples(m, count, seed), np.arange(count)) for seed, m in enumerate((0, shift)))
    # seven features: the means are 0.6 sqrt(7) apart, and a normal variable is below 0.794 with 78.6 %
    assert cross_validated_accuracy(a, b) == pytest.approx(0.786, abs=0.04)


def test_it_learns_from_pictures_and_recognizes_others(tmp_path):
    rng = np.random.default_rng(0)
    store = FeatureStore(Means(), tmp_path / "features.npy")

    def images(colour):
        return np.clip(rng.normal(colour, 20, (12, 4, 4, 3)), 0, 255).astype(np.uint8)

    red, blue = images((200, 50, 50)), images((50, 50, 200))
    numbers = np.arange(12)
    classifier = FeatureClassifier(store, Features(store.of(red), numbers), Features(store.of(blue), numbers))
    assert classifier.accuracy == 1
    assert (classifier.probability(images((200, 50, 50))) < 0.3).all()
    assert (classifier.probability(images((50, 50, 200))) > 0.7).all()


def test_too_few_pictures_are_refused():
    one = Features(np.zeros((3, 4)), np.zeros(3))
    with pytest.raises(UserError, match="2 training pictures"):
        FeatureClassifier(None, one, Features(np.zeros((3, 4)), np.arange(3)))


def pictures_of(seed, count=3):
    return list(np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), np.uint8))


def test_features_are_computed_once_and_kept_in_a_file(tmp_path):
    images = pictures_of(0)
    store = FeatureStore(Means(), tmp_path / "features.npy")
    expected = store.of([*images, images[0]])
    assert store.network.seen == 3
    np.testing.assert_array_equal(expected[3], expected[0])
    np.testing.assert_array_equal(expected[:3], Means().features(images))
    store.save()
    again = FeatureStore(Means(), tmp_path / "features.npy")
    np.testing.assert_array_equal(again.of(images[::-1]), expected[2::-1])
    assert again.network.seen == 0
    again.of(pictures_of(1))
    assert again.network.seen == 3


def test_a_damaged_file_only_costs_the_computing(tmp_path, capsys):
    path = tmp_path / "features.npy"
    for content in (b"", b"no features", b"\x93NUMPY"):
        path.write_bytes(content)
        store = FeatureStore(Means(), path)
        assert "features.npy is damaged" in capsys.readouterr().out
        store.of(pictures_of(0))
        store.save()
        assert len(np.load(path)) == 3
    of_nan = np.load(path)
    of_nan["features"][1, 5] = np.nan
    archive = tmp_path / "archive.npz"
    np.savez(archive, of_nan)
    for content in (of_nan, np.zeros(4), archive.read_bytes(), b"PK\x03\x04 no archive"):
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            np.save(path, content)
        FeatureStore(Means(), path)
        assert "damaged" in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_is_reported(tmp_path, capsys):
    store = FeatureStore(Means(), tmp_path / "absent" / "features.npy")
    store.of(pictures_of(0))
    store.save()
    assert "not kept" in capsys.readouterr().out
