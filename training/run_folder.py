# SPDX-License-Identifier: Apache-2.0
"""The folder of a training run: held by one run at a time, with its arguments, and room for its checkpoints."""

from __future__ import annotations

import json
import shlex
import shutil
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator

from common import files
from common.errors import UserError
from training import checkpoint

LOCK = ".lock"
# all files that a run writes
RUN_FILES = (
    "checkpoint_*.npz",
    "params_*.h5",
    "params_*.json",
    "best_*.h5",
    "best_*.json",
    "best.json",
    "args.json",
    "loss_*.png",
    "evaluation_*.png",
    "sample_*.png",
    "index.html",
    "*.series.txt",
    "*.timer.txt",
    "diverged_*.json",
    "tensorboard/events.out.tfevents.*",
)
# files that mark a folder as holding a run
NUMBERED = (("checkpoint", "npz"), ("params", "h5"), ("best", "h5"))
# the classifier that chooses the best model, and what evaluate.py keeps beside a model, which marks no run
OF_SCORES = ("classifier_*.h5", "classifier_*.json", "features_*.npy")


@contextmanager
def held(folder: Path, model_folder: Path, resume: bool) -> Iterator[None]:
    """Make the run's folders and hold them against other runs; half-written files of a killed run are removed.

    Raises:
        UserError: where one cannot be written into, another run is in it, or a new run would replace something.
    """
    folders = {"--monitor-path": folder}
    if model_folder.resolve() != folder.resolve():
        folders["--model-save-path"] = model_folder
    with ExitStack() as locks:
        for flag, path in folders.items():
            files.make_folder(path, flag)
            if not resume:
                _refuse_foreign(path, flag)
            busy = f"another run is writing into {path}; wait for it, stop it, or give another {flag}"
            try:
                locks.enter_context(files.locked(path / LOCK, busy))
                files.remove_unfinished(path, (*RUN_FILES, *OF_SCORES))
            except OSError as error:
                raise UserError(f"cannot write into {path} ({error.strerror}); give another {flag}") from None
            if not resume and any(files.numbered_files(path, *kind) for kind in NUMBERED):
                raise UserError(f"{path} holds a run; go on with it by --resume, or give another {flag}")
        if resume and len(folders) > 1 and not checkpoint.find(folder):
            _refuse_models(model_folder, folder)
        yield


def _refuse_foreign(folder: Path, flag: str) -> None:
    """Raise UserError where a new run would replace files of somebody else."""
    if (folder / LOCK).exists() or checkpoint.find(folder):
        return  # a run is in it, or was
    others = [path for pattern in RUN_FILES for path in folder.glob(pattern)]
    if others:
        raise UserError(f"{folder} holds {others[0].name}, which a run would replace; give another {flag}")


def _refuse_models(model_folder: Path, folder: Path) -> None:
    """Raise UserError where a run without a checkpoint, which starts from the beginning, finds models of another run.

    They are not its own: a model is written after its checkpoint. Only best models can be there without one.
    """
    models = files.numbered_files(model_folder, "params", "h5") or checkpoint.find(model_folder)
    if models:
        raise UserError(
            f"{model_folder} holds {models[-1].name} of a run, but {folder} has no checkpoint to go on from; "
            "give another --model-save-path"
        )


def write_args(folder: Path, args: Dict[str, Any]) -> None:
    """Write args.json, from which `--resume` takes the arguments that it is not given."""
    files.write_text(folder / "args.json", json.dumps(args, indent=2, sort_keys=True) + "\n")


def resume_command(folder: Path, processes: int = 1) -> str:
    """The command that goes on with the run of a number of processes."""
    start = f"mpirun --bind-to none -n {processes} " if processes > 1 else ""
    return f"{start}python train.py --monitor-path={shlex.quote(str(folder))} --resume"


def check_space(folder: Path, copies: int, size: int, best: int) -> None:
    """Raise UserError where the disk has no room for `copies` checkpoints with models, of `size` bytes each, and `best`
    bytes of best models.

    Those that are there already give their room back, since old ones are deleted.
    """
    there = sum(path.stat().st_size for stem, _ in NUMBERED for path in folder.glob(f"{stem}_*"))
    need = copies * size + best
    free = shutil.disk_usage(folder).free
    if free + there < need:
        with_best = " and the best models" if best else ""
        raise UserError(
            f"{folder} has {free >> 20} MB free, but {copies} checkpoints or models{with_best} take {need >> 20} MB; "
            "make room, or give another --monitor-path or --model-save-path"
        )


def cannot_write(folder: Path, whole: Path | None, error: OSError, processes: int = 1) -> UserError:
    """The error for a file of the run that cannot be written; `whole` is the last whole checkpoint."""
    kept = f"{whole.name} is whole" if whole else "there is no checkpoint yet"
    return UserError(
        f"cannot write {error.filename or folder}: {error.strerror or error}; {kept}: fix that, then go on with: "
        f"{resume_command(folder, processes)}"
    )
