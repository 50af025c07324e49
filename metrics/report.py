# SPDX-License-Identifier: Apache-2.0
"""Write the results of evaluate.py: metrics.json, metrics.md, index.html, and strips of cases."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import numpy as np

from common import files
from common.errors import UserError
from data import pictures
from translation import gallery
from translation.drawing import stack

NO_TRANSLATION, TRANSLATED, REAL = COLUMNS = ("no translation", "translated", "real target pictures")
DIRECTIONS = ("AtoB", "BtoA")
CASES = 4  # best, median and worst cases of a direction, each
STRIP_CASES = 2  # of these in the strip
# by the name in metrics.json: the label in tables, and the format of its values
METRICS = {
    "score_pictures": ("classification score, whole pictures", "{:.1%}"),
    "score_instances": ("classification score, instance crops", "{:.1%}"),
    "background_psnr": ("background PSNR, dB", "{:.1f}"),
    "background_ssim": ("background SSIM", "{:.3f}"),
    "background_distance": ("background distance, EfficientNet-Lite0's features", "{:.4f}"),
    "area_ratio": ("area of the new mask / of the old", "{:.2f}"),
    "collapsed": ("masks that vanished or grew over 4 times", "{:.1%}"),
    "agreement": ("masks and what changed agree, IoU", "{:.3f}"),
    "mask_iou": ("mask: IoU with the ideal shape", "{:.3f}"),
    "mask_shape": ("mask: nearest to the target shape", "{:.1%}"),
    "picture_iou": ("picture: IoU of what is painted with the ideal shape", "{:.3f}"),
    "picture_shape": ("picture: what is painted is nearest to the target shape", "{:.1%}"),
    "colour_error": ("colour error, of 255", "{:.1f}"),
    "frechet_pictures": ("Fréchet distance of EfficientNet-Lite0's features, whole pictures", "{:.1f}"),
    "frechet_instances": ("Fréchet distance of EfficientNet-Lite0's features, instance crops", "{:.1f}"),
    "kernel_pictures": ("kernel distance of EfficientNet-Lite0's features, whole pictures", "{:.3f}"),
    "kernel_instances": ("kernel distance of EfficientNet-Lite0's features, instance crops", "{:.3f}"),
    "fid": ("FID, NNabla's Inception-v3", "{:.1f}"),
    "kid": ("KID, NNabla's Inception-v3", "{:.4f}"),
}
# bytes of a picture's name in the names of its cells; file systems take 255 in all
LONGEST_NAME = 200
CELLS = ("input", "its masks", "translated", "translated masks", "change")

HOW_TO_READ = (
    "Compare each figure of the translations with the other two: that of the untouched input, and that of real "
    "pictures of the target domain. After ± is the standard error of the mean; in brackets is a 95 % interval."
)

Measured = Dict[str, List[float]]


@dataclass
class Evaluation:
    """The evaluation of one direction.

    `measured` are the values of each picture by column, picture and metric; `overall` are figures of all pictures
    together (FID) by column and metric, as in `summary`; `ranks` are numbers from 0 to 1 by which translations
    are ranked, best first, and `ranked_by` describes them.
    """

    measured: Dict[str, Dict[str, Measured]] = field(default_factory=lambda: {name: {} for name in COLUMNS})
    overall: Dict[str, Dict[str, Dict[str, Any]]] = field(default_factory=lambda: {name: {} for name in COLUMNS})
    ranks: Dict[str, float] = field(default_factory=dict)
    ranked_by: str = ""

    def summary(self, column: str) -> Dict[str, Dict[str, Any]]:
        """By metric, the mean of all values of a column, its standard error, and the number of values and pictures.

        Instances of one picture are correlated, so the standard error is that of a mean over clusters, the pictures (a
        ratio estimator; Cochran, Sampling Techniques, section 6.4). It is absent for a single picture.
        """
        summary = dict(self.overall[column])
        for name in METRICS:
            of_pictures = [measured[name] for measured in self.measured[column].values() if measured.get(name)]
            if of_pictures:
                summary[name] = _mean_of_clusters(of_pictures)
        return summary

    def means(self, column: str) -> Dict[str, float]:
        """By metric, the mean of all values of a column."""
        return {name: figure["mean"] for name, figure in self.summary(column).items()}

    def table(self) -> List[List[str]]:
        """Rows of cells: a header, and a row for each metric of any column."""
        return table({column: self.summary(column) for column in COLUMNS})

    def cases(self) -> Dict[str, List[str]]:
        """Names of the best, the median and the worst translations by rank."""
        order = sorted(self.ranks, key=lambda name: (-self.ranks[name], name))
        middle = max(0, (len(order) - CASES) // 2)
        return {"best": order[:CASES], "median": order[middle : middle + CASES], "worst": order[-CASES:][::-1]}


def write(folder: Path, about: Dict[str, Any], evaluations: Dict[str, Evaluation], notes: Sequence[str]) -> str:
    """Write all files into `folder`, which holds the cells of each picture already; return the tables in Markdown.

    `about` describes the evaluation and goes into metrics.json; `evaluations` are by direction; `notes` are sentences
    for the reader, such as the accuracy of the classifiers.
    """
    directions = {
        direction: {
            "summary": {column: evaluation.summary(column) for column in COLUMNS},
            "ranked_by": evaluation.ranked_by,
            "cases": evaluation.cases(),
            "pictures": evaluation.measured[TRANSLATED],
        }
        for direction, evaluation in evaluations.items()
    }
    accuracy = about["classifier_accuracy"]
    tables = {direction: with_accuracy(evaluation.table(), accuracy) for direction, evaluation in evaluations.items()}
    texts = [f"## {direction}\n\n{markdown(rows)}" for direction, rows in tables.items()]
    page = "\n".join([*notes, HOW_TO_READ, "", *texts])
    files.write_text(folder / "metrics.md", page)
    sections = []
    for direction, evaluation in evaluations.items():
        sections += _sections(direction, evaluation, tables[direction], notes)
        if evaluation.ranks:
            write_strip(folder, direction, evaluation)
    gallery.write_page(folder / "index.html", "InstaGAN: evaluation", sections)
    # last: if it exists, the evaluation is complete
    files.write_text(folder / "metrics.json", json.dumps({**about, "directions": directions}, indent=1) + "\n")
    return page


def remove(folder: Path) -> None:
    """Remove an earlier evaluation from its folder, and nothing else there.

    Raises:
        UserError: where metrics.json is not that of an evaluation.
    """
    read(folder)
    # first, since it marks the evaluation as complete
    (folder / "metrics.json").unlink()
    for direction in DIRECTIONS:
        cells = [path for label in CELLS for path in folder.glob(cell_path(direction, "*", label))]
        for path in (folder / f"cases_{direction}.png", *cells):
            path.unlink(missing_ok=True)
    for name in ("metrics.md", "index.html"):
        (folder / name).unlink(missing_ok=True)


def read(folder: Path) -> Dict[str, Any]:
    """The contents of an evaluation's metrics.json.

    Raises:
        UserError: where the folder holds no evaluation.
    """
    try:
        evaluation = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        _check(evaluation)
        return evaluation
    except FileNotFoundError:
        raise UserError(f"{folder} has no metrics.json; give an output folder of evaluate.py") from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{folder / 'metrics.json'} is not as evaluate.py wrote it; evaluate again") from None


def write_cells(folder: Path, direction: str, name: str, cells: Sequence[np.ndarray]) -> None:
    """Write the pictures of one case, which are in the order of CELLS."""
    for label, cell in zip(CELLS, cells):
        pictures.write_png(folder / cell_path(direction, name, label), cell)


def cell_path(direction: str, name: str, label: str) -> str:
    """The path of a cell, relative to the output folder."""
    return f"pictures/{direction}/{_short(name)}_{label.replace(' ', '_')}.png"


def _short(name: str) -> str:
    """A picture's name if it can be a part of a file's name; else its beginning, with a digest of all of it."""
    encoded = name.encode()
    if len(encoded) <= LONGEST_NAME:
        return name
    return f"{encoded[: LONGEST_NAME - 9].decode(errors='ignore')}_{hashlib.sha256(encoded).hexdigest()[:8]}"


def write_strip(folder: Path, direction: str, evaluation: Evaluation) -> None:
    """Write `cases_DIRECTION.png`: two best, median and worst cases, one below the other in three columns."""
    columns = []
    for names in evaluation.cases().values():
        rows = []
        for name in names[:STRIP_CASES]:
            cells = [pictures.read_picture(folder / cell_path(direction, name, label)) for label in CELLS[:4]]
            rows.append(stack(cells, axis=1))
        columns.append(stack(rows, axis=0))
    pictures.write_png(folder / f"cases_{direction}.png", stack(columns, axis=1, gap=12))


def table(columns: Dict[str, Dict[str, Any]]) -> List[List[str]]:
    """Rows of cells for summaries (`Evaluation.summary`) by name: a header, and a row for each metric in any one."""
    rows = [["", *columns]]
    for name, (label, form) in METRICS.items():
        if any(name in summary for summary in columns.values()):
            rows.append([label, *(_cell(form, summary.get(name)) for summary in columns.values())])
    return rows


def with_accuracy(rows: List[List[str]], accuracy: Dict[str, float]) -> List[List[str]]:
    """A table with the accuracy of its classifier beside each classification score."""
    marks = {METRICS[f"score_{kind}"][0]: f" (classifier right: {value:.1%})" for kind, value in accuracy.items()}
    return [[row[0] + marks.get(row[0], ""), *row[1:]] for row in rows]


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Format rows of cells as a table in Markdown; the first row is the header."""
    header, *lines = ["| " + " | ".join(cells) + " |" for cells in rows]
    return "\n".join([header, "|---" * len(rows[0]) + "|", *lines]) + "\n"


