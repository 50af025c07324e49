# SPDX-License-Identifier: Apache-2.0
"""Features of NNabla's pretrained Inception-v3, for FID and KID; its weights are used if present, never downloaded.

It is NNabla's ImageNet model, not the network of published FIDs: its figures can be compared with each other, but not
with those of papers.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import List, Optional, Sequence

import nnabla as nn
import numpy as np
from nnabla.models.imagenet import InceptionV3
from nnabla.utils.nnp_graph import NnpLoader
from PIL import Image

from common.errors import UserError
from data import pictures

SIZE = (299, 299)
BATCH = 8
# where nnabla.models.imagenet.InceptionV3() stores its download
DEFAULT = Path("~/nnabla_data/nnp_models/imagenet/Inception-v3.nnp")
HOW_TO_GET = (
    f"FID and KID are left out: there is no {DEFAULT}. To have them, on a machine with a network: "
    "python -c 'from nnabla.models.imagenet import InceptionV3; InceptionV3()'; or give its file by --inception"
)


class LocalInceptionV3(InceptionV3):
    """NNabla's Inception-v3 from a .nnp file.

    Raises:
        UserError: where the file is not that model.
    """

    def __init__(self, path: Path) -> None:
        # not super().__init__(), which would download the file
        try:
            self.nnp = NnpLoader(str(path))
            self._x = nn.Variable((BATCH, 3, *SIZE))
            self._pooled = self(self._x, use_up_to="pool", force_global_pooling=True)
        except Exception as error:  # a broken archive raises anything from BadZipFile to AssertionError
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"{path} is not NNabla's Inception-v3 ({reason}); download it again") from None

    def features(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Pooled features (N, 2048) of pictures (H, W, 3) uint8, which are resized to 299x299."""
        features: List[np.ndarray] = []
        for start in range(0, len(images), BATCH):
            batch = [np.asarray(pictures.resized(Image.fromarray(i), SIZE)) for i in images[start : start + BATCH]]
            padding = [batch[-1]] * (BATCH - len(batch))
            self._x.d = np.stack([*batch, *padding]).transpose(0, 3, 1, 2)
            self._pooled.forward(clear_buffer=True)
            features.append(self._pooled.d.reshape(BATCH, -1)[: len(batch)].copy())
        return np.concatenate(features)


def find(path: str | None) -> Optional[Path]:
    """The file of weights: `path`, or NNabla's default place; if there is none, print how to get it and return None.

    Raises:
        UserError: where `path` is given and there is no such file.
    """
    if path is not None and not Path(path).is_file():
        raise UserError(f"no file {path} (--inception)")
    # not Path.expanduser and Path.is_file, which raise where there is no home, or none that may be read
    weights = os.path.expanduser(DEFAULT if path is None else path)
    if os.path.isfile(weights):
        return Path(weights)
    print(HOW_TO_GET)
    return None


def load(weights: Optional[Path], is_required: bool) -> Optional[LocalInceptionV3]:
    """The network with the `weights` that `find` found, None for None.

    Raises:
        UserError: where the file is not that model and `is_required`; otherwise that is printed, and None returned.
    """
    if weights is None:
        return None
    try:
        return LocalInceptionV3(weights)
    except UserError as error:
        if is_required:
            raise
        print(f"FID and KID are left out: {error}")
        return None
