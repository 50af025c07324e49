# SPDX-License-Identifier: Apache-2.0
"""A small U-Net that finds the instances of both domains in pictures that have no masks.

`load` reads what `segment.py train` wrote; `Segmenter.instances` gives the masks of one picture.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence, Tuple

import nnabla as nn
import nnabla.functions as F
import numpy as np
from nnabla.initializer import ConstantInitializer, NormalInitializer
from PIL import Image
from scipy import ndimage

from backend import precision
from backend.layers import Tensor, convolution, plain
from common.errors import UserError
from common.json_file import read_json
from data import pictures
from weights import model_file

NETWORK = "segmenter"  # the scope of its parameters
DOMAINS = "AB"
CHANNELS = (16, 32, 48, 64, 96, 96)  # of each resolution; each has half the sides of the one before
LARGEST_SIDE = 1024
SPECK = 0.02  # parts of less than this share of the largest one are no instances

Size = Tuple[int, int]


class Settings(NamedTuple):
    """What it takes to use a network, beside its parameters.

    `size` is the (height, width) that pictures are resized to; `single` says for domain A and B whether a picture has
    one instance at most, so that all its parts are one.
    """

    size: Size
    single: Tuple[bool, bool]


class Segmenter:
    """Finds the instances of domain "A" and of domain "B"; its parameters are those in NNabla's current scope.

    They are created where they do not exist, with weights from `seed`.
    """

    def __init__(self, settings: Settings, channels: Sequence[int] = CHANNELS, seed: int = 0) -> None:
        self.settings, self._channels = settings, tuple(channels)
        _create(self._channels, np.random.RandomState(seed))
        # a picture and its mirror image
        self._x, logits = self.graph(2)
        self._probability = F.sigmoid(logits)
        self._probability.persistent = True

    def graph(self, batch: int) -> Tuple[nn.Variable, nn.Variable]:
        """A new input (batch, 3, H, W) in [-1, 1], and how sure the network is of A and B: logits (batch, 2, H, W)."""
        x = nn.Variable((batch, 3, *self.settings.size))
        return x, _network(x, self._channels)

    def probability(self, picture: np.ndarray) -> np.ndarray:
        """How likely each pixel of a picture (H, W, 3) uint8 is of A and of B: (2, height, width) of the network."""
        x = pictures.to_network(np.asarray(pictures.resized(Image.fromarray(picture), self.settings.size)))
        self._x.d = np.stack([x, x[..., ::-1]])
        self._probability.forward(clear_buffer=True)
        straight, mirrored = self._probability.d
        return (straight + mirrored[..., ::-1]) / 2

    def instances(self, picture: np.ndarray, domain: str) -> Iterator[np.ndarray]:
        """The masks (H, W) bool of a picture's (H, W, 3) uint8 instances of `domain` ("A" or "B"), the largest first.

        None of them is empty, and no two share a pixel. They are made one at a time, since those of large pictures are
        large.
        """
        index = DOMAINS.index(domain)
        likely = self.probability(picture)[index]
        labels, count = label_instances(likely > 0.5, self.settings.single[index])
        for label in range(1, count + 1):
            # what is of other instances or specks is not to reach into this one
            own = np.where((labels == label) | (likely <= 0.5), likely, 0)
            mask = _enlarged(own, labels == label, picture.shape[:2])
            if mask.any():
                yield mask

    def save(self, path: str | Path, measured: Dict[str, Any]) -> None:
        """Write the model to `path` (.h5), and its settings with what was `measured` to the .json beside it."""
        with nn.parameter_scope(NETWORK):
            values = {f"{NETWORK}/{name}": variable.d for name, variable in nn.get_parameters().items()}
        config = {"kind": NETWORK, **self.settings._asdict(), **measured}
        model_file.save_model(path, values, config)


def load(path: str | Path) -> Segmenter:
    """Read a model that `segment.py train` wrote.

    Raises:
        UserError: where one of its two files is missing, damaged or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no segmenter {path}; train one: python segment.py train --output {path}")
    values = model_file.read_parameters(path)
    channels = _shown_channels(values)
    if not channels:
        raise UserError(f"{path} is no segmenter; give a file that segment.py wrote")
    settings = _read_settings(path.with_suffix(".json"), 2 ** (len(channels) - 1))
    segmenter = Segmenter(settings, channels)
    model_file.set_parameters(values, [NETWORK], path)
    return segmenter


def label_instances(inside: np.ndarray, single: bool) -> Tuple[np.ndarray, int]:
    """Number the instances in (H, W) bool from 1, the largest, up: labels (H, W), 0 outside, and how many there are.

    Instances are what hangs together (corners do not), or where `single` all of it; specks are left out.
    """
    labels, count = ndimage.label(inside)
    areas = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    kept = [i for i in np.argsort(-areas, kind="stable") if areas[i] >= SPECK * areas.max()]
    new = np.zeros(count + 1, int)
    new[np.array(kept, int) + 1] = 1 if single else np.arange(1, len(kept) + 1)
    return new[labels], int(new.max())


