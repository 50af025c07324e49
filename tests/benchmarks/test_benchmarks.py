# SPDX-License-Identifier: Apache-2.0
"""The benchmarks of GPUs and of half precision, without a GPU and without PyTorch."""

from __future__ import annotations

import json
import os
import sys
from types import ModuleType

import nnabla as nn
import numpy as np
import pytest

from backend.processes import ALONE
from benchmarks import gpu, half, worker
from benchmarks.measuring import inputs, network_work

NO_MEMORY = [
    # of CUDA in NNabla, of NNabla's allocator, of PyTorch, cuDNN, Python
    RuntimeError(
        "target_specific error in alloc_impl\n/a/cuda_memory.cu:33\n"
        '(cudaMalloc(&ptr_, this->bytes())) failed with "out of memory" (cudaErrorMemoryAllocation).'
    ),
    RuntimeError("memory error in alloc\n/a/memory.cpp:44\nFailed `this->alloc_impl()`: \nCuda allocation failed."),
    RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    MemoryError(),
]
# a process that answers like those of gpu.py, with the work {work}
STAND_IN = """
import os, sys
from benchmarks.worker import Device, serve_once
def work_of(case):
    open(os.path.join(case["log"], sys.argv[1]), "a").write("started ")
    os.write(1, b"a library prints\\n")
    {work}
serve_once(lambda case: Device(Library="1.0"), work_of)
"""


def arguments(monkeypatch, *given):
    monkeypatch.setattr(sys, "argv", ["gpu.py", *map(str, given)])
    return gpu.arguments()


def stand_in(name, work):
    return [sys.executable, "-c", STAND_IN.format(work=work), name]


def test_cases_are_the_grid_of_the_command_line(monkeypatch):
    cases = gpu.cases_of(arguments(monkeypatch), gpu.SIZES)
    grid = {(w, n, t, b) for w in ("step", "generator") for n in (1, 2) for t in ("float", "half") for b in (1, 2, 4)}
    assert len(cases) == 24
    assert {(c["what"], c["n"], c["type_config"], c["batch"]) for c in cases.values()} == grid
    for case in cases.values():
        assert (case["size"], case["width"], case["blocks"]) == ([300, 200], 64, 9)
        assert (case["context"], case["tf32"], case["ins_per"]) == ("cudnn", False, case["n"])


@pytest.mark.parametrize("given", [["--context", "cpu"], ["--context", "cpu", "--quick", "--tf32"]])
def test_arguments_that_measure_no_gpu_are_refused(monkeypatch, given):
    with pytest.raises(gpu.UserError, match="GPU"):
        arguments(monkeypatch, *given)


def test_a_missing_python_is_reported_in_one_line(run_main):
    code, _, err = run_main(gpu, "--context", "cpu", "--quick", "--torch-python", "/no/python")
    assert code == 2 and "/no/python" in err and err.count("\n") == 1


class Clocked(worker.Device):
    """A device that takes a second for each piece of work, submitted in no time; its own clock runs at half speed."""

    def __init__(self):
        super().__init__(Library="1.0")
        self.now = 0.0
        self.queued = 0
        self.done = 0
        self.memory = 1000

    def perf_counter(self):
        return self.now

    def work(self):
        self.queued += 1
        self.memory = 1500

    def synchronize(self):
        self.now += self.queued
        self.done += self.queued
        self.queued = 0

    def record(self):
        return 0.5 * (self.now + self.queued)

    def used(self):
        return self.memory


def test_time_is_measured_between_synchronisations(monkeypatch):
    device = Clocked()
    monkeypatch.setattr(worker, "time", device)
    found = worker.timed({"warm_up": 5, "times": 10}, device, lambda case: device.work)
    assert device.done == 15
    assert found["seconds"] == 1 and found["device"] == 0.5 and found["host"] == 0
    assert found["memory"] == 500 and found["reserved"] is None and found["about"] == {"Library": "1.0"}


@pytest.mark.parametrize("error", NO_MEMORY, ids=str)
def test_out_of_memory_is_recognized_by_the_message(error):
    assert worker.reason(error) == worker.OUT_OF_MEMORY


def test_other_errors_are_reported_by_their_last_line():
    error = RuntimeError('target_specific error in forward\n/a.cu:1\n(f()) failed with "illegal address".')
    assert worker.reason(error) == 'RuntimeError: (f()) failed with "illegal address".'


