# SPDX-License-Identifier: Apache-2.0
"""Saving a run and resuming it: checkpoints and models, and the room they take on the disk.

A checkpoint (see training/checkpoint.py for the file) holds, by name,

    parameters/NETWORK/...         all parameters, with power-iteration vectors and running statistics
    solvers/NETWORK/.../mean, var  Adam's moments; the numbers of updates are in the state
    pool/DOMAIN/I/picture, masks   the image pools of the first process
    process/RANK                   pools and random state of another process, as bytes

and as plain values the state of the model (updates, loss scales, random state), of the data (order, position, random
state), of the monitors and the evaluations (their files), and the iteration. Arguments are in args.json; learning rates
follow from them.
"""

from __future__ import annotations

import operator
from pathlib import Path
from typing import Any, Dict, Protocol, Tuple

import numpy as np

from backend.processes import Processes
from common import files
from common.errors import UserError
from common.progress import say
from models import NETWORKS
from training import best_models, checkpoint, run_folder
from training.batches import Batches
from training.checkpoint import KEPT
from training.divergence import check_finite
from training.evaluation_log import EvaluationLog
from training.monitors import Monitors
from training.settings import Settings
from training.step_losses import PendingLosses
from weights import model_file

OTHER_PROCESS = "process/{}"  # the name in a checkpoint of the state of a process that does not write it
SERIES_BYTES = 600  # approximate bytes in a checkpoint of one line of every series and the timer


class Model(Protocol):
    """The part of `instagan.InstaGAN` that is saved; that module imports this folder, so it cannot be named here."""

    def parameters(self) -> Dict[str, np.ndarray]:
        """All parameters by full name."""

    def state(self) -> Tuple[Dict[str, np.ndarray], Dict[str, Any]]:
        """The state that all processes share."""

    def process_state(self) -> Tuple[Dict[str, np.ndarray], Dict[str, Any]]:
        """The state that each process has for itself."""

    def set_state(self, values: Dict[str, np.ndarray], state: Dict[str, Any]) -> None:
        """Go on from a `state()`."""

    def set_process_state(self, values: Dict[str, np.ndarray], state: Dict[str, Any]) -> None:
        """Go on from a `process_state()`."""


