# SPDX-License-Identifier: Apache-2.0
"""A classifier of the two domains on features of a pretrained network, for the classification score (section 3.2).

The paper trains the last layers of a pretrained VGG on the data set's real pictures. Here the last layer of
EfficientNet-Lite0 is trained, as a logistic regression. `docs/evaluation.md` compares it with other ways.
"""

from __future__ import annotations

from typing import NamedTuple, Tuple

import numpy as np

from common.errors import UserError
from metrics.distances import Features
from metrics.features import FeatureStore

FOLDS = 5  # of the cross-validation
DECAY = 0.1  # of the weights of standardized features


class LogisticRegression(NamedTuple):
    """The probability sigmoid(w . (x - mean) / deviation + b) that features x (D,) are of domain B."""

    w: np.ndarray
    b: float
    mean: np.ndarray
    deviation: np.ndarray

    def logits(self, x: np.ndarray) -> np.ndarray:
        """The logarithm of the odds (N,) of features (N, D)."""
        return (x - self.mean) / self.deviation @ self.w + self.b


class FeatureClassifier:
    """Distinguishes domain B (1) from domain A (0) by the features of `store`, learned from those of real pictures.

    `accuracy` is measured by cross-validation over pictures, as the mean over both domains: all that is of one picture
    is learned from, or held out.

    Raises:
        UserError: where a domain has too few pictures to learn from some and hold out others.
    """

    def __init__(self, store: FeatureStore, a: Features, b: Features) -> None:
        if min(a.pictures, b.pictures) < 2:
            raise UserError("a classifier needs at least 2 training pictures with masks of each domain")
        self._store = store
        self._regression = fit(a.values, b.values)
        self.accuracy = cross_validated_accuracy(a, b)

    def probability(self, images: np.ndarray) -> np.ndarray:
        """The probability (N,) that each image (N, H, W, 3) uint8 is of domain B."""
        return _sigmoid(self._regression.logits(self._store.of(images)))


def cross_validated_accuracy(a: Features, b: Features) -> float:
    """The share that is classified rightly without being learned from: the mean over both domains.

    A fold is a block of neighbouring pictures, which may show the same people.
    """
    blocks = [_blocks(features) for features in (a, b)]
    right: Tuple[list, list] = ([], [])
    for fold in range(FOLDS):
        held_out = [of_domain == fold for of_domain in blocks]
        regression = fit(a.values[~held_out[0]], b.values[~held_out[1]])
        right[0].append(regression.logits(a.values[held_out[0]]) <= 0)
        right[1].append(regression.logits(b.values[held_out[1]]) > 0)
    return float(np.mean([np.concatenate(of_domain).mean() for of_domain in right]))


def _blocks(features: Features) -> np.ndarray:
    """The fold (N,) that each feature is held out in."""
    _, rank = np.unique(features.of_picture, return_inverse=True)
    return rank * FOLDS // features.pictures


def fit(a: np.ndarray, b: np.ndarray) -> LogisticRegression:
    """Learn from features (M, D) of domain A and (N, D) of domain B, which count the same however many there are."""
    # slow to import
    from scipy import optimize

    x = np.concatenate([a, b]).astype(np.float64)
    signs = np.repeat([-1.0, 1.0], [len(a), len(b)])
    shares = np.repeat([0.5 / len(a), 0.5 / len(b)], [len(a), len(b)])
    mean = shares @ x
    deviation = np.sqrt(shares @ (x - mean) ** 2) + 1e-6
    x = (x - mean) / deviation
    start = np.zeros(x.shape[1] + 1)
    options = {"maxiter": 1000, "gtol": 1e-6, "ftol": 1e-12}
    found = optimize.minimize(loss, start, (x, signs, shares), "L-BFGS-B", jac=True, options=options)
    return LogisticRegression(found.x[:-1], float(found.x[-1]), mean, deviation)


def loss(wb: np.ndarray, x: np.ndarray, signs: np.ndarray, shares: np.ndarray) -> Tuple[float, np.ndarray]:
    """The logistic loss of samples x (N, D) with the weight decay, and its gradient by the weights and bias (D + 1,).

    `signs` (N,) are -1 for domain A and 1 for B, `shares` (N,) the weights of the samples, which add up to 1.
    """
    w = wb[:-1]
    margins = signs * (x @ w + wb[-1])
    slopes = -signs * shares * _sigmoid(-margins)
    value = shares @ np.logaddexp(0, -margins) + DECAY / 2 * w @ w
    return value, np.append(x.T @ slopes + DECAY * w, slopes.sum())


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(logits, -500, 500)))
