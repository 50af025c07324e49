# SPDX-License-Identifier: Apache-2.0
"""What stays around the instances of a translation: `--background keep` and `--background network`."""

from __future__ import annotations

import json

import nnabla as nn
import numpy as np
import pytest
from scipy.ndimage import maximum_filter

import train
import translate
from common.errors import UserError
from data import pictures
from data.items import find_items
from datasets import generate_shapes_dataset
from models import NETWORKS, Architecture, create_parameters
from translation.translator import Translator, load_translator
from weights import model_file

ARCH = Architecture(ngf=2, n_blocks=1)
HEIGHT, WIDTH = 16, 20
SIZES = "--loadSizeH 12 --loadSizeW 16 --fineSizeH 12 --fineSizeW 16".split()
SMALL_RUN = [*SIZES, *"-c cpu --n-layers-D 1 --ngf 2 --ndf 2 --n-blocks 0 --max-epoch 3".split()]

pytestmark = pytest.mark.usefixtures("blank_curves")


@pytest.fixture()
def networks():
    """Random ones, whose translations are far from their inputs."""
    create_parameters(ARCH, np.random.RandomState(5))
    for name, variable in nn.get_parameters(grad_only=False).items():
        if name.endswith("W"):
            variable.d = variable.d * 10


@pytest.fixture()
def example():
    """A picture of noise (3, H, W) and three masks (3, H, W), in [-1, 1]; one pixel in four has none."""
    picture = np.random.default_rng(0).uniform(-1, 1, (3, HEIGHT, WIDTH)).astype(np.float32)
    masks = -np.ones((3, HEIGHT, WIDTH), np.float32)
    masks[0, 1:5, 1:6] = masks[1, 7:12, 2:8] = masks[2, 4:9, 12:17] = 1
    return picture, masks


def in_passes(picture, masks):
    """The same by single passes of two masks, put together with NumPy."""
    bare = Translator("gen_x2y", ARCH, 2)
    new_masks = []
    for start in range(0, len(masks), 2):
        old = masks[start : start + 2]
        painted, new = bare.translate(picture, old)
        covered = np.clip(((old + 1) / 2 + (new + 1) / 2).sum(axis=0), 0, 1)
        edge = maximum_filter(np.clip(((old + 1) / 2).sum(axis=0), 0, 1), 3, mode="constant") / 2
        w = np.maximum(covered, edge)
        picture = picture + w * (painted - picture)
        new_masks.extend(new)
    return picture, np.array(new_masks)


@pytest.mark.usefixtures("networks")
def test_each_pass_changes_the_picture_where_its_instances_are(example):
    picture, masks = example
    y, b = Translator("gen_x2y", ARCH, 2, keep_background=True).translate(picture, masks)
    want_y, want_b = in_passes(picture, masks)
    np.testing.assert_allclose(y, want_y, atol=1e-5)
    np.testing.assert_allclose(b, want_b, atol=1e-5)
    assert np.abs(y - picture).max() > 0.5


@pytest.mark.usefixtures("networks")
def test_pixels_without_a_mask_stay_bit_for_bit(example):
    # with this bias there are no new masks
    nn.get_parameters()["gen_x2y/decoder_mask/conv/b"].d = -30
    picture, masks = example
    y, b = Translator("gen_x2y", ARCH, 2, keep_background=True).translate(picture, masks)
    far = ~maximum_filter((masks > -1).any(axis=0), 3)
    assert far.any() and (b == -1).all()
    np.testing.assert_array_equal(y[:, far], picture[:, far])
    bare, _ = Translator("gen_x2y", ARCH, 2).translate(picture, masks)
    assert (bare[:, far] != picture[:, far]).any()


@pytest.mark.usefixtures("networks")
def test_without_masks_there_is_no_background(example):
    picture, masks = example
    kept, _ = Translator("gen_x2y", ARCH, 0, keep_background=True).translate(picture, masks[:0])
    bare, _ = Translator("gen_x2y", ARCH, 0).translate(picture, masks[:0])
    np.testing.assert_array_equal(kept, bare)


