# SPDX-License-Identifier: Apache-2.0
"""Instances read from masks, label maps, COCO and LabelMe, against masks that are known by construction.

python -m pytest tests/masks/test_sources.py
"""

from __future__ import annotations

import copy
import json

import numpy as np
import pycocotools.mask
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from common.errors import UserError
from data.instances import iou
from masks import annotation_shapes
from masks.coco import CocoFile
from masks.labelme import LabelmeFiles
from masks.mask_source import counted
from masks.sources import open_source
from tests.helpers.annotation_files import (
    circle_points,
    coco,
    compressed_rle,
    counts,
    disc,
    labelme,
    labelme_mask,
    labelme_shape,
    plain_rle,
    rectangle,
)
from tests.helpers.damage import EDITS, edited

SIZE = (30, 44)
MASKS = [rectangle(SIZE, 2, 3, 9, 20), disc(SIZE, 19, 14, 8), rectangle(SIZE, 0, 38, 30, 44)]
PALETTE = [value for i in range(256) for value in (i, 255 - i, 7 * i % 256)]
# colours are read in the order of their numbers 0xRRGGBB
COLOURS = np.array([(0, 0, 0), (0, 0, 255), (0, 0, 0), (9, 9, 9)] + 4 * [(255, 0, 0)], np.uint8)
QUICK = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))


def write_json(path, document):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def write_picture(path, size=SIZE, orientation=None):
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.new("RGB", size[::-1]).save(path, exif=exif)
    return path


@pytest.fixture()
def photo(tmp_path):
    return write_picture(tmp_path / "photo.jpg")


def read(source, photo, size=SIZE):
    return [instance.mask for instance in source.instances(photo, size)]


def assert_same(masks, expected):
    assert len(masks) == len(expected)
    for mask, truth in zip(masks, expected):
        assert mask.dtype == bool
        np.testing.assert_array_equal(mask, truth)


# --- the formats -----------------------------------------------------------------------------------------------------


def as_masks(folder, masks):
    for i, mask in enumerate(masks):
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"photo_{i}.png")
    return folder


def as_labels(kind):
    def write(folder, masks):
        values = sum(mask * value for mask, value in zip(masks, (1, 3, 7)))
        image = {
            "grey": lambda: Image.fromarray(values.astype(np.uint8)),
            "16-bit": lambda: Image.fromarray((values * 9001).astype(np.uint16)),
            "palette": lambda: Image.fromarray(values.astype(np.uint8)),
            "colours": lambda: Image.fromarray(COLOURS[values]),
        }[kind]()
        if kind == "palette":
            image.putpalette(PALETTE)
        image.save(folder / "photo.png")
        return folder

    return write


def as_coco(encode):
    return lambda folder, masks: write_json(folder / "a.json", coco(masks[0].shape, [encode(m) for m in masks]))


def as_labelme(folder, masks):
    write_json(folder / "photo.json", labelme(masks[0].shape, [labelme_mask(mask) for mask in masks]))
    return folder


WRITERS = {
    "masks": as_masks,
    "labels-grey": as_labels("grey"),
    "labels-16-bit": as_labels("16-bit"),
    "labels-palette": as_labels("palette"),
    "labels-colours": as_labels("colours"),
    "coco-plain": as_coco(plain_rle),
    "coco-compressed": as_coco(compressed_rle),
    "labelme": as_labelme,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_rasters_come_back_as_they_were_written(tmp_path, photo, kind):
    (tmp_path / "set").mkdir()
    path = WRITERS[kind](tmp_path / "set", MASKS)
    for format in ("auto", kind.split("-")[0]):
        source = open_source(path, format)
        assert source.format == kind.split("-")[0]
        assert_same(read(source, photo), MASKS)
        assert read(source, tmp_path / "other.png") == []


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (5, lambda raw: raw.T),
        (6, lambda raw: np.rot90(raw, -1)),
        (7, lambda raw: np.rot90(raw, 2).T),
        (8, lambda raw: np.rot90(raw)),
    ],
)
def test_masks_of_a_photo_that_was_not_turned_yet_are_turned(tmp_path, kind, orientation, turn):
    # `SIZE` is that of the pixels; upright the photo is as high as they are wide
    photo = write_picture(tmp_path / "photo.jpg", SIZE, orientation)
    (tmp_path / "set").mkdir()
    (tmp_path / "upright").mkdir()
    upright = [np.ascontiguousarray(turn(mask)) for mask in MASKS]
    for folder, masks in (("set", MASKS), ("upright", upright)):
        source = open_source(WRITERS[kind](tmp_path / folder, masks))
        assert_same(read(source, photo, SIZE[::-1]), upright)


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("size", [(44, 30), (30, 60), (99, 99)])
def test_masks_of_another_size_are_refused_with_both_sizes(tmp_path, kind, size):
    photo = write_picture(tmp_path / "photo.jpg", size)
    (tmp_path / "set").mkdir()
    source = open_source(WRITERS[kind](tmp_path / "set", MASKS))
    with pytest.raises(UserError, match=f"30x44 .*{size[0]}x{size[1]}") as caught:
        read(source, photo, size)
    assert "\n" not in str(caught.value)


