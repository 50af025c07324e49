# SPDX-License-Identifier: Apache-2.0
"""Measure the segmentation of objects in loosely drawn boxes: mean IoU with the true masks of a data set.

    python benchmarks/boxes.py --dataroot datasets/jeans2skirt_ccp

The boxes are those around the true masks, enlarged by a random 5 to 10 % on each side. Three masks are compared: the
object that was found in the box, the whole box, and the ellipse in it.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Dict, Iterator, List, Tuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.errors import begin_script, run_main

begin_script(__name__)

import numpy as np
from tqdm import tqdm

from common.command_line import Parser
from data import pictures
from data.instances import bounding_box, iou
from data.items import find_items
from masks.box_object import Box, NothingFound, clipped, ellipse, find_object

ENLARGEMENT = (0.05, 0.1)  # least and most, on each side, as a share of the box's width or height


def main() -> None:
    """Run the command line."""
    parser = Parser(__doc__)
    parser.add_argument("--dataroot", default="datasets/jeans2skirt_ccp", help="data set folder with masks")
    parser.add_argument("--phase", default="train", help="which of its pictures")
    args = parser.parse_args()
    for domain in "AB":
        print(f"{domain}: {measure(args.dataroot, args.phase, domain)}")


def measure(root: str, phase: str, domain: str) -> str:
    """Segment every object of a domain in a box, and return the scores as text."""
    rng = np.random.default_rng(0)
    scores: Dict[str, List[float]] = {"found": [], "box": [], "ellipse": []}
    seconds = 0.0
    failures = 0
    for picture, truth in objects(root, phase, domain):
        box = loose_box(truth, rng)
        start = time.perf_counter()
        try:
            mask = find_object(picture, box)
        except NothingFound as error:
            mask = error.mask
            failures += 1
        seconds += time.perf_counter() - start
        x0, y0, x1, y1 = clipped(box, truth.shape)
        whole_box = np.zeros_like(truth)
        whole_box[y0:y1, x0:x1] = True
        scores["found"].append(iou(mask, truth))
        scores["box"].append(iou(whole_box, truth))
        scores["ellipse"].append(iou(ellipse((x0, y0, x1, y1), truth.shape), truth))
    count = len(scores["found"])
    means = {name: np.mean(values).round(3) for name, values in scores.items()}
    return f"{count} objects, mean IoU {means}, {failures} not found, {seconds / count:.2f} s each"


def objects(root: str, phase: str, domain: str) -> Iterator[Tuple[np.ndarray, np.ndarray]]:
    """Each object of a domain: its picture (H, W, 3) uint8 and its true mask (H, W) bool."""
    for item in tqdm(find_items(root, phase, domain), unit="picture"):
        picture = pictures.read_picture(item.image)
        for path in item.masks.values():
            truth = pictures.read_mask(path, picture.shape[:2])
            if truth.any():
                yield picture, truth


def loose_box(truth: np.ndarray, rng: np.random.Generator) -> Box:
    """The box around a mask (H, W) bool, enlarged at random on each side; it may reach beyond the picture."""
    rows, columns = bounding_box(truth)
    height = rows.stop - rows.start
    width = columns.stop - columns.start
    left, top, right, bottom = rng.uniform(*ENLARGEMENT, 4) * (width, height, width, height)
    x1 = int(np.ceil(columns.stop + right))
    y1 = int(np.ceil(rows.stop + bottom))
    return int(columns.start - left), int(rows.start - top), x1, y1


if __name__ == "__main__":
    run_main(main)
