# SPDX-License-Identifier: Apache-2.0
"""Look at every file of a data set before anything is trained on it, and tell all that is wrong at once.

A finding is an *error* where training would use something wrongly, or lose it; a *warning* where it is used as it is,
but may not be meant; a *note* where it is read rightly and other programs may not.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Sequence, Tuple

from errors import UserError, printable

import numpy as np
from PIL import Image

import pictures
from parallel import in_parallel
from pictures import EXTENSIONS, Header, Item, Listing

ERROR, WARNING, NOTE = SEVERITIES = ("error", "warning", "note")
SHOWN = 10  # findings of one kind that are told one by one
# a mask is black below the one and white above the other, of 255; JPEG and resizing leave such greys
BLACK, WHITE = 25, 230
# masks that touch share edges; what is more than this share of the smaller one is no edge
OVERLAP = 0.02

AGAIN = "copy it anew, or remove it"
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


def check(
    root: str | Path, phases: Sequence[str] | None = None, crop: Tuple[int, int] | None = None, masks: bool = True
) -> Report:
    """Look at the pictures of `phases` (all that are there, where None) in the data set folder `root`, and at `masks`.

    Headers of all files are read, pictures decoded roughly and masks fully. `crop` is the (height, width) to train at.

    Raises:
        UserError: where `root` is no folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"no data set folder {root}")
    report = Report(str(root))
    if re.search("[AB]", str(root)):
        report.add(NOTE, "capital-letter", root, "a capital A or B is in its path", AUTHORS)
    there = sorted({match[1] for p in root.iterdir() for match in [re.fullmatch(r"(\w+)[AB]", p.name)] if match})
    if not there:
        report.add(ERROR, "missing-folder", root, "it has no folders trainA and trainB", "put the pictures into these")
    for phase in there if phases is None else phases:
        for domain in "AB":
            _check_domain(root / f"{phase}{domain}", crop, masks, report)
    return report


def refuse_bad(report: Report) -> None:
    """Tell the warnings of a report in few lines. Raises UserError where it has errors, and tells them all before."""
    errors = report.of(ERROR)
    if len(errors) != 1:
        for line in report.lines([ERROR]):
            print(line)
    for line in report.lines([WARNING], shown=1):
        print(line)
    if errors:
        what = str(errors[0]) if len(errors) == 1 else f"{len(errors)} errors in {report.root}, which are told above"
        raise UserError(f"{what} (to check again: python datasets/check_dataset.py {report.root})")


def _check_domain(folder: Path, crop: Tuple[int, int] | None, masks: bool, report: Report) -> None:
    """Look at a folder of pictures and that of their masks; only that of `train` must be there and have masks."""
    needed = folder.name[:-1] == "train"
    if not folder.is_dir():
        if needed or folder.is_symlink():
            problem = "it is a link that leads nowhere" if folder.is_symlink() else "it is not there"
            report.add(ERROR, "missing-folder", folder, problem, "training needs trainA and trainB: make it")
        return
    items = _check_listing(folder, folder.with_name(folder.name + "_seg") if masks else None, report)
    found = in_parallel(lambda item: _check_item(item, crop), items, f"checking {folder.name}")
    report.findings += [finding for findings in found for finding in findings]
    number = sum(len(item.masks) for item in items)
    empty = sum(finding.kind == "empty-mask" for findings in found for finding in findings)
    if masks and items and needed and empty == number:
        problem = "no picture has a mask" if not number else "all of its masks are empty"
        mend = f"put masks into {folder.name}_seg as NAME_0.png, NAME_1.png, ..., white inside"
        report.add(ERROR, "no-masks", folder, problem, mend)


def _check_listing(folder: Path, mask_folder: Path | None, report: Report) -> List[Item]:
    """What names alone tell of a domain's folder and that of its masks. Returns the pictures to look into."""
    listing = pictures.list_files(folder, mask_folder)
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
    return pictures.items_of(listing)


def _check_names(folder: Path, listing: Listing, report: Report) -> None:
    letter = folder.name[-1]
    paths = [path for same in listing.images.values() for path in same]
    paths += [path for own in listing.masks.values() for same in own.values() for path in same]
    for path in paths:
        if not pictures.is_text(path.name):
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
        missing = sorted(set(range(max(numbers))) - numbers.keys())
        if missing and name in listing.images:
            lacking = ", ".join(f"{name}_{n}.png" for n in missing[:3]) + (", ..." if len(missing) > 3 else "")
            path = numbers[max(numbers)][0]
            report.add(WARNING, "numbering-gap", path, f"there is no {lacking}", "is a mask lost? Bring it back")


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


def _check_item(item: Item, crop: Tuple[int, int] | None) -> List[Finding]:
    """What the pixels of a picture and its masks tell."""
    report = Report("")
    size = _check_picture(item.image, crop, report)
    overlaps = Overlaps()
    for path in item.masks.values():
        inside = _check_mask(path, size, report)
        if inside is not None and inside.any():
            overlaps.add(path, inside, report)
    return report.findings


def _check_picture(path: Path, crop: Tuple[int, int] | None, report: Report) -> Tuple[int, int] | None:
    """The picture's size (height, width) when upright; None where it cannot be read."""
    opened = _open(path, report)
    if opened is None:
        return None
    header, _ = opened
    height, width = header.size
    if header.mode == "CMYK":
        report.add(NOTE, "cmyk", path, "its colours are CMYK and become RGB", HARMLESS)
    if header.transparent:
        report.add(NOTE, "transparency", path, "it has transparency, which is left out", HARMLESS)
    if crop and (height < crop[0] or width < crop[1]):
        problem = f"it is {height}x{width} (height x width), smaller than the crop of {crop[0]}x{crop[1]}"
        mend = "it is enlarged; give larger pictures, or smaller --fineSizeH and --fineSizeW"
        report.add(WARNING, "small-picture", path, problem, mend)
    return header.size


