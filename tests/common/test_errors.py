# SPDX-License-Identifier: Apache-2.0
"""Errors end a script with one line, the right exit code, and a traceback only with --debug."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import compare_evaluations
import convert_pytorch
import demo
import evaluate
import train
import translate
from common.errors import UserError, printable
from datasets import check_dataset, generate_ccp_dataset, generate_shapes_dataset
from tests.helpers import ROOT
from tests.helpers.scripts import DEADLINE

SCRIPTS = [train, translate, evaluate, compare_evaluations, convert_pytorch, demo]
SCRIPTS += [check_dataset, generate_ccp_dataset, generate_shapes_dataset]


# Python's default, in which output is written at the end
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


def name_of(script):
    """The name of a script's file, without .py."""
    return script.__name__.rpartition(".")[2]


def raising(error):
    """A script whose main does nothing but raise."""

    def main():
        raise error

    return SimpleNamespace(__name__="script", main=main)


ENDS = [
    (UserError("the cause; the fix"), 2, "error: the cause; the fix"),
    (PermissionError(13, "Permission denied", "a file"), 2, "error: a file: Permission denied; change its permissions"),
    (OSError(28, "No space left on device"), 2, "error: No space left on device; make room"),
    (OSError(5, "Input/output error"), 2, "error: Input/output error; fix that"),
    (MemoryError(), 2, "error: there is not enough memory"),
    (RuntimeError("memory error in alloc\nfailed to allocate 5 GB\n"), 2, "error: there is not enough memory"),
    (KeyboardInterrupt(), 130, "interrupted"),
    (RuntimeError("Symlink loop from 'a'"), 2, "error: Symlink loop from 'a'; fix that link"),
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


def test_ctrl_c_within_compiled_code_is_ctrl_c(run_main):
    def main():
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise SystemError("returned a result with an exception set") from error

    code, _, err = run_main(SimpleNamespace(__name__="script", main=main))
    assert (code, err) == (130, "script.py: interrupted\n")


# run by Python at its start: says when NNabla is imported, and lets the import take its time
HALF_IMPORTED = """
import sys, time
def look(event, arguments):
    if event == "import" and arguments[0] == "nnabla.functions":
        open("half_imported", "w").close()
        time.sleep(100)
sys.addaudithook(look)
"""


def test_ctrl_c_while_modules_are_imported_shows_no_traceback(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(HALF_IMPORTED)
    script = [sys.executable, str(ROOT / "train.py"), "--dataroot", str(tmp_path / "nowhere"), "-c", "cpu"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    process = subprocess.Popen(script, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path, env=environment)
    while process.poll() is None and not (tmp_path / "half_imported").exists():
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=DEADLINE)
    assert b"Traceback" not in err and process.returncode == -signal.SIGINT


def test_sigterm_ends_a_script_as_ctrl_c_does(run_main):
    tidied = []

    def main():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(9)
        finally:
            tidied.append(True)

    handler = signal.getsignal(signal.SIGTERM)
    code, _, err = run_main(SimpleNamespace(__name__="script", main=main))
    assert (code, err, tidied) == (143, "script.py: terminated\n", [True])
    assert signal.getsignal(signal.SIGTERM) == handler


def test_what_a_message_quotes_cannot_break_the_line_or_the_terminal(run_main):
    _, _, err = run_main(raising(UserError("no file a\nb\x1b[31m\udce9ü.png")))
    assert err == "script.py: error: no file a\\nb\\x1b[31m\\udce9ü.png\n"
    assert printable("ü\t") == "ü\\t"


def test_the_exit_code_is_right_where_the_error_cannot_be_written():
    script = [sys.executable, str(ROOT / "datasets" / "check_dataset.py"), "nowhere"]
    with open("/dev/full", "wb") as full:
        assert subprocess.run(script, stdout=full, stderr=full, timeout=DEADLINE).returncode == 2


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_every_script_refuses_what_it_does_not_know_in_one_line(run_main, monkeypatch, tmp_path, script):
    monkeypatch.chdir(tmp_path)
    code, out, err = run_main(script, "--no-such-flag")
    assert (code, out) == (2, "") and err.count("\n") == 1 and err.startswith(f"{name_of(script)}.py: error: ")
    assert "--help" in err
    code, out, err = run_main(script, "--no-such-flag", "--debug")
    assert code == 2 and err.startswith("Traceback") and not list(tmp_path.iterdir())


def test_who_wants_no_more_output_is_told_nothing():
    """The reader of the output has closed the pipe, as in `train.py --help | head -1`."""
    script = [sys.executable, str(ROOT / "datasets" / "check_dataset.py"), "--help"]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(script, stdout=writer, stderr=subprocess.PIPE, timeout=DEADLINE, env=BUFFERED)
    os.close(writer)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_output_that_cannot_be_written_is_told():
    script = [sys.executable, str(ROOT / "datasets" / "check_dataset.py"), "--help"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(script, stdout=full, stderr=subprocess.PIPE, timeout=DEADLINE, env=BUFFERED)
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1 and b"No space left on device" in done.stderr


def test_empty_texts_are_refused(run_main, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = run_main(translate, "--model", "x", "--dataroot", "y", "--output", "")
    assert code == 2 and "output is empty" in err and not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", ["²", "1.5", "0x10", "9" * 5000, "-1", "1e3", str(2**70), ""])
def test_numbers_that_are_none(run_main, number):
    code, _, err = run_main(train, f"--batch-size={number}")
    assert code == 2 and "--batch-size" in err and len(err) < 200


STARTED_AS = "train translate evaluate segment convert_pytorch compare_evaluations demo".split()
STARTED_AS += ["datasets/check_dataset", "datasets/import_masks"]


@pytest.mark.parametrize("script", STARTED_AS)
def test_every_script_starts_as_a_process(run_script, tmp_path, script):
    """It finds the project's modules from any working folder, and its imports print nothing."""
    done = run_script(f"{script}.py", "--help", cold=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "") and "usage: " in done.stdout


def test_importing_a_script_leaves_ctrl_c_alone():
    code = (
        "import importlib, signal, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, name"
    )
    modules = [script.replace("/", ".") for script in STARTED_AS]
    command = [sys.executable, "-c", code, *modules]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_every_help_teaches(run_main, script):
    code, out, err = run_main(script, "--help")
    assert (code, err) == (0, "") and "--debug" in out and "usage: " in out and len(out) > 500
