# SPDX-License-Identifier: Apache-2.0
"""ONNX files in onnxruntime, against NNabla and against the authors' numbers."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.reference import read_sample
from data import instances
from examples import onnx_translate
from exporting.trained_generator import TrainedGenerator, trained_generator
from models import GENERATORS, Architecture
from tests.helpers.random_generator import by_nnabla, random_input, save_random_model
from translation.translator import load_translator

onnx = pytest.importorskip("onnx", reason="needs onnx: pip install -r requirements-test.txt")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install -r requirements-test.txt")

from exporting.onnx_generator import onnx_model

OUTPUTS = ["translated_picture", "translated_masks"]
ARCHITECTURES = {norm: Architecture(ngf=4, ndf=2, n_blocks=2, norm=norm) for norm in ("instance", "batch")}


def session(model):
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def by_onnxruntime(model, picture, masks):
    return session(model).run(OUTPUTS, {"picture": picture, "masks": masks})


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Random models, by their normalization."""
    folder = tmp_path_factory.mktemp("models")
    return {norm: save_random_model(folder / f"{norm}.h5", arch) for norm, arch in ARCHITECTURES.items()}


def of_case(case, direction):
    """The generator of a reference case."""
    prefix = f"{GENERATORS[direction]}/"
    names = [name for name in case.parameters if name.startswith(prefix)]
    parameters = {name[len(prefix) :]: case.parameters[name] for name in names}
    ins_per = case.settings["ins_per"]
    return TrainedGenerator(
        GENERATORS[direction], direction, case.architecture, parameters, case.size, ins_per, "decreasing", False
    )


@pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
@pytest.mark.parametrize("background", ["keep", "network"])
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_any_size_and_any_number_of_masks(saved, norm, background, direction):
    generator = trained_generator(load_translator(saved[norm], direction, background=background), direction)
    model = onnx_model(generator)
    for count in (1, 2, 5):
        for height, width in ((8, 8), (16, 20), (48, 32)):
            picture, masks = random_input(count, height, width)
            y, b = by_onnxruntime(model, picture, masks)
            want_y, want_b = by_nnabla(direction, generator.arch, picture, masks, background == "keep")
            np.testing.assert_allclose(y, want_y, rtol=0, atol=1e-4)
            np.testing.assert_allclose(b, want_b, rtol=0, atol=1e-4)
            assert want_y.std() > 0.1 and want_b[0].std() > 0.1, "an output without detail tests nothing"


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_of_empty_masks_alone_the_first_is_translated(saved, norm):
    generator = trained_generator(load_translator(saved[norm], "AtoB"), "AtoB")
    picture, masks = random_input(3)
    masks[:] = -1
    y, b = by_onnxruntime(onnx_model(generator), picture, masks)
    want_y, want_b = by_nnabla("AtoB", generator.arch, picture, masks, False)
    np.testing.assert_allclose(y, want_y, rtol=0, atol=1e-4)
    np.testing.assert_allclose(b, want_b, rtol=0, atol=1e-4)
    assert (b[0] != -1).any() and (b[1:] == -1).all()


@pytest.mark.parametrize("source", ["A", "B"])
def test_one_mini_batch_as_the_authors_code(reference_case, source):
    given = reference_case.expected[f"G_single_in_{source}"]
    model = onnx_model(of_case(reference_case, {"A": "AtoB", "B": "BtoA"}[source]))
    y, b = by_onnxruntime(model, given[:, :3], given[0, 3:, None])
    got = np.concatenate([y, b.transpose(1, 0, 2, 3)], axis=1)
    np.testing.assert_allclose(got, reference_case.expected[f"G_single_out_{source}"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("made", ["A", "B"])
def test_sequential_translation_as_the_authors_code(reference_case, made):
    direction = {"A": "BtoA", "B": "AtoB"}[made]
    loaded = session(onnx_model(of_case(reference_case, direction)))
    sample = read_sample(reference_case, "val", direction[0])
    settings = loaded.get_modelmeta().custom_metadata_map
    picture, masks = onnx_translate.translate(loaded, settings, sample.picture, sample.masks)
    want_union = reference_case.expected[f"translate_fake_{made}_seg"][0, 0]
    np.testing.assert_allclose(picture, reference_case.expected[f"translate_fake_{made}_img"][0], rtol=0, atol=1e-4)
    np.testing.assert_allclose(instances.union(masks), want_union, rtol=0, atol=1e-4)


def test_half_precision(saved):
    generator = trained_generator(load_translator(saved["instance"], "AtoB", background="keep"), "AtoB")
    half = onnx_model(generator, half=True)
    picture, masks = random_input(2)
    y, b = by_onnxruntime(half, picture, masks)
    assert y.dtype == b.dtype == np.float32
    want_y, want_b = by_nnabla("AtoB", generator.arch, picture, masks, True)
    # half precision has 11 bits; each of the 14 layers rounds
    np.testing.assert_allclose(y, want_y, rtol=0, atol=0.02)
    np.testing.assert_allclose(b, want_b, rtol=0, atol=0.02)
    weights = [value for value in half.graph.initializer if value.name.endswith(("/W", "/b"))]
    assert len(weights) == len(generator.parameters)
    assert all(value.data_type == onnx.TensorProto.FLOAT16 for value in weights)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_the_file_is_valid_and_says_how_to_use_it(saved, norm, half):
    model = onnx_model(trained_generator(load_translator(saved[norm], "BtoA", background="keep"), "BtoA"), half)
    onnx.checker.check_model(model, full_check=True)
    loaded = session(model)
    assert loaded.get_modelmeta().custom_metadata_map == {
        "direction": "BtoA",
        "height": "16",
        "width": "20",
        "multiple_of": "4",
        "ins_per": "2",
        "set_order": "decreasing",
        "background": "keep",
        "licence_of_code": "Apache-2.0",
        "precision": "half" if half else "float",
    }
    shapes = {value.name: value.shape for value in [*loaded.get_inputs(), *loaded.get_outputs()]}
    picture, masks = [1, 3, "height", "width"], ["instances", 1, "height", "width"]
    assert shapes == {
        "picture": picture,
        "masks": masks,
        "translated_picture": picture,
        "translated_masks": masks,
    }
