# SPDX-License-Identifier: Apache-2.0
"""The interface to a source of masks, whatever its format."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterable, Iterator, List, Sequence

import numpy as np
from PIL import Image

from common.errors import UserError
from data import pictures
from data.pictures import Size


@dataclass(frozen=True)
class Instance:
    """An instance in a picture: its category ("" if the source has none), and its mask (H, W) bool, upright.

    `flaws` says why the mask, or a part of it, has no pixel, where that is known.
    """

    category: str
    mask: np.ndarray
    flaws: Sequence[str] = ()


class MaskSource:
    """Masks of many pictures, from one folder or file (`path`) in one of `FORMATS` (`format`)."""

    format = ""

    def __init__(self, path: Path) -> None:
        self.path = path

    def instances(
        self, image: Path, size: Size, category: str | None = None, lost: List[str] | None = None
    ) -> Iterator[Instance]:
        """The instances of the picture file `image`, whose upright (height, width) is `size`, in the source's order.

        Only those of `category` (None: of any) are looked at, and each mask is made when it is asked for. Those without
        any pixel in the picture are left out, and the reason for each, and for each part that is lost of another, is
        appended to `lost`. A picture unknown to the source has none.

        Raises:
            UserError: if masks are damaged, or made for a picture of another size. Masks made for the picture as it was
                before its EXIF data turned it are turned with it.
        """
        for instance in self._read(Path(image), tuple(size), category):
            is_empty = not instance.mask.any()
            if lost is not None:
                lost += instance.flaws or ["its mask has no pixel in the picture"] * is_empty
            if not is_empty:
                yield instance

    def categories(self) -> List[str]:
        """The categories that the source names, sorted."""
        return []

    def check(self, images: Sequence[Path], category: str | None) -> None:
        """Check that this can be the source of masks for `images`.

        Raises:
            UserError: if it has no such category (None: any will do), or is for one picture only.
        """
        if category is not None and category not in self.categories():
            known = ", ".join(self.categories()) or "none, so leave that out"
            raise UserError(f"{self.path} has no category {category!r}; it has: {known}")
        if self.format in ("labels", "labelme") and self.path.is_file() and len(images) > 1:
            fix = "give the folder that has a file for each"
            raise UserError(f"{self.path} is for one picture, but {images[0].parent} has {len(images)}; {fix}")

    def misses_all(self, images: Sequence[Path]) -> bool:
        """Return whether it is clearly for other pictures than `images`."""
        return False

    def remarks(self, category: str | None) -> List[str]:
        """Descriptions of what is unusual about its annotations of `category` (None: of any), above all of those that
        are not taken as instances."""
        return []

    def beyond(self, images: Sequence[Path]) -> str:
        """A description of the pictures it knows that are not among `images`; an empty string if there are none."""
        return ""

    def _read(self, image: Path, size: Size, category: str | None) -> Iterator[Instance]:
        """The instances of a picture, as `instances`; masks may be empty."""
        raise NotImplementedError

    def _upright(self, size: Size, image: Path, image_size: Size, path: Path) -> Callable[[np.ndarray], np.ndarray]:
        """A function that turns masks of `size`, read from `path`, as the picture `image` is turned by its EXIF data.

        Raises:
            UserError: if masks of that size cannot be those of the picture.
        """
        if size == image_size:
            return lambda mask: mask
        if size == image_size[::-1]:
            orientation = pictures.open_with_header(image, rough=True)[0].orientation
            if orientation in pictures.SIDEWAYS:
                return lambda mask: _turned(mask, orientation)
        height, width = image_size
        raise UserError(
            f"{path} has masks of {size[0]}x{size[1]} (height x width) for {image.name}, which is {height}x{width}; "
            "give the picture that was annotated, or the masks of this one"
        )


def counted(lost: Iterable[str]) -> List[str]:
    """Lines about shapes without a pixel, from the reason for each: one for each reason, the most frequent first."""
    return [
        f"{number} shape{'' if number == 1 else 's'} without a pixel: {reason}"
        for reason, number in Counter(lost).most_common()
    ]


def _turned(mask: np.ndarray, orientation: int) -> np.ndarray:
    image = Image.fromarray(mask.astype(np.uint8))
    return np.asarray(image.transpose(pictures.UPRIGHT[orientation])) > 0
