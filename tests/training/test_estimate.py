# SPDX-License-Identifier: Apache-2.0
"""The estimate of time and memory: its counts against NNabla's own graphs, and what it says."""

from __future__ import annotations

import nnabla as nn
import numpy as np
import pytest

from args import train_args
from backend import device_memory, kernels
from data.loader import Sample
from instagan import InstaGAN
from tests.helpers import ROOT
from training import estimate
from training.estimate import DAY, Estimate, added_bytes, duration, kept_bytes
from training.graphs import (
    DiscriminatorGraph,
    GeneratorGraph,
    build_discriminator_graph,
    build_generator_graph,
)
from training.settings import Settings
from training.work import discriminator_pass_work, generator_pass_work, iteration_work
from translation.sequence import Batch

HEIGHT, WIDTH = 24, 32
SIZE = f"--fineSizeH {HEIGHT} --fineSizeW {WIDTH} --ngf 6 --ndf 5 --n-blocks 2 --n-layers-D 2".split()
ARCHITECTURES = {
    "instance": [],
    "batch": ["--norm", "batch"],
    "another": "--ngf 4 --ndf 2 --n-blocks 0 --n-layers-D 1".split(),
    "deep": "--fineSizeH 100 --loadSizeH 100 --fineSizeW 100 --n-layers-D 5 --ndf 1".split(),
    "without masks": ["--ins-max", "0"],
}


def settings_of(*arguments):
    return Settings.from_args(train_args("", [*SIZE, *map(str, arguments)]))


def visited_work(loss):
    """The multiply-adds of the convolutions in a graph of NNabla's own functions: forward, and for each gradient."""
    work = []

    def visit(function):
        if function.info.type_name in ("Convolution", "Deconvolution"):
            x, w = function.inputs[:2]
            # each weight is used at each position of the smaller side
            positions = function.outputs[0] if function.info.type_name == "Convolution" else x
            products = w.size * positions.shape[0] * positions.shape[2] * positions.shape[3]
            work.append(products * (1 + x.need_grad + w.need_grad))

    loss.visit(visit)
    assert work
    return sum(work)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize(("masks", "earlier"), [(1, 0), (2, 3)])
def test_the_work_is_that_of_the_convolutions_in_the_graphs(name, masks, earlier):
    settings = settings_of(*ARCHITECTURES[name])
    if not settings.ins_per:
        masks, earlier = 1, 0
    graph = build_generator_graph(settings, "x", 1, masks, earlier)
    expected = visited_work(graph.total)
    if settings.architecture.norm == "batch" and earlier:
        # batch normalization takes earlier masks through D together with the others, and so through its gradients
        assert 0.9 * expected < generator_pass_work(settings, masks, earlier) < expected
    else:
        assert generator_pass_work(settings, masks, earlier) == expected
    loss = build_discriminator_graph(settings, "y", 1, masks).loss
    assert discriminator_pass_work(settings, masks) == visited_work(loss)


def test_the_work_of_a_single_convolution_by_hand():
    """A generator without anything in it: 1 x 1 pixels at a quarter of the size, each number worked out."""
    settings = settings_of(*"--ngf 2 --ndf 1 --n-blocks 0 --n-layers-D 1 --fineSizeH 8 --fineSizeW 8".split())
    # one layer 3 to 1 channels, 4x4 kernel, at 4x4 positions; no gradient of its input
    picture = 2 * 16 * 3 * 16
    mask = 2 * 16 * 1 * 16
    # 2 to 4 channels at 3x3 positions, 4 to 1 at 2x2
    classifier = 3 * (16 * 2 * 4 * 9 + 16 * 4 * 1 * 4)
    assert discriminator_pass_work(settings, 3) == picture + 3 * mask + classifier


