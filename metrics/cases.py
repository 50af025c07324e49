# SPDX-License-Identifier: Apache-2.0
"""Measure one translated picture: by itself, beside its input, and beside the ideal shapes where they are known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Callable, List, Optional, Sequence, Tuple, Union

import numpy as np

from data import instances, pictures
from data.items import Item
from metrics import classifier, distances, efficientnet_lite0, scores, shape_truth
from metrics.efficientnet_lite0 import EfficientNetLite0
from metrics.feature_classifier import FeatureClassifier
from metrics.report import NO_TRANSLATION, TRANSLATED, Evaluation, Measured
from translation.drawing import colour_masks
from translation.translator import Translator

Classifier = Union[classifier.Classifier, FeatureClassifier]

# metrics of the translated masks, which a model without masks does not have
OF_MASKS = ("area_ratio", "collapsed", "agreement", "mask_iou", "mask_shape")
# the network's input is 0 there
GREY = int(efficientnet_lite0.MEAN)


@dataclass(frozen=True)
class Case:
    """A picture x with the masks a of its instances, and their translations y and b.

    x and y are (H, W, 3) uint8, a and b (N, H, W) bool. `spared` (M, H, W) are the masks of instances that were not to
    be translated. `truth` are the instances of a, where they are known (`shape_truth`), in a picture of `own_size`
    (height, width).
    """

    name: str
    x: np.ndarray
    a: np.ndarray
    y: np.ndarray
    b: np.ndarray
    spared: np.ndarray
    truth: Optional[List[shape_truth.Instance]]
    own_size: Tuple[int, int]

    def untouched(self) -> Case:
        """The same case with its input in place of the translation."""
        return replace(self, y=self.x, b=self.a)

    def background(self) -> np.ndarray:
        """The pixels (H, W) bool outside all masks, old and new."""
        return scores.background(np.concatenate([self.a, self.spared]), self.b)

    def cells(self) -> List[np.ndarray]:
        """The pictures to show of this case, as `report.CELLS` names them."""
        a = colour_masks(pictures.masks_to_network(self.a))
        b = colour_masks(pictures.masks_to_network(self.b))
        change = np.abs(self.x.astype(np.float32) - self.y).mean(axis=2).round().astype(np.uint8)
        return [self.x, a, self.y, b, np.repeat(change[..., None], 3, axis=2)]


def not_empty(masks: np.ndarray) -> np.ndarray:
    """The indices of the masks (N, H, W) that are not empty."""
    return np.flatnonzero(masks.any(axis=(1, 2)))


@dataclass(frozen=True)
class Judge:
    """Measures how well pictures show instances of a domain, "A" or "B": by its classifiers, which look at pictures and
    crops of `crop_size` pixels a side, and, where the truth is known, by the shape that instances of that domain have
    (`target`)."""

    domain: str
    of_pictures: Classifier
    of_instances: Classifier
    target: Optional[shape_truth.Target]
    crop_size: int = classifier.SIZE

    @property
    def ranked_by(self) -> str:
        """A description of the number by which `measure` ranks cases."""
        if self.target is not None:
            return "IoU of what is painted with the ideal shape"
        return "how sure the classifier is of the instances"

    def measure(self, case: Case) -> Tuple[Measured, Optional[float]]:
        """Return the metrics of y and b by themselves, and the number to rank the case by, None where it is unknown."""
        instance_scores = probability(self.of_instances, self.domain, instance_crops(case, self.crop_size))
        picture_scores = probability(self.of_pictures, self.domain, [classifier.whole(case.y, self.crop_size)])
        measured: Measured = {
            "score_pictures": (picture_scores > 0.5).astype(float).tolist(),
            "score_instances": (instance_scores > 0.5).astype(float).tolist(),
        }
        if self.target is None:
            return measured, float(instance_scores.mean())
        if case.truth is None:
            return measured, None
        measured.update(measure_shapes(case, case.truth, self.target))
        return measured, float(np.mean(measured["picture_iou"]))


def probability(network: Classifier, domain: str, crops: Sequence[np.ndarray]) -> np.ndarray:
    """The probability (N,) that each crop (size, size, 3) uint8 is of `domain` "A" or "B"."""
    of_b = network.probability(np.stack(crops))
    return of_b if domain == "B" else 1 - of_b


def instance_crops(case: Case, size: int = classifier.SIZE) -> List[np.ndarray]:
    """The crops (size, size, 3) uint8 of the instances in y; of a vanished instance, its old place."""
    places = [new if new.any() else old for old, new in zip(case.a, case.b)]
    return [classifier.instance_crop(case.y, place, size) for place in places]


def read_case(
    item: Item,
    size: Tuple[int, int],
    known: Sequence[shape_truth.Instance],
    choose: Callable[[np.ndarray], np.ndarray] = not_empty,
) -> Case:
    """Read a picture at `size` (height, width) as a case that stays as it is.

    `choose` returns the indices of the masks (N, H, W) bool to translate, in order. `known` are the instances of the
    picture's masks 0, 1, ..., as far as they are known.
    """
    picture, masks = pictures.read_item(item, size)
    chosen = choose(masks)
    numbers = [list(item.masks)[i] for i in chosen]
    truth = None
    own_size = picture.shape[:2]
    if known and set(numbers) <= set(range(len(known))):
        truth = [known[number] for number in numbers]
        own_size = pictures.read_picture(item.image).shape[:2]
    spared = np.delete(masks, chosen, axis=0)
    return Case(item.name, picture, masks[chosen], picture, masks[chosen], spared, truth, own_size)


def translate_case(case: Case, translator: Translator) -> Case:
    """Translate the instances a of a case. A model without masks (`ins_per` 0) leaves these as they are."""
    masks = pictures.masks_to_network(case.a) if translator.ins_per else np.zeros((0, *case.x.shape[:2]), np.float32)
    y, b = translator.translate(pictures.to_network(case.x), masks)
    return replace(case, y=pictures.to_picture(y), b=b > 0 if translator.ins_per else case.a)


def measure_case(
    case: Case,
    judge: Judge,
    evaluation: Evaluation,
    has_masks: bool,
    network: Optional[EfficientNetLite0] = None,
) -> None:
    """Put the metrics of a translation by a model that `has_masks` or not, its rank, and the metrics of its input into
    `evaluation`; the distance of the backgrounds only with a `network`."""
    judged, rank = judge.measure(case)
    measured = {**measure_changes(case), **measure_background(case, network), **judged}
    evaluation.measured[TRANSLATED][case.name] = of_model(measured, has_masks)
    if rank is not None:
        evaluation.ranks[case.name] = rank
    untouched = case.untouched()
    judged_input, _ = judge.measure(untouched)
    evaluation.measured[NO_TRANSLATION][case.name] = {
        **measure_changes(untouched),
        **measure_background(untouched, network),
        **judged_input,
    }


def of_model(measured: Measured, has_masks: bool) -> Measured:
    """The metrics that mean something for a model: those of masks only if it `has_masks`."""
    return {name: values for name, values in measured.items() if has_masks or name not in OF_MASKS}


def measure_changes(case: Case) -> Measured:
    """Metrics of y and b in comparison with x and a."""
    background = case.background()
    ratios = scores.area_ratios(case.a, case.b)
    measured = {
        "background_psnr": [scores.psnr(case.x, case.y, background)],
        "background_ssim": [scores.ssim(case.x, case.y, background)],
        "area_ratio": ratios.tolist(),
        "collapsed": scores.collapsed(ratios).astype(float).tolist(),
        "agreement": [scores.agreement(case.x, case.y, case.a, case.b)],
    }
    return {name: [value for value in values if value is not None] for name, values in measured.items()}


def measure_background(case: Case, network: Optional[EfficientNetLite0]) -> Measured:
    """The distance of x and y by the network's features of their backgrounds; none without a network.

    Both pictures are grey in all masks, old and new, so that what is there does not count.
    """
    if network is None:
        return {}
    background = case.background()
    filled = [np.where(background[..., None], picture, np.uint8(GREY)) for picture in (case.x, case.y)]
    if np.array_equal(*filled):
        distance = 0.0 if background.any() else None
    else:
        stages = network.stages(filled)
        distance = distances.between_maps([x for x, _ in stages], [y for _, y in stages], background)
    return {"background_distance": [] if distance is None else [distance]}


def measure_shapes(case: Case, truth: List[shape_truth.Instance], target: shape_truth.Target) -> Measured:
    """Metrics in comparison with the ideal shapes: of the masks b, and of what the picture y itself shows."""
    measured: Measured = {
        name: [] for name in ("mask_iou", "mask_shape", "picture_iou", "picture_shape", "colour_error")
    }
    for i, (instance, mask) in enumerate(zip(truth, case.b)):
        ideal = shape_truth.ideal_mask(target.shape, instance, case.own_size, mask.shape)
        painted = shape_truth.painted_mask(case.y, target.colour, truth, i, case.own_size)
        for kind, shape in (("mask", mask), ("picture", painted)):
            measured[f"{kind}_iou"].append(instances.iou(shape, ideal))
            nearest = shape_truth.nearest_shape(shape, instance, case.own_size)
            measured[f"{kind}_shape"].append(float(nearest == target.shape))
        error = shape_truth.colour_error(case.y, ideal, target.colour)
        if error is not None:
            measured["colour_error"].append(error)
    return measured
