# SPDX-License-Identifier: Apache-2.0
"""InstaGAN: two generators and two discriminators, and one training iteration (paper, section 2).

    networks, equation 1                     models.py
    losses, equations 2 to 5                 losses.py
    their weighted sum, equation 6           training/graphs.py
    sequential mini-batch, section 2.3       `InstaGAN.step`; translation/sequence.py
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, Dict, List, Optional, Tuple

import nnabla as nn
import numpy as np

from backend import arrays, kernels
from backend.precision import is_half
from backend.processes import ALONE, Processes
from data import instances
from models import DOMAINS, GENERATORS, NETWORKS, OTHER, create_parameters
from training.data_parallel import Shares, shared_passes
from training.graphs import GeneratorGraph, build_discriminator_graph, build_generator_graph
from training.image_pool import ImagePool
from training.optimizer import Optimizer
from training.settings import Settings
from training.step_losses import StepLosses
from translation.sequence import (
    Batch,
    JudgedPictures,
    MaskSet,
    MiniBatch,
    SequentialTranslation,
    Translated,
    passes,
)
from weights import model_file

# arrays by name, and plain values that JSON can hold
State = Tuple[Dict[str, np.ndarray], Dict[str, Any]]


class InstaGAN:
    """The four networks with their optimizers and image pools, and one training iteration.

    Where several `processes` train together, each has its own pictures of every batch; mini-batches then say how much
    their losses count (training/data_parallel.py).
    """

    def __init__(self, settings: Settings, processes: Processes = ALONE) -> None:
        self.settings = settings
        self.processes = processes
        create_parameters(settings.architecture, np.random.RandomState(settings.seed))

        # The running statistics of batch normalization depend on the order in which the two domains are seen, and
        # several processes must add up in the same order.
        parallel = settings.architecture.norm == "instance" and kernels.active() and processes.size == 1
        self.run_both = kernels.side_by_side if parallel else kernels.in_turn

        self.optimizers = {
            "gen": self._optimizer("gen", list(GENERATORS.values()), settings.learning_rate_G),
            "dis_x": self._optimizer("dis_x", ["dis_x"], settings.learning_rate_D),
            "dis_y": self._optimizer("dis_y", ["dis_y"], settings.learning_rate_D),
        }
        self.set_learning_rate(epoch=0)
        self.pool_rng = np.random.default_rng([settings.seed, 2, processes.rank])
        self.pools = {domain: ImagePool(settings.pool_size, self.pool_rng) for domain in DOMAINS}

        # A graph for each number of pictures, instances and earlier masks that occurs: `--ins-max 4 --ins-per 2` needs
        # at most 8 at batch size 1. They take some MB each, so beyond that they are built again, which takes 0.04 s.
        self.generator_graph = lru_cache(8)(partial(build_generator_graph, settings))
        self.discriminator_graph = lru_cache(16)(partial(build_discriminator_graph, settings))

    # --- one iteration

    def step(self, batches: Dict[str, Batch], shares_of_passes: List[Shares] | None = None) -> StepLosses:
        """One iteration on a batch of each domain: all passes of the sequential mini-batch (paper, section 2.3).

        In pass m, for each domain that still has an instance,

        1. translate the next instances: (y'_m, b'_m) = G(x_m, a_m), where x_1 = x and x_m = y'_{m-1}, a constant;
        2. update both generators: D(y'_m, b'_1, ..., b'_m) with the masks of earlier passes as constants, and the
           content losses on (x_m, a_m) and (y'_m, b'_m);
        3. update the discriminators: real pictures with all their masks against translations out of the image pool,
           which takes every (y'_m, b'_1, ..., b'_m).

        A domain without an instance left is skipped, and the D that judges its translations is not updated. Pictures
        without any instance are not trained on.

        `shares_of_passes` are those of one of several processes (training/data_parallel.py). On a GPU this returns
        before the work is done, except in half precision, which looks for an overflow before each update.
        """
        losses = StepLosses()
        translations = {domain: SequentialTranslation(batch) for domain, batch in batches.items()}
        alone = shares_of_passes is None
        for mini_batches in passes(translations) if alone else shared_passes(translations, shares_of_passes):
            losses.begin_pass()
            fakes = self.update_generators(mini_batches, translations, losses)
            self.update_discriminators(batches, fakes, losses)
        return losses

    def update_generators(
        self,
        mini_batches: Dict[str, MiniBatch],
        translations: Dict[str, SequentialTranslation],
        losses: StepLosses,
    ) -> Dict[str, Optional[JudgedPictures]]:
        """Translate a mini-batch of instances of each domain, and update both generators once.

        Returns, for each domain, the pictures out of the pool that D of the other domain is to judge as fake; None
        where the mini-batch does not count (training/data_parallel.py).
        """
        optimizer = self.optimizers["gen"]
        while True:
            optimizer.zero_grad()
            graphs = self.run_both(
                [
                    partial(self.generator_pass, domain, mini_batch, optimizer.loss_scale)
                    for domain, mini_batch in mini_batches.items()
                ]
            )
            if optimizer.update():
                break

        fakes = {}
        for (domain, mini_batch), graph in zip(mini_batches.items(), graphs):
            for name, loss in graph.losses.items():
                losses.add(name, mini_batch.share, arrays.copy(loss.data))
            fakes[domain] = None
            if mini_batch.share:
                # copies, detached from the graph: y'_m is the next pass's picture and b'_m an earlier mask, constants
                y, b = (arrays.copy(variable.data) for variable in graph.translated)
                fakes[domain] = self.from_pool(OTHER[domain], translations[domain].advance(y, b), mini_batch.share)
        return fakes

    def generator_pass(self, domain: str, batch: MiniBatch, scale: float = 1.0) -> GeneratorGraph:
        """Translate a mini-batch of `domain`, and add `scale` times its gradients to those of both generators.

        The graph that is returned holds the losses, y' and b' until it is run again.
        """
        n_earlier = sum(batch.earlier.counts) if batch.earlier else 0
        graph = self.generator_graph(domain, batch.pictures.shape[0], sum(batch.masks.counts), n_earlier)
        graph.run(batch, scale * batch.share)
        return graph

    def from_pool(self, domain: str, translations: List[Translated], share: float) -> JudgedPictures:
        """Put translations into the image pool of `domain`, and take as many out for D to judge."""
        pictures, masks = zip(*[self.pools[domain].query(translated) for translated in translations])
        return JudgedPictures(arrays.concatenate(pictures), MaskSet.join(masks), share)

    def update_discriminators(
        self, batches: Dict[str, Batch], fakes: Dict[str, Optional[JudgedPictures]], losses: StepLosses
    ) -> None:
        """Update the discriminator of each domain that was translated into: real pictures against the pool's."""
        updates = {}
        for source, fake in fakes.items():
            domain = OTHER[source]
            # each process has as many real pictures as any other
            real = JudgedPictures(batches[domain].pictures, batches[domain].masks, 1 / self.processes.size)
            updates[domain] = partial(self.update_discriminator, domain, real, fake or replace(real, share=0.0))
        for domain, terms in zip(updates, self.run_both(list(updates.values()))):
            for share, loss in terms:
                losses.add(f"discriminator_loss_{domain}", share, loss)

    def update_discriminator(
        self, domain: str, real: JudgedPictures, fake: JudgedPictures
    ) -> List[Tuple[float, nn.NdArray]]:
        """Update the discriminator of `domain` once. Returns the two terms of its loss with their shares."""
        optimizer = self.optimizers[f"dis_{domain}"]
        while True:
            optimizer.zero_grad()
            real_loss = self.discriminator_pass(domain, real, 1.0, optimizer.loss_scale)
            fake_loss = self.discriminator_pass(domain, fake, 0.0, optimizer.loss_scale)
            if optimizer.update():
                break
        return [(real.share, real_loss), (fake.share, fake_loss)]

    def discriminator_pass(
        self, domain: str, judged: JudgedPictures, label: float, scale: float = 1.0
    ) -> nn.NdArray:
        """Score pictures with their masks against `label`, and add `scale` times the gradients to those of D.

        Returns half of the LSGAN loss.
        """
        graph = self.discriminator_graph(domain, judged.pictures.shape[0], sum(judged.masks.counts))
        graph.run(judged, label, scale * judged.share)
        # copied, since the next call may run the same graph
        return arrays.copy(graph.loss.data)

    def set_learning_rate(self, epoch: int) -> None:
        """Set the learning rates of `epoch` = 0, 1, ...: see `Settings.learning_rate_factor`."""
        factor = self.settings.learning_rate_factor(epoch)
        for name, optimizer in self.optimizers.items():
            rate = self.settings.learning_rate_G if name == "gen" else self.settings.learning_rate_D
            optimizer.set_learning_rate(rate * factor)

    def _optimizer(self, name: str, networks: List[str], learning_rate: float) -> Optimizer:
        betas = (self.settings.beta1, self.settings.beta2)
        return Optimizer(name, networks, learning_rate, betas, self.processes, self.run_both)

    # --- saving and resuming

    def parameters(self) -> Dict[str, np.ndarray]:
        """All parameters by full name, power-iteration vectors and running statistics included."""
        parameters = {}
        for network in NETWORKS:
            with nn.parameter_scope(network):
                variables = nn.get_parameters(grad_only=False)
            parameters.update({f"{network}/{name}": arrays.read(v.data) for name, v in variables.items()})
        return parameters

    def state(self) -> State:
        """The state that all processes share: parameters and optimizers."""
        values = {f"parameters/{name}": value for name, value in self.parameters().items()}
        updates: Dict[str, int] = {}
        for optimizer in self.optimizers.values():
            moments, counts = optimizer.state()
            values.update({f"solvers/{name}": value for name, value in moments.items()})
            updates.update(counts)
        scales = {name: optimizer.scale.state() for name, optimizer in self.optimizers.items()}
        return values, {"updates": updates, "scales": scales}

    def process_state(self) -> State:
        """The state that each process has for itself: image pools and random state."""
        values = {}
        for domain, pool in self.pools.items():
            for i, (picture, masks) in enumerate(pool.items):
                values[f"pool/{domain}/{i}/picture"] = arrays.read(picture)[0]
                values[f"pool/{domain}/{i}/masks"] = arrays.read(masks)[:, 0]
        counts = {domain: len(pool.items) for domain, pool in self.pools.items()}
        return values, {"pools": counts, "rng": self.pool_rng.bit_generator.state}

    def set_state(self, values: Dict[str, np.ndarray], state: Dict[str, Any]) -> None:
        """Go on from a `state()`.

        Raises:
            UserError, KeyError, TypeError or ValueError: where it is the state of another model.
        """
        model_file.set_parameters(_below("parameters/", values), NETWORKS, "the checkpoint")
        moments = _below("solvers/", values)
        for name, optimizer in self.optimizers.items():
            optimizer.set_state(moments, state["updates"])
            # checkpoints of earlier versions have none, and in float there is nothing in them
            if is_half():
                optimizer.scale.set_state(state["scales"][name])

    def set_process_state(self, values: Dict[str, np.ndarray], state: Dict[str, Any]) -> None:
        """Go on from a `process_state()`.

        Raises:
            KeyError, TypeError or ValueError: where it is the state of another model.
        """
        size = self.settings.size
        for domain, pool in self.pools.items():
            items = []
            for i in range(state["pools"][domain]):
                picture = values[f"pool/{domain}/{i}/picture"]
                masks = values[f"pool/{domain}/{i}/masks"]
                if picture.shape != (3, *size) or masks.shape != (len(masks), *size):
                    raise ValueError(f"the pool of {domain} is of another size")
                items.append((arrays.upload(picture[None]), arrays.upload(instances.pack([masks]))))
            pool.items = items
        self.pool_rng.bit_generator.state = state["rng"]


def _below(prefix: str, values: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
    """The arrays whose names start with `prefix`, without it."""
    return {name[len(prefix) :]: value for name, value in values.items() if name.startswith(prefix)}
