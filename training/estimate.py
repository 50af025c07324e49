# SPDX-License-Identifier: Apache-2.0
"""An estimate of the time and memory of a training, before it starts.

The work is counted (training/work.py), the device's speed is measured on a few convolutions, and memory is that of the
arrays that the graphs keep for their gradients. Both are rough, about a factor of 1.5. Evaluations on held-out pictures
take less than 1 % of the time by default, and are not counted.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Dict, List, Optional, Sequence, Set, Tuple

import nnabla as nn
import numpy as np

from backend import arrays, device_memory, kernels, layers, reductions
from common.errors import UserError
from data.instances import mini_batches
from training.graphs import build_discriminator_graph, build_generator_graph
from training.optimizer import RunAll
from training.settings import Settings
from training.work import iteration_work

FIRST_ROWS = 4  # of the smallest tensor that the speed is measured on
LONG_RUN = 0.1  # seconds after which no larger tensor is tried
LEAST_SECONDS = 0.1  # of a measurement
FLOAT_BYTES = 4
OTHER_BYTES = 150 << 20  # compiled kernels, scratch memory, libraries that are loaded later
FAR_MORE = 3.0  # times the free memory; estimates are right within a factor of 1.5
DAY = 24 * 3600  # seconds
UNITS = ((DAY, "days"), (3600, "hours"), (60, "minutes"), (1, "seconds"))


@dataclass(frozen=True)
class Estimate:
    """The seconds of an iteration, and bytes of memory: those that the training `adds`, and those that are there.

    `used` is what the process holds already, `free` what it can still take (None: unknown).
    """

    seconds: float
    adds: int
    used: int
    free: Optional[int]

    def refuse_impossible(self) -> None:
        """Raise UserError where far more memory is needed than is free; the system would end the training."""
        if self.free is not None and self.adds > FAR_MORE * self.free:
            raise UserError(
                f"training needs about {_gigabytes(self.adds)} of memory, and {_gigabytes(self.free)} are free; "
                "give smaller --fineSizeH and --fineSizeW, --batch-size, --ins-per or --ngf"
            )

    def lines(self, iterations: int, on_cpu: bool) -> List[str]:
        """The estimate for a number of iterations in words, with what to change where it is too much."""
        total = iterations * self.seconds
        place = "this CPU" if on_cpu else "this GPU"
        lines = [
            f"about {_rounded(self.seconds)} s an iteration and {_gigabytes(self.used + self.adds)} of memory on "
            f"{place}: {iterations} iterations take about {duration(total)}"
        ]
        if on_cpu and total > DAY:
            lines.append(
                "that is long: README.md, Training, has settings for a CPU, with smaller pictures (--fineSizeH, "
                "--fineSizeW) and networks (--ngf, --ndf, --n-blocks)"
            )
        if self.free is not None and self.adds > self.free:
            lines.append(
                f"warning: that is {_gigabytes(self.adds)} more than now, and {_gigabytes(self.free)} are free; if "
                "memory runs out, give smaller --fineSizeH and --fineSizeW, --batch-size, --ins-per or --ngf"
            )
        return lines


def estimate(settings: Settings, instance_counts: Dict[str, Sequence[int]], run_both: RunAll) -> Estimate:
    """Estimate the training of the networks in NNabla's current scope, in about a second.

    `instance_counts` are the numbers of instances of the training pictures in each domain. `run_both` is the way in
    which the passes of both domains run. Neither parameters nor random states change.
    """
    seconds = iteration_work(settings, instance_counts) / multiply_adds_per_second(settings, run_both)
    adds = added_bytes(settings, instance_counts, kernels.lanes(run_both))
    return Estimate(seconds, adds, device_memory.used(), device_memory.free())


# --- speed


def multiply_adds_per_second(settings: Settings, run_both: RunAll) -> float:
    """Measure the speed of the device on residual blocks of G, forward and backward, two at a time by `run_both`.

    Their tensors are as wide as in training; their height grows up to that in training, or until they take long.
    """
    channels = 4 * settings.architecture.ngf
    height, width = (side // 4 for side in settings.size)
    rows = min(FIRST_ROWS, height)
    while True:
        seconds = _seconds_of_two_blocks((1, channels, rows, width), run_both)
        if rows == height or seconds > LONG_RUN:
            break
        rows = min(4 * rows, height)
    # of two blocks of two convolutions, each forward and for two gradients
    multiply_adds = 2 * 2 * 3 * 9 * channels**2 * rows * width
    return multiply_adds / seconds


def _seconds_of_two_blocks(shape: Tuple[int, ...], run_both: RunAll) -> float:
    blocks = [partial(_forward_and_backward, _residual_block(shape)) for _ in range(2)]
    # the first time, kernels are compiled
    run_both(blocks)
    runs = 0
    start = time.perf_counter()
    while time.perf_counter() < start + LEAST_SECONDS:
        run_both(blocks)
        runs += 1
    return (time.perf_counter() - start) / runs


def _residual_block(shape: Tuple[int, ...]) -> nn.Variable:
    """The mean of a residual block's result on a tensor (N, C, H, W) of noise, as a graph."""
    noise = np.random.default_rng(0)
    channels = shape[1]
    x = nn.Variable.from_numpy_array(noise.normal(size=shape).astype(np.float32), need_grad=True)
    h = x
    for activation, skip in (("relu", None), ("", x)):
        weights = noise.normal(0, 0.02, (channels, channels, 3, 3)).astype(np.float32)
        w = nn.Variable.from_numpy_array(weights, need_grad=True)
        b = nn.Variable.from_numpy_array(np.zeros(channels, np.float32), need_grad=True)
        h = layers.convolution(h, w, b, reflect=1, normalize=True, activation=activation, skip=skip)
    return reductions.mean(layers.plain(h))


