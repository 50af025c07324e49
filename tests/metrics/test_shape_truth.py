# SPDX-License-Identifier: Apache-2.0
"""The known truth of the shapes data: ideal masks, painted shapes, colours."""

from __future__ import annotations

import json

import numpy as np
import pytest

from common import errors
from data import instances, pictures
from data.items import find_items
from metrics import shape_truth
from metrics.shape_truth import SHAPES, Target

INSTANCE = {"shape": "circle", "centre": [20.0, 12.0], "size": 8.0, "colour": [225, 35, 35]}
OWN = (32, 48)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A small data set of circles and squares."""
    from datasets.generate_shapes_dataset import generate

    root = tmp_path_factory.mktemp("shapes") / "data"
    generate(root, train=6, test=4, max_instances=3)
    return root


@pytest.mark.parametrize("letter", "AB")
def test_ideal_masks_are_those_of_the_generator(data, letter):
    truth = shape_truth.read_instances(data, "train", letter)
    items = find_items(data, "train", letter)
    assert {item.name for item in items} == set(truth)
    for item in items:
        for number, path in item.masks.items():
            instance = truth[item.name][number]
            ideal = shape_truth.ideal_mask(instance["shape"], instance, (64, 64), (64, 64))
            np.testing.assert_array_equal(ideal, pictures.read_mask(path))


def test_ideal_masks_at_another_size_are_those_read_at_that_size(data):
    truth = shape_truth.read_instances(data, "test", "A")
    item = find_items(data, "test", "A")[0]
    ideal = shape_truth.ideal_mask("circle", truth[item.name][0], (64, 64), (96, 80))
    np.testing.assert_array_equal(ideal, pictures.read_mask(item.masks[0], (96, 80)))


@pytest.mark.parametrize("letter", "AB")
def test_what_is_painted_in_real_pictures_is_their_masks(data, letter):
    truth = shape_truth.read_instances(data, "train", letter)
    target = shape_truth.target_of(truth)
    found = []
    for item in find_items(data, "train", letter):
        picture = pictures.read_picture(item.image)
        for number, path in item.masks.items():
            painted = shape_truth.painted_mask(picture, target.colour, truth[item.name], number, (64, 64))
            found.append(instances.iou(painted, pictures.read_mask(path)))
    assert np.mean(found) > 0.9 and min(found) > 0.6


def test_painted_pixels_are_near_and_not_of_another_instance():
    other = {**INSTANCE, "centre": [40.0, 12.0], "size": 6.0}
    picture = np.zeros((*OWN, 3), np.uint8)
    picture[:, :] = (40, 60, 235)
    painted = shape_truth.painted_mask(picture, np.array([40, 60, 235]), [INSTANCE, other], 0, OWN)
    rows, columns = np.nonzero(painted)
    # 1.5 times the size to each side, cut off by the picture above and by the other's square (from 33 on) to the right
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (0, 23, 8, 31)
    assert painted[:24, 8:32].all()
    assert not shape_truth.painted_mask(picture, np.array([40, 60, 164]), [INSTANCE, other], 0, OWN).any()


@pytest.mark.parametrize("shape", SHAPES)
def test_each_shape_is_nearest_to_itself(shape):
    ideal = shape_truth.ideal_mask(shape, INSTANCE, OWN, OWN)
    assert shape_truth.nearest_shape(ideal, INSTANCE, OWN) == shape


@pytest.mark.parametrize("where", [np.s_[4:5, 12:13], np.s_[0:1, 0:1], np.s_[:, :]])
def test_a_speck_and_everything_are_no_shape(where):
    mask = np.zeros(OWN, bool)
    assert shape_truth.nearest_shape(mask, INSTANCE, OWN) is None
    mask[where] = True
    assert shape_truth.nearest_shape(mask, INSTANCE, OWN) is None


@pytest.mark.parametrize("letter, other", ["AB", "BA"])
def test_untouched_pictures_do_not_show_the_target(data, letter, other):
    """Pixels of the background that are similar to the target's colour do not count as the target."""
    truth = shape_truth.read_instances(data, "train", letter)
    target = shape_truth.target_of(shape_truth.read_instances(data, "train", other))
    for item in find_items(data, "train", letter):
        picture = pictures.read_picture(item.image)
        for number, instance in enumerate(truth[item.name]):
            painted = shape_truth.painted_mask(picture, target.colour, truth[item.name], number, (64, 64))
            assert shape_truth.nearest_shape(painted, instance, (64, 64)) is None


def test_a_circle_in_a_square_has_their_ratio_of_areas():
    big = {**INSTANCE, "centre": [200.0, 200.0], "size": 150.0}
    circle, square = (shape_truth.ideal_mask(shape, big, (400, 400), (400, 400)) for shape in ("circle", "square"))
    assert instances.iou(circle, square) == pytest.approx(np.pi / 4, abs=1e-3)


def test_colour_error():
    picture = np.zeros((*OWN, 3), np.uint8)
    picture[:4] = (30, 60, 90)
    where = np.zeros(OWN, bool)
    assert shape_truth.colour_error(picture, where, np.array([30, 60, 90])) is None
    where[:4, :4] = True
    assert shape_truth.colour_error(picture, where, np.array([30, 63, 84])) == 3
    where[4:8, :4] = True
    assert shape_truth.colour_error(picture, where, np.array([15, 30, 45])) == 0


def test_the_target_is_what_all_instances_have_in_common():
    second = {**INSTANCE, "colour": [205, 45, 35]}
    target = shape_truth.target_of({"0": [INSTANCE], "1": [], "2": [second]})
    assert isinstance(target, Target) and target.shape == "circle"
    np.testing.assert_array_equal(target.colour, [215, 40, 35])
    assert shape_truth.target_of({"0": []}) is None


def test_data_without_truth(tmp_path):
    assert shape_truth.read_instances(tmp_path, "test", "A") is None


@pytest.mark.parametrize(
    "text",
    ["[", "[1]", '{"0": 3}', json.dumps({"0": [{**INSTANCE, "shape": "star"}]})]
    + [json.dumps({"0": [{k: v for k, v in INSTANCE.items() if k != left_out}]}) for left_out in INSTANCE]
    + [json.dumps({"0": [{**INSTANCE, "centre": [1]}]}), json.dumps({"0": [{**INSTANCE, "size": 0}]})],
)
def test_damaged_truth_is_refused_in_one_line(tmp_path, text):
    (tmp_path / "testA.json").write_text(text)
    with pytest.raises(errors.UserError, match="testA.json"):
        shape_truth.read_instances(tmp_path, "test", "A")
