# SPDX-License-Identifier: Apache-2.0
"""The generators that read instances from public data sets and from users' masks, against what was put into them.

python -m pytest tests/datasets/test_import_masks.py
"""

from __future__ import annotations

import io
import json
import threading

import numpy as np
import pytest
from PIL import Image

from common.errors import UserError
from common.progress import in_parallel
from data import checks
from data.instances import iou
from datasets import generate_coco_dataset, generate_mhp_dataset, generate_shapes_dataset, import_masks
from datasets.two_domains import Limits, encoded
from masks.mask_source import Instance
from tests.helpers.annotation_files import (
    circle_points,
    coco,
    compressed_rle,
    disc,
    labelme,
    labelme_mask,
    labelme_shape,
    plain_rle,
    rectangle,
)

SIZE = (40, 30)
SIZES = checks.Sizes((40, 30), (24, 20))
LEFT, RIGHT, SMALL = rectangle(SIZE, 2, 2, 12, 14), disc(SIZE, 25, 20, 7), rectangle(SIZE, 38, 28, 40, 30)


def save_photo(path, seed=0, size=SIZE, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(noise).save(path, **options)
    return path


def read_masks(folder, name):
    """The masks of a picture by number; they must be 8-bit grey, black and white."""
    masks = {}
    for path in folder.glob(f"{name}_*.png"):
        with Image.open(path) as image:
            assert image.mode == "L"
            pixels = np.asarray(image)
        assert set(np.unique(pixels)) <= {0, 255}
        masks[int(path.stem.rpartition("_")[2])] = pixels == 255
    assert sorted(masks) == list(range(len(masks)))
    return [masks[number] for number in sorted(masks)]


def assert_masks(folder, name, expected):
    found = read_masks(folder, name)
    assert len(found) == len(expected)
    for mask, truth in zip(found, expected):
        np.testing.assert_array_equal(mask, truth)


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def assert_good(save_root):
    report = checks.check(save_root, SIZES)
    assert report.pictures and report.masks
    assert not report.of(checks.ERROR), report.lines([checks.ERROR])


# --- which instances are kept -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "kept", "small", "beyond"),
    [
        (Limits(), [0, 1, 2, 3], 0, 0),
        (Limits(min_area=5 / 1200), [0, 1, 3], 1, 0),
        (Limits(max_instances=2), [0, 1], 0, 2),
        (Limits(max_instances=1), [1], 0, 3),
        (Limits(min_area=0.5), [], 4, 0),
        (Limits(min_area=4 / 1200, max_instances=3), [0, 1, 3], 0, 1),
    ],
)
def test_the_largest_instances_are_kept_in_their_order(limits, kept, small, beyond):
    masks = [LEFT, RIGHT, SMALL, LEFT]  # 120, about 154, 4 and 120 pixels of 1200: of equal ones the first is kept
    found, *counts = encoded([Instance("", mask) for mask in masks], limits)
    assert [small, beyond] == counts and len(found) == len(kept)
    for mask, number in zip(found, kept):
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(mask))), masks[number] * 255)


def test_workers_are_so_many():
    together = threading.Barrier(3, timeout=100)
    in_parallel(lambda _: together.wait(), range(6), "three wait for each other", workers=3)
    assert len(set(in_parallel(lambda _: threading.get_ident(), range(20), "alone", workers=1))) == 1


# --- COCO -------------------------------------------------------------------------------------------------------------

CATEGORIES = [{"id": 20, "name": "sheep"}, {"id": 25, "name": "giraffe"}, {"id": 44, "name": "wine glass"}]
SHEEP, GIRAFFE, GLASS = 20, 25, 44


def write_split(root, split, pictures):
    """A part of COCO 2017 in its true layout, from {name: [(category id, segmentation, iscrowd), ...]}."""
    document = {"info": {}, "licenses": [], "images": [], "annotations": [], "categories": CATEGORIES}
    for number, (name, instances) in enumerate(pictures.items()):
        save_photo(root / split / f"{name}.jpg", seed=number, quality=85)
        picture = {"id": int(name), "file_name": f"{name}.jpg", "height": SIZE[0], "width": SIZE[1], "license": 3}
        document["images"].append({**picture, "coco_url": f"http://images.example/{name}.jpg"})
        for category, segmentation, crowd in instances:
            entry = {"id": 1000 + len(document["annotations"]), "image_id": int(name), "category_id": category}
            entry.update(segmentation=segmentation, iscrowd=crowd, area=1.0, bbox=[0, 0, 1, 1])
            document["annotations"].append(entry)
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(document))


