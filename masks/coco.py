# SPDX-License-Identifier: Apache-2.0
"""Masks of COCO JSON files: polygons and run lengths."""

from __future__ import annotations

import re
import unicodedata
from array import array
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence, Tuple

import numpy as np

from common.errors import UserError
from data.pictures import Size
from masks import annotation_shapes
from masks.annotation_files import as_key, is_length, read_document
from masks.mask_source import Instance, MaskSource


class _Picture(NamedTuple):
    """The fields of a picture in a COCO file that are kept, unchecked."""

    id: Any
    file_name: Any
    height: Any
    width: Any


class _Annotation(NamedTuple):
    """The fields of an annotation in a COCO file that are kept, unchecked."""

    id: Any
    image_id: Any
    category_id: Any
    segmentation: Any
    iscrowd: Any


def compact(entry: Dict[str, Any]) -> Any:
    """Reduce an object in a JSON file to the fields that are needed, for `read_document`.

    COCO has annotations by the million, and they take a fifth of the memory this way. Other objects stay as they are.
    """
    if "image_id" in entry:
        segmentation = entry.get("segmentation")
        if isinstance(segmentation, list):
            segmentation = [_packed(polygon) for polygon in segmentation]
        return _Annotation(
            entry.get("id"), entry["image_id"], entry.get("category_id"), segmentation, entry.get("iscrowd")
        )
    if "file_name" in entry:
        return _Picture(entry.get("id"), entry["file_name"], entry.get("height"), entry.get("width"))
    if "counts" in entry:
        return {"size": entry.get("size"), "counts": _packed(entry["counts"])}
    return entry


def _packed(values: Any) -> Any:
    """A list of numbers as an array of doubles; anything else unchanged, to be reported when it is needed."""
    try:
        return array("d", values) if isinstance(values, list) else values
    except (TypeError, ValueError, OverflowError):
        return values


