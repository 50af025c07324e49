# SPDX-License-Identifier: Apache-2.0
"""Curves that take no time to draw, for runs whose curves no test reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

from PIL import Image


class BlankFigure(MagicMock):
    """Replaces matplotlib's `Figure`: whatever is drawn, the picture that is saved is a white dot.

    Drawing the five curves of a run takes half a second, longer than the iterations of a small network before it.
    """

    def savefig(self, path: Path, **_: Any) -> None:
        Image.new("RGB", (1, 1), "white").save(path)
