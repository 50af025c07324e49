# SPDX-License-Identifier: Apache-2.0
"""Make a two-domain data set from two folders of pictures and whatever masks you have for them.

    python datasets/import_masks.py --a horse_photos --a-masks horses.json --b zebra_photos --b-masks zebra_labels
    python datasets/import_masks.py --a farm --a-masks coco.json --cat1 sheep --b farm --b-masks coco.json --cat2 goat
    python datasets/import_masks.py --a circles --b squares --save_root datasets/circle2square --holdout 0.2

Masks (--a-masks, --b-masks; --a-format, --b-format if it cannot be recognized) are one of

    masks     a folder of NAME_0.png, NAME_1.png, ...: one for each instance of picture NAME, white inside
    labels    a folder of NAME.png, label maps: each grey, palette index or colour other than 0 is an instance
    coco      a COCO JSON file: polygons or run lengths
    labelme   a folder of LabelMe's NAME.json: polygons, rectangles (turned ones too), circles, masks

By default they are in the folder PICTURES_seg or, from LabelMe, beside the pictures.

The data set has trainA, trainA_seg, trainB, trainB_seg and, with the share --holdout of the pictures, testA and so on.
PNG and JPEG files are copied as they are, others (WebP, BMP, GIF, TIFF) become PNG; pictures without instances are left
out.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Sequence, Tuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.errors import UserError, begin_script, printable, run_main

begin_script(__name__)

from common.command_line import Parser
from data.items import EXTENSIONS, mask_folder_of, tell_not_taken, visible_files
from datasets.arguments import add_holdout, add_limits, add_writing, check_holdout, default_root
from datasets.new_folder import new_folder
from datasets.two_domains import (
    NO_LIMITS,
    Limits,
    Made,
    Outcome,
    count_files,
    hold_out,
    print_summary,
    refuse_empty,
    refuse_twins,
    remove_empty,
    write_domain,
)
from masks.formats import FORMATS
from masks.mask_source import MaskSource
from masks.sources import AmbiguousFormat, open_source


@dataclass(frozen=True)
class Domain:
    """The origin of a domain: a folder of `pictures`, their `masks` (None: in the default place) in one of the
    `FORMATS`, the `category` to take (None: all), and whether COCO's `crowds` are instances."""

    pictures: Path
    masks: Path | None = None
    format: str = "auto"
    category: str | None = None
    crowds: bool = False

    @property
    def name(self) -> str:
        """The name of what the domain shows: its category, or that of its folder."""
        return self.category or self.pictures.resolve().name


def generate(
    domains: Dict[str, Domain],
    save_root: str | Path,
    holdout: float = 0.1,
    seed: int = 0,
    limits: Limits = NO_LIMITS,
    workers: int | None = None,
    overwrite: bool = False,
) -> Made:
    """Write the data set of domains "A" and "B" to `save_root`; the module docstring has its layout.

    The share `holdout`, in [0, 1), of each domain's pictures goes to `test`; the same `seed` and names give the same
    split, and a name that is in both domains is held out in both or neither.

    Single pictures that cannot be used are left out and named.

    Raises:
        UserError: for missing, unreadable or unsuitable pictures or masks, unknown categories, a domain without
            instances, or a `save_root` that may not be replaced.
    """
    check_holdout(holdout)
    check_apart(domains, Path(save_root))
    with new_folder(save_root, overwrite) as folder:
        images = {letter: find_images(domain.pictures) for letter, domain in domains.items()}
        sources = open_sources(domains)
        remarks = {}
        for letter, source in sources.items():
            source.check(images[letter], domains[letter].category)
            remarks[letter] = source.remarks(domains[letter].category)
            for remark in (*remarks[letter], source.beyond(images[letter])):
                if remark:
                    print(printable(f"{source.path}: {remark}"))
        for folder_of_pictures in dict.fromkeys(domain.pictures for domain in domains.values()):
            tell_not_taken(folder_of_pictures, None)
        outcomes: Dict[str, List[Outcome]] = {}
        for letter, domain in domains.items():
            target = folder / f"train{letter}"
            outcomes[target.name] = write_domain(
                images[letter], sources[letter], domain.category, target, limits, workers
            )
        advice = {letter: advice_for(source, remarks[letter], letter) for letter, source in sources.items()}
        refuse_empty(outcomes, advice)
        if holdout > 0:
            hold_out(folder, holdout, seed)
            remove_empty(folder)
        return Made(count_files(folder), outcomes)


