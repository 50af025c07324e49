# SPDX-License-Identifier: Apache-2.0
"""Measure speed and memory on a GPU: this project in NNabla, and the same networks in PyTorch, in turn on the same GPU.

    python benchmarks/gpu.py                                    # NNabla
    python benchmarks/gpu.py --torch-python ~/torch/bin/python  # and PyTorch, where that Python has it with CUDA
    python benchmarks/gpu.py --context cpu --quick              # tries this program out; measures no GPU

Takes training steps and the generator at 300x200 (height x width), ngf = ndf = 64, with 1 and 2 instances (in one
pass), in float and half precision (PyTorch: automatic mixed precision), at batch sizes 1, 2 and 4. Prints tables in
Markdown, and writes all figures to OUTPUT/gpu.json. Each figure is the median of some rounds; in a round each
implementation does the work of a case in a fresh process, with the GPU for itself, so keep other programs off it.

Time: several steps between two synchronisations with the GPU, after some for warming up, on inputs that are on the GPU.
With --events the tables also tell "device", the same by CUDA events on the GPU, its waiting included, and "host", the
time until Python had handed out all the work: far less than the step where the GPU is what limits it. In half precision
Python waits for the GPU in each step, to look for overflows.

Memory: what the GPU has in use after the steps (total - free, as the driver says), less what it had when the library
had just started on it. Both libraries keep what they had at their peak. PyTorch counts that itself as well: "reserved",
without workspaces and code of CUDA's libraries.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from common.errors import UserError, begin_script, run_main

begin_script()

import nnabla as nn
from tqdm import tqdm

from backend import (
    arrays,
    context,
)
from benchmarks.measuring import Worker, network_work
from benchmarks.worker import OUT_OF_MEMORY, Case, Device, serve_once
from common import files
from common.command_line import Parser, whole
from metrics.report import markdown

# of an implementation in a case: medians by name, or {"failed": why}
Figures = Dict[str, Any]
Found = Dict[str, Dict[str, Figures]]
WHAT = {"step": "Training step", "generator": "Generator"}
SIZES = {"size": [300, 200], "width": 64, "blocks": 9, "warm_up": 5, "times": 10}
QUICK = {"size": [32, 24], "width": 4, "blocks": 1, "warm_up": 1, "times": 2}


class Gpu(Device):
    """A GPU as NNabla's CUDA extension sees it, that is in use already."""

    def __init__(self, device_id: str, **about: Any) -> None:
        import nnabla_ext.cuda
        import nnabla_ext.cuda.init

        self._id, self._cuda, self._init = device_id, nnabla_ext.cuda, nnabla_ext.cuda.init
        arrays.copy(arrays.constant(0.0))
        self.synchronize()
        super().__init__(**about, CUDA=self._cuda.__cuda_version__, cuDNN=self._cuda.__cudnn_version__)

    def synchronize(self) -> None:
        """Wait until all work is done."""
        self._cuda.synchronize(self._id)

    def used(self) -> int:
        """Bytes of its memory that are in use, by whomever."""
        free, total = self._init.get_device_memory_size()
        return total - free

    def record(self) -> Any:
        """An event after all that was given so far."""
        event = self._init.Event(int(self._id))
        event.record()
        return event

    def elapsed(self, first: Any, last: Any) -> float:
        """Seconds between two events that are over."""
        return last.elapsed(first) / 1e3


def main() -> int:
    """Run the command line."""
    if sys.argv[1:] == ["--worker"]:
        serve_once(device_of, network_work)
        return 0
    args = arguments()
    # what is wrong with NNabla's GPU ends it here, in one line
    context.set_context(args.context, args.device_id)
    commands = {"nnabla": [sys.executable, __file__, "--worker"]}
    if args.torch_python:
        commands["pytorch"] = [args.torch_python, str(ROOT / "benchmarks" / "pytorch_twin.py"), "--once"]
    sizes = QUICK if args.quick else SIZES
    about = introduce(commands, args)
    cases = cases_of(args, sizes)
    found: Found = {}
    for name, case in tqdm(cases.items(), desc="measuring", unit="case"):
        found[name] = measure(case, commands, args.rounds)
        if args.output:
            # after each case: what has been measured remains, whatever ends this
            text = json.dumps({"about": about, "cases": cases, "found": found}, indent=1)
            files.write_text(args.output / "gpu.json", text + "\n")
    print("\n".join(f"{name}: {value}" for name, value in about.items()))
    for what in dict.fromkeys(case["what"] for case in cases.values()):
        print(f"\n{WHAT[what]}, {'x'.join(map(str, sizes['size']))}, ngf = ndf = {sizes['width']}\n")
        print(table({name: case for name, case in cases.items() if case["what"] == what}, found, args.events))
    return 0