def test_masks_are_resized_with_their_picture_and_label_maps_never(tmp_path):
    size = (60, 88)
    photo = write_picture(tmp_path / "photo.png", size)
    (tmp_path / "masks").mkdir()
    (tmp_path / "labels").mkdir()
    (mask,) = read(open_source(as_masks(tmp_path / "masks", MASKS[:1])), photo, size)
    np.testing.assert_array_equal(mask, np.kron(MASKS[0], np.ones((2, 2), bool)))
    with pytest.raises(UserError, match="30x44"):
        read(open_source(as_labels("grey")(tmp_path / "labels", MASKS)), photo, size)


def test_one_file_is_that_of_whatever_picture_is_asked_for(tmp_path, photo):
    other = photo.rename(tmp_path / "IMG 1.jpg")
    as_labels("grey")(tmp_path, MASKS)
    as_labelme(tmp_path, MASKS)
    for name in ("photo.png", "photo.json"):
        assert_same(read(open_source(tmp_path / name), other), MASKS)


def test_only_asked_for_masks_are_made(tmp_path, photo):
    broken = [plain_rle(MASKS[0]), {"size": list(SIZE), "counts": [3]}]
    instances = open_source(write_json(tmp_path / "a.json", coco(SIZE, broken))).instances(photo, SIZE)
    np.testing.assert_array_equal(next(instances).mask, MASKS[0])
    with pytest.raises(UserError, match="annotation 1 of photo.jpg"):
        next(instances)


def test_empty_masks_are_no_instances(tmp_path, photo):
    outside = [[-9, -9, -3, -9, -3, -3]]
    nothing = [plain_rle(np.zeros(SIZE, bool)), outside, [], [[1, 1, 5, 5]], plain_rle(MASKS[1])]
    assert_same(read(open_source(write_json(tmp_path / "a.json", coco(SIZE, nothing))), photo), [MASKS[1]])
    (tmp_path / "set").mkdir()
    as_masks(tmp_path / "set", [np.zeros(SIZE, bool), MASKS[0]])
    assert_same(read(open_source(tmp_path / "set"), photo), [MASKS[0]])


# --- recognizing the format -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a_0.png", "a_1.png", "b_0.png"], "masks"),
        (["a_0.png", "a_2.png"], "masks"),
        (["a.png", "b c.PNG"], "labels"),
        (["a.json", "a.png", "a_0.png"], "labelme"),
        (["IMG_0001.png", "IMG_0002.png"], None),
        (["a_1.png", "a_2.png"], None),
        (["a_0.png", "b.png"], None),
        (["a.txt"], None),
        ([], None),
    ],
)
def test_auto_tells_folders_apart_or_says_that_it_cannot(tmp_path, names, expected):
    (tmp_path / "set").mkdir()
    for name in names:
        (tmp_path / "set" / name).write_text('{"shapes": []}')
    if expected:
        assert open_source(tmp_path / "set").format == expected
    else:
        with pytest.raises(UserError, match="masks"):
            open_source(tmp_path / "set")


