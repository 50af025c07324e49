# SPDX-License-Identifier: Apache-2.0
"""A layer as an NNabla function, forward and backward, and the function that leaves the blocked layout."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import Dict, List, Optional, Sequence, Set, Tuple

import nnabla as nn
import numpy as np

from backend.onednn.layer import Description, Gradient, Plan, plan
from backend.onednn.memory import ARENA, Shape, blocked, plain, view
from backend.onednn.primitives import reorder
from backend.onednn.python_function import Function
from backend.onednn.spectral import SPECTRAL_NORMALIZATION
from backend.onednn.threads import GRADIENTS, outside_nnabla

_LAYER = "OneDnnLayer"  # in NNabla's graphs
_SAMPLES = 4  # pictures or masks that go through a layer at a time


@dataclass(frozen=True)
class _Part:
    """A few samples of a batch: their plan, and where they begin, in bytes, in the tensors of the layer."""

    plan: Plan
    x: int
    y: int  # and skip
    kept: int


class Layer(Function):
    """A layer as an NNabla function of `roles`: "x", "w", "b" if there is no normalization, "skip" if there is one.

    Its outputs are y and, where there are gradients, the bytes that the forward pass keeps for them: as an output, so
    that NNabla's memory is used for it; see `kept_arrays` for how to give it back.

    Args:
        description: The layer.
        roles: The role of each input, in their order.
        wanted: Whether the gradient of each input is wanted.
        ctx: The context to compute in.
    """

    def __init__(self, description: Description, roles: Sequence[str], wanted: Sequence[bool], ctx: nn.Context) -> None:
        super().__init__(ctx)
        self._description = description
        self._roles = roles
        self._parts_of_thread: Dict[int, List[_Part]] = {}
        self._differentiable = any(wanted[:2])
        self._for_weights = wanted[1]
        self._shape = description.geometry.y
        self._products = description.geometry.products
        self._needs, self._needs_y, kept = self._contract(self._parts())
        self._kept = kept if self._differentiable else 0

    @staticmethod
    def _contract(parts: List[_Part]) -> Tuple[Set[Tuple[int, int]], bool, int]:
        """Return the properties that NNabla relies on; they must be the same in each thread.

        They are the (i, j) for which the gradient of input i needs input j, whether gradients need y, and the bytes
        that are kept.
        """
        needs = set().union(*(part.plan.needs for part in parts))
        needs_y = any(part.plan.needs_y for part in parts)
        return needs, needs_y, sum(part.plan.kept for part in parts)

    def _parts(self) -> List[_Part]:
        """Return this thread's plans for a few samples at a time.

        So there are few primitives, however many masks a picture has, and little scratch memory.
        """
        thread = threading.get_ident()
        if thread not in self._parts_of_thread:
            parts = self._make_parts()
            first = next(iter(self._parts_of_thread.values()), parts)
            if self._contract(parts) != self._contract(first):
                raise RuntimeError("oneDNN lays out a layer differently for another number of threads")
            self._parts_of_thread[thread] = parts
        return self._parts_of_thread[thread]

    def _make_parts(self) -> List[_Part]:
        batch = self._description.x[0]
        x_bytes = 4 * math.prod(self._description.x[1:])
        y_bytes = 4 * math.prod(self._shape[1:])
        parts = []
        kept = 0
        for start in range(0, batch, _SAMPLES):
            samples = min(_SAMPLES, batch - start)
            part = _Part(plan(self._description.of(samples), self._for_weights), start * x_bytes, start * y_bytes, kept)
            parts.append(part)
            kept += part.plan.kept
        return parts

    @property
    def name(self) -> str:
        """The name in NNabla's graphs."""
        return _LAYER

    def min_outputs(self) -> int:
        """Two where the gradients need something from the forward pass."""
        return 2 if self._kept else 1

    def setup_impl(self, inputs: List[nn.Variable], outputs: List[nn.Variable]) -> None:
        """Shape the outputs."""
        outputs[0].reset_shape(self._shape, True)
        if self._kept:
            outputs[1].reset_shape((self._kept // 4,), True)

    def forward_impl(self, inputs: List[nn.Variable], outputs: List[nn.Variable]) -> None:
        """Compute y."""
        sources = {role: self.read_address(v.data) for role, v in zip(self._roles, inputs)}
        x = sources["x"]
        w = sources["w"]
        b = sources.get("b", 0)
        skip = sources.get("skip", 0)
        y = self.write_address(outputs[0].data)
        kept = self.write_address(outputs[1].data) if self._kept else 0
        with outside_nnabla(self._products):
            for part in self._parts():
                part_kept = kept and kept + part.kept
                part.plan.forward(y + part.y, part_kept, x + part.x, w, b, skip and skip + part.y)

    def backward_impl(
        self,
        inputs: List[nn.Variable],
        outputs: List[nn.Variable],
        propagate_down: List[bool],
        accum: List[bool],
    ) -> None:
        """Compute, or add, the gradients in `propagate_down`."""
        if not any(propagate_down):
            return
        if any(propagate_down[:2]) and not self._differentiable:
            raise RuntimeError("the graph was built for inference: need_grad was set after it")
        wanted = self._wanted(inputs, propagate_down, accum)
        x = self.read_address(inputs[0].data)
        w = self.read_address(inputs[1].data)
        y = self.read_address(outputs[0].data)
        dy = self.read_address(outputs[0].grad)
        kept = self.read_address(outputs[1].data) if self._kept else 0
        with outside_nnabla(self._products):
            sums = self._sums({role: v.size for role, v in zip(self._roles, inputs) if role in wanted})
            for part in self._parts():
                gradients = _gradients_of(part, wanted, sums)
                part.plan.backward(x + part.x, w, y + part.y, dy + part.y, kept and kept + part.kept, gradients)
            for role, term in sums.items():
                address, accumulate = wanted[role]
                with GRADIENTS:
                    gradient = view(address, term.shape)
                    if accumulate:
                        np.add(gradient, term, out=gradient)
                    else:
                        np.copyto(gradient, term)

    def _wanted(self, inputs: List[nn.Variable], propagate_down: List[bool], accum: List[bool]) -> Dict[str, Gradient]:
        """Return the gradients that NNabla asks for, by role."""
        wanted = {}
        for role, variable, down, accumulate in zip(self._roles, inputs, propagate_down, accum):
            if not down:
                continue
            if role in ("w", "b"):
                wanted[role] = self.parameter_gradient(variable, accumulate)
            elif accumulate:
                wanted[role] = (self.read_address(variable.grad), True)
            else:
                wanted[role] = (self.write_address(variable.grad), False)
        return wanted

    def _sums(self, sizes: Dict[str, int]) -> Dict[str, np.ndarray]:
        """Return zeros to which several parts add their gradients of parameters; none for a single part.

        So the whole layer adds one term to a gradient. If each part added its own, the other lane's term could come
        between them, and the sum would depend on when.
        """
        if len(self._parts()) == 1:
            return {}
        return {role: np.zeros(sizes[role], np.float32) for role in ("w", "b") if role in sizes}

    def grad_depends_input_data(self, i: int, j: int) -> bool:
        """The gradient of x needs w, that of w needs x unless its padded copy is kept."""
        return (i, j) in self._needs

    def grad_depends_output_data(self, i: int, o: int) -> bool:
        """Activations need y; all but the skip connection need the bytes that are kept."""
        return self._roles[i] != "skip" and (o == 1 or self._needs_y)


def _gradients_of(part: _Part, wanted: Dict[str, Gradient], sums: Dict[str, np.ndarray]) -> Dict[str, Gradient]:
    """Return where a part's gradients go, by role."""
    offsets = {"x": part.x, "skip": part.y}
    gradients = {}
    for role, (address, accumulate) in wanted.items():
        if role in sums:
            gradients[role] = (sums[role].ctypes.data, True)
        else:
            gradients[role] = (address + offsets.get(role, 0), accumulate)
    return gradients


class Unblock(Function):
    """A tensor in blocks of channels, from a layer, in plain NCHW."""

    @property
    def name(self) -> str:
        """The name in NNabla's graphs."""
        return "OneDnnReorder"

    def min_outputs(self) -> int:
        """The tensor."""
        return 1

    def setup_impl(self, inputs: List[nn.Variable], outputs: List[nn.Variable]) -> None:
        """Shape the output."""
        outputs[0].reset_shape(inputs[0].shape, True)

    def forward_impl(self, inputs: List[nn.Variable], outputs: List[nn.Variable]) -> None:
        """Copy."""
        shape = inputs[0].shape
        x = self.read_address(inputs[0].data)
        y = self.write_address(outputs[0].data)
        with outside_nnabla(10 * inputs[0].size):
            ARENA.reset()
            reorder(blocked(shape), x, plain(shape), y)

    def backward_impl(
        self, inputs: List[nn.Variable], outputs: List[nn.Variable], propagate_down: List[bool], accum: List[bool]
    ) -> None:
        """Copy, or add, the gradient back."""
        if not propagate_down[0]:
            return
        shape = inputs[0].shape
        dy = self.read_address(outputs[0].grad)
        dx = self.read_address(inputs[0].grad) if accum[0] else self.write_address(inputs[0].grad)
        with outside_nnabla(10 * inputs[0].size):
            ARENA.reset()
            reorder(plain(shape), dy, blocked(shape), dx, accum[0])

    def grad_depends_input_data(self, i: int, j: int) -> bool:
        """The gradient needs no data."""
        return False

    def grad_depends_output_data(self, i: int, o: int) -> bool:
        """The gradient needs no data."""
        return False


def layer(
    x: nn.Variable, w: nn.Variable, b: nn.Variable, skip: Optional[nn.Variable], description: Description
) -> nn.Variable:
    """Apply a layer; see `Description`. Under normalization b is left out: subtracting the mean cancels it."""
    inputs = {"x": x, "w": w}
    if not description.normalize:
        inputs["b"] = b
    if skip is not None:
        inputs["skip"] = skip
    wanted = [variable.need_grad for variable in inputs.values()]
    function = Layer(description, list(inputs), wanted, nn.get_current_context())
    outputs = function(*inputs.values())
    # NNabla returns a single output as it is
    return outputs[0] if isinstance(outputs, (list, tuple)) else outputs


def can_be_blocked(shape: Shape) -> bool:
    """Return whether a layer can return a tensor (N, C, H, W) in blocks of channels, without a gap in the last one."""
    return blocked(shape) is not None


def unblock(x: nn.Variable) -> nn.Variable:
    """Return a blocked tensor in plain NCHW."""
    return Unblock(nn.get_current_context())(x)


def kept_arrays(y: nn.Variable) -> List[nn.NdArray]:
    """Return the arrays that the functions here keep for their gradients in the graph that ends in y.

    NNabla clears only arrays that another function has read. These must be cleared after the backward pass, or each of
    several graphs holds on to its own.
    """
    # The first output that is kept. A frozen discriminator does not ask for the gradient of the weight over sigma, so
    # NNabla never gives that one back either.
    first_kept = {_LAYER: 1, SPECTRAL_NORMALIZATION: 0}
    arrays: List[nn.NdArray] = []

    def visit(function: nn.function.Function) -> None:
        first = first_kept.get(function.info.type_name)
        if first is not None:
            arrays.extend(output.data for output in function.outputs[first:])

    y.visit(visit)
    return arrays
