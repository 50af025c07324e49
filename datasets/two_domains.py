# SPDX-License-Identifier: Apache-2.0
"""Common to the data set generators: write pictures with masks, hold some out, print a summary."""

from __future__ import annotations

import hashlib
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Dict, Iterable, Iterator, List, Sequence, Set, Tuple

import numpy as np

from common.errors import UserError, collected, printable
from common.progress import in_parallel
from data import pictures
from data.checks import tiny, tiny_pixels
from data.items import comparable, is_text
from masks.mask_source import Instance, MaskSource, counted

COPIED = (".png", ".jpg", ".jpeg")  # pictures of other kinds become PNG, which all programs read
MOST_WARNINGS = 5  # pictures of each domain that are named when they cannot be used


@dataclass(frozen=True)
class Limits:
    """The instances to keep: of each picture the `max_instances` largest (None: all) of those that cover at least the
    share `min_area` of it."""

    min_area: float = 0.0
    max_instances: int | None = None


NO_LIMITS = Limits()


@dataclass(frozen=True)
class Outcome:
    """The result for one picture: the number of `masks` written (none: the picture neither), of instances left out as
    too `small` or `beyond` the largest, and the reason for each that is `lost` for want of a pixel; or the `problem`
    for which the picture cannot be used. Of the masks, `tiny` have fewer pixels than `tiny_pixels`."""

    name: str
    masks: int = 0
    small: int = 0
    beyond: int = 0
    problem: str = ""
    lost: Sequence[str] = ()
    tiny: int = 0
    tiny_pixels: int = 0


@dataclass
class Made:
    """A data set: the number of files in each of its folders, and the outcomes for "trainA" and so on."""

    counts: Dict[str, int]
    outcomes: Dict[str, List[Outcome]] = field(default_factory=dict)

    def left_out(self) -> List[str]:
        """Descriptions of what was left out, a line for each domain and cause."""
        lines = []
        for domain in "AB":
            outcomes = self._of(domain)
            number_bare = sum(not o.masks and not o.problem for o in outcomes)
            parts = [
                _count(number_bare, "picture without an instance that is kept"),
                _count(sum(bool(o.problem) for o in outcomes), "picture that cannot be used"),
                _count(sum(o.small for o in outcomes), "instance smaller than --min-area"),
                _count(sum(o.beyond for o in outcomes), "instance beyond --max-instances"),
            ]
            if any(parts):
                lines.append(f"left out of {domain}: {', '.join(filter(None, parts))}")
            lines += [f"left out of {domain}: {line}" for line in counted(r for o in outcomes for r in o.lost)]
        return lines

    def crumbs(self) -> List[str]:
        """A line for each domain most of whose instances are tiny, which may be the edges of others."""
        lines = []
        for domain in "AB":
            outcomes = self._of(domain)
            number = sum(o.masks for o in outcomes)
            if sum(o.tiny for o in outcomes) > number / 2:
                limit = max(o.tiny_pixels for o in outcomes)
                lines.append(
                    f"warning: {number} instances in {domain}, most of fewer than {limit} pixels: look at some; where "
                    "they are edges of others, draw without anti-aliasing, or give --min-area"
                )
        return lines

    def _of(self, domain: str) -> List[Outcome]:
        return [o for folder, of_folder in self.outcomes.items() if folder[-1] == domain for o in of_folder]


def _count(number: int, description: str) -> str:
    """A number with its description, whose first word gets a plural; an empty string for 0."""
    noun, _, rest = description.partition(" ")
    if not number:
        return ""
    return f"1 {description}" if number == 1 else f"{number} {noun}s {rest}"


