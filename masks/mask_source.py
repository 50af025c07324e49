# SPDX-License-Identifier: Apache-2.0
"""What a source of masks is, whatever its format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Sequence

import numpy as np
from PIL import Image

from common.errors import UserError
from common.json_file import read_json
from data import pictures
from masks.annotation_shapes import Size

# COCO's largest file has 0.5 GB, that of LVIS 1.1 GB; LabelMe's hold a picture
MOST_BYTES = 2 << 30


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


def _by_stem(folder: Path, suffix: str) -> Dict[str, Path]:
    """The visible files of a folder with this extension, by their names without it."""
    files = (path for path in sorted(folder.iterdir()) if not path.name.startswith("."))
    return {path.stem: path for path in files if path.suffix.lower() == suffix}


def _read_document(path: Path, hook: Callable[[Dict[str, Any]], Any] | None = None) -> Any:
    try:
        # programs on Windows put a mark before UTF-8
        return read_json(path, MOST_BYTES, hook, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}); make it anew") from None
