# SPDX-License-Identifier: Apache-2.0
"""Translate pictures with a trained model, instance by instance.

python translate.py --model tmp.monitor --dataroot datasets/jeans2skirt_ccp --phase test --direction AtoB
python translate.py --model tmp.monitor --image photo.jpg --masks photo_0.png photo_1.png --direction BtoA
python translate.py --model tmp.monitor --image photos --masks photos_seg --direction AtoB --output results
python translate.py --model tmp.monitor --image photo.jpg --masks annotations.json --keep-size --select 0,2
python translate.py --model tmp.monitor --image photo.jpg --box 40,60,210,330 --keep-size
python translate.py --model tmp.monitor --image photos --segmenter segmenter.h5 --keep-size
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import List

from common.errors import UserError, begin_script, collected, printable, run_main

begin_script(__name__)

from tqdm import tqdm

from args import translate_args
from backend import context
from common import files
from common.progress import say
from data.items import find_items, mask_folder_of, tell_not_taken
from masks.mask_source import counted
from masks.reader import MaskOptions, find_annotations, mask_reader
from translation.inputs import find_inputs
from translation.one_picture import prepare, translate_prepared
from translation.results import Results
from translation.selection import Selection
from translation.translator import load_translator


def main() -> int:
    """Run the command line; the exit code is 1 if a picture could not be translated."""
    args = translate_args(__doc__)
    one_picture = args.image is not None and Path(args.image).is_file()
    mask_options = MaskOptions(
        args.masks, args.mask_format, args.category, args.crowds, args.box, args.segmenter
    )
    annotations = find_annotations(mask_options, args.image)
    if args.image is None:
        items = find_items(args.dataroot, args.phase, args.direction[0])
    else:
        with_mask_files = not (args.box or args.segmenter or annotations)
        items = find_inputs(Path(args.image), [Path(mask) for mask in args.masks], with_mask_files)
    if not one_picture:
        folder = items[0].image.parent
        tell_not_taken(folder, None if annotations or args.segmenter else mask_folder_of(folder))
    results = Results(args.output, args.overwrite)
    results.check(items)
    context.set_up(args)
    model = load_translator(
        args.model, args.direction, args.fineSizeH, args.fineSizeW, args.ins_per, args.background, args.which
    )
    check_masks(args, model.translator.ins_per, one_picture)
    lost: List[str] = []
    read_masks = mask_reader(mask_options, annotations, items, args.direction[0], lost)
    selection = Selection(args.select, one_picture, args.ins_max, args.set_order or model.set_order, args.seed)
    if not args.keep_size and model.translator.ins_per:
        print("pictures are resized to that (--keep-size keeps them at their own size)")
    files.make_folder(results.folder, "--output")

    untouched = 0
    failures: List[str] = []
    with files.locked(results.folder, f"another translation goes to {results.folder}; give another --output, or wait"):
        try:
            for item in tqdm(items, desc=f"translating {args.direction}", unit="picture", disable=len(items) == 1):
                with collected(failures, item.image):
                    prepared = prepare(item, model, read_masks, selection, args.keep_size)
                    translation = translate_prepared(prepared, model)
                    count = len(translation.new_masks)
                    plural = "" if count == 1 else "s"
                    results.add(item.name, translation, f"{item.name} ({args.direction}, {count} instance{plural})")
                    if model.translator.ins_per and not count:
                        untouched += 1
        finally:
            # also after Ctrl-C, with the pictures translated so far
            results.write_page()
    translated = len(items) - untouched - len(failures)
    without = f", {untouched} without an instance left as they are" if untouched else ""
    for line in counted(lost):
        say(f"left out: {line}")
    print(f"{translated} of {len(items)} pictures translated{without}; open {results.folder / 'index.html'}")
    for failure in failures:
        print(printable(f"not translated: {failure}"), file=sys.stderr)
    return 1 if failures else 0


def check_masks(args: argparse.Namespace, ins_per: int, one_picture: bool) -> None:
    """Raise UserError where the model needs masks and the command line gives none, or the other way round."""
    if not ins_per:
        for name in ("keep_size", "select", "box", "segmenter"):
            if getattr(args, name):
                flag = name.replace("_", "-")
                raise UserError(f"{args.model} was trained without masks, for whole pictures; leave out --{flag}")
    elif one_picture and not (args.masks or args.box or args.segmenter):
        raise UserError(
            "--image needs its instance masks: --masks photo_0.png photo_1.png ..., or a --box around each instance, "
            "or a --segmenter"
        )


if __name__ == "__main__":
    run_main(main)
