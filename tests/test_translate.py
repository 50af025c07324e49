# SPDX-License-Identifier: Apache-2.0
"""translate.py as a user runs it, with a small random model: its results, and its messages about the rest."""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import maximum_filter

import models
import segment
import translate
from backend import kernels
from common import files
from data import pictures
from masks import segmenter
from models import GENERATORS, NETWORKS, Architecture, create_parameters
from tests.helpers import annotation_files
from translation.drawing import instance_colour, outline_masks
from translation.translator import Translator
from weights import model_file

ARCH = Architecture(ngf=4, ndf=2, n_blocks=1)
HEIGHT, WIDTH = 16, 20
MORE = dict(fineSizeH=HEIGHT, fineSizeW=WIDTH, ins_per=2, ins_max=4, set_order="decreasing")


@pytest.fixture(autouse=True)
def on_the_cpu(clean_nnabla):
    """Graphs made here are computed as the scripts do it."""
    kernels.configure("auto")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A random model whose translations are far from its inputs: weights of 0.2, where training starts from 0.02."""
    import nnabla as nn

    nn.clear_parameters()
    create_parameters(ARCH, np.random.RandomState(5))
    values = {n: v.d * (10 if n.endswith("W") else 1) for n, v in nn.get_parameters(grad_only=False).items()}
    nn.clear_parameters()
    path = tmp_path_factory.mktemp("model") / "params_000007.h5"
    model_file.save_model(path, values, model_file.model_config(ARCH, networks=sorted(NETWORKS), **MORE))
    return path


def picture(seed, height=HEIGHT, width=WIDTH):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def mask(top, left, bottom, right, height=HEIGHT, width=WIDTH):
    values = np.zeros((height, width), np.uint8)
    values[top:bottom, left:right] = 255
    return values


SMALL, MIDDLE, LARGE = mask(1, 1, 4, 5), mask(8, 1, 14, 8), mask(1, 9, 14, 19)


def save(folder, name, seed, masks):
    """A picture in `folder` and its masks, by number, in `folder`_seg."""
    seg = folder.with_name(folder.name + "_seg")
    for f in (folder, seg):
        f.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed)).save(folder / f"{name}.png")
    for number, values in masks.items():
        Image.fromarray(values).save(seg / f"{name}_{number}.png")


@pytest.fixture()
def data(tmp_path):
    """Two pictures in A, with masks that are numbered with gaps and not by size, and one in B."""
    root = tmp_path / "data"
    save(root / "testA", "first", 1, {0: SMALL, 2: LARGE, 5: MIDDLE})
    save(root / "testA", "second", 2, {3: MIDDLE})
    save(root / "testB", "other", 3, {0: MIDDLE, 1: SMALL})
    return root


@pytest.fixture()
def translated(run_main, model, tmp_path):
    """Run translate.py's main here, into `out`; return (exit code, standard output, standard error)."""

    def run(*arguments, out=tmp_path / "out", of=model):
        return run_main(translate, "--model", of, "--output", out, "-c", "cpu", *arguments)

    return run


@pytest.fixture()
def done(translated):
    """Run it and expect it to succeed; return standard output."""

    def run(*arguments, **more):
        code, out, err = translated(*arguments, **more)
        assert code == 0, err
        return out

    return run


def image(path):
    return np.asarray(Image.open(path))


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def truth(model, direction, seed, masks, ins_per=2):
    """The translation by the networks alone, masks in the order given: uint8 picture, uint8 masks."""
    import nnabla as nn

    nn.clear_parameters()
    nn.load_parameters(str(model))
    translator = Translator(GENERATORS[direction], ARCH, ins_per)
    masks = pictures.masks_to_network(np.array(masks) > 127)
    y, b = translator.translate(pictures.to_network(picture(seed)), masks)
    return pictures.to_picture(y), [pictures.to_picture(m) for m in b]


# --- what comes back --------------------------------------------------------------------------------------------------


def test_a_domain(done, data, model, tmp_path):
    """Largest instance first, but numbered as in the input."""
    said = done("--dataroot", data, "--direction", "AtoB")
    out = tmp_path / "out"
    assert names(out / "images") == ["first.png", "second.png"]
    assert names(out / "masks") == ["first_0.png", "first_2.png", "first_5.png", "second_3.png"]
    y, (large, middle, small) = truth(model, "AtoB", 1, [LARGE, MIDDLE, SMALL])
    np.testing.assert_array_equal(image(out / "images" / "first.png"), y)
    for number, expected in ((0, small), (2, large), (5, middle)):
        np.testing.assert_array_equal(image(out / "masks" / f"first_{number}.png"), expected)
    y, (middle,) = truth(model, "AtoB", 2, [MIDDLE])
    np.testing.assert_array_equal(image(out / "images" / "second.png"), y)
    np.testing.assert_array_equal(image(out / "masks" / "second_3.png"), middle)
    assert np.abs(y.astype(int) - picture(2)).mean() > 10, "a translation that changes nothing tests nothing"
    assert "2 of 2" in said and "index.html" in said and "context: cpu" in said and str(model) in said


def test_the_other_direction(done, data, model, tmp_path):
    done("--dataroot", data, "--direction", "BtoA")
    assert names(tmp_path / "out" / "images") == ["other.png"]
    y, (middle, small) = truth(model, "BtoA", 3, [MIDDLE, SMALL])
    np.testing.assert_array_equal(image(tmp_path / "out" / "images" / "other.png"), y)
    np.testing.assert_array_equal(image(tmp_path / "out" / "masks" / "other_0.png"), middle)
    np.testing.assert_array_equal(image(tmp_path / "out" / "masks" / "other_1.png"), small)
    other_way, _ = truth(model, "AtoB", 3, [MIDDLE, SMALL])
    assert not np.array_equal(y, other_way)


def test_another_phase(done, data, tmp_path):
    save(data / "sampleA", "one", 1, {0: SMALL})
    done("--dataroot", data, "--phase", "sample")
    assert names(tmp_path / "out" / "images") == ["one.png"]


