# SPDX-License-Identifier: Apache-2.0
"""--tensorboard: event files hold what series and sample grids do, also after a kill, and end no training."""

from __future__ import annotations

import importlib.util
import signal
import struct
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import train
from args import train_args
from common import files
from datasets import generate_shapes_dataset as shapes
from tests.helpers.slow_disk import hold_first_checkpoint
from tests.helpers.small_runs import SMALL
from training import checkpoint

EPOCH, LAST = 3, 12  # iterations
RUN = [*SMALL, "--pool-size", "3"]
# lines of the series are not at the ends of epochs
COURSE = f"--max-epoch {LAST // EPOCH} --log-step 5 --save-interval 1 --evaluate-interval 1".split()

pytestmark = pytest.mark.usefixtures("blank_curves")
needs_package = pytest.mark.skipif(
    importlib.util.find_spec("tensorboardX") is None,
    reason="tensorboardX is not installed (requirements-tensorboard.txt)",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "shapes"
    shapes.generate(root, height=24, width=24, train=EPOCH, test=2, max_instances=3, seed=5)
    return root


def arguments(data, folder, *more):
    return list(map(str, ["--dataroot", data, *RUN, *COURSE, "-c", "cpu", "-m", folder, *more]))


def events(folder):
    """The events of all files in the order of their beginnings, as (step, name, value) that TensorBoard shows.

    A value is a float or the bytes of a PNG; what a later start supersedes is left out.
    """
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    shown = []
    for path in sorted((folder / "tensorboard").iterdir(), key=lambda path: path.stat().st_mtime_ns):
        for record in records(path.read_bytes()):
            event = Event.FromString(record)
            if event.session_log.status == SessionLog.START:
                shown = [one for one in shown if one[0] < event.step]
            for value in event.summary.value:
                content = value.image.encoded_image_string or value.simple_value
                shown.append((event.step, value.tag, content))
    return shown


def records(data):
    """The records of an event file: each has its length, a checksum, the bytes, and a checksum."""
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        assert len(data) >= 16 + length, "the file is cut off"
        yield data[12 : 12 + length]
        data = data[16 + length :]


def in_series(folder):
    """What the run's own files hold, in the same form; the timer without its seconds."""
    rows = []
    for path in folder.glob("*.series.txt"):
        kind, domain = path.name[: -len(".series.txt")].rsplit("_", 1)
        rows += [(int(step), f"{kind}/{domain}", value) for step, value in np.loadtxt(path, ndmin=2)]
    rows += [(int(row[0]), "seconds_per_iteration", row[1] / row[2]) for row in timer(folder)]
    for path in files.numbered_files(folder, "sample", "png"):
        rows.append((files.number_of(path) * EPOCH - 1, "samples", path.read_bytes()))
    return rows


def timer(folder):
    return np.loadtxt(folder / "Training_time.timer.txt", ndmin=2)


def assert_the_same(folder):
    found = sorted(events(folder), key=lambda one: one[:2])
    expected = sorted(in_series(folder), key=lambda one: one[:2])
    assert [one[:2] for one in found] == [one[:2] for one in expected], "no step is missing or doubled"
    for (_, _, value), (_, _, truth) in zip(found, expected):
        assert value == (truth if isinstance(truth, bytes) else pytest.approx(truth, rel=1e-5))


@needs_package
def test_events_are_what_series_and_samples_hold(data, tmp_path, run_main):
    code, _, err = run_main(train, *arguments(data, tmp_path, "--tensorboard"))
    assert code == 0, err
    assert_the_same(tmp_path)
    names = {name for _, name, _ in events(tmp_path)}
    assert len([name for name in names if not name.startswith("evaluation")]) == 12
    assert {"generator_loss/x", "identity_mapping_loss/y", "samples"} < names
    assert {"evaluation/score", "evaluation_agreement/x", "evaluation_picture_iou/y"} < names
    assert {step for step, _, _ in events(tmp_path)} == {4, 9, 11, 2, 5, 8}


@needs_package
def test_events_change_nothing_in_the_training(data, tmp_path, run_main):
    for name, more in (("with", ["--tensorboard"]), ("without", [])):
        assert run_main(train, *arguments(data, tmp_path / name, "--max-iter", EPOCH + 1, *more))[0] == 0
    assert not (tmp_path / "without" / "tensorboard").exists()
    for name in ("params_000004.h5", "generator_loss_x.series.txt"):
        assert (tmp_path / "with" / name).read_bytes() == (tmp_path / "without" / name).read_bytes()


@needs_package
@pytest.mark.parametrize("stop", [EPOCH + 1, 2 * EPOCH, 2 * EPOCH + 2])
def test_a_resumed_run_doubles_no_iteration(data, tmp_path, run_main, stop):
    """When it stops, it writes a line of fewer iterations, which the resumed run takes back."""
    assert run_main(train, *arguments(data, tmp_path, "--tensorboard", "--max-iter", stop))[0] == 0
    assert_the_same(tmp_path)
    code, _, err = run_main(train, "-m", tmp_path, "--resume", "--max-iter", LAST)
    assert code == 0, err
    assert_the_same(tmp_path)
    assert len(timer(tmp_path)) == 3


@needs_package
def test_a_killed_run_doubles_no_iteration(data, tmp_path, start_script, run_main):
    """It is killed long after its checkpoint, of the first epoch, and resumed from there."""
    folder = tmp_path / "run"
    assert run_main(train, *arguments(data, folder, "--tensorboard", "--max-iter", EPOCH))[0] == 0
    hold = partial(hold_first_checkpoint, tmp_path / "never")
    course = f"--max-iter {LAST} --save-interval 3".split()
    process = start_script("train.py", "-m", folder, "--resume", *course, prepare=hold)
    process.wait_for(lambda: list(folder.glob(".checkpoint_*.part.npz")))
    assert process.kill().returncode == -signal.SIGKILL
    assert max(step for step, _, _ in events(folder)) == 3 * EPOCH - 1
    assert checkpoint.load_newest(folder)[2]["iteration"] == EPOCH
    code, _, err = run_main(train, "-m", folder, "--resume", "--max-iter", LAST)
    assert code == 0, err
    assert_the_same(folder)


@needs_package
def test_a_run_that_starts_again_forgets_the_one_before(data, tmp_path, start_script, run_main):
    """Neither a checkpoint nor a best model was there yet."""
    folder = tmp_path / "run"
    hold = partial(hold_first_checkpoint, tmp_path / "never")
    common = ["--tensorboard", "--evaluate-interval", 0]
    process = start_script("train.py", *arguments(data, folder, *common, "--log-step", 1), prepare=hold)
    process.wait_for(lambda: list(folder.glob(".checkpoint_*.part.npz")))
    process.kill()
    assert events(folder)
    code, _, err = run_main(train, *arguments(data, folder, *common, "--log-step", 2, "--max-iter", 2))
    assert code == 0, err
    assert {step for step, _, _ in events(folder)} == {1}


def test_events_of_somebody_else_are_left_alone(data, tmp_path, run_main):
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / "events.out.tfevents.1.me").write_text("mine")
    code, _, err = run_main(train, *arguments(data, tmp_path))
    assert code == 2 and "events.out.tfevents.1.me" in err and "--monitor-path" in err


