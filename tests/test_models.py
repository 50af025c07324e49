# SPDX-License-Identifier: Apache-2.0
"""The networks: against a float64 NumPy version of themselves, and what must hold for any weights."""

from __future__ import annotations

import nnabla as nn
import numpy as np
import pytest

import models
from backend import layers
from models import FROZEN, INFERENCE, NETWORKS, TRAIN, Architecture, create_parameters, discriminator, generator

TINY = Architecture(ngf=3, ndf=3, n_blocks=1)
pytestmark = pytest.mark.usefixtures("on_backend")

# D's smallest size is 24
SIZE = (24, 28)


# Networks with NNabla


def create(arch, seed=0, networks=("gen_x2y", "dis_x")):
    """Networks whose biases are not all 0, as those of trained ones."""
    rng = np.random.RandomState(seed)
    create_parameters(arch, rng, networks)
    for name, p in nn.get_parameters(grad_only=False).items():
        if name.endswith("/b"):
            p.d = rng.normal(0, 0.1, p.shape)


def scene(counts, size=SIZE, seed=0):
    """Pictures with `counts` masks each, rectangles: (x, a, membership)."""
    rng = np.random.default_rng(seed)
    a = -np.ones((sum(counts), 1) + size, np.float32)
    for mask in a:
        top, left = rng.integers(0, size[0] - 6), rng.integers(0, size[1] - 6)
        mask[0, top : top + rng.integers(3, 7), left : left + rng.integers(3, 7)] = 1
    membership = np.zeros((len(counts), sum(counts)), np.float32)
    membership[np.repeat(np.arange(len(counts)), counts), np.arange(sum(counts))] = 1
    return rng.uniform(-1, 1, (len(counts), 3) + size).astype(np.float32), a, membership


def variables(*arrays, need_grad=False):
    inputs = [nn.Variable(np.shape(v), need_grad=need_grad) for v in arrays]
    for variable, value in zip(inputs, arrays):
        variable.d = value
    return inputs


def run_g(x, a, membership, arch=TINY, mode=TRAIN):
    with nn.parameter_scope("gen_x2y"):
        y, b = generator(*variables(x, a, membership), arch, mode)
    nn.forward_all([y, b])
    return y.d.copy(), b.d.copy()


def run_d(x, a, membership, arch=TINY, mode=TRAIN):
    """The score; the power-iteration vectors are left as they were."""
    with nn.parameter_scope("dis_x"):
        score = discriminator(*variables(x, a, membership), arch, mode)
        vectors = {name: p.d.copy() for name, p in nn.get_parameters(grad_only=False).items() if name.endswith("/u")}
        score.forward()
        for name, value in vectors.items():
            nn.get_parameters(grad_only=False)[name].d = value
    return score.d.copy()


def gradients(network, inputs, weights, arch=TINY, mode=TRAIN):
    """Gradients of the sum of outputs times `weights`: of the trained parameters, and of x and a."""
    x, a = variables(*inputs[:2], need_grad=True)
    (owner,) = variables(inputs[2])
    with nn.parameter_scope(network):
        parameters = nn.get_parameters(grad_only=False)
        vectors = {name: p.d.copy() for name, p in parameters.items() if name.endswith("/u")}
        if network == "gen_x2y":
            outputs = generator(x, a, owner, arch, mode)
        else:
            outputs = [discriminator(x, a, owner, arch, mode)]
    total = sum(nn.functions.sum(o * w) for o, w in zip(outputs, variables(*weights)))
    for v in (x, a, *(p for p in parameters.values() if p.need_grad)):
        v.grad.zero()
    total.forward()
    total.backward()
    for name, value in vectors.items():
        parameters[name].d = value
    return {n: p.g.copy() for n, p in parameters.items() if p.need_grad}, x.g.copy(), a.g.copy()


def assert_close(got, want, tolerance=1e-3):
    """Within a share of the largest value, which is not 0."""
    scale = np.abs(want).max()
    assert scale > 0
    assert np.abs(got - want).max() <= tolerance * scale


# The same networks with NumPy, in float64


def values(network):
    with nn.parameter_scope(network):
        return {name: p.d.astype(np.float64) for name, p in nn.get_parameters(grad_only=False).items()}


def np_conv(x, w, b, stride=1, pad=0):
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    k = w.shape[2]
    windows = np.lib.stride_tricks.sliding_window_view(x, (k, k), axis=(2, 3))[:, :, ::stride, ::stride]
    return np.einsum("bchwij,ocij->bohw", windows, w) + b[:, None, None]


