# SPDX-License-Identifier: Apache-2.0
"""The best models of a run: `best_NNNNNN.h5` with its .json, and best.json, which names the best one so far.

The model that was the best when a checkpoint was written stays as long as that checkpoint, so that a run that goes on
from there has the same best model as one that was never stopped. In a folder there are thus a few, at most `MOST`.
"""

from __future__ import annotations

from pathlib import Path
from typing import List, Optional, Sequence

from common import files
from training.checkpoint import KEPT
from training.evaluation_log import Best
from weights import model_file

# one for each checkpoint, the newest, and the one that is being written
MOST = KEPT + 2


def name_best(folder: Path, best: Optional[Best]) -> None:
    """Write best.json, or remove it where there is no best model. The model must be there already."""
    if best:
        facts = {
            "score": best.score,
            "chosen_by": best.basis.score_name,
            "phase": best.basis.phase,
            "figures": best.figures,
        }
        model_file.write_best(folder, best.iteration, facts)
    else:
        (folder / model_file.BEST).unlink(missing_ok=True)


def delete_unneeded(folder: Path, checkpoints: Sequence[int]) -> None:
    """Delete the models that are neither the newest, nor the best as of one of the `checkpoints` (iterations)."""
    numbers = [files.number_of(path) for path in files.numbered_files(folder, "best", "h5")]
    needed = set(numbers[-1:])
    for saved in checkpoints:
        needed.update([number for number in numbers if number <= saved][-1:])
    _delete([path for path in _files(folder) if files.number_of(path) not in needed])


def later(folder: Path, iteration: int) -> List[Path]:
    """The models (.h5) of later iterations than this one."""
    return [path for path in files.numbered_files(folder, "best", "h5") if files.number_of(path) > iteration]


def delete_later(folder: Path, iteration: int) -> None:
    """Delete the models of later iterations than this one."""
    _delete([path for path in _files(folder) if files.number_of(path) > iteration])


def _files(folder: Path) -> List[Path]:
    return [path for ending in ("h5", "json") for path in files.numbered_files(folder, "best", ending)]


def _delete(paths: Sequence[Path]) -> None:
    for path in paths:
        path.unlink()
