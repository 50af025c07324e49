# SPDX-License-Identifier: Apache-2.0
"""Train InstaGAN: two generators and two discriminators, on pictures of two domains with a mask for each instance.

    python train.py --dataroot datasets/jeans2skirt_ccp              # as in the paper; wants a GPU
    python train.py --dataroot datasets/circle2square --loadSizeH 64 --loadSizeW 64 --fineSizeH 64 --fineSizeW 64 \\
        --ngf 16 --ndf 32 --n-blocks 3 --n-layers-D 2 --max-epoch 15 --lr-decay-start-epoch 8 \\
        --monitor-path runs/shapes                                   # half an hour on a laptop
    python train.py --monitor-path runs/shapes --resume              # go on after an interruption
    mpirun --bind-to none -n 4 python train.py --dataroot ...        # on four GPUs, with batches four times as large
"""

from __future__ import annotations

import argparse
import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, List, Optional

from common.errors import UserError, begin_script, run_main

begin_script(__name__)

import numpy as np
from tqdm import tqdm

from args import train_args, train_settings
from backend import arrays, context, processes
from backend.processes import ALONE, Processes
from common import files
from common.interruption import Interruption
from common.progress import say
from common.streams import stopping_without_reader
from data import checks
from instagan import InstaGAN
from models import DOMAINS, NETWORKS
from training import checkpoint, evaluation, run_folder, run_page
from training.batches import Batches, training_items
from training.data_parallel import check_same_iteration, exchange
from training.divergence import Diverged, Iteration, divergence_error, write_report
from training.estimate import estimate
from training.evaluation_log import EvaluationLog, draw_figures
from training.monitors import Monitors, draw_curves, short_summary
from training.samples import SampleGrid
from training.saving import Saver
from training.settings import Settings
from training.step_losses import PendingLosses
from weights import model_file

if TYPE_CHECKING:
    from training.tensorboard import EventFile


def main() -> int:
    """Run the command line; the exit code is 128 + the signal where one ended the training early."""
    args = train_args(__doc__)
    if args.tensorboard:
        # before anything that takes long
        event_file(Path(args.monitor_path))
    processes.take_place(args)
    context.set_up(args)
    folder = Path(args.monitor_path)
    with ExitStack() as stack:
        if processes.leads():
            # before the others wait for it
            check_data(args)
            stack.enter_context(run_folder.held(folder, Path(args.model_save_path or folder), args.resume))
            if not args.resume:
                # first of all, so that a run that is killed at once can be resumed
                run_folder.write_args(folder, vars(args))
        joined = processes.join()
        try:
            run = Run(args, joined)
            run.begin()
            print(run.plan())
            if run.leads:
                for line in run.estimate():
                    print(line)
            run.train()
        except BaseException:
            joined.fail()
            raise
    if run.signal:
        command = run_folder.resume_command(folder, joined.size)
        print(f"stopped after iteration {run.iteration}; go on with: {command}")
        return 128 + run.signal
    print(f"done: {folder} holds params_{run.iteration:06d}.h5; open {folder / run_page.NAME} to see how it went")
    return 0


