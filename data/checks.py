# SPDX-License-Identifier: Apache-2.0
"""Look at every file of a data set before anything is trained on it, and tell all that is wrong at once.

A finding is an *error* where training would use something wrongly, or lose it; a *warning* where it is used as it is,
but may not be meant; a *note* where it is read rightly and other programs may not.
"""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Sequence, Tuple

import numpy as np
from PIL import Image

from common.errors import UserError, printable
from common.progress import in_parallel
from data import pictures
from data.items import EXTENSIONS, Item, Listing, is_text, items_of, list_files, mask_folder_of
from data.pictures import Header

ERROR, WARNING, NOTE = SEVERITIES = ("error", "warning", "note")
SHOWN = 10  # findings of one kind that are told one by one
# a mask is black below the one and white above the other, of 255; JPEG and resizing leave such greys
BLACK, WHITE = 25, 230
# masks that touch share edges; what is more than this share of the smaller one is no edge
OVERLAP = 0.02
# the share of what is not black that may be one grey
FLAT = 0.02
STRIP = 256  # rows

AGAIN = "copy it anew, or remove it"
GREY = "large parts of it are grey, as in a picture or a map of labels"
HARMLESS = "nothing to do here"
AUTHORS = "nothing to do here; the authors' code looks for masks in another place then"


@dataclass(frozen=True)
class Finding:
    """Something about one file: its kind (a word for programs), what it is, and what can be done."""

    severity: str
    kind: str
    file: str
    problem: str
    mend: str

    def __str__(self) -> str:
        return printable(f"{self.file}: {self.problem}; {self.mend}")


@dataclass
class Report:
    """What was looked at in the data set `root`, and what was found."""

    root: str
    pictures: int = 0
    masks: int = 0
    findings: List[Finding] = field(default_factory=list)

    def of(self, severity: str) -> List[Finding]:
        """The findings of one severity."""
        return [finding for finding in self.findings if finding.severity == severity]

    def add(self, severity: str, kind: str, file: Path | str, problem: str, mend: str) -> None:
        """Put a finding into the report."""
        self.findings.append(Finding(severity, kind, str(file), problem, mend))

    def lines(self, severities: Sequence[str], shown: int = SHOWN) -> List[str]:
        """The findings as text, the worst first; of each kind so many are `shown` and the rest counted."""
        told = []
        for severity in severities:
            by_kind: Dict[str, List[Finding]] = defaultdict(list)
            for finding in self.of(severity):
                by_kind[finding.kind].append(finding)
            for same in by_kind.values():
                told += [f"{severity}: {finding}" for finding in same[:shown]]
                if len(same) > shown:
                    told.append(f"{severity}: ... and {len(same) - shown} more like this (--json tells all)")
        return told

    def summary(self) -> str:
        """One line: what was looked at, and how many findings there are."""
        counts = ", ".join(f"{len(self.of(s))} {s}{'s' * (len(self.of(s)) != 1)}" for s in SEVERITIES)
        return printable(f"{self.root}: {self.pictures} pictures, {self.masks} masks; {counts}")


@dataclass(frozen=True)
class Sizes:
    """The (height, width) to which training resizes pictures, and that of its crops."""

    load: Tuple[int, int]
    crop: Tuple[int, int]


