# SPDX-License-Identifier: Apache-2.0
"""Training that diverged: the check, and the report with the iteration, its files, and a way to go on."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List

import numpy as np

from common import files
from common.errors import UserError
from training.settings import Settings


@dataclass(frozen=True)
class Iteration:
    """The number of an iteration, from 0, and the names of each domain's pictures in it."""

    number: int
    names: Dict[str, List[str]]


class Diverged(Exception):
    """A loss or a parameter is NaN or infinite; the message says which. `iteration` is None where it is the latest."""

    def __init__(self, message: str, iteration: Iteration | None = None) -> None:
        super().__init__(message)
        self.iteration = iteration


def check_finite(values: Dict[str, Any], iteration: Iteration | None = None) -> None:
    """Raise Diverged where a number, or one in an array, is NaN or infinite."""
    for name, value in values.items():
        if not np.isfinite(value).all():
            problem = f"is {value}" if np.ndim(value) == 0 else "holds NaN or infinity"
            raise Diverged(f"{name} {problem}", iteration)


def divergence_error(
    problem: str, iteration: int, where: str, model_folder: Path, settings: Settings
) -> UserError:
    """The error that ends a run which diverged in `iteration`; `where` are the files of its pictures, or their list."""
    models = files.numbered_files(model_folder, "params", "h5")
    start = f"--pretrained {shlex.quote(str(models[-1]))} " if models else ""
    lower_G = min(settings.learning_rate_G, 2e-4) / 2
    lower_D = min(settings.learning_rate_D, 2e-4) / 2
    return UserError(
        f"the training diverged: {problem} in iteration {iteration} (its pictures: {where}); checkpoints and "
        f"models are as they were; start a new run with lower learning rates, such as "
        f"{start}--learning-rate_G {lower_G:g} --learning-rate_D {lower_D:g}"
    )


def write_report(folder: Path, problem: str, iteration: int, batch: Dict[str, Any]) -> str:
    """Write `diverged_NNNNNN.json` with the files of a batch. Returns its path, or the files where that fails."""
    path = folder / f"diverged_{iteration:06d}.json"
    report = {"iteration": iteration, "problem": problem, "batch": batch}
    try:
        files.write_text(path, json.dumps(report, indent=2) + "\n")
    except OSError:
        return json.dumps(batch)
    return str(path)
