# SPDX-License-Identifier: Apache-2.0
"""Compare several evaluations: a table of their figures, and the same pictures translated by each model.

python compare_evaluations.py full=evaluations/full no_context=evaluations/no_context --output ablation

Each argument is NAME=FOLDER, where FOLDER is the --output of evaluate.py. The columns are the translations of each
model; the first and the last one are the untouched input and real target pictures, from the first evaluation.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Sequence

from common.errors import UserError, begin_script, run_main

begin_script(__name__)

import numpy as np

from common import files
from common.command_line import Parser
from common.figures import saved_figure
from data import pictures
from metrics import report
from metrics.report import NO_TRANSLATION, REAL, TRANSLATED

ROWS = 4  # pictures in the comparison, evenly spaced by name

Evaluation = Dict[str, Any]  # the contents of a metrics.json


def main() -> None:
    """Run the command line."""
    parser = Parser(__doc__)
    parser.add_argument("evaluations", nargs="+", help="NAME=FOLDER, twice or more")
    parser.add_argument("--output", default="comparison", help="folder for comparison.md and comparison_DIRECTION.png")
    parser.add_argument("--overwrite", action="store_true", help="replace the comparison that is already in --output")
    args = parser.parse_args()
    folders = parse(args.evaluations)
    output = Path(args.output)
    if (output / "comparison.md").exists() and not args.overwrite:
        raise UserError(f"{output} already holds a comparison; give another --output, or --overwrite")
    drawings = [f"comparison_{direction}.png" for direction in report.DIRECTIONS]
    files.refuse_foreign(output, drawings, "comparison.md", args.overwrite)
    evaluations = {name: report.read(folder) for name, folder in folders.items()}
    check_same_data(evaluations)
    directions = [d for d in report.DIRECTIONS if all(d in e["directions"] for e in evaluations.values())]
    if not directions:
        raise UserError("these evaluations have no direction in common; evaluate the same one with each model")
    files.make_folder(output, "--output")
    tables = [accuracies(evaluations)]
    for direction in directions:
        in_direction = {name: evaluation["directions"][direction] for name, evaluation in evaluations.items()}
        tables.append(f"## {direction}\n\n{report.markdown(table(in_direction))}")
        draw(output / f"comparison_{direction}.png", direction, folders, in_direction)
    files.write_text(output / "comparison.md", "\n".join(tables))
    print("\n".join(tables))


def parse(arguments: Sequence[str]) -> Dict[str, Path]:
    """Parse arguments NAME=FOLDER: the folders by name.

    Raises:
        UserError: where an argument is of another form, a name occurs twice, or there are fewer than two.
    """
    folders: Dict[str, Path] = {}
    for argument in arguments:
        name, equals, folder = argument.partition("=")
        if not (name and equals and folder) or name in folders or not name.isprintable() or "|" in name:
            raise UserError(f"{argument!r} must be NAME=FOLDER, with another NAME for each, and no | in it")
        folders[name] = Path(folder)
    if len(folders) < 2:
        raise UserError("give two evaluations or more to compare")
    return folders


def check_same_data(evaluations: Dict[str, Evaluation]) -> None:
    """Raise UserError where evaluations are of different pictures, or at different sizes."""
    data = {name: (Path(e["dataroot"]).name, e["phase"], e["size"]) for name, e in evaluations.items()}
    first, *others = data
    for other in others:
        if data[other] != data[first]:
            described = ["{} {} at {}".format(*data[name]) for name in (first, other)]
            raise UserError(f"{first} is of {described[0]}, {other} of {described[1]}; compare evaluations of the same")


def accuracies(evaluations: Dict[str, Evaluation]) -> str:
    """A list of each evaluation's classifier accuracies, in Markdown; classification scores depend on them."""
    lines = []
    for name, evaluation in evaluations.items():
        accuracy = ", ".join(f"{value:.1%} of {kind}" for kind, value in evaluation["classifier_accuracy"].items())
        lines.append(f"- {name}: the classifiers are right about {accuracy} that they were not trained on")
    kinds = {name: evaluation.get("classifiers", "small") for name, evaluation in evaluations.items()}
    if len(set(kinds.values())) > 1:
        described = ", ".join(f"{name}: {kind}" for name, kind in kinds.items())
        lines.append(f"- Warning: the classification scores are of different classifiers ({described})")
    return "\n".join(lines) + "\n"


def table(in_direction: Dict[str, Dict[str, Any]]) -> List[List[str]]:
    """Rows of cells for evaluations of one direction, by name: a row for each metric, a column for each evaluation,
    between those of the untouched input and of real pictures."""
    first = next(iter(in_direction.values()))["summary"]
    columns = {NO_TRANSLATION: first[NO_TRANSLATION]}
    columns.update({name: evaluation["summary"][TRANSLATED] for name, evaluation in in_direction.items()})
    columns[REAL] = first[REAL]
    return report.table(columns)


def draw(path: Path, direction: str, folders: Dict[str, Path], in_direction: Dict[str, Dict[str, Any]]) -> None:
    """Draw a few pictures that all evaluations have, one in each row: the input, then each translation, each followed
    by its masks."""
    names = sorted(set.intersection(*(set(evaluation["pictures"]) for evaluation in in_direction.values())))
    if not names:
        raise UserError("these evaluations have no picture in common; evaluate the same data with each model")
    rows = [names[i] for i in sorted(set(np.linspace(0, len(names) - 1, min(ROWS, len(names))).astype(int)))]
    first = next(iter(folders.values()))
    columns = [("input", first, "input"), ("its masks", first, "its masks")]
    for name, folder in folders.items():
        columns.append((name, folder, "translated"))
        columns.append(("its masks", folder, "translated masks"))
    height, width = pictures.read_picture(first / report.cell_path(direction, rows[0], "input")).shape[:2]
    inches = (0.9 * len(columns), 0.9 * height / width * len(rows) + 0.3)
    with saved_figure(path, dpi=90, figsize=inches, layout="constrained") as figure:
        axes = figure.subplots(len(rows), len(columns), squeeze=False)
        for line, row in zip(axes, rows):
            for cell, (_, folder, label) in zip(line, columns):
                cell.imshow(pictures.read_picture(folder / report.cell_path(direction, row, label)))
                cell.set_axis_off()
        for cell, (title, _, _) in zip(axes[0], columns):
            cell.set_title(title, fontsize=7, parse_math=False)


if __name__ == "__main__":
    run_main(main)
