# SPDX-License-Identifier: Apache-2.0
"""The REST API: the same results as translate.py, errors with cause and status, and its OpenAPI document."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
import zipfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import nnabla as nn
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("flask", reason="needs Flask: pip install -r requirements-app.txt")

import translate as translate_script
from data import pictures
from data.items import Item
from masks.box_object import find_object
from masks.segmenter import Segmenter, load
from models import Architecture
from serving import api, instances, safety
from serving.api import ROUTES
from serving.networks import domain_names, names_of
from serving.openapi import document
from serving.samples import Sample, find_samples
from tests.helpers import ROOT
from tests.helpers.app import (
    as_form,
    draw_marked_photo,
    draw_photo,
    ended,
    make_client,
    pixels,
    save_random_segmenter,
    start_app,
    translate,
    upload,
)
from tests.helpers.random_generator import save_random_model

ARCH = Architecture(ngf=4, ndf=2, n_blocks=1)
HEIGHT, WIDTH = 60, 90
BOXES = [[3, 4, 24, 22], [40, 8, 66, 30], [30, 36, 70, 57]]


@pytest.fixture()
def photo(tmp_path):
    """A picture with three instances, and their mask files."""
    return draw_marked_photo(tmp_path, (HEIGHT, WIDTH), BOXES, margin=2)


@pytest.fixture()
def model(tmp_path):
    return save_random_model(tmp_path / "model.h5", ARCH, "keep")


def written_by_translate_py(run_main, tmp_path, *arguments):
    """The pictures and masks that translate.py writes, by name, as bytes."""
    folder = tmp_path / "expected"
    shutil.rmtree(folder, ignore_errors=True)
    code, _, errors = run_main(translate_script, *arguments, "--keep-size", "--output", folder)
    assert code == 0, errors
    masks = {path.name.partition("_")[2]: path.read_bytes() for path in (folder / "masks").iterdir()}
    (picture,) = (folder / "images").iterdir()
    return {"picture": picture.read_bytes(), **masks}


def received(client, job):
    """The same from the API."""
    result = job["result"]
    files = {"picture": client.get(result["picture"]).data}
    files.update({f"{mask['number']}.png": client.get(mask["mask"]).data for mask in result["masks"]})
    return files


# --- results ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
def test_masks_give_the_bytes_of_translate_py(client, photo, model, run_main, tmp_path, direction):
    picture, masks = photo
    job = translate(client, image=picture, masks=masks, direction=direction)
    assert job["state"] == "done" and (job["done"], job["total"], job["remarks"]) == (3, 3, [])
    actual = received(client, job)
    expected = written_by_translate_py(
        run_main, tmp_path, "--model", model, "--image", picture, "--masks", *masks, "--direction", direction
    )
    assert set(expected) == {"picture", "0.png", "1.png", "2.png"}
    assert actual == expected
    assert np.any(pixels(client, job["result"]["picture"]) != np.asarray(Image.open(picture)))


def test_boxes_and_selected_ones_give_the_bytes_of_translate_py(client, photo, model, run_main, tmp_path):
    picture, _ = photo
    job = translate(client, image=picture, boxes=json.dumps(BOXES), select="[2, 0]")
    actual = received(client, job)
    boxes = [argument for box in BOXES for argument in ("--box", ",".join(map(str, box)))]
    expected = written_by_translate_py(
        run_main, tmp_path, "--model", model, "--image", picture, *boxes, "--select", "0,2"
    )
    assert set(expected) == {"picture", "0.png", "2.png"}
    assert actual == expected


def test_the_segmenter_gives_the_bytes_of_translate_py(photo, model, run_main, tmp_path):
    picture, _ = photo
    segmenter = save_random_segmenter(tmp_path / "segmenter.h5")
    client = make_client(tmp_path / "files", "--model", model, "--segmenter", segmenter)
    job = translate(client, image=picture, segment="true")
    actual = received(client, job)
    expected = written_by_translate_py(
        run_main, tmp_path, "--model", model, "--image", picture, "--segmenter", segmenter
    )
    assert len(expected) > 1
    assert actual == expected


def test_an_uploaded_photo_with_exif_data_gives_the_bytes_of_translate_py(client, model, run_main, tmp_path):
    mask = np.zeros((700, 1300), bool)
    mask[200:420, 500:800] = True
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = draw_photo(tmp_path / "lying.jpg", [mask], exif=exif, quality=95)
    standing = tmp_path / "lying_0.png"
    Image.fromarray(np.rot90(mask, -1).astype(np.uint8) * 255).save(standing)
    uploaded = upload(client, lying)
    assert (uploaded["height"], uploaded["width"], uploaded["name"]) == (1300, 700, "lying")
    view = pixels(client, uploaded["view"])
    assert view.shape == (uploaded["view_height"], uploaded["view_width"], 3) == (1024, 551, 3)
    small = np.asarray(Image.fromarray(pictures.read_picture(lying)).resize((551, 1024), Image.BOX))
    np.testing.assert_array_equal(view, small)
    job = translate(client, picture=uploaded["id"], masks=[standing])
    actual = received(client, job)
    expected = written_by_translate_py(run_main, tmp_path, "--model", model, "--image", lying, "--masks", standing)
    assert actual == expected
    assert pixels(client, job["result"]["after"]).shape == view.shape
    np.testing.assert_array_equal(pixels(client, job["result"]["before"]), view)


def test_two_models_keep_their_own_weights(photo, run_main, tmp_path):
    picture, masks = photo
    models = []
    for number in range(2):
        (tmp_path / f"run{number}").mkdir()
        models.append(save_random_model(tmp_path / f"run{number}" / "model.h5", ARCH, "keep"))
    nn.clear_parameters()
    other = Architecture(ngf=6, ndf=2, n_blocks=0)
    save_random_model(models[1], other, "network")
    client = make_client(tmp_path / "files", "--model", models[0], "--model", models[1])
    names = [one["name"] for one in client.get("/api/about").get_json()["models"]]
    assert names == list(map(str, models))
    actual = [received(client, translate(client, image=picture, masks=masks, model=name)) for name in names * 2]
    assert actual[:2] == actual[2:] and actual[0] != actual[1]
    for model, files in zip(models, actual):
        arguments = ("--model", model, "--image", picture, "--masks", *masks)
        assert files == written_by_translate_py(run_main, tmp_path, *arguments)


def test_a_model_without_masks_translates_whole_pictures(photo, run_main, tmp_path):
    picture, masks = photo
    model = save_random_model(tmp_path / "plain.h5", ARCH, "network", ins_per=0)
    client = make_client(tmp_path / "files", "--model", model)
    assert client.get("/api/about").get_json()["models"][0]["needs_masks"] is False
    job = translate(client, image=picture)
    assert job["result"]["masks"] == []
    folder = tmp_path / "expected"
    arguments = ("--model", model, "--image", picture, "--output", folder)
    assert run_main(translate_script, *arguments)[0] == 0
    assert client.get(job["result"]["picture"]).data == (folder / "images" / "photo.png").read_bytes()
    refused = client.post("/api/translate", data=as_form({"image": picture, "masks": masks}))
    assert refused.status_code == 422 and "without masks" in refused.get_json()["error"]


def test_the_archive_has_the_picture_the_masks_and_a_page(client, photo):
    picture, masks = photo
    job = translate(client, image=picture, masks=masks, select="[1]")
    archive = client.get(job["result"]["archive"])
    with zipfile.ZipFile(io.BytesIO(archive.data)) as zipped:
        assert {"index.html", "images/picture.png", "masks/picture_1.png"} < set(zipped.namelist())
        assert zipped.read("images/picture.png") == client.get(job["result"]["picture"]).data


# --- instances --------------------------------------------------------------------------------------------------------


def found_masks(client, id, **fields):
    answer = client.post(f"/api/pictures/{id}/instances", data=as_form(fields))
    assert answer.status_code == 200, answer.get_json()
    found = answer.get_json()
    images = [Image.open(io.BytesIO(base64.b64decode(mask))) for mask in found["masks"]]
    return [np.asarray(image) > 127 for image in images], found["remarks"]


def test_instances_are_found_in_boxes_and_files(client, photo, tmp_path):
    picture, paths = photo
    array = np.asarray(Image.open(picture))
    id = upload(client, picture)["id"]
    masks, remarks = found_masks(client, id, boxes=json.dumps(BOXES))
    np.testing.assert_array_equal(masks, [find_object(array, box) for box in BOXES])
    assert remarks == []
    masks, _ = found_masks(client, id, masks=paths)
    np.testing.assert_array_equal(masks, [np.asarray(Image.open(path)) > 127 for path in paths])
    # of twice the size, as of a photo that was enlarged
    Image.open(paths[0]).resize((2 * WIDTH, 2 * HEIGHT), Image.NEAREST).save(tmp_path / "large.png")
    masks, _ = found_masks(client, id, masks=[tmp_path / "large.png"])
    np.testing.assert_array_equal(masks, [np.asarray(Image.open(paths[0])) > 127])


def test_where_nothing_stands_out_the_remark_says_so(client, tmp_path):
    Image.new("RGB", (80, 60), (90, 120, 90)).save(tmp_path / "flat.png")
    id = upload(client, tmp_path / "flat.png")["id"]
    (mask,), (remark,) = found_masks(client, id, boxes="[[10, 10, 50, 50]]")
    assert "nothing stands out in the box 10,10,50,50" in remark and "ellipse" in remark
    assert 0.75 < mask[10:50, 10:50].mean() < 0.82


def test_the_segmenter_finds_what_it_finds_elsewhere(photo, model, tmp_path):
    picture, _ = photo
    path = save_random_segmenter(tmp_path / "segmenter.h5")
    expected = list(load(path).instances(np.asarray(Image.open(picture)), "B"))
    assert expected
    client = make_client(tmp_path / "files", "--model", model, "--segmenter", path)
    masks, _ = found_masks(client, upload(client, picture)["id"], segment="B")
    np.testing.assert_array_equal(masks, expected)


# --- what is refused --------------------------------------------------------------------------------------------------


def refused(client, status, words, path="/api/translate", **fields):
    answer = client.post(path, data=as_form(fields))
    reason = answer.get_json()["error"]
    assert (answer.status_code, words in reason) == (status, True), (answer.status_code, reason)
    return reason


def test_what_cannot_be_used_is_refused_with_the_reason(client, photo, tmp_path):
    picture, masks = photo
    broken = tmp_path / "broken.png"
    broken.write_bytes(picture.read_bytes()[:200])
    text = tmp_path / "text.png"
    text.write_text("not a picture")
    Image.new("L", (50, 50)).save(tmp_path / "square.png")
    refused(client, 422, "send either a file 'image' or", masks=masks)
    refused(client, 422, "no instances; send either masks", image=picture)
    refused(client, 422, "several ways", image=picture, masks=masks, boxes="[[1,2,3,4]]")
    refused(client, 422, "no segmenter (app.py --segmenter)", image=picture, segment="true")
    refused(client, 422, "there is no field 'box'", image=picture, box="[1,2,3,4]")
    refused(client, 422, "there is no file 'mask'", image=picture, mask=masks[0])
    refused(client, 422, "'masks'; send it as a file", image=picture, masks="white")
    refused(client, 422, "boxes is not JSON", image=picture, boxes="[[1,2")
    refused(client, 422, "is not a box", image=picture, boxes="[[1,2,3]]")
    refused(client, 422, "is not a box", image=picture, boxes="[[1,2,3,true]]")
    refused(client, 422, "at most 100 boxes", image=picture, boxes=json.dumps(BOXES * 40))
    refused(client, 422, "has no area", image=picture, boxes="[[9,9,9,20]]")
    refused(client, 422, "is outside of the picture", image=picture, boxes="[[500,9,600,20]]")
    refused(client, 422, "select is not", image=picture, masks=masks, select="[3]")
    refused(client, 422, "select is not", image=picture, masks=masks, select="[]")
    refused(client, 422, "there is no direction 'up'; choose from: AtoB, BtoA", image=picture, direction="up")
    refused(client, 422, "there is no model 'm'; choose from: model", image=picture, model="m")
    refused(client, 422, "mask 0 is 50x50, its picture 90x60", image=picture, masks=[tmp_path / "square.png"])
    refused(client, 404, "no such picture", picture="x", masks=masks)
    for path in ("/api/translate", "/api/pictures"):
        assert refused(client, 422, "cannot be read as a picture", path, image=text).startswith('"text" cannot be read')
    assert refused(client, 422, "cannot be read", "/api/pictures", image=broken).startswith('"broken" cannot be read')
    reason = refused(client, 422, "cannot be read", image=picture, masks=[masks[0], text])
    assert reason.startswith('mask 1, "text", cannot be read as a picture')
    assert reason.endswith("; send one of these: PNG, JPEG, WEBP, GIF, BMP, TIFF")
    # refused requests leave no files
    assert list((tmp_path / "files").iterdir()) == []


def test_damage_that_shows_late_fails_the_job_with_the_reason(client, photo, tmp_path):
    picture, masks = photo
    broken = tmp_path / "broken.png"
    broken.write_bytes(picture.read_bytes()[:2000])
    job = translate(client, image=broken, masks=masks)
    assert job["state"] == "failed" and job["error"].startswith('"broken" cannot be read as a picture'), job
    assert job["result"] is None
    assert client.get(f"/api/jobs/{job['id']}/picture").status_code == 409
    assert list((tmp_path / "files").iterdir()) == []


def test_too_many_pixels_are_refused(client, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "MOST_PIXELS", 1000)
    Image.new("L", (40, 40)).save(tmp_path / "large.png")
    refused(client, 422, "has too many pixels; make it smaller", "/api/pictures", image=tmp_path / "large.png")


def test_too_large_bodies_are_refused(client, photo, monkeypatch):
    monkeypatch.setattr(safety.BoundedRequest, "max_content_length", 1000)
    answer = client.post("/api/translate", data=as_form({"image": photo[0]}))
    assert answer.status_code == 413 and "too large" in answer.get_json()["error"]


def test_names_never_become_paths(client, photo, tmp_path):
    picture, masks = photo
    for name in ("../../../evil.png", "/etc/evil.png", "..\\evil.png", "a/../evil.png", "\x00.png", "." * 300, ""):
        answer = client.post(
            "/api/translate",
            data={
                key: (io.BytesIO(path.read_bytes()), name) for key, path in (("image", picture), ("masks", masks[0]))
            },
        )
        if answer.status_code == 202:
            assert "/" not in answer.get_json()["name"]
            assert ended(client, answer.get_json()["id"])["state"] == "done"
    outside = [path for path in tmp_path.rglob("*") if "evil" in path.name]
    assert not outside
    for path in ("/api/jobs/..%2F..%2Fetc/passwd", "/api/pictures/../view", "/static/../api.py", "/static/%2e%2e/x.py"):
        assert client.get(path).status_code == 404


def test_a_masks_grey_is_remarked(client, photo, tmp_path):
    picture, masks = photo
    grey = (np.asarray(Image.open(masks[0])) > 0) * np.uint8(100)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    job = translate(client, image=picture, masks=[masks[1], tmp_path / "grey.png"])
    assert job["state"] == "done" and any(remark.startswith("mask 1: ") for remark in job["remarks"])


def test_empty_masks_leave_the_picture_as_it_is(client, photo, tmp_path):
    picture, _ = photo
    Image.new("L", (WIDTH, HEIGHT)).save(tmp_path / "empty.png")
    job = translate(client, image=picture, masks=[tmp_path / "empty.png"])
    assert job["remarks"] == ["all masks are empty; the picture is left as it is"]
    np.testing.assert_array_equal(pixels(client, job["result"]["picture"]), np.asarray(Image.open(picture)))


def test_each_empty_mask_is_remarked(client, photo, tmp_path):
    picture, masks = photo
    Image.new("L", (WIDTH, HEIGHT)).save(tmp_path / "empty.png")
    empty = tmp_path / "empty.png"
    job = translate(client, image=picture, masks=[empty, masks[0], empty])
    assert (job["done"], job["total"]) == (1, 1)
    assert job["remarks"] == [f"mask {number} is empty; nothing is translated there" for number in (0, 2)]
    # only of those that were asked for
    job = translate(client, image=picture, masks=[empty, masks[0], empty], select="[1, 2]")
    assert job["remarks"] == ["mask 2 is empty; nothing is translated there"]


def test_more_instances_than_the_most_are_cut_off_with_a_remark(photo, model, tmp_path, monkeypatch):
    picture, _ = photo
    path = save_random_segmenter(tmp_path / "segmenter.h5")
    expected = [np.eye(HEIGHT, WIDTH, k, dtype=bool) for k in range(3)]
    monkeypatch.setattr(Segmenter, "instances", lambda *_: iter(expected))
    monkeypatch.setattr(instances, "MOST_INSTANCES", len(expected) - 1)
    client = make_client(tmp_path / "files", "--model", model, "--segmenter", path)
    masks, remarks = found_masks(client, upload(client, picture)["id"], segment="A")
    np.testing.assert_array_equal(masks, expected[:-1])
    most = len(expected) - 1
    assert remarks == [f"the segmenter found more than {most} instances; these are the {most} largest"]


def test_what_a_segmenter_is_asked_for_is_checked(photo, model, tmp_path):
    picture, _ = photo
    path = save_random_segmenter(tmp_path / "segmenter.h5")
    client = make_client(tmp_path / "files", "--model", model, "--segmenter", path)
    refused(client, 422, "select is not JSON", image=picture, segment="true", select="nonsense")
    refused(client, 422, "select is not a JSON list", image=picture, segment="true", select="[100]")
    place = f"/api/pictures/{upload(client, picture)['id']}/instances"
    for value in ("AB", "", "a"):
        refused(client, 422, "choose from: A, B" if value else "segment is missing", place, segment=value)
    assert translate(client, image=picture, segment="true", select="[0]")["total"] == 1


def test_a_picture_that_goes_while_a_request_waits_is_not_there_any_more(client, photo, tmp_path, monkeypatch):
    picture, _ = photo
    id = upload(client, picture)["id"]

    @contextmanager
    def turn(turns):
        # another request's
        assert client.application.test_client().delete(f"/api/pictures/{id}").status_code == 204
        yield

    monkeypatch.setattr(api, "turn", turn)
    reason = refused(client, 404, "no such picture", f"/api/pictures/{id}/instances", boxes=json.dumps(BOXES))
    assert str(tmp_path) not in reason


def test_a_request_waits_for_its_turn_only_so_long(client, photo, monkeypatch):
    monkeypatch.setattr(api, "PATIENCE", 0.01)
    monkeypatch.setattr(api, "turn", partial(with_none_left, api.turn))
    answer = client.post("/api/pictures", data=as_form({"image": photo[0]}))
    assert answer.status_code == 503 and int(answer.headers["Retry-After"]) >= 1
    assert "try again in about" in answer.get_json()["error"]


def with_none_left(turn, turns):
    """`turn` where others have all turns."""
    while turns.acquire(blocking=False):
        pass
    return turn(turns)


@pytest.mark.parametrize(
    "error, status, words",
    [
        (OSError(28, "No space left on device", "/tmp/secret"), 507, "(No space left on device); make room"),
        (OSError(5, "Input/output error", "/tmp/secret"), 500, "could not read or write a file (Input/output error)"),
        (MemoryError(), 503, "not enough memory"),
        (ValueError("/tmp/secret"), 500, "a bug in this program"),
    ],
)
def test_what_hits_the_server_has_a_status_and_a_reason(client, photo, tmp_path, monkeypatch, error, status, words):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(pictures, "write_png", fail)
    assert "secret" not in refused(client, status, words, "/api/pictures", image=photo[0])
    assert list((tmp_path / "files").iterdir()) == []


def test_deleted_things_are_gone(client, photo, tmp_path):
    picture, masks = photo
    uploaded = upload(client, picture)
    job = translate(client, picture=uploaded["id"], masks=masks)
    for path in (f"/api/jobs/{job['id']}", f"/api/pictures/{uploaded['id']}"):
        assert client.delete(path).status_code == 204
        assert client.delete(path).status_code == 404
    assert client.get(job["result"]["picture"]).status_code == 404
    assert client.get(uploaded["view"]).status_code == 404
    assert list((tmp_path / "files").iterdir()) == []


# --- the document, samples, names -------------------------------------------------------------------------------------


def test_the_document_describes_each_route():
    described = {(method.upper(), path) for path, operations in document()["paths"].items() for method in operations}
    assert described == {(method, re.sub(r"<(?:int:)?(\w+)>", r"{\1}", rule)) for method, rule, _ in ROUTES}


def test_answers_are_as_the_document_says(client, photo):
    jsonschema = pytest.importorskip("jsonschema")
    picture, masks = photo
    schemas = document()

    def check(name, value):
        schema = {"$ref": f"#/components/schemas/{name}", "components": schemas["components"]}
        jsonschema.Draft202012Validator(schema).validate(value)

    check("About", client.get("/api/about").get_json())
    uploaded = upload(client, picture)
    check("Picture", uploaded)
    answer = client.post(f"/api/pictures/{uploaded['id']}/instances", data={"boxes": json.dumps(BOXES)})
    check("Found", answer.get_json())
    queued = client.post("/api/translate", data=as_form({"picture": uploaded["id"], "masks": masks}))
    assert queued.headers["Location"].endswith(f"/api/jobs/{queued.get_json()['id']}")
    check("Job", queued.get_json())
    job = ended(client, queued.get_json()["id"])
    check("Job", job)
    check("Result", job["result"])
    check("Error", client.get("/api/jobs/none").get_json())
    # the check itself finds what is wrong
    with pytest.raises(jsonschema.ValidationError):
        check("Job", {**job, "state": "asleep"})


def test_samples_are_served(model, photo, tmp_path):
    picture, masks = photo
    sample = Sample("model", "BtoA", Item("photo", picture, {0: masks[0], 4: masks[2]}))
    client = make_client(tmp_path / "files", "--model", model, samples=[sample])
    (about,) = client.get("/api/about").get_json()["samples"]
    assert client.get(about["picture"]).data == picture.read_bytes()
    assert [client.get(path).data for path in about["masks"]] == [masks[0].read_bytes(), masks[2].read_bytes()]
    for path in ("/api/samples/1/picture", "/api/samples/0/masks/2", "/api/samples/-1/picture"):
        assert client.get(path).status_code == 404


class Served:
    """A model without weights."""

    name, directions = "model", ("AtoB", "BtoA")

    def __init__(self, dataroot):
        self.dataroot = dataroot


def test_samples_come_from_the_models_data_set_or_are_drawn(tmp_path, photo, monkeypatch):
    for domain in "AB":
        for folder in (f"train{domain}", f"train{domain}_seg"):
            (tmp_path / folder).mkdir()
    shutil.copy(photo[0], tmp_path / "trainA" / "one.png")
    shutil.copy(photo[0], tmp_path / "trainA" / "without.png")
    shutil.copy(photo[1][0], tmp_path / "trainA_seg" / "one_0.png")
    shutil.copy(photo[0], tmp_path / "trainB" / "two.png")
    shutil.copy(photo[1][0], tmp_path / "trainB_seg" / "two_0.png")
    samples = find_samples([Served(tmp_path)], tmp_path)
    assert [(one.direction, one.item.name, list(one.item.masks)) for one in samples] == [
        ("AtoB", "one", [0]),
        ("BtoA", "two", [0]),
    ]
    # as a run records it that was started in this folder
    monkeypatch.chdir(tmp_path)
    assert find_samples([Served(Path("."))], tmp_path) == samples
    for dataroot in (None, tmp_path / "gone"):
        drawn = find_samples([Served(dataroot)], tmp_path)
        assert [one.direction for one in drawn] == ["AtoB"] * 3 + ["BtoA"] * 3
        assert all(one.item.masks and tmp_path / "shapes" in one.item.image.parents for one in drawn)


def test_names_of_models_and_domains():
    assert names_of(["runs/shapes", "sheep.h5"]) == ["shapes", "sheep"]
    assert names_of(["a/run", "b/run", "c"]) == ["a/run", "b/run", "c"]
    assert domain_names("datasets/circle2square") == {"A": "circle", "B": "square"}
    assert domain_names("datasets/jeans2skirt_ccp/") == {"A": "jeans", "B": "skirt"}
    assert domain_names("/data") == {"A": "A", "B": "B"}


def test_the_curl_commands_of_the_documentation_work(photo, model, tmp_path, start_script):
    if not shutil.which("curl"):
        pytest.skip("needs curl")
    address = start_app(start_script, "--model", model)
    text = (ROOT / "docs" / "app.md").read_text()
    (script,) = [block for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) if "curl" in block]
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    for path, name in ((photo[0], "photo.jpg"), (photo[1][0], "photo_0.png"), (photo[1][1], "photo_1.png")):
        shutil.copy(path, folder / name)
    script = script.replace("http://127.0.0.1:8000", address)
    done = subprocess.run(["bash", "-euxc", script], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert Image.open(folder / "translated.png").size == (WIDTH, HEIGHT)
    with zipfile.ZipFile(folder / "translation.zip") as zipped:
        assert "masks/picture_1.png" in zipped.namelist()
    assert '"error":' in done.stdout
