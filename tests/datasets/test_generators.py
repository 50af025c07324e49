# SPDX-License-Identifier: Apache-2.0
"""The data set generators, against what was put into them.

python -m pytest tests/datasets/test_generators.py
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.helpers import ROOT
from tests.helpers.ccp import BOTH, HEIGHT, JEANS, LISTED, NAMES, ONLY_JEANS, ONLY_SKIRT, SKIRT, WIDTH, save_annotation
from tests.helpers.scripts import DEADLINE

SCRIPTS = ROOT / "datasets"
REAL_CCP = ROOT.parent / "shared" / "data" / "clothing-co-parsing"

from common.errors import UserError
from datasets import generate_ccp_dataset as ccp
from datasets import generate_shapes_dataset as shapes
from datasets.new_folder import new_folder


def run(script, *arguments, cwd=None):
    command = [sys.executable, str(SCRIPTS / script), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=DEADLINE)


def names_in(folder):
    return {path.stem for path in folder.iterdir()}


def digest(folder):
    """Return {path relative to `folder`: hash of the file} for all files under it."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# --- new_folder -------------------------------------------------------------------------------------------------------


def test_new_folder_appears_only_when_complete(tmp_path):
    target = tmp_path / "deep" / "set"
    with new_folder(target) as folder:
        assert not target.exists()
        assert folder.parent == target.parent and folder.name == ".set.part"
        (folder / "trainA").mkdir()
    assert [path.name for path in target.iterdir()] == ["trainA"]
    assert [path.name for path in target.parent.iterdir()] == ["set"]


@pytest.mark.parametrize("trouble", [KeyboardInterrupt, ValueError])
@pytest.mark.parametrize("overwrite", [False, True])
def test_new_folder_leaves_all_as_it_was_when_the_block_fails(tmp_path, trouble, overwrite):
    target = tmp_path / "set"
    if overwrite:
        (target / "trainA").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(trouble), new_folder(target, overwrite) as folder:
        (folder / "trainB").mkdir()
        raise trouble
    assert sorted(tmp_path.rglob("*")) == before


def test_new_folder_takes_an_empty_folder_and_clears_leftovers(tmp_path):
    target = tmp_path / "set"
    target.mkdir()
    (tmp_path / ".set.part" / "trainA").mkdir(parents=True)
    (tmp_path / ".set.part" / "trainA.json").touch()
    with new_folder(target) as folder:
        assert not list(folder.iterdir())
        (folder / "trainB").mkdir()
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert [path.name for path in target.iterdir()] == ["trainB"]


def test_new_folder_refuses_what_is_there(tmp_path):
    target = tmp_path / "set"
    (target / "trainA").mkdir(parents=True)
    with pytest.raises(UserError, match="--overwrite or .*--save_root"), new_folder(target):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file"), new_folder(tmp_path / "file", overwrite=True):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"set", "file"}


def test_new_folder_never_overwrites_what_is_no_data_set(tmp_path):
    target = tmp_path / "set"
    (target / "trainA").mkdir(parents=True)
    (target / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"thesis\.tex"), new_folder(target, overwrite=True):
        pass
    assert (target / "thesis.tex").read_text() == "years of work"


def test_new_folder_undoes_a_replacement_that_was_killed_half_way(tmp_path):
    target = tmp_path / "set"
    (tmp_path / ".set.old" / "trainA").mkdir(parents=True)  # moved aside, and the new one not yet in its place
    with pytest.raises(UserError, match="exists"), new_folder(target):
        pass
    assert (target / "trainA").is_dir()
    with new_folder(target, overwrite=True) as folder:
        (folder / "trainB").mkdir()
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == ["set", "set/trainB"]


def test_new_folder_refuses_a_second_run_into_the_same_target(tmp_path):
    pytest.importorskip("fcntl", reason="the lock needs flock")
    with new_folder(tmp_path / "set") as folder:
        (folder / "trainA").mkdir()
        with pytest.raises(UserError, match="another run"), new_folder(tmp_path / "set"):
            pass
    assert (tmp_path / "set" / "trainA").is_dir()


def test_new_folder_reports_a_full_disk_in_one_line(tmp_path):
    with pytest.raises(UserError, match="No space left") as caught, new_folder(tmp_path / "set"):
        raise OSError(28, "No space left on device")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


# --- CCP --------------------------------------------------------------------------------------------------------------