def test_auto_finds_the_only_file_of_an_exported_folder(tmp_path, photo):
    write_json(tmp_path / "set" / "_annotations.coco.json", coco(SIZE, [plain_rle(MASKS[0])]))
    for format in ("auto", "coco"):
        assert_same(read(open_source(tmp_path / "set", format), photo), MASKS[:1])


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.json", b'{"images": [], "annotations": []}', "coco"),
        ("a.json", b'\xef\xbb\xbf{"shapes": []}', "labelme"),
        ("a.json", b"{}", None),
        ("a.json", b"[1, 2]", None),
        ("a.json", b'{"shapes": [', None),
        ("a.json", b"\xff\xfe", None),
        pytest.param("a.json", b"[" * 100000, None, id="deep"),
        ("a.txt", b"", None),
        ("missing.json", None, None),
    ],
)
def test_auto_tells_files_apart(tmp_path, name, content, expected):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    if expected:
        assert open_source(tmp_path / name).format == expected
    else:
        with pytest.raises(UserError, match=name) as caught:
            open_source(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_formats_are_checked(tmp_path):
    with pytest.raises(UserError, match="auto, masks, labels, coco, labelme"):
        open_source(tmp_path, "voc")
    with pytest.raises(UserError, match="folder"):
        open_source(write_picture(tmp_path / "a_0.png"), "masks")
    with pytest.raises(UserError, match="2 .json files"):
        write_json(tmp_path / "a.json", {})
        write_json(tmp_path / "b.json", {})
        open_source(tmp_path, "coco")


# --- label maps -------------------------------------------------------------------------------------------------------


def test_what_is_transparent_or_void_is_no_label(tmp_path, photo):
    colours = np.zeros((*SIZE, 4), np.uint8)
    colours[MASKS[0]] = (200, 0, 0, 255)
    colours[MASKS[1]] = (0, 200, 0, 0)
    Image.fromarray(colours).save(tmp_path / "rgba.png")
    assert_same(read(open_source(tmp_path / "rgba.png"), photo), MASKS[:1])
    # Pascal VOC draws outlines in index 255, whose colour is always this one
    voc = Image.fromarray((MASKS[0] * 1 + MASKS[1] * 255).astype(np.uint8))
    for colour, expected in (((224, 224, 192), MASKS[:1]), ((1, 2, 3), MASKS[:2])):
        voc.putpalette(PALETTE[:-3] + list(colour))
        voc.save(tmp_path / "voc.png")
        assert_same(read(open_source(tmp_path / "voc.png"), photo), expected)


def test_two_colours_that_look_alike_are_two_instances(tmp_path, photo):
    colours = np.zeros((*SIZE, 3), np.uint8)
    colours[MASKS[0]], colours[MASKS[1]] = (9, 200, 7), (9, 200, 8)
    Image.fromarray(colours).save(tmp_path / "map.png")
    assert_same(read(open_source(tmp_path / "map.png"), photo), MASKS[:2])


def test_photos_are_no_label_maps(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.png")
    with pytest.raises(UserError, match="too many for a label map"):
        read(open_source(tmp_path / "photo.png"), tmp_path / "photo.png", (90, 90))
    (tmp_path / "photo.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="photo.png"):
        read(open_source(tmp_path / "photo.png"), tmp_path / "photo.png", (90, 90))


# --- COCO -------------------------------------------------------------------------------------------------------------


def test_coco_tells_categories_and_leaves_out_crowds(tmp_path, photo):
    document = coco(SIZE, [plain_rle(mask) for mask in MASKS], categories=("sheep", "cow", "goat"))
    document["annotations"][1]["iscrowd"] = 1
    source = open_source(write_json(tmp_path / "a.json", document))
    assert [instance.category for instance in source.instances(photo, SIZE)] == ["sheep", "goat"]
    assert source.categories() == ["cow", "goat", "sheep"]
    assert source.names_with("sheep") == ["photo.jpg"] and source.names_with("cow") == []
    del document["categories"]
    source = open_source(write_json(tmp_path / "a.json", document))
    assert [instance.category for instance in source.instances(photo, SIZE)] == ["", ""] and source.categories() == []


def test_coco_polygons_of_one_annotation_are_one_instance(tmp_path, photo):
    polygons = [[3, 2, 20, 2, 20, 9, 3, 9], [38, 0, 44, 0, 44, 30, 38, 30]]
    assert_same(
        read(open_source(write_json(tmp_path / "a.json", coco(SIZE, [polygons]))), photo), [MASKS[0] | MASKS[2]]
    )


@pytest.mark.parametrize(
    ("names", "folder", "found"),
    [
        (["photo.jpg"], "x", 0),
        (["x/photo.jpg"], "y", 0),
        (["x\\photo.jpg", "y\\photo.jpg"], "y", 1),
        (["./x/photo.jpg", "y/photo.jpg"], "x", 0),
        (["x/photo.jpg", "y/photo.jpg"], "z", None),
        (["photo.jpg", "photo.jpg"], "x", None),
    ],
)
def test_coco_pictures_of_one_name_are_told_by_their_folders_or_refused(tmp_path, names, folder, found):
    document = coco(SIZE, [])
    document["images"] = [{"id": i, "file_name": n, "height": 30, "width": 44} for i, n in enumerate(names)]
    document["annotations"] = [
        {"id": i, "image_id": i, "category_id": 1, "segmentation": plain_rle(MASKS[i])} for i in range(len(names))
    ]
    source = open_source(write_json(tmp_path / "a.json", document))
    (tmp_path / folder).mkdir()
    photo = write_picture(tmp_path / folder / "photo.jpg")
    if found is None:
        with pytest.raises(UserError, match="several pictures photo.jpg"):
            read(source, photo)
    else:
        assert_same(read(source, photo), [MASKS[found]])


FULL = SIZE[0] * SIZE[1]


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [30, 44], "counts": [FULL - 1]},
        {"size": [30, 44], "counts": [FULL + 1]},
        {"size": [30, 44], "counts": [2, -2, FULL]},
        {"size": [30, 44], "counts": [0.5, FULL - 0.5]},
        {"size": [30, 44], "counts": [2**32, FULL - 2**32]},
        {"size": [30, 44], "counts": [10**400]},
        {"size": [30, 44], "counts": [float("nan")]},
        {"size": [30, 44], "counts": "x"},
        {"size": [30, 44], "counts": ""},
        {"size": [30, 44], "counts": "o" * 50},  # never ends: each character says that more follow
        {"size": [30, 44], "counts": "oooooooo0"},
        {"size": [30, 44], "counts": "XYQPPPPPP0"},  # 1320 = 30 * 44, in more digits than a number can have
        {"size": [30, 44], "counts": "é\x00"},
        {"size": [30, 44], "counts": None},
        {"size": [30, 44], "counts": {"a": 1}},
        {"size": [10**9, 10**9], "counts": [1]},
        {"size": [44, 30], "counts": [FULL]},
        {"size": "30", "counts": [FULL]},
        {"counts": [FULL]},
        {"size": [30, 44]},
        [[1, 2, float("nan"), 4, 5, 6]],
        [[1, 2, float("inf"), 4, 5, 6]],
        [[1, 2, 1e300, 4, 5, 6]],
        [[1, 2, 10**400, 4, 5, 6]],
        [[1, 2, 3, 4, 5]],
        [[1, 2, "3", 4, 5, 6]],
        [[1, 2, [3], 4, 5, 6]],
        [1, 2, 3, 4, 5],
        "polygon",
        7,
    ],
)
def test_coco_refuses_what_is_no_mask(tmp_path, photo, segmentation):
    source = open_source(write_json(tmp_path / "a.json", coco(SIZE, [segmentation])))
    with pytest.raises(UserError, match="annotation 0 of photo.jpg cannot be used: (it|its|a) .*; fix it") as caught:
        read(source, photo)
    assert "\n" not in str(caught.value)