def test_one_that_runs_out_of_memory_stops_and_the_others_continue(tmp_path):
    commands = {
        "nnabla": stand_in("nnabla", "raise RuntimeError('CUDA out of memory.')"),
        "pytorch": stand_in("pytorch", "return lambda: None"),
        "third": stand_in("third", "os._exit(3)"),
    }
    found = gpu.measure({"warm_up": 1, "times": 2, "log": str(tmp_path)}, commands, rounds=2)
    assert found["nnabla"]["failed"] == worker.OUT_OF_MEMORY and "out of memory" in found["nnabla"]["traceback"]
    assert found["third"]["failed"].endswith("exit code 3")
    assert len(found["pytorch"]["rounds"]) == 2 and found["pytorch"]["seconds"] >= 0
    starts = {path.name: path.read_text().split() for path in tmp_path.iterdir()}
    assert {name: len(of) for name, of in starts.items()} == {"nnabla": 1, "pytorch": 2, "third": 1}


def test_processes_inherit_the_environment_of_python_only(tmp_path):
    import ctypes

    ctypes.CDLL(None).setenv(b"NVIDIA_TF32_OVERRIDE", b"0", 1)
    try:
        assert "NVIDIA_TF32_OVERRIDE" not in os.environ
        command = stand_in("x", "raise ValueError(repr(os.environ.get('NVIDIA_TF32_OVERRIDE')))")
        assert gpu.ask(command, {"log": str(tmp_path)})["failed"] == "ValueError: None"
    finally:
        ctypes.CDLL(None).unsetenv(b"NVIDIA_TF32_OVERRIDE")


def figures(seconds, gigabytes, **more):
    return {"seconds": seconds, "device": seconds * 0.9, "host": seconds / 2, "memory": gigabytes * 1e9, **more}


def row(what, n, type_config, batch):
    return {"what": what, "n": n, "type_config": type_config, "batch": batch}


def cells(table):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.strip().splitlines()]


def test_table_of_steps():
    cases = {"a": row("step", 1, "float", 1), "b": row("step", 2, "half", 4), "c": row("step", 2, "half", 1)}
    found = {
        "a": {"nnabla": figures(0.15, 4.0), "pytorch": figures(0.1, 5.0, reserved=3e9)},
        "b": {"nnabla": {"failed": "out of memory"}, "pytorch": figures(0.2, 8.0, reserved=7.25e9)},
        "c": {"nnabla": figures(0.2, 8.0), "pytorch": {"failed": "RuntimeError: why"}},
    }
    head, _, *rows = cells(gpu.table(cases, found, events=False))
    assert head[3:] == ["nnabla: ms, GB", "pytorch: ms, GB, reserved GB", "nnabla / pytorch: time, memory"]
    assert rows == [
        ["1", "float", "1", "150.0, 4.00", "100.0, 5.00, 3.00", "1.50, 0.80"],
        ["2", "half", "4", "out of memory", "200.0, 8.00, 7.25", "-, -"],
        ["2", "half", "1", "200.0, 8.00", "failed: RuntimeError: why", "-, -"],
    ]


def test_table_of_the_generator_shows_images_per_second():
    cases = {"a": row("generator", 2, "half", 4)}
    head, _, first = cells(gpu.table(cases, {"a": {"nnabla": figures(0.05, 1.0)}}, events=True))
    assert head == ["instances", "precision", "batch", "nnabla: images/s, GB, device ms, host ms"]
    assert first == ["2", "half", "4", "80.0, 1.00, 45.0, 25.0"]


def test_medians_are_over_rounds():
    answers = [figures(s, 1.0, reserved=None) for s in (0.3, 0.1, 0.2)]
    found = gpu.medians(answers)
    assert found["seconds"] == 0.2 and found["rounds"] == [0.3, 0.1, 0.2] and "reserved" not in found


def test_inputs_are_pictures_with_their_own_masks():
    case = {"what": "step", "size": [32, 24], "width": 2, "blocks": 0, "n": 2, "ins_per": 2, "batch": 3}
    x, a, membership = (v.d for v in inputs(case))
    assert x.shape == (3, 3, 32, 24) and a.shape == (6, 1, 32, 24)
    assert len({picture.tobytes() for picture in x}) == 3 and set(np.unique(a)) == {-1, 1}
    np.testing.assert_array_equal(membership, [[1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1]])
    losses = network_work(case)().read(ALONE)
    assert len(losses) == 10 and np.isfinite(list(losses.values())).all()


