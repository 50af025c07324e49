# SPDX-License-Identifier: Apache-2.0
"""Read a JSON file that may be damaged or meant to do harm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_MOST_BYTES = 1 << 20  # ours have 2 kB; values take up to a hundred times their length in memory


def read_json(path: str | Path) -> Any:
    """The value in a file.

    Raises:
        OSError, ValueError: where the file cannot be opened, or is not JSON of a sensible size in UTF-8.
    """
    with open(path, "rb") as file:
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise ValueError("it is too large")
    try:
        return json.loads(data.decode("utf-8"))
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None
