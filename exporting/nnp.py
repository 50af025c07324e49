# SPDX-License-Identifier: Apache-2.0
"""The generator as an NNP file, NNabla's own format, for `nnabla_cli` and NNabla's C++ library.

An NNP file has the form of those of nnabla-examples: a network "Validation" and an executor "Runtime". Its size and the
number of its masks are fixed; a mask that is -1 everywhere is an unused one, and comes back as it went in.

    picture             (1, 3, H, W)  in [-1, 1]
    masks               (1, N, H, W)  +1 inside the instance and -1 outside
    translated_picture  (1, 3, H, W)  in [-1, 1]
    translated_masks    (1, N, H, W)  in [-1, 1]
"""

from __future__ import annotations

from pathlib import Path
from typing import List, Sequence

import nnabla as nn
import nnabla.functions as F
from nnabla.utils.save import save

from backend import kernels
from exporting.trained_generator import TrainedGenerator
from models import INFERENCE, generator

CONSTANT = "constant"  # name of the constants of the graph, among the parameters


def write_nnp(path: Path, trained: TrainedGenerator) -> None:
    """Write the NNP file of a generator for `trained.masks` masks at `trained.size`.

    Its parameters are NNabla's parameters of the scope `trained.network`; all others must have been cleared, since the
    file holds all that there are. The constants of the graph become parameters too.
    """
    # oneDNN's layers are functions of this project, which a file cannot hold
    kernels.configure("nnabla")
    picture = nn.Variable((1, 3, *trained.size))
    masks = nn.Variable((1, trained.masks, *trained.size))
    membership = F.constant(1, (1, trained.masks))
    set_of_masks = F.reshape(masks, (trained.masks, 1, *trained.size))
    with nn.parameter_scope(trained.network):
        y, b = generator(picture, set_of_masks, membership, trained.arch, INFERENCE, trained.keep_background)
    translated_masks = F.reshape(b, masks.shape)
    _keep_constants([y, translated_masks], [picture, masks])
    inputs = {"picture": picture, "masks": masks}
    outputs = {"translated_picture": y, "translated_masks": translated_masks}
    network = {"name": "Validation", "batch_size": 1, "outputs": outputs, "names": inputs}
    executor = {"name": "Runtime", "network": "Validation", "data": list(inputs), "output": list(outputs)}
    # sizes are in the graph, so that the number of pictures cannot change
    save(str(path), {"networks": [network], "executors": [executor]}, variable_batch_size=False)


def _keep_constants(outputs: Sequence[nn.Variable], inputs: Sequence[nn.Variable]) -> None:
    """Make parameters of the arrays in the graph, since a file holds no other values."""
    arrays: List[nn.Variable] = []
    known = [*inputs, *nn.get_parameters(grad_only=False).values()]

    def visit(function: nn.function.Function) -> None:
        for variable in function.inputs:
            if variable.parent is None and not any(variable.data == other.data for other in known):
                known.append(variable)
                arrays.append(variable)

    F.sink(*outputs).visit(visit)
    for i, variable in enumerate(arrays):
        nn.parameter.set_parameter(f"{CONSTANT}{i}", variable)
