# SPDX-License-Identifier: Apache-2.0
"""Where NNabla computes: the CPU, or a GPU through the CUDA extension."""

from __future__ import annotations

import argparse
import importlib

from errors import UserError

import nnabla as nn
from nnabla.ext_utils import get_extension_context

import cpu_kernels


def set_up(args: argparse.Namespace) -> None:
    """Choose context and CPU kernels as the command line says (`--context` and its like), and tell the user."""
    chosen = [set_context(args.context, args.device_id, args.type_config), cpu_kernels.configure(args.cpu_kernels)]
    print("\n".join(filter(None, chosen)))


def set_context(name: str, device_id: str = "0", type_config: str = "float") -> str:
    """Make NNabla compute on `name`: "cpu", "cudnn", or "auto", which takes cudnn where it works.

    Returns a sentence for the user that says what was taken.

    Raises:
        UserError: where cudnn is asked for and cannot be had, or half precision on the CPU.
    """
    problem = _cuda_problem(device_id) if name in ("auto", "cudnn") else ""
    if name == "cudnn" and problem:
        raise UserError(f"--context cudnn does not work here ({problem}); use --context cpu, or see README, GPU")
    chosen = "cpu" if name == "cpu" or problem else "cudnn"
    if chosen == "cpu" and type_config == "half":
        raise UserError("half precision needs a GPU; use --type-config float on the cpu context")
    nn.set_default_context(get_extension_context(chosen, device_id=device_id, type_config=type_config))
    if name == "auto" and problem:
        return f"context: cpu ({problem})"
    return f"context: {chosen}" + (f", device {device_id}" if chosen == "cudnn" else "")


def on_cpu() -> bool:
    """Whether the default context is the CPU's."""
    return any(backend.startswith("cpu") for backend in nn.get_current_context().backend)


def _cuda_problem(device_id: str) -> str:
    """Why the CUDA extension cannot be used, or an empty string."""
    try:
        cudnn = importlib.import_module("nnabla_ext.cudnn")
    except ModuleNotFoundError:
        return "the CUDA extension is not installed"
    except Exception as error:  # a missing library shows as ImportError, OSError or the extension's own error
        return f"the CUDA extension does not load: {str(error).splitlines()[0]}"
    try:
        devices = cudnn.get_devices()
    except Exception as error:
        return f"no CUDA device: {str(error).splitlines()[0]}"
    return "" if device_id in devices else f"no CUDA device {device_id}; there are {', '.join(devices) or 'none'}"
