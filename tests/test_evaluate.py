# SPDX-License-Identifier: Apache-2.0
"""evaluate.py: cases whose metrics are known, and the whole command compared with other ways to its figures."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import nnabla as nn
import nnabla.functions as F
import nnabla.parametric_functions as PF
import numpy as np
import pytest
from nnabla.utils.save import save

import evaluate
from backend import kernels
from data import instances, pictures
from data.items import find_items
from metrics import cases, classifier, efficientnet_lite0, feature_sets, inception, report, scores, shape_truth
from metrics.cases import Case, Judge
from metrics.distances import Features
from metrics.evaluator import notes
from metrics.report import NO_TRANSLATION, REAL, TRANSLATED, Evaluation
from metrics.shape_truth import Target
from models import NETWORKS, Architecture, create_parameters
from tests.helpers.lite import load_lite
from weights import model_file

RED, BLUE = np.array([225, 35, 35]), np.array([40, 60, 235])
SQUARE = Target("square", BLUE)
INSTANCES = [
    {"shape": "circle", "centre": [16.0, 16.0], "size": 9.0, "colour": RED.tolist()},
    {"shape": "circle", "centre": [44.0, 40.0], "size": 12.0, "colour": RED.tolist()},
]
SIZE = (64, 64)


def masks_of(shape):
    return np.array([shape_truth.ideal_mask(shape, instance, SIZE, SIZE) for instance in INSTANCES])


def painted(masks, colour):
    picture = np.random.default_rng(0).integers(90, 160, (*SIZE, 3)).astype(np.uint8)
    picture[masks.any(axis=0)] = colour
    return picture


def case(y_masks, b, colour=BLUE, spared=()):
    a = masks_of("circle")
    spared = np.array(spared, bool).reshape(-1, *SIZE)
    return Case("0", painted(a, RED), a, painted(y_masks, colour), b, spared, INSTANCES, SIZE)


def test_a_perfect_translation():
    squares = masks_of("square")
    found = cases.measure_shapes(case(squares, squares), INSTANCES, SQUARE)
    assert found["mask_iou"] == found["mask_shape"] == found["picture_iou"] == found["picture_shape"] == [1, 1]
    assert found["colour_error"] == [0, 0]
    changes = cases.measure_changes(case(squares, squares))
    assert changes["background_psnr"] == [scores.IDENTICAL_PSNR] and changes["agreement"] == [1]
    assert changes["collapsed"] == [0, 0]
    assert changes["area_ratio"] == pytest.approx([4 / np.pi] * 2, rel=0.05)


def test_right_masks_over_a_wrong_picture_are_told_apart():
    """Masks are squares, but the picture shows circles, in the right colour."""
    found = cases.measure_shapes(case(masks_of("circle"), masks_of("square")), INSTANCES, SQUARE)
    assert found["mask_iou"] == [1, 1] and found["mask_shape"] == [1, 1]
    assert found["picture_shape"] == [0, 0] and found["picture_iou"] == pytest.approx([np.pi / 4] * 2, abs=0.04)


def test_the_right_shape_in_the_wrong_colour():
    squares = masks_of("square")
    found = cases.measure_shapes(case(squares, squares, BLUE + [15, -30, 0]), INSTANCES, SQUARE)
    assert found["colour_error"] == [15, 15]
    found = cases.measure_shapes(case(squares, squares, RED), INSTANCES, SQUARE)
    assert found["picture_iou"] == [0, 0] and found["picture_shape"] == [0, 0]


def test_vanished_instances():
    nothing = np.zeros((2, *SIZE), bool)
    changes = cases.measure_changes(case(nothing, nothing))
    assert changes["collapsed"] == [1, 1] and changes["area_ratio"] == [0, 0]
    found = cases.measure_shapes(case(nothing, nothing), INSTANCES, SQUARE)
    assert found["mask_iou"] == [0, 0] and found["mask_shape"] == [0, 0]


def test_instances_left_alone_are_no_background():
    squares = masks_of("square")
    corner = np.zeros(SIZE, bool)
    corner[50:60, 4:14] = True
    one = case(squares, squares, spared=[corner])
    one.y[corner] = 255 - one.x[corner]
    assert cases.measure_changes(one)["background_psnr"] == [scores.IDENTICAL_PSNR]
    two = case(squares, squares)
    two.y[corner] = 255
    assert cases.measure_changes(two)["background_psnr"][0] < 40


def test_a_picture_without_background_has_no_psnr():
    everything = np.ones((1, *SIZE), bool)
    x, y = painted(everything, RED), painted(everything, BLUE)
    one = Case("0", x, everything, y, everything, everything[:0], None, SIZE)
    found = cases.measure_changes(one)
    assert found["background_psnr"] == [] and found["background_ssim"] == []


class Sees:
    """Replaces a classifier: classifies images with more blue than red as domain B, and remembers its input."""

    def probability(self, shown):
        self.shown = shown
        return (shown[..., 2].mean(axis=(1, 2)) > shown[..., 0].mean(axis=(1, 2))) * 0.8 + 0.1


@pytest.mark.parametrize("domain, right", [("B", 1), ("A", 0)])
def test_the_score_is_the_share_that_is_taken_for_the_target(domain, right):
    squares = masks_of("square")
    judge = Judge(domain, Sees(), Sees(), None)
    found, rank = judge.measure(case(squares, squares))
    assert found == {"score_pictures": [right], "score_instances": [right, right]}
    assert rank == pytest.approx(0.9 if right else 0.1)


def test_an_instance_that_vanished_is_looked_for_in_its_old_place():
    squares = masks_of("square")
    judge = Judge("B", Sees(), Sees(), None)
    one = case(squares, np.array([squares[0], np.zeros(SIZE, bool)]))
    judge.measure(one)
    np.testing.assert_array_equal(judge.of_instances.shown[0], classifier.instance_crop(one.y, squares[0]))
    np.testing.assert_array_equal(judge.of_instances.shown[1], classifier.instance_crop(one.y, one.a[1]))


def test_cases_are_ranked_by_what_the_picture_shows():
    judge = Judge("B", Sees(), Sees(), SQUARE)
    squares, circles = masks_of("square"), masks_of("circle")
    good, bad = judge.measure(case(squares, circles))[1], judge.measure(case(circles, squares))[1]
    assert good == 1 and bad == pytest.approx(np.pi / 4, abs=0.04)


def test_means_are_over_values_and_errors_over_pictures():
    found = Evaluation()
    found.measured[TRANSLATED] = {
        "a": {"mask_iou": [0.5, 0.7], "background_psnr": []},
        "b": {"mask_iou": [0.9], "background_psnr": [20.0]},
    }
    summary = found.summary(TRANSLATED)
    assert summary["mask_iou"]["mean"] == pytest.approx(0.7) and summary["mask_iou"]["values"] == 3
    # the pictures' sums are off the mean by -0.2 and 0.2
    assert summary["mask_iou"]["standard_error"] == pytest.approx((2 * (0.2**2 + 0.2**2)) ** 0.5 / 3)
    assert summary["background_psnr"] == {"mean": 20, "values": 1, "pictures": 1}
    assert found.summary(REAL) == {}
    assert found.table()[1:] == [
        ["background PSNR, dB", "", "20.0", ""],
        ["mask: IoU with the ideal shape", "", "0.700 ± 0.133", ""],
    ]


def test_with_a_value_for_each_picture_the_standard_error_is_the_usual_one():
    values = np.random.default_rng(0).normal(size=20)
    found = Evaluation()
    found.measured[TRANSLATED] = {f"{i}": {"agreement": [v]} for i, v in enumerate(values)}
    expected = np.std(values, ddof=1) / 20**0.5
    assert found.summary(TRANSLATED)["agreement"]["standard_error"] == pytest.approx(expected)


def test_best_median_and_worst_are_by_rank():
    found = Evaluation()
    found.ranks = {f"p{i}": float(i) for i in np.random.default_rng(0).permutation(13)}
    assert found.cases() == {
        "best": ["p12", "p11", "p10", "p9"],
        "median": ["p8", "p7", "p6", "p5"],
        "worst": ["p0", "p1", "p2", "p3"],
    }
    found.ranks = {"only": 1.0}
    assert found.cases() == {"best": ["only"], "median": ["only"], "worst": ["only"]}


# the whole command


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Circles and squares, 32x32, one or two in a picture; one test picture whose only mask is empty."""
    from datasets.generate_shapes_dataset import generate

    root = tmp_path_factory.mktemp("evaluate") / "data"
    generate(root, height=32, width=32, train=12, test=5, max_instances=2)
    pictures.write_png(root / "testA" / "empty.png", np.zeros((32, 32, 3), np.uint8))
    pictures.write_png(root / "testA_seg" / "empty_0.png", np.zeros((32, 32), np.uint8))
    return root


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A random model, alone in a folder."""
    nn.clear_parameters()
    arch = Architecture(ngf=4, ndf=2, n_blocks=1)
    create_parameters(arch, np.random.RandomState(5))
    values = {n: v.d * (10 if n.endswith("W") else 1) for n, v in nn.get_parameters(grad_only=False).items()}
    nn.clear_parameters()
    more = dict(fineSizeH=32, fineSizeW=32, ins_per=1, ins_max=4, set_order="decreasing", networks=sorted(NETWORKS))
    path = tmp_path_factory.mktemp("model") / "params_000001.h5"
    model_file.save_model(path, values, model_file.model_config(arch, **more))
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A .nnp file with the names of NNabla's Inception-v3, whose features are means of 3 by 2 by 2 fields."""
    nn.clear_parameters()
    x = nn.Variable((1, 3, 299, 299))
    fields = F.average_pooling(F.average_pooling(x, (149, 149)), (1, 1))
    pooled = F.average_pooling(fields, (2, 2))
    y = PF.affine(pooled, 2)
    names = {"Iv3TrainInput": x, "AveragePooling_2": pooled, "Affine": y}
    network = {"name": "Train", "batch_size": 1, "outputs": {"y": y}, "names": names}
    executor = {"name": "runtime", "network": "Train", "data": ["Iv3TrainInput"], "output": ["y"]}
    path = tmp_path_factory.mktemp("weights") / "Inception-v3.nnp"
    save(str(path), {"networks": [network], "executors": [executor]})
    nn.clear_parameters()
    return path