def check(root: str | Path, sizes: Sizes, phases: Sequence[str] = (), masks: bool = True) -> Report:
    """Look at the pictures of `phases` (none: all that are there) in the data set folder `root`, and at their `masks`.

    Pictures are decoded (JPEGs roughly), masks looked at pixel by pixel.

    Raises:
        UserError: where `root` is no folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"no data set folder {root}; give the one that has trainA and trainB in it")
    report = Report(str(root))
    if re.search("[AB]", str(root)):
        report.add(NOTE, "capital-letter", root, "a capital A or B is in its path", AUTHORS)
    there = sorted({match[1] for p in root.iterdir() for match in [re.fullmatch(r"(\w+)[AB]", p.name)] if match})
    if not phases and "train" not in there:
        found = f"it has {', '.join(there)} only" if there else "it has no such folders at all"
        mend = "training needs trainA and trainB, with trainA_seg and trainB_seg for masks"
        # pictures to translate need no more
        report.add(WARNING if there else ERROR, "missing-folder", root, found, mend)
    for phase in phases or there:
        if phase not in there:
            report.add(ERROR, "missing-folder", root, f"there is no {phase}A and no {phase}B", "make them")
        for domain in "AB" if phase in there else "":
            _check_domain(root / f"{phase}{domain}", sizes, masks, report)
    return report


def refuse_bad(report: Report) -> None:
    """Tell the warnings of a report in few lines. Raises UserError where it has errors, and tells them all before."""
    errors = report.of(ERROR)
    # a single one is told in the line that ends the program
    for line in report.lines([ERROR] if len(errors) > 1 else []) + report.lines([WARNING], shown=1):
        print(line)
    if errors:
        what = str(errors[0]) if len(errors) == 1 else f"{len(errors)} errors in {report.root}, which are told above"
        again = f"python datasets/check_dataset.py {shlex.quote(report.root)}"
        raise UserError(f"{what} (all findings again: {again})")


def _check_domain(folder: Path, sizes: Sizes, masks: bool, report: Report) -> None:
    """Look at a folder of pictures and that of their masks; only that of `train` must be there and have masks."""
    needed, mask_folder = folder.name[:-1] == "train", mask_folder_of(folder)
    for path in (folder, mask_folder):
        if path.is_symlink() and not path.exists():
            report.add(ERROR, "dangling-link", path, "it is a link that leads nowhere", "mend the link, or remove it")
    if not folder.is_dir():
        if needed and not folder.is_symlink():
            report.add(ERROR, "missing-folder", folder, "it is not there", "training needs trainA and trainB: make it")
        return
    items = _check_listing(folder, mask_folder if masks else None, report)
    found = in_parallel(lambda item: _check_item(item, sizes), items, f"checking {folder.name}")
    report.findings += [finding for findings in found for finding in findings]
    number = sum(len(item.masks) for item in items)
    lost = sum(finding.kind in ("empty-mask", "vanishing-mask") for findings in found for finding in findings)
    if masks and items and needed and lost == number:
        problem = "no picture has a mask" if not number else "none of its masks has an instance"
        mend = f"put masks into {mask_folder.name} as NAME_0.png, NAME_1.png, ..., white inside"
        report.add(ERROR, "no-masks", folder, problem, mend)


def _check_listing(folder: Path, mask_folder: Path | None, report: Report) -> List[Item]:
    """What names alone tell of a domain's folder and that of its masks. Returns the pictures to look into."""
    listing = list_files(folder, mask_folder)
    report.pictures += sum(map(len, listing.images.values()))
    report.masks += sum(len(paths) for own in listing.masks.values() for paths in own.values())
    if not listing.images:
        report.add(ERROR, "empty-domain", folder, "it holds no pictures", f"put some into it ({', '.join(EXTENSIONS)})")
    _check_names(folder, listing, report)
    _check_twice(listing, report)
    _check_others(folder, listing, report)
    # a phase without any masks is fine, as `val` is
    for name in sorted(listing.images.keys() - listing.masks.keys()) if listing.masks else ():
        problem = "it has no mask" + (", and is left out of training" if folder.name[:-1] == "train" else "")
        report.add(WARNING, "picture-without-mask", listing.images[name][0], problem, f"add {name}_0.png, or remove it")
    return items_of(listing)


def _check_names(folder: Path, listing: Listing, report: Report) -> None:
    letter = folder.name[-1]
    paths = [path for same in listing.images.values() for path in same]
    paths += [path for own in listing.masks.values() for same in own.values() for path in same]
    for path in paths:
        if not is_text(path.name):
            report.add(ERROR, "name-not-utf8", path, "its name is not valid UTF-8", "rename it")
        elif not path.name.isprintable():
            report.add(WARNING, "unusual-name", path, "its name has characters that cannot be seen", "rename it")
        elif not path.name.isascii() or " " in path.name:
            report.add(NOTE, "unusual-name", path, "its name has spaces or non-ASCII letters", HARMLESS)
        if letter in path.stem:
            report.add(NOTE, "capital-letter", path, f"a capital {letter} is in its name", AUTHORS)


