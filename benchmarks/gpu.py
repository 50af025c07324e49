# SPDX-License-Identifier: Apache-2.0
"""Measure speed and memory on a GPU: this project in NNabla, and the same networks in PyTorch, in turn on the same GPU.

    python benchmarks/gpu.py                                    # NNabla
    python benchmarks/gpu.py --torch-python ~/torch/bin/python  # and PyTorch, if that Python has it with CUDA
    python benchmarks/gpu.py --context cpu --quick              # checks this program; does not measure a GPU

Takes training steps and the generator at 300x200 (height x width), ngf = ndf = 64, with 1 and 2 instances (in one
pass), in float and half precision (PyTorch: automatic mixed precision), at batch sizes 1, 2 and 4. Prints tables in
Markdown, and writes all figures to OUTPUT/gpu.json. Each figure is the median of several rounds; in a round each
implementation does the work of a case in a fresh process that has the GPU to itself, so keep other programs off it.

Time: several steps between two synchronisations with the GPU, after some for warming up, on inputs that are on the GPU.
With --events the tables also show "device", the same by CUDA events on the GPU, including its idle time, and "host",
the time until Python had submitted all the work: far less than the step if the GPU is the bottleneck. In half precision
Python waits for the GPU in each step, to check for overflows.

Memory: the GPU memory in use after the steps (total - free, as the driver reports), less that in use when the library
had just initialized the GPU. Both libraries keep the memory of their peak. PyTorch also counts that itself: "reserved",
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

begin_script(__name__)

import nnabla as nn
from tqdm import tqdm

from backend import arrays, context
from benchmarks.measuring import Worker, network_work
from benchmarks.worker import OUT_OF_MEMORY, Case, Device, serve_once
from common import files
from common.command_line import Parser, whole
from metrics.report import markdown

# of one implementation in one case: medians by name, or {"failed": reason}
Figures = Dict[str, Any]
# of all implementations, by name
FiguresByName = Dict[str, Figures]
KINDS = {"step": "Training step", "generator": "Generator"}
SIZES = {"size": [300, 200], "width": 64, "blocks": 9, "warm_up": 5, "times": 10}
QUICK = {"size": [32, 24], "width": 4, "blocks": 1, "warm_up": 1, "times": 2}


class Gpu(Device):
    """A GPU as NNabla's CUDA extension sees it, already initialized."""

    def __init__(self, device_id: str, **about: Any) -> None:
        import nnabla_ext.cuda
        import nnabla_ext.cuda.init

        self._id = device_id
        self._cuda = nnabla_ext.cuda
        self._init = nnabla_ext.cuda.init
        arrays.copy(arrays.constant(0.0))
        self.synchronize()
        super().__init__(**about, CUDA=self._cuda.__cuda_version__, cuDNN=self._cuda.__cudnn_version__)

    def synchronize(self) -> None:
        """Wait until all work is done."""
        self._cuda.synchronize(self._id)

    def used(self) -> int:
        """The bytes of its memory in use, by any program."""
        free, total = self._init.get_device_memory_size()
        return total - free

    def record(self) -> Any:
        """Return an event that is reached once all work submitted so far is done."""
        event = self._init.Event(int(self._id))
        event.record()
        return event

    def elapsed(self, first: Any, last: Any) -> float:
        """The seconds between two events that have been reached."""
        return last.elapsed(first) / 1e3