def arguments() -> argparse.Namespace:
    """The command line, checked."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--what", choices=list(WHAT), nargs="+", default=list(WHAT), help="what to measure")
    add("--torch-python", help="a Python that has PyTorch with CUDA (default: leave PyTorch out)")
    add("--rounds", type=whole(1), help="how often each figure is taken (default: 3, with --quick once)")
    add("--events", action="store_true", help="tell the times by CUDA events and of the host too")
    add("--context", "-c", choices=["cudnn", "cpu"], default="cudnn", help="cpu goes with --quick, for a try")
    add("--device-id", "-d", default="0", help="number of the GPU")
    add("--tf32", action="store_true", help="products of float numbers rounded to 10 bits, in both")
    add("--cudnn-algorithm", choices=list(context.ALGORITHMS), default="heuristic", help="as in train.py, in both")
    add("--output", type=Path, help="folder for gpu.json (default: that of this file; with --quick none is written)")
    add("--quick", action="store_true", help="tiny sizes and few cases, to see that everything runs")
    args = parser.parse_args()
    if args.context == "cpu" and not args.quick:
        raise UserError("--context cpu measures no GPU and takes hours at these sizes; give --quick too, or see cpu.py")
    if args.context == "cpu" and (args.tf32 or args.cudnn_algorithm != "heuristic"):
        raise UserError("--tf32 and --cudnn-algorithm are for GPUs; leave them out on the cpu context")
    args.rounds = args.rounds or (1 if args.quick else 3)
    if args.output is None and not args.quick:
        args.output = ROOT / "benchmarks"
    if args.output is not None and not args.output.is_dir():
        raise UserError(f"there is no folder {args.output} (--output); make it first")
    return args


def cases_of(args: argparse.Namespace, sizes: Case) -> Dict[str, Case]:
    """All cases by name. On a CPU half precision is left out: there, NNabla takes a minute for a small step."""
    types = ["float"] if args.context == "cpu" else ["float", "half"]
    counts = [(1, 1), (2, 2)] if args.quick else itertools.product((1, 2), (1, 2, 4))
    cases = {}
    for what, (n, batch), type_config in itertools.product(args.what, counts, types):
        name = f"{what}, {n} instance{'s'[: n - 1]}, {type_config}, batch {batch}"
        cases[name] = case_of(args, sizes, what=what, n=n, ins_per=n, type_config=type_config, batch=batch)
    return cases


def case_of(args: argparse.Namespace, sizes: Case, **own: Any) -> Case:
    """A case on the device that the command line names."""
    device = {name: getattr(args, name) for name in ("context", "device_id", "tf32", "cudnn_algorithm")}
    return {**own, **sizes, **device}


def introduce(commands: Dict[str, List[str]], args: argparse.Namespace) -> Dict[str, str]:
    """Let each implementation do something small, and tell what is measured.

    Raises:
        UserError: where one cannot.
    """
    small = case_of(args, QUICK, what="generator", n=1, ins_per=1, type_config="float", batch=1)
    about = {"GPU": "none; this is a try on the CPU" if args.context == "cpu" else gpu(args.device_id)}
    for name, command in commands.items():
        answer = ask(command, small)
        if "failed" in answer:
            raise UserError(f"{name} cannot be measured: {answer['failed']}")
        about[name] = ", ".join(f"{what} {version}" for what, version in answer["about"].items())
    how = {"TF32": args.tf32, "cuDNN's algorithms": args.cudnn_algorithm, "rounds": args.rounds}
    return {**about, **({} if args.context == "cpu" else how)}


def gpu(device_id: str) -> str:
    """Name, driver and memory of a GPU, as nvidia-smi tells."""
    query = ["--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        answer = subprocess.run(["nvidia-smi", f"--id={device_id}", *query], capture_output=True, text=True).stdout
        return "{}, driver {}, {}".format(*answer.strip().split(", "))
    except (OSError, IndexError):
        return "unknown; nvidia-smi does not tell"


def measure(case: Case, commands: Dict[str, List[str]], rounds: int) -> Dict[str, Figures]:
    """Medians over some rounds, in each of which the implementations have their turn; one that fails has no other."""
    answers: Dict[str, List[Figures]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            if not any("failed" in answer for answer in answers[name]):
                answers[name].append(ask(command, case))
    return {name: medians(given) for name, given in answers.items()}


def ask(command: List[str], case: Case) -> Figures:
    """What a fresh process answers."""
    worker = Worker(command)
    try:
        return worker.ask(case)
    except UserError as error:
        return {"failed": str(error)}
    finally:
        worker.close()


def medians(answers: List[Figures]) -> Figures:
    """Of each figure; with the seconds of all rounds."""
    if "failed" in answers[-1]:
        return answers[-1]
    names = ("seconds", "device", "host", "memory", "reserved")
    found = {name: statistics.median(a[name] for a in answers) for name in names if answers[0][name] is not None}
    return {**found, "rounds": [a["seconds"] for a in answers]}


def table(cases: Dict[str, Case], found: Found, events: bool) -> str:
    """A row for each case, all of one kind: time or speed and memory of each implementation, and their ratios."""
    names = list(found[next(iter(cases))])
    speed = "ms" if next(iter(cases.values()))["what"] == "step" else "images/s"
    counted = {who for of in (found[name] for name in cases) for who in names if "reserved" in of[who]}
    more = ", device ms, host ms" if events else ""
    heads = [f"{who}: {speed}, GB{', reserved GB' if who in counted else ''}{more}" for who in names]
    ratio = ["nnabla / pytorch: time, memory"] if "pytorch" in names else []
    rows = [["instances", "precision", "batch", *heads, *ratio]]
    for name, case in cases.items():
        of = found[name]
        cells = [cost(of[who], case, events) for who in names]
        ratios = [", ".join(ratio_of(of, figure) for figure in ("seconds", "memory"))] if ratio else []
        rows.append([f"{case['n']}", case["type_config"], f"{case['batch']}", *cells, *ratios])
    return markdown(rows)


def cost(figures: Figures, case: Case, events: bool) -> str:
    """A cell."""
    if "failed" in figures:
        return figures["failed"] if figures["failed"] == OUT_OF_MEMORY else f"failed: {figures['failed']}"
    seconds = figures["seconds"]
    cells = [f"{seconds * 1e3:.1f}" if case["what"] == "step" else f"{case['batch'] / seconds:.1f}"]
    cells += [f"{figures['memory'] / 1e9:.2f}"]
    cells += [f"{figures['reserved'] / 1e9:.2f}"] if "reserved" in figures else []
    return ", ".join(cells + ([f"{figures[name] * 1e3:.1f}" for name in ("device", "host")] if events else []))


def ratio_of(found: Dict[str, Figures], figure: str) -> str:
    """NNabla's part of PyTorch's, where both have it."""
    ours, theirs = (found[who].get(figure) for who in ("nnabla", "pytorch"))
    return f"{ours / theirs:.2f}" if ours and theirs else "-"


def device_of(case: Case) -> Device:
    """The device that a case asks for, set up as it says."""
    names = ("context", "device_id", "type_config", "tf32", "cudnn_algorithm")
    context.set_up(argparse.Namespace(**{name: case[name] for name in names}, cpu_kernels="auto"))
    about = {"NNabla": nn.__version__}
    return Device(**about) if case["context"] == "cpu" else Gpu(case["device_id"], **about)


if __name__ == "__main__":
    run_main(main)
