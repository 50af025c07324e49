# SPDX-License-Identifier: Apache-2.0
"""EfficientNet-Lite0's features of pictures, computed once each, and kept in a file for the next evaluation."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import Dict, Sequence

import numpy as np

from common import files
from metrics import efficientnet_lite0
from metrics.efficientnet_lite0 import FEATURES, EfficientNetLite0

_ROW = np.dtype([("digest", "S32"), ("features", "<f4", (FEATURES,))])


class FeatureStore:
    """The features of pictures that were asked for before, by a digest of their pixels.

    `save` writes them to `path` (.npy), from which the next store reads them. A damaged file, or one that cannot be
    written, is reported, and only costs the computing again.
    """

    def __init__(self, network: EfficientNetLite0, path: Path) -> None:
        self.network = network
        self._path = path
        self._stored = _read(path)
        self._saved = len(self._stored)

    def of(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """The features (N, 1280) of one picture (H, W, 3) uint8 or more."""
        digests = [_digest(image) for image in images]
        missing = {digest: image for digest, image in zip(digests, images) if digest not in self._stored}
        self._stored.update(zip(missing, self.network.features(list(missing.values()))))
        return np.stack([self._stored[digest] for digest in digests])

    def save(self) -> None:
        """Write all features so far, if there are any that the file does not have."""
        if len(self._stored) == self._saved:
            return
        rows = np.array(list(self._stored.items()), _ROW)
        try:
            with files.replacing(self._path) as part:
                np.save(part, rows)
            self._saved = len(self._stored)
        except OSError as error:
            print(f"the features of the training pictures are not kept: {self._path}: {error.strerror}")


def _read(path: Path) -> Dict[bytes, np.ndarray]:
    """The contents of a store's file; empty where there is none, or a damaged one."""
    if not path.is_file():
        return {}
    try:
        rows = np.load(path, allow_pickle=False)
        if rows.dtype != _ROW or rows.ndim != 1:
            raise ValueError
        if not np.isfinite(rows["features"]).all():
            raise ValueError
        return dict(zip(rows["digest"].tolist(), rows["features"]))
    except (OSError, ValueError, EOFError, SyntaxError, AttributeError, zipfile.BadZipFile):
        print(f"{path} is damaged: the features of the training pictures are computed again")
        return {}


def _digest(image: np.ndarray) -> bytes:
    """32 characters that stand for a picture and for the way it is put into the network."""
    way = (efficientnet_lite0.SIZE, efficientnet_lite0.MEAN, efficientnet_lite0.DEVIATION, image.shape)
    content = hashlib.sha256(repr(way).encode())
    content.update(np.ascontiguousarray(image))
    return content.hexdigest()[:32].encode()
