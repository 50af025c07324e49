# SPDX-License-Identifier: Apache-2.0
"""Spectral normalization (Miyato et al., ICLR 2018) as an NNabla function, by NumPy on all threads."""

from __future__ import annotations

from typing import List

import nnabla as nn
import numpy as np

from backend.onednn.memory import view
from backend.onednn.python_function import Function
from backend.onednn.threads import GRADIENTS, in_pieces, outside_nnabla

SPECTRAL_NORMALIZATION = "BlasSpectralNormalization"  # in NNabla's graphs


class SpectralNormalization(Function):
    """W / sigma as a function of (W, u), where sigma is W's largest singular value; W is (O, I, kh, kw), u (1, O).

    As `F.spectral_norm(W, u, dim=0, itr=1)`: the forward moves u by one power iteration, and the gradient takes u and v
    as constants. Outputs are W / sigma, and u, v and sigma joined, for the gradient.
    """

    @property
    def name(self) -> str:
        """The name in NNabla's graphs."""
        return SPECTRAL_NORMALIZATION

    def min_outputs(self) -> int:
        """The weight, and the numbers that its gradient needs."""
        return 2

    def setup_impl(self, inputs: List[nn.Variable], outputs: List[nn.Variable]) -> None:
        """Shape the outputs."""
        rows = inputs[0].shape[0]
        columns = inputs[0].size // rows
        self._shape = (rows, columns)
        outputs[0].reset_shape(inputs[0].shape, True)
        outputs[1].reset_shape((rows + columns + 1,), True)

    def forward_impl(self, inputs: List[nn.Variable], outputs: List[nn.Variable]) -> None:
        """Take one power iteration."""
        w = view(self.read_address(inputs[0].data), self._shape)
        u = view(self.read_address(inputs[1].data), self._shape[:1])
        normalized = view(self.write_address(outputs[0].data), self._shape)
        kept = view(self.write_address(outputs[1].data), outputs[1].shape)
        with outside_nnabla(10 * w.size):
            v = _unit(u @ w)
            moved = w @ v
            u[...] = _unit(moved)
            sigma = u @ moved
            in_pieces(lambda rows: np.multiply(w[rows], 1 / sigma, out=normalized[rows]), *self._shape)
            np.concatenate([u, v, [sigma]], out=kept)

    def backward_impl(
        self, inputs: List[nn.Variable], outputs: List[nn.Variable], propagate_down: List[bool], accum: List[bool]
    ) -> None:
        """dW = (dY - <dY, W/sigma> u v') / sigma."""
        if not propagate_down[0]:
            return
        kept = view(self.read_address(outputs[1].data), outputs[1].shape)
        u = kept[: self._shape[0]]
        v = kept[self._shape[0] : -1]
        sigma = kept[-1]
        dy = view(self.read_address(outputs[0].grad), self._shape)
        address, accumulate = self.parameter_gradient(inputs[0], accum[0])
        dw = view(address, self._shape)
        normalized = view(self.read_address(outputs[0].data), self._shape)

        def work(rows: slice) -> None:
            gradient = np.multiply.outer(scaled_u[rows], v)
            gradient += dy[rows]
            gradient *= 1 / sigma
            if accumulate:
                dw[rows] += gradient
            else:
                dw[rows] = gradient

        with outside_nnabla(10 * dw.size), GRADIENTS:
            scaled_u = u * -np.vdot(dy, normalized)
            in_pieces(work, *self._shape)

    def grad_depends_input_data(self, i: int, j: int) -> bool:
        """All that the gradient needs is kept."""
        return False

    def grad_depends_output_data(self, i: int, o: int) -> bool:
        """It needs W / sigma, u, v and sigma."""
        return True


def _unit(x: np.ndarray) -> np.ndarray:
    return x / (np.sqrt(x @ x) + 1e-12)


def spectral_normalization(w: nn.Variable, u: nn.Variable) -> nn.Variable:
    """Return W / sigma; see `SpectralNormalization`."""
    return SpectralNormalization(nn.get_current_context())(w, u)[0]
