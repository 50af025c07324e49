# SPDX-License-Identifier: Apache-2.0
"""One generator of a trained model, over any number of instances."""

from __future__ import annotations

import argparse
from functools import lru_cache
from typing import List, NamedTuple, Tuple

import nnabla as nn
import numpy as np

from backend import arrays
from common.errors import UserError
from models import GENERATORS, INFERENCE, Architecture, create_parameters, generator
from translation.sequence import Batch, MaskInput, MiniBatch, SequentialTranslation
from weights import model_file

USUAL_SHARE = 0.4  # where a model does not say it, as those of convert_pytorch.py


class Translator:
    """Runs one generator over any number of instances, with the graph of `ins_per` instances only.

    `ins_per` 0 is for a model trained without masks (`--ins-max 0`): it translates the picture alone, gives no masks.

    The generator's parameters are those in NNabla's current scope; `network` is "gen_x2y" or "gen_y2x".
    """

    def __init__(self, network: str, arch: Architecture, ins_per: int) -> None:
        self.network, self.arch, self.ins_per = network, arch, ins_per
        # a graph for each number of instances in a pass; more than one size at a time is rare
        self._graph = lru_cache(4)(self._build_graph)

    def translate(self, picture: np.ndarray, masks: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """Translate the instances of one picture, in the order given.

        `picture` (3, H, W) and `masks` (N, H, W) are in [-1, 1]; the result has the same shapes. Without an instance
        the picture comes back as it is. Sizes that are not multiples of 4 are padded by reflection and cropped back.
        """
        height, width = picture.shape[1:]
        margin = ((0, 0), (0, -height % 4), (0, -width % 4))
        padded = np.pad(picture, margin, mode="reflect"), np.pad(masks, margin, mode="reflect")
        batch = Batch([padded[0]], [padded[1]], self.ins_per)
        progress, result = SequentialTranslation(batch), (batch.pictures, None)
        while progress.remaining:
            ((*result,),) = progress.advance(*self._generate(progress.mini_batch()))
        y = arrays.read(result[0])[0]
        b = arrays.read(result[1])[:, 0] if self.ins_per and len(masks) else padded[1][:0]
        return y[:, :height, :width], b[:, :height, :width]

    def _generate(self, batch: MiniBatch) -> Tuple[nn.NdArray, nn.NdArray]:
        (x, a), outputs = self._graph(len(batch.masks.counts), sum(batch.masks.counts), batch.pictures.shape[2:])
        x.data = batch.pictures
        a.put(batch.masks)
        nn.forward_all(outputs, clear_buffer=True)
        return tuple(arrays.copy(v.data) for v in outputs)

    def _build_graph(
        self, pictures: int, masks: int, size: Tuple[int, int]
    ) -> Tuple[Tuple[nn.Variable, MaskInput], List[nn.Variable]]:
        x, a = nn.Variable((pictures, 3, *size)), MaskInput(pictures, masks, size)
        with nn.parameter_scope(self.network):
            outputs = list(generator(x, a.masks, a.membership, self.arch, INFERENCE))
        for variable in outputs:
            variable.persistent = True
        return (x, a), outputs


class Loaded(NamedTuple):
    """The translator of one direction, the (height, width) it works at, and the share of that, in (0, 1], that an
    instance's height or width usually took in training."""

    translator: Translator
    size: Tuple[int, int]
    instance_share: float


def load_translator(args: argparse.Namespace) -> Loaded:
    """Load the model; what translates in the direction asked for."""
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
    ins_per = config["ins_per"] and (args.ins_per or config["ins_per"])
    share = config.get("instance_share", {}).get(args.direction[0]) or USUAL_SHARE
    return Loaded(Translator(network, arch, ins_per), size, share)
