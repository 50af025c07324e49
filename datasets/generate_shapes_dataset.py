# SPDX-License-Identifier: Apache-2.0
"""Make a two-domain data set of shapes on colourful textures, with masks: it needs no download.

    python datasets/generate_shapes_dataset.py
    python datasets/generate_shapes_dataset.py --shape1 triangle --shape2 diamond --height 96 --width 128
    python datasets/generate_shapes_dataset.py --min-instances 3 --max-instances 8 --train 1000 --overwrite

The data set has, for each domain (A shows --shape1 in red, B shows --shape2 in blue) and for `train` and `test`:

    trainA/0000.png          picture, 8-bit RGB
    trainA_seg/0000_0.png    mask of its instance 0, 8-bit grey, 255 inside; then 0000_1.png, and so on
    trainA.json              {"0000": [{"shape": "circle", "centre": [x, y], "size": s, "colour": [r, g, b]}, ...], ...}

Lengths are in pixels, x to the right and y down from the picture's top left corner, so the pixel in row r and column c
is the square from (c, r) to (c + 1, r + 1). `size` means the same for every shape: it is half the side of the square
around `centre` that the shape touches on all four sides. The squares of a picture's instances lie inside it and apart,
so instances can be exchanged for any other shape of the same centre and size and still not touch.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.errors import UserError, begin_script, run_main

begin_script(__name__)

import numpy as np
from PIL import Image
from tqdm import tqdm

from common.command_line import Parser, whole
from data.shapes import SHAPES, shape_mask
from datasets.new_folder import new_folder

PHASES, DOMAINS = ("train", "test"), ("A", "B")
COLOURS = {"A": (225, 35, 35), "B": (40, 60, 235)}
COLOUR_SPREAD = 20  # of 255: an instance's colour is this far from its domain's, at most
MIN_SIZE = 3.0  # pixels; a smaller circle looks like a square
MAX_SIZE = 0.2  # of the picture's shorter side
MAX_FILL = 0.35  # of the picture's area; beyond about 0.5, placing squares at random fails
GAP = 2.0  # pixels between the squares around two instances; half of it to the border

Instance = dict  # the keys of the JSON: shape, centre, size, colour


def background(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return a many-coloured texture: (height, width, 3) float32 in [0, 255].

    The sum of random RGB grids, each twice as fine as the one before and fainter, enlarged to the picture. No part of
    it is flat, since instance normalization would remove a flat background's colour for good.
    """
    total = np.zeros((height, width, 3), np.float32)
    for octave in range(1, 5):
        cell = min(height, width) / 2**octave
        rows = int(np.ceil(height / cell)) + 1
        columns = int(np.ceil(width / cell)) + 1
        grid = random.integers(0, 256, (rows, columns, 3), np.uint8)
        enlarged = Image.fromarray(grid).resize((width, height), Image.BICUBIC)
        total += np.asarray(enlarged, np.float32) * 0.7**octave
    total -= total.mean(axis=(0, 1))
    total /= total.std(axis=(0, 1)) + 1e-6
    return np.clip(128 + 44 * total, 0, 255)


def place(random: np.random.Generator, count: int, height: int, width: int) -> list[tuple[float, float, float]]:
    """Return `count` triples (x, y, size) in pixels whose squares lie inside the picture and apart from each other.

    Raises:
        UserError: if no room is found, which is not to be expected for counts up to `most_instances`.
    """
    largest = largest_size(count, height, width)
    smallest = max(min(MIN_SIZE, largest), 0.55 * largest)
    for _ in range(50):
        placed: list[tuple[float, float, float]] = []
        # large ones first, while there is room
        for size in sorted(random.uniform(smallest, largest, count), reverse=True):
            margin = size + GAP / 2
            for _ in range(200):
                x = random.uniform(margin, width - margin)
                y = random.uniform(margin, height - margin)
                if all(max(abs(x - u), abs(y - v)) >= size + other + GAP for u, v, other in placed):
                    placed.append((x, y, size))
                    break
        if len(placed) == count:
            return placed
    raise UserError(f"{count} instances do not fit in {width}x{height}; lower --max-instances or enlarge the picture")


