# SPDX-License-Identifier: Apache-2.0
"""NNP files, read by NNabla's own command line."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from exporting.nnp import write_nnp
from exporting.trained_generator import trained_generator
from models import Architecture
from tests.helpers.random_generator import by_nnabla, random_input, save_random_model
from translation.translator import load_translator

CLI = [sys.executable, "-m", "nnabla.utils.cli.cli"]


@pytest.mark.parametrize("norm, background", [("instance", "keep"), ("batch", "network")])
def test_nnabla_cli_infers(tmp_path, norm, background):
    arch = Architecture(ngf=4, ndf=2, n_blocks=1, norm=norm)
    model = save_random_model(tmp_path / "model.h5", arch, background)
    trained = trained_generator(load_translator(model, "BtoA"), "BtoA")
    picture, masks = random_input(2)
    # before, since the file's constants become parameters
    want_y, want_b = by_nnabla("BtoA", arch, picture, masks, background == "keep")
    write_nnp(tmp_path / "model.nnp", trained)
    picture.tofile(tmp_path / "picture.bin")
    masks.tofile(tmp_path / "masks.bin")
    words = [*CLI, "infer", "-c", "model.nnp", "-o", "result", "picture.bin", "masks.bin"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr
    # it writes the picture, and behind it the masks
    result = np.fromfile(tmp_path / "result_0.bin", np.float32)
    np.testing.assert_allclose(result[: picture.size].reshape(picture.shape), want_y, rtol=0, atol=1e-6)
    np.testing.assert_allclose(result[picture.size :].reshape(masks.shape), want_b, rtol=0, atol=1e-6)
    assert want_y.std() > 0.1 and want_b[0].std() > 0.1, "an output without detail tests nothing"


def test_nnabla_cli_forwards_a_table(tmp_path):
    arch = Architecture(ngf=2, ndf=2, n_blocks=0)
    loaded = load_translator(save_random_model(tmp_path / "model.h5", arch), "AtoB")
    write_nnp(tmp_path / "model.nnp", trained_generator(loaded, "AtoB"))
    picture, masks = random_input(2)
    np.save(tmp_path / "picture.npy", picture[0])
    np.save(tmp_path / "masks.npy", masks[:, 0])
    (tmp_path / "table.csv").write_text("picture,masks\npicture.npy,masks.npy\n")
    (tmp_path / "out").mkdir()
    words = [*CLI, "forward", "-c", "model.nnp", "-d", "table.csv", "-o", "out"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr
    header, row = (tmp_path / "out" / "output_result.csv").read_text().splitlines()
    assert header.split(",") == ["picture", "masks", "translated_picture", "translated_masks__0", "translated_masks__1"]
    assert all((tmp_path / "out" / file).is_file() for file in row.split(",")[2:])
