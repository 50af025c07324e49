# SPDX-License-Identifier: Apache-2.0
"""Check every file of a data set before anything is trained on it, and report all faults at once.

A finding is an *error* if training would use something wrongly, or lose it; a *warning* if it is used as it is, but may
not be meant; a *note* if it is read correctly here, but perhaps not by other programs.
"""

from __future__ import annotations

import os
import re
import shlex
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Sequence, Tuple

import numpy as np
from PIL import Image

from common.errors import UserError, printable
from common.progress import in_parallel
from data import pictures
from data.instances import bounding_box
from data.items import EXTENSIONS, Item, Listing, comparable, is_text, items_of, list_files, mask_folder_of
from data.pictures import Header, Size

ERROR, WARNING, NOTE = SEVERITIES = ("error", "warning", "note")
SHOWN = 10  # findings of one kind that are listed one by one
# of 255: a mask is black up to the one and white from the other; JPEG and resizing leave levels between
BLACK, WHITE = 25, 230
# masks that touch may share their edges, which are less than this part of the smaller mask
OVERLAP = 0.02
# at most this part of the pixels that are not black may have one and the same grey
FLAT = 0.02
STRIP = 256  # rows
LONGEST_NAME = 230  # bytes; file systems take 255, and results have names such as before_NAME.part.png
# pixels of a tiny instance: fewer than these, or than this part of its picture
TINY_PIXELS = 16
TINY_PART = 0.0005

AGAIN = "copy it again, or remove it"
GREY = "large parts of it are grey, as in a picture or a map of labels"
HARMLESS = "nothing to do here"
AUTHORS = "nothing to do here; the authors' code looks for masks in another place then"


@dataclass(frozen=True)
class Finding:
    """A problem with one file: its kind (a word for programs), its description, and its fix (`mend` in the JSON)."""

    severity: str
    kind: str
    file: str
    problem: str
    mend: str

    def __str__(self) -> str:
        return printable(f"{self.file}: {self.problem}; {self.mend}")


@dataclass
class Report:
    """The findings in the data set `root`, and the number of files that were checked."""

    root: str
    pictures: int = 0
    masks: int = 0
    findings: List[Finding] = field(default_factory=list)

    def of(self, severity: str) -> List[Finding]:
        """The findings of one severity."""
        return [finding for finding in self.findings if finding.severity == severity]

    def add(self, severity: str, kind: str, file: Path | str, problem: str, fix: str) -> None:
        """Put a finding into the report."""
        self.findings.append(Finding(severity, kind, str(file), problem, fix))

    def lines(self, severities: Sequence[str], most: int = SHOWN) -> List[str]:
        """The findings as text, the worst first; at most `most` of each kind, and the number of the others."""
        lines = []
        for severity in severities:
            by_kind: Dict[str, List[Finding]] = defaultdict(list)
            for finding in self.of(severity):
                by_kind[finding.kind].append(finding)
            for findings in by_kind.values():
                lines += [f"{severity}: {finding}" for finding in findings[:most]]
                if len(findings) > most:
                    lines.append(f"{severity}: ... and {len(findings) - most} more like this (--json lists all)")
        return lines

    def summary(self) -> str:
        """The number of checked files and of findings, in one line."""
        numbers = {severity: len(self.of(severity)) for severity in SEVERITIES}
        counts = ", ".join(f"{number} {severity}{'' if number == 1 else 's'}" for severity, number in numbers.items())
        return printable(f"{self.root}: {self.pictures} pictures, {self.masks} masks; {counts}")


@dataclass(frozen=True)
class Sizes:
    """The (height, width) to which training resizes pictures, and that of its crops."""

    load: Size
    crop: Size


