# SPDX-License-Identifier: Apache-2.0
"""Run one generator of a trained model on a picture with any number of instances."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import List, NamedTuple, Tuple

import nnabla as nn
import numpy as np

from backend import arrays
from common.errors import UserError
from models import GENERATORS, INFERENCE, Architecture, create_parameters, generator
from translation.sequence import Batch, MaskInput, MiniBatch, SequentialTranslation
from weights import model_file

USUAL_SHARE = 0.4  # for models without an `instance_share`, such as those of convert_pytorch.py


class Translator:
    """Runs one generator on a picture with any number of instances, `ins_per` at a time.

    `network` is "gen_x2y" or "gen_y2x"; its parameters are those in NNabla's current scope. `ins_per` 0 is for a model
    trained without masks (`--ins-max 0`): it translates the picture alone and returns no masks.

    With `keep_background` a pass changes the picture only where its instances are, before and after; so it does not
    blur what the next pass starts from. Without, the picture is the network's own output, as in the authors' code.
    """

    def __init__(self, network: str, arch: Architecture, ins_per: int, keep_background: bool = False) -> None:
        self.network = network
        self.arch = arch
        self.ins_per = ins_per
        self.keep_background = keep_background and ins_per > 0
        # graphs by number of pictures, of masks, and size; a few suffice, since sizes rarely alternate
        self._graph = lru_cache(4)(self._build_graph)

    def translate(self, picture: np.ndarray, masks: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """Translate the instances of one picture, in the order given.

        `picture` (3, H, W) and `masks` (N, H, W) are in [-1, 1]; the results have the same shapes. Without an instance
        the picture is returned as it is. Sizes that are not multiples of 4 are padded by reflection and cropped back.
        """
        height, width = picture.shape[1:]
        margin = ((0, 0), (0, -height % 4), (0, -width % 4))
        x = np.pad(picture, margin, mode="reflect")
        a = np.pad(masks, margin, mode="reflect")
        batch = Batch([x], [a], self.ins_per)
        sequence = SequentialTranslation(batch)
        y = batch.pictures
        b = None
        while sequence.remaining:
            y_pass, b_pass = self._generate(sequence.mini_batch())
            ((y, b),) = sequence.advance(y_pass, b_pass)
        translated = arrays.read(y)[0]
        translated_masks = arrays.read(b)[:, 0] if self.ins_per and len(masks) else a[:0]
        return translated[:, :height, :width], translated_masks[:, :height, :width]

    def _generate(self, batch: MiniBatch) -> Tuple[nn.NdArray, nn.NdArray]:
        (x, a), outputs = self._graph(len(batch.masks.counts), sum(batch.masks.counts), batch.pictures.shape[2:])
        x.data = batch.pictures
        a.put(batch.masks)
        nn.forward_all(outputs, clear_buffer=True)
        y, b = (arrays.copy(variable.data) for variable in outputs)
        return y, b

    def _build_graph(
        self, pictures: int, masks: int, size: Tuple[int, int]
    ) -> Tuple[Tuple[nn.Variable, MaskInput], List[nn.Variable]]:
        x = nn.Variable((pictures, 3, *size))
        a = MaskInput(pictures, masks, size)
        with nn.parameter_scope(self.network):
            outputs = list(generator(x, a.masks, a.membership, self.arch, INFERENCE, self.keep_background))
        for variable in outputs:
            variable.persistent = True
        return (x, a), outputs


class LoadedModel(NamedTuple):
    """A model's translator in one direction, and how it was trained.

    `size` is the (height, width) to work at, `instance_share` the share of that, in (0, 1], that an instance's height
    or width usually took in training, `set_order` the order of instances in training ("decreasing" or "random").
    """

    translator: Translator
    size: Tuple[int, int]
    instance_share: float
    set_order: str


def load_translator(
    model: str | Path,
    direction: str,
    height: int | None = None,
    width: int | None = None,
    ins_per: int | None = None,
    background: str | None = None,
    which: str = "newest",
) -> LoadedModel:
    """Load a model (a .h5 file, or a run folder, whose "newest" or "best" model is taken), and print which one it is.

    `direction` is "AtoB" or "BtoA"; `background` is "keep" or "network" (see `Translator`). Size, instances in a pass
    and background are those of the training where they are None.

    Raises:
        UserError: where the model cannot be read, has no generator for the direction, or does not say its size.
    """
    path = model_file.find_model(model, which)
    parameters, config = model_file.load_model(path)
    network = GENERATORS[direction]
    if network not in config["networks"]:
        networks = ", ".join(config["networks"])
        raise UserError(f"{path} has no generator for {direction}; it holds {networks}: give the other --direction")
    height = height or config.get("fineSizeH")
    width = width or config.get("fineSizeW")
    if height is None or width is None:
        raise UserError(f"{path} does not say what size it was trained at; give --fineSizeH and --fineSizeW")
    arch = model_file.architecture_of(config)
    create_parameters(arch, np.random.RandomState(0), [network])
    model_file.set_parameters(parameters, [network], path)
    print(f"model: {path}, {direction} at {height}x{width} (height x width)")
    if config["ins_per"]:
        ins_per = ins_per or config["ins_per"]
    else:
        ins_per = 0
        print("it was trained without masks (--ins-max 0): whole pictures are translated")
    share = config.get("instance_share", {}).get(direction[0]) or USUAL_SHARE
    # models of earlier versions, and those of convert_pytorch.py, do not say it
    trained_background = config.get("background", "network")
    if background == "network" and trained_background == "keep":
        print("it was trained with --background keep: what its network paints around the instances means nothing")
    translator = Translator(network, arch, ins_per, (background or trained_background) == "keep")
    return LoadedModel(translator, (height, width), share, config["set_order"])