def write_domain(
    images: Sequence[Path],
    source: MaskSource,
    category: str | None,
    target: Path,
    limits: Limits,
    workers: int | None = None,
) -> List[Outcome]:
    """Write the `images` that show instances of `category` (None: of any) to the new folder `target`, masks beside it.

    PNG and JPEG files are copied byte for byte, others become PNG. A picture that cannot be used, or whose masks
    cannot, is left out with a warning on standard error.

    Raises:
        UserError: if two pictures differ in their extension only.
    """
    refuse_twins(images)
    target.mkdir()
    _masks_of(target).mkdir()

    def write(image: Path) -> Outcome:
        failures: List[str] = []
        with collected(failures, image):
            return _write_picture(image, source, category, target, limits)
        return Outcome(image.name, problem=failures[0])

    outcomes = in_parallel(write, images, target.name, workers)
    problems = [outcome.problem for outcome in outcomes if outcome.problem]
    for problem in problems[:MOST_WARNINGS]:
        print(printable(f"warning: left out: {problem}"), file=sys.stderr)
    if len(problems) > MOST_WARNINGS:
        print(f"warning: ... and {len(problems) - MOST_WARNINGS} more are left out of {target.name}", file=sys.stderr)
    return outcomes


def refuse_twins(images: Sequence[Path]) -> None:
    """Raise UserError if two pictures differ in their extension only, since masks are named without it."""
    by_stem: Dict[str, Path] = {}
    for path in images:
        first = by_stem.setdefault(comparable(path.stem), path)
        if first != path:
            fix = "rename one, or move it away if it is a mask"
            raise UserError(f"{path} and {first.name} share a name; their masks would too: {fix}")


def _masks_of(target: Path) -> Path:
    return target.with_name(f"{target.name}_seg")


def _write_picture(image: Path, source: MaskSource, category: str | None, target: Path, limits: Limits) -> Outcome:
    if not is_text(image.name):
        raise UserError(f"{image}: its name is not valid UTF-8; rename it")
    lost: List[str] = []
    areas: List[int] = []
    size = pictures.size_of(image)
    instances = source.instances(image, size, category, lost)
    masks, small, beyond = encoded(_noting_areas(instances, areas), limits)
    if masks:
        # decoded even if it is copied, to find one that is cut short here and not in training
        pictures.open_picture(image)
        if image.suffix.lower() in COPIED:
            (target / image.name).write_bytes(image.read_bytes())
        else:
            pictures.write_png(target / f"{image.stem}.png", pictures.read_picture(image))
    for number, mask in enumerate(masks):
        (_masks_of(target) / f"{image.stem}_{number}.png").write_bytes(mask)
    number_tiny = sum(area >= limits.min_area * size[0] * size[1] and tiny(area, size[0] * size[1]) for area in areas)
    return Outcome(
        image.name, len(masks), small, beyond, lost=lost, tiny=number_tiny, tiny_pixels=tiny_pixels(size[0] * size[1])
    )


def _noting_areas(instances: Iterable[Instance], areas: List[int]) -> Iterator[Instance]:
    """The instances; the number of pixels of each is appended to `areas`."""
    for instance in instances:
        areas.append(int(np.count_nonzero(instance.mask)))
        yield instance


def encoded(instances: Iterable[Instance], limits: Limits) -> Tuple[List[bytes], int, int]:
    """Encode the masks of a picture's instances that are kept, in their order, as PNG files.

    Returns them, the number of instances that are too small, and of those beyond the largest. Holds only one mask as
    pixels at a time.
    """
    kept: List[Tuple[int, int, bytes]] = []
    small = 0
    beyond = 0
    for number, instance in enumerate(instances):
        area = int(np.count_nonzero(instance.mask))
        if area < limits.min_area * instance.mask.size:
            small += 1
            continue
        kept.append((area, -number, pictures.mask_png(instance.mask)))
        if limits.max_instances and len(kept) > limits.max_instances:
            # of two equal ones, the later one goes
            kept.remove(min(kept))
            beyond += 1
    return [mask for _, _, mask in sorted(kept, key=lambda entry: -entry[1])], small, beyond


