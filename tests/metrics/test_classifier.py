# SPDX-License-Identifier: Apache-2.0
"""The classifier of the classification score: its inputs, that it learns, and that it is stored."""

from __future__ import annotations

import nnabla as nn
import numpy as np
import pytest
from PIL import Image

from backend import kernels
from common import errors
from metrics import classifier
from metrics.classifier import SIZE, Classifier, Samples


@pytest.fixture(autouse=True)
def quick(monkeypatch, clean_nnabla):
    """Few steps, on the kernels that users run."""
    monkeypatch.setattr(classifier, "STEPS", 40)
    kernels.configure("auto")


def boxes(colour, count=20, seed=0):
    """Images of noise, each with a box of a colour somewhere."""
    rng = np.random.default_rng(seed)
    shown = rng.integers(60, 190, (count, SIZE, SIZE, 3), np.uint8)
    for picture, (top, left) in zip(shown, rng.integers(0, SIZE - 24, (count, 2))):
        picture[top : top + 24, left : left + 24] = colour
    return shown


RED, BLUE = boxes((230, 30, 30)), boxes((30, 30, 230), seed=1)


def samples(shown, of_picture=None):
    return Samples(shown, np.arange(len(shown)) if of_picture is None else np.array(of_picture))


def test_it_learns_and_says_how_well_on_what_it_did_not_see():
    learned = Classifier("a")
    learned.train(samples(RED), samples(BLUE))
    assert learned.accuracy == 1
    assert (learned.probability(boxes((230, 30, 30), 40, seed=2)) < 0.5).mean() > 0.95
    assert (learned.probability(boxes((30, 30, 230), 5, seed=3)) > 0.5).all()


def test_accuracy_on_pictures_that_tell_nothing_is_no_better_than_chance():
    learned = Classifier("a")
    noise = np.random.default_rng(0).integers(0, 256, (400, SIZE, SIZE, 3), np.uint8)
    learned.train(samples(noise[:200]), samples(noise[200:]))
    assert abs(learned.accuracy - 0.5) < 0.2


def test_accuracy_is_the_mean_over_both_domains():
    """All of A right and none of B is one half, however few of A there are."""

    class SaysA(Classifier):
        def probability(self, shown):
            return np.zeros(len(shown))

    learned = SaysA("a")
    learned.train(samples(RED[:4]), samples(BLUE))
    assert learned.accuracy == 0.5


def test_only_pictures_that_are_not_held_out_are_learned_from(monkeypatch):
    """Only the held-out pictures are bright: nothing bright may reach the network in training."""
    seen = []
    monkeypatch.setattr(classifier, "_augmented", lambda shown, rng: seen.append(shown.max()) or shown[..., :0].sum())
    monkeypatch.setattr(classifier, "STEPS", 10)
    dark = np.zeros((20, SIZE, SIZE, 3), np.uint8)
    dark[1 :: classifier.HELD_OUT] = 255
    Classifier("a").train(samples(dark), samples(dark))
    assert len(seen) == 10 and max(seen) == 0


def test_crops_of_one_picture_are_held_out_together(monkeypatch):
    seen = []
    monkeypatch.setattr(classifier, "_augmented", lambda shown, rng: seen.append(shown.max()) or shown[..., :0].sum())
    monkeypatch.setattr(classifier, "STEPS", 10)
    of_picture = np.repeat(np.arange(7), 3)
    dark = np.zeros((21, SIZE, SIZE, 3), np.uint8)
    dark[of_picture % classifier.HELD_OUT == 1] = 255
    Classifier("a").train(samples(dark, of_picture), samples(dark, of_picture))
    assert len(seen) == 10 and max(seen) == 0


def test_the_probability_of_a_picture_depends_on_itself_alone():
    learned = Classifier("a")
    shown = np.concatenate([RED, BLUE])
    together = learned.probability(shown)
    np.testing.assert_allclose([learned.probability(p[None])[0] for p in shown], together, atol=1e-6)
    assert learned.probability(shown[:0]).shape == (0,)


@pytest.fixture()
def hardly_trained(monkeypatch):
    """Train classifiers for few steps, for tests that depend only on their being stored."""
    monkeypatch.setattr(classifier, "STEPS", 5)


