# SPDX-License-Identifier: Apache-2.0
"""Translate pictures with a trained model, instance by instance.

python translate.py --model tmp.monitor --dataroot datasets/jeans2skirt_ccp --phase test --direction AtoB
python translate.py --model tmp.monitor --image photo.jpg --masks photo_0.png photo_1.png --direction BtoA
python translate.py --model tmp.monitor --image photos --masks photos_seg --direction AtoB --output results
"""

from __future__ import annotations

import argparse
import errno
import glob
import re
import sys
from functools import lru_cache
from pathlib import Path
from typing import Dict, List, Sequence, Tuple

from errors import UserError, printable, run_main

import nnabla as nn
import numpy as np
from tqdm import tqdm

import atomic
import context
import gallery
import instances
import model_file
import pictures
from args import translate_args
from gallery import Comparison
from models import GENERATORS, INFERENCE, Architecture, create_parameters, generator
from pictures import Item
from sequence import SequentialTranslation

Translated = Tuple[np.ndarray, np.ndarray]


class Translator:
    """Runs one generator over any number of instances, with the graph of `ins_per` instances only.

    `ins_per` 0 is for a model trained without masks (`--ins-max 0`): it translates the picture alone, gives no masks.

    The generator's parameters are those in NNabla's current scope; `network` is "gen_x2y" or "gen_y2x".
    """

    def __init__(self, network: str, arch: Architecture, ins_per: int) -> None:
        self.network, self.arch, self.ins_per = network, arch, ins_per
        # a graph for each number of instances in a pass; more than one size at a time is rare
        self._graph = lru_cache(4)(self._build_graph)

    def translate(self, picture: np.ndarray, masks: np.ndarray) -> Translated:
        """Translate the instances of one picture, in the order given.

        `picture` (3, H, W) and `masks` (N, H, W) are in [-1, 1]; the result has the same shapes. Without an instance
        the picture comes back as it is. Sizes that are not multiples of 4 are padded by reflection and cropped back.
        """
        height, width = picture.shape[1:]
        margin = ((0, 0), (0, -height % 4), (0, -width % 4))
        padded = np.pad(picture, margin, mode="reflect"), np.pad(masks, margin, mode="reflect")
        progress = SequentialTranslation([padded[0]], [padded[1]], self.ins_per)
        while progress.remaining:
            batch = progress.mini_batch()
            y, b = self._generate(batch.pictures, batch.masks, batch.membership)
            progress.advance(y, b, batch.membership)
        return progress.pictures[0][:, :height, :width], progress.translated[0][:, :height, :width]

    def _generate(self, x: np.ndarray, a: np.ndarray, membership: np.ndarray) -> Translated:
        inputs, (y, b) = self._graph(x.shape, a.shape)
        for variable, value in zip(inputs, (x, a, membership)):
            variable.d = value
        nn.forward_all([y, b], clear_buffer=True)
        return y.d.copy(), b.d.copy()

    def _build_graph(self, x: Tuple[int, ...], a: Tuple[int, ...]) -> Tuple[List[nn.Variable], List[nn.Variable]]:
        inputs = [nn.Variable(x), nn.Variable(a), nn.Variable((x[0], a[0]))]
        with nn.parameter_scope(self.network):
            outputs = list(generator(*inputs, self.arch, INFERENCE))
        for variable in outputs:
            variable.persistent = True
        return inputs, outputs


