# SPDX-License-Identifier: Apache-2.0
"""No run is lost: not to a kill, a signal, a full disk, a second run, damage, or a NaN loss."""

from __future__ import annotations

import errno
import gc
import io
import json
import os
import pty
import random
import resource
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import train
from args import train_args
from common import files
from common.errors import UserError
from data.loader import DataIterator
from datasets import generate_shapes_dataset as shapes
from tests.helpers import ROOT
from tests.helpers.handled_signals import REPORT, report_handling
from tests.helpers.scripts import DEADLINE
from tests.helpers.slow_disk import hold_first_checkpoint
from tests.helpers.small_runs import SMALL
from training import checkpoint
from training.divergence import Diverged, check_finite

EPOCH, LAST = 3, 12  # iterations
# at any moment up to a checkpoint; the same in a process that is not forked; during its writing; shortly after it
KILLS = {"any": 7, "cold": 3, "writing": 5, "written": 5}
RUN = [*SMALL, "--pool-size", "3"]
COURSE = f"--max-epoch {LAST // EPOCH} --lr-decay-start-epoch 2 --log-step 2 --save-interval 1 --seed 4".split()
COURSE += "--evaluate-interval 1".split()

pytestmark = pytest.mark.usefixtures("blank_curves")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "shapes"
    shapes.generate(root, height=24, width=24, train=EPOCH, test=2, max_instances=3, seed=5)
    return root


def arguments(data, folder, *more):
    return list(map(str, ["--dataroot", data, *RUN, *COURSE, "-c", "cpu", "-m", folder, *more]))