def sample(count):
    masks = -np.ones((count, HEIGHT, WIDTH), np.float32)
    for i in range(count):
        masks[i, i : i + 9, 2 : 20 - i] = 1
    return Sample("a", np.random.default_rng(count).uniform(-1, 1, (3, HEIGHT, WIDTH)).astype(np.float32), masks)


@pytest.mark.parametrize(
    ("counts", "arguments"),
    [((1, 1), []), ((5, 2), []), ((2, 3), ["--batch-size", 2]), ((0, 0), ["--ins-max", 0])],
    ids=str,
)
def test_the_work_of_an_iteration_is_that_of_the_graphs_it_runs(monkeypatch, counts, arguments):
    done = []
    for kind, loss in ((GeneratorGraph, "total"), (DiscriminatorGraph, "loss")):
        original = kind.run

        def run(graph, *inputs, original=original, loss=loss):
            done.append(visited_work(getattr(graph, loss)))
            original(graph, *inputs)

        monkeypatch.setattr(kind, "run", run)
    settings = settings_of(*"--ins-max 5 --ngf 2 --ndf 2 --n-blocks 1".split(), *arguments)
    model = InstaGAN(settings)
    samples = {domain: [sample(count)] * settings.batch_size for domain, count in zip("xy", counts)}
    model.step({domain: Batch.from_samples(some, settings.ins_per) for domain, some in samples.items()})
    assert iteration_work(settings, {domain: [count] for domain, count in zip("xy", counts)}) == sum(done)


def test_the_work_is_the_mean_over_the_pictures():
    settings = settings_of()
    one, three = (iteration_work(settings, {"x": [count], "y": [2]}) for count in (1, 3))
    assert iteration_work(settings, {"x": [1, 3, 3, 1], "y": [2]}) == pytest.approx((one + three) / 2)
    one, three = (iteration_work(settings, {"x": [4], "y": [count]}) for count in (1, 3))
    assert iteration_work(settings, {"x": [4], "y": [1, 3]}) == pytest.approx((one + three) / 2)


def test_the_speed_is_the_work_of_the_blocks_over_their_time(monkeypatch):
    measured = []

    def seconds(shape, run_both):
        measured.append((shape, 2 * visited_work(estimate._residual_block(shape))))
        return 0.01

    monkeypatch.setattr(estimate, "_seconds_of_two_blocks", seconds)
    speed = estimate.multiply_adds_per_second(settings_of(), kernels.in_turn)
    # a quarter of 24x32, and 4 times the first layer's channels
    assert [shape for shape, _ in measured] == [(1, 24, 4, 8), (1, 24, 6, 8)]
    assert speed == measured[-1][1] / 0.01


@pytest.mark.parametrize("arguments", [[], ["--background", "network"], ["--ins-max", 0]], ids=str)
def test_what_is_kept_is_what_nnabla_does_not_clear(on_backend, arguments):
    if on_backend == "cudnn":
        pytest.skip("NNabla does not report what it clears on a GPU")
    settings = settings_of(*arguments)
    masks = 2 if settings.ins_per else 1
    graph = build_generator_graph(settings, "x", 1, masks, 0)
    graph.x.d = np.random.default_rng(0).uniform(-1, 1, graph.x.shape)
    graph.a.masks.d = np.random.default_rng(1).choice([-1, 1], graph.a.masks.shape)
    graph.a.membership.d = 1
    for variable in (*graph.translated, *graph.losses.values()):
        variable.persistent = False
    graph.total.forward(clear_no_need_grad=True)
    left = {}

    def visit(function):
        for variable in function.outputs:
            if not variable.data.clear_called:
                left[variable.data] = 4 * variable.size

    graph.total.visit(visit)
    # some small tensors stay that no gradient needs
    assert 0.9 * sum(left.values()) < kept_bytes(graph.total) <= sum(left.values()) + 4 * HEIGHT * WIDTH * 3