def test_coco_refuses_an_outline_that_would_fill_the_memory():
    # 1200 edges, each from one corner of the picture to the other
    corners = np.tile([[0.0, 0.0], [4000.0, 4000.0]], (600, 1))
    with pytest.raises(ValueError, match="too long"):
        annotation_shapes.polygon_mask(corners, (4000, 4000))


def test_coco_refuses_unknown_categories_and_pictures_without_size(tmp_path, photo):
    document = coco(SIZE, [plain_rle(MASKS[0])])
    for category in (99, "a\nb", [1], None):
        document["annotations"][0]["category_id"] = category
        with pytest.raises(UserError, match="its category .* is not among the file's") as caught:
            read(open_source(write_json(tmp_path / "a.json", document)), photo)
        assert "\n" not in str(caught.value)
    document["annotations"][0]["category_id"] = 1
    for side in ("30", 30.5, -30, 10**30, True):
        document["images"][0]["height"] = side
        with pytest.raises(UserError, match="no valid height and width"):
            read(open_source(write_json(tmp_path / "a.json", document)), photo)
    # as some tools write it, or leave it out
    for side in (float(SIZE[0]), None):
        document["images"][0]["height"] = side
        assert len(read(open_source(write_json(tmp_path / "a.json", document)), photo)) == 1


def test_coco_finds_names_that_are_written_in_another_way(tmp_path, photo):
    """macOS keeps accents apart from their letters."""
    image = photo.with_name("caf\u00e9.jpg")
    photo.rename(image)
    document = coco(SIZE, [plain_rle(MASKS[0])], "cafe\u0301.jpg")
    assert len(read(open_source(write_json(tmp_path / "a.json", document)), image)) == 1


def test_a_polygon_without_a_list_around_it(tmp_path, photo):
    corners = [2.0, 3.0, 12.0, 3.0, 12.0, 9.0, 2.0, 9.0]
    documents = [coco(SIZE, [segmentation]) for segmentation in (corners, [corners])]
    (flat,), (nested,) = (read(open_source(write_json(tmp_path / "a.json", document)), photo) for document in documents)
    np.testing.assert_array_equal(flat, nested)


def test_a_rectangle_of_four_points():
    corners = np.array([[2.0, 3.0], [12.0, 3.0], [12.0, 9.0], [2.0, 9.0]])
    mask = annotation_shapes.polygon_mask(annotation_shapes.rectangle(corners), (20, 20))
    np.testing.assert_array_equal(mask, rectangle((20, 20), 3, 2, 9, 12))


def test_a_soft_mask_is_no_label_map(tmp_path, photo):
    soft = np.clip((20 - np.hypot(*np.mgrid[-15:15, -20:20])) * 100, 0, 255).astype(np.uint8)
    Image.fromarray(soft).resize(SIZE[::-1]).save(tmp_path / "photo.png")
    with pytest.raises(UserError, match="soft edges, and no label map"):
        read(open_source(tmp_path / "photo.png", "labels"), photo)
    # many instances, one of which has the value 255
    many = np.zeros(SIZE, np.uint8)
    many[: SIZE[0] // 2, :20] = np.arange(236, 256)
    Image.fromarray(many).save(tmp_path / "photo.png")
    assert len(read(open_source(tmp_path / "photo.png", "labels"), photo)) == 20


# --- polygons and run lengths -----------------------------------------------------------------------------------------


@QUICK
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_run_lengths_come_back_both_ways(height, width, seed, share):
    mask = np.random.default_rng(seed).random((height, width)) < share
    for rle in (plain_rle(mask), compressed_rle(mask)):
        np.testing.assert_array_equal(annotation_shapes.rle_mask(rle, mask.shape), mask)


def test_run_lengths_of_a_large_picture(size=(3000, 4001)):
    lines = rectangle(size, 1000, 7, 1001, 4000) | rectangle(size, 2000, 3000, 2999, 3990)
    corner = rectangle(size, 2990, 3990, 3000, 4001)
    assert max(counts(corner)) > 10**7
    for rle, mask in ((compressed_rle(lines), lines), (plain_rle(corner), corner)):
        np.testing.assert_array_equal(annotation_shapes.rle_mask(rle, size), mask)


@QUICK
@given(
    st.integers(2, 50),
    st.integers(2, 50),
    st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), min_size=3, max_size=9),
)
def test_polygons_inside_are_drawn_as_coco_draws_them(height, width, corners):
    corners = np.array(corners) / 500 * (width, height)
    runs = pycocotools.mask.frPyObjects([corners.ravel().tolist()], height, width)
    expected = pycocotools.mask.decode(runs)[..., 0] > 0
    found = annotation_shapes.polygon_mask(corners, (height, width))
    # where an edge meets the corner of the fifth of a pixel that COCO rounds to, either is right
    assert (found != expected).sum() <= 1 + 0.02 * expected.sum()


@pytest.mark.parametrize("top", [-50, -3, 5])
@pytest.mark.parametrize("left", [-1e6, -7, 4])
@pytest.mark.parametrize("bottom", [12, 30, 99, 1e9])
@pytest.mark.parametrize("right", [9, 44, 1e5])
def test_rectangles_are_cut_off_at_the_borders(top, left, bottom, right):
    rows, columns = np.arange(30)[:, None] + 0.5, np.arange(44)[None, :] + 0.5
    expected = (rows > top) & (rows < bottom) & (columns > left) & (columns < right)
    for corners in ([(left, top), (right, bottom)], [(right, top), (left, bottom)]):
        mask = annotation_shapes.polygon_mask(annotation_shapes.rectangle(np.array(corners, float)), SIZE)
        np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize(("y", "x", "radius"), [(15, 20, 9), (0, 0, 14), (28, 43, 12), (15, 60, 25), (-40, 20, 60)])