def _check_mask(path: Path, size: Tuple[int, int] | None, report: Report) -> np.ndarray | None:
    """Where the mask of a picture of `size` is white (H, W) bool; None where it cannot be read as a mask."""
    opened = _open(path, report)
    if opened is None:
        return None
    header, image = opened
    if size and header.size != size:
        _check_size(path, header, size, report)
    level = (pictures.mask_level(image, path) * 255).round().astype(np.uint8)
    return level > 127 if _check_levels(path, level, report) else None


def _open(path: Path, report: Report) -> Tuple[Header, Image.Image] | None:
    """Read a picture or mask; JPEGs roughly. None, with a finding, where that cannot be done."""
    if path.is_symlink() and not path.exists():
        report.add(ERROR, "dangling-link", path, "it is a link that leads nowhere", "mend the link, or remove it")
    elif path.is_file() and not path.stat().st_size:
        report.add(ERROR, "empty-file", path, "it has no content (0 bytes)", AGAIN)
    else:
        kind = "not-a-picture"
        try:
            header = pictures.read_header(path)
            kind = "truncated"
            image = pictures.open_picture(path, whole=False)
        except UserError as error:
            report.add(ERROR, kind, path, str(error).replace(f"{path} ", "it ", 1), AGAIN)
        else:
            _check_format(path, header, report)
            return header, image
    return None


def _check_format(path: Path, header: Header, report: Report) -> None:
    if header.deep:
        report.add(NOTE, "sixteen-bit", path, "it has 16 bits a channel, of which 8 are used", HARMLESS)
    if header.mode in ("P", "PA"):
        report.add(NOTE, "palette", path, "its pixels are numbers in a palette, and are looked up there", HARMLESS)
    if header.turned:
        report.add(NOTE, "exif-rotation", path, "it is turned by its EXIF data, and read upright", HARMLESS)


def _check_size(path: Path, header: Header, size: Tuple[int, int], report: Report) -> None:
    """A mask of the same shape as its picture is resized with it; one of another shape cannot be right."""
    (height, width), (full_height, full_width) = header.size, size
    problem = f"it is {height}x{width} (height x width), but its picture is {full_height}x{full_width}"
    # a pixel more or less comes from rounding
    if abs(width - height * full_width / full_height) <= max(1, 0.01 * width):
        mend = "it is resized with it; give one of the picture's size for sharp edges"
        report.add(WARNING, "size-differs", path, problem, mend)
    elif (height, width) == (full_width, full_height):
        mend = "turn it upright, as its picture is (EXIF data included)"
        report.add(ERROR, "orientation-differs", path, f"{problem}: turned by 90 degrees", mend)
    else:
        report.add(ERROR, "size-differs", path, problem, "give the mask of this picture, at its size")


def _check_levels(path: Path, level: np.ndarray, report: Report) -> bool:
    """What is odd about how white a mask (H, W) uint8 is. Returns whether it is a mask."""
    most, grey = int(level.max()), (level > BLACK) & (level < WHITE)
    if most == 0:
        mend = "remove it, or draw the instance in white"
        report.add(WARNING, "empty-mask", path, "it is black everywhere, so it marks no instance", mend)
    elif most <= 127:
        problem = f"its brightest value is {most} of 255, which counts as black"
        report.add(ERROR, "grey-mask", path, problem, "store 0 outside of the instance and 255 inside")
        return False
    elif level.min() > 127:
        mend = "is it inverted? White is the instance"
        report.add(WARNING, "full-mask", path, "it is white everywhere, so it leaves no background", mend)
    # edges may be soft: only grey with grey on all four sides counts
    elif _inner(grey).sum() > (level > BLACK).sum() / 3:
        problem = f"a large part of it is grey ({len(np.unique(level))} values), as of a picture or a map of labels"
        mend = "give a mask for each instance, black with the instance in white"
        report.add(ERROR, "grey-mask", path, problem, mend)
        return False
    return True


def _inner(where: np.ndarray) -> np.ndarray:
    """The pixels of (H, W) bool that have such pixels on all four sides."""
    padded = np.pad(where, 1)
    return where & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]


class Overlaps:
    """Which pixels the masks of one picture have taken so far."""

    def __init__(self) -> None:
        self.owner = np.zeros((0, 0), np.uint16)
        self.paths: List[Path] = []
        self.areas: List[int] = []

    def add(self, path: Path, inside: np.ndarray, report: Report) -> None:
        """Take the mask `inside` (H, W) bool; a finding for each earlier one that shares more than an edge with it."""
        if not self.paths:
            self.owner = np.zeros(inside.shape, np.uint16)
        if inside.shape != self.owner.shape:
            return  # sizes that differ are told elsewhere
        area = int(inside.sum())
        shared = np.bincount(self.owner[inside], minlength=len(self.paths) + 1)[1:]
        for other, other_area, pixels in zip(self.paths, self.areas, shared):
            share = pixels / min(area, other_area)
            if share > OVERLAP:
                problem = f"it and {other.name} share {share:.0%} of the smaller one"
                mend = "each pixel is of one instance: cut one of them, or remove it if it is the same instance"
                report.add(WARNING, "overlapping-masks", path, problem, mend)
        self.paths.append(path)
        self.areas.append(area)
        self.owner[inside & (self.owner == 0)] = len(self.paths)
