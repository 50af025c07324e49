# SPDX-License-Identifier: Apache-2.0
"""Spectral normalization against NNabla's own."""

import nnabla as nn
import numpy as np

from backend import kernels, layers
from tests.helpers.closeness import assert_close


def test_spectral_normalization():
    rng = np.random.default_rng(0)
    weight, start, gradient = (rng.normal(size=s).astype(np.float32) for s in ((48, 20, 4, 4), (1, 48), (48, 20, 4, 4)))
    results = []
    for choice in ("nnabla", "onednn"):
        kernels.configure(choice)
        w = nn.Variable(weight.shape, need_grad=True)
        u = nn.Variable(start.shape)
        w.d = weight
        u.d = start
        w.g = 0
        y = layers.spectral_normalization(w, u)
        y.persistent = True
        for _ in range(2):
            y.forward()
            y.g = gradient
            y.backward(grad=None)
        results.append([y.d.copy(), u.d.copy(), w.g.copy()])
    assert_close(results[1], results[0])
