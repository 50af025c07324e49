# SPDX-License-Identifier: Apache-2.0
"""The generator of models.py as an ONNX model, for one picture with any number of instances, of any size.

    picture             (1, 3, H, W)  in [-1, 1]; H and W are multiples of 4, at least 8
    masks               (N, 1, H, W)  +1 inside the instance and -1 outside; N is at least 1
    translated_picture  (1, 3, H, W)  in [-1, 1]
    translated_masks    (N, 1, H, W)  in [-1, 1]

It is one pass, whose instances are all translated together. The functions have the names of those in models.py, and
compute the same; there is one picture, so that there is no membership. This module can be imported only where the
package onnx is installed.
"""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

import numpy as np
from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from exporting.onnx_graph import Graph
from exporting.trained_generator import TrainedGenerator
from models import Architecture

EPSILON = 1e-5  # of both normalizations


def onnx_model(generator: TrainedGenerator, half: bool = False) -> ModelProto:
    """Build the ONNX model of a generator.

    With `half`, convolutions have weights and compute in half precision, as with `--type-config half` of the other
    scripts; inputs, outputs, and all other computations stay in float32.
    """
    layers = _Layers(Graph(), generator.arch, generator.parameters, half)
    _generator(layers, generator.keep_background)
    picture = [1, 3, "height", "width"]
    masks = ["instances", 1, "height", "width"]
    metadata = {**generator.metadata(), "precision": "half" if half else "float"}
    return layers.graph.model(
        f"instagan_{generator.direction}",
        [_float("picture", picture), _float("masks", masks)],
        [_float("translated_picture", picture), _float("translated_masks", masks)],
        metadata,
        f"InstaGAN, {generator.direction}: one pass of the generator. Values are in [-1, 1], masks are +1 inside the "
        "instance and -1 outside. Height and width are multiples of 4, at least 8.",
    )


