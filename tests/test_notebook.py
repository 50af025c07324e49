# SPDX-License-Identifier: Apache-2.0
"""demo.ipynb, from its first cell to its last, with a smaller model, fewer pictures and hardly any training."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from PIL import Image

import demo
from tests.helpers import ROOT
from tests.helpers.page import Page


@pytest.fixture()
def notebook():
    return nbformat.read(ROOT / "demo.ipynb", as_version=4)


@pytest.fixture()
def execute(tmp_path, monkeypatch):
    """Run a notebook in an empty folder, where it finds this project; the user's Jupyter configuration is not used."""
    for name in ("JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    folder = tmp_path / "work"
    folder.mkdir()

    def run(book) -> Path:
        NotebookClient(book, timeout=600, startup_timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
        return folder

    return run


def test_it_is_saved_without_outputs(notebook):
    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code")


def test_it_runs_to_its_end(notebook, execute):
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert first.source.count("minutes = 4 ") == 1
    first.source = first.source.replace("minutes = 4 ", "minutes = 0.01 ")
    first.source += "\nimport demo\ndemo.PICTURES = 8\ndemo.MODEL += ' --ngf 2 --ndf 2 --n-blocks 1'"
    before = sorted(ROOT.iterdir())
    folder = execute(notebook) / "demo"
    assert sorted(ROOT.iterdir()) == before, "nothing is written into the project"
    for direction in demo.DIRECTIONS:
        inputs = sorted((folder / demo.DATA / f"test{direction[0]}").glob("*.png"))
        assert len(inputs) == 12
        for path in inputs:
            translated = np.asarray(Image.open(folder / direction / "images" / path.name))
            assert translated.shape == (demo.SIZE, demo.SIZE, 3) and (translated != np.asarray(Image.open(path))).any()
    shown = [folder / unquote(source) for source in Page(folder / "index.html").all("img", "src")]
    assert len(shown) > 2 * 12 * 4 and all(path.is_file() for path in shown)
    outputs = [[o.get("data", {}) for o in cell.get("outputs", [])] for cell in notebook.cells]
    with_pictures = [datas for datas in outputs if any("image/png" in data for data in datas)]
    assert len(with_pictures) == 5, "data, samples, losses, translations, and the one from Python"


def test_a_cell_that_fails_is_noticed(notebook, execute):
    notebook.cells = [cell for cell in notebook.cells if cell.cell_type == "code"][:2]
    notebook.cells[0].source += "\nfolder = 'file'\nopen(folder, 'w').close()"
    with pytest.raises(CellExecutionError, match="is a file"):
        execute(notebook)