def test_ccp_files_are_true_to_the_source(tree, tmp_path):
    save_root = tmp_path / "set"
    counts = ccp.generate(tree, save_root, holdout=0.2)
    assert {path.name for path in save_root.iterdir()} == set(counts)
    for domain, label, members in (("A", JEANS, ONLY_JEANS | BOTH), ("B", SKIRT, ONLY_SKIRT | BOTH)):
        train, test = names_in(save_root / f"train{domain}"), names_in(save_root / f"test{domain}")
        assert train | test == members and not train & test
        for phase, names in (("train", train), ("test", test)):
            assert names_in(save_root / f"{phase}{domain}_seg") == {f"{name}_0" for name in names}
            for name in names:
                photo = save_root / f"{phase}{domain}" / f"{name}.jpg"
                assert photo.read_bytes() == (tree / "photos" / f"{name}.jpg").read_bytes()
                mask = Image.open(save_root / f"{phase}{domain}_seg" / f"{name}_0.png")
                truth = scipy.io.loadmat(str(tree / "annotations/pixel-level" / f"{name}.mat"))["groundtruth"]
                assert mask.mode == "L"
                np.testing.assert_array_equal(np.asarray(mask), np.where(truth == label, 255, 0))
        listed = {name for name, tags in LISTED.items() if label in tags}
        assert names_in(save_root / f"val{domain}") == listed
        assert not list((save_root / f"val{domain}_seg").iterdir())
        for name in listed:
            photo = save_root / f"val{domain}" / f"{name}.jpg"
            assert photo.read_bytes() == (tree / "photos" / f"{name}.jpg").read_bytes()
        assert counts[f"test{domain}"] == len(test) == round(0.2 * len(members))


def test_ccp_split_follows_the_seed_and_not_the_order_of_categories(tree, tmp_path):
    def split(name, *categories, **options):
        ccp.generate(tree, tmp_path / name, *categories, holdout=0.3, **options)
        return [names_in(tmp_path / name / folder) for folder in ("testA", "testB")]

    first = split("first", "jeans", "skirt", seed=0)
    assert split("again", "jeans", "skirt", seed=0) == first
    assert digest(tmp_path / "again") == digest(tmp_path / "first")
    assert split("swapped", "skirt", "jeans", seed=0) == first[::-1]
    assert any(split(f"seed{seed}", "jeans", "skirt", seed=seed) != first for seed in (1, 2))
    assert first[0] & BOTH == first[1] & BOTH


def test_ccp_holdout_zero_makes_no_test_set(tree, tmp_path):
    ccp.generate(tree, tmp_path / "set", holdout=0)
    assert {path.name for path in (tmp_path / "set").iterdir()} == {
        f"{phase}{domain}{seg}" for phase in ("train", "val") for domain in "AB" for seg in ("", "_seg")
    }
    assert names_in(tmp_path / "set" / "trainA") == ONLY_JEANS | BOTH


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40), st.floats(0, 0.999), st.integers(0, 3))
@example(0, 0, 2, 0.1, 0)
@example(1, 0, 1, 0.9, 0)
@example(40, 0, 1, 0.001, 0)
def test_held_out_share_holds_in_each_domain(only_a, only_b, both, holdout, seed):
    names_a = {f"a{i}" for i in range(only_a)} | {f"s{i}" for i in range(both)}
    names_b = {f"b{i}" for i in range(only_b)} | {f"s{i}" for i in range(both)}
    chosen = ccp.choose_held_out(names_a, names_b, holdout, seed)
    assert chosen == ccp.choose_held_out(names_b, names_a, holdout, seed)
    assert chosen <= names_a | names_b
    for names in (names_a, names_b):
        test = len(chosen & names)
        assert abs(test - holdout * len(names)) <= 0.5 + 1e-9 or test in (0, 1, len(names) - 1)
        assert test < len(names) or not names
        assert (test > 0) == (holdout > 0 and len(names) > 1)


def test_ccp_replaces_only_when_told_to(tree, tmp_path):
    save_root = tmp_path / "set"
    ccp.generate(tree, save_root, "jeans", "skirt")
    before = digest(save_root)
    with pytest.raises(UserError, match="--overwrite"):
        ccp.generate(tree, save_root, "skirt", "jeans")
    assert digest(save_root) == before
    ccp.generate(tree, save_root, "skirt", "jeans", holdout=0, overwrite=True)
    assert names_in(save_root / "trainA") == ONLY_SKIRT | BOTH
    assert not (save_root / "testA").exists()


