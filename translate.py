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
import re
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Sequence, Tuple

from common.errors import UserError, begin_script, collected, printable, run_main

begin_script()

import numpy as np
from PIL import Image
from tqdm import tqdm

from args import translate_args
from backend import context
from common import files
from common.progress import say
from data import instances, pictures
from data.items import Item, find_items, find_pictures, is_text, list_files, mask_folder_of
from masks.reader import MaskOptions, MaskReader, find_annotations, mask_reader
from translation import keep_size
from translation.keep_size import PlacedMask, Window
from translation.results import Results, Translation
from translation.translator import Loaded, Translator, load_translator


@dataclass(frozen=True)
class Task:
    """How to translate: the command line, the model, and where masks come from."""

    args: argparse.Namespace
    model: Loaded
    read_masks: MaskReader


def main() -> int:
    """Run the command line; the exit code is 1 where a picture could not be translated."""
    args = translate_args(__doc__)
    mask_options = MaskOptions(args.masks, args.mask_format, args.category, args.box, args.segmenter)
    annotations = find_annotations(mask_options, args.image)
    items = find_pictures_to_translate(args, annotations)
    results = Results(args.output, args.overwrite)
    results.check(items)
    context.set_up(args)
    model = load_translator(args)
    check_masks(args, model.translator)
    task = Task(args, model, mask_reader(mask_options, annotations, items, args.direction[0]))
    if not args.keep_size and model.translator.ins_per:
        print("pictures are resized to that (--keep-size leaves them as large as they are)")
    files.make_folder(results.folder, "--output")
    with files.locked(results.folder, f"another translation goes to {results.folder}; give another --output, or wait"):
        untouched, failures = translate_items(items, task, results)
    left = f", {len(untouched)} without an instance left as they are" if untouched else ""
    count = len(items) - len(untouched) - len(failures)
    print(f"{count} of {len(items)} pictures translated{left}; open {results.folder / 'index.html'}")
    for failure in failures:
        print(printable(f"not translated: {failure}"), file=sys.stderr)
    return 1 if failures else 0


def check_masks(args: argparse.Namespace, translator: Translator) -> None:
    """Raise UserError where the model needs masks and the command line gives none, or the other way round."""
    if not translator.ins_per:
        for name in ("keep_size", "select", "box", "segmenter"):
            if getattr(args, name):
                flag = name.replace("_", "-")
                raise UserError(f"{args.model} was trained without masks, for whole pictures; leave out --{flag}")
    elif args.image and Path(args.image).is_file() and not (args.masks or args.box or args.segmenter):
        raise UserError(
            "--image needs its instance masks: --masks photo_0.png photo_1.png ..., or a --box around each instance, "
            "or a --segmenter"
        )


def translate_items(items: Sequence[Item], task: Task, results: Results) -> Tuple[List[Item], List[str]]:
    """Translate pictures into `results`, with its page, also over those that were done when Ctrl-C came. Returns those
    in which there was nothing to translate, and why others were not translated."""
    untouched, failures = [], []
    try:
        for item in tqdm(items, desc=f"translating {task.args.direction}", unit="picture", disable=len(items) == 1):
            with collected(failures, item.image):
                if not translate_item(item, task, results):
                    untouched.append(item)
    finally:
        results.write_page()
    return untouched, failures


def find_pictures_to_translate(args: argparse.Namespace, annotations: Path | None) -> List[Item]:
    """The pictures that the command line asks for: one, a folder of them, or a data set's domain; each with its mask
    files, where there is one for each mask."""
    if args.image is None:
        return find_items(args.dataroot, args.phase, args.direction[0])
    masks = [Path(mask) for mask in args.masks]
    for mask in masks:
        if not mask.exists():
            raise UserError(f"no file or folder {mask} (--masks)")
    image, has_mask_files = Path(args.image), not (args.box or args.segmenter or annotations)
    if image.is_dir():
        folder = masks[0] if masks else mask_folder_of(image)
        if has_mask_files and (len(masks) > 1 or not folder.is_dir()):
            raise UserError(f"no folder of masks {folder}; with a folder as --image, --masks is that of its masks")
        return find_pictures(image, folder if has_mask_files else None)
    if not image.is_file():
        raise UserError(f"no file or folder {image} (--image)")
    if not is_text(image.name):
        raise UserError(f"{image}: its name is not valid UTF-8; rename it")
    return [Item(image.stem, image, _mask_files(image.stem, masks) if has_mask_files else {})]


