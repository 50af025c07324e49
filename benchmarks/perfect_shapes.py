# SPDX-License-Identifier: Apache-2.0
"""The scores of perfect translations of the shapes: what evaluate.py's figures can reach at most.

    python benchmarks/perfect_shapes.py                                              # of circle2square's test pictures
    python benchmarks/perfect_shapes.py --min-instances 8 --max-instances 8

The held-out pictures of `datasets/generate_shapes_dataset.py` are drawn again on the same background, with the other
shape in its mean colour. That is no bound for the background: part of an instance's soft edge lies outside of its mask,
and a translation that leaves it there is closer to the input than the perfect one.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import List

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.errors import begin_script, run_main

begin_script(__name__)

import numpy as np

from common.command_line import Parser, whole
from data.shapes import shape_mask
from datasets.generate_shapes_dataset import COLOURS, DOMAINS, PHASES, background, draw
from metrics import report
from metrics.cases import Case, measure_changes, measure_shapes
from metrics.shape_truth import Target

SHAPE = {"A": "circle", "B": "square"}
TEST = PHASES.index("test")


def main() -> None:
    """Run the command line."""
    parser = Parser(__doc__)
    parser.add_argument("--size", type=whole(1), default=64, help="height and width of the pictures")
    parser.add_argument("--test", type=whole(1), default=50, help="held-out pictures of each domain")
    parser.add_argument("--min-instances", type=whole(1), default=1, help="fewest instances in a picture")
    parser.add_argument("--max-instances", type=whole(1), default=4, help="most instances in a picture")
    parser.add_argument("--seed", type=whole(0), default=0, help="that of the data set")
    args = parser.parse_args()
    columns = {}
    for source, target in ("AB", "BA"):
        cases = [perfect(source, target, index, args) for index in range(args.test)]
        columns[f"{source}to{target}"] = measured(cases, target).summary(report.TRANSLATED)
    print(report.markdown(report.table(columns)))


def perfect(source: str, target: str, index: int, args: argparse.Namespace) -> Case:
    """The test picture `index` of domain `source`, and the same instances as `target` has them."""
    seeds = [args.seed, TEST, DOMAINS.index(source), index]
    random = np.random.default_rng(seeds)
    count = int(random.integers(args.min_instances, args.max_instances + 1))
    x, masks, truth = draw(random, SHAPE[source], COLOURS[source], count, args.size, args.size)

    # the same background again, which is drawn first
    random = np.random.default_rng(seeds)
    random.integers(args.min_instances, args.max_instances + 1)
    canvas = background(random, args.size, args.size)
    new_masks = []
    for instance in truth:
        coverage = shape_mask(SHAPE[target], instance["centre"], instance["size"], args.size, args.size)
        canvas += coverage[..., None] * (np.array(COLOURS[target], np.float32) - canvas)
        new_masks.append(coverage >= 0.5)
    y = np.rint(canvas).astype(np.uint8)
    spared = np.zeros((0, args.size, args.size), bool)
    return Case(str(index), x, np.array(masks) > 0, y, np.array(new_masks), spared, truth, (args.size, args.size))


def measured(cases: List[Case], domain: str) -> report.Evaluation:
    """The evaluation of perfect translations into a domain, with the metrics that need no classifier."""
    target = Target(SHAPE[domain], np.array(COLOURS[domain]))
    evaluation = report.Evaluation()
    for case in cases:
        evaluation.measured[report.TRANSLATED][case.name] = {
            **measure_changes(case),
            **measure_shapes(case, case.truth, target),
        }
    return evaluation


if __name__ == "__main__":
    run_main(main)
