# SPDX-License-Identifier: Apache-2.0
"""A generator with random parameters, for tests of exported files, and what NNabla computes with it."""

from __future__ import annotations

from pathlib import Path
from typing import Tuple

import nnabla as nn
import numpy as np

from models import GENERATORS, INFERENCE, NETWORKS, Architecture, create_parameters, generator
from weights import model_file

HEIGHT, WIDTH = 16, 20


def save_random_model(path: Path, arch: Architecture, background: str = "network", ins_per: int = 2) -> Path:
    """Save a model of all four networks whose generators' outputs are far from constant, as training leaves them."""
    nn.clear_parameters()
    create_parameters(arch, np.random.RandomState(5))
    random = np.random.default_rng(6)
    values = {}
    for name, variable in nn.get_parameters(grad_only=False).items():
        kind = name.rsplit("/", 1)[-1]
        if kind == "W":
            values[name] = variable.d * 5
        elif kind == "var":
            values[name] = random.uniform(0.5, 2, variable.shape)
        else:
            # "gamma" is near 1
            values[name] = variable.d + random.normal(0, 0.2, variable.shape)
    nn.clear_parameters()
    more = dict(fineSizeH=HEIGHT, fineSizeW=WIDTH, ins_per=ins_per, set_order="decreasing", background=background)
    model_file.save_model(path, values, model_file.model_config(arch, networks=sorted(NETWORKS), **more))
    return path


def random_input(count: int, height: int = HEIGHT, width: int = WIDTH) -> Tuple[np.ndarray, np.ndarray]:
    """A picture of noise (1, 3, H, W) with `count` masks (N, 1, H, W), of which the second is empty."""
    random = np.random.default_rng([count, height, width])
    picture = random.uniform(-1, 1, (1, 3, height, width)).astype(np.float32)
    masks = -np.ones((count, 1, height, width), np.float32)
    for i in range(count):
        if i != 1:
            masks[i, 0, i : i + 5, 1 : 5 + i] = 1
    return picture, masks


def by_nnabla(
    direction: str, arch: Architecture, picture: np.ndarray, masks: np.ndarray, keep_background: bool
) -> Tuple[np.ndarray, np.ndarray]:
    """The same pass by the generator of models.py, with the parameters that are loaded."""
    values = (picture, masks, np.ones((1, len(masks))))
    with nn.parameter_scope(GENERATORS[direction]):
        inputs = [nn.Variable.from_numpy_array(value) for value in values]
        outputs = generator(*inputs, arch, INFERENCE, keep_background)
    nn.forward_all(outputs)
    y, b = (np.array(variable.d) for variable in outputs)
    return y, b
