# SPDX-License-Identifier: Apache-2.0
"""Annotation files of known masks, for tests: written by hand in NumPy, or by the tools that others use."""

from __future__ import annotations

import base64
import io

import numpy as np
import pycocotools.mask
from PIL import Image


def rectangle(size, top, left, bottom, right):
    """A mask (H, W) of `size` that has the rows `top` to `bottom` and columns `left` to `right`, ends left out."""
    mask = np.zeros(size, bool)
    mask[top:bottom, left:right] = True
    return mask


def disc(size, y, x, radius):
    """The pixels whose middle is within `radius` of the point (y, x)."""
    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    return np.hypot(rows - y, columns - x) <= radius


def circle_points(y, x, radius, corners=64):
    """The corners (N, 2), x before y, of a polygon that is nearly a circle."""
    angles = 2 * np.pi * np.arange(corners) / corners
    return np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], axis=1)


def counts(mask):
    """COCO's uncompressed counts: lengths of the runs of 0, 1, 0, ... down the columns, from the first one on."""
    flat = mask.T.ravel()
    ends = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff(np.concatenate([[0], ends, [flat.size]])).tolist()
    return [0, *lengths] if flat[0] else lengths


def plain_rle(mask):
    return {"size": list(mask.shape), "counts": counts(mask)}


def compressed_rle(mask):
    encoded = pycocotools.mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode()}


def coco(size, segmentations, name="photo.jpg", categories=("sheep",)):
    """A COCO file with one picture of (height, width) `size`; each segmentation shows the next of `categories`."""
    return {
        "images": [{"id": 7, "file_name": name, "height": size[0], "width": size[1]}],
        "annotations": [
            {"id": i, "image_id": 7, "category_id": 1 + i % len(categories), "segmentation": s, "iscrowd": 0}
            for i, s in enumerate(segmentations)
        ],
        "categories": [{"id": 1 + i, "name": category} for i, category in enumerate(categories)],
    }


def labelme_shape(kind, points, label="sheep", **more):
    points = np.asarray(points, float).tolist()
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}, **more}


def labelme_mask(mask, label="sheep"):
    """A mask as LabelMe 5 writes it: a PNG of 0 and 1 in base64, cut out by the first and last pixels."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    part = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    buffer = io.BytesIO()
    Image.fromarray(part.astype(np.uint8)).save(buffer, "PNG")
    corners = [(columns[0], rows[0]), (columns[-1], rows[-1])]
    return labelme_shape("mask", corners, label, mask=base64.b64encode(buffer.getvalue()).decode())


def labelme(size, shapes, name="photo.jpg"):
    return {
        "version": "5.5.0",
        "flags": {},
        "shapes": shapes,
        "imagePath": name,
        "imageData": None,
        "imageHeight": size[0],
        "imageWidth": size[1],
    }
