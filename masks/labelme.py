# SPDX-License-Identifier: Apache-2.0
"""Masks of LabelMe's JSON files."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import numpy as np

from common.errors import UserError
from data.items import comparable, files_by_stem
from data.pictures import Size
from masks import annotation_shapes
from masks.annotation_files import as_key, length, read_document
from masks.mask_source import Instance, MaskSource

# shapes of LabelMe that cannot be instances; a linestrip that ends where it began is a polygon
NO_AREA = ("point", "points", "line", "linestrip")
# shapes that are given by their corners; those of LabelMe and X-AnyLabeling that are turned have all four
POLYGONS = ("polygon", "linestrip", "oriented_rectangle", "rotation", "quadrilateral")

Shape = Dict[str, Any]


@dataclass(frozen=True)
class _Document:
    """The content of a file: shapes, each with a label, and the size of the picture; old versions leave that out."""

    shapes: List[Shape]
    height: int | None
    width: int | None


class LabelmeFiles(MaskSource):
    """LabelMe's NAME.json in one folder, or one file."""

    format = "labelme"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._files = files_by_stem(path, ".json") if path.is_dir() else {path.stem: path}

    def categories(self) -> List[str]:
        """As `MaskSource.categories`; reads all files that can be read."""
        labels = set()
        for path in self._files.values():
            # a damaged file is reported where its picture is read
            with suppress(UserError):
                labels.update(shape["label"] for shape in _read_file(path).shapes if not _has_no_area(shape))
        return sorted(labels)

    def _read(self, image: Path, size: Size, category: str | None) -> Iterator[Instance]:
        path = self._files.get(comparable(image.stem)) if self.path.is_dir() else self.path
        if path is None:
            return
        document = _read_file(path)
        height = size[0] if document.height is None else document.height
        width = size[1] if document.width is None else document.width
        upright = self._upright((height, width), image, size, path)
        for label, shapes in _grouped(document.shapes):
            if category not in (None, label):
                continue
            try:
                masks, flaws = zip(*(_shape_mask(shape, (height, width)) for shape in shapes))
            except ValueError as error:
                where = f"{path}: a shape {label!r:.40} cannot be used"
                raise UserError(f"{where}: {error}; fix it, or remove it") from None
            mask = np.logical_or.reduce(masks)
            yield Instance(label, upright(mask), [flaw for of_shape in flaws for flaw in of_shape])


def _read_file(path: Path) -> _Document:
    document = read_document(path)
    shapes = document.get("shapes") if isinstance(document, dict) else None
    if not isinstance(shapes, list) or not all(
        isinstance(shape, dict) and type(shape.get("label")) in (str, int) for shape in shapes
    ):
        problem = "it has no list of shapes with labels"
        raise UserError(f"{path} is not a file of LabelMe: {problem}; fix it, or remove it")
    sides = [document.get("imageHeight"), document.get("imageWidth")]
    try:
        height, width = (None if side is None else length(side) for side in sides)
    except ValueError:
        raise UserError(f"{path} has no valid height and width of its picture; fix it") from None
    return _Document([{**shape, "label": str(shape["label"])} for shape in shapes], height, width)


def _grouped(shapes: List[Shape]) -> List[Tuple[str, List[Shape]]]:
    """The label and shapes of each instance: shapes that share label and group_id, or one without a group_id."""
    groups: Dict[Any, List[Shape]] = {}
    for number, shape in enumerate(shapes):
        group = shape.get("group_id")
        key = number if group is None else ("group", as_key(group))
        groups.setdefault((shape["label"], key), []).append(shape)
    return [(label, members) for (label, _), members in groups.items()]


def _has_no_area(shape: Shape) -> bool:
    """Return whether a shape is of a kind that cannot be an instance."""
    points = shape.get("points")
    is_closed = shape.get("shape_type") == "linestrip" and isinstance(points, list) and points[:1] == points[3:][-1:]
    return shape.get("shape_type") in NO_AREA and not is_closed


def _shape_mask(shape: Shape, size: Size) -> Tuple[np.ndarray, List[str]]:
    """The mask of a LabelMe shape; and why it has no pixel, where that is known."""
    kind = shape.get("shape_type") or "polygon"
    if _has_no_area(shape):
        return np.zeros(size, bool), [f"a {kind} has no area"]
    corners = annotation_shapes.points(shape.get("points"))
    if kind == "mask":
        return annotation_shapes.png_mask(shape.get("mask"), corners, size), []
    if kind in POLYGONS:
        return annotation_shapes.outline_mask([corners], size)
    if kind == "rectangle":
        return annotation_shapes.outline_mask([annotation_shapes.rectangle(corners)], size)
    if kind == "circle":
        return annotation_shapes.circle_mask(corners, size), []
    raise ValueError(f"its kind of shape, {kind!r:.40}, is not known")
