# SPDX-License-Identifier: Apache-2.0
"""Label maps with soft edges, noise, void outlines and backgrounds, against the hard maps that they were made from.

python -m pytest tests/masks/test_label_maps.py
"""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter
from scipy.ndimage import maximum_filter, minimum_filter

from common.errors import UserError
from data.instances import iou
from masks.sources import open_source

WIDTH, HEIGHT = 160, 120
COLOURS = [(0, 0, 0), (255, 0, 0), (0, 255, 0), (60, 90, 230), (250, 240, 90)]
GREYS = [0, 100, 200, 50, 250]


def discs(draw, k):
    for i, (x, y, r) in enumerate([(30, 30, 17), (100, 40, 25), (50, 90, 20), (130, 95, 14)]):
        draw.ellipse([k * (x - r), k * (y - r), k * (x + r), k * (y + r)], fill=i + 1)


def touching(draw, k):
    for i in range(4):
        draw.ellipse([k * (5 + 35 * i), k * (30 + 5 * i), k * (43 + 35 * i), k * (70 + 5 * i)], fill=i + 1)


def at_the_border(draw, k):
    for i, (x, y) in enumerate([(0, 30), (90, 0), (159, 70), (60, 119)]):
        draw.ellipse([k * (x - 22), k * (y - 22), k * (x + 22), k * (y + 22)], fill=i + 1)


def with_holes(draw, k):
    for i, (x, y) in enumerate([(40, 35), (115, 80)]):
        draw.ellipse([k * (x - 28), k * (y - 28), k * (x + 28), k * (y + 28)], fill=i + 1)
        draw.ellipse([k * (x - 12), k * (y - 12), k * (x + 12), k * (y + 12)], fill=0)


def polygons(draw, k):
    for i, points in enumerate([[(5, 10), (70, 25), (20, 60)], [(90, 15), (150, 40), (140, 80), (85, 70)]]):
        draw.polygon([(k * x, k * y) for x, y in points], fill=i + 1)


SCENES = [discs, touching, at_the_border, with_holes, polygons]


def drawn(scene, k=1):
    """The indices of a scene, (H, W) at `k` times its size."""
    image = Image.new("L", (k * WIDTH, k * HEIGHT))
    scene(ImageDraw.Draw(image), k)
    return np.asarray(image)


def hard(scene, k):
    """The index that covers most of each pixel."""
    large = drawn(scene, k)
    parts = [(large == i).reshape(HEIGHT, k, WIDTH, k).mean(axis=(1, 3)) for i in range(large.max() + 1)]
    return np.argmax(parts, axis=0)


def coloured(indices, colours):
    return Image.fromarray(np.array(colours, np.uint8)[indices])


def resized(k, filter):
    return lambda scene, colours: (coloured(drawn(scene, k), colours).resize((WIDTH, HEIGHT), filter), hard(scene, k))


def as_jpeg(quality):
    def make(scene, colours):
        file = io.BytesIO()
        coloured(hard(scene, 4), colours).save(file, "JPEG", quality=quality)
        return Image.open(file), hard(scene, 4)

    return make


def brushed(scene, colours):
    return coloured(hard(scene, 4), colours).filter(ImageFilter.GaussianBlur(0.8)), hard(scene, 4)


SOFT = {
    "2x": resized(2, Image.BOX),
    "3x": resized(3, Image.BOX),
    "4x": resized(4, Image.BOX),
    "8x": resized(8, Image.BOX),
    "bilinear": resized(4, Image.BILINEAR),
    "bicubic": resized(4, Image.BICUBIC),
    "lanczos": resized(4, Image.LANCZOS),
    "brush": brushed,
    "jpeg 75": as_jpeg(75),
    "jpeg 50": as_jpeg(50),
}


def read(folder, image):
    """The instances of a label map, and its size."""
    Image.new("RGB", image.size).save(folder / "photo.jpg")
    image.save(folder / "map.png")
    source = open_source(folder / "map.png")
    return [instance.mask for instance in source.instances(folder / "photo.jpg", image.size[::-1])]


def assert_objects(masks, truth):
    expected = [truth == i for i in np.unique(truth) if i]
    assert len(masks) == len(expected)
    for mask in expected:
        assert max(iou(mask, one) for one in masks) >= 0.9


def assert_unchanged(masks, labels):
    expected = [labels == value for value in np.unique(labels) if value]
    assert len(masks) == len(expected)
    for mask, truth in zip(masks, expected):
        np.testing.assert_array_equal(mask, truth)


