# SPDX-License-Identifier: Apache-2.0
"""Evaluation during training: a few held-out pictures, always the same ones, translated and measured.

The figures are those of evaluate.py that cost little (metrics/cases.py). One number, the score from 0 to 1, says which
model of a run is the best. A model that returns its input has the best background of all, so its score has to be about
0, and that of one that paints over everything low:

- Where the truth is known (shapes data), it is the IoU of what is painted with the ideal shape of the target domain.
  Unchanged pictures have less than 0.02, pictures in one colour below 0.5, circles in the colour of squares 0.79.
- Elsewhere it is `instance_scores` by a small classifier of instance crops, as evaluate.py has without a pretrained
  network. It is trained before the first evaluation, on the training pictures, and kept beside the models. A classifier
  knows two kinds of picture only: garbage that it takes for the target domain has a high score.

In both cases it is the mean over all instances of a direction, and then over both directions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Callable, Dict, List, Optional, Tuple

import numpy as np

from common.errors import UserError
from common.progress import say
from data import instances
from data.items import Item, evenly_spaced, find_items_with_masks
from metrics import classifier, shape_truth
from metrics.cases import (
    Case,
    instance_crops,
    measure_changes,
    measure_shapes,
    not_empty,
    of_model,
    probability,
    read_case,
    translate_case,
)
from metrics.evaluator import read_training
from metrics.report import TRANSLATED, Measured
from metrics.report import Evaluation as Measurements
from models import GENERATORS
from training.settings import Settings
from translation.translator import Translator

PICTURES = 8  # of each domain
# the first whose pictures have masks in both domains; "val" first, since evaluate.py measures "test" by default, and
# figures of the pictures that the best model was chosen on are too good
PHASES = ("val", "test", "sample")
LEAST_ITERATIONS = 200  # between two evaluations, which take about as long as 1.5 iterations


@dataclass(frozen=True)
class Basis:
    """The basis of a score: the phase and the names of the pictures by direction, and what is measured, in words.

    Only scores of the same basis can be compared.
    """

    phase: str
    pictures: Dict[str, List[str]]
    score_name: str


@dataclass(frozen=True)
class Figures:
    """The means of an evaluation: by direction and by their names in `metrics.report.METRICS`, and the score from 0 to
    1, None where nothing can tell which translations are good; and the `basis` of the score."""

    of_direction: Dict[str, Dict[str, float]]
    score: Optional[float]
    basis: Basis


class HeldOut:
    """The held-out pictures of a data set, and the generators in NNabla's current scope that translate them.

    `model_folder` is where the classifier is kept. Nothing that the training depends on changes: neither parameters,
    running statistics nor random states.

    Raises:
        UserError: where the data set has no held-out pictures with masks, or they cannot be read.
    """

    def __init__(self, dataroot: str | Path, settings: Settings, model_folder: Path) -> None:
        self._dataroot = str(dataroot)
        self._size = settings.size
        self._model_folder = model_folder
        self._translators = {
            direction: Translator(network, settings.architecture, settings.ins_per, settings.keeps_background)
            for direction, network in GENERATORS.items()
        }
        phase, items = _find(self._dataroot)
        self._cases: Dict[str, List[Case]] = {}
        self._targets: Dict[str, shape_truth.Target] = {}
        for direction in GENERATORS:
            source = direction[0]
            truth = shape_truth.read_instances(dataroot, phase, source)
            training_truth = shape_truth.read_instances(dataroot, "train", direction[-1])
            self._cases[direction] = self._read(items[source], settings, truth or {})
            target = shape_truth.target_of(training_truth) if truth and training_truth else None
            if target and all(case.truth for case in self._cases[direction]):
                self._targets[direction] = target
        # either for both directions or for none, since the score is a mean over both
        self.knows_truth = len(self._targets) == len(GENERATORS)
        score_name = "how sure a classifier is of the instances, where masks and background hold"
        if self.knows_truth:
            score_name = "the IoU of what is painted with the ideal shape"
        names = {direction: [case.name for case in cases] for direction, cases in self._cases.items()}
        self._basis = Basis(phase, names, score_name)
        # by direction, a value for each case
        self._had_background = {
            direction: [bool(measure_changes(case)["background_ssim"]) for case in cases]
            for direction, cases in self._cases.items()
        }

    def describe(self) -> str:
        """The pictures and the way in which the best model is chosen, in words."""
        counts = " and ".join(f"{len(cases)} pictures of {self._basis.phase}{d[0]}" for d, cases in self._cases.items())
        return f"{counts}; the best model by {self._basis.score_name}"

    def measure(self) -> Figures:
        """Translate the pictures with the generators as they are, and measure the results."""
        of_direction = {}
        scores = []
        for direction in GENERATORS:
            of_direction[direction], of_instances = self._measure(direction)
            if of_instances:
                scores.append(float(np.mean(of_instances)))
        score = float(np.mean(scores)) if len(scores) == len(GENERATORS) else None
        return Figures(of_direction, score, self._basis)

    def _measure(self, direction: str) -> Tuple[Dict[str, float], List[float]]:
        """The means of a direction's metrics, and the scores of its instances; none where nothing can tell."""
        translator = self._translators[direction]
        measurements = Measurements()
        scores: List[float] = []
        for case, had_background in zip(self._cases[direction], self._had_background[direction]):
            translated = translate_case(case, translator)
            measured, of_instances = self._judge(translated, direction, had_background)
            measurements.measured[TRANSLATED][case.name] = of_model(measured, translator.ins_per > 0)
            scores += of_instances
        return measurements.means(TRANSLATED), scores

    def _judge(self, case: Case, direction: str, had_background: bool) -> Tuple[Measured, List[float]]:
        """The metrics of a translated picture, and the scores of its instances; none where nothing can tell."""
        measured = measure_changes(case)
        if self.knows_truth:
            measured.update(measure_shapes(case, case.truth, self._targets[direction]))
            return measured, measured["picture_iou"]
        if self._classifier is None:
            return measured, []
        sureness = probability(self._classifier, direction[-1], instance_crops(case))
        measured["score_instances"] = (sureness > 0.5).astype(float).tolist()
        return measured, instance_scores(sureness, measured, had_background).tolist()

    def _read(self, items: List[Item], settings: Settings, known: Dict[str, List[shape_truth.Instance]]) -> List[Case]:
        """The cases of the pictures, with all their instances in the order of the training, as in evaluate.py."""
        choose: Callable[[np.ndarray], np.ndarray] = not_empty
        if settings.ins_per:
            rng = np.random.default_rng(0)
            choose = partial(instances.select, ins_max=None, set_order=settings.set_order, rng=rng)
        cases = [read_case(item, self._size, known.get(item.name, []), choose) for item in items]
        with_instances = [case for case in cases if len(case.a)]
        if not with_instances:
            raise UserError(f"all masks of {items[0].image.parent} are empty")
        return with_instances

    @cached_property
    def _classifier(self) -> Optional[classifier.Classifier]:
        """The classifier of instances; None where the data set is too small to train one.

        It is trained at the first use, which a run that is stopped early never comes to.
        """
        try:
            samples = {letter: read_training(self._dataroot, letter, self._size).crops for letter in "AB"}
            trained = classifier.cached("instances", self._model_folder, samples)
        except UserError as error:
            say(f"no model is chosen as the best: {error}")
            return None
        if not trained.accuracy >= classifier.LEAST_ACCURACY:
            say(
                f"warning: the classifier that chooses the best model is right about {trained.accuracy:.1%} of "
                "instances only, so its choice means little; look at the samples too"
            )
        return trained


