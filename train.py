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
import operator
import shlex
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Dict, List, Tuple

from common.errors import UserError, begin_script, run_main

begin_script()

import numpy as np
from tqdm import tqdm

from args import train_args
from backend import arrays, context, processes
from backend.processes import ALONE, Processes, by_rank
from common import files
from common.interruption import Interruption
from data import checks
from data.items import Item, find_items
from data.loader import DataIterator, DomainSource
from instagan import InstaGAN
from models import DOMAINS, NETWORKS
from training import checkpoint, run_folder
from training.monitors import Monitors, draw_curves, short_summary
from training.samples import SampleGrid
from training.step_losses import Diverged, StepLosses, check_finite
from translation.sequence import Batch
from weights import model_file

KEPT = 3  # checkpoints, and models beside them
OTHERS = "process/{}"  # what a checkpoint calls the state of a process that does not write it
LINES = 600  # bytes that one entry in each of the series and the timer takes in a checkpoint, about


@dataclass(frozen=True)
class Started:
    """An iteration that has been set going: its number, the pictures of each domain that it trains on, its losses."""

    iteration: int
    names: Dict[str, List[str]]
    losses: StepLosses


class Run:
    """One training run in its folder: data, model, monitors, and how far it has come."""

    def __init__(self, args: argparse.Namespace, joined: Processes = ALONE) -> None:
        self.args, self.folder, self.processes = args, Path(args.monitor_path), joined
        self.model_folder = Path(args.model_save_path or args.monitor_path)
        items = {domain: training_items(args, letter) for domain, letter in DOMAINS.items()}
        load, fine = (args.loadSizeH, args.loadSizeW), (args.fineSizeH, args.fineSizeW)
        self.data = {}
        for i, (domain, found) in enumerate(items.items()):
            source = DomainSource(found, load, fine, args.ins_max, args.set_order, not args.no_flip)
            rng = np.random.default_rng([args.seed, i])
            self.data[domain] = DataIterator(source, args.batch_size, rng, rank=joined.rank, processes=joined.size)
        largest, together = max(map(len, items.values())), args.batch_size * joined.size
        if together > largest:
            each = f" in each of {joined.size} processes" if joined.size > 1 else ""
            raise UserError(f"--batch-size {args.batch_size}{each} is more than the {largest} pictures; give less")
        self.iterations_per_epoch = largest // together
        # how many iterations are done, and were done when the state was last saved; the last whole checkpoint
        self.iteration, self.saved = 0, -1
        self.whole: Path | None = None
        # what is to be trained on next, where it is uploaded already; and once all processes have agreed to go on
        self.upcoming: Dict[str, Batch] | None = None
        self.agreed: Tuple[Dict[str, Batch], np.ndarray] = {}, np.zeros(0)
        # that has ended the run, whichever process it was sent to
        self.signal = 0
        # iterations whose losses nobody has looked at yet, and the one that a divergence is put down to
        self.unread: List[Started] = []
        self.suspect = Started(0, {}, StepLosses())
        self.interruption = Interruption()
        self.model = InstaGAN(args, joined)
        self.monitors = Monitors(self.folder, args.log_step)
        if self.leads:
            # what translate.py --keep-size needs to know
            self.instance_share = {DOMAINS[d]: iterator.source.instance_share() for d, iterator in self.data.items()}
            self.samples = SampleGrid(args, self.model.arch, items)

    @property
    def last_iteration(self) -> int:
        """How many iterations the run is to have."""
        planned = self.args.max_epoch * self.iterations_per_epoch
        return min(planned, self.args.max_iter or planned)

    @property
    def model_path(self) -> Path:
        """Where the model of this iteration is saved."""
        return self.model_folder / f"params_{self.iteration:06d}.h5"

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes."""
        return self.processes.rank == 0

    def plan(self) -> str:
        """What is going to be done, in words."""
        counts = ", ".join(f"{len(i.source)} pictures in {DOMAINS[d]}" for d, i in self.data.items())
        span = f"from {self.iteration} to {self.last_iteration}"
        if self.iteration >= self.last_iteration:
            span = f"all {self.iteration} are done: to go on, give a larger --max-epoch, and --max-iter if it was given"
        shared = f", {self.processes.size} processes together" if self.processes.size > 1 else ""
        return f"{counts}; an epoch is {self.iterations_per_epoch} iterations{shared}; {span}"

    def train(self) -> None:
        """Train up to the last iteration, with checkpoints and samples on the way and a checkpoint at the end.

        SIGINT (Ctrl-C) or SIGTERM ends it after the iteration that is running; a second one ends it at once.

        Raises:
            UserError: where the training diverged or something cannot be written; the last checkpoint stays.
        """
        try:
            with self.interruption:
                self.iterate_to_the_end()
                if self.saved != self.iteration:
                    self.save()
                if self.leads:
                    self.monitors.flush(self.iteration - 1)
                    draw_curves(self.folder)
                # none ends before the first one has written: mpirun ends all once one has ended by a signal
                self.processes.total(np.zeros(1))
        except Diverged as error:
            raise self.diverged(error) from error
        except OSError as error:
            raise run_folder.cannot_write(self.folder, self.whole, error, self.processes.size) from error
        finally:
            for iterator in self.data.values():
                iterator.close()

    def iterate_to_the_end(self) -> None:
        """All iterations that are left, or those up to a signal; with what is due after each epoch."""
        planned = {"total": self.last_iteration, "initial": self.iteration}
        with tqdm(**planned, desc="training", unit="it", smoothing=0.1, disable=not self.leads) as bar:
            self.model.set_learning_rate(self.iteration // self.iterations_per_epoch)
            while self.iteration < self.last_iteration and self.agree_to_go_on():
                self.iterate()
                # to read losses is to wait for the device, which a CPU does anyway
                if arrays.on_cpu() or self.iteration % self.args.log_step == 0:
                    bar.set_postfix(short_summary(self.read_losses()), refresh=False)
                bar.update()
                if self.iteration % self.iterations_per_epoch == 0:
                    self.end_epoch(self.iteration // self.iterations_per_epoch)

    def agree_to_go_on(self) -> bool:
        """Whether no process has had a signal. In the same exchange, the one of an iteration, they tell each other how
        many pictures they have for each pass of the next one."""
        batches = self.upcoming or self.upload()
        own = self.model.pictures_in_passes(batches)
        signals = by_rank(self.processes, self.interruption.signal)
        told = self.processes.total(np.concatenate([signals, own.ravel()]))
        self.signal = int(told[: len(signals)].max())
        self.agreed = batches, told[len(signals) :].reshape(own.shape)
        return not self.signal

    def diverged(self, error: Diverged) -> UserError:
        """Write down on which files it happened; gives what to say."""
        batch = {}
        for domain, names in self.suspect.names.items():
            items = {item.name: item for item in self.data[domain].source.items}
            batch[DOMAINS[domain]] = [list(map(str, items[name].files)) for name in names]
        iteration = self.suspect.iteration
        where = json.dumps(batch)
        if self.leads:
            where = run_folder.write_divergence(self.folder, iteration, str(error), batch)
        models = files.numbered_files(self.model_folder, "params", "h5")
        start = f"--pretrained {shlex.quote(str(models[-1]))} " if models else ""
        lower = {n: min(getattr(self.args, f"learning_rate_{n}"), 2e-4) / 2 for n in "GD"}
        rates = " ".join(f"--learning-rate_{n} {rate:g}" for n, rate in lower.items())
        return UserError(
            f"the training diverged: {error} in iteration {iteration} (its pictures: {where}); checkpoints and "
            f"models are as they were; start a new run with lower learning rates, such as {start}{rates}"
        )

    def iterate(self) -> None:
        """One iteration on the next batches."""
        batches, totals = self.agreed
        names = {domain: [sample.name for sample in iterator.next()] for domain, iterator in self.data.items()}
        self.suspect, self.upcoming = Started(self.iteration, names, StepLosses()), None
        self.unread.append(replace(self.suspect, losses=self.model.step(batches, totals)))
        self.iteration += 1
        if self.iteration < self.last_iteration:
            # while the device is at work; a picture that cannot be read is told when its turn comes
            with suppress(UserError):
                self.upcoming = self.upload()

    def upload(self) -> Dict[str, Batch]:
        """The next batches, on the device."""
        return {domain: Batch.of(iterator.peek(), self.model.ins_per) for domain, iterator in self.data.items()}

    def read_losses(self) -> Dict[str, float]:
        """Look at the losses since the last look, and hand them to the monitors; gives the last ones.

        Raises:
            Diverged: where one is NaN or infinite.
        """
        losses: Dict[str, float] = {}
        for started in self.unread:
            self.suspect = started
            losses = started.losses.read(self.processes)
            check_finite(losses)
            if self.leads:
                self.monitors.add(started.iteration, losses)
        self.unread.clear()
        return losses

    def end_epoch(self, epochs: int) -> None:
        """What is due after `epochs` epochs: samples, a checkpoint, curves, the next epoch's learning rate."""
        if epochs % self.args.save_image_interval == 0:
            self.read_losses()
            if self.leads:
                self.samples.write(self.folder / f"sample_{epochs:06d}.png")
        if epochs % self.args.save_interval == 0:
            self.save()
            if self.leads and self.iteration < self.last_iteration:
                draw_curves(self.folder)
        self.model.set_learning_rate(epochs)

    def save(self) -> None:
        """Write model and checkpoint, and delete all but the last three in the run's folder.

        Raises:
            Diverged: where one of the parameters is not finite; nothing is written then.
        """
        self.read_losses()
        arrays, state = self.model.state()
        self.suspect = replace(self.suspect, iteration=self.iteration)
        check_finite(arrays)
        own = self.model.own_state()
        others = self.processes.gather(b"" if self.leads else checkpoint.dumps(*own))[1:]
        self.saved = self.iteration
        if not self.leads:
            return
        arrays.update(own[0], **{OTHERS.format(i): np.frombuffer(data, np.uint8) for i, data in enumerate(others, 1)})
        data = {domain: iterator.state() for domain, iterator in self.data.items()}
        state = {"model": {**state, **own[1]}, "data": data, "monitors": self.monitors.state()}
        state.update(iteration=self.iteration, processes=self.processes.size)
        self.whole = checkpoint.save(self.folder, self.iteration, arrays, state)
        self.save_model()
        self.delete_old()

    def delete_old(self) -> None:
        """Delete all but the last three checkpoints and models in the run's folder."""
        for stem, ending in (("checkpoint", "npz"), ("params", "h5"), ("params", "json")):
            files.keep_newest(self.folder, stem, ending, KEPT)

    def save_model(self) -> None:
        """Write `params_NNNNNN.h5`, and the .json with all that translate.py needs."""
        names = "fineSizeH fineSizeW loadSizeH loadSizeW ins_max set_order".split()
        more = {"ins_per": self.model.ins_per, **{name: getattr(self.args, name) for name in names}}
        more["instance_share"] = self.instance_share
        config = model_file.model_config(self.model.arch, iteration=self.iteration, networks=sorted(NETWORKS), **more)
        model_file.save_model(self.model_path, self.model.parameters(), config)

    def resume(self) -> None:
        """Go on from the newest whole checkpoint in the run's folder; from the beginning where there is none yet.

        Raises:
            UserError: where no checkpoint is whole, or it is that of another run or of other data.
        """
        if not checkpoint.find(self.folder):
            print("there is no checkpoint yet: from the beginning")
            return self.begin()
        path, arrays, state = checkpoint.load_newest(self.folder)
        try:
            self.check_processes(state.get("processes", 1))
            own = arrays, state["model"]
            if not self.leads:
                own = checkpoint.loads(arrays[OTHERS.format(self.processes.rank)].tobytes())
            self.model.set_state(arrays, state["model"])
            self.model.set_own_state(*own)
            for domain, iterator in self.data.items():
                iterator.set_state(state["data"][domain])
            if self.leads:
                self.monitors.set_state(state["monitors"])
            self.whole, self.iteration = path, operator.index(state["iteration"])
            self.saved = self.iteration
            if self.iteration != files.number_of(path):
                raise ValueError(f"it is of iteration {self.iteration}")
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise UserError(
                f"{path} is no checkpoint of this run ({error}); delete it, and the one before it is taken"
            ) from error
        if self.leads and path == checkpoint.find(self.folder)[-1]:
            # a run may have been killed between the checkpoint and what comes after it
            if not self.model_path.exists():
                self.save_model()
            self.delete_old()

    def check_processes(self, count: int) -> None:
        """Raise UserError where the run that goes on had another number of processes: their batches were others."""
        if count != self.processes.size:
            command = run_folder.resume_command(self.folder, operator.index(count))
            raise UserError(f"the run is one of {count} processes, not of {self.processes.size}; go on with: {command}")

    def check_agreement(self) -> None:
        """Raise UserError where processes have not come equally far: they see other folders."""
        if len(set(self.processes.total(by_rank(self.processes, self.iteration)))) > 1:
            raise UserError(f"not all processes see the checkpoints in {self.folder}; it must be in a place they share")

    def begin(self) -> None:
        """Start with empty series, and with the parameters of `--pretrained`; networks it lacks start at random."""
        if self.leads:
            self.monitors.start()
        if self.args.pretrained:
            path = model_file.find_model(self.args.pretrained)
            parameters, config = model_file.load_model(path)
            model_file.set_parameters(parameters, config["networks"], path)
            missing = sorted(set(NETWORKS) - set(config["networks"]))
            print(f"parameters of {path}" + (f"; at random: {', '.join(missing)}" if missing else ""))

    def check_space(self) -> None:
        """Raise UserError where the disk has no room for the checkpoints and models that the run keeps."""
        args, left = self.args, self.last_iteration - self.iteration
        saves = 1 + left // self.iterations_per_epoch // args.save_interval
        model = sum(v.nbytes for v in self.model.parameters().values())
        pools = 2 * self.processes.size * args.pool_size * 4 * (3 + args.ins_max) * args.fineSizeH * args.fineSizeW
        series = self.last_iteration // args.log_step * LINES
        # parameters with both of Adam's moments; 1 MB for names and order
        state = 3 * model + pools + series + (1 << 20)
        # one more than is kept, which is being written
        copies = min(KEPT + 1, saves)
        if self.model_folder.samefile(self.folder):
            run_folder.check_space(self.folder, copies, state + model)
        else:
            run_folder.check_space(self.folder, copies, state)
            # all of them are kept there
            run_folder.check_space(self.model_folder, saves, model)