def check(root: str | Path, sizes: Sizes, phases: Sequence[str] = (), masks: bool = True) -> Report:
    """Check the pictures, and if `masks` their masks, of `phases` (none: all phases) in the data set folder `root`.

    Pictures are decoded (JPEGs roughly), masks checked pixel by pixel.

    Raises:
        UserError: if `root` is not a folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"no data set folder {root}; give the one that has trainA and trainB in it")
    report = Report(str(root))
    if re.search("[AB]", str(root)):
        report.add(NOTE, "capital-letter", root, "a capital A or B is in its path", AUTHORS)
    existing = _phases_in(root)
    if not phases and "train" not in existing:
        problem = f"it has {', '.join(existing)} only" if existing else "it has no such folders at all"
        fix = "training needs trainA and trainB, with trainA_seg and trainB_seg for masks"
        # a data set to translate needs no training pictures
        report.add(WARNING if existing else ERROR, "missing-folder", root, problem, fix)
    for phase in phases or existing:
        if phase not in existing:
            report.add(ERROR, "missing-folder", root, f"there is no {phase}A and no {phase}B", "make them")
            continue
        for domain in "AB":
            _check_domain(root / f"{phase}{domain}", sizes, masks, report)
    return report


def _phases_in(root: Path) -> List[str]:
    """The phases of which there is a folder for A or for B."""
    matches = [re.fullmatch(r"(\w+)[AB]", path.name) for path in root.iterdir()]
    return sorted({match[1] for match in matches if match})


def refuse_bad(report: Report) -> None:
    """Print a report's warnings in a few lines.

    Raises:
        UserError: if the report has errors, which are printed first if there are several.
    """
    errors = report.of(ERROR)
    if len(errors) > 1:
        _print_lines(report.lines([ERROR]))
    _print_lines(report.lines([WARNING], most=1))
    if errors:
        problem = str(errors[0]) if len(errors) == 1 else f"{len(errors)} errors in {report.root}, reported above"
        command = f"python datasets/check_dataset.py {shlex.quote(report.root)}"
        raise UserError(f"{problem} (all findings again: {command})")


def _print_lines(lines: List[str]) -> None:
    for line in lines:
        print(line)


def _check_domain(folder: Path, sizes: Sizes, masks: bool, report: Report) -> None:
    """Check a folder of pictures and its folder of masks; only those of `train` must exist and have masks."""
    is_train = folder.name[:-1] == "train"
    mask_folder = mask_folder_of(folder)
    for path in (folder, mask_folder):
        _check_link(path, report)
    if not folder.is_dir():
        if is_train and not folder.is_symlink():
            report.add(ERROR, "missing-folder", folder, "it is not there", "training needs trainA and trainB: make it")
        return
    items = _check_listing(folder, mask_folder if masks else None, report)
    checked = in_parallel(lambda item: _check_item(item, sizes), items, f"checking {folder.name}")
    findings = [finding for findings_of_item, _ in checked for finding in findings_of_item]
    report.findings += findings
    _report_tiny(mask_folder, [instance for _, instances in checked for instance in instances], report)
    number = sum(len(item.masks) for item in items)
    number_lost = sum(finding.kind in ("empty-mask", "vanishing-mask") for finding in findings)
    if masks and items and is_train and number_lost == number:
        problem = "none of its masks has an instance" if number else "no picture has a mask"
        fix = f"put masks into {mask_folder.name} as NAME_0.png, NAME_1.png, ..., white inside"
        report.add(ERROR, "no-masks", folder, problem, fix)


def tiny_pixels(picture_pixels: int) -> int:
    """The number of pixels below which an instance in a picture of `picture_pixels` is tiny."""
    return max(TINY_PIXELS, int(TINY_PART * picture_pixels))


def tiny(area: int, picture_pixels: int) -> bool:
    """Return whether an instance of `area` pixels is so small that it may be a crumb: an edge colour of a label map."""
    return area < tiny_pixels(picture_pixels)


def _report_tiny(mask_folder: Path, instances: List[Tuple[int, int]], report: Report) -> None:
    """Report a domain whose instances, as areas and pixels of their pictures, are mostly tiny."""
    limits = [tiny_pixels(pixels) for area, pixels in instances if tiny(area, pixels)]
    if len(limits) > len(instances) / 2:
        number = f"{len(instances)} instance{'' if len(instances) == 1 else 's'}"
        problem = f"{number}, most of fewer than {max(limits)} pixels: are they edges or crumbs of a label map?"
        fix = "look at some; draw label maps without anti-aliasing, or import them with --min-area"
        report.add(WARNING, "tiny-masks", mask_folder, problem, fix)


def _check_link(path: Path, report: Report) -> bool:
    """Report a link that leads nowhere. Returns whether `path` is all right."""
    is_dangling = path.is_symlink() and not path.exists()
    if is_dangling:
        report.add(ERROR, "dangling-link", path, "it is a link that leads nowhere", "fix the link, or remove it")
    return not is_dangling


def _check_listing(folder: Path, mask_folder: Path | None, report: Report) -> List[Item]:
    """Check the names in a domain's folder and that of its masks. Returns the pictures whose content to check."""
    listing = list_files(folder, mask_folder)
    report.pictures += sum(map(len, listing.images.values()))
    report.masks += len(listing.mask_files())
    if not listing.images:
        report.add(ERROR, "empty-domain", folder, "it holds no pictures", f"put some into it ({', '.join(EXTENSIONS)})")
    _check_names(folder, listing, report)
    _check_duplicates(listing, report)
    _check_strays(folder, listing, report)
    # a phase without any masks is fine: `val` often has none
    if listing.masks:
        _check_for_missing_masks(folder, listing, report)
    return items_of(listing)


