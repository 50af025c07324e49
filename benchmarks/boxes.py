# SPDX-License-Identifier: Apache-2.0
"""How well the object in a loosely drawn box is found: mean IoU with the true masks of a data set.

    python benchmarks/boxes.py --dataroot datasets/jeans2skirt_ccp

Boxes are those around the true masks, 5 to 10 % larger on each side by chance. Compared are what is found in them, the
whole boxes, and the ellipses in them.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Iterator, Tuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.errors import begin_script, run_main

begin_script()

import numpy as np
from tqdm import tqdm

from common.command_line import Parser
from data import pictures
from data.instances import bounding_box, iou
from data.items import find_items
from masks.box_object import Box, NothingFound, clipped, ellipse, find_object

LOOSE = (0.05, 0.1)


def main() -> None:
    """Run the command line."""
    parser = Parser(__doc__)
    parser.add_argument("--dataroot", default="datasets/jeans2skirt_ccp", help="data set folder with masks")
    parser.add_argument("--phase", default="train", help="which of its pictures")
    args = parser.parse_args()
    for domain in "AB":
        rng, scores, seconds, nothing = np.random.default_rng(0), [], 0.0, 0
        for picture, truth in _objects(args.dataroot, args.phase, domain):
            box = _loose_box(truth, rng)
            start = time.perf_counter()
            try:
                found = find_object(picture, box)
            except NothingFound as error:
                found, nothing = error.mask, nothing + 1
            seconds += time.perf_counter() - start
            whole, (x0, y0, x1, y1) = np.zeros_like(truth), clipped(box, truth.shape)
            whole[y0:y1, x0:x1] = True
            scores.append([iou(mask, truth) for mask in (found, whole, ellipse((x0, y0, x1, y1), truth.shape))])
        mean = dict(zip(("found", "box", "ellipse"), np.mean(scores, axis=0).round(3)))
        each = seconds / len(scores)
        print(f"{domain}: {len(scores)} objects, mean IoU {mean}, {nothing} not found, {each:.2f} s each")


def _objects(root: str, phase: str, domain: str) -> Iterator[Tuple[np.ndarray, np.ndarray]]:
    for item in tqdm(find_items(root, phase, domain), unit="picture"):
        picture = pictures.read_picture(item.image)
        for path in item.masks.values():
            truth = pictures.read_mask(path, picture.shape[:2])
            if truth.any():
                yield picture, truth


def _loose_box(truth: np.ndarray, rng: np.random.Generator) -> Box:
    rows, columns = bounding_box(truth)
    height = rows.stop - rows.start
    width = columns.stop - columns.start
    left, top, right, bottom = rng.uniform(*LOOSE, 4) * (width, height, width, height)
    x1 = int(np.ceil(columns.stop + right))
    y1 = int(np.ceil(rows.stop + bottom))
    return int(columns.start - left), int(rows.start - top), x1, y1


if __name__ == "__main__":
    run_main(main)
