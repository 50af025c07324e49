# SPDX-License-Identifier: Apache-2.0
"""train.py as a user runs it, on a tiny set of shapes; and the parts of one training iteration."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import h5py
import nnabla as nn
import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import maximum_filter

import train
from args import train_args
from backend import kernels
from backend.processes import ALONE
from common import errors
from data import pictures
from data.items import find_items
from data.loader import Sample
from datasets import generate_shapes_dataset as shapes
from instagan import InstaGAN
from models import FROZEN, NETWORKS, Architecture, create_parameters, discriminator, generator
from tests.helpers.small_runs import HEIGHT, SMALL, WIDTH
from training.saving import Saver
from training.settings import Settings
from training.step_losses import StepLosses
from translation.sequence import Batch, JudgedPictures, SequentialTranslation
from weights import model_file

KINDS = ("generator", "discriminator", "reconstruction", "identity_mapping", "context_preserving")
SERIES = [f"{kind}_loss_{domain}" for kind in KINDS for domain in "xy"]
# evaluations have their own tests
RUN = [*SMALL, "--evaluate-interval", "0"]
ARCH = Architecture(ngf=2, ndf=2, n_blocks=0, n_layers_D=1)
EPOCH, EPOCHS = 3, 4  # iterations in an epoch: pictures of A, which is the larger domain; epochs
LAST = EPOCH * EPOCHS
FULL = f"--max-epoch {EPOCHS} --lr-decay-start-epoch 1 --log-step 1 --save-interval 1 --pool-size 3".split()


@pytest.fixture(autouse=True)
def on_the_cpu(clean_nnabla):
    """Graphs made here are computed as the scripts do it."""
    kernels.configure("auto")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Training pictures (three in A, two in B) of one to three instances each, and two test pictures of each."""
    root = tmp_path_factory.mktemp("data") / "shapes"
    shapes.generate(root, height=24, width=24, train=EPOCH, test=2, max_instances=3, seed=3)
    for path in [root / "trainB/0002.png", *root.glob("trainB_seg/0002_*.png")]:
        path.unlink()
    return root


def command_line(data, folder, *arguments):
    return list(map(str, ["--dataroot", data, *RUN, "-c", "cpu", "-m", folder, *arguments]))


@pytest.fixture(scope="module")
def start(run_script, data):
    """Train into a folder by command line."""

    def run(folder, *arguments, of=data, cold=False):
        done = run_script("train.py", *command_line(of, folder, *arguments), cold=cold)
        assert done.returncode == 0, done.stderr
        return done

    return run


@pytest.fixture(scope="module")
def full_run(start, tmp_path_factory):
    """A whole run with a checkpoint after each epoch and a line after each iteration."""
    folder = tmp_path_factory.mktemp("runs") / "full"
    (folder.parent / "stdout").write_text(start(folder, *FULL, cold=True).stdout)
    return folder


def read_h5(path):
    """Name to (array, attributes), read with h5py alone."""
    found = {}
    with h5py.File(path, "r") as f:
        f.visititems(lambda n, d: found.update({n: (d[()], dict(d.attrs))}) if isinstance(d, h5py.Dataset) else None)
    assert found
    return found


def assert_same_parameters(first, second):
    first, second = read_h5(first), read_h5(second)
    assert first.keys() == second.keys()
    for name, (values, attributes) in first.items():
        assert values.tobytes() == second[name][0].tobytes(), name
        assert attributes == second[name][1]


def series(folder):
    return {name: (folder / f"{name}.series.txt").read_bytes() for name in SERIES}


def numbers(folder, name):
    return np.loadtxt(folder / f"{name}.series.txt", ndmin=2)


# --- what a run leaves behind -----------------------------------------------------------------------------------------


def test_the_files_of_a_run(full_run):
    kept = [LAST - 2 * EPOCH, LAST - EPOCH, LAST]
    expected = {".lock", "args.json", "Training_time.timer.txt", "index.html"}
    expected |= {f"{name}.series.txt" for name in SERIES} | {f"loss_{kind}.png" for kind in KINDS}
    expected |= {f"sample_{epoch:06d}.png" for epoch in range(1, EPOCHS + 1)}
    expected |= {f"checkpoint_{i:06d}.npz" for i in kept}
    expected |= {f"params_{i:06d}.{ending}" for i in kept for ending in ("h5", "json")}
    assert {p.name for p in full_run.iterdir()} == expected


def test_what_a_run_says(full_run, data):
    said = (full_run.parent / "stdout").read_text()
    assert "context: cpu" in said
    assert f"{EPOCH} pictures in A" in said and f"{EPOCH - 1} pictures in B" in said
    assert f"params_{LAST:06d}.h5" in said
    (estimate,) = [line for line in said.splitlines() if " s an iteration and " in line]
    assert estimate.startswith("about ") and f" GB of memory on this CPU: {LAST} iterations take about " in estimate


@pytest.mark.parametrize("name", SERIES)
def test_series_have_a_line_for_each_iteration(full_run, name):
    values = numbers(full_run, name)
    np.testing.assert_array_equal(values[:, 0], np.arange(LAST))
    assert np.isfinite(values).all() and (values[:, 1] > 0).all()
    assert len(set(values[:, 1])) > LAST // 2, "a loss does not stay the same"


def test_timer(full_run):
    """Iteration, seconds of the interval, iterations of the interval, seconds since the start."""
    rows = np.loadtxt(full_run / "Training_time.timer.txt", ndmin=2)
    np.testing.assert_array_equal(rows[:, 0], np.arange(LAST))
    np.testing.assert_array_equal(rows[:, 2], 1)
    assert (rows[:, 1] > 0).all() and rows[-1, 3] < 300
    np.testing.assert_allclose(rows[:, 3], np.cumsum(rows[:, 1]))


