# SPDX-License-Identifier: Apache-2.0
"""Make masks for pictures that have none: learn them from those of a data set, and find them in other pictures.

python segment.py train --dataroot datasets/jeans2skirt_ccp --output segmenter.h5
python segment.py predict --model segmenter.h5 --dataroot datasets/jeans2skirt_ccp --phase val
python segment.py predict --model segmenter.h5 --image photos --domain A

Masks go where translate.py looks for them: NAME_{i}.png in PHASE{A,B}_seg, or in photos_seg. Those that are there
already are never touched; --overwrite predicts again what was predicted before and has not been changed since.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from pathlib import Path
from typing import Dict, List, Sequence, Tuple

from common.errors import UserError, begin_script, collected, printable, run_main

begin_script(__name__)

from tqdm import tqdm

from args import segment_args
from backend import context
from common import files
from common.interruption import Interruption
from data import checks, pictures
from data.items import Item, find_items, find_pictures, list_files, mask_folder_of, tell_not_taken
from masks import segmenter_training
from masks.predicted_masks import PredictedMasks
from masks.segmenter import DOMAINS, Segmenter, load
from masks.segmenter_training import Measured


def main() -> int:
    """Run the command line; the exit code is 1 if a picture could not be read or a mask not be written."""
    args = segment_args(__doc__)
    context.set_up(args)
    return train(args) if args.command == "train" else predict(args)


def train(args: argparse.Namespace) -> int:
    """Train a segmenter, measure it and write it; Ctrl-C only ends the training early. Returns the exit code."""
    start = time.time()
    path = Path(args.output)
    check_output(path, args.overwrite)
    sources, held_out = segmenter_training.find_sources(args.dataroot)
    settings = segmenter_training.choose_settings(sources)
    check_data(args.dataroot, settings.size)
    height, width = settings.size
    print(f"{len(sources)} pictures to learn from, {len(held_out)} to measure on, at {height}x{width} (height x width)")

    examples = segmenter_training.read_examples(sources, settings.size)
    segmenter = Segmenter(settings, seed=args.seed)
    with Interruption("stopping after this step, to measure and keep the model as it is") as interruption:
        steps = segmenter_training.train(segmenter, examples, args.steps, args.seed, lambda: bool(interruption.signal))
    # saved before it is measured, which takes a while
    segmenter.save(path, {"steps": steps, "seed": args.seed, "scores": {}})
    scores = segmenter_training.measure(segmenter, held_out)
    scores_as_json = {domain: score._asdict() for domain, score in scores.items()}
    segmenter.save(path, {"steps": steps, "seed": args.seed, "scores": scores_as_json})

    print_scores(scores)
    print(f"{path}: {steps} of {args.steps} steps, {time.time() - start:.0f} s")
    print(f"next: {next_command(path, args.dataroot)}")
    return 128 + interruption.signal if interruption.signal else 0


def check_output(path: Path, overwrite: bool) -> None:
    """Raise UserError if a model cannot be written to `path`, or would replace something without `overwrite`."""
    if path.suffix != ".h5":
        raise UserError(f"{path} is not a name for a model; give an --output that ends in .h5")
    for file in (path, path.with_suffix(".json")):
        if file.exists() and not (overwrite and file.is_file()):
            raise UserError(f"{file} is there already; give another --output, or --overwrite")
    files.make_folder(path.resolve().parent, "--output")


def check_data(dataroot: str, size: Tuple[int, int]) -> None:
    """Raise UserError if pictures or masks to learn from or to measure on have errors; the latter are read late."""
    phases = ["train"]
    if (Path(dataroot) / "testA").is_dir():
        phases.append("test")
    checks.refuse_bad(checks.check(dataroot, checks.Sizes(load=size, crop=(1, 1)), phases))


def print_scores(scores: Dict[str, Measured]) -> None:
    """Print the quality of a segmenter for each domain."""
    for domain, score in scores.items():
        number = f"mean over {score.pictures} pictures that it has not seen"
        print(f"{domain}: IoU {score.category_iou:.3f}, of single instances {score.instance_iou:.3f} ({number})")
    for domain in sorted(set(DOMAINS) - scores.keys()):
        print(f"{domain}: not measured, since no picture of it was left for that; look at what it predicts")


def next_command(model: Path, dataroot: str) -> str:
    """The command that predicts masks with a new model."""
    pictures_to_segment = "--image FOLDER_OF_PICTURES --domain A"
    if (Path(dataroot) / "valA").is_dir():
        pictures_to_segment = f"--dataroot {shlex.quote(dataroot)} --phase val"
    return f"python segment.py predict --model {shlex.quote(str(model))} {pictures_to_segment}"


def predict(args: argparse.Namespace) -> int:
    """Write masks for the pictures that have none. Returns the exit code."""
    segmenter = load(args.model)
    failures: List[str] = []
    for folder, domain in find_folders(args):
        masks = mask_folder_of(folder)
        files.make_folder(masks, "folder of pictures")
        if list_files(masks, masks).other:
            raise UserError(f"{masks} holds other files than masks NAME_0.png, ...; move them away")
        tell_not_taken(folder, None)
        with files.locked(masks, f"another run writes masks into {masks}; wait until it is done"):
            files.remove_unfinished(masks, ["*_*.png"])
            failures += predict_folder(segmenter, find_pictures(folder, masks), domain, masks, args.overwrite)
    for failure in failures:
        print(printable(f"no masks for {failure}"), file=sys.stderr)
    return 1 if failures else 0


def find_folders(args: argparse.Namespace) -> List[Tuple[Path, str]]:
    """The folders of pictures that the command line asks for, each with the domain to find in it."""
    if args.image is not None:
        if not Path(args.image).is_dir():
            raise UserError(f"no folder {args.image}; give one with pictures in it as --image")
        return [(Path(args.image), args.domain)]
    folders = {domain: Path(args.dataroot) / f"{args.phase}{domain}" for domain in DOMAINS}
    existing = [domain for domain in DOMAINS if folders[domain].is_dir()]
    domains = [args.domain] if args.domain else existing or DOMAINS
    for domain in domains:
        # refuses missing or unusable folders before anything is written
        find_items(args.dataroot, args.phase, domain)
    return [(folders[domain], domain) for domain in domains]


def predict_folder(
    segmenter: Segmenter, items: Sequence[Item], domain: str, folder: Path, overwrite: bool
) -> List[str]:
    """Write the masks of `items` into `folder`. Returns an error for each picture that could not be done."""
    masks = PredictedMasks(folder)
    failures: List[str] = []
    counts = []
    to_do = [item for item in items if masks.needs_prediction(item, overwrite)]
    for item in tqdm(to_do, desc=f"finding {domain}", unit="picture", disable=None):
        with collected(failures, item.image):
            counts.append(masks.write(item, segmenter.instances(pictures.read_picture(item.image), domain)))
    nothing = f"; nothing was found in {counts.count(0)}" if 0 in counts else ""
    had = len(items) - len(to_do)
    print(f"{folder}: {sum(counts)} masks for {len(counts)} pictures{nothing}; {had} had masks, which are as they were")
    return failures


if __name__ == "__main__":
    run_main(main)
