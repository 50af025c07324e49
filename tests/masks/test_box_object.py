# SPDX-License-Identifier: Apache-2.0
"""The object in a box: against shapes whose masks are known, at the borders, and where there is none."""

from __future__ import annotations

import argparse
import time

import numpy as np
import pytest
from scipy import ndimage

from common import command_line, errors
from data.instances import iou
from data.shapes import shape_mask
from datasets.generate_shapes_dataset import background
from masks.box_object import NothingFound, clipped, ellipse, find_object


def scene(shape, centre, size, height, width, seed=0):
    """A shape on a texture, its mask, and a box around it that is 8 % too large on each side."""
    rng = np.random.default_rng(seed)
    covered = shape_mask(shape, centre, size, height, width)[..., None]
    picture = background(rng, height, width) * (1 - covered) + np.array([215, 40, 45]) * covered
    (x, y), half = centre, 1.16 * size
    box = tuple(int(round(v)) for v in (x - half, y - half, x + half, y + half))
    return picture.round().astype(np.uint8), covered[..., 0] > 0.5, box


def filled(box, size):
    x0, y0, x1, y1 = box
    mask = np.zeros(size, bool)
    mask[y0:y1, x0:x1] = True
    return mask


@pytest.mark.parametrize("shape", ["circle", "square", "triangle", "diamond"])
@pytest.mark.parametrize("scale", [1, 4])
def test_shapes_are_found(shape, scale):
    picture, truth, box = scene(shape, (40 * scale, 30 * scale), 18 * scale, 64 * scale, 80 * scale)
    found = find_object(picture, box)
    assert found.dtype == bool and found.shape == truth.shape
    guesses = [filled(box, truth.shape), ellipse(box, truth.shape)]
    assert iou(found, truth) > max(0.75, *(iou(guess, truth) + 0.15 for guess in guesses))
    assert not (found & ~filled(box, truth.shape)).any()


def test_a_box_around_one_of_two_gives_that_one_only():
    picture, truth, box = scene("circle", (40, 40), 20, 80, 160)
    other = shape_mask("circle", (110, 40), 20, 80, 160) > 0.5
    picture[other] = picture[40, 40]
    found = find_object(picture, box)
    assert iou(found, truth) > 0.85 and not (found & other).any()


def test_a_box_is_clipped_to_the_picture():
    picture, truth, _ = scene("square", (20, 24), 24, 64, 64)
    found = find_object(picture, (-8, -5, 48, 53))
    # the object fills the box up to the picture's corner, which is an unlikely place
    assert iou(found, truth) > 0.8
    assert (find_object(picture, (0, 0, 48, 53)) == found).all()
    # the whole picture as a box leaves nothing around it to compare with, and is answered all the same
    assert find_object(picture, (-10, -10, 100, 100)).any()


@pytest.mark.parametrize(
    "box, problem",
    [
        ((5, 5, 5, 9), "no area"),
        ((9, 5, 5, 9), "no area"),
        ((5, 9, 9, 5), "no area"),
        ((64, 0, 70, 9), "outside"),
        ((0, -9, 9, 0), "outside"),
    ],
)
def test_boxes_that_cannot_be_meant_are_refused(box, problem):
    with pytest.raises(errors.UserError, match=problem):
        find_object(np.zeros((48, 64, 3), np.uint8), box)


@pytest.mark.parametrize("box", [(3, 4, 4, 5), (3, 4, 5, 5), (0, 4, 64, 5), (63, 47, 64, 48), (3, 0, 4, 48)])
def test_boxes_of_a_few_pixels_give_some_of_them(box):
    picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    try:
        mask = find_object(picture, box)
    except NothingFound as nothing:
        mask = nothing.mask
    assert mask.any() and not (mask & ~filled(box, mask.shape)).any()


def test_where_nothing_stands_out_there_is_the_ellipse():
    """Only a dot in the middle of the box differs, far too small to be the boxed object."""
    picture = np.full((100, 120, 3), 90, np.uint8)
    picture[48:52, 58:62] = 250
    with pytest.raises(NothingFound, match="stands out") as raised:
        find_object(picture, (20, 10, 100, 90))
    y, x = np.mgrid[:100, :120] + 0.5
    expected = ((x - 60) / 40) ** 2 + ((y - 50) / 40) ** 2 <= 1
    np.testing.assert_array_equal(raised.value.mask, expected)
    assert "\n" not in str(raised.value)


def test_the_object_is_one_piece_without_holes():
    picture, truth, box = scene("square", (50, 50), 30, 100, 100)
    picture[48:52, 48:52] = (20, 200, 30)
    found = find_object(picture, box)
    assert ndimage.label(found)[1] == 1 and ndimage.label(~found)[1] == 1
    assert found[50, 50] and iou(found, truth) > 0.85


def test_large_pictures_are_worked_on_at_a_bounded_size():
    small, truth, box = scene("circle", (40, 30), 18, 60, 80)
    picture = np.broadcast_to(small[:, None, :, None], (60, 50, 80, 50, 3)).reshape(3000, 4000, 3)
    start = time.time()
    found = find_object(picture, tuple(50 * v for v in box))
    assert time.time() - start < 20
    assert iou(found[25::50, 25::50], truth) > 0.85


def test_clipping():
    assert clipped((-3, 2, 99, 8), (10, 20)) == (0, 2, 20, 8)
    assert clipped((1, 2, 3, 4), (10, 20)) == (1, 2, 3, 4)


@pytest.mark.parametrize("text, box", [("1,2,30,40", (1, 2, 30, 40)), (" -5, 0,7 ,9 ", (-5, 0, 7, 9))])
def test_a_box_is_read(text, box):
    assert command_line.box(text) == box


@pytest.mark.parametrize(
    "text",
    ["", "1,2,3", "1,2,3,4,5", "1.5,2,3,4", "1,2,1,4", "1,4,3,4", "1,2,3,١٢", "0,0,1,9999999999", "1,2 2,3,4"],
)
def test_a_text_that_is_no_box_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError):
        command_line.box(text)
