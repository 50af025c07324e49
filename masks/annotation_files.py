# SPDX-License-Identifier: Apache-2.0
"""Annotation files in JSON, and values in them, which may be damaged or meant to do harm."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Callable, Dict

from common.errors import UserError
from common.json_file import read_json
from masks.annotation_shapes import FARTHEST

# COCO's largest file has 0.5 GB, that of LVIS 1.1 GB; LabelMe's contain the picture
MOST_BYTES = 2 << 30


def read_document(path: Path, object_hook: Callable[[Dict[str, Any]], Any] | None = None) -> Any:
    """The content of a JSON file; `object_hook` replaces each object in it, inner ones first.

    Raises:
        UserError: if it cannot be read.
    """
    try:
        # programs on Windows put a byte order mark before UTF-8
        return read_json(path, MOST_BYTES, object_hook, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}); make it again") from None


def length(value: Any) -> int:
    """The height or width of a picture in pixels, which some programs write as 480.0.

    Raises:
        ValueError: if it cannot be one.
    """
    if type(value) not in (int, float) or not 0 < value <= FARTHEST or value != int(value):
        raise ValueError(f"{value!r:.40} is no number of pixels")
    return int(value)


def as_key(identifier: Any) -> Any:
    """An id of any JSON type as the key of a dictionary; 1, 1.0 and "1" are the same id."""
    if isinstance(identifier, str) and re.fullmatch(r"0|-?[1-9][0-9]{0,17}", identifier):
        return int(identifier)
    return identifier if isinstance(identifier, (int, float, str)) else repr(identifier)
