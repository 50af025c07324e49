# SPDX-License-Identifier: Apache-2.0
"""The page of a run, index.html in its folder: samples over time, figures, curves, the next commands, settings."""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, List, Sequence, Tuple

from common import files
from metrics.report import METRICS
from models import GENERATORS
from training import evaluation_log
from training.evaluation_log import EvaluationLog
from training.monitors import KINDS
from translation.gallery import Row, Section, write_page
from weights import model_file

NAME = "index.html"
SAMPLES = (
    "The same pictures each time. From left to right: input, its masks, translation, its masks; first from A to B, "
    "then from B to A. Move the slider to see earlier ones."
)
FIGURES = (
    "A few held-out pictures of each domain, measured as in evaluate.py. A background that never changes is best for a "
    "model that does nothing, so look at all figures together."
)


@dataclass(frozen=True)
class Facts:
    """The facts about a run that are not in its folder: how far it is, in words; the (flag, value, default) of its
    arguments; the folder of its models; the command that goes on with it."""

    progress: str
    settings: Sequence[Tuple[str, Any, Any]]
    model_folder: Path
    resume: str

    @property
    def dataroot(self) -> str:
        """The data set folder."""
        return next(value for flag, value, _ in self.settings if flag == "--dataroot")


def write(folder: Path, facts: Facts, evaluations: EvaluationLog) -> None:
    """Write the page into the folder of a run."""
    sections = [
        _samples(folder, facts.progress),
        *_figures(folder, evaluations),
        *_losses(folder),
        Section("Go on", "", commands=_commands(facts, evaluations.best is not None)),
        *_settings(facts.settings),
    ]
    write_page(folder / NAME, f"InstaGAN: training run {folder.resolve().name}", sections)


def _samples(folder: Path, progress: str) -> Section:
    slides = [
        (f"after epoch {files.number_of(path)}", path.name) for path in files.numbered_files(folder, "sample", "png")
    ]
    text = f"{progress}. Written at {time.strftime('%Y-%m-%d %H:%M')}; load the page again to see more."
    return Section("Samples", f"{text} {SAMPLES}" if slides else text, slides=slides)


def _figures(folder: Path, evaluations: EvaluationLog) -> List[Section]:
    """The newest figures beside those of the best model, and their curves; none without an evaluation."""
    newest = evaluations.newest()
    if not newest:
        return []
    best = evaluations.best
    text = FIGURES
    header = ["", *(f"{direction}, newest" for direction in GENERATORS)]
    if best:
        score = newest.get(evaluation_log.SCORE)
        shown = f"{score[1]:.3f}" if score else "none"
        text = (
            f"Score, {best.basis.score_name}: newest {shown}, best {best.score:.3f} after iteration {best.iteration} "
            f"({model_file.best_path(folder, best.iteration).name}). {FIGURES}"
        )
        header += [f"{direction}, best" for direction in GENERATORS]
    rows = [header]
    for name, (label, form) in METRICS.items():
        columns = [newest.get(evaluation_log.series_name(name, direction)) for direction in GENERATORS]
        cells = [form.format(column[1]) if column else "" for column in columns]
        if best:
            values = [best.figures[direction].get(name) for direction in GENERATORS]
            cells += ["" if value is None else form.format(value) for value in values]
        if any(cells):
            rows.append([label, *cells])
    curves = [(title, name) for name, (title, _) in evaluation_log.curves().items()]
    return [Section("Figures", text, table=rows, rows=_existing(folder, curves), wide=True)]


def _losses(folder: Path) -> List[Section]:
    curves = _existing(folder, [(f"{kind.replace('_', ' ')} loss", f"loss_{kind}.png") for kind in KINDS])
    return [Section("Losses", "", curves, wide=True)] if curves else []


def _existing(folder: Path, curves: Sequence[Tuple[str, str]]) -> List[Row]:
    """A row of the curves, (title, name of the file), that are drawn already."""
    cells = [(title, name) for title, name in curves if (folder / name).exists()]
    return [Row("", cells)] if cells else []


def _commands(facts: Facts, has_best: bool) -> List[Tuple[str, str]]:
    model = f"--model={shlex.quote(str(facts.model_folder))}"
    if has_best:
        model += " --which best"
    data = f"--dataroot={shlex.quote(facts.dataroot)}"
    return [
        ("Train on, after an interruption or with a larger --max-epoch", facts.resume),
        ("Translate held-out pictures", f"python translate.py {model} {data} --direction AtoB --output results"),
        ("Measure the translations", f"python evaluate.py {model} {data} --output evaluation"),
        ("A file for other programs", f"python export.py {model} --direction AtoB --output model.onnx"),
    ]


def _settings(settings: Sequence[Tuple[str, Any, Any]]) -> List[Section]:
    """The arguments that differ from their defaults, and then all of them."""
    changed = [(flag, value, default) for flag, value, default in settings if value != default]
    changed_rows = [
        ["", "value", "default"],
        *([flag, _word(value), _word(default)] for flag, value, default in changed),
    ]
    all_rows = [["", "value"], *([flag, _word(value)] for flag, value, _ in settings)]
    return [
        Section("Settings that differ from their defaults", "", table=changed_rows),
        Section("All settings", "", table=all_rows, folded=True),
    ]


def _word(value: Any) -> str:
    """A value of an argument, in words: a switch is on or off."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None else str(value)