def _check_twice(listing: Listing, report: Report) -> None:
    """Names and numbers that occur more than once, and numbers that are left out."""
    for first, *others in listing.images.values():
        for path in others:
            problem = f"{first.name} has the same name, so masks would belong to both"
            report.add(ERROR, "duplicate-name", path, problem, "rename one of them, and its masks")
    for name, numbers in listing.masks.items():
        for number, (first, *others) in numbers.items():
            for path in others:
                problem = f"{first.name} is mask {number} of {name} too"
                report.add(ERROR, "duplicate-name", path, problem, "rename one of them")
        last = max(numbers)
        if name in listing.images and last + 1 != len(numbers):
            missing = next(n for n in range(last) if n not in numbers)
            problem = f"there is no {name}_{missing}.png"
            report.add(WARNING, "numbering-gap", numbers[last][0], problem, "is a mask lost? Bring it back")


def _check_others(folder: Path, listing: Listing, report: Report) -> None:
    """Masks that belong to no picture, and files that are neither picture nor mask."""
    plain = {_plain(name): name for name in listing.images}
    for name in sorted(listing.masks.keys() - listing.images.keys()):
        for number, (path, *_) in listing.masks[name].items():
            near = plain.get(_plain(name))
            mend = f"rename it to {near}_{number}.png" if near else "rename it, add the picture, or remove it"
            report.add(ERROR, "mask-without-picture", path, f"there is no picture {name} in {folder.name}", mend)
    for path in listing.other:
        if path.parent == folder:
            mend = f"pictures are {', '.join(EXTENSIONS)} files: convert it, or remove it"
            report.add(WARNING, "other-file", path, "it is no picture by its name, and is not used", mend)
        elif path.suffix.lower() in EXTENSIONS:
            name = path.stem if path.stem in listing.images else re.sub(r"[_\W]*\d+$", "", path.stem) or "NAME"
            problem = "a mask is called NAME_NUMBER.png after its picture, from 0 up"
            mend = f"rename it, to {name}_0.png perhaps" + ", and save it as PNG" * (path.suffix.lower() != ".png")
            report.add(ERROR, "wrong-mask-name", path, problem, mend)
        else:
            report.add(WARNING, "other-file", path, "it is no mask by its name, and is not used", "remove it")


def _plain(name: str) -> str:
    """What names have in common that look the same."""
    return unicodedata.normalize("NFC", name).casefold().strip()


def _check_item(item: Item, sizes: Sizes) -> List[Finding]:
    """What the pixels of a picture and its masks tell."""
    report = Report("")
    header = _check_picture(item, sizes.crop, report)
    overlaps: Overlaps | None = None
    for path in item.masks.values():
        inside = _check_mask(path, header, sizes.load, report)
        if inside is None:
            continue
        overlaps = overlaps or Overlaps(header.size if header else inside.shape)
        overlaps.add(path, inside, report)
    return report.findings


def _check_picture(item: Item, crop: Tuple[int, int], report: Report) -> Header | None:
    """What the picture's file says of it; None where it cannot be read."""
    path, opened = item.image, _open(item.image, report, rough=True)
    if opened is None:
        return None
    header, (height, width) = opened[0], opened[0].size
    if header.mode == "CMYK":
        report.add(NOTE, "cmyk", path, "its colours are CMYK and become RGB", HARMLESS)
    if header.transparent:
        report.add(NOTE, "transparency", path, "it has transparency, which is left out", HARMLESS)
    if header.orientation != 1:
        # where height and width are exchanged, the size of a mask tells whether it is turned too
        told = not item.masks or (header.orientation in pictures.SIDEWAYS and height != width)
        mend = HARMLESS if told else "its masks must be upright too: look at one"
        problem = "it is turned by its EXIF data, and read upright"
        report.add(NOTE if told else WARNING, "exif-rotation", path, problem, mend)
    if height < crop[0] or width < crop[1]:
        problem = f"it is {height}x{width} (height x width), smaller than the crop of {crop[0]}x{crop[1]}"
        mend = "it is enlarged; give larger pictures, or smaller --fineSizeH and --fineSizeW"
        report.add(WARNING, "small-picture", path, problem, mend)
    return header


