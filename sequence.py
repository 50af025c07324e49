# SPDX-License-Identifier: Apache-2.0
"""The sequential mini-batch: the instances of a picture are translated a few at a time (paper, section 2.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Sequence, Tuple

import numpy as np

import instances


@dataclass(frozen=True)
class MiniBatch:
    """What one pass works on: the pictures that still have instances, and the next few of these.

    `pictures` (B, 3, H, W) are the results of the pass before; `masks` (M, 1, H, W) with `membership` (B, M) are the
    instances of this pass, `earlier` (P, 1, H, W) with `earlier_membership` (B, P) the masks that earlier passes
    gave (P is 0 in the first pass).
    """

    pictures: np.ndarray
    masks: np.ndarray
    membership: np.ndarray
    earlier: np.ndarray
    earlier_membership: np.ndarray


class SequentialTranslation:
    """How far a batch of pictures has come. `pictures` and `translated` are the results so far.

    Give it B pictures (3, H, W) and the masks (N_b, H, W) of each, in the order to translate them; then, as long as
    `remaining`, translate its `mini_batch()` and hand the result to `advance`. With `ins_per` 0 the pictures alone are
    translated, in one pass.
    """

    def __init__(self, pictures: Sequence[np.ndarray], masks: Sequence[np.ndarray], ins_per: int) -> None:
        self.pictures = list(pictures)
        self.translated = [np.zeros((0,) + m.shape[1:], np.float32) for m in masks]
        self._masks = list(masks)
        self._passes = [instances.mini_batches(len(m), ins_per) for m in masks]
        self._pass = 0

    @property
    def remaining(self) -> List[int]:
        """Indices of the pictures that have an instance left."""
        return [i for i, passes in enumerate(self._passes) if self._pass < len(passes)]

    def mini_batch(self) -> MiniBatch:
        """The next pass's input; call it only while `remaining`."""
        who = self.remaining
        masks, membership = instances.pack([self._masks[i][self._passes[i][self._pass]] for i in who])
        earlier, earlier_membership = instances.pack([self.translated[i] for i in who])
        if self._pass == 0:
            earlier, earlier_membership = earlier[:0], earlier_membership[:, :0]
        return MiniBatch(np.stack([self.pictures[i] for i in who]), masks, membership, earlier, earlier_membership)

    def advance(self, pictures: np.ndarray, masks: np.ndarray, membership: np.ndarray) -> List[Tuple]:
        """Take over a pass's results y' (B, 3, H, W) and b' (M, 1, H, W).

        Returns for each of its pictures the translation so far, (picture, masks), which is what D judges.
        """
        who = self.remaining
        for i, picture, own in zip(who, pictures, instances.unpack(masks, membership)):
            self.pictures[i] = picture
            # where there was no instance, `pack` had put in an empty mask
            count = len(self._masks[i][self._passes[i][self._pass]])
            self.translated[i] = np.concatenate([self.translated[i], own[:count]])
        self._pass += 1
        return [(self.pictures[i], self.translated[i]) for i in who]