def _check_for_missing_masks(folder: Path, listing: Listing, report: Report) -> None:
    """Report pictures without a mask."""
    problem = "it has no mask"
    if folder.name[:-1] == "train":
        problem += ", and is left out of training"
    for name in sorted(listing.images.keys() - listing.masks.keys()):
        report.add(WARNING, "picture-without-mask", listing.images[name][0], problem, f"add {name}_0.png, or remove it")


def _check_names(folder: Path, listing: Listing, report: Report) -> None:
    """Report names that other programs, or the authors' code, may not understand."""
    letter = folder.name[-1]
    images = [path for paths in listing.images.values() for path in paths]
    for path in images + listing.mask_files():
        if not is_text(path.name):
            report.add(ERROR, "name-not-utf8", path, "its name is not valid UTF-8", "rename it")
        elif not path.name.isprintable():
            report.add(WARNING, "unusual-name", path, "its name has characters that cannot be seen", "rename it")
        elif not path.name.isascii() or " " in path.name:
            report.add(NOTE, "unusual-name", path, "its name has spaces or non-ASCII letters", HARMLESS)
        if len(os.fsencode(path.name)) > LONGEST_NAME:
            problem = f"its name has more than {LONGEST_NAME} bytes, so files that are named after it cannot be written"
            report.add(WARNING, "long-name", path, problem, "shorten it")
        if letter in path.stem:
            report.add(NOTE, "capital-letter", path, f"a capital {letter} is in its name", AUTHORS)


def _check_duplicates(listing: Listing, report: Report) -> None:
    """Report names and numbers that occur more than once, and gaps in the numbers."""
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


def _check_strays(folder: Path, listing: Listing, report: Report) -> None:
    """Report masks that belong to no picture, and files that are neither picture nor mask."""
    by_plain_name = {_plain(name): name for name in listing.images}
    for name in sorted(listing.masks.keys() - listing.images.keys()):
        for number, (path, *_) in listing.masks[name].items():
            similar = by_plain_name.get(_plain(name))
            fix = f"rename it to {similar}_{number}.png" if similar else "rename it, add the picture, or remove it"
            report.add(ERROR, "mask-without-picture", path, f"there is no picture {name} in {folder.name}", fix)
    for path in listing.other:
        if path.is_dir():
            problem = "it is a folder, whose content is not used"
            report.add(WARNING, "other-file", path, problem, "move its files up, or the folder away")
        elif path.parent == folder:
            fix = f"pictures are {', '.join(EXTENSIONS)} files: convert it, or remove it"
            report.add(WARNING, "other-file", path, "its name is not that of a picture, and it is not used", fix)
        elif path.suffix.lower() in EXTENSIONS:
            _report_wrong_name(path, listing, report)
        else:
            report.add(WARNING, "other-file", path, "its name is not that of a mask, and it is not used", "remove it")


def _report_wrong_name(path: Path, listing: Listing, report: Report) -> None:
    """Report a picture in a folder of masks whose name is not NAME_NUMBER.png, and suggest one."""
    name = path.stem
    if name not in listing.images:
        name = re.sub(r"[_\W]*\d+$", "", name) or "NAME"
    fix = f"rename it, to {name}_0.png perhaps"
    if path.suffix.lower() != ".png":
        fix += ", and save it as PNG"
    report.add(ERROR, "wrong-mask-name", path, "a mask is called NAME_NUMBER.png after its picture, from 0 up", fix)


def _plain(name: str) -> str:
    """A name in the form that it shares with names that look alike."""
    return comparable(name).casefold().strip()


