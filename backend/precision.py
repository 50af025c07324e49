# SPDX-License-Identifier: Apache-2.0
"""Mixed precision: layers in half, everything else in float32, and dynamic loss scaling (Micikevicius et al., 2018).

Convolutions, their paddings and activations compute in half and give out half; parameters are float32, of which
layers take a half copy. Statistics of normalizations, spectral normalization, sums over instances, the tanh that
makes pictures and masks, losses, and Adam with its moments are float32.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import ContextManager, Dict, Iterator, Optional

import nnabla as nn

_state: Dict[str, Optional[nn.Context]] = {"layers": None}


def set_layers_context(context: Optional[nn.Context]) -> None:
    """Let layers of graphs made from here on compute in this context; None: in the default one, as all else."""
    _state["layers"] = context


def is_half() -> bool:
    """Whether layers compute in half precision."""
    return _state["layers"] is not None


@contextmanager
def in_float() -> Iterator[None]:
    """Within `with`, layers are made in float32 all the same: for networks that are trained without a loss scale."""
    layers, _state["layers"] = _state["layers"], None
    try:
        yield
    finally:
        _state["layers"] = layers


def of_layers() -> ContextManager:
    """Within `with`, functions are made in the context of layers."""
    return nn.context_scope(_state["layers"]) if _state["layers"] is not None else nullcontext()


