# SPDX-License-Identifier: Apache-2.0
"""One iteration shared by several processes: each has its own pictures of every batch (see backend/processes.py).

In a pass of the sequential mini-batch only the pictures that still have instances take part, and each process has a
different number of them. So each process weights its gradients and losses by its share in the pictures of all.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Dict, Iterator, List, Optional, Tuple

import numpy as np

from backend.processes import Processes, by_rank
from common.errors import UserError
from models import DOMAINS
from translation.sequence import Batch, MiniBatch, SequentialTranslation

# The part of this process in a pass, by domain. A domain is absent where no process has an instance left, and has the
# share 0 where only this process has none.
Shares = Dict[str, float]


def exchange(
    processes: Processes, signal: int, batches: Dict[str, Batch], passes: int
) -> Tuple[int, Optional[List[Shares]]]:
    """The exchange before an iteration, so that all processes stop in the same one and know their shares.

    `signal` is the one that this process has had (0 for none), `passes` the number that any batch can have.

    Returns the signal that any process has had, and the shares in each pass; None for a single process.
    """
    if processes.size == 1:
        return signal, None
    counts = np.zeros((passes, len(DOMAINS)))
    for column, domain in enumerate(DOMAINS):
        for row, active in enumerate(batches[domain].active):
            counts[row, column] = len(active)
    signals = by_rank(processes, signal)
    totals = processes.total(np.concatenate([signals, counts.ravel()]))
    return int(totals[: len(signals)].max()), _shares(counts, totals[len(signals) :].reshape(counts.shape))


def shared_passes(
    translations: Dict[str, SequentialTranslation], shares_of_passes: List[Shares]
) -> Iterator[Dict[str, MiniBatch]]:
    """The mini-batches of each pass that any process has, with their shares.

    All processes must run the same graphs, and D's power iterations must stay the same in all. So where this process
    has nothing left, its first mini-batch comes once more, with the share 0.
    """
    for shares in shares_of_passes:
        mini_batches = {}
        for domain, share in shares.items():
            translation = translations[domain]
            mini_batch = translation.mini_batch() if translation.remaining else _first_mini_batch(translation.batch)
            mini_batches[domain] = replace(mini_batch, share=share)
        yield mini_batches


def check_same_iteration(processes: Processes, iteration: int, folder: str) -> None:
    """Raise UserError where processes resume from different iterations: they see different folders."""
    if len(set(processes.total(by_rank(processes, iteration)))) > 1:
        raise UserError(f"not all processes see the checkpoints in {folder}; it must be in a place they share")


def _first_mini_batch(batch: Batch) -> MiniBatch:
    if not batch.passes:
        return MiniBatch(batch.pictures, batch.masks, None)
    return SequentialTranslation(batch).mini_batch()


def _shares(counts: np.ndarray, totals: np.ndarray) -> List[Shares]:
    """The shares in each pass that any process has, from its own counts (passes, 2) and those of all."""
    passes = []
    for row, row_of_all in zip(counts, totals):
        shares = {domain: count / total for domain, count, total in zip(DOMAINS, row, row_of_all) if total}
        if shares:
            passes.append(shares)
    return passes
