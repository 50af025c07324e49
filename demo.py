# SPDX-License-Identifier: Apache-2.0
"""The whole way in one go, on a small scale: make a data set, train on it, translate pictures it has not seen.

    python demo.py                       # or: make demo
    python demo.py --minutes 20          # a better model

The data set, the run and the results are left in `demo/`, to be looked at through `demo/index.html`. Each step is a
command that is printed before it runs, and can be typed as well.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Dict, List

from errors import UserError, run_main

import numpy as np

import atomic
import gallery
from command_line import Parser, real
from monitors import draw_curves

ROOT = Path(__file__).resolve().parent
MARK = ".demo"  # a file in the folders that were made here, which may be removed
PICTURES = 100
SIZE = 64
MODEL = f"--loadSizeH {SIZE} --loadSizeW {SIZE} --fineSizeH {SIZE} --fineSizeW {SIZE} --ngf 8 --ndf 8 --n-blocks 2"


def main() -> None:
    """Run the command line."""
    parser = Parser(__doc__)
    parser.add_argument("--context", "-c", choices=("auto", "cpu", "cudnn"), default="auto", help="where to compute")
    parser.add_argument("--minutes", type=real(zero=False), default=4.0, help="how long to train, about")
    parser.add_argument("--output", default="demo", help="folder for everything; an earlier demo in it is replaced")
    args = parser.parse_args()
    start, folder = time.time(), Path(args.output)
    clear(folder)
    data, run = folder / "circle2square", folder / "run"
    amounts = f"--train {PICTURES} --test 12 --max-instances 2"
    step("datasets/generate_shapes_dataset.py", f"--size {SIZE} {amounts}", save_root=data)
    model = f"{MODEL} --context {args.context}"
    iterations = max(10, int(args.minutes * 60 / seconds_per_iteration(data, model)))
    epochs = -(-iterations // PICTURES)
    schedule = f"--max-epoch {epochs} --max-iter {iterations} --lr-decay-start-epoch {epochs // 2} --log-step 10"
    step("train.py", f"{model} {schedule}", **{"dataroot": data, "monitor-path": run})
    for direction in ("AtoB", "BtoA"):
        how = f"--phase test --direction {direction} --context {args.context}"
        step("translate.py", how, model=run, dataroot=data, output=folder / direction)
    write_page(folder, run, iterations, time.time() - start)
    print(f"done in {time.time() - start:.0f} s: open {folder / 'index.html'}")


def clear(folder: Path) -> None:
    """Make the folder anew, without an earlier demo. Raises UserError where it holds anything else."""
    ours = {MARK, "circle2square", "run", "AtoB", "BtoA", "index.html"}
    found = {path.name for path in folder.glob("*")} if folder.is_dir() else set()
    others = sorted(found - ours) or sorted(found - {MARK} if MARK not in found else ())
    if others:
        raise UserError(f"{folder} holds {others[0]}, which is not the demo's; give another --output")
    shutil.rmtree(folder, ignore_errors=True)
    atomic.make_folder(folder, "--output")
    (folder / MARK).touch()


def command(script: str, arguments: str, **paths: Path) -> List[str]:
    """What runs a script of this project with these arguments, and paths by their flags."""
    flags = [text for flag, path in paths.items() for text in (f"--{flag}", str(path))]
    return [os.path.relpath(ROOT / script), *arguments.split(), *flags]


def step(script: str, arguments: str, **paths: Path) -> None:
    """Show a command and run it. Raises UserError where it fails; it has said why."""
    words = command(script, arguments, **paths)
    print(f"\n$ python {' '.join(map(shlex.quote, words))}", flush=True)
    if subprocess.run([sys.executable, *words]).returncode:
        raise UserError("the demo stops because the command above failed; mend that, then start it again")


def seconds_per_iteration(data: Path, model: str) -> float:
    """Train for a few iterations, thrown away, to see how fast this machine is."""
    with tempfile.TemporaryDirectory() as folder:
        where = {"dataroot": data, "monitor-path": Path(folder)}
        words = command("train.py", f"{model} --max-iter 24 --log-step 4", **where)
        trial = subprocess.run([sys.executable, *words], capture_output=True, text=True)
        if trial.returncode:
            raise UserError("a trial training failed: " + trial.stderr.strip().splitlines()[-1])
        # the first ones are slower: kernels are made for each new shape
        return float(np.loadtxt(Path(folder) / "Training_time.timer.txt")[3:, 1].mean() / 4)


def write_page(folder: Path, run: Path, iterations: int, seconds: float) -> None:
    """Write index.html: held-out pictures in both directions, how training went, and the losses."""
    text = (
        f"Trained for {iterations} iterations; everything took {seconds / 60:.1f} minutes. No picture below was seen "
        "in training, and nothing was picked: these are all the held-out pictures. The background should stay as it is."
    )
    sections = [
        gallery.Section("Circles to squares", text, translated_rows(folder, "AtoB")),
        gallery.Section("Squares to circles", "", translated_rows(folder, "BtoA")),
    ]
    samples = [
        (f"epoch {int(path.stem.split('_')[1])}", f"run/{path.name}") for path in sorted(run.glob("sample_*.png"))
    ]
    shown = [samples[i] for i in sorted(set(np.linspace(0, len(samples) - 1, min(6, len(samples))).astype(int)))]
    text = "Always the same pictures. From left to right: input, its masks, translation, its masks; then the other way."
    sections.append(gallery.Section("How it learned", text, [gallery.Row("", shown)], wide=True))
    curves = [("", f"run/{name}") for name in draw_curves(run)]
    sections.append(gallery.Section("Losses", "", [gallery.Row("", curves)], wide=True))
    gallery.write_page(folder / "index.html", "InstaGAN: circles and squares", sections)


def translated_rows(folder: Path, direction: str) -> List[gallery.Row]:
    """The rows of one direction's results, seen from the demo's folder."""
    record: Dict[str, Dict] = json.loads((folder / direction / "translations.json").read_text(encoding="utf-8"))
    return [
        gallery.Row(row["title"], [(caption, f"{direction}/{path}") for caption, path in row["cells"]])
        for _, row in sorted(record.items())
    ]


if __name__ == "__main__":
    run_main(main)
