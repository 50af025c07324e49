# SPDX-License-Identifier: Apache-2.0
"""How errors end: one line, the right exit code, and a traceback only where one asks for it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

from errors import UserError, printable

import pytest

import compare_evaluations
import convert_pytorch
import demo
import evaluate
import train
import translate

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "datasets"))

import check_dataset
import generate_ccp_dataset
import generate_shapes_dataset

SCRIPTS = [train, translate, evaluate, compare_evaluations, convert_pytorch, demo]
SCRIPTS += [check_dataset, generate_ccp_dataset, generate_shapes_dataset]


def raising(error):
    """A script whose main does nothing but raise."""

    def main():
        raise error

    return SimpleNamespace(__name__="script", main=main)


ENDS = [
    (UserError("the cause; the mend"), 2, "error: the cause; the mend"),
    (PermissionError(13, "Permission denied", "a file"), 2, "error: Permission denied: a file"),
    (OSError(28, "No space left on device"), 2, "error: No space left on device"),
    (MemoryError(), 2, "error: there is not enough memory"),
    (KeyboardInterrupt(), 130, "interrupted"),
    (KeyError("x"), 1, "unexpected KeyError: 'x'"),
]


@pytest.mark.parametrize(("error", "code", "words"), ENDS, ids=lambda value: type(value).__name__)
def test_an_error_is_one_line(run_main, error, code, words):
    got, out, err = run_main(raising(error))
    assert (got, out) == (code, "")
    assert err.startswith(f"script.py: {words}") and err.count("\n") == 1 and err.endswith("\n")


@pytest.mark.parametrize(("error", "code", "words"), ENDS, ids=lambda value: type(value).__name__)
def test_debug_shows_where(run_main, error, code, words):
    got, out, err = run_main(raising(error), "--debug")
    assert got == code and out == ""
    assert err.startswith("Traceback") and "in raising" not in err and "raise error" in err
    assert err.splitlines()[-1].startswith(f"script.py: {words}")


def test_what_a_message_quotes_cannot_break_the_line_or_the_terminal(run_main):
    _, _, err = run_main(raising(UserError("no file a\nb\x1b[31m\udce9ü.png")))
    assert err == "script.py: error: no file a\\nb\\x1b[31m\\udce9ü.png\n"
    assert printable("ü\t") == "ü\\t"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_every_script_refuses_what_it_does_not_know_in_one_line(run_main, monkeypatch, tmp_path, script):
    monkeypatch.chdir(tmp_path)
    code, out, err = run_main(script, "--no-such-flag")
    assert (code, out) == (2, "") and err.count("\n") == 1 and err.startswith(f"{script.__name__}.py: error: ")
    assert "--help" in err
    code, out, err = run_main(script, "--no-such-flag", "--debug")
    assert code == 2 and err.startswith("Traceback") and not list(tmp_path.iterdir())


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_every_help_teaches(run_main, script):
    code, out, err = run_main(script, "--help")
    assert (code, err) == (0, "") and "--debug" in out and "usage: " in out and len(out) > 500
