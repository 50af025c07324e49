# SPDX-License-Identifier: Apache-2.0
"""N processes train as one does on a batch N times as large; here on the CPU, over sockets."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import sys
from types import SimpleNamespace

import nnabla as nn
import numpy as np
import pytest

import train
from args import train_args
from backend import processes
from backend.processes import ALONE, Several
from common import files
from common.errors import UserError
from datasets import generate_shapes_dataset as shapes
from instagan import InstaGAN
from tests.helpers.small_runs import SMALL
from training import checkpoint
from training.data_parallel import check_same_iteration
from training.settings import Settings
from weights import model_file

PROCESS = "tests.helpers.several_processes"
COURSE = "--max-epoch 4000 --lr-decay-start-epoch 2000 --log-step 1 --save-interval 2 --pool-size 8".split()
COURSE += "--evaluate-interval 1".split()


@pytest.fixture()
def together(start_script, tmp_path):
    """Start `size` processes that join each other; `words(rank)` are the arguments of each. Returns them at once."""
    sockets = (tmp_path / f"socket{number}" for number in itertools.count())

    def start(size, words):
        socket = next(sockets)
        return [start_script(PROCESS, socket, rank, size, *words(rank)) for rank in range(size)]

    return start


def finished(several, code=0):
    """Wait for the processes to end with exit code `code`; return the standard output of each."""
    done = [process.finish() for process in several]
    assert [process.returncode for process in done] == [code] * len(done), [process.stderr[-500:] for process in done]
    return [process.stdout for process in done]


@pytest.mark.parametrize("size", [2, 4])
def test_several_processes_give_the_numbers_of_one_on_a_larger_batch(together, tmp_path, size):
    """Some of the four pictures of each domain have two passes, some one, and one has none.

    So a process may have nothing left to translate while others go on. The losses are those of all processes, and all
    end with the same weights.
    """
    alone, joined = (together(count, lambda rank, n=count: ["steps", tmp_path / f"{n}.{rank}"]) for count in (1, size))
    finished([*alone, *joined])
    one, several = np.load(tmp_path / "1.0.npz"), [np.load(tmp_path / f"{size}.{rank}.npz") for rank in range(size)]
    want = json.loads(str(one["losses"]))
    assert len(want) == 2 and len(want[0]) == len(want[1]) == 10 and one["updates"] == 4
    for results in several:
        for losses, truth in zip(json.loads(str(results["losses"])), want):
            assert losses == pytest.approx(truth, rel=1e-5)
        for name in set(one.files) - {"losses"}:
            assert np.array_equal(results[name], several[0][name]), name
            if name.endswith((".W", ".u")):
                np.testing.assert_allclose(results[name], one[name], rtol=0, atol=2e-5, err_msg=name)


@pytest.fixture()
def data(tmp_path):
    root = tmp_path / "shapes"
    shapes.generate(root, height=24, width=24, train=5, test=1, max_instances=3, seed=5)
    return root


def arguments(data, folder, *more):
    paths = ["--dataroot", data, "-m", folder, "-c", "cpu", "--cpu-kernels", "nnabla", *more]
    return list(map(str, [*SMALL, *COURSE, *paths]))


def contents(folder):
    """The arrays and the state of the newest checkpoint, without the times in it."""
    _, arrays, state = checkpoint.load_newest(folder)
    for of_time in ("timer", "elapsed"):
        del state["monitors"][of_time]
    return {name: array.tobytes() for name, array in arrays.items()}, state


def best_model(folder):
    return (folder / "best.json").read_bytes(), model_file.find_model(folder, "best").read_bytes()


def test_a_run_of_two_is_one_run_that_can_be_resumed(together, tmp_path, data, run_main):
    """The folder and the losses are those of one process with batches of two.

    Stopped by a signal to either process, the run can be resumed by two, byte for byte, with the pool and the random
    state that each process had; a single process is refused.
    """
    alone, two, stopped = (tmp_path / name for name in ("alone", "two", "stopped"))
    without_end = together(2, lambda _: arguments(data, stopped))
    without_end[0].wait_for(lambda: checkpoint.find(stopped))
    without_end[1].send_signal(signal.SIGTERM)
    outputs = finished(without_end, code=128 + signal.SIGTERM)
    command = f"mpirun --bind-to none -n 2 python train.py --monitor-path={stopped} --resume"
    assert f"go on with: {command}" in outputs[0] and not outputs[1]

    last = max(files.number_of(checkpoint.find(stopped)[-1]) + 2, 8)
    first = together(1, lambda _: arguments(data, alone, "-b", 2, "--max-iter", last))
    second = together(2, lambda _: arguments(data, two, "--max-iter", last))
    finished(together(2, lambda _: ["-m", stopped, "--resume", "--max-iter", last]))
    assert f"an epoch is 2 iterations, 2 processes together; from 0 to {last}" in finished(second)[0]
    finished(first)

    # which model is the best depends on rounding
    ours, theirs = ({re.sub("best_[0-9]+", "best", path.name) for path in run.iterdir()} for run in (two, alone))
    assert ours == theirs
    assert best_model(stopped) == best_model(two)
    assert len(np.loadtxt(two / "evaluation_score.series.txt", ndmin=2)) == last // 2
    for path in alone.glob("*_loss_?.series.txt"):
        ours, theirs = (np.loadtxt(folder / path.name, ndmin=2) for folder in (two, alone))
        # pools return their input until they are full
        np.testing.assert_allclose(ours[:2], theirs[:2], rtol=1e-3)
        assert np.array_equal(ours[:, 0], theirs[:, 0]) and len(ours) == last
    arrays, state = contents(two)
    assert state["processes"] == 2
    own = checkpoint.loads(checkpoint.load_newest(two)[1]["process/1"].tobytes())
    assert own[1]["pools"] == {"x": 8, "y": 8} and own[1]["rng"] != state["model"]["rng"]
    assert contents(stopped) == (arrays, state)

    code, _, err = run_main(train, "-m", two, "--resume")
    assert code == 2 and "go on with: mpirun --bind-to none -n 2 python train.py" in err, "it went on alone"


def test_what_is_wrong_with_the_data_is_told_before_processes_meet(together, tmp_path, data):
    """Otherwise the other process would wait for one that has ended."""
    next((data / "trainA_seg").iterdir()).write_bytes(b"")
    (leader,) = together(2, lambda _: arguments(data, tmp_path / "run"))[:1]
    done = leader.finish()
    assert done.returncode == 2 and "Traceback" not in done.stderr and not (tmp_path / "run").exists()


def test_one_that_fails_ends_the_others(together, tmp_path, data):
    """The error is printed, then NNabla's communicator ends the others."""
    command = arguments(data, tmp_path / "run", "--pretrained", tmp_path / "model.h5")
    (tmp_path / "model.h5").write_bytes(b"no model")
    for process in together(2, lambda _: command):
        done = process.finish()
        lines = done.stderr.strip().splitlines()
        assert done.returncode == 2 and "model.h5" in lines[-2] and lines[-1] == "the communicator is aborted"


