# SPDX-License-Identifier: Apache-2.0
"""Translations that stay the same as their input: found on the sample pictures of each epoch, and reported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Sequence, Tuple

import numpy as np

from data.instances import iou

SAME_MASKS = 0.95  # mean IoU of masks before and after, above which they are the same
SAME_PICTURES = 8.0  # mean difference of pictures, of 255, below which they are the same
IN_A_ROW = 2  # sample grids until the warning

# a picture (3, H, W) with its masks (N, H, W), in [-1, 1]
Example = Tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Change:
    """The change that translation makes, over several pictures.

    `masks_iou` is the mean IoU of masks before and after (None: there are no masks), `difference` the mean absolute
    difference of pictures, of 255, inside the masks before and after; without masks, of the whole pictures.
    """

    masks_iou: Optional[float]
    difference: float

    @property
    def is_none(self) -> bool:
        """Return whether the translations are the same as their inputs."""
        same_masks = self.masks_iou is None or self.masks_iou > SAME_MASKS
        return same_masks and self.difference < SAME_PICTURES


class Standstill:
    """Watches the sample pictures of one direction, from domain `letter` "A" or "B".

    It warns where translations were the same as their inputs in two grids in a row, once until they change. The first
    epoch does not count. A resumed run counts from the beginning.
    """

    def __init__(self, letter: str) -> None:
        self._letter = letter
        self._in_a_row = 0

    def warning(self, epoch: int, change: Optional[Change]) -> str:
        """Take the change after `epoch` = 1, 2, ... (None: nothing to see). Returns the warning that is due, or ""."""
        if epoch == 1 or change is None:
            return ""
        self._in_a_row = self._in_a_row + 1 if change.is_none else 0
        return _warning(self._letter, change) if self._in_a_row == IN_A_ROW else ""


def measure(before: Sequence[Example], after: Sequence[Example], whole_pictures: bool) -> Optional[Change]:
    """The change from the pictures `before` translation to those `after` it; masks of a pair are in the same order.

    `whole_pictures` is for training without masks. None where there is nothing to compare: all masks are empty.
    """
    overlaps = []
    differences = []
    for (picture, masks), (new_picture, new_masks) in zip(before, after):
        old = masks > 0
        new = new_masks > 0
        overlaps += [iou(*pair) for pair in zip(old, new)]
        inside = np.ones(picture.shape[1:], bool) if whole_pictures else (old | new).any(axis=0)
        differences.append(np.abs(new_picture - picture)[:, inside])
    values = 127.5 * np.concatenate(differences, axis=1)
    if not values.size:
        return None
    return Change(None if whole_pictures else float(np.mean(overlaps)), float(values.mean()))


def _warning(letter: str, change: Change) -> str:
    masks = "" if change.masks_iou is None else f"masks: IoU {change.masks_iou:.2f}, "
    return (
        f"warning: the translations of {letter} are still the same as their inputs ({masks}pictures: within "
        f"{np.ceil(change.difference):.0f} of 255), with which the cycle and identity losses are content; train "
        "longer, or start again with lower --lambda-idt and --lambda-cyc, and check that A and B differ"
    )