def main() -> int:
    """Run the command line."""
    if sys.argv[1:] == ["--worker"]:
        serve_once(device_of, network_work)
        return 0
    args = arguments()
    # if NNabla cannot use the GPU, this ends with one line that says why
    context.set_context(args.context, args.device_id)
    commands = {"nnabla": [sys.executable, __file__, "--worker"]}
    if args.torch_python:
        commands["pytorch"] = [args.torch_python, str(ROOT / "benchmarks" / "pytorch_twin.py"), "--once"]
    sizes = QUICK if args.quick else SIZES
    about = describe(commands, args)
    cases = cases_of(args, sizes)
    figures: Dict[str, FiguresByName] = {}
    for name, case in tqdm(cases.items(), desc="measuring", unit="case"):
        figures[name] = measure(case, commands, args.rounds)
        if args.output:
            # written after each case, so that the figures so far are kept if the program is stopped
            text = json.dumps({"about": about, "cases": cases, "found": figures}, indent=1)
            files.write_text(args.output / "gpu.json", text + "\n")
    print("\n".join(f"{name}: {value}" for name, value in about.items()))
    for kind in args.what:
        print(f"\n{KINDS[kind]}, {'x'.join(map(str, sizes['size']))}, ngf = ndf = {sizes['width']}\n")
        print(table({name: case for name, case in cases.items() if case["what"] == kind}, figures, args.events))
    return 0