@pytest.mark.parametrize("moment", ["kill", "interrupt"])
def test_ccp_cut_off_leaves_nothing_to_train_on(tree, tmp_path, moment):
    save_root = tmp_path / "out" / "set"
    cut_off = {"kill": "SIGKILL", "interrupt": "SIGINT"}[moment]
    code = f"""
import os, signal, sys, time
from datasets import generate_ccp_dataset as ccp
from common.errors import run_main
write, calls = ccp.write_picture, []
def write_then_stop(*arguments):
    write(*arguments)
    calls.append(1)
    if len(calls) == 7:
        os.kill(os.getpid(), signal.{cut_off})
    time.sleep(0.02)
ccp.write_picture = write_then_stop
run_main(lambda: ccp.generate({str(tree)!r}, {str(save_root)!r}) and None)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE)
    left = [path.name for path in save_root.parent.iterdir()]
    if moment == "kill":
        assert done.returncode == -signal.SIGKILL
        assert left == [".set.part"]
    else:
        assert done.returncode == 130 and "Traceback" not in done.stderr
        assert left == []
    ccp.generate(tree, save_root)
    assert [path.name for path in save_root.parent.iterdir()] == ["set"]


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_end_marker_and_more(path):
    path.write_bytes(path.read_bytes()[:-40])


def scribble(path):
    path.write_bytes(b"\x00this is no such file" * 20)


def empty(path):
    path.write_bytes(b"")


def other_variable(path):
    save_annotation(path, "something", [[1, 2]])


def other_size(path):
    Image.new("RGB", (WIDTH + 1, HEIGHT)).save(path, "JPEG")


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("photos/0003.jpg", Path.unlink),
        ("photos/0003.jpg", truncate),
        ("photos/0003.jpg", cut_end_marker_and_more),
        ("photos/0003.jpg", scribble),
        ("photos/0003.jpg", empty),
        ("photos/0003.jpg", other_size),
        ("photos/1008.jpg", Path.unlink),
        ("photos/1008.jpg", truncate),
        ("annotations/pixel-level/0052.mat", truncate),
        ("annotations/pixel-level/0052.mat", scribble),
        ("annotations/pixel-level/0052.mat", empty),
        ("annotations/pixel-level/0052.mat", other_variable),
        ("annotations/image-level/1005.mat", truncate),
        ("annotations/image-level/1005.mat", other_variable),
        ("label_list.mat", Path.unlink),
        ("label_list.mat", scribble),
        ("label_list.mat", other_variable),
    ],
)
def test_ccp_names_a_missing_or_broken_file(tree, tmp_path, file, damage):
    damage(tree / file)
    with pytest.raises(UserError) as caught:
        ccp.generate(tree, tmp_path / "out" / "set")
    assert str(Path(file)) in str(caught.value) and "\n" not in str(caught.value)
    assert not list((tmp_path / "out").glob("*"))


def test_ccp_says_which_photos_have_no_annotation(tree, tmp_path, capsys):
    (tree / "annotations/pixel-level/0003.mat").unlink()
    ccp.generate(tree, tmp_path / "set")
    assert "0003.mat" in capsys.readouterr().err


def test_ccp_accepts_a_whole_jpeg_with_bytes_after_its_end(tree, tmp_path):
    photo = tree / "photos/0003.jpg"
    photo.write_bytes(photo.read_bytes() + b"camera maker's notes")
    ccp.generate(tree, tmp_path / "set", holdout=0)
    assert (tmp_path / "set/trainA/0003.jpg").read_bytes() == photo.read_bytes()


def test_ccp_refuses_bad_arguments(tree, tmp_path):
    save_root = tmp_path / "out" / "set"
    for holdout in (-0.1, 1.0, 2.0, float("nan")):
        with pytest.raises(UserError, match="--holdout"):
            ccp.generate(tree, save_root, holdout=holdout)
    with pytest.raises(UserError, match="two different"):
        ccp.generate(tree, save_root, "skirt", "skirt")
    with pytest.raises(UserError, match="'wallet'"):  # known, but in no picture
        ccp.generate(tree, save_root, "wallet", "skirt")
    with pytest.raises(UserError, match="git clone https://github.com/bearpaw/clothing-co-parsing"):
        ccp.generate(tmp_path / "nowhere", save_root)
    shutil.rmtree(tree / "annotations/image-level")
    with pytest.raises(UserError, match="image-level"):
        ccp.generate(tree, save_root)
    assert not list((tmp_path / "out").glob("*"))


def test_ccp_command_line(tree, tmp_path):
    flags = ("--data_root", tree, "--save_root", "data/set", "--cat1", "jeans", "--cat2", "skirt", "--holdout", "0.25")
    flags += ("--workers", "2")
    done = run("generate_ccp_dataset.py", *flags, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "next: python train.py --dataroot data/set"
    jeans = len(list((tmp_path / "data/set/trainA").iterdir()))
    assert f"trainA {jeans:8} pictures, {jeans:5} masks" in done.stdout
    again = run("generate_ccp_dataset.py", *flags, cwd=tmp_path)
    assert again.returncode == 2 and again.stdout == ""
    assert len(again.stderr.splitlines()) == 1 and "--overwrite" in again.stderr


def test_ccp_unknown_category_lists_all_that_are_known(tree, tmp_path):
    done = run("generate_ccp_dataset.py", "--data_root", tree, "--cat2", "kilt", cwd=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "'kilt'" in line
    assert line.split("it has: ")[1].split(", ") == NAMES and len(NAMES) == 59
    assert not (tmp_path / "datasets").exists()


@pytest.mark.skipif(not REAL_CCP.is_dir(), reason=f"needs a part of CCP in {REAL_CCP}")
def test_ccp_on_the_real_photos(tmp_path):
    done = run("generate_ccp_dataset.py", "--data_root", REAL_CCP, "--save_root", tmp_path / "set")
    assert (done.returncode, done.stderr) == (0, "")
    members = {"A": set(), "B": set()}
    for path in (REAL_CCP / "annotations/pixel-level").glob("*.mat"):
        present = np.unique(scipy.io.loadmat(str(path))["groundtruth"])
        members["A"] |= {path.stem} if JEANS in present else set()
        members["B"] |= {path.stem} if SKIRT in present else set()
    test = {domain: names_in(tmp_path / "set" / f"test{domain}") for domain in "AB"}
    train = {domain: names_in(tmp_path / "set" / f"train{domain}") for domain in "AB"}
    assert {domain: test[domain] | train[domain] for domain in "AB"} == members
    assert not (test["A"] | test["B"]) & (train["A"] | train["B"])
    assert all(abs(len(test[domain]) - 0.1 * len(members[domain])) <= 0.5 for domain in "AB")
    for photo in sorted((tmp_path / "set/testA").iterdir()):
        with Image.open(photo) as opened, Image.open(tmp_path / "set/testA_seg" / f"{photo.stem}_0.png") as mask:
            assert opened.size == mask.size


# --- shapes -----------------------------------------------------------------------------------------------------------

UNIT_CORNERS = {  # clockwise on the screen, y down
    "square": [(-1, -1), (1, -1), (1, 1), (-1, 1)],
    "triangle": [(0, -1), (1, 1), (-1, 1)],
    "diamond": [(0, -1), (1, 0), (0, 1), (-1, 0)],
}
UNIT_AREA = {"circle": np.pi, "square": 4, "triangle": 2, "diamond": 2}
UNIT_CENTROID_Y = {"circle": 0, "square": 0, "triangle": 1 / 3, "diamond": 0}


def depth(shape, centre, size, height, width):
    """Return how far the centre of each pixel is inside the shape's nearest edge line, in pixels; negative outside."""
    x = np.arange(width)[None, :] + 0.5 - centre[0]
    y = np.arange(height)[:, None] + 0.5 - centre[1]
    if shape == "circle":
        return size - np.hypot(x, y)
    corners = size * np.array(UNIT_CORNERS[shape], float)
    lines = []
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0)):
        lines.append(((x1 - x0) * (y - y0) - (y1 - y0) * (x - x0)) / np.hypot(x1 - x0, y1 - y0))
    return np.min(lines, axis=0)


