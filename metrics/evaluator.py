# SPDX-License-Identifier: Apache-2.0
"""Translate held-out pictures and measure the results."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np
from tqdm import tqdm

from common.errors import UserError, printable
from data import instances, pictures
from data.items import Item, evenly_spaced, find_items_with_masks
from metrics import classifier, efficientnet_lite0, feature_sets, inception, report, scores, shape_truth
from metrics.cases import Case, Judge, instance_crops, measure_case, not_empty, read_case, translate_case
from metrics.feature_classifier import FeatureClassifier
from metrics.feature_sets import FeatureSet, views_of
from metrics.features import FeatureStore
from metrics.report import NO_TRANSLATION, REAL, TRANSLATED, Evaluation
from translation.translator import Translator

MOST_TRAINING_PICTURES = 1000  # of each domain, for the small classifiers and FID
MOST_FOR_FEATURES = 150  # of each domain, for all that is made of EfficientNet-Lite0's features


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
    """Evaluates translations in both directions, with the same data, classifiers and networks.

    Pictures of the cases are written into `folder`. With a `store` of EfficientNet-Lite0's features classifiers learn
    from these, and distances of them are measured; without it, small classifiers are kept in `classifier_folder`. FID
    and KID are measured with an Inception `network`.
    """

    def __init__(
        self,
        settings: EvaluationSettings,
        directions: Sequence[str],
        folder: Path,
        classifier_folder: Path,
        network: Optional[inception.LocalInceptionV3],
        store: Optional[FeatureStore] = None,
    ) -> None:
        self.settings = settings
        self.folder = folder
        self.network = network
        self.store = store
        sources = [direction[0] for direction in directions]
        targets = {direction[-1] for direction in directions}
        self.items = {domain: self._find_items(domain, domain in sources) for domain in "AB"}
        self.truths = {
            domain: shape_truth.read_instances(settings.dataroot, settings.phase, domain) for domain in "AB"
        }
        self.reference: Dict[str, np.ndarray] = {}
        if network:
            for domain in targets:
                training = training_pictures(settings.dataroot, domain, settings.size, MOST_TRAINING_PICTURES)
                self.reference[domain] = network.features([picture for picture, _ in training])
        self.real_features: Dict[str, FeatureSet] = {}
        if store:
            self.of_pictures, self.of_instances = self._learn_from_features(store)
        else:
            self.of_pictures, self.of_instances = self._train_small_classifiers(classifier_folder)

    @property
    def accuracy(self) -> Dict[str, float]:
        """The classifiers' accuracies, on pictures held out from their training."""
        return {"pictures": self.of_pictures.accuracy, "instances": self.of_instances.accuracy}

    @property
    def judged_by(self) -> str:
        """The kind of the classifiers."""
        return "EfficientNet-Lite0" if self.store else "small"

    def evaluate(self, direction: str, translator: Translator) -> Evaluation:
        """Translate the pictures of a direction's source and measure them, beside the untouched and the real ones."""
        source = direction[0]
        target = direction[-1]
        judge = self._judge(source, target)
        evaluation = Evaluation(ranked_by=judge.ranked_by)
        # for the distances between whole sets of pictures
        sets = _Sets(self.network, self.store)
        lite = self.store.network if self.store else None
        rng = np.random.default_rng(self.settings.seed)
        for item in tqdm(self.items[source], desc=f"evaluating {direction}", unit="picture"):
            case = self._translate(item, source, translator, rng)
            if not len(case.a):
                tqdm.write(printable(f"{item.name}: all its masks are empty; left out"))
                continue
            measure_case(case, judge, evaluation, translator.ins_per > 0, lite)
            report.write_cells(self.folder, direction, item.name, case.cells())
            sets.add(TRANSLATED, case)
            sets.add(NO_TRANSLATION, case.untouched())
        if not evaluation.measured[TRANSLATED]:
            raise UserError(f"all masks of {self.settings.phase}{source} are empty; is white inside the instance?")
        for item in tqdm(self.items[target], desc=f"real pictures of {target}", unit="picture", leave=False):
            case = self._real(item, target)
            if len(case.a):
                evaluation.measured[REAL][item.name], _ = judge.measure(case)
                sets.add(REAL, case)
        for column in report.COLUMNS:
            if column == REAL and self.settings.phase == "train":
                # they would be compared with themselves
                continue
            if self.store:
                of_features = feature_sets.distances_between(
                    sets.features[column], self.real_features[target], self.settings.seed
                )
                evaluation.overall[column].update(of_features)
            if self.network:
                evaluation.overall[column].update(sets.inception_distances(column, self.reference[target]))
        return evaluation

    def _judge(self, source: str, target: str) -> Judge:
        """The judge of translations into `target`; it measures shapes too if the truth about both domains is known."""
        truth = shape_truth.read_instances(self.settings.dataroot, "train", target)
        shape = shape_truth.target_of(truth) if truth and self.truths[source] else None
        size = efficientnet_lite0.SIZE if self.store else classifier.SIZE
        return Judge(target, self.of_pictures, self.of_instances, shape, size)

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
        items = find_items_with_masks(root, phase, domain) if folder.is_dir() else []
        if not items:
            print(f"no real target pictures to compare with: {folder} is missing, or has no masks")
        return items

    def _learn_from_features(self, store: FeatureStore) -> Tuple[FeatureClassifier, FeatureClassifier]:
        """Classifiers of pictures and instances that learn from the features of the training pictures.

        The features of both domains' pictures as they are stay in `real_features`.
        """
        settings = self.settings
        mirrored = {}
        for domain in "AB":
            self.real_features[domain] = FeatureSet(store)
            mirrored[domain] = FeatureSet(store)
            for picture, masks in training_pictures(settings.dataroot, domain, settings.size, MOST_FOR_FEATURES):
                crops = [classifier.instance_crop(picture, mask, efficientnet_lite0.SIZE) for mask in masks]
                views = views_of(picture, crops)
                self.real_features[domain].add(views)
                mirrored[domain].add(feature_sets.mirrored(views))
        store.save()

        def learn(kind: str) -> FeatureClassifier:
            a, b = (
                feature_sets.together([self.real_features[domain].of(kind), mirrored[domain].of(kind)])
                for domain in "AB"
            )
            return FeatureClassifier(store, a, b)

        return learn("pictures"), learn("instances")

    def _train_small_classifiers(self, folder: Path) -> Tuple[classifier.Classifier, classifier.Classifier]:
        """Classifiers of pictures and instances, read from `folder` if they were trained before."""
        training = {domain: read_training(self.settings.dataroot, domain, self.settings.size) for domain in "AB"}
        whole = {domain: data.whole for domain, data in training.items()}
        crops = {domain: data.crops for domain, data in training.items()}
        return classifier.cached("pictures", folder, whole), classifier.cached("instances", folder, crops)


