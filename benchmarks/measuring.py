# SPDX-License-Identifier: Apache-2.0
"""The parts that cpu.py and gpu.py share: worker processes, and the work that is measured on NNabla's side."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any, Callable, Dict, List

import nnabla as nn
import numpy as np

import models
from args import train_args
from benchmarks.worker import Case
from common.errors import UserError
from data.loader import Sample
from instagan import InstaGAN
from training.settings import Settings
from translation.sequence import Batch


class Worker:
    """A process that answers cases, see worker.py.

    Raises:
        UserError: if it cannot be started.
    """

    def __init__(self, command: List[str]) -> None:
        # NNabla's CUDA extension sets NVIDIA_TF32_OVERRIDE in the process, not in os.environ; an explicit environment
        # keeps it from PyTorch's libraries, which would obey it
        environment = dict(os.environ)
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
            )
        except OSError as error:
            raise UserError(f"{command[0]} does not run: {error.strerror}; give the path of a Python") from error

    def ask(self, case: Case) -> Dict[str, Any]:
        """Return the figures of a case.

        Raises:
            UserError: if the process ends without an answer.
        """
        try:
            self._process.stdin.write(json.dumps(case) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the process has ended, so there is no answer either
        answer = self._process.stdout.readline()
        if not answer:
            raise UserError(f"{' '.join(self._process.args)} stopped with exit code {self._process.wait()}")
        return json.loads(answer)

    def close(self) -> None:
        """End the process."""
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass
        self._process.wait()


def network_work(case: Case) -> Callable[[], Any]:
    """Return a generator's inference or a training step, to be timed. On a GPU it returns before the work is done."""
    if case["what"] == "generator":
        arch = models.Architecture(ngf=case["width"], n_blocks=case["blocks"])
        outputs = models.generator(*inputs(case), arch, models.INFERENCE)
        return lambda: nn.forward_all(list(outputs), clear_buffer=True)
    height, width = case["size"]
    sizes = [f"--loadSizeH={height}", f"--loadSizeW={width}", f"--fineSizeH={height}", f"--fineSizeW={width}"]
    widths = [f"--ngf={case['width']}", f"--ndf={case['width']}", f"--n-blocks={case['blocks']}"]
    counts = [f"--ins-max={case['n']}", f"--ins-per={case['ins_per']}"]
    # without an image pool, as in pytorch_twin.py, and as the authors' code in all else
    as_the_authors = ["--pool-size=0", "--background=network"]
    model = InstaGAN(Settings.from_args(train_args("", [*sizes, *widths, *counts, *as_the_authors])))
    x, a, membership = (v.d for v in inputs(case))
    samples = [Sample("noise", picture, a[row == 1, 0]) for picture, row in zip(x, membership)]
    batch = Batch.from_samples(samples, case["ins_per"])
    return lambda: model.step({"x": batch, "y": batch})


def inputs(case: Case) -> List[nn.Variable]:
    """Pictures of noise (B, 3, H, W), n rectangles as instances of each (B n, 1, H, W), and membership (B, B n)."""
    height, width = case["size"]
    n = case["n"]
    batch = case.get("batch", 1)
    a = np.full((batch, n, height, width), -1, np.float32)
    for i in range(n):
        a[:, i, 5 + i : height // 3 + i, 5 : width // 2] = 1
    x = np.random.default_rng(0).uniform(-1, 1, (batch, 3, height, width)).astype(np.float32)
    membership = np.repeat(np.eye(batch, dtype=np.float32), n, axis=1)
    return [nn.Variable.from_numpy_array(v) for v in (x, a.reshape(-1, 1, height, width), membership)]
