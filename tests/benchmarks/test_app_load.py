# SPDX-License-Identifier: Apache-2.0
"""The benchmark of app.py under load, on a small scale."""

from __future__ import annotations

import itertools
import sys

import pytest

pytest.importorskip("flask", reason="needs Flask: pip install -r requirements-app.txt")

from benchmarks import app_load
from models import Architecture
from tests.helpers.random_generator import save_random_model


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_each_user_gets_the_right_results(run_main, tmp_path):
    model = save_random_model(tmp_path / "model.h5", Architecture(ngf=2, ndf=2, n_blocks=0), "keep")
    arguments = ("--model", model, "--users", 3, "--seconds", 2, "--size", 48)
    code, output, errors = run_main(app_load, *arguments)
    assert code == 0, errors
    assert "| accepted jobs without a result, wrong results | 0, 0 |" in output


def test_another_result_is_noticed(monkeypatch, capsys, tmp_path):
    """A server that mixes up its users' results would not pass."""
    answers = itertools.count()

    class Mixing(app_load.Client):
        def __init__(self, port, counted):
            self._counted = counted

        def ask(self, method, path, body=b"", kind=""):
            return 200, b"", {}

        def translate(self, files):
            counted = self._counted
            for numbers in (counted.answer_seconds, counted.page_seconds, counted.job_seconds, counted.waiting):
                numbers.append(0)
            counted.accepted += 1
            return b"%d" % next(answers)

    monkeypatch.setattr(app_load, "Client", Mixing)
    monkeypatch.setattr(app_load, "memory", lambda process: 0)
    assert app_load.measure(0, 0, [[("image", b"")]], 0.3) == 1
    assert "got another result than alone" in capsys.readouterr().err
