# SPDX-License-Identifier: Apache-2.0
"""Make a two-domain data set with a mask for each instance from COCO 2017.

    python datasets/generate_coco_dataset.py --data_root datasets/coco --cat1 sheep --cat2 giraffe

--data_root holds what https://cocodataset.org offers as "2017 Train images", "2017 Val images" and "2017 Train/Val
annotations", unpacked: annotations/instances_train2017.json, annotations/instances_val2017.json, train2017/, val2017/.

The data set has, for each domain (A shows --cat1, B shows --cat2):

    trainA/000000000089.jpg  trainA_seg/000000000089_0.png, ..._1.png, ...   from train2017
    testA/000000000724.jpg   testA_seg/000000000724_0.png, ...               from val2017

Pictures are as they are in COCO. One that shows both categories is in both domains, each time with the masks of that
domain's category alone. Crowds ("iscrowd") are not instances.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.errors import UserError, begin_script, run_main

begin_script(__name__)

from common.command_line import Parser
from datasets.arguments import add_categories, add_limits, add_writing, make_within_limits, parse
from datasets.new_folder import new_folder
from datasets.two_domains import NO_LIMITS, Limits, Made, count_files, refuse_empty, remove_empty, write_domain
from masks.coco import CocoFile

SPLITS = {"train": "train2017", "test": "val2017"}
DOWNLOAD = "get the 2017 pictures and annotations from https://cocodataset.org and unpack them there"


def generate(
    data_root: str | Path,
    save_root: str | Path,
    cat1: str = "sheep",
    cat2: str = "giraffe",
    limits: Limits = NO_LIMITS,
    workers: int | None = None,
    overwrite: bool = False,
) -> Made:
    """Write the data set of categories `cat1` (A) and `cat2` (B) to `save_root`; the module docstring has its layout.

    Raises:
        UserError: for unknown or equal categories, missing or broken files in `data_root`, a category that no picture
            shows, or a `save_root` that may not be replaced.
    """
    data_root = Path(data_root)
    check_data_root(data_root)
    if cat1 == cat2:
        raise UserError(f"--cat1 and --cat2 are both {cat1!r}; give two different categories")
    outcomes = {}
    with new_folder(save_root, overwrite) as folder:
        # `test` first: its annotations are small, so that an unknown category is reported at once
        for phase in ("test", "train"):
            split = SPLITS[phase]
            source = read_annotations(data_root, split)
            check_categories(source, cat1, cat2)
            for domain, category in (("A", cat1), ("B", cat2)):
                images = [data_root / split / name for name in source.names_with(category)]
                name = f"{phase}{domain}"
                outcomes[name] = write_domain(images, source, category, folder / name, limits, workers)
        refuse_empty(outcomes, dict.fromkeys("AB", "choose another category, or a smaller --min-area"))
        remove_empty(folder)
        return Made(count_files(folder), outcomes)


def check_data_root(data_root: Path) -> None:
    """Raise UserError, with the place to get COCO, unless `data_root` has all the parts of it that are read."""
    for split in SPLITS.values():
        for part in (data_root / split, annotation_file(data_root, split)):
            if not part.exists():
                raise UserError(f"{part} is missing; {DOWNLOAD}, or give COCO's folder as --data_root")


def annotation_file(data_root: Path, split: str) -> Path:
    """The annotations of a split, train2017 or val2017."""
    return data_root / "annotations" / f"instances_{split}.json"


def read_annotations(data_root: Path, split: str) -> CocoFile:
    """Read the annotations of a split; prints a line first if that takes more than a moment."""
    path = annotation_file(data_root, split)
    if path.stat().st_size > 100 << 20:
        print(f"reading {path} ({path.stat().st_size >> 20} MB)", file=sys.stderr)
    return CocoFile(path)


def check_categories(source: CocoFile, cat1: str, cat2: str) -> None:
    """Raise UserError, with a list of all categories, unless both are in the source."""
    known = source.categories()
    for category in (cat1, cat2):
        if category not in known:
            raise UserError(f"{source.path} has no category {category!r}; it has: {', '.join(known)}")


def parse_arguments() -> argparse.Namespace:
    """Read the command line; if --save_root is not given, it follows from the categories."""
    parser = Parser(
        "Make a two-domain data set with a mask for each instance from COCO 2017.",
        epilog="--data_root is COCO as https://cocodataset.org offers it: annotations/instances_train2017.json,\n"
        "annotations/instances_val2017.json, train2017/ (becomes train), val2017/ (becomes test).",
    )
    parser.add_argument("--data_root", default="datasets/coco", help="folder with annotations, train2017 and val2017")
    add_categories(parser, "sheep", "giraffe", "_coco", "an unknown name makes the program list the 80 known")
    add_limits(parser, min_area=0.001)
    add_writing(parser)
    return parse(parser, "_coco")


def main() -> None:
    """Make the data set, print its contents and the next command."""
    make_within_limits(generate, parse_arguments())


if __name__ == "__main__":
    run_main(main)
