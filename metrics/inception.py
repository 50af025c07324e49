# SPDX-License-Identifier: Apache-2.0
"""Features of NNabla's pretrained Inception-v3, for FID and KID; its weights are not fetched, only used where they are.

It is the ImageNet model that NNabla offers, and not the one that published FIDs were computed with, so the figures
can be compared with each other, but not with those of papers.
"""

from __future__ import annotations

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
# where nnabla.models.imagenet.InceptionV3() keeps what it downloads
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
        # the base class would download it
        try:
            self.nnp = NnpLoader(str(path))
            self._x = nn.Variable((BATCH, 3, *SIZE))
            self._pooled = self(self._x, use_up_to="pool", force_global_pooling=True)
        except Exception as error:  # a broken archive shows as anything from BadZipFile to AssertionError
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"{path} is not NNabla's Inception-v3 ({reason}); get it anew") from None

    def features(self, shown: Sequence[np.ndarray]) -> np.ndarray:
        """Pooled features (N, 2048) of pictures (H, W, 3) uint8, which are resized to 299x299."""
        found: List[np.ndarray] = []
        for start in range(0, len(shown), BATCH):
            part = [np.asarray(pictures.resized(Image.fromarray(p), SIZE)) for p in shown[start : start + BATCH]]
            whole = part + [part[-1]] * (BATCH - len(part))
            self._x.d = np.stack(whole).transpose(0, 3, 1, 2)
            self._pooled.forward(clear_buffer=True)
            found.append(self._pooled.d.reshape(BATCH, -1)[: len(part)].copy())
        return np.concatenate(found)


def find(path: str | None) -> Optional[Path]:
    """The file of weights: the one given, or NNabla's own place; None, with a word on how to get it, where it is not.

    Raises:
        UserError: where a file is given and is not there.
    """
    if path is not None and not Path(path).is_file():
        raise UserError(f"no file {path} (--inception)")
    found = Path(path) if path is not None else DEFAULT.expanduser()
    if found.is_file():
        return found
    print(HOW_TO_GET)
    return None