def test_circles_and_their_polygons_are_cut_off_at_the_borders(y, x, radius):
    expected = disc(SIZE, y, x, radius)
    found = annotation_shapes.circle_mask(np.array([[x, y], [x, y + radius]], float), SIZE)
    np.testing.assert_array_equal(found, expected)
    assert iou(annotation_shapes.polygon_mask(circle_points(y, x, radius, 200), SIZE), expected) > 0.95


def test_a_slanted_edge_from_far_away_crosses_where_it_should():
    # what is below the line from (0, 10) to (44, 20), as a triangle of a million pixels
    far = 22726.0
    corners = np.array([(-44 * far, 10 - 10 * far), (44 * far, 10 + 10 * far), (-44 * far, 44 * far)])
    rows, columns = np.arange(30)[:, None] + 0.5, np.arange(44)[None, :] + 0.5
    assert iou(annotation_shapes.polygon_mask(corners, SIZE), rows > 10 + columns * 10 / 44) > 0.98


# --- LabelMe ----------------------------------------------------------------------------------------------------------


def test_labelme_shapes_are_where_they_were_drawn(tmp_path, photo):
    shapes = [
        labelme_shape("polygon", [(3, 2), (20, 2), (20, 9), (3, 9)]),
        labelme_shape("rectangle", [(20, 9), (3, 2)], "cow"),
        labelme_shape("circle", [(14, 19), (14, 27)]),
        labelme_mask(MASKS[2]),
        labelme_shape("point", [(4, 4)]),
        labelme_shape("linestrip", [(4, 4), (9, 9), (20, 3)]),
    ]
    del shapes[0]["shape_type"], shapes[0]["flags"], shapes[0]["group_id"]  # as old versions write it
    source = open_source(write_json(tmp_path / "set" / "photo.json", labelme(SIZE, shapes)).parent)
    instances = list(source.instances(photo, SIZE))
    assert_same([i.mask for i in instances], [MASKS[0], MASKS[0], disc(SIZE, 19, 14, 8), MASKS[2]])
    assert [i.category for i in instances] == ["sheep", "cow", "sheep", "sheep"]
    assert source.categories() == ["cow", "sheep"]


def test_labelme_groups_are_one_instance(tmp_path, photo):
    shapes = [labelme_mask(MASKS[i], label) for i, label in ((0, "sheep"), (1, "sheep"), (2, "sheep"), (2, "cow"))]
    for shape, group in zip(shapes, (4, None, 4, 4)):
        shape["group_id"] = group
    instances = list(open_source(write_json(tmp_path / "photo.json", labelme(SIZE, shapes))).instances(photo, SIZE))
    assert [i.category for i in instances] == ["sheep", "sheep", "cow"]
    assert_same([i.mask for i in instances], [MASKS[0] | MASKS[2], MASKS[1], MASKS[2]])


def test_labelme_masks_that_reach_out_of_the_picture_are_cut_off(tmp_path, photo):
    larger = np.random.default_rng(0).random((20, 20)) < 0.5
    larger[[0, -1]] = larger[:, [0, -1]] = True
    shapes = [labelme_mask(larger) for _ in range(2)]
    shapes[0]["points"], shapes[1]["points"] = [[-5, -6], [14, 13]], [[30, 20], [49, 39]]
    found = read(open_source(write_json(tmp_path / "photo.json", labelme(SIZE, shapes))), photo)
    expected = np.zeros((2, *SIZE), bool)
    expected[0, :14, :15], expected[1, 20:, 30:] = larger[6:, 5:], larger[:10, :14]
    assert_same(found, expected)


def test_labelme_files_without_size_are_of_the_picture(tmp_path, photo):
    document = labelme(SIZE, [labelme_mask(MASKS[0])])
    document["imageHeight"] = document["imageWidth"] = None
    assert_same(read(open_source(write_json(tmp_path / "photo.json", document)), photo), MASKS[:1])


def test_labelme_sizes_may_be_written_as_real_numbers(tmp_path, photo):
    document = labelme(SIZE, [labelme_mask(MASKS[0])])
    document["imageHeight"] = float(document["imageHeight"])
    document["imageWidth"] = float(document["imageWidth"])
    assert_same(read(open_source(write_json(tmp_path / "photo.json", document)), photo), MASKS[:1])


