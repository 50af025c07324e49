# SPDX-License-Identifier: Apache-2.0
"""InstaGAN: two generators and two discriminators with their solvers, and one training iteration (paper, section 2)."""

from __future__ import annotations

import argparse
import operator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, Callable, Dict, Iterable, List, Tuple

import nnabla as nn
import nnabla.solvers as S
import numpy as np

from args import architecture, instances_per_pass
from backend import arrays, kernels
from backend.precision import is_half
from backend.processes import ALONE, Processes
from data import instances
from models import DOMAINS, GENERATORS, NETWORKS, OTHER, create_parameters
from training.graphs import GeneratorGraph, discriminator_graph, generator_graph
from training.image_pool import ImagePool
from training.loss_scale import LossScale
from training.step_losses import Diverged, StepLosses
from translation.sequence import Batch, MaskSet, MiniBatch, SequentialTranslation, Translated
from weights import model_file

# arrays by name, and plain values that JSON can hold
State = Tuple[Dict[str, np.ndarray], Dict[str, Any]]


@dataclass(frozen=True)
class Shown:
    """What a discriminator looks at: pictures (B, 3, H, W) with masks, what it should say, and the share of this
    process in the mean over all that is shown to it so."""

    pictures: nn.NdArray
    masks: MaskSet
    target: float
    share: float


@dataclass(frozen=True)
class Turn:
    """One domain's part in a pass. `share` is that of this process in the pictures, of all processes, that it is for;
    it is 0 where none here has an instance left, but one elsewhere has: then it goes along with its first mini-batch
    once more, which does not count, so that power iterations remain the same everywhere."""

    batch: Batch
    progress: SequentialTranslation
    share: float

    def mini_batch(self) -> MiniBatch:
        """What is translated."""
        progress = self.progress if self.share else SequentialTranslation(self.batch)
        return progress.mini_batch() if progress.remaining else MiniBatch(self.batch.pictures, self.batch.masks, None)


def shares_of(own: np.ndarray, totals: np.ndarray) -> List[Dict[str, float]]:
    """For each pass, the domains that have one; and of the pictures in it, the part that is this process's."""
    passes = [{d: mine / all_ for d, mine, all_ in zip(DOMAINS, *rows) if all_} for rows in zip(own, totals)]
    return [shares for shares in passes if shares]