@pytest.mark.parametrize("say", [True, False])
def test_a_folder(done, data, model, tmp_path, say):
    """The masks are in FOLDER_seg, or in the folder of --masks."""
    folder, seg = data / "testA", data / "testA_seg"
    if say:
        seg = seg.rename(tmp_path / "my masks")
    done("--image", folder, *(["--masks", seg] if say else []))
    assert names(tmp_path / "out" / "masks") == ["first_0.png", "first_2.png", "first_5.png", "second_3.png"]
    np.testing.assert_array_equal(
        image(tmp_path / "out" / "images" / "second.png"), truth(model, "AtoB", 2, [MIDDLE])[0]
    )


def test_one_picture_with_its_masks(done, data, model, tmp_path):
    masks = [data / "testA_seg" / f"first_{n}.png" for n in (0, 5)]
    done("--image", data / "testA" / "first.png", "--masks", *masks)
    out = tmp_path / "out"
    assert names(out / "images") == ["first.png"] and names(out / "masks") == ["first_0.png", "first_5.png"]
    y, (middle, small) = truth(model, "AtoB", 1, [MIDDLE, SMALL])
    np.testing.assert_array_equal(image(out / "images" / "first.png"), y)
    np.testing.assert_array_equal(image(out / "masks" / "first_0.png"), small)
    np.testing.assert_array_equal(image(out / "masks" / "first_5.png"), middle)


def test_masks_of_other_names_are_numbered_as_given(done, data, tmp_path):
    left, right = data / "left.png", data / "right.png"
    Image.fromarray(SMALL).save(left)
    Image.fromarray(LARGE).save(right)
    done("--image", data / "testA" / "first.png", "--masks", left, right)
    assert names(tmp_path / "out" / "masks") == ["first_0.png", "first_1.png"]


def test_a_run_folder_means_its_newest_model(done, data, model, tmp_path):
    """model.h5 of the folder with the highest number; by number, not by date."""
    folder = tmp_path / "run"
    folder.mkdir()
    for number in (20, 100, 3):
        for ending in (".h5", ".json"):
            shutil.copy(model.with_suffix(ending), folder / f"params_{number:06d}{ending}")
    said = done("--dataroot", data, of=folder)
    assert "params_000100.h5" in said


def test_ins_max_leaves_the_others_alone_and_says_so(done, data, model, tmp_path):
    said = done("--dataroot", data, "--ins-max", 2)
    assert names(tmp_path / "out" / "masks") == ["first_2.png", "first_5.png", "second_3.png"]
    (line,) = [line for line in said.splitlines() if "first_0" in line]
    assert "--ins-max" in line and "first_2" not in line and "first_5" not in line
    assert not any("second_3" in line for line in said.splitlines())
    y, _ = truth(model, "AtoB", 1, [LARGE, MIDDLE])
    np.testing.assert_array_equal(image(tmp_path / "out" / "images" / "first.png"), y)


def test_an_empty_mask_is_left_alone_and_named(done, data, tmp_path):
    Image.fromarray(np.zeros_like(SMALL)).save(data / "testA_seg" / "second_8.png")
    said = done("--dataroot", data)
    (line,) = [line for line in said.splitlines() if "second_8" in line]
    assert "empty" in line
    assert names(tmp_path / "out" / "masks") == ["first_0.png", "first_2.png", "first_5.png", "second_3.png"]


@pytest.mark.parametrize("empty_masks", [0, 2])
def test_a_picture_without_instances_comes_back_unchanged(done, data, tmp_path, empty_masks):
    large = picture(9, 31, 50)
    Image.fromarray(large).save(data / "testA" / "lonely.png")
    for number in range(empty_masks):
        Image.fromarray(np.zeros((31, 50), np.uint8)).save(data / "testA_seg" / f"lonely_{number}.png")
    said = done("--dataroot", data)
    assert any("lonely" in line and "no instance" in line for line in said.splitlines())
    resized = np.asarray(Image.fromarray(large).resize((WIDTH, HEIGHT), Image.BICUBIC))
    np.testing.assert_array_equal(image(tmp_path / "out" / "images" / "lonely.png"), resized)
    assert names(tmp_path / "out" / "images") == ["first.png", "lonely.png", "second.png"]
    assert not list((tmp_path / "out" / "masks").glob("lonely*"))


def test_an_unreadable_file_is_listed_at_the_end(translated, data, tmp_path):
    (data / "testA" / "broken.png").write_bytes(b"nothing")
    save(data / "testA", "bad mask", 4, {0: SMALL, 1: LARGE})
    victim = data / "testA_seg" / "bad mask_1.png"
    victim.write_bytes(victim.read_bytes()[:30])
    code, out, err = translated("--dataroot", data)
    assert code == 1
    assert names(tmp_path / "out" / "images") == ["first.png", "second.png"]
    assert "2 of 4" in out
    last = err.splitlines()[-2:]
    assert "bad mask_1.png" in last[0] and "broken.png" in last[1]
    assert all("not translated" in line for line in last) and "Traceback" not in err
    assert "first" in (tmp_path / "out" / "index.html").read_text("utf-8")


def test_one_unreadable_picture_is_a_failure(translated, data):
    (data / "testA" / "first.png").write_bytes(b"")
    code, _, err = translated("--image", data / "testA" / "first.png", "--masks", data / "testA_seg" / "first_0.png")
    assert code != 0 and "first.png" in err and "Traceback" not in err


# --- which instances, and at what size --------------------------------------------------------------------------------


@pytest.fixture()
def photo(tmp_path):
    """A picture of many times the network's size, with three instances: its file, and their masks by number."""
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.fromarray(picture(7)).resize((400, 300), Image.BICUBIC).save(folder / "photo.png")
    boxes = (10, 20, 40, 60), (150, 60, 190, 100), (200, 250, 230, 330)
    masks = {number: mask(*box, 300, 400) for number, box in enumerate(boxes)}
    for number, values in masks.items():
        Image.fromarray(values).save(folder / f"photo_{number}.png")
    return folder / "photo.png", masks


