# SPDX-License-Identifier: Apache-2.0
"""The REST API, which openapi.py describes, and the files of the page, which uses it."""

from __future__ import annotations

import base64
import mimetypes
import secrets
import shutil
import tempfile
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any, Dict, Iterable, Iterator, List, Sequence, Tuple

import numpy as np
from flask import Flask, Response, jsonify, request, send_file, send_from_directory
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import HTTPException

from common.errors import UserError
from data import pictures
from data.items import Item
from data.pictures import Size
from masks.reader import Box
from masks.segmenter import DOMAINS
from serving import failures, forms, instances
from serving.jobs import PICTURE, Full, Job, Jobs, in_words
from serving.networks import Networks, ServedModel
from serving.openapi import document
from serving.safety import MOST_BODY_BYTES, Refused, guard
from serving.samples import Sample
from serving.shelf import Bounds, Shelf
from translation.drawing import instance_colour
from translation.results import reduced, size_on_page

UPLOADS = Bounds(things=200, total_bytes=1 << 30, seconds=60 * 60)
READERS = 2  # requests that may hold a decoded picture at the same time; more wait
SEGMENTING = 2  # requests that may wait for the segmenter
PATIENCE = 10.0  # seconds that a request waits for its turn, in one of the few threads that answer
# some systems say text/plain, which browsers do not run
mimetypes.add_type("text/javascript", ".js")


@dataclass(frozen=True)
class Upload:
    """A picture that was uploaded to draw masks on it: its file, name, and (height, width), upright."""

    id: str
    path: Path
    name: str
    size: Size


class Busy(Exception):
    """Too many requests want the same at once; try again after about `retry_after` seconds."""

    retry_after = round(PATIENCE)


