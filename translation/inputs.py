# SPDX-License-Identifier: Apache-2.0
"""Find the pictures to translate and their mask files, as translate.py's --image and --masks name them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Dict, List, Sequence

from common.errors import UserError
from data.items import Item, comparable, find_pictures, is_text, list_files, mask_folder_of


def find_inputs(image: Path, masks: Sequence[Path], with_mask_files: bool) -> List[Item]:
    """The picture `image`, or the pictures of the folder `image`, with the files of their masks.

    `masks` are the mask files of one picture, or the folder that holds them; for a folder of pictures, the folder of
    their masks (default: FOLDER_seg). Masks come from elsewhere, such as boxes, if not `with_mask_files`.

    Raises:
        UserError: where a file or folder is missing, or does not go with the others.
    """
    for mask in masks:
        if not mask.exists():
            raise UserError(f"no file or folder {mask} (--masks)")
    if image.is_dir():
        return _folder_items(image, masks, with_mask_files)
    if not image.is_file():
        raise UserError(f"no file or folder {image} (--image)")
    if not is_text(image.name):
        raise UserError(f"{image}: its name is not valid UTF-8; rename it")
    return [Item(image.stem, image, _mask_files(image.stem, masks) if with_mask_files else {})]


def _folder_items(folder: Path, masks: Sequence[Path], with_mask_files: bool) -> List[Item]:
    mask_folder = masks[0] if masks else mask_folder_of(folder)
    if not with_mask_files:
        return find_pictures(folder, None)
    if len(masks) > 1 or not mask_folder.is_dir():
        raise UserError(f"no folder of masks {mask_folder}; where --image is a folder, --masks is the folder of masks")
    return find_pictures(folder, mask_folder)


def _mask_files(name: str, masks: Sequence[Path]) -> Dict[int, Path]:
    """The mask files of one picture by number; `masks` are these files, or the folder that holds them."""
    if len(masks) == 1 and masks[0].is_dir():
        paths = list_files(masks[0], masks[0]).masks.get(comparable(name), {})
        if not paths:
            raise UserError(f"{masks[0]} has no masks {name}_0.png, {name}_1.png, ...; give those of this picture")
        return {number: same_number[0] for number, same_number in sorted(paths.items())}
    for mask in masks:
        if not mask.is_file():
            raise UserError(f"{mask} is not a file; with one picture as --image, --masks are the files of its masks")
    return _by_number(name, masks)


def _by_number(name: str, masks: Sequence[Path]) -> Dict[int, Path]:
    """Mask files by the number in NAME_{i}.png, or numbered in the order given if they have other names."""
    matches = [re.fullmatch(re.escape(comparable(name)) + r"_(\d+)", comparable(mask.stem)) for mask in masks]
    numbers = [int(match[1]) for match in matches if match]
    if len(set(numbers)) < len(masks):
        return dict(enumerate(masks))
    return dict(zip(numbers, masks))
