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
from masks import annotation_shapes
from masks.annotation_shapes import Size, _is_length
from masks.mask_source import Instance, MaskSource, _read_document


class _Picture(NamedTuple):
    """What is kept of a picture in a COCO file; of any type."""

    id: Any
    file_name: Any
    height: Any
    width: Any


class _Annotation(NamedTuple):
    """What is kept of an annotation in a COCO file; of any type."""

    id: Any
    image_id: Any
    category_id: Any
    segmentation: Any
    iscrowd: Any


def _compact(entry: Dict[str, Any]) -> Any:
    """What is kept of an object in a JSON file: of COCO's, which come by the million, a fifth of the memory."""
    if "image_id" in entry:
        found = entry.get("segmentation")
        if isinstance(found, list):
            found = [_packed(polygon) for polygon in found]
        return _Annotation(*map(entry.get, ("id", "image_id", "category_id")), found, entry.get("iscrowd"))
    if "file_name" in entry:
        return _Picture(*map(entry.get, _Picture._fields))
    if "counts" in entry:
        return {"size": entry.get("size"), "counts": _packed(entry["counts"])}
    return entry


def _packed(values: Any) -> Any:
    """A list of numbers as an array of doubles; anything else as it is, to be told of when it is needed."""
    try:
        return array("d", values) if isinstance(values, list) else values
    except (TypeError, ValueError, OverflowError):
        return values


class CocoFile(MaskSource):
    """A COCO JSON file; `document` is what is in it, where that has been read already (as `open_source` does)."""

    format = "coco"

    def __init__(self, path: Path, document: Any = None) -> None:
        super().__init__(path)
        document = _read_document(path, _compact) if document is None else document
        if not isinstance(document, dict):
            raise UserError(f"{path} is no COCO file; give one with images and annotations")
        self._names = self._category_names(document)
        self._pictures: Dict[str, List[_Picture]] = {}
        for picture in self._entries(document, "images", _Picture):
            self._pictures.setdefault(_known_as(_base_name(str(picture.file_name))), []).append(picture)
        self._annotations: Dict[Any, List[_Annotation]] = {}
        annotations = self._entries(document, "annotations", _Annotation)
        self._crowds = sum(bool(annotation.iscrowd) for annotation in annotations)
        self._bare = sum(not annotation.segmentation and not annotation.iscrowd for annotation in annotations)
        for annotation in annotations:
            if annotation.segmentation and not annotation.iscrowd:
                self._annotations.setdefault(_key(annotation.image_id), []).append(annotation)

    def left_out(self) -> str:
        """As `MaskSource.left_out`."""
        found = ((self._crowds, "crowds (iscrowd)"), (self._bare, "without a segmentation"))
        told = " and ".join(f"{count} {what}" for count, what in found if count)
        return f"annotations that are left out: {told}" if told else ""

    def beyond(self, images: Sequence[Path]) -> str:
        """As `MaskSource.beyond`."""
        missing = sorted(self._pictures.keys() - {_known_as(image.name) for image in images})
        return f"{len(missing)} of its {len(self._pictures)} pictures are not there ({missing[0]})" if missing else ""

    def _entries(self, document: Dict[str, Any], key: str, kind: type) -> List[Any]:
        entries = document.get(key)
        if not isinstance(entries, list) or not all(isinstance(entry, kind) for entry in entries):
            needed = "a file_name" if kind is _Picture else "an image_id"
            raise UserError(f"{self.path} is no COCO file: its {key!r} are no list of objects with {needed}; mend it")
        return entries

    def _category_names(self, document: Dict[str, Any]) -> Dict[Any, str]:
        entries = document.get("categories", [])
        if not isinstance(entries, list) or not all(isinstance(e, dict) and "id" in e and "name" in e for e in entries):
            what = "its 'categories' are no list of objects with id and name"
            raise UserError(f"{self.path} is no COCO file: {what}; mend it")
        return {_key(entry["id"]): str(entry["name"]) for entry in entries}

    def categories(self) -> List[str]:
        """As `MaskSource.categories`."""
        return sorted(set(self._names.values()))

    def names_with(self, category: str) -> List[str]:
        """The file names, without folders, of the pictures that show a category, sorted."""
        ids = {key for key, name in self._names.items() if name == category}
        return sorted(
            name
            for name, entries in self._pictures.items()
            if any(_key(a.category_id) in ids for p in entries for a in self._annotations.get(_key(p.id), ()))
        )

    def _read(self, image: Path, size: Size) -> Iterator[Instance]:
        picture = self._find(image)
        if picture is None:
            return
        given = (picture.height, picture.width)
        # some tools write none, or 480.0
        own = tuple(full if n is None else int(n) if _is_length(n) else 0 for n, full in zip(given, size))
        if not all(own):
            raise UserError(f"{self.path} gives {image.name} no height and width that can be meant; mend them")
        upright = self._fitting(own, size, image, self.path)
        for annotation in self._annotations.get(_key(picture.id), ()):
            try:
                category, mask = self._category(annotation), _segmented(annotation.segmentation, own)
            except ValueError as error:
                where = f"{self.path}: annotation {annotation.id!r:.40} of {image.name} cannot be used"
                raise UserError(f"{where}: {error}; mend it, or remove it") from None
            yield Instance(category, upright(mask))

    def _find(self, image: Path) -> _Picture | None:
        """The entry of a picture: the one of its name or, of several, the one whose folders are the picture's."""
        entries = self._pictures.get(_known_as(image.name), [])
        if len(entries) > 1:
            parts = image.absolute().parts
            entries = [e for e in entries if parts[-len(_parts(e.file_name)) :] == _parts(e.file_name)] or entries
        if len(entries) > 1:
            names = " and ".join(repr(str(entry.file_name)) for entry in entries[:2])
            mend = "rename one of them, in it and on the disk"
            raise UserError(f"{self.path} has several pictures {image.name} ({names}); {mend}")
        return entries[0] if entries else None

    def _category(self, annotation: _Annotation) -> str:
        if not self._names:
            return ""
        if _key(annotation.category_id) not in self._names:
            raise ValueError(f"its category {annotation.category_id!r:.40} is not among the file's")
        return self._names[_key(annotation.category_id)]


def _segmented(segmentation: Any, size: Size) -> np.ndarray:
    """The mask of a COCO annotation: all its polygons, or run lengths."""
    if isinstance(segmentation, dict):
        return annotation_shapes.rle_mask(segmentation, size)
    if not isinstance(segmentation, list):
        raise ValueError("it is neither polygons nor run lengths")
    mask = np.zeros(size, bool)
    # some tools write one polygon without the list around it
    for polygon in segmentation if not isinstance(segmentation[0], (int, float)) else [segmentation]:
        flat = annotation_shapes.numbers(polygon)
        if len(flat) % 2:
            raise ValueError("a polygon has an x without y")
        mask |= annotation_shapes.polygon_mask(flat.reshape(-1, 2), size)
    return mask


def _key(identifier: Any) -> Any:
    """An id as what a dictionary takes; whatever else it is does not matter."""
    return identifier if isinstance(identifier, (int, float, str)) else repr(identifier)


def _parts(file_name: Any) -> Tuple[str, ...]:
    return tuple(part for part in re.split(r"[\\/]", str(file_name)) if part not in ("", "."))


def _known_as(name: str) -> str:
    """A file's name as it is compared: letters with accents can be written in two ways, and macOS takes another one."""
    return unicodedata.normalize("NFC", name)


def _base_name(file_name: str) -> str:
    return (_parts(file_name) or ("",))[-1]
