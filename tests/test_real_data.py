# SPDX-License-Identifier: Apache-2.0
"""The whole way from published data to translated pictures: a part of CCP, and the InstaGAN authors' samples.

Tests that need this data skip where it is absent; a tiny CCP, made here, goes the same way for everyone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data import pictures
from data.items import find_items
from models import NETWORKS, Architecture, create_parameters
from weights import model_file

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
CCP, COCO, MHP = (SHARED / name for name in ("clothing-co-parsing", "shp2gir_coco", "pants2skirt_mhp"))
SIZE = (36, 24)  # height, width
LOAD = "--loadSizeH 40 --loadSizeW 28 --fineSizeH 36 --fineSizeW 24"
TRAINING = f"{LOAD} --ngf 2 --ndf 2 --n-blocks 1 --max-iter 4 --log-step 1 -c cpu".split()


def needs(folder):
    return pytest.mark.skipif(not folder.is_dir(), reason=f"{folder.name}: this data is not beside the repository")


def succeed(done):
    assert done.returncode == 0, done.stderr
    return done.stdout


def generate_train_translate(run_script, ccp, tmp_path):
    """Data set, training and translation of the held-out pictures by the commands of the README, at a small size."""
    data, run = tmp_path / "jeans2skirt_ccp", tmp_path / "run"
    categories = ["--cat1", "jeans", "--cat2", "skirt", "--holdout", 0.2]
    succeed(run_script("datasets/generate_ccp_dataset.py", "--data_root", ccp, "--save_root", data, *categories))
    succeed(run_script("train.py", "--dataroot", data, "-m", run, *TRAINING))
    for kind in ("generator", "discriminator", "reconstruction", "identity_mapping", "context_preserving"):
        for domain in "xy":
            values = np.loadtxt(run / f"{kind}_loss_{domain}.series.txt", ndmin=2)
            assert 1 <= len(values) <= 4 and np.isfinite(values).all()
    for direction in ("AtoB", "BtoA"):
        out = tmp_path / direction
        command = ["--model", run, "--dataroot", data, "--direction", direction, "--output", out, "-c", "cpu"]
        said = succeed(run_script("translate.py", *command))
        items = find_items(data, "test", direction[0])
        assert f"{len(items)} of {len(items)}" in said
        check_results(out, items, SIZE)
    return data, run


def check_results(out, items, size):
    """A picture for each item, changed where it has an instance, and a mask for each mask that is not empty."""
    assert {p.stem for p in (out / "images").iterdir()} == {item.name for item in items}
    expected = set()
    for item in items:
        areas = pictures.read_masks(list(item.masks.values()), size).sum(axis=(1, 2))
        expected |= {f"{item.name}_{number}.png" for number, area in zip(item.masks, areas) if area}
        after = np.asarray(Image.open(out / "images" / f"{item.name}.png"))
        assert after.shape == (*size, 3)
        before = pictures.read_picture(item.image, size)
        assert np.array_equal(before, after) == (not areas.any())
    assert {p.name for p in (out / "masks").iterdir()} == expected
    assert all(Image.open(out / "masks" / name).size == size[::-1] for name in expected)
    assert all(item.name in (out / "index.html").read_text("utf-8") for item in items)


def test_a_tiny_ccp_from_the_data_set_to_pictures(run_script, tree, tmp_path):
    generate_train_translate(run_script, tree, tmp_path)


@needs(CCP)
def test_ccp_from_the_data_set_to_pictures(run_script, tmp_path):
    data, run = generate_train_translate(run_script, CCP, tmp_path)
    for domain in "AB":
        assert len(find_items(data, "train", domain)) > len(find_items(data, "test", domain)) > 0
    # pictures of which only the categories are known have no masks: they come back as they are
    if (data / "valA").is_dir():
        command = ["--model", run, "--dataroot", data, "--phase", "val", "--output", tmp_path / "val", "-c", "cpu"]
        said = succeed(run_script("translate.py", *command))
        items = find_items(data, "val", "A")
        assert said.count("no instance") == len(items) > 0
        np.testing.assert_array_equal(
            np.asarray(Image.open(tmp_path / "val" / "images" / f"{items[0].name}.png")),
            pictures.read_picture(items[0].image, SIZE),
        )


@pytest.fixture()
def model(tmp_path):
    """A small random model."""
    import nnabla as nn

    arch = Architecture(ngf=4, ndf=2, n_blocks=1)
    create_parameters(arch, np.random.RandomState(0))
    values = {name: v.d * 4 for name, v in nn.get_parameters(grad_only=False).items()}
    more = dict(fineSizeH=40, fineSizeW=36, ins_per=2, ins_max=4, set_order="decreasing")
    model_file.save_model(tmp_path / "m.h5", values, model_file.model_config(arch, networks=sorted(NETWORKS), **more))
    return tmp_path / "m.h5"


@pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
@pytest.mark.parametrize(
    ("root", "most"),
    [pytest.param(COCO, {"A": 8, "B": 5}, marks=needs(COCO)), pytest.param(MHP, {"A": 3, "B": 1}, marks=needs(MHP))],
    ids=["coco", "mhp"],
)
def test_the_authors_samples(run_script, model, tmp_path, root, most, direction):
    """Phase `sample`; up to eight masks in a picture (COCO), masks saved in colour (MHP)."""
    items = find_items(root, "sample", direction[0])
    assert max(len(item.masks) for item in items) == most[direction[0]]
    assert root != MHP or all(Image.open(p).mode == "RGB" for item in items for p in item.masks.values())
    command = ["--model", model, "--dataroot", root, "--phase", "sample", "--direction", direction]
    succeed(run_script("translate.py", *command, "--output", tmp_path / "out", "-c", "cpu"))
    check_results(tmp_path / "out", items, (40, 36))
    masks = [pictures.read_masks(list(item.masks.values()), (40, 36)) for item in items]
    assert any(m.any() for m in masks), "the samples' masks are not all black"