# --- what models and runs say of it


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "shapes"
    generate_shapes_dataset.generate(root, height=24, width=24, train=4, test=1, max_instances=3, seed=5)
    return root


@pytest.mark.parametrize("background", ["keep", "network"])
def test_a_model_says_how_it_was_trained(shapes, tmp_path, run_main, background):
    flags = ["--dataroot", shapes, *SMALL_RUN, "--max-iter", 1, "--background", background]
    assert run_main(train, *flags, "--monitor-path", tmp_path)[0] == 0
    assert json.loads((tmp_path / "params_000001.json").read_text())["background"] == background
    assert load_translator(tmp_path, "AtoB").translator.keep_background == (background == "keep")
    for asked in ("keep", "network"):
        assert load_translator(tmp_path, "AtoB", background=asked).translator.keep_background == (asked == "keep")


@pytest.mark.usefixtures("networks")
def test_models_of_earlier_versions_translate_as_before(tmp_path):
    values = {name: variable.d for name, variable in nn.get_parameters(grad_only=False).items()}
    config = model_file.model_config(ARCH, networks=sorted(NETWORKS), ins_per=2, set_order="decreasing", fineSizeH=16)
    path = tmp_path / "model.h5"
    model_file.save_model(path, values, config)
    nn.clear_parameters()
    assert not load_translator(path, "AtoB", width=20).translator.keep_background
    model_file.save_model(path, values, {**config, "background": "blue"})
    with pytest.raises(UserError, match="its background is not one of keep, network"):
        load_translator(path, "AtoB", width=20)


def test_a_run_of_an_earlier_version_goes_on_as_it_began(shapes, tmp_path, run_main):
    """Its args.json has no background."""
    flags = ["--dataroot", shapes, *SMALL_RUN, "--background", "network", "--monitor-path", tmp_path]
    assert run_main(train, *flags, "--max-iter", 1)[0] == 0
    path = tmp_path / "args.json"
    saved = json.loads(path.read_text())
    del saved["background"]
    path.write_text(json.dumps(saved))
    code, _, err = run_main(train, "--monitor-path", tmp_path, "--resume", "--background", "keep", "--max-iter", 2)
    assert code == 2 and "--resume cannot change --background keep (was network)" in err
    assert run_main(train, "--monitor-path", tmp_path, "--resume", "--max-iter", 2)[0] == 0
    assert json.loads((tmp_path / "params_000002.json").read_text())["background"] == "network"


def test_network_is_the_bare_output(shapes, tmp_path, run_main):
    """The flag reaches the translation, and is explained where it makes no sense."""
    flags = ["--dataroot", shapes, *SMALL_RUN, "--max-iter", 1, "--monitor-path", tmp_path / "run"]
    assert run_main(train, *flags)[0] == 0
    found = {}
    for background in ("keep", "network"):
        out = tmp_path / background
        arguments = ["--model", tmp_path / "run", "--dataroot", shapes, "--background", background, "--output", out]
        code, said, err = run_main(translate, *arguments)
        assert code == 0, err
        assert ("means nothing" in said) == (background == "network")
        name = sorted(path.name for path in (out / "images").iterdir())[0]
        found[background] = pictures.read_picture(out / "images" / name)
    assert (found["keep"] != found["network"]).mean() > 0.5
    item = min(find_items(shapes, "test", "A"), key=lambda one: one.name)
    picture, masks = pictures.read_item(item, (12, 16))
    nn.clear_parameters()
    bare = load_translator(tmp_path / "run", "AtoB", background="network").translator
    painted, _ = bare.translate(pictures.to_network(picture), pictures.masks_to_network(masks))
    np.testing.assert_array_equal(pictures.to_picture(painted), found["network"])
