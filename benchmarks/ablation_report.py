# SPDX-License-Identifier: Apache-2.0
"""The second half of ablation.py: the figures of each training, and the tables, curves and pictures of all of them."""

from __future__ import annotations

import argparse
import contextlib
import io
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence, Tuple

import nnabla as nn
import numpy as np

from benchmarks import perfect_shapes
from common.figures import saved_figure
from data import instances
from data.items import find_items
from data.pictures import masks_to_network
from metrics import shape_truth
from metrics.cases import Case, measure_changes, measure_shapes, of_model, read_case, translate_case
from metrics.report import METRICS, TRANSLATED, Evaluation, markdown
from translation.drawing import colour_masks
from translation.translator import load_translator

AS_TRAINED = 0
BY_TWO = 2
AT_ONCE = 16  # at least as many as any picture has instances
INFERENCES = {AS_TRAINED: "as trained", BY_TWO: "sequential", AT_ONCE: "one step"}
CURVES = {
    "picture_shape": "right shape in the picture",
    "picture_iou": "IoU of what is painted",
    "mask_shape": "right shape of the mask",
    "background_psnr": "background PSNR, dB",
}
SHOWN_PICTURES = 4

PERFECT = "perfect"

Means = Dict[str, float]  # by the names in METRICS
# by the name of a line and the number of instances: the means of each seed
Lines = Dict[str, Dict[str, List[Means]]]


class Measurement(NamedTuple):
    """A data set by the number of instances in its pictures ("1-4", "16"), the instances in a pass (a key of
    INFERENCES), and the direction."""

    instances: str
    ins_per: int
    direction: str

    @property
    def name(self) -> str:
        """Its name in the files of figures."""
        return f"{self.instances} instances, {INFERENCES[self.ins_per]}, {self.direction}"


def measure(run: Path, trained: Path, data: Path, size: int, measurement: Measurement) -> Means:
    """The mean of each metric over the test pictures of `data`, `size` pixels high and wide, by a run's last model.

    The target's looks are those of the training pictures, of the data set `trained`.
    """
    direction = measurement.direction
    evaluation = Evaluation()
    target = shape_truth.target_of(shape_truth.read_instances(trained, "train", direction[-1]))
    for case, has_masks in translations(run, data, size, measurement):
        measured = {**measure_changes(case), **measure_shapes(case, case.truth, target)}
        evaluation.measured[TRANSLATED][case.name] = of_model(measured, has_masks)
    return evaluation.means(TRANSLATED)


def translations(run: Path, data: Path, size: int, measurement: Measurement) -> Iterator[Tuple[Case, bool]]:
    """The test pictures, translated one by one, each with whether the model has masks."""
    direction = measurement.direction
    nn.clear_parameters()
    with contextlib.redirect_stdout(io.StringIO()):  # which says for each model what it is
        model = load_translator(run, direction, size, size, measurement.ins_per or None)
    select = partial(instances.select, ins_max=None, set_order=model.set_order, rng=np.random.default_rng(0))
    truth = shape_truth.read_instances(data, "test", direction[0])
    for item in find_items(data, "test", direction[0]):
        case = read_case(item, (size, size), truth[item.name], select)
        yield translate_case(case, model.translator), model.translator.ins_per > 0


def measure_perfect(pictures: int, size: int, fewest: int, most: int, direction: str) -> Means:
    """The same metrics of perfect translations of the same test pictures (`perfect_shapes`)."""
    source = direction[0]
    target = direction[-1]
    data = argparse.Namespace(seed=0, size=size, min_instances=fewest, max_instances=most)
    cases = [perfect_shapes.perfect(source, target, index, data) for index in range(pictures)]
    return perfect_shapes.measured(cases, target).means(TRANSLATED)


def table(columns: Dict[str, List[Means]]) -> str:
    """A table in Markdown: a row for each metric, a column for each variant, from the means of its seeds."""
    rows = [["", *columns]]
    for name, (label, form) in METRICS.items():
        cells = [spread(form, of_seeds(seeds, name)) for seeds in columns.values()]
        if any(cells):
            rows.append([label, *cells])
    return markdown(rows)


