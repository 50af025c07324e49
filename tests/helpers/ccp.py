# SPDX-License-Identifier: Apache-2.0
"""A small CCP in its true layout."""

from __future__ import annotations

import numpy as np
import scipy.io
from PIL import Image

NAMES = (
    "null accessories bag belt blazer blouse bodysuit boots bra bracelet cape cardigan clogs coat dress earrings flats "
    "glasses gloves hair hat heels hoodie intimate jacket jeans jumper leggings loafers necklace panties pants pumps "
    "purse ring romper sandals scarf shirt shoes shorts skin skirt sneakers socks stockings suit sunglasses sweater "
    "sweatshirt swimwear t-shirt tie tights top vest wallet watch wedges"
).split()
JEANS, SKIRT, SHOES = (NAMES.index(name) for name in ("jeans", "skirt", "shoes"))
ONLY_JEANS = {f"{i:04d}" for i in range(1, 21)}
ONLY_SKIRT = {f"{i:04d}" for i in range(31, 43)}
BOTH = {f"{i:04d}" for i in range(51, 57)}
NEITHER = {"0071"}
LISTED = {"1005": [0, JEANS, SHOES], "1006": [0, SKIRT], "1007": [0, SHOES], "1008": [JEANS, SKIRT]}
HEIGHT, WIDTH = 30, 20


def save_annotation(path, key, values):
    scipy.io.savemat(str(path), {key: np.asarray(values, np.uint8)}, do_compression=True)


def save_photo(path, random):
    noise = random.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    Image.fromarray(noise).save(path, "JPEG", quality=int(random.integers(60, 95)))


def make_tree(tmp_path):
    """Make a small CCP in its true layout; the set that holds a picture's name says its categories."""
    root = tmp_path / "ccp"
    pixel, image, photos = root / "annotations/pixel-level", root / "annotations/image-level", root / "photos"
    for folder in (pixel, image, photos):
        folder.mkdir(parents=True)
    labels = np.empty((1, len(NAMES)), object)
    labels[0, :] = [np.array([name]) for name in NAMES]
    scipy.io.savemat(str(root / "label_list.mat"), {"label_list": labels})
    random = np.random.default_rng(1)
    names = sorted(ONLY_JEANS | ONLY_SKIRT | BOTH | NEITHER)
    random.shuffle(names)
    for name in names:
        truth = random.choice(np.array([0, SHOES], np.uint8), (HEIGHT, WIDTH))
        if name in ONLY_JEANS | BOTH:
            truth[random.integers(1, 9) : 15, 2 : random.integers(9, 18)] = JEANS
        if name in ONLY_SKIRT | BOTH:
            truth[16 : random.integers(20, 30), random.integers(0, 9) :] = SKIRT
        save_annotation(pixel / f"{name}.mat", "groundtruth", truth)
        save_photo(photos / f"{name}.jpg", random)
    for name, tags in LISTED.items():
        save_annotation(image / f"{name}.mat", "tags", [tags])
        save_photo(photos / f"{name}.jpg", random)
    return root
