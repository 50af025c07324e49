# SPDX-License-Identifier: Apache-2.0
"""Evaluation during training: the figures, the best model and its files, resumed and killed runs, and the page."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import evaluate
import export
import train
import translate
from args import train_args
from common import files
from common.errors import UserError
from datasets import generate_shapes_dataset as shapes
from metrics import classifier, efficientnet_lite0
from metrics.report import METRICS, TRANSLATED
from models import GENERATORS
from tests.helpers import evaluated_runs
from tests.helpers.browser import CHROMIUM, Browser
from tests.helpers.page import Page
from tests.helpers.small_runs import SMALL
from training import best_models, checkpoint, evaluation, run_folder, run_page
from training.evaluation import Basis, Figures, HeldOut
from training.evaluation_log import EvaluationLog, draw_figures, series_name
from training.settings import Settings
from translation.translator import Translator, load_translator
from weights import model_file

EPOCH, EPOCHS = 3, 5  # iterations, epochs
LAST = EPOCH * EPOCHS
RUN = [*SMALL, "--pool-size", "3"]
COURSE = f"--max-epoch {EPOCHS} --lr-decay-start-epoch 2 --log-step 2 --save-interval 1 --lambda-cyc 7".split()
EVERY = "--evaluate-interval 1".split()

pytestmark = pytest.mark.usefixtures("blank_curves")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Shapes with known truth, with fewer test pictures than are evaluated."""
    root = tmp_path_factory.mktemp("data") / "shapes"
    shapes.generate(root, height=24, width=24, train=EPOCH, test=3, max_instances=3, seed=5)
    return root


@pytest.fixture()
def unknown(data, tmp_path):
    """The same pictures, without the truth."""
    root = Path(shutil.copytree(data, tmp_path / "unknown"))
    for path in root.glob("*.json"):
        path.unlink()
    return root


@pytest.fixture()
def quick_classifier(monkeypatch):
    """A classifier of few steps, which is no good, but the same each time; evaluate.py has no other either."""
    monkeypatch.setattr(classifier, "STEPS", 12)
    monkeypatch.setattr(efficientnet_lite0, "PACKAGE", "a_package_that_is_not_installed")


@pytest.fixture()
def rising(monkeypatch):
    monkeypatch.setattr(HeldOut, "measure", evaluated_runs.measure)


@pytest.fixture(scope="module")
def whole(run_script, data, tmp_path_factory):
    """A run that was never stopped, with scores that rise."""
    folder = tmp_path_factory.mktemp("whole") / "a run"
    done = run_script("train.py", *arguments(data, folder), prepare=evaluated_runs.use_score_of_parameters)
    assert done.returncode == 0, done.stderr
    return folder


def arguments(data, folder, *more):
    return list(map(str, ["--dataroot", data, *RUN, *COURSE, *EVERY, "-c", "cpu", "-m", folder, *more]))


@pytest.fixture()
def run(run_main):
    """Train in this process; returns the output."""

    def start(data, folder, *more):
        code, out, err = run_main(train, *arguments(data, folder, *more))
        assert code == 0, err
        return out + err

    return start


@pytest.fixture()
def resume(run_main):
    def go_on(folder, *more):
        code, out, err = run_main(train, "-m", folder, "--resume", *more)
        assert code == 0, err
        return out + err

    return go_on


def series(folder, name="score"):
    return np.loadtxt(folder / f"evaluation_{name}.series.txt", ndmin=2)


def best_files(folder):
    return {path.name: path.read_bytes() for path in folder.glob("best*")}


def contents(folder):
    """All that must be the same bytes in a run that was stopped and in one that was not."""
    _, arrays, state = checkpoint.load_newest(folder)
    for of_time in ("timer", "elapsed"):
        del state["monitors"][of_time]
    values = {name: array.tobytes() for name, array in arrays.items()}
    texts = {path.name: path.read_bytes() for path in folder.glob("*.series.txt")}
    models = {path.name: path.read_bytes() for path in folder.glob("params_*")}
    return values, state, texts, models, best_files(folder)