class Results:
    """The output folder: pictures, masks, and a page over everything that was ever translated into it."""

    def __init__(self, folder: str | Path, overwrite: bool) -> None:
        self.folder = Path(folder)
        self.overwrite = overwrite
        self._record = self.folder / "translations.json"
        # by name
        self.done = gallery.read_comparisons(self._record) if self._record.is_file() else {}

    def check(self, items: Sequence[Item]) -> None:
        """Raise UserError where anything would be overwritten without having been asked, or an input in any case."""
        ours = ("inputs", "images", "masks", "page")
        folders = {(self.folder / name).resolve() for name in ours}
        for path in (path for item in items for path in item.files):
            if path.resolve().parent in folders:
                raise UserError(f"{path} is where a result would be written; give another --output")
        atomic.refuse_foreign(self.folder, [*ours, "index.html"], self._record.name, self.overwrite)
        taken = [item.name for item in items if (self.folder / "images" / f"{item.name}.png").exists()]
        if taken and not self.overwrite:
            raise UserError(f"{self.folder} already holds images/{taken[0]}.png; give another --output, or --overwrite")

    def add(self, item: Item, before: Translated, after: Translated, numbers: Sequence[int], title: str) -> None:
        """Write one translated picture, and its masks under the numbers of the input's masks."""
        for old in (self.folder / "masks").glob(f"{glob.escape(item.name)}_*.png"):
            if old.stem.rpartition("_")[0] == item.name:
                old.unlink()
        write, name = pictures.write_png, f"{item.name}.png"
        write(self.folder / "images" / name, pictures.to_picture(after[0]))
        for number, mask in zip(numbers, after[1]):
            write(self.folder / "masks" / f"{item.name}_{number}.png", pictures.to_picture(mask))
        write(self.folder / "inputs" / name, pictures.to_picture(before[0]))
        # a model that was trained without masks has not looked at the input's
        seen = before[1] if numbers else before[1][:0]
        outlines = [self._outline(f"page/before_{name}", seen), self._outline(f"page/after_{name}", after[1])]
        files = [(f"mask {number}", f"masks/{item.name}_{number}.png") for number in sorted(numbers)]
        self.done[item.name] = Comparison(item.name, title, f"inputs/{name}", f"images/{name}", *outlines, files)

    def _outline(self, path: str, masks: np.ndarray) -> str:
        """Write the outlines of masks to a path in the folder; gives it, or an empty string where there is no mask."""
        if not len(masks):
            (self.folder / path).unlink(missing_ok=True)
            return ""
        pictures.write_png(self.folder / path, pictures.outline_masks(masks))
        return path

    def write_page(self) -> None:
        """Write index.html over all that was translated so far."""
        gallery.write_comparisons(self._record, self.done)
        shown = [one for _, one in sorted(self.done.items())]
        section = gallery.Section(f"{len(shown)} pictures", "", comparisons=shown)
        gallery.write_page(self.folder / "index.html", "InstaGAN: translated pictures", [section])


def main() -> int:
    """Run the command line; the exit code is 1 where a picture could not be translated."""
    args = translate_args(__doc__)
    items = find_items(args)
    results = Results(args.output, args.overwrite)
    results.check(items)
    context.set_up(args)
    translator, size = load_translator(args)
    if args.image and Path(args.image).is_file() and not args.masks and translator.ins_per:
        raise UserError("--image needs its instance masks: --masks photo_0.png photo_1.png ...")
    atomic.make_folder(results.folder, "--output")
    with atomic.locked(results.folder, f"another translation goes to {results.folder}; give another --output, or wait"):
        failures = translate_items(items, translator, size, args, results)
    print(f"{len(items) - len(failures)} of {len(items)} pictures translated; open {results.folder / 'index.html'}")
    for failure in failures:
        print(printable(f"not translated: {failure}"), file=sys.stderr)
    return 1 if failures else 0


def translate_items(
    items: Sequence[Item], translator: Translator, size: Tuple[int, int], args: argparse.Namespace, results: Results
) -> List[str]:
    """Translate pictures into `results`, with its page, also over those that were done when Ctrl-C came. Returns why
    others were not translated."""
    rng, failures = np.random.default_rng(args.seed), []
    try:
        for item in tqdm(items, desc=f"translating {args.direction}", unit="picture", disable=len(items) == 1):
            try:
                translate_item(item, translator, size, args, rng, results)
            except UserError as error:
                failures.append(str(error))
            except OSError as error:
                # our names are a little longer than the input's; anything else would meet the next picture too
                if error.errno != errno.ENAMETOOLONG:
                    raise
                failures.append(f"{item.image}: its name is too long; shorten it")
    finally:
        results.write_page()
    return failures


