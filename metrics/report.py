# SPDX-License-Identifier: Apache-2.0
"""What evaluate.py found, for people and programs: metrics.json, metrics.md, index.html, and strips of cases."""

from __future__ import annotations

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
SHOWN = 4  # best, median and worst cases of a direction, each
STRIP = 2  # of these in the strip
# by the name in metrics.json: what it is called, and how it is written
METRICS = {
    "score_pictures": ("classification score, whole pictures", "{:.1%}"),
    "score_instances": ("classification score, instance crops", "{:.1%}"),
    "background_psnr": ("background PSNR, dB", "{:.1f}"),
    "background_ssim": ("background SSIM", "{:.3f}"),
    "area_ratio": ("area of the new mask / of the old", "{:.2f}"),
    "collapsed": ("masks that vanished or grew over 4 times", "{:.1%}"),
    "agreement": ("masks and what changed agree, IoU", "{:.3f}"),
    "mask_iou": ("mask: IoU with the ideal shape", "{:.3f}"),
    "mask_shape": ("mask: nearest to the target shape", "{:.1%}"),
    "picture_iou": ("picture: IoU of what is painted with the ideal shape", "{:.3f}"),
    "picture_shape": ("picture: what is painted is nearest to the target shape", "{:.1%}"),
    "colour_error": ("colour error, of 255", "{:.1f}"),
    "fid": ("FID, NNabla's Inception-v3", "{:.1f}"),
    "kid": ("KID, NNabla's Inception-v3", "{:.4f}"),
}
CELLS = ("input", "its masks", "translated", "translated masks", "change")

HOW_TO_READ = (
    "Read each figure of the translations between the two others: what the untouched input gets, and what real "
    "pictures of the target domain get. After ± is the standard error of the mean."
)

Measured = Dict[str, List[float]]