# --- figures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("truth", [True, False], ids=["truth", "classifier"])
@pytest.mark.parametrize("masks", [True, False], ids=["instagan", "cyclegan"])
def test_figures_are_those_of_evaluate(data, unknown, tmp_path, run, run_main, quick_classifier, truth, masks):
    """Those of the newest model, on the same pictures; and the classifier is the one that evaluate.py has."""
    root = data if truth else unknown
    folder = tmp_path / "run"
    said = run(root, folder, "--max-epoch", 2, *([] if masks else ["--ins-max", 0]))
    assert "evaluated after every epoch: 3 pictures of testA and 3 pictures of testB; the best model by" in said
    classifiers = {path.name for path in folder.glob("classifier_*")}
    assert bool(classifiers) != truth
    code, _, err = run_main(evaluate, "--model", folder, "--dataroot", root, "-c", "cpu", "--output", tmp_path / "out")
    assert code == 0, err
    assert {path.name for path in folder.glob("classifier_instances_*")} >= classifiers
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())["directions"]
    costly = {"score_pictures", *(["score_instances"] if truth else [])}
    for direction, domain in (("AtoB", "x"), ("BtoA", "y")):
        logged = set()
        for path in folder.glob(f"evaluation_*_{domain}.series.txt"):
            name = path.name[len("evaluation_") : -len("_x.series.txt")]
            rows = series(folder, f"{name}_{domain}")
            np.testing.assert_array_equal(rows[:, 0], [EPOCH - 1, 2 * EPOCH - 1])
            assert rows[-1, 1] == pytest.approx(found[direction]["summary"][TRANSLATED][name]["mean"], rel=1e-6), name
            logged.add(name)
        assert logged == found[direction]["summary"][TRANSLATED].keys() - costly
        assert ("agreement" in logged) == masks and ("picture_iou" in logged) == truth
    if truth:
        ious = [found[direction]["summary"][TRANSLATED]["picture_iou"]["mean"] for direction in GENERATORS]
        assert series(folder)[-1, 1] == pytest.approx(np.mean(ious), rel=1e-6)


@pytest.fixture()
def held_out(tmp_path):
    """Large, easy shapes in a run that has not begun."""
    root = tmp_path / "large"
    shapes.generate(root, height=64, width=64, train=3, test=10, max_instances=2, seed=1)
    size = "--loadSizeH 64 --loadSizeW 64 --fineSizeH 64 --fineSizeW 64".split()
    return HeldOut(root, Settings.from_args(train_args("", size)), tmp_path)


def paint(monkeypatch, change):
    """Let generators be `change(colour of the target domain, x, a)`, which returns y and b."""

    def translate(self, picture, masks):
        blue, red = np.array([40, 60, 235]), np.array([225, 35, 35])
        colour = (blue if self.network == GENERATORS["AtoB"] else red) / 127.5 - 1
        return change(colour[:, None, None].astype(np.float32), picture, masks)

    monkeypatch.setattr(Translator, "translate", translate)


@pytest.mark.parametrize(
    ("change", "least", "most"),
    [
        (lambda colour, x, a: (x, a), 0, 0.02),
        (lambda colour, x, a: (np.broadcast_to(colour, x.shape), np.ones_like(a)), 0.01, 0.5),
        (lambda colour, x, a: (np.where((a > 0).any(axis=0), colour, x), a), 0.65, 0.85),
    ],
    ids=["nothing", "everything", "colour"],
)
def test_the_score_cannot_be_had_for_nothing(held_out, monkeypatch, change, least, most):
    """Nothing is changed, everything painted over, or instances recoloured in their old shape.

    Backgrounds are of random colours, some of them near the target's, so that even unchanged pictures have some of it.
    """
    assert {len(cases) for cases in held_out._cases.values()} == {evaluation.PICTURES}
    paint(monkeypatch, change)
    assert least <= held_out.measure().score <= most


def test_the_score_of_the_classifier_counts_only_where_masks_and_background_hold():
    sure = np.array([0.9, 0.8, 0.2])
    measured = {"collapsed": [0.0, 1.0, 0.0], "background_ssim": [0.5]}
    np.testing.assert_allclose(evaluation.instance_scores(sure, measured, had_background=True), [0.45, 0, 0.1])
    for damaged in ([], [-0.1]):
        assert not evaluation.instance_scores(sure, {**measured, "background_ssim": damaged}, had_background=True).any()
    without = {**measured, "background_ssim": []}
    np.testing.assert_allclose(evaluation.instance_scores(sure, without, had_background=False), [0.9, 0, 0.2])


def test_a_data_set_that_is_too_small_for_a_classifier_has_figures_and_no_best_model(unknown, tmp_path, run):
    for path in [*unknown.glob("trainB/000[12].png"), *unknown.glob("trainB_seg/000[12]_*.png")]:
        path.unlink()
    said = run(unknown, tmp_path / "run")
    assert said.count("no model is chosen as the best: a classifier needs at least 2 training pictures") == 1
    assert len(series(tmp_path / "run", "agreement_x")) == EPOCHS and not best_files(tmp_path / "run")


