# SPDX-License-Identifier: Apache-2.0
"""The paper's ablation on shapes, with its spread: train each variant with several seeds, measure all, draw the tables.

    python benchmarks/ablation.py                                  # about four hours on two cores
    python benchmarks/ablation.py --seeds 1 --variants full one_step

Ctrl-C stops it, and the same command goes on where it stopped: what is trained or measured stays, a training that was
stopped is resumed. Everything is in --output: data sets; in `runs/` the trainings, with what each printed in
VARIANT_SEED.log; in `measured/` their figures; and at the end `ablation.md`, with its curves and pictures.

All trainings have the same iterations, few enough for many of them: what differs between variants counts here, not how
good the best one gets (`docs/results.md` has longer trainings). After Mo, Cho and Shin, section 4.3, figures 9 and 10.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from itertools import product
from pathlib import Path
from typing import DefaultDict, Dict, Iterator, List, NamedTuple, Sequence, Tuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from common.errors import UserError, begin_script, run_main

begin_script(__name__)

from tqdm import tqdm

from args import train_args
from backend import context
from benchmarks import ablation_report as report
from benchmarks.ablation_report import AS_TRAINED, AT_ONCE, BY_TWO, Means, Measurement
from common import files
from common.command_line import Parser, whole
from common.interruption import Interruption
from datasets.generate_shapes_dataset import generate
from metrics.report import DIRECTIONS

VARIANTS = {
    "full": "--background network",
    "composited": "--background keep",
    "no_context": "--background network --lambda-ctx 0",
    "one_step": "--background network --ins-per 4",
    "cyclegan": "--background network --ins-max 0",
    "one_step_composited": "--background keep --ins-per 4",
    "random_order": "--background network --set-order random",
}
# the rows of curves over the number of instances, and their lines: how a model was trained
CURVES = {
    "passes as in the paper": {"sequential": "full", "one step": "one_step"},
    "composited passes": {"sequential": "composited", "one step": "one_step_composited"},
}
SIZE = 64
TRAINING_PICTURES = 200
EPOCHS = 6
MODEL = (
    f"--loadSizeH {SIZE} --loadSizeW {SIZE} --fineSizeH {SIZE} --fineSizeW {SIZE} --ngf 8 --ndf 16 --n-blocks 3 "
    "--n-layers-D 2 --learning-rate_G 4e-4 --learning-rate_D 4e-4 "
    # the last models are measured, all of them and after the trainings
    f"--max-epoch {EPOCHS} --lr-decay-start-epoch {EPOCHS // 2} --save-interval 1 --evaluate-interval 0"
)

Figures = Dict[str, Means]  # of one training, by Measurement.name
Measured = DefaultDict[str, List[Figures]]  # of all seeds, by variant


class Pictures(NamedTuple):
    """A data set of shapes: the numbers of instances in a picture, the side of pictures, and how many are for tests."""

    fewest: int
    most: int
    side: int
    test: int

    @property
    def counts(self) -> str:
        """The numbers of instances, which name its folder."""
        return str(self.most) if self.fewest == self.most else f"{self.fewest}-{self.most}"

    def path(self, folder: Path) -> Path:
        """Its folder."""
        return folder / f"shapes_{self.counts}"


TRAINED = Pictures(1, 4, SIZE, 50)
# pictures with many instances are larger, so that the instances keep their size
FIXED_COUNTS = [Pictures(count, count, side, 20) for count, side in ((1, 64), (2, 64), (4, 64), (8, 92), (16, 128))]


class Training(NamedTuple):
    """One training: a key of VARIANTS, and its seed."""

    variant: str
    seed: int

    @property
    def name(self) -> str:
        """The name of its run and of its figures."""
        return f"{self.variant}_{self.seed}"

    def run(self, folder: Path) -> Path:
        """The folder of its run."""
        return folder / "runs" / self.name

    def log(self, folder: Path) -> Path:
        """The file of its output."""
        return folder / "runs" / f"{self.name}.log"

    def figures(self, folder: Path) -> Path:
        """The file of its figures."""
        return folder / "measured" / f"{self.name}.json"

    def is_done(self, folder: Path) -> bool:
        """Return whether its last model is there."""
        return (self.run(folder) / f"params_{EPOCHS * TRAINING_PICTURES:06d}.h5").exists()

    def arguments(self, folder: Path) -> List[str]:
        """Those of train.py; they go on with a run that was begun."""
        run = self.run(folder)
        paths = ["--dataroot", str(TRAINED.path(folder)), "--monitor-path", str(run)]
        resume = ["--resume"] if (run / "args.json").exists() else []
        return [*MODEL.split(), *VARIANTS[self.variant].split(), "--seed", str(self.seed), *paths, *resume]


def main() -> int:
    """Run the command line; the exit code is 128 + the signal where one stopped the trainings."""
    parser = Parser(__doc__)
    parser.add_argument("--output", default="ablation", help="folder for everything; what is in it is gone on with")
    parser.add_argument("--seeds", type=whole(1), default=3, help="trainings of each variant")
    parser.add_argument("--variants", nargs="+", choices=tuple(VARIANTS), default=list(VARIANTS), help="which of them")
    parser.add_argument("--jobs", type=whole(1), default=os.cpu_count(), help="trainings at a time, each on one core")
    args = parser.parse_args()
    folder = Path(args.output)
    trainings = [Training(variant, seed) for seed in range(args.seeds) for variant in args.variants]
    for part in ("runs", "measured"):
        files.make_folder(folder / part, "--output")
    with files.locked(folder / ".lock", f"another ablation goes to {folder}; wait for it, or give another --output"):
        make_data(folder)
        for training in trainings:
            # raises UserError where a run was begun with other settings than those of this file
            train_args("", training.arguments(folder))
        signal = train_all(trainings, folder, args.jobs)
        if signal:
            print("stopped; the same command goes on")
            return 128 + signal
        measure_all(trainings, folder)
        write_report(trainings, folder)
    print(f"tables, curves.png and pictures_*.png are in {folder}")
    return 0


def make_data(folder: Path) -> None:
    """Make the data sets that are not there yet."""
    for pictures in (TRAINED, *FIXED_COUNTS):
        if not pictures.path(folder).exists():
            generate(
                pictures.path(folder),
                height=pictures.side,
                width=pictures.side,
                train=TRAINING_PICTURES if pictures is TRAINED else 1,
                test=pictures.test,
                min_instances=pictures.fewest,
                max_instances=pictures.most,
            )


def train_all(trainings: Sequence[Training], folder: Path, jobs: int) -> int:
    """Train what is not trained yet, `jobs` at a time.

    Returns the number of the signal that stopped it, after which each training has a checkpoint; 0 for none.

    Raises:
        UserError: where a training fails; the others are stopped too.
    """
    waiting = [training for training in trainings if not training.is_done(folder)]
    running: Dict[Training, subprocess.Popen] = {}
    planned = {"total": len(trainings), "initial": len(trainings) - len(waiting)}
    promise = "stopping, each training with a checkpoint"
    with Interruption(promise) as interruption, tqdm(**planned, desc="training", unit="training") as bar:
        try:
            while (waiting or running) and not interruption.signal:
                while waiting and len(running) < jobs:
                    training = waiting.pop(0)
                    running[training] = start(training, folder)
                time.sleep(1)
                for training in [one for one, process in running.items() if process.poll() is not None]:
                    del running[training]
                    if not training.is_done(folder):
                        raise UserError(f"{training.name} failed; {training.log(folder)} says why")
                    bar.update()
        finally:
            for process in running.values():
                process.terminate()
            for process in running.values():
                process.wait()
    return interruption.signal


def start(training: Training, folder: Path) -> subprocess.Popen:
    """Start a training on one core, in a session of its own: no Ctrl-C reaches it beside the signal of `train_all`."""
    command = [sys.executable, str(ROOT / "train.py"), *training.arguments(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with open(training.log(folder), "a", encoding="utf-8") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)


def measure_all(trainings: Sequence[Training], folder: Path) -> None:
    """Measure what is not measured yet; the figures of a training are by `Measurement.name`."""
    # device and kernels, as train.py chooses them by default
    context.set_up(train_args("", []))
    for training in tqdm(trainings, desc="measuring", unit="training"):
        if not training.figures(folder).exists():
            run = training.run(folder)
            trained = TRAINED.path(folder)
            figures = {
                measurement.name: report.measure(run, trained, pictures.path(folder), pictures.side, measurement)
                for pictures, measurement in measurements(training.variant)
            }
            files.write_text(training.figures(folder), json.dumps(figures, indent=1) + "\n")


def measurements(variant: str) -> Iterator[Tuple[Pictures, Measurement]]:
    """The measurements of a variant: of pictures as in training, and for the curves of pictures with fixed numbers."""
    for direction in DIRECTIONS:
        yield TRAINED, Measurement(TRAINED.counts, AS_TRAINED, direction)
    if any(variant in lines.values() for lines in CURVES.values()):
        for pictures, ins_per, direction in product(FIXED_COUNTS, (BY_TWO, AT_ONCE), DIRECTIONS):
            yield pictures, Measurement(pictures.counts, ins_per, direction)


def write_report(trainings: Sequence[Training], folder: Path) -> None:
    """Write `ablation.md`, the curves and the pictures, and print the tables."""
    measured: Measured = defaultdict(list)
    for training in trainings:
        measured[training.variant].append(json.loads(training.figures(folder).read_text(encoding="utf-8")))
    count = len(trainings) // len(measured)
    tables = [f"Mean ± standard deviation of {count} trainings of each variant, which differ in `--seed`.\n"]
    for direction in DIRECTIONS:
        columns = {variant: of_seeds(seeds, TRAINED, AS_TRAINED, direction) for variant, seeds in measured.items()}
        columns[report.PERFECT] = [perfect(TRAINED, direction)]
        tables.append(f"## {TRAINED.counts} instances, {direction}\n\n{report.table(columns)}")
        runs = {training.variant: training.run(folder) for training in trainings if training.seed == 0}
        report.draw_pictures(folder / f"pictures_{direction}.png", runs, TRAINED.path(folder), TRAINED.side, direction)
    trained = {kind: {name: v for name, v in by.items() if v in measured} for kind, by in CURVES.items()}
    panels = {kind: lines(by, measured) for kind, by in trained.items() if by}
    if panels:
        report.draw_curves(folder / "curves.png", panels)
    for kind, of_kind in panels.items():
        tables.append(f"## Numbers of instances, {kind}, both directions\n\n{report.counts_tables(of_kind)}")
    files.write_text(folder / "ablation.md", "\n".join(tables))
    print("\n".join(tables))


def lines(trained: Dict[str, str], measured: Measured) -> report.Lines:
    """The lines of curves over the number of instances: one for each variant that `trained` names and each way to
    translate (figure 10 of the paper). The means are those of each seed over both directions."""
    named: report.Lines = {}
    for (training, variant), (ins_per, translation) in product(trained.items(), report.INFERENCES.items()):
        if ins_per != AS_TRAINED:
            named[f"{training} / {translation}"] = {
                pictures.counts: both_directions(
                    *(of_seeds(measured[variant], pictures, ins_per, direction) for direction in DIRECTIONS)
                )
                for pictures in FIXED_COUNTS
            }
    named[report.PERFECT] = {
        pictures.counts: both_directions(*([perfect(pictures, direction)] for direction in DIRECTIONS))
        for pictures in FIXED_COUNTS
    }
    return named


def of_seeds(seeds: List[Figures], pictures: Pictures, ins_per: int, direction: str) -> List[Means]:
    """The means that each seed of a variant has in one measurement."""
    name = Measurement(pictures.counts, ins_per, direction).name
    return [figures[name] for figures in seeds]


def both_directions(one: List[Means], other: List[Means]) -> List[Means]:
    """For each seed, the mean of the two directions; a metric that one of them lacks is left out."""
    return [{name: (a[name] + b[name]) / 2 for name in set(a) & set(b)} for a, b in zip(one, other)]


def perfect(pictures: Pictures, direction: str) -> Means:
    """The figures of perfect translations of a data set's test pictures."""
    return report.measure_perfect(pictures.test, pictures.side, pictures.fewest, pictures.most, direction)


if __name__ == "__main__":
    run_main(main)