def _check_item(item: Item, sizes: Sizes) -> Tuple[List[Finding], List[Tuple[int, int]]]:
    """Check the pixels of a picture and its masks.

    Returns the findings, and the number of pixels of each instance and of its mask.
    """
    report = Report("")
    header = _check_picture(item, sizes.crop, report)
    overlaps: Overlaps | None = None
    instances: List[Tuple[int, int]] = []
    for path in item.masks.values():
        inside = _check_mask(path, header, sizes.load, report)
        if inside is None:
            continue
        overlaps = overlaps or Overlaps(header.size if header else inside.shape)
        overlaps.add(path, inside, report)
        instances.append((int(np.count_nonzero(inside)), inside.size))
    return report.findings, instances


def _check_picture(item: Item, crop: Size, report: Report) -> Header | None:
    """Check a picture's file. Returns its header, None if it cannot be read."""
    opened = _open(item.image, report, rough=True)
    if opened is None:
        return None
    header, _ = opened
    if header.mode == "CMYK":
        report.add(NOTE, "cmyk", item.image, "its colours are CMYK and become RGB", HARMLESS)
    if header.transparent:
        report.add(NOTE, "transparency", item.image, "it has transparency, which is left out", HARMLESS)
    if header.orientation != 1:
        _report_rotation(item, header, report)
    height, width = header.size
    if height < crop[0] or width < crop[1]:
        problem = f"it is {height}x{width} (height x width), smaller than the crop of {crop[0]}x{crop[1]}"
        fix = "it is enlarged; give larger pictures, or smaller --fineSizeH and --fineSizeW"
        report.add(WARNING, "small-picture", item.image, problem, fix)
    return header


def _report_rotation(item: Item, header: Header, report: Report) -> None:
    """Report a picture that its EXIF data turn; a warning if its masks may not be turned with it."""
    problem = "it is turned by its EXIF data, and read upright"
    height, width = header.size
    # if height and width are exchanged, the size of a mask shows whether it is upright
    is_checked_by_size = header.orientation in pictures.SIDEWAYS and height != width
    if not item.masks or is_checked_by_size:
        report.add(NOTE, "exif-rotation", item.image, problem, HARMLESS)
    else:
        report.add(WARNING, "exif-rotation", item.image, problem, "its masks must be upright too: look at one")


def _check_mask(path: Path, picture: Header | None, load: Size, report: Report) -> np.ndarray | None:
    """Check a mask. Returns its white pixels as (H, W) bool, None if it is not a mask or has no instance."""
    opened = _open(path, report)
    if opened is None:
        return None
    header, image = opened
    if picture and header.size != picture.size and not _check_size(path, header.size, picture.size, report):
        return None
    level = _levels(image)
    if not _check_levels(path, image, level, report):
        return None
    inside = level > 127
    # an instance that keeps a thousand pixels after resizing cannot vanish, so most need not be read again
    area_when_loaded = inside.sum() * (load[0] * load[1] / inside.size)
    if area_when_loaded < 1000 and not pictures.read_mask(path, load).any():
        problem = f"its instance is so thin that nothing of it is left at {load[0]}x{load[1]} (height x width)"
        report.add(WARNING, "vanishing-mask", path, problem, "draw it thicker, or train at larger sizes")
    return inside


def _open(path: Path, report: Report, rough: bool = False) -> Tuple[Header, Image.Image] | None:
    """Read a picture or mask. None, with a finding, if that fails."""
    if not _check_link(path, report):
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


def _check_size(path: Path, mask: Size, picture: Size, report: Report) -> bool:
    """Report a mask that is not of its picture's size. Returns whether it can be used, resized with the picture."""
    problem = (
        f"it is {mask[0]}x{mask[1]} (height x width), but its picture is {picture[0]}x{picture[1]}"
    )
    if pictures.same_proportions(mask, picture):
        fix = "it is resized with it; give one of the picture's size for sharp edges"
        report.add(WARNING, "size-differs", path, problem, fix)
        return True
    if mask == picture[::-1]:
        fix = "turn it upright, as its picture is (EXIF data included)"
        report.add(ERROR, "orientation-differs", path, f"{problem}: turned by 90 degrees", fix)
    else:
        report.add(ERROR, "size-differs", path, problem, "give the mask of this picture, at its size")
    return False


