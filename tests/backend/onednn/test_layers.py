# SPDX-License-Identifier: Apache-2.0
"""The oneDNN layers against NNabla's own functions, and against float64 NumPy where those lose digits."""

import subprocess
import sys

import nnabla as nn
import nnabla.functions as F
import numpy as np
import pytest

from backend import kernels, layers
from backend.onednn.convolution import Geometry
from backend.onednn.functions import layer, unblock
from backend.onednn.layer import Description
from backend.onednn.library import Library
from tests.helpers import ROOT
from tests.helpers.closeness import assert_close

NORMALIZED = {"normalize": True, "activation": "relu"}
UP = {"stride": 2, "pad": 1, "transposed": True}
# shape of x, output channels, kernel, options of the layer
CASES = {
    "first of G": ((1, 3, 32, 24), 32, 7, {"reflect": 3, **NORMALIZED}),
    "first of G, one channel, odd": ((2, 1, 33, 21), 32, 7, {"reflect": 3, **NORMALIZED}),
    "first of G, few to few": ((1, 3, 16, 12), 4, 7, {"reflect": 3, **NORMALIZED}),
    "down": ((2, 32, 32, 24), 64, 3, {"stride": 2, "pad": 1, **NORMALIZED}),
    "down, odd": ((1, 5, 17, 11), 7, 3, {"stride": 2}),
    "residual": ((1, 32, 13, 16), 32, 3, {"reflect": 1, **NORMALIZED}),
    "residual with skip": ((2, 48, 12, 9), 48, 3, {"reflect": 1, "normalize": True, "skip": True}),
    "residual with skip, narrow": ((2, 8, 7, 9), 8, 3, {"reflect": 1, "normalize": True, "skip": True}),
    "up": ((2, 64, 12, 9), 32, 3, {**UP, **NORMALIZED}),
    "up, narrow": ((1, 8, 12, 8), 4, 3, {**UP, **NORMALIZED}),
    "up, odd, bias": ((1, 5, 17, 11), 7, 3, {**UP, "activation": "relu"}),
    "last of G": ((1, 32, 16, 12), 3, 7, {"reflect": 3, "activation": "tanh"}),
    "last of G, one channel": ((2, 24, 16, 9), 1, 7, {"reflect": 3, "activation": "tanh"}),
    "first of D": ((2, 3, 32, 24), 32, 4, {"stride": 2, "pad": 1, "activation": "leaky_relu"}),
    "first of D, one channel": ((1, 1, 16, 12), 32, 4, {"stride": 2, "pad": 1, "activation": "leaky_relu"}),
    "inside D": ((1, 32, 16, 12), 64, 4, {"pad": 1, "normalize": True, "activation": "leaky_relu"}),
    "last of D": ((2, 64, 7, 9), 1, 4, {"pad": 1}),
    "depthwise": ((2, 32, 13, 9), 32, 3, {"pad": 1, "depthwise": True, "activation": "relu6"}),
    "depthwise, down": ((5, 24, 12, 8), 24, 6, {"stride": 2, "pad": 2, "depthwise": True, "activation": "relu6"}),
    "depthwise, odd": ((1, 5, 9, 7), 5, 5, {"pad": 2, "depthwise": True}),
    "many samples": ((7, 16, 6, 9), 16, 3, {"reflect": 1, "normalize": True, "skip": True}),
    "many, bias": ((6, 3, 16, 12), 16, 4, {"stride": 2, "pad": 1, "activation": "leaky_relu"}),
    "many, up": ((9, 16, 6, 5), 8, 3, {**UP, **NORMALIZED}),
    "many, last of G": ((5, 16, 8, 6), 3, 7, {"reflect": 3, "activation": "tanh"}),
}