@pytest.fixture()
def coco_root(tmp_path):
    root = tmp_path / "coco"
    square = [[2, 2, 14, 2, 14, 12, 2, 12]]
    train = {
        "000000000009": [(SHEEP, square, 0), (GLASS, plain_rle(SMALL), 0), (SHEEP, compressed_rle(RIGHT), 0)],
        "000000000025": [(GIRAFFE, plain_rle(RIGHT), 0), (SHEEP, square, 0)],
        "000000000030": [(GIRAFFE, plain_rle(LEFT), 0), (GIRAFFE, plain_rle(SMALL), 0)],
        "000000000034": [(SHEEP, plain_rle(LEFT), 1)],
        "000000000036": [],
    }
    write_split(root, "train2017", train)
    write_split(root, "val2017", {"000000000139": [(SHEEP, plain_rle(RIGHT), 0)], "000000000285": []})
    return root


def test_coco_files_are_true_to_the_source(coco_root, tmp_path):
    save_root = tmp_path / "set"
    made = generate_coco_dataset.generate(coco_root, save_root)
    assert files(save_root / "trainA") == ["000000000009.jpg", "000000000025.jpg"]
    assert files(save_root / "trainB") == ["000000000025.jpg", "000000000030.jpg"]
    assert files(save_root / "testA") == ["000000000139.jpg"]
    # nothing in val2017 shows a giraffe, and an empty domain would be an error
    assert files(save_root) == ["testA", "testA_seg", "trainA", "trainA_seg", "trainB", "trainB_seg"]
    assert_masks(save_root / "trainA_seg", "000000000009", [LEFT, RIGHT])
    assert_masks(save_root / "trainA_seg", "000000000025", [LEFT])
    assert_masks(save_root / "trainB_seg", "000000000025", [RIGHT])
    assert_masks(save_root / "trainB_seg", "000000000030", [LEFT, SMALL])
    assert_masks(save_root / "testA_seg", "000000000139", [RIGHT])
    for split, folder in (("train2017", "trainA"), ("train2017", "trainB"), ("val2017", "testA")):
        for photo in (save_root / folder).iterdir():
            assert photo.read_bytes() == (coco_root / split / photo.name).read_bytes()
    assert made.counts == {name: len(files(save_root / name)) for name in files(save_root)}
    assert_good(save_root)


def test_coco_command_line(coco_root, tmp_path, run_script):
    flags = ("--data_root", coco_root, "--min-area", 0.01, "--max-instances", 1, "--workers", 2)
    done = run_script("datasets/generate_coco_dataset.py", *flags, cwd=tmp_path, cold=True)
    assert (done.returncode, done.stderr) == (0, "")
    save_root = tmp_path / "datasets" / "sheep2giraffe_coco"
    assert_masks(save_root / "trainA_seg", "000000000009", [RIGHT])
    assert_masks(save_root / "trainB_seg", "000000000030", [LEFT])
    lines = done.stdout.splitlines()
    assert "  trainA        2 pictures,     2 masks" in lines
    assert "  left out of A: 1 instance beyond --max-instances" in lines
    assert "  left out of B: 1 instance smaller than --min-area" in lines
    assert lines[-1] == "next: python train.py --dataroot datasets/sheep2giraffe_coco"


def test_coco_refuses_and_leaves_nothing(coco_root, tmp_path, run_main):
    roots = ("--data_root", coco_root, "--save_root", tmp_path / "o" / "set")

    def refused(*flags):
        code, _, err = run_main(generate_coco_dataset, *roots, *flags)
        assert code == 2 and len(err.splitlines()) == 1
        assert not list((tmp_path / "o").glob("*"))
        return err

    assert "no category 'kilt'; it has: giraffe, sheep, wine glass" in refused("--cat2", "kilt")
    assert "two different" in refused("--cat2", "sheep")
    assert "nothing for trainA" in refused("--min-area", "0.9")
    assert "is not a finite number" in refused("--min-area", "1")
    assert "at least 1" in refused("--workers", "0")
    annotations = coco_root / "annotations" / "instances_val2017.json"
    annotations.write_text(annotations.read_text()[:-9])
    assert "instances_val2017.json cannot be read as JSON" in refused()
    annotations.unlink()
    assert "https://cocodataset.org" in refused()


