# SPDX-License-Identifier: Apache-2.0
"""Runs whose evaluations have a score that rises, and that are killed at a given write."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import nnabla as nn
import numpy as np

from models import GENERATORS
from training.evaluation import Figures, HeldOut

MEASURE = HeldOut.measure


def score_of_parameters() -> float:
    """A score that depends on the parameters alone, and rises in a short training: biases start at 0."""
    values = []
    for network in GENERATORS.values():
        with nn.parameter_scope(network):
            parameters = nn.get_parameters()
        values += [np.abs(variable.d).mean() for name, variable in parameters.items() if name.endswith("/b")]
    return min(1.0, 50 * float(np.mean(values)))


def measure(held_out: HeldOut) -> Figures:
    """The figures of `held_out`, with `score_of_parameters` in place of the score."""
    return replace(MEASURE(held_out), score=score_of_parameters())


def use_score_of_parameters() -> None:
    """Let all evaluations of this process have that score; tiny networks would have 0 for hours."""
    HeldOut.measure = measure


def kill_before(event: str, name: str, existing: Path) -> None:
    """End this process by SIGKILL right before it renames to ("os.rename"), or removes ("os.remove"), a file `name`, if
    the file `existing` exists by then; with the score of `use_score_of_parameters`."""
    use_score_of_parameters()

    def look(happening: str, arguments: tuple) -> None:
        if happening == event and existing.exists():
            path = arguments[1] if event == "os.rename" else arguments[0]
            if Path(os.fsdecode(path)).name == name:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)