def main() -> int:
    """Run the command line; the exit code is 128 + the signal where one ended the training early."""
    args = train_args(__doc__)
    processes.take_place(args)
    context.set_up(args)
    with ExitStack() as stack:
        if processes.leads():
            # before the others wait for it
            check_data(args)
            stack.enter_context(run_folder.held(args))
            if not args.resume:
                # first of all, so that a run that is killed at once can be resumed
                run_folder.write_args(args)
        joined = processes.join()
        try:
            run = Run(args, joined)
            (run.resume if args.resume else run.begin)()
            run.check_agreement()
            if run.leads:
                if args.resume:
                    run_folder.write_args(args)
                run.check_space()
            print(run.plan())
            run.train()
        except BaseException:
            joined.fail()
            raise
    if run.signal:
        command = run_folder.resume_command(run.folder, joined.size)
        print(f"stopped after iteration {run.iteration}; go on with: {command}")
        return 128 + run.signal
    print(f"done: {run.folder} holds params_{run.iteration:06d}.h5, curves loss_*.png and samples sample_*.png")
    return 0


def check_data(args: argparse.Namespace) -> None:
    """Look at every training picture and mask; what is odd but can be used is told.

    Raises:
        UserError: where there is anything that would be trained on wrongly; all of it is told before. Where the whole
            data set is missing, it says how to make one.
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


def training_items(args: argparse.Namespace, letter: str) -> List[Item]:
    """The training pictures of domain "A" or "B" that have masks; all of them, without masks, for `--ins-max 0`."""
    items = find_items(args.dataroot, "train", letter)
    if not args.ins_max:
        return [Item(item.name, item.image) for item in items]
    return [item for item in items if item.masks]


if __name__ == "__main__":
    run_main(main)
