# SPDX-License-Identifier: Apache-2.0
"""The choice of CPU kernels."""

import pytest

from backend import kernels
from common.errors import UserError


def test_the_choice_of_kernels(monkeypatch):
    if kernels.problem():
        pytest.skip(kernels.problem())
    assert "oneDNN 3.2" in kernels.configure("auto")
    assert kernels.active()
    assert "NNabla's own (as asked)" in kernels.configure("nnabla")
    assert not kernels.active()
    monkeypatch.setattr(kernels.platform, "machine", lambda: "aarch64")
    assert "x86-64" in kernels.configure("auto")
    with pytest.raises(UserError, match="aarch64"):
        kernels.configure("onednn")
    assert not kernels.active()
