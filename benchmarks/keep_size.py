# SPDX-License-Identifier: Apache-2.0
"""Memory and time of `translate.py --keep-size`: a 24-megapixel photo with 1 and with 20 instances, in one run.

python benchmarks/keep_size.py

The goal: memory that grows with the picture and not with the number of instances. Each case is a process of its own,
run by translate.py's command line with a random model; what is compared is its largest resident size.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from common.errors import begin_script, run_main

begin_script()

import nnabla as nn
import numpy as np
from PIL import Image

from models import NETWORKS, Architecture, create_parameters
from weights import model_file

HEIGHT, WIDTH = 4000, 6000
CASES = {"no instance": [], "1 instance": [1000], "20 instances": [1000] * 20, "20 as large as the photo": [4000] * 20}
RUN = (
    "import resource, runpy, sys; sys.argv = sys.argv[1:]; sys.path.insert(0, '.')\n"
    "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
    "finally: print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
)


def main() -> None:
    """Print a table of the cases."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rng = np.random.default_rng(0)
        small = rng.integers(0, 256, (HEIGHT // 40, WIDTH // 40, 3), np.uint8)
        Image.fromarray(small).resize((WIDTH, HEIGHT), Image.BICUBIC).save(folder / "photo.jpg", quality=90)
        save_model(folder / "model.h5")
        print("| case | peak memory, MB | seconds | passes of the network |\n|---|---|---|---|")
        for case, sides in CASES.items():
            masks = [save_mask(folder / f"photo_{i}.png", side, rng) for i, side in enumerate(sides)]
            peak, seconds = measure(folder, masks or [save_mask(folder / "photo_0.png", 0, rng)])
            print(f"| {case} | {peak / 1024:.0f} | {seconds:.1f} | {-(-len(sides) // 2)} to {len(sides)} |", flush=True)


def save_model(path: Path) -> None:
    """A random model of the size that README trains on a laptop, for pictures of 300x200."""
    arch = Architecture(ngf=16, ndf=16, n_blocks=6)
    create_parameters(arch, np.random.RandomState(0))
    values = {name: variable.d for name, variable in nn.get_parameters(grad_only=False).items()}
    more = {"fineSizeH": 300, "fineSizeW": 200, "ins_per": 2, "ins_max": 4, "set_order": "decreasing"}
    model_file.save_model(path, values, model_file.model_config(arch, networks=sorted(NETWORKS), **more))


def save_mask(path: Path, side: int, rng: np.random.Generator) -> Path:
    """A square of so many pixels a side somewhere in the photo."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    top, left = rng.integers(0, HEIGHT - side + 1), rng.integers(0, WIDTH - side + 1)
    mask[top : top + side, left : left + side] = 255
    Image.fromarray(mask).save(path)
    return path


def measure(folder: Path, masks: list) -> tuple:
    """Peak memory in kB, and seconds, of one translation."""
    command = [sys.executable, "-c", RUN, "translate.py", "--model", folder / "model.h5", "--context", "cpu"]
    command += ["--image", folder / "photo.jpg", "--masks", *masks, "--keep-size", "--output", folder / "out"]
    start = time.perf_counter()
    done = subprocess.run([*map(str, command), "--overwrite"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return int(done.stdout.split()[-1]), time.perf_counter() - start


if __name__ == "__main__":
    run_main(main)
