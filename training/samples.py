# SPDX-License-Identifier: Apache-2.0
"""Sample pictures during training: always the same ones, so that progress can be compared."""

from __future__ import annotations

import argparse
from contextlib import suppress
from pathlib import Path
from typing import Dict, List, Tuple

import numpy as np

from args import instances_per_pass
from common.errors import UserError
from data import instances, pictures
from data.items import Item, find_items
from models import GENERATORS, Architecture
from translation.drawing import GAP, colour_masks, stack
from translation.translator import Translator


class SampleGrid:
    """A few fixed pictures of each domain, translated with the generators as they are.

    Each row is one picture: input, its masks, translation, its masks; domain A on the left, B on the right. The
    pictures are held-out ones (`test`) where the data set has them, else training pictures, evenly spaced.
    """

    def __init__(
        self, args: argparse.Namespace, arch: Architecture, training: Dict[str, List[Item]], rows: int = 4
    ) -> None:
        self.size = (args.fineSizeH, args.fineSizeW)
        self.chosen: List[List[Tuple[np.ndarray, np.ndarray]]] = []
        self.translators = [Translator(network, arch, instances_per_pass(args)) for network in GENERATORS.values()]
        for letter, items in zip("AB", training.values()):
            with suppress(UserError):
                items = [i for i in find_items(args.dataroot, "test", letter) if i.masks] or items
            spaced = np.linspace(0, len(items) - 1, min(rows, len(items))).round().astype(int)
            self.chosen.append([self._read(items[i], args.ins_max) for i in spaced])

    def write(self, path: str | Path) -> None:
        """Translate the pictures and write the grid as a PNG."""
        columns = []
        for translator, chosen in zip(self.translators, self.chosen):
            columns.append(stack([_row(translator, picture, masks) for picture, masks in chosen], axis=0))
        pictures.write_png(path, stack(columns, axis=1, gap=3 * GAP))

    def _read(self, item: Item, ins_max: int) -> Tuple[np.ndarray, np.ndarray]:
        picture, masks = pictures.read_item(item, self.size)
        picture, masks = pictures.to_network(picture), pictures.masks_to_network(masks)
        return picture, masks[instances.select(masks, ins_max, "decreasing", np.random.default_rng(0))]


def _row(translator: Translator, picture: np.ndarray, masks: np.ndarray) -> np.ndarray:
    shown = []
    for image, shapes in ((picture, masks), translator.translate(picture, masks)):
        shown += [pictures.to_picture(image), colour_masks(shapes)]
    return stack(shown, axis=1)


