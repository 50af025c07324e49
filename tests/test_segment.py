# SPDX-License-Identifier: Apache-2.0
"""Masks for pictures without: the network, what it learns, instances, and the two commands."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from functools import partial
from pathlib import Path

import h5py
import nnabla as nn
import numpy as np
import pytest

import segment
from backend import kernels
from common import errors
from data import checks, pictures
from data.instances import iou
from data.items import find_items
from datasets import generate_shapes_dataset
from masks import predicted_masks, segmenter_training
from masks.segmenter import Segmenter, SegmenterSettings, label_instances, load

SMALL = SegmenterSettings((32, 48), (False, False))
NARROW = (16, 32, 32)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Circles (A) and squares (B), some pictures with two of them; `val` are the test pictures without their masks."""
    root = tmp_path_factory.mktemp("data") / "shapes"
    shapes = {"shape1": "circle", "shape2": "square", "height": 48, "width": 48}
    counts = {"train": 24, "test": 4, "min_instances": 1, "max_instances": 2}
    generate_shapes_dataset.generate(root, **shapes, **counts)
    for domain in "AB":
        shutil.copytree(root / f"test{domain}", root / f"val{domain}")
    return root


def make_small(patch):
    """The command line trains a network of three resolutions, at 32x32."""
    patch.setattr(segmenter_training, "AREA", 32 * 32)
    patch.setattr(segmenter_training, "CHANNELS", NARROW)
    patch.setattr(segmenter_training, "RATE", 0.01)
    patch.setattr(segment, "Segmenter", partial(Segmenter, channels=NARROW))


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A model that the command line trained for some seconds, with the file of its quality."""
    path = tmp_path_factory.mktemp("model") / "shapes.h5"
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        arguments = ["--dataroot", data, "--output", path, "--steps", 120, "--context", "cpu"]
        patch.setattr(sys, "argv", list(map(str, ["segment.py", "train", *arguments])))
        assert segment.main() == 0
    return path


@pytest.fixture()
def val(data, tmp_path):
    """A copy of the data set, to write into."""
    return Path(shutil.copytree(data, tmp_path / "data"))


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


def test_both_kernels_agree_in_results_and_gradients():
    rng = np.random.default_rng(0)
    x, truth = rng.uniform(-1, 1, (2, 3, *SMALL.size)), rng.integers(0, 2, (2, 2, *SMALL.size))
    results = []
    for choice in ("nnabla", "onednn"):
        nn.clear_parameters()
        try:
            kernels.configure(choice)
        except errors.UserError as error:
            pytest.skip(str(error))
        variable, logits = Segmenter(SMALL, NARROW, seed=3).graph(2)
        y = nn.Variable(logits.shape)
        loss = segmenter_training.segmentation_loss(logits, y, nn.Variable.from_numpy_array(np.ones((2, 2, 1, 1))))
        variable.d, y.d, logits.persistent = x, truth, True
        for parameter in nn.get_parameters().values():
            parameter.grad.zero()
        loss.forward(clear_no_need_grad=True)
        loss.backward(clear_buffer=True)
        results.append([logits.d.copy(), *(p.g.copy() for p in nn.get_parameters().values())])
    assert len(results[0]) == 1 + 2 * (2 + 4 * (len(NARROW) - 1))
    for one, other in zip(*results):
        np.testing.assert_allclose(one, other, atol=2e-4 * max(1, np.abs(one).max()))
    # the gradient reaches the first layer through all resolutions
    assert all(np.abs(gradient).max() > 0 for gradient in results[0][1::2])


def test_the_loss_is_cross_entropy_and_dice_of_what_is_known():
    rng = np.random.default_rng(0)
    logits, y = rng.normal(size=(3, 2, 4, 5)), rng.integers(0, 2, (3, 2, 4, 5)).astype(float)
    known = np.array([[1, 0], [0, 1], [1, 1]])
    loss = segmenter_training.segmentation_loss(
        *(nn.Variable.from_numpy_array(v) for v in (logits, y, known[..., None, None]))
    )
    loss.forward()
    p = 1 / (1 + np.exp(-logits))
    entropy = -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean(axis=(2, 3))
    dice = (2 * (p * y).sum(axis=(2, 3)) + 1) / (p.sum(axis=(2, 3)) + y.sum(axis=(2, 3)) + 1)
    np.testing.assert_allclose(loss.d, (entropy + 1 - dice)[known == 1].mean(), rtol=1e-5)


def test_what_hangs_together_is_an_instance_and_specks_are_none():
    inside = np.zeros((40, 60), bool)
    inside[2:10, 2:10] = True  # 64
    inside[10:30, 10:30] = True  # 400, which touches the first at a corner only
    inside[5:15, 40:50] = True  # 100
    inside[35:37, 50:52] = True  # 4
    labels, count = label_instances(inside, single=False)
    assert count == 3 and [int((labels == i).sum()) for i in (1, 2, 3)] == [400, 100, 64]
    assert (labels[10:30, 10:30] == 1).all() and labels[36, 51] == 0
    labels, count = label_instances(inside, single=True)
    assert count == 1 and (labels == 1).sum() == 564
    assert label_instances(np.zeros((4, 4), bool), False)[1] == label_instances(np.zeros((4, 4), bool), True)[1] == 0


@pytest.mark.parametrize("size, least", [((32, 48), 1), ((320, 480), 0.95), ((333, 517), 0.95), ((20, 30), 0.75)])
def test_instances_are_enlarged_to_the_picture(size, least, monkeypatch):
    """Rectangles at the network's size become the same rectangles at the picture's."""
    likely = np.full((2, 32, 48), 0.1, np.float32)
    likely[1, 4:10, 2:10] = likely[1, 10:28, 12:44] = 0.9
    likely[1, 30:, 46:] = 0.9  # a speck
    monkeypatch.setattr(Segmenter, "probability", lambda self, picture: likely)
    found = list(Segmenter(SMALL, NARROW).instances(np.zeros((*size, 3), np.uint8), "B"))
    rows, columns = ((np.arange(n) + 0.5) * own / n for n, own in zip(size, (32, 48)))
    expected = [
        ((rows > top) & (rows < bottom))[:, None] & ((columns > left) & (columns < right))[None]
        for top, bottom, left, right in ((10, 28, 12, 44), (4, 10, 2, 10))
    ]
    assert len(found) == 2 and all(mask.shape == size and mask.dtype == bool for mask in found)
    assert all(iou(mask, truth) >= least for mask, truth in zip(found, expected))
    assert not (found[0] & found[1]).any()
    assert list(Segmenter(SMALL, NARROW).instances(np.zeros((*size, 3), np.uint8), "A")) == []


def test_augmentation_moves_a_picture_and_its_truth_alike():
    rng = np.random.default_rng(0)
    inside = np.zeros((2, 60, 40), np.uint8)
    inside[0, 10:35, 8:22] = inside[1, 40:55, 15:35] = 255
    example = segmenter_training.Example(np.stack([inside[0]] * 3, axis=-1), inside, np.ones(2, bool))
    truths = []
    for _ in range(20):
        picture, truth = segmenter_training.augmented(example, (48, 32), rng)
        assert picture.shape == (3, 48, 32) and truth.shape == (2, 48, 32)
        if truth[0].sum() > 50:
            assert iou(picture[0] > np.mean([picture[0].min(), picture[0].max()]), truth[0] > 0) > 0.8
        truths.append(truth)
    assert len({truth.tobytes() for truth in truths}) == 20


def test_instances_are_matched_one_to_one():
    a, b, c = np.zeros((3, 10, 10), bool)
    a[:5], b[5:], c[:4] = True, True, True
    assert segmenter_training.matched_iou([a, b], np.array([b, a])) == 1
    assert segmenter_training.matched_iou([a, c], np.array([a, b])) == 0.5
    assert segmenter_training.matched_iou([a], np.array([a, b])) == 0.5
    assert segmenter_training.matched_iou([c, b, a], np.array([a])) == pytest.approx(1 / 3)
    assert segmenter_training.matched_iou([], np.array([a])) == 0


def test_it_learns_and_says_how_well(trained):
    scores = json.loads(trained.with_suffix(".json").read_text())["scores"]
    for domain in "AB":
        assert scores[domain]["pictures"] == 4
        assert scores[domain]["category_iou"] > 0.65 and scores[domain]["instance_iou"] > 0.55
    assert trained.stat().st_size < 5e6


def test_a_model_reads_back_as_it_was(trained, data, tmp_path):
    kernels.configure("auto")
    picture = pictures.read_picture(next((data / "testA").iterdir()))
    first = load(trained)
    expected = first.probability(picture)
    first.save(tmp_path / "again.h5", {})
    nn.clear_parameters()
    np.testing.assert_array_equal(load(tmp_path / "again.h5").probability(picture), expected)


def make_domain(root, phase, domain, names, colours):
    for name, colour in zip(names, colours):
        pictures.write_png(root / f"{phase}{domain}" / f"{name}.png", np.full((8, 8, 3), colour, np.uint8))
        pictures.write_png(root / f"{phase}{domain}_seg" / f"{name}_0.png", np.full((8, 8), 255, np.uint8))


def test_a_picture_is_on_one_side_only_whatever_its_name(tmp_path):
    """40 colours in A, of which the last 20 are in B too, under other names."""
    make_domain(tmp_path, "train", "A", range(40), range(40))
    make_domain(tmp_path, "train", "B", range(20), range(20, 40))
    own, held_out = segmenter_training.find_sources(tmp_path)
    assert len(own) + len(held_out) == 40 and 2 <= len(held_out) <= 16
    both = [source for source in (*own, *held_out) if len(source.masks) == 2]
    assert len(both) == 20 and any(source in held_out for source in both)
    make_domain(tmp_path, "test", "B", ["x", "y"], [3, 250])
    own, held_out = segmenter_training.find_sources(tmp_path)
    assert len(held_out) == 2 and len(own) == 39


def test_of_a_picture_in_one_domain_only_nothing_is_said_of_the_other(tmp_path):
    make_domain(tmp_path, "train", "A", "xy", [10, 20])
    make_domain(tmp_path, "train", "B", "xz", [20, 30])
    own, held_out = segmenter_training.find_sources(tmp_path)
    examples = segmenter_training.read_examples([*own, *held_out], (8, 8))
    known = {int(example.picture[0, 0, 0]): example.known.tolist() for example in examples}
    assert known == {10: [True, False], 20: [True, True], 30: [False, True]}


def test_no_masks_to_learn_from(tmp_path, run_main):
    make_domain(tmp_path, "train", "A", range(3), range(3))
    make_domain(tmp_path, "train", "B", range(3), range(3))
    shutil.rmtree(tmp_path / "trainB_seg")
    code, _, err = run_main(segment, "train", "--dataroot", tmp_path, "--output", tmp_path / "m.h5")
    assert code == 2 and err.count("\n") == 1 and "trainB" in err


def test_prediction_finds_the_shapes_and_goes_on_where_it_was(trained, val, run_main):
    arguments = ["predict", "--model", trained, "--dataroot", val, "--phase", "val"]
    code, out, _ = run_main(segment, *arguments)
    assert code == 0 and "0 had masks" in out
    for domain in "AB":
        for item in find_items(val, "test", domain):
            truth = pictures.read_masks(list(item.masks.values()), (48, 48)).any(axis=0)
            found = [pictures.read_mask(p) for p in (val / f"val{domain}_seg").glob(f"{item.name}_*.png")]
            assert iou(np.any(found, axis=0), truth) > 0.4
    findings = checks.check(val, checks.Sizes((48, 48), (48, 48)), ["val"]).findings
    assert not [finding for finding in findings if finding.kind in ("other-file", "wrong-mask-name", "numbering-gap")]
    before = content(val / "valA_seg")
    # as a killed run leaves them: the first mask is written last; and a half-written file
    for path in sorted((val / "valA_seg").glob("*_0.png"))[:2]:
        path.rename(path.with_name(path.name.replace("_0", "_1")))
    (val / "valA_seg" / ".0000_0.part.png").write_bytes(b"half")
    assert run_main(segment, *arguments)[0] == 0
    assert content(val / "valA_seg") == before
    assert not list((val / "valA_seg").glob(".*.part*"))


def test_masks_of_others_are_never_touched(trained, val, run_main):
    folder = val / "valA_seg"
    first, second, third, fourth = (item.name for item in find_items(val, "val", "A"))
    own, edited = np.full((48, 48), 255, np.uint8), np.eye(48, dtype=np.uint8) * 255
    pictures.write_png(folder / f"{first}_1.png", own)
    arguments = ["predict", "--model", trained, "--dataroot", val, "--phase", "val", "--domain", "A"]
    assert "1 had masks" in run_main(segment, *arguments)[1]
    pictures.write_png(folder / f"{second}_0.png", edited)  # predicted, then corrected
    pictures.write_png(folder / f"{third}_7.png", edited)  # one more
    before = content(folder)
    for name in (third, fourth):
        assert f"{name}_0.png" in before
    assert "3 masks" not in run_main(segment, *arguments)[1] and content(folder) == before
    shutil.copy(val / "valA" / f"{first}.png", val / "valA" / f"{fourth}.png")
    code, out, _ = run_main(segment, *arguments, "--overwrite")
    after = content(folder)
    assert code == 0 and "3 had masks" in out
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert changed and all(name.startswith(f"{fourth}_") for name in changed)
    assert not (val / "valB_seg").exists()


def test_a_folder_of_pictures(trained, val, run_main):
    (val / "valB").rename(val / "photos")
    code, _, _ = run_main(segment, "predict", "--model", trained, "--image", val / "photos", "--domain", "B")
    assert code == 0 and len(list((val / "photos_seg").glob("*_0.png"))) == 4
    assert run_main(segment, "predict", "--model", trained, "--image", val / "photos")[2].count("--domain") == 1


def test_a_record_that_is_a_link_leads_nowhere(trained, val, run_main, tmp_path):
    (val / "valA_seg").mkdir()
    (tmp_path / "precious").write_text("")
    (val / "valA_seg" / predicted_masks.RECORD).symlink_to(tmp_path / "precious")
    code, _, err = run_main(segment, "predict", "--model", trained, "--dataroot", val)
    assert code == 2 and err.count("\n") == 1
    assert (tmp_path / "precious").read_text() == "" and not content(val / "valA_seg").keys() - {predicted_masks.RECORD}


def test_what_was_predicted_is_no_truth(trained, val, run_main):
    """Predicted masks are used neither for training nor for measuring."""
    own, _ = segmenter_training.find_sources(val)
    shutil.rmtree(val / "testA_seg")
    name = next(path.stem for path in (val / "trainA").iterdir())
    for mask in (val / "trainA_seg").glob(f"{name}_*.png"):
        mask.unlink()
    for phase in ("train", "test"):
        command = ["predict", "--model", trained, "--dataroot", val, "--phase", phase, "--context", "cpu"]
        assert run_main(segment, *command)[0] == 0
    assert list((val / "testA_seg").glob("*.png")) and list((val / "trainA_seg").glob(f"{name}_*.png"))
    left, held_out = segmenter_training.find_sources(val)
    assert len(left) == len(own) - 1 and name not in {s.image.stem for s in left if s.image.parent.name == "trainA"}
    assert {domain for source in held_out for domain in source.masks} == {"B"}


def test_damaged_files_are_told_before_the_training(val, run_main, tmp_path, monkeypatch):
    """Held-out files are checked too, although they are read only at the end."""
    make_small(monkeypatch)
    victim = next((val / "testB").iterdir())
    victim.write_bytes(victim.read_bytes()[:100])
    command = ["train", "--dataroot", val, "--output", tmp_path / "m.h5", "--steps", 10**6, "--context", "cpu"]
    code, _, err = run_main(segment, *command)
    assert code == 2 and victim.name in err and not (tmp_path / "m.h5").exists()


def test_a_fifth_is_held_out_and_never_the_last(val):
    shutil.rmtree(val / "testA"), shutil.rmtree(val / "testB")
    own, held_out = segmenter_training.find_sources(val)
    assert len(own) == 40 and len(held_out) == 8
    for domain in "AB":
        assert sum(domain in source.masks for source in held_out) == 24 // 5
        for path in sorted((val / f"train{domain}").iterdir())[1:]:
            path.unlink()
    own, held_out = segmenter_training.find_sources(val)
    assert len(own) == 2 and not held_out


def test_other_files_among_masks_are_not_mixed_with_predictions(trained, val, run_main):
    (val / "valA_seg").mkdir()
    shutil.copy(next((val / "testA_seg").iterdir()), val / "valA_seg" / "labels.png")
    command = ["predict", "--model", trained, "--dataroot", val, "--phase", "val", "--context", "cpu"]
    code, _, err = run_main(segment, *command)
    assert code == 2 and "valA_seg holds other files" in err
    assert [path.name for path in (val / "valA_seg").iterdir() if path.suffix] == ["labels.png"]


def test_pictures_that_cannot_be_read_cost_only_themselves(trained, val, run_main):
    pictures_ = sorted((val / "valA").iterdir())
    pictures_[0].write_bytes(b"no picture")
    code, out, err = run_main(segment, "predict", "--model", trained, "--dataroot", val, "--domain", "A")
    assert code == 1 and err.count("\n") == 1 and pictures_[0].name in err
    assert len(list((val / "valA_seg").glob("*_0.png"))) == 3


def test_ctrl_c_ends_the_training_with_a_model(data, tmp_path, run_main, monkeypatch):
    make_small(monkeypatch)
    augmented, calls = segmenter_training.augmented, []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 20:
            os.kill(os.getpid(), signal.SIGINT)
        return augmented(*args)

    monkeypatch.setattr(segmenter_training, "augmented", interrupted)
    arguments = ["train", "--dataroot", data, "--output", tmp_path / "m.h5", "--steps", 100_000]
    code, out, _ = run_main(segment, *arguments)
    steps = json.loads((tmp_path / "m.json").read_text())["steps"]
    assert code == 130 and 3 <= steps < 1000 and f"{steps} of 100000 steps" in out
    nn.clear_parameters()
    load(tmp_path / "m.h5")
    assert "--overwrite" in run_main(segment, *arguments)[2]


def test_the_same_seed_gives_the_same_model(data, tmp_path, run_main, monkeypatch):
    make_small(monkeypatch)
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        arguments = ["--output", tmp_path / f"{name}.h5", "--steps", 2, "--seed", seed]
        assert run_main(segment, "train", "--dataroot", data, *arguments)[0] == 0
    a, b, c = ((tmp_path / f"{name}.h5").read_bytes() for name in "abc")
    assert a == b != c


def truncate(h5, _):
    h5.write_bytes(h5.read_bytes()[:-5000])


def change(**values):
    def damage(_, config):
        config.write_text(json.dumps({**json.loads(config.read_text()), **values}))

    return damage


def foreign(h5, _):
    with h5py.File(h5, "w", libver="earliest") as file:
        file.create_dataset("gen_x2y/encoder_image/conv1/W", data=np.zeros((4, 3, 7, 7), np.float32))


def edit(name, values):
    def damage(h5, _):
        with h5py.File(h5, "r+") as file:
            del file[name]
            if values is not None:
                file.create_dataset(name, data=values)

    return damage


DAMAGES = {
    "truncated": truncate,
    "foreign": foreign,
    "no parameter": edit("segmenter/up1/b", None),
    "another shape": edit("segmenter/conv2/b", np.zeros(7, np.float32)),
    "nan": edit("segmenter/last/b", np.full(2, np.nan, np.float32)),
    "no json": lambda _, config: config.unlink(),
    "no values": lambda _, config: config.write_text("{}"),
    "a list": lambda _, config: config.write_text("[1]"),
    "another kind": change(kind="instagan"),
    "huge": change(size=[1 << 20, 1 << 20]),
    "odd": change(size=[47, 48]),
    "texts": change(size=["48", "48"]),
    "no size": change(size=5),
    "no truth values": change(single=[0, 2]),
    "missing": lambda h5, _: h5.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_and_foreign_models_are_refused_in_one_line(damage, trained, val, tmp_path, run_main):
    for suffix in (".h5", ".json"):
        shutil.copy(trained.with_suffix(suffix), tmp_path / f"m{suffix}")
    damage(tmp_path / "m.h5", tmp_path / "m.json")
    code, _, err = run_main(segment, "predict", "--model", tmp_path / "m.h5", "--dataroot", val)
    assert code == 2 and err.count("\n") == 1 and str(tmp_path / "m") in err
    assert not (val / "valA_seg").exists()