def touched(folder, masks):
    """The pixels that may differ: old and new masks, and a pixel of the network around them, 10 pixels of the photo."""
    new = [image(path) for path in sorted((folder / "masks").glob("photo_*.png"))]
    union = np.any([m > 127 for m in [*masks, *new]], axis=0)
    return maximum_filter(union, 2 * 10 + 1)


def test_keep_size_changes_nothing_elsewhere(done, photo, tmp_path):
    path, masks = photo
    done("--image", path, "--masks", *path.parent.glob("photo_*.png"), "--keep-size")
    out = tmp_path / "out"
    before, after = image(path), image(out / "images" / "photo.png")
    assert after.shape == before.shape
    assert names(out / "masks") == ["photo_0.png", "photo_1.png", "photo_2.png"]
    assert all(image(out / "masks" / name).shape == before.shape[:2] for name in names(out / "masks"))
    may = touched(out, masks.values())
    assert (after[~may] == before[~may]).all() and (~may).mean() > 0.1
    for number in masks:
        inside = masks[number] > 0
        assert np.abs(after[inside].astype(int) - before[inside]).mean() > 10


def test_keep_size_of_the_network_s_own_size(done, data, model, tmp_path):
    """The cut-out is the whole picture then: where the instance was or is, it is what comes without the flag."""
    done("--dataroot", data, "--keep-size")
    y, (new,) = truth(model, "AtoB", 2, [MIDDLE])
    found = image(tmp_path / "out" / "images" / "second.png")
    union = (MIDDLE > 127) | (new > 127)
    np.testing.assert_array_equal(found[union], y[union])
    far = ~maximum_filter(union, 3)
    np.testing.assert_array_equal(found[far], picture(2)[far])
    np.testing.assert_array_equal(image(tmp_path / "out" / "masks" / "second_3.png"), new)


@pytest.mark.parametrize("keep", [True, False])
def test_selected_instances_only(done, photo, data, model, tmp_path, keep):
    path, masks = photo
    how = ["--keep-size"] if keep else []
    done("--image", path, "--masks", *path.parent.glob("photo_*.png"), "--select", "2,0", *how)
    out = tmp_path / "out"
    assert names(out / "masks") == ["photo_0.png", "photo_2.png"]
    if keep:
        may = touched(out, [masks[0], masks[2]])
        before, after = image(path), image(out / "images" / "photo.png")
        assert (after[~may] == before[~may]).all() and (~may & (masks[1] > 0)).any()
    else:
        (data / "testA" / "second.png").unlink()
        done("--dataroot", data, "--select", "0,5", out=tmp_path / "two")
        expected, _ = truth(model, "AtoB", 1, [MIDDLE, SMALL])
        np.testing.assert_array_equal(image(tmp_path / "two" / "images" / "first.png"), expected)


def test_selected_instances_that_are_not_there(translated, data, tmp_path):
    """Pictures with none of the selected instances stay unchanged; missing instances of other pictures are reported."""
    code, out, _ = translated("--dataroot", data, "--select", "3,7")
    assert code == 0 and names(tmp_path / "out" / "masks") == ["second_3.png"]
    assert "second_7 (there is none)" in out and "first: no instance" in out
    assert "1 of 2 pictures translated, 1 without an instance left as they are" in out
    np.testing.assert_array_equal(image(tmp_path / "out" / "images" / "first.png"), picture(1))
    arguments = ["--image", data / "testA" / "first.png", "--masks", data / "testA_seg", "--select", "2,7"]
    code, _, err = translated(*arguments, out=tmp_path / "one")
    assert code == 1 and "first.png has no instance 7 (--select); it has: 0, 2, 5" in err


@pytest.mark.parametrize(
    ("flags", "word"), [("--keep-size", "--keep-size"), ("--select 0", "--select"), ("--box 1,1,9,9", "--box")]
)
def test_a_model_without_masks_takes_no_instances(translated, data, model, tmp_path, flags, word):
    parameters, config = model_file.load_model(model)
    model_file.save_model(tmp_path / "cyclegan.h5", parameters, {**config, "ins_per": 0})
    arguments = ["--image", data / "testA" / "first.png", *flags.split()]
    assert word in refusal(translated, tmp_path, *arguments, of=tmp_path / "cyclegan.h5")


def test_what_is_left_as_it_is_has_a_colour_on_the_page_too(done, data, tmp_path):
    done("--dataroot", data, "--select", "5")
    record = json.loads((tmp_path / "out" / "translations.json").read_text())["first"]["files"]
    assert [link[0] for link in record] == ["0, left as it is", "2, left as it is", "mask 5"]
    colours = [f"#{bytes(instance_colour(rank)).hex()}" for rank in range(3)]
    assert [link[2] for link in record] == colours
    masks = np.stack([SMALL, LARGE, MIDDLE]) > 0
    np.testing.assert_array_equal(image(tmp_path / "out" / "page" / "before_first.png"), outline_masks(masks))


@pytest.mark.parametrize(("space", "kept"), [("RGB ", True), ("CMYK", False)])
def test_the_colour_profile_of_a_photo_is_kept(done, data, tmp_path, space, kept):
    profile = bytes(16) + space.encode() + bytes(108)
    Image.fromarray(picture(1)).save(tmp_path / "p.png", icc_profile=profile)
    done("--image", tmp_path / "p.png", "--masks", data / "testA_seg" / "first_2.png")
    found = Image.open(tmp_path / "out" / "images" / "p.png").info.get("icc_profile")
    assert found == (profile if kept else None)


def test_large_pictures_are_shown_smaller(done, tmp_path):
    """The page shows at most 1024 pixels; the files are as large as the picture."""
    Image.fromarray(picture(1, 60, 2048)).save(tmp_path / "wide.png")
    Image.fromarray(mask(10, 10, 40, 40, 60, 2048)).save(tmp_path / "m.png")
    done("--image", tmp_path / "wide.png", "--masks", tmp_path / "m.png", "--keep-size")
    out = tmp_path / "out"
    assert image(out / "images" / "wide.png").shape == image(tmp_path / "wide.png").shape
    assert image(out / "inputs" / "wide.png").shape == image(out / "page" / "small_wide.png").shape == (30, 1024, 3)
    assert image(out / "masks" / "wide_0.png").shape == (60, 2048)
    done("--image", tmp_path / "wide.png", "--masks", tmp_path / "m.png", "--overwrite")
    assert not (out / "page" / "small_wide.png").exists()