# --- edge colours -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("kind", [kind for kind in SOFT if "jpeg" not in kind])
@pytest.mark.parametrize("colours", [COLOURS, GREYS], ids=["colours", "greys"])
def test_edge_colours_are_given_to_the_objects(tmp_path, scene, kind, colours):
    image, truth = SOFT[kind](scene, colours)
    assert len(np.unique(np.asarray(image).reshape(WIDTH * HEIGHT, -1), axis=0)) > len(np.unique(truth))
    assert_objects(read(tmp_path, image), truth)


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("kind", [kind for kind in SOFT if "jpeg" in kind])
@pytest.mark.parametrize("colours", [COLOURS, GREYS], ids=["colours", "greys"])
def test_maps_that_were_jpegs_are_read_right_or_refused(tmp_path, scene, kind, colours):
    image, truth = SOFT[kind](scene, colours)
    try:
        masks = read(tmp_path, image)
    except UserError as error:
        assert "save it as PNG and never as JPEG" in str(error)
    else:
        assert_objects(masks, truth)


def test_large_objects_in_a_map_that_was_a_jpeg_are_found(tmp_path):
    for colours in (COLOURS, GREYS):
        assert_objects(read(tmp_path, as_jpeg(75)(with_holes, colours)[0]), hard(with_holes, 4))


def test_soft_alpha_ends_at_half(tmp_path):
    image, truth = SOFT["4x"](discs, COLOURS)
    alpha = Image.fromarray(((drawn(discs, 4) > 0) * 255).astype(np.uint8)).resize((WIDTH, HEIGHT), Image.BOX)
    painted = coloured(maximum_filter(truth, 5), COLOURS)
    painted.putalpha(alpha)
    assert_objects(read(tmp_path, painted), truth)


def test_one_small_object_is_enough(tmp_path):
    def disc(draw, k):
        draw.ellipse([k * 70, k * 50, k * 86, k * 66], fill=1)

    for kind in ("2x", "8x", "lanczos"):
        image, truth = SOFT[kind](disc, COLOURS)
        assert_objects(read(tmp_path, image), truth)


def test_what_was_done_is_said_once_for_a_folder(tmp_path, capsys):
    (tmp_path / "maps").mkdir()
    for name in ("one", "two"):
        SOFT["4x"](discs, COLOURS)[0].save(tmp_path / "maps" / f"{name}.png")
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / f"{name}.jpg")
    source = open_source(tmp_path / "maps")
    for name in ("one", "two"):
        assert len(list(source.instances(tmp_path / f"{name}.jpg", (HEIGHT, WIDTH)))) == 4
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("one.png: colours at the edges of objects") and "other maps" in line


def test_an_object_without_an_even_area_is_never_lost(tmp_path):
    def poles(draw, k):
        discs(draw, k)
        for i in range(3):
            draw.line([(k * (5 + 50 * i), k * 2), (k * (40 + 50 * i), k * 117)], fill=4, width=k)

    image, _ = SOFT["8x"](poles, COLOURS)
    with pytest.raises(UserError, match="without anti-aliasing.*NEAREST"):
        read(tmp_path, image)


# --- clean maps -------------------------------------------------------------------------------------------------------


def crumbs(rng, labels, number, places=None):
    """A map with `number` more instances of 1 to 8 pixels, at random or at `places` (N, 2)."""
    labels = labels.astype(np.int64)
    for value in range(int(labels.max()) + 1, int(labels.max()) + 1 + number):
        y, x = rng.integers(0, labels.shape) if places is None else places[rng.integers(len(places))]
        for _ in range(rng.integers(1, 9)):
            labels[y, x] = value
            y = np.clip(y + rng.integers(-1, 2), 0, labels.shape[0] - 1)
            x = np.clip(x + rng.integers(-1, 2), 0, labels.shape[1] - 1)
    return labels


def at_edges(rng):
    labels = drawn(touching)
    return crumbs(rng, labels, 80, np.argwhere((labels > 0) & (minimum_filter(labels, 3) == 0)))


def single_pixels(rng):
    labels = np.zeros((HEIGHT, WIDTH), np.int64)
    labels.ravel()[rng.choice(labels.size, 200, replace=False)] = np.arange(1, 201)
    return labels


def lines(rng):
    image = Image.new("L", (WIDTH, HEIGHT))
    for value in range(1, 30):
        ends = rng.integers(0, (WIDTH, HEIGHT), (2, 2)).ravel().tolist()
        ImageDraw.Draw(image).line(ends, fill=value, width=1)
    return np.asarray(image).astype(np.int64)


def cells(rng):
    """A map in which everything touches everything, without a 0."""
    points = rng.uniform(0, (HEIGHT, WIDTH), (200, 2))
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return 1 + np.argmin([(y - v) ** 2 + (x - u) ** 2 for v, u in points], axis=0)


CLEAN = {
    "apart": lambda rng: crumbs(rng, drawn(discs), 150),
    "at edges": at_edges,
    "single pixels": single_pixels,
    "lines": lines,
    "cells": cells,
}


