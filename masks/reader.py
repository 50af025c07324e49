# SPDX-License-Identifier: Apache-2.0
"""Where the masks of pictures to translate come from: files, annotations, boxes, or a segmenter."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Callable, Iterator, Sequence, Tuple

import numpy as np

from common.errors import UserError
from common.progress import say
from data import checks, pictures
from data.items import Item, list_files, mask_folder_of
from masks import sources
from masks.box_object import Box, NothingFound, find_object
from masks.segmenter import load

# gives each mask of a picture, which it is also handed as (H, W, 3) uint8: its number, and (H, W) in [0, 1] or bool
MaskReader = Callable[[Item, np.ndarray], Iterator[Tuple[int, np.ndarray]]]


def find_annotations(args: argparse.Namespace) -> Path | None:
    """The file or folder of the `--image`'s masks if it is in a form in which one file holds all masks of a picture, or
    of many; None where each mask has a file, or masks do not come from files."""
    given = [Path(mask) for mask in args.masks]
    if not given and args.image and Path(args.image).is_dir() and not args.segmenter:
        given = [mask_folder_of(Path(args.image))]
    found = given[0] if len(given) == 1 and args.mask_format != "masks" and _holds_annotations(given[0], args) else None
    if found is None:
        for flag, value in (("--category", args.category), ("--mask-format", args.mask_format == "labels" or None)):
            if value:
                raise UserError(f"{flag} goes with --image and one file or folder of annotations as --masks")
    return found


def _holds_annotations(path: Path, args: argparse.Namespace) -> bool:
    if args.mask_format != "auto" or not path.is_dir():
        return args.mask_format != "auto" or path.suffix.lower() == ".json"
    listing = list_files(path, path)
    has_json = any(file.suffix.lower() == ".json" for file in listing.other)
    return not listing.masks and (has_json or bool(listing.images))


def mask_reader(args: argparse.Namespace, annotations: Path | None, items: Sequence[Item]) -> MaskReader:
    """Where the masks of `items` come from: boxes, a segmenter, annotations, or files of their own."""
    if args.box:
        return lambda item, picture: enumerate(object_in_box(picture, box) for box in args.box)
    if args.segmenter:
        segmenter = load(args.segmenter)
        return lambda item, picture: enumerate(segmenter.instances(picture, args.direction[0]))
    if not annotations:
        return lambda item, picture: ((n, read_mask_file(path, picture)) for n, path in item.masks.items())
    source = sources.open_source(annotations, args.mask_format)
    source.check([item.image for item in items], args.category)
    if source.left_out():
        print(f"{source.path}: {source.left_out()}")
    return lambda item, picture: enumerate(
        instance.mask
        for instance in source.instances(item.image, picture.shape[:2])
        if args.category in (None, instance.category)
    )


def object_in_box(picture: np.ndarray, box: Box) -> np.ndarray:
    """The mask (H, W) bool of the object in a box of a picture (H, W, 3) uint8; says so where none is to be seen."""
    try:
        return find_object(picture, box)
    except NothingFound as error:
        say(f"{error}; the ellipse in it is taken")
        return error.mask


def read_mask_file(path: Path, picture: np.ndarray) -> np.ndarray:
    """How white a mask of a picture (H, W, 3) is: (h, w) float32 in [0, 1]; says where it looks like something else."""
    level, size = pictures.read_level(path), picture.shape[:2]
    if not pictures.same_proportions(level.shape, size):
        (height, width), (own_height, own_width) = size, level.shape
        say(f"{path} is {own_width}x{own_height}, its picture {width}x{height} (width x height): it is stretched")
    if checks.is_grey((level * 255).round().astype(np.uint8)) or 0 < level.max() <= 0.5:
        say(f"{path}: {checks.GREY}; it is cut in the middle (a label map wants --mask-format labels)")
    return level
