# SPDX-License-Identifier: Apache-2.0
"""The differences between GPU and CPU, and half precision, on a pretended GPU; see pretended_gpu.py.

Where there is a real one, test_parity.py and test_models.py run on it.
"""

from __future__ import annotations

import ast
import ctypes
import json
from pathlib import Path

import nnabla as nn
import nnabla.functions as F
import numpy as np
import pytest

import train
from args import train_args
from backend import arrays, kernels, layers, pinned_uploads
from backend.context import set_context
from backend.pinned_uploads import Uploader
from backend.processes import ALONE
from common.errors import UserError
from data.loader import DataIterator
from datasets import generate_shapes_dataset as shapes
from instagan import InstaGAN
from masks.segmenter import Segmenter, SegmenterSettings
from metrics.classifier import Classifier
from models import Architecture, generator
from tests.helpers import ROOT
from tests.helpers.pretended_gpu import pretend
from training import checkpoint
from training.divergence import Diverged
from training.graphs import build_discriminator_graph, build_generator_graph
from training.loss_scale import INTERVAL, START, LossScale
from training.settings import Settings
from training.step_losses import StepLosses
from translation.sequence import Batch

SIZES = "--loadSizeH 12 --loadSizeW 16 --fineSizeH 12 --fineSizeW 16".split()
SMALL = [*SIZES, *"--n-layers-D 1 --ngf 2 --ndf 2 --n-blocks 0 --pool-size 3 --max-epoch 3 --no-flip".split()]
# evaluations have their own tests
SMALL += "--evaluate-interval 0".split()
EPOCH = 4  # iterations

pytestmark = pytest.mark.usefixtures("blank_curves")


@pytest.fixture()
def gpu(monkeypatch):
    pretend(monkeypatch)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "shapes"
    shapes.generate(root, height=24, width=24, train=EPOCH, test=1, max_instances=3, seed=5)
    return root


def arguments(data, folder, *more):
    return list(map(str, ["--dataroot", data, *SMALL, "-m", folder, *more]))


def series(folder):
    return {path.name: np.loadtxt(path, ndmin=2) for path in folder.glob("*.series.txt")}


# --- where to compute -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("gpu")
def test_a_gpu_is_no_cpu():
    """A GPU's context names the CPU too, as a fallback; this must not select oneDNN's kernels."""
    assert arrays.on_cpu()
    assert set_context("auto", "1") == "context: cudnn, device 1"
    assert "cpu:float" in nn.get_current_context().backend and not arrays.on_cpu()
    assert kernels.configure("auto") == "" and not kernels.active()
    with pytest.raises(UserError, match="leave it out on a GPU"):
        kernels.configure("onednn")


@pytest.mark.usefixtures("gpu", "clean_nnabla")
@pytest.mark.parametrize("type_config", ["float", "half"])
def test_all_functions_of_training_are_a_gpu_s(type_config):
    """Operators such as x * y and x[2:] too: on the first GPU that this ran on they were the CPU's."""
    set_context("cudnn", type_config=type_config)
    settings = Settings.from_args(train_args("", SMALL))
    InstaGAN(settings)
    seen = {}
    generators = build_generator_graph(settings, "x", 1, 2, 1)
    discriminator = build_discriminator_graph(settings, "x", 1, 2)
    for loss in (generators.total, discriminator.loss):
        loss.visit(lambda function: seen.setdefault(function.info.type_name, set()).add(function.context.backend[0]))
    assert {"Mul2", "Slice", "AddScalar", "Convolution"} <= set(seen)
    backends = set().union(*seen.values())
    assert backends == ({"cudnn:float"} if type_config == "float" else {"cudnn:float", "cudnn:half"}), seen


@pytest.mark.usefixtures("gpu")
def test_its_instance_normalization_is_ours():
    """Forward and backward are correct; NNabla's CPU functions stand in for cuDNN's."""
    random = np.random.default_rng(0)
    values, gradient = (random.normal(1, 2, (2, 3, 12, 16)).astype(np.float32) for _ in range(2))
    found = {}
    for name in ("cpu", "cudnn"):
        set_context(name)
        x = nn.Variable.from_numpy_array(values, need_grad=True)
        y = layers.instance_normalization(x)
        x.grad.zero()
        y.forward(clear_no_need_grad=True)
        y.backward(nn.NdArray.from_numpy_array(gradient), clear_buffer=False)
        found[name] = y.d.copy(), x.g.copy()
    for ours, theirs in zip(found["cudnn"], found["cpu"]):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    want = (values - values.mean(axis=(2, 3), keepdims=True)) / np.sqrt(values.var(axis=(2, 3), keepdims=True) + 1e-5)
    np.testing.assert_allclose(found["cpu"][0], want, atol=1e-4)


