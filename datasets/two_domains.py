# SPDX-License-Identifier: Apache-2.0
"""What the data set generators have in common: writing pictures with masks, holding some out, telling what was done."""

from __future__ import annotations

import hashlib
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, Iterable, List, Sequence, Set, Tuple

import numpy as np

from common.errors import UserError, printable
from common.progress import in_parallel
from data import pictures
from data.items import EXTENSIONS, is_text
from masks.mask_source import Instance, MaskSource

TOLD = 5  # pictures that cannot be used, of each domain, that are named


@dataclass(frozen=True)
class Limits:
    """Which instances are kept: those of at least the share `min_area` of their picture, the `max_instances` largest
    of each picture (None: all)."""

    min_area: float = 0.0
    max_instances: int | None = None


ALL = Limits()


@dataclass(frozen=True)
class Outcome:
    """What became of a picture: `masks` of it were written (and it, if any), so many instances were too `small` or
    `beyond` the largest; or the `problem` for which it cannot be used."""

    name: str
    masks: int = 0
    small: int = 0
    beyond: int = 0
    problem: str = ""


@dataclass
class Made:
    """A data set: how many files are in each of its folders, and what became of the pictures for "trainA" and so on."""

    counts: Dict[str, int]
    outcomes: Dict[str, List[Outcome]] = field(default_factory=dict)

    def left_out(self) -> List[str]:
        """What was left out, a line for each domain from which something was."""
        lines = []
        for domain in "AB":
            all_ = [o for name, outcomes in self.outcomes.items() if name[-1] == domain for o in outcomes]
            counts = (
                (sum(not o.masks and not o.problem for o in all_), "picture", "without an instance that is kept"),
                (sum(bool(o.problem) for o in all_), "picture", "that cannot be used"),
                (sum(o.small for o in all_), "instance", "smaller than --min-area"),
                (sum(o.beyond for o in all_), "instance", "beyond --max-instances"),
            )
            told = ", ".join(f"{count} {what}{'s' * (count > 1)} {why}" for count, what, why in counts if count)
            lines += [f"left out of {domain}: {told}"] * bool(told)
        return lines


def write_domain(
    images: Sequence[Path],
    source: MaskSource,
    category: str | None,
    target: Path,
    limits: Limits,
    workers: int | None = None,
) -> List[Outcome]:
    """Write the `images` that show instances of `category` (None: of any) to the new folder `target`, the masks beside.

    PNG and JPEG files are copied byte for byte, others become PNG. A picture that cannot be used, or whose masks
    cannot, is left out and told of on standard error.

    Raises UserError where two pictures differ by their extension alone.
    """
    refuse_twins(images)
    target.mkdir()
    _masks_of(target).mkdir()

    def write(image: Path) -> Outcome:
        try:
            return _write_picture(image, source, category, target, limits)
        except UserError as error:
            return Outcome(image.name, problem=str(error))

    outcomes = in_parallel(write, images, target.name, workers)
    problems = [outcome.problem for outcome in outcomes if outcome.problem]
    for problem in problems[:TOLD]:
        print(printable(f"warning: left out: {problem}"), file=sys.stderr)
    if len(problems) > TOLD:
        print(f"warning: ... and {len(problems) - TOLD} more are left out of {target.name}", file=sys.stderr)
    return outcomes


def refuse_twins(images: Sequence[Path]) -> None:
    """Raise UserError where two pictures differ by their extension alone, since masks are named without it."""
    names: Dict[str, Path] = {}
    for path in images:
        if names.setdefault(path.stem, path) != path:
            mend = "rename one, or move it away if it is a mask"
            raise UserError(f"{path} and {names[path.stem].name} share a name; their masks would too: {mend}")


def _masks_of(target: Path) -> Path:
    return target.with_name(f"{target.name}_seg")


def _write_picture(image: Path, source: MaskSource, category: str | None, target: Path, limits: Limits) -> Outcome:
    if not is_text(image.name):
        raise UserError(f"{image}: its name is not valid UTF-8; rename it")
    found = source.instances(image, pictures.size_of(image))
    masks, small, beyond = encoded((i for i in found if category is None or i.category == category), limits)
    if masks:
        # decoded even where it is copied: one that is cut short is found here, and not in training
        pictures.open_picture(image)
        if image.suffix.lower() in EXTENSIONS:
            (target / image.name).write_bytes(image.read_bytes())
        else:
            pictures.write_png(target / f"{image.stem}.png", pictures.read_picture(image))
    for number, mask in enumerate(masks):
        (_masks_of(target) / f"{image.stem}_{number}.png").write_bytes(mask)
    return Outcome(image.name, len(masks), small, beyond)


