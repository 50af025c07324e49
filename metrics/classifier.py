# SPDX-License-Identifier: Apache-2.0
"""A small classifier of the two domains, for the classification score of the paper (section 3.2).

It is trained on real pictures, (64, 64, 3) uint8: whole ones, or crops around one instance. One training picture in
five is held out from its training, to measure its accuracy.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Dict, NamedTuple

import nnabla as nn
import nnabla.functions as F
import nnabla.solvers as S
import numpy as np
from nnabla.initializer import ConstantInitializer, NormalInitializer
from PIL import Image
from tqdm import tqdm

from backend import precision, reductions
from backend.layers import Tensor, convolution, plain
from common.errors import UserError
from common.json_file import read_json
from data import pictures
from data.instances import bounding_box
from weights import model_file

SIZE = 64
CHANNELS = (16, 32, 64, 128)
KERNEL = 4
BATCH = 32
STEPS = 600
RATE = 1e-3
HELD_OUT = 5  # one in this many pictures
SHIFT = 4  # pixels by which a training picture is moved at most
MARGIN = 0.25  # of an instance's larger side, on each side of its crop
LEAST_ACCURACY = 0.9  # below it, a score means little


class Samples(NamedTuple):
    """Images to learn from, (N, 64, 64, 3) uint8, and the number `of_picture` (N,) of the picture each comes from."""

    images: np.ndarray
    of_picture: np.ndarray


class Classifier:
    """Distinguishes domain B (1) from domain A (0).

    `name` is the scope of its parameters in NNabla's current scope. `accuracy` is that on the held-out pictures, the
    mean over both domains; NaN before training.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.accuracy = float("nan")
        self._x = nn.Variable((BATCH, 3, SIZE, SIZE))
        self._create(np.random.RandomState(0))
        self._score = F.sigmoid(self._network())
        self._score.persistent = True

    def train(self, a: Samples, b: Samples) -> None:
        """Learn from domains A and B, half of each batch from either.

        All images of one picture are learned from, or all are held out: crops of one picture are similar.

        Raises:
            UserError: where a domain has too few pictures to learn from some and hold out others.
        """
        is_held_out = [samples.of_picture % HELD_OUT == 1 for samples in (a, b)]
        if not all(held_out.any() and not held_out.all() for held_out in is_held_out):
            raise UserError("a classifier needs at least 2 training pictures with masks of each domain")
        training = [samples.images[~held_out] for samples, held_out in zip((a, b), is_held_out)]
        rng = np.random.default_rng(0)
        y = nn.Variable((BATCH, 1))
        loss = reductions.mean(F.sigmoid_cross_entropy(self._network(), y))
        solver = S.Adam(RATE)
        with nn.parameter_scope(self.name):
            solver.set_parameters(nn.get_parameters())
        for step in tqdm(range(STEPS), desc=f"training the classifier of {self.name}", unit="step", leave=False):
            halves = [images[rng.integers(len(images), size=BATCH // 2)] for images in training]
            self._x.d = _augmented(np.concatenate(halves), rng)
            y.d = np.repeat([0, 1], BATCH // 2)[:, None]
            solver.set_learning_rate(RATE * (1 - step / STEPS))
            solver.zero_grad()
            loss.forward(clear_no_need_grad=True)
            loss.backward(clear_buffer=True)
            solver.weight_decay(1e-4)
            solver.update()
        right_in_a = (1 - self.probability(a.images[is_held_out[0]]) > 0.5).mean()
        right_in_b = (self.probability(b.images[is_held_out[1]]) > 0.5).mean()
        self.accuracy = float(np.mean([right_in_a, right_in_b]))

    def probability(self, images: np.ndarray) -> np.ndarray:
        """The probability (N,) that each image (N, 64, 64, 3) uint8 is of domain B."""
        probabilities = [np.zeros(0, np.float32)]
        for start in range(0, len(images), BATCH):
            batch = _to_network(images[start : start + BATCH])
            self._x.d[: len(batch)] = batch
            self._score.forward(clear_buffer=True)
            probabilities.append(self._score.d[: len(batch), 0].copy())
        return np.concatenate(probabilities)

    def save(self, path: Path) -> None:
        """Write parameters and accuracy to `path` (.h5) and a .json beside it."""
        with nn.parameter_scope(self.name):
            parameters = nn.get_parameters()
        values = {f"{self.name}/{name}": variable.d for name, variable in parameters.items()}
        model_file.save_model(path, values, {"accuracy": self.accuracy})

    def load(self, path: Path) -> None:
        """Read parameters and accuracy as `save` wrote them.

        Raises:
            UserError: where the files are damaged or of another kind.
        """
        model_file.set_parameters(model_file.read_parameters(path), [self.name], path)
        try:
            self.accuracy = float(read_json(path.with_suffix(".json"))["accuracy"])
            if not 0 <= self.accuracy <= 1:
                raise ValueError
        except (OSError, ValueError, KeyError, TypeError):
            raise UserError(f"{path.with_suffix('.json')} is damaged; delete it and {path.name}") from None

    def _network(self) -> nn.Variable:
        h: Tensor = self._x
        with nn.parameter_scope(self.name):
            for i in range(len(CHANNELS)):
                with nn.parameter_scope(f"conv{i + 1}"):
                    w, b = (nn.parameter.get_parameter(name) for name in "Wb")
                with precision.in_float():
                    h = convolution(h, w, b, stride=2, pad=1, activation="relu")
            with nn.parameter_scope("affine"):
                w, b = (nn.parameter.get_parameter(name) for name in "Wb")
            return F.affine(reductions.mean(plain(h), axes=(2, 3)), w, b)

    def _create(self, rng: np.random.RandomState) -> None:
        with nn.parameter_scope(self.name):
            for i, (inputs, outputs) in enumerate(zip((3, *CHANNELS), CHANNELS)):
                he = NormalInitializer((2 / (inputs * KERNEL**2)) ** 0.5, rng)
                with nn.parameter_scope(f"conv{i + 1}"):
                    nn.parameter.get_parameter_or_create("W", (outputs, inputs, KERNEL, KERNEL), he)
                    nn.parameter.get_parameter_or_create("b", (outputs,), ConstantInitializer(0))
            with nn.parameter_scope("affine"):
                nn.parameter.get_parameter_or_create("W", (CHANNELS[-1], 1), NormalInitializer(0.1, rng))
                nn.parameter.get_parameter_or_create("b", (1,), ConstantInitializer(0))


def cached(name: str, folder: Path, samples: Dict[str, Samples]) -> Classifier:
    """Return a classifier trained on the samples of "A" and "B", read from `folder` if that was done before.

    A damaged file there, or a folder that cannot be written, is reported, and only costs the training again.
    """
    path = folder / f"classifier_{name}_{_digest(samples)}.h5"
    classifier = Classifier(name)
    if path.is_file():
        try:
            classifier.load(path)
            return classifier
        except UserError as error:
            print(f"the classifier is trained again: {error}")
            with nn.parameter_scope(name):
                nn.clear_parameters()
            classifier = Classifier(name)
    classifier.train(samples["A"], samples["B"])
    try:
        classifier.save(path)
    except OSError as error:
        print(f"the classifier is not kept: {path}: {error.strerror}")
    return classifier


def whole(picture: np.ndarray, size: int = SIZE) -> np.ndarray:
    """A picture (H, W, 3) resized for the classifier of whole pictures: (size, size, 3) uint8."""
    return np.asarray(pictures.resized(Image.fromarray(picture), (size, size)))


def instance_crop(picture: np.ndarray, mask: np.ndarray, size: int = SIZE) -> np.ndarray:
    """The square around one instance of a picture (H, W, 3), with a margin, as (size, size, 3) uint8.

    `mask` (H, W) bool must not be empty; beyond the picture its border is repeated.
    """
    height, width = mask.shape
    box_rows, box_columns = bounding_box(mask)
    longer_side = max(box_rows.stop - box_rows.start, box_columns.stop - box_columns.start)
    side = int(np.ceil(longer_side * (1 + 2 * MARGIN)))
    first_row = (box_rows.start + box_rows.stop - side) // 2
    first_column = (box_columns.start + box_columns.stop - side) // 2
    rows = np.clip(np.arange(first_row, first_row + side), 0, height - 1)
    columns = np.clip(np.arange(first_column, first_column + side), 0, width - 1)
    return whole(picture[rows[:, None], columns[None]], size)


def _digest(samples: Dict[str, Samples]) -> str:
    """A name for all that a classifier depends on: the constants above, and its samples."""
    content = hashlib.sha256(repr((SIZE, CHANNELS, KERNEL, STEPS, BATCH, RATE, HELD_OUT, SHIFT, MARGIN)).encode())
    for domain in samples.values():
        content.update(repr(domain.images.shape).encode())
        content.update(np.ascontiguousarray(domain.images))
        content.update(np.ascontiguousarray(domain.of_picture, np.int64))
    return content.hexdigest()[:12]


def _to_network(images: np.ndarray) -> np.ndarray:
    return images.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1


def _augmented(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Images for the network, each mirrored or not, moved by a few pixels, and made brighter or darker, at random."""
    count = len(images)
    padded = np.pad(images, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)), mode="edge")
    moved = np.empty_like(images)
    for i, (top, left, flip) in enumerate(rng.integers((0, 0, 0), (2 * SHIFT + 1, 2 * SHIFT + 1, 2), (count, 3))):
        window = padded[i, top : top + SIZE, left : left + SIZE]
        moved[i] = window[:, ::-1] if flip else window
    return _to_network(moved) + rng.uniform(-0.2, 0.2, (count, 1, 1, 1)).astype(np.float32)