@pytest.fixture(scope="module")
def whole(run_script, data, tmp_path_factory):
    """A run that was never interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    done = run_script("train.py", *arguments(data, folder))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def begun(run_script, data, tmp_path_factory):
    """A run that stopped after two epochs and one iteration."""
    folder = tmp_path_factory.mktemp("begun") / "run"
    done = run_script("train.py", *arguments(data, folder, "--max-iter", 2 * EPOCH + 1))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture()
def resume(run_main):
    """Resume a run up to its end in this process; a refusal does not fail. Returns exit code, output and error."""
    return lambda folder, *more: run_main(train, "-m", folder, "--resume", "--max-iter", LAST, *more)


@pytest.fixture()
def copy(begun, tmp_path):
    return Path(shutil.copytree(begun, tmp_path / "copy"))


def unfinished(folder):
    return list(folder.glob(".checkpoint_*.part.npz"))


def contents(folder):
    """The contents that must be the same bytes: parameters, Adam's moments, pools, order, random states, series, and
    the best model."""
    _, arrays, state = checkpoint.load_newest(folder)
    for of_time in ("timer", "elapsed"):
        del state["monitors"][of_time]
    values = {name: (array.dtype, array.shape, array.tobytes()) for name, array in arrays.items()}
    series = {path.name: path.read_bytes() for path in folder.glob("*.series.txt")}
    parameters = (folder / f"params_{state['iteration']:06d}.h5").read_bytes()
    best = {path.name: path.read_bytes() for path in folder.glob("best*")}
    losses = [name for name in series if "_loss_" in name]
    assert len(losses) == 10 and any(name.startswith("solvers/") for name in values)
    assert "evaluation_score.series.txt" in series and "best.json" in best
    return values, state, series, parameters, best


def hashes(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*") if path.suffix in (".npz", ".h5", ".json")}


# --- killed and resumed -----------------------------------------------------------------------------------------------


def wait_for_moment(process, moment, folder, seconds):
    """Wait for one of the moments of KILLS.

    "writing" is while a checkpoint is being written, "written" a tenth of `seconds` after a new checkpoint, any other
    one is `seconds` from now, or the next checkpoint if that comes first.
    """
    begun, before = time.monotonic(), checkpoint.find(folder)[-1:]
    if moment == "writing":
        process.wait_for(lambda: not unfinished(folder))  # left by a process that was killed before
        process.wait_for(lambda: unfinished(folder))
    elif moment == "written":
        process.wait_for(lambda: checkpoint.find(folder)[-1:] != before)
        time.sleep(seconds / 10)
    else:
        process.wait_for(lambda: time.monotonic() > begun + seconds or checkpoint.find(folder)[-1:] != before)


def test_killed_twenty_times_it_ends_as_the_run_that_never_was(start_script, run_main, data, tmp_path):
    """SIGKILL at random moments from the start of the process on, and while a checkpoint is being written."""
    seed, folder = time.time_ns(), tmp_path / "run"
    print(f"seed {seed}")  # shown where the test fails
    chance = random.Random(seed)
    course = f"--max-epoch {3 * sum(KILLS.values())} --save-image-interval 6".split()
    start_script("train.py", "--help").finish()  # whatever the first fork has to wait for
    begun = time.monotonic()
    one = start_script("train.py", *arguments(data, tmp_path / "one", *course, "--max-iter", EPOCH)).finish()
    assert one.returncode == 0, one.stderr
    seconds = time.monotonic() - begun
    moments = [moment for moment, count in KILLS.items() for _ in range(count)]
    chance.shuffle(moments)
    assert len(moments) == 20
    interrupted_writes, command = 0, arguments(data, folder, *course)
    for moment in moments:
        hold = partial(hold_first_checkpoint, tmp_path / "never") if moment == "writing" else None
        process = start_script("train.py", *command, cold=moment == "cold", prepare=hold)
        # imports take about a second
        wait_for_moment(process, moment, folder, chance.uniform(0, seconds + (moment == "cold")))
        assert process.kill().returncode == -signal.SIGKILL
        interrupted_writes += moment == "writing" and len(unfinished(folder))
        if (folder / "args.json").exists():
            command = ["-m", folder, "--resume"]
    assert interrupted_writes > KILLS["writing"] // 2
    last = checkpoint.load_newest(folder)[2]["iteration"] + EPOCH + 1
    for end in (command, arguments(data, tmp_path / "whole", *course)):
        code, _, err = run_main(train, *end, "--max-iter", last)
        assert code == 0, err
    assert contents(folder) == contents(tmp_path / "whole")
    assert {path.name for path in folder.iterdir()} == {path.name for path in (tmp_path / "whole").iterdir()}


def test_a_run_without_a_checkpoint_yet_starts_again(whole, start_script, run_script, data, tmp_path):
    folder = tmp_path / "run"
    hold = partial(hold_first_checkpoint, tmp_path / "never")
    process = start_script("train.py", *arguments(data, folder), prepare=hold)
    process.wait_for((folder / "args.json").exists)
    process.kill()
    assert not checkpoint.find(folder)
    done = run_script("train.py", "-m", folder, "--resume")
    assert done.returncode == 0 and "from the beginning" in done.stdout, done.stderr
    assert contents(folder) == contents(whole)


@pytest.mark.parametrize("lost", ["model", "old checkpoint"])
def test_killed_right_after_the_last_checkpoint(whole, run_main, tmp_path, lost):
    """The model is not written yet, or the oldest checkpoint not deleted: `--resume` does the rest."""
    folder = Path(shutil.copytree(whole, tmp_path / "copy"))
    names = {path.name for path in folder.iterdir()}
    if lost == "model":
        for path in folder.glob(f"params_{LAST:06d}.*"):
            path.unlink()
    else:
        shutil.copy(checkpoint.find(folder)[0], folder / "checkpoint_000001.npz")
    code, out, err = run_main(train, "-m", folder, "--resume")
    assert code == 0 and f"all {LAST} are done" in out, err
    assert {path.name for path in folder.iterdir()} == names and contents(folder) == contents(whole)


MINE = ["args.json", "sample_000001.png", "loss_generator.png", "params_000009.h5", "generator_loss_x.series.txt"]


@pytest.mark.parametrize("name", MINE)
def test_files_of_somebody_else_are_not_replaced(run_main, data, tmp_path, name):
    (tmp_path / name).write_text("mine")
    (tmp_path / ".holiday.part.mp4").write_text("mine")
    code, _, err = run_main(train, *arguments(data, tmp_path))
    assert code == 2 and err.count("\n") == 1 and "--monitor-path" in err
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: "mine", ".holiday.part.mp4": "mine"}


def test_only_what_a_run_writes_is_taken_for_its_rubbish(run_main, data, tmp_path):
    for name in (".holiday.part.mp4", ".checkpoint_000003.part.npz", ".args.part.json", ".loss_generator.part.png"):
        (tmp_path / name).touch()
    assert run_main(train, *arguments(data, tmp_path, "--max-iter", 1))[0] == 0
    assert [path.name for path in tmp_path.glob(".*.part.*")] == [".holiday.part.mp4"]


def test_harmless_arguments_may_change(copy, resume):
    code, _, err = resume(copy, *"--log-step 5 --max-epoch 9 --save-interval 2 --save-image-interval 3".split())
    assert code == 0, err
    saved = json.loads((copy / "args.json").read_text())
    assert (saved["log_step"], saved["max_epoch"]) == (5, 9)


@pytest.mark.parametrize("spoil", ["cut", "bit", "empty", "of another kind"])
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_taken(whole, copy, resume, spoil):
    newest = checkpoint.find(copy)[-1]
    raw = bytearray(newest.read_bytes())
    if spoil == "of another kind":
        np.savez(newest, something=np.zeros(3))
    elif spoil == "bit":
        # in the values of an array: not every bit between the arrays of a .npz means something
        with zipfile.ZipFile(newest) as archive:
            largest = max(archive.infolist(), key=lambda entry: entry.compress_size)
        raw[largest.header_offset + largest.compress_size] ^= 4
        newest.write_bytes(raw)
    else:
        newest.write_bytes(raw[: len(raw) // 2 if spoil == "cut" else 0])
    code, out, err = resume(copy)
    assert code == 0, err
    assert f"{newest.name} is damaged" in err and f"from {2 * EPOCH} to {LAST}" in out
    assert contents(copy) == contents(whole)


def test_a_whole_checkpoint_of_another_model_is_refused(copy, resume):
    arrays, state = checkpoint.load(checkpoint.find(copy)[-1])
    name = next(name for name in arrays if name.startswith("solvers/"))
    for spoilt in ({**arrays, name: np.zeros(3, np.float32)}, {n: v for n, v in arrays.items() if n != name}):
        checkpoint.save(copy, 2 * EPOCH + 1, spoilt, state)
        code, _, err = resume(copy)
        assert code == 2 and "is not a checkpoint of this run" in err and name.split("/")[-2] in err


SPOILT = {
    "iteration": lambda s: s.update(iteration=-5),
    "infinite iteration": lambda s: s.update(iteration=float("inf")),
    "monitors": lambda s: s.update(monitors=None),
    "flushed": lambda s: s["monitors"].update(flushed="x"),
    "pending": lambda s: s["monitors"].update(pending={}),
    "series": lambda s: s["monitors"]["series"].update(generator_loss_x="a b\n"),
    "position": lambda s: s["data"]["x"].update(position=77),
    "order": lambda s: s["data"]["x"].update(order=[99, 98, 97]),
    "random state": lambda s: s["data"]["y"].update(rng={"bit_generator": "PCG64"}),
    "updates": lambda s: s["model"].update(updates={name: "q" for name in s["model"]["updates"]}),
    "pools": lambda s: s["model"].update(pools={"x": 99, "y": 1}),
}


@pytest.mark.parametrize("what", SPOILT)
def test_a_checkpoint_whose_values_make_no_sense_is_refused(copy, resume, what):
    arrays, state = checkpoint.load(checkpoint.find(copy)[-1])
    SPOILT[what](state)
    checkpoint.save(copy, 2 * EPOCH + 1, arrays, state)
    code, _, err = resume(copy)
    assert code == 2 and "is not a checkpoint of this run" in err and err.count("\n") == 1


def test_other_pictures_under_the_same_names_are_refused(copy, resume, data, tmp_path):
    other = tmp_path / "other"
    shapes.generate(other, height=24, width=24, train=EPOCH, test=2, max_instances=3, seed=6)
    names = [{path.relative_to(root) for path in root.glob("train?/*")} for root in (data, other)]
    assert names[0] == names[1]
    before = hashes(copy)
    code, _, err = resume(copy, "--dataroot", other)
    assert code == 2 and "--dataroot" in err and "trainA" in err
    assert hashes(copy) == before


def test_the_same_data_elsewhere_are_the_same(whole, copy, resume, data, tmp_path):
    code, _, err = resume(copy, "--dataroot", shutil.copytree(data, tmp_path / "elsewhere"))
    assert code == 0, err
    assert contents(copy) == contents(whole)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "nonsense", '{"ngf": "many"}', '{"ngf": -1}', '{"ngf": [2]}', '{"no_flip": 1}', '{"old": 1}', "null"],
)
def test_damaged_arguments_are_refused(copy, resume, text):
    (copy / "args.json").write_text(text)
    code, _, err = resume(copy)
    assert code == 2 and str(copy / "args.json") in err and err.count("\n") == 1


# --- signals ----------------------------------------------------------------------------------------------------------


def has_text(path):
    return path.exists() and path.read_text() != ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_iteration_saves_and_tells_how_to_go_on(whole, start_script, data, tmp_path, number):
    """SIGINT comes in one of the first iterations, the others while a checkpoint is being written.

    The run cannot end before: its first checkpoint is held until the signal has been received.
    """
    folder, release = tmp_path / "a folder", tmp_path / "release"
    process = start_script("train.py", *arguments(data, folder), prepare=partial(hold_first_checkpoint, release))
    timer = folder / "Training_time.timer.txt"
    process.wait_for(lambda: has_text(timer) if number == signal.SIGINT else unfinished(folder))
    process.send_signal(number)
    process.wait_for(lambda: "once more ends it at once" in process.errors)
    release.touch()
    done = process.finish()
    assert done.returncode == 128 + number and "Traceback" not in done.stderr and "once more" in done.stderr
    stopped_after = checkpoint.load_newest(folder)[2]["iteration"]
    assert f"stopped after iteration {stopped_after}" in done.stdout and stopped_after < LAST
    words = shlex.split(done.stdout.strip().splitlines()[-1].partition("go on with: ")[2])
    assert words[:2] == ["python", "train.py"]
    if number != signal.SIGINT:
        # what follows is the same for all
        return
    last = start_script(*words[1:]).finish()
    assert last.returncode == 0, last.stderr
    assert contents(folder) == contents(whole)


def ignore_hangups():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def test_a_hangup_that_is_ignored_stays_ignored(start_script, data, tmp_path):
    """As under nohup."""
    folder = tmp_path / "run"
    process = start_script("train.py", *arguments(data, folder), prepare=ignore_hangups)
    process.wait_for(lambda: has_text(folder / "Training_time.timer.txt"))
    process.send_signal(signal.SIGHUP)
    done = process.finish()
    assert done.returncode == 0 and "once more" not in done.stderr


def test_a_run_whose_terminal_closes_saves(data, tmp_path):
    """The bar can no longer be written, and SIGHUP arrives."""
    folder = tmp_path / "run"
    process, terminal = pty.fork()
    if not process:
        endless = ["--max-epoch", 10**6, "--save-interval", 10**6]
        words = [sys.executable, ROOT / "train.py", *arguments(data, folder, *endless)]
        # ignored where the tests run under nohup
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        os.execv(sys.executable, list(map(str, words)))
    timer = folder / "Training_time.timer.txt"
    deadline = time.time() + DEADLINE
    # the terminal must be read, or the run stops when it is full
    while not has_text(timer):
        assert time.time() < deadline
        if select.select([terminal], [], [], 0.1)[0]:
            os.read(terminal, 1 << 16)
    os.close(terminal)
    ended, status = 0, 0
    while not ended and time.time() < deadline:
        time.sleep(0.1)
        ended, status = os.waitpid(process, os.WNOHANG)
    if not ended:
        os.kill(process, signal.SIGKILL)
    assert ended and os.WEXITSTATUS(status) == 128 + signal.SIGHUP
    assert checkpoint.load_newest(folder)[2]["iteration"] > 0


def test_a_run_whose_output_nobody_reads_any_more_saves(data, tmp_path):
    """As where `| tee log` is killed."""
    folder = tmp_path / "run"
    endless = ["--max-epoch", 10**6, "--save-interval", 10**6]
    words = [sys.executable, ROOT / "train.py", *arguments(data, folder, *endless)]
    process = subprocess.Popen(
        list(map(str, words)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=restore_hangups
    )
    deadline = time.time() + DEADLINE
    while not has_text(folder / "Training_time.timer.txt") and time.time() < deadline:
        os.read(process.stdout.fileno(), 1 << 16)
    process.stdout.close()
    assert process.wait(DEADLINE) == 128 + signal.SIGHUP
    assert checkpoint.load_newest(folder)[2]["iteration"] > 0


def restore_hangups():
    """They are ignored where the tests run under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def wait_for_long_call(process):
    """Wait until a SIGUSR1 has not been handled for a second; it is handled at the end of the call that is running."""
    while True:
        handled = process.errors.count(REPORT)
        process.send_signal(signal.SIGUSR1)
        time.sleep(1)
        if process.errors.count(REPORT) == handled:
            return handled


