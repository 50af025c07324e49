# SPDX-License-Identifier: Apache-2.0
"""The fields of a request, checked: each function returns a field's value or refuses the request with a reason."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Any, Collection, Dict, List, Sequence

from flask import Request
from werkzeug.datastructures import FileStorage

from common.errors import printable
from masks.reader import Box
from serving.instances import MOST_INSTANCES
from serving.networks import ServedModel
from serving.safety import Refused

LARGEST_COORDINATE = 10**6
LONGEST_NAME = 100
LONGEST_JSON = 20_000  # characters; numbers of a million digits would take seconds to read


def check_fields(request: Request, fields: Collection[str], files: Collection[str] = ()) -> None:
    """Refuse a request with other fields than these: one with a typing error would silently do something else."""
    for name in request.form:
        if name not in fields:
            is_file = "send it as a file" if name in files else f"there are: {', '.join([*fields, *files])}"
            raise Refused(422, f"there is no field {name[:40]!r}; {is_file}")
    for name in request.files:
        if name not in files:
            is_text = "send it as text" if name in fields else f"there are: {', '.join(files) or 'none'}"
            raise Refused(422, f"there is no file {name[:40]!r}; {is_text}")


def one_file(request: Request, name: str) -> FileStorage:
    """The only file of this name."""
    files = request.files.getlist(name)
    if len(files) != 1:
        raise Refused(422, f"send one file {name!r} (multipart/form-data), not {len(files)}")
    return files[0]


def mask_files(request: Request) -> List[FileStorage]:
    """The files of masks, which may be none."""
    files = request.files.getlist("masks")
    if len(files) > MOST_INSTANCES:
        raise Refused(422, f"{len(files)} masks are too many; send at most {MOST_INSTANCES}")
    return files


def boxes(request: Request) -> List[Box]:
    """The boxes [[x0, y0, x1, y1], ...], which may be none."""
    value = _json(request, "boxes", [])
    if not isinstance(value, list) or len(value) > MOST_INSTANCES:
        raise Refused(422, f"boxes is not a JSON list of at most {MOST_INSTANCES} boxes, such as [[40,60,210,330]]")
    for box in value:
        if not _are_whole(box, -LARGEST_COORDINATE) or len(box) != 4:
            raise Refused(422, f"{str(box)[:60]} is not a box [x0, y0, x1, y1] of whole numbers of pixels")
    return [tuple(box) for box in value]


def select(request: Request, count: int) -> List[int] | None:
    """The numbers of the instances to translate, of at most `count`; None for all."""
    value = _json(request, "select", None)
    if value is None:
        return None
    if not value or not _are_whole(value, 0) or any(number >= count for number in value):
        raise Refused(422, f"select is not a JSON list of numbers of instances, from 0 to {count - 1}, such as [0,2]")
    return value


def choice(request: Request, name: str, choices: Sequence[str], default: str | None = None) -> str:
    """A field that has one of these values, and is required if there is no default."""
    value = request.form.get(name, default)
    if value not in choices:
        reason = f"there is no {name} {value[:40]!r}" if value else f"the field {name} is missing"
        raise Refused(422, f"{reason}; choose from: {', '.join(choices)}")
    return value


def model(request: Request, models: Dict[str, ServedModel]) -> ServedModel:
    """The model that is asked for; the first one if none is."""
    return models[choice(request, "model", list(models), next(iter(models)))]


def name_of(file: FileStorage) -> str:
    """A file's name without folders and ending, to be shown; never to be used as a path."""
    name = PurePosixPath((file.filename or "").replace("\\", "/")).stem
    return printable(name)[:LONGEST_NAME] or "picture"


def _json(request: Request, name: str, default: Any) -> Any:
    text = request.form.get(name)
    if text is None:
        return default
    if len(text) > LONGEST_JSON:
        raise Refused(422, f"{name} is longer than {LONGEST_JSON} characters")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Refused(422, f"{name} is not JSON; send a list such as [0] or [[40,60,210,330]]") from None


def _are_whole(value: Any, least: int) -> bool:
    """Return whether a JSON value is a list of whole numbers of a size that can be one in a picture."""
    return isinstance(value, list) and all(type(n) is int and least <= n <= LARGEST_COORDINATE for n in value)
