# SPDX-License-Identifier: Apache-2.0
"""The project's scripts, each run in a separate process as a user would run it."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, Callable, Dict, List

from tests.helpers import ROOT

DEADLINE = 300  # seconds after which a test gives up on a script; long, for a busy machine

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.helpers.preloaded"])


class Script:
    """A script of this project that has been started, in the project's folder or in `cwd`, with no standard input.

    It is forked from a process that has imported NNabla and the scripts already, and draws white dots for curves, which
    saves a second or two at its start and half of one at each checkpoint; all else is as for a user. With `cold`, it is
    `python SCRIPT` from the very beginning. A name without `.py` is a module's, for `python -m`. `prepare`, a function
    that can be pickled, is called in the forked process before the script begins.
    """

    def __init__(
        self,
        script: str,
        *arguments: Any,
        cwd: Path = ROOT,
        cold: bool = False,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        self._out = tempfile.NamedTemporaryFile()
        self._err = tempfile.NamedTemporaryFile()
        self._words = [script, *map(str, arguments)]
        if cold:
            assert prepare is None
            command = [sys.executable, str(ROOT / script), *self._words[1:]]
            self._process: subprocess.Popen | ForkServerProcess = subprocess.Popen(
                command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=self._out, stderr=self._err
            )
        else:
            _start_server()
            job = (self._words, cwd, dict(os.environ), self._out.name, self._err.name, prepare)
            self._process = _FORKS.Process(target=_run, args=job, daemon=True)
            self._process.start()

    @property
    def output(self) -> str:
        """The standard output so far."""
        return Path(self._out.name).read_text()

    @property
    def errors(self) -> str:
        """The standard error so far."""
        return Path(self._err.name).read_text()

    @property
    def returncode(self) -> int | None:
        """The exit code, or None while it runs; as `subprocess.Popen.poll()`."""
        return self._process.poll() if isinstance(self._process, subprocess.Popen) else self._process.exitcode

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._process.pid

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.returncode is None:
            os.kill(self._process.pid, number)

    def wait_for(self, condition: Callable[[], Any]) -> None:
        """Wait until `condition` returns something true; the test fails if the script ends before."""
        deadline = time.monotonic() + DEADLINE
        while not condition():
            assert self.returncode is None, f"{self._words} has ended: {self.output}{self.errors}"
            assert time.monotonic() < deadline, f"{self._words} takes too long: {self.output}{self.errors}"
            time.sleep(0.005)

    def finish(self, timeout: float = DEADLINE) -> subprocess.CompletedProcess:
        """Wait for its end."""
        if isinstance(self._process, subprocess.Popen):
            self._process.wait(timeout)
        else:
            self._process.join(timeout)
        assert self.returncode is not None, f"{self._words} takes too long: {self.output}{self.errors}"
        return subprocess.CompletedProcess(self._words, self.returncode, self.output, self.errors)

    def kill(self) -> subprocess.CompletedProcess:
        """End it by SIGKILL, if it has not ended."""
        self.send_signal(signal.SIGKILL)
        return self.finish()


def _start_server() -> None:
    """Start the process to fork from, unless it runs. It finds the project's modules whatever the working folder is."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(ROOT)
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _run(
    words: List[str], cwd: Path, environment: Dict[str, str], out: str, err: str, prepare: Callable[[], None] | None
) -> None:
    """Become the script, in the forked process."""
    for name, stream in ((out, sys.stdout), (err, sys.stderr)):
        with open(name, "ab") as file:
            os.dup2(file.fileno(), stream.fileno())
    # the process that this one is forked from goes on silently if an import fails
    assert "train" in sys.modules, "tests/helpers/preloaded.py cannot be imported"
    # that process has the environment of the first test that started a script
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    # ignored where the tests run under nohup
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if prepare:
        prepare()
    try:
        if words[0].endswith(".py"):
            sys.argv = [str(ROOT / words[0]), *words[1:]]
            runpy.run_path(sys.argv[0], run_name="__main__")
        else:
            sys.argv = words
            runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    finally:
        # a forked process does not run these by itself
        atexit._run_exitfuncs()
