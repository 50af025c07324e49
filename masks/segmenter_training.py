# SPDX-License-Identifier: Apache-2.0
"""Train the segmenter on the masks that a data set has, and measure it on pictures that it was not trained on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Sequence, Tuple

import nnabla as nn
import nnabla.functions as F
import nnabla.solvers as S
import numpy as np
from PIL import Image
from tqdm import tqdm

from common.errors import UserError
from common.progress import in_parallel
from data import instances, pictures
from data.items import find_items, mask_folder_of
from masks.predicted_masks import PredictedMasks
from masks.segmenter import CHANNELS, DOMAINS, LARGEST_SIDE, NETWORK, Segmenter, Settings, Size

BATCH = 8
RATE = 2e-3
HELD_OUT = 5  # one training picture in so many, where the data set has no test pictures
AREA = 128 * 96  # pixels of the network's input, about
FINER = 1.25  # training pictures are kept at so many times the network's size, since some are enlarged
OTHER_COLOURS = 0.2  # the share of training pictures whose red, green and blue are exchanged
MOST_PICTURES = 1000  # to learn from, and a quarter of them to measure on: those beyond are left out


@dataclass(frozen=True)
class Source:
    """A picture's file and those of its masks, for each domain ("A", "B") it is in."""

    image: Path
    masks: Dict[str, List[Path]] = field(default_factory=dict)


class Example(NamedTuple):
    """A picture (H, W, 3) uint8; where it shows A and B, (2, H, W) uint8, 255 inside; of which that is known, (2,).

    It is not known of a domain that the picture is not in: what is sought there is only ever what that domain shows.
    """

    picture: np.ndarray
    inside: np.ndarray
    known: np.ndarray