def test_memory_grows_with_what_the_warning_tells_to_lower():
    counts = {"x": [1, 3], "y": [2]}

    def memory(*arguments):
        nn.clear_parameters()
        return added_bytes(settings_of(*arguments), counts, 1)

    usual = memory()
    for less in ("--fineSizeH 12 --n-layers-D 1", "--ins-per 1", "--ngf 4"):
        assert memory(*less.split()) < usual, less
    assert memory("--batch-size", 2) > usual


def test_two_domains_at_once_take_twice_the_memory():
    counts = {"x": [1], "y": [1]}
    settings = settings_of("--pool-size", 0)
    both, one = (added_bytes(settings, counts, lanes) for lanes in (2, 1))
    assert both - one == kept_bytes(build_generator_graph(settings, "x", 1, 1, 0).total)
    assert kernels.lanes(kernels.in_turn) == 1


def test_an_estimate_changes_nothing_in_the_training():
    kernels.configure("auto")
    results = []
    for with_estimate in (False, True):
        nn.clear_parameters()
        model = InstaGAN(settings_of())
        if with_estimate:
            done = estimate.estimate(model.settings, {"x": [1], "y": [1, 2]}, model.run_both)
            assert 0 < done.seconds < 60 and done.adds > 0 and done.used > 1 << 20
        batches = {domain: Batch.from_samples([sample(2)], 2) for domain in "xy"}
        losses = model.step(batches).read(model.processes)
        results.append((losses, {name: value.tobytes() for name, value in model.parameters().items()}))
    assert results[0] == results[1]


# --- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.04 seconds"), (24, "24 seconds"), (89, "89 seconds"), (90, "1.5 minutes"), (2400, "40 minutes")]
    + [(5400, "1.5 hours"), (36000, "10 hours"), (70 * DAY, "70 days")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_an_estimate_is_one_line():
    (line,) = Estimate(0.8, 400 << 20, 200 << 20, None).lines(3000, on_cpu=True)
    assert line == "about 0.8 s an iteration and 0.6 GB of memory on this CPU: 3000 iterations take about 40 minutes"


def test_more_than_a_day_on_a_cpu_leads_to_a_place_that_exists():
    long = Estimate(24, 1, 0, None)
    (_, line) = long.lines(3601, on_cpu=True)
    assert "README.md, Training" in line and "\n## Training\n" in (ROOT / "README.md").read_text()
    assert len(long.lines(3599, on_cpu=True)) == len(long.lines(3601, on_cpu=False)) == 1


def test_too_little_memory_is_a_warning_with_the_fix():
    one = Estimate(1, adds=9_000_000_000, used=1_000_000_000, free=8_000_000_000)
    (first, line) = one.lines(1, on_cpu=False)
    assert "10.0 GB of memory on this GPU" in first and line.startswith("warning: ")
    assert all(flag in line for flag in "--fineSizeH --fineSizeW --batch-size --ins-per --ngf 9.0 8.0".split())
    assert len(Estimate(1, adds=8, used=9, free=8).lines(1, on_cpu=True)) == 1


def test_free_memory_is_the_least_of_system_and_container(monkeypatch, tmp_path):
    for name in ("MEMORY_INFO", "PROCESS_STATUS", "CONTAINER_LIMIT"):
        monkeypatch.setattr(device_memory, name, tmp_path / name)
    assert device_memory.free() is None and device_memory.used() == 0
    (tmp_path / "MEMORY_INFO").write_text("MemTotal:  900 kB\nMemAvailable:     500 kB\n")
    (tmp_path / "PROCESS_STATUS").write_text("VmPeak:\t 70 kB\nVmRSS:\t      50 kB\n")
    assert device_memory.free() == 500 << 10 and device_memory.used() == 50 << 10
    (tmp_path / "CONTAINER_LIMIT").write_text("max\n")
    assert device_memory.free() == 500 << 10
    (tmp_path / "CONTAINER_LIMIT").write_text(f"{200 << 10}\n")
    assert device_memory.free() == 150 << 10
