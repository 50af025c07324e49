# SPDX-License-Identifier: Apache-2.0
"""Sets of pictures and instance crops as features of EfficientNet-Lite0, and the distances between two such sets."""

from __future__ import annotations

from typing import Any, Dict, List, Sequence

import numpy as np

from metrics import classifier, distances
from metrics.distances import Estimate, Features
from metrics.efficientnet_lite0 import SIZE
from metrics.features import FeatureStore

KINDS = ("pictures", "instances")
LEAST_PICTURES = 3  # of a set, for a distance
LEAST_FOR_INTERVAL = 8  # of a set; of fewer, a bootstrap's interval covers the truth much more rarely than it says

Views = Dict[str, List[np.ndarray]]


class FeatureSet:
    """The features of whole pictures and of the crops around their instances, by kind."""

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        self._values: Dict[str, List[np.ndarray]] = {kind: [] for kind in KINDS}
        self._of_picture: Dict[str, List[int]] = {kind: [] for kind in KINDS}

    def __len__(self) -> int:
        return len(self._values["pictures"])

    def add(self, views: Views) -> None:
        """Add a picture, as `views_of` returns it."""
        number = len(self)
        features = self._store.of([image for kind in KINDS for image in views[kind]])
        for kind in KINDS:
            self._values[kind] += list(features[: len(views[kind])])
            self._of_picture[kind] += [number] * len(views[kind])
            features = features[len(views[kind]) :]

    def of(self, kind: str) -> Features:
        """The features of "pictures" or "instances"."""
        return Features(np.stack(self._values[kind]), np.array(self._of_picture[kind]))


def views_of(picture: np.ndarray, crops: List[np.ndarray]) -> Views:
    """A picture (H, W, 3) uint8 and the crops around its instances as the network sees them."""
    return {"pictures": [classifier.whole(picture, SIZE)], "instances": crops}


def mirrored(views: Views) -> Views:
    """The views of the mirrored picture."""
    return {kind: [image[:, ::-1] for image in images] for kind, images in views.items()}


def together(sets: Sequence[Features]) -> Features:
    """Sets of features of the same pictures, such as the mirrored ones, as one set."""
    return Features(*(np.concatenate(parts) for parts in zip(*sets)))


def distances_between(one: FeatureSet, other: FeatureSet, seed: int) -> Dict[str, Dict[str, Any]]:
    """Frechet and kernel distances by metric, as entries of `Evaluation.overall`: none of fewer than three pictures,
    and no interval of fewer than eight."""
    pictures = min(len(one), len(other))
    if pictures < LEAST_PICTURES:
        return {}
    has_interval = pictures >= LEAST_FOR_INTERVAL
    measured = {}
    for kind in KINDS:
        features = one.of(kind), other.of(kind)
        measured[f"frechet_{kind}"] = _entry(distances.diagonal_frechet(*features), has_interval)
        kernel = distances.kernel(*features, np.random.default_rng(seed))
        measured[f"kernel_{kind}"] = _entry(kernel, has_interval)
    return measured


def _entry(estimate: Estimate, has_interval: bool) -> Dict[str, Any]:
    entry: Dict[str, Any] = {"mean": estimate.value}
    if has_interval:
        entry["interval"] = [estimate.low, estimate.high]
    return entry
