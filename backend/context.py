# SPDX-License-Identifier: Apache-2.0
"""Where NNabla computes: the CPU, or a GPU through the CUDA extension."""

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

# how cuDNN's convolution algorithms are chosen: NNabla's own default, tried out for each shape, or always the same sums
ALGORITHMS = {
    "heuristic": {},
    "fastest": {"NNABLA_CUDNN_ALGORITHM_BY_HEURISTIC": "0"},
    "deterministic": {"NNABLA_CUDNN_DETERMINISTIC": "1"},
}


def set_up(args: argparse.Namespace) -> None:
    """Choose context and CPU kernels as the command line says (`--context` and its like), and tell the user."""
    # the extension reads these when it is imported, and at the first convolution
    os.environ.update(ALGORITHMS[args.cudnn_algorithm], **({"NNABLA_CUDA_ALLOW_TF32": "1"} if args.tf32 else {}))
    chosen = [set_context(args.context, args.device_id, args.type_config)]
    if arrays.on_cpu() and args.type_config == "half":
        if args.cpu_kernels == "onednn":
            raise UserError("--cpu-kernels onednn computes in float32; leave it out with --type-config half")
        kernels.configure("nnabla")
    else:
        chosen.append(kernels.configure(args.cpu_kernels))
    if arrays.on_cpu() and (args.tf32 or args.cudnn_algorithm != "heuristic"):
        chosen.append("--tf32 and --cudnn-algorithm change nothing on a CPU")
    print("\n".join(filter(None, chosen)))


def set_context(name: str, device_id: str = "0", type_config: str = "float") -> str:
    """Make NNabla compute on `name`: "cpu", "cudnn", or "auto", which takes cudnn where it works.

    With `type_config` "half" layers compute in half precision (see precision.py), all else in float32.

    Returns a sentence for the user that says what was taken.

    Raises:
        UserError: where cudnn is asked for and cannot be had, or half precision where "auto" finds no GPU.
    """
    problem = _cuda_problem(device_id) if name in ("auto", "cudnn") else ""
    if name == "cudnn" and problem:
        raise UserError(f"--context cudnn does not work here: {problem}; use --context cpu, or see README, GPUs")
    chosen = "cpu" if name == "cpu" or problem else "cudnn"
    if name == "auto" and problem and type_config == "half":
        raise UserError(f"half precision needs a GPU ({problem}); use --type-config float on a CPU")
    nn.set_default_context(get_extension_context(chosen, device_id=device_id))
    half = get_extension_context(chosen, device_id=device_id, type_config="half") if type_config == "half" else None
    precision.set_layers_context(half)
    if name == "auto" and problem:
        return f"context: cpu, since {problem}"
    device = f", device {device_id}" if chosen == "cudnn" else ""
    if half is not None:
        device += ", layers in half precision"
        device += "" if chosen == "cudnn" else ": a hundred times slower than float on a CPU, for tests"
    return f"context: {chosen}{device}"


def _cuda_problem(device_id: str) -> str:
    """Why the CUDA extension cannot be used, or an empty string."""
    problem = cuda_libraries.load()
    if problem:
        return problem
    try:
        cudnn, complaint = _import_cudnn()
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
        return f"cuDNN does not start: {cause_of(complaint)}"
    try:
        cudnn.check_gpu(device_id)
    except Exception as error:  # asked of libnvidia-ml.so.1, which a container may lack where it has libcuda.so.1
        return f"the NVIDIA driver does not tell about device {device_id}: {cause_of(error)}"
    return ""


def _import_cudnn() -> Tuple[ModuleType, str]:
    """The extension, and its last complaint: it prints and logs several lines about what we tell in one."""
    complaints = [""]

    def keep(record: logging.LogRecord) -> bool:
        complaints.append(record.getMessage())
        return False

    logger.addFilter(keep)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return importlib.import_module("nnabla_ext.cudnn"), complaints[-1]
    finally:
        logger.removeFilter(keep)


