# SPDX-License-Identifier: Apache-2.0
"""Read, resize and write pictures and masks, and find them in a data set folder.

A data set folder holds `PHASE{A,B}/NAME.{png,jpg,jpeg}` and `PHASE{A,B}_seg/NAME_{i}.png`, i = 0, 1, ...
"""

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
    with files.replacing(path) as part:
        # a large photo is written six times as fast as by default, and its file is a sixth larger
        Image.fromarray(array).save(part, compress_level=2, icc_profile=profile)


