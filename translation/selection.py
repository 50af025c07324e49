# SPDX-License-Identifier: Apache-2.0
"""Select the instances of a picture to translate, and report the others."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Collection, Dict, List

import numpy as np

from common.errors import UserError
from common.progress import say
from data import instances
from data.items import Item
from translation.placed_mask import PlacedMask


@dataclass(frozen=True)
class Selection:
    """The instances to translate of each picture, and their order.

    `numbers` are those asked for (None: all); if `required`, a picture that lacks one is an error. The `ins_max`
    largest of them (None: all) are translated in the order `set_order`, "decreasing" or "random" (by `seed`).
    """

    numbers: Collection[int] | None
    required: bool
    ins_max: int | None
    set_order: str
    seed: int

    def choose(self, item: Item, masks: Dict[int, PlacedMask]) -> List[int]:
        """Return the numbers of the instances to translate, in order, and print which are left alone, and why.

        `masks` are those of all the picture's instances, by number and at its size.

        Raises:
            UserError: where an instance that is required is missing.
        """
        name = item.name
        asked = [number for number in masks if self.numbers is None or number in self.numbers]
        missing = sorted(set(self.numbers or ()) - set(asked))
        if missing and self.required:
            existing = ", ".join(map(str, masks)) or "none"
            raise UserError(f"{item.image} has no instance {missing[0]} (--select); it has: {existing}")
        area = {number: masks[number].area for number in asked}
        # seeded by the name, so that the order does not depend on which other pictures are translated
        rng = np.random.default_rng([self.seed, zlib.crc32(name.encode("utf-8"))])
        indices = instances.select_by_area(np.array(list(area.values()), int), self.ins_max, self.set_order, rng)
        chosen = [asked[i] for i in indices]
        if not chosen:
            say(f"{name}: no instance ({_why_none(masks, asked)}); the picture is left as it is")
            return []
        left_alone = [
            f"{name}_{number} ({'beyond --ins-max' if area[number] else 'empty'})"
            for number in asked
            if number not in chosen
        ]
        left_alone += [f"{name}_{number} (there is none)" for number in missing]
        if left_alone:
            say(f"{name}: left alone: {', '.join(left_alone)}")
        return chosen


def _why_none(masks: Dict[int, PlacedMask], asked: List[int]) -> str:
    if asked:
        return f"{len(asked)} masks, all empty"
    return "none of --select" if masks else "no masks"
