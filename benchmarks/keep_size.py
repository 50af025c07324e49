# SPDX-License-Identifier: Apache-2.0
"""Measure memory and time of `translate.py --keep-size` on a 24-megapixel photo with 0, 1 and 20 instances.

    python benchmarks/keep_size.py

The goal is memory that grows with the picture and not with the number of instances. Each case runs translate.py in a
separate process, with a random model; memory is the peak resident size of that process.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Dict, List, Sequence, Tuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from common.errors import begin_script, run_main

begin_script(__name__)

import nnabla as nn
import numpy as np
from PIL import Image

from common.command_line import Parser
from models import NETWORKS, Architecture, create_parameters
from weights import model_file

HEIGHT, WIDTH = 4000, 6000
INS_PER = 2
# the sides of each case's instances, which are squares, in pixels
CASES: Dict[str, List[int]] = {
    "no instance": [],
    "1 instance": [1000],
    "20 instances": [1000] * 20,
    "20 as large as the photo": [4000] * 20,
}
# runs a script with its arguments, and prints the peak resident size in kB at the end
RUN = (
    "import resource, runpy, sys; sys.argv = sys.argv[1:]; sys.path.insert(0, '.')\n"
    "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
    "finally: print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
)


def main() -> None:
    """Print a table of the cases."""
    Parser(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rng = np.random.default_rng(0)
        save_photo(folder / "photo.jpg", rng)
        save_model(folder / "model.h5")
        print("| case | peak memory, MB | seconds | passes of the network |\n|---|---|---|---|")
        for case, sides in CASES.items():
            masks = []
            # "no instance" is one empty mask
            for i, side in enumerate(sides or [0]):
                masks.append(folder / f"photo_{i}.png")
                save_mask(masks[-1], side, rng)
            peak, seconds = measure(folder, masks)
            fewest_passes = -(-len(sides) // INS_PER)
            print(f"| {case} | {peak / 1024:.0f} | {seconds:.1f} | {fewest_passes} to {len(sides)} |", flush=True)


def save_photo(path: Path, rng: np.random.Generator) -> None:
    """Save a photo of smooth random colours."""
    small = rng.integers(0, 256, (HEIGHT // 40, WIDTH // 40, 3), np.uint8)
    Image.fromarray(small).resize((WIDTH, HEIGHT), Image.BICUBIC).save(path, quality=90)


def save_model(path: Path) -> None:
    """Save a random model of the size that the README trains on a laptop, for pictures of 300x200."""
    arch = Architecture(ngf=16, ndf=16, n_blocks=6)
    create_parameters(arch, np.random.RandomState(0))
    values = {name: variable.d for name, variable in nn.get_parameters(grad_only=False).items()}
    settings = {"fineSizeH": 300, "fineSizeW": 200, "ins_per": INS_PER, "ins_max": 4, "set_order": "decreasing"}
    model_file.save_model(path, values, model_file.model_config(arch, networks=sorted(NETWORKS), **settings))


def save_mask(path: Path, side: int, rng: np.random.Generator) -> None:
    """Save a mask of the photo: a square of `side` pixels at a random place, or an empty mask for 0."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    top = rng.integers(0, HEIGHT - side + 1)
    left = rng.integers(0, WIDTH - side + 1)
    mask[top : top + side, left : left + side] = 255
    Image.fromarray(mask).save(path)


def measure(folder: Path, masks: Sequence[Path]) -> Tuple[int, float]:
    """Translate the photo with these masks, and return the peak memory in kB and the seconds."""
    command = [sys.executable, "-c", RUN, "translate.py", "--model", folder / "model.h5", "--context", "cpu"]
    command += ["--image", folder / "photo.jpg", "--masks", *masks, "--keep-size"]
    command += ["--output", folder / "out", "--overwrite"]
    start = time.perf_counter()
    done = subprocess.run([str(word) for word in command], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return int(done.stdout.split()[-1]), time.perf_counter() - start


if __name__ == "__main__":
    run_main(main)
