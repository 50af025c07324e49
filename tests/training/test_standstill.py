# SPDX-License-Identifier: Apache-2.0
"""The warning where translations stay the same as their inputs, with generators of which that is known."""

from __future__ import annotations

import numpy as np
import pytest

import train
from args import train_args
from backend import kernels
from datasets import generate_shapes_dataset as shapes
from instagan import InstaGAN
from models import DOMAINS
from training.batches import training_items
from training.samples import SampleGrid
from training.settings import Settings
from training.standstill import Change, Standstill, measure
from translation.translator import Translator

SIZES = "--loadSizeH 24 --loadSizeW 24 --fineSizeH 24 --fineSizeW 24".split()
SMALL = [*SIZES, *"--n-layers-D 1 --ngf 2 --ndf 2 --n-blocks 0 -c cpu".split()]
SAME = Change(0.96, 7.9)
CHANGED = Change(0.96, 8.1)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "shapes"
    shapes.generate(root, height=24, width=24, train=3, test=2, max_instances=3, seed=5)
    return root


@pytest.fixture()
def grid(data):
    """Make the sample grid of networks at random, by arguments of train.py."""

    def make(*arguments):
        kernels.configure("auto")
        settings = Settings.from_args(train_args("", [*SMALL, *map(str, arguments)]))
        InstaGAN(settings)
        items = {domain: training_items(data, letter, settings.ins_max > 0) for domain, letter in DOMAINS.items()}
        return SampleGrid(data, items, settings)

    return make


@pytest.fixture()
def unchanging(monkeypatch):
    """Let these generators return their input, a little brighter, with masks a little softer."""
    original = Translator.translate

    def make(*networks):
        def translate(translator, picture, masks):
            if translator.network not in networks:
                return original(translator, picture, masks)
            return picture + np.float32(3 / 127.5), masks * np.float32(0.9)

        monkeypatch.setattr(Translator, "translate", translate)

    return make


def warnings(grid, folder, epochs):
    return [grid.write(folder / "sample.png", epoch) for epoch in epochs]


@pytest.mark.parametrize("arguments", [[], ["--ins-max", 0], ["--background", "network"]], ids=str)
def test_an_identity_warns_once_in_each_direction(grid, unchanging, tmp_path, arguments):
    unchanging("gen_x2y", "gen_y2x")
    of_epochs = warnings(grid(*arguments), tmp_path, range(1, 6))
    assert [len(lines) for lines in of_epochs] == [0, 0, 2, 0, 0]
    for line, letter in zip(of_epochs[2], "AB"):
        assert f"translations of {letter} are still the same" in line and "within 3 of 255" in line
        assert "--lambda-idt" in line and "--lambda-cyc" in line and "\n" not in line
        assert ("masks: IoU 1.00" in line) == (arguments != ["--ins-max", 0])


@pytest.mark.parametrize(("network", "letter"), [("gen_x2y", "A"), ("gen_y2x", "B")])
def test_a_one_sided_one_names_its_domain(grid, unchanging, tmp_path, network, letter):
    unchanging(network)
    of_epochs = warnings(grid(), tmp_path, (2, 3))
    (line,) = of_epochs[1]
    assert of_epochs[0] == [] and f"translations of {letter} " in line


def test_networks_at_random_do_not_warn(grid, tmp_path):
    for arguments in ([], ["--ins-max", 0], ["--background", "network"]):
        assert not any(warnings(grid(*arguments), tmp_path, range(2, 6)))


@pytest.mark.parametrize(
    ("changes", "due"),
    [
        ([SAME, SAME], []),
        ([SAME, SAME, SAME], [3]),
        ([SAME] * 6, [3]),
        ([CHANGED, SAME, CHANGED, SAME], []),
        ([CHANGED, SAME, SAME, CHANGED, SAME, SAME, SAME], [3, 6]),
        ([CHANGED, SAME, None, SAME], [4]),
        ([Change(0.94, 0.0)] * 5, []),
        ([Change(None, 7.9)] * 3, [3]),
        ([Change(None, 8.1)] * 3, []),
    ],
)
def test_it_warns_after_two_in_a_row_and_again_only_after_a_change(changes, due):
    watch = Standstill("A")
    assert [epoch for epoch, change in enumerate(changes, 1) if watch.warning(epoch, change)] == due


def test_the_change_by_hand():
    """Two masks of 4 pixels, one of which moves by a column; pictures differ by 10 in one of the 6 pixels of both."""
    before = -np.ones((2, 4, 6), np.float32)
    before[0, :2, :2] = before[1, 2:, 4:] = 1
    after = before.copy()
    after[0] = np.roll(before[0], 1, axis=1)
    picture = np.zeros((3, 4, 6), np.float32)
    painted = picture.copy()
    painted[:, 0, 2] = 10 / 127.5
    # outside of both masks nothing counts
    painted[:, 3, 0] = 1
    change = measure([(picture, before)], [(painted, after)], whole_pictures=False)
    assert change.masks_iou == pytest.approx((2 / 6 + 1) / 2)
    assert change.difference == pytest.approx(10 / (6 + 4))
    whole = measure([(picture, before[:0])], [(painted, before[:0])], whole_pictures=True)
    assert whole.masks_iou is None and whole.difference == pytest.approx((10 + 127.5) / 24)
    assert measure([(picture, before[:0])], [(painted, before[:0])], whole_pictures=False) is None


@pytest.mark.usefixtures("blank_curves")
def test_a_run_prints_the_warning_and_trains_the_same(data, tmp_path, run_main, unchanging):
    course = ["--dataroot", data, *SMALL, "--max-epoch", 4, "--log-step", 1]
    code, out, err = run_main(train, *course, "-m", tmp_path / "usual")
    assert code == 0 and "still the same" not in out, err
    unchanging("gen_y2x")
    code, out, err = run_main(train, *course, "-m", tmp_path / "run")
    assert code == 0 and out.count("translations of B are still the same") == 1, err
    assert "translations of A are" not in out
    for name in ("params_000012.h5", "generator_loss_x.series.txt", "reconstruction_loss_y.series.txt"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "usual" / name).read_bytes()
    code, out, err = run_main(train, "-m", tmp_path / "run", "--resume", "--max-epoch", 6)
    assert code == 0 and out.count("translations of B are still the same") == 1, err
