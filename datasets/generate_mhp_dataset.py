# SPDX-License-Identifier: Apache-2.0
"""Make a two-domain data set with a mask for each person's garment from LV-MHP v1 (Multi-Human Parsing).

    python datasets/generate_mhp_dataset.py --data_root datasets/LV-MHP-v1 --cat1 pants --cat2 skirt

--data_root holds LV-MHP v1 (the link is at https://github.com/ZhaoJ9014/Multi-Human-Parsing), unpacked:

    images/0001.jpg
    annotations/0001_03_01.png, 0001_03_02.png, ...   label ids of the first, second, ... of the 3 persons in it
    train_list.txt, test_list.txt                     a file name of images/ in each line

The data set has, for each domain (A shows --cat1, B shows --cat2), for `train` and `test` as the lists say:

    trainA/0001.jpg  trainA_seg/0001_0.png, ...       a mask for each person that wears it (white = category)

A picture that shows both categories is in both domains. Pictures that are wider than high are left out unless
--landscape is given, as in the paper: training brings all to its upright format.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Dict, Iterator, List, Tuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.errors import UserError, begin_script, run_main

begin_script(__name__)

from common.command_line import Parser
from datasets.arguments import add_categories, add_limits, add_writing, make_within_limits, parse
from datasets.new_folder import new_folder
from datasets.two_domains import NO_LIMITS, Limits, Made, count_files, refuse_empty, remove_empty, write_domain
from masks.mask_source import Instance, MaskSource
from masks.png import read_labels

# indexed by label id
LABELS = (
    "background hat hair sunglasses upper-clothes skirt pants dress belt left-shoe right-shoe face left-leg right-leg "
    "left-arm right-arm bag scarf torso-skin"
).split()
PHASES = ("train", "test")
DOWNLOAD = "get LV-MHP v1 by the link at https://github.com/ZhaoJ9014/Multi-Human-Parsing and unpack it there"


class Persons(MaskSource):
    """One category of LV-MHP v1: an instance is all of it on one person; landscapes only if `landscape`."""

    def __init__(self, data_root: Path, category: str, landscape: bool) -> None:
        super().__init__(data_root / "annotations")
        self._category = category
        self._landscape = landscape
        self._files: Dict[str, List[Path]] = {}
        for path in sorted(self.path.iterdir()):
            match = re.fullmatch(r"(.+)_[0-9]+_[0-9]+\.png", path.name)
            if match:
                self._files.setdefault(match[1], []).append(path)

    def _read(self, image: Path, size: Tuple[int, int], category: str | None) -> Iterator[Instance]:
        height, width = size
        if width > height and not self._landscape:
            return
        for path in self._files.get(image.stem, []):
            labels = read_labels(path)
            upright = self._upright(labels.shape, image, size, path)
            # & 255, since some greys are stored in three channels
            yield Instance(self._category, upright((labels & 255) == LABELS.index(self._category)))


def generate(
    data_root: str | Path,
    save_root: str | Path,
    cat1: str = "pants",
    cat2: str = "skirt",
    landscape: bool = False,
    limits: Limits = NO_LIMITS,
    workers: int | None = None,
    overwrite: bool = False,
) -> Made:
    """Write the data set of categories `cat1` (A) and `cat2` (B) to `save_root`; the module docstring has its layout.

    Raises:
        UserError: for unknown or equal categories, missing files in `data_root`, a category that no picture shows, or a
            `save_root` that may not be replaced.
    """
    data_root = Path(data_root)
    for category in (cat1, cat2):
        if category not in LABELS[1:]:
            raise UserError(f"LV-MHP v1 has no category {category!r}; it has: {', '.join(LABELS[1:])}")
    if cat1 == cat2:
        raise UserError(f"--cat1 and --cat2 are both {cat1!r}; give two different categories")
    for part in ("images", "annotations", *(f"{phase}_list.txt" for phase in PHASES)):
        if not (data_root / part).exists():
            raise UserError(f"{data_root / part} is missing; {DOWNLOAD}, or give its folder as --data_root")
    images = {phase: read_list(data_root, phase) for phase in PHASES}
    outcomes = {}
    with new_folder(save_root, overwrite) as folder:
        for domain, category in (("A", cat1), ("B", cat2)):
            source = Persons(data_root, category, landscape)
            for phase in PHASES:
                name = f"{phase}{domain}"
                outcomes[name] = write_domain(images[phase], source, category, folder / name, limits, workers)
        refuse_empty(outcomes, dict.fromkeys("AB", "choose another category, a smaller --min-area, or --landscape"))
        remove_empty(folder)
        return Made(count_files(folder), outcomes)


def read_list(data_root: Path, phase: str) -> List[Path]:
    """The pictures of `train` or `test`. Raises UserError if a line is not the name of a picture, or occurs twice."""
    path = data_root / f"{phase}_list.txt"
    names = path.read_text(encoding="utf-8", errors="surrogateescape").split()
    for name in names:
        if not re.fullmatch(r"[^/\\]+\.jpg", name):
            raise UserError(f"{path} has a line {name[:40]!r}, which is not the name of a .jpg file; {DOWNLOAD}")
    if len(set(names)) < len(names):
        raise UserError(f"{path} names a picture twice; {DOWNLOAD}")
    return [data_root / "images" / name for name in names]


def parse_arguments() -> argparse.Namespace:
    """Read the command line; if --save_root is not given, it follows from the categories."""
    parser = Parser(
        "Make a two-domain data set with a mask for each person's garment from LV-MHP v1 (Multi-Human Parsing).",
        epilog=f"To have LV-MHP v1, {DOWNLOAD}.",
    )
    add = parser.add_argument
    add("--data_root", default="datasets/LV-MHP-v1", help="the folder with images, annotations and the two lists")
    add_categories(parser, "pants", "skirt", "_mhp", f"one of: {', '.join(LABELS[1:])}")
    add("--landscape", action="store_true", help="keep pictures that are wider than high, too")
    add_limits(parser, min_area=0.001)
    add_writing(parser)
    return parse(parser, "_mhp")


def main() -> None:
    """Make the data set, print its contents and the next command."""
    make_within_limits(generate, parse_arguments())


if __name__ == "__main__":
    run_main(main)