@pytest.fixture()
def run(monkeypatch, run_main, data, model, tmp_path):
    """Run evaluate.py's main here, into `out`, without EfficientNet-Lite0, which takes longer; return (exit code,
    standard output, standard error)."""
    monkeypatch.setattr(classifier, "STEPS", 6)
    monkeypatch.setattr(efficientnet_lite0, "PACKAGE", "a_package_that_is_not_installed")

    def run(*arguments, out=tmp_path / "out"):
        return run_main(evaluate, "--model", model, "--dataroot", data, "--output", out, "-c", "cpu", *arguments)

    return run


def test_the_background_is_kept_where_that_is_asked_for(run, tmp_path):
    assert run("--direction", "AtoB", "--background", "keep")[0] == 0
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert found["background"] == "keep"


def test_the_whole_command(run, data, model, weights, tmp_path, run_script):
    out = tmp_path / "out"
    code, said, err = run("--inception", weights)
    assert code == 0, err
    found = json.loads((out / "metrics.json").read_text())
    assert (out / "metrics.md").read_text() in said
    assert "classification score, instance crops (classifier right: " in said
    assert found["model"] == str(model) and found["ins_per"] == 1 and found["set_order"] == "decreasing"
    # the model does not say how it was trained
    assert found["background"] == "network"
    assert "empty: all its masks are empty" in said + err
    assert set(found["directions"]) == {"AtoB", "BtoA"}
    untouched, translated, real = (found["directions"]["AtoB"]["summary"][c] for c in report.COLUMNS)

    # the untouched input, from the data alone
    items = [item for item in find_items(data, "test", "A") if item.name != "empty"]
    truth = shape_truth.read_instances(data, "test", "A")
    ious = [
        instances.iou(
            pictures.read_mask(path), shape_truth.ideal_mask("square", truth[item.name][n], (32, 32), (32, 32))
        )
        for item in items
        for n, path in item.masks.items()
    ]
    assert untouched["mask_iou"]["mean"] == pytest.approx(np.mean(ious))
    assert untouched["mask_iou"]["values"] == len(ious)
    assert untouched["background_psnr"]["mean"] == scores.IDENTICAL_PSNR
    assert untouched["area_ratio"]["mean"] == 1 and untouched["agreement"]["mean"] == 0
    # real squares are squares, and not translations
    assert real["mask_iou"]["mean"] == real["mask_shape"]["mean"] == 1 and real["picture_iou"]["mean"] > 0.85
    assert "background_psnr" not in real and "collapsed" not in real

    # the translation, from the files that translate.py writes
    other = tmp_path / "translated"
    done = run_script("translate.py", "--model", model, "--dataroot", data, "--output", other, "-c", "cpu")
    assert done.returncode == 0, done.stderr
    psnr, ratios = [], []
    for item in items:
        x, y = (pictures.read_picture(p) for p in (item.image, other / "images" / f"{item.name}.png"))
        a = pictures.read_masks(list(item.masks.values()), (32, 32))
        b = pictures.read_masks([other / "masks" / f"{item.name}_{n}.png" for n in item.masks], (32, 32))
        psnr += [scores.psnr(x, y, scores.background(a, b))]
        ratios += (b.sum(axis=(1, 2)) / a.sum(axis=(1, 2))).tolist()
    assert translated["background_psnr"]["mean"] == pytest.approx(np.mean([v for v in psnr if v is not None]), abs=1e-3)
    assert translated["area_ratio"]["mean"] == pytest.approx(np.mean(ratios), abs=0.02)

    # FID with features that can be computed by hand: each feature is the mean of one colour
    def features(folder):
        paths = sorted(p for p in (data / folder).iterdir() if p.stem != "empty")
        shown = [pictures.read_picture(p, (299, 299))[:298, :298].mean(axis=(0, 1)) for p in paths]
        return np.array(shown)

    expected = scores.frechet_distance(features("testB"), features("trainB"))
    assert real["fid"]["mean"] == pytest.approx(expected, rel=1e-3)
    expected = scores.frechet_distance(features("testA"), features("trainB"))
    assert untouched["fid"]["mean"] == pytest.approx(expected, rel=1e-3)