def _float(name: str, shape: List[int | str]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


class _Layers:
    """The layers of the generator; each adds its nodes to `graph` and returns the name of its result.

    Parameters are those of the graph's current scope.
    """

    def __init__(self, graph: Graph, arch: Architecture, parameters: Dict[str, np.ndarray], half: bool) -> None:
        self.graph = graph
        self.arch = arch
        self._parameters = parameters
        self._half = half

    def convolution_layer(
        self, x: str, number: int, stride: int = 1, pad: int = 0, reflect: int = 0, activation: str = "Relu"
    ) -> str:
        """Padding (zeros, or reflection), convolution, normalization, activation."""
        h = self.convolution(x, f"conv{number}", stride, pad, reflect)
        h = self._normalization(h, number)
        return self.graph.add(activation, h, name=f"{activation.lower()}{number}") if activation else h

    def upsampling_layer(self, x: str, number: int) -> str:
        """Deconvolution to twice the height and width, normalization, ReLU."""
        name = f"deconv{number}"
        options = dict(kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4, output_padding=[1, 1])
        h = self._in_half("ConvTranspose", x, name, **options)
        return self.graph.add("Relu", self._normalization(h, number), name=f"relu{number}")

    def convolution(self, x: str, name: str, stride: int = 1, pad: int = 0, reflect: int = 0) -> str:
        """Padding by `reflect` and convolution with the parameters `name`/W and `name`/b."""
        if reflect:
            edges = self.graph.integers(0, 0, reflect, reflect, 0, 0, reflect, reflect)
            x = self.graph.add("Pad", x, edges, name=f"{name}/pad", mode="reflect")
        return self._in_half("Conv", x, name, strides=[stride] * 2, pads=[pad] * 4)

    def _in_half(self, op: str, x: str, name: str, **options: Any) -> str:
        """Add a convolution or a deconvolution, which computes in half precision if that was asked for."""
        kind = np.float16 if self._half else np.float32
        weights = []
        for part in "Wb":
            parameter = self.graph.path(f"{name}/{part}")
            weights.append(self.graph.constant(parameter, self._parameters[parameter].astype(kind)))
        if not self._half:
            return self.graph.add(op, x, *weights, name=name, **options)
        x = self.graph.add("Cast", x, name=f"{name}/to_half", to=TensorProto.FLOAT16)
        h = self.graph.add(op, x, *weights, name=name, **options)
        return self.graph.add("Cast", h, name=f"{name}/to_float", to=TensorProto.FLOAT)

    def _normalization(self, x: str, number: int) -> str:
        if self.arch.norm == "batch":
            return self._batch_normalization(x, f"norm{number}")
        with self.graph.scope(f"norm{number}"):
            return self._instance_normalization(x)

    def _instance_normalization(self, x: str) -> str:
        """Subtract the mean of each channel of each sample, and divide by its standard deviation.

        onnxruntime's own InstanceNormalization adds a whole channel up in one float32, which leaves 4e-5 in the output
        of a trained G where this leaves 3e-6, and is no faster on a CPU.
        """
        graph = self.graph
        centred = graph.add("Sub", x, self._spatial_mean(x, "mean"), name="centred")
        variance = self._spatial_mean(graph.add("Mul", centred, centred, name="square"), "variance")
        deviation = graph.add("Sqrt", graph.add("Add", variance, graph.number(EPSILON)), name="deviation")
        return graph.add("Div", centred, deviation, name="normalized")

    def _spatial_mean(self, x: str, name: str) -> str:
        """The mean over rows, and then over columns."""
        rows = self.graph.add("ReduceMean", x, name=f"{name}_of_rows", axes=[3])
        return self.graph.add("ReduceMean", rows, name=name, axes=[2])

    def _batch_normalization(self, x: str, name: str) -> str:
        """Batch normalization by the running statistics of the training."""
        values = []
        for part in ("gamma", "beta", "mean", "var"):
            parameter = self.graph.path(f"{name}/bn/{part}")
            values.append(self.graph.constant(parameter, self._parameters[parameter].reshape(-1)))
        return self.graph.add("BatchNormalization", x, *values, name=name, epsilon=EPSILON)


def _generator(layers: _Layers, keep_background: bool) -> None:
    graph = layers.graph
    not_empty, is_instance = _instances(graph)
    with graph.scope("encoder_image"):
        picture_features = _encoder(layers, "picture")
    with graph.scope("encoder_mask"):
        mask_features = _encoder(layers, "masks")
    if layers.arch.norm == "instance":
        mask_features = graph.add("Mul", mask_features, not_empty, name="mask_features")
    instance_features = graph.add("Mul", mask_features, is_instance, name="instance_features")
    total = _sum_over_masks(graph, instance_features, "sum_over_instances")
    context = graph.add("Concat", picture_features, total, name="context", axis=1)
    with graph.scope("decoder_image"):
        y = _decoder(layers, context)
    of_owner = graph.add("Expand", context, _one_for_each_mask(graph), name="context_of_each_mask")
    with graph.scope("decoder_mask"):
        b = _decoder(layers, graph.add("Concat", mask_features, of_owner, name="input", axis=1))
    # an empty mask that is not treated as an instance comes back as it went in
    b = graph.add("Where", graph.add("Cast", is_instance, name="is_translated", to=TensorProto.BOOL), b, "masks")
    if keep_background:
        with graph.scope("composite"):
            y = _composite(graph, "picture", "masks", y, b)
    graph.result(y, "translated_picture")
    graph.result(b, "translated_masks")


def _instances(graph: Graph) -> Tuple[str, str]:
    """Two tensors (N, 1, 1, 1) of 0 and 1: the masks that are not empty, and those to be treated as instances."""
    with graph.scope("instances"):
        area = graph.add("ReduceSum", graph.add("Add", "masks", graph.number(1)), graph.integers(1, 2, 3), name="area")
        not_empty = _as_float(graph, graph.add("Greater", area, graph.number(0)), "not_empty")
        has_none = graph.add("Equal", _sum_over_masks(graph, not_empty, "count"), graph.number(0), name="has_none")
        # of a picture whose masks are all empty, the first one
        count = graph.add("Squeeze", _number_of_masks(graph), graph.integers(0))
        number = graph.add("Range", _integer(graph, 0), count, _integer(graph, 1), name="number")
        first = graph.add("Equal", graph.add("Reshape", number, graph.integers(-1, 1, 1, 1)), _integer(graph, 0))
        stands_in = _as_float(graph, graph.add("And", first, has_none), "stands_in")
        return not_empty, graph.add("Add", not_empty, stands_in, name="is_instance")


def _number_of_masks(graph: Graph) -> str:
    """N as a vector of one number."""
    return graph.add("Slice", graph.add("Shape", "masks"), graph.integers(0), graph.integers(1), name="masks_in_all")


def _one_for_each_mask(graph: Graph) -> str:
    """The shape (N, 1, 1, 1)."""
    return graph.add("Concat", _number_of_masks(graph), graph.integers(1, 1, 1), name="one_for_each_mask", axis=0)


def _integer(graph: Graph, value: int) -> str:
    """An int64 constant, a scalar."""
    return graph.constant(f"constants/integer_{value}", np.array(value, np.int64))


def _as_float(graph: Graph, condition: str, name: str) -> str:
    return graph.add("Cast", condition, name=name, to=TensorProto.FLOAT)


def _sum_over_masks(graph: Graph, x: str, name: str) -> str:
    """Sum (N, C, h, w) to (1, C, h, w)."""
    return graph.add("ReduceSum", x, graph.integers(0), name=name)


def _encoder(layers: _Layers, x: str) -> str:
    h = layers.convolution_layer(x, 1, reflect=3)
    h = layers.convolution_layer(h, 2, stride=2, pad=1)
    h = layers.convolution_layer(h, 3, stride=2, pad=1)
    for i in range(layers.arch.n_blocks):
        with layers.graph.scope(f"block{i + 1}"):
            h = _residual_block(layers, h)
    return h


def _residual_block(layers: _Layers, x: str) -> str:
    h = layers.convolution_layer(x, 1, reflect=1)
    return layers.graph.add("Add", x, layers.convolution_layer(h, 2, reflect=1, activation=""), name="skip")


def _decoder(layers: _Layers, x: str) -> str:
    h = layers.upsampling_layer(x, 1)
    h = layers.upsampling_layer(h, 2)
    return layers.graph.add("Tanh", layers.convolution(h, "conv", reflect=3))


def _composite(graph: Graph, x: str, a: str, y: str, b: str) -> str:
    """Put y into x where the masks are, before (a) or after (b)."""
    both = graph.add("Add", graph.add("Add", a, b), graph.number(2))
    covered = _coverage(graph, graph.add("Mul", both, graph.number(0.5)))
    before = _coverage(graph, graph.add("Mul", graph.add("Add", a, graph.number(1)), graph.number(0.5)))
    widened = graph.add("MaxPool", before, name="widened", kernel_shape=[3, 3], pads=[1] * 4)
    weight = graph.add("Max", covered, graph.add("Mul", widened, graph.number(0.5), name="edge"), name="weight")
    return graph.add("Add", x, graph.add("Mul", weight, graph.add("Sub", y, x)))


def _coverage(graph: Graph, inside: str) -> str:
    """The union (1, 1, H, W) of masks (N, 1, H, W) that are 1 inside and 0 outside."""
    return graph.add("Min", _sum_over_masks(graph, inside, "sum"), graph.number(1), name="coverage")
