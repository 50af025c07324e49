# SPDX-License-Identifier: Apache-2.0
"""Measure speed and memory on a CPU: NNabla's own kernels, this project's, and PyTorch, in turn on the same machine.

    python benchmarks/cpu.py                                # layers, generator, training step; 6 minutes
    python benchmarks/cpu.py --torch-python ~/torch/bin/python
    python benchmarks/cpu.py --what instances               # memory and time against the number of instances

Prints tables in Markdown, and writes all figures to OUTPUT/cpu.json or OUTPUT/instances.json and .png. Each figure is
the median of several rounds; in a round each implementation, in a separate process, does the work once (small work
repeatedly, for 0.1 s). Work that takes an implementation more than `--patience` seconds is done only once. PyTorch is
measured if `--torch-python` is a Python that has it.
"""

from __future__ import annotations

import argparse
import inspect
import json
import statistics
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from common.errors import begin_script, run_main

begin_script(__name__)

import matplotlib
import nnabla as nn
import numpy as np
from tqdm import tqdm

import models
from backend import context, kernels, layers
from benchmarks.measuring import Worker, inputs, network_work
from benchmarks.worker import Case, serve
from common import files
from common.command_line import Parser, whole
from metrics.report import markdown

# seconds and memory (bytes) of one implementation in one case; and those of all implementations, by name
Figures = Dict[str, float]
FiguresByName = Dict[str, Figures]

NETWORK = {"size": [96, 64], "width": 32, "blocks": 9, "ins_per": 1}
STEPS: Dict[str, Case] = {
    "generator, 300x200, ngf 64, one mask": {"what": "generator", **NETWORK, "size": [300, 200], "width": 64, "n": 1},
    "step, 96x64, ngf 32, one mask each": {"what": "step", **NETWORK, "n": 1},
    "step, 96x64, ngf 32, four masks by 2": {"what": "step", **NETWORK, "n": 4, "ins_per": 2},
}
COUNTS = (1, 2, 4, 8, 16, 32)
# the arguments of backend.layers.convolution that describe a layer, besides the shapes of x and w
LAYER_SETTINGS = ("stride", "pad", "reflect", "transposed", "normalize", "activation")


def main() -> int:
    """Run the command line."""
    parser = Parser(__doc__)
    parser.add_argument("--what", choices=["speed", "instances"], default="speed", help="what to measure")
    parser.add_argument("--torch-python", help="a Python that has PyTorch (default: leave PyTorch out)")
    parser.add_argument("--rounds", type=whole(1), default=5, help="number of rounds for each figure")
    parser.add_argument("--patience", type=float, default=5, help="work that takes more seconds is done only once")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks", help="folder for the figures")
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
        measure_speed(commands, args.rounds, args.patience, args.output)
    else:
        measure_instances(commands["onednn"], args.output)
    return 0


def measure_speed(commands: Dict[str, List[str]], rounds: int, patience: float, output: Path) -> None:
    """Measure layers, generator and training step; write cpu.json into `output` and print the tables."""
    cases = {**layer_cases(), **STEPS}
    figures: Dict[str, FiguresByName] = {}
    for name, case in tqdm(cases.items(), desc="measuring", unit="case"):
        figures[name] = measure(case, commands, rounds, patience)
    files.write_text(output / "cpu.json", json.dumps({"cases": cases, "found": figures}, indent=1) + "\n")
    print(layer_table(cases, figures))
    print(step_table(figures))


def measure(case: Case, commands: Dict[str, List[str]], rounds: int, patience: float) -> FiguresByName:
    """Return the median seconds and the peak memory of each implementation, all in turn, each in a fresh process."""
    workers = {name: Worker(command) for name, command in commands.items()}
    seconds: Dict[str, List[float]] = {name: [] for name in workers}
    memory = {}
    # round -1 is for warming up; implementations that are too slow for `patience` have no other
    for i in range(-1, rounds):
        for name, worker in workers.items():
            if i >= 0 and min(seconds[name]) >= patience:
                continue
            answer = worker.ask(case)
            if i == 0:
                seconds[name].clear()
            seconds[name].append(answer["seconds"])
            memory[name] = answer["memory"]
    for worker in workers.values():
        worker.close()
    return {name: {"seconds": statistics.median(s), "memory": memory[name]} for name, s in seconds.items()}