def test_a_second_signal_ends_at_once(start_script, data, tmp_path):
    """Both signals come within one call into NNabla: calls take about half a minute here.

    Python would handle them only after the call, and a pending SIGUSR1 before SIGTERM.
    """
    folder = tmp_path / "run"
    size = "--fineSizeH 400 --loadSizeH 400 --fineSizeW 400 --loadSizeW 400 --ngf 16 --cpu-kernels nnabla".split()
    process = start_script("train.py", *arguments(data, folder, *size), prepare=report_handling)
    process.wait_for(lambda: f"0/{LAST}" in process.errors)
    handled = wait_for_long_call(process)
    process.send_signal(signal.SIGINT)
    process.wait_for(lambda: "once more ends it at once" in process.errors)
    process.send_signal(signal.SIGTERM)
    done = process.finish()
    assert done.returncode == 128 + signal.SIGTERM
    assert done.stderr.count(REPORT) == handled, "the signals waited for the end of a call"
    assert checkpoint.find(folder) == []


def test_curves_that_cannot_be_drawn_end_no_training(run_main, monkeypatch, data, tmp_path):
    def fail(folder):
        raise ValueError("no backend")

    monkeypatch.setattr(train, "draw_curves", fail)
    code, out, err = run_main(train, *arguments(data, tmp_path / "run"))
    assert code == 0 and "the curves loss_*.png and evaluation_*.png are not all drawn: no backend" in out + err
    assert checkpoint.load_newest(tmp_path / "run")[2]["iteration"] == LAST


