# SPDX-License-Identifier: Apache-2.0
"""InstaGAN: two generators and two discriminators, and one training iteration (paper, section 2).

    networks, equation 1                     models.py
    losses, equations 2 to 6                 losses.py; put together in training/graphs.py
    sequential mini-batch, section 2.3       `InstaGAN.step`; translation/sequence.py
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any, Dict, List, Tuple

import nnabla as nn
import numpy as np

from backend import arrays, kernels
from backend.precision import is_half
from backend.processes import ALONE, Processes
from data import instances
from models import DOMAINS, GENERATORS, NETWORKS, OTHER, create_parameters
from training.data_parallel import Shares, pictures_in_passes, shares_of_passes
from training.graphs import GeneratorGraph, discriminator_graph, generator_graph
from training.image_pool import ImagePool
from training.optimizer import Optimizer
from training.settings import Settings
from training.step_losses import StepLosses
from translation.sequence import Batch, Examples, MaskSet, MiniBatch, SequentialTranslation, Translated
from weights import model_file

# arrays by name, and plain values that JSON can hold
State = Tuple[Dict[str, np.ndarray], Dict[str, Any]]


class InstaGAN:
    """The four networks with their optimizers and image pools, and one training iteration.

    Where several `processes` train together, each has its own pictures of every batch, and weights its gradients and
    losses by its share in the pictures of all. Alone, all shares are 1.
    """

    def __init__(self, settings: Settings, processes: Processes = ALONE) -> None:
        self.settings = settings
        self.processes = processes
        create_parameters(settings.architecture, np.random.RandomState(settings.seed))

        # The running statistics of batch normalization depend on the order in which the two domains are seen, and
        # several processes must add up in the same order.
        parallel = settings.architecture.norm == "instance" and kernels.active() and processes.size == 1
        self.side_by_side = kernels.side_by_side if parallel else kernels.in_turn

        self.optimizers = {
            "gen": self._optimizer("gen", list(GENERATORS.values()), settings.learning_rate_G),
            "dis_x": self._optimizer("dis_x", ["dis_x"], settings.learning_rate_D),
            "dis_y": self._optimizer("dis_y", ["dis_y"], settings.learning_rate_D),
        }
        self.set_learning_rate(epoch=0)
        self.rng = np.random.default_rng([settings.seed, 2, processes.rank])
        self.pools = {domain: ImagePool(settings.pool_size, self.rng) for domain in DOMAINS}

        # A graph for each number of pictures, instances and earlier masks that occurs. They take some MB each, so
        # those of more than four passes are built again in each step, which takes 0.04 s.
        self.generator_graph = lru_cache(8)(partial(generator_graph, settings))
        self.discriminator_graph = lru_cache(16)(partial(discriminator_graph, settings))

    # --- one iteration

    def step(self, batches: Dict[str, Batch], totals: np.ndarray | None = None) -> StepLosses:
        """One iteration on a batch of each domain: all passes of the sequential mini-batch (paper, section 2.3).

        `totals` is the sum of `pictures_in_passes` over all processes, where there are several. On a GPU this returns
        before the work is done, except in half precision, which looks for an overflow before each update.
        """
        losses = StepLosses()
        translations = {domain: SequentialTranslation(batch) for domain, batch in batches.items()}
        pictures = pictures_in_passes(batches, self.settings.passes)
        for shares in shares_of_passes(pictures, pictures if totals is None else totals):
            losses.begin_pass()
            fakes = self.update_generators(translations, shares, losses)
            self.update_discriminators(batches, fakes, shares, losses)
        return losses

    def update_generators(
        self, translations: Dict[str, SequentialTranslation], shares: Shares, losses: StepLosses
    ) -> Dict[str, List[Translated]]:
        """Translate the next mini-batch of instances of each domain, and update both generators once.

        Returns, for each domain, the translations so far of its pictures: y'_m with b'_1, ..., b'_m.
        """
        mini_batches = {domain: translations[domain].mini_batch() for domain in shares}

        def backward(scale: float) -> List[GeneratorGraph]:
            return self.side_by_side(
                [
                    partial(self.generator_pass, domain, mini_batch, scale * shares[domain])
                    for domain, mini_batch in mini_batches.items()
                ]
            )

        graphs = self.optimizers["gen"].step(backward)
        fakes = {}
        for domain, graph in zip(mini_batches, graphs):
            for name, loss in graph.losses.items():
                losses.add(name, shares[domain], arrays.copy(loss.data))
            y, b = (arrays.copy(variable.data) for variable in graph.translated)
            fakes[domain] = translations[domain].advance(y, b)
        return fakes

    def generator_pass(self, domain: str, batch: MiniBatch, factor: float = 1.0) -> GeneratorGraph:
        """Translate a mini-batch of `domain`, and add `factor` times the gradients to those of both generators.

        The graph that is returned holds the losses, y' and b' until it is run again.
        """
        earlier = sum(batch.earlier.counts) if batch.earlier else 0
        graph = self.generator_graph(domain, batch.pictures.shape[0], sum(batch.masks.counts), earlier)
        graph.run(batch, factor)
        return graph

    def update_discriminators(
        self, batches: Dict[str, Batch], fakes: Dict[str, List[Translated]], shares: Shares, losses: StepLosses
    ) -> None:
        """Update the discriminator of each domain that was translated into: real pictures against the pool's."""
        updates = {}
        for source, share in shares.items():
            domain = OTHER[source]
            real = Examples(batches[domain].pictures, batches[domain].masks)
            # where this process had nothing to translate, its share is 0, and whatever is judged does not count
            fake = self.from_pool(domain, fakes[source]) if fakes[source] else real
            updates[domain] = partial(self.update_discriminator, domain, real, fake, share)
        for domain, terms in zip(updates, self.side_by_side(list(updates.values()))):
            for share, loss in terms:
                losses.add(f"discriminator_loss_{domain}", share, loss)

    def from_pool(self, domain: str, fakes: List[Translated]) -> Examples:
        """Put translations into the image pool of `domain`, and take as many out."""
        pictures, masks = zip(*[self.pools[domain].query(fake) for fake in fakes])
        return Examples(arrays.concatenate(pictures), MaskSet.join(masks))

    def update_discriminator(
        self, domain: str, real: Examples, fake: Examples, fake_share: float
    ) -> List[Tuple[float, nn.NdArray]]:
        """Update the discriminator of `domain` once. Returns the two terms of its loss with their shares."""
        # each process has as many real pictures as any other
        real_share = 1 / self.processes.size

        def backward(scale: float) -> List[nn.NdArray]:
            return [
                self.discriminator_pass(domain, real, 1.0, scale * real_share),
                self.discriminator_pass(domain, fake, 0.0, scale * fake_share),
            ]

        real_loss, fake_loss = self.optimizers[f"dis_{domain}"].step(backward)
        return [(real_share, real_loss), (fake_share, fake_loss)]

    def discriminator_pass(self, domain: str, examples: Examples, target: float, factor: float = 1.0) -> nn.NdArray:
        """Score pictures with their masks against `target`, and add `factor` times the gradients to those of D.

        Returns half of the LSGAN loss.
        """
        graph = self.discriminator_graph(domain, examples.pictures.shape[0], sum(examples.masks.counts))
        graph.run(examples, target, factor)
        return arrays.copy(graph.loss.data)

    def set_learning_rate(self, epoch: int) -> None:
        """Set the learning rates of `epoch` = 0, 1, ...: see `Settings.learning_rate_factor`."""
        factor = self.settings.learning_rate_factor(epoch)
        for name, optimizer in self.optimizers.items():
            rate = self.settings.learning_rate_G if name == "gen" else self.settings.learning_rate_D
            optimizer.set_learning_rate(rate * factor)

    def _optimizer(self, name: str, networks: List[str], learning_rate: float) -> Optimizer:
        betas = (self.settings.beta1, self.settings.beta2)
        return Optimizer(name, networks, learning_rate, betas, self.processes, self.side_by_side)

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
        return values, {"pools": counts, "rng": self.rng.bit_generator.state}

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
        self.rng.bit_generator.state = state["rng"]


def _below(prefix: str, values: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
    """The arrays whose names start with `prefix`, without it."""
    return {name[len(prefix) :]: value for name, value in values.items() if name.startswith(prefix)}