class CocoFile(MaskSource):
    """A COCO JSON file; `document` is its content, if `open_source` has read it already with `compact`."""

    format = "coco"

    def __init__(self, path: Path, document: Any = None) -> None:
        super().__init__(path)
        if document is None:
            document = read_document(path, compact)
        if not isinstance(document, dict):
            raise UserError(f"{path} is not a COCO file; give one with images and annotations")
        self._category_names = self._read_categories(document)
        self._pictures: Dict[str, List[_Picture]] = {}
        for picture in self._entries(document, "images", _Picture):
            self._pictures.setdefault(_comparable(_base_name(picture.file_name)), []).append(picture)
        self._annotations: Dict[Any, List[_Annotation]] = {}
        self._number_crowds = 0
        self._number_bare = 0
        for annotation in self._entries(document, "annotations", _Annotation):
            if annotation.iscrowd:
                self._number_crowds += 1
            elif not annotation.segmentation:
                self._number_bare += 1
            else:
                self._annotations.setdefault(as_key(annotation.image_id), []).append(annotation)

    def _entries(self, document: Dict[str, Any], key: str, kind: type) -> List[Any]:
        """The list `key` of a document, if all its entries are of this kind."""
        entries = document.get(key)
        if not isinstance(entries, list) or not all(isinstance(entry, kind) for entry in entries):
            field = "a file_name" if kind is _Picture else "an image_id"
            problem = f"its {key!r} are not a list of objects with {field}"
            raise UserError(f"{self.path} is not a COCO file: {problem}; fix it")
        return entries

    def _read_categories(self, document: Dict[str, Any]) -> Dict[Any, str]:
        """The categories' names by the keys of their ids."""
        entries = document.get("categories", [])
        if not isinstance(entries, list) or not all(isinstance(e, dict) and "id" in e and "name" in e for e in entries):
            problem = "its 'categories' are not a list of objects with id and name"
            raise UserError(f"{self.path} is not a COCO file: {problem}; fix it")
        return {as_key(entry["id"]): str(entry["name"]) for entry in entries}

    def left_out(self) -> str:
        """As `MaskSource.left_out`."""
        parts = []
        if self._number_crowds:
            parts.append(f"{self._number_crowds} crowds (iscrowd)")
        if self._number_bare:
            parts.append(f"{self._number_bare} without a segmentation")
        return f"annotations that are left out: {' and '.join(parts)}" if parts else ""

    def beyond(self, images: Sequence[Path]) -> str:
        """As `MaskSource.beyond`."""
        missing = sorted(self._pictures.keys() - {_comparable(image.name) for image in images})
        return f"{len(missing)} of its {len(self._pictures)} pictures are not there ({missing[0]})" if missing else ""

    def categories(self) -> List[str]:
        """As `MaskSource.categories`."""
        return sorted(set(self._category_names.values()))

    def names_with(self, category: str) -> List[str]:
        """The file names, without folders, of the pictures that show a category, sorted."""
        ids = {key for key, name in self._category_names.items() if name == category}
        return sorted(
            name
            for name, pictures in self._pictures.items()
            if any(as_key(annotation.category_id) in ids for annotation in self._annotations_of(pictures))
        )

    def _annotations_of(self, pictures: Sequence[_Picture]) -> Iterator[_Annotation]:
        for picture in pictures:
            yield from self._annotations.get(as_key(picture.id), ())

    def _read(self, image: Path, size: Size) -> Iterator[Instance]:
        picture = self._find(image)
        if picture is None:
            return
        stored_size = self._stored_size(picture, image, size)
        upright = self._upright(stored_size, image, size, self.path)
        for annotation in self._annotations_of([picture]):
            try:
                category = self._category(annotation)
                mask = _segmentation_mask(annotation.segmentation, stored_size)
            except ValueError as error:
                where = f"{self.path}: annotation {annotation.id!r:.40} of {image.name} cannot be used"
                raise UserError(f"{where}: {error}; fix it, or remove it") from None
            yield Instance(category, upright(mask))

    def _find(self, image: Path) -> _Picture | None:
        """The entry of a picture: the one of its name or, of several, the one whose folders are the picture's."""
        entries = self._pictures.get(_comparable(image.name), [])
        if len(entries) > 1:
            parts = image.absolute().parts
            entries = [e for e in entries if parts[-len(_parts(e.file_name)) :] == _parts(e.file_name)] or entries
        if len(entries) > 1:
            names = " and ".join(repr(str(entry.file_name)) for entry in entries[:2])
            fix = "rename one of them, in it and on the disk"
            raise UserError(f"{self.path} has several pictures {image.name} ({names}); {fix}")
        return entries[0] if entries else None

    def _stored_size(self, picture: _Picture, image: Path, size: Size) -> Size:
        """The (height, width) of a picture that the file states; some tools leave it out, and it is `size` then."""
        height = size[0] if picture.height is None else picture.height
        width = size[1] if picture.width is None else picture.width
        if not (is_length(height) and is_length(width)):
            raise UserError(f"{self.path} has no valid height and width of {image.name}; fix them")
        return int(height), int(width)

    def _category(self, annotation: _Annotation) -> str:
        if not self._category_names:
            return ""
        key = as_key(annotation.category_id)
        if key not in self._category_names:
            raise ValueError(f"its category {annotation.category_id!r:.40} is not among the file's")
        return self._category_names[key]


def _segmentation_mask(segmentation: Any, size: Size) -> np.ndarray:
    """The mask of a COCO annotation: all its polygons, or run lengths."""
    if isinstance(segmentation, dict):
        return annotation_shapes.rle_mask(segmentation, size)
    if not isinstance(segmentation, list):
        raise ValueError("it is neither polygons nor run lengths")
    # some tools write one polygon without the list around it
    polygons = [segmentation] if isinstance(segmentation[0], (int, float)) else segmentation
    mask = np.zeros(size, bool)
    for polygon in polygons:
        coordinates = annotation_shapes.numbers(polygon)
        if len(coordinates) % 2:
            raise ValueError("a polygon has an x without y")
        mask |= annotation_shapes.polygon_mask(coordinates.reshape(-1, 2), size)
    return mask


def _base_name(file_name: Any) -> str:
    return (_parts(file_name) or ("",))[-1]


def _parts(file_name: Any) -> Tuple[str, ...]:
    """The folders and the name in a file_name, which may be one of Windows."""
    return tuple(part for part in re.split(r"[\\/]", str(file_name)) if part not in ("", "."))


def _comparable(name: str) -> str:
    """A file's name in one form: letters with accents have two, and macOS stores another one than most programs."""
    return unicodedata.normalize("NFC", name)