def _forward_and_backward(mean: nn.Variable) -> None:
    mean.persistent = True
    mean.forward(clear_no_need_grad=True)
    mean.backward(clear_buffer=True)
    # waits for a GPU
    arrays.read(mean.data)


# --- memory


def added_bytes(settings: Settings, instance_counts: Dict[str, Sequence[int]], lanes: int) -> int:
    """The bytes on the device that training adds to what the process holds, at their peak.

    These are what the passes of `lanes` domains keep at the same time, gradients, Adam's moments and the image pools.
    On a CPU there are also the copies of values and moments that go into a checkpoint; on a GPU the values themselves,
    which are put there when they are first used.
    """
    most = max(max(counts) for counts in instance_counts.values())
    last_pass = mini_batches(most, settings.ins_per)[-1:]
    earlier = last_pass[0].start if last_pass else 0
    pictures = settings.batch_size
    masks = max(1, min(settings.ins_per, most))
    generators = build_generator_graph(settings, "x", pictures, pictures * masks, pictures * earlier)
    discriminator = build_discriminator_graph(settings, "x", pictures, pictures * max(1, most))
    kept = max(kept_bytes(generators.total), kept_bytes(discriminator.loss))
    parameters = FLOAT_BYTES * sum(parameter.size for parameter in nn.get_parameters().values())
    copies = 6 if arrays.on_cpu() else 4
    return lanes * kept + copies * parameters + _pool_bytes(settings, instance_counts) + OTHER_BYTES


def kept_bytes(loss: nn.Variable) -> int:
    """The bytes that a graph holds between its forward and its backward pass, without its inputs and parameters.

    NNabla keeps what the gradient of a function needs, and frees all else (`clear_no_need_grad`).
    """
    computed: Set[nn.NdArray] = set()
    needed: Dict[nn.NdArray, int] = {}

    def visit(function: nn.function.Function) -> None:
        computed.update(variable.data for variable in function.outputs)
        for i, differentiated in enumerate(function.inputs):
            if differentiated.need_grad:
                needed.update((variable.data, variable.size) for variable in _needed_for_gradient(function, i))

    loss.visit(visit)
    return FLOAT_BYTES * sum(size for array, size in needed.items() if array in computed)


def _needed_for_gradient(function: nn.function.Function, i: int) -> List[nn.Variable]:
    """The inputs and outputs of a function whose values the gradient of its input `i` needs."""
    needed = []
    for j, variable in enumerate(function.inputs):
        if function.grad_depends_input_data(i, j) or function.auto_grad_depends_input_data(i, j):
            needed.append(variable)
    for j, variable in enumerate(function.outputs):
        if function.grad_depends_output_data(i, j) or function.auto_grad_depends_output_data(i, j):
            needed.append(variable)
    return needed


def _pool_bytes(settings: Settings, instance_counts: Dict[str, Sequence[int]]) -> int:
    """The bytes of both image pools, once they are full: pictures with the masks of all passes so far."""
    height, width = settings.size
    masks = np.mean([np.mean(counts) for counts in instance_counts.values()])
    return int(2 * settings.pool_size * FLOAT_BYTES * (3 + masks) * height * width)


# --- words


def duration(seconds: float) -> str:
    """A duration in the unit that suits it, rounded, such as "40 minutes" or "2.5 hours"."""
    length, unit = next((one for one in UNITS if seconds >= 1.5 * one[0]), UNITS[-1])
    return f"{_rounded(seconds / length)} {unit}"


def _rounded(number: float) -> str:
    """Two digits: 0.034, 2.4, 70; whole numbers in full."""
    return f"{number:.0f}" if number >= 9.95 else f"{number:.2g}"


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB"