@dataclass
class Evaluation:
    """One direction: the measured values of each picture, by column and the picture's name, figures of all pictures
    together (FID), and a number from 0 to 1 to rank each translation by, with what that is."""

    measured: Dict[str, Dict[str, Measured]] = field(default_factory=lambda: {name: {} for name in COLUMNS})
    overall: Dict[str, Dict[str, float]] = field(default_factory=lambda: {name: {} for name in COLUMNS})
    ranks: Dict[str, float] = field(default_factory=dict)
    ranked_by: str = ""

    def summary(self, column: str) -> Dict[str, Dict[str, Any]]:
        """By metric, the mean of all values of a column, its standard error, and the number of values and pictures.

        Instances of one picture share a fate, so the standard error is that of a mean over clusters, the pictures (a
        ratio estimator; Cochran, Sampling Techniques, section 6.4). It is absent where there is one picture.
        """
        found: Dict[str, Dict[str, Any]] = {name: {"mean": value} for name, value in self.overall[column].items()}
        for name in METRICS:
            each = [m[name] for m in self.measured[column].values() if m.get(name)]
            if each:
                values, count = np.concatenate(each), len(each)
                mean = float(values.mean())
                found[name] = {"mean": mean, "values": len(values), "pictures": count}
                if count > 1:
                    off = sum(float(np.sum(np.subtract(v, mean))) ** 2 for v in each)
                    found[name]["standard_error"] = (count / (count - 1) * off) ** 0.5 / len(values)
        return found

    def table(self) -> List[List[str]]:
        """Cells: a line for each metric that some column has, under a header."""
        return table({column: self.summary(column) for column in COLUMNS})

    def cases(self) -> Dict[str, List[str]]:
        """Names of the best, the median and the worst translations by rank; nobody chooses them."""
        order = sorted(self.ranks, key=lambda name: (-self.ranks[name], name))
        middle = max(0, (len(order) - SHOWN) // 2)
        return {"best": order[:SHOWN], "median": order[middle : middle + SHOWN], "worst": order[-SHOWN:][::-1]}


def with_accuracy(rows: List[List[str]], accuracy: Dict[str, float]) -> List[List[str]]:
    """A table with the accuracy of its classifier beside each classification score."""
    marks = {METRICS[f"score_{kind}"][0]: f" (classifier right: {value:.1%})" for kind, value in accuracy.items()}
    return [[row[0] + marks.get(row[0], ""), *row[1:]] for row in rows]


def write(folder: Path, about: Dict[str, Any], found: Dict[str, Evaluation], notes: Sequence[str]) -> str:
    """Write all files into `folder`, where the cells of each picture are already; gives the tables in Markdown.

    `about` says what was evaluated and goes into metrics.json; `found` is by direction; `notes` are sentences for the
    reader, such as how far the classifier can be trusted.
    """
    directions = {
        direction: {
            "summary": {column: evaluation.summary(column) for column in COLUMNS},
            "ranked_by": evaluation.ranked_by,
            "cases": evaluation.cases(),
            "pictures": evaluation.measured[TRANSLATED],
        }
        for direction, evaluation in found.items()
    }
    accuracy = about["classifier_accuracy"]
    tables = {direction: with_accuracy(evaluation.table(), accuracy) for direction, evaluation in found.items()}
    texts = [f"## {direction}\n\n{markdown(rows)}" for direction, rows in tables.items()]
    page = "\n".join([*notes, HOW_TO_READ, "", *texts])
    files.write_text(folder / "metrics.md", page)
    sections = []
    for direction, evaluation in found.items():
        sections += _sections(direction, evaluation, tables[direction], notes)
        if evaluation.ranks:
            write_strip(folder, direction, evaluation)
    gallery.write_page(folder / "index.html", "InstaGAN: evaluation", sections)
    # last: where it is, the evaluation is whole
    files.write_text(folder / "metrics.json", json.dumps({**about, "directions": directions}, indent=1) + "\n")
    return page


def remove(folder: Path) -> None:
    """Remove an earlier evaluation from its folder, first what says that it is whole, and nothing that is not its own.

    Raises:
        UserError: where metrics.json is not an evaluation's.
    """
    read(folder)
    (folder / "metrics.json").unlink()
    for direction in DIRECTIONS:
        cells = [path for label in CELLS for path in folder.glob(cell_path(direction, "*", label))]
        for path in (folder / f"cases_{direction}.png", *cells):
            path.unlink(missing_ok=True)
    for name in ("metrics.md", "index.html"):
        (folder / name).unlink(missing_ok=True)


def read(folder: Path) -> Dict[str, Any]:
    """The metrics.json of an evaluation.

    Raises:
        UserError: where the folder holds no evaluation.
    """
    try:
        found = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        # what is used of it
        _ = Path(found["dataroot"]), found["phase"], found["size"]
        _ = [f"{value:.1%} of {what}" for what, value in found["classifier_accuracy"].items()]
        for one in found["directions"].values():
            if not all(Path(name).name == name for name in one["pictures"]):
                raise ValueError
            for column in COLUMNS:
                table({column: one["summary"][column]})
        return found
    except FileNotFoundError:
        raise UserError(f"{folder} has no metrics.json; give an output folder of evaluate.py") from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{folder / 'metrics.json'} is not as evaluate.py wrote it; evaluate again") from None


def write_cells(folder: Path, direction: str, name: str, cells: Sequence[np.ndarray]) -> None:
    """Write the pictures of one case, in the order of CELLS."""
    for label, cell in zip(CELLS, cells):
        pictures.write_png(folder / cell_path(direction, name, label), cell)


def cell_path(direction: str, name: str, label: str) -> str:
    """Where a cell is, relative to the output folder."""
    return f"pictures/{direction}/{name}_{label.replace(' ', '_')}.png"


def write_strip(folder: Path, direction: str, evaluation: Evaluation) -> None:
    """Write `cases_DIRECTION.png`: two best, median and worst cases, one below the other in three columns."""
    columns = []
    for names in evaluation.cases().values():
        paths = [[folder / cell_path(direction, name, label) for label in CELLS[:4]] for name in names[:STRIP]]
        rows = [stack([pictures.read_picture(path) for path in row], axis=1) for row in paths]
        columns.append(stack(rows, axis=0))
    pictures.write_png(folder / f"cases_{direction}.png", stack(columns, axis=1, gap=12))


def table(columns: Dict[str, Dict[str, Any]]) -> List[List[str]]:
    """Cells for several summaries (`Evaluation.summary`) by name: a line for each metric that one has, and a header."""
    lines = [["", *columns]]
    for name, (label, form) in METRICS.items():
        if any(name in summary for summary in columns.values()):
            lines.append([label, *(_written(form, summary.get(name)) for summary in columns.values())])
    return lines


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as a table in Markdown; the first one is the header."""
    header, *lines = ["| " + " | ".join(cells) + " |" for cells in rows]
    return "\n".join([header, "|---" * len(rows[0]) + "|", *lines]) + "\n"


def _written(form: str, found: Optional[Dict[str, Any]]) -> str:
    if found is None:
        return ""
    if "standard_error" not in found or not found["standard_error"]:
        return form.format(found["mean"])
    return f"{form.format(found['mean'])} ± {form.format(found['standard_error'])}"


def _sections(
    direction: str, evaluation: Evaluation, rows: List[List[str]], notes: Sequence[str]
) -> List[gallery.Section]:
    """The part of the page about one direction: its table, then its cases."""
    sections = [gallery.Section(direction, " ".join([*notes, HOW_TO_READ]), [], table=rows)]
    for kind, names in evaluation.cases().items():
        text = f"{len(names)} of {len(evaluation.ranks)} pictures, by {evaluation.ranked_by}; nobody chose them."
        titles = [f"{name} ({evaluation.ranks[name]:.3f})" for name in names]
        cells = [[(label, cell_path(direction, name, label)) for label in CELLS] for name in names]
        rows = [gallery.Row(*row) for row in zip(titles, cells)]
        sections.append(gallery.Section(f"{direction}: {kind}", text, rows))
    return sections