def check_apart(domains: Dict[str, Domain], save_root: Path) -> None:
    """Raise UserError if the data set would replace the files that it is made from."""
    target = save_root.resolve()
    for domain in domains.values():
        for path in (domain.pictures, domain.masks or domain.pictures):
            if target in (path.resolve(), *path.resolve().parents):
                raise UserError(f"{path} is in {save_root}, where the data set is to be; choose another --save_root")


def find_images(folder: Path) -> List[Path]:
    """The pictures of a folder, sorted. Raises UserError if there are none, or two would have the same masks."""
    if not folder.is_dir():
        raise UserError(f"no folder {folder}; give one that has pictures in it")
    images = [path for path in visible_files(folder) if path.suffix.lower() in EXTENSIONS]
    if not images:
        raise UserError(f"no pictures ({', '.join(EXTENSIONS)}) in {folder}; give a folder that has some")
    refuse_twins(images)
    return images


def open_sources(domains: Dict[str, Domain]) -> Dict[str, MaskSource]:
    """Open the masks of each domain, those that both share only once."""
    opened: Dict[Tuple[Path, str], MaskSource] = {}
    sources = {}
    for letter, domain in domains.items():
        path = domain.masks or default_masks(domain.pictures, letter)
        if (path, domain.format) not in opened:
            try:
                opened[path, domain.format] = open_source(path, domain.format, domain.crowds)
            except AmbiguousFormat as error:
                raise UserError(f"{error} (--{letter.lower()}-format)") from None
        sources[letter] = opened[path, domain.format]
    return sources


def default_masks(folder: Path, letter: str) -> Path:
    """The default place of the masks for a folder of pictures: PICTURES_seg, or LabelMe's files beside the pictures."""
    beside = mask_folder_of(folder)
    if beside.is_dir():
        return beside
    if any(folder.glob("*.json")):
        return folder
    raise UserError(f"no masks in {beside}, and no .json files in {folder}; give --{letter.lower()}-masks")


def advice_for(source: MaskSource, remarks: Sequence[str], letter: str) -> str:
    """Advice for the case that no picture has an instance; `remarks` are those of the source about its category."""
    flag = letter.lower()
    left_out = f" ({'; '.join(remarks)})" if remarks else ""
    names = "file_names" if source.format == "coco" else "names"
    return (
        f"{source.path} was read as {source.format}{left_out}: see that its {names} are those of the pictures, "
        f"or give another --{flag}-masks or --{flag}-format"
    )


def parse_arguments() -> argparse.Namespace:
    """Read the command line; `save_root` is missing if it is not given."""
    parser = Parser(__doc__)
    add = parser.add_argument
    for letter, number in (("a", 1), ("b", 2)):
        add(f"--{letter}", required=True, metavar="PICTURES", help=f"folder of domain {letter.upper()}")
        add(f"--{letter}-masks", metavar="MASKS", help="its masks: a folder or file (default: as above)")
        add(f"--{letter}-format", choices=FORMATS, default="auto", help="format of its masks, if auto cannot decide")
        add(f"--cat{number}", help=f"category that domain {letter.upper()} shows, of COCO or LabelMe (default: all)")
    add("--crowds", action="store_true", help="COCO: annotations with iscrowd are instances, as those of CVAT's brush")
    add(
        "--save_root",
        default=argparse.SUPPRESS,
        help="the folder to make, for train.py --dataroot (default: from categories or folders, datasets/horse2zebra)",
    )
    add_holdout(parser)
    add_limits(parser, min_area=0.0)
    add_writing(parser)
    return parser.parse_args()


def main() -> None:
    """Make the data set, print its contents and the next command."""
    args = parse_arguments()
    domains = {
        "A": Domain(Path(args.a), Path(args.a_masks) if args.a_masks else None, args.a_format, args.cat1, args.crowds),
        "B": Domain(Path(args.b), Path(args.b_masks) if args.b_masks else None, args.b_format, args.cat2, args.crowds),
    }
    first, second = (domain.name for domain in domains.values())
    save_root = getattr(args, "save_root", default_root(first, second, ""))
    limits = Limits(args.min_area, args.max_instances)
    made = generate(domains, save_root, args.holdout, args.seed, limits, args.workers, args.overwrite)
    print_summary(save_root, first, second, made)


if __name__ == "__main__":
    run_main(main)
