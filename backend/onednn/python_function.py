# SPDX-License-Identifier: Apache-2.0
"""NNabla's Python function, with access to NNabla's arrays by address, without copies."""

from __future__ import annotations

import ctypes
import sys
from functools import partial
from types import ModuleType

import nnabla as nn
import numpy as np
from nnabla.function import PythonFunction

from backend.onednn.layer import Gradient
from backend.onednn.threads import TEAM

# NNabla's compiled modules say "import nnabla" whenever they call back into Python, and each time look for a module
# nnabla.nnabla first: 7000 searches of the disk in a training step. Now they find this module, which has what NNabla
# has, except for its path: there is no nnabla.nnabla.functions. (With NNabla itself here, "import nnabla.functions"
# loaded a second copy of that, with a context of its own, and x * y was computed on the CPU also in a GPU's context.)
ALIAS = ModuleType("nnabla.nnabla")
ALIAS.__getattr__ = partial(getattr, nn)
ALIAS.__path__ = []
sys.modules["nnabla.nnabla"] = ALIAS


class Function(PythonFunction):
    """The base of the functions here."""

    def read_address(self, array: nn.NdArray) -> int:
        """Return the address of an array's float32 values."""
        return array.data_ptr(np.float32, self.ctx)

    def write_address(self, array: nn.NdArray) -> int:
        """Return the address of an array that will be written in full; its old values may be gone."""
        return array.data_ptr(np.float32, self.ctx, True)

    def parameter_gradient(self, parameter: nn.Variable, accumulate: bool) -> Gradient:
        """Return the address of a parameter's gradient, and whether to add to the values there.

        NNabla has the first gradient written and the next ones added. The other lane may be the first to get there,
        so in a lane the first gradient is added too, to zeros.
        """
        if accumulate:
            return self.read_address(parameter.grad), True
        address = self.write_address(parameter.grad)
        if TEAM.is_lane:
            ctypes.memset(address, 0, 4 * parameter.size)
        return address, TEAM.is_lane
