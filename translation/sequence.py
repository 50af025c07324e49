# SPDX-License-Identifier: Apache-2.0
"""The sequential mini-batch: the instances of a picture are translated a few at a time (paper, section 2.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Optional, Sequence, Tuple

import nnabla as nn
import numpy as np

from backend import arrays
from data import instances
from data.loader import Sample

Translated = Tuple[nn.NdArray, nn.NdArray]


@dataclass(frozen=True)
class MaskSet:
    """The masks (M, 1, H, W) of some pictures, one picture's after another's, and how many are whose.

    A picture without any has an empty one, since the networks want at least one for each picture.
    """

    masks: nn.NdArray
    counts: Tuple[int, ...]

    @staticmethod
    def upload(sets: Sequence[np.ndarray]) -> MaskSet:
        """Those of B pictures, (N, H, W) each."""
        return MaskSet(arrays.upload(instances.pack(sets)), tuple(max(1, len(s)) for s in sets))

    @staticmethod
    def join(parts: Sequence[nn.NdArray]) -> MaskSet:
        """Those of B pictures, (N, 1, H, W) each, that are there already."""
        return MaskSet(arrays.concatenate(parts), tuple(part.shape[0] for part in parts))

    @property
    def membership(self) -> nn.NdArray:
        """(B, M), see models.py."""
        return arrays.membership(self.counts)


@dataclass(frozen=True)
class MiniBatch:
    """What one pass works on: the pictures that still have instances, and the next few of these.

    `pictures` (B, 3, H, W) are the results of the pass before, `masks` the instances of this pass, `earlier` the
    masks that earlier passes gave (None in the first pass).
    """

    pictures: nn.NdArray
    masks: MaskSet
    earlier: Optional[MaskSet]


class Batch:
    """Pictures of one domain with the masks of their instances, uploaded: as they are, and cut into passes.

    Give it B pictures (3, H, W) and the masks (N_b, H, W) of each, in the order to translate them. `pictures`
    (B, 3, H, W) and `masks` are all of it; pass m works on the pictures `who[m]` and on the instances `passes[m]`,
    at most `ins_per` of each picture. With `ins_per` 0 the pictures alone are translated, in one pass.
    """

    def __init__(self, pictures: Sequence[np.ndarray], masks: Sequence[np.ndarray], ins_per: int) -> None:
        self.pictures, self.masks = arrays.upload(np.stack(pictures)), MaskSet.upload(masks)
        cuts = [instances.mini_batches(len(m), ins_per) for m in masks]
        self.who = [[b for b, own in enumerate(cuts) if i < len(own)] for i in range(max(map(len, cuts)))]
        parts = [[masks[b][cuts[b][i]] for b in who] for i, who in enumerate(self.who)]
        everything = [len(m) for m in masks]
        # where one pass has all of them, they are there already
        whole = [[len(part) for part in own] == everything for own in parts]
        self.passes = [self.masks if all_ else MaskSet.upload(own) for all_, own in zip(whole, parts)]

    @staticmethod
    def of(samples: Sequence[Sample], ins_per: int) -> Batch:
        """The batch of what `data_source` gives."""
        return Batch([s.picture for s in samples], [s.masks for s in samples], ins_per)


class SequentialTranslation:
    """How far a batch of pictures has come.

    As long as pictures are `remaining`, translate its `mini_batch()` and hand the result to `advance`.
    """

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self._pass = 0
        self._pictures, self._who = batch.pictures, list(range(len(batch.masks.counts)))
        self._translated: List[List[nn.NdArray]] = [[] for _ in self._who]

    @property
    def remaining(self) -> List[int]:
        """Indices of the pictures that have an instance left."""
        return self.batch.who[self._pass] if self._pass < len(self.batch.who) else []

    def mini_batch(self) -> MiniBatch:
        """The next pass's input; call it only while `remaining`."""
        who, pictures, earlier = self.remaining, self._pictures, None
        if who != self._who:
            rows = arrays.pieces(pictures, [1] * len(self._who))
            pictures = arrays.concatenate([rows[self._who.index(i)] for i in who])
        if self._pass:
            earlier = MaskSet.join([self._translated[i][0] for i in who])
        return MiniBatch(pictures, self.batch.passes[self._pass], earlier)

    def advance(self, pictures: nn.NdArray, masks: nn.NdArray) -> List[Translated]:
        """Take over a pass's results y' (B, 3, H, W) and b' (M, 1, H, W).

        Returns for each of its pictures the translation so far, (1, 3, H, W) with masks (N, 1, H, W), which is what D
        judges. It is the result where the picture does not remain.
        """
        who, counts = self.remaining, self.batch.passes[self._pass].counts
        for i, own in zip(who, arrays.pieces(masks, counts)):
            self._translated[i] = [arrays.concatenate([*self._translated[i], own])]
        self._pictures, self._who = pictures, who
        self._pass += 1
        rows = arrays.pieces(pictures, [1] * len(who))
        return [(picture, self._translated[i][0]) for i, picture in zip(who, rows)]


class MaskInput:
    """Where masks go in: (M, 1, H, W) with their membership (B, M)."""

    def __init__(self, pictures: int, masks: int, size: Tuple[int, int]) -> None:
        self.masks, self.membership = nn.Variable((masks, 1, *size)), nn.Variable((pictures, masks))

    def put(self, given: MaskSet) -> None:
        """Let the graph work on these."""
        self.masks.data, self.membership.data = given.masks, given.membership
