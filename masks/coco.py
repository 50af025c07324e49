# SPDX-License-Identifier: Apache-2.0
"""Masks of COCO JSON files: polygons and run lengths."""

from __future__ import annotations

import re
from array import array
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence, Tuple
from urllib.parse import unquote

import numpy as np

from common.errors import UserError
from data.items import comparable
from data.pictures import Size
from masks import annotation_shapes
from masks.annotation_files import as_key, length, read_document
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

    @property
    def is_crowd(self) -> bool:
        """Whether it is marked as a crowd, by 1 or by the text of it."""
        return bool(self.iscrowd) and str(self.iscrowd).lower() not in ("0", "false")


def compact(entry: Dict[str, Any]) -> Any:
    """Reduce an object in a JSON file to the fields that are needed, for `read_document`.

    COCO has annotations by the million, and they take a fifth of the memory this way. Other objects stay as they are.
    """
    if "image_id" in entry and not ("file_name" in entry and "category_id" not in entry):
        segmentation = entry.get("segmentation")
        if isinstance(segmentation, list):
            segmentation = [_packed(polygon) for polygon in segmentation]
        return _Annotation(
            entry.get("id"), entry["image_id"], entry.get("category_id"), segmentation, entry.get("iscrowd")
        )
    # LVIS has an address in place of a name, whose last part is the name
    if "file_name" in entry or "coco_url" in entry:
        name = entry["file_name"] if "file_name" in entry else entry["coco_url"]
        return _Picture(entry.get("id"), name, entry.get("height"), entry.get("width"))
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
    """A COCO JSON file; `document` is its content, if `open_source` has read it already with `compact`.

    Annotations with iscrowd are of several instances by COCO's rules, and left out, unless `crowds` says otherwise or
    the file has no others: CVAT and RectLabel mark all masks that way.
    """

    format = "coco"

    def __init__(self, path: Path, document: Any = None, crowds: bool = False) -> None:
        super().__init__(path)
        if document is None:
            document = read_document(path, compact)
        if not isinstance(document, dict):
            raise UserError(f"{path} is not a COCO file; give one with images and annotations")
        self._category_names = self._read_categories(document)
        self._pictures: Dict[str, List[_Picture]] = {}
        pictures = self._entries(document, "images", _Picture)
        self._check_ids([(picture.id, picture.file_name) for picture in pictures], "image")
        for picture in pictures:
            self._pictures.setdefault(comparable(_base_name(picture.file_name)), []).append(picture)
        self._similar: Dict[str, List[_Picture]] = {}
        for name, entries_of_name in self._pictures.items():
            self._similar.setdefault(_similar(name), []).extend(entries_of_name)
        self._annotations: Dict[Any, List[_Annotation]] = {}
        annotations = self._entries(document, "annotations", _Annotation)
        for annotation in annotations:
            self._annotations.setdefault(as_key(annotation.image_id), []).append(annotation)
        has_singles = any(annotation.segmentation and not annotation.is_crowd for annotation in annotations)
        self._takes_crowds = crowds or not has_singles
        self._was_asked_for_crowds = crowds

    def _entries(self, document: Dict[str, Any], key: str, kind: type) -> List[Any]:
        """The list `key` of a document, if all its entries are of this kind."""
        entries = document.get(key)
        field = "a file_name" if kind is _Picture else "an image_id"
        if not isinstance(entries, list):
            problem = f"its {key!r} are not a list of objects with {field}"
            raise UserError(f"{self.path} is not a COCO file: {problem}; fix it")
        for number, entry in enumerate(entries):
            if not isinstance(entry, kind):
                problem = f"its {key!r} are not a list of objects with {field} (entry {number}, from 0)"
                raise UserError(f"{self.path} is not a COCO file: {problem}; fix it")
        return entries

    def _read_categories(self, document: Dict[str, Any]) -> Dict[Any, str]:
        """The categories' names by the keys of their ids."""
        entries = document.get("categories", [])
        if not isinstance(entries, list) or not all(isinstance(e, dict) and "id" in e and "name" in e for e in entries):
            problem = "its 'categories' are not a list of objects with id and name"
            raise UserError(f"{self.path} is not a COCO file: {problem}; fix it")
        self._check_ids([(entry["id"], entry["name"]) for entry in entries], "category")
        return {as_key(entry["id"]): str(entry["name"]) for entry in entries}

    def _check_ids(self, entries: Sequence[Tuple[Any, Any]], kind: str) -> None:
        """Raise UserError if two of the (id, name) share an id, as after files were put together."""
        names: Dict[Any, str] = {}
        for identifier, name in entries:
            first = names.setdefault(as_key(identifier), str(name))
            if first != str(name):
                problem = f"the {kind} id {identifier!r:.40} is used twice ({first}, {name})"
                fix = f"give each {kind} an id of its own, in its annotations too"
                raise UserError(f"{self.path}: {problem}, so annotations may be of either; {fix}")

    def remarks(self, category: str | None) -> List[str]:
        """As `MaskSource.remarks`."""
        every = [annotation for of_picture in self._annotations.values() for annotation in of_picture]
        annotations = [annotation for annotation in every if self._is_of(annotation, category)]
        number_crowds = sum(annotation.is_crowd for annotation in annotations)
        number_bare = sum(not annotation.segmentation for annotation in annotations)
        known = {as_key(picture.id) for pictures in self._pictures.values() for picture in pictures}
        number_orphans = sum(as_key(annotation.image_id) not in known for annotation in annotations)
        # where all categories are asked for, such an annotation is an error of its picture
        number_unknown = 0
        if category is not None:
            number_unknown = sum(as_key(annotation.category_id) not in self._category_names for annotation in every)
        parts = []
        if number_crowds and not self._takes_crowds:
            parts.append(f"{number_crowds} crowds (iscrowd; if they are single instances, --crowds takes them)")
        if number_bare:
            parts.append(f"{number_bare} without a segmentation")
        if number_orphans:
            parts.append(f"{number_orphans} whose image_id is of none of its pictures")
        if number_unknown:
            parts.append(f"{number_unknown} whose category_id is none of its categories'")
        remarks = [f"annotations that are left out: {' and '.join(parts)}"] if parts else []
        if number_crowds and self._takes_crowds and not self._was_asked_for_crowds:
            remarks.append("all annotations are marked as crowds (iscrowd), as some tools do: taken as instances")
        return remarks

    def beyond(self, images: Sequence[Path]) -> str:
        """As `MaskSource.beyond`."""
        missing = self._missing(images)
        return f"{len(missing)} of its {len(self._pictures)} pictures are not there ({missing[0]})" if missing else ""

    def misses_all(self, images: Sequence[Path]) -> bool:
        """As `MaskSource.misses_all`."""
        return bool(self._pictures) and len(self._missing(images)) == len(self._pictures)

    def _missing(self, images: Sequence[Path]) -> List[str]:
        """The names of its pictures that are not among `images`, sorted."""
        there = {_similar(comparable(image.name)) for image in images}
        return sorted(name for name in self._pictures if _similar(name) not in there)

    def categories(self) -> List[str]:
        """As `MaskSource.categories`."""
        return sorted(set(self._category_names.values()))

    def names_with(self, category: str) -> List[str]:
        """The file names, without folders, of the pictures that show a category, sorted."""
        return sorted(
            name
            for name, pictures in self._pictures.items()
            if next(self._instances_of(pictures, category), None) is not None
        )

    def _is_of(self, annotation: _Annotation, category: str | None) -> bool:
        return category is None or self._category_names.get(as_key(annotation.category_id)) == category

    def _instances_of(self, pictures: Sequence[_Picture], category: str | None) -> Iterator[_Annotation]:
        """The annotations of a picture's entries that are instances of a category (None: of any)."""
        for picture in pictures:
            for annotation in self._annotations.get(as_key(picture.id), ()):
                is_instance = annotation.segmentation and (self._takes_crowds or not annotation.is_crowd)
                if is_instance and self._is_of(annotation, category):
                    yield annotation

    def _read(self, image: Path, size: Size, category: str | None) -> Iterator[Instance]:
        picture = self._find(image)
        if picture is None:
            return
        stored_size = self._stored_size(picture, image, size)
        upright = self._upright(stored_size, image, size, self.path)
        for annotation in self._instances_of([picture], category):
            try:
                name = self._category(annotation)
                mask, flaws = _segmentation_mask(annotation.segmentation, stored_size)
            except ValueError as error:
                where = f"{self.path}: annotation {annotation.id!r:.40} of {image.name} cannot be used"
                raise UserError(f"{where}: {error}; fix it, or remove it") from None
            yield Instance(name, upright(mask), flaws)

    def _find(self, image: Path) -> _Picture | None:
        """The entry of a picture: the one of its name or, of several, the one whose folders are the picture's."""
        name = comparable(image.name)
        # an entry may be there twice, word for word
        of_name = self._pictures.get(name) or self._similar.get(_similar(name), [])
        entries = list({as_key(entry.id): entry for entry in of_name}.values())
        if len(entries) > 1:
            parts = image.absolute().parts
            entries = [e for e in entries if parts[-len(_parts(e.file_name)) :] == _parts(e.file_name)] or entries
        if len(entries) > 1:
            names = " and ".join(repr(str(entry.file_name)) for entry in entries[:2])
            fix = "rename one of them, in it and on the disk"
            if entries[0].file_name == entries[1].file_name:
                names = " and ".join(f"id {entry.id!r:.40}" for entry in entries[:2])
                fix = "list it once, and give all its annotations that id"
            raise UserError(f"{self.path} has several pictures {image.name} ({names}); {fix}")
        return entries[0] if entries else None

    def _stored_size(self, picture: _Picture, image: Path, size: Size) -> Size:
        """The (height, width) of a picture that the file states; some tools leave it out, and it is `size` then."""
        try:
            height = size[0] if picture.height is None else length(picture.height)
            width = size[1] if picture.width is None else length(picture.width)
        except ValueError:
            raise UserError(f"{self.path} has no valid height and width of {image.name}; fix them") from None
        return height, width

    def _category(self, annotation: _Annotation) -> str:
        if not self._category_names:
            return ""
        key = as_key(annotation.category_id)
        if key not in self._category_names:
            raise ValueError(f"its category {annotation.category_id!r:.40} is not among the file's")
        return self._category_names[key]