# --- one run a folder -------------------------------------------------------------------------------------------------


def test_two_runs_in_one_folder_cannot_be(whole, start_script, run_main, data, tmp_path):
    folder, models, release = tmp_path / "run", tmp_path / "models", tmp_path / "release"
    hold = partial(hold_first_checkpoint, release)
    first = start_script("train.py", *arguments(data, folder, "-o", models), prepare=hold)
    first.wait_for(lambda: unfinished(folder))
    for second in (["-m", folder, "--resume"], arguments(data, folder), arguments(data, tmp_path / "x", "-o", models)):
        code, _, err = run_main(train, *second)
        assert code == 2 and "another run is writing" in err and err.count("\n") == 1
    assert unfinished(folder)
    release.touch()
    assert first.finish().returncode == 0
    assert contents(Path(shutil.copytree(models, folder, dirs_exist_ok=True))) == contents(whole)
    # a later run is refused because the folder holds a run, or models
    for second in (arguments(data, folder), arguments(data, tmp_path / "x", "-o", models)):
        code, _, err = run_main(train, *second)
        assert code == 2 and "holds a run" in err


# --- disks ------------------------------------------------------------------------------------------------------------


def test_too_little_room_for_models_elsewhere_is_told_too(run_main, data, tmp_path, monkeypatch):
    usage, models = shutil.disk_usage(tmp_path), tmp_path / "models"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=0) if path == models else usage)
    code, _, err = run_main(train, *arguments(data, tmp_path / "run", "-o", models))
    assert code == 2 and f"{models} has 0 MB free" in err and "--model-save-path" in err