class _Sets:
    """The pictures of each column of an evaluation, for distances between sets of pictures."""

    def __init__(self, network: Optional[inception.LocalInceptionV3], store: Optional[FeatureStore]) -> None:
        self._network = network
        self._pictures: Dict[str, List[np.ndarray]] = {column: [] for column in report.COLUMNS}
        self.features = {column: FeatureSet(store) for column in report.COLUMNS} if store else {}

    def add(self, column: str, case: Case) -> None:
        """Add the translation of a case."""
        if self._network:
            self._pictures[column].append(case.y)
        if self.features:
            self.features[column].add(views_of(case.y, instance_crops(case, efficientnet_lite0.SIZE)))

    def inception_distances(self, column: str, reference: np.ndarray) -> Dict[str, Dict[str, Any]]:
        """FID and KID of a column from the features of real pictures."""
        images = self._pictures[column]
        return distances(self._network.features(images) if images else (), reference)


@dataclass(frozen=True)
class TrainingData:
    """Training pictures of a domain for the small classifiers: whole ones, and crops of their instances."""

    whole: classifier.Samples
    crops: classifier.Samples


def read_training(dataroot: str, domain: str, size: Tuple[int, int]) -> TrainingData:
    """Read the training pictures of a domain at `size`, evenly spaced ones where there are very many.

    Raises:
        UserError: where none has a mask, or all masks are empty.
    """
    whole: List[np.ndarray] = []
    crops: List[np.ndarray] = []
    owners: List[int] = []
    for picture, masks in training_pictures(dataroot, domain, size, MOST_TRAINING_PICTURES):
        crops += [classifier.instance_crop(picture, mask) for mask in masks]
        owners += [len(whole)] * len(masks)
        whole.append(classifier.whole(picture))
    return TrainingData(
        classifier.Samples(np.stack(whole), np.arange(len(whole))),
        classifier.Samples(np.stack(crops), np.array(owners)),
    )