def np_deconv(x, w, b):
    """Kernel 3, stride 2, pad 1, output padding 1: zeros put between the pixels, then a convolution."""
    spread = np.zeros(x.shape[:2] + (2 * x.shape[2], 2 * x.shape[3]))
    spread[:, :, ::2, ::2] = x
    return np_conv(spread, w[:, :, ::-1, ::-1].transpose(1, 0, 2, 3), b, pad=1)


def np_norm(x):
    centred = x - x.mean(axis=(2, 3), keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=(2, 3), keepdims=True) + 1e-5)


def reflect(x, width):
    return np.pad(x, ((0, 0), (0, 0), (width, width), (width, width)), mode="reflect")


def relu(x, slope=0.0):
    return np.where(x > 0, x, slope * x)


def np_encoder(x, p, prefix, blocks):
    def conv(h, name, **how):
        return np_norm(np_conv(h, p[f"{prefix}/{name}/W"], p[f"{prefix}/{name}/b"], **how))

    h = relu(conv(reflect(x, 3), "conv1"))
    h = relu(conv(h, "conv2", stride=2, pad=1))
    h = relu(conv(h, "conv3", stride=2, pad=1))
    for i in range(1, blocks + 1):
        h = h + conv(reflect(relu(conv(reflect(h, 1), f"block{i}/conv1")), 1), f"block{i}/conv2")
    return h


def np_decoder(h, p, prefix):
    for name in ("deconv1", "deconv2"):
        h = relu(np_norm(np_deconv(h, p[f"{prefix}/{name}/W"], p[f"{prefix}/{name}/b"])))
    return np.tanh(np_conv(reflect(h, 3), p[f"{prefix}/conv/W"], p[f"{prefix}/conv/b"]))


def np_generator(p, x, a, membership, arch):
    """Picture by picture, over its own masks. Of an empty one, instance normalization leaves exactly nothing."""
    ys, bs = [], []
    for picture, row in zip(x[:, None], membership):
        masks = np_encoder(a[row > 0], p, "encoder_mask", arch.n_blocks)
        masks[a[row > 0].max(axis=(1, 2, 3)) == -1] = 0
        scene = [np_encoder(picture, p, "encoder_image", arch.n_blocks), masks.sum(axis=0, keepdims=True)]
        ys.append(np_decoder(np.concatenate(scene, axis=1), p, "decoder_image"))
        for mask in masks[:, None]:
            bs.append(np_decoder(np.concatenate([mask, *scene], axis=1), p, "decoder_mask"))
    return np.concatenate(ys), np.concatenate(bs)


def np_discriminator(p, x, a, membership, arch):
    def conv(h, name, stride):
        w, u = p[f"{name}/W"], p[f"{name}/u"][0]
        flat = w.reshape(len(w), -1)
        v = flat.T @ u
        v /= np.linalg.norm(v)
        u = flat @ v
        return np_conv(h, w / (u @ flat @ v / np.linalg.norm(u)), p[f"{name}/b"], stride, pad=1)

    def features(h, prefix):
        h = relu(conv(h, f"{prefix}/conv1", 2), 0.2)
        for i in range(2, arch.n_layers_D + 1):
            h = relu(np_norm(conv(h, f"{prefix}/conv{i}", 2)), 0.2)
        return h

    scores = []
    for picture, row in zip(x[:, None], membership):
        masks = features(a[row > 0], "feature_mask").sum(axis=0, keepdims=True)
        h = np.concatenate([features(picture, "feature_image"), masks], axis=1)
        scores.append(conv(relu(np_norm(conv(h, "classifier/conv1", 1)), 0.2), "classifier/conv2", 1))
    return np.concatenate(scores)


NUMPY = {"gen_x2y": np_generator, "dis_x": lambda *args: [np_discriminator(*args)]}


@pytest.mark.parametrize("blocks", [0, 2])
@pytest.mark.parametrize("size", [(12, 20), (28, 36)])
def test_generator_against_numpy(blocks, size):
    arch = Architecture(ngf=3, n_blocks=blocks)
    create(arch, networks=["gen_x2y"])
    inputs = scene([2, 1], size)
    y, b = run_g(*inputs, arch)
    assert y.shape == inputs[0].shape
    assert b.shape == inputs[1].shape
    for got, want in zip((y, b), np_generator(values("gen_x2y"), *inputs, arch)):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-4)


