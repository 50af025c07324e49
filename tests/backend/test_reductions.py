# SPDX-License-Identifier: Apache-2.0
"""Sums, means and spectral normalization on a GPU, whose NNabla functions fail on Hopper; see backend/reductions.py.

The GPU is pretended, also where there is one: NNabla's CPU functions compute what a GPU's would, given the
same arguments.
"""

from __future__ import annotations

import ast

import nnabla as nn
import nnabla.functions as F
import numpy as np
import pytest

from backend import layers, reductions
from backend.context import set_context
from models import _running_count
from tests.helpers import ROOT
from tests.helpers.pretended_gpu import pretend

AXES = [None, (0,), (1,), (1, 2, 3), (2, 3), (1, 3)]
# those that use NNabla's warp shuffles on a GPU
SHUFFLING = {"sum", "mean", "max", "min", "prod", "norm", "cumsum", "cumprod", "top_k_data", "instance_normalization"}
SHUFFLING |= {"layer_normalization", "group_normalization", "spectral_norm", "softmax", "reduce_sum", "reduce_mean"}


@pytest.fixture(params=["cpu", "cudnn"])
def device(request, monkeypatch):
    if request.param == "cudnn":
        pretend(monkeypatch)
    set_context(request.param)
    return request.param


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("name", ["total", "mean"])
def test_reductions_are_numpy_s(name, axes, keepdims):
    """Values and gradients."""
    values = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    x = nn.Variable.from_numpy_array(values, need_grad=True)
    y = getattr(reductions, name)(x, axes, keepdims)
    x.grad.zero()
    y.forward()
    y.backward(1.0)
    want = getattr(values, "sum" if name == "total" else "mean")(axis=axes, keepdims=keepdims)
    assert y.shape == np.shape(want)
    np.testing.assert_allclose(y.d, want, rtol=1e-5, atol=1e-5)
    count = values.size / np.size(want) if name == "mean" else 1
    np.testing.assert_allclose(x.g, np.full(values.shape, 1 / count), rtol=1e-6)


@pytest.mark.usefixtures("device")
def test_arrays_are_reduced_at_once():
    array = nn.NdArray.from_numpy_array(np.arange(6, dtype=np.float32))
    assert float(reductions.total(array).data) == 15


@pytest.mark.usefixtures("device")
def test_masks_are_counted_from_the_first():
    membership = np.array([[1, 1, 0, 0], [0, 0, 1, 1]], np.float32)
    count = _running_count(nn.Variable.from_numpy_array(membership))
    count.forward()
    np.testing.assert_array_equal(count.d, membership.cumsum(axis=1))


def test_a_gpu_s_spectral_normalization_is_nnabla_s(monkeypatch):
    """Values, gradient, and the vector that each forward moves, over three forwards."""
    random = np.random.default_rng(0)
    weight, gradient = random.normal(size=(2, 6, 3, 4, 4)).astype(np.float32)
    start = random.normal(size=(1, 6))
    found = {}
    pretend(monkeypatch)
    for name in ("cpu", "cudnn"):
        set_context(name)
        w = nn.Variable.from_numpy_array(weight, need_grad=True)
        u = nn.Variable.from_numpy_array(start)
        y = F.spectral_norm(w, u, dim=0, itr=1) if name == "cpu" else layers.spectral_normalization(w, u)
        found[name] = []
        for _ in range(3):
            w.grad.zero()
            y.forward(clear_no_need_grad=True)
            values = y.d.copy()
            y.backward(nn.NdArray.from_numpy_array(gradient), clear_buffer=True)
            found[name] += [values, w.g.copy(), u.d.copy()]
            np.testing.assert_array_equal(w.d, weight)
    for ours, theirs in zip(found["cudnn"], found["cpu"]):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    assert not np.allclose(found["cpu"][2], start) and not np.allclose(found["cpu"][2], found["cpu"][5])


def test_nothing_else_calls_what_fails_on_hopper():
    calls = set()
    for path in [*ROOT.glob("*.py"), *ROOT.glob("[a-z]*/**/*.py")]:
        file = path.relative_to(ROOT).as_posix()
        if not file.startswith("tests/"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") in ("F", "PF"):
                    calls.update({(file, node.attr)} if node.attr in SHUFFLING else ())
    # for a CPU
    assert calls == {
        ("backend/reductions.py", "sum"),
        ("backend/reductions.py", "mean"),
        ("backend/layers.py", "mean"),
        ("backend/layers.py", "spectral_norm"),
    }
