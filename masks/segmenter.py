# SPDX-License-Identifier: Apache-2.0
"""A small U-Net that finds the instances of both domains in pictures that have no masks.

`load` reads a model of `segment.py train`; `Segmenter.instances` returns the masks of one picture.
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
from data.instances import bounding_box
from data.pictures import Size
from weights import model_file

NETWORK = "segmenter"  # the scope of its parameters
DOMAINS = "AB"
CHANNELS = (16, 32, 48, 64, 96, 96)  # of each resolution; each has half the sides of the one before
LARGEST_SIDE = 1024
SPECK = 0.02  # parts of less than this share of the largest one are not instances


class SegmenterSettings(NamedTuple):
    """The settings of a network that are saved with its parameters.

    `size` is the (height, width) to which pictures are resized; `single` states for domains A and B whether a picture
    has at most one instance, so that all parts belong to it.
    """

    size: Size
    single: Tuple[bool, bool]


class Segmenter:
    """Finds the instances of domain "A" and of domain "B".

    Its parameters are those in NNabla's current scope; missing ones are created, with weights from `seed`.
    """

    def __init__(self, settings: SegmenterSettings, channels: Sequence[int] = CHANNELS, seed: int = 0) -> None:
        self.settings = settings
        self._channels = tuple(channels)
        _create_parameters(self._channels, np.random.RandomState(seed))
        # a batch of two: a picture and its mirror image
        self._x, logits = self.graph(2)
        self._probability = F.sigmoid(logits)
        self._probability.persistent = True

    def graph(self, batch: int) -> Tuple[nn.Variable, nn.Variable]:
        """A new input (batch, 3, H, W) in [-1, 1], and the network's logits of A and B for it: (batch, 2, H, W)."""
        x = nn.Variable((batch, 3, *self.settings.size))
        return x, _network(x, self._channels)

    def probability(self, picture: np.ndarray) -> np.ndarray:
        """The probabilities (2, h, w) of A and B in a picture (H, W, 3) uint8, where (h, w) is the network's size."""
        x = pictures.to_network(np.asarray(pictures.resized(Image.fromarray(picture), self.settings.size)))
        self._x.d = np.stack([x, x[..., ::-1]])
        self._probability.forward(clear_buffer=True)
        straight, mirrored = self._probability.d
        return (straight + mirrored[..., ::-1]) / 2

    def instances(self, picture: np.ndarray, domain: str) -> Iterator[np.ndarray]:
        """The masks (H, W) bool of the instances of `domain` ("A" or "B") in a picture (H, W, 3) uint8, largest first.

        None of them is empty, and no two share a pixel. They are made one at a time, since those of large pictures are
        large.
        """
        index = DOMAINS.index(domain)
        probability = self.probability(picture)[index]
        labels, count = label_instances(probability > 0.5, self.settings.single[index])
        for label in range(1, count + 1):
            # without other instances and specks, which enlarging would blend into this one
            alone = np.where((labels == label) | (probability <= 0.5), probability, 0)
            mask = _enlarged_mask(alone, labels == label, picture.shape[:2])
            if mask.any():
                yield mask

    def save(self, path: str | Path, measured: Dict[str, Any]) -> None:
        """Write the model to `path` (.h5), and its settings with those `measured` values to the .json beside it."""
        with nn.parameter_scope(NETWORK):
            values = {f"{NETWORK}/{name}": variable.d for name, variable in nn.get_parameters().items()}
        config = {"kind": NETWORK, **self.settings._asdict(), **measured}
        model_file.save_model(path, values, config)


