# SPDX-License-Identifier: Apache-2.0
"""One generator of a trained model, with all that a program without this project must know to use it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Tuple

import nnabla as nn
import numpy as np

from common.errors import UserError
from models import Architecture
from translation.translator import LoadedModel

MULTIPLE_OF = 4  # heights and widths are; G halves them twice
SMALLEST_SIDE = 8  # a quarter of it must have two pixels to be padded by reflection


@dataclass(frozen=True)
class TrainedGenerator:
    """The generator of one direction, "AtoB" or "BtoA", and how it is to be used.

    `parameters` are float32 arrays by their names within the network, such as "encoder_image/conv1/W", and also
    NNabla's parameters of the scope `network`. `size` is the (height, width) of the training, `ins_per` the instances
    in one pass (0: the model translates whole pictures, without masks), `set_order` the order of instances in training.
    """

    network: str
    direction: str
    arch: Architecture
    parameters: Dict[str, np.ndarray]
    size: Tuple[int, int]
    ins_per: int
    set_order: str
    keep_background: bool

    @property
    def masks(self) -> int:
        """The masks of one pass; a model that was trained without masks takes one, an empty one."""
        return max(self.ins_per, 1)

    def metadata(self) -> Dict[str, str]:
        """What a program must know to use the exported file, as words."""
        height, width = self.size
        return {
            "direction": self.direction,
            "height": str(height),
            "width": str(width),
            "multiple_of": str(MULTIPLE_OF),
            "ins_per": str(self.ins_per),
            "set_order": self.set_order,
            "background": "keep" if self.keep_background else "network",
            "licence_of_code": "Apache-2.0",
        }


def trained_generator(loaded: LoadedModel, direction: str) -> TrainedGenerator:
    """The generator of a model that was loaded for `direction`.

    Raises:
        UserError: where its size is too small or not a multiple of 4.
    """
    for side, pixels in zip("HW", loaded.size):
        if pixels % MULTIPLE_OF or pixels < SMALLEST_SIDE:
            near = max(SMALLEST_SIDE, round(pixels / MULTIPLE_OF) * MULTIPLE_OF)
            raise UserError(
                f"--fineSize{side} {pixels} must be a multiple of {MULTIPLE_OF} and at least {SMALLEST_SIDE}; "
                f"give the nearest, --fineSize{side} {near}"
            )
    translator = loaded.translator
    with nn.parameter_scope(translator.network):
        variables = nn.get_parameters(grad_only=False)
    parameters = {name: np.array(variable.d, np.float32) for name, variable in variables.items()}
    return TrainedGenerator(
        translator.network,
        direction,
        translator.arch,
        parameters,
        loaded.size,
        translator.ins_per,
        loaded.set_order,
        translator.keep_background,
    )
