# SPDX-License-Identifier: Apache-2.0
"""Masks of LabelMe's JSON files."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import numpy as np

from common.errors import UserError
from masks import annotation_shapes
from masks.annotation_shapes import Size, _is_length
from masks.coco import _key
from masks.mask_source import Instance, MaskSource, _by_stem, _read_document

NO_AREA = ("point", "points", "line", "linestrip")  # what LabelMe can draw, and is no instance


class LabelmeFiles(MaskSource):
    """LabelMe's NAME.json in one folder, or one file."""

    format = "labelme"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._files = _by_stem(path, ".json") if path.is_dir() else {path.stem: path}

    def categories(self) -> List[str]:
        """As `MaskSource.categories`; reads all files that can be read."""
        found = set()
        for path in self._files.values():
            # a damaged one is told of where its picture is read
            with suppress(UserError):
                found.update(label for label, _ in _grouped(self._document(path)["shapes"]))
        return sorted(found)

    def _read(self, image: Path, size: Size) -> Iterator[Instance]:
        path = self._files.get(image.stem) if self.path.is_dir() else self.path
        if path is None:
            return
        document = self._document(path)
        # old versions do not write the size
        own = tuple(full if side is None else side for side, full in zip(document["size"], size))
        upright = self._fitting(own, size, image, path)
        for label, shapes in _grouped(document["shapes"]):
            try:
                mask = _drawn(shapes[0], own)
                for shape in shapes[1:]:
                    mask |= _drawn(shape, own)
            except ValueError as error:
                where = f"{path}: a shape {label!r:.40} cannot be used"
                raise UserError(f"{where}: {error}; mend it, or remove it") from None
            yield Instance(label, upright(mask))

    def _document(self, path: Path) -> Dict[str, Any]:
        """A file's "shapes", and the "size" (height, width) of its picture, None where that is not told."""
        document = _read_document(path)
        shapes = document.get("shapes") if isinstance(document, dict) else None
        if not isinstance(shapes, list) or not all(
            isinstance(shape, dict) and isinstance(shape.get("label"), str) for shape in shapes
        ):
            what = "it has no list of shapes with labels"
            raise UserError(f"{path} is no file of LabelMe: {what}; mend it, or remove it")
        size = (document.get("imageHeight"), document.get("imageWidth"))
        if not all(side is None or _is_length(side) for side in size):
            raise UserError(f"{path} gives its picture no height and width that can be meant; mend it")
        return {"shapes": shapes, "size": size}


def _grouped(shapes: List[Dict[str, Any]]) -> List[Tuple[str, List[Dict[str, Any]]]]:
    """The labels and shapes of each instance: those that share label and group_id, or one without a group_id."""
    groups: Dict[Any, List[Dict[str, Any]]] = {}
    for number, shape in enumerate(shapes):
        if shape.get("shape_type") not in NO_AREA:
            group = shape.get("group_id")
            groups.setdefault((shape["label"], number if group is None else ("group", _key(group))), []).append(shape)
    return [(label, members) for (label, _), members in groups.items()]


def _drawn(shape: Dict[str, Any], size: Size) -> np.ndarray:
    """The mask of a LabelMe shape."""
    kind, corners = shape.get("shape_type") or "polygon", annotation_shapes.points(shape.get("points"))
    if kind == "mask":
        return annotation_shapes.png_mask(shape.get("mask"), corners, size)
    draw = {
        "polygon": annotation_shapes.polygon_mask,
        "rectangle": annotation_shapes.rectangle_mask,
        "circle": annotation_shapes.circle_mask,
    }.get(str(kind))
    if draw is None:
        raise ValueError(f"{kind!r:.40} is no kind of shape that is known")
    return draw(corners, size)
