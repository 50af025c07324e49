# SPDX-License-Identifier: Apache-2.0
"""The folder of a training run: held by one run at a time, with its arguments, and room for its checkpoints."""

from __future__ import annotations

import argparse
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
# all that a run writes
OURS = ("checkpoint_*.npz", "params_*.h5", "params_*.json", "args.json", "loss_*.png", "sample_*.png", "*.series.txt")
OURS += ("*.timer.txt", "diverged_*.json")
RUN = (("checkpoint", "npz"), ("params", "h5"))


@contextmanager
def held(args: argparse.Namespace) -> Iterator[None]:
    """Make the run's folders and hold them against other runs; what a killed run left half written is removed.

    Raises:
        UserError: where one cannot be written into, another run is in it, or there is something that would be replaced.
    """
    folders = {"--monitor-path": Path(args.monitor_path)}
    if args.model_save_path and Path(args.model_save_path).resolve() != Path(args.monitor_path).resolve():
        folders["--model-save-path"] = Path(args.model_save_path)
    with ExitStack() as locks:
        for flag, folder in folders.items():
            files.make_folder(folder, flag)
            if not args.resume:
                _refuse_foreign(folder, flag)
            busy = f"another run is writing into {folder}; wait for it, stop it, or give another {flag}"
            try:
                locks.enter_context(files.locked(folder / LOCK, busy))
                files.remove_unfinished(folder, OURS)
            except OSError as error:
                raise UserError(f"cannot write into {folder} ({error.strerror}); give another {flag}") from None
            if not args.resume and any(files.numbered_files(folder, *kind) for kind in RUN):
                raise UserError(f"{folder} holds a run; go on with it by --resume, or give another {flag}")
        yield


def _refuse_foreign(folder: Path, flag: str) -> None:
    """Raise UserError where a new run would replace files of somebody else."""
    if (folder / LOCK).exists() or checkpoint.find(folder):
        return  # a run is in it, or was
    others = [path for pattern in OURS for path in folder.glob(pattern)]
    if others:
        raise UserError(f"{folder} holds {others[0].name}, which a run would replace; give another {flag}")


def write_args(args: argparse.Namespace) -> None:
    """Write args.json, from which `--resume` takes what it is not given."""
    files.write_text(Path(args.monitor_path) / "args.json", json.dumps(vars(args), indent=2, sort_keys=True) + "\n")


def resume_command(folder: Path, processes: int = 1) -> str:
    """What to type to go on with the run of so many processes."""
    start = f"mpirun --bind-to none -n {processes} " if processes > 1 else ""
    return f"{start}python train.py --monitor-path={shlex.quote(str(folder))} --resume"


def check_space(folder: Path, copies: int, size: int) -> None:
    """Raise UserError where the disk has no room for so many checkpoints with models, of `size` bytes each.

    Those that are there already give their room back, since old ones are deleted.
    """
    there = sum(path.stat().st_size for stem in ("checkpoint", "params") for path in folder.glob(f"{stem}_*"))
    need, free = copies * size, shutil.disk_usage(folder).free
    if free + there < need:
        raise UserError(
            f"{folder} has {free >> 20} MB free, but {copies} checkpoints or models take {need >> 20} MB; "
            "make room, or give another --monitor-path or --model-save-path"
        )


def cannot_write(folder: Path, whole: Path | None, error: OSError, processes: int = 1) -> UserError:
    """What to say where a file of the run cannot be written, and `whole` is its last whole checkpoint."""
    kept = f"{whole.name} is whole" if whole else "there is no checkpoint yet"
    return UserError(
        f"cannot write {error.filename or folder}: {error.strerror or error}; {kept}: mend that, then go on with: "
        f"{resume_command(folder, processes)}"
    )


def write_divergence(folder: Path, iteration: int, problem: str, batch: Dict[str, Any]) -> str:
    """Write down in which iteration and on which files the training diverged; says where, or what, if that fails."""
    path = folder / f"diverged_{iteration:06d}.json"
    record = {"iteration": iteration, "problem": problem, "batch": batch}
    try:
        files.write_text(path, json.dumps(record, indent=2) + "\n")
    except OSError:
        return json.dumps(batch)
    return str(path)