def with_share(model, tmp_path, value):
    parameters, config = model_file.load_model(model)
    model_file.save_model(tmp_path / "share.h5", parameters, {**config, "instance_share": value})
    return tmp_path / "share.h5"


@pytest.mark.parametrize("value", [0.5, {"A": 0.0}, {"A": 1.5}, {"A": "x"}, {"A": True}, [1]])
def test_a_share_that_is_none_is_refused(translated, data, model, tmp_path, value):
    message = refusal(translated, tmp_path, "--dataroot", data, of=with_share(model, tmp_path, value))
    assert "instance_share" in message


def test_an_instance_is_shown_as_large_as_in_training(monkeypatch, done, photo, model, tmp_path):
    seen = []
    original = Translator.translate

    def noting(self, x, a):
        seen.append((a[0] > 0).mean())
        return original(self, x, a)

    monkeypatch.setattr(Translator, "translate", noting)
    path, masks = photo
    for n, share in enumerate((0.3, 0.6)):
        one = with_share(model, tmp_path, {"A": share, "B": None})
        done("--image", path, "--masks", path.parent / "photo_0.png", "--keep-size", of=one, out=tmp_path / f"{n}")
    # 30x40 pixels for 16x20: the width takes the share, the height 15/16 of it
    assert seen == [pytest.approx(share**2 * 15 / 16, rel=0.15) for share in (0.3, 0.6)]


# --- masks in another form --------------------------------------------------------------------------------------------


def same_result(tmp_path, one, other):
    """Both folders hold the same picture and masks."""
    for kind in ("images", "masks"):
        first, second = (tmp_path / out / kind for out in (one, other))
        assert names(first) == names(second)
        assert all((first / name).read_bytes() == (second / name).read_bytes() for name in names(first))


@pytest.mark.parametrize("keep", [(), ("--keep-size",)])
@pytest.mark.parametrize("form", ["coco", "labelme", "labels"])
def test_annotations_are_as_good_as_masks(done, photo, tmp_path, form, keep):
    path, masks = photo
    done("--image", path, "--masks", *sorted(path.parent.glob("photo_*.png")), *keep, out=tmp_path / "files")
    inside, more = [m > 0 for m in masks.values()], []
    if form == "labels":
        file, more = tmp_path / "labels.png", ["--mask-format", "labels"]
        Image.fromarray((inside[0] + 2 * inside[1] + 3 * inside[2]).astype(np.uint8)).save(file)
    elif form == "coco":
        file = tmp_path / "coco.json"
        content = annotation_files.coco((300, 400), [annotation_files.compressed_rle(m) for m in inside], "photo.png")
        file.write_text(json.dumps(content))
    else:
        file = tmp_path / "photo.json"
        shapes = [annotation_files.labelme_mask(m) for m in inside]
        file.write_text(json.dumps(annotation_files.labelme((300, 400), shapes)))
    done("--image", path, "--masks", file, *more, *keep)
    same_result(tmp_path, "files", "out")


def test_a_folder_with_one_file_of_annotations(done, translated, data, tmp_path):
    """Each picture has its own, and a category of it can be asked for."""
    segmentations = [annotation_files.plain_rle(m > 0) for m in (LARGE, SMALL)]
    content = annotation_files.coco((HEIGHT, WIDTH), segmentations, "first.png", ("sheep", "dog"))
    (tmp_path / "all.json").write_text(json.dumps(content))
    arguments = ["--image", data / "testA", "--masks", tmp_path / "all.json"]
    said = done(*arguments, "--category", "dog")
    assert names(tmp_path / "out" / "masks") == ["first_0.png"] and "second: no instance" in said
    Image.fromarray(SMALL).save(tmp_path / "small.png")
    done("--image", data / "testA" / "first.png", "--masks", tmp_path / "small.png", out=tmp_path / "file")
    expected = image(tmp_path / "file" / "masks" / "first_0.png")
    np.testing.assert_array_equal(image(tmp_path / "out" / "masks" / "first_0.png"), expected)
    code, _, err = translated(*arguments, "--category", "cat", out=tmp_path / "none")
    assert code == 2 and "has no category 'cat'; it has: dog, sheep" in err and not (tmp_path / "none").exists()


def test_boxes(done, tmp_path):
    """A box stands for the object in it; the other object, in no box, is left alone."""
    rows, columns = np.mgrid[:120, :160]
    left, right = ((rows - 60) ** 2 + (columns - x) ** 2 < 20**2 for x in (40, 120))
    scene = np.where((left | right)[..., None], [200, 30, 30], [60, 120, 60]).astype(np.uint8)
    Image.fromarray(scene).save(tmp_path / "scene.png")
    Image.fromarray((left * 255).astype(np.uint8)).save(tmp_path / "left.png")
    done("--image", tmp_path / "scene.png", "--masks", tmp_path / "left.png", out=tmp_path / "files")
    done("--image", tmp_path / "scene.png", "--box", "15,35,65,85")
    by_mask, by_box = (image(tmp_path / out / "images" / "scene.png").astype(int) for out in ("files", "out"))
    assert np.abs(by_mask - by_box).mean() < 3
    said = done("--image", tmp_path / "scene.png", "--box", "60,0,100,20", "15,35,65,85", out=tmp_path / "two")
    assert "nothing stands out in the box 60,0,100,20" in said
    assert names(tmp_path / "two" / "masks") == ["scene_0.png", "scene_1.png"]
    done("--image", tmp_path / "scene.png", "--box", "60,0,100,20", "--box", "15,35,65,85", out=tmp_path / "again")
    same_result(tmp_path, "two", "again")