def test_coco_pictures_that_are_lost_or_cut_short_are_left_out_and_named(coco_root, tmp_path, capsys):
    photo = coco_root / "train2017" / "000000000009.jpg"
    photo.write_bytes(photo.read_bytes()[:300])
    (coco_root / "val2017" / "000000000139.jpg").unlink()
    made = generate_coco_dataset.generate(coco_root, tmp_path / "set")
    assert files(tmp_path / "set" / "trainA") == ["000000000025.jpg"] and not (tmp_path / "set" / "testA").exists()
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == 2 and "000000000139.jpg" in warnings[0] and "000000000009.jpg" in warnings[1]
    assert made.left_out() == ["left out of A: 2 pictures that cannot be used"]


@pytest.mark.parametrize("name", ["../../photo.jpg", "/etc/photo.jpg", "..", "", "a\0b.jpg", "\ud800.jpg", 7, None])
def test_coco_names_lead_nowhere_else(coco_root, tmp_path, capsys, name):
    save_photo(tmp_path / "photo.jpg")
    path = coco_root / "annotations" / "instances_train2017.json"
    document = json.loads(path.read_text())
    document["images"][0]["file_name"] = name
    path.write_text(json.dumps(document))
    before = {p for p in tmp_path.rglob("*")}
    made = generate_coco_dataset.generate(coco_root, tmp_path / "set")
    assert files(tmp_path / "set" / "trainA") == ["000000000025.jpg"]
    assert made.left_out()[0] == "left out of A: 1 picture that cannot be used"
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert {p for p in tmp_path.rglob("*") if "set" not in p.parts} == before


def test_coco_pictures_whose_masks_would_be_called_the_same_are_refused(coco_root, tmp_path):
    path = coco_root / "annotations" / "instances_train2017.json"
    path.write_text(path.read_text().replace("000000000025.jpg", "000000000009.png"))
    save_photo(coco_root / "train2017" / "000000000009.png")
    with pytest.raises(UserError, match="share a name"):
        generate_coco_dataset.generate(coco_root, tmp_path / "set")


# --- LV-MHP v1 --------------------------------------------------------------------------------------------------------

HAT, SKIRT, PANTS = 1, 5, 6


@pytest.fixture()
def mhp_root(tmp_path):
    """A small LV-MHP v1 in its true layout: in each annotation one person's label ids."""
    root = tmp_path / "LV-MHP-v1"
    (root / "annotations").mkdir(parents=True)
    pictures = {
        "0001": (SIZE, [LEFT * PANTS + RIGHT * HAT, RIGHT * PANTS, SMALL * SKIRT]),
        "0002": (SIZE, [RIGHT * SKIRT, LEFT * HAT]),
        "0003": (SIZE[::-1], [LEFT.T * PANTS, RIGHT.T * SKIRT]),
        "0004": (SIZE, [LEFT * HAT, SMALL * HAT]),
        "0011": (SIZE, [LEFT * SKIRT, RIGHT * PANTS]),
    }
    for seed, (name, (size, persons)) in enumerate(pictures.items()):
        save_photo(root / "images" / f"{name}.jpg", seed, size)
        for i, person in enumerate(persons):
            path = root / "annotations" / f"{name}_{len(persons):02d}_{i + 1:02d}.png"
            Image.fromarray(person.astype(np.uint8)).save(path)
    (root / "train_list.txt").write_text("0001.jpg\n0002.jpg\n0003.jpg\n0004.jpg\n")
    (root / "test_list.txt").write_text("0011.jpg\r\n")
    return root


def test_mhp_has_a_mask_for_each_person_that_wears_it(mhp_root, tmp_path):
    save_root = tmp_path / "set"
    generate_mhp_dataset.generate(mhp_root, save_root)
    assert files(save_root / "trainA") == ["0001.jpg"] and files(save_root / "trainB") == ["0001.jpg", "0002.jpg"]
    assert files(save_root / "testA") == files(save_root / "testB") == ["0011.jpg"]
    assert_masks(save_root / "trainA_seg", "0001", [LEFT, RIGHT])
    assert_masks(save_root / "trainB_seg", "0001", [SMALL])
    assert_masks(save_root / "trainB_seg", "0002", [RIGHT])
    assert_masks(save_root / "testA_seg", "0011", [RIGHT])
    assert_masks(save_root / "testB_seg", "0011", [LEFT])
    photo = save_root / "trainA" / "0001.jpg"
    assert photo.read_bytes() == (mhp_root / "images" / "0001.jpg").read_bytes()
    assert_good(save_root)