def test_a_classifier_that_is_no_good_is_told(unknown, tmp_path, run, quick_classifier, monkeypatch):
    monkeypatch.setattr(classifier, "LEAST_ACCURACY", 1.1)
    said = run(unknown, tmp_path / "run", "--max-epoch", 2)
    assert said.count("warning: the classifier that chooses the best model is right about") == 1


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_evaluation_changes_nothing_in_the_training(unknown, tmp_path, run, quick_classifier, norm):
    """Nor does the training of the classifier, and running statistics stay as they are."""
    for name, interval in (("with", 1), ("without", 0)):
        said = run(unknown, tmp_path / name, "--norm", norm, "--evaluate-interval", interval)
        assert ("evaluated after" in said) == bool(interval)
    names = {path.name for path in (tmp_path / "without").iterdir()}
    assert not any(name.startswith(("evaluation", "best", "classifier")) for name in names)
    of_both = [contents(tmp_path / name) for name in ("with", "without")]
    assert of_both[0][0] == of_both[1][0] and of_both[0][3] == of_both[1][3]
    assert all((tmp_path / "with" / name).read_bytes() == text for name, text in of_both[1][2].items())


def test_half_precision(data, tmp_path, run):
    run(data, tmp_path / "run", "-t", "half", "--cpu-kernels", "nnabla", "--max-epoch", 1)
    assert np.isfinite(series(tmp_path / "run")).all()


# --- when -------------------------------------------------------------------------------------------------------------


def test_without_held_out_pictures_one_line_says_why(data, tmp_path, run):
    root = Path(shutil.copytree(data, tmp_path / "data"))
    shutil.rmtree(root / "testB_seg")
    said = run(root, tmp_path / "run", "--max-epoch", 2)
    reason = f"{root} has no valA and valB or testA and testB or sampleA and sampleB with masks"
    assert said.count(f"the model is not evaluated during the training: {reason}") == 1
    assert not list((tmp_path / "run").glob("evaluation*")) and not best_files(tmp_path / "run")
    assert "Figures" not in Page(tmp_path / "run" / "index.html").text("h2")


def test_samples_are_held_out_too(data, tmp_path, run):
    root = Path(shutil.copytree(data, tmp_path / "data"))
    for path in root.glob("test*"):
        path.rename(root / path.name.replace("test", "sample"))
    assert "3 pictures of sampleA" in run(root, tmp_path / "run", "--max-epoch", 1)


def copy_to_val(root, domain):
    """Make the test pictures of a domain its validation pictures too, with masks and truth."""
    for name in (f"test{domain}", f"test{domain}_seg"):
        shutil.copytree(root / name, root / name.replace("test", "val"))
    truth = root / f"test{domain}.json"
    if truth.exists():
        shutil.copy(truth, root / f"val{domain}.json")


def test_validation_pictures_come_first_so_that_the_test_pictures_judge_the_best_model(
    data, tmp_path, run, run_main, rising, monkeypatch
):
    """Where both domains have some with masks; evaluate.py warns where it measures those that chose the model."""
    monkeypatch.setattr(classifier, "STEPS", 5)
    monkeypatch.setattr(efficientnet_lite0, "PACKAGE", "a_package_that_is_not_installed")
    root = Path(shutil.copytree(data, tmp_path / "data"))
    copy_to_val(root, "A")
    for has_both, phase in ((False, "test"), (True, "val")):
        if has_both:
            copy_to_val(root, "B")
        folder = tmp_path / phase
        said = run(root, folder, "--max-epoch", 1)
        assert f"3 pictures of {phase}A and 3 pictures of {phase}B" in said
        assert json.loads((folder / "best.json").read_text())["phase"] == phase
        given = ["--model", folder, "--which", "best", "--dataroot", root, "-c", "cpu", "--direction", "AtoB"]
        assert run_main(evaluate, *given, "--output", folder / "out")[0] == 0
        text = (folder / "out" / "metrics.md").read_text()
        assert ("was chosen as the best of its run" in text) == (phase == "test")


def test_every_so_many_epochs(data, tmp_path, run):
    """And after the last one."""
    said = run(data, tmp_path / "run", "--evaluate-interval", 2)
    assert "evaluated after every 2 epochs and the last one: " in said
    np.testing.assert_array_equal(series(tmp_path / "run")[:, 0], [2 * EPOCH - 1, 4 * EPOCH - 1, LAST - 1])