def find_items(args: argparse.Namespace) -> List[Item]:
    """The pictures that the command line asks for: one with its masks, a folder of them, or a data set's domain."""
    if args.image is None:
        return pictures.find_items(args.dataroot, args.phase, args.direction[0])
    image = Path(args.image)
    if image.is_dir():
        folder = Path(args.masks[0]) if args.masks else image.with_name(image.name + "_seg")
        if len(args.masks) > 1 or not folder.is_dir():
            raise UserError(f"no folder of masks {folder}; with a folder as --image, --masks is that of its masks")
        return pictures.find_pictures(image, folder)
    if not image.is_file():
        raise UserError(f"no file or folder {image} (--image)")
    for mask in args.masks:
        if not Path(mask).is_file():
            raise UserError(f"no file {mask} (--masks)")
    if not pictures.is_text(image.name):
        raise UserError(f"{image}: its name is not valid UTF-8; rename it")
    return [Item(image.stem, image, _numbered(image.stem, list(map(Path, args.masks))))]


def _numbered(name: str, masks: List[Path]) -> Dict[int, Path]:
    """Masks by the number in NAME_{i}.png, or in the order given where they are called something else."""
    found = [re.fullmatch(re.escape(name) + r"_(\d+)", mask.stem) for mask in masks]
    numbers = [int(match[1]) for match in found if match]
    return dict(zip(numbers if len(set(numbers)) == len(masks) else range(len(masks)), masks))


def load_translator(args: argparse.Namespace) -> Tuple[Translator, Tuple[int, int]]:
    """Load the model; the translator of the direction asked for, and the (height, width) to work at."""
    path = model_file.find_model(args.model)
    parameters, config = model_file.load_model(path)
    network = GENERATORS[args.direction]
    if network not in config["networks"]:
        held = ", ".join(config["networks"])
        raise UserError(f"{path} has no generator for {args.direction}; it holds {held}: give the other --direction")
    size = (args.fineSizeH or config.get("fineSizeH"), args.fineSizeW or config.get("fineSizeW"))
    if None in size:
        raise UserError(f"{path} does not say what size it was trained at; give --fineSizeH and --fineSizeW")
    arch = model_file.architecture_of(config)
    create_parameters(arch, np.random.RandomState(0), [network])
    model_file.set_parameters(parameters, [network], path)
    args.set_order = args.set_order or config["set_order"]
    print(f"model: {path}, {args.direction} at {size[0]}x{size[1]} (height x width)")
    if not config["ins_per"]:
        print("it was trained without masks (--ins-max 0): whole pictures are translated")
    return Translator(network, arch, config["ins_per"] and (args.ins_per or config["ins_per"])), size


def say(text: str) -> None:
    """Print a line above the progress bar."""
    tqdm.write(printable(text))


def read_instances(
    item: Item, translator: Translator, size: Tuple[int, int], args: argparse.Namespace, rng: np.random.Generator
) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A picture (3, H, W), all its masks (N, H, W), both in [-1, 1], and the indices of those to translate in order."""
    picture, masks = pictures.read_item(item, size)
    picture, masks = pictures.to_network(picture), pictures.masks_to_network(masks)
    ins_max = args.ins_max if translator.ins_per else 0
    return picture, masks, instances.select(masks, ins_max, args.set_order, rng)


def translate_item(
    item: Item,
    translator: Translator,
    size: Tuple[int, int],
    args: argparse.Namespace,
    rng: np.random.Generator,
    results: Results,
) -> None:
    """Translate one picture's instances and put the result into `results`; says what was left alone and why."""
    picture, masks, chosen = read_instances(item, translator, size, args, rng)
    numbers = [list(item.masks)[i] for i in chosen]
    if translator.ins_per and not numbers:
        say(f"{item.name}: no instance ({len(masks)} masks, all empty); the picture is left as it is")
    elif translator.ins_per and len(numbers) < len(masks):
        others = [
            f"{item.name}_{n} ({'empty' if empty else 'beyond --ins-max'})"
            for n, empty in zip(item.masks, instances.areas(masks) == 0)
            if n not in numbers
        ]
        say(f"{item.name}: left alone: {', '.join(others)}")
    after = translator.translate(picture, masks[chosen])
    # translated ones first, so that an instance has one colour on the page
    others = [i for i in range(len(masks)) if i not in chosen]
    results.add(
        item,
        (picture, masks[[*chosen, *others]]),
        after,
        numbers,
        f"{item.name} ({args.direction}, {len(numbers)} instance{'s' * (len(numbers) != 1)})",
    )


if __name__ == "__main__":
    run_main(main)