@pytest.mark.parametrize(
    "shape",
    [
        {"points": [[1, 2], [3, 4], [5]]},
        {"points": [[1, 2], [3, 4], [5, None]]},
        {"points": [[1, 2], [3, 4], [5, float("nan")]]},
        {"points": [[1, 2], [3, 4], [5, 10**400]]},
        {"points": 5},
        {"points": None},
        {"shape_type": "blob"},
        {"shape_type": ["polygon"]},
        {"shape_type": "circle"},
        {"shape_type": "rectangle"},
        {"shape_type": "mask"},
        {"shape_type": "mask", "points": [[1, 1], [5, 5]], "mask": "no base64!"},
        {"shape_type": "mask", "points": [[1, 1], [5, 5]], "mask": ["a"]},
        {"shape_type": "mask", "points": [[0, 0], [9999999, 9999999]], "mask": labelme_mask(MASKS[0])["mask"]},
        {"shape_type": "mask", "points": [[0, 0], [17, 6]], "mask": labelme_mask(MASKS[0])["mask"]},
        {"shape_type": "mask", "points": [[9, 9], [3, 3]], "mask": labelme_mask(MASKS[0])["mask"]},
        {"shape_type": "mask", "points": [[0, 0], [16, 6]], "mask": labelme_mask(MASKS[0])["mask"][:60]},
    ],
)
def test_labelme_refuses_what_is_no_shape(tmp_path, photo, shape):
    document = labelme(SIZE, [{**labelme_shape("polygon", [(3, 2), (20, 2), (20, 9)]), **shape}])
    with pytest.raises(UserError, match="photo.json: a shape 'sheep' cannot be used: .*; fix it") as caught:
        read(open_source(write_json(tmp_path / "photo.json", document)), photo)
    assert "\n" not in str(caught.value)


# --- JSON that is meant to do harm ------------------------------------------------------------------------------------

HOSTILE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from([[], {}, [[]], [[[0]]], "\ud800", "../../x", 10**300, {"size": [30, 44], "counts": "oo"}]),
)
COCO = coco(SIZE, [plain_rle(MASKS[0]), compressed_rle(MASKS[1]), [[3, 2, 20, 2, 20, 9, 3, 9]]], categories=("a", "b"))
LABELME = labelme(
    SIZE,
    [
        labelme_shape("polygon", [(3, 2), (20, 2), (20, 9)], group_id=1),
        labelme_shape("rectangle", [(3, 2), (20, 9)], group_id=1),
        labelme_shape("circle", [(14, 19), (14, 27)]),
        labelme_mask(MASKS[2]),
    ],
)


def places(value, path=()):
    """The paths to all values in a JSON document."""
    yield path
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*path, key))


def replaced(document, path, value, remove):
    """`document` with another value at `path`, or without that entry."""
    if not path:
        return value
    document = copy.deepcopy(document)
    parent = document
    for key in path[:-1]:
        parent = parent[key]
    if remove:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return document


def read_all(kind, path, photo):
    """A source returns instances of the picture, or raises a UserError of one line."""
    try:
        source = kind(path)
        assert all(isinstance(category, str) for category in source.categories())
        for instance in source.instances(photo, SIZE):
            assert isinstance(instance.category, str)
            assert instance.mask.shape == SIZE and instance.mask.dtype == bool and instance.mask.any()
    except UserError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(("kind", "document"), [(CocoFile, COCO), (LabelmeFiles, LABELME)])
def test_any_value_may_be_anything(tmp_path, photo, kind, document):
    everywhere = list(places(document))

    @settings(max_examples=150, deadline=None)
    @given(st.sampled_from(everywhere), HOSTILE, st.booleans())
    def check(path, value, remove):
        read_all(kind, write_json(tmp_path / "photo.json", replaced(document, path, value, remove)), photo)

    check()


@pytest.mark.parametrize(("kind", "document"), [(CocoFile, COCO), (LabelmeFiles, LABELME)])
def test_any_byte_may_be_any_other(tmp_path, photo, kind, document):
    raw = json.dumps(document).encode()

    @QUICK
    @given(EDITS)
    @example([("cut", 0, 0)])
    def check(edits):
        (tmp_path / "photo.json").write_bytes(edited(raw, edits))
        read_all(kind, tmp_path / "photo.json", photo)

    check()


def test_files_that_are_too_large_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("masks.annotation_files.MOST_BYTES", 100)
    with pytest.raises(UserError, match="too large"):
        open_source(write_json(tmp_path / "a.json", COCO))


# --- what people bring ------------------------------------------------------------------------------------------------

SQUARE = [2.0, 3.0, 12.0, 3.0, 12.0, 9.0, 2.0, 9.0]
SQUARE_MASK = rectangle(SIZE, 3, 2, 9, 12)


def lost_of(source, photo, category=None):
    """The masks of a picture, and the reason for each instance that is lost."""
    lost = []
    masks = [instance.mask for instance in source.instances(photo, SIZE, category, lost)]
    return masks, lost


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ([[2.0, 3.0, 10.0, 6.0]], "three points or more"),
        ([[]], "three points or more"),
        ([[value / 44 for value in SQUARE]], "between 0 and 1, not in pixels"),
        ([[0.0, 0.0, 1.0, 0.0, 1.0, 0.9, 0.0, 0.9]], "between 0 and 1, not in pixels"),
        # as converters round
        ([[-0.001, 0.1, 1.0002, 0.1, 1.0002, 0.9, 0.0, 0.9]], "between 0 and 1, not in pixels"),
        ([[value + 100 for value in SQUARE]], "it lies outside of the picture"),
        ([[5.0, 5.0, 5.0, 9.0, 5.0, 7.0]], "encloses no pixel"),
        ({"size": list(SIZE), "counts": [SIZE[0] * SIZE[1]]}, "run lengths mark no pixel"),
    ],
)
def test_coco_counts_instances_without_a_pixel_and_says_why(tmp_path, photo, segmentation, reason):
    source = open_source(write_json(tmp_path / "a.json", coco(SIZE, [[SQUARE], segmentation, segmentation])))
    masks, lost = lost_of(source, photo)
    assert_same(masks, [SQUARE_MASK])
    assert len(lost) == 2 and all(reason in text for text in lost)
    (line,) = counted(lost)
    assert line.startswith("2 shapes without a pixel: ")