@pytest.mark.parametrize("layers, size", [(2, (12, 20)), (3, (28, 36)), (4, (52, 48))])
def test_discriminator_against_numpy(layers, size):
    arch = Architecture(ndf=2, n_layers_D=layers)
    create(arch, networks=["dis_x"])
    inputs = scene([2, 1], size)
    want = np_discriminator(values("dis_x"), *inputs, arch)
    assert_close(run_d(*inputs, arch), want, 1e-4)


@pytest.mark.parametrize("network", ["gen_x2y", "dis_x"])
def test_parameter_gradients_against_finite_differences(network):
    arch = Architecture(ngf=2, ndf=2, n_blocks=1)
    create(arch)
    inputs, rng = scene([2, 1]), np.random.default_rng(1)
    p = values(network)
    if network == "dis_x":
        # from where a power iteration no longer moves u, the singular value's gradient is that through W alone
        for name in [n for n in p if n.endswith("/u")]:
            p[name] = np.linalg.svd(p[name[:-1] + "W"].reshape(p[name].size, -1))[0][:, 0][None]
            with nn.parameter_scope(network):
                nn.get_parameters(grad_only=False)[name].d = p[name]
    weights = [rng.normal(size=o.shape) for o in NUMPY[network](p, *inputs, arch)]

    def total(parameters):
        return sum((o * w).sum() for o, w in zip(NUMPY[network](parameters, *inputs, arch), weights))

    got, _, _ = gradients(network, inputs, weights, arch)
    # along one direction for each part of the network, so that a fault names it
    for part in sorted({name.split("/")[0] for name in got}):
        direction = {n: rng.normal(size=g.shape) for n, g in got.items() if n.startswith(part)}
        step = 1e-6
        ahead, behind = ({n: v + s * direction.get(n, 0) for n, v in p.items()} for s in (step, -step))
        want = (total(ahead) - total(behind)) / (2 * step)
        assert sum((got[n] * d).sum() for n, d in direction.items()) == pytest.approx(want, rel=5e-3), part


# Sets of instances


def test_order_of_the_instances():
    create(TINY)
    x, a, owner = scene([3])
    y, b = run_g(x, a, owner)
    score = run_d(x, a, owner)
    assert np.abs(b[0] - b[1]).max() > 0.01
    for order in ([1, 2, 0], [2, 1, 0]):
        permuted_y, permuted_b = run_g(x, a[order], owner)
        np.testing.assert_allclose(permuted_y, y, rtol=0, atol=1e-5)
        np.testing.assert_allclose(permuted_b, b[order], rtol=0, atol=1e-5)
        np.testing.assert_allclose(run_d(x, a[order], owner), score, rtol=0, atol=1e-5)


