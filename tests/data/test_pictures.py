# SPDX-License-Identifier: Apache-2.0
"""Pictures and masks in every mode and form that people have them in, against values worked out here."""

from __future__ import annotations

import io
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from common.errors import UserError
from data import pictures
from data.items import EXTENSIONS, find_items, find_pictures, not_taken
from translation.drawing import colour_masks

HEIGHT, WIDTH = 6, 9


@pytest.fixture()
def inside():
    """A mask without any symmetry, so that a turned or mirrored reading shows."""
    shape = np.zeros((HEIGHT, WIDTH), bool)
    shape[1:4, 2:7] = True
    shape[4, 5] = True
    shape[0, 0] = True
    return shape


def save(path, array_or_image, **options):
    image = array_or_image if isinstance(array_or_image, Image.Image) else Image.fromarray(array_or_image)
    image.save(path, **options)
    return path


def colourful(height=HEIGHT, width=WIDTH, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


# --- masks of any mode ------------------------------------------------------------------------------------------------


def grey(inside):
    return Image.fromarray(np.where(inside, 255, 0).astype(np.uint8))


def palette(inside):
    """Index 7 is white, index 200 (a high number) black: it is the colour that counts, not the index."""
    image = Image.fromarray(np.where(inside, 7, 200).astype(np.uint8))
    image.putpalette([255 * (i == 7) for i in range(256) for _ in range(3)])
    assert image.mode == "P"
    return image


def rgba(inside):
    """Opaque white inside; outside black on the left and transparent white on the right."""
    values = np.zeros((*inside.shape, 4), np.uint8)
    values[..., 3] = 255
    values[:, 4:] = (255, 255, 255, 0)
    values[inside] = 255
    return Image.fromarray(values)


def grey_alpha(inside):
    values = np.full((*inside.shape, 2), 255, np.uint8)
    values[..., 1] = np.where(inside, 255, 0)
    return Image.fromarray(values)


def deep(inside):
    return Image.fromarray(np.where(inside, 65535, 0).astype(np.uint16))


MASKS = {
    "1": lambda inside: grey(inside).convert("1"),
    "L": grey,
    "LA": grey_alpha,
    "P": palette,
    "RGB": lambda inside: grey(inside).convert("RGB"),
    "RGBA": rgba,
    "I;16": deep,
}


@pytest.mark.parametrize("mode", MASKS)
def test_masks_of_every_mode(tmp_path, inside, mode):
    path = save(tmp_path / "a.png", MASKS[mode](inside))
    with Image.open(path) as image:
        assert image.mode in (mode, "I"), "the file is not of the mode that is to be tested"
    mask = pictures.read_mask(path)
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, inside)
    assert pictures.read_mask(path, (HEIGHT, WIDTH)).tolist() == inside.tolist()


def test_palette_mask_with_transparency(tmp_path, inside):
    image = Image.fromarray(np.where(inside, 1, 0).astype(np.uint8))
    image.putpalette([255, 255, 255] * 256)  # all white: only the alpha says what is inside
    path = save(tmp_path / "a.png", image, transparency=0)
    np.testing.assert_array_equal(pictures.read_mask(path), inside)


@pytest.mark.parametrize(("level", "is_inside"), [(0, False), (127, False), (128, True), (255, True)])
def test_grey_is_cut_in_the_middle(tmp_path, level, is_inside):
    path = save(tmp_path / "a.png", np.full((4, 4), level, np.uint8))
    assert (pictures.read_mask(path) == is_inside).all()
    path = save(tmp_path / "b.png", np.full((4, 4), level * 257, np.uint16))
    assert (pictures.read_mask(path) == is_inside).all()


