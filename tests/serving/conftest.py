# SPDX-License-Identifier: Apache-2.0
"""What the tests of app.py share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from flask.testing import FlaskClient


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's temporary folder, for servers that a test kills, which then leave theirs behind."""
    # tests list their own folder
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@pytest.fixture()
def client(tmp_path: Path, model: Path) -> FlaskClient:
    """A client of the application with the `model` of the test's module."""
    # Flask may be missing, and then these tests are skipped
    from tests.helpers.app import make_client

    return make_client(tmp_path / "files", "--model", model)
