# SPDX-License-Identifier: Apache-2.0
"""The record of a run's evaluations: a series for each figure, their curves, and which model was the best.

`evaluation_NAME_x.series.txt` holds a figure of the pictures that start in domain x, with the names of metrics.json;
`evaluation_score.series.txt` the score of both directions, by which the best model is chosen (training/evaluation.py).
The lines are as in the series of losses: an iteration, counted from 0, and a value.
"""

from __future__ import annotations

import math
import operator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from common.progress import say
from metrics.report import METRICS
from models import DOMAINS, GENERATORS
from training.evaluation import Basis, Figures
from training.monitors import Events, Log, draw_series, name_in_events, numbers

SCORE = "evaluation_score"
# the domain in which the pictures of a direction start
SOURCES = {
    direction: domain for domain, letter in DOMAINS.items() for direction in GENERATORS if direction[0] == letter
}


@dataclass(frozen=True)
class Best:
    """The evaluation of the best model so far, after `iteration` iterations: its score, the basis of that, and the
    figures by direction."""

    iteration: int
    score: float
    basis: Basis
    figures: Dict[str, Dict[str, float]]


class EvaluationLog:
    """The series of one run's figures in `folder`, and the `best` evaluation so far.

    `events`, if there are any, get the same values.
    """

    def __init__(self, folder: Path, events: Events | None = None) -> None:
        self.best: Optional[Best] = None
        self._events = events
        self._series = {name: Log(folder / f"{name}.series.txt") for name in series_names()}

    def start(self) -> None:
        """Start without any evaluation."""
        self.best = None
        for log in self._series.values():
            log.remove()

    def add(self, iteration: int, figures: Figures) -> bool:
        """Add an evaluation after `iteration` iterations; return whether it is the best so far, the first of equals.

        A best one whose score has another basis, as after a change of the data, is given up, which is reported.
        """
        values = {
            series_name(name, direction): value
            for direction, of_direction in figures.of_direction.items()
            for name, value in of_direction.items()
        }
        if figures.score is not None:
            values[SCORE] = figures.score
        for name, value in values.items():
            self._series[name].add(f"{iteration - 1} {value:.8g}")
        self._add_events(iteration - 1, values)
        if figures.score is None or math.isnan(figures.score):
            return False
        if self.best and self.best.basis != figures.basis:
            say(
                f"the best model so far, of iteration {self.best.iteration}, was chosen by another score or on other "
                "pictures: the best model is chosen anew from here on"
            )
            self.best = None
        if self.best and figures.score <= self.best.score:
            return False
        self.best = Best(iteration, figures.score, figures.basis, figures.of_direction)
        return True

    def newest(self) -> Dict[str, Tuple[int, float]]:
        """The (iteration, value) of each series that has a value in the newest evaluation, by its name; iterations are
        counted from 0."""
        rows = {name: numbers(log.state()) for name, log in self._series.items()}
        last = {name: (int(found[-1, 0]), float(found[-1, 1])) for name, found in rows.items() if len(found)}
        newest = max((iteration for iteration, _ in last.values()), default=0)
        return {name: row for name, row in last.items() if row[0] == newest}

    def state(self) -> Dict[str, Any]:
        """The texts written so far and the best evaluation, as plain values that JSON can hold."""
        texts = {name: log.state() for name, log in self._series.items()}
        return {
            "series": {name: text for name, text in texts.items() if text},
            "best": asdict(self.best) if self.best else None,
        }

    def set_state(self, state: Dict[str, Any]) -> None:
        """Go on from a `state()`: the files become what they were then.

        Raises:
            KeyError, TypeError or ValueError: where it is not one.
        """
        texts = {name: state["series"].get(name, "") for name in self._series}
        for text in texts.values():
            numbers(text)
        best = None if state["best"] is None else _read_best(state["best"])
        for name, text in texts.items():
            if text:
                self._series[name].set_state(text)
            else:
                self._series[name].remove()
        self.best = best

    def repeat_events(self, after: int) -> None:
        """Add the evaluations after an iteration, counted from 0, to the events once more."""
        for name, log in self._series.items():
            for iteration, value in numbers(log.state()):
                if iteration > after:
                    self._add_events(int(iteration), {name: value})

    def _add_events(self, iteration: int, values: Dict[str, float]) -> None:
        if self._events:
            self._events.add_values(iteration, {name_in_events(name): value for name, value in values.items()})


def _read_best(state: Dict[str, Any]) -> Best:
    """The best evaluation of a `state()`."""
    basis = state["basis"]
    pictures = {direction: [str(name) for name in basis["pictures"][direction]] for direction in GENERATORS}
    return Best(
        operator.index(state["iteration"]),
        float(state["score"]),
        Basis(str(basis["phase"]), pictures, str(basis["score_name"])),
        {direction: dict(state["figures"][direction]) for direction in GENERATORS},
    )


def series_name(name: str, direction: str) -> str:
    """The name of the series of a figure (a name of METRICS) in a direction."""
    return f"evaluation_{name}_{SOURCES[direction]}"


def series_names() -> List[str]:
    """The names of all series that there can be."""
    return [SCORE, *(series_name(name, direction) for name in METRICS for direction in GENERATORS)]


def curves() -> Dict[str, Tuple[str, Dict[str, str]]]:
    """The title of each curve that there can be, and its series by their labels, by the name of its file."""
    found = {"evaluation_score.png": ("score, by which the best model is chosen", {"": SCORE})}
    for name, (title, _) in METRICS.items():
        series = {direction: series_name(name, direction) for direction in GENERATORS}
        found[f"evaluation_{name}.png"] = (title, series)
    return found


def draw_figures(folder: str | Path) -> None:
    """Draw the curves of all figures that have series in `folder`."""
    for name, (title, names) in curves().items():
        series = {label: Log(Path(folder, f"{one}.series.txt")) for label, one in names.items()}
        if any(log.path.exists() for log in series.values()):
            draw_series(Path(folder, name), title, "", series)