class Run:
    """One training run in its folder: its data, its model, and the number of iterations that are done.

    `leads` says whether this process is the one that writes, where several train together (`Processes`).
    """

    def __init__(self, args: argparse.Namespace, joined: Processes = ALONE) -> None:
        self.args = args
        self.settings = Settings.from_args(args)
        self.folder = Path(args.monitor_path)
        model_folder = Path(args.model_save_path or args.monitor_path)
        self.processes = joined
        self.leads = joined.rank == 0

        items = {domain: training_items(args.dataroot, letter, args.ins_max > 0) for domain, letter in DOMAINS.items()}
        self.batches = Batches(items, self.settings, joined)
        self.model = InstaGAN(self.settings, joined)
        self.events = event_file(self.folder) if args.tensorboard and self.leads else None
        self.monitors = Monitors(self.folder, args.log_step, self.events)
        self.losses = PendingLosses(self.monitors, joined)
        self.evaluations = EvaluationLog(self.folder, self.events)
        self.saver = Saver(
            self.folder,
            model_folder,
            self.settings,
            self.model,
            self.batches,
            self.monitors,
            self.losses,
            self.evaluations,
            joined,
        )
        self.samples = SampleGrid(args.dataroot, items, self.settings) if self.leads else None
        interval = evaluation.interval(args.evaluate_interval, self.batches.iterations_per_epoch)
        self.schedule = evaluation.Schedule(interval, args.max_epoch)
        self.held_out: Optional[evaluation.HeldOut] = None

        self.iteration = 0
        # the latest iteration, which may still be running
        self.started = Iteration(0, {})
        self.last_iteration = args.max_epoch * self.batches.iterations_per_epoch
        if args.max_iter:
            self.last_iteration = min(self.last_iteration, args.max_iter)
        self.interruption = Interruption()
        # the signal that has ended the run, whichever process it was sent to; 0 for none
        self.signal = 0

    def begin(self) -> None:
        """Start from the beginning, or from the newest checkpoint.

        Raises:
            UserError: where that cannot be resumed, or there is no room on the disk.
        """
        if self.args.resume and checkpoint.find(self.folder):
            self.iteration = self.saver.resume(chooses_best=self.schedule.interval > 0)
            self.complete_events()
        else:
            if self.args.resume:
                print("there is no checkpoint yet: from the beginning")
            self.saver.start()
            if self.args.pretrained:
                load_pretrained(self.args.pretrained)
        check_same_iteration(self.processes, self.iteration, str(self.folder))
        if self.leads:
            if self.args.resume:
                run_folder.write_args(self.folder, vars(self.args))
            if self.schedule.interval:
                self.held_out = self.read_held_out()
            left = self.last_iteration - self.iteration
            saves = 1 + self.epochs_in(left) // self.args.save_interval
            evaluations = 0
            if self.held_out:
                evaluations = self.schedule.count(self.epochs_in(self.last_iteration))
                evaluations -= self.schedule.count(self.epochs_in(self.iteration))
            self.saver.check_space(saves, evaluations, self.last_iteration, self.args.log_step)

    def epochs_in(self, iterations: int) -> int:
        """The number of whole epochs in `iterations` iterations."""
        return iterations // self.batches.iterations_per_epoch

    def plan(self) -> str:
        """The work that is ahead, in words."""
        span = f"from {self.iteration} to {self.last_iteration}"
        if self.iteration >= self.last_iteration:
            span = f"all {self.iteration} are done: to go on, give a larger --max-epoch, and --max-iter if it was given"
        epoch = f"an epoch is {self.batches.iterations_per_epoch} iterations"
        if self.processes.size > 1:
            epoch += f", {self.processes.size} processes together"
        return f"{self.batches.describe()}; {epoch}; {span}"

    def estimate(self) -> List[str]:
        """Lines about the time and memory that the iterations ahead take; none where all are done."""
        left = self.last_iteration - self.iteration
        if left <= 0:
            return []
        expected = estimate(self.settings, self.batches.instance_counts(), self.model.run_both)
        expected.refuse_impossible()
        return expected.lines(left, arrays.on_cpu())

    def train(self) -> None:
        """Train up to the last iteration, with checkpoints and samples on the way and a checkpoint at the end.

        SIGINT (Ctrl-C) or SIGTERM ends it after the iteration that is running; a second one ends it at once.

        Raises:
            UserError: where the training diverged or something cannot be written; the last checkpoint stays.
        """
        try:
            with self.interruption, stopping_without_reader():
                self.iterate()
                self.finish()
        except Diverged as error:
            raise self.divergence(error) from error
        except OSError as error:
            raise run_folder.cannot_write(self.folder, self.saver.whole, error, self.processes.size) from error
        finally:
            self.batches.close()

    def iterate(self) -> None:
        """The training loop: all iterations that are left, or those up to a signal."""
        planned = {"total": self.last_iteration, "initial": self.iteration}
        with tqdm(**planned, desc="training", unit="it", smoothing=0.1, disable=not self.leads) as bar:
            self.model.set_learning_rate(self.epochs_in(self.iteration))
            while self.iteration < self.last_iteration:
                # if a signal stops the run now, this batch is the first one after --resume
                batches = self.batches.peek()
                # several processes must stop in the same iteration
                self.signal, shares = exchange(
                    self.processes, self.interruption.signal, batches, self.settings.passes
                )
                if self.signal:
                    break

                self.started = Iteration(self.iteration, self.batches.advance())
                self.losses.add(self.started, self.model.step(batches, shares))
                self.iteration += 1
                if self.iteration < self.last_iteration:
                    self.batches.upload_ahead()

                # to read losses is to wait for the device, which a CPU does anyway
                if arrays.on_cpu() or self.iteration % self.args.log_step == 0:
                    bar.set_postfix(short_summary(self.losses.read()), refresh=False)
                bar.update()
                if self.iteration % self.batches.iterations_per_epoch == 0:
                    self.end_epoch(self.epochs_in(self.iteration))

    def end_epoch(self, epochs: int) -> None:
        """Evaluate, write samples, a checkpoint and curves where they are due after `epochs` epochs; then set the next
        epoch's learning rate."""
        has_samples = epochs % self.args.save_image_interval == 0
        has_checkpoint = epochs % self.args.save_interval == 0
        has_evaluation = self.schedule.is_due(epochs)
        if has_evaluation or has_samples:
            # a NaN loss is found before anything is made of the model
            self.losses.read()
        if has_evaluation and self.held_out:
            self.evaluate()
        if has_samples and self.leads:
            self.write_samples(epochs)
        if has_checkpoint:
            self.saver.save(self.iteration)
        if self.leads and self.iteration < self.last_iteration:
            if has_checkpoint:
                self.draw_curves()
            if has_samples or has_checkpoint:
                self.write_page()
        self.model.set_learning_rate(epochs)

    def read_held_out(self) -> Optional[evaluation.HeldOut]:
        """The pictures to evaluate the model on; None where there are none, which is reported."""
        try:
            held_out = evaluation.HeldOut(self.args.dataroot, self.settings, self.saver.model_folder)
        except UserError as error:
            print(f"the model is not evaluated during the training: {error}")
            return None
        print(f"evaluated after {self.schedule.describe()}: {held_out.describe()}")
        if not self.schedule.count(self.epochs_in(self.last_iteration)):
            print(f"this run ends before the first evaluation, which is due after {self.schedule.describe()}")
        return held_out

    def evaluate(self) -> None:
        """Measure the model on the held-out pictures, and keep it where it is the best so far."""
        if self.evaluations.add(self.iteration, self.held_out.measure()):
            self.saver.save_best(self.iteration)

    def write_samples(self, epochs: int) -> None:
        """Translate the sample pictures, and print a warning where translations stay the same as their inputs."""
        path = self.folder / f"sample_{epochs:06d}.png"
        for warning in self.samples.write(path, epochs):
            # above the progress bar
            tqdm.write(warning)
        if self.events:
            self.events.add_picture(self.iteration - 1, "samples", path)

    def complete_events(self) -> None:
        """Add samples and evaluations between the last line of the losses and the checkpoint that the run goes on from.

        The events that are repeated begin right after that line, but these are not made again.
        """
        if self.events:
            for path in files.numbered_files(self.folder, "sample", "png"):
                step = files.number_of(path) * self.batches.iterations_per_epoch - 1
                if self.monitors.flushed < step < self.iteration:
                    self.events.add_picture(step, "samples", path)
            self.evaluations.repeat_events(self.monitors.flushed)

    def finish(self) -> None:
        """The last checkpoint, and curves over the whole run."""
        if self.saver.saved != self.iteration:
            self.saver.save(self.iteration)
        if self.leads:
            self.monitors.flush(self.iteration - 1)
            self.draw_curves()
            self.write_page()
        # wait for the first process to finish writing: mpirun ends all once one exits by a signal
        self.processes.total(np.zeros(1))

    def draw_curves(self) -> None:
        """Draw losses and figures so far; a failure is reported, and does not end the training."""
        try:
            draw_curves(self.folder)
            draw_figures(self.folder)
        except Exception as error:  # matplotlib and its environment can raise anything
            say(f"the curves loss_*.png and evaluation_*.png are not all drawn: {error} (the training is not affected)")

    def write_page(self) -> None:
        """Write the run's page; a failure is reported, and does not end the training."""
        epochs = self.epochs_in(self.iteration)
        facts = run_page.Facts(
            f"Iteration {self.iteration} of {self.last_iteration}, {epochs} of {self.args.max_epoch} epochs",
            train_settings(self.args),
            self.saver.model_folder,
            run_folder.resume_command(self.folder, self.processes.size),
        )
        try:
            run_page.write(self.folder, facts, self.evaluations)
        except OSError as error:
            say(f"the page {run_page.NAME} is not written: {error.strerror or error} (the training is not affected)")

    def divergence(self, error: Diverged) -> UserError:
        """The error of a training that diverged; the files of its pictures are written into the run's folder."""
        if error.iteration is None:
            # a parameter is checked after the iteration that changed it, and put down to the number of those done
            iteration = self.iteration
            names = self.started.names
        else:
            iteration = error.iteration.number
            names = error.iteration.names
        batch = self.batches.files(names)
        where = write_report(self.folder, str(error), iteration, batch) if self.leads else json.dumps(batch)
        return divergence_error(str(error), iteration, where, self.saver.model_folder, self.settings)