def layer_cases() -> Dict[str, Case]:
    """Return a case for each shape of layer that G and D have at 96x64, ngf 32, one picture and mask."""
    cases: Dict[str, Case] = {}
    convolution = models.convolution
    signature = inspect.signature(convolution)

    def record(*args: Any, **kwargs: Any) -> layers.Tensor:
        call = signature.bind(*args, **kwargs)
        call.apply_defaults()
        settings = {name: call.arguments[name] for name in LAYER_SETTINGS}
        case = {"what": "layer", "x": call.arguments["x"].shape, "w": call.arguments["w"].shape, **settings}
        cases[layer_name(case)] = case
        return convolution(*args, **kwargs)

    kernels.configure("nnabla")
    models.convolution = record
    try:
        width = NETWORK["width"]
        arch = models.Architecture(ngf=width, ndf=width, n_blocks=NETWORK["blocks"])
        for network in (models.generator, models.discriminator):
            with nn.parameter_scope(network.__name__):
                network(*inputs({**NETWORK, "n": 1}), arch)
    finally:
        models.convolution = convolution
    return cases


def layer_name(case: Case) -> str:
    """A layer's row in the table, such as "conv 3 to 32, k7 s1, 96x64, relu"."""
    kind = "deconv" if case["transposed"] else "conv"
    outputs = case["w"][1] if case["transposed"] else case["w"][0]
    _, channels, height, width = case["x"]
    window = f"k{case['w'][2]} s{case['stride']}"
    return f"{kind} {channels} to {outputs}, {window}, {height}x{width}, {case['activation'] or 'linear'}"