def largest_size(count: int, height: int, width: int) -> float:
    """Return the largest `size`, in pixels, that `count` instances in one picture may have."""
    share_of_area = (np.sqrt(MAX_FILL * height * width / count) - GAP) / 2
    return float(min(MAX_SIZE * min(height, width), share_of_area))


def most_instances(height: int, width: int) -> int:
    """Return the number of instances that fit in a picture at `MIN_SIZE`, which may be 0."""
    if largest_size(1, height, width) < MIN_SIZE:
        return 0
    return int(MAX_FILL * height * width / (2 * MIN_SIZE + GAP) ** 2)


def draw(
    random: np.random.Generator, shape: str, colour: tuple[int, int, int], count: int, height: int, width: int
) -> tuple[np.ndarray, list[np.ndarray], list[Instance]]:
    """Draw `count` instances of a shape on a background, each in a colour near `colour`.

    Returns the picture, (height, width, 3) uint8; each instance's mask, (height, width) uint8 of 0 and 255, 255 where
    it covers at least half of the pixel; and each instance's geometry for the JSON.
    """
    canvas = background(random, height, width)
    masks = []
    instances = []
    for placement in place(random, count, height, width):
        # drawn with the rounded numbers of the JSON, which are then exact
        x, y, size = (round(float(length), 3) for length in placement)
        paint = [int(c) for c in np.clip(random.integers(-COLOUR_SPREAD, COLOUR_SPREAD + 1, 3) + colour, 0, 255)]
        coverage = shape_mask(shape, (x, y), size, height, width)
        canvas += coverage[..., None] * (np.array(paint, np.float32) - canvas)
        masks.append(np.where(coverage >= 0.5, 255, 0).astype(np.uint8))
        instances.append({"shape": shape, "centre": [x, y], "size": size, "colour": paint})
    return np.rint(canvas).astype(np.uint8), masks, instances


