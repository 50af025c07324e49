# SPDX-License-Identifier: Apache-2.0
"""Translate one picture with its masks: read both, choose the instances, translate, at its own size or the model's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Dict, Iterable, List, Tuple

import numpy as np
from PIL import Image

from data import pictures
from data.items import Item
from translation.keep_size import Translate, View, translate_in_place
from translation.placed_mask import PlacedMask
from translation.results import Translation
from translation.selection import Selection
from translation.translator import LoadedModel
from translation.whole_picture import translate_whole

# Takes a picture, also as (H, W, 3) uint8, and returns the number and the level of each mask, (h, w) in [0, 1] or bool.
ReadMasks = Callable[[Item, np.ndarray], Iterable[Tuple[int, np.ndarray]]]


@dataclass(frozen=True)
class Prepared:
    """A picture (H, W, 3) uint8, its instances' masks by number, and the numbers of those to translate, in order.

    `profile` is the picture's colour profile; `keep_size` says whether the picture has its own size or the model's.
    """

    picture: np.ndarray
    masks: Dict[int, PlacedMask]
    chosen: List[int]
    profile: bytes | None
    keep_size: bool


def prepare(item: Item, model: LoadedModel, read_masks: ReadMasks, selection: Selection, keep_size: bool) -> Prepared:
    """Read a picture and its masks, and choose the instances to translate.

    Raises:
        UserError: where a file cannot be used, or an instance that is asked for is missing.
    """
    picture = pictures.read_picture(item.image)
    profile = pictures.colour_profile(item.image)
    size = picture.shape[:2] if keep_size else model.size
    # one mask after the other: a large picture's masks are large too
    masks = {number: PlacedMask.of(pictures.cut(level, size)) for number, level in read_masks(item, picture)}
    chosen = selection.choose(item, masks) if model.translator.ins_per else []
    if not keep_size:
        picture = np.asarray(pictures.resized(Image.fromarray(picture), size))
    return Prepared(picture, masks, chosen, profile, keep_size)


def translate_prepared(prepared: Prepared, model: LoadedModel, translate: Translate | None = None) -> Translation:
    """Translate the chosen instances.

    `translate` stands in for the method of the model's translator; with `keep_size` each of its calls is one pass.
    """
    translate = translate or model.translator.translate
    instances = [prepared.masks[number] for number in prepared.chosen]
    if prepared.keep_size:
        view = View(model.size, model.instance_share)
        after, new_masks = translate_in_place(prepared.picture, instances, translate, view, model.translator.ins_per)
    else:
        after, new_masks = translate_whole(prepared.picture, instances, translate)
    return Translation(prepared.picture, after, prepared.masks, dict(zip(prepared.chosen, new_masks)), prepared.profile)
