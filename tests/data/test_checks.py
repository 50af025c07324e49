# SPDX-License-Identifier: Apache-2.0
"""Every fault that a data set can have is found, named by its file, and stops training where it must."""

from __future__ import annotations

import json
import os
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

import train
from common.errors import UserError, printable
from data import checks
from datasets import check_dataset
from datasets import generate_ccp_dataset as ccp
from tests.helpers import ROOT

HEIGHT, WIDTH = 40, 32
SIZES = checks.Sizes(load=(HEIGHT, WIDTH), crop=(HEIGHT, WIDTH))
CCP = ROOT.parent / "shared" / "data" / "clothing-co-parsing"


def picture(height=HEIGHT, width=WIDTH, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def box(top, left, bottom, right, height=HEIGHT, width=WIDTH, inside=255):
    values = np.zeros((height, width), np.uint8)
    values[top:bottom, left:right] = inside
    return Image.fromarray(values)


EMPTY = box(0, 0, 0, 0)


@pytest.fixture()
def data(tmp_path):
    """A data set without a fault: two pictures a domain, two masks each."""
    root = tmp_path / "set"
    for letter in "AB":
        for folder in (f"train{letter}", f"train{letter}_seg"):
            (root / folder).mkdir(parents=True)
        for i in range(2):
            picture(seed=i).save(root / f"train{letter}" / f"p{i}.png")
            for k, mask in enumerate((box(2, 2, 20, 12), box(20, 14, 38, 30))):
                mask.save(root / f"train{letter}_seg" / f"p{i}_{k}.png")
    return root


def found(root, sizes=SIZES):
    report = checks.check(root, sizes)
    # the names of the folders that pytest makes have capital letters too
    return {
        (f.severity, f.kind, os.path.relpath(f.file, root))
        for f in report.findings
        if (f.kind, f.file) != ("capital-letter", str(root))
    }


def test_a_good_data_set_has_no_findings(data):
    assert found(data) == set()
    report = checks.check(data, SIZES)
    assert (report.pictures, report.masks) == (4, 8)


# --- one fault each ---------------------------------------------------------------------------------------------------


def png(data, name, image, **options):
    image.save(data / name, "PNG", **options)


def exif(orientation):
    turned = Image.Exif()
    turned[0x0112] = orientation
    return turned.tobytes()


def without(data, name):
    (data / name).unlink()


def sixteen_bits(data, name):
    values = np.array(Image.open(data / name)).astype(np.uint16) * 257
    png(data, name, Image.fromarray(values))


def cut(data, name, share=0.5):
    content = (data / name).read_bytes()
    (data / name).write_bytes(content[: int(len(content) * share)])


def jpeg(data, name, image, **options):
    """A JPEG in place of the PNG of that name."""
    without(data, f"{name}.png")
    image.save(data / f"{name}.jpg", **options)


def palette(data, name):
    png(data, name, Image.open(data / name).convert("P"))


def sideways(data):
    """The picture is stored on its side with an EXIF note to turn it; its masks are as it looks on its side."""
    jpeg(data, "trainA/p0", picture(), exif=exif(6))


def turned(data):
    """The same JPEG, with masks that are upright as they should be."""
    jpeg(data, "trainA/p0", picture(WIDTH, HEIGHT), exif=exif(6))


def levels(*boxes):
    values = np.zeros((HEIGHT, WIDTH), np.uint8)
    for top, left, bottom, right, level in boxes:
        values[top:bottom, left:right] = level
    return Image.fromarray(values)


def coloured():
    """White and red instances, as numbers 1 and 2."""
    image = levels((2, 2, 20, 12, 1), (21, 2, 30, 12, 2))
    image.putpalette([0, 0, 0, 255, 255, 255, 255, 0, 0])
    return image


def link(data, name):
    without(data, name)
    (data / name).symlink_to("nowhere.png")


def bomb(data):
    """A PNG whose header says that it has 20000 x 20000 pixels."""
    content = bytearray((data / "trainA/p0.png").read_bytes())
    content[16:24] = struct.pack(">II", 20000, 20000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (data / "trainA/p0.png").write_bytes(content)


def rename(data, old, new):
    (data / old).rename(data / new)


FAULTS = {
    "picture without mask": (
        lambda d: [without(d, f"trainA_seg/p0_{k}.png") for k in (0, 1)],
        [("warning", "picture-without-mask", "trainA/p0.png")],
    ),
    "mask without picture": (
        lambda d: rename(d, "trainA_seg/p0_1.png", "trainA_seg/other_1.png"),
        [("error", "mask-without-picture", "trainA_seg/other_1.png")],
    ),
    "gap in the numbering": (
        lambda d: rename(d, "trainA_seg/p0_1.png", "trainA_seg/p0_2.png"),
        [("warning", "numbering-gap", "trainA_seg/p0_2.png")],
    ),
    "numbering from 1": (
        lambda d: rename(d, "trainA_seg/p0_0.png", "trainA_seg/p0_2.png"),
        [("warning", "numbering-gap", "trainA_seg/p0_2.png")],
    ),
    "wrong name pattern": (
        lambda d: rename(d, "trainA_seg/p0_0.png", "trainA_seg/p0.png"),
        [
            ("error", "wrong-mask-name", "trainA_seg/p0.png"),
            ("warning", "numbering-gap", "trainA_seg/p0_1.png"),
        ],
    ),
    "a mask that is no PNG": (
        lambda d: [box(2, 2, 9, 9).save(d / "trainB_seg/p1_2.jpg")],
        [("error", "wrong-mask-name", "trainB_seg/p1_2.jpg")],
    ),
    "one number twice": (
        lambda d: box(2, 14, 18, 30).save(d / "trainB_seg/p1_01.png"),
        [("error", "duplicate-name", "trainB_seg/p1_1.png")],
    ),
    "another size, the same shape": (
        lambda d: png(d, "trainA_seg/p0_0.png", box(1, 1, 10, 6, HEIGHT // 2, WIDTH // 2)),
        [("warning", "size-differs", "trainA_seg/p0_0.png")],
    ),
    "another shape": (
        lambda d: png(d, "trainA_seg/p0_0.png", box(1, 1, 10, 6, HEIGHT, HEIGHT)),
        [("error", "size-differs", "trainA_seg/p0_0.png")],
    ),
    "on its side": (
        lambda d: png(d, "trainA_seg/p0_0.png", box(1, 1, 10, 6, WIDTH, HEIGHT)),
        [("error", "orientation-differs", "trainA_seg/p0_0.png")],
    ),
    "masks of the picture without its EXIF rotation": (
        sideways,
        [("note", "exif-rotation", "trainA/p0.jpg")]
        + [("error", "orientation-differs", f"trainA_seg/p0_{k}.png") for k in (0, 1)]
        + [("warning", "small-picture", "trainA/p0.jpg")],
    ),
    "EXIF rotation": (turned, [("note", "exif-rotation", "trainA/p0.jpg")]),
    "empty mask": (
        lambda d: png(d, "trainA_seg/p0_1.png", box(0, 0, 0, 0)),
        [("warning", "empty-mask", "trainA_seg/p0_1.png")],
    ),
    "all masks of a domain empty": (
        lambda d: [png(d, f"trainB_seg/p{i}_{k}.png", box(0, 0, 0, 0)) for i in (0, 1) for k in (0, 1)],
        [("warning", "empty-mask", f"trainB_seg/p{i}_{k}.png") for i in (0, 1) for k in (0, 1)]
        + [("error", "no-masks", "trainB")],
    ),
    "mask that covers all": (
        lambda d: [png(d, "trainA_seg/p0_0.png", box(0, 0, HEIGHT, WIDTH)), without(d, "trainA_seg/p0_1.png")],
        [("warning", "full-mask", "trainA_seg/p0_0.png")],
    ),
    "masks that overlap": (
        lambda d: png(d, "trainA_seg/p0_1.png", box(18, 2, 38, 12)),
        [("warning", "overlapping-masks", "trainA_seg/p0_1.png")],
    ),
    "the same mask twice": (
        lambda d: png(d, "trainA_seg/p0_1.png", box(2, 2, 20, 12)),
        [("warning", "overlapping-masks", "trainA_seg/p0_1.png")],
    ),
    "masks of 0 and 1": (
        lambda d: png(d, "trainA_seg/p0_0.png", box(2, 2, 20, 12, inside=1)),
        [("error", "grey-mask", "trainA_seg/p0_0.png")],
    ),
    "grey inside": (
        lambda d: png(d, "trainA_seg/p0_0.png", box(2, 2, 20, 12, inside=140)),
        [("error", "grey-mask", "trainA_seg/p0_0.png")],
    ),
    "a map of labels": (
        lambda d: png(d, "trainA_seg/p0_0.png", levels(*[(5 + k, 0, 15 + k, WIDTH, 80 + 8 * k) for k in (0, 10, 20)])),
        [("error", "grey-mask", "trainA_seg/p0_0.png")],
    ),
    "a picture in place of a mask": (
        lambda d: png(d, "trainA_seg/p0_0.png", picture().resize((WIDTH, HEIGHT)).convert("L")),
        [("error", "grey-mask", "trainA_seg/p0_0.png")],
    ),
    "16-bit mask": (
        lambda d: sixteen_bits(d, "trainA_seg/p0_0.png"),
        [("note", "sixteen-bit", "trainA_seg/p0_0.png")],
    ),
    "palette picture": (
        lambda d: palette(d, "trainB/p0.png"),
        [("note", "palette", "trainB/p0.png")],
    ),
    "palette mask": (
        lambda d: palette(d, "trainB_seg/p0_0.png"),
        [("note", "palette", "trainB_seg/p0_0.png")],
    ),
    "CMYK picture": (
        lambda d: jpeg(d, "trainA/p0", picture().convert("CMYK")),
        [("note", "cmyk", "trainA/p0.jpg")],
    ),
    "RGBA picture": (
        lambda d: png(d, "trainA/p0.png", picture().convert("RGBA")),
        [("note", "transparency", "trainA/p0.png")],
    ),
    "truncated PNG": (lambda d: cut(d, "trainA/p0.png"), [("error", "truncated", "trainA/p0.png")]),
    "truncated JPEG": (
        lambda d: [jpeg(d, "trainA/p0", picture(), quality=95), cut(d, "trainA/p0.jpg", 0.9)],
        [("error", "truncated", "trainA/p0.jpg")],
    ),
    "truncated mask": (
        lambda d: cut(d, "trainA_seg/p0_0.png", 0.7),
        [("error", "truncated", "trainA_seg/p0_0.png")],
    ),
    "zero bytes": (lambda d: cut(d, "trainA/p0.png", 0), [("error", "empty-file", "trainA/p0.png")]),
    "not a picture at all": (
        lambda d: (d / "trainA/p0.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
        [("error", "not-a-picture", "trainA/p0.png")],
    ),
    "a folder called like a picture": (
        lambda d: [without(d, "trainA/p0.png"), (d / "trainA/p0.png").mkdir()],
        [("error", "not-a-picture", "trainA/p0.png")],
    ),
    "decompression bomb": (bomb, [("error", "not-a-picture", "trainA/p0.png")]),
    "one name with two extensions": (
        lambda d: picture().save(d / "trainA/p0.jpg"),
        [("error", "duplicate-name", "trainA/p0.png")],
    ),
    "empty domain": (
        lambda d: [path.unlink() for path in [*d.glob("trainB/*"), *d.glob("trainB_seg/*")]],
        [("error", "empty-domain", "trainB")],
    ),
    "a mask number that is a date": (
        lambda d: rename(d, "trainA_seg/p0_1.png", "trainA_seg/p0_20230615.png"),
        [("warning", "numbering-gap", "trainA_seg/p0_20230615.png")],
    ),
    "two levels in one mask": (
        lambda d: png(d, "trainA_seg/p0_0.png", levels((2, 2, 20, 12, 255), (21, 2, 30, 12, 128))),
        [("error", "grey-mask", "trainA_seg/p0_0.png")],
    ),
    "thin instances in one mask": (
        lambda d: png(d, "trainA_seg/p0_0.png", levels((2, 2, 20, 4, 80), (2, 6, 20, 8, 160), (2, 10, 20, 12, 240))),
        [("error", "grey-mask", "trainA_seg/p0_0.png")],
    ),
    "colours of a palette": (
        lambda d: png(d, "trainA_seg/p0_0.png", coloured()),
        [("note", "palette", "trainA_seg/p0_0.png"), ("error", "grey-mask", "trainA_seg/p0_0.png")],
    ),
    "16-bit mask of 0 and 1": (
        lambda d: png(d, "trainA_seg/p0_0.png", Image.fromarray(np.eye(HEIGHT, WIDTH, dtype=np.uint16))),
        [("note", "sixteen-bit", "trainA_seg/p0_0.png"), ("error", "grey-mask", "trainA_seg/p0_0.png")],
    ),
    "numbers in one channel": (
        lambda d: png(d, "trainA_seg/p0_0.png", Image.merge("RGB", (box(2, 2, 9, 9, inside=1), EMPTY, EMPTY))),
        [("error", "grey-mask", "trainA_seg/p0_0.png")],
    ),
    "alpha only": (
        lambda d: png(d, "trainA_seg/p0_0.png", Image.merge("LA", (EMPTY, box(2, 2, 9, 9)))),
        [("error", "grey-mask", "trainA_seg/p0_0.png")],
    ),
    "an instance that vanishes when resized": (
        lambda d: [png(d, "trainA/p0.png", picture(10 * HEIGHT, 10 * WIDTH))]
        + [png(d, "trainA_seg/p0_0.png", box(20, 20, 380, 23, 10 * HEIGHT, 10 * WIDTH))]
        + [png(d, "trainA_seg/p0_1.png", box(20, 40, 380, 70, 10 * HEIGHT, 10 * WIDTH))],
        [("warning", "vanishing-mask", "trainA_seg/p0_0.png")],
    ),
    "EXIF rotation that sizes cannot tell": (
        lambda d: jpeg(d, "trainA/p0", picture(), exif=exif(3)),
        [("warning", "exif-rotation", "trainA/p0.jpg")],
    ),
    "a JPEG called PNG": (
        lambda d: [box(2, 2, 38, 5).save(d / "trainA_seg/p0_0.png", "JPEG", quality=95)]
        + [box(2, 2, 38, 5).save(d / "trainA_seg/p0_1.png")],
        [("warning", "overlapping-masks", "trainA_seg/p0_1.png")],
    ),
    "overlap of masks of two sizes": (
        lambda d: [png(d, "trainA_seg/p0_0.png", box(1, 1, 10, 6, HEIGHT // 2, WIDTH // 2))]
        + [png(d, "trainA_seg/p0_1.png", box(2, 2, 20, 12))],
        [
            ("warning", "size-differs", "trainA_seg/p0_0.png"),
            ("warning", "overlapping-masks", "trainA_seg/p0_1.png"),
        ],
    ),
    "a pipe": (
        lambda d: [without(d, "trainA/p0.png"), os.mkfifo(d / "trainA/p0.png")],
        [("error", "not-a-picture", "trainA/p0.png")],
    ),
    "masks behind a link that leads nowhere": (
        lambda d: [rename(d, "trainB_seg", "elsewhere"), (d / "trainB_seg").symlink_to("gone")],
        [("error", "dangling-link", "trainB_seg"), ("error", "no-masks", "trainB")],
    ),
    "no domain B": (
        lambda d: [rename(d, "trainB", "elsewhere"), rename(d, "trainB_seg", "elsewhere_seg")],
        [("error", "missing-folder", "trainB")],
    ),
    "a domain that is a link to nowhere": (
        lambda d: [rename(d, "trainB", "elsewhere"), (d / "trainB").symlink_to("gone")],
        [("error", "dangling-link", "trainB")],
    ),
    "no masks": (
        lambda d: [path.unlink() for path in d.glob("trainB_seg/*")],
        [("error", "no-masks", "trainB")],
    ),
    "picture smaller than the crop": (
        lambda d: [png(d, "trainA/p0.png", picture(20, 16))]
        + [png(d, f"trainA_seg/p0_{k}.png", box(9 * k, 0, 9 * k + 8, 9, 20, 16)) for k in (0, 1)],
        [("warning", "small-picture", "trainA/p0.png")],
    ),
    "capital A in a name": (
        lambda d: [rename(d, "trainA/p0.png", "trainA/Ap0.png")]
        + [rename(d, f"trainA_seg/p0_{k}.png", f"trainA_seg/Ap0_{k}.png") for k in (0, 1)],
        [("note", "capital-letter", "trainA/Ap0.png")]
        + [("note", "capital-letter", f"trainA_seg/Ap0_{k}.png") for k in (0, 1)],
    ),
    "spaces and non-ASCII letters": (
        lambda d: [rename(d, "trainB/p0.png", "trainB/grün 1.png")]
        + [rename(d, f"trainB_seg/p0_{k}.png", f"trainB_seg/grün 1_{k}.png") for k in (0, 1)],
        [("note", "unusual-name", "trainB/grün 1.png")]
        + [("note", "unusual-name", f"trainB_seg/grün 1_{k}.png") for k in (0, 1)],
    ),
    "a name that is no text": (
        lambda d: os.rename(os.fsencode(d / "trainB/p0.png"), os.fsencode(d / "trainB") + b"/p\xe9.png"),
        [("error", "name-not-utf8", "trainB/p\udce9.png")]
        + [("warning", "picture-without-mask", "trainB/p\udce9.png")]
        + [("error", "mask-without-picture", f"trainB_seg/p0_{k}.png") for k in (0, 1)],
    ),
    "link that leads nowhere": (
        lambda d: [link(d, "trainA/p0.png"), link(d, "trainA_seg/p1_0.png")],
        [("error", "dangling-link", "trainA/p0.png"), ("error", "dangling-link", "trainA_seg/p1_0.png")],
    ),
    "something else": (
        lambda d: [(d / "trainA/notes.txt").write_text("x"), (d / "trainA/.DS_Store").write_text("x")],
        [("warning", "other-file", "trainA/notes.txt")],
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_and_nothing_else(data, fault):
    spoil, expected = FAULTS[fault]
    spoil(data)
    assert found(data) == set(expected)


@pytest.mark.parametrize("fault", FAULTS)
def test_every_finding_is_one_line_with_its_file_and_a_mend(data, fault):
    FAULTS[fault][0](data)
    for finding in checks.check(data, SIZES).findings:
        line = str(finding)
        assert line.isprintable() and finding.mend and printable(Path(finding.file).name) in line


@pytest.mark.parametrize("fault", FAULTS)
def test_training_is_refused_if_and_only_if_there_is_an_error(data, fault, monkeypatch, capsys):
    spoil, expected = FAULTS[fault]
    spoil(data)
    errors = [file for severity, _, file in expected if severity == "error"]
    if not errors:
        return checks.refuse_bad(checks.check(data, SIZES, ["train"]))
    with pytest.raises(UserError) as refused:
        checks.refuse_bad(checks.check(data, SIZES, ["train"]))
    output = capsys.readouterr().out if len(errors) > 1 else str(refused.value)
    for file in errors:
        assert printable(Path(file).name) in output.replace("\udce9", "\\udce9")


# --- no faults --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("blur", "width"), [(1.5, 4), (3, 6), (8, 40)])
def test_very_soft_masks_are_used_with_a_warning_at_most(tmp_path, data, blur, width):
    big = Image.new("L", (200, 200))
    big.paste(255, (80, 30, 80 + width, 170))
    for name in ("trainA/p0", "trainA_seg/p0_0", "trainA_seg/p0_1"):
        without(data, f"{name}.png")
    picture(200, 200).save(data / "trainA" / "p0.png")
    big.filter(ImageFilter.GaussianBlur(blur)).save(data / "trainA_seg" / "p0_0.png")
    large = checks.Sizes(load=(200, 200), crop=SIZES.crop)
    assert found(data, large) <= {("warning", "grey-mask", "trainA_seg/p0_0.png")}


def test_memory_of_a_huge_mask_is_what_its_pixels_take(data):
    """Floats of all pixels at a time would be four times as much."""
    Image.new("RGBA", (6000, 4000)).save(data / "trainA_seg" / "p0_0.png")
    tracemalloc.start()
    try:
        checks.check(data, SIZES)
        assert tracemalloc.get_traced_memory()[1] < 24e6 * 3
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("radius", [3, 6, 12])
def test_soft_edges_are_no_grey(data, radius):
    """Antialiased shapes of any size, and shapes enlarged from a quarter of the size."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    level = np.clip(radius + 0.5 - np.hypot(y - 20, x - 16), 0, 1) * 255
    png(data, "trainA_seg/p0_0.png", Image.fromarray(level.round().astype(np.uint8)))
    small = Image.fromarray(level.round().astype(np.uint8)).resize((WIDTH // 4, HEIGHT // 4)).resize((WIDTH, HEIGHT))
    if radius > 6:
        png(data, "trainB_seg/p0_0.png", small)
    assert {severity for severity, _, _ in found(data)} <= {"warning"}


def test_a_pixel_more_or_less_is_the_same_shape(data):
    for k, size in enumerate([(HEIGHT // 3, WIDTH // 3), (HEIGHT // 3 + 1, WIDTH // 3 + 1)]):
        png(data, f"trainA_seg/p0_{k}.png", box(1 + 6 * k, 1, 6 + 6 * k, 6, *size))
    assert {(severity, kind) for severity, kind, _ in found(data)} == {("warning", "size-differs")}


def test_phases_without_masks_or_without_b_are_fine(data):
    (data / "valA").mkdir()
    picture().save(data / "valA" / "v.png")
    assert found(data) == set()


def test_masks_of_the_test_phase_are_checked_but_not_by_training(data):
    (data / "testA").mkdir()
    (data / "testA_seg").mkdir()
    picture().save(data / "testA" / "t.png")
    (data / "testA_seg" / "t_0.png").write_bytes(b"")
    assert found(data) == {("error", "empty-file", "testA_seg/t_0.png")}
    assert not checks.check(data, SIZES, ["train"]).of("error")


def test_a_root_with_a_capital_letter_is_noted(data):
    root = data.rename(data.with_name("DATA"))
    assert ("note", "capital-letter", str(root)) in {
        (f.severity, f.kind, f.file) for f in checks.check(root, SIZES).findings
    }


# --- the command ------------------------------------------------------------------------------------------------------


def run(run_main, *arguments):
    sizes = [f"--{kind}Size{side}={n}" for kind in ("load", "fine") for side, n in (("H", HEIGHT), ("W", WIDTH))]
    return run_main(check_dataset, *arguments, *sizes)


def test_the_command_on_good_and_bad_data(run_main, data):
    code, out, err = run(run_main, data)
    assert (code, err) == (0, "") and "4 pictures, 8 masks; 0 errors, 0 warnings" in out
    cut(data, "trainA/p0.png")
    png(data, "trainB_seg/p0_0.png", box(0, 0, 0, 0))
    code, out, err = run(run_main, data)
    assert (code, err) == (1, "")
    first, second, *_ = out.splitlines()
    assert first.startswith("error: ") and "trainA/p0.png" in first
    assert second.startswith("warning: ") and "trainB_seg/p0_0.png" in second
    assert "1 error, 1 warning, 0 notes" in out.splitlines()[-1]


def test_warnings_alone_are_no_failure(run_main, data):
    png(data, "trainB_seg/p0_0.png", box(0, 0, 0, 0))
    assert run(run_main, data)[0] == 0


def test_json_has_every_finding(run_main, data):
    for i in range(checks.SHOWN + 5):
        (data / "trainA" / f"x{i:02d}.png").write_bytes(b"")
    code, out, err = run(run_main, data, "--json")
    report = json.loads(out)
    assert (code, err, report["pictures"]) == (1, "", 4 + checks.SHOWN + 5)
    empty = [f for f in report["findings"] if f["kind"] == "empty-file"]
    assert len(empty) == checks.SHOWN + 5
    assert all(set(f) == {"severity", "kind", "file", "problem", "mend"} and all(f.values()) for f in empty)
    code, out, err = run(run_main, data)
    assert out.count("it has no content") == checks.SHOWN and "... and 5 more like this" in out


def test_a_phase_alone(run_main, data):
    (data / "trainA" / "p0.png").write_bytes(b"")
    (data / "testA").mkdir()
    picture().save(data / "testA" / "t.png")
    assert run(run_main, data, "--phase", "test")[0] == 0
    assert run(run_main, data, "--phase", "train")[0] == 1
    code, out, _ = run(run_main, data, "--phase", "tset")
    assert code == 1 and "no tsetA" in out


@pytest.mark.parametrize("arguments", [["nowhere"], []])
def test_the_command_refuses_what_is_no_folder(run_main, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(run_main, *arguments)
    assert code == 2 and out == "" and err.count("\n") == 1 and err.startswith("check_dataset.py: error: ")


def test_folders_of_other_names_are_told(run_main, data):
    for x in ("A", "A_seg", "B", "B_seg"):
        rename(data, f"train{x}", f"training{x}")
    code, out, _ = run(run_main, data)
    assert code == 0 and "it has training only; training needs trainA and trainB" in out
    assert checks.check(data, SIZES, ["train"]).of("error")


def test_an_empty_folder_is_no_data_set(run_main, tmp_path):
    code, out, _ = run(run_main, tmp_path)
    assert code == 1 and "trainA" in out


# --- in training ------------------------------------------------------------------------------------------------------

FLAGS = f"--loadSizeH {HEIGHT} --loadSizeW {WIDTH} --fineSizeH {HEIGHT} --fineSizeW {WIDTH}".split()
TINY = [*FLAGS, *"--ngf 2 --ndf 2 --n-blocks 0 --n-layers-D 1 --max-iter 1 -c cpu".split()]


def test_all_errors_are_told_before_the_first_iteration(run_main, data, tmp_path):
    cut(data, "trainA/p0.png")
    rename(data, "trainB_seg/p1_1.png", "trainB_seg/7.png")
    link(data, "trainB_seg/p0_0.png")
    code, out, err = run_main(train, "--dataroot", data, *TINY, "-m", tmp_path / "run")
    assert code == 2 and err.count("\n") == 1 and "3 errors" in err and "check_dataset.py" in err
    for file in ("trainA/p0.png", "trainB_seg/7.png", "trainB_seg/p0_0.png"):
        assert file in out
    assert not (tmp_path / "run").exists()


def test_one_error_is_told_in_one_line(run_main, data, tmp_path):
    cut(data, "trainA/p0.png")
    code, out, err = run_main(train, "--dataroot", data, *TINY, "-m", tmp_path / "run")
    assert code == 2 and err.count("\n") == 1 and "trainA/p0.png" in err and "p0.png" not in out


def test_what_is_odd_but_usable_is_trained_on(run_main, data, tmp_path):
    turned(data)
    palette(data, "trainB/p0.png")
    sixteen_bits(data, "trainB_seg/p0_0.png")
    png(data, "trainB_seg/p0_1.png", box(0, 0, 0, 0))
    code, out, _ = run_main(train, "--dataroot", data, *TINY, "-m", tmp_path / "run")
    assert code == 0 and "p0_1.png: it is black everywhere" in out


# --- real data --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not CCP.is_dir(), reason="the photos of clothing-co-parsing are not here")
def test_real_photos_have_no_findings(tmp_path):
    root = tmp_path / "ccp"
    ccp.generate(CCP, root)
    report = checks.check(root, checks.Sizes(load=(330, 220), crop=(300, 200)))
    assert report.pictures > 300 and report.masks > 300
    assert [f for f in report.findings if f.kind != "capital-letter"] == []


# --- tiny instances ---------------------------------------------------------------------------------------------------


def test_a_domain_of_mostly_tiny_instances_is_reported(data):
    for k in range(2, 5):
        png(data, f"trainA_seg/p0_{k}.png", box(20 + 4 * (k - 2), 2, 23 + 4 * (k - 2), 7))
    assert found(data) == set()
    png(data, "trainA_seg/p1_2.png", box(21, 2, 23, 9))
    png(data, "trainA_seg/p1_3.png", box(25, 2, 26, 3))
    assert found(data) == {("warning", "tiny-masks", "trainA_seg")}
    (finding,) = checks.check(data, SIZES).findings[-1:]
    assert "9 instances, most of fewer than 16 pixels: are they edges or crumbs of a label map?" in str(finding)


def test_tiny_depends_on_the_picture():
    assert checks.tiny(15, 64 * 64) and not checks.tiny(16, 64 * 64)
    assert checks.tiny(499, 1000 * 1000) and not checks.tiny(500, 1000 * 1000)