@pytest.mark.parametrize(
    ("part", "reasons"),
    [
        ([2.0, 3.0, 10.0, 6.0], ["three points or more"]),
        ([value / 44 for value in SQUARE], ["between 0 and 1"]),
        ([value + 100 for value in SQUARE], ["outside of the picture"]),
        # slivers are nothing unusual beside other parts
        ([5.0, 20.0, 5.0, 24.0, 5.0, 22.0], []),
    ],
)
def test_a_part_of_an_instance_that_is_lost_is_told_too(tmp_path, photo, part, reasons):
    source = open_source(write_json(tmp_path / "a.json", coco(SIZE, [[SQUARE, part], [part, SQUARE]])))
    shapes = [labelme_shape("polygon", np.reshape(corners, (-1, 2)), group_id=3) for corners in (SQUARE, part)]
    beside = open_source(write_json(tmp_path / "photo.json", labelme(SIZE, shapes)))
    for one, count in ((source, 2), (beside, 1)):
        masks, lost = lost_of(one, photo)
        assert_same(masks, count * [SQUARE_MASK])
        if reasons:
            assert len(lost) == count and all(reasons[0] in text for text in lost)


def test_coco_says_what_is_of_no_category(tmp_path):
    document = coco(SIZE, [[SQUARE], [SQUARE]], categories=("sheep", "goat"))
    document["annotations"][1]["category_id"] = "goat"
    (remark,) = open_source(write_json(tmp_path / "a.json", document)).remarks("goat")
    assert remark == "annotations that are left out: 1 whose category_id is none of its categories'"


def test_coco_says_which_entry_is_none(tmp_path):
    document = coco(SIZE, [[SQUARE], [SQUARE]])
    del document["annotations"][1]["image_id"]
    with pytest.raises(UserError, match="with an image_id \\(entry 1, from 0\\)"):
        open_source(write_json(tmp_path / "a.json", document))
    document = coco(SIZE, [[SQUARE]])
    document["images"][0]["image_id"] = 7
    source = open_source(write_json(tmp_path / "a.json", document))
    assert len(list(source.instances(write_picture(tmp_path / "photo.jpg"), SIZE))) == 1


def test_coco_for_other_pictures_is_told_from_coco_for_more(tmp_path):
    photo = write_picture(tmp_path / "photo.jpg")
    source = open_source(write_json(tmp_path / "a.json", coco(SIZE, [[SQUARE]], "PHOTO.JPG")))
    assert not source.misses_all([photo]) and len(lost_of(source, photo)[0]) == 1
    assert source.misses_all([tmp_path / "other.jpg"])
    assert not source.misses_all([tmp_path / "other.jpg", photo])


def test_a_json_about_something_else_may_lie_beside_masks(tmp_path):
    (tmp_path / "masks").mkdir()
    Image.fromarray(SQUARE_MASK.astype(np.uint8) * 255).save(tmp_path / "masks" / "photo_0.png")
    write_json(tmp_path / "masks" / "meta.json", {"classes": []})
    assert open_source(tmp_path / "masks").format == "masks"


def test_many_hard_greys_on_white_are_no_soft_mask(tmp_path, photo):
    labels = np.full(SIZE, 255, np.uint8)
    for i in range(10):
        row, column = divmod(i, 5)
        labels[3 + 14 * row : 11 + 14 * row, 2 + 8 * column : 8 + 8 * column] = 20 + 20 * i
    Image.fromarray(labels).save(tmp_path / "photo.png")
    masks, _ = lost_of(open_source(tmp_path / "photo.png", "labels"), photo)
    assert_same(masks, [labels == 20 + 20 * i for i in range(10)])


def test_coco_reads_a_polygon_of_pairs(tmp_path, photo):
    pairs = [SQUARE[i : i + 2] for i in range(0, len(SQUARE), 2)]
    source = open_source(write_json(tmp_path / "a.json", coco(SIZE, [pairs])))
    assert_same(lost_of(source, photo)[0], [SQUARE_MASK])
    # a pixel in the corner has coordinates of 0 and 1
    corner = [[0, 0, 1, 0, 1, 1, 0, 1]]
    source = open_source(write_json(tmp_path / "a.json", coco(SIZE, [corner])))
    assert_same(lost_of(source, photo)[0], [rectangle(SIZE, 0, 0, 1, 1)])


@pytest.mark.parametrize(("identifier", "reference"), [(7, "7"), ("7", 7), (7, 7.0), ("7", "7"), ("a7", "a7")])
def test_coco_ids_may_be_text(tmp_path, photo, identifier, reference):
    document = coco(SIZE, [[SQUARE]], categories=("sheep",))
    document["images"][0]["id"] = document["categories"][0]["id"] = identifier
    document["annotations"][0]["image_id"] = document["annotations"][0]["category_id"] = reference
    source = open_source(write_json(tmp_path / "a.json", document))
    assert [instance.category for instance in source.instances(photo, SIZE)] == ["sheep"]
    assert source.remarks(None) == []


