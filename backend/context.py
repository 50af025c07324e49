# SPDX-License-Identifier: Apache-2.0
"""The device that NNabla computes on: the CPU, or a GPU through the CUDA extension."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import logging
import os
from types import ModuleType
from typing import Tuple

import nnabla as nn
from nnabla.ext_utils import get_extension_context
from nnabla.logger import logger

from backend import arrays, cuda_libraries, kernels, precision
from common.errors import UserError, cause_of

# The choice of cuDNN's convolution algorithms, as environment variables of the CUDA extension: NNabla's default, the
# fastest of all on each shape, or only algorithms that always give the same sums.
ALGORITHMS = {
    "heuristic": {},
    "fastest": {"NNABLA_CUDNN_ALGORITHM_BY_HEURISTIC": "0"},
    "deterministic": {"NNABLA_CUDNN_DETERMINISTIC": "1"},
}


def set_up(args: argparse.Namespace) -> None:
    """Choose context and CPU kernels by the command line's options for the device, and print the choice.

    Raises:
        UserError: where they cannot be had, or do not go together.
    """
    # the extension reads these when it is imported, and at the first convolution
    os.environ.update(ALGORITHMS[args.cudnn_algorithm])
    if args.tf32:
        os.environ["NNABLA_CUDA_ALLOW_TF32"] = "1"
    messages = [set_context(args.context, args.device_id, args.type_config)]
    if arrays.on_cpu() and args.type_config == "half":
        if args.cpu_kernels == "onednn":
            raise UserError("--cpu-kernels onednn computes in float32; leave it out with --type-config half")
        kernels.configure("nnabla")
    else:
        messages.append(kernels.configure(args.cpu_kernels))
    if arrays.on_cpu() and (args.tf32 or args.cudnn_algorithm != "heuristic"):
        messages.append("--tf32 and --cudnn-algorithm change nothing on a CPU")
    print("\n".join(message for message in messages if message))


def set_context(name: str, device_id: str = "0", type_config: str = "float") -> str:
    """Make NNabla compute on `name`: "cpu", "cudnn", or "auto", which takes cudnn where it works.

    With `type_config` "half" layers compute in half precision (see precision.py), everything else in float32.

    Returns a sentence for the user about the choice.

    Raises:
        UserError: where cudnn is asked for and does not work, or half precision where "auto" finds no GPU.
    """
    problem = _cuda_problem(device_id) if name in ("auto", "cudnn") else ""
    if name == "cudnn" and problem:
        raise UserError(f"--context cudnn does not work here: {problem}; use --context cpu, or see README, GPUs")
    chosen = "cpu" if name == "cpu" or problem else "cudnn"
    is_half = type_config == "half"
    if name == "auto" and problem and is_half:
        raise UserError(f"half precision needs a GPU ({problem}); use --type-config float on a CPU")
    nn.set_default_context(get_extension_context(chosen, device_id=device_id))
    layers_context = get_extension_context(chosen, device_id=device_id, type_config="half") if is_half else None
    precision.set_layers_context(layers_context)
    if name == "auto" and problem:
        return f"context: cpu, since {problem}"
    message = f"context: {chosen}"
    if chosen == "cudnn":
        message += f", device {device_id}"
    if is_half:
        message += ", layers in half precision"
    if is_half and chosen == "cpu":
        message += ": a hundred times slower than float on a CPU, for tests"
    return message


def _cuda_problem(device_id: str) -> str:
    """Return the reason why the CUDA extension does not work here, or an empty string."""
    problem = cuda_libraries.load()
    if problem:
        return problem
    try:
        cudnn, last_message = _import_cudnn()
    except ModuleNotFoundError:
        return "the CUDA extension is not installed; for an NVIDIA GPU: pip install -r requirements-cuda.txt"
    except Exception as error:
        first, _, _ = str(error).partition("\n")
        return f"the CUDA extension does not load: {first}"
    try:
        devices = cudnn.get_devices()
    except Exception as error:
        return f"there is no CUDA device: {cause_of(error)}"
    if device_id not in devices:
        return f"there is no CUDA device {device_id}; there are {', '.join(devices) or 'none'}"
    if "cudnn" not in nn.available_contexts:
        return f"cuDNN does not start: {cause_of(last_message)}"
    try:
        cudnn.check_gpu(device_id)
    except Exception as error:  # it needs libnvidia-ml.so.1, which a container may lack where it has libcuda.so.1
        return f"the NVIDIA driver does not answer about device {device_id}: {cause_of(error)}"
    return ""


def _import_cudnn() -> Tuple[ModuleType, str]:
    """Import the extension, and return it with the last message that it logs.

    It prints and logs several lines about a problem that our caller reports in one, so none of them is shown.
    """
    messages = [""]

    def record_and_hide(record: logging.LogRecord) -> bool:
        messages.append(record.getMessage())
        return False

    logger.addFilter(record_and_hide)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return importlib.import_module("nnabla_ext.cudnn"), messages[-1]
    finally:
        logger.removeFilter(record_and_hide)