def test_too_little_room_is_told_at_the_start(run_main, data, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=3 << 20))
    code, out, err = run_main(train, *arguments(data, tmp_path / "run"))
    assert code == 2 and "3 MB free" in err and "--monitor-path" in err and err.count("\n") == 1
    assert not checkpoint.find(tmp_path / "run")


def test_the_room_that_is_asked_for_is_what_a_full_checkpoint_takes(data, tmp_path, monkeypatch, run_main):
    asked = []
    monkeypatch.setattr(train.run_folder, "check_space", lambda folder, copies, size, _: asked.append((copies, size)))
    width = "--ngf 24 --ndf 16 --n-blocks 2 --ins-max 2 --fineSizeH 24 --loadSizeH 24 --pool-size 2".split()
    code, _, err = run_main(train, *arguments(data, tmp_path / "run", *width, "--max-iter", 2 * EPOCH))
    assert code == 0, err
    ((copies, size),) = asked
    taken = sum((tmp_path / "run" / name).stat().st_size for name in ("checkpoint_000006.npz", "params_000006.h5"))
    assert copies == 3 and taken <= size <= 1.1 * taken + (1 << 20)


def test_a_model_that_cannot_be_written_ends_in_an_error(whole, tmp_path):
    """This runs in a separate process: HDF5 writing to a full disk ended it with a segmentation fault."""
    model = next(iter(whole.glob("params_*.h5")))
    code = (
        "import sys, resource; sys.path.insert(0, sys.argv[1])\n"
        "from common import errors\n"
        "errors.begin_script(__name__)\n"
        "from weights import model_file\n"
        "parameters, config = model_file.load_model(sys.argv[2])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000))\n"
        "errors.run_main(lambda: model_file.save_model(sys.argv[3], parameters, config))"
    )
    words = [sys.executable, "-c", code, str(ROOT), str(model), str(tmp_path / "a.h5")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "a.h5: File too large" in done.stderr
    assert not (tmp_path / "a.h5").exists()


def test_a_write_that_fails_leaves_the_last_checkpoint(whole, copy, start_script, resume):
    """The system refuses files larger than a limit, as a full disk would, within a checkpoint."""
    saved = checkpoint.find(copy)[-1]
    limit = saved.stat().st_size - 1000
    before = saved.read_bytes()
    refuse = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, limit))
    done = start_script("train.py", "-m", copy, "--resume", "--max-iter", LAST, prepare=refuse).finish()
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert "cannot write" in last and f"{saved.name} is whole" in last and "--resume" in last
    assert saved.read_bytes() == before and not unfinished(copy)
    assert resume(copy)[0] == 0 and contents(copy) == contents(whole)


