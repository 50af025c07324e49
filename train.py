# SPDX-License-Identifier: Apache-2.0
"""Train InstaGAN: two generators and two discriminators, on pictures of two domains with a mask for each instance.

    python train.py --dataroot datasets/jeans2skirt_ccp              # as in the paper; wants a GPU
    python train.py --dataroot datasets/circle2square --loadSizeH 64 --loadSizeW 64 --fineSizeH 64 --fineSizeW 64 \\
        --ngf 16 --ndf 32 --n-blocks 3 --n-layers-D 2 --max-epoch 15 --lr-decay-start-epoch 8 \\
        --monitor-path runs/shapes                                   # half an hour on a laptop
    python train.py --monitor-path runs/shapes --resume              # go on after an interruption
"""

from __future__ import annotations

import argparse
import operator
import shlex
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Dict, List, Tuple

from errors import UserError, run_main

import nnabla as nn
import nnabla.solvers as S
import numpy as np
from tqdm import tqdm

import checkpoint
import context
import cpu_kernels
import data_check
import instances
import model_file
import pictures
import run_folder
from args import architecture, instances_per_pass, train_args
from data_source import DataIterator, DomainSource, Sample
from image_pool import ImagePool
from interruption import Interruption
from losses import context_preserving_loss, lsgan_loss, set_l1_loss
from models import FROZEN, NETWORKS, create_parameters, discriminator, generator, generator_twice
from monitors import Monitors, draw_curves, short_summary
from samples import SampleGrid
from sequence import MiniBatch, SequentialTranslation

DOMAINS = {"x": "A", "y": "B"}
OTHER = {"x": "y", "y": "x"}
KEPT = 3  # checkpoints, and models beside them
LINES = 600  # bytes that one entry in each of the series and the timer takes in a checkpoint, about


class Diverged(Exception):
    """A loss or a parameter is not a finite number any more; the message says which."""


@dataclass
class GeneratorGraph:
    """The static graph of one pass from one domain: its inputs, the translation, and the losses that train G."""

    x: nn.Variable
    a: nn.Variable
    membership: nn.Variable
    earlier: nn.Variable
    earlier_membership: nn.Variable
    translated: Tuple[nn.Variable, nn.Variable]
    losses: Dict[str, nn.Variable]
    total: nn.Variable
    kept: List[nn.NdArray]


@dataclass
class DiscriminatorGraph:
    """The static graph of one look of D at pictures with masks, against a target: half of its LSGAN loss."""

    y: nn.Variable
    b: nn.Variable
    membership: nn.Variable
    target: nn.Variable
    loss: nn.Variable
    kept: List[nn.NdArray]


def clear(arrays: List[nn.NdArray]) -> None:
    """Give memory back, for other graphs to use."""
    for array in arrays:
        array.clear()


def check_finite(values: Dict[str, Any]) -> None:
    """Raise Diverged where a number, or one in an array, is NaN or infinite."""
    for name, value in values.items():
        if not np.isfinite(value).all():
            raise Diverged(f"{name} is {value}" if np.ndim(value) == 0 else f"{name} holds NaN or infinity")