def test_a_segmenter(done, data, tmp_path, run_main):
    """The model finds the masks that its `predict` writes."""
    import nnabla as nn

    nn.clear_parameters()
    settings = segmenter.SegmenterSettings((32, 32), (False, False))
    segmenter.Segmenter(settings, (4, 4)).save(tmp_path / "s.h5", {})
    alone = tmp_path / "alone"
    shutil.copytree(data / "testA", alone)
    command = ["predict", "--model", tmp_path / "s.h5", "--image", alone, "--domain", "A", "-c", "cpu"]
    assert run_main(segment, *command)[0] == 0
    masks = sorted((tmp_path / "alone_seg").glob("*.png"))
    assert masks, "a segmenter that finds nothing tests nothing"
    done("--image", alone, out=tmp_path / "files")
    shutil.rmtree(tmp_path / "alone_seg")
    done("--image", alone, "--segmenter", tmp_path / "s.h5")
    same_result(tmp_path, "files", "out")


def test_the_folder_that_one_is_in(done, data, tmp_path, monkeypatch):
    monkeypatch.chdir(data / "testA")
    done("--image", ".")
    assert names(tmp_path / "out" / "masks") == ["first_0.png", "first_2.png", "first_5.png", "second_3.png"]


def test_one_picture_and_the_folder_of_its_masks(done, data, tmp_path):
    done("--image", data / "testA" / "second.png", "--masks", data / "testA_seg")
    assert names(tmp_path / "out" / "masks") == ["second_3.png"]


def test_a_stray_json_does_not_hide_masks(done, data, tmp_path):
    (data / "testA_seg" / "notes.json").write_text("{}")
    assert "2 of 2 pictures translated" in done("--image", data / "testA")


def test_a_folder_of_label_maps_is_known(done, data, tmp_path):
    """Label maps are recognized in FOLDER_seg, and in the folder of --masks."""
    shutil.rmtree(data / "testA_seg")
    (data / "testA_seg").mkdir()
    labels = np.where(LARGE, 2, np.where(SMALL, 1, 0)).astype(np.uint8)
    Image.fromarray(labels).save(data / "testA_seg" / "first.png")
    said = done("--image", data / "testA")
    assert names(tmp_path / "out" / "masks") == ["first_0.png", "first_1.png"] and "1 of 2 pictures" in said
    assert "--mask-format labels" not in said


def test_the_annotations_of_one_picture_are_not_those_of_all(translated, data, tmp_path):
    file = tmp_path / "first.json"
    file.write_text(json.dumps(annotation_files.labelme((HEIGHT, WIDTH), [annotation_files.labelme_mask(LARGE > 0)])))
    assert "is for one picture" in refusal(translated, tmp_path, "--image", data / "testA", "--masks", file)


def test_what_has_no_mask_is_said(done, data, tmp_path):
    segmentations = [annotation_files.plain_rle(LARGE > 0), []]
    content = annotation_files.coco((HEIGHT, WIDTH), segmentations, "first.png")
    (tmp_path / "all.json").write_text(json.dumps(content))
    said = done("--image", data / "testA" / "first.png", "--masks", tmp_path / "all.json")
    assert "left out: 1 without a segmentation" in said and names(tmp_path / "out" / "masks") == ["first_0.png"]


def test_a_mask_of_another_shape_is_told(done, data, tmp_path):
    Image.fromarray(mask(2, 2, 10, 10, 20, 16)).save(tmp_path / "m.png")
    said = done("--image", data / "testA" / "first.png", "--masks", tmp_path / "m.png")
    assert "m.png is 16x20, its picture 20x16 (width x height): it is stretched to the picture" in said


def test_a_label_map_that_is_given_as_a_mask_is_told(done, data, tmp_path):
    file = tmp_path / "labels.png"
    for value, name in ((100, "grey"), (1, "dark")):
        Image.fromarray(np.where(LARGE, value, SMALL if value > 1 else 0).astype(np.uint8)).save(file)
        arguments = ["--image", data / "testA" / "first.png", "--masks", file]
        assert "--mask-format labels" in done(*arguments, out=tmp_path / name)


# --- sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(17, 20), (16, 21), (19, 22), (8, 8), (9, 11), (24, 12)])
def test_sizes_by_flag(done, data, tmp_path, height, width):
    """A size that is not a multiple of 4 works too: pictures are padded, and cropped back."""
    done("--dataroot", data, "--fineSizeH", height, "--fineSizeW", width)
    out = tmp_path / "out"
    for path in [*(out / "images").iterdir(), *(out / "masks").iterdir(), *(out / "inputs").iterdir()]:
        assert image(path).shape[:2] == (height, width), path
    resized = np.asarray(Image.fromarray(picture(2)).resize((width, height), Image.BICUBIC))
    np.testing.assert_array_equal(image(out / "inputs" / "second.png"), resized)


def test_a_size_that_is_padded_is_the_padded_one_cropped_back(model):
    """The network translates the picture with a mirrored margin on the right and at the bottom."""
    import nnabla as nn

    nn.load_parameters(str(model))
    translator = Translator("gen_x2y", ARCH, 2)
    x = pictures.to_network(picture(1))
    a = pictures.masks_to_network(np.array([LARGE, MIDDLE, SMALL]) > 127)
    y, b = translator.translate(x[:, :14, :17], a[:, :14, :17])
    rows, columns = [*range(14), 12, 11], [*range(17), 15, 14, 13]
    whole_y, whole_b = translator.translate(x[:, rows][:, :, columns], a[:, rows][:, :, columns])
    assert y.shape == (3, 14, 17) and b.shape == (3, 14, 17)
    np.testing.assert_array_equal(y, whole_y[:, :14, :17])
    np.testing.assert_array_equal(b, whole_b[:, :14, :17])