def test_a_run_that_is_shorter_than_the_interval_is_evaluated_at_its_end(data, tmp_path, run, resume):
    """Stopped inside an epoch it is not, and it ends with the same bytes."""
    assert "evaluated after the last epoch: " in run(data, tmp_path / "whole", "--evaluate-interval", 67)
    np.testing.assert_array_equal(series(tmp_path / "whole")[:, 0], [LAST - 1])
    said = run(data, tmp_path / "run", "--evaluate-interval", 67, "--max-iter", LAST - 1)
    assert "this run ends before the first evaluation, which is due after the last epoch" in said
    assert not list((tmp_path / "run").glob("evaluation*"))
    resume(tmp_path / "run", "--max-iter", LAST)
    for path in tmp_path.glob("*/params_*"):
        # the model of the stop has taken the place of an earlier one
        if f"{LAST:06d}" not in path.name:
            path.unlink()
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


@pytest.mark.parametrize(("epoch", "epochs"), [(3, 67), (200, 1), (201, 1), (199, 2)])
def test_by_default_there_are_200_iterations_between_two(epoch, epochs):
    assert evaluation.interval(None, epoch) == epochs
    assert evaluation.interval(0, epoch) == 0 and evaluation.interval(4, epoch) == 4


# --- the best model ---------------------------------------------------------------------------------------------------


def with_scores(monkeypatch, scores):
    """Let the evaluations of a run have these scores."""
    left = list(scores)
    monkeypatch.setattr(HeldOut, "measure", lambda self: replace(evaluated_runs.MEASURE(self), score=left.pop(0)))


