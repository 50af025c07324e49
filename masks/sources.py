# SPDX-License-Identifier: Apache-2.0
"""Read the instances of a picture from whatever masks there are.

    source = open_source("horses.json")
    for instance in source.instances(Path("horse_photos/0001.jpg"), size=(480, 640)):
        ...  # instance.category, instance.mask

| format | what it is |
|---|---|
| `masks` | a folder of NAME_{i}.png, one for each instance, white inside, as in the data sets |
| `labels` | a folder of NAME.png, or one such file: each grey, palette index or colour other than 0 is an instance |
| `coco` | a COCO JSON file: polygons, run lengths, compressed run lengths; crowds are left out |
| `labelme` | a folder of LabelMe's NAME.json, or one such file: polygon, rectangle, circle, mask |

NAME is a picture's name without extension; a single file of `labels` or `labelme` is that of whatever picture is asked
for. COCO's pictures are found by their file names, whatever folder they are in.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Tuple

from common.errors import UserError
from data.items import list_files
from masks.coco import CocoFile, _compact
from masks.formats import FORMATS
from masks.labelme import LabelmeFiles
from masks.mask_source import MaskSource, _by_stem, _read_document
from masks.png import LabelMaps, MaskFolder


def open_source(path: str | Path, format: str = "auto") -> MaskSource:
    """The masks at `path`; `format` is one of FORMATS, `auto` looks at what is there.

    Raises:
        UserError: where nothing is there, it cannot be read, is not of the format, or `auto` cannot tell.
    """
    path = Path(path)
    if format not in FORMATS:
        raise UserError(f"there is no format {format!r}; choose from {', '.join(FORMATS)}")
    if not path.exists():
        raise UserError(f"no masks at {path}; give the folder or file that has them")
    document = None
    if format == "auto":
        format, document = _told_by_folder(path) if path.is_dir() else _told_by_file(path)
    if format == "coco":
        return CocoFile(path if path.is_file() else _only_json(path), document)
    if format == "masks" and not path.is_dir():
        raise UserError(f"{path} is a file; masks NAME_0.png, NAME_1.png, ... are given by their folder")
    return {"masks": MaskFolder, "labels": LabelMaps, "labelme": LabelmeFiles}[format](path)


def _told_by_file(path: Path) -> Tuple[str, Any]:
    """The format of a file, and what is in it where that is JSON."""
    if path.suffix.lower() == ".png":
        return "labels", None
    if path.suffix.lower() != ".json":
        raise UserError(f"{path} is no file of masks; give a .json file (COCO, LabelMe), a .png label map or a folder")
    document = _read_document(path, _compact)
    if isinstance(document, dict) and "images" in document and "annotations" in document:
        return "coco", document
    if isinstance(document, dict) and "shapes" in document:
        return "labelme", document
    raise UserError(f"{path} is JSON of neither COCO (images, annotations) nor LabelMe (shapes); give another file")


def _told_by_folder(path: Path) -> Tuple[str, Any]:
    """The format of a folder's files, as `_told_by_file`."""
    found = _by_stem(path, ".json")
    if found:
        # COCO is exported as a folder with the pictures and one file, too
        told = _told_by_file(*found.values()) if len(found) == 1 else ("labelme", None)
        return told if told[0] == "coco" else ("labelme", None)
    labels, listing = _by_stem(path, ".png"), list_files(path, path)
    numbered = sum(len(paths) for own in listing.masks.values() for paths in own.values())
    if not labels:
        raise UserError(f"{path} has no masks: no .png and no .json file; give the folder that has them")
    if not numbered:
        return "labels", None
    if numbered == len(labels) and all(f"{name}_0" in labels for name in listing.masks):
        return "masks", None
    raise UserError(
        f"it cannot be told what {path} holds; give the format: masks (NAME_0.png, NAME_1.png, ... for each picture "
        "NAME) or labels (one NAME.png)"
    )


def _only_json(folder: Path) -> Path:
    found = list(_by_stem(folder, ".json").values())
    if len(found) != 1:
        raise UserError(f"{folder} has {len(found)} .json files; give the one with COCO's annotations")
    return found[0]