@pytest.mark.usefixtures("hardly_trained")
def test_saved_and_loaded_it_is_the_same(tmp_path):
    learned = Classifier("a")
    learned.train(samples(RED), samples(BLUE))
    learned.save(tmp_path / "c.h5")
    expected = learned.probability(RED)
    nn.clear_parameters()
    again = Classifier("a")
    assert np.abs(again.probability(RED) - expected).max() > 1e-3
    again.load(tmp_path / "c.h5")
    np.testing.assert_array_equal(again.probability(RED), expected)
    assert again.accuracy == learned.accuracy


@pytest.mark.usefixtures("hardly_trained")
def test_it_is_trained_once_for_the_same_pictures(tmp_path, monkeypatch):
    trained = []
    train = Classifier.train
    monkeypatch.setattr(Classifier, "train", lambda self, *a, **k: trained.append(self.name) or train(self, *a, **k))
    domains = {"A": samples(RED), "B": samples(BLUE)}
    first = classifier.cached("pictures", tmp_path, domains).probability(RED)
    for _ in range(2):
        nn.clear_parameters()
        np.testing.assert_array_equal(classifier.cached("pictures", tmp_path, domains).probability(RED), first)
    assert trained == ["pictures"]
    nn.clear_parameters()
    classifier.cached("pictures", tmp_path, {"A": samples(RED), "B": samples(RED)})
    assert trained == ["pictures", "pictures"] and len(list(tmp_path.glob("*.h5"))) == 2


@pytest.mark.usefixtures("hardly_trained")
def test_a_folder_that_cannot_be_written_is_said_and_no_more(tmp_path, capsys):
    classifier.cached("pictures", tmp_path / "absent", {"A": samples(RED), "B": samples(BLUE)})
    assert "not kept" in capsys.readouterr().out


@pytest.mark.usefixtures("hardly_trained")
@pytest.mark.parametrize("damaged", [".h5", ".json"])
def test_a_damaged_file_costs_only_the_training(tmp_path, damaged, capsys):
    domains = {"A": samples(RED), "B": samples(BLUE)}
    expected = classifier.cached("pictures", tmp_path, domains).probability(RED)
    (path,) = tmp_path.glob(f"*{damaged}")
    path.write_text("")
    nn.clear_parameters()
    np.testing.assert_array_equal(classifier.cached("pictures", tmp_path, domains).probability(RED), expected)
    assert path.name in capsys.readouterr().out and path.stat().st_size


def test_too_few_pictures_are_refused():
    with pytest.raises(errors.UserError, match="2 training pictures"):
        Classifier("a").train(samples(RED[:1]), samples(BLUE))
    with pytest.raises(errors.UserError, match="2 training pictures"):
        Classifier("a").train(samples(RED, np.zeros(20)), samples(BLUE))


def test_a_crop_is_the_square_around_the_instance_with_a_margin():
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (100, 120, 3), np.uint8)
    mask = np.zeros((100, 120), bool)
    mask[40:60, 30:70] = True
    # 40 wide, so 60 with its margins, around (50, 50)
    expected = np.asarray(Image.fromarray(picture[20:80, 20:80]).resize((SIZE, SIZE), Image.BICUBIC))
    np.testing.assert_array_equal(classifier.instance_crop(picture, mask), expected)


def test_a_crop_at_the_border_repeats_the_border():
    picture = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
    mask = np.zeros((20, 20), bool)
    mask[0:4, 8:12] = True
    # a square of 6 from row -1 and column 7 on
    square = picture[[0, 0, 1, 2, 3, 4], 7:13]
    expected = np.asarray(Image.fromarray(square).resize((SIZE, SIZE), Image.BICUBIC))
    np.testing.assert_array_equal(classifier.instance_crop(picture, mask), expected)


def test_a_whole_picture_is_scaled():
    picture = np.random.default_rng(0).integers(0, 256, (30, 90, 3), np.uint8)
    expected = np.asarray(Image.fromarray(picture).resize((SIZE, SIZE), Image.BICUBIC))
    np.testing.assert_array_equal(classifier.whole(picture), expected)