def _check_mask(path: Path, picture: Header | None, load: Tuple[int, int], report: Report) -> np.ndarray | None:
    """Where the mask is white (H, W) bool; None where it is no mask, or no instance is in it."""
    opened = _open(path, report)
    if opened is None:
        return None
    header, image = opened
    if picture and header.size != picture.size and not _check_size(path, header.size, picture.size, report):
        return None
    level = _levels(image, path)
    if not _check_levels(path, image, level, report):
        return None
    inside = level > 127
    # a pixel of the resized mask stands for so many; where thousands are left, none vanishes
    if inside.sum() * (load[0] * load[1] / inside.size) < 1000 and not pictures.read_mask(path, load).any():
        problem = f"its instance is so thin that nothing of it is left at {load[0]}x{load[1]} (height x width)"
        report.add(WARNING, "vanishing-mask", path, problem, "draw it thicker, or train at larger sizes")
    return inside


def _open(path: Path, report: Report, rough: bool = False) -> Tuple[Header, Image.Image] | None:
    """Read a picture or mask. None, with a finding, where that cannot be done."""
    if path.is_symlink() and not path.exists():
        report.add(ERROR, "dangling-link", path, "it is a link that leads nowhere", "mend the link, or remove it")
        return None
    if path.is_file() and not path.stat().st_size:
        report.add(ERROR, "empty-file", path, "it has no content (0 bytes)", AGAIN)
        return None
    try:
        header, image = pictures.open_with_header(path, rough)
    except UserError as error:
        kind = "not-a-picture" if isinstance(error, pictures.NotAPicture) else "truncated"
        report.add(ERROR, kind, path, str(error).replace(f"{path} ", "it ", 1), AGAIN)
        return None
    if header.deep:
        report.add(NOTE, "sixteen-bit", path, "it has 16 bits a channel, of which 8 are used", HARMLESS)
    if header.mode in ("P", "PA"):
        report.add(NOTE, "palette", path, "its pixels are numbers in a palette, and are looked up there", HARMLESS)
    return header, image


def _check_size(path: Path, own: Tuple[int, int], size: Tuple[int, int], report: Report) -> bool:
    """A mask of the same shape as its picture is resized with it; one of another shape cannot be right (False)."""
    (height, width), (full_height, full_width) = own, size
    problem = f"it is {height}x{width} (height x width), but its picture is {full_height}x{full_width}"
    if pictures.same_proportions(own, size):
        mend = "it is resized with it; give one of the picture's size for sharp edges"
        report.add(WARNING, "size-differs", path, problem, mend)
        return True
    if (height, width) == (full_width, full_height):
        mend = "turn it upright, as its picture is (EXIF data included)"
        report.add(ERROR, "orientation-differs", path, f"{problem}: turned by 90 degrees", mend)
    else:
        report.add(ERROR, "size-differs", path, problem, "give the mask of this picture, at its size")
    return False


def _levels(image: Image.Image, path: Path) -> np.ndarray:
    """How white each pixel is, (H, W) uint8; in strips, since floats take much memory."""
    if image.mode in ("1", "L") and "transparency" not in image.info:
        return np.asarray(image.convert("L"))
    level = np.empty(image.size[::-1], np.uint8)
    for top in range(0, len(level), STRIP):
        strip = image.crop((0, top, image.width, min(top + STRIP, image.height)))
        level[top : top + STRIP] = (pictures.mask_level(strip, path) * 255).round()
    return level