def _levels(image: Image.Image) -> np.ndarray:
    """The whiteness of each pixel, (H, W) uint8; worked out in strips, since floats take much memory."""
    if image.mode in ("1", "L") and "transparency" not in image.info:
        return np.asarray(image.convert("L"))
    level = np.empty(image.size[::-1], np.uint8)
    for top in range(0, len(level), STRIP):
        strip = image.crop((0, top, image.width, min(top + STRIP, image.height)))
        level[top : top + STRIP] = (pictures.mask_level(strip) * 255).round()
    return level


def _check_levels(path: Path, image: Image.Image, level: np.ndarray, report: Report) -> bool:
    """Report an unusual distribution of a mask's whiteness (H, W) uint8. Returns whether it shows an instance."""
    counts = _histogram(level)
    number_white = counts[128:].sum()
    number_not_black = counts[BLACK + 1 :].sum()
    number_grey = counts[BLACK + 1 : WHITE].sum()
    if not number_white:
        if _uniform(image):
            fix = "remove it, or draw the instance in white"
            report.add(WARNING, "empty-mask", path, "it is black everywhere, so it marks no instance", fix)
        else:
            problem = "nothing in it is white, but something is drawn: in dark colours, small numbers, or alpha only"
            fix = "store 0 outside of the instance and 255 inside, without transparency"
            report.add(ERROR, "grey-mask", path, problem, fix)
        return False
    if number_white == level.size:
        problem = "it is white everywhere, so it leaves no background"
        report.add(WARNING, "full-mask", path, problem, "is it inverted? White is the instance")
    if is_grey(level):
        fix = "give a mask for each instance, black with the instance in white"
        report.add(ERROR, "grey-mask", path, GREY, fix)
        return False
    if number_grey > number_not_black / 2:
        fix = "it is thresholded at half grey; is it the right file?"
        report.add(WARNING, "grey-mask", path, "more than half of it is grey, as of very soft edges", fix)
    return True


def is_grey(level: np.ndarray) -> bool:
    """Return whether an image (H, W) uint8 has too much grey to be a mask, as a photo or a map of labels has."""
    counts = _histogram(level)
    number_not_black = counts[BLACK + 1 :].sum()
    number_grey = counts[BLACK + 1 : WHITE].sum()
    return bool(number_grey and (number_grey > level.size / 2 or _flat(level, counts) > FLAT * number_not_black))


def _histogram(level: np.ndarray) -> np.ndarray:
    """The number of pixels of each of the 256 levels."""
    return np.array(Image.fromarray(level).histogram())


def _uniform(image: Image.Image) -> bool:
    """Return whether all stored pixels are the same."""
    extrema = image.getextrema()
    of_channels = extrema if isinstance(extrema[0], tuple) else [extrema]
    return all(low == high for low, high in of_channels)


def _flat(level: np.ndarray, counts: np.ndarray) -> int:
    """The number of pixels of the commonest grey in (H, W) uint8, 0 unless it fills areas, which soft edges do not."""
    commonest = BLACK + 1 + int(counts[BLACK + 1 : WHITE].argmax())
    same = level == commonest
    blocks = same[:-1, :-1] & same[1:, :-1] & same[:-1, 1:] & same[1:, 1:]
    return int(same.sum()) if blocks.sum() > same.sum() / 4 else 0


class Overlaps:
    """The pixels that the masks of one picture of `size` have taken so far."""

    def __init__(self, size: Tuple[int, ...]) -> None:
        self.owner = np.zeros(size, np.uint16)
        self.paths: List[Path] = []
        self.areas: List[int] = []

    def add(self, path: Path, inside: np.ndarray, report: Report) -> None:
        """Add the mask `inside` (H, W) bool, and report each earlier one that shares more than an edge with it."""
        if inside.shape != self.owner.shape:
            height, width = self.owner.shape
            inside = np.asarray(Image.fromarray(inside).resize((width, height), Image.NEAREST))
        window = bounding_box(inside)
        inside = inside[window]
        owner = self.owner[window]
        area = max(1, int(inside.sum()))
        shared = np.bincount(owner[inside], minlength=len(self.paths) + 1)[1:]
        for other, other_area, pixels in zip(self.paths, self.areas, shared):
            share = pixels / min(area, other_area)
            if share > OVERLAP:
                problem = f"it and {other.name} share {share:.0%} of the smaller one"
                fix = "each pixel is of one instance: cut one of them, or remove it if it is the same instance"
                report.add(WARNING, "overlapping-masks", path, problem, fix)
        self.paths.append(path)
        self.areas.append(area)
        owner[inside & (owner == 0)] = len(self.paths)