def training_pictures(
    dataroot: str, domain: str, size: Tuple[int, int], most: int
) -> Iterator[Tuple[np.ndarray, np.ndarray]]:
    """Up to `most` training pictures (H, W, 3) of a domain at `size`, evenly spaced by name, with their masks
    (N, H, W) that are not empty.

    Raises:
        UserError: where none has a mask, or all masks are empty.
    """
    items = items_with_masks(dataroot, "train", domain, "the classifiers learn from them")
    is_empty = True
    for item in tqdm(evenly_spaced(items, most), desc=f"reading train{domain}", unit="picture", leave=False):
        picture, masks = pictures.read_item(item, size)
        masks = masks[not_empty(masks)]
        if len(masks):
            is_empty = False
            yield picture, masks
    if is_empty:
        raise UserError(f"all masks of {dataroot}/train{domain} are empty; is white inside the instance?")


def items_with_masks(root: str, phase: str, domain: str, hint: str) -> List[Item]:
    """The pictures of a phase and domain that have masks.

    Raises:
        UserError: where there are none; the message ends with `hint`.
    """
    items = find_items_with_masks(root, phase, domain)
    if not items:
        raise UserError(f"no picture in {root}/{phase}{domain} has a mask; {hint}")
    return items


def notes(accuracy: Dict[str, float], phase: str, chosen_on: Optional[str] = None) -> List[str]:
    """Sentences about how reliable the scores are, by `Evaluator.accuracy`, the evaluated phase, and the phase on some
    of whose pictures the model was chosen as the best of its run, if it was."""
    names = {"pictures": "whole pictures", "instances": "instance crops"}
    shares = " and ".join(f"{value:.1%} of {names[kind]}" for kind, value in accuracy.items())
    sentences = [f"The classifiers are right about {shares} that they were not trained on."]
    for kind, value in accuracy.items():
        if not value >= classifier.LEAST_ACCURACY:
            sentences.append(f"Warning: {value:.1%} is too low for the score of {names[kind]} to mean much.")
    if phase == "train":
        sentences.append("Warning: model and classifiers were trained on these very pictures.")
        sentences.append("Real target pictures have no distances: they are those that the others are compared with.")
    if phase == chosen_on:
        sentences.append(
            f"Warning: the model was chosen as the best of its run on some of these {phase} pictures, so its figures "
            "are too good."
        )
    return sentences


def distances(features: Sequence[np.ndarray], reference: np.ndarray) -> Dict[str, Dict[str, Any]]:
    """FID and KID of two sets of features by metric, as `Evaluation.summary` has them; empty where a set has fewer than
    two."""
    if min(len(features), len(reference)) < 2:
        return {}
    return {
        "fid": {"mean": scores.frechet_distance(features, reference)},
        "kid": {"mean": scores.kernel_distance(features, reference)},
    }