def test_args_json_has_every_argument(full_run, data):
    saved = json.loads((full_run / "args.json").read_text())
    defaults = vars(train_args("", []))
    assert saved.keys() == defaults.keys()
    given = dict(ngf=2, ndf=2, n_blocks=0, n_layers_D=1, loadSizeH=14, loadSizeW=18, fineSizeH=HEIGHT, fineSizeW=WIDTH)
    given.update(max_epoch=EPOCHS, lr_decay_start_epoch=1, log_step=1, save_interval=1, pool_size=3, context="cpu")
    given.update(evaluate_interval=0)
    given.update(dataroot=str(data), monitor_path=str(full_run))
    assert {name: saved[name] for name in given} == given
    where = {"model_save_path"}
    rest = saved.keys() - given.keys() - where
    assert {name: saved[name] for name in rest} == {name: defaults[name] for name in rest}


def test_the_defaults_are_those_of_the_example():
    expected = dict(loadSizeW=220, loadSizeH=330, fineSizeW=200, fineSizeH=300, ngf=64, ndf=64, n_layers_D=3)
    expected.update(norm="instance", no_flip=False, context="auto", type_config="float", batch_size=1)
    expected.update(learning_rate_G=2e-4, learning_rate_D=2e-4, beta1=0.5, beta2=0.999, max_epoch=600, device_id="0")
    expected.update(lambda_cyc=10, lambda_idt=10, lambda_ctx=10, lr_decay_start_epoch=400, ins_max=4, ins_per=2)
    expected.update(set_order="decreasing", pool_size=50, n_blocks=9, max_iter=None, pretrained=None, save_interval=10)
    found = vars(train_args("", []))
    assert {name: found[name] for name in expected} == expected


def test_the_model_is_what_nnabla_reads(full_run):
    """NNabla reads the names, shapes and values of the file, which has every parameter."""
    path = full_run / f"params_{LAST:06d}.h5"
    create_parameters(ARCH, np.random.RandomState(7))
    before = {name: v.d.copy() for name, v in nn.get_parameters(grad_only=False).items()}
    nn.load_parameters(str(path))
    after, truth = nn.get_parameters(grad_only=False), read_h5(path)
    assert after.keys() == before.keys() == truth.keys()
    for name, (values, _) in truth.items():
        np.testing.assert_array_equal(after[name].d, values)
        assert name.rsplit("/")[-1] == "b" or not np.array_equal(values, before[name]), name
    trainable = {name for name in truth if not name.endswith("/u")}
    assert nn.get_parameters(grad_only=True).keys() == trainable


def test_the_json_beside_the_model(full_run):
    config = json.loads((full_run / f"params_{LAST:06d}.json").read_text())
    expected = dict(ngf=2, ndf=2, n_blocks=0, n_layers_D=1, norm="instance", fineSizeH=HEIGHT, fineSizeW=WIDTH)
    expected.update(ins_per=2, ins_max=4, set_order="decreasing", iteration=LAST)
    assert {name: config[name] for name in expected} == expected
    assert set(config["networks"]) == set(NETWORKS)


def test_training_changes_every_network(full_run):
    early, late = (read_h5(full_run / f"params_{i:06d}.h5") for i in (LAST - EPOCH, LAST))
    for network in NETWORKS:
        weights = [n for n in late if n.startswith(network + "/") and n.endswith("/W")]
        assert weights and all(not np.array_equal(early[n][0], late[n][0]) for n in weights)


def grid_cells(path):
    """A sample picture cut into rows of (input, masks, translation, masks) for A and then for B."""
    grid = np.asarray(Image.open(path))
    assert grid.shape == (2 * HEIGHT + 4, 8 * WIDTH + 6 * 4 + 12, 3)
    lefts = [i * (WIDTH + 4) for i in range(4)]
    lefts += [lefts[-1] + WIDTH + 12 + left for left in lefts]
    return [[grid[top : top + HEIGHT, left : left + WIDTH] for left in lefts] for top in (0, HEIGHT + 4)]


def test_sample_pictures_show_the_same_pictures_each_epoch(full_run, data):
    epochs = [grid_cells(full_run / f"sample_{e:06d}.png") for e in range(1, EPOCHS + 1)]
    for row in range(2):
        for start, domain in ((0, "A"), (4, "B")):
            truth = pictures.read_picture(data / f"test{domain}" / f"000{row}.png", (HEIGHT, WIDTH))
            paths = sorted(data.glob(f"test{domain}_seg/000{row}_*.png"))
            covered = pictures.read_masks(paths, (HEIGHT, WIDTH)).any(axis=0)
            for cells in epochs:
                np.testing.assert_array_equal(cells[row][start], truth)
                np.testing.assert_array_equal(cells[row][start + 1].any(axis=2), covered)
            translations = {cells[row][start + 2].tobytes() for cells in epochs}
            assert len(translations) == EPOCHS, "the translation changes as the networks do"


def test_the_last_sample_is_what_translate_gives(full_run, data, run_script, tmp_path):
    cells = grid_cells(full_run / f"sample_{EPOCHS:06d}.png")
    for start, direction in ((0, "AtoB"), (4, "BtoA")):
        out = tmp_path / direction
        command = ["--model", full_run, "--dataroot", data, "--direction", direction, "--output", out, "-c", "cpu"]
        done = run_script("translate.py", *command)
        assert done.returncode == 0, done.stderr
        for row in range(2):
            image = np.asarray(Image.open(out / "images" / f"000{row}.png"))
            np.testing.assert_array_equal(image, cells[row][start + 2])


