# SPDX-License-Identifier: Apache-2.0
"""The models and the segmenter, in the one thread that uses NNabla.

NNabla's scopes and arrays are not made for several threads, and OpenMP keeps threads of its own for each that calls
it. So one thread loads all networks and runs all passes, whoever asks. What waits for it takes turns after each pass.
"""

from __future__ import annotations

import argparse
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Callable, Dict, List, Sequence, Tuple, TypeVar

import nnabla as nn
import numpy as np

from backend import context
from common.errors import UserError
from common.json_file import read_json
from masks import segmenter
from masks.segmenter import Segmenter
from models import GENERATORS
from translation.keep_size import Translate
from translation.placed_mask import PlacedMask
from translation.translator import LoadedModel, load_translator
from weights import model_file

Result = TypeVar("Result")


@dataclass(frozen=True)
class ServedModel:
    """A model, by direction, with the names of its domains ("A" and "B" if nothing better is known).

    `scope` is that of its parameters, `dataroot` the data set that it was trained on, None if that is not known.
    """

    name: str
    scope: str
    directions: Dict[str, LoadedModel]
    domains: Dict[str, str]
    dataroot: Path | None

    @property
    def needs_masks(self) -> bool:
        """False if it was trained without masks: then it translates whole pictures."""
        return any(loaded.translator.ins_per > 0 for loaded in self.directions.values())


class Networks:
    """All models by name, and whether there is a segmenter; `args` are those of app.py.

    Raises:
        UserError: where a model or the segmenter cannot be loaded.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self._thread = ThreadPoolExecutor(1, "networks")
        self._call(context.set_up, args)
        self.models: Dict[str, ServedModel] = {}
        for number, (name, path) in enumerate(zip(names_of(args.model), args.model)):
            self.models[name] = self._call(_load, name, f"model{number}", Path(path))
        self._segmenter: Segmenter | None = self._call(segmenter.load, args.segmenter) if args.segmenter else None

    @property
    def has_segmenter(self) -> bool:
        """Return whether `segment` may be called."""
        return self._segmenter is not None

    def translate(self, model: str, direction: str) -> Translate:
        """The function that runs a pass of a model, for any thread."""
        served = self.models[model]

        def translate_in_scope(picture: np.ndarray, masks: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
            with nn.parameter_scope(served.scope):
                return served.directions[direction].translator.translate(picture, masks)

        return lambda picture, masks: self._call(translate_in_scope, picture, masks)

    def segment(self, read: Callable[[], np.ndarray], domain: str, most: int) -> List[PlacedMask]:
        """The instances of `domain` that the segmenter finds in a picture (H, W, 3) uint8, the `most` largest of them.

        `read` gives the picture once it is needed, so that those who wait hold none. What it raises is raised here.
        """

        def segment_in_thread() -> List[PlacedMask]:
            # cut out one at a time: those of large pictures are large
            return [PlacedMask.of(mask) for mask in islice(self._segmenter.instances(read(), domain), most)]

        return self._call(segment_in_thread)

    def _call(self, function: Callable[..., Result], *arguments: object) -> Result:
        return self._thread.submit(function, *arguments).result()


def names_of(paths: Sequence[str]) -> List[str]:
    """A name for each model: the run folder's or the file's; their whole paths where two would have the same.

    Raises:
        UserError: if a model is given twice.
    """
    short = [Path(path).resolve().stem if path.endswith(".h5") else Path(path).resolve().name for path in paths]
    names = [path if short.count(name) > 1 else name for name, path in zip(short, paths)]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"--model {name} is given twice; leave one out")
    return names


def domain_names(dataroot: str) -> Dict[str, str]:
    """The names of domains A and B, from a data set folder such as "datasets/circle2square"; "A" and "B" elsewhere."""
    match = re.match(r"([a-zA-Z]+)2([a-zA-Z]+)", Path(dataroot).name)
    return {"A": match[1], "B": match[2]} if match else {"A": "A", "B": "B"}


def _load(name: str, scope: str, path: Path) -> ServedModel:
    """Load the generators that a model has."""
    file = model_file.find_model(path)
    networks = model_file.load_model(file)[1]["networks"]
    directions = [direction for direction, network in GENERATORS.items() if network in networks]
    if not directions:
        raise UserError(f"{file} has no generator; give a model that train.py or convert_pytorch.py wrote")
    with nn.parameter_scope(scope):
        loaded = {direction: load_translator(file, direction) for direction in directions}
    dataroot = _trained_on(file)
    return ServedModel(name, scope, loaded, domain_names(dataroot), Path(dataroot) if dataroot else None)


def _trained_on(file: Path) -> str:
    """The data set of the run that a model's file lies in; an empty string if there is no record of it."""
    try:
        dataroot = read_json(file.with_name("args.json"))["dataroot"]
        return dataroot if isinstance(dataroot, str) else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""