@pytest.mark.parametrize("shape", shapes.SHAPES)
@pytest.mark.parametrize(("centre", "size"), [((20.0, 31.5), 9.0), ((23.37, 19.81), 6.43), ((25.5, 22.25), 17.7)])
def test_shape_mask_is_the_shape(shape, centre, size):
    height, width = 51, 47
    coverage = shapes.shape_mask(shape, centre, size, height, width)
    assert coverage.shape == (height, width)
    inside = depth(shape, centre, size, height, width)
    half_diagonal = np.sqrt(0.5) + 1e-9
    assert (coverage[inside >= half_diagonal] == 1).all() and (coverage[inside <= -half_diagonal] == 0).all()
    assert coverage.sum() == pytest.approx(UNIT_AREA[shape] * size**2, rel=0.02)
    weights = coverage / coverage.sum()
    assert (weights * (np.arange(width) + 0.5)).sum() == pytest.approx(centre[0], abs=0.06)
    expected_y = centre[1] + UNIT_CENTROID_Y[shape] * size
    assert (weights * (np.arange(height) + 0.5)[:, None]).sum() == pytest.approx(expected_y, abs=0.06)


@pytest.mark.parametrize("shape", shapes.SHAPES)
def test_shape_mask_is_cut_off_at_the_border(shape):
    whole = shapes.shape_mask(shape, (30.25, 30.5), 8, 60, 60)
    np.testing.assert_array_equal(shapes.shape_mask(shape, (0.25, 2.5), 8, 20, 15), whole[28:48, 30:45])
    assert not shapes.shape_mask(shape, (-30.0, 5.0), 8, 20, 15).any()
    assert not shapes.shape_mask(shape, (5.0, 50.0), 8, 20, 15).any()