@pytest.fixture()
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "none", str(disk)], capture_output=True)
    if mount.returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_fills_up(whole, small_disk, start_script, resume, data, tmp_path):
    """It is full right after the first checkpoint."""
    folder, filler, release = small_disk / "run", small_disk / "filler", tmp_path / "release"
    process = start_script("train.py", *arguments(data, folder), prepare=partial(hold_first_checkpoint, release))
    process.wait_for(lambda: any(map(zipfile.is_zipfile, unfinished(folder))))
    with open(filler, "wb", buffering=0) as file, pytest.raises(OSError):
        while True:
            file.write(bytes(1 << 16))
    release.touch()
    done = process.finish()
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert "No space left on device" in last and "--resume" in last
    checkpoint.load_newest(folder)
    code, _, err = resume(folder)
    assert code == 2 and err.count("\n") == 1
    filler.unlink()
    code, _, err = resume(folder)
    assert code == 0, err
    assert contents(folder) == contents(whole)


class FullDisk(io.BytesIO):
    """A file on a disk with room for 1000 bytes; once it is full, nothing fits any more."""

    full = False

    def write(self, data):
        self.full = self.full or self.tell() + len(data) > 1000
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


def test_a_disk_that_fills_up_within_an_archive_leaves_one_error(monkeypatch):
    """An archive that is left open would fail once more when it is collected, and Python would print a traceback."""
    ignored = []
    monkeypatch.setattr(sys, "unraisablehook", ignored.append)
    with pytest.raises(OSError, match="No space left"):
        checkpoint._write(FullDisk(), {"a": np.zeros(1000)}, {"iteration": 1})
    gc.collect()
    assert not ignored


def test_folders_that_cannot_be_made_or_written(run_main, data, tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "run", Path("/proc/run")):
        code, _, err = run_main(train, *arguments(data, folder))
        assert code == 2 and str(folder) in err and "--monitor-path" in err and err.count("\n") == 1


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become another user")
def test_a_folder_of_somebody_else(run_main, data, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "check_data", lambda args: None)  # the data of this test belong to another user too
    (tmp_path / "run").mkdir()
    for folder in (*tmp_path.parents, tmp_path):
        if folder.stat().st_uid == 0 and folder != Path("/") and "pytest" in folder.name:
            folder.chmod(0o755)
    os.seteuid(65534)
    try:
        code, _, err = run_main(train, *arguments(data, tmp_path / "run"))
    finally:
        os.seteuid(0)
    assert code == 2 and "Permission denied" in err and "--monitor-path" in err and err.count("\n") == 1


