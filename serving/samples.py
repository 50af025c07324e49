# SPDX-License-Identifier: Apache-2.0
"""Sample pictures with masks for a first visit: of the data set that a model was trained on, or else drawn shapes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable, List

from common.errors import UserError
from data.items import Item, find_items_with_masks
from serving.networks import ServedModel

PHASES = ("test", "train", "val")
EACH = 3  # pictures of each domain
GENERATOR = Path(__file__).resolve().parents[1] / "datasets" / "generate_shapes_dataset.py"
SHAPES_SIZE = 96  # pixels


@dataclass(frozen=True)
class Sample:
    """A picture with its masks, in the direction in which it can be translated, for one of the models."""

    model: str
    direction: str
    item: Item


def find_samples(models: Iterable[ServedModel], folder: Path) -> List[Sample]:
    """The sample pictures of each model; shapes are drawn into `folder` if a model's data set is not there."""
    samples = []
    for model in models:
        # from here on independent of the working folder, which Flask's is not
        own = samples_of(model, model.dataroot.resolve()) if model.dataroot else []
        samples += own or samples_of(model, drawn_shapes(folder / "shapes"))
    return samples


def samples_of(model: ServedModel, dataroot: Path) -> List[Sample]:
    """The first pictures with masks in a data set, for each direction of a model; held-out ones before others."""
    return [
        Sample(model.name, direction, item)
        for direction in model.directions
        for item in _with_masks(dataroot, direction[0])[:EACH]
    ]


def drawn_shapes(folder: Path) -> Path:
    """A data set of a few drawn shapes, made if it is not there yet."""
    if not folder.exists():
        arguments = f"--train {EACH} --test 0 --size {SHAPES_SIZE} --max-instances 3 --save_root".split()
        made = subprocess.run([sys.executable, GENERATOR, *arguments, folder], capture_output=True, text=True)
        if made.returncode:
            print(f"no sample pictures: {made.stderr.strip()}", file=sys.stderr)
    return folder


def _with_masks(dataroot: Path, domain: str) -> List[Item]:
    for phase in PHASES:
        try:
            items = find_items_with_masks(dataroot, phase, domain)
        except UserError:
            # no such phase, or no data set any more
            continue
        if items:
            return items
    return []