def _mask_files(name: str, masks: List[Path]) -> Dict[int, Path]:
    """The masks of one picture, which are given as files or by their folder."""
    if len(masks) == 1 and masks[0].is_dir():
        found = list_files(masks[0], masks[0]).masks.get(name, {})
        if not found:
            raise UserError(f"{masks[0]} has no masks {name}_0.png, {name}_1.png, ...; give those of this picture")
        return {number: paths[0] for number, paths in sorted(found.items())}
    for mask in masks:
        if not mask.is_file():
            raise UserError(f"{mask} is no file; with one picture as --image, --masks are the files of its masks")
    return _numbered(name, masks)


def _numbered(name: str, masks: List[Path]) -> Dict[int, Path]:
    """Masks by the number in NAME_{i}.png, or in the order given where they are called something else."""
    found = [re.fullmatch(re.escape(name) + r"_(\d+)", mask.stem) for mask in masks]
    numbers = [int(match[1]) for match in found if match]
    return dict(zip(numbers if len(set(numbers)) == len(masks) else range(len(masks)), masks))


def translate_item(item: Item, task: Task, results: Results) -> bool:
    """Translate one picture's instances and put the result into `results`; says what was left alone and why. Returns
    whether there was anything to translate."""
    args, model, translator = task.args, task.model, task.model.translator
    picture = pictures.read_picture(item.image)
    size = picture.shape[:2] if args.keep_size else model.size
    # one mask after the other: those of a large picture are large too
    masks = {number: keep_size.placed(pictures.cut(level, size)) for number, level in task.read_masks(item, picture)}
    chosen = choose(item, masks, task)
    old = [masks[number] for number in chosen]
    if args.keep_size:
        view = keep_size.View(model.size, model.instance_share)
        after, new = keep_size.translate_in_place(picture, old, translator.translate, view, translator.ins_per)
    else:
        picture = np.asarray(pictures.resized(Image.fromarray(picture), size))
        after, new = translate_whole(picture, old, translator)
    title = f"{item.name} ({args.direction}, {len(chosen)} instance{'s' * (len(chosen) != 1)})"
    profile = pictures.colour_profile(item.image)
    results.add(item.name, Translation(picture, after, masks, dict(zip(chosen, new)), profile), title)
    return bool(chosen) or not translator.ins_per


def translate_whole(
    picture: np.ndarray, masks: Sequence[PlacedMask], translator: Translator
) -> Tuple[np.ndarray, List[PlacedMask]]:
    """Translate a picture (H, W, 3) uint8 as a whole, by its masks in the order given: the picture and the masks."""
    size = picture.shape[:2]
    inside = np.array([mask.at(size) > 127 for mask in masks], bool).reshape(-1, *size)
    y, b = translator.translate(pictures.to_network(picture), pictures.masks_to_network(inside))
    return pictures.to_picture(y), [PlacedMask(Window(0, 0, *size), pictures.to_picture(mask)) for mask in b]


def choose(item: Item, masks: Dict[int, PlacedMask], task: Task) -> List[int]:
    """The numbers of a picture's instances to translate, in order; says which are left alone, and why.

    Raises:
        UserError: where `--select` names an instance that the one `--image` does not have.
    """
    args = task.args
    if not task.model.translator.ins_per:
        return []
    asked = [number for number in masks if args.select is None or number in args.select]
    missing = sorted(set(args.select or ()) - set(asked))
    if missing and args.image and Path(args.image).is_file():
        known = ", ".join(map(str, masks)) or "none"
        raise UserError(f"{item.image} has no instance {missing[0]} (--select); it has: {known}")
    area = np.array([masks[number].area for number in asked], int)
    # the same whichever other pictures are translated
    rng = np.random.default_rng([args.seed, zlib.crc32(item.name.encode("utf-8"))])
    chosen = [asked[i] for i in instances.select_by_area(area, args.ins_max, args.set_order, rng)]
    others = [
        f"{item.name}_{number} ({'beyond --ins-max' if size else 'empty'})"
        for number, size in zip(asked, area)
        if number not in chosen
    ] + [f"{item.name}_{number} (there is none)" for number in missing]
    if not chosen:
        what = f"{len(asked)} masks, all empty" if asked else "none of --select" if masks else "no masks"
        say(f"{item.name}: no instance ({what}); the picture is left as it is")
    elif others:
        say(f"{item.name}: left alone: {', '.join(others)}")
    return chosen


if __name__ == "__main__":
    run_main(main)