@pytest.mark.parametrize(
    ("pair", "height", "width", "counts"),
    [
        (("circle", "square"), 64, 64, (1, 4)),
        (("triangle", "diamond"), 37, 91, (2, 5)),
        (("square", "square"), 53, 33, (3, 3)),
    ],
)
def test_shapes_masks_agree_with_the_geometry(tmp_path, pair, height, width, counts):
    size = {"height": height, "width": width, "min_instances": counts[0], "max_instances": counts[1]}
    shapes.generate(tmp_path / "set", *pair, train=8, test=3, **size)
    seen = set()
    for phase, number in (("train", 8), ("test", 3)):
        for domain, shape in zip("AB", pair):
            name = f"{phase}{domain}"
            truth = json.loads((tmp_path / "set" / f"{name}.json").read_text())
            assert sorted(truth) == [f"{i:04d}" for i in range(number)]
            assert names_in(tmp_path / "set" / name) == set(truth)
            expected_masks = {f"{picture}_{i}" for picture in truth for i in range(len(truth[picture]))}
            assert names_in(tmp_path / "set" / f"{name}_seg") == expected_masks
            for picture, instances in truth.items():
                check_picture(tmp_path / "set", name, picture, instances, shape, height, width)
                seen.add(len(instances))
    assert seen == set(range(counts[0], counts[1] + 1))


def check_picture(folder, name, picture, instances, shape, height, width):
    pixels = Image.open(folder / name / f"{picture}.png")
    assert pixels.mode == "RGB" and pixels.size == (width, height)
    pixels = np.asarray(pixels).astype(int)
    total = np.zeros((height, width), int)
    for number, instance in enumerate(instances):
        mask = Image.open(folder / f"{name}_seg" / f"{picture}_{number}.png")
        assert mask.mode == "L" and mask.size == (width, height)
        mask = np.asarray(mask)
        assert set(np.unique(mask)) == {0, 255} and instance["shape"] == shape
        (x, y), size = instance["centre"], instance["size"]
        assert min(x, y) - size >= 0 and x + size <= width and y + size <= height
        inside = depth(shape, (x, y), size, height, width)
        assert (mask[inside >= 0.5] == 255).all() and (mask[inside <= -0.71] == 0).all()
        np.testing.assert_array_equal(mask == 255, shapes.shape_mask(shape, (x, y), size, height, width) >= 0.5)
        assert (pixels[inside >= 0.75] == instance["colour"]).all()
        red, green, blue = instance["colour"]
        assert (red if name.endswith("A") else blue) > 190 and green < 100
        ring = (inside < -1) & (inside > -4)
        assert np.linalg.norm(pixels[ring] - instance["colour"], axis=1).mean() > 60
        total += mask == 255
    assert total.max() == 1
    for i, one in enumerate(instances):
        for other in instances[:i]:
            apart = np.abs(np.subtract(one["centre"], other["centre"])).max()
            assert apart >= one["size"] + other["size"]