def test_figures_of_nnablas_gpu_are_converted(monkeypatch):
    class Event:
        def __init__(self, device_id):
            assert device_id == 1

        def record(self):
            self.at = 250.0 * len(calls)
            calls.append("recorded")

        def elapsed(self, start):
            return self.at - start.at

    calls = []
    extension, cuda, init = (ModuleType(f"nnabla_ext{name}") for name in ("", ".cuda", ".cuda.init"))
    extension.cuda, cuda.init, init.Event = cuda, init, Event
    cuda.__cuda_version__, cuda.__cudnn_version__, cuda.synchronize = "12.0", "8.9", calls.append
    init.get_device_memory_size = lambda: [3, 10]
    for module in (extension, cuda, init):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    device = gpu.Gpu("1", NNabla="1.39")
    assert calls == ["1"] and device.used() == 7
    assert device.about == {"NNabla": "1.39", "CUDA": "12.0", "cuDNN": "8.9"}
    first, last = device.record(), device.record()
    assert device.elapsed(first, last) == 0.25


def test_the_whole_command_on_a_cpu(run_main, monkeypatch, tmp_path):
    def ask(command, case):
        nn.clear_parameters()  # like a fresh process
        return json.loads(json.dumps(worker.timed(case, gpu.device_of(case), network_work)))

    monkeypatch.setattr(gpu, "ask", ask)
    code, out, _ = run_main(gpu, "--context", "cpu", "--quick", "--events", "--output", tmp_path)
    assert code == 0
    written = json.loads((tmp_path / "gpu.json").read_text())
    assert "none" in written["about"]["GPU"] and "NNabla" in written["about"]["nnabla"]
    assert set(written["found"]) == set(written["cases"]) and len(written["cases"]) == 4
    assert all(of["nnabla"]["seconds"] > 0 for of in written["found"].values())
    assert "GPU: none" in out and "Training step, 32x24" in out and "Generator, 32x24" in out


# --- half.py ----------------------------------------------------------------------------------------------------------


def test_emulated_convolutions_are_those_of_half_numbers():
    """Inputs, weights, results and gradients in both directions are half-precision numbers."""
    random = np.random.default_rng(0)
    values = [random.normal(size=shape).astype(np.float32) for shape in ((1, 3, 4, 5), (2, 3, 1, 1), (2,))]
    x, w, b = (nn.Variable.from_numpy_array(v, need_grad=True) for v in values)
    for variable in (x, w, b):
        variable.grad.zero()
    y = half.Emulation().convolution(x, w, b)
    y.forward()
    gradient = random.normal(size=y.shape).astype(np.float32) * 1e-3
    y.backward(nn.NdArray.from_numpy_array(gradient))
    x16, w16, b16, dy16 = (v.astype(np.float16).astype(np.float64) for v in (*values, gradient))
    want = np.einsum("oi,nihw->nohw", w16[:, :, 0, 0], x16) + b16[:, None, None]
    wanted = {"y": want, "dx": np.einsum("oi,nohw->nihw", w16[:, :, 0, 0], dy16), "db": dy16.sum(axis=(0, 2, 3))}
    for name, found in (("y", y.d), ("dx", x.g), ("db", b.g)):
        np.testing.assert_array_equal(found, found.astype(np.float16))
        np.testing.assert_allclose(found, wanted[name], rtol=1e-3, atol=1e-6, err_msg=name)
    assert half.rounded(np.array([7e4, 1e-8], np.float32)).tolist() == [np.inf, 0]


def test_differences_of_losses():
    names = "generator_loss_x", "reconstruction_loss_x"
    one, other = ([dict(zip(names, row)) for row in rows] for rows in ([(1, 2), (2, 2)], [(1.04, 1), (2.4, 2)]))
    assert half.differences(one, other, ["generator"]) == ["50 %", "12.00 %", "20.00 %", "14.67 %"]
    assert half.differences(one, other, ["reconstruction"]) == ["50 %", "25.00 %", "50.00 %", "25.00 %"]
    assert half.by_name(other) == {"generator_loss_x": [1.04, 2.4], "reconstruction_loss_x": [1.0, 2.0]}