def test_mhp_command_line(mhp_root, tmp_path, run_script):
    flags = ("--data_root", mhp_root, "--landscape", "--min-area", 0.01)
    done = run_script("datasets/generate_mhp_dataset.py", *flags, cwd=tmp_path, cold=True)
    assert (done.returncode, done.stderr) == (0, "")
    save_root = tmp_path / "datasets" / "pants2skirt_mhp"
    assert files(save_root / "trainA") == ["0001.jpg", "0003.jpg"]
    assert files(save_root / "trainB") == ["0002.jpg", "0003.jpg"]
    assert_masks(save_root / "trainB_seg", "0003", [RIGHT.T])
    assert "left out of B: 2 pictures without an instance that is kept, 1 instance smaller" in done.stdout
    assert done.stdout.splitlines()[-1] == "next: python train.py --dataroot datasets/pants2skirt_mhp"


def test_mhp_refuses_what_it_cannot_use(mhp_root, tmp_path):
    def refused(*arguments):
        with pytest.raises(UserError) as caught:
            generate_mhp_dataset.generate(mhp_root, tmp_path / "o" / "set", *arguments)
        assert "\n" not in str(caught.value) and not list((tmp_path / "o").glob("*"))
        return str(caught.value)

    known = (
        "hat hair sunglasses upper-clothes skirt pants dress belt left-shoe right-shoe face left-leg right-leg "
        "left-arm right-arm bag scarf torso-skin"
    ).split()
    assert refused("kilt").split("it has: ")[1].split(", ") == known and len(known) == 18
    assert "two different" in refused("hat", "hat")
    assert "trainA" in refused("scarf", "hat")
    (mhp_root / "test_list.txt").write_text("../../etc/passwd\n")
    assert "not the name of a .jpg file" in refused()
    (mhp_root / "test_list.txt").write_text("0011.jpg\n0011.jpg\n")
    assert "twice" in refused()
    (mhp_root / "test_list.txt").unlink()
    assert "ZhaoJ9014/Multi-Human-Parsing" in refused()


# --- anyone's masks ---------------------------------------------------------------------------------------------------


def run_import(run_main, save_root, *flags):
    """Run the command line, which must succeed. Returns its output."""
    code, out, err = run_main(import_masks, "--save_root", save_root, *flags)
    assert code == 0, err
    return out, err


def refuse_import(run_main, save_root, *flags):
    """Run the command line, which must refuse in one line and leave nothing. Returns that line."""
    code, _, err = run_main(import_masks, "--save_root", save_root, *flags)
    assert code == 2 and len(err.splitlines()) == 1, err
    assert not list(save_root.parent.glob("*set*"))
    return err


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """A data set of shapes, whose masks and geometry are known, without test pictures."""
    root = tmp_path_factory.mktemp("shapes") / "circle2square"
    generate_shapes_dataset.generate(root, train=3, test=0, min_instances=2, height=60, width=70, seed=5)
    return root


def true_masks(shapes, domain):
    return {p.stem: read_masks(shapes / f"{domain}_seg", p.stem) for p in sorted((shapes / domain).iterdir())}


def shape_polygon(instance):
    (x, y), size = instance["centre"], instance["size"]
    if instance["shape"] == "circle":
        return circle_points(y, x, size)
    return np.array([(x - size, y - size), (x + size, y - size), (x + size, y + size), (x - size, y + size)])


def export_labels(shapes, domain, folder):
    for name, masks in true_masks(shapes, domain).items():
        labels = sum(mask.astype(np.uint16) * (300 + i) for i, mask in enumerate(masks))
        Image.fromarray(labels).save(folder / f"{name}.png")
    return folder