@pytest.mark.parametrize("kind", KINDS)
def test_curves_are_drawn(full_run, kind):
    picture = np.asarray(Image.open(full_run / f"loss_{kind}.png").convert("RGB"))
    assert min(picture.shape[:2]) > 200
    coloured = picture[(np.ptp(picture.astype(int), axis=2) > 60)]
    assert len(coloured) > 100, "two coloured lines on white"


# --- the same again ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def in_pairs(start, full_run, tmp_path_factory):
    """The run again, with a line every two iterations and its models elsewhere."""
    folder = tmp_path_factory.mktemp("runs")
    start(folder / "run", *FULL, "--log-step", 2, "--save-interval", 2, "--save-image-interval", 3, "-o", folder / "m")
    return folder


def test_the_same_seed_gives_the_same_model(full_run, in_pairs):
    assert_same_parameters(full_run / f"params_{LAST:06d}.h5", in_pairs / "m" / f"params_{LAST:06d}.h5")


@pytest.mark.parametrize("name", SERIES)
def test_a_line_every_two_iterations_is_the_mean_of_two(full_run, in_pairs, name):
    each, pairs = numbers(full_run, name), numbers(in_pairs / "run", name)
    assert pairs.shape == (LAST // 2, 2)
    np.testing.assert_array_equal(pairs[:, 0], each[1::2, 0])
    np.testing.assert_allclose(pairs[:, 1], each[:, 1].reshape(-1, 2).mean(axis=1), rtol=1e-6)


def test_intervals_and_the_model_folder(in_pairs):
    names = {p.name for p in (in_pairs / "run").iterdir()}
    assert {n for n in names if n.startswith("sample")} == {"sample_000003.png"}
    assert {n for n in names if n.endswith(".npz")} == {f"checkpoint_{i:06d}.npz" for i in (2 * EPOCH, LAST)}
    assert not any(n.startswith("params") for n in names)
    models = {f"params_{i:06d}.{ending}" for i in (2 * EPOCH, LAST) for ending in ("h5", "json")}
    assert {p.name for p in (in_pairs / "m").iterdir()} == {".lock", *models}


def test_another_seed_is_another_run(full_run, start, tmp_path):
    start(tmp_path / "run", *FULL, "--seed", 1, "--max-iter", 2)
    for name in SERIES:
        other, this = numbers(tmp_path / "run", name), numbers(full_run, name)
        assert len(other) == 2 and (other[:, 1] != this[:2, 1]).all()


# --- stopping and going on --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stopped(start, full_run, tmp_path_factory):
    """The run, stopped in the middle of its second epoch."""
    folder = tmp_path_factory.mktemp("runs") / "stopped"
    start(folder, *FULL, "--max-iter", EPOCH + 1)
    return folder


@pytest.fixture()
def stopped_copy(stopped, tmp_path):
    """A copy of the stopped run, which names its own folder."""
    copy = Path(shutil.copytree(stopped, tmp_path / "copy"))
    arguments = (copy / "args.json").read_text()
    (copy / "args.json").write_text(arguments.replace(str(stopped), str(copy)))
    return copy


def test_max_iter_stops_and_saves(stopped, full_run):
    assert {p.name for p in stopped.glob("params_*.h5")} == {f"params_{i:06d}.h5" for i in (EPOCH, EPOCH + 1)}
    for name in SERIES:
        np.testing.assert_array_equal(numbers(stopped, name), numbers(full_run, name)[: EPOCH + 1])


def test_resume_goes_on_as_the_run_was(stopped_copy, full_run, run_script):
    """Nothing but the folder and the new end is given: sizes, widths, data and schedule are those of the run."""
    done = run_script("train.py", "-m", stopped_copy, "--resume", "--max-iter", LAST)
    assert done.returncode == 0, done.stderr
    assert_same_parameters(stopped_copy / f"params_{LAST:06d}.h5", full_run / f"params_{LAST:06d}.h5")
    assert series(stopped_copy) == series(full_run)
    assert len((stopped_copy / "Training_time.timer.txt").read_text().splitlines()) == LAST


def test_resume_after_the_end_does_nothing(stopped_copy, run_script):
    before = series(stopped_copy), read_h5(stopped_copy / f"params_{EPOCH + 1:06d}.h5").keys()
    done = run_script("train.py", "-m", stopped_copy, "--resume")
    assert done.returncode == 0 and " s an iteration" not in done.stdout, done.stderr
    assert (series(stopped_copy), read_h5(stopped_copy / f"params_{EPOCH + 1:06d}.h5").keys()) == before




# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.fixture()
def refused(monkeypatch, capsys):
    """Run train.py's main in this process with wrong arguments; returns the line of its error. The exit code is 2."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["train.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            errors.run_main(train.main)
        message = capsys.readouterr().err
        assert exit_.value.code == 2, message
        assert message.startswith("train.py: error: ") and message.count("\n") == 1 and message.endswith("\n"), message
        return message

    return run


WRONG = [
    ("--fineSizeH 26 --loadSizeH 30", ["--fineSizeH", "multiple of 4", "28"]),
    ("--fineSizeW 30 --loadSizeW 40", ["--fineSizeW", "multiple of 4", "32"]),
    ("--fineSizeH 20", ["--fineSizeH", "24"]),
    ("--fineSizeW 20", ["--fineSizeW", "24"]),
    ("--n-layers-D 4 --fineSizeH 44", ["--fineSizeH", "48"]),
    ("--fineSizeH 332", ["--fineSizeH", "--loadSizeH", "330"]),
    ("--fineSizeW 224", ["--fineSizeW", "--loadSizeW", "220"]),
    ("--loadSizeH 0", ["--loadSizeH", "at least 1"]),
    ("--lambda-cyc -1", ["--lambda-cyc", "at least 0"]),
    ("--lambda-idt -0.5", ["--lambda-idt", "at least 0"]),
    ("--lambda-ctx=-1e-3", ["--lambda-ctx", "at least 0"]),
    ("--lambda-cyc nan", ["--lambda-cyc", "at least 0"]),
    ("--lambda-cyc inf", ["--lambda-cyc"]),
    ("--lambda-cyc ten", ["--lambda-cyc", "number"]),
    ("--beta1 1", ["--beta1", "below 1"]),
    ("--beta2 1.5", ["--beta2", "below 1"]),
    ("--beta1 -0.1", ["--beta1", "at least 0"]),
    ("--learning-rate_G -1", ["--learning-rate_G", "at least 0"]),
    ("--learning-rate_D x", ["--learning-rate_D", "number"]),
    ("--ins-per 0", ["--ins-per", "at least 1"]),
    ("--ins-max -1", ["--ins-max", "at least 0"]),
    ("--ngf 1", ["--ngf", "at least 2"]),
    ("--ngf 2.5", ["--ngf", "whole number"]),
    ("--ngf", ["--ngf"]),
    ("--ndf 0", ["--ndf", "at least 1"]),
    ("--n-blocks -1", ["--n-blocks", "at least 0"]),
    ("--n-layers-D 0", ["--n-layers-D", "at least 1"]),
    ("--batch-size 0", ["--batch-size", "at least 1"]),
    ("-b two", ["--batch-size", "whole number"]),
    ("--max-epoch 0", ["--max-epoch", "at least 1"]),
    ("--max-iter 0", ["--max-iter", "at least 1"]),
    ("--log-step 0", ["--log-step", "at least 1"]),
    ("--save-interval 0", ["--save-interval", "at least 1"]),
    ("--save-image-interval 0", ["--save-image-interval", "at least 1"]),
    ("--lr-decay-start-epoch -1", ["--lr-decay-start-epoch", "at least 0"]),
    ("--pool-size -1", ["--pool-size", "at least 0"]),
    ("--seed -1", ["--seed", "at least 0"]),
    ("--norm layer", ["--norm", "instance", "batch"]),
    ("--set-order increasing", ["--set-order", "decreasing", "random"]),
    ("--context gpu", ["--context", "auto", "cpu", "cudnn"]),
    ("--type-config double", ["--type-config", "float", "half"]),
    ("--no-such-flag", ["--no-such-flag"]),
    ("--max-it 3", ["--max-it"]),
    ("--fineSize 24", ["--fineSize"]),
    ("--batch 2", ["--batch"]),
    ("stray", ["stray"]),
    ("--pretrained nowhere.h5", ["nowhere.h5", "--pretrained"]),
    ("--resume -m nowhere", ["nowhere", "--monitor-path"]),
]


@pytest.mark.parametrize(("arguments", "words"), WRONG, ids=[w[0] for w in WRONG])
def test_wrong_arguments_are_refused_in_one_line(refused, monkeypatch, tmp_path, arguments, words):
    monkeypatch.chdir(tmp_path)
    message = refused(*arguments.split())
    assert all(word in message for word in words), message
    assert not list(tmp_path.iterdir()), "nothing is made before everything is checked"


def test_a_refusal_is_one_line_on_the_screen_too(run_script, tmp_path):
    """Libraries write their own lines when they start; a user shall see one."""
    done = run_script("train.py", "--ngf", "x", cwd=tmp_path, cold=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("train.py: error: ") and done.stderr.count("\n") == 1


def test_a_missing_data_set_says_how_to_make_one(refused, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    message = refused("-c", "cpu")
    assert "datasets/jeans2skirt_ccp" in message
    for words in ("git clone", "clothing-co-parsing", "generate_ccp_dataset.py", "generate_shapes_dataset.py"):
        assert words in message
    assert "--dataroot datasets/circle2square" in message


def test_the_command_for_the_embedded_data_set_works_with_it(refused, monkeypatch, tmp_path):
    """train.py accepts the arguments that the message suggests."""
    monkeypatch.chdir(tmp_path)
    message = refused("-c", "cpu")
    arguments = message[message.index("--dataroot datasets/circle2square") :].split()
    args = train_args("", arguments)
    assert (args.fineSizeH, args.fineSizeW) == (64, 64)


def test_a_data_set_without_the_phase_or_without_masks_is_refused(refused, tmp_path, data):
    root = shutil.copytree(data, tmp_path / "data")
    shutil.rmtree(root / "trainB_seg")
    message = refused(*command_line(root, tmp_path / "run"))
    assert "trainB_seg" in message
    shutil.rmtree(root / "trainB")
    assert "trainB" in refused(*command_line(root, tmp_path / "run"))


def test_an_unreadable_picture_ends_the_run_in_one_line(run_script, data, tmp_path):
    root = shutil.copytree(data, tmp_path / "data")
    (root / "trainA" / "0001.png").write_bytes(b"no picture")
    done = run_script("train.py", *command_line(root, tmp_path / "run", "--max-iter", 9))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    (line,) = [line for line in re.split("[\r\n]+", done.stderr) if line.startswith("train.py: error: ")]
    assert "trainA" in line and "0001.png" in line


def test_a_folder_with_a_run_is_refused(refused, stopped_copy, data):
    before = series(stopped_copy)
    message = refused(*command_line(data, stopped_copy))
    assert str(stopped_copy) in message and "--resume" in message and "--monitor-path" in message
    assert series(stopped_copy) == before


CHANGED = [("--ngf", 4), ("--batch-size", 2), ("--fineSizeH", 24), ("--lambda-cyc", 5), ("--seed", 8), ("--no-flip",)]


@pytest.mark.parametrize("change", CHANGED, ids=[c[0] for c in CHANGED])
def test_resume_with_another_model_or_course_is_refused(refused, stopped_copy, change):
    before = series(stopped_copy)
    message = refused("-m", stopped_copy, "--resume", *change)
    assert change[0] in message and "--resume" in message
    assert series(stopped_copy) == before


@pytest.mark.parametrize(("flag", "value"), [("--ngf", 4), ("--ndf", 4), ("--n-blocks", 1), ("--norm", "batch")])
def test_pretrained_of_another_kind_is_refused(refused, full_run, data, tmp_path, flag, value):
    model = full_run / f"params_{LAST:06d}.h5"
    message = refused(*command_line(data, tmp_path / "run", "--pretrained", model, flag, value))
    assert str(model) in message


def test_a_resumed_run_does_not_need_what_it_was_pretrained_with(start, full_run, run_script, tmp_path):
    """All of the run is in its checkpoint; the file it started from may be gone by then."""
    model = tmp_path / "old.h5"
    for ending in (".h5", ".json"):
        shutil.copy((full_run / f"params_{LAST:06d}").with_suffix(ending), model.with_suffix(ending))
    start(tmp_path / "run", "--pretrained", model, "--max-iter", 1)
    model.unlink()
    done = run_script("train.py", "-m", tmp_path / "run", "--resume", "--max-iter", 2)
    assert done.returncode == 0, done.stderr


def test_a_run_whose_folder_was_moved_goes_on_in_the_new_one(start, run_script, tmp_path):
    start(tmp_path / "old", "--max-iter", 1)
    (tmp_path / "old").rename(tmp_path / "new")
    done = run_script("train.py", "-m", tmp_path / "new", "--resume", "--max-iter", 2)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "new" / "params_000002.h5").exists() and not (tmp_path / "old").exists()


# --- other runs -------------------------------------------------------------------------------------------------------


def test_pretrained_starts_from_the_parameters(start, full_run, tmp_path):
    """The learning rates are 0, so the parameters are the same at the end."""
    model = full_run / f"params_{LAST:06d}.h5"
    still = "--learning-rate_G 0 --learning-rate_D 0 --max-iter 1 --seed 5".split()
    start(tmp_path / "run", "--pretrained", model, *still)
    before, after = read_h5(model), read_h5(tmp_path / "run" / "params_000001.h5")
    for name, (values, _) in before.items():
        moved = name.endswith("/u") and values.size > 1  # each look of D is one power iteration
        assert np.array_equal(values, after[name][0]) != moved, name


def test_pretrained_generators_only(start, full_run, tmp_path):
    """Networks that the model lacks start at random, and the run says so."""
    parameters, config = model_file.load_model(full_run / f"params_{LAST:06d}.h5")
    kept = {name: v for name, v in parameters.items() if name.startswith("gen")}
    model_file.save_model(tmp_path / "g.h5", kept, {**config, "networks": ["gen_x2y", "gen_y2x"]})
    still = "--learning-rate_G 0 --learning-rate_D 0 --max-iter 1".split()
    done = start(tmp_path / "run", "--pretrained", tmp_path / "g.h5", *still)
    assert "random" in done.stdout and "dis_x" in done.stdout and "dis_y" in done.stdout
    after = read_h5(tmp_path / "run" / "params_000001.h5")
    assert all(np.array_equal(v, after[name][0]) for name, v in kept.items())


def test_batches_of_two_with_batch_normalization(start, data, tmp_path, run_script):
    """Pictures with different numbers of instances; one without masks is left out with a line; then translated."""
    root = shutil.copytree(data, tmp_path / "data")
    shutil.copy(root / "trainA" / "0000.png", root / "trainA" / "bare.png")
    counts = {len(list(root.glob(f"train?_seg/{i:04d}_*.png"))) for i in range(3)}
    assert len(counts) > 1
    done = start(tmp_path / "run", *FULL, "--batch-size", 2, "--norm", "batch", "--max-iter", 3, of=root)
    assert "bare.png: it has no mask, and is left out" in done.stdout and f"{EPOCH} pictures in A" in done.stdout
    for name in SERIES:
        values = numbers(tmp_path / "run", name)
        assert len(values) == 3 and np.isfinite(values).all()
    trained = read_h5(tmp_path / "run" / "params_000003.h5")
    statistics = [n for n in trained if n.rsplit("/")[-1] in ("mean", "var")]
    assert statistics and all(np.isfinite(trained[n][0]).all() for n in statistics)
    command = ["--model", tmp_path / "run", "--dataroot", root, "--output", tmp_path / "out", "-c", "cpu"]
    done = run_script("translate.py", *command)
    assert done.returncode == 0, done.stderr
    images = [np.asarray(Image.open(tmp_path / "out" / "images" / f"000{i}.png")) for i in range(2)]
    assert all(image.shape == (HEIGHT, WIDTH, 3) for image in images) and images[0].std() > 0


# --- one iteration, in its parts --------------------------------------------------------------------------------------


@pytest.fixture()
def make_model():
    def make(*arguments):
        return InstaGAN(Settings.from_args(train_args("", [*RUN, *map(str, arguments)])))

    return make


def sample(instances, seed=0):
    """A picture of noise with N `instances` of different sizes."""
    random = np.random.default_rng([seed, instances])
    masks = -np.ones((instances, HEIGHT, WIDTH), np.float32)
    for i in range(instances):
        masks[i, 2 * i : 2 * i + 3, 1 : 12 - 2 * i] = 1
    return Sample(str(seed), random.uniform(-1, 1, (3, HEIGHT, WIDTH)).astype(np.float32), masks)


def step(model, **shown):
    """The losses of an iteration on some samples of x and y."""
    batches = {domain: Batch.from_samples(samples, model.settings.ins_per) for domain, samples in shown.items()}
    return model.step(batches).read(ALONE)


def solvers(model):
    """Each network's Adam."""
    return {name: solver for optimizer in model.optimizers.values() for name, solver in optimizer.solvers.items()}


def updates(model):
    """The number of updates of each network's solver."""
    counts = {}
    for network, solver in solvers(model).items():
        steps = {state.t for state in solver.get_states().values()}
        assert len(steps) == 1
        counts[network] = steps.pop()
    return counts


@pytest.mark.parametrize(
    ("in_x", "in_y", "expected"),
    [
        (1, 2, {"gen_x2y": 1, "gen_y2x": 1, "dis_x": 1, "dis_y": 1}),
        (3, 1, {"gen_x2y": 2, "gen_y2x": 2, "dis_x": 1, "dis_y": 2}),
        (2, 4, {"gen_x2y": 2, "gen_y2x": 2, "dis_x": 2, "dis_y": 1}),
        (4, 0, {"gen_x2y": 2, "gen_y2x": 2, "dis_x": 0, "dis_y": 2}),
        (0, 0, {"gen_x2y": 0, "gen_y2x": 0, "dis_x": 0, "dis_y": 0}),
    ],
)
def test_a_domain_without_instances_left_contributes_nothing(make_model, in_x, in_y, expected):
    """The D that judges the translations of a domain (dis_y those of x) is stepped as often as it has a pass."""
    model = make_model()
    before = model.parameters()
    losses = step(model, x=[sample(in_x)], y=[sample(in_y, 1)])
    assert updates(model) == expected
    after = model.parameters()
    for network, count in expected.items():
        weights = [n for n in before if n.startswith(network + "/") and n.endswith("/W")]
        assert weights and {np.array_equal(before[n], after[n]) for n in weights} == {count == 0}
    names = set()
    for source, target, count in (("x", "y", in_x), ("y", "x", in_y)):
        kinds = ("reconstruction", "identity_mapping", "context_preserving")
        names |= {f"{kind}_loss_{source}" for kind in kinds if count}
        names |= {f"{kind}_loss_{target}" for kind in ("generator", "discriminator") if count}
    assert losses.keys() == names


def test_both_domains_side_by_side_are_as_one_after_the_other_and_always_the_same():
    """The layers are large enough that the two really run at the same time."""
    if not kernels.active():
        pytest.skip("oneDNN's kernels do not work here")
    random = np.random.default_rng(0)
    size = "--loadSizeH 48 --loadSizeW 64 --fineSizeH 48 --fineSizeW 64 --ngf 32 --ndf 32 --n-blocks 1".split()
    masks = -np.ones((3, 48, 64), np.float32)
    masks[0, :20, :30] = masks[1, 10:30, 40:60] = masks[2, 30:, 5:20] = 1
    shown = [random.uniform(-1, 1, (3, 48, 64)).astype(np.float32) for _ in "xy"]
    batches = {"x": [Sample("x", shown[0], masks)], "y": [Sample("y", shown[1], masks[:2])]}
    found = []
    for way in (kernels.in_turn, kernels.side_by_side, kernels.side_by_side):
        nn.clear_parameters()
        model = InstaGAN(Settings.from_args(train_args("", size)))
        model.run_both = way
        found.append(([step(model, **batches) for _ in range(2)], model.parameters()))
    for losses, tolerance in zip(zip(found[0][0], found[1][0]), (1e-4, 3e-2)):
        # after an update of the weights, as in the tests of parity, rounding shows
        assert losses[1] == pytest.approx(losses[0], rel=tolerance)
    assert found[1][0] == found[2][0]
    assert all(np.array_equal(value, found[2][1][name]) for name, value in found[1][1].items())


def test_losses_of_an_iteration_are_means_over_their_passes(make_model, monkeypatch):
    model, passes = make_model("--ins-max", 5), []
    add = StepLosses.add

    def noting(self, name, share, value):
        assert share == 1
        passes[-1].setdefault(name, []).append(float(value.data))
        add(self, name, share, value)

    begin = StepLosses.begin_pass
    monkeypatch.setattr(StepLosses, "add", noting)
    monkeypatch.setattr(StepLosses, "begin_pass", lambda self: passes.append({}) or begin(self))
    losses = step(model, x=[sample(5)], y=[sample(1, 1)])
    assert [len(p) for p in passes] == [10, 5, 5]
    for name, loss in losses.items():
        seen = [p[name] for p in passes if name in p]
        assert len(seen) in (1, 3)
        # a discriminator's loss is what it says of real pictures and of translations
        assert {len(values) for values in seen} == ({2} if "discriminator" in name else {1})
        assert loss == pytest.approx(np.mean([sum(values) for values in seen]), rel=1e-6)


def forward(network, arguments, mode=None):
    """The outputs of a network in a separate graph, run without clearing any buffer."""
    variables = [nn.Variable.from_numpy_array(np.asarray(a, np.float32)) for a in arguments]
    with nn.parameter_scope(network):
        build = generator if network.startswith("gen") else discriminator
        outputs = build(*variables, ARCH, *([mode] if mode else []))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    nn.forward_all(outputs)
    return [o.d.copy() for o in outputs]


def power_iteration_vectors(model):
    return {name: v for name, v in model.parameters().items() if name.endswith("/u")}


def put(values):
    for name, value in values.items():
        nn.get_parameters(grad_only=False)[name].d = value


def l1(slots, *pairs):
    """Mean absolute difference over 3 + `slots` channels of each picture."""
    total = sum(np.abs(first - second).astype(np.float64).sum() for first, second in pairs)
    return total / (len(pairs[0][0]) * (3 + slots) * HEIGHT * WIDTH)


def cover(masks, owners, picture):
    """The masks of a picture on top of each other (H, W), from 0 to 1."""
    return np.clip(sum((masks[m, 0] + 1) / 2 for m in range(len(masks)) if owners[m] == picture), 0, 1)


def widened(covered):
    """A pixel further to all sides."""
    return maximum_filter(covered, 3, mode="constant")


def context_loss(x, a, y, b, owners):
    total = 0.0
    for i in range(len(x)):
        covered = np.clip(cover(a, owners, i) + cover(b, owners, i), 0, 1)
        total += np.mean((1 - covered) * np.abs(x[i] - y[i]))
    return total / len(x)


def composed(x, a, y, b, owners):
    """What G painted where the masks are, and the picture elsewhere."""
    weights = [
        np.maximum(np.clip(cover(a, owners, i) + cover(b, owners, i), 0, 1), widened(cover(a, owners, i)) / 2)
        for i in range(len(x))
    ]
    return np.stack([w * painted + (1 - w) * picture for w, painted, picture in zip(weights, y, x)])


def vacated_loss(x, a, y, b, owners):
    """Pixel by pixel: what surrounds an old mask is the mean over a square, of growing size, of what is outside."""
    total = 0.0
    for i in range(len(x)):
        old, new = cover(a, owners, i), cover(b, owners, i)
        before = widened(old)
        for row, column in zip(*np.nonzero(old)):
            reach = 1
            while True:
                square = np.s_[max(row - reach, 0) : row + reach + 1, max(column - reach, 0) : column + reach + 1]
                outside = before[square] == 0
                if outside.any() or reach > max(HEIGHT, WIDTH):
                    break
                reach *= 2
            surroundings = x[i][:, square[0], square[1]][:, outside].mean(axis=1)
            weight = old[row, column] * max(1 - 2 * new[row, column], 0)
            total += weight * np.abs(y[i, :, row, column] - surroundings).sum()
    return total / x.size


@pytest.mark.parametrize("background", ["keep", "network"])
@pytest.mark.parametrize("source", ["x", "y"])
def test_generator_losses_are_those_worked_out_in_numpy(make_model, source, background):
    """Three pictures, 3, 4 and 2 instances: in the second pass the first two have some left, and earlier masks."""
    keep = background == "keep"
    model = make_model("--lambda-cyc", 7, "--lambda-idt", 3, "--lambda-ctx", 20, "--background", background)
    rng = np.random.default_rng(0)  # weights of 0.02 would make every translation grey
    put({n: rng.normal(0, 0.3, v.shape) for n, v in model.parameters().items() if n.endswith("/W")})
    target = {"x": "y", "y": "x"}[source]
    there, back = f"gen_{source}2{target}", f"gen_{target}2{source}"
    samples = [sample(3), sample(4, 1), sample(2, 2)]
    progress = SequentialTranslation(Batch.from_samples(samples, 2))
    for pass_ in range(2):
        batch = progress.mini_batch()
        u = power_iteration_vectors(model)
        earlier = sum(batch.earlier.counts) if pass_ else 0
        graph = model.generator_graph(source, len(batch.masks.counts), sum(batch.masks.counts), earlier)
        graph.total.persistent = True
        assert model.generator_pass(source, batch) is graph
        losses, total = {name: float(loss.d) for name, loss in graph.losses.items()}, float(graph.total.d)
        put(u)
        x, a, owner = batch.pictures.data, batch.masks.masks.data, batch.masks.membership.data
        owners_of = owner.argmax(axis=0)

        def translation(network, x, a, owner=owner, owners_of=owners_of):
            y, b = forward(network, (x, a, owner))
            return composed(x, a, y, b, owners_of) if keep else y, b

        y, b = translation(there, x, a)
        for mine, theirs in zip((y, b), graph.translated):
            np.testing.assert_allclose(mine, theirs.d, atol=1e-6)
        again, same = translation(back, y, b), translation(back, x, a)
        everything = np.concatenate([batch.earlier.masks.data, b]) if pass_ else b
        owners = np.concatenate([batch.earlier.membership.data, owner], axis=1) if pass_ else owner
        assert (len(x), len(a), len(everything)) == ((3, 6, 6), (2, 3, 7))[pass_]
        (score,) = forward(f"dis_{target}", (y, everything, owners), FROZEN)
        expected = {
            f"generator_loss_{target}": np.mean((score - 1.0) ** 2),
            f"reconstruction_loss_{source}": 7 * l1(2, (x, again[0]), (a, again[1])),
            f"identity_mapping_loss_{source}": 3 * l1(2, (x, same[0]), (a, same[1])),
            f"context_preserving_loss_{source}": 20 * context_loss(x, a, y, b, owners_of),
        }
        if keep:
            expected[f"context_preserving_loss_{source}"] = 20 * vacated_loss(x, a, y, b, owners_of)
            # in the second pass the new masks cover nearly everything
            assert pass_ or vacated_loss(x, a, y, b, owners_of) > 1e-3
        assert losses == pytest.approx(expected, rel=1e-4)
        assert total == pytest.approx(sum(expected.values()), rel=1e-4)
        progress.advance(*(nn.NdArray.from_numpy_array(v) for v in (y, b)))
    assert not progress.remaining


def test_without_masks_it_is_cyclegan(make_model):
    """`--ins-max 0`: the losses are those of pictures alone, and nothing that makes masks learns."""
    model = make_model("--ins-max", 0, "--lambda-cyc", 7, "--lambda-idt", 3)
    rng = np.random.default_rng(0)
    put({n: rng.normal(0, 0.3, v.shape).astype(np.float32) for n, v in model.parameters().items() if n.endswith("/W")})
    before = model.parameters()
    shown = {domain: sample(0, seed) for seed, domain in enumerate("xy")}
    losses = step(model, **{domain: [one] for domain, one in shown.items()})
    after = model.parameters()
    put(before)
    empty_mask, owner = -np.ones((1, 1, HEIGHT, WIDTH)), np.ones((1, 1))
    for source, target in ("xy", "yx"):
        x = shown[source].picture[None]
        y = forward(f"gen_{source}2{target}", (x, empty_mask, owner))[0]
        again, same = (forward(f"gen_{target}2{source}", (p, empty_mask, owner))[0] for p in (y, x))
        put(before)
        (score,) = forward(f"dis_{target}", (y, empty_mask, owner), FROZEN)
        assert losses.pop(f"generator_loss_{target}") == pytest.approx(np.mean((score - 1.0) ** 2), rel=1e-4)
        assert losses.pop(f"reconstruction_loss_{source}") == pytest.approx(7 * np.abs(x - again).mean(), rel=1e-4)
        assert losses.pop(f"identity_mapping_loss_{source}") == pytest.approx(3 * np.abs(x - same).mean(), rel=1e-4)
    assert losses.keys() == {"discriminator_loss_x", "discriminator_loss_y"}
    moved = {n.split("/")[1] for n in before if n.endswith("/W") and not np.array_equal(before[n], after[n])}
    assert {"encoder_image", "decoder_image"} <= moved and not {"encoder_mask", "decoder_mask"} & moved


def test_a_run_without_masks_translates_whole_pictures(start, data, run_script, tmp_path):
    folder, out = tmp_path / "run", tmp_path / "out"
    start(folder, "--ins-max", 0, "--max-epoch", 1, "--log-step", 1)
    assert len(numbers(folder, "reconstruction_loss_x")) == EPOCH
    assert series(folder)["context_preserving_loss_x"] == b""
    done = run_script("translate.py", "--model", folder, "--dataroot", data, "--output", out, "-c", "cpu")
    assert done.returncode == 0 and "trained without masks" in done.stdout and "left alone" not in done.stdout
    for item in find_items(data, "test", "A"):
        before = pictures.read_picture(item.image, (HEIGHT, WIDTH))
        assert not np.array_equal(pictures.read_picture(out / "images" / f"{item.name}.png"), before)
    assert not (out / "masks").exists()


@pytest.mark.parametrize("target", [0.0, 1.0])
def test_discriminator_loss_is_half_of_what_numpy_says(make_model, target):
    model = make_model()
    u = power_iteration_vectors(model)
    samples = [sample(3), sample(1, 1), sample(0, 2)]
    batch, shown = Batch.from_samples(samples, 2), [(s.picture, s.masks) for s in samples]
    loss = float(model.discriminator_pass("y", JudgedPictures(batch.pictures, batch.masks), target).data)
    put(u)
    scores = []
    empty = -np.ones((1, HEIGHT, WIDTH), np.float32)
    masks = [m if len(m) else empty for _, m in shown]
    owner = np.zeros((3, 5))
    owner[[0, 0, 0, 1, 2], range(5)] = 1
    (scores,) = forward("dis_y", (np.stack([p for p, _ in shown]), np.concatenate(masks)[:, None], owner))
    assert len(scores) == 3
    assert loss == pytest.approx(0.5 * np.mean((scores - target) ** 2), rel=1e-5)


# --- learning rates ---------------------------------------------------------------------------------------------------


def test_learning_rate_is_constant_and_then_falls_in_a_line(make_model):
    model = make_model("--learning-rate_G", 1e-3, "--learning-rate_D", 3e-4, "-e", 10, "--lr-decay-start-epoch", 6)
    rates = {network: [] for network in NETWORKS}
    for epoch in range(11):
        model.set_learning_rate(epoch)
        for network, solver in solvers(model).items():
            rates[network].append(solver.learning_rate())
    for network, found in rates.items():
        full = 1e-3 if network.startswith("gen") else 3e-4
        np.testing.assert_allclose(found[:6], full, rtol=1e-6)
        np.testing.assert_allclose(found[6:], full * np.array([0.8, 0.6, 0.4, 0.2, 0.0]), rtol=1e-5, atol=1e-12)


def test_without_a_decay_the_learning_rate_stays(make_model):
    model = make_model("-e", 5, "--lr-decay-start-epoch", 400)
    for epoch in range(5):
        model.set_learning_rate(epoch)
        assert {round(s.learning_rate(), 9) for s in solvers(model).values()} == {2e-4}


@pytest.mark.parametrize(("flag", "still"), [("--learning-rate_G", "gen"), ("--learning-rate_D", "dis")])
def test_each_learning_rate_moves_its_own_networks(make_model, flag, still):
    model = make_model(flag, 0)
    model.set_learning_rate(0)
    before = model.parameters()
    step(model, x=[sample(2)], y=[sample(1, 1)])
    after = model.parameters()
    for name in before:
        if name.endswith("/W"):
            assert np.array_equal(before[name], after[name]) == name.startswith(still), name


def test_the_training_loop_sets_the_rate_of_each_epoch(data, tmp_path, monkeypatch):
    used = []

    def noting(self, batches, shares):
        used.append(self.optimizers["dis_x"].solvers["dis_x"].learning_rate())
        return StepLosses()

    monkeypatch.setattr(InstaGAN, "step", noting)
    monkeypatch.setattr(Saver, "save", lambda self, iteration: None)
    arguments = command_line(data, tmp_path, "-e", 4, "--lr-decay-start-epoch", 2, "--save-image-interval", 9)
    train.Run(train_args("", arguments)).train()
    epochs = np.array(used).reshape(4, EPOCH) / 2e-4
    np.testing.assert_allclose(epochs, np.array([1, 1, 2 / 3, 1 / 3])[:, None].repeat(EPOCH, axis=1), rtol=1e-5)
