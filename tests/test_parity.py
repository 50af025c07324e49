# SPDX-License-Identifier: Apache-2.0
"""The same model as the authors': outputs, losses and command lines against what their PyTorch code computed."""

from __future__ import annotations

import nnabla as nn
import numpy as np
import pytest
from PIL import Image

from args import train_args
from backend.processes import ALONE
from benchmarks.reference import read_sample, training_flags
from data import instances
from instagan import InstaGAN
from models import (
    GENERATORS,
    INFERENCE,
    Architecture,
    create_parameters,
    discriminator,
    generator,
    number_of_parameters,
)
from training.settings import Settings
from translation.sequence import Batch
from translation.translator import Translator

pytestmark = pytest.mark.usefixtures("on_backend")

# the domain that is made -> the direction that makes it; the domain that is judged -> its discriminator
DIRECTIONS = {"B": "AtoB", "A": "BtoA"}
DISCRIMINATORS = {"A": "dis_x", "B": "dis_y"}
TEN = {
    f"{kind}_loss_{domain}"
    for kind in ("generator", "discriminator", "reconstruction", "identity_mapping", "context_preserving")
    for domain in "xy"
}


def stacked(array):
    """The authors' input (1, 3 + N, H, W) as ours: picture, masks, membership."""
    picture, masks = array[:, :3], array[0, 3:]
    inputs = [nn.Variable(v.shape) for v in (picture, masks[:, None], np.ones((1, len(masks))))]
    for variable, value in zip(inputs, (picture, masks[:, None], 1)):
        variable.d = value
    return inputs


def where(on_backend):
    """The flags of a script that is to compute as the test does."""
    if "cudnn" in on_backend:
        return ["--context", "cudnn"]
    return ["--context", "cpu", "--cpu-kernels", "onednn" if "oneDNN" in on_backend else "nnabla"]


def assert_losses(case, step, losses, on_backend):
    """The first step within 1e-4, the later ones, which come after updates of float32 weights, within 1 %.

    Later losses hang on single decisions of ReLUs near zero, which rounding makes (one moves a gradient by 0.4 %, and
    Adam's first steps take its sign). So the same steps in float64 end 2 % away from the authors' float32 in two-pass
    (in one-pass 5e-6). On AVX2 one such decision, in a mask encoder, falls otherwise: two-pass is 9 % off by the end.
    """
    later = 1e-1 if "AVX2" in on_backend else 1e-2
    want = case.mean_losses(step)
    assert set(want) == TEN
    assert set(losses) == TEN
    for name, value in want.items():
        assert losses[name] == pytest.approx(value, rel=1e-4 if step == 0 else later), f"step {step}, {name}"


