# SPDX-License-Identifier: Apache-2.0
"""Make masks for pictures that have none: learn them from those of a data set, and find them in other pictures.

python segment.py train --dataroot datasets/jeans2skirt_ccp --output segmenter.h5
python segment.py predict --model segmenter.h5 --dataroot datasets/jeans2skirt_ccp --phase val
python segment.py predict --model segmenter.h5 --image photos --domain A

Masks go where translate.py looks for them: NAME_{i}.png in PHASE{A,B}_seg, or in photos_seg. Those that are there
already are never touched; --overwrite predicts anew what was predicted before and is as it was then.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from pathlib import Path
from typing import List, Sequence, Tuple

from common.errors import UserError, begin_script, collected, printable, run_main

begin_script()

from tqdm import tqdm

from args import segment_args
from backend import context
from common import files
from common.interruption import Interruption
from data import checks, pictures
from data.items import Item, find_items, find_pictures, list_files, mask_folder_of
from masks import segmenter_training
from masks.predicted_masks import PredictedMasks
from masks.segmenter import DOMAINS, Segmenter, load


def main() -> int:
    """Run the command line; the exit code is 1 where a picture could not be read or a mask not be written."""
    args = segment_args(__doc__)
    context.set_up(args)
    return train(args) if args.command == "train" else predict(args)


def train(args: argparse.Namespace) -> int:
    """Train a segmenter, measure it and write it; Ctrl-C only ends the training early. Returns the exit code."""
    path, start = Path(args.output), time.time()
    check_output(path, args.overwrite)
    own, held_out = segmenter_training.find_sources(args.dataroot)
    settings = segmenter_training.choose_settings(own)
    height, width = settings.size
    # held-out ones too: they are read at the very end only
    phases = [phase for phase in ("train", "test") if phase == "train" or (Path(args.dataroot) / "testA").is_dir()]
    sizes = checks.Sizes(settings.size, (1, 1))
    checks.refuse_bad(checks.check(args.dataroot, sizes, phases))
    print(f"{len(own)} pictures to learn from, {len(held_out)} to measure on, at {height}x{width} (height x width)")
    examples = segmenter_training.read_examples(own, settings.size)
    segmenter = Segmenter(settings, seed=args.seed)
    with Interruption("stopping after this step, to measure and keep the model as it is") as interruption:
        steps = segmenter_training.train(segmenter, examples, args.steps, args.seed, lambda: bool(interruption.signal))
    how = {"steps": steps, "seed": args.seed}
    segmenter.save(path, {**how, "scores": {}})
    scores = segmenter_training.measure(segmenter, held_out)
    segmenter.save(path, {**how, "scores": {domain: score._asdict() for domain, score in scores.items()}})
    for domain, score in scores.items():
        of = f"mean over {score.pictures} pictures that it has not seen"
        print(f"{domain}: IoU {score.category_iou:.3f}, of single instances {score.instance_iou:.3f} ({of})")
    for domain in sorted(set(DOMAINS) - scores.keys()):
        print(f"{domain}: not measured, since no picture of it was left for that; look at what it predicts")
    print(f"{path}: {steps} of {args.steps} steps, {time.time() - start:.0f} s")
    what = f"--dataroot {shlex.quote(args.dataroot)} --phase val"
    if not (Path(args.dataroot) / "valA").is_dir():
        what = "--image FOLDER_OF_PICTURES --domain A"
    print(f"next: python segment.py predict --model {shlex.quote(str(path))} {what}")
    return 128 + interruption.signal if interruption.signal else 0


def check_output(path: Path, overwrite: bool) -> None:
    """Raise UserError where a model cannot be written to `path`, or would replace something unasked."""
    if path.suffix != ".h5":
        raise UserError(f"{path} is no name for a model; give an --output that ends in .h5")
    for file in (path, path.with_suffix(".json")):
        if file.exists() and not (overwrite and file.is_file()):
            raise UserError(f"{file} is there already; give another --output, or --overwrite")
    files.make_folder(path.resolve().parent, "--output")


def predict(args: argparse.Namespace) -> int:
    """Write masks for the pictures that have none. Returns the exit code."""
    segmenter = load(args.model)
    failures: List[str] = []
    for folder, domain in find_folders(args):
        masks = mask_folder_of(folder)
        files.make_folder(masks, "folder of pictures")
        if list_files(masks, masks).other:
            raise UserError(f"{masks} holds other files than masks NAME_0.png, ...; move them away")
        with files.locked(masks, f"another run writes masks into {masks}; wait until it is done"):
            files.remove_unfinished(masks, ["*_*.png"])
            failures += predict_folder(segmenter, find_pictures(folder, masks), domain, masks, args.overwrite)
    for failure in failures:
        print(printable(f"no masks for {failure}"), file=sys.stderr)
    return 1 if failures else 0


def find_folders(args: argparse.Namespace) -> List[Tuple[Path, str]]:
    """The folders of pictures that the command line asks for, each with the domain that it shows."""
    if args.image is not None:
        if not Path(args.image).is_dir():
            raise UserError(f"no folder {args.image}; give one with pictures in it as --image")
        return [(Path(args.image), args.domain)]
    there = [domain for domain in DOMAINS if (Path(args.dataroot) / f"{args.phase}{domain}").is_dir()]
    domains = [args.domain] if args.domain else there or DOMAINS
    for domain in domains:
        find_items(args.dataroot, args.phase, domain)
    return [(Path(args.dataroot) / f"{args.phase}{domain}", domain) for domain in domains]


def predict_folder(
    segmenter: Segmenter, items: Sequence[Item], domain: str, folder: Path, overwrite: bool
) -> List[str]:
    """Write the masks of what `items` show of a domain into `folder`. Returns why there are none for some pictures."""
    masks, failures, found = PredictedMasks(folder), [], []
    to_do = [item for item in items if masks.is_open(item, overwrite)]
    for item in tqdm(to_do, desc=f"finding {domain}", unit="picture", disable=None):
        with collected(failures, item.image):
            found.append(masks.write(item, segmenter.instances(pictures.read_picture(item.image), domain)))
    nothing = f"; nothing was found in {found.count(0)}" if 0 in found else ""
    had = len(items) - len(to_do)
    print(f"{folder}: {sum(found)} masks for {len(found)} pictures{nothing}; {had} had masks, which are as they were")
    return failures


if __name__ == "__main__":
    run_main(main)
