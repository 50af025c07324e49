# SPDX-License-Identifier: Apache-2.0
"""Compare the losses of training in half precision with those in float32, on the reference cases of the authors' code.

    python benchmarks/half.py                    # emulated on a CPU, 100 iterations: a quarter of an hour
    python benchmarks/half.py --context cudnn    # on a GPU

On a CPU half precision is emulated: convolutions compute in float32 on numbers rounded to half, and their results are
rounded too, forward and backward; everything between convolutions stays float32. Losses of a GAN diverge after any
change, so a second training in float32, from weights with a relative error of 1e-6, shows the effect of rounding alone.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from common.errors import UserError, begin_script, run_main

begin_script(__name__)

import nnabla as nn
import nnabla.functions as F
import numpy as np
from nnabla.function import PythonFunction
from tqdm import tqdm

from args import train_args
from backend import context, kernels, layers, precision
from backend.processes import ALONE
from benchmarks.reference import ReferenceCase, read_case, read_sample, training_flags
from common import files
from common.command_line import Parser, whole
from instagan import InstaGAN
from metrics.report import markdown
from models import DOMAINS
from training.settings import Settings
from translation.sequence import Batch

Losses = List[Dict[str, float]]  # of each iteration, by name
CASES = ["one-pass", "two-pass"]
RUNS = ["float", "float again", "half"]
KINDS = {
    "cycle, identity, context": ("reconstruction", "identity_mapping", "context_preserving"),
    "adversarial": ("generator", "discriminator"),
}


class Rounding(PythonFunction):
    """Round to the nearest half-precision numbers, in float32; the gradient too."""

    @property
    def name(self) -> str:
        """The function's name in NNabla's graphs."""
        return "RoundToHalf"

    def min_outputs(self) -> int:
        """One."""
        return 1

    def setup_impl(self, inputs: List[nn.Variable], outputs: List[nn.Variable]) -> None:
        """Keep the shape."""
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
    """Float32 numbers rounded to half precision; too large ones become infinite."""
    with np.errstate(over="ignore"):
        return values.astype(np.float16).astype(np.float32)


class Emulation:
    """`nnabla.functions` as `backend.layers` uses them, with convolutions that compute as in half precision."""

    def __getattr__(self, name: str) -> Callable[..., nn.Variable]:
        function = getattr(F, name)
        if name not in ("convolution", "deconvolution"):
            return function

        def in_half(x: nn.Variable, w: nn.Variable, b: nn.Variable, **window: Any) -> nn.Variable:
            x, w, b = (Rounding(nn.get_current_context())(v) for v in (x, w, b))
            return Rounding(nn.get_current_context())(function(x, w, b, **window))

        return in_half


def main() -> int:
    """Run the command line."""
    parser = Parser(__doc__)
    parser.add_argument("--context", "-c", choices=("cpu", "cudnn"), default="cpu", help="where to compute")
    parser.add_argument("--iterations", type=whole(1), default=100, help="training iterations")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES, help="reference cases")
    parser.add_argument("--output", type=Path, help="file for all losses (default: half.json beside this program)")
    args = parser.parse_args()
    output = args.output or ROOT / "benchmarks" / "half.json"
    if not output.parent.is_dir():
        raise UserError(f"there is no folder {output.parent} (--output); make it first")
    courses: Dict[str, Dict[str, Dict[str, List[float]]]] = {}
    rows = [["case", "training", "losses", "within 5 %", "median difference", "largest", "of their means"]]
    for name in args.cases:
        case = read_case(name)
        losses = {run: train(case, run, args.iterations, args.context) for run in RUNS}
        for run in RUNS[1:]:
            for kind, prefixes in KINDS.items():
                rows.append([name, run, kind, *differences(losses["float"], losses[run], prefixes)])
        courses[name] = {run: by_name(losses[run]) for run in RUNS}
        files.write_text(output, json.dumps(courses) + "\n")
    print(markdown(rows))
    return 0


def train(case: ReferenceCase, run: str, iterations: int, context_name: str) -> Losses:
    """Train on the pictures of a case, from its weights, as one of RUNS, and return the losses of each iteration."""
    nn.clear_parameters()
    half = run == "half"
    emulated = half and context_name == "cpu"
    context.set_context(context_name, type_config="half" if half and not emulated else "float")
    kernels.configure("nnabla" if emulated else "auto")
    layers.F = Emulation() if emulated else F
    if emulated:
        # makes the training one in half precision, with loss scales
        precision.set_layers_context(nn.get_current_context())
    model = InstaGAN(Settings.from_args(train_args("", training_flags(case))))
    case.set_parameters()
    if run == "float again":
        rng = np.random.default_rng(0)
        for variable in nn.get_parameters().values():
            variable.d = variable.d * (1 + 1e-6 * rng.normal(size=variable.shape))
    ins_per = case.settings["ins_per"]
    samples = {domain: read_sample(case, "train", letter) for domain, letter in DOMAINS.items()}
    batches = {domain: Batch.from_samples([sample], ins_per) for domain, sample in samples.items()}
    bar = tqdm(range(iterations), desc=f"{case.name}, {run}", unit="it")
    return [model.step(batches).read(ALONE) for _ in bar]


def differences(reference: Losses, other: Losses, prefixes: Sequence[str]) -> List[str]:
    """Compare the losses of two trainings whose names start with one of `prefixes`.

    Returns, in percent: the share of losses that differ by less than 5 %, the median and the largest relative
    difference, and the largest relative difference of a loss's mean over all iterations.
    """
    names = [name for name in reference[0] if name.startswith(tuple(prefixes))]
    first = np.array([[losses[name] for name in names] for losses in reference])
    second = np.array([[losses[name] for name in names] for losses in other])
    difference = np.abs(second / first - 1)
    difference_of_means = np.abs(second.mean(axis=0) / first.mean(axis=0) - 1)
    percent = [100 * value for value in (np.median(difference), difference.max(), difference_of_means.max())]
    return [f"{100 * (difference < 0.05).mean():.0f} %", *(f"{value:.2f} %" for value in percent)]


def by_name(losses: Losses) -> Dict[str, List[float]]:
    """The course of each loss over the iterations, to six digits."""
    return {name: [float(f"{of_iteration[name]:.6g}") for of_iteration in losses] for name in losses[0]}


if __name__ == "__main__":
    run_main(main)