def find_sources(root: str | Path) -> Tuple[List[Source], List[Source]]:
    """What to learn from, and what to measure on: `test` where it has masks, else one training picture in five.

    A file that is in several places is one picture: it is in one of the two only.

    Raises:
        UserError: where there is no picture with masks to learn from in one of the domains.
    """
    train, test = _sources(root, "train"), {}
    if any((Path(root) / f"test{domain}").is_dir() for domain in DOMAINS):
        test = _sources(root, "test")
    if not test:
        test = _held_out(train)
    train = {content: source for content, source in train.items() if content not in test}
    for domain in DOMAINS:
        if not any(domain in source.masks for source in train.values()):
            mend = "put some there that are not in `test` too"
            raise UserError(f"no picture of train{domain} in {root} has masks to learn from; {mend}")
    own, held_out = ([found[content] for content in sorted(found)] for found in (train, test))
    return own[:MOST_PICTURES], held_out[: MOST_PICTURES // 4]


def _held_out(train: Dict[str, Source]) -> Dict[str, Source]:
    """One picture in five of each domain, by content and so by no order that means anything; never its last."""
    chosen: Dict[str, Source] = {}
    for domain in DOMAINS:
        own = [content for content in sorted(train) if domain in train[content].masks]
        chosen.update((content, train[content]) for content in own[: len(own) // HELD_OUT])
    return chosen


def _sources(root: str | Path, phase: str) -> Dict[str, Source]:
    """The pictures of a phase that have masks, by their content."""
    found: Dict[str, Source] = {}
    for domain in DOMAINS:
        if phase == "test" and not (Path(root) / f"{phase}{domain}").is_dir():
            continue
        items = [item for item in find_items(root, phase, domain) if item.masks]
        predicted = PredictedMasks(mask_folder_of(Path(root) / f"{phase}{domain}"))
        own = [item for item in items if not any(map(predicted.is_predicted, item.masks.values()))]
        if len(own) < len(items):
            print(f"{len(items) - len(own)} pictures of {phase}{domain} are left out: their masks were predicted")
        items = own
        contents = in_parallel(lambda item: _content(item.image), items, f"reading {phase}{domain}")
        for content, item in zip(contents, items):
            found.setdefault(content, Source(item.image)).masks[domain] = list(item.masks.values())
    return found


def _content(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"{path} is no file; remove it")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def choose_settings(sources: Sequence[Source]) -> Settings:
    """A network size of the pictures' usual shape, and whether pictures of each domain have one mask at most."""
    headers = in_parallel(lambda s: pictures.open_with_header(s.image, rough=True)[0], sources, "reading sizes")
    ratio = float(np.median([header.size[0] / header.size[1] for header in headers]))
    multiple = 2 ** (len(CHANNELS) - 1)
    sides = (round((AREA * r) ** 0.5 / multiple) * multiple for r in (ratio, 1 / ratio))
    # at the coarsest resolution there are 2 x 2 pixels at least: one alone has no deviation to be normalized by
    height, width = (int(np.clip(side, 2 * multiple, LARGEST_SIDE)) for side in sides)
    a, b = (all(len(s.masks.get(domain, [])) <= 1 for s in sources) for domain in DOMAINS)
    return Settings((height, width), (a, b))


def read_examples(sources: Sequence[Source], size: Size) -> List[Example]:
    """The pictures with the union of their masks, a little larger than `size` = (height, width) of the network."""
    height, width = (round(side * FINER) for side in size)

    def read(source: Source) -> Example:
        inside = np.zeros((len(DOMAINS), height, width), np.uint8)
        for domain, paths in source.masks.items():
            inside[DOMAINS.index(domain)] = pictures.read_masks(paths, (height, width)).any(axis=0) * 255
        known = np.array([domain in source.masks for domain in DOMAINS])
        return Example(pictures.read_picture(source.image, (height, width)), inside, known)

    return in_parallel(read, sources, "reading pictures")


def train(
    segmenter: Segmenter, examples: Sequence[Example], steps: int, seed: int, stopped: Callable[[], bool]
) -> int:
    """Teach `segmenter`, until `stopped` says so at the latest. Returns the steps that were done.

    Pictures of A and of B come equally often, however many there are of each.
    """
    rng = np.random.default_rng(seed)
    of_domain = [[e for e in examples if e.known[i]] for i in range(len(DOMAINS))]
    x, logits = segmenter.graph(BATCH)
    y, known = nn.Variable(logits.shape), nn.Variable((*logits.shape[:2], 1, 1))
    loss = segmentation_loss(logits, y, known)
    solver = S.Adam(RATE)
    with nn.parameter_scope(NETWORK):
        solver.set_parameters(nn.get_parameters())
    with tqdm(total=steps, desc="training", unit="step", smoothing=0.1) as bar:
        recent = 0.0
        for step in range(steps):
            if stopped():
                return step
            chosen = [own[rng.integers(len(own))] for own in of_domain for _ in range(BATCH // 2)]
            x.d, y.d = map(np.stack, zip(*(augmented(e, segmenter.settings.size, rng) for e in chosen)))
            known.d = np.array([example.known for example in chosen])[..., None, None]
            solver.set_learning_rate(RATE * min(1, (step + 1) / 20) * (1 - step / steps))
            solver.zero_grad()
            loss.forward(clear_no_need_grad=True)
            loss.backward(clear_buffer=True)
            solver.weight_decay(1e-4)
            solver.update()
            recent += (float(loss.d) - recent) / min(step + 1, 20)
            bar.set_postfix(loss=f"{recent:.3f}", refresh=False)
            bar.update()
    return steps


def segmentation_loss(logits: nn.Variable, y: nn.Variable, known: nn.Variable) -> nn.Variable:
    """Cross entropy plus one minus the Dice coefficient, for `logits` and truth `y` in {0, 1}, both (N, 2, H, W).

    The mean is over the domains of each picture that are `known` (N, 2, 1, 1) in {0, 1}.
    """
    p, pixels = F.sigmoid(logits), (2, 3)
    either = F.sum(p, axis=pixels) + F.sum(y, axis=pixels)
    dice = (2 * F.sum(p * y, axis=pixels) + 1) / (either + 1)
    entropy = F.mean(F.sigmoid_cross_entropy(logits, y), axis=pixels)
    weights = F.reshape(known, known.shape[:2])
    return F.sum(weights * (entropy + 1 - dice)) / F.sum(weights)


def augmented(example: Example, size: Size, rng: np.random.Generator) -> Tuple[np.ndarray, np.ndarray]:
    """A part of the example at `size`, moved, turned and scaled a little, mirrored and in other colours by chance.

    Returns the picture (3, H, W) in about [-1, 1] and the truth (2, H, W) in {0, 1}.
    """
    how = _affine(example.inside.shape[1:], size, rng)

    def moved(array: np.ndarray) -> np.ndarray:
        image = Image.fromarray(array)
        return np.asarray(image.transform((size[1], size[0]), Image.AFFINE, how, Image.BILINEAR))

    picture = moved(example.picture).astype(np.float32) / 255
    gamma, gains = np.exp(rng.normal(0, 0.25)), np.exp(rng.normal(0, 0.08, 3)) * np.exp(rng.normal(0, 0.1))
    if rng.uniform() < OTHER_COLOURS:
        picture = picture[..., rng.permutation(3)]
    grey = picture.mean(axis=2, keepdims=True)
    picture = np.clip(grey + (picture - grey) * rng.uniform(0.6, 1.3), 0, 1) ** gamma * gains
    inside = np.stack([moved(plane) for plane in example.inside]) > 127
    return picture.transpose(2, 0, 1) * 2 - 1, inside.astype(np.float32)


def _affine(stored: Size, size: Size, rng: np.random.Generator) -> Tuple[float, ...]:
    """Pillow's six numbers that lead from a pixel (x, y) of the result, of `size`, to one of the `stored` picture."""
    angle, zoom = rng.normal(0, 0.07), rng.uniform(0.75, 1.1)
    stretch = np.exp(rng.normal(0, 0.06, 2))
    ratios = np.array([stored[1] / size[1], stored[0] / size[0]])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = (ratios * zoom * stretch)[:, None] * turn * [rng.choice([-1, 1]), 1]
    # where a part is taken, it is one that lies within the picture; where more is, the rest is black
    room = np.abs(1 - zoom) * np.array(stored[::-1]) / 2
    centre = np.array(stored[::-1]) / 2 + rng.uniform(-room, room)
    offset = centre - matrix @ (np.array(size[::-1]) / 2)
    return (*matrix[0], offset[0], *matrix[1], offset[1])


class Measured(NamedTuple):
    """How well a domain is found: mean IoU of where the category is, and of instances; over how many pictures."""

    category_iou: float
    instance_iou: float
    pictures: int


def measure(segmenter: Segmenter, sources: Sequence[Source]) -> Dict[str, Measured]:
    """Compare what is found in pictures, at their own sizes, with their masks; for each domain that has any."""
    of_domain: Dict[str, List[Tuple[float, float]]] = {domain: [] for domain in DOMAINS}
    for source in tqdm(sources, desc="measuring", unit="picture", disable=None, delay=1):
        picture = pictures.read_picture(source.image)
        for domain, paths in source.masks.items():
            truth = pictures.read_masks(paths, picture.shape[:2])
            found = list(segmenter.instances(picture, domain))
            union = np.any(found, axis=0) if found else np.zeros(picture.shape[:2], bool)
            of_domain[domain].append((instances.iou(union, truth.any(axis=0)), matched_iou(found, truth)))
    return {d: Measured(*np.mean(values, axis=0), len(values)) for d, values in of_domain.items() if values}


def matched_iou(found: Sequence[np.ndarray], truth: Sequence[np.ndarray]) -> float:
    """Mean IoU of instances, the pairs that overlap most matched first; one without a partner counts as 0."""
    overlaps = np.array([[instances.iou(f, t) for t in truth] for f in found]).reshape(len(found), len(truth))
    total = 0.0
    for _ in range(min(overlaps.shape)):
        row, column = np.unravel_index(overlaps.argmax(), overlaps.shape)
        total += overlaps[row, column]
        overlaps[row], overlaps[:, column] = -1, -1
    return total / max(len(found), len(truth), 1)
