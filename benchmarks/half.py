# SPDX-License-Identifier: Apache-2.0
"""Compare the losses of training in half precision with those in float32, on the cases that the authors' code computed.

    python benchmarks/half.py                    # emulated on a CPU, 100 iterations: a quarter of an hour
    python benchmarks/half.py --context cudnn    # on a GPU

On a CPU what a GPU does in half precision is emulated: convolutions compute in float32 on numbers that have been
rounded to half, and round what they give, backward as well as forward; what is between them stays float32. Losses of a
GAN drift apart under any change, so a second training in float32, from weights that are off by 1e-6 of themselves,
shows how far rounding alone takes them. Needs requirements-test.txt.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from common.errors import UserError, begin_script, run_main

begin_script()

import nnabla as nn
import nnabla.functions as F
import numpy as np
from nnabla.function import PythonFunction
from tqdm import tqdm

from args import train_args
from backend import (
    context,
    kernels,
    layers,
    precision,
)
from backend.processes import ALONE
from benchmarks.reference import ReferenceCase, read_case, read_sample, training_flags
from common import files
from common.command_line import Parser, whole
from instagan import InstaGAN
from metrics.report import markdown
from models import DOMAINS
from training.settings import Settings
from translation.sequence import Batch

Losses = List[Dict[str, float]]
CASES = ["one-pass", "two-pass"]
RUNS = ["float", "float again", "half"]
KINDS = {
    "cycle, identity, context": ("reconstruction", "identity_mapping", "context_preserving"),
    "adversarial": ("generator", "discriminator"),
}


class Rounding(PythonFunction):
    """To the nearest half-precision numbers and back to float32, the gradient too."""

    @property
    def name(self) -> str:
        """As it shows in NNabla's graphs."""
        return "RoundToHalf"

    def min_outputs(self) -> int:
        """One."""
        return 1

    def setup_impl(self, inputs: List[nn.Variable], outputs: List[nn.Variable]) -> None:
        """The shape stays."""
        outputs[0].reset_shape(inputs[0].shape, True)

    def forward_impl(self, inputs: List[nn.Variable], outputs: List[nn.Variable]) -> None:
        """Round."""
        outputs[0].d = rounded(inputs[0].d)

    def backward_impl(self, inputs: List, outputs: List, propagate_down: List[bool], accum: List[bool]) -> None:
        """Round the gradient."""
        if propagate_down[0]:
            gradient = rounded(outputs[0].g)
            inputs[0].g = inputs[0].g + gradient if accum[0] else gradient

    def grad_depends_input_data(self, i: int, j: int) -> bool:
        """It does not."""
        return False

    def grad_depends_output_data(self, i: int, o: int) -> bool:
        """It does not."""
        return False


def rounded(values: np.ndarray) -> np.ndarray:
    """To half and back; what is too large becomes infinite."""
    with np.errstate(over="ignore"):
        return values.astype(np.float16).astype(np.float32)


class Emulation:
    """`nnabla.functions` as layers see them, but for convolutions that compute as in half precision."""

    def __getattr__(self, name: str) -> Callable[..., nn.Variable]:
        function = getattr(F, name)
        if name not in ("convolution", "deconvolution"):
            return function

        def in_half(x: nn.Variable, w: nn.Variable, b: nn.Variable, **how: Any) -> nn.Variable:
            x, w, b = (Rounding(nn.get_current_context())(v) for v in (x, w, b))
            return Rounding(nn.get_current_context())(function(x, w, b, **how))

        return in_half


def main() -> int:
    """Run the command line."""
    parser = Parser(__doc__)
    parser.add_argument("--context", "-c", choices=("cpu", "cudnn"), default="cpu", help="where to compute")
    parser.add_argument("--iterations", type=whole(1), default=100, help="how many to train for")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES, help="reference cases")
    parser.add_argument("--output", type=Path, help="file for all losses (default: half.json beside this program)")
    args = parser.parse_args()
    args.output = args.output or ROOT / "benchmarks" / "half.json"
    if not args.output.parent.is_dir():
        raise UserError(f"there is no folder {args.output.parent} (--output); make it first")
    written: Dict[str, Dict[str, Dict[str, List[float]]]] = {}
    rows = [["case", "training", "losses", "within 5 %", "median difference", "largest", "of their means"]]
    for name in args.cases:
        case = read_case(name)
        found = {run: train(case, run, args) for run in RUNS}
        for run in RUNS[1:]:
            for kind, names in KINDS.items():
                rows.append([name, run, kind, *differences(found["float"], found[run], names)])
        written[name] = {run: by_name(losses) for run, losses in found.items()}
        files.write_text(args.output, json.dumps(written) + "\n")
    print(markdown(rows))
    return 0


def train(case: ReferenceCase, run: str, args: argparse.Namespace) -> Losses:
    """The losses of each iteration of one of the RUNS on the pictures of a case, from its weights."""
    nn.clear_parameters()
    half, on_gpu = run == "half", args.context == "cudnn"
    context.set_context(args.context, type_config="half" if half and on_gpu else "float")
    emulated = half and not on_gpu
    kernels.configure("nnabla" if emulated else "auto")
    layers.F = Emulation() if emulated else F
    if emulated:
        # layers are those of half precision, with a loss scale
        precision.set_layers_context(nn.get_current_context())
    model = InstaGAN(Settings.from_args(train_args("", training_flags(case))))
    case.set_parameters()
    if run == "float again":
        random = np.random.default_rng(0)
        for variable in nn.get_parameters().values():
            variable.d = variable.d * (1 + 1e-6 * random.normal(size=variable.shape))
    letters, ins_per = DOMAINS.items(), case.settings["ins_per"]
    batches = {domain: Batch.from_samples([read_sample(case, "train", letter)], ins_per) for domain, letter in letters}
    bar = tqdm(range(args.iterations), desc=f"{case.name}, {run}", unit="it")
    return [model.step(batches).read(ALONE) for _ in bar]


def differences(one: Losses, other: Losses, kinds: Sequence[str]) -> List[str]:
    """How far losses of some kinds are from those of another training, relative to them: how many are within 5 %, the
    median, the largest, and the largest of what they are on average over all iterations."""
    names = [name for name in one[0] if name.startswith(tuple(kinds))]
    first, second = (np.array([[losses[name] for name in names] for losses in all_]) for all_ in (one, other))
    each, means = np.abs(second / first - 1), np.abs(second.mean(axis=0) / first.mean(axis=0) - 1)
    figures = (np.median(each), each.max(), means.max())
    return [f"{100 * (each < 0.05).mean():.0f} %", *(f"{100 * value:.2f} %" for value in figures)]


def by_name(losses: Losses) -> Dict[str, List[float]]:
    """The course of each loss, to six digits."""
    return {name: [float(f"{of_one[name]:.6g}") for of_one in losses] for name in losses[0]}


if __name__ == "__main__":
    run_main(main)