def arguments() -> argparse.Namespace:
    """Parse and check the command line."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--what", choices=list(KINDS), nargs="+", default=list(KINDS), help="what to measure")
    add("--torch-python", help="a Python that has PyTorch with CUDA (default: leave PyTorch out)")
    add("--rounds", type=whole(1), help="number of rounds for each figure (default: 3, with --quick 1)")
    add("--events", action="store_true", help="also print the times by CUDA events, and of the host")
    add("--context", "-c", choices=["cudnn", "cpu"], default="cudnn", help="cpu goes with --quick only")
    add("--device-id", "-d", default="0", help="number of the GPU")
    add("--tf32", action="store_true", help="products of float numbers rounded to 10 bits, in both")
    add("--cudnn-algorithm", choices=list(context.ALGORITHMS), default="heuristic", help="as in train.py, in both")
    add("--output", type=Path, help="folder for gpu.json (default: that of this file; with --quick it is not written)")
    add("--quick", action="store_true", help="tiny sizes and few cases, to check that everything runs")
    args = parser.parse_args()
    args.what = list(dict.fromkeys(args.what))
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
    """Return all cases by name. On a CPU half precision is left out: there, NNabla takes a minute for a small step."""
    types = ["float"] if args.context == "cpu" else ["float", "half"]
    counts = [(1, 1), (2, 2)] if args.quick else itertools.product((1, 2), (1, 2, 4))
    cases = {}
    for kind, (n, batch), type_config in itertools.product(args.what, counts, types):
        name = f"{kind}, {n} instance{'s' if n > 1 else ''}, {type_config}, batch {batch}"
        cases[name] = case_of(args, sizes, kind, n, type_config, batch)
    return cases


def case_of(args: argparse.Namespace, sizes: Case, kind: str, n: int, type_config: str, batch: int) -> Case:
    """Return a case of `n` instances in one pass, on the device that the command line names."""
    return {
        "what": kind,
        "n": n,
        "ins_per": n,
        "type_config": type_config,
        "batch": batch,
        **sizes,
        "context": args.context,
        "device_id": args.device_id,
        "tf32": args.tf32,
        "cudnn_algorithm": args.cudnn_algorithm,
    }


def describe(commands: Dict[str, List[str]], args: argparse.Namespace) -> Dict[str, str]:
    """Run something small in each implementation, and return a description of GPU, versions and settings.

    Raises:
        UserError: if an implementation cannot run it.
    """
    small = case_of(args, QUICK, "generator", n=1, type_config="float", batch=1)
    about = {"GPU": "none; this only checks the program on the CPU" if args.context == "cpu" else gpu(args.device_id)}
    for name, command in commands.items():
        answer = ask(command, small)
        if "failed" in answer:
            raise UserError(f"{name} cannot be measured: {answer['failed']}")
        about[name] = ", ".join(f"{library} {version}" for library, version in answer["about"].items())
    if args.context != "cpu":
        about.update({"TF32": args.tf32, "cuDNN's algorithms": args.cudnn_algorithm, "rounds": args.rounds})
    return about


def gpu(device_id: str) -> str:
    """Name, driver and memory of a GPU, as nvidia-smi reports them."""
    query = ["--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        answer = subprocess.run(["nvidia-smi", f"--id={device_id}", *query], capture_output=True, text=True).stdout
        return "{}, driver {}, {}".format(*answer.strip().split(", "))
    except (OSError, IndexError):
        return "unknown; nvidia-smi does not report it"


def measure(case: Case, commands: Dict[str, List[str]], rounds: int) -> FiguresByName:
    """Return medians over some rounds, in which the implementations take turns; one that fails is not run again."""
    answers: Dict[str, List[Figures]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            if not any("failed" in answer for answer in answers[name]):
                answers[name].append(ask(command, case))
    return {name: medians(figures) for name, figures in answers.items()}


def ask(command: List[str], case: Case) -> Figures:
    """Return the answer of a fresh process to a case."""
    worker = Worker(command)
    try:
        return worker.ask(case)
    except UserError as error:
        return {"failed": str(error)}
    finally:
        worker.close()


def medians(answers: List[Figures]) -> Figures:
    """Return the median of each figure, and the seconds of all rounds; or the last answer if that is a failure."""
    if "failed" in answers[-1]:
        return answers[-1]
    figures: Figures = {}
    for name in ("seconds", "device", "host", "memory", "reserved"):
        if answers[0][name] is not None:
            figures[name] = statistics.median(answer[name] for answer in answers)
    figures["rounds"] = [answer["seconds"] for answer in answers]
    return figures


def table(cases: Dict[str, Case], figures: Dict[str, FiguresByName], events: bool) -> str:
    """Time or speed and memory of each implementation, and their ratios: a row for each case, all of one kind."""
    libraries = list(figures[next(iter(cases))])
    has_ratio = "pytorch" in libraries
    speed = "ms" if next(iter(cases.values()))["what"] == "step" else "images/s"
    rows = [["instances", "precision", "batch"]]
    for library in libraries:
        counts_itself = any("reserved" in figures[name][library] for name in cases)
        reserved = ", reserved GB" if counts_itself else ""
        times = ", device ms, host ms" if events else ""
        rows[0].append(f"{library}: {speed}, GB{reserved}{times}")
    if has_ratio:
        rows[0].append("nnabla / pytorch: time, memory")
    for name, case in cases.items():
        by_library = figures[name]
        row = [f"{case['n']}", case["type_config"], f"{case['batch']}"]
        row.extend(cost(by_library[library], case, events) for library in libraries)
        if has_ratio:
            row.append(f"{ratio(by_library, 'seconds')}, {ratio(by_library, 'memory')}")
        rows.append(row)
    return markdown(rows)


def cost(figures: Figures, case: Case, events: bool) -> str:
    """The figures of one implementation in one case as a cell of the table."""
    if "failed" in figures:
        return figures["failed"] if figures["failed"] == OUT_OF_MEMORY else f"failed: {figures['failed']}"
    seconds = figures["seconds"]
    parts = [f"{seconds * 1e3:.1f}" if case["what"] == "step" else f"{case['batch'] / seconds:.1f}"]
    parts.append(f"{figures['memory'] / 1e9:.2f}")
    if "reserved" in figures:
        parts.append(f"{figures['reserved'] / 1e9:.2f}")
    if events:
        parts.extend(f"{figures[name] * 1e3:.1f}" for name in ("device", "host"))
    return ", ".join(parts)


def ratio(figures: FiguresByName, name: str) -> str:
    """NNabla's figure divided by PyTorch's, or "-" if one of them is missing."""
    ours = figures["nnabla"].get(name)
    theirs = figures["pytorch"].get(name)
    return f"{ours / theirs:.2f}" if ours and theirs else "-"


def device_of(case: Case) -> Device:
    """Return the device that a case names, set up as the case says."""
    names = ("context", "device_id", "type_config", "tf32", "cudnn_algorithm")
    context.set_up(argparse.Namespace(**{name: case[name] for name in names}, cpu_kernels="auto"))
    about = {"NNabla": nn.__version__}
    return Device(**about) if case["context"] == "cpu" else Gpu(case["device_id"], **about)


if __name__ == "__main__":
    run_main(main)