def of_seeds(seeds: List[Means], metric: str) -> List[float]:
    """The means of a metric; a seed lacks it where it was not measured in any picture."""
    return [seed[metric] for seed in seeds if metric in seed]


def spread(form: str, values: Sequence[float]) -> str:
    """The mean of the values and their standard deviation, each in the format `form`; empty for none."""
    if not values:
        return ""
    mean = form.format(np.mean(values))
    return f"{mean} ± {form.format(deviation_of(values))}" if len(values) > 1 else mean


def deviation_of(values: Sequence[float]) -> float:
    """The standard deviation of the distribution that the values are drawn from, 0 for a single one."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def counts_tables(lines: Lines) -> str:
    """For each metric of CURVES a table in Markdown: a row for each line, a column for each number of instances."""
    tables = []
    for metric, label in CURVES.items():
        form = METRICS[metric][1]
        counts = list(next(iter(lines.values())))
        rows = [[f"{label}; training / translation", *counts]]
        for name, line in lines.items():
            rows.append([name, *(spread(form, of_seeds(seeds, metric)) for seeds in line.values())])
        tables.append(markdown(rows))
    return "\n".join(tables)


def draw_curves(path: Path, panels: Dict[str, Lines]) -> None:
    """Draw each metric of CURVES over the number of instances, a row of axes for each of the `panels`.

    A line is the mean of the seeds, the band around it their standard deviation.
    """
    inches = (3.1 * len(CURVES), 2.8 * len(panels))
    with saved_figure(path, dpi=100, figsize=inches, layout="constrained") as figure:
        axes = figure.subplots(len(panels), len(CURVES), squeeze=False)
        for row, (kind, lines) in zip(axes, panels.items()):
            for axis, (metric, label) in zip(row, CURVES.items()):
                for name, line in lines.items():
                    draw_line(axis, name, {int(count): of_seeds(line[count], metric) for count in line})
                counts = [int(count) for count in line]
                axis.set_xscale("log", base=2)
                axis.set_xticks(counts, [str(count) for count in counts])
                axis.set_title(f"{label}\n{kind}", fontsize=9)
        for axis in axes[-1]:
            axis.set_xlabel("instances in the picture", fontsize=9)
        axes[0, 0].legend(fontsize=7, title="training / translation", title_fontsize=7)


def draw_line(axis: Any, name: str, values: Dict[int, List[float]]) -> None:
    """Draw the values of all seeds by the number of instances."""
    values = {count: seeds for count, seeds in values.items() if seeds}
    middle = np.array([np.mean(seeds) for seeds in values.values()])
    deviation = np.array([deviation_of(seeds) for seeds in values.values()])
    style = {"color": "gray", "linestyle": "--"} if name == PERFECT else {"marker": "o"}
    (line,) = axis.plot(list(values), middle, label=name, markersize=3, **style)
    band = {"color": line.get_color(), "alpha": 0.15, "linewidth": 0}
    axis.fill_between(list(values), middle - deviation, middle + deviation, **band)


def draw_pictures(path: Path, runs: Dict[str, Path], data: Path, size: int, direction: str) -> None:
    """Draw the first test pictures, one in each row: the input, then the translations of each run, with their masks."""
    columns: Dict[str, List[np.ndarray]] = {}
    for name, run in runs.items():
        shown = islice(translations(run, data, size, Measurement("", AS_TRAINED, direction)), SHOWN_PICTURES)
        for case, has_masks in shown:
            if name == next(iter(runs)):
                columns.setdefault("input", []).append(case.x)
                columns.setdefault("its masks", []).append(colour_masks(masks_to_network(case.a)))
            columns.setdefault(name, []).append(case.y)
            if has_masks:
                columns.setdefault(f"masks, {name}", []).append(colour_masks(masks_to_network(case.b)))
    inches = (1.1 * len(columns), 1.1 * SHOWN_PICTURES + 0.3)
    with saved_figure(path, dpi=80, figsize=inches, layout="constrained") as figure:
        axes = figure.subplots(SHOWN_PICTURES, len(columns), squeeze=False)
        for cells, (title, images) in zip(axes.T, columns.items()):
            cells[0].set_title(title.replace("_", " "), fontsize=7)
            for cell, image in zip(cells, images):
                cell.imshow(image)
                cell.set_axis_off()
