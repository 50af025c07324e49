# SPDX-License-Identifier: Apache-2.0
"""The batches that a run trains on: of both domains, uploaded ahead of their iteration."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any, Dict, List

import numpy as np

from backend.processes import Processes
from common.errors import UserError
from data.items import Item, find_items, find_items_with_masks
from data.loader import DataIterator, DomainSource
from models import DOMAINS
from training.settings import Settings
from translation.sequence import Batch


class Batches:
    """The training pictures of both domains as batches, without end.

    `iterations_per_epoch` is the number of batches in which the larger domain is seen once.

    Raises:
        UserError: where there are fewer pictures than one batch takes.
    """

    def __init__(self, items: Dict[str, List[Item]], settings: Settings, processes: Processes) -> None:
        self._ins_per = settings.ins_per
        self._iterators: Dict[str, DataIterator] = {}
        for i, (domain, domain_items) in enumerate(items.items()):
            source = DomainSource(
                domain_items, settings.load_size, settings.size, settings.ins_max, settings.set_order, settings.flip
            )
            rng = np.random.default_rng([settings.seed, i])
            self._iterators[domain] = DataIterator(
                source, settings.batch_size, rng, rank=processes.rank, processes=processes.size
            )
        # the next batches, where they are uploaded already
        self._uploaded: Dict[str, Batch] | None = None

        largest = max(map(len, items.values()))
        together = settings.batch_size * processes.size
        if together > largest:
            each = f" in each of {processes.size} processes" if processes.size > 1 else ""
            raise UserError(f"--batch-size {settings.batch_size}{each} is more than the {largest} pictures; give less")
        self.iterations_per_epoch = largest // together

    def peek(self) -> Dict[str, Batch]:
        """The next batch of each domain, on the device; `advance` moves on to those after it.

        Raises:
            UserError: where a file cannot be read.
        """
        if self._uploaded is None:
            samples = {domain: iterator.peek() for domain, iterator in self._iterators.items()}
            self._uploaded = {domain: Batch.from_samples(those, self._ins_per) for domain, those in samples.items()}
        return self._uploaded

    def advance(self) -> Dict[str, List[str]]:
        """Move on to the batches after the next ones. Returns the names of the pictures in these, by domain."""
        self._uploaded = None
        return {domain: [sample.name for sample in iterator.next()] for domain, iterator in self._iterators.items()}

    def upload_ahead(self) -> None:
        """Upload the next batches while the device is at work; a picture that cannot be read is reported by `peek`."""
        with suppress(UserError):
            self.peek()

    def files(self, names: Dict[str, List[str]]) -> Dict[str, List[List[str]]]:
        """The files of pictures and their masks, by the domain's letter, for a report."""
        files = {}
        for domain, domain_names in names.items():
            items = {item.name: item for item in self._iterators[domain].source.items}
            files[DOMAINS[domain]] = [list(map(str, items[name].files)) for name in domain_names]
        return files

    def instance_counts(self) -> Dict[str, List[int]]:
        """The number of instances of each picture that are trained on, by domain, as far as file names say it."""
        sources = {domain: iterator.source for domain, iterator in self._iterators.items()}
        return {
            domain: [min(len(item.masks), source.ins_max) for item in source.items]
            for domain, source in sources.items()
        }

    def instance_share(self) -> Dict[str, float | None]:
        """The usual size of instances as a share of the crop, by the domain's letter; --keep-size needs it."""
        return {DOMAINS[domain]: iterator.source.instance_share() for domain, iterator in self._iterators.items()}

    def describe(self) -> str:
        """The number of pictures in each domain, in words."""
        counts = {DOMAINS[domain]: len(iterator.source) for domain, iterator in self._iterators.items()}
        return ", ".join(f"{count} pictures in {letter}" for letter, count in counts.items())

    def state(self) -> Dict[str, Any]:
        """The position of the next batches, as plain values that JSON can hold."""
        return {domain: iterator.state() for domain, iterator in self._iterators.items()}

    def set_state(self, state: Dict[str, Any]) -> None:
        """Go on from a `state()`.

        Raises:
            UserError: where the data set has other pictures than it had then.
            KeyError, TypeError or ValueError: where it is not a state.
        """
        for domain, iterator in self._iterators.items():
            iterator.set_state(state[domain])

    def close(self) -> None:
        """Stop the threads that read ahead."""
        for iterator in self._iterators.values():
            iterator.close()


def training_items(dataroot: str | Path, letter: str, with_masks: bool) -> List[Item]:
    """The training pictures of domain "A" or "B" that have masks; or all of them, without masks."""
    if with_masks:
        return find_items_with_masks(dataroot, "train", letter)
    return [Item(item.name, item.image) for item in find_items(dataroot, "train", letter)]
