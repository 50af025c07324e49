# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: all that a training run needs to go on, in one file that is whole or absent.

`checkpoint_NNNNNN.npz` holds arrays by name and, as JSON text, everything else. It is a zip file with checksums,
and is read without executing anything.
"""

from __future__ import annotations

import json
import re
import sys
import zipfile
from pathlib import Path
from typing import Any, Dict, List, Tuple

from errors import UserError

import numpy as np

import atomic

Arrays = Dict[str, np.ndarray]
State = Dict[str, Any]


def save(folder: str | Path, iteration: int, arrays: Arrays, state: State) -> Path:
    """Write the checkpoint of `iteration` into `folder`; gives its path."""
    path = Path(folder) / f"checkpoint_{iteration:06d}.npz"
    with atomic.replacing(path) as part:
        np.savez(part, state=np.array(json.dumps(state)), **{f"arrays/{name}": v for name, v in arrays.items()})
    return path


def find(folder: str | Path) -> List[Path]:
    """The checkpoints in `folder`, oldest first."""
    return numbered(folder, "checkpoint", "npz")


def numbered(folder: str | Path, stem: str, ending: str) -> List[Path]:
    """The files STEM_NUMBER.ENDING in `folder`, by number."""
    found = {path: re.fullmatch(stem + r"_(\d+)", path.stem) for path in Path(folder).glob(f"{stem}_*.{ending}")}
    return sorted((path for path in found if found[path]), key=lambda path: int(found[path][1]))


def load_newest(folder: str | Path) -> Tuple[Arrays, State]:
    """Read the newest checkpoint that is whole; one that is damaged is named on standard error and passed over.

    Raises:
        UserError: where there is none.
    """
    for path in reversed(find(folder)):
        try:
            with np.load(path, allow_pickle=False) as file:
                names = [n for n in file.files if n.startswith("arrays/")]
                return {n[len("arrays/") :]: file[n] for n in names}, json.loads(str(file["state"]))
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            print(f"{path} is damaged ({error}); taking the one before it", file=sys.stderr)
    raise UserError(f"no whole checkpoint in {folder} to resume from; start again without --resume")


def keep_last(folder: str | Path, stem: str, ending: str, count: int = 3) -> None:
    """Delete all but the last `count` of the files STEM_NUMBER.ENDING in `folder`."""
    for path in numbered(folder, stem, ending)[:-count]:
        path.unlink()
