# SPDX-License-Identifier: Apache-2.0
"""The fixtures of all tests: a clean NNabla for each, the reference cases, and running scripts as a user would."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Callable, Iterator, List, Tuple

import pytest

from benchmarks.reference import ReferenceCase, read_case
from common.errors import UserError, begin_script
from tests.helpers.ccp import make_tree
from tests.helpers.curves import BlankFigure
from tests.helpers.scripts import Script

begin_script(__name__)
# a shell's background jobs ignore Ctrl-C, and the processes that they start would inherit this
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import nnabla as nn

from backend import kernels
from backend.context import set_context
from common import errors


@pytest.fixture(scope="session", params=["one-pass", "two-pass"])
def reference_case(request: pytest.FixtureRequest) -> ReferenceCase:
    """Each of the reference cases, read and converted."""
    return read_case(request.param)


@pytest.fixture()
def tree(tmp_path: Path) -> Path:
    """A small CCP in its true layout; the set that holds a picture's name says its categories."""
    return make_tree(tmp_path)


@pytest.fixture(autouse=True)
def clean_nnabla():
    """Reset NNabla's parameters, random state and context, which last for the whole process, before each test."""

    def reset():
        nn.clear_parameters()
        set_context("cpu")
        nn.set_auto_forward(False)
        nn.seed(313)
        kernels.configure("nnabla")

    reset()
    yield
    reset()


@pytest.fixture(params=["nnabla", "onednn", "cudnn"])
def on_backend(request: pytest.FixtureRequest, clean_nnabla: None) -> str:
    """Run the test with each of the CPU kernels and on a GPU, and pass it the name; skip what is not available."""
    try:
        return set_context("cudnn") if request.param == "cudnn" else kernels.configure(request.param)
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture()
def blank_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs in this process draw curves that cost nothing."""
    monkeypatch.setattr("matplotlib.figure.Figure", BlankFigure)


@pytest.fixture()
def run_main(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[..., Tuple[int, str, str]]:
    """`run_main(translate, "--model", path)` runs a script's main here; returns exit code, output, error."""

    def run(module: ModuleType, *arguments: Any) -> Tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [f"{module.__name__.split('.')[-1]}.py", *map(str, arguments)])
        nn.clear_parameters()
        with pytest.raises(SystemExit) as exit_:
            errors.run_main(module.main)
        return (exit_.value.code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def run_script() -> Callable[..., subprocess.CompletedProcess]:
    """`run_script("train.py", "--max-iter", 3)` runs a script in a separate process and captures its output.

    The arguments are those of `Script`; the exit code is not checked.
    """

    def run(script: str, *arguments: Any, **options: Any) -> subprocess.CompletedProcess:
        return Script(script, *arguments, **options).finish()

    return run


@pytest.fixture()
def start_script() -> Iterator[Callable[..., Script]]:
    """`start_script("train.py", ...)` starts one as `run_script` does; at the test's end it is killed."""
    started: List[Script] = []

    def start(script: str, *arguments: Any, **options: Any) -> Script:
        started.append(Script(script, *arguments, **options))
        return started[-1]

    yield start
    for script in started:
        script.kill()