# --- losses and parameters that are not finite ------------------------------------------------------------------------


def diverging(monkeypatch, after, rate):
    """Set the learning rates to `rate` after `after` iterations. Returns the names of each iteration's pictures."""
    step, take, done, taken = train.InstaGAN.step, DataIterator.next, [], []

    def noting(self):
        samples = take(self)
        taken.append([sample.name for sample in samples])
        return samples

    def watched(self, batches, shares):
        done.append(dict(zip("xy", taken[-2:])))
        if len(done) > after:
            for optimizer in self.optimizers.values():
                optimizer.set_learning_rate(rate)
        return step(self, batches, shares)

    monkeypatch.setattr(DataIterator, "next", noting)
    monkeypatch.setattr(train.InstaGAN, "step", watched)
    return done


def test_nan_in_a_loss_stops_at_once(data, tmp_path, monkeypatch, run_main):
    done = diverging(monkeypatch, after=EPOCH + 1, rate=1e30)
    code, _, err = run_main(train, *arguments(data, tmp_path, "--log-step", 1))
    iteration, line = len(done) - 1, err.strip().splitlines()[-1]
    assert code == 2 and EPOCH < iteration < 2 * EPOCH, "it went on"
    record = json.loads((tmp_path / f"diverged_{iteration:06d}.json").read_text())
    loss = record["problem"].split()[0]
    assert (tmp_path / f"{loss}.series.txt").is_file() and record["problem"].split()[-1] in ("nan", "inf")
    assert loss in line and f"in iteration {iteration}" in line and f"params_{EPOCH:06d}.h5" in line
    for domain, names in done[-1].items():
        files = record["batch"][train.DOMAINS[domain]]
        assert [Path(own[0]).stem for own in files] == names
        assert all(Path(file).is_file() for own in files for file in own) and len(files[0]) > 1
    assert [path.name for path in checkpoint.find(tmp_path)] == [f"checkpoint_{EPOCH:06d}.npz"]
    assert all(np.isfinite(v).all() for v in checkpoint.load_newest(tmp_path)[1].values())
    losses = np.concatenate([np.loadtxt(path, ndmin=2)[:, 1] for path in tmp_path.glob("*.series.txt")])
    assert np.isfinite(losses).all()


def test_nan_in_a_parameter_is_never_saved(data, tmp_path, monkeypatch, run_main):
    """The losses of an iteration are finite, but its update is not."""
    diverging(monkeypatch, after=0, rate=float("inf"))
    code, _, err = run_main(train, *arguments(data, tmp_path, "--max-iter", 1, "--ins-max", 2))
    assert code == 2 and not checkpoint.find(tmp_path) and not list(tmp_path.glob("params*"))
    assert "the training diverged" in err and (tmp_path / "diverged_000001.json").is_file()


def test_without_masks_no_mask_is_looked_at(run_main, data, tmp_path):
    root = shutil.copytree(data, tmp_path / "data")
    for path in root.glob("train?_seg/*"):
        path.write_bytes(b"")
    code, out, err = run_main(train, *arguments(root, tmp_path / "run", "--ins-max", 0, "--max-iter", 1))
    assert code == 0, err


def test_a_divergence_on_a_full_disk_is_told_all_the_same(data, tmp_path, monkeypatch, run_main):
    done = diverging(monkeypatch, after=0, rate=1e30)
    write = files.write_text

    def full(path, text):
        if "diverged" in path.name:
            raise OSError(28, "No space left on device", str(path))
        write(path, text)

    monkeypatch.setattr(files, "write_text", full)
    code, _, err = run_main(train, *arguments(data, tmp_path))
    line = err.strip().splitlines()[-1]
    assert code == 2 and "the training diverged" in line and f"{done[-1]['x'][0]}.png" in line


def test_finite_is_finite():
    check_finite({"a": 1.0, "b": np.ones(3)})
    for bad in (float("nan"), float("inf"), np.array([1, np.inf])):
        with pytest.raises(Diverged, match="^b "):
            check_finite({"a": 1.0, "b": bad})


def test_resuming_what_was_never_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="nothing to resume"):
        train_args("", ["-m", str(tmp_path), "--resume"])
