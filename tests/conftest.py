# SPDX-License-Identifier: Apache-2.0
"""What the tests share: a clean NNabla for each, the reference cases, and running the scripts as a user would."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Callable, Dict, Tuple

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "tests" / "data" / "reference"
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
# a shell has its background jobs ignore Ctrl-C, and what these start would inherit that
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import errors  # noqa: E402
from errors import UserError  # noqa: E402

import nnabla as nn  # noqa: E402

import convert_pytorch  # noqa: E402
import cpu_kernels  # noqa: E402
import model_file  # noqa: E402
from context import set_context  # noqa: E402
from models import NETWORKS, Architecture, create_parameters  # noqa: E402
from pth_reader import read_state_dict  # noqa: E402


@dataclass(frozen=True)
class ReferenceCase:
    """What the authors' code computed from one set of random weights; see the README of the reference vectors.

    `settings` is losses.json without its steps, `steps[s][m]` the losses of step s, pass m, `expected` the arrays,
    `parameters` the authors' checkpoint under our names.
    """

    name: str
    folder: Path
    settings: Dict[str, Any]
    steps: list
    expected: Dict[str, np.ndarray]
    parameters: Dict[str, np.ndarray]

    @property
    def architecture(self) -> Architecture:
        return Architecture(ngf=self.settings["ngf"], ndf=self.settings["ndf"])

    @property
    def size(self) -> tuple:
        return self.settings["height"], self.settings["width"]

    def load(self) -> None:
        """Create all four networks in the current scope, with the checkpoint's weights."""
        create_parameters(self.architecture, np.random.RandomState(0))
        self.set_parameters()

    def set_parameters(self) -> None:
        """Give networks that exist the checkpoint's weights."""
        model_file.set_parameters(self.parameters, NETWORKS, self.name)

    def mean_losses(self, step: int) -> Dict[str, float]:
        """Each loss of a step: its mean over the passes in which it exists."""
        names = {name for losses in self.steps[step] for name in losses}
        return {name: float(np.mean([p[name] for p in self.steps[step] if name in p])) for name in names}


def read_case(name: str) -> ReferenceCase:
    folder = REFERENCE / name
    settings = json.loads((folder / "losses.json").read_text())
    with np.load(folder / "expected.npz") as arrays:
        expected = dict(arrays)
    parameters: Dict[str, np.ndarray] = {}
    for network, path in convert_pytorch.find_networks(folder / "checkpoint", "latest").items():
        parameters.update(convert_pytorch.convert_network(network, read_state_dict(path), path))
    return ReferenceCase(name, folder, settings, settings.pop("steps"), expected, parameters)


@pytest.fixture(scope="session", params=["one-pass", "two-pass"])
def reference_case(request: pytest.FixtureRequest) -> ReferenceCase:
    """Each of the reference cases, read and converted."""
    return read_case(request.param)


@pytest.fixture(autouse=True)
def clean_nnabla():
    """NNabla keeps parameters, random state and context for the whole process: each test finds them as at the start."""

    def reset():
        nn.clear_parameters()
        set_context("cpu")
        nn.set_auto_forward(False)
        nn.seed(313)
        cpu_kernels.configure("nnabla")

    reset()
    yield
    reset()


@pytest.fixture(params=["nnabla", "onednn", "cudnn"])
def kernels(request: pytest.FixtureRequest, clean_nnabla: None) -> str:
    """The test runs with each of the CPU kernels, and on a GPU; it gets named which. What is not there is skipped."""
    try:
        return set_context("cudnn") if request.param == "cudnn" else cpu_kernels.configure(request.param)
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture()
def run_main(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[..., Tuple[int, str, str]]:
    """`run_main(translate, "--model", path)` runs a script's main here; gives exit code, standard output and error."""

    def run(module: ModuleType, *arguments: Any) -> Tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [f"{module.__name__}.py", *map(str, arguments)])
        nn.clear_parameters()
        with pytest.raises(SystemExit) as exit_:
            errors.run_main(module.main)
        return (exit_.value.code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def run_script() -> Callable[..., subprocess.CompletedProcess]:
    """`run_script("train.py", "--max-iter", 3)` runs a script of this project with this Python and captures its output.

    It runs in the project's root, or in `cwd`, for at most `timeout` seconds; the exit code is not looked at.
    """

    def run(script: str, *args: Any, cwd: Path = ROOT, timeout: float = 300) -> subprocess.CompletedProcess:
        command = [sys.executable, str(ROOT / script), *map(str, args)]
        return subprocess.run(
            command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout
        )

    return run