def _check_levels(path: Path, image: Image.Image, level: np.ndarray, report: Report) -> bool:
    """What is odd about how white a mask (H, W) uint8 is. Returns whether it shows an instance."""
    counts = np.array(Image.fromarray(level).histogram())
    white, shown, grey = counts[128:].sum(), counts[BLACK + 1 :].sum(), counts[BLACK + 1 : WHITE].sum()
    if not white:
        if _uniform(image):
            mend = "remove it, or draw the instance in white"
            report.add(WARNING, "empty-mask", path, "it is black everywhere, so it marks no instance", mend)
        else:
            problem = "nothing in it is white, but something is drawn: in dark colours, small numbers, or alpha only"
            mend = "store 0 outside of the instance and 255 inside, without transparency"
            report.add(ERROR, "grey-mask", path, problem, mend)
        return False
    if white == level.size:
        problem = "it is white everywhere, so it leaves no background"
        report.add(WARNING, "full-mask", path, problem, "is it inverted? White is the instance")
    if is_grey(level):
        mend = "give a mask for each instance, black with the instance in white"
        report.add(ERROR, "grey-mask", path, GREY, mend)
        return False
    if grey > shown / 2:
        mend = "it is cut in the middle; is it the right file?"
        report.add(WARNING, "grey-mask", path, "more than half of it is grey, as of very soft edges", mend)
    return True


def is_grey(level: np.ndarray) -> bool:
    """Whether so much of a mask (H, W) uint8 is neither black nor white that it is none: a photo, a map of labels."""
    counts = np.array(Image.fromarray(level).histogram())
    shown, grey = counts[BLACK + 1 :].sum(), counts[BLACK + 1 : WHITE].sum()
    return bool(grey and (grey > level.size / 2 or _flat(level, counts) > FLAT * shown))


def _uniform(image: Image.Image) -> bool:
    """Whether all stored pixels are the same."""
    extrema = image.getextrema()
    return all(low == high for low, high in (extrema if isinstance(extrema[0], tuple) else [extrema]))


def _flat(level: np.ndarray, counts: np.ndarray) -> int:
    """How many pixels (H, W) uint8 have the commonest grey that is the same in 2 x 2 pixels, as soft edges have not."""
    commonest = BLACK + 1 + int(counts[BLACK + 1 : WHITE].argmax())
    same = level == commonest
    blocks = same[:-1, :-1] & same[1:, :-1] & same[:-1, 1:] & same[1:, 1:]
    return int(same.sum()) if blocks.sum() > same.sum() / 4 else 0


class Overlaps:
    """Which pixels the masks of one picture of (height, width) `size` have taken so far."""

    def __init__(self, size: Tuple[int, ...]) -> None:
        self.owner = np.zeros(size, np.uint16)
        self.paths: List[Path] = []
        self.areas: List[int] = []

    def add(self, path: Path, inside: np.ndarray, report: Report) -> None:
        """Take the mask `inside` (H, W) bool; a finding for each earlier one that shares more than an edge with it."""
        if inside.shape != self.owner.shape:
            height, width = self.owner.shape
            inside = np.asarray(Image.fromarray(inside).resize((width, height), Image.NEAREST))
        window = _bounds(inside)
        inside, owner = inside[window], self.owner[window]
        area = max(1, int(inside.sum()))
        shared = np.bincount(owner[inside], minlength=len(self.paths) + 1)[1:]
        for other, other_area, pixels in zip(self.paths, self.areas, shared):
            share = pixels / min(area, other_area)
            if share > OVERLAP:
                problem = f"it and {other.name} share {share:.0%} of the smaller one"
                mend = "each pixel is of one instance: cut one of them, or remove it if it is the same instance"
                report.add(WARNING, "overlapping-masks", path, problem, mend)
        self.paths.append(path)
        self.areas.append(area)
        owner[inside & (owner == 0)] = len(self.paths)


def _bounds(inside: np.ndarray) -> Tuple[slice, slice]:
    """The window of (H, W) bool that has all that is true."""
    spans = [np.flatnonzero(inside.any(axis=1 - axis)) for axis in (0, 1)]
    top, left = (slice(span[0], span[-1] + 1) if len(span) else slice(0) for span in spans)
    return top, left
