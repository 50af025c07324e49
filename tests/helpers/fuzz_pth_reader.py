# SPDX-License-Identifier: Apache-2.0
"""Fuzzing of the reader of .pth files, guided by the code that each input reaches; on Linux, by hand:

    .venv/bin/python -m tests.helpers.fuzz_pth_reader -max_total_time=600

Arguments are libFuzzer's (`-help=1` lists them); a folder among them keeps the inputs that reached something new. The
first inputs are good files of both formats, made here. Whatever is read has to end in arrays no larger than the file
or in a UserError of one line, in less than 512 MB; an input that does not is written to a file `crash-...`.

The first byte of an input says what the rest is: the whole file, or, where it is odd, the pickle of an archive, whose
checksums would otherwise keep nearly every change from the pickle.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import atheris
import numpy as np

from common.errors import UserError
from tests.helpers.pth_files import FORMATS, state_dict, storage, tensor, write_arrays, write_pth

with atheris.instrument_imports(include=["weights", "pickletools", "zipfile", "struct"]):
    from weights.pth_reader import read_state_dict

ARRAYS = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "a.bias": np.ones(2)}
DATA = [("0", np.arange(6, dtype=np.float32))]
OURS = ("-max_len=4096", "-rss_limit_mb=512", "-timeout=10")


def write_input(path: Path, data: bytes) -> None:
    """The file that an input of the fuzzer stands for."""
    if data[:1] and data[0] % 2:
        write_pth(path, "zip", data[1:], DATA)
    else:
        path.write_bytes(data[1:])


def check(path: Path) -> None:
    """Read a file, and raise AssertionError or what is raised where that does not end as it has to."""
    try:
        arrays = read_state_dict(path)
    except UserError as error:
        assert str(path) in str(error) and str(error).isprintable(), error
    else:
        assert sum(array.nbytes for array in arrays.values()) <= path.stat().st_size


def make_seeds(folder: Path) -> None:
    """The first inputs."""
    for fmt in FORMATS:
        path = write_arrays(folder / "file.pth", fmt, ARRAYS)
        (folder / fmt).write_bytes(b"\0" + path.read_bytes())
        path.unlink()
    turned = tensor(storage("0", "FloatStorage", 6, "zip"), 1, (2, 2), (1, 2))
    (folder / "pickle").write_bytes(b"\1" + state_dict({"module.w": turned}))


def fuzz(folder: Path) -> None:
    """Fuzz until libFuzzer ends the process, with `folder` for the first inputs and for the file that is read."""
    (folder / "seeds").mkdir()
    make_seeds(folder / "seeds")

    def run(data: bytes) -> None:
        write_input(folder / "input.pth", data)
        check(folder / "input.pth")

    # new inputs go into the first folder named; of an argument given twice the last counts
    atheris.Setup([sys.argv[0], *OURS, *sys.argv[1:], str(folder / "seeds")], run)
    atheris.Fuzz()


def main() -> int:
    """Fuzz in a child process, because libFuzzer's way out leaves temporary folders behind."""
    with tempfile.TemporaryDirectory() as folder:
        child = os.fork()
        if not child:
            fuzz(Path(folder))
        status = os.waitpid(child, 0)[1]
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 1


if __name__ == "__main__":
    sys.exit(main())