def test_a_model_without_a_size_wants_one(translated, done, data, model, tmp_path):
    parameters, config = model_file.load_model(model)
    path = tmp_path / "converted.h5"
    model_file.save_model(path, parameters, {**config, "fineSizeH": None, "fineSizeW": None})
    code, _, err = translated("--dataroot", data, of=path)
    assert code == 2 and "--fineSizeH" in err and "--fineSizeW" in err and err.count("\n") == 1
    done("--dataroot", data, "--fineSizeH", 12, "--fineSizeW", 16, of=path)
    assert image(tmp_path / "out" / "images" / "first.png").shape == (12, 16, 3)


# --- sequential -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ins_per", [1, 2, 3])
def test_more_instances_cost_no_larger_graph(monkeypatch, model, ins_per):
    """Eight instances are translated with graphs of `ins_per` masks at most, and few of them."""
    import nnabla as nn

    nn.load_parameters(str(model))
    built, original = [], models.generator

    def noting(x, a, *more):
        built.append((x.shape[0], a.shape[0]))
        return original(x, a, *more)

    monkeypatch.setattr("translation.translator.generator", noting)
    boxes = [mask(2 * i, 2 * i, 2 * i + 2, 2 * i + 3) for i in range(8)]
    translator = Translator("gen_x2y", ARCH, ins_per)
    x = pictures.to_network(picture(1))
    y, b = translator.translate(x, pictures.masks_to_network(np.array(boxes) > 0))
    assert b.shape == (8, HEIGHT, WIDTH)
    assert {pictures_ for pictures_, _ in built} == {1}
    rest = [8 % ins_per] if 8 % ins_per else []
    assert [masks for _, masks in built] == [ins_per] + rest


def test_sequential_translation_starts_from_the_pass_before(model):
    """Three instances, two at a time, are the first two, and then the third on what they gave."""
    import nnabla as nn

    nn.load_parameters(str(model))
    translator = Translator("gen_x2y", ARCH, 2)
    x = pictures.to_network(picture(1))
    a = pictures.masks_to_network(np.array([LARGE, MIDDLE, SMALL]) > 127)
    y, b = translator.translate(x, a)
    first_y, first_b = translator.translate(x, a[:2])
    second_y, second_b = translator.translate(first_y, a[2:])
    np.testing.assert_array_equal(y, second_y)
    np.testing.assert_array_equal(b, np.concatenate([first_b, second_b]))
    at_once, _ = Translator("gen_x2y", ARCH, 3).translate(x, a)
    assert not np.allclose(at_once, y, atol=1e-3)


def test_ins_per_by_flag(done, data, model, tmp_path):
    done("--dataroot", data, "--ins-per", 3)
    y, _ = truth(model, "AtoB", 1, [LARGE, MIDDLE, SMALL], ins_per=3)
    np.testing.assert_array_equal(image(tmp_path / "out" / "images" / "first.png"), y)
    assert not np.array_equal(y, truth(model, "AtoB", 1, [LARGE, MIDDLE, SMALL], ins_per=2)[0])


def test_random_order_by_seed(done, data, tmp_path):
    """Some seed leads to an order other than decreasing; the same seed, to the same order."""
    results = {}
    for seed in (0, 1, 2, 3, 0):
        out = tmp_path / f"out{len(results)}{seed}"
        done("--dataroot", data, "--set-order", "random", "--seed", seed, out=out)
        result = image(out / "images" / "first.png").tobytes()
        assert results.setdefault(seed, result) == result
    assert len(set(results.values())) > 1


# --- the folder of results --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["index.html", "inputs/mine.png", "masks/first_7.png", "page/x", "images/x"])
def test_files_of_somebody_else_are_left_alone(translated, data, tmp_path, name):
    mine = tmp_path / "out" / name
    mine.parent.mkdir(parents=True, exist_ok=True)
    mine.write_bytes(b"mine")
    code, _, err = translated("--dataroot", data)
    assert code == 2 and err.count("\n") == 1 and name.split("/")[0] in err and "--output" in err
    assert [path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()] == [b"mine"]


@pytest.mark.parametrize("flag", [[], ["--overwrite"]])
def test_an_input_is_never_overwritten(translated, data, tmp_path, flag):
    out = tmp_path / "out"
    shutil.copytree(data / "testA", out / "inputs")
    shutil.copytree(data / "testA_seg", out / "masks")
    before = {path: path.read_bytes() for path in out.rglob("*.png")}
    code, _, err = translated("--image", out / "inputs", "--masks", out / "masks", *flag)
    assert code == 2 and "is where a result would be written" in err
    assert {path: path.read_bytes() for path in out.rglob("*.png")} == before


def test_two_translations_into_one_folder_cannot_be(translated, data, tmp_path):
    (tmp_path / "out").mkdir()
    with files.locked(tmp_path / "out", "busy"):
        code, _, err = translated("--dataroot", data)
    assert code == 2 and "another translation" in err and not list((tmp_path / "out").iterdir())


WHOLE = {**dict.fromkeys(["name", "title", "before", "after", "outlines_before", "outlines_after"], "a"), "files": []}
CHANGED = [{"title": 1}, {"files": [["d"]]}, {"after": "/d"}, {"before": "d/../../e"}, {"name": "\ud800"}, {"more": ""}]
RECORDS = ["[]", "null", '{"a": 1}', "[" * 10**5, *(json.dumps({"a": {**WHOLE, **changed}}) for changed in CHANGED)]
OLD = json.dumps({"a": {"title": "a (AtoB, 1 instances)", "cells": [["input", "inputs/a.png"]]}})


@pytest.mark.parametrize(
    ("text", "words"), [*((record, "is damaged") for record in RECORDS), (OLD, "was written by an earlier version")]
)
def test_a_record_of_another_form_is_refused_before_anything_is_done(translated, data, tmp_path, text, words):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "translations.json").write_text(text)
    code, _, err = translated("--dataroot", data, "--overwrite")
    assert code == 2 and f"translations.json {words}" in err and err.count("\n") == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["translations.json"]