def instance_scores(sureness: np.ndarray, measured: Measured, had_background: bool) -> np.ndarray:
    """The scores (N,) from 0 to 1 of the instances of a translated picture.

    `sureness` (N,) is the probability by which the classifier takes each for one of the target domain. It counts only
    as far as the background is still there (SSIM), and not at all where the mask has vanished or covers over four times
    as much. `measured` is of `measure_changes`; `had_background` says whether the input has any.
    """
    background = 1.0
    if had_background:
        # none is left where new masks cover all of it
        background = max([0.0, *measured["background_ssim"]])
    return sureness * (1 - np.array(measured["collapsed"])) * background


@dataclass(frozen=True)
class Schedule:
    """The epochs after which a model is evaluated: every `interval` of them, and the `last_epoch` planned; none at all
    where the interval is 0."""

    interval: int
    last_epoch: int

    def is_due(self, epochs: int) -> bool:
        """Return whether an evaluation is due after `epochs` epochs."""
        if not self.interval:
            return False
        return epochs % self.interval == 0 or epochs == self.last_epoch

    def count(self, epochs: int) -> int:
        """The number of evaluations in the first `epochs` epochs."""
        return sum(self.is_due(epoch) for epoch in range(1, epochs + 1))

    def describe(self) -> str:
        """The epochs in words, where there are any."""
        if self.interval >= self.last_epoch:
            return "the last epoch" if self.last_epoch > 1 else "the only epoch"
        if self.interval == 1:
            return "every epoch"
        last = " and the last one" if self.last_epoch % self.interval else ""
        return f"every {self.interval} epochs{last}"


def interval(asked: Optional[int], iterations_per_epoch: int) -> int:
    """The epochs between two evaluations (0: none), as `asked` for by --evaluate-interval, or by default."""
    if asked is not None:
        return asked
    return -(-LEAST_ITERATIONS // iterations_per_epoch)


def _find(dataroot: str) -> Tuple[str, Dict[str, List[Item]]]:
    """The phase of the held-out pictures, and evenly spaced ones of each domain, by its letter."""
    for phase in PHASES:
        if not all(Path(dataroot, f"{phase}{letter}").is_dir() for letter in "AB"):
            continue
        items = {letter: find_items_with_masks(dataroot, phase, letter) for letter in "AB"}
        if all(items.values()):
            return phase, {letter: evenly_spaced(of_domain, PICTURES) for letter, of_domain in items.items()}
    names = " or ".join(f"{phase}A and {phase}B" for phase in PHASES)
    raise UserError(f"{dataroot} has no {names} with masks")
