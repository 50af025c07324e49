# SPDX-License-Identifier: Apache-2.0
"""Read the instances of a picture from masks in any format.

    source = open_source("horses.json")
    for instance in source.instances(Path("horse_photos/0001.jpg"), size=(480, 640), category="horse"):
        ...  # instance.category, instance.mask

| format | files |
|---|---|
| `masks` | a folder of NAME_{i}.png, one for each instance, white inside, as in the data sets |
| `labels` | a folder of NAME.png, or one such file: each grey, palette index or colour other than 0 is an instance |
| `coco` | a COCO JSON file: polygons, run lengths, compressed run lengths; crowds as in `CocoFile` |
| `labelme` | a folder of LabelMe's NAME.json, or one such file: polygon, rectangle (turned too), circle, mask |

NAME is a picture's name without extension; a single file of `labels` or `labelme` is used for any picture. COCO's
pictures are found by their file names, whatever folder they are in.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Tuple

from common.errors import UserError
from data.items import files_by_stem, list_files
from masks.annotation_files import read_document
from masks.coco import CocoFile, compact
from masks.formats import FORMATS
from masks.labelme import LabelmeFiles
from masks.mask_source import MaskSource
from masks.png import LabelMaps, MaskFolder


class AmbiguousFormat(UserError):
    """`auto` cannot decide between two formats."""


def open_source(path: str | Path, format: str = "auto", crowds: bool = False) -> MaskSource:
    """The masks at `path`; `format` is one of FORMATS, of which `auto` depends on the files there.

    `crowds` takes COCO's crowds as instances (`CocoFile`).

    Raises:
        UserError: if `path` is missing, cannot be read, or is not of the format.
        AmbiguousFormat: if `auto` cannot decide.
    """
    path = Path(path)
    if format not in FORMATS:
        raise UserError(f"there is no format {format!r}; choose from {', '.join(FORMATS)}")
    if not path.exists():
        raise UserError(f"no masks at {path}; give the folder or file that has them")
    document = None
    if format == "auto":
        format, document = _format_of_folder(path) if path.is_dir() else _format_of_file(path)
    if format == "coco":
        return CocoFile(path if path.is_file() else _only_json(path), document, crowds)
    if format == "labelme":
        return LabelmeFiles(path)
    if format == "labels":
        return LabelMaps(path)
    if not path.is_dir():
        raise UserError(f"{path} is a file; masks NAME_0.png, NAME_1.png, ... are given by their folder")
    return MaskFolder(path)


def _format_of_file(path: Path) -> Tuple[str, Any]:
    """The format of a file, and its content if that is JSON, so that large files are read once."""
    if path.suffix.lower() == ".png":
        return "labels", None
    if path.suffix.lower() != ".json":
        fix = "give a .json file (COCO, LabelMe), a .png label map or a folder"
        raise UserError(f"{path} is not a file of masks; {fix}")
    if not path.is_file():
        raise UserError(f"{path} is not a file")
    document = read_document(path, compact)
    if isinstance(document, dict) and "images" in document and "annotations" in document:
        return "coco", document
    if isinstance(document, dict) and "shapes" in document:
        return "labelme", document
    raise UserError(f"{path} is JSON of neither COCO (images, annotations) nor LabelMe (shapes); give another file")


def _format_of_folder(path: Path) -> Tuple[str, Any]:
    """The format of a folder's files, and the content of its COCO file."""
    json_files = list(files_by_stem(path, ".json").values())
    labels = files_by_stem(path, ".png")
    if len(json_files) == 1:
        # many tools export COCO as a folder with the pictures and one file
        try:
            format, document = _format_of_file(json_files[0])
            return (format, document) if format == "coco" else (format, None)
        except UserError:
            # a file about something else may lie beside masks
            if not labels:
                raise
    elif json_files:
        return "labelme", None
    if not labels:
        raise UserError(f"{path} has no masks: no .png and no .json file; give the folder that has them")
    listing = list_files(path, path)
    number_of_masks = len(listing.mask_files())
    if not number_of_masks:
        return "labels", None
    if number_of_masks == len(labels) and all(f"{name}_0" in labels for name in listing.masks):
        return "masks", None
    raise AmbiguousFormat(
        f"the files in {path} could be of two formats; give the format: masks (NAME_0.png, NAME_1.png, ... for each "
        "picture NAME) or labels (one NAME.png)"
    )


def _only_json(folder: Path) -> Path:
    json_files = list(files_by_stem(folder, ".json").values())
    if len(json_files) != 1:
        raise UserError(f"{folder} has {len(json_files)} .json files; give the one with COCO's annotations")
    return json_files[0]