@pytest.mark.parametrize("kind", CLEAN)
@pytest.mark.parametrize("seed", range(3))
def test_clean_maps_stay_as_they_are(tmp_path, kind, seed, capsys):
    rng = np.random.default_rng(seed)
    labels = CLEAN[kind](rng)
    most = labels.max()
    spread = np.concatenate([[0], rng.choice(np.arange(1, 255), most, replace=False)])
    colours = np.concatenate([np.zeros((1, 3)), rng.integers(0, 255, (most, 3))]).astype(np.uint8)
    assert_unchanged(read(tmp_path, Image.fromarray(labels.astype(np.uint8))), labels)
    assert_unchanged(read(tmp_path, Image.fromarray((labels * 257).astype(np.uint16))), labels)
    assert_unchanged(read(tmp_path, Image.fromarray(spread[labels].astype(np.uint8))), spread[labels])
    numbers = colours.astype(np.int64) @ [65536, 256, 1]
    assert_unchanged(read(tmp_path, Image.fromarray(colours[labels])), numbers[labels])
    palette = Image.fromarray(labels.astype(np.uint8))
    palette.putpalette(colours.ravel().tolist())
    assert_unchanged(read(tmp_path, palette), labels)
    assert capsys.readouterr().out == ""


# --- void outlines and backgrounds ------------------------------------------------------------------------------------


def test_void_outlines_are_no_instances(tmp_path):
    labels = drawn(discs)
    outline = maximum_filter(labels, 5) != minimum_filter(labels, 5)
    inner = np.where(outline, 0, labels)
    assert_unchanged(read(tmp_path, Image.fromarray(np.where(outline, 255, labels).astype(np.uint8))), inner)
    colours = np.array(COLOURS, np.uint8)[labels]
    colours[outline] = (224, 224, 192)
    numbers = np.array(COLOURS) @ [65536, 256, 1]
    assert_unchanged(read(tmp_path, Image.fromarray(colours)), numbers[inner])


def test_a_frame_of_void_is_no_instance(tmp_path):
    labels = drawn(discs)
    framed = labels.copy()
    framed[:3] = framed[-3:] = 255
    framed[:, :3] = framed[:, -3:] = 255
    assert_unchanged(read(tmp_path, Image.fromarray(framed)), labels)


def test_an_instance_255_is_one(tmp_path):
    labels = drawn(discs)
    labels = np.where(labels == 2, 255, labels).astype(np.uint8)
    assert_unchanged(read(tmp_path, Image.fromarray(labels)), labels)


@pytest.mark.parametrize("background", [(255, 255, 255), (200, 220, 250)])
def test_what_surrounds_everything_is_background(tmp_path, background, capsys):
    labels = drawn(discs)
    numbers = np.array(COLOURS) @ [65536, 256, 1]
    image = coloured(labels, [background, *COLOURS[1:]])
    assert_unchanged(read(tmp_path, image), numbers[labels])
    assert "taken as background" in capsys.readouterr().out


def test_a_white_background_may_be_partly_hidden_and_have_soft_edges(tmp_path):
    image, truth = SOFT["4x"](at_the_border, [(255, 255, 255), *COLOURS[1:]])
    assert_objects(read(tmp_path, image), truth)


def people(width, count):
    """A map (60, 80) of 90 with `count` people of a width, who stand on its lower border."""
    labels = np.full((60, 80), 90, np.uint8)
    for i in range(count):
        left = 10 + i * (width + 4)
        labels[20:, left : left + width] = 150 + 20 * i
    return labels


def test_a_background_may_be_hidden_in_part_by_what_stands_before_it(tmp_path, capsys):
    labels = people(width=14, count=2)
    assert_unchanged(read(tmp_path, Image.fromarray(labels)), np.where(labels == 90, 0, labels))
    assert "taken as background" in capsys.readouterr().out
    # hidden to a third, it may be an instance, and is told
    labels = people(width=58, count=1)
    labels[:25, :10] = 200
    assert_unchanged(read(tmp_path, Image.fromarray(labels)), labels)
    assert "is taken as an instance; if it is the background" in capsys.readouterr().out


def test_black_objects_on_white_are_asked_about(tmp_path):
    with pytest.raises(UserError, match="is white the background"):
        read(tmp_path, coloured(drawn(discs), [(255, 255, 255), (0, 0, 0), *COLOURS[1:4]]))
    with pytest.raises(UserError, match="is white the background"):
        read(tmp_path, coloured(np.minimum(drawn(discs), 1), [255, 0]))


def test_one_label_everywhere_is_an_instance(tmp_path):
    for value in (7, 255):
        labels = np.full((HEIGHT, WIDTH), value, np.uint8)
        assert_unchanged(read(tmp_path, Image.fromarray(labels)), labels)
