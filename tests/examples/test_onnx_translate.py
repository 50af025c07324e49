# SPDX-License-Identifier: Apache-2.0
"""examples/onnx_translate.py, run as its docstring says, gives what translate.py gives."""

from __future__ import annotations

import ast
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import export
import translate
from models import Architecture
from tests.helpers import ROOT
from tests.helpers.random_generator import HEIGHT, WIDTH, save_random_model

SCRIPT = ROOT / "examples" / "onnx_translate.py"
ARCH = Architecture(ngf=4, ndf=2, n_blocks=1)

for package in ("onnx", "onnxruntime"):
    pytest.importorskip(package, reason=f"needs {package}: pip install -r requirements-test.txt")


def example(*words, cwd):
    command = [sys.executable, str(SCRIPT), *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, encoding="utf-8")


@pytest.fixture()
def photo(tmp_path):
    """A picture of twice the model's size, with three masks, which are not ordered by size."""
    random = np.random.default_rng(3)
    picture = random.integers(0, 256, (2 * HEIGHT, 2 * WIDTH, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "photo.png")
    for i, (top, left, bottom, right) in enumerate([(2, 2, 10, 9), (12, 3, 31, 30), (3, 20, 13, 38)]):
        mask = np.zeros(picture.shape[:2], np.uint8)
        mask[top:bottom, left:right] = 255
        Image.fromarray(mask).save(tmp_path / f"photo_{i}.png")
    return tmp_path


def read(path):
    return np.asarray(Image.open(path)).astype(int)


@pytest.mark.parametrize("background", ["keep", "network"])
def test_pictures_and_masks_are_those_of_translate(photo, run_main, background):
    model = save_random_model(photo / "model.h5", ARCH, background)
    assert run_main(export, "--model", model, "--direction", "BtoA", "--output", photo / "model.onnx")[0] == 0
    masks = [photo / f"photo_{i}.png" for i in range(3)]
    given = ["--image", photo / "photo.png", "--masks", *masks]
    assert run_main(translate, "--model", model, "--direction", "BtoA", *given, "--output", photo / "want")[0] == 0
    done = example("--model", "model.onnx", *given, "--output", "got", cwd=photo)
    assert done.returncode == 0, done.stderr
    want = read(photo / "want" / "images" / "photo.png")
    got = read(photo / "got" / "picture.png")
    assert np.abs(got - want).max() <= 1
    for i in range(3):
        assert np.abs(read(photo / f"got/mask_{i}.png") - read(photo / f"want/masks/photo_{i}.png")).max() <= 1
    assert np.abs(want - read(photo / "want" / "inputs" / "photo.png")).mean() > 5, "that changes nothing"


def test_another_size(photo, run_main):
    model = save_random_model(photo / "model.h5", ARCH)
    assert run_main(export, "--model", model, "--output", photo / "model.onnx")[0] == 0
    given = ["--image", photo / "photo.png", "--masks", photo / "photo_1.png"]
    size = ["--fineSizeH", 24, "--fineSizeW", 32]
    assert run_main(translate, "--model", model, *given, *size, "--output", photo / "want")[0] == 0
    done = example("--model", "model.onnx", *given, "--size", 24, 32, "--output", "got", cwd=photo)
    assert done.returncode == 0, done.stderr
    assert np.abs(read(photo / "got/picture.png") - read(photo / "want/images/photo.png")).max() <= 1


def test_a_model_that_was_trained_without_masks(photo, run_main):
    model = save_random_model(photo / "model.h5", ARCH, ins_per=0)
    assert run_main(export, "--model", model, "--output", photo / "model.onnx")[0] == 0
    given = ["--image", photo / "photo.png"]
    assert run_main(translate, "--model", model, *given, "--output", photo / "want")[0] == 0
    done = example("--model", "model.onnx", *given, "--output", "got", cwd=photo)
    assert done.returncode == 0, done.stderr
    assert np.abs(read(photo / "got/picture.png") - read(photo / "want/images/photo.png")).max() <= 1


def test_mistakes_are_reported(photo):
    (photo / "model.onnx").touch()
    done = example("--model", "model.onnx", "--image", "none.png", cwd=photo)
    assert done.returncode == 2 and "no file none.png" in done.stderr
    done = example("--model", "model.onnx", "--image", "photo.png", "--size", 30, 40, cwd=photo)
    assert done.returncode == 2 and "multiples of 4" in done.stderr


def test_it_is_short_and_needs_three_packages_only():
    text = SCRIPT.read_text()
    assert len(text.splitlines()) < 120
    imported = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module)
    assert imported - {"__future__", "argparse", "pathlib", "typing"} == {"numpy", "PIL", "onnxruntime"}