def refuse_empty(outcomes: Dict[str, List[Outcome]], advice: Dict[str, str]) -> None:
    """Raise UserError if nothing was written for a domain of `train`; `advice` says what to do, by domain."""
    for domain in "AB":
        of_domain = outcomes[f"train{domain}"]
        if not any(outcome.masks for outcome in of_domain):
            problem = next((outcome.problem for outcome in of_domain if outcome.problem), None)
            lost = counted(reason for outcome in of_domain for reason in outcome.lost)
            cause = f"none of its {len(of_domain)} pictures shows an instance that is kept; {advice[domain]}"
            raise UserError(f"there is nothing for train{domain}: {problem or next(iter(lost), cause)}")


def remove_empty(folder: Path) -> None:
    """Remove the domains of a data set to which nothing was written, since an empty one is an error."""
    for domain in sorted(folder.iterdir()):
        if not domain.name.endswith("_seg") and not any(domain.iterdir()):
            domain.rmdir()
            _masks_of(domain).rmdir()


def count_files(folder: Path) -> Dict[str, int]:
    """The number of files in each folder of a data set."""
    return {entry.name: sum(1 for _ in entry.iterdir()) for entry in sorted(folder.iterdir())}


def hold_out(folder: Path, holdout: float, seed: int) -> None:
    """Move the pictures that `choose_held_out` chooses, and their masks, from trainA and trainB to testA and testB."""
    trains = {domain: folder / f"train{domain}" for domain in "AB"}
    names_a, names_b = ({path.stem for path in train.iterdir()} for train in trains.values())
    chosen = choose_held_out(names_a, names_b, holdout, seed)
    for domain, train in trains.items():
        test = folder / f"test{domain}"
        _move(train, test, lambda path: path.stem in chosen)
        _move(_masks_of(train), _masks_of(test), lambda path: path.stem.rpartition("_")[0] in chosen)


def _move(source: Path, target: Path, is_chosen: Callable[[Path], bool]) -> None:
    """Move the chosen files of a folder to the new folder `target`."""
    target.mkdir()
    for path in sorted(source.iterdir()):
        if is_chosen(path):
            path.rename(target / path.name)


def choose_held_out(names_a: Set[str], names_b: Set[str], holdout: float, seed: int) -> Set[str]:
    """Choose the pictures to keep away from training in both domains, from the names of those in A and those in B.

    Each domain gives the rounded share `holdout` of its pictures, but at least one if it has two, and never its last.
    The choice depends on `seed` and the names alone, and not on which domain is called A.
    """
    shared = names_a & names_b
    only_a = names_a - names_b
    only_b = names_b - names_a
    number_a = share_of(len(names_a), holdout)
    number_b = share_of(len(names_b), holdout)
    # shared pictures count for both domains, so each must be able to fill the rest of its number by itself
    at_least = max(0, number_a - len(only_a), number_b - len(only_b))
    at_most = min(len(shared), number_a, number_b)
    number_shared = min(max(round(holdout * len(shared)), at_least), at_most)
    return {
        *_first_by_hash(shared, number_shared, seed),
        *_first_by_hash(only_a, number_a - number_shared, seed),
        *_first_by_hash(only_b, number_b - number_shared, seed),
    }


def _first_by_hash(names: Set[str], count: int, seed: int) -> List[str]:
    """The first `count` names in an order that depends on the seed."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())[:count]


def share_of(total: int, holdout: float) -> int:
    """The number of `total` pictures to hold out: the rounded share, at least one of two, and never all."""
    if holdout == 0 or total < 2:
        return 0
    return min(max(int(holdout * total + 0.5), 1), total - 1)


def print_summary(save_root: str | Path, first: str, second: str, made: Made) -> None:
    """Print the contents of a data set, what was left out of it, and the next command."""
    print(f"{save_root}: A is {first}, B is {second}")
    for phase in ("train", "test", "val"):
        for domain in "AB":
            folder = f"{phase}{domain}"
            if folder in made.counts:
                print(f"  {phase}{domain:4} {made.counts[folder]:5} pictures, {made.counts[f'{folder}_seg']:5} masks")
    for line in (*made.left_out(), *made.crumbs()):
        print(f"  {line}")
    print(f"next: python train.py --dataroot {shlex.quote(str(save_root))}")
