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

import re
import unicodedata
from array import array
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Sequence, Tuple

from errors import UserError

import numpy as np
from PIL import Image

import annotation_shapes
import pictures
from annotation_shapes import Size
from json_file import read_json

FORMATS = ("auto", "masks", "labels", "coco", "labelme")
# COCO's largest file has 0.5 GB, that of LVIS 1.1 GB; LabelMe's hold a picture
MOST_BYTES = 2 << 30
# no picture shows so many instances; a photo, or a label map that was saved as JPEG, has so many colours
MOST_LABELS = 5000
STRIP = 256  # rows
VOID, VOID_COLOUR = 255, [224, 224, 192]  # Pascal VOC, and what LabelMe makes for it: "no label", by index and colour
NO_AREA = ("point", "points", "line", "linestrip")  # what LabelMe can draw, and is no instance


@dataclass(frozen=True)
class Instance:
    """An instance of a picture: its category ("" where the source does not tell), and where it is: (H, W) bool, of the
    upright picture's size."""

    category: str
    mask: np.ndarray


class MaskSource:
    """Masks of many pictures, from one folder or file (`path`) in one of `FORMATS` (`format`)."""

    format = ""

    def __init__(self, path: Path) -> None:
        self.path = path

    def instances(self, image: Path, size: Size) -> Iterator[Instance]:
        """The instances of the picture file `image`, whose upright (height, width) is `size`, in the source's order.

        Each mask is made when it is asked for. Those without any pixel in the picture are left out; a picture of which
        the source knows nothing has none.

        Raises:
            UserError: where masks are damaged, or made for a picture of another size. Those of the size before EXIF
                data turn the picture are turned with it.
        """
        return (instance for instance in self._read(Path(image), tuple(size)) if instance.mask.any())

    def categories(self) -> List[str]:
        """The categories that the source tells of, sorted; none where it does not tell any."""
        return []

    def check(self, images: Sequence[Path], category: str | None) -> None:
        """Raise UserError where it cannot be the source of these pictures: it has no such category (None: any will do),
        or is for one picture only."""
        if category is not None and category not in self.categories():
            known = ", ".join(self.categories()) or "none, so leave that out"
            raise UserError(f"{self.path} has no category {category!r}; it has: {known}")
        if self.format in ("labels", "labelme") and self.path.is_file() and len(images) > 1:
            mend = "give the folder that has a file for each"
            raise UserError(f"{self.path} is for one picture, but {images[0].parent} has {len(images)}; {mend}")

    def left_out(self) -> str:
        """What it has that is no mask of an instance, in words; an empty string where that is nothing."""
        return ""

    def beyond(self, images: Sequence[Path]) -> str:
        """Which pictures it knows that are not among `images`, in words; an empty string where it knows no others."""
        return ""

    def _read(self, image: Path, size: Size) -> Iterator[Instance]:
        raise NotImplementedError

    def _fitting(self, own: Size, size: Size, image: Path, path: Path) -> Callable[[np.ndarray], np.ndarray]:
        """What makes masks of the size `own`, read from `path`, upright; UserError where it is not the picture's."""
        if own == size:
            return lambda mask: mask
        if own == size[::-1]:
            orientation = pictures.open_with_header(image, rough=True)[0].orientation
            if orientation in pictures.SIDEWAYS:
                return lambda mask: _turned(mask, orientation)
        raise UserError(
            f"{path} has masks of {own[0]}x{own[1]} (height x width) for {image.name}, which is {size[0]}x{size[1]}; "
            "give the picture that was annotated, or the masks of this one"
        )


def _turned(mask: np.ndarray, orientation: int) -> np.ndarray:
    image = Image.fromarray(mask.astype(np.uint8))
    return np.asarray(image.transpose(pictures.UPRIGHT[orientation])) > 0


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
    labels, listing = _by_stem(path, ".png"), pictures.list_files(path, path)
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


def _by_stem(folder: Path, suffix: str) -> Dict[str, Path]:
    """The visible files of a folder with this extension, by their names without it."""
    files = (path for path in sorted(folder.iterdir()) if not path.name.startswith("."))
    return {path.stem: path for path in files if path.suffix.lower() == suffix}


