# SPDX-License-Identifier: Apache-2.0
"""The masks of pictures to translate, from wherever the user says: files, annotations, boxes, or a segmenter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator, List, Sequence, Tuple

import numpy as np

from common.errors import UserError
from common.progress import say
from data import checks, pictures
from data.items import Item, comparable, files_by_stem, list_files, mask_folder_of
from masks import sources

# x0, y0, x1, y1 in pixels, x1 and y1 excluded
Box = Tuple[int, int, int, int]
# Takes a picture, also as (H, W, 3) uint8, and returns the number and the level of each mask, (H, W) in [0, 1] or bool.
MaskReader = Callable[[Item, np.ndarray], Iterator[Tuple[int, np.ndarray]]]


@dataclass(frozen=True)
class MaskOptions:
    """The options of translate.py that say where the instances of an `--image` are, as on its command line.

    At most one of `masks`, `boxes` and `segmenter` is given.
    """

    masks: Sequence[str]
    mask_format: str
    category: str | None
    crowds: bool
    boxes: Sequence[Box]
    segmenter: str | None


def find_annotations(options: MaskOptions, image: str | None) -> Path | None:
    """The file or folder of annotations for `image`, a picture or a folder of pictures.

    Annotations have all masks of a picture, or of many, in one file. None if each mask has its own file, or masks do
    not come from files.

    Raises:
        UserError: if there are none, but an option is given that is for annotations only.
    """
    paths = [Path(mask) for mask in options.masks]
    if not paths and image and Path(image).is_dir() and not options.segmenter:
        paths = [mask_folder_of(Path(image))]
    if len(paths) == 1 and _holds_annotations(paths[0], options.mask_format):
        return paths[0]
    if len(paths) == 1 and options.mask_format == "auto" and image:
        _refuse_maps_as_masks(paths[0], Path(image))
    given = {
        "--category": options.category,
        "--crowds": options.crowds,
        "--mask-format": options.mask_format == "labels",
    }
    for flag in filter(given.get, given):
        raise UserError(f"{flag} goes with --image and one file or folder of annotations as --masks")
    return None


def _holds_annotations(path: Path, mask_format: str) -> bool:
    if mask_format != "auto":
        return mask_format != "masks"
    if not path.is_dir():
        return path.suffix.lower() == ".json"
    listing = list_files(path, path)
    has_json = any(file.suffix.lower() == ".json" for file in listing.other)
    return not listing.masks and (has_json or bool(listing.images))


def _refuse_maps_as_masks(folder: Path, image: Path) -> None:
    """Raise UserError if a folder of masks seems to hold label maps: NAME.png for a picture NAME without NAME_0.png."""
    pictures_folder = image if image.is_dir() else image.parent
    if not folder.is_dir() or folder.resolve() == pictures_folder.resolve():
        return
    names = set(list_files(image, None).images) if image.is_dir() else {comparable(image.stem)}
    listing = list_files(folder, folder)
    maps = sorted((names & files_by_stem(folder, ".png").keys()) - listing.masks.keys())
    if maps:
        raise UserError(
            f"{folder / maps[0]}.png could be a label map, and the files there be of two formats; give --mask-format: "
            "masks (NAME_0.png, NAME_1.png, ... for each picture NAME) or labels (one NAME.png)"
        )


def mask_reader(
    options: MaskOptions, annotations: Path | None, items: Sequence[Item], domain: str, lost: List[str]
) -> MaskReader:
    """The reader of the masks of `items`, pictures of `domain` ("A" or "B").

    `annotations` is what `find_annotations` returned. For each instance that has no pixel, the reader appends the
    reason to `lost`.
    """
    if options.boxes:
        return lambda item, picture: enumerate(object_in_box(picture, box) for box in options.boxes)
    if options.segmenter:
        # slow to import, and rarely needed
        from masks.segmenter import load

        segmenter = load(options.segmenter)
        return lambda item, picture: enumerate(segmenter.instances(picture, domain))
    if not annotations:
        return lambda item, picture: ((n, read_mask_file(path, picture)) for n, path in item.masks.items())
    source = sources.open_source(annotations, options.mask_format, options.crowds)
    source.check([item.image for item in items], options.category)
    images = [item.image for item in items]
    for remark in source.remarks(options.category):
        say(f"{source.path}: {remark}")
    if source.misses_all(images):
        say(f"{source.path}: {source.beyond(images)}: see that its file_names are those of the pictures")
    return lambda item, picture: enumerate(
        instance.mask for instance in source.instances(item.image, picture.shape[:2], options.category, lost)
    )


def object_in_box(picture: np.ndarray, box: Box) -> np.ndarray:
    """The mask (H, W) bool of the object in a box of a picture (H, W, 3) uint8; prints a line if none stands out."""
    # slow to import, and rarely needed
    from masks.box_object import NothingFound, find_object

    try:
        return find_object(picture, box)
    except NothingFound as error:
        say(f"{error}; using the ellipse inside the box")
        return error.mask


def read_mask_file(path: Path, picture: np.ndarray) -> np.ndarray:
    """Read the whiteness (h, w) float32 in [0, 1] of a mask of a picture (H, W, 3); prints a line if it looks wrong."""
    level = pictures.read_level(path)
    if not pictures.same_proportions(level.shape, picture.shape[:2]):
        height, width = level.shape
        sizes = f"{width}x{height}, its picture {picture.shape[1]}x{picture.shape[0]} (width x height)"
        say(f"{path} is {sizes}: it is stretched to the picture")
    if checks.is_grey((level * 255).round().astype(np.uint8)) or 0 < level.max() <= 0.5:
        say(f"{path}: {checks.GREY}; it is thresholded at half grey (a label map needs --mask-format labels)")
    return level