class Saver:
    """Saves a run into its folder and resumes it from there; the first of several processes alone writes.

    Models go into `model_folder`. `saved` is the iteration of the last checkpoint (-1 for none), `whole` its path.
    """

    def __init__(
        self,
        folder: Path,
        model_folder: Path,
        settings: Settings,
        model: Model,
        batches: Batches,
        monitors: Monitors,
        losses: PendingLosses,
        evaluations: EvaluationLog,
        processes: Processes,
    ) -> None:
        self.folder = folder
        self.model_folder = model_folder
        self.saved = -1
        self.whole: Path | None = None
        self._settings = settings
        self._model = model
        self._batches = batches
        self._monitors = monitors
        self._losses = losses
        self._evaluations = evaluations
        self._processes = processes
        self._leads = processes.rank == 0
        self._instance_share = batches.instance_share() if self._leads else {}

    def start(self) -> None:
        """Start a run from the beginning, without anything that an earlier one left that was killed soon."""
        if self._leads:
            self._monitors.start()
            self._evaluations.start()
            best_models.name_best(self.model_folder, None)
            best_models.delete_later(self.model_folder, 0)

    def save(self, iteration: int) -> None:
        """Write the checkpoint after `iteration` iterations, then the model; keep the newest three in the run's folder.

        Raises:
            Diverged: where a loss or a parameter is not finite; no checkpoint or model is written then.
        """
        self._losses.read()
        values, state = self._model.state()
        check_finite(values)
        process_values, process_state = self._model.process_state()
        others = self._gather_others(process_values, process_state)
        self.saved = iteration
        if not self._leads:
            return
        state = {
            "model": {**state, **process_state},
            "data": self._batches.state(),
            "monitors": self._monitors.state(),
            "evaluations": self._evaluations.state(),
            "iteration": iteration,
            "processes": self._processes.size,
        }
        self.whole = checkpoint.save(self.folder, iteration, {**values, **process_values, **others}, state)
        self._save_model(self._model_path(iteration), iteration)
        self._delete_old()

    def save_best(self, iteration: int) -> None:
        """Write the model after `iteration` iterations, which is the best so far, and then best.json, which names it.

        Raises:
            Diverged: where a parameter is not finite; nothing is written then.
        """
        check_finite(self._model.parameters())
        self._save_model(model_file.best_path(self.model_folder, iteration), iteration)
        best_models.name_best(self.model_folder, self._evaluations.best)
        self._delete_old_best()

    def resume(self, chooses_best: bool) -> int:
        """Go on from the newest whole checkpoint in the run's folder. Returns its iteration.

        `chooses_best` says whether the run will evaluate its models from here on. Best models after the checkpoint are
        deleted then, which is reported, since these iterations are trained and judged once more.

        Raises:
            UserError: where no checkpoint is whole, or it is from another run or of other data.
        """
        path, values, state = checkpoint.load_newest(self.folder)
        try:
            self._check_processes(state.get("processes", 1))
            self._model.set_state(values, state["model"])
            self._model.set_process_state(*self._state_of_this_process(values, state))
            self._batches.set_state(state["data"])
            if self._leads:
                self._monitors.set_state(state["monitors"])
                # checkpoints of earlier versions know of no evaluation
                self._evaluations.set_state(state.get("evaluations", {"series": {}, "best": None}))
            iteration = operator.index(state["iteration"])
            if iteration != files.number_of(path):
                raise ValueError(f"it is of iteration {iteration}")
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise UserError(
                f"{path} is not a checkpoint of this run ({error}); delete it, and the one before it is used"
            ) from error
        self.saved = iteration
        self.whole = path
        if self._leads:
            self._go_back_to_best(iteration, chooses_best)
        if self._leads and path == checkpoint.find(self.folder)[-1]:
            # a run may have been killed between the checkpoint and the model, or before old ones were deleted
            if not self._model_path(iteration).exists():
                self._save_model(self._model_path(iteration), iteration)
            self._delete_old()
        return iteration

    def check_space(self, saves: int, evaluations: int, last_iteration: int, log_step: int) -> None:
        """Raise UserError where the disk has no room for `saves` more checkpoints and models, as far as they are kept,
        and for the best models of `evaluations` more evaluations.

        The monitors' series, a line every `log_step` iterations, are part of each checkpoint.
        """
        height, width = self._settings.size
        model_bytes = sum(value.nbytes for value in self._model.parameters().values())
        picture_bytes = 4 * (3 + self._settings.ins_max) * height * width
        pool_bytes = 2 * self._processes.size * self._settings.pool_size * picture_bytes
        series_bytes = last_iteration // log_step * SERIES_BYTES
        # parameters with both of Adam's moments; 1 MB for names and order
        checkpoint_bytes = 3 * model_bytes + pool_bytes + series_bytes + (1 << 20)
        # one more than is kept, for the one that is being written
        copies = min(KEPT + 1, saves)
        best_bytes = min(best_models.MOST, evaluations) * model_bytes
        if self.model_folder.samefile(self.folder):
            run_folder.check_space(self.folder, copies, checkpoint_bytes + model_bytes, best_bytes)
        else:
            run_folder.check_space(self.folder, copies, checkpoint_bytes, 0)
            # all models are kept there
            run_folder.check_space(self.model_folder, saves, model_bytes, best_bytes)

    def _model_path(self, iteration: int) -> Path:
        return self.model_folder / f"params_{iteration:06d}.h5"

    def _save_model(self, path: Path, iteration: int) -> None:
        """Write the model as `path` (.h5), and the .json with all that translate.py needs."""
        settings = self._settings
        config = model_file.model_config(
            settings.architecture,
            iteration=iteration,
            networks=sorted(NETWORKS),
            loadSizeH=settings.load_size[0],
            loadSizeW=settings.load_size[1],
            fineSizeH=settings.size[0],
            fineSizeW=settings.size[1],
            background=settings.background,
            ins_max=settings.ins_max,
            ins_per=settings.ins_per,
            set_order=settings.set_order,
            instance_share=self._instance_share,
        )
        model_file.save_model(path, self._model.parameters(), config)

    def _delete_old(self) -> None:
        """Delete all but the newest checkpoints and models in the run's folder."""
        for stem, ending in (("checkpoint", "npz"), ("params", "h5"), ("params", "json")):
            files.keep_newest(self.folder, stem, ending, KEPT)
        self._delete_old_best()

    def _delete_old_best(self) -> None:
        best_models.delete_unneeded(self.model_folder, [files.number_of(path) for path in checkpoint.find(self.folder)])

    def _go_back_to_best(self, iteration: int, chooses_best: bool) -> None:
        """Make the best model that of the checkpoint of `iteration`. Later ones are deleted where the run chooses the
        best model, since they will be made once more; otherwise they stay."""
        later = " and ".join(path.name for path in best_models.later(self.model_folder, iteration))
        if later and not chooses_best:
            say(f"{later}, of iterations after the checkpoint, is kept: no other model is chosen without evaluation")
            return
        if later:
            say(f"{later} is given up: the run goes on from iteration {iteration}, and makes later models once more")
        best = self._evaluations.best
        path = model_file.best_path(self.model_folder, best.iteration) if best else None
        if path and not path.exists():
            say(f"{path} is missing: the best model is chosen from those to come")
            self._evaluations.best = None
        # first: it must not name a file that is gone
        best_models.name_best(self.model_folder, self._evaluations.best)
        best_models.delete_later(self.model_folder, iteration)

    def _gather_others(self, values: Dict[str, np.ndarray], state: Dict[str, Any]) -> Dict[str, np.ndarray]:
        """The states of the processes that do not write, as bytes by their names in the checkpoint."""
        data = b"" if self._leads else checkpoint.dumps(values, state)
        others = self._processes.gather(data)[1:]
        return {OTHER_PROCESS.format(rank): np.frombuffer(other, np.uint8) for rank, other in enumerate(others, 1)}

    def _state_of_this_process(
        self, values: Dict[str, np.ndarray], state: Dict[str, Any]
    ) -> Tuple[Dict[str, np.ndarray], Dict[str, Any]]:
        if self._leads:
            return values, state["model"]
        return checkpoint.loads(values[OTHER_PROCESS.format(self._processes.rank)].tobytes())

    def _check_processes(self, count: int) -> None:
        """Raise UserError where the run had another number of processes: their batches were others."""
        if count != self._processes.size:
            command = run_folder.resume_command(self.folder, operator.index(count))
            size = self._processes.size
            raise UserError(f"the run is one of {count} processes, not of {size}; go on with: {command}")
