# SPDX-License-Identifier: Apache-2.0
"""The names of the formats of instance masks. Imports nothing, since args.py needs it for `--help`."""

from __future__ import annotations

FORMATS = ("auto", "masks", "labels", "coco", "labelme")