class Api:
    """The answers to all requests. `folder` is for the files of uploads and jobs, and goes with the process."""

    def __init__(self, networks: Networks, jobs: Jobs, samples: List[Sample], folder: Path) -> None:
        self._networks = networks
        self._jobs = jobs
        self._samples = samples
        self._folder = folder
        self._uploads = Shelf(UPLOADS)
        self._reading = BoundedSemaphore(READERS)
        self._segmenting = BoundedSemaphore(SEGMENTING)

    def about(self) -> Response:
        """The models, the samples and the limits."""
        return jsonify(
            models=[about_model(model) for model in self._networks.models.values()],
            segmenter=self._networks.has_segmenter,
            samples=[about_sample(number, sample) for number, sample in enumerate(self._samples)],
            colours=[f"#{bytes(instance_colour(number)).hex()}" for number in range(instances.MOST_INSTANCES)],
            limits={
                "body_bytes": MOST_BODY_BYTES,
                "pixels": pictures.MOST_PIXELS,
                "instances": instances.MOST_INSTANCES,
            },
            waiting=self._jobs.waiting,
        )

    def sample_picture(self, number: int) -> Response:
        """A sample's picture."""
        return send_file(self._sample(number).item.image)

    def sample_mask(self, number: int, mask: int) -> Response:
        """A sample's mask, by its place among them."""
        paths = list(self._sample(number).item.masks.values())
        if mask >= len(paths):
            raise Refused(404, f"sample {number} has {len(paths)} masks")
        return send_file(paths[mask])

    def add_picture(self) -> Tuple[Response, int]:
        """Upload a picture to draw masks on it."""
        forms.check_fields(request, (), ("image",))
        file = forms.one_file(request, "image")
        name = forms.name_of(file)
        id, folder = self._new_folder()
        try:
            path = folder / PICTURE
            file.save(path)
            with in_user_words(folder, name), turn(self._reading):
                # also checks that all of it can be read
                picture = pictures.read_picture(path)
                profile = pictures.colour_profile(path)
                size = picture.shape[:2]
                view = reduced(picture, size_on_page(size))
                pictures.write_png(folder / "view.png", view, profile)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        upload = Upload(id, path, name, size)
        self._uploads.put(id, upload, folder)
        return jsonify(about_upload(upload)), 201

    def view(self, id: str) -> Response:
        """An uploaded picture, upright, and reduced if it is large."""
        return send_file(self._upload(id).path.with_name("view.png"))

    def remove_picture(self, id: str) -> Tuple[str, int]:
        """Delete an uploaded picture."""
        self._upload(id)
        self._uploads.drop(id)
        return "", 204

    def find_instances(self, id: str) -> Response:
        """Find instances in an uploaded picture: in boxes, with the segmenter, or in mask files."""
        upload = self._upload(id)
        forms.check_fields(request, ("boxes", "segment"), ("masks",))
        files = forms.mask_files(request)
        boxes = forms.boxes(request)
        domain = forms.choice(request, "segment", list(DOMAINS)) if "segment" in request.form else ""
        if (len(files) > 0) + (len(boxes) > 0) + (domain != "") != 1:
            raise Refused(422, "send either boxes, or segment (A or B), or files as masks")
        remarks: List[str] = []
        if files:
            masks = self._in_files(upload, files, remarks)
        elif boxes:
            masks = self._in_boxes(upload, boxes, remarks)
        else:
            masks = self._segmented(upload, domain, remarks)
        return jsonify(masks=masks, remarks=remarks)

    def translate(self) -> Tuple[Response, int, Dict[str, str]]:
        """Put a translation into the queue."""
        forms.check_fields(request, ("picture", "model", "direction", "boxes", "segment", "select"), ("image", "masks"))
        model = forms.model(request, self._networks.models)
        direction = forms.choice(request, "direction", list(model.directions), next(iter(model.directions)))
        id, folder = self._new_folder()
        try:
            job = self._new_job(folder, model, direction)
            self._jobs.add(job)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return jsonify(self._about_job(job)), 202, {"Location": f"/api/jobs/{job.id}"}

    def job(self, id: str) -> Response:
        """The state of a translation, and what there is of its result."""
        return jsonify(self._about_job(self._job(id)))

    def remove_job(self, id: str) -> Tuple[Response | str, int]:
        """Cancel a translation; delete one that has ended."""
        job = self._job(id)
        if self._jobs.cancel(job):
            return jsonify(self._about_job(job)), 200
        self._jobs.forget(job)
        return "", 204

    def file(self, id: str, name: str) -> Response:
        """A file of a translation's result."""
        job = self._done(id)
        if name not in job.files:
            raise Refused(404, f"there is no {name[:40]!r}; there are: {', '.join(job.files)}")
        return send_file(job.files[name])

    def archive(self, id: str) -> Response:
        """All files of a result, as translate.py would write them."""
        root = self._done(id).folder / "result"
        # the pictures are compressed already; deleted when it is closed
        archive = tempfile.TemporaryFile(dir=self._folder)
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as zipped:
            for path in sorted(root.rglob("*")):
                if path.is_file():
                    zipped.write(path, path.relative_to(root))
        archive.seek(0)
        return send_file(archive, "application/zip", as_attachment=True, download_name="translation.zip")

    def openapi(self) -> Response:
        """The description of this API."""
        return jsonify(document())

    def _sample(self, number: int) -> Sample:
        if number >= len(self._samples):
            raise Refused(404, f"there are {len(self._samples)} samples, from number 0")
        return self._samples[number]

    def _upload(self, id: str) -> Upload:
        upload = self._uploads.get(id)
        if upload is None:
            raise Refused(404, "there is no such picture (any more); upload it again")
        return upload

    def _job(self, id: str) -> Job:
        job = self._jobs.find(id)
        if job is None:
            raise Refused(404, "there is no such translation (any more); start it again")
        return job

    def _done(self, id: str) -> Job:
        job = self._job(id)
        if job.state != "done":
            raise Refused(409, f"this translation has no result: it is {job.state}")
        return job

    def _new_folder(self) -> Tuple[str, Path]:
        id = secrets.token_urlsafe(12)
        folder = self._folder / id
        folder.mkdir()
        return id, folder

    def _new_job(self, folder: Path, model: ServedModel, direction: str) -> Job:
        """A job from the request's fields, with its files in `folder`."""
        name = self._save_picture(folder)
        with in_user_words(folder, name):
            size = pictures.size_of(folder / PICTURE)
            files = forms.mask_files(request)
            boxes = forms.boxes(request)
            segment = forms.choice(request, "segment", ("true", "false"), "false") == "true"
            self._check_sources(model, len(files), len(boxes), segment)
            masks = save_masks(files, folder, size)
            instances.check_boxes(boxes, size)
        # the segmenter's instances are not known yet
        selected = forms.select(request, len(files) or len(boxes) or instances.MOST_INSTANCES)
        item = Item(name, folder / PICTURE, masks)
        return Job(folder, name, item, model.name, direction, boxes, segment, selected)

    def _save_picture(self, folder: Path) -> str:
        """Save the request's picture, or copy the uploaded one that it names; return its name."""
        if ("picture" in request.form) == ("image" in request.files):
            raise Refused(422, "send either a file 'image' or the id of an uploaded 'picture'")
        if "picture" in request.form:
            upload = self._upload(request.form["picture"])
            shutil.copyfile(upload.path, folder / PICTURE)
            return upload.name
        file = forms.one_file(request, "image")
        file.save(folder / PICTURE)
        return forms.name_of(file)

    def _check_sources(self, model: ServedModel, masks: int, boxes: int, segment: bool) -> None:
        """Refuse a translation whose instances come from nowhere, or from several places."""
        given = (masks > 0) + (boxes > 0) + segment
        if not model.needs_masks:
            if given or "select" in request.form:
                raise Refused(422, f"{model.name} was trained without masks, for whole pictures; send none")
        elif given != 1:
            many = "several ways of giving the instances" if given else "no instances"
            raise Refused(422, f"{many}; send either masks (files), or boxes, or segment=true with a segmenter")
        if segment:
            self._check_segmenter()

    def _check_segmenter(self) -> None:
        if not self._networks.has_segmenter:
            raise Refused(422, "this server has no segmenter (app.py --segmenter); send masks or boxes")

    def _in_files(self, upload: Upload, files: Sequence[FileStorage], remarks: List[str]) -> List[str]:
        """The masks in a request's files, `encoded`."""
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        try:
            with in_user_words(folder, upload.name):
                # a mask has no need of the picture itself
                item = Item(upload.name, upload.path, save_masks(files, folder, upload.size))
                with turn(self._reading):
                    return encoded(instances.read_levels(item, remarks), upload.size)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _in_boxes(self, upload: Upload, boxes: Sequence[Box], remarks: List[str]) -> List[str]:
        """The masks of the objects in boxes of an uploaded picture, `encoded`."""
        with in_user_words(upload.path.parent, upload.name):
            instances.check_boxes(boxes, upload.size)
            with turn(self._reading):
                return encoded(instances.in_boxes(self._read(upload), boxes, remarks), upload.size)

    def _segmented(self, upload: Upload, domain: str, remarks: List[str]) -> List[str]:
        """The masks of the instances that the segmenter finds in an uploaded picture, `encoded`."""
        self._check_segmenter()
        with in_user_words(upload.path.parent, upload.name), turn(self._segmenting):
            # may wait for a pass of a translation; the thread of the networks reads the picture, one at a time
            found = instances.segmented(self._networks, partial(self._read, upload), domain, remarks)
        with turn(self._reading):
            return encoded(instances.expanded(found, upload.size), upload.size)

    def _read(self, upload: Upload) -> np.ndarray:
        """The pixels of an uploaded picture, which may have gone while its request waited: then it is refused."""
        return pictures.read_picture(self._upload(upload.id).path)

    def _about_job(self, job: Job) -> Dict[str, Any]:
        # it may end while it is described
        state = job.state
        about: Dict[str, Any] = {
            "id": job.id,
            "state": state,
            "name": job.name,
            "model": job.model,
            "direction": job.direction,
            "position": self._jobs.position(job),
            "done": job.done,
            "total": job.total,
            "seconds": job.seconds,
            "remarks": list(job.remarks),
            "error": job.error or None,
            "result": None,
        }
        if state == "done":
            base = f"/api/jobs/{job.id}"
            about["result"] = {
                **{name: f"{base}/{name}" for name in job.files if not name.startswith("mask_")},
                "masks": [{"number": number, "mask": f"{base}/mask_{number}"} for number in job.masks],
                "archive": f"{base}/archive",
            }
        return about