def _segmentation_mask(segmentation: Any, size: Size) -> Tuple[np.ndarray, List[str]]:
    """The mask of a COCO annotation, all its polygons, or run lengths; and why a part has no pixel, if one has none."""
    if isinstance(segmentation, dict):
        mask = annotation_shapes.rle_mask(segmentation, size)
        return mask, [] if mask.any() else ["its run lengths mark no pixel"]
    if not isinstance(segmentation, list):
        raise ValueError("it is neither polygons nor run lengths")
    # some tools write one polygon without the list around it
    polygons = [segmentation] if isinstance(segmentation[0], (int, float)) else segmentation
    outlines = []
    for polygon in polygons:
        coordinates = annotation_shapes.numbers(polygon)
        if len(coordinates) % 2:
            raise ValueError("a polygon has an x without y")
        outlines.append(coordinates.reshape(-1, 2))
    if all(len(outline) == 1 for outline in outlines):
        # one polygon as a list of [x, y]
        outlines = [np.concatenate(outlines)]
    return annotation_shapes.outline_mask(outlines, size)


def _similar(name: str) -> str:
    """A name in the form that it shares with those that tools write for it, such as P.JPG or my%20photo."""
    return comparable(unquote(name)).casefold()


def _base_name(file_name: Any) -> str:
    return (_parts(file_name) or ("",))[-1]


def _parts(file_name: Any) -> Tuple[str, ...]:
    """The folders and the name in a file_name, which may be one of Windows."""
    return tuple(part for part in re.split(r"[\\/]", str(file_name)) if part not in ("", "."))