@pytest.mark.parametrize("counts", [(2, 1), (1, 3)])
def test_a_batch_of_two_is_two_batches_of_one(counts):
    create(TINY)
    x, a, owner = scene(counts)
    parts = [(x[i : i + 1], a[owner[i] > 0], np.ones((1, counts[i]), np.float32)) for i in range(2)]
    single = [run_g(*part) for part in parts]
    for got, want in zip(run_g(x, a, owner), zip(*single)):
        np.testing.assert_allclose(got, np.concatenate(want), rtol=0, atol=1e-5)
    np.testing.assert_allclose(run_d(x, a, owner), np.concatenate([run_d(*p) for p in parts]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("network", ["gen_x2y", "dis_x"])
def test_gradients_of_a_batch_of_two(network):
    create(TINY)
    x, a, owner = scene([1, 2])
    rng = np.random.default_rng(2)
    shapes = [x.shape, a.shape] if network == "gen_x2y" else [(2, 1, 1, 1)]
    weights = [rng.normal(size=shape) for shape in shapes]
    together, x_grad, a_grad = gradients(network, (x, a, owner), weights)
    alone = []
    for i in range(2):
        mine = [weights[0][i : i + 1], *(w[owner[i] > 0] for w in weights[1:])]
        alone.append(gradients(network, (x[i : i + 1], a[owner[i] > 0], owner[i : i + 1, owner[i] > 0]), mine))
    scale = max(np.abs(g).max() for g in together.values())
    for name, grad in together.items():
        want = alone[0][0][name] + alone[1][0][name]
        np.testing.assert_allclose(grad, want, rtol=2e-3, atol=1e-4 * scale, err_msg=name)
    assert_close(x_grad, np.concatenate([alone[0][1], alone[1][1]]))
    assert_close(a_grad, np.concatenate([alone[0][2], alone[1][2]]))


@pytest.mark.parametrize("where", [0, 1, 2])
def test_an_empty_mask_changes_nothing(where):
    create(TINY)
    x, a, owner = scene([2])
    with_empty = np.insert(a, where, -1, axis=0)
    y, b = run_g(x, a, owner)
    y2, b2 = run_g(x, with_empty, np.ones((1, 3)))
    np.testing.assert_allclose(y2, y, rtol=0, atol=1e-5)
    np.testing.assert_allclose(np.delete(b2, where, axis=0), b, rtol=0, atol=1e-5)
    assert (b2[where] == -1).all()
    np.testing.assert_allclose(run_d(x, with_empty, np.ones((1, 3))), run_d(x, a, owner), rtol=0, atol=1e-5)


@pytest.mark.parametrize("network", ["gen_x2y", "dis_x"])
def test_an_empty_mask_has_no_part_in_gradients(network):
    create(TINY)
    x, a, owner = scene([2])
    rng = np.random.default_rng(3)
    y_weight, b_weight = rng.normal(size=x.shape), rng.normal(size=(3,) + a.shape[1:])
    if network == "gen_x2y":
        without, with_empty = [y_weight, b_weight[:2]], [y_weight, b_weight]
    else:
        without = with_empty = [rng.normal(size=(1, 1, 1, 1))]
    want = gradients(network, (x, a, owner), without)
    got = gradients(network, (x, np.insert(a, 2, -1, axis=0), np.ones((1, 3))), with_empty)
    scale = max(np.abs(g).max() for g in want[0].values())
    for name, grad in want[0].items():
        np.testing.assert_allclose(got[0][name], grad, rtol=2e-3, atol=1e-4 * scale, err_msg=name)
    assert_close(got[1], want[1])
    assert_close(got[2][:2], want[2])
    # the empty mask itself: what went in came out, so its gradient is that of the output; D does not look at it
    np.testing.assert_allclose(got[2][2], b_weight[2] if network == "gen_x2y" else 0, rtol=0, atol=1e-6)


@pytest.mark.parametrize("empty", [1, 3])
def test_a_picture_without_instances(empty):
    """The picture's first mask counts as an instance, whatever else is in the batch."""
    # with many blocks: each normalization of a constant channel would make its rounding error some hundred times larger
    arch = Architecture(ngf=4, ndf=3, n_blocks=9)
    create(arch)
    x, a, owner = scene([1, empty])
    a[1:] = -1
    first = owner.copy()
    first[1, 2:] = 0
    y, b = run_g(x, a, owner, arch)
    want_y, want_b = np_generator(values("gen_x2y"), x, a, first, arch)
    np.testing.assert_allclose(y, want_y, rtol=0, atol=1e-4)
    np.testing.assert_allclose(b[:2], want_b, rtol=0, atol=1e-4)
    assert (b[2:] == -1).all()
    assert_close(run_d(x, a, owner, arch), np_discriminator(values("dis_x"), x, a, first, arch), 1e-4)


# Normalization


@pytest.mark.parametrize("mean, deviation", [(0, 1), (1, 0.01), (-10, 1), (0.5, 0)])
def test_instance_normalization_against_numpy(mean, deviation):
    rng = np.random.default_rng(4)
    value = (mean + deviation * rng.normal(size=(2, 3, 40, 36))).astype(np.float32)
    weight = rng.normal(size=value.shape).astype(np.float32)
    (x,), (w,) = variables(value, need_grad=True), variables(weight)
    y = layers.instance_normalization(x)
    total = nn.functions.sum(y * w)
    x.grad.zero()
    y.persistent = True
    total.forward()
    total.backward()
    exact, w64 = value.astype(np.float64), weight.astype(np.float64)
    want = np_norm(exact)
    np.testing.assert_allclose(y.d, want, rtol=0, atol=1e-4)
    scale = np.sqrt(exact.var(axis=(2, 3), keepdims=True) + 1e-5)
    means = w64.mean(axis=(2, 3), keepdims=True), (w64 * want).mean(axis=(2, 3), keepdims=True)
    want_grad = (w64 - means[0] - want * means[1]) / scale
    assert_close(x.g, want_grad, 1e-4)


def test_batch_normalization_against_numpy():
    rng = np.random.default_rng(5)
    value = rng.normal(2, 3, size=(4, 3, 5, 6)).astype(np.float32)
    other = rng.normal(-1, 2, size=(4, 3, 5, 6)).astype(np.float32)
    arch = Architecture(norm="batch")
    (x,) = variables(value)
    with nn.parameter_scope("layer"):
        trained, used = (
            models._convolution_layer(x, "1", 3, 1, arch, mode, activation="") for mode in (TRAIN, INFERENCE)
        )
        # a convolution that changes nothing
        parameters = nn.get_parameters(grad_only=False)
        parameters["conv1/W"].d = np.eye(3)[:, :, None, None]
        parameters["conv1/b"].d = 0
    trained.forward()
    mean, var = value.mean(axis=(0, 2, 3), keepdims=True), value.var(axis=(0, 2, 3), keepdims=True)
    np.testing.assert_allclose(trained.d, (value - mean) / np.sqrt(var + 1e-5), rtol=0, atol=1e-4)
    # after one batch a tenth of the running mean, which starts at 0, is the batch's
    with nn.parameter_scope("layer"):
        statistics = {n.rsplit("/", 1)[1]: p for n, p in nn.get_parameters(grad_only=False).items()}
    np.testing.assert_allclose(statistics["mean"].d, 0.1 * mean, rtol=1e-4)
    x.d = other
    statistics["mean"].d, statistics["var"].d = -0.5, 4.0
    used.forward()
    np.testing.assert_allclose(used.d, (other + 0.5) / np.sqrt(4 + 1e-5), rtol=0, atol=1e-5)
    assert (statistics["mean"].d == -0.5).all()


def test_networks_with_batch_normalization():
    arch = Architecture(ngf=3, ndf=3, n_blocks=1, norm="batch")
    create(arch)
    x, a, owner = scene([2, 1])
    first = (x[:1], a[:2], owner[:1, :2])

    def statistics():
        found = nn.get_parameters(grad_only=False)
        return {n: p.d.copy() for n, p in found.items() if n.rsplit("/", 1)[-1] in ("mean", "var")}

    for run, index in ((run_g, 0), (run_g, 1), (run_d, None)):

        def output(inputs, mode, run=run, index=index):
            return (run(*inputs, arch, mode) if index is None else run(*inputs, arch, mode)[index])[:1]

        before = statistics()
        alone, together = output(first, TRAIN), output((x, a, owner), TRAIN)
        assert np.abs(alone - together).max() > 1e-3, "the rest of the batch has no influence in training"
        network = "dis_x" if index is None else "gen_x2y"
        after = statistics()
        moved = [n for n in before if n.startswith(network) and not np.array_equal(before[n], after[n])]
        assert moved == [n for n in before if n.startswith(network)]
        alone, together = output(first, INFERENCE), output((x, a, owner), INFERENCE)
        np.testing.assert_allclose(alone, together, rtol=0, atol=1e-5)
        for name, value in statistics().items():
            np.testing.assert_array_equal(value, after[name])


def convolution_weights(score):
    """The weights that the convolutions of a graph really use."""
    found, kinds = [], ("Convolution", "OneDnnLayer")
    score.visit(lambda f: found.append(f.inputs[1]) if f.info.type_name in kinds else None)
    return found


def test_spectral_normalization():
    create(TINY)
    with nn.parameter_scope("dis_x"):
        score = discriminator(*variables(*scene([1])), TINY)
        raw = [p.d.copy() for name, p in nn.get_parameters().items() if name.endswith("/W")]
    weights = convolution_weights(score)
    assert len(weights) == len(raw) == 8
    for _ in range(300):
        score.forward()
    used = [w.d.copy() for w in weights]
    for w in used:
        assert np.linalg.svd(w.reshape(len(w), -1), compute_uv=False)[0] == pytest.approx(1, abs=2e-3)
    # the weights themselves are left alone
    with nn.parameter_scope("dis_x"):
        for before, p in zip(raw, (p for name, p in nn.get_parameters().items() if name.endswith("/W"))):
            np.testing.assert_array_equal(p.d, before)


# Modes, sizes, parameters


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("network", ["gen_x2y", "dis_x"])
def test_frozen_networks_compute_no_weight_gradients(network, norm):
    arch = Architecture(ngf=3, ndf=3, n_blocks=1, norm=norm)
    create(arch)
    x, a, owner = scene([2])
    rng = np.random.default_rng(6)
    weights = [rng.normal(size=v.shape) for v in ((x, a) if network == "gen_x2y" else (np.zeros((1, 1, 1, 1)),))]
    trained = gradients(network, (x, a, owner), weights, arch)
    frozen = gradients(network, (x, a, owner), weights, arch, FROZEN)
    # still trainable parameters, and every weight has a gradient where the network is not frozen
    assert trained[0].keys() == frozen[0].keys()
    assert all(np.abs(g).max() > 0 for name, g in trained[0].items() if name.endswith("/W"))
    assert all((g == 0).all() for g in frozen[0].values())
    assert_close(frozen[1], trained[1], 1e-5)
    assert_close(frozen[2], trained[2], 1e-5)


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_earlier_masks_count_like_the_others(norm):
    """D returns the same score and gradients if some masks are passed separately."""
    arch = Architecture(ngf=3, ndf=8, n_blocks=0, norm=norm)
    create(arch)
    x, a, membership = scene([3, 2])
    first = [0, 3]
    others = [i for i in range(5) if i not in first]
    found = []
    for apart in (False, True):
        order = first + others
        picture, masks, owner = variables(x, a[order], membership[:, order], need_grad=True)
        inputs, earlier = (picture, masks, owner), None
        if apart:
            picture, masks, owner = variables(x, a[others], membership[:, others], need_grad=True)
            inputs, earlier = (picture, masks, owner), tuple(variables(a[first], membership[:, first]))
        with nn.parameter_scope("dis_x"):
            vectors = {n: p.d.copy() for n, p in nn.get_parameters(grad_only=False).items() if n.endswith("/u")}
            score = discriminator(*inputs, arch, FROZEN, earlier)
            score.persistent = picture.persistent = True
            picture.g = masks.g = 0
            score.forward(clear_no_need_grad=True)
            value = score.d.copy()
            score.backward(clear_buffer=True)
            moved = {n: p.d.copy() for n, p in nn.get_parameters(grad_only=False).items() if n.endswith("/u")}
            for name, u in vectors.items():
                nn.get_parameters(grad_only=False)[name].d = u
        found.append([value, picture.g.copy(), masks.g[-len(others) :].copy(), *moved.values()])
    for one, other in zip(*found):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5 * np.abs(one).max())


@pytest.mark.parametrize("layers", [2, 3, 4])
def test_the_smallest_size(layers):
    arch = Architecture(ngf=2, ndf=2, n_blocks=1, n_layers_D=layers)
    create(arch)
    size = models.smallest_size(arch)

    def patches(n):
        for stride in [2] * layers + [1, 1]:
            n = (n + 2 - 4) // stride + 1
        return n

    assert size % 4 == 0
    assert patches(size) >= 1
    assert patches(size - 4) < 1
    inputs = scene([1], (size, size + 4))
    score = run_d(*inputs, arch)
    assert score.shape == (1, 1, patches(size), patches(size + 4))
    assert np.isfinite(score).all()
    assert np.isfinite(run_g(*inputs, arch)[0]).all()


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("blocks, layers", [(0, 2), (1, 4), (12, 3)])
def test_no_parameter_s_name_begins_another_s(norm, blocks, layers):
    """Solver states are matched by the beginning of the name."""
    arch = Architecture(ngf=2, ndf=2, n_blocks=blocks, n_layers_D=layers, norm=norm)
    create_parameters(arch, np.random.RandomState(0))
    names = sorted(nn.get_parameters(grad_only=False))
    assert {name.split("/")[0] for name in names} == set(NETWORKS)
    # sorted, a name that begins others stands right before one of them
    assert not [(one, two) for one, two in zip(names, names[1:]) if two.startswith(one)]


def test_new_parameters():
    create_parameters(Architecture(ngf=16, ndf=16, n_blocks=2), np.random.RandomState(1))
    first = {name: p.d.copy() for name, p in nn.get_parameters(grad_only=False).items()}
    for name, value in first.items():
        if name.endswith("/b"):
            assert (value == 0).all()
        elif name.endswith("/W") and value.size > 2000:
            assert abs(value.mean()) < 5 * 0.02 / value.size**0.5
            assert value.std() == pytest.approx(0.02, rel=0.1)
    # existing parameters stay; the seed decides the others
    create_parameters(Architecture(ngf=16, ndf=16, n_blocks=2), np.random.RandomState(2))
    assert all(np.array_equal(p.d, first[name]) for name, p in nn.get_parameters(grad_only=False).items())
    for seed, same in ((1, True), (2, False)):
        nn.clear_parameters()
        create_parameters(Architecture(ngf=16, ndf=16, n_blocks=2), np.random.RandomState(seed))
        drawn = {n: p for n, p in nn.get_parameters(grad_only=False).items() if n.endswith(("/W", "/u"))}
        assert all(np.array_equal(p.d, first[name]) is same for name, p in drawn.items())
