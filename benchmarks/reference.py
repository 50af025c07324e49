# SPDX-License-Identifier: Apache-2.0
"""The reference cases: what the authors' code computed from one set of random weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List

import numpy as np

import convert_pytorch
from data import instances, pictures
from data.items import find_items
from data.loader import Sample
from models import NETWORKS, Architecture, create_parameters
from weights import model_file
from weights.pth_reader import read_state_dict

REFERENCE = Path(__file__).resolve().parents[1] / "tests" / "fixtures" / "reference"


@dataclass(frozen=True)
class ReferenceCase:
    """What the authors' code computed from one set of random weights; see the README of the reference vectors.

    `settings` is losses.json without its steps, `steps[s][m]` the losses of step s, pass m, `expected` the arrays,
    `parameters` the authors' checkpoint under our names.
    """

    name: str
    folder: Path
    settings: Dict[str, Any]
    steps: list
    expected: Dict[str, np.ndarray]
    parameters: Dict[str, np.ndarray]

    @property
    def architecture(self) -> Architecture:
        """The architecture of its networks."""
        return Architecture(ngf=self.settings["ngf"], ndf=self.settings["ndf"])

    @property
    def size(self) -> tuple:
        """The (height, width) of its pictures."""
        return self.settings["height"], self.settings["width"]

    def load(self) -> None:
        """Create all four networks in the current scope, with the checkpoint's weights."""
        create_parameters(self.architecture, np.random.RandomState(0))
        self.set_parameters()

    def set_parameters(self) -> None:
        """Give networks that exist the checkpoint's weights."""
        model_file.set_parameters(self.parameters, NETWORKS, self.name)

    def mean_losses(self, step: int) -> Dict[str, float]:
        """Each loss of a step: its mean over the passes in which it exists."""
        names = {name for losses in self.steps[step] for name in losses}
        return {name: float(np.mean([p[name] for p in self.steps[step] if name in p])) for name in names}


def read_case(name: str) -> ReferenceCase:
    """Read a case by the name of its folder, "one-pass" or "two-pass"."""
    folder = REFERENCE / name
    settings = json.loads((folder / "losses.json").read_text())
    with np.load(folder / "expected.npz") as arrays:
        expected = dict(arrays)
    parameters: Dict[str, np.ndarray] = {}
    for network, path in convert_pytorch.find_networks(folder / "checkpoint", "latest").items():
        parameters.update(convert_pytorch.convert_network(network, read_state_dict(path), path))
    return ReferenceCase(name, folder, settings, settings.pop("steps"), expected, parameters)


def read_sample(case: ReferenceCase, phase: str, letter: str) -> Sample:
    """A picture of the case with its instances in the order to work on them."""
    item = find_items(case.folder / "data", phase, letter)[0]
    picture = pictures.to_network(pictures.read_picture(item.image))
    masks = pictures.masks_to_network(pictures.read_masks(list(item.masks.values()), case.size))
    order = instances.select(masks, case.settings["ins_max"], "decreasing", np.random.default_rng(0))
    return Sample(item.name, picture, masks[order])


def training_flags(case: ReferenceCase) -> List[str]:
    """The flags of train.py with which the case's losses were made."""
    (height, width), s = case.size, case.settings
    flags = ["--loadSizeH", height, "--loadSizeW", width, "--fineSizeH", height, "--fineSizeW", width, "--no-flip"]
    flags += ["--ngf", s["ngf"], "--ndf", s["ndf"], "--ins-max", s["ins_max"], "--ins-per", s["ins_per"]]
    flags += ["--learning-rate_G", s["lr"], "--learning-rate_D", s["lr"], "--beta1", s["beta1"]]
    for name, weight in zip(("cyc", "idt", "ctx"), s["lambda"]):
        flags += [f"--lambda-{name}", weight]
    return list(map(str, flags))
