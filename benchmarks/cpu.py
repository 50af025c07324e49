# SPDX-License-Identifier: Apache-2.0
"""Measure speed and memory on a CPU: NNabla's own kernels, this project's, and PyTorch, in turn on the same machine.

    python benchmarks/cpu.py                                # layers, generator, training step; 6 minutes
    python benchmarks/cpu.py --torch-python ~/torch/bin/python
    python benchmarks/cpu.py --what instances               # memory and time against the number of instances

Prints tables in Markdown, and writes all figures to OUTPUT/cpu.json or OUTPUT/instances.json and .png. Each figure is
the median of several rounds; in a round each implementation, a process of its own, does the work once (small ones for
0.1 s). What takes one more than `--patience` seconds it does once only. PyTorch is measured where `--torch-python` is
a Python that has it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from common.errors import begin_script, run_main

begin_script()

import matplotlib
import nnabla as nn
import numpy as np
from tqdm import tqdm

import models
from backend import (
    context,
    kernels,
    layers,
)
from benchmarks.measuring import Worker, inputs, network_work
from benchmarks.worker import Case, serve
from common import files
from common.command_line import Parser, whole
from metrics.report import markdown

NETWORK = {"size": [96, 64], "width": 32, "blocks": 9, "ins_per": 1}
STEPS: Dict[str, Case] = {
    "generator, 300x200, ngf 64, one mask": {"what": "generator", **NETWORK, "size": [300, 200], "width": 64, "n": 1},
    "step, 96x64, ngf 32, one mask each": {"what": "step", **NETWORK, "n": 1},
    "step, 96x64, ngf 32, four masks by 2": {"what": "step", **NETWORK, "n": 4, "ins_per": 2},
}
COUNTS = (1, 2, 4, 8, 16, 32)


def main() -> int:
    """Run the command line."""
    parser = Parser(__doc__)
    parser.add_argument("--what", choices=["speed", "instances"], default="speed", help="what to measure")
    parser.add_argument("--torch-python", help="a Python that has PyTorch (default: leave PyTorch out)")
    parser.add_argument("--rounds", type=whole(1), default=5, help="how often each figure is taken")
    parser.add_argument("--patience", type=float, default=5, help="seconds above which once is enough")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks", help="folder for figures (default: here)")
    parser.add_argument("--worker", choices=["onednn", "nnabla"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        context.set_context("cpu")
        kernels.configure(args.worker)
        serve(work_of)
        return 0
    commands = {name: [sys.executable, __file__, "--worker", name] for name in ("nnabla", "onednn")}
    if args.torch_python:
        commands["pytorch"] = [args.torch_python, str(ROOT / "benchmarks" / "pytorch_twin.py")]
    if args.what == "speed":
        speed(commands, args)
    else:
        instances(commands["onednn"], args)
    return 0


def speed(commands: Dict[str, List[str]], args: argparse.Namespace) -> None:
    """Layers, generator and training step."""
    cases = {**layer_cases(), **STEPS}
    found: Dict[str, Dict[str, Dict[str, float]]] = {}
    for name, case in tqdm(cases.items(), desc="measuring", unit="case"):
        found[name] = measure(case, commands, args.rounds, args.patience)
    files.write_text(args.output / "cpu.json", json.dumps({"cases": cases, "found": found}, indent=1) + "\n")
    print(layer_table(cases, found))
    print(step_table(found))


def measure(case: Case, commands: Dict[str, List[str]], rounds: int, patience: float) -> Dict[str, Dict[str, float]]:
    """Median seconds and peak memory of each implementation, all in turn, each in a fresh process."""
    workers = {name: Worker(command) for name, command in commands.items()}
    seconds: Dict[str, List[float]] = {name: [] for name in workers}
    memory = {}
    for i in range(-1, rounds):
        for name, worker in workers.items():
            # the round before the first is for warming up, and all that the slow ones take part in
            if i < 0 or min(seconds[name]) < patience:
                answer = worker.ask(case)
                if i == 0:
                    seconds[name].clear()
                seconds[name].append(answer["seconds"])
                memory[name] = answer["memory"]
    for worker in workers.values():
        worker.close()
    return {name: {"seconds": statistics.median(s), "memory": memory[name]} for name, s in seconds.items()}


def layer_cases() -> Dict[str, Case]:
    """Each shape of layer that G and D have at 96x64, ngf 32, one picture and mask; forward and backward."""
    seen: Dict[str, None] = {}
    original = models.convolution

    def record(x: nn.Variable, w: nn.Variable, b: nn.Variable, skip: Optional[nn.Variable] = None, **how: Any) -> Any:
        seen[json.dumps({"x": x.shape, "w": w.shape, **how})] = None
        return original(x, w, b, skip=skip, **how)

    kernels.configure("nnabla")
    models.convolution = record
    try:
        arch = models.Architecture(ngf=NETWORK["width"], ndf=NETWORK["width"], n_blocks=NETWORK["blocks"])
        for network in (models.generator, models.discriminator):
            with nn.parameter_scope(network.__name__):
                network(*inputs({**NETWORK, "n": 1}), arch)
    finally:
        models.convolution = original
    plain = {"stride": 1, "pad": 0, "reflect": 0, "transposed": False, "normalize": False, "activation": ""}
    cases = {}
    for text in seen:
        case = {"what": "layer", **plain, **json.loads(text)}
        kind = "deconv" if case["transposed"] else "conv"
        sides = f"{case['x'][1]} to {case['w'][1 if case['transposed'] else 0]}"
        how = f"k{case['w'][2]} s{case['stride']}, {'x'.join(map(str, case['x'][2:]))}"
        cases[f"{kind} {sides}, {how}, {case['activation'] or 'linear'}"] = case
    return cases


def operations(case: Case) -> float:
    """Floating point operations of a layer, forward and both gradients."""
    batch, channels, *size = case["x"]
    padded = (batch, channels, *(s + 2 * case["reflect"] for s in size))
    extra = case["stride"] - 1 if case["transposed"] else 0
    how = kernels.Geometry(padded, tuple(case["w"]), case["stride"], case["pad"], case["transposed"], extra)
    return 3 * 2 * how.products


def layer_table(cases: Dict[str, Case], found: Dict[str, Dict[str, Dict[str, float]]]) -> str:
    """Milliseconds and GFLOP/s of each layer, forward and backward; the peak is the best of all."""
    rates = {
        name: {who: operations(cases[name]) / f["seconds"] / 1e9 for who, f in of.items()}
        for name, of in found.items()
        if cases[name]["what"] == "layer"
    }
    peak = max(rate["onednn"] for rate in rates.values())
    names = list(next(iter(rates.values())))
    rows = [["layer", *(f"{who}: ms, GFLOP/s" for who in names), "share of the best"]]
    for name, rate in rates.items():
        cells = [f"{found[name][who]['seconds'] * 1e3:.2f}, {rate[who]:.0f}" for who in names]
        rows.append([name, *cells, f"{rate['onednn'] / peak:.0%}"])
    return markdown(rows)


def step_table(found: Dict[str, Dict[str, Dict[str, float]]]) -> str:
    """Seconds and memory of the generator and the steps, and the ratio to PyTorch."""
    names = list(found[next(iter(STEPS))])
    rows = [["", *(f"{who}: s, GB" for who in names), "onednn / pytorch"]]
    for name in STEPS:
        of = found[name]
        ratio = f"{of['onednn']['seconds'] / of['pytorch']['seconds']:.2f}" if "pytorch" in of else ""
        rows.append([name, *(cost(of[who]) for who in names), ratio])
    return markdown(rows)


def cost(figures: Dict[str, float]) -> str:
    """Seconds and GB."""
    return f"{figures['seconds']:.2f}, {figures['memory'] / 1e9:.2f}"


def instances(command: List[str], args: argparse.Namespace) -> None:
    """Peak memory and time of a training step against the number of instances, a few at a time and all at once."""
    found: Dict[str, Dict[int, Dict[str, float]]] = {"2 at a time": {}, "all at once": {}}
    for count in tqdm(COUNTS, desc="measuring", unit="count"):
        for kind, of in found.items():
            ins_per = 2 if kind == "2 at a time" else count
            worker = Worker(command)
            answers = [worker.ask({"what": "step", **NETWORK, "n": count, "ins_per": ins_per}) for _ in range(3)]
            worker.close()
            of[count] = {"seconds": min(a["seconds"] for a in answers), "memory": answers[-1]["memory"]}
    files.write_text(args.output / "instances.json", json.dumps(found, indent=1) + "\n")
    plot(found, args.output / "instances.png")
    header = ["instances", *(f"{kind}: s, GB" for kind in found)]
    print(markdown([header, *([f"{count}", *(cost(of[count]) for of in found.values())] for count in COUNTS)]))


def plot(found: Dict[str, Dict[int, Dict[str, float]]], path: Path) -> None:
    """Both against the number of instances."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.5), constrained_layout=True)
    for axis, key, label, unit in zip(axes, ("memory", "seconds"), ("peak memory, GB", "time of a step, s"), (1e9, 1)):
        for kind, of in found.items():
            axis.plot(list(of), [f[key] / unit for f in of.values()], marker="o", label=kind)
        axis.set_xscale("log", base=2)
        axis.set(xlabel="instances in each picture", ylabel=label, xticks=COUNTS, xticklabels=COUNTS, ylim=(0, None))
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(path, dpi=100)


def work_of(case: Case) -> Callable[[], Any]:
    """What is to be timed."""
    if case["what"] == "layer":
        return layer_work(case)
    return network_work(case)


def layer_work(case: Case) -> Callable[[], Any]:
    """A layer forward and backward, with its tensors as they come from and go to other layers."""
    x, w, b = (nn.Variable(shape, need_grad=True) for shape in (case["x"], case["w"], (case["w"][case["transposed"]],)))
    for v in (x, w, b):
        v.d = np.random.default_rng(0).normal(size=v.shape)
    between = kernels.active() and kernels.can_be_blocked(x.shape)
    how = {name: case[name] for name in ("stride", "pad", "reflect", "transposed", "normalize", "activation")}
    y = layers.convolution(layers.Blocked(x) if between else x, w, b, **how)
    y = y.variable if isinstance(y, layers.Blocked) else y

    def work() -> None:
        y.forward(clear_no_need_grad=True)
        y.backward(clear_buffer=True)

    return work


if __name__ == "__main__":
    run_main(main)