class InstaGAN:
    """The four networks with their solvers and image pools, and one training iteration (paper, section 2.3)."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.arch, self.ins_per = args, architecture(args), instances_per_pass(args)
        create_parameters(self.arch, np.random.RandomState(args.seed))
        self.solvers = {name: self._solver(name) for name in NETWORKS}
        self.set_learning_rate(epoch=0)
        self.rng = np.random.default_rng([args.seed, 2])
        self.pools = {domain: ImagePool(args.pool_size, self.rng) for domain in DOMAINS}
        # a graph for each number of pictures, instances and earlier masks that occurs. They take some MB each, so that
        # those of more than four passes are made anew in each step, which takes 0.04 s
        self.generator_graph = lru_cache(8)(self._build_generator_graph)
        self.discriminator_graph = lru_cache(16)(self._build_discriminator_graph)
        # the running statistics of batch normalization depend on the order in which the two domains are seen
        parallel = self.arch.norm == "instance" and cpu_kernels.active()
        self.side_by_side = cpu_kernels.side_by_side if parallel else cpu_kernels.in_turn

    def step(self, batches: Dict[str, List[Sample]]) -> Dict[str, float]:
        """One iteration on a batch of each domain: all passes of the sequential mini-batch.

        Returns the losses, weighted as in the total, each the mean over the passes in which it existed.

        Raises:
            Diverged: as soon as a loss is NaN or infinite.
        """
        progress = {
            domain: SequentialTranslation([s.picture for s in batch], [s.masks for s in batch], self.ins_per)
            for domain, batch in batches.items()
        }
        seen = defaultdict(list)
        while True:
            active = {domain: p for domain, p in progress.items() if p.remaining}
            if not active:
                return {name: float(np.mean(values)) for name, values in seen.items()}
            losses, fakes = self.update_generators(active)
            check_finite(losses)
            losses.update(self.update_discriminators(fakes, batches))
            check_finite(losses)
            for name, value in losses.items():
                seen[name].append(value)

    def update_generators(
        self, active: Dict[str, SequentialTranslation]
    ) -> Tuple[Dict[str, float], Dict[str, List[Tuple]]]:
        """Translate the next mini-batch of instances of each domain, and take one step of both generators.

        Returns the losses and, for each domain, the translations so far of its pictures.
        """
        solvers = [self.solvers["gen_x2y"], self.solvers["gen_y2x"]]
        for solver in solvers:
            solver.zero_grad()
        batches = {domain: progress.mini_batch() for domain, progress in active.items()}
        passes = self.side_by_side([partial(self.generator_pass, *item) for item in batches.items()])
        self.side_by_side([solver.update for solver in solvers])
        losses, fakes = {}, {}
        for (domain, batch), (found, y, b) in zip(batches.items(), passes):
            losses.update(found)
            fakes[domain] = active[domain].advance(y, b, batch.membership)
        return losses, fakes

    def generator_pass(self, domain: str, batch: MiniBatch) -> Tuple[Dict[str, float], np.ndarray, np.ndarray]:
        """Translate a mini-batch that starts in `domain`, and add to the gradients of both generators.

        Returns the losses, y' and b'.
        """
        graph = self.generator_graph(domain, len(batch.pictures), len(batch.masks), len(batch.earlier))
        graph.x.d, graph.a.d, graph.membership.d = batch.pictures, batch.masks, batch.membership
        if len(batch.earlier):
            graph.earlier.d, graph.earlier_membership.d = batch.earlier, batch.earlier_membership
        graph.total.forward(clear_no_need_grad=True)
        losses = {name: float(loss.d) for name, loss in graph.losses.items()}
        y, b = (variable.d.copy() for variable in graph.translated)
        graph.total.backward(clear_buffer=True)
        clear(graph.kept)
        return losses, y, b

    def update_discriminators(
        self, fakes: Dict[str, List[Tuple]], batches: Dict[str, List[Sample]]
    ) -> Dict[str, float]:
        """One step of the discriminator of each domain that was translated into: real pictures against the pool's."""
        shown = {}
        for source, translations in fakes.items():
            domain = OTHER[source]
            real = [(sample.picture, sample.masks) for sample in batches[domain]]
            shown[domain] = real, [self.pools[domain].query(translation) for translation in translations]
        updates = [partial(self.update_discriminator, domain, *both) for domain, both in shown.items()]
        losses = self.side_by_side(updates)
        return {f"discriminator_loss_{domain}": loss for domain, loss in zip(shown, losses)}

    def update_discriminator(self, domain: str, real: List[Tuple], fake: List[Tuple]) -> float:
        """One step of the discriminator of `domain`. Returns its loss."""
        solver = self.solvers[f"dis_{domain}"]
        solver.zero_grad()
        loss = self.judge(domain, real, 1.0) + self.judge(domain, fake, 0.0)
        solver.update()
        return loss

    def judge(self, domain: str, shown: List[Tuple], target: float) -> float:
        """Show D of `domain` pictures with their masks; adds to its gradients. Returns half of its LSGAN loss."""
        masks, membership = instances.pack([m for _, m in shown])
        graph = self.discriminator_graph(domain, len(shown), len(masks))
        graph.y.d, graph.b.d, graph.membership.d = np.stack([p for p, _ in shown]), masks, membership
        graph.target.d = target
        graph.loss.forward(clear_no_need_grad=True)
        loss = float(graph.loss.d)
        graph.loss.backward(clear_buffer=True)
        clear(graph.kept)
        return loss

    def set_learning_rate(self, epoch: int) -> None:
        """Constant up to `--lr-decay-start-epoch`, then linear to zero at `--max-epoch`; epochs count from 0."""
        first, last = self.args.lr_decay_start_epoch, self.args.max_epoch
        factor = 1 - max(0, epoch + 1 - first) / (last - first + 1) if last >= first else 1.0
        for name, solver in self.solvers.items():
            rate = self.args.learning_rate_G if name.startswith("gen") else self.args.learning_rate_D
            solver.set_learning_rate(rate * factor)

    def _build_generator_graph(self, source: str, pictures: int, masks: int, earlier: int) -> GeneratorGraph:
        """The losses of one pass from domain `source` = x to y (and the mirror image); paper, equations 2 to 6."""
        target, (height, width) = OTHER[source], (self.args.fineSizeH, self.args.fineSizeW)
        x, a = nn.Variable((pictures, 3, height, width)), nn.Variable((masks, 1, height, width))
        b_earlier, owner_earlier = nn.Variable((earlier, 1, height, width)), nn.Variable((pictures, earlier))
        owner = nn.Variable((pictures, masks))
        with nn.parameter_scope(f"gen_{source}2{target}"):
            y, b = generator(x, a, owner, self.arch)
        if not self.ins_per:
            # CycleGAN makes no masks: what the mask decoder says is not looked at
            b = a
        with nn.parameter_scope(f"gen_{target}2{source}"):
            reconstructed, identity = generator_twice((y, b), (x, a), owner, self.arch)
        with nn.parameter_scope(f"dis_{target}"):
            score = discriminator(y, b, owner, self.arch, FROZEN, (b_earlier, owner_earlier) if earlier else None)

        args, slots = self.args, self.ins_per
        losses = {
            f"generator_loss_{target}": lsgan_loss(score, 1.0),
            f"reconstruction_loss_{source}": args.lambda_cyc * set_l1_loss((x, a), reconstructed, slots),
            f"identity_mapping_loss_{source}": args.lambda_idt * set_l1_loss((x, a), identity, slots),
        }
        if self.ins_per:
            context_loss = context_preserving_loss(x, a, y, b, owner)
            losses[f"context_preserving_loss_{source}"] = args.lambda_ctx * context_loss
        for variable in (y, b, *losses.values()):
            variable.persistent = True
        total = sum(losses.values())
        kept = cpu_kernels.kept_arrays(total)
        return GeneratorGraph(x, a, owner, b_earlier, owner_earlier, (y, b), losses, total, kept)

    def _build_discriminator_graph(self, domain: str, pictures: int, masks: int) -> DiscriminatorGraph:
        size = (self.args.fineSizeH, self.args.fineSizeW)
        y, b = nn.Variable((pictures, 3, *size)), nn.Variable((masks, 1, *size))
        owner, target = nn.Variable((pictures, masks)), nn.Variable((1, 1, 1, 1))
        with nn.parameter_scope(f"dis_{domain}"):
            score = discriminator(y, b, owner, self.arch)
        loss = 0.5 * lsgan_loss(score, target)
        loss.persistent = True
        return DiscriminatorGraph(y, b, owner, target, loss, cpu_kernels.kept_arrays(loss))

    def _solver(self, network: str) -> S.Solver:
        adam = cpu_kernels.Adam if cpu_kernels.active() else S.Adam
        solver = adam(self.args.learning_rate_G, self.args.beta1, self.args.beta2)
        with nn.parameter_scope(network):
            solver.set_parameters(nn.get_parameters())
        return solver

    def parameters(self) -> Dict[str, np.ndarray]:
        """All parameters by full name, power-iteration vectors and running statistics included."""
        found = {}
        for network in NETWORKS:
            with nn.parameter_scope(network):
                own = nn.get_parameters(grad_only=False)
            found.update({f"{network}/{name}": v.d.copy() for name, v in own.items()})
        return found

    def state(self) -> Tuple[Dict[str, np.ndarray], Dict[str, Any]]:
        """Arrays, and plain values that JSON can hold: parameters, solvers, pools, random state."""
        arrays = {f"parameters/{name}": value for name, value in self.parameters().items()}
        updates: Dict[str, int] = {}
        for network, solver in self.solvers.items():
            for name, moments in solver.get_states().items():
                updates[f"{network}/{name}"] = moments.t
                arrays.update({f"solvers/{network}/{name}/{k}": v.d.copy() for k, v in moments.pstate.items()})
        for domain, pool in self.pools.items():
            for i, (picture, masks) in enumerate(pool.items):
                arrays[f"pool/{domain}/{i}/picture"], arrays[f"pool/{domain}/{i}/masks"] = picture, masks
        counts = {domain: len(pool.items) for domain, pool in self.pools.items()}
        return arrays, {"updates": updates, "pools": counts, "rng": self.rng.bit_generator.state}

    def set_state(self, arrays: Dict[str, np.ndarray], state: Dict[str, Any]) -> None:
        """Become what `state()` described.

        Raises:
            UserError, KeyError, TypeError or ValueError: where it is the state of another model.
        """
        values = {n[len("parameters/") :]: v for n, v in arrays.items() if n.startswith("parameters/")}
        model_file.set_parameters(values, NETWORKS, "the checkpoint")
        for network, solver in self.solvers.items():
            states = solver.get_states()
            for name, moments in states.items():
                moments.t = operator.index(state["updates"][f"{network}/{name}"])
                for kind, variable in moments.pstate.items():
                    values = arrays[f"solvers/{network}/{name}/{kind}"]
                    if values.shape != variable.shape:
                        raise ValueError(f"{kind} of {network}/{name} is {values.shape}, not {variable.shape}")
                    variable.d = values
            solver.set_states(states)
        for domain, pool in self.pools.items():
            stems = [f"pool/{domain}/{i}/" for i in range(state["pools"][domain])]
            pool.items = [(arrays[stem + "picture"], arrays[stem + "masks"]) for stem in stems]
            size = (self.args.fineSizeH, self.args.fineSizeW)
            if any(p.shape != (3, *size) or m.shape != (len(m), *size) for p, m in pool.items):
                raise ValueError(f"the pool of {domain} is of another size")
        self.rng.bit_generator.state = state["rng"]


