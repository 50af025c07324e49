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

from backend import reductions
from common.errors import UserError
from common.progress import in_parallel
from data import instances, pictures
from data.items import find_items_with_masks, mask_folder_of
from data.pictures import Size
from masks.predicted_masks import PredictedMasks
from masks.segmenter import CHANNELS, DOMAINS, LARGEST_SIDE, NETWORK, Segmenter, SegmenterSettings

BATCH = 8
RATE = 2e-3
HELD_OUT = 5  # one in N training pictures is held out if the data set has no test pictures
AREA = 128 * 96  # pixels of the network's input, about
FINER = 1.25  # training pictures are kept at N times the network's size, since augmentation enlarges some
OTHER_COLOURS = 0.2  # the share of training pictures whose red, green and blue are exchanged
MOST_PICTURES = 1000  # to learn from, and a quarter of that to measure on; others are left out


@dataclass(frozen=True)
class Source:
    """A picture's file and those of its masks, for each domain ("A", "B") it is in."""

    image: Path
    masks: Dict[str, List[Path]] = field(default_factory=dict)


class Example(NamedTuple):
    """A picture (H, W, 3) uint8; the union of its masks of A and of B, (2, H, W) uint8, 255 inside; and `known` (2,).

    `known` is True for the domains that the picture is in: masks mark only what their own domain shows, so for the
    other domain nothing is known.
    """

    picture: np.ndarray
    inside: np.ndarray
    known: np.ndarray