def test_what_is_there_is_not_overwritten_unasked(translated, done, data, tmp_path):
    done("--dataroot", data)
    before = image(tmp_path / "out" / "images" / "first.png")
    code, _, err = translated("--dataroot", data, "--direction", "AtoB", "--ins-max", 1)
    assert code == 2 and err.count("\n") == 1 and "--overwrite" in err and "first.png" in err
    np.testing.assert_array_equal(image(tmp_path / "out" / "images" / "first.png"), before)
    done("--dataroot", data, "--ins-max", 1, "--overwrite")
    assert not np.array_equal(image(tmp_path / "out" / "images" / "first.png"), before)
    left = names(tmp_path / "out" / "masks")
    assert left == ["first_2.png", "second_3.png"], "masks of the earlier translation would be taken for this one's"


class Sources(HTMLParser):
    """The links of a page, its elements, and its text."""

    def __init__(self, path):
        super().__init__(convert_charrefs=True)
        self.sources, self.images, self.tags, self.words, self.attributes = [], [], [], "", set()
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attributes}
        self.sources += [value for name, value in attributes if name in ("src", "href")]
        self.images += [dict(attributes)["src"]] if tag == "img" else []

    def handle_data(self, data):
        self.words += data


def check_page(out):
    """Check that every picture that the page shows or links to exists; return the page."""
    page = Sources(out / "index.html")
    assert page.sources
    for source in page.sources:
        parts = urlsplit(source)
        assert not (parts.scheme or parts.netloc or parts.query or parts.fragment), source
        Image.open(out / unquote(parts.path)).verify()
    return page


def shown(page, folder):
    return sorted(unquote(s).split("/", 1)[1] for s in page.images if s.startswith(folder + "/"))


def test_the_page_shows_all_four(done, data, tmp_path):
    """Input, its outlines, output and its outlines, for each picture; and links to the masks."""
    done("--dataroot", data)
    out, page = tmp_path / "out", check_page(tmp_path / "out")
    assert len(page.images) == 8 and "first" in page.words and "second" in page.words
    assert shown(page, "images") == shown(page, "inputs") == ["first.png", "second.png"]
    first = ["inputs/first.png", "page/before_first.png", "images/first.png", "page/after_first.png"]
    assert [source for source in page.images if "first" in source] == first
    assert {f"masks/{name}" for name in names(out / "masks")} <= set(page.sources)
    np.testing.assert_array_equal(image(out / first[0]), picture(1))
    # in the order of their numbers, 0, 2 and 5
    before = pictures.masks_to_network(np.stack([SMALL, LARGE, MIDDLE]) > 0)
    np.testing.assert_array_equal(image(out / first[1]), outline_masks(before))
    assert image(out / first[3]).shape == image(out / first[1]).shape


def test_without_an_instance_there_are_no_outlines(done, data, tmp_path):
    """Outlines of an earlier translation are removed."""
    done("--dataroot", data)
    for path in (data / "testA_seg").glob("second*"):
        path.unlink()
    done("--dataroot", data, "--overwrite")
    assert names(tmp_path / "out" / "page") == ["after_first.png", "before_first.png"]
    assert len(check_page(tmp_path / "out").images) == 6


def test_a_model_without_masks_has_no_outlines(done, data, model, tmp_path):
    parameters, config = model_file.load_model(model)
    model_file.save_model(tmp_path / "cyclegan.h5", parameters, {**config, "ins_per": 0})
    done("--dataroot", data, of=tmp_path / "cyclegan.h5")
    page = check_page(tmp_path / "out")
    assert page.images == [f"{folder}/{name}.png" for name in ("first", "second") for folder in ("inputs", "images")]
    assert not (tmp_path / "out" / "page").exists()


def test_two_runs_into_one_folder_make_one_page(done, data, tmp_path):
    done("--dataroot", data)
    done("--dataroot", data, "--direction", "BtoA")
    page = check_page(tmp_path / "out")
    assert shown(page, "images") == ["first.png", "other.png", "second.png"]
    done("--image", data / "testA" / "second.png", "--masks", data / "testA_seg" / "second_3.png", "--overwrite")
    assert shown(check_page(tmp_path / "out"), "images") == ["first.png", "other.png", "second.png"]


ODD = [
    "<script>alert(1)<script>",
    'a"b',
    "a'b",
    "a b",
    "a#b",
    "a?b",
    "100%",
    "%41",
    "a&amp;b",
    "ジーンズ",
    'x" onerror="y',
]


def test_odd_names_are_escaped_and_found(done, tmp_path):
    folder = tmp_path / "odd"
    for i, name in enumerate(ODD):
        save(folder, name, i, {0: SMALL})
    done("--image", folder)
    page = check_page(tmp_path / "out")
    assert shown(page, "images") == sorted(f"{name}.png" for name in ODD)
    assert page.tags.count("script") == 1 and not {"b", "i"} & set(page.tags) and "onerror" not in page.attributes
    for name in ODD:
        assert name in page.words, "as it is, once the browser has read it"


# --- refusals ---------------------------------------------------------------------------------------------------------


def refusal(translated, tmp_path, *arguments, **more):
    code, out, err = translated(*arguments, **more)
    assert code == 2, err
    assert err.startswith("translate.py: error: ") and err.count("\n") == 1 and err.endswith("\n"), err
    assert not (tmp_path / "out").exists(), "nothing is written before everything is checked"
    return err


