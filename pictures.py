# SPDX-License-Identifier: Apache-2.0
"""Read, resize and write pictures and masks, and find them in a data set folder.

A data set folder holds `PHASE{A,B}/NAME.{png,jpg,jpeg}` and `PHASE{A,B}_seg/NAME_{i}.png`, i = 0, 1, ...
"""

from __future__ import annotations

import colorsys
import io
import re
import struct
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Sequence, Tuple

from errors import UserError

import numpy as np
from PIL import Image

import atomic

EXTENSIONS = (".png", ".jpg", ".jpeg")
# what files with these extensions are, whatever they are called
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
# what makes a picture upright, by its EXIF orientation; in the last four height and width are exchanged
UPRIGHT = {2: Image.FLIP_LEFT_RIGHT, 3: Image.ROTATE_180, 4: Image.FLIP_TOP_BOTTOM, 5: Image.TRANSPOSE}
UPRIGHT.update({6: Image.ROTATE_270, 7: Image.TRANSVERSE, 8: Image.ROTATE_90})
SIDEWAYS = (5, 6, 7, 8)
# 89 million, Pillow's own figure; it only warns, and reads up to twice as many
MOST_PIXELS = Image.MAX_IMAGE_PIXELS
warnings.filterwarnings("ignore", module="PIL")
# what Pillow raises on bytes that make no sense; memory runs out where a part is said to have gigabytes
_DAMAGED = (OSError, ValueError, SyntaxError, LookupError, ArithmeticError, TypeError, struct.error, MemoryError)
OUTLINES = 384  # pixels of the longer side that outlines have at least
# of the first instances of a picture
COLOURS = ((255, 255, 255), (255, 176, 0), (100, 143, 255), (220, 38, 127), (0, 190, 140), (160, 110, 255))


@dataclass(frozen=True)
class Item:
    """A picture's file and those of its masks, by number (numbers may have gaps)."""

    name: str
    image: Path
    masks: Dict[int, Path] = field(default_factory=dict)

    @property
    def files(self) -> List[Path]:
        """The picture, then its masks."""
        return [self.image, *self.masks.values()]


def find_items(root: str | Path, phase: str, domain: str) -> List[Item]:
    """The pictures of `PHASE` + domain ("A" or "B") with their masks, by name.

    Raises:
        UserError: where the folder is missing or holds no picture, or a name occurs with two extensions.
    """
    folder = Path(root) / f"{phase}{domain}"
    if not folder.is_dir():
        found = sorted({p.name[:-1] for p in Path(root).glob("*[AB]") if p.is_dir()})
        raise UserError(f"no folder {folder}; {root} has the phases: {', '.join(found) or 'none'}")
    return find_pictures(folder, mask_folder_of(folder))


def mask_folder_of(folder: Path) -> Path:
    """Where the masks of a folder of pictures are: FOLDER_seg beside it.

    Raises:
        UserError: where there is nothing beside it.
    """
    # "." and ".." have no name of their own
    named = folder if folder.name not in ("", "..") else folder.resolve()
    if not named.name:
        raise UserError(f"{folder} has no folder of masks beside it; give another folder of pictures")
    return named.with_name(named.name + "_seg")


@dataclass(frozen=True)
class Listing:
    """The files of a picture folder and of its mask folder, by what their names say; hidden ones are left out.

    `images` has the pictures by name, `masks` those of a name by number, each a list, of which a good folder has one
    in each place; `other` are the files in either folder that are neither.
    """

    images: Dict[str, List[Path]]
    masks: Dict[str, Dict[int, List[Path]]]
    other: List[Path]


def list_files(folder: Path, mask_folder: Path | None) -> Listing:
    """What is in `folder`, and in `mask_folder` (not looked at where None), which may be missing."""
    listing = Listing({}, {}, [])
    for path in _visible(folder):
        if path.suffix.lower() in EXTENSIONS:
            listing.images.setdefault(path.stem, []).append(path)
        else:
            listing.other.append(path)
    for path in _visible(mask_folder) if mask_folder and mask_folder.is_dir() else []:
        match = re.fullmatch(r"(.+)_([0-9]{1,9})", path.stem, re.DOTALL)
        if match and path.suffix.lower() == ".png":
            listing.masks.setdefault(match[1], {}).setdefault(int(match[2]), []).append(path)
        else:
            listing.other.append(path)
    return listing


