# SPDX-License-Identifier: Apache-2.0
"""One iteration shared by several processes: each has its own pictures of every batch (see backend/processes.py).

In a pass of the sequential mini-batch only the pictures that still have instances take part, and each process has a
different number of them. So each process weights its gradients and losses by its share in the pictures of all; a
single process has shares of 1.
"""

from __future__ import annotations

from typing import Dict, List, Tuple

import numpy as np

from backend.processes import Processes, by_rank
from common.errors import UserError
from models import DOMAINS
from translation.sequence import Batch, MiniBatch, SequentialTranslation

# The part of this process in a pass, by domain. A domain is absent where no process has an instance left, and has the
# share 0 where only this process has none.
Shares = Dict[str, float]


def shares_alone(batches: Dict[str, Batch]) -> List[Shares]:
    """The shares in each pass of a single process: 1 for each domain that has an instance left."""
    counts = _count_pictures(batches, max(len(batch.passes) for batch in batches.values()))
    return _shares(counts, counts)


def exchange(
    processes: Processes, signal: int, batches: Dict[str, Batch], most_passes: int
) -> Tuple[int, List[Shares]]:
    """The exchange before an iteration; a single process gets its own signal and shares back.

    `signal` is the one that this process has had (0 for none), `most_passes` the number that any batch can have.

    Returns the signal that any process has had, so that all stop in the same iteration, and the shares in each pass.
    """
    counts = _count_pictures(batches, most_passes)
    signals = by_rank(processes, signal)
    totals = processes.total(np.concatenate([signals, counts.ravel()]))
    return int(totals[: len(signals)].max()), _shares(counts, totals[len(signals) :].reshape(counts.shape))


def stand_in(batch: Batch) -> MiniBatch:
    """The first pass's input once more, for a process whose share is 0.

    Its results do not count, but all processes must run the same graphs, and D's power iterations must stay the same.
    """
    if not batch.passes:
        return MiniBatch(batch.pictures, batch.masks, None)
    return SequentialTranslation(batch).mini_batch()


def check_same_iteration(processes: Processes, iteration: int, folder: str) -> None:
    """Raise UserError where processes resume from different iterations: they see different folders."""
    if len(set(processes.total(by_rank(processes, iteration)))) > 1:
        raise UserError(f"not all processes see the checkpoints in {folder}; it must be in a place they share")


def _count_pictures(batches: Dict[str, Batch], passes: int) -> np.ndarray:
    """The number of pictures of each domain that have an instance for each pass: (passes, 2)."""
    counts = np.zeros((passes, len(DOMAINS)))
    for column, domain in enumerate(DOMAINS):
        for row, active in enumerate(batches[domain].active):
            counts[row, column] = len(active)
    return counts


def _shares(counts: np.ndarray, totals: np.ndarray) -> List[Shares]:
    """The shares in each pass that any process has, from its own counts (passes, 2) and those of all."""
    passes = []
    for row, row_of_all in zip(counts, totals):
        shares = {domain: count / total for domain, count, total in zip(DOMAINS, row, row_of_all) if total}
        if shares:
            passes.append(shares)
    return passes