WRONG = [
    ("", ["--dataroot", "--image"]),
    ("--image {A}/first.png --dataroot {data}", ["--dataroot", "--image"]),
    ("--image {A}/first.png", ["--masks"]),
    ("--dataroot {data} --masks {seg}/first_0.png", ["--masks", "--image"]),
    ("--image nowhere.png --masks {seg}/first_0.png", ["nowhere.png", "--image"]),
    ("--image {A}/first.png --masks {seg}/first_1.png", ["first_1.png", "--masks"]),
    ("--image {A} --masks nowhere", ["nowhere", "masks"]),
    ("--image {A} --masks {seg}/first_0.png {seg}/first_2.png", ["--masks", "folder"]),
    ("--dataroot nowhere", ["nowhere"]),
    ("--dataroot {data} --phase train", ["trainA", "test"]),
    ("--dataroot {data} --direction AtoC", ["--direction", "AtoB", "BtoA"]),
    ("--dataroot {data} --fineSizeH 7", ["--fineSizeH", "8"]),
    ("--dataroot {data} --fineSizeW x", ["--fineSizeW", "whole number"]),
    ("--dataroot {data} --ins-max 0", ["--ins-max", "at least 1"]),
    ("--dataroot {data} --ins-per 0", ["--ins-per", "at least 1"]),
    ("--dataroot {data} --set-order up", ["--set-order", "decreasing", "random"]),
    ("--dataroot {data} --data {data}", ["--data"]),
    ("--dataroot {data} --select 0,x", ["--select", "'x'"]),
    ("--dataroot {data} --select 0,", ["--select", "whole number"]),
    ("--dataroot {data} --box 1,2,3,4", ["--box", "--image"]),
    ("--image {A}/first.png --box 1,2,3,4 --masks {seg}/first_0.png", ["--box", "--masks"]),
    ("--image {A}/first.png --box 1,2,3", ["--box"]),
    ("--image nowhere.png --box 1,2,3,4", ["nowhere.png", "--image"]),
    ("--dataroot {data} --category dog", ["--category", "--masks"]),
    ("--image {A} --category dog", ["--category", "--masks"]),
    ("--dataroot {data} --mask-format labels", ["--mask-format", "--masks"]),
    ("--image {A}/first.png --masks {seg}/first_0.png {seg}/first_2.png --mask-format labels", ["--mask-format"]),
]


@pytest.mark.parametrize(("arguments", "words"), WRONG, ids=[w[0] or "nothing" for w in WRONG])
def test_wrong_usage_is_refused_in_one_line(translated, data, tmp_path, arguments, words):
    places = dict(data=data, A=data / "testA", seg=data / "testA_seg")
    message = refusal(translated, tmp_path, *[a.format(**places) for a in arguments.split()])
    assert all(word in message for word in words), message


def test_label_maps_are_not_taken_for_masks_of_other_pictures(translated, done, data, tmp_path):
    """x_1.png may be the mask of x or the map of x_1."""
    photos, masks = tmp_path / "photos", tmp_path / "photos_seg"
    for folder in (photos, masks):
        folder.mkdir()
    for name in ("x", "x_1"):
        shutil.copy(data / "testA" / "first.png", photos / f"{name}.png")
        shutil.copy(data / "testA_seg" / "first_0.png", masks / f"{name}.png")
    message = refusal(translated, tmp_path, "--image", photos)
    assert "x_1.png could be a label map" in message and "--mask-format" in message
    out = done("--image", photos, "--mask-format", "labels", out=tmp_path / "out")
    assert "2 of 2 pictures translated" in out
    assert sorted(path.name for path in (tmp_path / "out" / "masks").iterdir()) == ["x_0.png", "x_1_0.png"]


def test_the_model_must_be_given_and_be_there(translated, data, tmp_path, run_script):
    assert "nowhere" in refusal(translated, tmp_path, "--dataroot", data, of="nowhere")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "params_" in refusal(translated, tmp_path, "--dataroot", data, of=empty)
    done = run_script("translate.py", "--dataroot", data, cwd=tmp_path, cold=True)
    assert done.returncode == 2 and "--model" in done.stderr and done.stderr.count("\n") == 1


def test_a_model_without_this_direction(translated, data, model, tmp_path):
    parameters, config = model_file.load_model(model)
    kept = {n: v for n, v in parameters.items() if n.startswith("gen_x2y")}
    model_file.save_model(tmp_path / "one.h5", kept, {**config, "networks": ["gen_x2y"]})
    message = refusal(translated, tmp_path, "--dataroot", data, "--direction", "BtoA", of=tmp_path / "one.h5")
    assert "BtoA" in message and "one.h5" in message
    code, _, err = translated("--dataroot", data, "--direction", "AtoB", of=tmp_path / "one.h5")
    assert code == 0, err


def test_models_that_cannot_be_used(translated, data, model, tmp_path):
    """The .json is missing, broken, incomplete or has another width; or the model is a file of another kind."""
    path = tmp_path / "copy.h5"
    shutil.copy(model, path)
    assert "copy.json" in refusal(translated, tmp_path, "--dataroot", data, of=path)
    config = json.loads(model.with_suffix(".json").read_text())
    less = {name: value for name, value in config.items() if name != "ngf"}
    for text in ("", "{", "[]", "3", json.dumps(less)):
        path.with_suffix(".json").write_text(text)
        assert "copy.json" in refusal(translated, tmp_path, "--dataroot", data, of=path)
    path.with_suffix(".json").write_text(json.dumps({**config, "ngf": 8}))
    assert "copy.h5" in refusal(translated, tmp_path, "--dataroot", data, of=path)
    path.with_suffix(".json").write_text(json.dumps({**config, "n_blocks": 2}))
    assert "copy.h5" in refusal(translated, tmp_path, "--dataroot", data, of=path)
    path.with_suffix(".json").write_text(json.dumps(config))
    path.write_bytes(model.read_bytes()[:3000])
    assert "copy.h5" in refusal(translated, tmp_path, "--dataroot", data, of=path)
    path.write_bytes(b"")
    assert "copy.h5" in refusal(translated, tmp_path, "--dataroot", data, of=path)


@pytest.mark.parametrize("missing", ["networks", "ins_per", "set_order"])
def test_a_json_that_lacks_a_field_is_named(translated, data, model, tmp_path, missing):
    path = tmp_path / "copy.h5"
    shutil.copy(model, path)
    config = json.loads(model.with_suffix(".json").read_text())
    config.pop(missing)
    path.with_suffix(".json").write_text(json.dumps(config))
    message = refusal(translated, tmp_path, "--dataroot", data, of=path)
    assert "copy.json" in message and missing in message


def test_an_output_that_cannot_be_made_is_refused(translated, data, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        code, _, err = translated("--dataroot", data, out=out)
        assert code == 2 and err.count("\n") == 1 and "file" in err and "--output" in err
