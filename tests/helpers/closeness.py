# SPDX-License-Identifier: Apache-2.0
"""Arrays compared by their largest difference."""

from __future__ import annotations

from typing import Optional, Sequence

import numpy as np


def assert_close(
    results: Sequence[Optional[np.ndarray]], expected: Sequence[Optional[np.ndarray]], tolerance: float = 1e-5
) -> None:
    """Compare arrays (or None), each up to `tolerance` times the largest value of the expected one."""
    for result, truth in zip(results, expected):
        assert (result is None) == (truth is None)
        if truth is not None:
            assert np.abs(result - truth).max() <= tolerance * max(np.abs(truth).max(), 1e-3)