@pytest.mark.parametrize(("kind", "key"), [("image", "images"), ("category", "categories")])
def test_coco_refuses_an_id_that_is_used_twice(tmp_path, kind, key):
    document = coco(SIZE, [[SQUARE]])
    document[key].append({**document[key][0], "file_name" if kind == "image" else "name": "other.jpg"})
    with pytest.raises(UserError, match=f"the {kind} id [17] is used twice"):
        open_source(write_json(tmp_path / "a.json", document))
    # the same entry twice says nothing else
    document[key][1] = dict(document[key][0])
    source = open_source(write_json(tmp_path / "a.json", document))
    assert len(list(source.instances(write_picture(tmp_path / "photo.jpg"), SIZE))) == 1


def test_coco_says_what_belongs_to_no_picture(tmp_path):
    document = coco(SIZE, [[SQUARE], [SQUARE]], categories=("sheep", "goat"))
    document["annotations"][1]["image_id"] = 99
    source = open_source(write_json(tmp_path / "a.json", document))
    (remark,) = source.remarks(None)
    assert remark == "annotations that are left out: 1 whose image_id is of none of its pictures"
    assert source.remarks("sheep") == [] and source.remarks("goat") == [remark]


def test_coco_of_lvis_has_addresses(tmp_path, photo):
    document = coco(SIZE, [[SQUARE]])
    document["images"][0] = {"id": 7, "coco_url": "http://example.org/val/photo.jpg", "height": 30, "width": 44}
    assert_same(lost_of(open_source(write_json(tmp_path / "a.json", document)), photo)[0], [SQUARE_MASK])


def test_coco_finds_names_that_are_percent_encoded(tmp_path):
    photo = write_picture(tmp_path / "my photo é.jpg")
    source = open_source(write_json(tmp_path / "a.json", coco(SIZE, [[SQUARE]], "my%20photo%20%C3%A9.jpg")))
    assert_same(lost_of(source, photo)[0], [SQUARE_MASK])
    assert source.beyond([photo]) == ""
    # a name that is there as it is comes first
    literal = write_picture(tmp_path / "100%25.jpg")
    source = open_source(write_json(tmp_path / "a.json", coco(SIZE, [[SQUARE]], "100%25.jpg")))
    assert_same(lost_of(source, literal)[0], [SQUARE_MASK])


def test_only_annotations_of_the_category_are_decoded(tmp_path, photo):
    damaged = {"size": [1, 1], "counts": [5]}
    source = open_source(write_json(tmp_path / "a.json", coco(SIZE, [[SQUARE], damaged], categories=("sheep", "goat"))))
    assert_same(lost_of(source, photo, "sheep")[0], [SQUARE_MASK])
    with pytest.raises(UserError, match="run lengths are for another size"):
        lost_of(source, photo, "goat")
    corners = np.reshape(SQUARE, (-1, 2))
    shapes = [labelme_shape("polygon", corners), labelme_shape("ellipse", corners, "ground")]
    source = open_source(write_json(tmp_path / "photo.json", labelme(SIZE, shapes)))
    assert_same(lost_of(source, photo, "sheep")[0], [SQUARE_MASK])
    with pytest.raises(UserError, match="'ellipse', is not known"):
        lost_of(source, photo, None)


@pytest.mark.parametrize("kind", ["oriented_rectangle", "rotation", "quadrilateral", "polygon"])
def test_labelme_shapes_of_four_corners(tmp_path, photo, kind):
    corners = [(20.3, 5.0), (30.3, 15.0), (20.3, 25.0), (10.3, 15.0)]
    source = open_source(write_json(tmp_path / "photo.json", labelme(SIZE, [labelme_shape(kind, corners, 3)])))
    ((instance),) = source.instances(photo, SIZE)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    assert iou(instance.mask, np.abs(x - 20.3) + np.abs(y - 15) <= 10) > 0.95
    assert instance.category == "3" and source.categories() == ["3"]


def test_labelme_counts_shapes_without_area(tmp_path, photo):
    corners = np.reshape(SQUARE, (-1, 2)).tolist()
    shapes = [
        labelme_shape("linestrip", [*corners, corners[0]]),
        labelme_shape("linestrip", corners),
        labelme_shape("point", corners[:1]),
        labelme_shape("polygon", np.array(corners) / 44),
        labelme_shape("line", corners[:2], "goat"),
    ]
    source = open_source(write_json(tmp_path / "photo.json", labelme(SIZE, shapes)))
    masks, lost = lost_of(source, photo, "sheep")
    assert_same(masks, [SQUARE_MASK])
    assert lost[:2] == ["a linestrip has no area", "a point has no area"] and "between 0 and 1" in lost[2]
    assert source.categories() == ["sheep"] and len(lost) == 3


@pytest.mark.parametrize("format", ["masks", "labels", "labelme"])
def test_names_are_compared_in_one_form(tmp_path, format):
    """macOS keeps accents apart from their letters; the files of masks may come from elsewhere."""
    photo = write_picture(tmp_path / "cafe\u0301.jpg")
    masks = tmp_path / "masks"
    masks.mkdir()
    if format == "labelme":
        write_json(masks / "caf\u00e9.json", labelme(SIZE, [labelme_mask(SQUARE_MASK)]))
    else:
        name = "caf\u00e9_0.png" if format == "masks" else "caf\u00e9.png"
        Image.fromarray(SQUARE_MASK.astype(np.uint8) * 255).save(masks / name)
    assert_same(lost_of(open_source(masks, format), photo)[0], [SQUARE_MASK])