def export_coco(encode):
    def export(shapes, domain, folder):
        truth = json.loads((shapes / f"{domain}.json").read_text())
        document = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "shape"}]}
        for name, masks in true_masks(shapes, domain).items():
            part = coco(masks[0].shape, [encode(m, i) for m, i in zip(masks, truth[name])], f"{domain}/{name}.png")
            document["images"] += [{**part["images"][0], "id": name}]
            document["annotations"] += [{**a, "image_id": name} for a in part["annotations"]]
        (folder / "all.json").write_text(json.dumps(document))
        return folder / "all.json"

    return export


def export_labelme(draw):
    def export(shapes, domain, folder):
        truth = json.loads((shapes / f"{domain}.json").read_text())
        for name, masks in true_masks(shapes, domain).items():
            drawn = [draw(mask, instance) for mask, instance in zip(masks, truth[name])]
            (folder / f"{name}.json").write_text(json.dumps(labelme(masks[0].shape, drawn, f"{name}.png")))
        return folder

    return export


EXPORTS = {
    "labels": export_labels,
    "coco-rle": export_coco(lambda mask, instance: plain_rle(mask)),
    "coco-compressed": export_coco(lambda mask, instance: compressed_rle(mask)),
    "coco-polygons": export_coco(lambda mask, instance: [shape_polygon(instance).ravel().tolist()]),
    "labelme-masks": export_labelme(lambda mask, instance: labelme_mask(mask)),
    "labelme-polygons": export_labelme(lambda mask, instance: labelme_shape("polygon", shape_polygon(instance))),
}


@pytest.mark.parametrize("kind", EXPORTS)
def test_what_is_exported_comes_back(shapes, tmp_path, run_main, kind):
    flags = ["--holdout", 0]
    for letter in "AB":
        (tmp_path / letter).mkdir()
        masks = EXPORTS[kind](shapes, f"train{letter}", tmp_path / letter)
        flags += [f"--{letter.lower()}", shapes / f"train{letter}", f"--{letter.lower()}-masks", masks]
    run_import(run_main, tmp_path / "set", *flags)
    for letter in "AB":
        domain = f"train{letter}"
        for name, masks in true_masks(shapes, domain).items():
            picture = tmp_path / "set" / domain / f"{name}.png"
            assert picture.read_bytes() == (shapes / domain / f"{name}.png").read_bytes()
            if "polygons" not in kind:
                assert_masks(tmp_path / "set" / f"{domain}_seg", name, masks)
                continue
            found = read_masks(tmp_path / "set" / f"{domain}_seg", name)
            assert len(found) == len(masks) and all(iou(a, b) > 0.9 for a, b in zip(found, masks))
    assert_good(tmp_path / "set")


def test_command_line_with_defaults_and_a_test_set(shapes, tmp_path, run_script):
    for letter, name in (("A", "horses"), ("B", "zebras")):
        (tmp_path / name).symlink_to(shapes / f"train{letter}")
        (tmp_path / f"{name}_seg").symlink_to(shapes / f"train{letter}_seg")
    done = run_script("datasets/import_masks.py", "--a", "horses", "--b", "zebras", cwd=tmp_path, cold=True)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    # the folders are links, and the data set is named after their targets
    assert lines[0] == "datasets/trainA2trainB: A is trainA, B is trainB"
    assert lines[-1] == "next: python train.py --dataroot datasets/trainA2trainB"
    save_root = tmp_path / "datasets" / "trainA2trainB"
    for letter in "AB":
        train, test = (files(save_root / f"{phase}{letter}") for phase in ("train", "test"))
        assert sorted(train + test) == files(shapes / f"train{letter}") and len(test) == 1
        for phase, names in (("train", train), ("test", test)):
            for name in names:
                stem = name[:-4]
                truth = read_masks(shapes / f"train{letter}_seg", stem)
                assert_masks(save_root / f"{phase}{letter}_seg", stem, truth)
    # the names are the same in both domains, so they are held out together
    assert files(save_root / "testA") == files(save_root / "testB")
    assert_good(save_root)


