# SPDX-License-Identifier: Apache-2.0
"""The records of a training run: series of losses, the time it takes, curves.

The files are those of `nnabla.monitor` (`NAME.series.txt`, `NAME.timer.txt`), which truncates them when a run
starts; a resumed run goes on with these.
"""

from __future__ import annotations

import operator
import time
from pathlib import Path
from typing import Any, Dict, List, Protocol

import numpy as np

from common import files
from common.figures import saved_figure

KINDS = ("generator", "discriminator", "reconstruction", "identity_mapping", "context_preserving")
LOSSES = tuple(f"{kind}_loss_{domain}" for kind in KINDS for domain in "xy")


class Log:
    """A text file that grows by lines, and can be cut back to where a checkpoint knew it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, line: str) -> None:
        """Append a line; the system has it when this returns."""
        with open(self.path, "a", encoding="utf-8") as f:
            f.write(line + "\n")

    def state(self) -> str:
        """The text so far."""
        return self.path.read_text(encoding="utf-8") if self.path.exists() else ""

    def set_state(self, text: str) -> None:
        """Go back to an earlier text."""
        files.write_text(self.path, text)

    def remove(self) -> None:
        """Remove the file, if there is one."""
        self.path.unlink(missing_ok=True)


class Events(Protocol):
    """The part of `tensorboard.EventFile` that is used here; that module needs a package that may be missing."""

    def begin(self, step: int) -> None:
        """Start, or start again, with this iteration."""

    def add_values(self, step: int, values: Dict[str, float]) -> None:
        """Add a value of each name."""


class Monitors:
    """The series of the ten losses and the timer of one run in `folder`, a line every `interval` iterations.

    `events`, if there are any, get the same values: `KIND_loss/DOMAIN` and `seconds_per_iteration`.
    """

    def __init__(self, folder: str | Path, interval: int, events: Events | None = None) -> None:
        self._interval = interval
        self._events = events
        self._series = {name: Log(Path(folder) / f"{name}.series.txt") for name in LOSSES}
        self._timer = Log(Path(folder) / "Training_time.timer.txt")
        self._pending: Dict[str, List[float]] = {name: [] for name in LOSSES}
        self._flushed = -1
        self._elapsed = 0.0
        self._lap = time.time()

    def start(self) -> None:
        """Start with empty files."""
        for log in (*self._series.values(), self._timer):
            log.set_state("")
        if self._events:
            self._events.begin(0)

    @property
    def flushed(self) -> int:
        """The iteration of the last line, -1 for none."""
        return self._flushed

    def add(self, iteration: int, losses: Dict[str, float]) -> None:
        """Take the losses of iteration 0, 1, ...; one that does not exist in it is absent from `losses`."""
        for name, value in losses.items():
            self._pending[name].append(value)
        if iteration - self._flushed >= self._interval:
            self.flush(iteration)

    def flush(self, iteration: int) -> None:
        """Write a line for the iterations since the last one, up to and including `iteration`."""
        if iteration == self._flushed:
            return
        means = {}
        for name, values in self._pending.items():
            if values:
                means[name] = float(np.mean(values))
                self._series[name].add(f"{iteration} {means[name]:.8g}")
                values.clear()
        now = time.time()
        self._elapsed += now - self._lap
        self._timer.add(f"{iteration} {now - self._lap} {iteration - self._flushed} {self._elapsed}")
        if self._events:
            curves = {name_in_events(name): mean for name, mean in means.items()}
            curves["seconds_per_iteration"] = (now - self._lap) / (iteration - self._flushed)
            self._events.add_values(iteration, curves)
        self._flushed = iteration
        self._lap = now

    def state(self) -> Dict[str, Any]:
        """The texts written so far and the losses not yet written, as plain values that JSON can hold."""
        return {
            "series": {name: log.state() for name, log in self._series.items()},
            "timer": self._timer.state(),
            "pending": {name: list(values) for name, values in self._pending.items()},
            "flushed": self._flushed,
            "elapsed": self._elapsed,
        }

    def set_state(self, state: Dict[str, Any]) -> None:
        """Go on from a `state()`: the files become what they were then.

        Raises:
            KeyError, TypeError or ValueError: where it is not one.
        """
        pending = {name: [float(value) for value in state["pending"][name]] for name in LOSSES}
        for name in LOSSES:
            numbers(state["series"][name])
        flushed = operator.index(state["flushed"])
        elapsed = float(state["elapsed"])
        for name, log in self._series.items():
            log.set_state(state["series"][name])
        self._timer.set_state(state["timer"])
        self._pending = pending
        self._flushed = flushed
        self._elapsed = elapsed
        self._lap = time.time()
        if self._events:
            self._events.begin(flushed + 1)


def draw_curves(folder: str | Path) -> List[str]:
    """Draw `loss_KIND.png` for each kind of loss from the series files in `folder`. Returns their names."""
    folder = Path(folder)
    names = [f"loss_{kind}.png" for kind in KINDS]
    for kind, name in zip(KINDS, names):
        series = {f"domain {domain}": Log(folder / f"{kind}_loss_{domain}.series.txt") for domain in "xy"}
        draw_series(folder / name, kind.replace("_", " ") + " loss", "loss", series, from_zero=True)
    return names


def draw_series(path: Path, title: str, unit: str, series: Dict[str, Log], from_zero: bool = False) -> None:
    """Draw the curves of a few series, by their labels, into a PNG; the label "" is not shown."""
    with saved_figure(path, dpi=110, figsize=(6, 3.4), layout="constrained") as figure:
        axes = figure.add_subplot(xlabel="iteration", ylabel=unit, title=title)
        for label, log in series.items():
            rows = numbers(log.state())
            if len(rows):
                marker = "." if len(rows) < 20 else ""
                axes.plot(rows[:, 0], rows[:, 1], label=label, linewidth=1, marker=marker)
        if axes.lines and any(series):
            axes.legend()
        if from_zero:
            axes.set_ylim(bottom=0)


def name_in_events(name: str) -> str:
    """The name of a series for TensorBoard, which groups curves by what precedes the slash."""
    return "/".join(name.rsplit("_", 1))


def short_summary(losses: Dict[str, float]) -> Dict[str, str]:
    """The losses for the progress bar: the mean over both domains of each kind."""
    summary = {}
    for kind, label in zip(KINDS, ("G", "D", "cyc", "idt", "ctx")):
        values = [v for name, v in losses.items() if name.startswith(kind + "_loss")]
        if values:
            summary[label] = f"{np.mean(values):.2f}"
    return summary


def numbers(series: str) -> np.ndarray:
    """The (iteration, value) rows of a series file's text. Raises ValueError where it is not one."""
    return np.array([float(word) for word in series.split()]).reshape(-1, 2)
