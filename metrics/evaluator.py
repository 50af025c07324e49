# SPDX-License-Identifier: Apache-2.0
"""Translate held-out pictures and measure the results."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np
from tqdm import tqdm

from common.errors import UserError, printable
from data import instances, pictures
from data.items import Item, find_items
from metrics import classifier, inception, report, scores, shape_truth
from metrics.cases import OF_MASKS, Case, Judge, measure_case, not_empty, read_case, translate_case
from metrics.report import NO_TRANSLATION, REAL, TRANSLATED, Evaluation
from translation.translator import Translator

MOST_TRAINING_PICTURES = 1000  # of each domain, for the classifiers and FID


@dataclass(frozen=True)
class EvaluationSettings:
    """The data to evaluate on, at `size` (height, width), and which instances are translated, in which order."""

    dataroot: str
    phase: str
    size: Tuple[int, int]
    ins_max: Optional[int]
    set_order: str
    seed: int


class Evaluator:
    """Evaluates translations in both directions, with the same data, classifiers and Inception network.

    Pictures of the cases are written into `folder`; classifiers are kept in `classifier_folder`.
    """

    def __init__(
        self,
        settings: EvaluationSettings,
        directions: Sequence[str],
        folder: Path,
        classifier_folder: Path,
        network: Optional[inception.LocalInceptionV3],
    ) -> None:
        self.settings = settings
        self.folder = folder
        self.network = network
        sources = [direction[0] for direction in directions]
        targets = {direction[-1] for direction in directions}
        self.items = {domain: self._find_items(domain, domain in sources) for domain in "AB"}
        self.truths = {
            domain: shape_truth.read_instances(settings.dataroot, settings.phase, domain) for domain in "AB"
        }
        training = {
            domain: read_training(settings.dataroot, domain, settings.size, keep_pictures=network is not None)
            for domain in "AB"
        }
        self.of_pictures = classifier.cached(
            "pictures", classifier_folder, {domain: data.whole for domain, data in training.items()}
        )
        self.of_instances = classifier.cached(
            "instances", classifier_folder, {domain: data.crops for domain, data in training.items()}
        )
        self.reference: Dict[str, np.ndarray] = {}
        if network:
            self.reference = {domain: network.features(training[domain].pictures) for domain in targets}

    @property
    def accuracy(self) -> Dict[str, float]:
        """The classifiers' accuracies, on pictures held out from their training."""
        return {"pictures": self.of_pictures.accuracy, "instances": self.of_instances.accuracy}

    def evaluate(self, direction: str, translator: Translator) -> Evaluation:
        """Translate the pictures of a direction's source and measure them, beside the untouched and the real ones."""
        source = direction[0]
        target = direction[-1]
        judge = self._judge(source, target)
        evaluation = Evaluation(ranked_by=judge.ranked_by)
        # for FID, which compares whole sets of pictures
        seen: Dict[str, List[np.ndarray]] = {NO_TRANSLATION: [], TRANSLATED: [], REAL: []}
        rng = np.random.default_rng(self.settings.seed)
        for item in tqdm(self.items[source], desc=f"evaluating {direction}", unit="picture"):
            case = self._translate(item, source, translator, rng)
            if not len(case.a):
                tqdm.write(printable(f"{item.name}: all its masks are empty; left out"))
                continue
            measure_case(case, judge, evaluation, left_out=() if translator.ins_per else OF_MASKS)
            report.write_cells(self.folder, direction, item.name, case.cells())
            if self.network:
                seen[TRANSLATED].append(case.y)
                seen[NO_TRANSLATION].append(case.x)
        if not evaluation.measured[TRANSLATED]:
            raise UserError(f"all masks of {self.settings.phase}{source} are empty; is white inside the instance?")
        for item in tqdm(self.items[target], desc=f"real pictures of {target}", unit="picture", leave=False):
            case = self._real(item, target)
            if len(case.a):
                evaluation.measured[REAL][item.name], _ = judge.measure(case)
                if self.network:
                    seen[REAL].append(case.y)
        if self.network:
            for column, images in seen.items():
                features = self.network.features(images) if images else ()
                evaluation.overall[column] = distances(features, self.reference[target])
        return evaluation

    def _judge(self, source: str, target: str) -> Judge:
        """The judge of translations into `target`; it measures shapes too if the truth about both domains is known."""
        truth = shape_truth.read_instances(self.settings.dataroot, "train", target)
        shape = shape_truth.target_of(truth) if truth and self.truths[source] else None
        return Judge(target, self.of_pictures, self.of_instances, shape)

    def _translate(self, item: Item, source: str, translator: Translator, rng: np.random.Generator) -> Case:
        """Translate the instances of one picture."""
        select = partial(instances.select, ins_max=self.settings.ins_max, set_order=self.settings.set_order, rng=rng)
        choose = select if translator.ins_per else not_empty
        return translate_case(read_case(item, self.settings.size, self._known(item, source), choose), translator)

    def _real(self, item: Item, target: str) -> Case:
        """A real picture of the target domain, as if it were a translation; with its masks that are not empty."""
        return read_case(item, self.settings.size, self._known(item, target))

    def _known(self, item: Item, domain: str) -> List[shape_truth.Instance]:
        """The instances of a picture's masks 0, 1, ...; none where the truth is not known."""
        return (self.truths[domain] or {}).get(item.name, [])

    def _find_items(self, domain: str, is_source: bool) -> List[Item]:
        """The pictures of a domain: to translate if it `is_source`, otherwise only to measure as real ones."""
        root = self.settings.dataroot
        phase = self.settings.phase
        if is_source:
            return items_with_masks(root, phase, domain, "give another --phase")
        folder = Path(root, f"{phase}{domain}")
        items = [item for item in find_items(root, phase, domain) if item.masks] if folder.is_dir() else []
        if not items:
            print(f"no real target pictures to compare with: {folder} is missing, or has no masks")
        return items