def find_sources(root: str | Path) -> Tuple[List[Source], List[Source]]:
    """The pictures to learn from, and those to measure on: `test` if it has masks, else one training picture in five.

    Equal files in several places are one picture, and it is in one of the two lists only.

    Raises:
        UserError: if one of the domains has no picture with masks to learn from.
    """
    train = _find_phase(root, "train")
    held_out: Dict[str, Source] = {}
    if any((Path(root) / f"test{domain}").is_dir() for domain in DOMAINS):
        held_out = _find_phase(root, "test")
    if not held_out:
        held_out = _held_out(train)
    train = {content: source for content, source in train.items() if content not in held_out}
    for domain in DOMAINS:
        if not any(domain in source.masks for source in train.values()):
            fix = "put some there that are not in `test` too"
            raise UserError(f"no picture of train{domain} in {root} has masks to learn from; {fix}")
    return _in_order(train)[:MOST_PICTURES], _in_order(held_out)[: MOST_PICTURES // 4]


def _in_order(sources: Dict[str, Source]) -> List[Source]:
    """The sources by the hashes of their content, which is as good as shuffled, and always the same."""
    return [sources[content] for content in sorted(sources)]


def _held_out(train: Dict[str, Source]) -> Dict[str, Source]:
    """One picture in five of each domain, chosen by the hash of its content; never a domain's last one."""
    chosen: Dict[str, Source] = {}
    for domain in DOMAINS:
        contents = [content for content in sorted(train) if domain in train[content].masks]
        chosen.update((content, train[content]) for content in contents[: len(contents) // HELD_OUT])
    return chosen


def _find_phase(root: str | Path, phase: str) -> Dict[str, Source]:
    """The pictures of a phase that have masks which were not predicted, by the hashes of their content."""
    sources: Dict[str, Source] = {}
    for domain in DOMAINS:
        folder = Path(root) / f"{phase}{domain}"
        if phase == "test" and not folder.is_dir():
            continue
        with_masks = find_items_with_masks(root, phase, domain)
        predicted = PredictedMasks(mask_folder_of(folder))
        items = [item for item in with_masks if not any(map(predicted.is_predicted, item.masks.values()))]
        if len(items) < len(with_masks):
            print(f"{len(with_masks) - len(items)} pictures of {folder.name} are left out: their masks were predicted")
        contents = in_parallel(lambda item: _content_hash(item.image), items, f"reading {folder.name}")
        for content, item in zip(contents, items):
            source = sources.setdefault(content, Source(item.image))
            source.masks[domain] = list(item.masks.values())
    return sources


def _content_hash(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"{path} is not a file; remove it")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def choose_settings(sources: Sequence[Source]) -> SegmenterSettings:
    """A network size of the pictures' usual proportions, and whether pictures of each domain have at most one mask."""
    headers = in_parallel(lambda s: pictures.open_with_header(s.image, rough=True)[0], sources, "reading sizes")
    ratio = float(np.median([header.size[0] / header.size[1] for header in headers]))
    multiple = 2 ** (len(CHANNELS) - 1)
    height, width = (_network_side(AREA * r, multiple) for r in (ratio, 1 / ratio))
    single_a, single_b = (all(len(s.masks.get(domain, [])) <= 1 for s in sources) for domain in DOMAINS)
    return SegmenterSettings((height, width), (single_a, single_b))


def _network_side(squared_side: float, multiple: int) -> int:
    """A side of the network's input, rounded to a multiple.

    The coarsest resolution has at least 2 pixels a side, since a single one has no deviation to normalize by.
    """
    side = round(squared_side**0.5 / multiple) * multiple
    return int(np.clip(side, 2 * multiple, LARGEST_SIDE))


def read_examples(sources: Sequence[Source], size: Size) -> List[Example]:
    """Read the pictures and the union of their masks, a little larger than the network's `size` (height, width)."""
    height, width = (round(side * FINER) for side in size)

    def read(source: Source) -> Example:
        inside = np.zeros((len(DOMAINS), height, width), np.uint8)
        for domain, paths in source.masks.items():
            inside[DOMAINS.index(domain)] = pictures.read_masks(paths, (height, width)).any(axis=0) * 255
        known = np.array([domain in source.masks for domain in DOMAINS])
        return Example(pictures.read_picture(source.image, (height, width)), inside, known)

    return in_parallel(read, sources, "reading pictures")


def train(
    segmenter: Segmenter, examples: Sequence[Example], steps: int, seed: int, is_stopped: Callable[[], bool]
) -> int:
    """Train `segmenter` for `steps`, or until `is_stopped`. Returns the number of steps that were done.

    Pictures of A and of B come equally often, whatever the number of each.
    """
    rng = np.random.default_rng(seed)
    x, logits = segmenter.graph(BATCH)
    y = nn.Variable(logits.shape)
    known = nn.Variable((*logits.shape[:2], 1, 1))
    loss = segmentation_loss(logits, y, known)
    solver = S.Adam(RATE)
    with nn.parameter_scope(NETWORK):
        solver.set_parameters(nn.get_parameters())
    by_domain = [[example for example in examples if example.known[i]] for i in range(len(DOMAINS))]
    with tqdm(total=steps, desc="training", unit="step", smoothing=0.1) as bar:
        mean_loss = 0.0
        for step in range(steps):
            if is_stopped():
                return step
            chosen = _draw_batch(by_domain, rng)
            x.d, y.d = map(np.stack, zip(*(augmented(example, segmenter.settings.size, rng) for example in chosen)))
            # float32: NNabla does not copy bool to a GPU
            known.d = np.array([example.known for example in chosen], np.float32)[..., None, None]
            # a linear warm-up over 20 steps, and a linear decay
            solver.set_learning_rate(RATE * min(1, (step + 1) / 20) * (1 - step / steps))
            solver.zero_grad()
            loss.forward(clear_no_need_grad=True)
            loss.backward(clear_buffer=True)
            solver.weight_decay(1e-4)
            solver.update()
            mean_loss += (float(loss.d) - mean_loss) / min(step + 1, 20)
            bar.set_postfix(loss=f"{mean_loss:.3f}", refresh=False)
            bar.update()
    return steps


def _draw_batch(by_domain: Sequence[Sequence[Example]], rng: np.random.Generator) -> List[Example]:
    """Draw the examples of a batch, half of them from each domain."""
    return [examples[rng.integers(len(examples))] for examples in by_domain for _ in range(BATCH // 2)]


def segmentation_loss(logits: nn.Variable, y: nn.Variable, known: nn.Variable) -> nn.Variable:
    """Cross entropy plus one minus the Dice coefficient, for `logits` and truth `y` in {0, 1}, both (N, 2, H, W).

    The mean over all pictures' domains that are `known` (N, 2, 1, 1) in {0, 1}.
    """
    p = F.sigmoid(logits)
    areas = reductions.total(p, axes=(2, 3)) + reductions.total(y, axes=(2, 3))
    dice = (2 * reductions.total(p * y, axes=(2, 3)) + 1) / (areas + 1)
    entropy = reductions.mean(F.sigmoid_cross_entropy(logits, y), axes=(2, 3))
    weights = F.reshape(known, known.shape[:2])
    return reductions.total(weights * (entropy + 1 - dice)) / reductions.total(weights)


def augmented(example: Example, size: Size, rng: np.random.Generator) -> Tuple[np.ndarray, np.ndarray]:
    """A random part of the example at `size`: moved, rotated, scaled, perhaps mirrored, with changed colours.

    Returns the picture (3, H, W) in about [-1, 1] and the truth (2, H, W) in {0, 1}.
    """
    affine = _random_affine(example.inside.shape[1:], size, rng)

    def moved(array: np.ndarray) -> np.ndarray:
        image = Image.fromarray(array)
        return np.asarray(image.transform((size[1], size[0]), Image.AFFINE, affine, Image.BILINEAR))

    picture = _with_random_colours(moved(example.picture).astype(np.float32) / 255, rng)
    inside = np.stack([moved(plane) for plane in example.inside]) > 127
    return picture.transpose(2, 0, 1) * 2 - 1, inside.astype(np.float32)


def _with_random_colours(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change gamma, gains, saturation and sometimes the channels' order of a picture (H, W, 3) in [0, 1]."""
    gamma = np.exp(rng.normal(0, 0.25))
    gains = np.exp(rng.normal(0, 0.08, 3)) * np.exp(rng.normal(0, 0.1))
    if rng.uniform() < OTHER_COLOURS:
        picture = picture[..., rng.permutation(3)]
    grey = picture.mean(axis=2, keepdims=True)
    return np.clip(grey + (picture - grey) * rng.uniform(0.6, 1.3), 0, 1) ** gamma * gains


def _random_affine(stored: Size, size: Size, rng: np.random.Generator) -> Tuple[float, ...]:
    """Pillow's six numbers that map a pixel (x, y) of the result, of `size`, to one of the `stored` picture."""
    angle = rng.normal(0, 0.07)
    zoom = rng.uniform(0.75, 1.1)
    stretch = np.exp(rng.normal(0, 0.06, 2))
    ratios = np.array([stored[1] / size[1], stored[0] / size[0]])
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = (ratios * zoom * stretch)[:, None] * rotation * [rng.choice([-1, 1]), 1]
    # a smaller part lies within the picture; around a larger one is black
    room = np.abs(1 - zoom) * np.array(stored[::-1]) / 2
    centre = np.array(stored[::-1]) / 2 + rng.uniform(-room, room)
    offset = centre - matrix @ (np.array(size[::-1]) / 2)
    return (*matrix[0], offset[0], *matrix[1], offset[1])


class Measured(NamedTuple):
    """The quality for one domain: mean IoU of the union of all instances, and of instances; the number of pictures."""

    category_iou: float
    instance_iou: float
    pictures: int


def measure(segmenter: Segmenter, sources: Sequence[Source]) -> Dict[str, Measured]:
    """Compare predictions with the masks of pictures, at the pictures' sizes; for each domain that has masks."""
    scores: Dict[str, List[Tuple[float, float]]] = {domain: [] for domain in DOMAINS}
    for source in tqdm(sources, desc="measuring", unit="picture", disable=None, delay=1):
        picture = pictures.read_picture(source.image)
        for domain, paths in source.masks.items():
            truth = pictures.read_masks(paths, picture.shape[:2])
            predicted = list(segmenter.instances(picture, domain))
            union = np.any(predicted, axis=0) if predicted else np.zeros(picture.shape[:2], bool)
            scores[domain].append((instances.iou(union, truth.any(axis=0)), matched_iou(predicted, truth)))
    return {domain: Measured(*np.mean(values, axis=0), len(values)) for domain, values in scores.items() if values}


def matched_iou(predicted: Sequence[np.ndarray], truth: Sequence[np.ndarray]) -> float:
    """Mean IoU of instances, the pairs that overlap most matched first; one without a partner counts as 0."""
    overlaps = np.array([[instances.iou(p, t) for t in truth] for p in predicted])
    overlaps = overlaps.reshape(len(predicted), len(truth))
    total = 0.0
    for _ in range(min(overlaps.shape)):
        row, column = np.unravel_index(overlaps.argmax(), overlaps.shape)
        total += overlaps[row, column]
        overlaps[row] = -1
        overlaps[:, column] = -1
    return total / max(len(predicted), len(truth), 1)
