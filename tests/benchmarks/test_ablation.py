# SPDX-License-Identifier: Apache-2.0
"""The ablation, on a small scale: two variants of two seeds, stopped and gone on with, compared with evaluate.py."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time

import numpy as np
import pytest

import evaluate
from benchmarks import ablation, ablation_report
from common.errors import UserError
from metrics import classifier, efficientnet_lite0
from metrics.report import METRICS

SMALL = (
    "--loadSizeH 32 --loadSizeW 32 --fineSizeH 32 --fineSizeW 32 --ngf 2 --ndf 2 --n-blocks 0 --n-layers-D 1 "
    "--max-epoch 6 --lr-decay-start-epoch 3 --save-interval 1"
)


@pytest.fixture
def small(monkeypatch):
    """Small pictures and networks; the pictures of the curves have one and two instances."""
    monkeypatch.setattr(ablation, "MODEL", SMALL)
    monkeypatch.setattr(ablation, "TRAINED", ablation.Pictures(1, 2, 32, 3))
    monkeypatch.setattr(ablation, "FIXED_COUNTS", [ablation.Pictures(1, 1, 32, 2), ablation.Pictures(2, 2, 36, 2)])
    monkeypatch.setattr(ablation, "TRAINING_PICTURES", 2)


class NoClassifier:
    """In place of a classifier that would have to be trained."""

    accuracy = 1.0

    def probability(self, images):
        return np.zeros(len(images))


def run(monkeypatch, folder, *arguments):
    monkeypatch.setattr(sys, "argv", ["ablation.py", "--output", str(folder), *arguments])
    return ablation.main()


def test_an_ablation_is_stopped_gone_on_with_and_measured_as_by_evaluate(tmp_path, monkeypatch, small, capsys):
    folder = tmp_path / "ablation"
    variants = ("--variants", "full", "one_step", "--seeds", "2", "--jobs", "1")
    first = folder / "runs" / "full_0"

    def stop_when_begun():
        while not list(first.glob("checkpoint_*")):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    stopper = threading.Thread(target=stop_when_begun)
    stopper.start()
    assert run(monkeypatch, folder, *variants) == 128 + signal.SIGINT
    stopper.join()
    assert "the same command goes on" in capsys.readouterr().out
    assert not (folder / "ablation.md").exists()
    assert run(monkeypatch, folder, *variants) == 0

    figures = json.loads((folder / "measured" / "full_0.json").read_text())
    model = ["--model", str(first), "--dataroot", str(ablation.TRAINED.path(folder)), "--cpu-kernels", "auto"]
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *model, "--output", str(tmp_path / "evaluation")])
    # their scores are not compared
    monkeypatch.setattr(efficientnet_lite0, "find", lambda: None)
    monkeypatch.setattr(classifier, "cached", lambda *_: NoClassifier())
    evaluate.main()
    evaluation = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    for direction in ("AtoB", "BtoA"):
        summary = evaluation["directions"][direction]["summary"]["translated"]
        measured = figures[f"1-2 instances, as trained, {direction}"]
        assert set(measured) == set(summary) - {"score_pictures", "score_instances"}
        for name, value in measured.items():
            assert value == pytest.approx(summary[name]["mean"], abs=1e-9), name

    # with up to two instances, passes of two are one step, whichever the training was
    for pictures in ("1 instances", "2 instances"):
        assert figures[f"{pictures}, sequential, AtoB"] == figures[f"{pictures}, one step, AtoB"]

    tables = (folder / "ablation.md").read_text()
    seeds = [json.loads((folder / "measured" / f"full_{seed}.json").read_text()) for seed in (0, 1)]
    values = [seed["1-2 instances, as trained, AtoB"]["background_psnr"] for seed in seeds]
    cell = f"{(values[0] + values[1]) / 2:.1f} ± {abs(values[0] - values[1]) / 2**0.5:.1f}"
    row = next(line for line in tables.splitlines() if line.startswith(f"| {METRICS['background_psnr'][0]} |"))
    assert row.split(" | ")[1] == cell
    for name in ("curves.png", "pictures_AtoB.png", "pictures_BtoA.png"):
        assert (folder / name).stat().st_size > 1000


def test_runs_of_other_settings_are_refused(tmp_path, monkeypatch, small):
    folder = tmp_path / "ablation"
    assert run(monkeypatch, folder, "--variants", "cyclegan", "--seeds", "1") == 0
    monkeypatch.setattr(ablation, "MODEL", SMALL.replace("--ngf 2", "--ngf 4"))
    with pytest.raises(UserError, match="ngf"):
        run(monkeypatch, folder, "--variants", "cyclegan", "--seeds", "1")


def test_the_spread_is_the_standard_deviation_of_the_seeds():
    assert ablation_report.spread("{:.2f}", [1.0, 2.0, 4.0]) == f"{7 / 3:.2f} ± {np.std([1, 2, 4], ddof=1):.2f}"
    assert ablation_report.spread("{:.2f}", [3.0]) == "3.00"
    assert ablation_report.spread("{:.2f}", []) == ""
