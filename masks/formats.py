# SPDX-License-Identifier: Apache-2.0
"""The forms that instance masks come in."""

from __future__ import annotations

FORMATS = ("auto", "masks", "labels", "coco", "labelme")
