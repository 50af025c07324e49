# SPDX-License-Identifier: Apache-2.0
"""A pretended GPU: contexts like those of NNabla's CUDA extension, whose functions are the CPU's."""

from __future__ import annotations

import nnabla as nn
import pytest

from backend import context, pinned_uploads


def pretend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `--context cudnn` set such a context: of its backends NNabla takes the first one that it has.

    CUDA's own runtime is not used, even where it can be loaded: it would take the CPU's addresses for a GPU's.
    """
    original = context.get_extension_context

    def extension_context(name: str, device_id: str = "0", type_config: str = "float") -> nn.Context:
        if name == "cpu":
            return original(name, device_id=device_id, type_config=type_config)
        types = ["float"] if type_config == "float" else ["half", "float"]
        gpu = [f"{library}:{type_}" for library in ("cudnn", "cuda") for type_ in types]
        return nn.Context([*gpu, *(f"cpu:{type_}" for type_ in types)], "CpuCachedArray", device_id)

    monkeypatch.setattr(context, "get_extension_context", extension_context)
    monkeypatch.setattr(context, "_cuda_problem", lambda device_id: "")
    monkeypatch.setattr(pinned_uploads, "uploader", lambda device_id: None)
