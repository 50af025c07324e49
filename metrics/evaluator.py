# SPDX-License-Identifier: Apache-2.0
"""Translate held-out pictures and measure the results."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np
from tqdm import tqdm

from common.errors import UserError, printable
from data import instances, pictures
from data.items import Item, find_items
from metrics import classifier, inception, report, scores, shape_truth
from metrics.report import NO_TRANSLATION, REAL, TRANSLATED, Evaluation, Measured
from translation.drawing import colour_masks
from translation.translator import Translator
from weights import model_file

OF_MASKS = ("area_ratio", "collapsed", "agreement", "mask_iou", "mask_shape")
MOST_TRAINING_PICTURES = 1000  # of each domain that the classifier, and FID, see
Size = Tuple[int, int]


@dataclass(frozen=True)
class Case:
    """A picture x (H, W, 3) uint8 with the masks a (N, H, W) bool of its instances, and what became of them: y, b.

    `spared` (M, H, W) are masks that were left alone; `truth` are the instances of a, where known (`shape_truth`), in
    a picture of `own_size` (height, width).
    """

    name: str
    x: np.ndarray
    a: np.ndarray
    y: np.ndarray
    b: np.ndarray
    spared: np.ndarray
    truth: Optional[List[shape_truth.Instance]]
    own_size: Size


@dataclass(frozen=True)
class Judge:
    """Looks at pictures with an eye to a domain, "A" or "B": its classifiers, and what instances should be."""

    domain: str
    of_pictures: classifier.Classifier
    of_instances: classifier.Classifier
    target: Optional[shape_truth.Target]

    @property
    def ranked_by(self) -> str:
        """What `look` ranks cases by, in words."""
        if self.target is not None:
            return "IoU of what is painted with the ideal shape"
        return "how sure the classifier is of the instances"

    def look(self, case: Case) -> Tuple[Measured, Optional[float]]:
        """Metrics of y and b by themselves, and the number to rank the case by; None where it cannot be told."""
        # where an instance vanished, its old place is looked at
        places = [new if new.any() else old for old, new in zip(case.a, case.b)]
        instances = self._sure(self.of_instances, [classifier.instance_crop(case.y, place) for place in places])
        whole = self._sure(self.of_pictures, [classifier.whole(case.y)])
        found = {"score_pictures": (whole > 0.5).tolist(), "score_instances": (instances > 0.5).tolist()}
        rank = None
        if self.target is None:
            rank = float(instances.mean())
        elif case.truth is not None:
            found.update(measure_shapes(case, case.truth, self.target))
            rank = float(np.mean(found["picture_iou"]))
        return {name: [float(value) for value in values] for name, values in found.items()}, rank

    def _sure(self, of: classifier.Classifier, shown: Sequence[np.ndarray]) -> np.ndarray:
        is_b = of.probability(np.stack(shown))
        return is_b if self.domain == "B" else 1 - is_b


def measure_changes(case: Case) -> Measured:
    """Metrics of y and b beside x and a."""
    untouched = scores.background(np.concatenate([case.a, case.spared]), case.b)
    ratios = scores.area_ratios(case.a, case.b)
    found = {
        "background_psnr": [scores.psnr(case.x, case.y, untouched)],
        "background_ssim": [scores.ssim(case.x, case.y, untouched)],
        "area_ratio": ratios.tolist(),
        "collapsed": scores.collapsed(ratios).astype(float).tolist(),
        "agreement": [scores.agreement(case.x, case.y, case.a, case.b)],
    }
    return {name: [value for value in values if value is not None] for name, values in found.items()}


def measure_shapes(case: Case, truth: List[shape_truth.Instance], target: shape_truth.Target) -> Measured:
    """Metrics of y and b beside the ideal shapes: of the masks, and of what the picture itself shows."""
    found: Measured = {name: [] for name in ("mask_iou", "mask_shape", "picture_iou", "picture_shape", "colour_error")}
    for i, (instance, mask) in enumerate(zip(truth, case.b)):
        ideal = shape_truth.ideal_mask(target.shape, instance, case.own_size, mask.shape)
        painted = shape_truth.painted_mask(case.y, target.colour, truth, i, case.own_size)
        for kind, shown in (("mask", mask), ("picture", painted)):
            found[f"{kind}_iou"].append(instances.iou(shown, ideal))
            nearest = shape_truth.nearest_shape(shown, instance, case.own_size)
            found[f"{kind}_shape"].append(float(nearest == target.shape))
        error = shape_truth.colour_error(case.y, ideal, target.colour)
        found["colour_error"] += [] if error is None else [error]
    return found


def measure_case(case: Case, judge: Judge, found: Evaluation, left_out: Sequence[str]) -> None:
    """Put the metrics of a translation but those `left_out`, its rank, and the metrics of its input into `found`."""
    looks, rank = judge.look(case)
    measured = {**measure_changes(case), **looks}
    found.measured[TRANSLATED][case.name] = {name: v for name, v in measured.items() if name not in left_out}
    if rank is not None:
        found.ranks[case.name] = rank
    same = replace(case, y=case.x, b=case.a)
    found.measured[NO_TRANSLATION][case.name] = {**measure_changes(same), **judge.look(same)[0]}


class Evaluator:
    """What the evaluation of both directions shares: the data, the size to work at, the classifiers, Inception."""

    def __init__(
        self,
        args: argparse.Namespace,
        directions: Sequence[str],
        size: Size,
        network: Optional[inception.LocalInceptionV3],
    ) -> None:
        self.args, self.size, self.network, self.folder = args, size, network, Path(args.output)
        self.items = {letter: self._items(letter, [d[0] for d in directions]) for letter in "AB"}
        self.truths = {letter: shape_truth.read_instances(args.dataroot, args.phase, letter) for letter in "AB"}
        training = {letter: self._read_training(letter) for letter in "AB"}
        beside = model_file.find_model(args.model).parent
        self.of_pictures = classifier.cached("pictures", beside, {k: v[0] for k, v in training.items()})
        self.of_instances = classifier.cached("instances", beside, {k: v[1] for k, v in training.items()})
        targets = {d[-1] for d in directions} if network else ()
        self.reference = {letter: network.features(training[letter][2]) for letter in targets}

    def evaluate(self, direction: str, translator: Translator) -> Evaluation:
        """Translate the pictures of a direction's source and measure them, beside the untouched and the real ones."""
        source, target = direction[0], direction[-1]
        judge = self._judge(source, target)
        rng = np.random.default_rng(self.args.seed)
        found = Evaluation(ranked_by=judge.ranked_by)
        # for FID, which looks at all of them together
        shown: Dict[str, List[np.ndarray]] = {NO_TRANSLATION: [], TRANSLATED: [], REAL: []}
        for item in tqdm(self.items[source], desc=f"evaluating {direction}", unit="picture"):
            case = self.translate(item, source, translator, rng)
            if not len(case.a):
                tqdm.write(printable(f"{item.name}: all its masks are empty; left out"))
                continue
            # a model without masks has none to be measured
            measure_case(case, judge, found, () if translator.ins_per else OF_MASKS)
            if self.network:
                shown[TRANSLATED].append(case.y)
                shown[NO_TRANSLATION].append(case.x)
            report.write_cells(self.folder, direction, item.name, cells_of(case))
        if not found.measured[TRANSLATED]:
            raise UserError(f"all masks of {self.args.phase}{source} are empty; is white inside the instance?")
        for item in tqdm(self.items[target], desc=f"real pictures of {target}", unit="picture", leave=False):
            picture, masks = pictures.read_item(item, self.size)
            filled = np.flatnonzero(masks.any(axis=(1, 2)))
            if not len(filled):
                continue
            real = self.case_of(item, target, picture, masks, filled)
            found.measured[REAL][item.name] = judge.look(real)[0]
            if self.network:
                shown[REAL].append(real.y)
        if self.network:
            for column, those in shown.items():
                found.overall[column] = distances(self.network.features(those), self.reference[target]) if those else {}
        return found

    def _judge(self, source: str, target: str) -> Judge:
        """Who looks at translations into `target`; with an eye to shapes where the truth about both is known."""
        truth = shape_truth.read_instances(self.args.dataroot, "train", target)
        ideal = shape_truth.target_of(truth) if truth and self.truths[source] else None
        return Judge(target, self.of_pictures, self.of_instances, ideal)

    def translate(self, item: Item, source: str, translator: Translator, rng: np.random.Generator) -> Case:
        """Translate the instances of one picture."""
        picture, masks = pictures.read_item(item, self.size)
        picture, masks = pictures.to_network(picture), pictures.masks_to_network(masks)
        ins_max = self.args.ins_max if translator.ins_per else 0
        chosen = instances.select(masks, ins_max, self.args.set_order, rng)
        y, b = translator.translate(picture, masks[chosen])
        if not translator.ins_per:
            # a model without masks leaves them as they are
            chosen = np.flatnonzero((masks > 0).any(axis=(1, 2)))
            b = masks[chosen]
        case = self.case_of(item, source, pictures.to_picture(picture), masks > 0, chosen)
        return replace(case, y=pictures.to_picture(y), b=b > 0)

    def case_of(self, item: Item, letter: str, picture: np.ndarray, masks: np.ndarray, chosen: np.ndarray) -> Case:
        """A picture (H, W, 3) uint8 of domain `letter` as it is, with the `chosen` ones of its masks (N, H, W) bool."""
        known = dict(enumerate((self.truths[letter] or {}).get(item.name, [])))
        numbers = [list(item.masks)[i] for i in chosen]
        truth = [known[n] for n in numbers] if known and set(numbers) <= set(known) else None
        spared = np.delete(masks, chosen, axis=0)
        own_size = pictures.read_picture(item.image).shape[:2] if truth is not None else picture.shape[:2]
        return Case(item.name, picture, masks[chosen], picture, masks[chosen], spared, truth, own_size)

    @property
    def accuracy(self) -> Dict[str, float]:
        """That of the classifiers, on pictures kept out of their training."""
        return {"pictures": self.of_pictures.accuracy, "instances": self.of_instances.accuracy}

    def notes(self) -> List[str]:
        """How far the classification score can be trusted."""
        accuracy = list(zip(("whole pictures", "instance crops"), self.accuracy.values()))
        text = " and ".join(f"{value:.1%} of {what}" for what, value in accuracy)
        found = [f"The classifiers are right about {text} that they were not trained on."]
        for what, value in accuracy:
            if not value >= classifier.LEAST_ACCURACY:
                found.append(f"Warning: {value:.1%} is too little for the score of {what} to mean much.")
        if self.args.phase == "train":
            found.append("Warning: model and classifiers were trained on these very pictures.")
        return found

    def _items(self, letter: str, sources: Sequence[str]) -> List[Item]:
        """The pictures to translate, where the domain is among `sources`, or else to show what real ones get."""
        root, phase = self.args.dataroot, self.args.phase
        if letter in sources:
            return items_with_masks(root, phase, letter, "give another --phase")
        folder = Path(root, f"{phase}{letter}")
        items = [i for i in find_items(root, phase, letter) if i.masks] if folder.is_dir() else []
        if not items:
            print(f"no real target pictures to compare with: {folder} is not there, or has no masks")
        return items

    def _read_training(self, letter: str) -> Tuple[classifier.Samples, classifier.Samples, List[np.ndarray]]:
        """Training pictures and crops of their instances for the classifiers, and the pictures as they are for FID."""
        items = items_with_masks(self.args.dataroot, "train", letter, "the classifiers learn from them")
        spaced = np.linspace(0, len(items) - 1, min(len(items), MOST_TRAINING_PICTURES)).round().astype(int)
        whole, crops, owners, shown = [], [], [], []
        for i in tqdm(spaced, desc=f"reading train{letter}", unit="picture", leave=False):
            picture, masks = pictures.read_item(items[i], self.size)
            own = [classifier.instance_crop(picture, mask) for mask in masks if mask.any()]
            crops += own
            owners += [len(whole)] * len(own)
            whole += [classifier.whole(picture)] if own else []
            shown += [picture] if own and self.network else []
        if not crops:
            raise UserError(f"all masks of {self.args.dataroot}/train{letter} are empty; is white inside the instance?")
        of_pictures = classifier.Samples(np.stack(whole), np.arange(len(whole)))
        return of_pictures, classifier.Samples(np.stack(crops), np.array(owners)), shown


def items_with_masks(root: str, phase: str, letter: str, hint: str) -> List[Item]:
    """The pictures of a phase and domain that have masks.

    Raises:
        UserError: where there are none; it ends with `hint`.
    """
    items = [item for item in find_items(root, phase, letter) if item.masks]
    if not items:
        raise UserError(f"no picture in {root}/{phase}{letter} has a mask; {hint}")
    return items


def cells_of(case: Case) -> List[np.ndarray]:
    """The pictures of a case, as `report.CELLS` names them."""
    a, b = (colour_masks(pictures.masks_to_network(masks)) for masks in (case.a, case.b))
    change = np.abs(case.x.astype(np.float32) - case.y).mean(axis=2)
    return [case.x, a, case.y, b, np.repeat(change.round().astype(np.uint8)[..., None], 3, axis=2)]


def distances(features: np.ndarray, reference: np.ndarray) -> Dict[str, float]:
    """FID and KID of two sets of features; nothing where one has a single picture."""
    if min(len(features), len(reference)) < 2:
        return {}
    return {
        "fid": scores.frechet_distance(features, reference),
        "kid": scores.kernel_distance(features, reference),
    }
