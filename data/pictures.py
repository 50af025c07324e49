# SPDX-License-Identifier: Apache-2.0
"""Read, resize and write pictures and masks. Sizes are (height, width)."""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Sequence, Tuple

import numpy as np
from PIL import Image

from common import files
from common.errors import UserError
from data.items import Item

Size = Tuple[int, int]

# Pillow recognizes a format by the file's first bytes, whatever the extension
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
# the operation that turns a picture upright, by its EXIF orientation
UPRIGHT = {
    2: Image.FLIP_LEFT_RIGHT,
    3: Image.ROTATE_180,
    4: Image.FLIP_TOP_BOTTOM,
    5: Image.TRANSPOSE,
    6: Image.ROTATE_270,
    7: Image.TRANSVERSE,
    8: Image.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)  # orientations that exchange height and width
# 89 million, Pillow's own limit; Pillow only warns there, and reads up to twice as many
MOST_PIXELS = Image.MAX_IMAGE_PIXELS
warnings.filterwarnings("ignore", module="PIL")
# Pillow raises these on damaged bytes; MemoryError, where the bytes claim gigabytes
_DAMAGED = (OSError, ValueError, SyntaxError, LookupError, ArithmeticError, TypeError, struct.error, MemoryError)


def read_picture(path: str | Path, size: Size | None = None) -> np.ndarray:
    """Read a picture, upright and resized (bicubic) to `size`: (H, W, 3) uint8.

    Raises:
        UserError: if the file is missing or not a whole picture.
    """
    image = open_picture(path)
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray((_unit_range(image) * 255).round().astype(np.uint8))
    return np.asarray(resized(image.convert("RGB"), size))


def read_mask(path: str | Path, size: Size | None = None) -> np.ndarray:
    """Read a mask of any PNG mode: (H, W) bool, True where it is white; thresholded at one half after resizing.

    Raises:
        UserError: if the file is missing or not a whole picture.
    """
    return cut(read_level(path), size)


def read_level(path: str | Path) -> np.ndarray:
    """Read the whiteness of a mask of any PNG mode: (H, W) float32 in [0, 1].

    Raises:
        UserError: if the file is missing or not a whole picture.
    """
    return mask_level(open_picture(path))


def cut(level: np.ndarray, size: Size | None) -> np.ndarray:
    """Resize (bicubic) a mask's level (H, W), in [0, 1] or bool, to `size` and threshold it at one half: bool."""
    if level.dtype == bool and level.shape == size:
        return level
    return np.asarray(resized(Image.fromarray(level.astype(np.float32, copy=False)), size)) > 0.5


def mask_level(image: Image.Image) -> np.ndarray:
    """The whiteness of an image as (H, W) float32 in [0, 1]; 0 where it is transparent."""
    if image.mode.startswith("I") or image.mode == "F":
        return _unit_range(image)
    if image.mode in ("1", "L") and "transparency" not in image.info:
        return np.asarray(image.convert("L"), np.float32) / 255
    rgba = np.asarray(image.convert("RGBA"))
    return rgba[..., :3].sum(axis=2, dtype=np.uint16) * rgba[..., 3].astype(np.float32) / (3 * 255 * 255)


def read_masks(paths: Sequence[Path], size: Size) -> np.ndarray:
    """Read the masks of one picture at `size`: (N, H, W) bool."""
    return np.array([read_mask(path, size) for path in paths], bool).reshape(-1, *size)


def read_item(item: Item, size: Size) -> Tuple[np.ndarray, np.ndarray]:
    """Read a picture (H, W, 3) uint8 and its masks (N, H, W) bool at `size`."""
    return read_picture(item.image, size), read_masks(list(item.masks.values()), size)


def to_network(picture: np.ndarray) -> np.ndarray:
    """Convert (H, W, 3) uint8 to (3, H, W) float32 in [-1, 1]."""
    return np.ascontiguousarray(picture.transpose(2, 0, 1), np.float32) / 127.5 - 1


def masks_to_network(masks: np.ndarray) -> np.ndarray:
    """Convert (..., H, W) bool to float32, +1 inside and -1 outside."""
    return masks.astype(np.float32) * 2 - 1


def to_picture(array: np.ndarray) -> np.ndarray:
    """Convert (C, H, W) in [-1, 1] to (H, W, C) uint8, rounded; (H, W) stays two-dimensional."""
    array = np.clip((array + 1) * 127.5, 0, 255).round().astype(np.uint8)
    return array.transpose(1, 2, 0) if array.ndim == 3 else array