ROUTES = (
    ("GET", "/api/about", Api.about),
    ("GET", "/api/samples/<int:number>/picture", Api.sample_picture),
    ("GET", "/api/samples/<int:number>/masks/<int:mask>", Api.sample_mask),
    ("POST", "/api/pictures", Api.add_picture),
    ("GET", "/api/pictures/<id>/view", Api.view),
    ("DELETE", "/api/pictures/<id>", Api.remove_picture),
    ("POST", "/api/pictures/<id>/instances", Api.find_instances),
    ("POST", "/api/translate", Api.translate),
    ("GET", "/api/jobs/<id>", Api.job),
    ("DELETE", "/api/jobs/<id>", Api.remove_job),
    ("GET", "/api/jobs/<id>/archive", Api.archive),
    ("GET", "/api/jobs/<id>/<name>", Api.file),
    ("GET", "/api/openapi.json", Api.openapi),
)


def create_app(api: Api, host: str) -> Flask:
    """The web application, for a server that listens on `host`."""
    app = Flask("serving", static_folder="static", static_url_path="/static", template_folder=None)
    app.json.sort_keys = False
    guard(app, host)
    for method, rule, answer in ROUTES:
        app.add_url_rule(rule, f"{method} {rule}", partial(answer, api), methods=[method])
    app.add_url_rule("/", "page", lambda: send_from_directory(app.static_folder, "page.html"))
    app.register_error_handler(Refused, lambda error: (jsonify(error=str(error)), error.status))
    app.register_error_handler(Full, answer_later)
    app.register_error_handler(Busy, answer_later)
    app.register_error_handler(FileNotFoundError, lambda _: (jsonify(error="that is not there any more"), 404))
    app.register_error_handler(HTTPException, answer_http_error)
    app.register_error_handler(Exception, answer_failure)
    return app


