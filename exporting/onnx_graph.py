# SPDX-License-Identifier: Apache-2.0
"""An ONNX graph, put together node by node. This module can be imported only where the package onnx is installed."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, Sequence

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

# Opset 17 and its IR version: onnxruntime 1.12 and later, and onnxruntime-web, read them.
OPSET = 17
IR_VERSION = 8


class Graph:
    """The nodes and constants of a graph. Tensors are known by their names.

    A node is named after the scopes that it is added in, as NNabla's parameters are: "encoder_image/conv1/pad".
    """

    def __init__(self) -> None:
        self._nodes: List[NodeProto] = []
        self._constants: Dict[str, TensorProto] = {}
        self._uses: Dict[str, int] = {}
        self._scopes: List[str] = []

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Put `name/` before the names of all that is added within `with`."""
        self._scopes.append(name)
        try:
            yield
        finally:
            self._scopes.pop()

    def path(self, name: str) -> str:
        """The full name of something in the current scope."""
        return "/".join([*self._scopes, name])

    def add(self, op: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Add a node of the operator `op`; return its one output, called `name` (default: the operator's)."""
        output = self._unused(self.path(name or op.lower()))
        self._nodes.append(helper.make_node(op, list(inputs), [output], name=output, **attributes))
        return output

    def result(self, tensor: str, name: str) -> None:
        """Give `tensor` the name of an output of the graph."""
        self._nodes.append(helper.make_node("Identity", [tensor], [name], name=f"{name}/identity"))

    def constant(self, name: str, value: np.ndarray) -> str:
        """Add a constant; `name` is its full name. One that is there already is used again."""
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def number(self, value: float) -> str:
        """A float32 constant, a scalar."""
        return self.constant(f"constants/{value:g}", np.array(value, np.float32))

    def integers(self, *values: int) -> str:
        """An int64 constant, a vector."""
        return self.constant("constants/integers_" + "_".join(map(str, values)), np.array(values, np.int64))

    def model(
        self,
        name: str,
        inputs: Sequence[ValueInfoProto],
        outputs: Sequence[ValueInfoProto],
        metadata: Dict[str, str],
        documentation: str,
    ) -> ModelProto:
        """The model of all that was added."""
        graph = helper.make_graph(self._nodes, name, inputs, outputs, list(self._constants.values()), documentation)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="instagan-nnabla")
        helper.set_model_props(model, metadata)
        return model

    def _unused(self, name: str) -> str:
        """`name`, with a number behind it where it is in use."""
        count = self._uses.get(name, 0)
        self._uses[name] = count + 1
        return f"{name}_{count}" if count else name