def operations(case: Case) -> int:
    """The floating point operations of a layer, forward and both gradients."""
    samples, _, *size = case["x"]
    if not case["transposed"]:
        # the result's pixels; each takes the whole kernel once, as each input pixel of a deconvolution does
        border = 2 * (case["reflect"] + case["pad"])
        size = [(side + border - case["w"][2]) // case["stride"] + 1 for side in size]
    products = samples * int(np.prod(size)) * int(np.prod(case["w"]))
    return 3 * 2 * products


def layer_table(cases: Dict[str, Case], figures: Dict[str, FiguresByName]) -> str:
    """Milliseconds and GFLOP/s of each layer, forward and backward, as a table.

    The last column is oneDNN's rate as a share of its rate in the best layer.
    """
    gflops: Dict[str, Dict[str, float]] = {}
    for name, case in cases.items():
        if case["what"] == "layer":
            work = operations(case) / 1e9
            gflops[name] = {library: work / values["seconds"] for library, values in figures[name].items()}
    peak = max(rates["onednn"] for rates in gflops.values())
    libraries = list(next(iter(gflops.values())))
    rows = [["layer", *(f"{library}: ms, GFLOP/s" for library in libraries), "share of the best"]]
    for name, rates in gflops.items():
        milliseconds = {library: 1e3 * figures[name][library]["seconds"] for library in libraries}
        cells = [f"{milliseconds[library]:.2f}, {rates[library]:.0f}" for library in libraries]
        rows.append([name, *cells, f"{rates['onednn'] / peak:.0%}"])
    return markdown(rows)


def step_table(figures: Dict[str, FiguresByName]) -> str:
    """Seconds and memory of the generator and the steps, and the ratio to PyTorch, as a table."""
    libraries = list(figures[next(iter(STEPS))])
    rows = [["", *(f"{library}: s, GB" for library in libraries), "onednn / pytorch"]]
    for name in STEPS:
        by_library = figures[name]
        ratio = ""
        if "pytorch" in by_library:
            ratio = f"{by_library['onednn']['seconds'] / by_library['pytorch']['seconds']:.2f}"
        rows.append([name, *(cost(by_library[library]) for library in libraries), ratio])
    return markdown(rows)


def cost(figures: Figures) -> str:
    """Seconds and GB as a cell of a table."""
    return f"{figures['seconds']:.2f}, {figures['memory'] / 1e9:.2f}"


def measure_instances(command: List[str], output: Path) -> None:
    """Measure a training step against the number of instances, 2 at a time and all at once.

    Writes instances.json and .png into `output`, and prints a table.
    """
    figures: Dict[str, Dict[int, Figures]] = {"2 at a time": {}, "all at once": {}}
    for count in tqdm(COUNTS, desc="measuring", unit="count"):
        for kind, by_count in figures.items():
            ins_per = 2 if kind == "2 at a time" else count
            worker = Worker(command)
            answers = [worker.ask({"what": "step", **NETWORK, "n": count, "ins_per": ins_per}) for _ in range(3)]
            worker.close()
            seconds = min(answer["seconds"] for answer in answers)
            by_count[count] = {"seconds": seconds, "memory": answers[-1]["memory"]}
    files.write_text(output / "instances.json", json.dumps(figures, indent=1) + "\n")
    plot(figures, output / "instances.png")
    rows = [["instances", *(f"{kind}: s, GB" for kind in figures)]]
    for count in COUNTS:
        rows.append([f"{count}", *(cost(by_count[count]) for by_count in figures.values())])
    print(markdown(rows))


def plot(figures: Dict[str, Dict[int, Figures]], path: Path) -> None:
    """Draw memory and time against the number of instances."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (memory_axis, time_axis) = pyplot.subplots(1, 2, figsize=(9, 3.5), constrained_layout=True)
    for kind, by_count in figures.items():
        counts = list(by_count)
        memory_axis.plot(counts, [values["memory"] / 1e9 for values in by_count.values()], marker="o", label=kind)
        time_axis.plot(counts, [values["seconds"] for values in by_count.values()], marker="o", label=kind)
    memory_axis.set_ylabel("peak memory, GB")
    time_axis.set_ylabel("time of a step, s")
    for axis in (memory_axis, time_axis):
        axis.set_xscale("log", base=2)
        axis.set(xlabel="instances in each picture", xticks=COUNTS, xticklabels=COUNTS, ylim=(0, None))
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(path, dpi=100)


def work_of(case: Case) -> Callable[[], Any]:
    """Return the work of a case, to be timed."""
    if case["what"] == "layer":
        return layer_work(case)
    return network_work(case)


def layer_work(case: Case) -> Callable[[], Any]:
    """Return a layer's forward and backward, with tensors in the layout in which layers pass them to each other."""
    biases = case["w"][1] if case["transposed"] else case["w"][0]
    x, w, b = (nn.Variable(shape, need_grad=True) for shape in (case["x"], case["w"], (biases,)))
    for variable in (x, w, b):
        variable.d = np.random.default_rng(0).normal(size=variable.shape)
    settings = {name: case[name] for name in LAYER_SETTINGS}
    y = layers.convolution(as_between_layers(x), w, b, **settings)
    y = y.variable if isinstance(y, layers.Blocked) else y

    def work() -> None:
        y.forward(clear_no_need_grad=True)
        y.backward(clear_buffer=True)

    return work


def as_between_layers(x: nn.Variable) -> layers.Tensor:
    """Declare noise (N, C, H, W) to be in the layout in which a layer returns a tensor of this shape."""
    channels = x.shape[1]
    result_of_a_layer = layers.convolution(x, nn.Variable((channels, channels, 1, 1)), nn.Variable((channels,)))
    return layers.Blocked(x) if isinstance(result_of_a_layer, layers.Blocked) else x


if __name__ == "__main__":
    run_main(main)
