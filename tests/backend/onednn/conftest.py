# SPDX-License-Identifier: Apache-2.0
"""All tests here compute with oneDNN's kernels, and are skipped where they do not work."""

import pytest

from backend import kernels


@pytest.fixture(autouse=True)
def _onednn(clean_nnabla):
    problem = kernels.problem()
    if problem:
        pytest.skip(problem)
    kernels.configure("onednn")