@pytest.mark.parametrize("flags", [["--tf32"], ["--cudnn-algorithm", "fastest"]])
def test_flags_of_gpus_on_a_cpu_are_told_to_do_nothing(data, tmp_path, run_main, flags):
    """They are not refused: a run that has begun on a GPU may go on without one."""
    code, out, err = run_main(train, *arguments(data, tmp_path, "-c", "cpu", "--max-iter", 1, *flags))
    assert code == 0 and "--tf32 and --cudnn-algorithm change nothing on a CPU" in out, err


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("", {}),
        ("--tf32", {"NNABLA_CUDA_ALLOW_TF32": "1"}),
        ("--cudnn-algorithm fastest", {"NNABLA_CUDNN_ALGORITHM_BY_HEURISTIC": "0"}),
        ("--cudnn-algorithm deterministic --tf32", {"NNABLA_CUDNN_DETERMINISTIC": "1", "NNABLA_CUDA_ALLOW_TF32": "1"}),
    ],
)
def test_flags_reach_the_extension(data, tmp_path, run_main, monkeypatch, flags, expected):
    """The extension reads environment variables when it is imported, so they must be set before."""
    seen = []
    names = ("NNABLA_CUDA_ALLOW_TF32", "NNABLA_CUDNN_ALGORITHM_BY_HEURISTIC", "NNABLA_CUDNN_DETERMINISTIC")
    for name in names:
        monkeypatch.setenv(name, "as it was")
        monkeypatch.delenv(name)
    environment = train.context.os.environ

    def look(device_id):
        seen.append({name: environment[name] for name in names if name in environment})
        return "none"

    monkeypatch.setattr(train.context, "_cuda_problem", look)
    code, _, err = run_main(train, *arguments(data, tmp_path, "-c", "cudnn", *flags.split()))
    assert code == 2 and "does not work here: none" in err and seen == [expected]


# --- training without waiting -----------------------------------------------------------------------------------------


@pytest.fixture()
def reads(monkeypatch):
    """The iteration in which each array was read, while training."""
    found, read, step = [], arrays.read, InstaGAN.step
    iteration = [0]

    def counted(array):
        found.append(iteration[0])
        return read(array)

    def noting(self, batches, shares):
        iteration[0] += 1
        return step(self, batches, shares)

    monkeypatch.setattr(arrays, "read", counted)
    monkeypatch.setattr(InstaGAN, "step", noting)
    return found


@pytest.mark.usefixtures("gpu")
def test_training_waits_for_the_device_at_log_steps_only(data, tmp_path, run_main, reads):
    """The losses are those of a CPU, where each is read at once."""
    course = ["--log-step", 3, "--save-interval", 9, "--save-image-interval", 9]
    assert run_main(train, *arguments(data, tmp_path / "gpu", "-c", "cudnn", *course))[0] == 0
    # 0: parameters are read before the first iteration, for the size of checkpoints
    assert set(reads) == {0, 3, 6, 9, 12}
    reads.clear()
    assert run_main(train, *arguments(data, tmp_path / "cpu", "-c", "cpu", "--cpu-kernels", "nnabla", *course))[0] == 0
    assert set(reads) >= set(range(13, 25))
    ours, theirs = series(tmp_path / "gpu"), series(tmp_path / "cpu")
    assert len(ours) == 10
    for name, rows in theirs.items():
        assert rows[:, 0].tolist() == [2, 5, 8, 11]
        np.testing.assert_array_equal(ours[name][:, 0], rows[:, 0])
        # their instance normalizations round differently, so losses differ after the first update
        np.testing.assert_allclose(ours[name][0], rows[0], rtol=1e-3, err_msg=name)
        np.testing.assert_allclose(ours[name], rows, rtol=5e-2, err_msg=name)


