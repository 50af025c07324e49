# SPDX-License-Identifier: Apache-2.0
"""The image pool: D also judges earlier translations (Shrivastava et al., CVPR 2017; used by CycleGAN)."""

from __future__ import annotations

from typing import List

import numpy as np

from translation.sequence import Translated


class ImagePool:
    """Up to `size` earlier translations, each a picture (1, 3, H, W) with its masks (N, 1, H, W).

    There is an entry for each picture and pass, y'_m with b'_1, ..., b'_m, so they differ in their number of masks.
    While it fills, `query` returns its argument. Then, with probability 1/2, it swaps it for a random earlier one.
    With size 0 it always returns its argument.
    """

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        self.size = size
        self.rng = rng
        self.items: List[Translated] = []

    def query(self, item: Translated) -> Translated:
        """Take a translation, and return one for D to judge."""
        if len(self.items) < self.size:
            self.items.append(item)
            return item
        if self.size and self.rng.random() < 0.5:
            index = int(self.rng.integers(self.size))
            item, self.items[index] = self.items[index], item
        return item