def encoded(instances: Iterable[Instance], limits: Limits) -> Tuple[List[bytes], int, int]:
    """The masks of a picture's instances that are kept, in their order, as PNG files; and how many are too small, and
    beyond the largest. Only one mask is held as pixels at a time."""
    kept: List[Tuple[int, int, bytes]] = []
    small = beyond = 0
    for number, instance in enumerate(instances):
        area = int(np.count_nonzero(instance.mask))
        if area < limits.min_area * instance.mask.size:
            small += 1
            continue
        kept.append((area, -number, pictures.mask_png(instance.mask)))
        if limits.max_instances and len(kept) > limits.max_instances:
            # of two that are equal, the later one goes
            kept.remove(min(kept))
            beyond += 1
    return [mask for _, _, mask in sorted(kept, key=lambda entry: -entry[1])], small, beyond


def refuse_empty(outcomes: Dict[str, List[Outcome]], mends: Dict[str, str]) -> None:
    """Raise UserError where nothing was written for a domain of `train`; `mends` has what to do, by domain."""
    for domain in "AB":
        found = outcomes[f"train{domain}"]
        if not any(outcome.masks for outcome in found):
            problem = next((outcome.problem for outcome in found if outcome.problem), None)
            why = f"none of its {len(found)} pictures shows an instance that is kept; {mends[domain]}"
            raise UserError(f"there is nothing for train{domain}: {problem or why}")


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
    names = [{path.stem for path in trains[domain].iterdir()} for domain in "AB"]
    chosen = choose_held_out(*names, holdout, seed)
    for domain, train in trains.items():
        test = folder / f"test{domain}"
        for source, target in ((train, test), (_masks_of(train), _masks_of(test))):
            target.mkdir()
            for path in sorted(source.iterdir()):
                name = path.stem if source is train else path.stem.rpartition("_")[0]
                if name in chosen:
                    path.rename(target / path.name)


def choose_held_out(names_a: Set[str], names_b: Set[str], holdout: float, seed: int) -> Set[str]:
    """Choose the pictures kept away from training in both domains, from the names of those in A and those in B.

    Each domain gives the rounded share `holdout` of its pictures, but at least one where it has two, and never its
    last. Which ones depends on `seed` and their names alone, and not on which domain is called A.
    """
    shared, only_a, only_b = names_a & names_b, names_a - names_b, names_b - names_a
    from_a, from_b = share_of(len(names_a), holdout), share_of(len(names_b), holdout)
    # Shared pictures count for both domains, so their number must leave each a rest it can fill with its own.
    at_least = max(0, from_a - len(only_a), from_b - len(only_b))
    at_most = min(len(shared), from_a, from_b)
    from_shared = min(max(round(holdout * len(shared)), at_least), at_most)
    chosen: Set[str] = set()
    for names, count in ((shared, from_shared), (only_a, from_a - from_shared), (only_b, from_b - from_shared)):
        chosen.update(sorted(names, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())[:count])
    return chosen


def share_of(total: int, holdout: float) -> int:
    """Return how many of `total` pictures are held out: the rounded share, at least one of two, and never all."""
    if holdout == 0 or total < 2:
        return 0
    return min(max(int(holdout * total + 0.5), 1), total - 1)


def tell(save_root: str | Path, first: str, second: str, made: Made) -> None:
    """Print what is in a data set, what was left out of it, and the command that comes next."""
    print(f"{save_root}: A is {first}, B is {second}")
    for phase in ("train", "test", "val"):
        for domain in "AB":
            if f"{phase}{domain}" in made.counts:
                number, masks = made.counts[f"{phase}{domain}"], made.counts[f"{phase}{domain}_seg"]
                print(f"  {phase}{domain:4} {number:5} pictures, {masks:5} masks")
    for line in made.left_out():
        print(f"  {line}")
    print(f"next: python train.py --dataroot {shlex.quote(str(save_root))}")
