# SPDX-License-Identifier: Apache-2.0
"""Training that diverged: the check, and the report with the iteration, its files, and a way to go on."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any, Dict

import numpy as np

from common import files
from common.errors import UserError
from training.settings import Settings


class Diverged(Exception):
    """A loss or a parameter is NaN or infinite; the message says which."""


def check_finite(values: Dict[str, Any]) -> None:
    """Raise Diverged where a number, or one in an array, is NaN or infinite."""
    for name, value in values.items():
        if not np.isfinite(value).all():
            raise Diverged(f"{name} is {value}" if np.ndim(value) == 0 else f"{name} holds NaN or infinity")


def divergence_error(
    error: Diverged,
    iteration: int,
    batch: Dict[str, Any],
    folder: Path,
    model_folder: Path,
    settings: Settings,
    writes: bool,
) -> UserError:
    """The error that ends a run which diverged in `iteration`; `batch` are the files of its pictures.

    The files are written into `folder` as `diverged_NNNNNN.json`, by the process that `writes`.
    """
    where = _write(folder, iteration, str(error), batch) if writes else json.dumps(batch)
    models = files.numbered_files(model_folder, "params", "h5")
    start = f"--pretrained {shlex.quote(str(models[-1]))} " if models else ""
    lower_G = min(settings.learning_rate_G, 2e-4) / 2
    lower_D = min(settings.learning_rate_D, 2e-4) / 2
    return UserError(
        f"the training diverged: {error} in iteration {iteration} (its pictures: {where}); checkpoints and "
        f"models are as they were; start a new run with lower learning rates, such as "
        f"{start}--learning-rate_G {lower_G:g} --learning-rate_D {lower_D:g}"
    )


def _write(folder: Path, iteration: int, problem: str, batch: Dict[str, Any]) -> str:
    """Write the report. Returns its path, or the files themselves where it cannot be written."""
    path = folder / f"diverged_{iteration:06d}.json"
    report = {"iteration": iteration, "problem": problem, "batch": batch}
    try:
        files.write_text(path, json.dumps(report, indent=2) + "\n")
    except OSError:
        return json.dumps(batch)
    return str(path)
