# SPDX-License-Identifier: Apache-2.0
"""The sequential mini-batch: the instances of a picture are translated a few at a time (paper, section 2.3).

    batch = Batch([picture], [masks], ins_per=2)
    translation = SequentialTranslation(batch)
    while translation.remaining:
        y, b = ...  # the generator on translation.mini_batch()
        translation.advance(y, b)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Iterator, List, Optional, Sequence, Tuple

import nnabla as nn
import numpy as np

from backend import arrays
from data import instances
from data.loader import Sample

# a picture (1, 3, H, W) with its masks (N, 1, H, W)
Translated = Tuple[nn.NdArray, nn.NdArray]


@dataclass(frozen=True)
class MaskSet:
    """The sets of masks of several pictures, stacked: masks (M, 1, H, W) and the number of each picture's.

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

    def __init__(self, n_pictures: int, n_masks: int, size: Tuple[int, int]) -> None:
        self.masks = nn.Variable((n_masks, 1, *size))
        self.membership = nn.Variable((n_pictures, n_masks))

    def put(self, masks: MaskSet) -> None:
        """Set the masks as the graph's input."""
        self.masks.data = masks.masks
        self.membership.data = masks.membership


@dataclass(frozen=True)
class JudgedPictures:
    """Pictures (B, 3, H, W) with the masks of their instances, real or fake, for D to judge.

    `share` is the weight of their loss; it is less than 1 where other processes have more such pictures.
    """

    pictures: nn.NdArray
    masks: MaskSet
    share: float = 1.0


@dataclass(frozen=True)
class MiniBatch:
    """The input of one pass: the pictures that still have instances, and the next few of these.

    `pictures` (B, 3, H, W) are the results of the pass before, `masks` the instances of this pass, `earlier` the
    masks that earlier passes gave (None in the first pass). `share` is the weight of its losses in training; it is less
    than 1 where other processes have more pictures for this pass (training/data_parallel.py).
    """

    pictures: nn.NdArray
    masks: MaskSet
    earlier: Optional[MaskSet]
    share: float = 1.0


class Batch:
    """Pictures of one domain with the masks of their instances, uploaded: as they are, and cut into passes.

    Give it B pictures (3, H, W) and the masks (N_b, H, W) of each, in the order to translate them. `pictures`
    (B, 3, H, W) and `masks` hold everything; pass m works on the pictures with the indices `active[m]` and on the
    instances `passes[m]`, at most `ins_per` of each picture. With `ins_per` 0 the pictures alone are translated, in
    one pass.
    """

    def __init__(self, pictures: Sequence[np.ndarray], masks: Sequence[np.ndarray], ins_per: int) -> None:
        self.pictures = arrays.upload(np.stack(pictures))
        self.masks = MaskSet.upload(masks)
        self.active: List[List[int]] = []
        self.passes: List[MaskSet] = []
        slices = [instances.mini_batches(len(m), ins_per) for m in masks]
        for m in range(max(map(len, slices))):
            active = [b for b in range(len(masks)) if m < len(slices[b])]
            parts = [masks[b][slices[b][m]] for b in active]
            # where one pass has all masks, they are uploaded already
            is_all = [len(part) for part in parts] == [len(all_) for all_ in masks]
            self.active.append(active)
            self.passes.append(self.masks if is_all else MaskSet.upload(parts))

    @staticmethod
    def from_samples(samples: Sequence[Sample], ins_per: int) -> Batch:
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
        self._active = list(range(len(batch.masks.counts)))
        # for each picture of the batch b'_1, ..., b'_m of the passes so far; None before its first pass
        self._masks: List[Optional[nn.NdArray]] = [None for _ in self._active]

    @property
    def remaining(self) -> List[int]:
        """Indices of the pictures that have an instance left."""
        return self.batch.active[self._pass] if self._pass < len(self.batch.active) else []

    def mini_batch(self) -> MiniBatch:
        """The next pass's input (x_m, a_m); call it only while pictures are `remaining`."""
        active = self.remaining
        pictures = self._pictures
        if active != self._active:
            rows = arrays.pieces(pictures, [1] * len(self._active))
            pictures = arrays.concatenate([rows[self._active.index(b)] for b in active])
        earlier = MaskSet.join([self._masks[b] for b in active]) if self._pass else None
        return MiniBatch(pictures, self.batch.passes[self._pass], earlier)

    def advance(self, pictures: nn.NdArray, masks: nn.NdArray) -> List[Translated]:
        """Take a pass's results y'_m (B, 3, H, W) and b'_m (M, 1, H, W); y'_m is the next pass's x.

        Returns for each of its pictures the translation so far, y'_m (1, 3, H, W) with b'_1, ..., b'_m (N, 1, H, W),
        which D judges. It is the final result where the picture does not remain.
        """
        active = self.remaining
        for b, new in zip(active, arrays.pieces(masks, self.batch.passes[self._pass].counts)):
            earlier = self._masks[b]
            self._masks[b] = new if earlier is None else arrays.concatenate([earlier, new])
        self._pictures = pictures
        self._active = active
        self._pass += 1
        rows = arrays.pieces(pictures, [1] * len(active))
        return [(picture, self._masks[b]) for b, picture in zip(active, rows)]


def passes(translations: Dict[str, SequentialTranslation]) -> Iterator[Dict[str, MiniBatch]]:
    """The mini-batches of each pass over several batches, by their names; a batch without instances left is absent.

    Each result must be handed to `advance` before the next pass.
    """
    while any(translation.remaining for translation in translations.values()):
        yield {name: translation.mini_batch() for name, translation in translations.items() if translation.remaining}