def event_file(folder: Path) -> EventFile:
    """The event files for TensorBoard in a run's folder. Nothing is written yet.

    Raises:
        UserError: where tensorboardX is missing.
    """
    try:
        from training.tensorboard import EventFile
    except ImportError:
        raise UserError("--tensorboard needs tensorboardX; pip install -r requirements-tensorboard.txt") from None
    except Exception as error:  # with another protobuf than it wants, tensorboardX raises TypeError
        fix = "pip install -r requirements-tensorboard.txt"
        raise UserError(f"tensorboardX cannot be loaded ({str(error).splitlines()[0]}); {fix}") from None
    return EventFile(folder / "tensorboard")


def load_pretrained(path: str) -> None:
    """Put the parameters of `--pretrained` into the networks; networks that it lacks stay random."""
    model = model_file.find_model(path)
    parameters, config = model_file.load_model(model)
    model_file.set_parameters(parameters, config["networks"], model)
    missing = sorted(set(NETWORKS) - set(config["networks"]))
    print(f"parameters of {model}" + (f"; at random: {', '.join(missing)}" if missing else ""))


def check_data(args: argparse.Namespace) -> None:
    """Look at every training picture and mask, and report what is unusual but usable.

    Raises:
        UserError: where training would use anything wrongly; all errors are printed before. Where the whole data set
            is missing, it says how to make one.
    """
    if not Path(args.dataroot).is_dir():
        if args.resume:
            raise UserError(f"no data set at {args.dataroot}, where the run had it; say where it is now (--dataroot)")
        raise UserError(
            f"no data set at {args.dataroot}; make it with 'git clone https://github.com/bearpaw/clothing-co-parsing "
            "datasets/clothing-co-parsing' and 'python datasets/generate_ccp_dataset.py', or make the embedded one "
            "with 'python datasets/generate_shapes_dataset.py' and train with --dataroot datasets/circle2square "
            "--loadSizeH 64 --loadSizeW 64 --fineSizeH 64 --fineSizeW 64"
        )
    sizes = checks.Sizes((args.loadSizeH, args.loadSizeW), (args.fineSizeH, args.fineSizeW))
    checks.refuse_bad(checks.check(args.dataroot, sizes, ["train"], masks=args.ins_max > 0))


if __name__ == "__main__":
    run_main(main)