def test_nothing_in_an_iteration_is_read_but_by_that_function():
    """Variables and arrays have attributes that read them; the modules of an iteration do not use these."""
    used = set()
    modules = ["instagan", "losses", "translation/sequence", "backend/precision", "backend/arrays"]
    modules += ["training/graphs", "training/image_pool", "training/loss_scale", "training/step_losses"]
    for name in modules:
        for node in ast.walk(ast.parse((ROOT / f"{name}.py").read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                attributes = {(a.attr, type(a.ctx)) for a in ast.walk(node) if isinstance(a, ast.Attribute)}
                if attributes & {("d", ast.Load), ("g", ast.Load), ("get_data", ast.Load)}:
                    used.add((name, node.name))
    assert used == {("backend/arrays", "read")}


@pytest.mark.usefixtures("gpu")
def test_a_divergence_is_put_down_to_its_own_iteration(data, tmp_path, run_main, monkeypatch):
    """The divergence is noticed only at the next log step."""
    step, add, done = InstaGAN.step, StepLosses.add, []

    def noting(self, batches, shares):
        done.append(self)
        return step(self, batches, shares)

    def spoiling(self, name, share, value):
        if len(done) == 5 and name == "identity_mapping_loss_x":
            value.data = np.nan
        add(self, name, share, value)

    monkeypatch.setattr(InstaGAN, "step", noting)
    monkeypatch.setattr(StepLosses, "add", spoiling)
    shown = []
    take = DataIterator.next
    monkeypatch.setattr(DataIterator, "next", lambda self: shown.append(take(self)) or shown[-1])
    code, _, err = run_main(train, *arguments(data, tmp_path, "-c", "cudnn", "--log-step", 4, "--save-interval", 9))
    assert code == 2 and len(done) == 8 and "identity_mapping_loss_x is nan in iteration 4" in err
    record = json.loads((tmp_path / "diverged_000004.json").read_text())
    for samples, domain in zip(shown[8:10], "AB"):
        assert [Path(files[0]).stem for files in record["batch"][domain]] == [sample.name for sample in samples]


# --- uploads ----------------------------------------------------------------------------------------------------------


class SlowCuda:
    """The functions of CUDA's runtime that are used, with slow copies.

    Copies are done once the event of the last one has been queried often enough; until then their sources must not
    change.
    """

    def __init__(self):
        self.pending, self.alive, self.patience, self.last_error = [], [], 0, 0

    def cudaSetDevice(self, device):
        self.device = device
        return 0

    def cudaHostAlloc(self, pointer, size, flags):
        self.alive.append(ctypes.create_string_buffer(size.value))
        pointer._obj.value = ctypes.addressof(self.alive[-1])
        return 0

    def cudaEventCreateWithFlags(self, pointer, flags):
        pointer._obj.value = len(self.alive)
        return 0

    def cudaMemcpyAsync(self, target, source, count, kind, stream):
        assert kind == 1 and stream is None
        self.pending.append([target, source, count.value, None])
        return 0

    def cudaEventRecord(self, event, stream):
        self.pending[-1][3] = event.value
        return 0

    def cudaEventQuery(self, event):
        if self.patience:
            self.patience -= 1
            self.last_error = 600
            return 600
        self.finish()
        return 0

    def cudaGetLastError(self):
        error, self.last_error = self.last_error, 0
        return error

    def finish(self):
        for target, source, count, event in self.pending:
            assert event is not None
            ctypes.memmove(target, source, count)
        self.pending.clear()


def test_what_is_uploaded_arrives_whatever_comes_after_it():
    """A buffer is used again, but only after its copy is done."""
    cuda, random = SlowCuda(), np.random.default_rng(0)
    uploader, given = Uploader(cuda, 3), []
    cuda.patience = 5
    for i in range(9):
        values = random.normal(size=(1, 3, 20, 30 + i)).astype(np.float32)
        given.append((values.copy(), uploader.upload(values)))
        values[:] = 0
    assert len(cuda.alive) < 9, "no buffer was used twice"
    assert len(cuda.alive) > 2, "copies that were not done were overwritten"
    cuda.finish()
    for values, array in given:
        np.testing.assert_array_equal(arrays.read(array), values)
    assert cuda.device == 3
    # a copy that is not done yet must not leave an error that the next kernel would report
    assert cuda.patience == 0 and cuda.last_error == 0


def test_errors_of_cuda_are_not_ignored():
    cuda = SlowCuda()
    cuda.cudaMemcpyAsync = lambda *_: 719
    with pytest.raises(RuntimeError, match="cudaMemcpyAsync fails with error 719"):
        Uploader(cuda, 0).upload(np.zeros((2, 2), np.float32))
    cuda = SlowCuda()
    uploader = Uploader(cuda, 0)
    uploader.upload(np.zeros((2, 2), np.float32))
    cuda.cudaEventQuery = lambda _: 719
    with pytest.raises(RuntimeError, match="cudaEventQuery fails with error 719"):
        uploader.upload(np.zeros((2, 2), np.float32))


@pytest.mark.usefixtures("gpu")
def test_uploads_to_a_gpu_are_pinned(monkeypatch):
    cuda = SlowCuda()
    monkeypatch.setattr(pinned_uploads, "uploader", lambda device: Uploader(cuda, int(device)))
    values = np.arange(6, dtype=np.float64).reshape(2, 3)
    arrays.upload(values)
    assert not cuda.pending
    set_context("cudnn", "2")
    array = arrays.upload(values)
    assert len(cuda.pending) == 1 and cuda.device == 2
    cuda.finish()
    np.testing.assert_array_equal(arrays.read(array), values)


# --- half precision ---------------------------------------------------------------------------------------------------


@pytest.fixture()
def half():
    set_context("cpu", type_config="half")
    kernels.configure("nnabla")


def in_half(variable):
    """Return whether a variable was computed in half precision."""
    return variable.data.dtype == np.float16


@pytest.mark.usefixtures("half")
def test_layers_are_half_and_the_rest_is_not():
    shapes = (2, 3, 8, 8), (4, 3, 3, 3), (4,)
    x, w, b = (nn.Variable.from_numpy_array(np.full(shape, 0.1, np.float32)) for shape in shapes)
    made = {
        "convolution": layers.convolution(x, w, b, reflect=1),
        "deconvolution": layers.convolution(x, nn.Variable((3, 4, 3, 3)), b, stride=2, pad=1, transposed=True),
        "relu": layers.convolution(x, w, b, normalize=True, activation="relu"),
        "leaky_relu": layers.convolution(x, w, b, activation="leaky_relu"),
        "normalization": layers.instance_normalization(layers.convolution(x, w, b)),
        "tanh": layers.convolution(x, w, b, activation="tanh"),
        "spectral normalization": layers.spectral_normalization(w, nn.Variable((1, 4))),
        "other functions": F.mean(layers.convolution(x, w, b)),
    }
    nn.forward_all(list(made.values()))
    single = {"normalization", "tanh", "spectral normalization", "other functions"}
    assert {name for name, variable in made.items() if not in_half(variable)} == single


@pytest.mark.usefixtures("gpu")
def test_normalization_on_a_gpu_is_half_too():
    set_context("cudnn", type_config="half")
    y = layers.instance_normalization(nn.Variable.from_numpy_array(np.ones((2, 3, 8, 8), np.float32)))
    y.forward()
    assert in_half(y)


@pytest.mark.usefixtures("half")
def test_statistics_do_not_overflow():
    """The square of 2000 and the sum of a channel's values are too large for half precision."""
    values = np.random.default_rng(0).uniform(0, 2000, (1, 2, 16, 16)).astype(np.float16).astype(np.float32)
    x = layers.activate(nn.Variable.from_numpy_array(values), "relu")
    y = layers.instance_normalization(x)
    y.forward()
    assert in_half(x)
    want = (values - values.mean(axis=(2, 3), keepdims=True)) / values.std(axis=(2, 3), keepdims=True)
    np.testing.assert_allclose(y.d, want, atol=1e-3)


def scales(model):
    """The loss scale of each optimizer."""
    return [optimizer.scale for optimizer in model.optimizers.values()]


def solvers(model):
    """Adam of each network."""
    return [solver for optimizer in model.optimizers.values() for solver in optimizer.solvers.values()]


def model_and_batches(*more):
    model = InstaGAN(Settings.from_args(train_args("", [*SMALL, *map(str, more)])))
    random = np.random.default_rng(0)
    # with weights of 0.02, most gradients of such a small network are below the range of half precision
    for name, variable in nn.get_parameters().items():
        if name.endswith("/W"):
            variable.d = random.normal(0, 0.3, variable.shape)
    batches = {}
    for domain in "xy":
        masks = -np.ones((3, 12, 16), np.float32)
        masks[0, :5, :9] = masks[1, 6:, 8:] = masks[2, 3:9, 3:7] = 1
        batches[domain] = Batch([random.uniform(-1, 1, (3, 12, 16))], [masks], model.settings.ins_per)
    return model, batches


def test_losses_in_half_are_those_in_float(clean_nnabla):
    """The losses and the updates of two iterations with two passes are those of float32."""
    found = []
    for type_config in ("float", "half"):
        nn.clear_parameters()
        set_context("cpu", type_config=type_config)
        model, batches = model_and_batches()
        found.append([model.step(batches).read(ALONE) for _ in range(2)])
        assert all(v.data.dtype == np.float32 for v in nn.get_parameters(grad_only=False).values())
    for one, other, tolerance in zip(*found, (0.01, 0.05)):
        assert len(one) == 10 and other == pytest.approx(one, rel=tolerance)
    assert {scale.value for scale in scales(model)} == {START}
    assert all(scale.clean == 4 for scale in scales(model)), "two passes in each of two iterations"


@pytest.mark.usefixtures("half")
def test_an_overflow_halves_the_scale_and_is_done_again():
    model, batches = model_and_batches("--background", "network")
    for scale in scales(model):
        scale.value = 2.0**18
    first = model.step(batches).read(ALONE)
    assert all(np.isfinite(v).all() for v in model.parameters().values())
    assert all(scale.clean >= 1 for scale in scales(model))
    assert 1 <= model.optimizers["gen"].scale.value < 2**18
    # nothing is left out: each solver has had its update in both passes
    assert {s.t for solver in solvers(model) for s in solver.get_states().values()} == {2}
    nn.clear_parameters()
    again, batches = model_and_batches("--background", "network")
    assert again.step(batches).read(ALONE) == pytest.approx(first, rel=0.02)


@pytest.mark.usefixtures("half")
def test_the_scale_does_not_change_the_update():
    moved, means = [], []
    for value in (2.0**10, 2.0**12):
        nn.clear_parameters()
        model, batches = model_and_batches()
        for scale in scales(model):
            scale.value = value
        before = model.parameters()
        model.step(batches)
        assert {scale.value for scale in scales(model)} == {value}
        after = model.parameters()
        moved.append(np.concatenate([(after[n] - before[n]).ravel() for n in after if n.endswith("/W")]))
        # Adam's steps would not show a factor that was left in the gradients; its means of them do
        states = [state.pstate["mean"] for solver in solvers(model) for state in solver.get_states().values()]
        means.append(np.array([np.abs(mean.d).mean() for mean in states]))
    assert np.abs(moved[0]).max() > 1e-4
    # signs of gradients near zero are rounding's, and Adam's first updates are signs
    assert np.mean(np.abs(moved[0] - moved[1]) > 2e-5) < 0.05
    large = means[0] > 1e-4
    assert large.sum() > 10
    np.testing.assert_allclose(means[1][large], means[0][large], rtol=0.2)


@pytest.mark.usefixtures("half")
def test_gradients_that_no_scale_makes_finite_are_a_divergence():
    model, batches = model_and_batches()
    model.optimizers["gen"].scale.value = 2.0
    next(iter(model.optimizers["gen"].parameters["gen_x2y"].values())).d = np.nan
    with pytest.raises(Diverged, match="^gen: gradients are NaN or infinite at every loss scale"):
        model.step(batches)


def test_such_a_divergence_is_put_down_to_its_iteration(data, tmp_path, run_main, monkeypatch):
    unscale, asked = LossScale.unscale_and_adapt, []

    def failing(self, *arguments):
        asked.append(self)
        if len(asked) > 4:
            raise ArithmeticError("gradients are NaN")
        return unscale(self, *arguments)

    monkeypatch.setattr(LossScale, "unscale_and_adapt", failing)
    code, _, err = run_main(train, *arguments(data, tmp_path, "-c", "cpu", "-t", "half", "--ins-max", 1))
    assert code == 2 and "gen: gradients are NaN in iteration 1 (" in err
    assert (tmp_path / "diverged_000001.json").is_file()


@pytest.mark.usefixtures("half")
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_one_number_that_is_none_is_an_overflow(value):
    gradients = [np.ones((40, 50), np.float32), np.full(7, 6e4, np.float16)]
    assert LossScale().unscale_and_adapt([], [nn.NdArray.from_numpy_array(g) for g in gradients])
    gradients[0][30, 20] = value
    scale = LossScale()
    scale.clean = 5
    assert not scale.unscale_and_adapt([], [nn.NdArray.from_numpy_array(g) for g in gradients])
    assert (scale.value, scale.clean) == (START / 2, 0)


@pytest.mark.usefixtures("half")
def test_the_scale_grows_after_clean_updates():
    scale = LossScale()
    scale.clean, gradients = INTERVAL - 2, [nn.NdArray.from_numpy_array(np.ones(3))]
    assert scale.unscale_and_adapt([], gradients) and scale.value == START
    assert scale.unscale_and_adapt([], gradients) and (scale.value, scale.clean) == (2 * START, 0)


def test_in_float_there_is_no_scale():
    scale = LossScale()
    assert scale.unscale_and_adapt([None], [None]) and scale.value == 1 and scale.clean == 0


def test_a_run_in_half_goes_on_as_it_was(data, tmp_path, run_main):
    """The checkpoint holds the loss scales and their numbers of clean updates."""
    course = ["-c", "cpu", "-t", "half", "--ins-max", 1, "--log-step", 1, "--save-interval", 9]
    code, out, err = run_main(train, *arguments(data, tmp_path / "whole", "--max-iter", 2, *course))
    assert code == 0, err
    assert "layers in half precision: a hundred times slower" in out
    assert run_main(train, *arguments(data, tmp_path / "parts", "--max-iter", 1, *course))[0] == 0
    _, _, state = checkpoint.load_newest(tmp_path / "parts")
    assert set(state["model"]["scales"]) == {"gen", "dis_x", "dis_y"}
    assert all(scale["clean"] == 1 for scale in state["model"]["scales"].values())
    assert run_main(train, "-m", tmp_path / "parts", "--resume", "--max-iter", 2)[0] == 0
    found = []
    for folder in ("whole", "parts"):
        _, held, state = checkpoint.load_newest(tmp_path / folder)
        found.append(({name: array.tobytes() for name, array in held.items()}, state["model"]))
    assert found[0] == found[1]


def test_half_without_a_gpu_is_refused_unless_the_cpu_is_asked_for(data, tmp_path, run_main, monkeypatch):
    monkeypatch.setattr(train.context, "_cuda_problem", lambda device_id: "there is none")
    code, _, err = run_main(train, *arguments(data, tmp_path, "-t", "half"))
    assert code == 2 and "half precision needs a GPU" in err and "--type-config float" in err
    code, _, err = run_main(train, *arguments(data, tmp_path, "-t", "half", "-c", "cpu", "--cpu-kernels", "onednn"))
    assert code == 2 and "onednn computes in float32" in err


def types_in(variable):
    """The types of the outputs of all functions that lead to a variable."""
    found = set()
    variable.forward()
    variable.visit(lambda function: found.update(output.data.dtype for output in function.outputs))
    return found


@pytest.mark.usefixtures("half")
def test_networks_that_have_no_loss_scale_stay_in_float():
    x, a = (nn.Variable.from_numpy_array(np.full((1, c, 12, 16), 0.1, np.float32)) for c in (3, 1))
    owner = nn.Variable.from_numpy_array(np.ones((1, 1), np.float32))
    assert np.dtype("float16") in types_in(generator(x, a, owner, Architecture(ngf=2, n_blocks=0))[0])
    assert types_in(Classifier("classifier")._score) == {np.dtype("float32")}
    assert types_in(Segmenter(SegmenterSettings((16, 16), (True, True)), (2, 2)).graph(1)[1]) == {np.dtype("float32")}