def load(path: str | Path) -> Segmenter:
    """Read a model of `segment.py train`.

    Raises:
        UserError: if one of its two files is missing, damaged or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no segmenter {path}; train one: python segment.py train --output {path}")
    values = model_file.read_parameters(path)
    channels = _channels_of(values)
    if not channels:
        raise UserError(f"{path} is not a segmenter; give a file that segment.py wrote")
    settings = _read_settings(path.with_suffix(".json"), 2 ** (len(channels) - 1))
    segmenter = Segmenter(settings, channels)
    model_file.set_parameters(values, [NETWORK], path)
    return segmenter


def label_instances(inside: np.ndarray, single: bool) -> Tuple[np.ndarray, int]:
    """Number the instances in (H, W) bool from 1, the largest, up: labels (H, W), 0 outside, and their number.

    Instances are connected parts (corners do not connect), or if `single` all parts together; specks are left out.
    """
    labels, count = ndimage.label(inside)
    areas = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    kept = [i for i in np.argsort(-areas, kind="stable") if areas[i] >= SPECK * areas.max()]
    new_label = np.zeros(count + 1, int)
    new_label[np.array(kept, int) + 1] = 1 if single else np.arange(1, len(kept) + 1)
    return new_label[labels], int(new_label.max())


def _enlarged_mask(probability: np.ndarray, inside: np.ndarray, size: Size) -> np.ndarray:
    """Enlarge `probability` (h, w) to `size` around `inside` (h, w), which is not empty, and threshold it at one half.

    Returns (H, W) bool.
    """
    mask = np.zeros(size, bool)
    rows, columns = bounding_box(inside)
    y_scale = size[0] / inside.shape[0]
    x_scale = size[1] / inside.shape[1]
    # half a pixel more on each side: up to there the enlarged values can be above one half
    top = max(0, int((rows.start - 0.5) * y_scale))
    bottom = min(size[0], int(np.ceil((rows.stop + 0.5) * y_scale)))
    left = max(0, int((columns.start - 0.5) * x_scale))
    right = min(size[1], int(np.ceil((columns.stop + 0.5) * x_scale)))
    source = (left / x_scale, top / y_scale, right / x_scale, bottom / y_scale)
    image = Image.fromarray(probability.astype(np.float32))
    mask[top:bottom, left:right] = np.asarray(image.resize((right - left, bottom - top), Image.BILINEAR, source)) > 0.5
    return mask


def _network(x: nn.Variable, channels: Sequence[int]) -> nn.Variable:
    """A U-Net: down to the coarsest resolution and up again, adding the finer features: logits (N, 2, H, W).

    Similar pictures often have the same layout, so the network also gets the position of each pixel.
    """
    position = nn.Variable.from_numpy_array(_position(x.shape))
    position.persistent = True
    # not normalized, which would remove a picture's colour and brightness
    features = [_layer("first", F.concatenate(x, position, axis=1), normalize=False)]
    for i in range(1, len(channels)):
        down = _layer(f"down{i}", features[-1], stride=2)
        features.append(_layer(f"conv{i}", down))
    h = features.pop()
    for i in reversed(range(1, len(channels))):
        up = _layer(f"up{i}", h, stride=2, transposed=True, activation="", skip=features.pop())
        h = _layer(f"merge{i}", up)
    return plain(_layer("last", h, normalize=False, activation=""))


def _layer(
    name: str,
    x: Tensor,
    stride: int = 1,
    transposed: bool = False,
    normalize: bool = True,
    activation: str = "relu",
    skip: Tensor | None = None,
) -> Tensor:
    """A convolution with the parameters of the layer `name`, computed in float; other arguments as of `convolution`."""
    with nn.parameter_scope(f"{NETWORK}/{name}"):
        w = nn.parameter.get_parameter("W")
        b = nn.parameter.get_parameter("b")
    with precision.in_float():
        return convolution(
            x, w, b, pad=1, stride=stride, transposed=transposed, normalize=normalize, activation=activation, skip=skip
        )


def _position(shape: Sequence[int]) -> np.ndarray:
    """Row and column of each pixel of pictures (N, 3, H, W), from -1 to 1: (N, 2, H, W)."""
    batch, _, height, width = shape
    rows_and_columns = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    return np.broadcast_to(rows_and_columns, (batch, 2, height, width)).astype(np.float32)


def _layer_channels(channels: Sequence[int]) -> Dict[str, Tuple[int, int]]:
    """The layers by name, with their output and input channels; the first one's input is a picture and positions."""
    layers = {"first": (channels[0], 5), "last": (len(DOMAINS), channels[0])}
    for i, (fine, coarse) in enumerate(zip(channels, channels[1:]), 1):
        layers[f"down{i}"] = (coarse, fine)
        layers[f"conv{i}"] = (coarse, coarse)
        layers[f"up{i}"] = (fine, coarse)
        layers[f"merge{i}"] = (fine, fine)
    return layers


def _parameter_shapes(name: str, outputs: int, inputs: int) -> Dict[str, Tuple[int, ...]]:
    """The shapes of a layer's parameters; a transposed convolution's weights have its inputs first."""
    sides = (inputs, outputs) if name.startswith("up") else (outputs, inputs)
    return {"W": (*sides, 3, 3), "b": (outputs,)}


def _create_parameters(channels: Sequence[int], rng: np.random.RandomState) -> None:
    for name, (outputs, inputs) in _layer_channels(channels).items():
        initial = {"W": NormalInitializer((2 / (inputs * 9)) ** 0.5, rng), "b": ConstantInitializer(0)}
        with nn.parameter_scope(f"{NETWORK}/{name}"):
            for parameter, shape in _parameter_shapes(name, outputs, inputs).items():
                nn.parameter.get_parameter_or_create(parameter, shape, initial[parameter])


def _channels_of(values: Dict[str, np.ndarray]) -> List[int]:
    """The channels of the network with these parameters; empty if they are not those of a segmenter.

    All shapes are checked, so that a network of these channels takes no more memory than the file's values.
    """
    names = [f"{NETWORK}/first/b", *(f"{NETWORK}/down{i}/b" for i in range(1, 10))]
    channels = [values[name].size for name in names if name in values]
    if len(channels) < 2 or 0 in channels:
        return []
    expected = {
        f"{NETWORK}/{name}/{parameter}": shape
        for name, (outputs, inputs) in _layer_channels(channels).items()
        for parameter, shape in _parameter_shapes(name, outputs, inputs).items()
    }
    return channels if {name: value.shape for name, value in values.items()} == expected else []


def _read_settings(path: Path, multiple: int) -> SegmenterSettings:
    """Read the settings of a network whose sides are a multiple of `multiple`."""
    try:
        config = read_json(path)
        size = config["size"]
        single = config["single"]
        if config["kind"] != NETWORK or len(size) != 2 or len(single) != 2:
            raise ValueError("it is that of another model")
        if not all(type(side) is int and side % multiple == 0 and 0 < side <= LARGEST_SIDE for side in size):
            raise ValueError(f"its size is {size!r:.40}, which no such network has")
        if not all(type(value) is bool for value in single):
            raise ValueError("its 'single' is not two truth values")
        return SegmenterSettings(tuple(size), tuple(single))
    except (OSError, ValueError, KeyError, TypeError) as error:
        problem = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{path}, which belongs to a segmenter, cannot be used: {problem}") from None
