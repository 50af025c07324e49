# SPDX-License-Identifier: Apache-2.0
"""export.py as a user runs it: the files that it writes, and its messages about mistakes."""

from __future__ import annotations

import errno
import json
import sys

import pytest

import export
from common.errors import UserError
from models import Architecture
from tests.helpers.random_generator import save_random_model

ARCH = Architecture(ngf=2, ndf=2, n_blocks=0)


@pytest.fixture()
def model(tmp_path):
    return save_random_model(tmp_path / "model.h5", ARCH, "keep")


@pytest.fixture()
def refused(run_main, model, tmp_path):
    """Run export.py and expect that it refuses in one line and leaves no file; return the line."""

    def run(*arguments, of=model):
        before = sorted(tmp_path.iterdir())
        code, _, err = run_main(export, "--model", of, *arguments)
        assert code == 2 and err.count("\n") == 1, err
        assert sorted(tmp_path.iterdir()) == before
        return err

    return run


def test_onnx(run_main, model, tmp_path):
    onnx = pytest.importorskip("onnx", reason="needs onnx: pip install -r requirements-test.txt")
    words = ["--model", model, "--direction", "BtoA", "--output", tmp_path / "out.onnx"]
    more = ["--fineSizeH", 24, "--fineSizeW", 32, "--ins-per", 3, "--background", "network"]
    code, out, err = run_main(export, *words, *more)
    assert code == 0, err
    assert "BtoA" in out and "any number of masks" in out
    properties = {one.key: one.value for one in onnx.load(str(tmp_path / "out.onnx")).metadata_props}
    expected = {"direction": "BtoA", "height": "24", "width": "32", "ins_per": "3", "background": "network"}
    assert {**properties, **expected} == properties
    # a file that is there is replaced only if asked for
    assert run_main(export, *words)[0] == 2
    assert run_main(export, *words, "--overwrite", "--type-config", "half")[0] == 0
    properties = {one.key: one.value for one in onnx.load(str(tmp_path / "out.onnx")).metadata_props}
    assert properties["precision"] == "half" and properties["background"] == "keep"


def test_nnp(run_main, model, tmp_path):
    code, out, err = run_main(export, "--model", model, "--format", "nnp", "--output", tmp_path / "out.nnp")
    assert code == 0, err
    assert "16x20" in out and "2 masks" in out
    assert (tmp_path / "out.nnp").stat().st_size > 1000


def test_onnx_is_missing(refused, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert "pip install -r requirements-export.txt" in refused("--output", tmp_path / "out.onnx")


def test_mistakes_are_one_line_and_leave_no_file(refused, model, tmp_path):
    nnp = ["--format", "nnp", "--output", tmp_path / "out.nnp"]
    assert "no folder" in refused("--format", "nnp", "--output", tmp_path / "none" / "out.nnp")
    assert "does not end in .nnp" in refused("--format", "nnp", "--output", tmp_path / "out.onnx")
    assert "does not end in .onnx" in refused("--output", tmp_path / "out")
    assert "--type-config half is for --format onnx" in refused(*nnp, "-t", "half")
    assert "--fineSizeH 20" in refused(*nnp, "--fineSizeH", 21)
    assert "--fineSizeW 8" in refused(*nnp, "--fineSizeW", 4)
    assert "no model" in refused(*nnp, of=tmp_path / "other.h5")
    (tmp_path / "out.nnp").mkdir()
    assert "is a folder" in refused(*nnp)


def test_a_model_of_one_direction(refused, model, tmp_path):
    config = json.loads(model.with_suffix(".json").read_text())
    config["networks"] = ["gen_x2y"]
    model.with_suffix(".json").write_text(json.dumps(config))
    assert "give the other --direction" in refused(
        "--format", "nnp", "--output", tmp_path / "out.nnp", "--direction", "BtoA"
    )


def test_a_full_disk_leaves_no_part_of_a_file(refused, tmp_path, monkeypatch):
    def write_part(path, trained):
        path.write_bytes(b"part")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(export, "write_nnp", write_part)
    assert "No space left" in refused("--format", "nnp", "--output", tmp_path / "out.nnp")


def test_a_size_that_is_not_known(model, tmp_path):
    config = json.loads(model.with_suffix(".json").read_text())
    del config["fineSizeH"]
    model.with_suffix(".json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="--fineSizeH"):
        export.load_translator(model, "AtoB")