def _arrays(shape, out, kernel, options):
    """Values of x, w and b."""
    rng = np.random.default_rng(0)
    channels = (shape[1], out) if options.get("transposed") else (out, 1 if options.get("depthwise") else shape[1])
    x = rng.normal(size=shape).astype(np.float32)
    w = rng.normal(size=(*channels, kernel, kernel)).astype(np.float32)
    b = rng.normal(size=(out,)).astype(np.float32)
    # a ReLU6 has both of its bounds to meet
    w *= 1 if options.get("activation") == "relu6" else 0.1
    return [x, w, b]


def _layer(choice, arrays, options, need_grad=(True, True, True)):
    """Inputs and output of a layer on the kernels of this choice."""
    kernels.configure(choice)
    options = dict(options)
    inputs = [nn.Variable(a.shape, need_grad=n) for a, n in zip(arrays, need_grad)]
    for variable, array in zip(inputs, arrays):
        variable.d = array
    if options.pop("skip", False):
        skip = nn.Variable(arrays[0].shape, need_grad=True)
        skip.d = np.random.default_rng(1).normal(size=arrays[0].shape)
        inputs.append(skip)
        options["skip"] = skip
    return inputs, layers.plain(layers.convolution(*inputs[:3], **options))


def _run(inputs, y, repeat=1):
    """Value and gradients, as the sum of `repeat` backward passes on top of 0.5."""
    for variable in inputs:
        variable.g = 0.5
    gradient = np.random.default_rng(2).normal(size=y.shape)
    y.persistent = True
    for _ in range(repeat):
        y.forward(clear_no_need_grad=True)
        y.g = gradient
        y.backward(grad=None, clear_buffer=True)
    return [y.d.copy()] + [variable.g.copy() if variable.need_grad else None for variable in inputs]


def _compare(case, need_grad=(True, True, True), repeat=1):
    """Compare a case on NNabla's kernels and on oneDNN's."""
    shape, out, kernel, options = CASES[case]
    arrays = _arrays(shape, out, kernel, options)
    expected = _run(*_layer("nnabla", arrays, options, need_grad), repeat)
    result = _run(*_layer("onednn", arrays, options, need_grad), repeat)
    if options.get("normalize") and result[3] is not None:
        # the gradient of a bias before a normalization is zero, so it is left out; NNabla's is rounding noise
        assert np.all(result[3] == 0.5)
        result[3] = None
        expected[3] = None
    assert_close(result, expected)


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_those_of_nnabla(case):
    _compare(case)


@pytest.mark.parametrize("case", ["residual with skip", "up", "last of G, one channel", "first of D", "many samples"])
@pytest.mark.parametrize("need_grad", [(True, False, False), (False, True, True), (False, True, False)])
def test_only_some_gradients(case, need_grad):
    _compare(case, need_grad=need_grad)


@pytest.mark.parametrize("case", ["first of G", "residual with skip", "up", "last of G", "inside D", "many, bias"])
def test_repeated_backward_accumulates(case):
    _compare(case, repeat=3)


@pytest.mark.parametrize("case", ["residual", "up", "last of G"])
def test_without_any_gradient_nothing_is_kept(case):
    shape, out, kernel, options = CASES[case]
    arrays = _arrays(shape, out, kernel, options)
    _, expected = _layer("nnabla", arrays, options)
    inputs, result = _layer("onednn", arrays, options, (False, False, False))
    y = layers.convolution(*inputs[:3], **options)
    assert len((y.variable if isinstance(y, layers.Blocked) else y).parent.outputs) == 1
    nn.forward_all([expected, result], clear_buffer=True)
    assert_close([result.d], [expected.d])


def test_gradient_to_an_intermediate_variable_is_written_not_added():
    arrays = _arrays((1, 16, 8, 8), 16, 3, {})
    results = []
    for choice in ("nnabla", "onednn"):
        (x, w, b), _ = _layer(choice, arrays, {})
        y = layers.convolution(layers.convolution(F.sin(x), w, b, pad=1), w, b, pad=1, normalize=True)
        results.append(_run([x, w, b], layers.plain(y)))
    assert_close(results[1], results[0])


