# SPDX-License-Identifier: Apache-2.0
"""Sample pictures during training: always the same ones, so that progress can be compared."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Dict, List

import numpy as np

from common.errors import UserError
from data import instances, pictures
from data.items import Item, evenly_spaced, find_items_with_masks
from models import DOMAINS, GENERATORS
from training.settings import Settings
from training.standstill import Example, Standstill, measure
from translation.drawing import GAP, colour_masks, stack
from translation.translator import Translator

ROWS = 4


class SampleGrid:
    """A few fixed pictures of each domain, translated with the generators as they are.

    Each row is one picture: input, its masks, translation, its masks; domain A on the left, B on the right. The
    pictures are held-out ones (`test`) where the data set has them, else `training` pictures, evenly spaced.
    """

    def __init__(self, dataroot: str | Path, training: Dict[str, List[Item]], settings: Settings) -> None:
        arch = settings.architecture
        self._translators = [
            Translator(network, arch, settings.ins_per, settings.keeps_background) for network in GENERATORS.values()
        ]
        self._whole_pictures = settings.ins_per == 0
        self._standstills = [Standstill(letter) for letter in DOMAINS.values()]
        self._examples: List[List[Example]] = []
        for domain, letter in DOMAINS.items():
            items = training[domain]
            with suppress(UserError):
                items = find_items_with_masks(dataroot, "test", letter) or items
            self._examples.append([_read(item, settings) for item in evenly_spaced(items, ROWS)])

    def write(self, path: str | Path, epoch: int) -> List[str]:
        """Translate the pictures after `epoch` = 1, 2, ... and write the grid as a PNG.

        Returns warnings about translations that stay the same as their inputs.
        """
        columns = []
        warnings = []
        for translator, examples, standstill in zip(self._translators, self._examples, self._standstills):
            translated = [translator.translate(picture, masks) for picture, masks in examples]
            columns.append(stack([_row(*pair) for pair in zip(examples, translated)], axis=0))
            warnings.append(standstill.warning(epoch, measure(examples, translated, self._whole_pictures)))
        pictures.write_png(path, stack(columns, axis=1, gap=3 * GAP))
        return [warning for warning in warnings if warning]


def _read(item: Item, settings: Settings) -> Example:
    """A picture (3, H, W) with the masks (N, H, W) of its largest instances, in [-1, 1]."""
    picture, masks = pictures.read_item(item, settings.size)
    masks = pictures.masks_to_network(masks)
    chosen = instances.select(masks, settings.ins_max, "decreasing", np.random.default_rng(0))
    return pictures.to_network(picture), masks[chosen]


def _row(before: Example, after: Example) -> np.ndarray:
    """A picture with its masks, and then its translation with its masks."""
    cells = []
    for picture, masks in (before, after):
        cells += [pictures.to_picture(picture), colour_masks(masks)]
    return stack(cells, axis=1)
