# SPDX-License-Identifier: Apache-2.0
"""EfficientNet-Lite0: the same features as in PyTorch, its input, and weights that are missing or damaged."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from metrics import efficientnet_lite0
from metrics.efficientnet_lite0 import EfficientNetLite0
from tests.helpers import ROOT
from tests.helpers.closeness import assert_close
from tests.helpers.lite import load_lite

FIXTURE = ROOT / "tests" / "fixtures" / "reference" / "efficientnet-lite0" / "features.npz"


@pytest.fixture()
def reference():
    with np.load(FIXTURE) as arrays:
        return dict(arrays)


def test_the_features_of_every_stage_are_those_of_pytorch(on_backend, reference):
    images = list(reference["images"].repeat(4, axis=1).repeat(4, axis=2))
    network = load_lite()
    for number, stage in enumerate(network.stages(images), 1):
        places = np.linspace(0, stage.shape[2] - 1, 4).round().astype(int)
        assert_close([stage[:, :, places][..., places]], [reference[f"stage_{number}"]], 1e-4)
    assert number == 7
    assert_close([network.features(images)], [reference["pooled"]], 1e-4)


def test_the_features_of_a_picture_do_not_depend_on_its_company(on_backend):
    network = load_lite()
    images = list(np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8))
    together = network.features(images)
    assert together.shape == (5, 1280)
    assert_close([network.features(images[3:4])[0]], [together[3]])
    assert network.features([]).shape == (0, 1280)


def test_its_input_is_resized_and_between_minus_and_plus_one():
    image = np.zeros((10, 20, 3), np.uint8)
    image[:, 10:] = (255, 127, 0)
    x = efficientnet_lite0.to_network(image)
    assert x.shape == (3, 224, 224) and x.dtype == np.float32
    np.testing.assert_allclose(x[:, 100, -1], [1, 0, -127 / 128])
    np.testing.assert_allclose(x[:, 100, 0], -127 / 128)


def test_padding_is_that_of_tensorflow():
    """SAME pads an even side by 0 before and 1 after: a kernel that only sees its middle stands on pixels 1, 3, ..."""
    w = np.zeros((1, 1, 3, 3), np.float32)
    w[0, 0, 1, 1] = 1
    ones, zeros = np.ones(1, np.float32), np.zeros(1, np.float32)
    normalization = {"weight": ones, "bias": zeros, "running_mean": zeros, "running_var": ones - efficientnet_lite0.EPS}
    weights = {"c.weight": w, **{f"n.{name}": array for name, array in normalization.items()}}
    layer = efficientnet_lite0._folded(weights, "c", "n", stride=2)
    assert layer.pad == 1 and layer.w.shape == (1, 1, 4, 4)
    # the first window begins at pixel -1: its entry 2 is on pixel 1
    assert layer.w.d[0, 0, 2, 2] == pytest.approx(1) and np.count_nonzero(layer.w.d) == 1


def test_the_weights_are_found_without_importing_anything():
    load_lite()
    imported = set(sys.modules)
    assert efficientnet_lite0.find().suffix == ".pth"
    assert efficientnet_lite0.PACKAGE not in set(sys.modules) - imported and "torch" not in sys.modules


def test_without_the_package_one_line_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setattr(efficientnet_lite0, "PACKAGE", "a_package_that_is_not_installed")
    assert efficientnet_lite0.load(efficientnet_lite0.find()) is None
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and "pip install -r requirements-scores.txt" in said
    assert (ROOT / "requirements-scores.txt").is_file()


def test_a_damaged_file_is_named_and_done_without(tmp_path, capsys):
    (tmp_path / "w.pth").write_bytes(b"\x80")
    assert efficientnet_lite0.load(tmp_path / "w.pth") is None
    assert "w.pth" in capsys.readouterr().out


def test_another_networks_file_is_refused():
    checkpoint = ROOT / "tests" / "fixtures" / "reference" / "one-pass" / "checkpoint"
    with pytest.raises(efficientnet_lite0.UserError, match="not EfficientNet-Lite0"):
        EfficientNetLite0(next(checkpoint.glob("*_G_A.pth")))