class NotAPicture(UserError):
    """A file whose first bytes are not those of a picture, or that has more than `MOST_PIXELS`."""


@dataclass(frozen=True)
class Header:
    """The facts about a picture's pixels that its file states.

    `mode` is Pillow's, `size` that of the upright picture, `orientation` the EXIF value (1 is upright). `deep` means
    more than 8 bits a channel, `transparent` that some pixels may be.
    """

    mode: str
    size: Size
    orientation: int
    deep: bool
    transparent: bool


def open_picture(path: str | Path) -> Image.Image:
    """Read a picture in Pillow's mode for it, upright.

    Raises:
        UserError: if the file is missing or not a whole picture (`NotAPicture` if it is not one at all).
    """
    return open_with_header(path)[1]


def open_with_header(path: str | Path, rough: bool = False) -> Tuple[Header, Image.Image]:
    """Read a picture as `open_picture` does, and its header. If `rough`, JPEGs are decoded at 1/8 of their size."""
    try:
        with _opened(path) as image:
            mode = image.mode
            width, height = image.size
            # Pillow reads 16-bit colours as 8-bit ones; only its way of unpacking them shows the difference
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


def size_of(path: str | Path) -> Size:
    """The size of a picture when upright; reads the header only.

    Raises:
        UserError: if the file is missing or not a picture.
    """
    with _opened(path) as image:
        is_sideways = _orientation(image) in SIDEWAYS
        return (image.width, image.height) if is_sideways else (image.height, image.width)


def _opened(path: str | Path) -> Image.Image:
    """A picture of which only the header has been read."""
    if not Path(path).exists():
        raise UserError(f"no file {path}")
    if not Path(path).is_file():
        raise NotAPicture(f"{path} is not a file")
    try:
        # other formats do not belong in a data set, and for some of them Pillow starts other programs
        image = Image.open(path, formats=FORMATS)
    except Image.DecompressionBombError:
        raise NotAPicture(f"{path} has too many pixels; make it smaller") from None
    except _DAMAGED as error:
        raise NotAPicture(f"{path} cannot be read as a picture: {_first_line(error)}") from None
    if image.width * image.height > MOST_PIXELS:
        image.close()
        raise NotAPicture(f"{path} has too many pixels; make it smaller")
    return image


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) to 8; 1 also if the file has none that can be read."""
    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception:  # Pillow's EXIF parser raises all sorts of errors; the pixels are intact, perhaps not upright
        return 1
    return orientation if orientation in range(1, 9) else 1


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _unit_range(image: Image.Image) -> np.ndarray:
    """Integer or float pixels of more than 8 bits as (H, W) in [0, 1]."""
    values = np.asarray(image, np.float32)
    return np.clip(values / (1.0 if image.mode == "F" and values.max() <= 1 else 65535.0), 0, 1)


def same_proportions(size: Size, picture: Size) -> bool:
    """Return whether a mask of `size` has the proportions of its `picture`, but for a pixel of rounding."""
    # compared along the shorter side, where a pixel is more of the whole
    shorter = 0 if picture[0] < picture[1] else 1
    longer = 1 - shorter
    expected = size[longer] * picture[shorter] / picture[longer]
    return abs(size[shorter] - expected) <= max(1, 0.01 * size[shorter])


def resized(image: Image.Image, size: Size | None) -> Image.Image:
    """Resize (bicubic) to `size`; None returns the image unchanged."""
    if size is None or image.size == (size[1], size[0]):
        return image
    return image.resize((size[1], size[0]), Image.BICUBIC)


def colour_profile(path: str | Path) -> bytes | None:
    """The ICC profile of a picture's file, which defines its colours; None unless it has one that also holds for the
    pixels of `read_picture`."""
    profile = _opened(path).info.get("icc_profile")
    # bytes 16 to 20 name the profile's colour space
    return profile if isinstance(profile, bytes) and profile[16:20] == b"RGB " else None


def mask_png(inside: np.ndarray) -> bytes:
    """Encode a mask (H, W) bool as an 8-bit grey PNG file, white inside."""
    buffer = io.BytesIO()
    # level 1 takes a third of the time of the default, and masks take a few kB either way
    Image.fromarray(inside.astype(np.uint8) * 255).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def write_png(path: str | Path, array: np.ndarray, profile: bytes | None = None) -> None:
    """Write (H, W, 3), (H, W, 4) or (H, W) uint8 as a PNG file, whole or not at all; missing folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as part:
        # level 2 writes a large photo six times as fast as the default, and the file is a sixth larger
        Image.fromarray(array).save(part, compress_level=2, icc_profile=profile)
