# SPDX-License-Identifier: Apache-2.0
"""Mixed precision: layers in half, everything else in float32, and dynamic loss scaling (Micikevicius et al., 2018).

Convolutions, their paddings and activations compute in half and return half; parameters are float32, of which
layers take a half copy. Statistics of normalizations, spectral normalization, sums over instances, the tanh at the end
of generators, losses, and Adam with its moments are float32.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import ContextManager, Iterator, Optional

import nnabla as nn


@dataclass
class _Layers:
    """The context of layers; None: the default one."""

    context: Optional[nn.Context] = None


_layers = _Layers()


def set_layers_context(context: Optional[nn.Context]) -> None:
    """Let layers of graphs made from here on compute in this context; None: in the default one, like the rest."""
    _layers.context = context


def is_half() -> bool:
    """Return whether layers compute in half precision."""
    return _layers.context is not None


@contextmanager
def in_float() -> Iterator[None]:
    """Make layers in float32 within `with`: for networks that are trained without a loss scale."""
    before = _layers.context
    _layers.context = None
    try:
        yield
    finally:
        _layers.context = before


def of_layers() -> ContextManager:
    """Make functions in the context of layers within `with`."""
    return nullcontext() if _layers.context is None else nn.context_scope(_layers.context)