class Colours:
    """Replaces EfficientNet-Lite0: the features of a picture are its mean colours, those of its stages are itself."""

    def features(self, shown):
        found = np.zeros((len(shown), efficientnet_lite0.FEATURES), np.float32)
        if shown:
            found[:, :3] = [image.mean(axis=(0, 1)) for image in shown]
        return found

    def stages(self, shown):
        return [np.stack(shown).transpose(0, 3, 1, 2).astype(np.float32)]


@pytest.fixture()
def with_colours(run, monkeypatch, tmp_path):
    """Evaluations have a network, quick and known."""
    monkeypatch.setattr(efficientnet_lite0, "find", lambda: tmp_path / "colours.pth")
    monkeypatch.setattr(efficientnet_lite0, "load", lambda path: Colours())


def test_with_a_network_its_features_judge_and_are_compared(run, with_colours, data, model, tmp_path, monkeypatch):
    monkeypatch.setattr(feature_sets, "LEAST_FOR_INTERVAL", 5)
    code, said, err = run()
    assert code == 0, err
    assert "small classifiers" not in said
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert found["classifiers"] == "EfficientNet-Lite0"
    # red circles and blue squares
    assert found["classifier_accuracy"]["instances"] == 1
    untouched, translated, real = (found["directions"]["AtoB"]["summary"][c] for c in report.COLUMNS)
    assert untouched["score_instances"]["mean"] == 0 and real["score_instances"]["mean"] == 1
    assert untouched["background_distance"]["mean"] == 0 < translated["background_distance"]["mean"]
    for name in ("frechet_pictures", "frechet_instances", "kernel_pictures", "kernel_instances"):
        low, high = untouched[name]["interval"]
        assert low <= untouched[name]["mean"] <= high
        assert real[name]["mean"] < untouched[name]["mean"]

    # from the data alone: the means of both domains' colours are this far apart, and the deviations add to that
    def colours(folder):
        paths = sorted(p for p in (data / folder).iterdir() if p.stem != "empty")
        return np.array([classifier.whole(pictures.read_picture(p), 224).mean(axis=(0, 1)) for p in paths])

    a, b = colours("testA"), colours("trainB")
    apart = ((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum()
    assert untouched["frechet_pictures"]["mean"] == pytest.approx(apart, rel=0.25)
    assert (model.parent / "features_colours.npy").is_file()
    assert " to " in (tmp_path / "out" / "metrics.md").read_text().split("Fréchet")[1]
    other = run("--direction", "AtoB", out=tmp_path / "again")
    assert other[0] == 0
    again = json.loads((tmp_path / "again" / "metrics.json").read_text())
    assert again["directions"]["AtoB"] == found["directions"]["AtoB"]


def test_without_the_package_all_is_as_before_and_one_line_says_so(run, tmp_path):
    code, said, err = run("--direction", "AtoB")
    assert code == 0, err
    assert [line for line in said.splitlines() if "requirements-scores.txt" in line] == [efficientnet_lite0.HOW_TO_GET]
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert found["classifiers"] == "small"
    summary = found["directions"]["AtoB"]["summary"]
    assert all("kernel_pictures" not in column and "background_distance" not in column for column in summary.values())


def test_the_distance_of_backgrounds_ignores_what_is_in_any_mask():
    squares = masks_of("square")
    one = case(squares, squares)
    assert (one.x != one.y).any()
    # identical outside the masks
    assert cases.measure_background(one, Colours()) == {"background_distance": [0]}
    one.y[0, 0] = 255 - one.y[0, 0]
    found = cases.measure_background(one, Colours())["background_distance"][0]
    assert found > 0
    # whatever is painted inside
    one.y[squares[0]] = 7
    assert cases.measure_background(one, Colours())["background_distance"] == [found]
    corner = np.zeros((1, *SIZE), bool)
    corner[:, :2, :2] = True
    assert cases.measure_background(replace(one, spared=corner), Colours()) == {"background_distance": [0]}
    everything = np.ones((1, *SIZE), bool)
    assert cases.measure_background(replace(one, a=everything), Colours()) == {"background_distance": []}
    assert cases.measure_background(one, None) == {}


def test_the_distance_of_backgrounds_by_the_network_grows_with_the_change():
    network = load_lite()
    squares = masks_of("square")
    found = []
    for change in (0, 8, 40):
        one = case(squares, squares)
        noise = np.random.default_rng(1).integers(-change, change + 1, one.y.shape)
        one.y[:] = np.clip(one.y + noise, 0, 255)
        found += cases.measure_background(one, network)["background_distance"]
    assert found[0] == 0 < found[1] < found[2]


class Sources(HTMLParser):
    def __init__(self):
        super().__init__()
        self.images, self.outside = [], []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.images += [values["src"]] if tag == "img" else []
        self.outside += [v for v in values.values() if v and v.startswith(("http", "//"))]


def test_the_page_shows_the_cases_from_its_own_folder(run, tmp_path):
    assert run("--direction", "BtoA")[0] == 0
    out = tmp_path / "out"
    found = json.loads((out / "metrics.json").read_text())
    assert set(found["directions"]) == {"BtoA"}
    page = Sources()
    page.feed((out / "index.html").read_text("utf-8"))
    assert page.images and not page.outside and all((out / image).is_file() for image in page.images)
    names = [name for names in found["directions"]["BtoA"]["cases"].values() for name in names]
    assert len(page.images) == len(names) * len(report.CELLS)
    assert (out / "cases_BtoA.png").is_file()


def test_the_same_again_gives_the_same_figures(run, model, tmp_path):
    for out in "one", "two":
        for path in model.parent.glob("classifier_*"):
            path.unlink()
        assert run("--direction", "AtoB", "--set-order", "random", "--seed", 3, out=tmp_path / out)[0] == 0
    one, two = ((tmp_path / out / "metrics.json").read_text() for out in ("one", "two"))
    assert one == two


def test_an_evaluation_is_not_overwritten_unasked(run, tmp_path):
    out = tmp_path / "out"
    assert run()[0] == 0
    before = (out / "metrics.json").read_text()
    code, _, err = run()
    assert code == 2 and "--overwrite" in err and err.count("\n") == 1
    assert (out / "metrics.json").read_text() == before and (out / "cases_BtoA.png").is_file()
    pictures.write_png(out / "pictures" / "holiday.png", np.zeros((4, 4, 3), np.uint8))
    assert run("--overwrite", "--direction", "AtoB")[0] == 0
    assert set(json.loads((out / "metrics.json").read_text())["directions"]) == {"AtoB"}
    assert not (out / "cases_BtoA.png").exists() and not list((out / "pictures" / "BtoA").iterdir())
    assert (out / "pictures" / "holiday.png").is_file()


def test_what_is_no_evaluation_is_not_overwritten_even_if_asked(run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "metrics.json").write_text('{"of": "something else"}')
    code, _, err = run("--overwrite")
    assert code == 2 and "metrics.json is not as evaluate.py wrote it" in err
    assert (tmp_path / "out" / "metrics.json").read_text() == '{"of": "something else"}'


def test_masks_that_are_all_empty_end_in_one_line_and_no_evaluation(run, data, tmp_path):
    for letter in "AB":
        pictures.write_png(data / f"void{letter}" / "0.png", np.zeros((32, 32, 3), np.uint8))
        pictures.write_png(data / f"void{letter}_seg" / "0_0.png", np.zeros((32, 32), np.uint8))
    code, _, err = run("--phase", "void")
    assert code == 2 and "all masks of voidA are empty" in err
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_a_model_without_masks_is_not_measured_by_them(run, model, tmp_path):
    parameters, config = model_file.load_model(model)
    model_file.save_model(tmp_path / "cyclegan.h5", parameters, {**config, "ins_per": 0})
    assert run("--direction", "AtoB", "--model", tmp_path / "cyclegan.h5")[0] == 0
    summary = json.loads((tmp_path / "out" / "metrics.json").read_text())["directions"]["AtoB"]["summary"]
    of_masks = set(cases.OF_MASKS)
    assert not of_masks & set(summary[TRANSLATED]) and of_masks <= set(summary[NO_TRANSLATION])
    assert summary[TRANSLATED]["background_psnr"]["mean"] < 60 and "picture_iou" in summary[TRANSLATED]


class Rows:
    """A set of features for each kind, one for each of a number of pictures."""

    def __init__(self, count, seed):
        self.features = Features(np.random.default_rng(seed).normal(size=(count, 4)), np.arange(count))

    def __len__(self):
        return self.features.pictures

    def of(self, kind):
        return self.features


@pytest.mark.parametrize(("count", "has_distance", "has_interval"), [(2, 0, 0), (3, 1, 0), (7, 1, 0), (8, 1, 1)])
def test_few_pictures_have_no_interval(count, has_distance, has_interval):
    for sets in ((Rows(count, 0), Rows(20, 1)), (Rows(20, 0), Rows(count, 1))):
        found = feature_sets.distances_between(*sets, seed=0)
        assert len(found) == 4 * has_distance
        assert all(("interval" in entry) == has_interval for entry in found.values())


def test_training_pictures_are_not_compared_with_themselves(run, with_colours, tmp_path):
    code, _, err = run("--direction", "AtoB", "--phase", "train")
    assert code == 0, err
    columns = json.loads((tmp_path / "out" / "metrics.json").read_text())["directions"]["AtoB"]["summary"]
    assert {column: "frechet_pictures" in columns[column] for column in report.COLUMNS} == {
        report.NO_TRANSLATION: True,
        report.TRANSLATED: True,
        report.REAL: False,
    }
    assert "score_pictures" in columns[report.REAL]
    assert "have no distances" in (tmp_path / "out" / "metrics.md").read_text()


@pytest.mark.parametrize(("phase", "chosen_on", "warned"), [("test", "test", 1), ("test", "val", 0), ("test", None, 0)])
def test_pictures_that_the_model_was_chosen_on_are_warned_of(phase, chosen_on, warned):
    sentences = notes({"pictures": 1.0, "instances": 1.0}, phase, chosen_on)
    assert sum("chosen as the best of its run on some of these test pictures" in line for line in sentences) == warned


def test_the_pictures_that_were_trained_on_are_warned_of(run, tmp_path):
    assert run("--direction", "AtoB", "--phase", "train")[0] == 0
    assert "trained on these very pictures" in (tmp_path / "out" / "metrics.md").read_text()
    assert "trained on these very pictures" in (tmp_path / "out" / "index.html").read_text("utf-8")


@pytest.mark.parametrize(
    "arguments, word",
    [
        (["--phase", "val"], "valA"),
        (["--dataroot", "absent"], "absent"),
        (["--inception", "absent.nnp"], "absent.nnp"),
        (["--model", "absent"], "absent"),
    ],
)
def test_what_is_missing_is_named_in_one_line(run, arguments, word):
    code, _, err = run(*arguments)
    assert code == 2 and word in err and err.count("\n") == 1


def test_a_domain_alone_can_be_evaluated(run, data, tmp_path):
    """If the phase has no pictures of the target, only the column of real ones is empty."""
    for path in sorted((data / "testA").iterdir())[:1]:
        pictures.write_png(data / "aloneA" / path.name, pictures.read_picture(path))
        pictures.write_png(data / "aloneA_seg" / f"{path.stem}_0.png", np.full((32, 32), 255, np.uint8))
    code, said, err = run("--phase", "alone", "--direction", "AtoB")
    assert code == 0 and "no real target pictures" in said, err
    summary = json.loads((tmp_path / "out" / "metrics.json").read_text())["directions"]["AtoB"]["summary"]
    assert summary[TRANSLATED] and not summary[REAL]
    code, _, err = run("--phase", "alone", "--direction", "BtoA", out=tmp_path / "other")
    assert code == 2 and "aloneB" in err


def test_damaged_weights_in_their_usual_place_only_cost_fid(run, monkeypatch, tmp_path):
    (tmp_path / "damaged.nnp").write_bytes(b"PK no archive")
    monkeypatch.setattr(inception, "DEFAULT", tmp_path / "damaged.nnp")
    code, out, err = run("--direction", "AtoB")
    assert code == 0 and "FID and KID are left out" in out and "is not NNabla's Inception-v3" in out
    summary = json.loads((tmp_path / "out" / "metrics.json").read_text())["directions"]["AtoB"]["summary"]
    assert "fid" not in summary[TRANSLATED]


def test_pictures_with_long_names_are_evaluated_as_others(run, data, tmp_path):
    """Their cells would have names that no file system takes."""
    assert run("--direction", "AtoB", out=tmp_path / "short")[0] == 0
    longer = tmp_path / "data"
    shutil.copytree(data, longer)
    names = {f"000{i}": f"000{i}" + "é" * 119 + str(i) for i in range(2)}
    for old, new in names.items():
        (longer / "testA" / f"{old}.png").rename(longer / "testA" / f"{new}.png")
        for mask in (longer / "testA_seg").glob(f"{old}_*.png"):
            mask.rename(longer / "testA_seg" / mask.name.replace(old, new))
    truth = (longer / "testA.json").read_text()
    for old, new in names.items():
        truth = truth.replace(f'"{old}"', f'"{new}"')
    (longer / "testA.json").write_text(truth)
    code, _, err = run("--direction", "AtoB", "--dataroot", longer, out=tmp_path / "long")
    assert code == 0, err
    found = [json.loads((tmp_path / out / "metrics.json").read_text()) for out in ("short", "long")]
    short, long = (metrics["directions"]["AtoB"] for metrics in found)
    assert {names.get(name, name): values for name, values in short["pictures"].items()} == long["pictures"]
    # each has cells of its own
    count = [len(list((tmp_path / out / "pictures" / "AtoB").iterdir())) for out in ("short", "long")]
    assert count[0] == count[1]


def test_a_file_that_is_not_inception_is_named(run, tmp_path):
    (tmp_path / "other.nnp").write_text("no archive")
    code, _, err = run("--inception", tmp_path / "other.nnp")
    assert code == 2 and "other.nnp is not NNabla's Inception-v3" in err


def test_pictures_without_masks_are_no_reason_to_measure(run, data, tmp_path):
    for letter in "AB":
        pictures.write_png(data / f"bare{letter}" / "0.png", np.zeros((32, 32, 3), np.uint8))
    code, _, err = run("--phase", "bare")
    assert code == 2 and "bareA has a mask" in err


def test_without_weights_fid_is_left_out_with_a_word(monkeypatch, run, tmp_path):
    monkeypatch.setattr(inception, "DEFAULT", tmp_path / "absent.nnp")
    code, said, _ = run("--direction", "AtoB")
    assert code == 0 and "FID and KID are left out" in said
    summary = json.loads((tmp_path / "out" / "metrics.json").read_text())["directions"]["AtoB"]["summary"]
    assert all("fid" not in column for column in summary.values())


@pytest.mark.parametrize("accuracy, warned", [(0.89, True), (0.91, False), (float("nan"), True)])
def test_a_classifier_that_is_often_wrong_is_warned_of(accuracy, warned):
    sentences = notes({"pictures": 1.0, "instances": accuracy}, "test")
    assert f"{accuracy:.1%} of instance crops" in sentences[0]
    assert any(sentence.startswith("Warning") for sentence in sentences) == warned


def test_other_data_have_no_shape_metrics(run, data, tmp_path):
    for path in data.glob("*.json"):
        path.rename(path.with_suffix(".away"))
    try:
        assert run("--direction", "AtoB")[0] == 0
    finally:
        for path in data.glob("*.away"):
            path.rename(path.with_suffix(".json"))
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())["directions"]["AtoB"]
    assert "mask_iou" not in found["summary"][TRANSLATED] and "score_instances" in found["summary"][NO_TRANSLATION]


@pytest.fixture(autouse=True)
def on_the_cpu(clean_nnabla):
    kernels.configure("auto")