class InstaGAN:
    """The four networks with their solvers and image pools, and one training iteration (paper, section 2.3)."""

    def __init__(self, args: argparse.Namespace, processes: Processes = ALONE) -> None:
        self.args, self.arch, self.ins_per = args, architecture(args), instances_per_pass(args)
        self.processes = processes
        create_parameters(self.arch, np.random.RandomState(args.seed))
        self.trained = {name: _trained(name) for name in NETWORKS}
        self.solvers = {name: self._solver(name) for name in NETWORKS}
        self.set_learning_rate(epoch=0)
        self.scales = {name: LossScale() for name in ("gen", "dis_x", "dis_y")}
        self.rng = np.random.default_rng([args.seed, 2, processes.rank])
        self.pools = {domain: ImagePool(args.pool_size, self.rng) for domain in DOMAINS}
        # a graph for each number of pictures, instances and earlier masks that occurs. They take some MB each, so that
        # those of more than four passes are made anew in each step, which takes 0.04 s
        self.generator_graph = lru_cache(8)(partial(generator_graph, args))
        self.discriminator_graph = lru_cache(16)(partial(discriminator_graph, args))
        # the running statistics of batch normalization depend on the order in which the two domains are seen, and
        # several processes must add up in the same order
        parallel = self.arch.norm == "instance" and kernels.active() and processes.size == 1
        self.side_by_side = kernels.side_by_side if parallel else kernels.in_turn

    def step(self, batches: Dict[str, Batch], totals: np.ndarray | None = None) -> StepLosses:
        """One iteration on a batch of each domain: all passes of the sequential mini-batch.

        `totals` is the sum of what `pictures_in_passes` gives over all processes, where there are several. Nothing of
        it waits for the device but, in half precision, the look for an overflow before each update.
        """
        losses, progress = StepLosses(), {domain: SequentialTranslation(batch) for domain, batch in batches.items()}
        own = self.pictures_in_passes(batches)
        for shares in shares_of(own, own if totals is None else totals):
            losses.begin_pass()
            turns = {domain: Turn(batches[domain], progress[domain], share) for domain, share in shares.items()}
            fakes = self.update_generators(turns, losses)
            self.update_discriminators(batches, turns, fakes, losses)
        return losses

    def pictures_in_passes(self, batches: Dict[str, Batch]) -> np.ndarray:
        """How many pictures of each domain have an instance for each pass: (passes, 2); passes as many as can be."""
        counts = np.zeros((len(instances.mini_batches(self.args.ins_max, self.ins_per)), len(DOMAINS)))
        for column, domain in enumerate(DOMAINS):
            counts[: len(batches[domain].who), column] = [len(who) for who in batches[domain].who]
        return counts

    def update_generators(self, turns: Dict[str, Turn], losses: StepLosses) -> Dict[str, List[Translated]]:
        """Translate the next mini-batch of instances of each domain, and take one step of both generators.

        Returns, for each domain, the translations so far of its pictures.
        """
        batches = {domain: turn.mini_batch() for domain, turn in turns.items()}

        def gradients(scale: float) -> List[GeneratorGraph]:
            passes = [partial(self.generator_pass, d, b, turns[d].share * scale) for d, b in batches.items()]
            return self.side_by_side(passes)

        fakes = {}
        for (domain, turn), graph in zip(turns.items(), self.update("gen", GENERATORS.values(), gradients)):
            for name, loss in graph.losses.items():
                losses.add(name, turn.share, arrays.copy(loss.data))
            if turn.share:
                fakes[domain] = turn.progress.advance(*(arrays.copy(v.data) for v in graph.translated))
        return fakes

    def generator_pass(self, domain: str, batch: MiniBatch, factor: float = 1.0) -> GeneratorGraph:
        """Translate a mini-batch that starts in `domain`, and add `factor` times the gradients to both generators'.

        The graph that is returned holds the losses, y' and b' until it is run again.
        """
        earlier = sum(batch.earlier.counts) if batch.earlier else 0
        graph = self.generator_graph(domain, batch.pictures.shape[0], sum(batch.masks.counts), earlier)
        graph.run(batch, factor)
        return graph

    def update_discriminators(
        self,
        batches: Dict[str, Batch],
        turns: Dict[str, Turn],
        fakes: Dict[str, List[Translated]],
        losses: StepLosses,
    ) -> None:
        """One step of the discriminator of each domain that was translated into: real pictures against the pool's."""
        updates = {}
        for source, turn in turns.items():
            domain = OTHER[source]
            real = Shown(batches[domain].pictures, batches[domain].masks, 1.0, 1 / self.processes.size)
            fake = replace(real, target=0.0, share=0.0)
            if turn.share:
                pictures, masks = zip(*map(self.pools[domain].query, fakes[source]))
                fake = Shown(arrays.concatenate(pictures), MaskSet.join(masks), 0.0, turn.share)
            updates[domain] = partial(self.update_discriminator, domain, [real, fake])
        for domain, terms in zip(updates, self.side_by_side(list(updates.values()))):
            for share, loss in terms:
                losses.add(f"discriminator_loss_{domain}", share, loss)

    def update_discriminator(self, domain: str, shown: List[Shown]) -> List[Tuple[float, nn.NdArray]]:
        """One step of the discriminator of `domain`. Returns the terms of its loss with their shares."""

        def gradients(scale: float) -> List[Tuple[float, nn.NdArray]]:
            return [(one.share, self.judge(domain, one, one.share * scale)) for one in shown]

        return self.update(f"dis_{domain}", [f"dis_{domain}"], gradients)

    def judge(self, domain: str, shown: Shown, factor: float = 1.0) -> nn.NdArray:
        """Show D of `domain` pictures with their masks, and add `factor` times the gradients to its own.

        Returns half of its LSGAN loss.
        """
        graph = self.discriminator_graph(domain, shown.pictures.shape[0], sum(shown.masks.counts))
        graph.run(shown.pictures, shown.masks, shown.target, factor)
        return arrays.copy(graph.loss.data)

    def update(self, name: str, networks: Iterable[str], gradients: Callable[[float], Any]) -> Any:
        """One step of some networks' solvers, on what `gradients` adds to their gradients for a loss scale (`name`'s).

        Returns what `gradients` does. It is called again where half precision has overflowed.

        Raises:
            Diverged: where it always does.
        """
        solvers = [self.solvers[network] for network in networks]
        trained = [p.grad for network in networks for p in self.trained[network].values()]
        while True:
            for solver in solvers:
                solver.zero_grad()
            result = gradients(self.scales[name].value)
            self.processes.add_up(trained)
            try:
                if self.scales[name].unscale(solvers, trained):
                    break
            except ArithmeticError as error:
                raise Diverged(f"{name}: {error}") from error
        self.side_by_side([solver.update for solver in solvers])
        return result

    def set_learning_rate(self, epoch: int) -> None:
        """Constant up to `--lr-decay-start-epoch`, then linear to zero at `--max-epoch`; epochs count from 0."""
        first, last = self.args.lr_decay_start_epoch, self.args.max_epoch
        factor = 1 - max(0, epoch + 1 - first) / (last - first + 1) if last >= first else 1.0
        for name, solver in self.solvers.items():
            rate = self.args.learning_rate_G if name.startswith("gen") else self.args.learning_rate_D
            solver.set_learning_rate(rate * factor)

    def _solver(self, network: str) -> S.Solver:
        adam = kernels.Adam if kernels.active() else S.Adam
        solver = adam(self.args.learning_rate_G, self.args.beta1, self.args.beta2)
        solver.set_parameters(self.trained[network])
        return solver

    def parameters(self) -> Dict[str, np.ndarray]:
        """All parameters by full name, power-iteration vectors and running statistics included."""
        found = {}
        for network in NETWORKS:
            with nn.parameter_scope(network):
                own = nn.get_parameters(grad_only=False)
            found.update({f"{network}/{name}": arrays.read(v.data) for name, v in own.items()})
        return found

    def state(self) -> State:
        """Arrays, and plain values that JSON can hold: what is the same in all processes, parameters and solvers."""
        found = {f"parameters/{name}": value for name, value in self.parameters().items()}
        updates: Dict[str, int] = {}
        for network, solver in self.solvers.items():
            for name, moments in solver.get_states().items():
                updates[f"{network}/{name}"] = moments.t
                found.update({f"solvers/{network}/{name}/{k}": arrays.read(v.data) for k, v in moments.pstate.items()})
        return found, {"updates": updates, "scales": {name: scale.state() for name, scale in self.scales.items()}}

    def own_state(self) -> State:
        """The same of what each process has for itself: image pools and random state."""
        found = {}
        for domain, pool in self.pools.items():
            for i, (picture, masks) in enumerate(pool.items):
                stem = f"pool/{domain}/{i}/"
                found[stem + "picture"], found[stem + "masks"] = arrays.read(picture)[0], arrays.read(masks)[:, 0]
        counts = {domain: len(pool.items) for domain, pool in self.pools.items()}
        return found, {"pools": counts, "rng": self.rng.bit_generator.state}

    def set_state(self, given: Dict[str, np.ndarray], state: Dict[str, Any]) -> None:
        """Become what `state()` described.

        Raises:
            UserError, KeyError, TypeError or ValueError: where it is the state of another model.
        """
        values = {n[len("parameters/") :]: v for n, v in given.items() if n.startswith("parameters/")}
        model_file.set_parameters(values, NETWORKS, "the checkpoint")
        for network, solver in self.solvers.items():
            states = solver.get_states()
            for name, moments in states.items():
                moments.t = operator.index(state["updates"][f"{network}/{name}"])
                for kind, variable in moments.pstate.items():
                    values = given[f"solvers/{network}/{name}/{kind}"]
                    if values.shape != variable.shape:
                        raise ValueError(f"{kind} of {network}/{name} is {values.shape}, not {variable.shape}")
                    variable.d = values
            solver.set_states(states)
        # checkpoints of earlier versions have none, and in float there is nothing in them
        for name, scale in self.scales.items() if is_half() else ():
            scale.set_state(state["scales"][name])

    def set_own_state(self, given: Dict[str, np.ndarray], state: Dict[str, Any]) -> None:
        """Become what `own_state()` described.

        Raises:
            KeyError, TypeError or ValueError: where it is the state of another model.
        """
        size = (self.args.fineSizeH, self.args.fineSizeW)
        for domain, pool in self.pools.items():
            stems = [f"pool/{domain}/{i}/" for i in range(state["pools"][domain])]
            items = [(given[stem + "picture"], given[stem + "masks"]) for stem in stems]
            if any(p.shape != (3, *size) or m.shape != (len(m), *size) for p, m in items):
                raise ValueError(f"the pool of {domain} is of another size")
            pool.items = [(arrays.upload(p[None]), arrays.upload(instances.pack([m]))) for p, m in items]
        self.rng.bit_generator.state = state["rng"]


def _trained(network: str) -> Dict[str, nn.Variable]:
    with nn.parameter_scope(network):
        return nn.get_parameters()
