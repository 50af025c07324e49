# SPDX-License-Identifier: Apache-2.0
"""Loads the libraries of NNabla's CUDA extension, or says which one is missing and how to get it.

NVIDIA's wheels (requirements-cuda.txt) put the libraries of CUDA where the dynamic linker does not look. But it takes
whatever is loaded already for a library of the same name. So those in the environment are loaded here, each after the
ones that it needs itself, and the linker finds only the rest in the system. The extension's own library comes last: its
loading, not this list, decides whether anything is missing.
"""

from __future__ import annotations

import ctypes
import importlib.util
import struct
import sys
from pathlib import Path
from typing import List, Optional

DRIVER = "libcuda.so.1"
# Of nnabla-ext-cuda120: library and package (as in requirements-cuda.txt), in the order in which they need each other.
PACKAGES = {
    "libcudart.so.12": "nvidia-cuda-runtime-cu12==12.1.105",
    "libcublasLt.so.12": "nvidia-cublas-cu12==12.1.3.1",
    "libcublas.so.12": "nvidia-cublas-cu12==12.1.3.1",
    "libnvJitLink.so.12": "nvidia-nvjitlink-cu12==12.1.105",
    "libcusparse.so.12": "nvidia-cusparse-cu12==12.1.0.106",
    "libcusolver.so.11": "nvidia-cusolver-cu12==11.4.5.107",
    "libcurand.so.10": "nvidia-curand-cu12==10.3.2.106",
    "libcufft.so.11": "nvidia-cufft-cu12==11.0.2.54",
    # libcudnn.so.8 opens the others by name once they are needed, and ends the process where it cannot
    "libnvrtc.so.12": "nvidia-cuda-nvrtc-cu12==12.1.105",
    "libcudnn.so.8": "nvidia-cudnn-cu12==8.9.7.29",
    "libcudnn_ops_infer.so.8": "nvidia-cudnn-cu12==8.9.7.29",
    "libcudnn_ops_train.so.8": "nvidia-cudnn-cu12==8.9.7.29",
    "libcudnn_cnn_infer.so.8": "nvidia-cudnn-cu12==8.9.7.29",
    "libcudnn_cnn_train.so.8": "nvidia-cudnn-cu12==8.9.7.29",
}

# for several GPUs, which not everybody has: loaded where it is there
NCCL = "libnccl.so.2"


def load() -> str:
    """Load the installed CUDA extension's library and those that it needs; NNabla itself is imported before.

    Returns:
        Which library is missing or broken, and the mend. Empty where all are loaded, or no extension is installed.
    """
    extension = _extension()
    if extension is None:
        return ""
    # the environment may have CUDA 12 for another's sake; an extension for CUDA 11 must not meet its cuDNN
    needed = _in_environment() if extension.name.startswith("libnnabla_cuda-12") else []
    try:
        for path in [Path(DRIVER), *needed, extension]:
            if _is_cut_off(path):
                raise OSError(f"{path}: file too short")
            ctypes.CDLL(str(path))
    except OSError as error:
        return _explain(str(error))
    return ""


def _extension() -> Optional[Path]:
    """The extension's library, such as libnnabla_cuda-120_8.so (CUDA 12.0, cuDNN 8)."""
    package = importlib.util.find_spec("nnabla_ext.cuda")
    folders = package.submodule_search_locations if package else []
    return next((path for folder in folders for path in Path(folder).glob("libnnabla_cuda*.so")), None)


def _in_environment() -> List[Path]:
    """Those of the libraries that lie in `nvidia/*/lib` where Python looks for packages."""
    found = {}
    for entry in reversed(sys.path):  # the first has the last word
        found.update({path.name: path for path in Path(entry).glob("nvidia/*/lib/*.so.*")})
    return [found[name] for name in (*PACKAGES, NCCL) if name in found]


def _is_cut_off(path: Path) -> bool:
    """Whether a library ends before its last segment, as a killed pip leaves it: loading it would kill us (SIGBUS)."""
    try:
        with open(path, "rb") as file:
            table, size, number = struct.unpack("<32xQ14xHH6x", file.read(64))
            file.seek(table)
            segments = [struct.unpack("<8xQ16xQ16x", file.read(size)) for _ in range(number)]
    except (OSError, ValueError, struct.error):
        return False  # cannot be read, or no library for x86-64 at all: the linker can tell
    return any(start + size > path.stat().st_size for start, size in segments)


def _explain(message: str) -> str:
    """What the user can do about the dynamic linker's `message`, such as "libfoo.so.1: file too short"."""
    path, _, reason = message.partition(": ")
    name = Path(path).name
    package = PACKAGES.get(name)
    if reason != "cannot open shared object file: No such file or directory":
        return f"{path} does not load: {reason}" + (f"; pip install --force-reinstall {package}" if package else "")
    if name == DRIVER:
        return f"{name} is missing: it comes with the NVIDIA driver (in a container: start that with its GPUs)"
    if package is None:
        return f"{name} is missing, which the CUDA extension needs"
    return f"{name} is missing: pip install {package}, or all of it: pip install -r requirements-cuda.txt"