def find_pictures(folder: Path, mask_folder: Path | None) -> List[Item]:
    """The pictures of `folder`, each with its masks in `mask_folder` (which may be missing, or None), by name.

    Raises:
        UserError: where there is none, or a name or number occurs twice, or a name cannot be written into a page.
    """
    listing = list_files(folder, mask_folder)
    if not listing.images:
        raise UserError(f"no pictures ({', '.join(EXTENSIONS)}) in {folder}")
    for name, paths in listing.images.items():
        if len(paths) > 1:
            raise UserError(f"{paths[1]} and {paths[0].name} share a name; their masks would too: rename one")
        if not is_text(name):
            raise UserError(f"{paths[0]}: its name is not valid UTF-8; rename it")
    for name, numbers in listing.masks.items():
        for number, paths in numbers.items():
            if len(paths) > 1:
                raise UserError(f"{paths[1]} and {paths[0].name} are both mask {number} of {name}; rename one")
    return items_of(listing)


def items_of(listing: Listing) -> List[Item]:
    """The pictures of a listing in which each name and number occurs once."""
    masks = {name: {i: numbers[i][0] for i in sorted(numbers)} for name, numbers in listing.masks.items()}
    return [Item(name, paths[0], masks.get(name, {})) for name, paths in listing.images.items()]


def is_text(name: str) -> bool:
    """Whether a file's name is valid UTF-8 (where it is not, Python has surrogates in it)."""
    return not any("\ud800" <= c <= "\udfff" for c in name)