def _only_json(folder: Path) -> Path:
    found = list(_by_stem(folder, ".json").values())
    if len(found) != 1:
        raise UserError(f"{folder} has {len(found)} .json files; give the one with COCO's annotations")
    return found[0]


def _read_document(path: Path, hook: Callable[[Dict[str, Any]], Any] | None = None) -> Any:
    try:
        # programs on Windows put a mark before UTF-8
        return read_json(path, MOST_BYTES, hook, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}); make it anew") from None


class MaskFolder(MaskSource):
    """Masks NAME_{i}.png in one folder."""

    format = "masks"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._masks = pictures.list_files(path, path).masks

    def _read(self, image: Path, size: Size) -> Iterator[Instance]:
        for _, paths in sorted(self._masks.get(image.stem, {}).items()):
            for path in paths:
                mask = pictures.read_mask(path)
                if mask.shape != size and pictures.same_proportions(mask.shape, size):
                    # as where a data set is read
                    yield Instance("", pictures.read_mask(path, size))
                else:
                    yield Instance("", self._fitting(mask.shape, size, image, path)(mask))


class LabelMaps(MaskSource):
    """Label maps NAME.png in one folder, or one file."""

    format = "labels"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._maps = _by_stem(path, ".png") if path.is_dir() else {}

    def _read(self, image: Path, size: Size) -> Iterator[Instance]:
        path = self._maps.get(image.stem) if self.path.is_dir() else self.path
        if path is None:
            return
        labels = read_labels(path)
        if _is_soft(labels):
            mend = "call it NAME_0.png, as one instance's mask"
            raise UserError(f"{path} is a mask with soft edges, and no label map; {mend}")
        upright = self._fitting(labels.shape, size, image, path)
        values = {int(v) for top in range(0, len(labels), STRIP) for v in np.unique(labels[top : top + STRIP])}
        if len(values) > MOST_LABELS:
            mend = "give a map with one value for each instance, never saved as JPEG"
            raise UserError(f"{path} has {len(values)} values, too many for a label map; {mend}")
        for value in sorted(values - {0}):
            yield Instance("", upright(labels == value))


def _is_soft(labels: np.ndarray) -> bool:
    """Whether a label map is a mask with grey edges: nearly all is black or white, and the rest of many greys."""
    if labels.dtype != np.uint8:
        return False
    counts = np.bincount(labels.ravel(), minlength=256)
    return np.count_nonzero(counts[1:255]) > 8 and counts[255] > 0.7 * counts[1:].sum()


def read_labels(path: Path) -> np.ndarray:
    """A label map as it is stored: (H, W), upright, unsigned or signed integers, 0 where no label is.

    Greys are taken as they are, palettes by index (VOC's index for "no label" becomes 0), colours as 0xRRGGBB; what is
    wholly transparent is 0.

    Raises:
        UserError: where the file is no picture, or has colours of 16 bits, of which only 8 can be read.
    """
    header, image = pictures.open_with_header(path)
    if image.mode == "F" or header.deep and not image.mode.startswith("I"):
        raise UserError(f"{path} has colours of 16 bits, of which only 8 can be read; save it in grey or 8-bit colours")
    if image.mode in ("1", "L", "P") or image.mode.startswith("I"):
        labels = np.array(image, np.uint8) if image.mode in "1LP" else np.asarray(image)
        if image.mode == "P" and (image.getpalette() or [])[3 * VOID : 3 * VOID + 3] == VOID_COLOUR:
            labels[labels == VOID] = 0
        return labels
    if image.mode not in ("RGB", "RGBA", "LA"):
        raise UserError(f"{path} is of Pillow's mode {image.mode}, which is no label map; save it in grey or colours")
    channels = np.asarray(image)
    if image.mode == "LA":
        return channels[..., 0] * (channels[..., 1] > 0)
    labels = np.zeros(channels.shape[:2], np.uint32)
    for channel in range(3):
        labels <<= np.uint32(8)
        labels |= channels[..., channel]
    return labels * (channels[..., 3] > 0) if image.mode == "RGBA" else labels


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


def _is_length(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value <= annotation_shapes.FARTHEST and value == int(value)


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
