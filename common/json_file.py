# SPDX-License-Identifier: Apache-2.0
"""Read a JSON file that may be damaged or hostile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable, Dict

# this program's files have 2 kB; parsed values can take a hundred times their length in memory
MOST_BYTES = 1 << 20


def read_json(
    path: str | Path,
    most_bytes: int = MOST_BYTES,
    object_hook: Callable[[Dict[str, Any]], Any] | None = None,
    encoding: str = "utf-8",
) -> Any:
    """Return the value in a file; `object_hook` converts each object in it, inner ones first.

    Raises:
        OSError, ValueError: where the file cannot be opened, or is not JSON of at most `most_bytes` in `encoding`.
    """
    try:
        # _read_text frees the bytes before the values are created: for a large file, both take much memory
        return json.loads(_read_text(path, most_bytes, encoding), object_hook=object_hook)
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None


def _read_text(path: str | Path, most_bytes: int, encoding: str) -> str:
    with open(path, "rb") as file:
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise ValueError("it is too large")
    return data.decode(encoding)