@pytest.mark.parametrize("channels", [16, 32, 24, 12])
@pytest.mark.parametrize("batch", [1, 2])
def test_a_chain_of_layers(channels, batch):
    """A tensor in blocks meets strides, skip connections, layers without normalization, and two users."""
    rng = np.random.default_rng(0)
    results = []
    shapes = [(channels, 3, 7, 7), (2 * channels, channels, 3, 3), (2 * channels, 2 * channels, 3, 3)]
    shapes += [(2 * channels, channels, 3, 3), (channels, channels, 4, 4)]
    weights = [rng.normal(size=shape) / np.sqrt(np.prod(shape[1:])) for shape in shapes]
    biases = [rng.normal(size=size) for size in (channels, 2 * channels, 2 * channels, channels, channels)]
    picture = rng.normal(size=(batch, 3, 20, 12))
    for choice in ("nnabla", "onednn"):
        kernels.configure(choice)
        x, *parameters = (nn.Variable(a.shape, need_grad=True) for a in (picture, *weights, *biases))
        for variable, array in zip((x, *parameters), (picture, *weights, *biases)):
            variable.d = array
        w = parameters[:5]
        b = parameters[5:]
        h = layers.convolution(x, w[0], b[0], reflect=3, **NORMALIZED)
        h = layers.convolution(h, w[1], b[1], stride=2, pad=1, activation="leaky_relu")
        for _ in range(2):
            inner = layers.convolution(h, w[2], b[2], reflect=1, **NORMALIZED)
            h = layers.convolution(inner, w[2], b[2], reflect=1, normalize=True, skip=h)
        h = layers.convolution(h, w[3], b[3], **UP, **NORMALIZED)
        y = layers.convolution(h, w[4], b[4], pad=1, activation="tanh")
        results.append(_run([x, *w, b[1], b[4]], layers.plain(y)))
    assert_close(results[1], results[0], 3e-5)


def test_two_graphs_share_weights_and_shapes_change():
    results = []
    for choice in ("nnabla", "onednn"):
        kernels.configure(choice)
        w, b = (nn.Variable(s, need_grad=True) for s in ((16, 16, 3, 3), (16,)))
        w.d = np.random.default_rng(0).normal(size=w.shape) * 0.1
        b.d = 0
        w.g = 0
        b.g = 0
        graphs = []
        for shape in ((1, 16, 12, 8), (3, 16, 7, 20), (1, 16, 12, 8)):
            x = nn.Variable(shape, need_grad=True)
            x.d = np.random.default_rng(shape[0]).normal(size=shape)
            x.g = 0
            h = layers.plain(layers.convolution(x, w, b, reflect=1, **NORMALIZED))
            graphs.append((x, F.sum(h**3)))
        for _, y in graphs:
            y.forward(clear_no_need_grad=True)
        gradients = []
        for x, y in graphs:
            y.backward(clear_buffer=True)
            gradients.append(x.g.copy())
        results.append([*gradients, w.g.copy()])
    assert_close(results[1], results[0])


def test_arrays_that_a_layer_keeps_can_be_given_back():
    x, w, b = (nn.Variable(s, need_grad=True) for s in ((2, 16, 8, 8), (16, 16, 4, 4), (16,)))
    u = nn.Variable((1, 16))
    x.d = 1
    w.d = np.random.default_rng(0).normal(size=w.shape)
    b.d = 0
    u.d = 1
    y = F.sum(layers.plain(layers.convolution(x, layers.spectral_normalization(w, u), b, pad=1, normalize=True)))
    kept = kernels.kept_arrays(y)
    # W / sigma; u, v, sigma; the input and statistics of normalization
    sizes = [array.size for array in kept]
    assert len(sizes) == 3 and {w.size, 16 + 256 + 1} < set(sizes)
    for _ in range(2):
        y.forward(clear_no_need_grad=True)
        y.backward(clear_buffer=True)
        assert not all(array.clear_called for array in kept)
        for array in kept:
            array.clear()
        assert all(array.clear_called for array in kept)


