# SPDX-License-Identifier: Apache-2.0
"""The container of docs/deploying.md, as far as that can be tested without Docker."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import numpy as np
from PIL import Image

from models import Architecture
from tests.helpers import ROOT
from tests.helpers.random_generator import HEIGHT, WIDTH, save_random_model


def files_of_the_image():
    """The files and folders that .dockerignore lets through: it excludes all but those."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    return [path for line in lines if line.startswith("!") for path in ROOT.glob(line[1:])]


def test_the_files_of_the_image_suffice(tmp_path):
    image = tmp_path / "instagan"
    image.mkdir()
    for path in files_of_the_image():
        if path.is_dir():
            shutil.copytree(path, image / path.name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, image)
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert re.findall(r"^COPY (\S+) /instagan/$", dockerfile, re.MULTILINE) == ["requirements.txt", "."]
    assert 'ENTRYPOINT ["python", "/instagan/translate.py"]' in dockerfile
    assert (image / "requirements.txt").is_file()
    model = save_random_model(tmp_path / "model.h5", Architecture(ngf=2, ndf=2, n_blocks=0))
    Image.fromarray(np.full((HEIGHT, WIDTH, 3), 90, np.uint8)).save(tmp_path / "photo.png")
    Image.fromarray(np.eye(HEIGHT, WIDTH, dtype=np.uint8) * 255).save(tmp_path / "photo_0.png")
    words = ["--model", model.name, "--image", "photo.png", "--masks", "photo_0.png", "--output", "results"]
    done = subprocess.run(
        [sys.executable, str(image / "translate.py"), *words], cwd=tmp_path, capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "results" / "images" / "photo.png").is_file()