def answer_later(error: Full | Busy) -> Tuple[Response, int, Dict[str, str]]:
    """The answer where the queue is full, or too many wait for the same."""
    return jsonify(error=str(error)), 503, {"Retry-After": str(error.retry_after)}


def answer_http_error(error: HTTPException) -> Response | HTTPException:
    """An error of Flask's as JSON, with its own headers, such as `Allow`."""
    if error.code is None or error.code < 400:
        return error
    reasons = {
        404: f"there is no {request.path[:100]}; /api/openapi.json describes what there is",
        405: f"{request.method[:20]} does not go with {request.path[:100]}",
        413: f"the request is too large; send at most {MOST_BODY_BYTES >> 20} MB, and text only in small fields",
    }
    answer = jsonify(error=reasons.get(error.code, error.description))
    answer.status_code = error.code
    allowed = getattr(error, "valid_methods", None)
    if allowed:
        answer.headers["Allow"] = ", ".join(sorted(allowed))
    return answer


def answer_failure(error: Exception) -> Tuple[Response, int]:
    """The answer where the request is not the cause."""
    status, reason = failures.explain(error, request.path)
    return jsonify(error=reason), status


@contextmanager
def turn(turns: BoundedSemaphore) -> Iterator[None]:
    """Wait for one of these turns, and hold it within the block.

    Raises:
        Busy: after `PATIENCE`; other requests need the threads that wait.
    """
    if not turns.acquire(timeout=PATIENCE):
        raise Busy(f"other photos are being read; try again in about {Busy.retry_after} s")
    try:
        yield
    finally:
        turns.release()


def encoded(masks: Iterable[Tuple[int, np.ndarray]], size: Size) -> List[str]:
    """Masks (h, w), bool or in [0, 1], as PNG files of `size` (height, width) in base64."""
    return [base64.b64encode(pictures.mask_png(pictures.cut(level, size))).decode("ascii") for _, level in masks]


@contextmanager
def in_user_words(folder: Path, name: str) -> Iterator[None]:
    """Refuse a request whose files cannot be used; the reason calls the picture in `folder` by its `name`."""
    try:
        yield
    except UserError as error:
        fix = f"; send one of these: {', '.join(pictures.FORMATS)}" if is_unknown(error) else ""
        raise Refused(422, in_words(error, folder, name) + fix) from None


def is_unknown(error: UserError) -> bool:
    """Return whether an error says that a file is of no format of pictures."""
    return isinstance(error, pictures.NotAPicture) and "cannot identify" in str(error)


def save_masks(files: Sequence[FileStorage], folder: Path, size: Size) -> Dict[int, Path]:
    """Save mask files of a picture of `size` (height, width) into `folder`; returns them by number.

    Raises:
        UserError: where one is not a picture, or not of these proportions.
    """
    masks = {}
    for number, file in enumerate(files):
        path = folder / f"mask_{number}"
        file.save(path)
        masks[number] = path
        try:
            mask_size = pictures.size_of(path)
        except UserError as error:
            raise type(error)(str(error).replace(str(path), f'mask {number}, "{forms.name_of(file)}",')) from None
        instances.check_mask(number, mask_size, size)
    return masks


def about_model(model: ServedModel) -> Dict[str, Any]:
    """A model for the API."""
    return {
        "name": model.name,
        "directions": [
            {
                "direction": direction,
                "from": model.domains[direction[0]],
                "to": model.domains[direction[-1]],
                "height": loaded.size[0],
                "width": loaded.size[1],
            }
            for direction, loaded in model.directions.items()
        ],
        "needs_masks": model.needs_masks,
    }


def about_sample(number: int, sample: Sample) -> Dict[str, Any]:
    """A sample for the API."""
    base = f"/api/samples/{number}"
    return {
        "name": sample.item.name,
        "model": sample.model,
        "direction": sample.direction,
        "picture": f"{base}/picture",
        "masks": [f"{base}/masks/{i}" for i in range(len(sample.item.masks))],
    }


def about_upload(upload: Upload) -> Dict[str, Any]:
    """An uploaded picture for the API."""
    height, width = upload.size
    view_height, view_width = size_on_page(upload.size)
    return {
        "id": upload.id,
        "name": upload.name,
        "height": height,
        "width": width,
        "view": f"/api/pictures/{upload.id}/view",
        "view_height": view_height,
        "view_width": view_width,
    }
