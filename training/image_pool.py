# SPDX-License-Identifier: Apache-2.0
"""The image pool: D is shown earlier translations too (Shrivastava et al., CVPR 2017; used by CycleGAN)."""

from __future__ import annotations

from typing import List

import numpy as np

from translation.sequence import Translated


class ImagePool:
    """Up to `size` earlier translations, each a picture (1, 3, H, W) with its masks (N, 1, H, W).

    While it fills, `query` hands back what it is given. Then, with probability 1/2, it swaps it for a random earlier
    one. Size 0 hands back everything.
    """

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        self.size, self.rng = size, rng
        self.items: List[Translated] = []

    def query(self, item: Translated) -> Translated:
        """Give a translation, get one to show to D."""
        if len(self.items) < self.size:
            self.items.append(item)
            return item
        if self.size and self.rng.random() < 0.5:
            index = int(self.rng.integers(self.size))
            item, self.items[index] = self.items[index], item
        return item
