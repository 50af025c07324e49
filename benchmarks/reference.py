# SPDX-License-Identifier: Apache-2.0
"""The reference cases: results of the authors' code for given pictures and random weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Tuple

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
    """Results of the authors' code for one set of random weights.

    `settings` is losses.json without its steps, `steps[s][m]` the losses of step s, pass m, `expected` the arrays that
    were computed, `parameters` the authors' checkpoint under our names.
    """

    name: str
    folder: Path
    settings: Dict[str, Any]
    steps: List[List[Dict[str, float]]]
    expected: Dict[str, np.ndarray]
    parameters: Dict[str, np.ndarray]

    @property
    def architecture(self) -> Architecture:
        """The architecture of its networks."""
        return Architecture(ngf=self.settings["ngf"], ndf=self.settings["ndf"])

    @property
    def size(self) -> Tuple[int, int]:
        """The (height, width) of its pictures."""
        return self.settings["height"], self.settings["width"]

    def load(self) -> None:
        """Create all four networks in the current parameter scope, with the checkpoint's weights."""
        create_parameters(self.architecture, np.random.RandomState(0))
        self.set_parameters()

    def set_parameters(self) -> None:
        """Set the weights of existing networks to the checkpoint's."""
        model_file.set_parameters(self.parameters, NETWORKS, self.name)

    def mean_losses(self, step: int) -> Dict[str, float]:
        """The mean of each loss of a step over the passes in which it occurs."""
        values: Dict[str, List[float]] = {}
        for losses in self.steps[step]:
            for name, value in losses.items():
                values.setdefault(name, []).append(value)
        return {name: float(np.mean(of_passes)) for name, of_passes in values.items()}


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
    """The case's picture of a phase and a domain, with its instances in the order to translate them."""
    item = find_items(case.folder / "data", phase, letter)[0]
    picture = pictures.to_network(pictures.read_picture(item.image))
    masks = pictures.masks_to_network(pictures.read_masks(list(item.masks.values()), case.size))
    order = instances.select(masks, case.settings["ins_max"], "decreasing", np.random.default_rng(0))
    return Sample(item.name, picture, masks[order])


def training_flags(case: ReferenceCase) -> List[str]:
    """The flags with which train.py trains as the authors' code did for this case."""
    height, width = case.size
    settings = case.settings
    cycle, identity, context = settings["lambda"]
    values = {
        "--loadSizeH": height,
        "--loadSizeW": width,
        "--fineSizeH": height,
        "--fineSizeW": width,
        "--ngf": settings["ngf"],
        "--ndf": settings["ndf"],
        "--ins-max": settings["ins_max"],
        "--ins-per": settings["ins_per"],
        "--learning-rate_G": settings["lr"],
        "--learning-rate_D": settings["lr"],
        "--beta1": settings["beta1"],
        "--lambda-cyc": cycle,
        "--lambda-idt": identity,
        "--lambda-ctx": context,
    }
    return ["--no-flip", "--background", "network", *(str(word) for pair in values.items() for word in pair)]
