# SPDX-License-Identifier: Apache-2.0
"""One iteration shared by several processes: each has its own pictures of every batch (see backend/processes.py).

In a pass of the sequential mini-batch only the pictures that still have instances take part, and each process has
another number of them. So each process weights its gradients and losses by its share in the pictures of all; alone,
every share is 1.
"""

from __future__ import annotations

from typing import Dict, List, Tuple

import numpy as np

from backend.processes import Processes, by_rank
from common.errors import UserError
from models import DOMAINS
from translation.sequence import Batch

# by domain
Shares = Dict[str, float]


def pictures_in_passes(batches: Dict[str, Batch], passes: int) -> np.ndarray:
    """The number of pictures of each domain that have an instance for each pass: (passes, 2)."""
    counts = np.zeros((passes, len(DOMAINS)))
    for column, domain in enumerate(DOMAINS):
        for row, members in enumerate(batches[domain].members):
            counts[row, column] = len(members)
    return counts


def shares_of_passes(pictures: np.ndarray, totals: np.ndarray) -> List[Shares]:
    """For each pass that any process has, this process's share in the pictures of each domain that takes part.

    `pictures` (passes, 2) are this process's, `totals` those of all. A share is 0 where only others have any left.
    """
    passes = []
    for row, row_of_all in zip(pictures, totals):
        shares = {d: count / total for d, count, total in zip(DOMAINS, row, row_of_all) if total}
        if shares:
            passes.append(shares)
    return passes


def exchange(processes: Processes, signal: int, pictures: np.ndarray) -> Tuple[int, np.ndarray]:
    """The one exchange of an iteration: the signal that any process has had (0 for none), and the sum of `pictures`."""
    signals = by_rank(processes, signal)
    totals = processes.total(np.concatenate([signals, pictures.ravel()]))
    return int(totals[: len(signals)].max()), totals[len(signals) :].reshape(pictures.shape)


def check_same_iteration(processes: Processes, iteration: int, folder: str) -> None:
    """Raise UserError where processes have not come equally far: they see different folders."""
    if len(set(processes.total(by_rank(processes, iteration)))) > 1:
        raise UserError(f"not all processes see the checkpoints in {folder}; it must be in a place they share")
