# SPDX-License-Identifier: Apache-2.0
"""The application of app.py: within the test's process, or as a server that a script started."""

from __future__ import annotations

import io
import re
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence, Tuple

import numpy as np
from flask.testing import FlaskClient
from PIL import Image

from args import app_args
from masks.segmenter import Segmenter, SegmenterSettings
from serving.api import Api, create_app
from serving.jobs import Jobs
from serving.networks import Networks
from serving.samples import Sample
from serving.translation_job import worker
from tests.helpers.scripts import Script

ADDRESS = "http://127.0.0.1:8000"
ENDED = ("done", "failed", "cancelled")


def make_client(folder: Path, *arguments: Any, samples: Sequence[Sample] = (), host: str = "127.0.0.1") -> FlaskClient:
    """A client of the application with these arguments of app.py; its temporary folder is `folder`."""
    folder.mkdir(exist_ok=True)
    networks = Networks(app_args("", list(map(str, arguments))))
    return create_app(Api(networks, Jobs(worker(networks)), list(samples), folder), host).test_client()


def translate(client: FlaskClient, **fields: Any) -> Dict[str, Any]:
    """Ask for a translation, and return the job once it has ended; paths in `fields` are sent as files."""
    answer = client.post("/api/translate", data=as_form(fields))
    assert answer.status_code == 202, answer.get_json()
    return ended(client, answer.get_json()["id"])


def ended(client: FlaskClient, id: str, seconds: float = 120) -> Dict[str, Any]:
    """A job once it has ended."""
    limit = time.monotonic() + seconds
    while True:
        job = client.get(f"/api/jobs/{id}").get_json()
        if job["state"] in ENDED:
            return job
        assert time.monotonic() < limit, job
        time.sleep(0.01)


def as_form(fields: Dict[str, Any]) -> Dict[str, Any]:
    """Fields of a form, with paths and lists of paths as files."""
    return {
        name: [one_field(part) for part in value] if isinstance(value, list) else one_field(value)
        for name, value in fields.items()
    }


def one_field(value: Any) -> Any:
    """A field of a form; a path is one with the file's content and name."""
    return (io.BytesIO(value.read_bytes()), value.name) if isinstance(value, Path) else value


def upload(client: FlaskClient, path: Path) -> Dict[str, Any]:
    """Upload a picture."""
    answer = client.post("/api/pictures", data=as_form({"image": path}))
    assert answer.status_code == 201, answer.get_json()
    return answer.get_json()


def pixels(client: FlaskClient, address: str) -> np.ndarray:
    """The pixels of a picture at an address of the API."""
    answer = client.get(address)
    assert answer.status_code == 200 and answer.mimetype == "image/png", answer.get_json()
    return np.asarray(Image.open(io.BytesIO(answer.data)))


def save_random_segmenter(path: Path) -> Path:
    """Save a segmenter with random weights, which finds something in most pictures."""
    Segmenter(SegmenterSettings((16, 16), (False, False)), (4, 4, 4), seed=3).save(path, {})
    return path


def start_app(start_script: Callable[..., Script], *arguments: Any) -> str:
    """Start app.py on a free port; return its address once it answers."""
    script = start_script("app.py", "--port", 0, *arguments)
    script.wait_for(lambda: "Ctrl-C" in script.output)
    return re.search(r"open (\S+)", script.output)[1]


def draw_marked_photo(
    folder: Path, size: Tuple[int, int], boxes: Sequence[Sequence[int]], margin: int
) -> Tuple[Path, List[Path]]:
    """Write `photo.png` of `size` (height, width), with an instance in each box, `margin` pixels from its sides, and
    the masks `photo_{i}.png`."""
    masks = []
    paths = []
    for x0, y0, x1, y1 in boxes:
        mask = np.zeros(size, bool)
        mask[y0 + margin : y1 - margin, x0 + margin : x1 - margin] = True
        path = folder / f"photo_{len(masks)}.png"
        Image.fromarray(mask.astype(np.uint8) * 255).save(path)
        masks.append(mask)
        paths.append(path)
    return draw_photo(folder / "photo.png", masks), paths


def draw_photo(path: Path, masks: List[np.ndarray], seed: int = 0, **options: Any) -> Path:
    """Write a picture of noise in which the instances of masks (H, W) bool have a colour each."""
    random = np.random.default_rng(seed)
    picture = random.integers(0, 90, (*masks[0].shape, 3), np.uint8)
    for mask in masks:
        picture[mask] = random.integers(150, 256, 3)
    Image.fromarray(picture).save(path, **options)
    return path
