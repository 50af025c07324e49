# SPDX-License-Identifier: Apache-2.0
"""Measure how well a model translates: classification score, background, masks, and shapes where the truth is known.

python evaluate.py --model tmp.monitor --dataroot datasets/jeans2skirt_ccp --phase test
python evaluate.py --model runs/shapes --dataroot datasets/circle2square --direction AtoB --output evaluation_shapes

Each figure stands between two to read it by: what the untouched input gets, and what real pictures of the target get.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Dict, Tuple

from common.errors import UserError, begin_script, run_main

begin_script()

from args import evaluate_args
from backend import context
from common import files
from metrics import inception, report
from metrics.evaluator import Evaluator
from translation.translator import Translator, load_translator
from weights import model_file


def main() -> None:
    """Run the command line."""
    args = evaluate_args(__doc__)
    folder = Path(args.output)
    if (folder / "metrics.json").exists():
        if not args.overwrite:
            raise UserError(f"{folder} already holds an evaluation; give another --output, or --overwrite")
        report.read(folder)
    made = ("index.html", "metrics.md", "pictures", *(f"cases_{direction}.png" for direction in report.DIRECTIONS))
    files.refuse_foreign(folder, made, "metrics.json", args.overwrite)
    weights = inception.find(args.inception)
    context.set_up(args)
    directions = report.DIRECTIONS if args.direction == "both" else (args.direction,)
    translators = {}
    for args.direction in directions:
        translators[args.direction], size, _ = load_translator(args)
    files.make_folder(folder, "--output")
    evaluator = Evaluator(args, directions, size, inception.LocalInceptionV3(weights) if weights else None)
    with files.locked(folder, f"another evaluation goes to {folder}; wait for it, or give another --output"):
        write_evaluation(args, evaluator, translators, size)
    print(f"open {folder / 'index.html'}")


def write_evaluation(
    args: argparse.Namespace, evaluator: Evaluator, translators: Dict[str, Translator], size: Tuple[int, int]
) -> None:
    """Evaluate each direction's translator, and write what comes out in place of an earlier evaluation."""
    folder = Path(args.output)
    if (folder / "metrics.json").exists():
        report.remove(folder)
    found = {direction: evaluator.evaluate(direction, translator) for direction, translator in translators.items()}
    settings = {name: getattr(args, name) for name in ("dataroot", "phase", "ins_max", "set_order", "seed")}
    ins_per = next(iter(translators.values())).ins_per
    model = str(model_file.find_model(args.model))
    about = {"model": model, **settings, "ins_per": ins_per, "size": size, "classifier_accuracy": evaluator.accuracy}
    print("\n" + report.write(folder, about, found, evaluator.notes()))


if __name__ == "__main__":
    run_main(main)