def _enlarged(likely: np.ndarray, inside: np.ndarray, size: Size) -> np.ndarray:
    """Where `likely` (h, w), enlarged to `size`, is above one half, around `inside` (h, w) only: (H, W) bool."""
    mask = np.zeros(size, bool)
    (window,) = ndimage.find_objects(inside.astype(np.uint8))
    ratios = [full / own for full, own in zip(size, inside.shape)]
    # half a pixel more on each side: up to there the enlarged values can be above one half
    spans = [
        (max(0, int((s.start - 0.5) * ratio)), min(full, int(np.ceil((s.stop + 0.5) * ratio))))
        for s, ratio, full in zip(window, ratios, size)
    ]
    (top, bottom), (left, right) = spans
    box = (left / ratios[1], top / ratios[0], right / ratios[1], bottom / ratios[0])
    part = Image.fromarray(likely.astype(np.float32)).resize((right - left, bottom - top), Image.BILINEAR, box)
    mask[top:bottom, left:right] = np.asarray(part) > 0.5
    return mask


def _network(x: nn.Variable, channels: Sequence[int]) -> nn.Variable:
    """Down to the coarsest resolution and up again, with the finer features added on the way: logits (N, 2, H, W).

    Pictures of a kind are often arranged alike, so the network is told where in the picture it is, too.
    """

    def layer(name: str, x: Tensor, **how: Any) -> Tensor:
        with nn.parameter_scope(f"{NETWORK}/{name}"):
            w, b = (nn.parameter.get_parameter(p) for p in "Wb")
        with precision.in_float():
            return convolution(x, w, b, pad=1, **how)

    where = nn.Variable.from_numpy_array(_position(x.shape))
    where.persistent = True
    usual = {"normalize": True, "activation": "relu"}
    # normalization would take a picture's colour and brightness away
    features = [layer("first", F.concatenate(x, where, axis=1), activation="relu")]
    for i in range(1, len(channels)):
        down = layer(f"down{i}", features[-1], stride=2, **usual)
        features.append(layer(f"conv{i}", down, **usual))
    h = features.pop()
    for i in reversed(range(1, len(channels))):
        up = layer(f"up{i}", h, stride=2, transposed=True, normalize=True, skip=features.pop())
        h = layer(f"merge{i}", up, **usual)
    return plain(layer("last", h))


def _position(shape: Sequence[int]) -> np.ndarray:
    """Row and column of each pixel of pictures (N, 3, H, W), from -1 to 1: (N, 2, H, W)."""
    batch, _, height, width = shape
    lines = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    return np.broadcast_to(lines, (batch, 2, height, width)).astype(np.float32)


def _layers(channels: Sequence[int]) -> Dict[str, Tuple[int, int]]:
    """The layers, with the channels that each gives and takes."""
    layers = {"first": (channels[0], 5), "last": (len(DOMAINS), channels[0])}
    for i, (fine, coarse) in enumerate(zip(channels, channels[1:]), 1):
        layers.update({f"down{i}": (coarse, fine), f"conv{i}": (coarse, coarse)})
        layers.update({f"up{i}": (fine, coarse), f"merge{i}": (fine, fine)})
    return layers


def _shapes(name: str, outputs: int, inputs: int) -> Dict[str, Tuple[int, ...]]:
    """The shapes of a layer's parameters; a transposed convolution's weights have its inputs first."""
    sides = (inputs, outputs) if name.startswith("up") else (outputs, inputs)
    return {"W": (*sides, 3, 3), "b": (outputs,)}


def _create(channels: Sequence[int], rng: np.random.RandomState) -> None:
    for name, (outputs, inputs) in _layers(channels).items():
        initial = {"W": NormalInitializer((2 / (inputs * 9)) ** 0.5, rng), "b": ConstantInitializer(0)}
        with nn.parameter_scope(f"{NETWORK}/{name}"):
            for parameter, shape in _shapes(name, outputs, inputs).items():
                nn.parameter.get_parameter_or_create(parameter, shape, initial[parameter])


def _shown_channels(values: Dict[str, np.ndarray]) -> List[int]:
    """The channels of the network whose parameters these are; empty where they are those of no segmenter.

    All are looked at, so that creating such a network takes memory in proportion to them.
    """
    names = [f"{NETWORK}/first/b", *(f"{NETWORK}/down{i}/b" for i in range(1, 10))]
    channels = [values[name].size for name in names if name in values]
    if len(channels) < 2 or 0 in channels:
        return []
    expected = {
        f"{NETWORK}/{name}/{parameter}": shape
        for name, sides in _layers(channels).items()
        for parameter, shape in _shapes(name, *sides).items()
    }
    return channels if {name: value.shape for name, value in values.items()} == expected else []


def _read_settings(path: Path, multiple: int) -> Settings:
    try:
        config = read_json(path)
        size, single = config["size"], config["single"]
        if config["kind"] != NETWORK or len(size) != 2 or len(single) != 2:
            raise ValueError("it is that of another model")
        if not all(type(side) is int and side % multiple == 0 and 0 < side <= LARGEST_SIDE for side in size):
            raise ValueError(f"its size is {size!r:.40}, which no such network has")
        if not all(type(value) is bool for value in single):
            raise ValueError("its 'single' is not two truth values")
        return Settings(tuple(size), tuple(single))
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{path}, which belongs to a segmenter, cannot be used: {what}") from None