def _visible(folder: Path) -> List[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def read_picture(path: str | Path, size: Tuple[int, int] | None = None) -> np.ndarray:
    """Read a picture, upright and resized (bicubic) to `size` = (height, width): (H, W, 3) uint8.

    Raises:
        UserError: where the file is missing or is not a whole picture.
    """
    image = open_picture(path)
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray((_unit_range(image, path) * 255).round().astype(np.uint8))
    return np.asarray(resized(image.convert("RGB"), size))


def read_mask(path: str | Path, size: Tuple[int, int] | None = None) -> np.ndarray:
    """Read a mask of any PNG mode: (H, W) bool, True where it is white; grey is cut in the middle, after resizing.

    Raises:
        UserError: where the file is missing or is not a whole picture.
    """
    return cut(read_level(path), size)


def read_level(path: str | Path) -> np.ndarray:
    """Read how white a mask of any PNG mode is: (H, W) float32 in [0, 1].

    Raises:
        UserError: where the file is missing or is not a whole picture.
    """
    return mask_level(open_picture(path), path)


def cut(level: np.ndarray, size: Tuple[int, int] | None) -> np.ndarray:
    """A mask's level (H, W) in [0, 1], or bool, resized (bicubic) to `size` = (height, width) and cut in the middle."""
    if level.dtype == bool and level.shape == size:
        return level
    return np.asarray(resized(Image.fromarray(level.astype(np.float32, copy=False)), size)) > 0.5


def mask_level(image: Image.Image, path: str | Path) -> np.ndarray:
    """How white an image is that was read from `path`: (H, W) float32 in [0, 1]; what is transparent is not."""
    if image.mode.startswith("I") or image.mode == "F":
        return _unit_range(image, path)
    if image.mode in ("1", "L") and "transparency" not in image.info:
        return np.asarray(image.convert("L"), np.float32) / 255
    rgba = np.asarray(image.convert("RGBA"))
    return rgba[..., :3].sum(axis=2, dtype=np.uint16) * rgba[..., 3].astype(np.float32) / (3 * 255 * 255)


def read_masks(paths: Sequence[Path], size: Tuple[int, int]) -> np.ndarray:
    """Read the masks of one picture at `size` = (height, width): (N, H, W) bool."""
    return np.array([read_mask(p, size) for p in paths], bool).reshape(-1, *size)


def read_item(item: Item, size: Tuple[int, int]) -> Tuple[np.ndarray, np.ndarray]:
    """Read a picture (H, W, 3) uint8 and its masks (N, H, W) bool at `size` = (height, width)."""
    return read_picture(item.image, size), read_masks(list(item.masks.values()), size)


def to_network(picture: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 to (3, H, W) float32 in [-1, 1]."""
    return np.ascontiguousarray(picture.transpose(2, 0, 1), np.float32) / 127.5 - 1


def masks_to_network(masks: np.ndarray) -> np.ndarray:
    """(..., H, W) bool to float32, +1 inside and -1 outside."""
    return masks.astype(np.float32) * 2 - 1


def to_picture(array: np.ndarray) -> np.ndarray:
    """(C, H, W) in [-1, 1] to (H, W, C) uint8, rounded; (H, W) stays two-dimensional."""
    array = np.clip((array + 1) * 127.5, 0, 255).round().astype(np.uint8)
    return array.transpose(1, 2, 0) if array.ndim == 3 else array


class NotAPicture(UserError):
    """A file that is no picture by its first bytes, or has more than `MOST_PIXELS`."""


@dataclass(frozen=True)
class Header:
    """What a picture's file says of its pixels: Pillow's mode, the (height, width) when upright, how it must be turned
    for that (EXIF orientation, 1 is upright), whether it has more than 8 bits a channel, and may be transparent."""

    mode: str
    size: Tuple[int, int]
    orientation: int
    deep: bool
    transparent: bool


def open_picture(path: str | Path) -> Image.Image:
    """Read a picture as Pillow has it, upright.

    Raises:
        UserError: where the file is missing, or is not a whole picture (`NotAPicture` where it is none at all).
    """
    return open_with_header(path)[1]


def open_with_header(path: str | Path, rough: bool = False) -> Tuple[Header, Image.Image]:
    """As `open_picture`, with what the file says of its pixels. Where `rough`, JPEGs are decoded at 1/8 of the size."""
    try:
        with _opened(path) as image:
            mode, (width, height) = image.mode, image.size
            # 16-bit colours are read as 8-bit ones by Pillow; only how it unpacks them tells
            deep = mode.startswith("I") or mode == "F" or ";16" in str(image.tile)
            if rough:
                image.draft(None, (1, 1))
            image.load()
    except UserError:
        raise
    except _DAMAGED as error:
        raise UserError(f"{path} cannot be read as a picture: {_first_line(error)}") from None
    orientation = _orientation(image)
    size = (width, height) if orientation in SIDEWAYS else (height, width)
    transparent = mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    header = Header(mode, size, orientation, deep, transparent)
    # not ImageOps.exif_transpose, which fails where other EXIF data are odd
    return header, image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def size_of(path: str | Path) -> Tuple[int, int]:
    """The (height, width) of a picture when upright, of which only the header is read.

    Raises:
        UserError: where there is no picture.
    """
    with _opened(path) as image:
        turned = _orientation(image) in SIDEWAYS
        return (image.width, image.height) if turned else (image.height, image.width)


def _opened(path: str | Path) -> Image.Image:
    """A picture of which only the header is read."""
    if not Path(path).exists():
        raise UserError(f"no file {path}")
    if not Path(path).is_file():
        raise NotAPicture(f"{path} is no file")
    try:
        # other formats have no business in a data set, and some have Pillow start other programs
        image = Image.open(path, formats=FORMATS)
    except Image.DecompressionBombError:
        raise NotAPicture(f"{path} has more pixels than can be meant; make it smaller") from None
    except _DAMAGED as error:
        raise NotAPicture(f"{path} cannot be read as a picture: {_first_line(error)}") from None
    if image.width * image.height > MOST_PIXELS:
        image.close()
        raise NotAPicture(f"{path} has more pixels than can be meant; make it smaller")
    return image


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) to 8; 1 too where there is none that can be read."""
    try:
        found = image.getexif().get(0x0112, 1)
    except Exception:  # Pillow's EXIF parser raises all sorts of errors; the pixels are whole, only perhaps not upright
        return 1
    return found if found in range(1, 9) else 1


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _unit_range(image: Image.Image, path: str | Path) -> np.ndarray:
    """Integer or float pixels of more than 8 bits as (H, W) in [0, 1]."""
    values = np.asarray(image, np.float32)
    return np.clip(values / (1.0 if image.mode == "F" and values.max() <= 1 else 65535.0), 0, 1)


def same_proportions(own: Tuple[int, int], size: Tuple[int, int]) -> bool:
    """Whether something of (height, width) `own` has the shape of `size`; a pixel more or less comes from rounding."""
    return abs(own[1] - own[0] * size[1] / size[0]) <= max(1, 0.01 * own[1])


def resized(image: Image.Image, size: Tuple[int, int] | None) -> Image.Image:
    """Resize (bicubic) to `size` = (height, width); None leaves it as it is."""
    if size is None or image.size == (size[1], size[0]):
        return image
    return image.resize((size[1], size[0]), Image.BICUBIC)


def colour_profile(path: str | Path) -> bytes | None:
    """The ICC profile of a picture's file, which says what its colours mean; None where it has none, or none that holds
    for what `read_picture` gives."""
    profile = _opened(path).info.get("icc_profile")
    # after 16 bytes it says of what colours it speaks
    return profile if isinstance(profile, bytes) and profile[16:20] == b"RGB " else None


def mask_png(inside: np.ndarray) -> bytes:
    """A mask (H, W) bool as the bytes of an 8-bit grey PNG file, white inside."""
    buffer = io.BytesIO()
    # level 1 takes a third of the time of the default, and masks come out at some kB either way
    Image.fromarray(inside.astype(np.uint8) * 255).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def write_png(path: str | Path, array: np.ndarray, profile: bytes | None = None) -> None:
    """Write (H, W, 3), (H, W, 4) or (H, W) uint8 as a PNG file, whole or not at all; missing folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic.replacing(path) as part:
        # a large photo is written six times as fast as by default, and its file is a sixth larger
        Image.fromarray(array).save(part, compress_level=2, icc_profile=profile)


def colour_masks(masks: np.ndarray) -> np.ndarray:
    """Show masks (N, H, W) in [-1, 1] in one picture (H, W, 3) uint8, black where no instance is, a colour for each."""
    height, width = masks.shape[1:]
    shown = np.zeros((height, width, 3), np.float32)
    for i, mask in enumerate(masks):
        inside = (mask[..., None] + 1) / 2
        shown = shown * (1 - inside) + inside * np.array(instance_colour(i), np.float32)
    return shown.round().astype(np.uint8)


def outline_masks(masks: np.ndarray, numbers: Sequence[int] | None = None, width: float = 0.009) -> np.ndarray:
    """Draw the outlines of masks (N, H, W), bool or in [-1, 1], on a transparent ground: (s * H, s * W, 4) uint8.

    Each line has the colour of its instance's number (`instance_colour`; None: as they come) and a dark rim, so that it
    is seen on any ground; `width` is that of the coloured part, as a share of the side of a square of the picture's
    area. A line is where its mask crosses the middle, and along the edge of the picture where that cuts an instance. s
    is 1 for all but small pictures, which lines as wide as their pixels would hide.
    """
    masks = masks_to_network(masks) if masks.dtype == bool else masks
    height, wide = masks.shape[1:]
    scale = -(-OUTLINES // max(height, wide))
    line = width * scale * (height * wide) ** 0.5
    drawn = np.zeros((scale * height, scale * wide, 4), np.float32)
    for number, mask in zip(range(len(masks)) if numbers is None else numbers, masks):
        inside = np.asarray(resized(Image.fromarray(mask.astype(np.float32)), drawn.shape[:2])) > 0
        window, distance = _distance_to_edge(inside, int(line) + 2)
        for colour, thick in (((0, 0, 0, 190), 1.8 * line), ((*instance_colour(number), 255), line)):
            # a pixel that the line's own edge passes through has a part of it
            cover = np.clip(thick / 2 - distance + 0.5, 0, 1)[..., None] * np.float32(colour[3] / 255)
            part = drawn[window]
            part[..., :3] += cover * (np.array(colour[:3], np.float32) - part[..., :3])
            part[..., 3:] += cover * (255 - part[..., 3:])
    return drawn.round().astype(np.uint8)


def _distance_to_edge(inside: np.ndarray, margin: int) -> Tuple[Tuple[slice, slice], np.ndarray]:
    """How far pixels are from the edge of an instance (H, W) bool, for those up to `margin` around it, and where these
    are; the edge of the picture is one too."""
    # slow to import, and training does without
    from scipy.ndimage import distance_transform_edt

    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return (slice(0), slice(0)), np.zeros((0, 0), np.float32)
    window = tuple(slice(max(0, n[0] - margin), n[-1] + margin + 1) for n in (rows, columns))
    part = np.pad(inside[window], 1)
    # to the nearest pixel of the other kind; the edge is half a pixel before it
    distance = np.where(part, distance_transform_edt(part), distance_transform_edt(~part)) - 0.5
    return window, distance[1:-1, 1:-1].astype(np.float32)


def instance_colour(number: int) -> Tuple[int, int, int]:
    """The colour of a picture's instance of this number, by which it is known on pages: those of COLOURS, then others
    without end."""
    if number < len(COLOURS):
        return COLOURS[number]
    # a golden section of the circle away from the one before, so that neighbours differ
    red, green, blue = colorsys.hsv_to_rgb(number * 0.618034 % 1, 0.55 if number % 2 else 0.85, 1)
    return round(red * 255), round(green * 255), round(blue * 255)
