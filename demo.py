# SPDX-License-Identifier: Apache-2.0
"""Run all steps on a small scale: make a data set, train on it, translate held-out pictures.

    python demo.py                       # or: make demo
    python demo.py --minutes 20          # a better model

The data set, the run and the results stay in `demo/`; open `demo/index.html` to see them. Each step is a command, which
is printed before it runs. `demo.ipynb` does the same with explanations.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import List

from common.errors import UserError, begin_script, run_main

begin_script(__name__)

import numpy as np

from common import files
from common.command_line import Parser, real
from training.monitors import KINDS
from translation import gallery

ROOT = Path(__file__).resolve().parent
MARK = ".demo"  # a file in folders made here, which a later demo may remove
DATA, RUN = "circle2square", "run"
DIRECTIONS = {"AtoB": "Circles to squares", "BtoA": "Squares to circles"}
PICTURES = 100
SIZE = 64
# Discriminators of two layers judge small patches, in which grids and round corners show; at these rates both go within
# a few minutes.
MODEL = (
    f"--loadSizeH {SIZE} --loadSizeW {SIZE} --fineSizeH {SIZE} --fineSizeW {SIZE} --ngf 8 --ndf 16 --n-blocks 2 "
    "--n-layers-D 2 --learning-rate_G 4e-4 --learning-rate_D 4e-4"
)


def main() -> None:
    """Run the command line."""
    parser = Parser(__doc__)
    parser.add_argument("--context", "-c", choices=("auto", "cpu", "cudnn"), default="auto", help="where to compute")
    parser.add_argument("--minutes", type=real(zero=False), default=4.0, help="how long to train, approximately")
    parser.add_argument("--output", default="demo", help="folder for everything; an earlier demo in it is replaced")
    args = parser.parse_args()
    start = time.time()
    folder = Path(args.output)
    clear(folder)
    make_data(folder)
    iterations = train(folder, args.minutes, args.context)
    for direction in DIRECTIONS:
        translate(folder, direction, args.context)
    seconds = time.time() - start
    write_page(folder, f"Trained for {iterations} iterations; everything took {seconds / 60:.1f} minutes.")
    print(f"done in {seconds:.0f} s: open {folder / 'index.html'}")


def clear(folder: Path) -> None:
    """Make the folder empty, removing an earlier demo.

    Raises:
        UserError: where it holds anything else.
    """
    names = {path.name for path in folder.glob("*")} if folder.is_dir() else set()
    foreign = names
    if MARK in names:
        foreign = names - {MARK, DATA, RUN, *DIRECTIONS, "index.html"}
    if foreign:
        raise UserError(f"{folder} holds {min(foreign)}, which is not the demo's; give another --output")
    shutil.rmtree(folder, ignore_errors=True)
    files.make_folder(folder, "--output")
    (folder / MARK).touch()


def make_data(folder: Path) -> None:
    """Make pictures of circles (domain A) and squares (domain B), to train on and to hold out."""
    amounts = f"--train {PICTURES} --test 12 --max-instances 2"
    step("datasets/generate_shapes_dataset.py", f"--size {SIZE} {amounts}", save_root=folder / DATA)


def train(folder: Path, minutes: float, context: str = "auto") -> int:
    """Train on them for about `minutes`; return the number of iterations."""
    model = f"{MODEL} --context {context}"
    iterations = max(10, int(minutes * 60 / seconds_per_iteration(folder / DATA, model)))
    epochs = -(-iterations // PICTURES)
    schedule = f"--max-epoch {epochs} --max-iter {iterations} --lr-decay-start-epoch {epochs // 2} --log-step 10"
    step("train.py", f"{model} {schedule}", **{"dataroot": folder / DATA, "monitor-path": folder / RUN})
    return iterations


def translate(folder: Path, direction: str, context: str = "auto") -> None:
    """Translate the held-out pictures in one direction, into a folder of its name."""
    arguments = f"--phase test --direction {direction} --context {context}"
    step("translate.py", arguments, model=folder / RUN, dataroot=folder / DATA, output=folder / direction)


def command(script: str, arguments: str, **paths: Path) -> List[str]:
    """The command line of a script of this project, without Python: `arguments`, and paths by their flags."""
    flags = [text for flag, path in paths.items() for text in (f"--{flag}", str(path))]
    return [os.path.relpath(ROOT / script), *arguments.split(), *flags]


def step(script: str, arguments: str, **paths: Path) -> None:
    """Print a command and run it.

    Raises:
        UserError: where it fails; the command itself has printed why.
    """
    words = command(script, arguments, **paths)
    print(f"\n$ python {' '.join(map(shlex.quote, words))}", flush=True)
    if subprocess.run([sys.executable, *words]).returncode:
        raise UserError("the demo stops because the command above failed; fix that, then start it again")


def seconds_per_iteration(data: Path, model: str) -> float:
    """Measure how fast this machine trains, by a few iterations that are discarded."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {"dataroot": data, "monitor-path": Path(folder)}
        words = command("train.py", f"{model} --max-iter 24 --log-step 4", **paths)
        trial = subprocess.run([sys.executable, *words], capture_output=True, text=True)
        if trial.returncode:
            *_, reason = ["it was killed", *trial.stderr.strip().splitlines()]
            raise UserError(f"a trial training failed: {reason}")
        # without the first 12, which are slower: kernels are created for each new shape
        return float(np.loadtxt(Path(folder) / "Training_time.timer.txt")[3:, 1].mean() / 4)


def write_page(folder: Path, text: str) -> None:
    """Write index.html: `text`, held-out pictures in both directions, samples from the training, and the losses."""
    text += (
        " No picture below was used in training, and these are all the held-out pictures, not a selection. The "
        "background stays as it is."
    )
    sections = []
    for direction, heading in DIRECTIONS.items():
        by_name = gallery.read_comparisons(folder / direction / "translations.json")
        comparisons = [comparison.under(direction) for _, comparison in sorted(by_name.items())]
        sections.append(gallery.Section(heading, "" if sections else text, comparisons=comparisons))
    samples = [(f"epoch {int(path.stem.split('_')[1])}", f"{RUN}/{path.name}") for path in sample_grids(folder)]
    text = (
        "The same held-out pictures each time. From left to right: input, its masks, translation, its masks; then the "
        f"same for the other direction. {RUN}/index.html shows all of them, and how good the model was at each time."
    )
    sections.append(gallery.Section("How it learned", text, [gallery.Row("", samples)], wide=True))
    curves = [("", f"{RUN}/loss_{kind}.png") for kind in KINDS]
    sections.append(gallery.Section("Losses", "", [gallery.Row("", curves)], wide=True))
    gallery.write_page(folder / "index.html", "InstaGAN: circles and squares", sections)


def sample_grids(folder: Path, most: int = 6) -> List[Path]:
    """The sample pictures that the training wrote; `most` of them, evenly spaced, where there are more."""
    paths = sorted((folder / RUN).glob("sample_*.png"))
    return [paths[i] for i in sorted(set(np.linspace(0, len(paths) - 1, min(most, len(paths))).astype(int)))]


if __name__ == "__main__":
    run_main(main)