def test_two_categories_of_one_folder(tmp_path, run_main):
    photos = tmp_path / "farm"
    for name in ("photo", "second"):
        save_photo(photos / f"{name}.jpg")
    document = coco(SIZE, [plain_rle(LEFT), plain_rle(RIGHT)], categories=("sheep", "goat"))
    (tmp_path / "all.json").write_text(json.dumps(document))
    both = ("--a", photos, "--b", photos, "--a-masks", tmp_path / "all.json", "--b-masks", tmp_path / "all.json")
    out, _ = run_import(run_main, tmp_path / "set", *both, "--cat1", "sheep", "--cat2", "goat")
    assert_masks(tmp_path / "set" / "trainA_seg", "photo", [LEFT])
    assert_masks(tmp_path / "set" / "trainB_seg", "photo", [RIGHT])
    assert "left out of A: 1 picture without an instance" in out and "A is sheep, B is goat" in out
    assert files(tmp_path / "set" / "trainA") == ["photo.jpg"]
    err = refuse_import(run_main, tmp_path / "out" / "set", *both, "--cat1", "cow")
    assert "'cow'; it has: goat, sheep" in err


def crowd_flags(tmp_path, crowds):
    """A farm whose one picture shows a sheep on the left and one on the right, with these values of iscrowd."""
    photos = tmp_path / "farm"
    save_photo(photos / "photo.jpg")
    document = coco(SIZE, [plain_rle(LEFT), plain_rle(RIGHT)])
    for annotation, crowd in zip(document["annotations"], crowds):
        annotation["iscrowd"] = crowd
    (tmp_path / "all.json").write_text(json.dumps(document))
    flags = ["--a", photos, "--b", photos, "--a-masks", tmp_path / "all.json", "--b-masks", tmp_path / "all.json"]
    return [*flags, "--holdout", 0]


@pytest.mark.parametrize(
    ("crowds", "option", "masks", "words"),
    [
        ((1, 1), (), [LEFT, RIGHT], "all annotations are marked as crowds (iscrowd), as some tools do: taken"),
        ((0, 1), (), [LEFT], "left out: 1 crowds (iscrowd; if they are single instances, --crowds takes them)"),
        ((0, "1"), (), [LEFT], "left out: 1 crowds"),
        (("0", 1), ("--crowds",), [LEFT, RIGHT], ""),
        (("0", "false"), (), [LEFT, RIGHT], ""),
    ],
)
def test_crowds_are_instances_where_there_is_nothing_else_or_on_demand(
    tmp_path, run_main, crowds, option, masks, words
):
    out, _ = run_import(run_main, tmp_path / "set", *crowd_flags(tmp_path, crowds), *option)
    assert words in out and ("iscrowd" in out) == bool(words)
    assert_masks(tmp_path / "set" / "trainA_seg", "photo", masks)


def test_coco_of_more_pictures_than_there_are_says_so(tmp_path, run_main):
    photos = tmp_path / "farm"
    save_photo(photos / "photo.jpg")
    document = coco(SIZE, [plain_rle(LEFT), plain_rle(RIGHT)])
    document["images"] += [{**document["images"][0], "id": i, "file_name": f"{i}.jpg"} for i in (8, 9)]
    (tmp_path / "all.json").write_text(json.dumps(document))
    flags = ["--a", photos, "--b", photos, "--a-masks", tmp_path / "all.json", "--b-masks", tmp_path / "all.json"]
    code, out, err = run_main(import_masks, *flags, "--save_root", tmp_path / "set", "--holdout", 0)
    assert code == 0, err
    assert "2 of its 3 pictures are not there (8.jpg)" in out


def test_labelme_beside_the_pictures_and_other_kinds_of_picture(tmp_path, run_main):
    turned = Image.Exif()
    turned[0x0112] = 6
    for letter in "ab":
        folder = tmp_path / letter
        save_photo(folder / "one.JPG", exif=turned, size=SIZE[::-1])
        save_photo(folder / "two.webp", lossless=True)
        save_photo(folder / "three.bmp")
        save_photo(folder / "four.tiff")
        for name, mask in (("one", LEFT), ("two", RIGHT), ("three", SMALL), ("four", LEFT)):
            (folder / f"{name}.json").write_text(json.dumps(labelme(SIZE, [labelme_mask(mask)])))
    out, err = run_import(run_main, tmp_path / "set", "--a", tmp_path / "a", "--b", tmp_path / "b", "--holdout", 0)
    assert err == "" and files(tmp_path / "set" / "trainA") == ["four.png", "one.JPG", "three.png", "two.png"]
    assert (tmp_path / "set/trainA/one.JPG").read_bytes() == (tmp_path / "a/one.JPG").read_bytes()
    for name, source in (("two", "two.webp"), ("three", "three.bmp"), ("four", "four.tiff")):
        with Image.open(tmp_path / "a" / source) as one, Image.open(tmp_path / f"set/trainA/{name}.png") as other:
            np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    for name, mask in (("one", LEFT), ("two", RIGHT), ("three", SMALL), ("four", LEFT)):
        assert_masks(tmp_path / "set" / "trainA_seg", name, [mask])
    assert_good(tmp_path / "set")