def test_shapes_same_seed_same_bytes_and_more_pictures_keep_the_earlier(tmp_path):
    shapes.generate(tmp_path / "few", train=5, test=2, seed=3)
    shapes.generate(tmp_path / "again", train=5, test=2, seed=3)
    shapes.generate(tmp_path / "more", train=9, test=4, seed=3)
    shapes.generate(tmp_path / "other", train=5, test=2, seed=4)
    few, more, other = (digest(tmp_path / name) for name in ("few", "more", "other"))
    assert digest(tmp_path / "again") == few
    files = [name for name in few if name.endswith(".png")]
    assert all(more[name] == few[name] for name in files)
    pictures = [name for name in files if "_seg" not in name]
    assert not any(other[name] == few[name] for name in pictures)
    assert len({few[name] for name in pictures}) == len(pictures) == 14


@pytest.mark.parametrize(("height", "width"), [(64, 64), (150, 90)])
def test_background_is_many_coloured_and_nowhere_flat(height, width):
    for seed in range(10):
        texture = shapes.background(np.random.default_rng(seed), height, width)
        assert texture.shape == (height, width, 3) and texture.min() >= 0 and texture.max() <= 255
        window = min(height, width) // 4
        for top in range(0, height - window, window // 2):
            for left in range(0, width - window, window // 2):
                part = texture[top : top + window, left : left + window]
                assert part.std(axis=(0, 1)).min() > 5
        strongest = np.bincount(texture.argmax(axis=2).ravel(), minlength=3) / (height * width)
        assert strongest.min() > 0.1
        assert np.abs(np.corrcoef(texture.reshape(-1, 3).T) - np.eye(3)).max() < 0.8


@settings(max_examples=30, deadline=None)
@given(st.integers(15, 120), st.integers(15, 300), st.integers(0, 99))
def test_as_many_instances_as_promised_find_room(height, width, seed):
    count = shapes.most_instances(height, width)
    assert count >= 1
    placed = shapes.place(np.random.default_rng(seed), count, height, width)
    assert len(placed) == count
    assert min(size for _, _, size in placed) >= shapes.MIN_SIZE - 1e-9


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"shape1": "blob"}, "circle, square, triangle, diamond"),
        ({"height": 14}, "at least 15"),
        ({"max_instances": 23}, "give 22 or fewer"),
        ({"min_instances": 0}, "--min-instances"),
        ({"min_instances": 5}, "--max-instances"),
        ({"train": 0}, "--train"),
        ({"test": -1}, "--test"),
        ({"seed": -1}, "--seed"),
    ],
)
def test_shapes_refuses_bad_arguments(tmp_path, flags, expected):
    with pytest.raises(UserError, match=expected):
        shapes.generate(tmp_path / "set", **flags)
    assert not list(tmp_path.iterdir())


def test_shapes_interrupted_leaves_nothing(tmp_path, monkeypatch):
    write = shapes.write

    def write_then_stop(folder, domain, name, *arguments):
        write(folder, domain, name, *arguments)
        if (domain, name) == ("trainB", "0002"):
            raise KeyboardInterrupt

    monkeypatch.setattr(shapes, "write", write_then_stop)
    with pytest.raises(KeyboardInterrupt):
        shapes.generate(tmp_path / "set", train=4, test=2)
    assert not list(tmp_path.iterdir())


def test_shapes_command_line(tmp_path):
    few = ("--train", 3, "--test", 0, "--size", 66, "--width", 50)
    done = run("generate_shapes_dataset.py", "--shape1", "diamond", *few, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    folder = tmp_path / "datasets" / "diamond2square"
    entries = {f"train{domain}{suffix}" for domain in "AB" for suffix in ("", "_seg", ".json")}
    assert {path.name for path in folder.iterdir()} == entries
    assert Image.open(folder / "trainA" / "0000.png").size == (50, 66)
    following = done.stdout.splitlines()[-1]
    assert following.startswith(f"next: python train.py --dataroot {Path('datasets', 'diamond2square')} ")
    assert "--fineSizeH 64 --fineSizeW 48 " in following
    again = run("generate_shapes_dataset.py", "--shape1", "diamond", *few, cwd=tmp_path)
    assert again.returncode == 2 and len(again.stderr.splitlines()) == 1 and "--overwrite" in again.stderr
    before = digest(folder)
    replaced = run("generate_shapes_dataset.py", "--shape1", "diamond", *few, "--overwrite", "--seed", 1, cwd=tmp_path)
    assert replaced.returncode == 0 and digest(folder) != before
    assert os.listdir(folder.parent) == ["diamond2square"]