def test_batches_of_all_must_be_there(together, tmp_path, data):
    processes = together(3, lambda _: arguments(data, tmp_path / "run", "-b", 2))
    errors = [process.finish().stderr for process in processes]
    assert all("--batch-size 2 in each of 3 processes is more than the 5 pictures" in err for err in errors)


class Fake:
    """A communicator of one process that records its calls."""

    rank, size = 0, 1

    def __init__(self):
        self.reduced = []

    def all_reduce(self, data, division=False, inplace=False, group="world"):
        self.reduced.append((len(data), division))

    def all_gather(self, ndarray, ndarray_list, group="world"):
        for array in ndarray_list:
            array.data = ndarray.data


@pytest.mark.parametrize("length", [0, 1, 4, 4095, (1 << 20) + 3])
def test_bytes_are_gathered_whole(length):
    """Any bytes are, even if they are not valid float32 numbers."""
    data = np.random.default_rng(length).bytes(length)
    assert Several(Fake()).gather(data) == ALONE.gather(data) == [data]


def test_each_draws_its_own_translations_from_its_pool():
    settings = Settings.from_args(train_args("", SMALL))
    models = [InstaGAN(settings, SimpleNamespace(rank=rank, size=2)) for rank in range(2)]
    draws = [model.pool_rng.random(4).tolist() for model in models]
    assert draws[0] != draws[1]
    first, second = (model.parameters() for model in models)
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_processes_that_see_other_folders_are_refused(tmp_path):
    check_same_iteration(ALONE, 3, str(tmp_path))
    together = SimpleNamespace(rank=0, size=2, total=lambda values: values + [0, 3])
    check_same_iteration(together, 3, str(tmp_path))
    with pytest.raises(UserError, match="not all processes see the checkpoints in"):
        check_same_iteration(together, 7, str(tmp_path))


@pytest.mark.parametrize("other", [0, 7])
def test_a_run_begins_only_where_all_processes_see_its_folder(data, tmp_path, other):
    """This process starts from iteration 0; the other one, from iteration `other`."""
    together = SimpleNamespace(rank=0, size=2, total=lambda values: values + [0, other])
    run = train.Run(train_args("", arguments(data, tmp_path)), together)
    if other == 0:
        run.begin()
        return
    with pytest.raises(UserError, match="not all processes see the checkpoints in"):
        run.begin()


def test_on_a_cpu_several_are_refused(monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    with pytest.raises(UserError, match="each needs a GPU"):
        processes.join()


def test_without_nccl_or_mpi_it_is_told(monkeypatch):
    """The CPU package does not have NNabla's communicator."""
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    cpu, asked = nn.get_current_context(), []
    monkeypatch.setattr(processes, "get_extension_context", lambda name, **how: asked.append((name, how)) or cpu)
    monkeypatch.setattr(nn, "get_current_context", lambda: nn.Context(["cudnn:float"], "CudaCachedArray", "0"))
    with pytest.raises(UserError, match="the 2 processes cannot be joined; that takes NCCL and Open MPI"):
        processes.join()
    # gradients are not added up in half precision, whatever layers compute in
    assert asked == [("cudnn", {"device_id": "0"})]


def test_each_has_a_gpu_of_its_own(monkeypatch):
    args = train_args("", [])
    processes.take_place(args)
    assert args.device_id == "0" and processes.join() is ALONE
    for name, value in (("SIZE", "4"), ("RANK", "6"), ("LOCAL_RANK", "2")):
        monkeypatch.setenv(f"OMPI_COMM_WORLD_{name}", value)
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    processes.take_place(args)
    print("not to be seen")
    assert args.device_id == "2" and sys.stdout.name == os.devnull