@needs_package
def test_a_disk_without_room_for_events_ends_no_training(data, tmp_path, run_main, monkeypatch):
    from training import tensorboard

    written = []

    def full(writer, event):
        written.append(event)
        if len(written) > 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(tensorboard.EventsWriter, "write_event", full)
    code, _, err = run_main(train, *arguments(data, tmp_path, "--tensorboard"))
    assert code == 0 and err.count("No space left on device") == 1 and "training goes on" in err
    assert len(written) == 4 and (tmp_path / f"checkpoint_{LAST:06d}.npz").exists()


@needs_package
def test_a_folder_that_cannot_be_made_ends_no_training(data, tmp_path, run_main):
    (tmp_path / "tensorboard").write_text("mine")
    code, _, err = run_main(train, *arguments(data, tmp_path, "--tensorboard", "--max-iter", 1))
    assert code == 0 and err.count("training goes on") == 1
    assert (tmp_path / "tensorboard").read_text() == "mine"


@needs_package
def test_only_the_leading_process_writes(data, tmp_path):
    class Second(type(train.ALONE)):
        rank = 1

    args = train_args("", arguments(data, tmp_path, "--tensorboard"))
    assert train.Run(args, Second()).events is None and train.Run(args).events is not None


def test_without_the_package_it_is_refused_before_anything_else(data, tmp_path, run_main, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    for module in [name for name in sys.modules if name.startswith("tensorboardX.") or name == "training.tensorboard"]:
        monkeypatch.delitem(sys.modules, module)
    code, out, err = run_main(train, *arguments(data, tmp_path / "run", "--tensorboard"))
    assert code == 2 and out == "" and err.count("\n") == 1
    assert "--tensorboard needs tensorboardX; pip install -r requirements-tensorboard.txt" in err
    assert not (tmp_path / "run").exists()


def test_a_package_that_cannot_be_loaded_is_told_in_one_line(data, tmp_path, run_main, monkeypatch):
    """As with another protobuf than it wants."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "tensorboardX").mkdir()
    (tmp_path / "tensorboardX" / "__init__.py").write_text("raise TypeError('Descriptors cannot be created\\nhelp')\n")
    for module in [name for name in sys.modules if name.startswith("tensorboardX") or name == "training.tensorboard"]:
        monkeypatch.delitem(sys.modules, module)
    code, out, err = run_main(train, *arguments(data, tmp_path / "run", "--tensorboard"))
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert "tensorboardX cannot be loaded (Descriptors cannot be created); pip install" in err


def test_the_file_that_the_message_names_asks_for_the_package():
    requirements = Path(train.__file__).with_name("requirements-tensorboard.txt").read_text()
    assert "\ntensorboardX>=" in requirements


def test_without_the_flag_the_package_is_not_needed(data, tmp_path, run_main, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    assert run_main(train, *arguments(data, tmp_path, "--max-iter", 1))[0] == 0
    assert not (tmp_path / "tensorboard").exists()