def generate(
    save_root: str | Path,
    shape1: str = "circle",
    shape2: str = "square",
    height: int = 64,
    width: int = 64,
    train: int = 200,
    test: int = 50,
    min_instances: int = 1,
    max_instances: int = 4,
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Write the data set to `save_root`, `train` and `test` pictures per domain of `height` x `width` pixels.

    The number of instances is drawn uniformly from `min_instances` to `max_instances` for each picture. Each picture
    depends only on the seed, its phase, domain and number, so a larger data set begins with the same pictures.

    Raises:
        UserError: for a number out of range, an unknown shape, or a `save_root` that may not be replaced.
    """
    check(shape1, shape2, height, width, train, test, min_instances, max_instances, seed)
    sets = [
        (phase, domain, count, shape)
        for phase, count in zip(PHASES, (train, test))
        for domain, shape in zip(DOMAINS, (shape1, shape2))
        if count
    ]
    total = 2 * (train + test)
    with new_folder(save_root, overwrite) as folder, tqdm(total=total, unit="picture", disable=None) as bar:
        for phase, domain, count, shape in sets:
            name = f"{phase}{domain}"
            (folder / name).mkdir()
            (folder / f"{name}_seg").mkdir()
            truth = {}
            for index in range(count):
                random = np.random.default_rng([seed, PHASES.index(phase), DOMAINS.index(domain), index])
                instances = int(random.integers(min_instances, max_instances + 1))
                picture, masks, geometry = draw(random, shape, COLOURS[domain], instances, height, width)
                write(folder, name, f"{index:04d}", picture, masks)
                truth[f"{index:04d}"] = geometry
                bar.update()
            (folder / f"{name}.json").write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")


def write(folder: Path, domain: str, name: str, picture: np.ndarray, masks: list[np.ndarray]) -> None:
    """Write a picture and its masks as PNG."""
    Image.fromarray(picture).save(folder / domain / f"{name}.png", compress_level=1)
    for number, mask in enumerate(masks):
        Image.fromarray(mask).save(folder / f"{domain}_seg" / f"{name}_{number}.png", compress_level=1)


def check(
    shape1: str,
    shape2: str,
    height: int,
    width: int,
    train: int,
    test: int,
    min_instances: int,
    max_instances: int,
    seed: int,
) -> None:
    """Raise UserError, with the valid range, if one of the arguments of `generate` is out of range."""
    for shape in (shape1, shape2):
        if shape not in SHAPES:
            raise UserError(f"no shape {shape!r}; choose from {', '.join(SHAPES)}")
    for flag, value, least in (("--train", train, 1), ("--test", test, 0), ("--seed", seed, 0)):
        if value < least:
            raise UserError(f"{flag} {value} is too small; give {least} or more")
    if not 1 <= min_instances <= max_instances:
        raise UserError(
            f"--min-instances {min_instances} --max-instances {max_instances} is not a range; "
            "give at least 1, and a maximum that is not below the minimum"
        )
    least_side = int(np.ceil(MIN_SIZE / MAX_SIZE))
    if min(height, width) < least_side:
        raise UserError(f"{width}x{height} is too small for shapes; give at least {least_side} pixels each way")
    if max_instances > most_instances(height, width):
        raise UserError(
            f"--max-instances {max_instances} do not fit in {width}x{height}; "
            f"give {most_instances(height, width)} or fewer, or a larger --size"
        )


def parse_arguments() -> dict[str, Any]:
    """Read the command line into the arguments of `generate`; sizes and folder default to --size and the shapes."""
    parser = Parser("Make a two-domain data set of shapes on colourful textures, with masks.")
    add = parser.add_argument
    add(
        "--save_root",
        default=argparse.SUPPRESS,
        help="the folder to make, for train.py --dataroot (default: from the shapes, datasets/circle2square)",
    )
    add("--shape1", choices=SHAPES, default="circle", help="what domain A shows, in red")
    add("--shape2", choices=SHAPES, default="square", help="what domain B shows, in blue")
    add("--size", type=whole(1, 4096), default=64, help="height and width of the pictures in pixels")
    add("--height", type=whole(1, 4096), default=argparse.SUPPRESS, help="height in pixels, if it is not --size")
    add("--width", type=whole(1, 4096), default=argparse.SUPPRESS, help="width in pixels, if it is not --size")
    add("--train", type=int, default=200, help="pictures per domain to train on")
    add("--test", type=int, default=50, help="pictures per domain kept for looking at results; 0 makes none")
    add("--min-instances", type=int, default=1, help="the least number of shapes in a picture")
    add("--max-instances", type=int, default=4, help="the largest number; more shapes are smaller")
    add("--seed", type=int, default=0, help="the same seed gives the same pictures")
    add("--overwrite", action="store_true", help="replace an existing --save_root, once the new one is whole")
    arguments = vars(parser.parse_args())
    size = arguments.pop("size")
    arguments.setdefault("height", size)
    arguments.setdefault("width", size)
    arguments.setdefault("save_root", f"datasets/{arguments['shape1']}2{arguments['shape2']}")
    return arguments


def next_command(save_root: str | Path, height: int, width: int) -> str:
    """Return a training command that suits pictures of this size and an ordinary computer."""
    fine_height, fine_width = (side // 4 * 4 for side in (height, width))  # the networks halve each side twice
    return (
        f"python train.py --dataroot {shlex.quote(str(save_root))} "
        f"--loadSizeH {height} --loadSizeW {width} --fineSizeH {fine_height} --fineSizeW {fine_width} "
        "--ngf 16 --ndf 32 --n-blocks 3 --n-layers-D 2 --max-epoch 15 --lr-decay-start-epoch 8"
    )


def main() -> None:
    """Make the data set, print its contents and the next command."""
    arguments = parse_arguments()
    generate(**arguments)
    save_root, height, width = (arguments[key] for key in ("save_root", "height", "width"))
    print("{save_root}: A is {shape1}, B is {shape2}; {train} train, {test} test pictures each".format(**arguments))
    print(f"next: {next_command(save_root, height, width)}")


if __name__ == "__main__":
    run_main(main)