def test_single_pictures_that_cannot_be_used_are_left_out_and_named(tmp_path, run_main):
    photos = tmp_path / "farm"
    for number in range(9):
        save_photo(photos / f"p{number}.png")
        (photos / f"p{number}.json").write_text(json.dumps(labelme(SIZE, [labelme_mask(LEFT)])))
    (photos / "p1.png").write_bytes((photos / "p1.png").read_bytes()[:500])
    (photos / "p2.json").write_text(json.dumps(labelme((99, 30), [labelme_mask(LEFT)])))
    (photos / "p3.json").write_text("{")
    (photos / "p4.json").unlink()
    out, err = run_import(run_main, tmp_path / "set", "--a", photos, "--b", photos, "--holdout", 0)
    assert files(tmp_path / "set" / "trainA") == ["p0.png", "p5.png", "p6.png", "p7.png", "p8.png"]
    assert out.count("1 picture without an instance that is kept, 3 pictures that cannot be used") == 2
    warnings = err.splitlines()[:3]
    assert all(line.startswith("warning: left out: ") for line in warnings)
    assert "p1.png" in warnings[0] and "99x30" in warnings[1] and "40x30" in warnings[1] and "p3.json" in warnings[2]
    assert_good(tmp_path / "set")


def test_import_refuses_before_the_work_starts(tmp_path, run_main):
    photos, empty = tmp_path / "farm", tmp_path / "empty"
    save_photo(photos / "photo.png")
    save_photo(photos / "other.png")
    empty.mkdir()
    labels = tmp_path / "farm_seg"
    labels.mkdir()
    Image.fromarray(LEFT.astype(np.uint8)).save(labels / "photo_1.png")
    good = tmp_path / "good"
    good.mkdir()
    Image.fromarray(LEFT.astype(np.uint8)).save(good / "photo.png")
    Image.fromarray(LEFT.astype(np.uint8)).save(good / "other.png")

    def refused(*flags):
        return refuse_import(run_main, tmp_path / "out" / "set", *flags)

    same = ("--a", photos, "--b", photos)
    usable = (*same, "--a-masks", good, "--b-masks", good)
    assert "could be of two formats" in refused(*same) and "--a-format" in refused(*same)
    assert "required: --b" in refused("--a", photos)
    assert "a is empty" in refused("--a", "", "--b", photos)
    assert "no folder" in refused("--a", tmp_path / "nowhere", "--b", photos)
    assert "no pictures" in refused("--a", photos, "--b", empty)
    assert "--b-masks" in refused("--a", photos, "--a-masks", good, "--b", good)
    assert "--holdout" in refused(*usable, "--holdout", 1)
    assert "no category 'sheep'; it has: none, so leave that out" in refused(*usable, "--cat1", "sheep")
    assert "for one picture" in refused(*same, "--a-masks", good / "photo.png", "--b-masks", good)
    assert "nothing for trainA" in refused(*usable, "--min-area", 0.5)
    assert "was read as masks: see that its names" in refused(*usable, "--a-format", "masks")
    save_photo(photos / "photo.jpg")
    assert "share a name" in refused(*usable)


def test_import_never_takes_the_place_of_what_it_reads(tmp_path, run_main):
    for letter in "AB":
        save_photo(tmp_path / "my_set" / f"train{letter}" / "photo.png")
        (tmp_path / "my_set" / f"train{letter}_seg").mkdir()
        Image.fromarray(LEFT).save(tmp_path / "my_set" / f"train{letter}_seg" / "photo_0.png")
    before = sorted(tmp_path.rglob("*"))
    own = ("--a", tmp_path / "my_set" / "trainA", "--b", tmp_path / "my_set" / "trainB", "--overwrite")
    code, _, err = run_main(import_masks, "--save_root", tmp_path / "my_set", *own)
    assert code == 2 and "choose another --save_root" in err
    assert sorted(tmp_path.rglob("*")) == before