@pytest.mark.parametrize("mode", MASKS)
def test_masks_are_resized_and_then_cut(tmp_path, mode):
    """A straight edge moves with the scale; cutting first would give steps of the old pixels."""
    slope = np.arange(40)[None, :] < np.arange(20, 30)[:, None]  # inside left of a slanted edge: columns 20 to 29
    path = save(tmp_path / "a.png", MASKS[mode](slope))
    large = pictures.read_mask(path, (100, 400))
    assert large.shape == (100, 400) and large.dtype == bool
    edge = large.sum(axis=1)
    assert (np.diff(edge) >= 0).all() and len(set(edge)) > 50
    assert abs(edge[50] - 250) < 10
    assert (large[:, :190]).all() and not large[:, 310:].any()
    small = pictures.read_mask(path, (5, 20))
    assert small.shape == (5, 20)
    assert abs(small.sum() / 100 - slope.mean()) < 0.05


def test_thin_parts_vanish_or_stay_by_their_share(tmp_path):
    """One of eight columns is less than half of a pixel of the small mask, six of eight are more."""
    for columns, share in ((1, 0.0), (6, 1.0)):
        stripes = np.tile(np.arange(8) < columns, (64, 8))
        path = save(tmp_path / "a.png", np.where(stripes, 255, 0).astype(np.uint8))
        assert pictures.read_mask(path, (8, 8)).mean() == share


def test_read_masks_stacks_in_order_and_takes_none(tmp_path, inside):
    paths = [save(tmp_path / f"{i}.png", grey(m)) for i, m in enumerate((inside, ~inside, inside[::-1]))]
    masks = pictures.read_masks(paths, (HEIGHT, WIDTH))
    np.testing.assert_array_equal(masks, [inside, ~inside, inside[::-1]])
    none = pictures.read_masks([], (HEIGHT, WIDTH))
    assert none.shape == (0, HEIGHT, WIDTH) and none.dtype == bool


# --- pictures of any mode ---------------------------------------------------------------------------------------------


def test_rgb_png_is_read_exactly(tmp_path):
    truth = colourful()
    picture = pictures.read_picture(save(tmp_path / "a.png", truth))
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, truth)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_pictures_of_other_png_modes(tmp_path, mode):
    truth = colourful()
    if mode == "P":
        truth[..., 0] = truth[..., 0] // 128 * 200
        truth[..., 1:] = truth[..., :1] // 2 + [[3, 90]]
        image = Image.fromarray(truth).quantize(4)
        truth = np.asarray(image.convert("RGB"))
        assert len(np.unique(truth.reshape(-1, 3), axis=0)) == 2
    elif mode == "RGBA":
        alpha = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 1), np.uint8)
        image = Image.fromarray(np.concatenate([truth, alpha], axis=2))
    else:
        values = truth[..., 0] // 128 * 255 if mode == "1" else truth[..., 0]
        image = Image.fromarray(values).convert(mode)
        truth = np.repeat(values[..., None], 3, axis=2)
    path = save(tmp_path / "a.png", image)
    with Image.open(path) as opened:
        assert opened.mode == mode
    np.testing.assert_array_equal(pictures.read_picture(path), truth)


def test_sixteen_bit_picture_keeps_its_levels(tmp_path):
    values = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 1200
    picture = pictures.read_picture(save(tmp_path / "a.png", values))
    assert picture.shape == (HEIGHT, WIDTH, 3) and picture.dtype == np.uint8
    for channel in range(3):
        np.testing.assert_allclose(picture[..., channel], values / 65535 * 255, atol=0.501)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_pictures(tmp_path, mode):
    """Smooth pictures survive JPEG nearly unchanged; grey and CMYK come back in colour."""
    rows, columns = np.mgrid[0:32, 0:48]
    truth = np.stack([rows * 6 + 20, columns * 4 + 30, 200 - rows * 2], axis=2).astype(np.uint8)
    if mode == "L":
        truth = np.repeat(truth[..., :1], 3, axis=2)
    path = save(tmp_path / "a.jpg", Image.fromarray(truth).convert(mode), quality=98, subsampling=0)
    with Image.open(path) as opened:
        assert opened.mode == mode
    picture = pictures.read_picture(path)
    assert picture.shape == truth.shape
    assert np.abs(picture.astype(int) - truth).mean() < 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_obeyed(tmp_path, orientation):
    """The stored pixels and their tag show the upright picture; the requested size is that of the upright one."""
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :8] = 250  # the top left corner is white
    upright[8:, 24:, 0] = 250  # the bottom right one red
    # stored -> upright is: 2 mirror, 3 turn by 180, 4 flip, 5 transpose, 6 turn right, 7 transverse, 8 turn left
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(undo[orientation](upright))
    path = save(tmp_path / "a.jpg", stored, quality=98, subsampling=0, exif=exif)
    picture = pictures.read_picture(path)
    assert picture.shape == upright.shape
    assert np.abs(picture.astype(int) - upright).mean() < 4
    assert pictures.read_picture(path, (8, 16)).shape == (8, 16, 3)


