# SPDX-License-Identifier: Apache-2.0
"""A small classifier that tells the two domains apart, for the classification score of the paper (section 3.2).

It is trained on real pictures, (64, 64, 3) uint8: whole ones, or crops around one instance. One training picture in
five is kept out of its training, to say how far it can be trusted.
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

from backend import precision
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
HELD_OUT = 5  # one in so many pictures
SHIFT = 4  # pixels that a training picture is moved by, at most
MARGIN = 0.25  # of an instance's larger side, shown around it
LEAST_ACCURACY = 0.9  # below it a score means little


class Samples(NamedTuple):
    """What to learn from: `shown` (N, 64, 64, 3) uint8, and `of_picture` (N,), the number of the picture of each."""

    shown: np.ndarray
    of_picture: np.ndarray


class Classifier:
    """Tells domain B (1) from domain A (0); `accuracy` is that on the pictures kept out, the mean over both domains.

    `name` is the scope of its parameters in NNabla's current scope.
    """

    def __init__(self, name: str) -> None:
        self.name, self.accuracy = name, float("nan")
        self._x = nn.Variable((BATCH, 3, SIZE, SIZE))
        self._create(np.random.RandomState(0))
        self._score = F.sigmoid(self._network())
        self._score.persistent = True

    def train(self, a: Samples, b: Samples) -> None:
        """Learn from domains A and B, as often from one as from the other.

        What is from one picture is learned from or held out together: two crops of a picture are much alike.

        Raises:
            UserError: where a domain has too few pictures to learn from and to be tried on.
        """
        own = [samples.of_picture % HELD_OUT != 1 for samples in (a, b)]
        if not all(some.any() and not some.all() for some in own):
            raise UserError("a classifier needs at least 2 training pictures with masks of each domain")
        rng = np.random.default_rng(0)
        y, score = nn.Variable((BATCH, 1)), self._network()
        loss = F.mean(F.sigmoid_cross_entropy(score, y))
        solver = S.Adam(RATE)
        with nn.parameter_scope(self.name):
            solver.set_parameters(nn.get_parameters())
        for step in tqdm(range(STEPS), desc=f"training the classifier of {self.name}", unit="step", leave=False):
            halves = [s.shown[o][rng.integers(o.sum(), size=BATCH // 2)] for s, o in zip((a, b), own)]
            self._x.d = _augmented(np.concatenate(halves), rng)
            y.d = np.repeat([0, 1], BATCH // 2)[:, None]
            solver.set_learning_rate(RATE * (1 - step / STEPS))
            solver.zero_grad()
            loss.forward(clear_no_need_grad=True)
            loss.backward(clear_buffer=True)
            solver.weight_decay(1e-4)
            solver.update()
        right = [1 - self.probability(a.shown[~own[0]]), self.probability(b.shown[~own[1]])]
        self.accuracy = float(np.mean([(p > 0.5).mean() for p in right]))

    def probability(self, shown: np.ndarray) -> np.ndarray:
        """How sure it is that each of the pictures (N, 64, 64, 3) uint8 is of domain B: (N,) in [0, 1]."""
        found = []
        for start in range(0, len(shown), BATCH):
            part = _to_network(shown[start : start + BATCH])
            self._x.d[: len(part)] = part
            self._score.forward(clear_buffer=True)
            found.append(self._score.d[: len(part), 0].copy())
        return np.concatenate(found) if found else np.zeros(0)

    def save(self, path: Path) -> None:
        """Write parameters and accuracy to `path` (.h5) and a .json beside it."""
        with nn.parameter_scope(self.name):
            own = nn.get_parameters()
        values = {f"{self.name}/{name}": variable.d for name, variable in own.items()}
        model_file.save_model(path, values, {"accuracy": self.accuracy})

    def load(self, path: Path) -> None:
        """Become what `save` wrote.

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
            return F.affine(F.mean(plain(h), axis=(2, 3)), w, b)

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
    """A classifier trained on the samples of "A" and "B", or read from `folder` if it was trained on them before.

    The file's name tells what it was trained on. A file that is damaged, or a folder that cannot be written, only costs
    the training once more.
    """
    content = hashlib.sha256(repr((SIZE, CHANNELS, KERNEL, STEPS, BATCH, RATE, HELD_OUT, SHIFT, MARGIN)).encode())
    for domain in samples.values():
        content.update(repr(domain.shown.shape).encode())
        content.update(np.ascontiguousarray(domain.shown))
        content.update(np.ascontiguousarray(domain.of_picture, np.int64))
    path = folder / f"classifier_{name}_{content.hexdigest()[:12]}.h5"
    classifier = Classifier(name)
    if path.is_file():
        try:
            classifier.load(path)
            return classifier
        except UserError as error:
            print(f"the classifier is trained anew: {error}")
            with nn.parameter_scope(name):
                nn.clear_parameters()
            classifier = Classifier(name)
    classifier.train(samples["A"], samples["B"])
    try:
        classifier.save(path)
    except OSError as error:
        print(f"the classifier is not kept: {path}: {error.strerror}")
    return classifier


def whole(picture: np.ndarray) -> np.ndarray:
    """A picture (H, W, 3) as the classifier of whole pictures sees it: (64, 64, 3) uint8."""
    return np.asarray(pictures.resized(Image.fromarray(picture), (SIZE, SIZE)))


def instance_crop(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The square around one instance of a picture (H, W, 3), with a margin, as (64, 64, 3) uint8.

    `mask` (H, W) bool must not be empty; beyond the picture its border is repeated.
    """
    spans = bounding_box(mask)
    side = int(np.ceil(max(span.stop - span.start for span in spans) * (1 + 2 * MARGIN)))
    top, left = ((span.start + span.stop - side) // 2 for span in spans)
    rows, columns = (np.clip(np.arange(o, o + side), 0, n - 1) for o, n in zip((top, left), mask.shape))
    return whole(picture[rows[:, None], columns[None]])


def _to_network(shown: np.ndarray) -> np.ndarray:
    return shown.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1


def _augmented(shown: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mirrored, moved by a few pixels, and made brighter or darker, as chance will have it; for the network."""
    margin = ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0))
    padded = np.pad(shown, margin, mode="edge")
    moved = np.empty_like(shown)
    for i, (top, left, flip) in enumerate(rng.integers((0, 0, 0), (2 * SHIFT + 1, 2 * SHIFT + 1, 2), (len(shown), 3))):
        window = padded[i, top : top + SIZE, left : left + SIZE]
        moved[i] = window[:, ::-1] if flip else window
    return _to_network(moved) + rng.uniform(-0.2, 0.2, (len(shown), 1, 1, 1)).astype(np.float32)