@pytest.mark.parametrize("channels", [5, 32])
@pytest.mark.parametrize("mean, deviation, tolerance", [(0, 1, 2e-6), (1, 0.1, 5e-6), (1, 0.01, 5e-5)])
def test_normalization_keeps_its_digits(channels, mean, deviation, tolerance):
    z = (mean + deviation * np.random.default_rng(0).normal(size=(2, channels, 80, 60))).astype(np.float32)
    x, w, b = (nn.Variable(s) for s in (z.shape, (channels, channels, 1, 1), (channels,)))
    x.d = z
    w.d = np.eye(channels)[..., None, None]
    b.d = 0
    y = layers.plain(layers.convolution(x, w, b, normalize=True))
    y.forward()
    centred = z.astype(np.float64) - z.mean((2, 3), keepdims=True, dtype=np.float64)
    expected = centred / np.sqrt((centred**2).mean((2, 3), keepdims=True) + 1e-5)
    assert np.abs(y.d - expected).max() <= tolerance


def test_the_same_training_gives_the_same_bytes(tmp_path):
    (tmp_path / "run.py").write_text(
        "import hashlib, sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "import numpy as np, nnabla as nn\n"
        "from backend import context, kernels, layers\n"
        "context.set_context('cpu'); kernels.configure('onednn')\n"
        "rng = np.random.default_rng(0)\n"
        "w, b = nn.Variable((32, 32, 3, 3), need_grad=True), nn.Variable((32,), need_grad=True)\n"
        "x = nn.Variable((2, 32, 24, 16))\n"
        "w.d = rng.normal(size=w.shape) * 0.1\n"
        "b.d = 0\n"
        "x.d = rng.normal(size=x.shape)\n"
        "h = layers.convolution(x, w, b, reflect=1, normalize=True, activation='relu')\n"
        "y = layers.convolution(h, w, b, stride=2, pad=1, transposed=True, activation='tanh')\n"
        "y = layers.plain(y)\n"
        "solver = kernels.Adam(1e-2, 0.5, 0.999); solver.set_parameters({'w': w, 'b': b})\n"
        "for _ in range(5):\n"
        "    solver.zero_grad(); y.forward(clear_no_need_grad=True); y.backward(clear_buffer=True); solver.update()\n"
        "print(hashlib.sha256(w.d.tobytes() + b.d.tobytes()).hexdigest())\n"
    )
    runs = [subprocess.run([sys.executable, "run.py"], cwd=tmp_path, capture_output=True, text=True) for _ in range(2)]
    assert runs[0].returncode == 0, runs[0].stderr
    assert runs[0].stdout == runs[1].stdout


def test_a_step_makes_nothing_that_is_never_given_back(monkeypatch):
    """Objects of oneDNN live as long as the process, so a layer must not make one at each call."""
    x = nn.Variable.from_numpy_array(np.random.default_rng(0).normal(size=(1, 16, 16, 16)))
    x.need_grad = True
    w = nn.parameter.get_parameter_or_create("w", (16, 16, 3, 3))
    b = nn.parameter.get_parameter_or_create("b", (16,))
    geometry = Geometry(x.shape, w.shape, stride=1, pad=1)
    description = Description(geometry, normalize=True, activation="relu", y_blocked=True)
    y = unblock(layer(x, w, b, None, description))
    made = []
    new = Library.new

    def recording(library, name, *arguments):
        made.append(name)
        return new(library, name, *arguments)

    monkeypatch.setattr(Library, "new", recording)
    for _ in range(2):
        made.clear()
        y.forward(clear_no_need_grad=True)
        y.backward(clear_buffer=True)
    assert made == []