@dataclass(frozen=True)
class TrainingData:
    """Training pictures of a domain: whole ones and crops of their instances for the classifiers, and the pictures as
    they are for FID (none where it is not computed)."""

    whole: classifier.Samples
    crops: classifier.Samples
    pictures: List[np.ndarray]


def read_training(dataroot: str, domain: str, size: Tuple[int, int], keep_pictures: bool = False) -> TrainingData:
    """Read the training pictures of a domain at `size`, evenly spaced ones where there are very many.

    Raises:
        UserError: where none has a mask, or all masks are empty.
    """
    items = items_with_masks(dataroot, "train", domain, "the classifiers learn from them")
    spaced = np.linspace(0, len(items) - 1, min(len(items), MOST_TRAINING_PICTURES)).round().astype(int)
    originals: List[np.ndarray] = []
    whole: List[np.ndarray] = []
    crops: List[np.ndarray] = []
    owners: List[int] = []
    for i in tqdm(spaced, desc=f"reading train{domain}", unit="picture", leave=False):
        picture, masks = pictures.read_item(items[i], size)
        crops_of_picture = [classifier.instance_crop(picture, mask) for mask in masks if mask.any()]
        if not crops_of_picture:
            continue
        crops += crops_of_picture
        owners += [len(whole)] * len(crops_of_picture)
        whole.append(classifier.whole(picture))
        if keep_pictures:
            originals.append(picture)
    if not crops:
        raise UserError(f"all masks of {dataroot}/train{domain} are empty; is white inside the instance?")
    return TrainingData(
        classifier.Samples(np.stack(whole), np.arange(len(whole))),
        classifier.Samples(np.stack(crops), np.array(owners)),
        originals,
    )


def items_with_masks(root: str, phase: str, domain: str, hint: str) -> List[Item]:
    """The pictures of a phase and domain that have masks.

    Raises:
        UserError: where there are none; the message ends with `hint`.
    """
    items = [item for item in find_items(root, phase, domain) if item.masks]
    if not items:
        raise UserError(f"no picture in {root}/{phase}{domain} has a mask; {hint}")
    return items


def notes(accuracy: Dict[str, float], phase: str) -> List[str]:
    """Sentences about how reliable the classification scores are, by `Evaluator.accuracy` and the evaluated phase."""
    names = {"pictures": "whole pictures", "instances": "instance crops"}
    shares = " and ".join(f"{value:.1%} of {names[kind]}" for kind, value in accuracy.items())
    sentences = [f"The classifiers are right about {shares} that they were not trained on."]
    for kind, value in accuracy.items():
        if not value >= classifier.LEAST_ACCURACY:
            sentences.append(f"Warning: {value:.1%} is too low for the score of {names[kind]} to mean much.")
    if phase == "train":
        sentences.append("Warning: model and classifiers were trained on these very pictures.")
    return sentences


def distances(features: Sequence[np.ndarray], reference: np.ndarray) -> Dict[str, float]:
    """FID and KID of two sets of features; empty where one of the sets has fewer than two."""
    if min(len(features), len(reference)) < 2:
        return {}
    return {
        "fid": scores.frechet_distance(features, reference),
        "kid": scores.kernel_distance(features, reference),
    }