def _mean_of_clusters(clusters: Sequence[Sequence[float]]) -> Dict[str, Any]:
    """The mean of all values, its standard error over the clusters, and the number of values and clusters."""
    count = len(clusters)
    values = np.concatenate(clusters)
    mean = float(values.mean())
    summary = {"mean": mean, "values": len(values), "pictures": count}
    if count > 1:
        squares = sum(float(np.sum(np.subtract(cluster, mean))) ** 2 for cluster in clusters)
        summary["standard_error"] = (count / (count - 1) * squares) ** 0.5 / len(values)
    return summary


def _check(evaluation: Any) -> None:
    """Use all of an evaluation's contents that this program uses; damaged ones raise one of several errors."""
    Path(evaluation["dataroot"])
    for name in ("phase", "size"):
        evaluation[name]
    for value in evaluation["classifier_accuracy"].values():
        f"{value:.1%}"
    for direction in evaluation["directions"].values():
        if not all(Path(name).name == name for name in direction["pictures"]):
            raise ValueError("a picture's name is a path")
        for column in COLUMNS:
            table({column: direction["summary"][column]})


def _cell(form: str, summary: Optional[Dict[str, Any]]) -> str:
    if summary is None:
        return ""
    if "interval" in summary:
        low, high = summary["interval"]
        return f"{form.format(summary['mean'])} ({form.format(low)} to {form.format(high)})"
    if not summary.get("standard_error"):
        return form.format(summary["mean"])
    return f"{form.format(summary['mean'])} ± {form.format(summary['standard_error'])}"


def _sections(
    direction: str, evaluation: Evaluation, rows: List[List[str]], notes: Sequence[str]
) -> List[gallery.Section]:
    """The part of the page about one direction: its table, then its cases."""
    sections = [gallery.Section(direction, " ".join([*notes, HOW_TO_READ]), table=rows)]
    for kind, names in evaluation.cases().items():
        count = len(evaluation.ranks)
        text = f"{len(names)} of {count} pictures, ranked by {evaluation.ranked_by}, not picked by hand."
        cases = []
        for name in names:
            cells = [(label, cell_path(direction, name, label)) for label in CELLS]
            cases.append(gallery.Row(f"{name} ({evaluation.ranks[name]:.3f})", cells))
        sections.append(gallery.Section(f"{direction}: {kind}", text, cases))
    return sections