@pytest.mark.parametrize("scores", [[0.1, 0.5, 0.2, 0.5, 0.4], [0.7, 0.1, 0.1, 0.1, 0.1], [0.0, 0.0, 0.1, 0.2, 0.3]])
def test_the_best_model_is_the_first_of_the_highest_score(data, tmp_path, run, monkeypatch, scores):
    """It is the model that was saved then, and stays when three newer ones have replaced it."""
    with_scores(monkeypatch, scores)
    folder, models = tmp_path / "run", tmp_path / "models"
    run(data, folder, "-o", models)
    np.testing.assert_allclose(series(folder)[:, 1], scores)
    best = json.loads((models / "best.json").read_text())
    iteration = EPOCH * (1 + int(np.argmax(scores)))
    assert (best["iteration"], best["score"]) == (iteration, max(scores))
    assert best["file"] == f"best_{iteration:06d}.h5"
    for ending in ("h5", "json"):
        model = models / f"params_{iteration:06d}.{ending}"
        assert (models / f"best_{iteration:06d}.{ending}").read_bytes() == model.read_bytes()
    at_best = {name: series(folder, f"{name}_x")[np.argmax(scores), 1] for name in best["figures"]["AtoB"]}
    assert at_best == pytest.approx(best["figures"]["AtoB"], rel=1e-6) and "picture_iou" in at_best
    # and those that were the best as of the checkpoints that are left
    kept = {EPOCH * (1 + int(np.argmax(scores[: files.number_of(one) // EPOCH]))) for one in checkpoint.find(folder)}
    assert {files.number_of(path) for path in models.glob("best_*.h5")} == kept | {iteration}
    assert {path.stem for path in models.glob("best_*.h5")} == {path.stem for path in models.glob("best_*.json")}


def test_best_is_what_translate_evaluate_and_export_take(data, tmp_path, run, run_main, monkeypatch):
    with_scores(monkeypatch, [0.1, 0.5, 0.2, 0.4, 0.3])
    folder = tmp_path / "run"
    run(data, folder)
    given = ["--model", folder, "--which", "best"]
    for script, more in (
        (translate, ["--dataroot", data, "-c", "cpu", "--output", tmp_path / "t"]),
        (evaluate, ["--dataroot", data, "-c", "cpu", "--output", tmp_path / "e", "--direction", "AtoB"]),
        (export, ["--format", "nnp", "--output", tmp_path / "model.nnp"]),
    ):
        if script is evaluate:
            monkeypatch.setattr(classifier, "STEPS", 5)
        code, out, err = run_main(script, *given, *more)
        assert code == 0, err
        assert f"model: {folder / 'best_000006.h5'}, AtoB" in out
    assert json.loads((tmp_path / "e" / "metrics.json").read_text())["model"].endswith("best_000006.h5")
    code, out, _ = run_main(translate, "--model", folder, "--dataroot", data, "-c", "cpu", "--output", tmp_path / "n")
    assert code == 0 and f"params_{LAST:06d}.h5" in out


def test_a_best_model_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no best.json: .*--evaluate-interval.* give --which newest"):
        load_translator(tmp_path, "AtoB", which="best")
    (tmp_path / "a.h5").touch()
    with pytest.raises(UserError, match="--which best is for a run folder"):
        load_translator(tmp_path / "a.h5", "AtoB", which="best")
    for text in ("", "[]", "{}", '{"file": 3}', '{"file": "../best_1.h5"}', '{"file": "params_000001.h5"}'):
        (tmp_path / "best.json").write_text(text)
        with pytest.raises(UserError, match="best.json cannot be used .* give --which newest"):
            load_translator(tmp_path, "AtoB", which="best")
    (tmp_path / "best.json").write_text('{"file": "best_000001.h5"}')
    with pytest.raises(UserError, match="names best_000001.h5, which is missing"):
        load_translator(tmp_path, "AtoB", which="best")


def test_files_that_are_needed(tmp_path):
    """The newest, and for each checkpoint the last one up to it."""
    for number in (3, 6, 9, 12, 15):
        for ending in ("h5", "json"):
            model_file.best_path(tmp_path, number).with_suffix(f".{ending}").touch()
    (tmp_path / "best.json").touch()
    model_file.best_path(tmp_path, 4).with_suffix(".json").touch()  # its .h5 was never written
    best_models.delete_unneeded(tmp_path, [2, 8, 11])
    assert {files.number_of(path) for path in tmp_path.glob("best_*.h5")} == {6, 9, 15}
    best_models.delete_later(tmp_path, 9)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "best.json", "best_000006.h5", "best_000006.json", "best_000009.h5", "best_000009.json"
    ]  # fmt: skip


BASIS = Basis("test", {"AtoB": ["a"], "BtoA": ["b"]}, "the score")


def figures(score, basis=BASIS, **of_both):
    return Figures({"AtoB": of_both or {"agreement": 0.5}, "BtoA": of_both}, score, basis)


def test_a_score_that_is_no_number_is_never_the_best(tmp_path):
    log = EvaluationLog(tmp_path)
    assert not log.add(3, figures(float("nan")))
    assert log.add(6, figures(0.0))
    assert not log.add(9, figures(float("nan")))
    assert log.best.iteration == 6


@pytest.mark.parametrize(
    "other",
    [
        replace(BASIS, phase="val"),
        replace(BASIS, pictures={"AtoB": ["a", "c"], "BtoA": ["b"]}),
        replace(BASIS, score_name="another score"),
    ],
)
def test_scores_of_another_kind_or_other_pictures_are_not_compared(tmp_path, capsys, other):
    before = EvaluationLog(tmp_path)
    before.add(3, figures(0.9))
    log = EvaluationLog(tmp_path)
    log.set_state(json.loads(json.dumps(before.state())))
    assert log.best == before.best
    assert not log.add(6, figures(0.5)) and log.best.iteration == 3
    assert log.add(9, figures(0.2, other))
    assert log.best.iteration == 9 and log.best.basis == other
    assert capsys.readouterr().out.count("the best model is chosen anew from here on\n") == 1


def test_the_newest_figures_are_of_one_evaluation(tmp_path):
    """The page shows none in place of those that it has not, also where that is the score."""
    log = EvaluationLog(tmp_path)
    log.add(3, figures(0.9, agreement=0.25, collapsed=0.5))
    log.add(6, figures(None, collapsed=0.75))
    assert log.newest() == {series_name("collapsed", direction): (5, 0.75) for direction in GENERATORS}
    facts = run_page.Facts("", [("--dataroot", "data", None)], tmp_path, "")
    run_page.write(tmp_path, facts, log)
    page = Page(tmp_path / "index.html")
    assert "Score, the score: newest none, best 0.900 after iteration 3" in " ".join(page.text("p"))
    cells = page.text("td")
    start = cells.index(METRICS["agreement"][0])
    # empty cells have no text: only the best model has an agreement
    assert cells[start - 4 : start] == ["75.0%", "75.0%", "50.0%", "50.0%"]
    assert cells[start + 1 :][:2] == ["0.250", "0.250"] and cells.count("0.250") == 2


# --- stopped, killed and resumed --------------------------------------------------------------------------------------


def test_the_best_model_of_the_whole_run_changes(whole):
    assert len(set(series(whole)[:, 1])) == EPOCHS
    assert files.number_of(max(whole.glob("best_*.h5"))) > 2 * EPOCH


def test_a_stopped_run_ends_with_the_same_bytes(whole, data, tmp_path, run, resume, rising):
    """It is stopped twice, in the middle of an epoch and at the end of one."""
    run(data, tmp_path / "run", "--max-iter", EPOCH + 1)
    resume(tmp_path / "run", "--max-iter", 3 * EPOCH)
    resume(tmp_path / "run", "--max-iter", LAST)
    assert contents(tmp_path / "run") == contents(whole)


def test_a_stopped_run_with_a_classifier_ends_with_the_same_bytes(
    unknown, tmp_path, run, resume, quick_classifier, monkeypatch
):
    """The classifier is read by one, and trained once more by the other, whose models lie elsewhere."""
    run(unknown, tmp_path / "whole", "--norm", "batch")
    for again in (True, False):
        folder = tmp_path / f"again {again}"
        run(unknown, folder, "--norm", "batch", "--max-iter", 2 * EPOCH)
        if again:
            for path in folder.glob("classifier_*"):
                path.unlink()
        resume(folder, "--max-iter", LAST)
        assert contents(folder) == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    ("event", "name", "existing"),
    [
        ("os.rename", "best_000006.json", "best_000003.h5"),
        ("os.rename", "best_000006.h5", "best_000006.json"),
        ("os.rename", "best.json", "best_000006.h5"),
        ("os.rename", "checkpoint_000006.npz", "best_000006.h5"),
        ("os.rename", "params_000006.h5", "checkpoint_000006.npz"),
        ("os.remove", "best_000003.h5", "best_000006.h5"),
        ("os.remove", "best_000003.json", "best_000006.h5"),
    ],
)
def test_killed_between_the_writes_there_is_a_whole_best_model(
    whole, data, tmp_path, start_script, resume, rising, event, name, existing
):
    folder = tmp_path / "run"
    kill = partial(evaluated_runs.kill_before, event, name, folder / existing)
    killed = start_script("train.py", *arguments(data, folder), prepare=kill).finish()
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    model, _ = model_file.load_model(model_file.find_model(folder, "best"))
    assert model
    resume(folder)
    assert contents(folder) == contents(whole)
    ours, theirs = ({path.name for path in one.iterdir()} for one in (folder, whole))
    assert ours == theirs


def test_the_best_of_iterations_that_are_lost_is_lost(data, tmp_path, start_script, resume, rising):
    """Killed long after its checkpoint, with a better model: resumed with an earlier end, that one never was."""
    folder = tmp_path / "run"
    kill = partial(evaluated_runs.kill_before, "os.rename", f"best_{LAST:06d}.h5", folder)
    killed = start_script("train.py", *arguments(data, folder, "--save-interval", 2), prepare=kill).finish()
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    saved = files.number_of(checkpoint.find(folder)[-1])
    resume(folder, "--max-iter", saved)
    assert json.loads((folder / "best.json").read_text())["iteration"] <= saved == 4 * EPOCH
    assert series(folder)[-1, 0] == saved - 1
    assert max(map(files.number_of, folder.glob("best_*.h5"))) <= saved


def test_a_best_model_after_the_checkpoint_is_given_up_aloud_or_kept(data, tmp_path, run, resume, rising):
    """It is kept where the run does not evaluate, and so would not choose another one."""
    run(data, tmp_path / "run", "--max-iter", 2 * EPOCH)
    for path in (*tmp_path.glob("run/*_000006.npz"), *tmp_path.glob("run/params_000006.*")):
        path.unlink()
    before = best_files(tmp_path / "run")
    assert "best_000006.h5" in before
    said = resume(tmp_path / "run", "--max-iter", EPOCH, "--evaluate-interval", 0)
    assert "best_000006.h5, of iterations after the checkpoint, is kept" in said
    assert best_files(tmp_path / "run") == before
    said = resume(tmp_path / "run", "--max-iter", EPOCH, *EVERY)
    assert "best_000006.h5 is given up: the run goes on from iteration 3" in said
    assert json.loads((tmp_path / "run" / "best.json").read_text())["iteration"] == EPOCH
    assert "best_000006.h5" not in best_files(tmp_path / "run")


def test_half_written_features_are_removed(tmp_path):
    (tmp_path / ".features_b0.part.npy").touch()
    (tmp_path / "features_b0.npy").touch()
    with run_folder.held(tmp_path, tmp_path, resume=False):
        assert {path.name for path in tmp_path.iterdir()} == {".lock", "features_b0.npy"}


def test_a_run_without_a_checkpoint_leaves_the_models_of_another(data, tmp_path, run, run_main, rising):
    models = tmp_path / "models"
    run(data, tmp_path / "first", "-o", models, "--max-iter", EPOCH)
    for path in (tmp_path / "first").glob("checkpoint*"):
        path.unlink()  # as if killed at once
    before = {path.name: path.read_bytes() for path in models.iterdir()}
    code, _, err = run_main(train, "-m", tmp_path / "first", "--resume")
    assert code == 2 and "holds params_000003.h5 of a run" in err and "--model-save-path" in err
    assert {path.name: path.read_bytes() for path in models.iterdir()} == before


def test_a_run_without_a_checkpoint_starts_with_no_best_model(
    whole, data, tmp_path, start_script, resume, rising
):
    folder = tmp_path / "run"
    kill = partial(evaluated_runs.kill_before, "os.rename", "checkpoint_000003.npz", folder / "best.json")
    assert start_script("train.py", *arguments(data, folder), prepare=kill).finish().returncode == -signal.SIGKILL
    assert model_file.find_model(folder, "best").name == "best_000003.h5"
    assert "from the beginning" in resume(folder)
    assert contents(folder) == contents(whole)


def test_a_folder_with_nothing_but_a_best_model_holds_a_run(data, tmp_path, run_main):
    (tmp_path / ".lock").touch()
    (tmp_path / "best_000003.h5").touch()
    code, _, err = run_main(train, *arguments(data, tmp_path))
    assert code == 2 and "holds a run" in err


def test_a_best_model_that_was_deleted_is_told(data, tmp_path, run, resume, rising):
    run(data, tmp_path, "--max-iter", EPOCH)
    (tmp_path / "best_000003.h5").unlink()
    said = resume(tmp_path, "--max-iter", EPOCH)
    assert "best_000003.h5 is missing: the best model is chosen from those to come" in said
    assert not (tmp_path / "best.json").exists()
    resume(tmp_path, "--max-iter", 2 * EPOCH)
    assert model_file.find_model(tmp_path, "best").name == "best_000006.h5"


def test_checkpoints_of_earlier_versions_go_on(data, tmp_path, run, resume):
    run(data, tmp_path, "--max-iter", EPOCH, "--evaluate-interval", 0)
    arrays, state = checkpoint.load(checkpoint.find(tmp_path)[-1])
    del state["evaluations"]
    checkpoint.save(tmp_path, EPOCH, arrays, state)
    saved = json.loads((tmp_path / "args.json").read_text())
    del saved["evaluate_interval"]
    (tmp_path / "args.json").write_text(json.dumps(saved))
    resume(tmp_path, "--max-iter", 2 * EPOCH, *EVERY)
    assert len(series(tmp_path)) == 1


@pytest.mark.parametrize(
    "spoil",
    [
        lambda s: s.update(series=None),
        lambda s: s["series"].update(evaluation_score="1 a\n"),
        lambda s: s.update(best={"iteration": 3}),
        lambda s: s["best"].update(iteration="../x"),
        lambda s: s["best"].update(figures=[]),
    ],
)
def test_a_checkpoint_with_senseless_evaluations_is_refused(data, tmp_path, run, run_main, spoil):
    run(data, tmp_path, "--max-iter", EPOCH)
    arrays, state = checkpoint.load(checkpoint.find(tmp_path)[-1])
    spoil(state["evaluations"])
    checkpoint.save(tmp_path, EPOCH, arrays, state)
    code, _, err = run_main(train, "-m", tmp_path, "--resume")
    assert code == 2 and "is not a checkpoint of this run" in err and err.count("\n") == 1


def test_the_room_for_the_best_models_is_asked_for(data, tmp_path, run, rising, monkeypatch):
    """As much as they take at most: one for each of three checkpoints, the newest, and one that is being written."""
    asked = []
    monkeypatch.setattr(train.run_folder, "check_space", lambda folder, copies, size, best: asked.append(best))
    run(data, tmp_path / "run")
    run(data, tmp_path / "short", "--max-iter", 2 * EPOCH)
    parameters, _ = model_file.load_model(model_file.find_model(tmp_path / "run"))
    model = sum(values.nbytes for values in parameters.values())
    assert asked == [5 * model, 2 * model]
    assert 2 < len(list((tmp_path / "run").glob("best_*.h5"))) < 5


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_of_a_run(whole):
    folder = whole
    page = Page(folder / "index.html")
    assert page.text("h2") == ["Samples", "Figures", "Losses", "Go on", *page.text("h2")[4:]]
    (title,) = page.text("title")
    assert folder.name in title
    slides = [values for tag, values in page.elements if "data-slides" in values]
    assert json.loads(slides[0]["data-slides"]) == [
        [f"after epoch {i}", f"sample_{i:06d}.png"] for i in range(1, EPOCHS + 1)
    ]
    sources = page.all("img", "src")
    assert sources[0] == f"sample_{EPOCHS:06d}.png", "without JavaScript the last one is shown"
    assert {"loss_generator.png", "evaluation_score.png", "evaluation_picture_iou.png"} < set(sources)
    assert all((folder / source).exists() for source in sources) and all(page.all("img", "alt"))
    text = " ".join(page.text("p"))
    assert f"Iteration {LAST} of {LAST}, {EPOCHS} of {EPOCHS} epochs" in text
    best = json.loads((folder / "best.json").read_text())
    assert f"best {best['score']:.3f} after iteration {best['iteration']} ({best['file']})" in text
    cells = page.text("td")
    for name, form in (("picture_iou", "{:.3f}"), ("background_psnr", "{:.1f}")):
        newest = [form.format(series(folder, f"{name}_{domain}")[-1, 1]) for domain in "xy"]
        of_best = [form.format(best["figures"][direction][name]) for direction in GENERATORS]
        start = cells.index(METRICS[name][0])
        assert cells[start + 1 : start + 5] == newest + of_best
    first, everything = cells.index("--lambda-cyc"), len(cells) - cells[::-1].index("--lambda-cyc") - 1
    assert cells[first : first + 3] == ["--lambda-cyc", "7.0", "10.0"] and cells[everything + 1] == "7.0"
    assert "--resume" not in cells
    assert "--lambda-idt" not in cells[: cells.index("--no-flip")] and "--lambda-idt" in cells


def test_the_commands_of_the_page_work(whole, run_main, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(classifier, "STEPS", 5)
    commands = [shlex.split(command) for command in Page(whole / "index.html").text("code")]
    scripts = {"train.py": train, "translate.py": translate, "evaluate.py": evaluate, "export.py": export}
    assert [words[1] for words in commands] == list(scripts)
    for words in commands:
        if words[1] == "export.py":
            pytest.importorskip("onnx")
        code, _, err = run_main(scripts[words[1]], *words[2:])
        assert code == 0, err
    assert all("best" in words for words in commands[1:])


def test_the_page_is_there_after_the_first_epoch_and_is_no_reason_to_stop(data, tmp_path, run, monkeypatch):
    written = []
    monkeypatch.setattr(run_page, "write", lambda folder, facts, evaluations: written.append(facts.progress))
    run(data, tmp_path / "run", "--save-interval", 2, "--save-image-interval", 3)
    assert [re.match("Iteration ([0-9]+)", progress)[1] for progress in written] == ["6", "9", "12", "15"]

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_page, "write", full)
    said = run(data, tmp_path / "full", "--max-iter", 1)
    assert "the page index.html is not written: No space left on device (the training is not affected)" in said


def test_figures_are_drawn_where_there_are_any(tmp_path):
    draw_figures(tmp_path)
    assert not list(tmp_path.iterdir())
    log = EvaluationLog(tmp_path)
    assert not log.add(3, figures(None))
    draw_figures(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{series_name('agreement', 'AtoB')}.series.txt",
        "evaluation_agreement.png",
    }


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on the PATH")
def test_the_page_in_a_browser(whole, tmp_path):
    """The slider is used by keys; the page fits a phone; without JavaScript the last sample is shown."""

    def shown():
        return browser.evaluate("decodeURI(document.querySelector('.slides img').src.split('/').pop())")

    with Browser(tmp_path / "profile") as browser:
        for width, scheme in ((1280, "dark"), (390, "light")):
            browser.open(whole / "index.html", width, prefers_color_scheme=scheme)
            assert browser.evaluate("document.documentElement.scrollWidth") == width
            assert shown() == "sample_000005.png"
            browser.evaluate("document.querySelector('.slides input').focus()")
            for _ in range(2):
                for kind in ("rawKeyDown", "keyUp"):
                    key = {"key": "ArrowLeft", "code": "ArrowLeft", "windowsVirtualKeyCode": 37}
                    browser.call("Input.dispatchKeyEvent", type=kind, **key)
            assert shown() == "sample_000003.png"
            assert browser.evaluate("document.querySelector('.slides figcaption').textContent") == "after epoch 3"
            assert browser.evaluate("document.querySelector('.slides img').alt") == "Samples, after epoch 3"
            assert browser.evaluate("document.querySelector('.slides input').ariaValueText") == "after epoch 3"
            browser.wait_for("document.querySelector('.slides img').naturalWidth")
            names = browser.call("Accessibility.getFullAXTree")["nodes"]
            sliders = [node["name"]["value"] for node in names if node.get("role", {}).get("value") == "slider"]
            assert sliders == ["Samples: which one is shown"]
        browser.call("Emulation.setScriptExecutionDisabled", value=True)
        browser.call("Page.reload")
        browser.wait_for("document.readyState === 'complete'")
        assert shown() == "sample_000005.png"
        assert browser.evaluate("getComputedStyle(document.querySelector('.slides input')).display") == "none"
        assert browser.complaints == []
        assert all(url.startswith(("file:///", "about:blank")) for url in browser.requests)