@pytest.mark.parametrize("source", ["A", "B"])
def test_one_mini_batch_through_the_generator(reference_case, source):
    reference_case.load()
    inputs = stacked(reference_case.expected[f"G_single_in_{source}"])
    direction = {"A": "AtoB", "B": "BtoA"}[source]
    with nn.parameter_scope(GENERATORS[direction]):
        y, b = generator(*inputs, reference_case.architecture, INFERENCE)
    nn.forward_all([y, b])
    got = np.concatenate([y.d, b.d.transpose(1, 0, 2, 3)], axis=1)
    np.testing.assert_allclose(got, reference_case.expected[f"G_single_out_{source}"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("domain", ["A", "B"])
def test_score_map_of_the_discriminator(reference_case, domain):
    reference_case.load()
    inputs = stacked(reference_case.expected[f"D_in_{domain}"])
    with nn.parameter_scope(DISCRIMINATORS[domain]):
        score = discriminator(*inputs, reference_case.architecture)
    score.forward()
    np.testing.assert_allclose(score.d, reference_case.expected[f"D_out_{domain}"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("made", ["A", "B"])
def test_sequential_translation(reference_case, made):
    reference_case.load()
    direction = DIRECTIONS[made]
    sample = read_sample(reference_case, "val", direction[0])
    assert len(sample.masks) == reference_case.settings["instances"][direction[0]]
    translator = Translator(GENERATORS[direction], reference_case.architecture, reference_case.settings["ins_per"])
    picture, masks = translator.translate(sample.picture, sample.masks)
    want_picture = reference_case.expected[f"translate_fake_{made}_img"][0]
    want_union = reference_case.expected[f"translate_fake_{made}_seg"][0, 0]
    np.testing.assert_allclose(picture, want_picture, rtol=0, atol=1e-4)
    np.testing.assert_allclose(instances.union(masks), want_union, rtol=0, atol=1e-4)


def test_losses_of_the_training_steps(reference_case, on_backend):
    model = InstaGAN(Settings.from_args(train_args("", training_flags(reference_case))))
    reference_case.set_parameters()
    letters, ins_per = {"x": "A", "y": "B"}, reference_case.settings["ins_per"]
    samples = {domain: read_sample(reference_case, "train", letter) for domain, letter in letters.items()}
    batches = {domain: Batch.from_samples([one], ins_per) for domain, one in samples.items()}
    assert len(reference_case.steps) == 3
    for step in range(3):
        assert_losses(reference_case, step, model.step(batches).read(ALONE), on_backend)


def test_parameter_counts_at_full_width():
    create_parameters(Architecture(), np.random.RandomState(0), ["gen_x2y", "dis_x"])
    counts = {}
    for network in ("gen_x2y", "dis_x"):
        with nn.parameter_scope(network):
            counts[network] = number_of_parameters(nn.get_parameters(grad_only=False))
            # only trained parameters are counted
            assert counts[network] == sum(p.size for p in nn.get_parameters().values())
    assert counts == {"gen_x2y": 26_815_108, "dis_x": 9_721_729}


@pytest.fixture(scope="module")
def converted(reference_case, run_script, tmp_path_factory):
    """The case's checkpoint, converted by the command."""
    path = tmp_path_factory.mktemp(reference_case.name) / "model.h5"
    done = run_script("convert_pytorch.py", "--source", reference_case.folder / "checkpoint", "--output", path)
    assert done.returncode == 0, done.stderr
    return path


@pytest.mark.parametrize("made", ["A", "B"])
def test_translate_from_the_command_line(reference_case, converted, run_script, tmp_path, made, on_backend):
    (height, width), settings = reference_case.size, reference_case.settings
    done = run_script(
        *("translate.py", "--model", converted, "--dataroot", reference_case.folder / "data", "--phase", "val"),
        *("--direction", DIRECTIONS[made], "--ins-per", settings["ins_per"], "--ins-max", settings["ins_max"]),
        *("--fineSizeH", height, "--fineSizeW", width, *where(on_backend), "--output", tmp_path / "out"),
        *("--background", "network"),
    )
    assert done.returncode == 0, done.stderr
    got = np.asarray(Image.open(tmp_path / "out" / "images" / "0001.png"), float)
    want = np.clip((reference_case.expected[f"translate_fake_{made}_img"][0].transpose(1, 2, 0) + 1) * 127.5, 0, 255)
    assert got.shape == want.shape
    # rounding takes half a level
    assert np.abs(got - want).max() <= 0.52
    masks = [np.asarray(Image.open(p), float) / 255 for p in sorted((tmp_path / "out" / "masks").glob("0001_*.png"))]
    assert len(masks) == settings["instances"][DIRECTIONS[made][0]]
    want_union = np.clip((reference_case.expected[f"translate_fake_{made}_seg"][0, 0] + 1) / 2, 0, 1)
    # half a level for each mask that the union adds up
    np.testing.assert_allclose(np.clip(sum(masks), 0, 1), want_union, rtol=0, atol=0.52 / 255 * len(masks))


def test_train_from_the_command_line(reference_case, converted, run_script, tmp_path, on_backend):
    done = run_script(
        *("train.py", "--dataroot", reference_case.folder / "data", "--pretrained", converted, *where(on_backend)),
        *("--max-iter", 3, "--log-step", 1, "--monitor-path", tmp_path / "run"),
        *training_flags(reference_case),
    )
    assert done.returncode == 0, done.stderr
    files = (tmp_path / "run").glob("*.series.txt")
    series = {path.name.split(".")[0]: np.loadtxt(path, ndmin=2) for path in files}
    for step in range(3):
        assert all(rows[step, 0] == step and len(rows) == 3 for rows in series.values())
        assert_losses(reference_case, step, {name: rows[step, 1] for name, rows in series.items()}, on_backend)
