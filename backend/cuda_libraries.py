# SPDX-License-Identifier: Apache-2.0
"""Load the libraries of NNabla's CUDA extension, or report which one is missing and how to get it.

NVIDIA's wheels (requirements-cuda.txt) put the libraries of CUDA where the dynamic linker does not look. But where a
library of the same name is loaded already, the linker takes that one. So the libraries in the environment are loaded
here, each after the ones that it needs, and the linker looks for the others in the system. The extension's own library
comes last: whether that one loads, not this list, decides whether anything is missing.
"""

from __future__ import annotations

import ctypes
import importlib.util
import struct
import sys
from pathlib import Path
from typing import List, Optional

DRIVER = "libcuda.so.1"
# The libraries that nnabla-ext-cuda120 needs and their packages (as in requirements-cuda.txt), each after those that it
# needs itself.
PACKAGES = {
    "libcudart.so.12": "nvidia-cuda-runtime-cu12==12.1.105",
    "libcublasLt.so.12": "nvidia-cublas-cu12==12.1.3.1",
    "libcublas.so.12": "nvidia-cublas-cu12==12.1.3.1",
    "libnvJitLink.so.12": "nvidia-nvjitlink-cu12==12.1.105",
    "libcusparse.so.12": "nvidia-cusparse-cu12==12.1.0.106",
    "libcusolver.so.11": "nvidia-cusolver-cu12==11.4.5.107",
    "libcurand.so.10": "nvidia-curand-cu12==10.3.2.106",
    "libcufft.so.11": "nvidia-cufft-cu12==11.0.2.54",
    # libcudnn.so.8 opens the next ones by name when it needs them, and ends the process where it cannot
    "libnvrtc.so.12": "nvidia-cuda-nvrtc-cu12==12.1.105",
    "libcudnn.so.8": "nvidia-cudnn-cu12==8.9.7.29",
    "libcudnn_ops_infer.so.8": "nvidia-cudnn-cu12==8.9.7.29",
    "libcudnn_ops_train.so.8": "nvidia-cudnn-cu12==8.9.7.29",
    "libcudnn_cnn_infer.so.8": "nvidia-cudnn-cu12==8.9.7.29",
    "libcudnn_cnn_train.so.8": "nvidia-cudnn-cu12==8.9.7.29",
}

# for several GPUs, which not everybody has: loaded if installed
NCCL = "libnccl.so.2"


def load() -> str:
    """Load the installed CUDA extension's library and those that it needs; NNabla itself must be imported before.

    Returns:
        The library that is missing or broken, and the fix. Empty where all are loaded, or no extension is installed.
    """
    extension = _extension()
    if extension is None:
        return ""
    # another package may have put CUDA 12 into the environment; an extension for CUDA 11 must not load its cuDNN
    needed = _in_environment() if extension.name.startswith("libnnabla_cuda-12") else []
    try:
        for path in [Path(DRIVER), *needed, extension]:
            if _is_truncated(path):
                raise OSError(f"{path}: file too short")
            ctypes.CDLL(str(path))
    except OSError as error:
        return _explain(str(error))
    return ""


def _extension() -> Optional[Path]:
    """Return the extension's library, such as libnnabla_cuda-120_8.so (CUDA 12.0, cuDNN 8), if it is installed."""
    package = importlib.util.find_spec("nnabla_ext.cuda")
    if package is None:
        return None
    for folder in package.submodule_search_locations:
        for path in Path(folder).glob("libnnabla_cuda*.so"):
            return path
    return None


def _in_environment() -> List[Path]:
    """Return the libraries that lie in `nvidia/*/lib` where Python looks for packages, in the order to load them in."""
    paths = {}
    for folder in reversed(sys.path):  # the first folder overrides the others
        for path in Path(folder).glob("nvidia/*/lib/*.so.*"):
            paths[path.name] = path
    return [paths[name] for name in (*PACKAGES, NCCL) if name in paths]


def _is_truncated(path: Path) -> bool:
    """Return whether a library ends before its last segment, as a killed pip leaves it.

    Loading it would kill the process (SIGBUS).
    """
    try:
        with open(path, "rb") as file:
            table, size, number = struct.unpack("<32xQ14xHH6x", file.read(64))
            file.seek(table)
            segments = [struct.unpack("<8xQ16xQ16x", file.read(size)) for _ in range(number)]
    except (OSError, ValueError, struct.error):
        return False  # unreadable, or not a library for x86-64: the linker reports that
    return any(start + size > path.stat().st_size for start, size in segments)


def _explain(message: str) -> str:
    """Return the cause and the fix for a message of the dynamic linker, such as "libfoo.so.1: file too short"."""
    path, _, reason = message.partition(": ")
    name = Path(path).name
    package = PACKAGES.get(name)
    if reason != "cannot open shared object file: No such file or directory":
        fix = f"; pip install --force-reinstall {package}" if package else ""
        return f"{path} does not load: {reason}{fix}"
    if name == DRIVER:
        return f"{name} is missing: it comes with the NVIDIA driver (in a container: start that with its GPUs)"
    if package is None:
        return f"{name} is missing, which the CUDA extension needs"
    return f"{name} is missing: pip install {package}, or all of it: pip install -r requirements-cuda.txt"