class Run:
    """One training run in its folder: data, model, monitors, and how far it has come."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.folder = args, Path(args.monitor_path)
        self.model_folder = Path(args.model_save_path or args.monitor_path)
        items = {domain: training_items(args, letter) for domain, letter in DOMAINS.items()}
        load, fine = (args.loadSizeH, args.loadSizeW), (args.fineSizeH, args.fineSizeW)
        self.data = {}
        for i, (domain, found) in enumerate(items.items()):
            source = DomainSource(found, load, fine, args.ins_max, args.set_order, not args.no_flip)
            self.data[domain] = DataIterator(source, args.batch_size, np.random.default_rng([args.seed, i]))
        largest = max(map(len, items.values()))
        if args.batch_size > largest:
            raise UserError(f"--batch-size {args.batch_size} is more than the {largest} pictures there are; give less")
        self.iterations_per_epoch = largest // args.batch_size
        # how many iterations are done, the last whole checkpoint, the batches that are being trained on
        self.iteration = 0
        self.whole: Path | None = None
        self.batches: Dict[str, List[Sample]] = {}
        # what translate.py --keep-size needs to know
        self.instance_share = {DOMAINS[d]: iterator.source.instance_share() for d, iterator in self.data.items()}
        self.interruption = Interruption()
        self.model = InstaGAN(args)
        self.monitors = Monitors(self.folder, args.log_step)
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

    def train(self) -> None:
        """Train up to the last iteration, with checkpoints and samples on the way and a checkpoint at the end.

        SIGINT (Ctrl-C) or SIGTERM ends it after the iteration that is running; a second one ends it at once.

        Raises:
            UserError: where the training diverged or something cannot be written; the last checkpoint stays.
        """
        try:
            with self.interruption:
                self.iterate_to_the_end()
                if not self.whole or checkpoint.number(self.whole) != self.iteration:
                    self.save()
                self.monitors.flush(self.iteration - 1)
                draw_curves(self.folder)
        except Diverged as error:
            raise self.diverged(error) from error
        except OSError as error:
            raise run_folder.cannot_write(self.folder, self.whole, error) from error
        finally:
            for iterator in self.data.values():
                iterator.close()

    def iterate_to_the_end(self) -> None:
        """All iterations that are left, or those up to a signal; with what is due after each epoch."""
        planned = {"total": self.last_iteration, "initial": self.iteration}
        with tqdm(**planned, desc="training", unit="it", smoothing=0.1) as bar:
            self.model.set_learning_rate(self.iteration // self.iterations_per_epoch)
            while self.iteration < self.last_iteration and not self.interruption.signal:
                bar.set_postfix(short_summary(self.iterate()), refresh=False)
                bar.update()
                if self.iteration % self.iterations_per_epoch == 0:
                    self.end_epoch(self.iteration // self.iterations_per_epoch)

    def diverged(self, error: Diverged) -> UserError:
        """Write down on which files it happened; gives what to say."""
        batch = {}
        for domain, samples in self.batches.items():
            items = {item.name: item for item in self.data[domain].source.items}
            batch[DOMAINS[domain]] = [list(map(str, items[s.name].files)) for s in samples]
        where = run_folder.write_divergence(self.folder, self.iteration, str(error), batch)
        models = checkpoint.numbered(self.model_folder, "params", "h5")
        start = f"--pretrained {shlex.quote(str(models[-1]))} " if models else ""
        lower = {n: min(getattr(self.args, f"learning_rate_{n}"), 2e-4) / 2 for n in "GD"}
        rates = " ".join(f"--learning-rate_{n} {rate:g}" for n, rate in lower.items())
        return UserError(
            f"the training diverged: {error} in iteration {self.iteration} (its pictures: {where}); checkpoints and "
            f"models are as they were; start a new run with lower learning rates, such as {start}{rates}"
        )

    def iterate(self) -> Dict[str, float]:
        """One iteration on the next batches; gives the losses."""
        self.batches = {domain: iterator.next() for domain, iterator in self.data.items()}
        losses = self.model.step(self.batches)
        self.monitors.add(self.iteration, losses)
        self.iteration += 1
        return losses

    def end_epoch(self, epochs: int) -> None:
        """What is due after `epochs` epochs: samples, a checkpoint, curves, the next epoch's learning rate."""
        if epochs % self.args.save_image_interval == 0:
            self.samples.write(self.folder / f"sample_{epochs:06d}.png")
        if epochs % self.args.save_interval == 0:
            self.save()
            if self.iteration < self.last_iteration:
                draw_curves(self.folder)
        self.model.set_learning_rate(epochs)

    def save(self) -> None:
        """Write model and checkpoint, and delete all but the last three in the run's folder.

        Raises:
            Diverged: where one of the parameters is not finite; nothing is written then.
        """
        arrays, state = self.model.state()
        check_finite(arrays)
        data = {domain: iterator.state() for domain, iterator in self.data.items()}
        state = {"iteration": self.iteration, "model": state, "data": data, "monitors": self.monitors.state()}
        self.whole = checkpoint.save(self.folder, self.iteration, arrays, state)
        self.save_model()
        self.delete_old()

    def delete_old(self) -> None:
        """Delete all but the last three checkpoints and models in the run's folder."""
        for stem, ending in (("checkpoint", "npz"), ("params", "h5"), ("params", "json")):
            checkpoint.keep_last(self.folder, stem, ending, KEPT)

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
            self.model.set_state(arrays, state["model"])
            for domain, iterator in self.data.items():
                iterator.set_state(state["data"][domain])
            self.monitors.set_state(state["monitors"])
            self.whole, self.iteration = path, operator.index(state["iteration"])
            if self.iteration != checkpoint.number(path):
                raise ValueError(f"it is of iteration {self.iteration}")
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise UserError(
                f"{path} is no checkpoint of this run ({error}); delete it, and the one before it is taken"
            ) from error
        if path == checkpoint.find(self.folder)[-1]:
            # a run may have been killed between the checkpoint and what comes after it
            if not self.model_path.exists():
                self.save_model()
            self.delete_old()

    def begin(self) -> None:
        """Start with empty series, and with the parameters of `--pretrained`; networks it lacks start at random."""
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
        pools = 2 * args.pool_size * 4 * (3 + args.ins_max) * args.fineSizeH * args.fineSizeW
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
    context.set_up(args)
    check_data(args)
    with run_folder.held(args):
        if not args.resume:
            # first of all, so that a run that is killed at once can be resumed
            run_folder.write_args(args)
        run = Run(args)
        if args.resume:
            run.resume()
            run_folder.write_args(args)
        else:
            run.begin()
        run.check_space()
        counts = ", ".join(f"{len(i.source)} pictures in {DOMAINS[d]}" for d, i in run.data.items())
        span = f"from {run.iteration} to {run.last_iteration}"
        if run.iteration >= run.last_iteration:
            span = f"all {run.iteration} are done: to go on, give a larger --max-epoch, and --max-iter if it was given"
        print(f"{counts}; an epoch is {run.iterations_per_epoch} iterations; {span}")
        run.train()
    if run.interruption.signal:
        print(f"stopped after iteration {run.iteration}; go on with: {run_folder.resume_command(run.folder)}")
        return 128 + run.interruption.signal
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
    sizes = data_check.Sizes((args.loadSizeH, args.loadSizeW), (args.fineSizeH, args.fineSizeW))
    data_check.refuse_bad(data_check.check(args.dataroot, sizes, ["train"], masks=args.ins_max > 0))


def training_items(args: argparse.Namespace, letter: str) -> List[pictures.Item]:
    """The training pictures of domain "A" or "B" that have masks; all of them, without masks, for `--ins-max 0`."""
    items = pictures.find_items(args.dataroot, "train", letter)
    if not args.ins_max:
        return [pictures.Item(item.name, item.image) for item in items]
    return [item for item in items if item.masks]


if __name__ == "__main__":
    run_main(main)
