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

# a picture (1, 3, H, W) with its masks (N, 1, H, W)
Translated = Tuple[nn.NdArray, nn.NdArray]


@dataclass(frozen=True)
class MaskSet:
    """The masks (M, 1, H, W) of several pictures, one picture's after another's, and the number of each picture's.

    A picture without any has an empty one, since the networks want at least one for each picture.
    """

    masks: nn.NdArray
    counts: Tuple[int, ...]

    @staticmethod
    def upload(sets: Sequence[np.ndarray]) -> MaskSet:
        """The masks of B pictures, (N, H, W) each, put where NNabla computes."""
        return MaskSet(arrays.upload(instances.pack(sets)), tuple(max(1, len(s)) for s in sets))

    @staticmethod
    def join(parts: Sequence[nn.NdArray]) -> MaskSet:
        """The masks of B pictures, (N, 1, H, W) each, which are there already."""
        return MaskSet(arrays.concatenate(parts), tuple(part.shape[0] for part in parts))

    @property
    def membership(self) -> nn.NdArray:
        """(B, M), see models.py."""
        return arrays.membership(self.counts)


class MaskInput:
    """The input of a graph for masks: (M, 1, H, W) with their membership (B, M)."""

    def __init__(self, pictures: int, masks: int, size: Tuple[int, int]) -> None:
        self.masks = nn.Variable((masks, 1, *size))
        self.membership = nn.Variable((pictures, masks))

    def put(self, masks: MaskSet) -> None:
        """Let the graph work on these."""
        self.masks.data = masks.masks
        self.membership.data = masks.membership


@dataclass(frozen=True)
class Examples:
    """Pictures (B, 3, H, W) with the masks of their instances, for D to judge."""

    pictures: nn.NdArray
    masks: MaskSet


@dataclass(frozen=True)
class MiniBatch:
    """The input of one pass: the pictures that still have instances, and the next few of these.

    `pictures` (B, 3, H, W) are the results of the pass before, `masks` the instances of this pass, `earlier` the
    masks that earlier passes gave (None in the first pass).
    """

    pictures: nn.NdArray
    masks: MaskSet
    earlier: Optional[MaskSet]


class Batch:
    """Pictures of one domain with the masks of their instances, uploaded: as they are, and cut into passes.

    Give it B pictures (3, H, W) and the masks (N_b, H, W) of each, in the order to translate them. `pictures`
    (B, 3, H, W) and `masks` hold everything; pass m works on the pictures with the indices `members[m]` and on the
    instances `passes[m]`, at most `ins_per` of each picture. With `ins_per` 0 the pictures alone are translated, in
    one pass.
    """

    def __init__(self, pictures: Sequence[np.ndarray], masks: Sequence[np.ndarray], ins_per: int) -> None:
        self.pictures = arrays.upload(np.stack(pictures))
        self.masks = MaskSet.upload(masks)
        cuts = [instances.mini_batches(len(m), ins_per) for m in masks]
        self.members: List[List[int]] = []
        self.passes: List[MaskSet] = []
        for m in range(max(map(len, cuts))):
            members = [b for b, slices in enumerate(cuts) if m < len(slices)]
            parts = [masks[b][cuts[b][m]] for b in members]
            # where one pass has all masks, they are uploaded already
            is_all = [len(part) for part in parts] == [len(all_) for all_ in masks]
            self.members.append(members)
            self.passes.append(self.masks if is_all else MaskSet.upload(parts))

    @staticmethod
    def of(samples: Sequence[Sample], ins_per: int) -> Batch:
        """The batch of samples that the data loader read."""
        return Batch([s.picture for s in samples], [s.masks for s in samples], ins_per)


class SequentialTranslation:
    """The state of a batch of pictures between the passes.

    As long as pictures are `remaining`, translate its `mini_batch()` and hand the result to `advance`.
    """

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self._pass = 0
        self._pictures = batch.pictures
        # the indices of these pictures in the batch
        self._members = list(range(len(batch.masks.counts)))
        # for each picture of the batch the masks so far; none before its first pass
        self._masks: List[Optional[nn.NdArray]] = [None for _ in self._members]

    @property
    def remaining(self) -> List[int]:
        """Indices of the pictures that have an instance left."""
        return self.batch.members[self._pass] if self._pass < len(self.batch.members) else []

    def mini_batch(self) -> MiniBatch:
        """The next pass's input.

        Where no pictures are `remaining` it is the first pass's once more, of which the results are dropped: one of
        several processes may have nothing left while others have (training/data_parallel.py).
        """
        if not self.batch.passes:
            return MiniBatch(self.batch.pictures, self.batch.masks, None)
        if not self.remaining:
            return SequentialTranslation(self.batch).mini_batch()
        members = self.remaining
        pictures = self._pictures
        if members != self._members:
            rows = arrays.pieces(pictures, [1] * len(self._members))
            pictures = arrays.concatenate([rows[self._members.index(b)] for b in members])
        earlier = MaskSet.join([self._masks[b] for b in members]) if self._pass else None
        return MiniBatch(pictures, self.batch.passes[self._pass], earlier)

    def advance(self, pictures: nn.NdArray, masks: nn.NdArray) -> List[Translated]:
        """Take over a pass's results y' (B, 3, H, W) and b' (M, 1, H, W).

        Returns for each of its pictures the translation so far, y' (1, 3, H, W) with b'_1, ..., b'_m (N, 1, H, W),
        which D judges. It is the final result where the picture does not remain. Returns nothing where none was
        `remaining`.
        """
        if not self.remaining:
            return []
        members = self.remaining
        for b, new in zip(members, arrays.pieces(masks, self.batch.passes[self._pass].counts)):
            earlier = self._masks[b]
            self._masks[b] = new if earlier is None else arrays.concatenate([earlier, new])
        self._pictures = pictures
        self._members = members
        self._pass += 1
        rows = arrays.pieces(pictures, [1] * len(members))
        return [(picture, self._masks[b]) for b, picture in zip(members, rows)]