def test_resized_pictures_have_the_size_and_the_colours(tmp_path):
    truth = np.zeros((20, 30, 3), np.uint8)
    truth[:, 15:] = (200, 100, 50)
    path = save(tmp_path / "a.png", truth)
    for size in ((10, 12), (40, 90), (20, 30)):
        picture = pictures.read_picture(path, size)
        assert picture.shape == (*size, 3)
        assert (picture[:, : size[1] // 2 - 4] < 10).all()
        assert np.abs(picture[:, size[1] // 2 + 4 :].astype(int) - (200, 100, 50)).max() < 10


def test_picture_and_mask_are_resized_alike(tmp_path):
    """A white disk and its mask stay on each other at any size."""
    rows, columns = np.mgrid[0:60, 0:90]
    disk = (rows - 21) ** 2 + (columns - 60) ** 2 < 200
    image, mask = grey(disk).convert("RGB"), grey(disk)
    image, mask = save(tmp_path / "a.png", image), save(tmp_path / "a_0.png", mask)
    for size in ((30, 40), (33, 22), (120, 100)):
        bright = pictures.read_picture(image, size)[..., 0] > 127.5
        assert bright.any()
        assert (bright != pictures.read_mask(mask, size)).mean() < 0.002


# --- files that cannot be read ----------------------------------------------------------------------------------------


def png_bytes():
    buffer = io.BytesIO()
    Image.fromarray(colourful(32, 32)).save(buffer, "PNG")
    return buffer.getvalue()


def jpeg_bytes():
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    Image.fromarray(colourful(32, 32)).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


WHOLE = {"png": png_bytes(), "jpg": jpeg_bytes()}


@pytest.mark.parametrize("read", [pictures.read_picture, pictures.read_mask])
@pytest.mark.parametrize("kind", ["png", "jpg"])
@pytest.mark.parametrize("what", ["zero bytes", "text", "header only", "half", "folder", "missing"])
def test_unreadable_files_are_named(tmp_path, read, kind, what):
    path, whole = tmp_path / f"some picture.{kind}", WHOLE[kind]
    contents = {"zero bytes": b"", "text": b"not a picture\n" * 9, "header only": whole[:20], "half": None}
    contents["half"] = whole[: len(whole) // 2]
    if what == "folder":
        path.mkdir()
    elif what != "missing":
        path.write_bytes(contents[what])
    with pytest.raises(UserError, match="some picture") as caught:
        read(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(UserError, match="some picture"):
        read(path, (8, 8))


@settings(max_examples=150, deadline=None)
@given(kind=st.sampled_from(sorted(WHOLE)), where=st.floats(0, 1), byte=st.integers(0, 255), cut=st.booleans())
@example("png", 0.0, 0, False)
def test_damaged_files_are_read_or_refused_but_never_crash(tmp_path_factory, kind, where, byte, cut):
    path = tmp_path_factory.getbasetemp() / f"damaged.{kind}"
    contents = bytearray(WHOLE[kind])
    at = int(where * (len(contents) - 1))
    contents[at] = byte
    path.write_bytes(contents[: at + 1] if cut else contents)
    for read, shape in ((pictures.read_picture, (8, 8, 3)), (pictures.read_mask, (8, 8))):
        try:
            assert read(path, (8, 8)).shape == shape
        except UserError as error:
            assert "damaged" in str(error)


def test_odd_exif_does_not_crash(tmp_path):
    """A tag that should be a number is text: cameras and editors write such things, and the picture is whole."""
    contents = WHOLE["jpg"].replace(b"\x01\x0f\x00\x02", b"\x01\x03\x00\x02", 1)
    assert contents != WHOLE["jpg"]
    path = tmp_path / "odd exif.jpg"
    path.write_bytes(contents)
    try:
        assert pictures.read_picture(path).shape == (32, 32, 3)
    except UserError as error:
        assert "odd exif" in str(error)


def test_masks_that_cannot_be_read_are_named(tmp_path, inside):
    good = save(tmp_path / "a_0.png", grey(inside))
    with pytest.raises(UserError, match="a_1.png"):
        pictures.read_masks([good, tmp_path / "a_1.png"], (4, 4))


# --- the files in a folder --------------------------------------------------------------------------------------------


def data_set(root, names, masks, phase="train", domain="A"):
    folder, seg = root / f"{phase}{domain}", root / f"{phase}{domain}_seg"
    folder.mkdir(parents=True)
    seg.mkdir()
    for name in names:
        (folder / name).write_bytes(b"")
    for name in masks:
        (seg / name).write_bytes(b"")
    return root


def found(root, phase="train", domain="A"):
    items = find_items(root, phase, domain)
    return {i.name: (i.image.name, {n: p.name for n, p in i.masks.items()}) for i in items}


def test_find_items_reads_names_and_numbers(tmp_path):
    data_set(
        tmp_path,
        ["b.png", "a.jpg", "c.jpeg", "no mask.png", ".hidden.png", "._a.jpg", "notes.txt", "Thumbs.db", "a.json"],
        ["a_0.png", "a_2.png", "a_10.png", "b_0.png", "c_5.png", "other_0.png", "b.png", "b_x.png", ".b_7.png"],
    )
    assert found(tmp_path) == {
        "a": ("a.jpg", {0: "a_0.png", 2: "a_2.png", 10: "a_10.png"}),
        "b": ("b.png", {0: "b_0.png"}),
        "c": ("c.jpeg", {5: "c_5.png"}),
        "no mask": ("no mask.png", {}),
    }
    items = find_items(tmp_path, "train", "A")
    assert [i.name for i in items] == sorted(i.name for i in items)
    assert list(items[0].masks) == [0, 2, 10], "by number, not by the text of the name"
    assert items[0].image == tmp_path / "trainA" / "a.jpg"
    assert items[0].masks[2] == tmp_path / "trainA_seg" / "a_2.png"


NAMES = ["two words", "dots.in.it", "under_score", "a_1", "a_1_2", "1_1", "Zürich", "ジーンズ"]
NAMES += ["a'b\"c", "<b>&amp;", "#1?", "%20", "-x"]


@pytest.mark.parametrize("name", NAMES)
def test_find_items_takes_any_name(tmp_path, name):
    data_set(tmp_path, [f"{name}.png"], [f"{name}_0.png", f"{name}_12.png"])
    assert found(tmp_path) == {name: (f"{name}.png", {0: f"{name}_0.png", 12: f"{name}_12.png"})}


def test_find_items_keeps_names_apart_that_look_like_masks(tmp_path):
    data_set(tmp_path, ["a.png", "a_1.png"], ["a_0.png", "a_1.png", "a_1_0.png", "a_1_1.png"])
    assert found(tmp_path) == {
        "a": ("a.png", {0: "a_0.png", 1: "a_1.png"}),
        "a_1": ("a_1.png", {0: "a_1_0.png", 1: "a_1_1.png"}),
    }


def test_find_items_upper_case_extensions(tmp_path):
    data_set(tmp_path, ["a.PNG", "b.JPG", "c.Jpeg"], ["a_0.png", "b_3.png"])
    assert found(tmp_path) == {"a": ("a.PNG", {0: "a_0.png"}), "b": ("b.JPG", {3: "b_3.png"}), "c": ("c.Jpeg", {})}


def test_find_items_upper_case_extensions_of_masks(tmp_path):
    """A mask, like a picture, must not be skipped silently because its extension is in capitals."""
    data_set(tmp_path, ["a.PNG"], ["a_0.PNG", "a_1.png"])
    assert found(tmp_path) == {"a": ("a.PNG", {0: "a_0.PNG", 1: "a_1.png"})}


def test_find_items_refuses_two_masks_of_one_number(tmp_path):
    data_set(tmp_path, ["a.png"], ["a_0.png", "a_00.png"])
    with pytest.raises(UserError, match="a_00?.png"):
        find_items(tmp_path, "train", "A")


def test_find_items_refuses_a_name_with_two_extensions(tmp_path):
    data_set(tmp_path, ["a.png", "a.jpg"], ["a_0.png"])
    with pytest.raises(UserError, match="a.jpg") as caught:
        find_items(tmp_path, "train", "A")
    assert "a.png" in str(caught.value)


def test_find_items_keeps_domains_and_phases_apart(tmp_path):
    for phase in ("train", "sample"):
        for domain in "AB":
            data_set(tmp_path, [f"{phase}{domain}1.png"], [f"{phase}{domain}1_0.png"], phase, domain)
    for phase in ("train", "sample"):
        for domain in "AB":
            name = f"{phase}{domain}1"
            assert found(tmp_path, phase, domain) == {name: (f"{name}.png", {0: f"{name}_0.png"})}


def test_find_items_without_the_folder_lists_the_phases(tmp_path):
    for phase in ("train", "sample"):
        data_set(tmp_path, ["a.png"], [], phase, "A")
    with pytest.raises(UserError, match="testA") as caught:
        find_items(tmp_path, "test", "A")
    assert "sample" in str(caught.value) and "train" in str(caught.value) and "_seg" not in str(caught.value)
    with pytest.raises(UserError, match="none"):
        find_items(tmp_path / "nowhere", "test", "A")


def test_find_items_with_an_empty_folder(tmp_path):
    data_set(tmp_path, ["notes.txt"], [])
    with pytest.raises(UserError, match="trainA"):
        find_items(tmp_path, "train", "A")


def test_find_items_without_masks_folder(tmp_path):
    data_set(tmp_path, ["a.png"], [])
    (tmp_path / "trainA_seg").rmdir()
    assert found(tmp_path) == {"a": ("a.png", {})}


def test_composed_and_decomposed_names_are_not_mixed_up(tmp_path):
    """A name is used exactly as the file system returns it."""
    name = unicodedata.normalize("NFC", "Zürich")
    data_set(tmp_path, [f"{name}.png"], [f"{name}_0.png"])
    assert found(tmp_path)[name][1] == {0: f"{name}_0.png"}


# --- to the network and back ------------------------------------------------------------------------------------------


def test_to_network_and_back():
    truth = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    truth[..., 1] = truth[::-1, :, 1]
    values = pictures.to_network(truth)
    assert values.shape == (3, 16, 16) and values.dtype == np.float32 and values.flags["C_CONTIGUOUS"]
    assert values.min() == -1 and values.max() == 1
    np.testing.assert_allclose(values[1, 2, 3], truth[2, 3, 1] / 255 * 2 - 1, atol=1e-6)
    np.testing.assert_array_equal(pictures.to_picture(values), truth)


def test_to_picture_rounds_and_clips():
    values = np.array([[-3.0, -1.0, 100.4 / 127.5 - 1, 100.6 / 127.5 - 1, 1.0, 7.0]])
    np.testing.assert_array_equal(pictures.to_picture(values), [[0, 0, 100, 101, 255, 255]])


def test_masks_to_network(inside):
    values = pictures.masks_to_network(np.stack([inside, ~inside]))
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values[0], np.where(inside, 1, -1))
    np.testing.assert_array_equal(values[1], np.where(inside, -1, 1))
    np.testing.assert_array_equal(pictures.to_picture(values[0]), np.where(inside, 255, 0))


@pytest.mark.parametrize("shape", [(5, 7, 3), (5, 7)])
def test_write_png_and_read_it_again(tmp_path, shape):
    truth = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    path = tmp_path / "new" / "folder" / "a.b.png"
    pictures.write_png(path, truth)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), truth)
    assert [p.name for p in path.parent.iterdir()] == ["a.b.png"]


@pytest.mark.parametrize("old", [None, b"what was there before"])
def test_write_png_is_whole_or_absent(tmp_path, monkeypatch, old):
    """A disk that fills up in the middle of a write leaves the old file, or none, and no rest."""
    path = tmp_path / "a.png"
    if old is not None:
        path.write_bytes(old)

    def fill_up(self, target, *_, **__):
        Path(target).write_bytes(WHOLE["png"][:30])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fill_up)
    with pytest.raises(OSError, match="space"):
        pictures.write_png(path, colourful())
    assert [p.name for p in tmp_path.iterdir()] == ([] if old is None else ["a.png"])
    if old is not None:
        assert path.read_bytes() == old


def test_colour_masks_shows_each_instance_in_another_colour():
    masks = -np.ones((8, 4, 8), np.float32)
    for i in range(8):
        masks[i, :3, i] = 1
    shown = colour_masks(masks)
    assert shown.shape == (4, 8, 3) and shown.dtype == np.uint8
    assert (shown[3] == 0).all(), "black where no instance is"
    assert (shown[:3] == shown[:1]).all()
    colours = {tuple(c) for c in shown[0, :6].tolist()}
    assert len(colours) == 6 and (0, 0, 0) not in colours
    assert (colour_masks(masks[:0]) == 0).all()


@pytest.mark.parametrize("ending", EXTENSIONS)
def test_all_kinds_of_picture_are_read_in_folders_as_singly(tmp_path, ending):
    kinds = {".jfif": "JPEG", ".jpg": "JPEG", ".tif": "TIFF"}
    array = colourful()
    Image.fromarray(array).save(tmp_path / f"photo{ending.upper()}", format=kinds.get(ending))
    (item,) = find_pictures(tmp_path, None)
    assert item.name == "photo" and pictures.read_picture(item.image).shape == array.shape
    if ending in (".png", ".bmp", ".tif", ".tiff"):
        np.testing.assert_array_equal(pictures.read_picture(item.image), array)
    assert not_taken(tmp_path, None) == ""


def test_what_is_not_taken_is_named(tmp_path):
    photos, masks = tmp_path / "photos", tmp_path / "photos_seg"
    for folder in (photos / "more", masks):
        folder.mkdir(parents=True)
    for name in ("a.png", "b.heic", "c.psd", "d.txt", "e.svg", "Thumbs.db", "a.json", ".hidden"):
        (photos / name).touch()
    for name in ("a_0.png", "a_1.jpg", "a.png"):
        (masks / name).touch()
    assert not_taken(photos, masks) == (
        f"{photos}: not taken: b.heic, c.psd, d.txt and 1 more (pictures are {', '.join(EXTENSIONS)}); what is in more "
        f"(give such folders one by one); a.png, a_1.jpg in {masks} (masks are NAME_0.png, NAME_1.png, ...)"
    )
    assert not_taken(photos, tmp_path / "nowhere").endswith("what is in more (give such folders one by one)")


def test_names_that_look_alike_are_one_name(tmp_path):
    """macOS keeps accents apart from their letters; masks may have been made elsewhere."""
    photos, masks = tmp_path / "photos", tmp_path / "photos_seg"
    for folder in (photos, masks):
        folder.mkdir()
    (photos / "cafe\u0301.png").touch()
    (masks / "caf\u00e9_0.png").touch()
    (item,) = find_pictures(photos, masks)
    assert list(item.masks) == [0]
    (photos / "caf\u00e9.jpg").touch()
    with pytest.raises(UserError, match="share a name"):
        find_pictures(photos, masks)
