# SPDX-License-Identifier: Apache-2.0
"""Make the picture of app.py's page for its documentation, docs/images/app.png.

    python -m tests.helpers.app_picture --model runs/shapes
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from common.errors import begin_script, run_main

begin_script(__name__)

from PIL import Image

from common.command_line import Parser
from tests.helpers import ROOT
from tests.helpers.browser import Browser

WIDTH, HEIGHT = 1100, 740  # of the window
PHOTO_HEIGHT, PHOTO_WIDTH = 600, 900
ROOM = 1.08  # a box is this much larger than its circle


def main() -> None:
    """Run the command line."""
    parser = Parser(__doc__)
    parser.add_argument("--model", required=True, help="a model of circles (A) and squares (B)")
    parser.add_argument("--output", default=str(ROOT / "docs" / "images" / "app.png"), help="the picture to write")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = f"--height {PHOTO_HEIGHT} --width {PHOTO_WIDTH} --train 1 --test 0 --min-instances 4 --seed 3".split()
        script = ROOT / "datasets" / "generate_shapes_dataset.py"
        subprocess.run([sys.executable, script, *size, "--save_root", folder / "shapes"], check=True)
        command = [sys.executable, ROOT / "app.py", "--model", args.model, "--port", "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                address = next(filter(None, (re.match(r"open (\S+)", line) for line in server.stdout)))[1]
                with Browser(folder / "profile") as browser:
                    picture = translated_page(browser, address, folder / "shapes")
            finally:
                server.terminate()
    picture.save(args.output, optimize=True)
    print(f"{args.output}: {Path(args.output).stat().st_size / 1000:.0f} kB")


def translated_page(browser: Browser, address: str, shapes: Path) -> Image.Image:
    """The page with the result of a photo of circles, with a box around each but the last."""
    browser.open(address, WIDTH, HEIGHT, prefers_color_scheme="light")
    browser.wait_for("document.querySelector('#direction-list label') !== null")
    browser.choose_files("#photo-file", shapes / "trainA" / "0000.png")
    browser.wait_for("document.querySelector('#canvas').clientWidth > 9")
    (circles,) = json.loads((shapes / "trainA.json").read_text()).values()
    for number, circle in enumerate(circles, 1):
        place = browser.evaluate(
            "(r => [r.x, r.y, r.width])(document.querySelector('#canvas').getBoundingClientRect())"
        )
        left, top, scale = place[0], place[1], place[2] / PHOTO_WIDTH
        (x, y), radius = circle["centre"], circle["size"] * ROOM
        corners = [(x - radius, y - radius), (x, y), (x + radius, y + radius)]
        browser.drag([(left + scale * x, top + scale * y) for x, y in corners])
        browser.wait_for(f"document.querySelectorAll('#instances li').length === {number}")
    browser.click("#translate")
    browser.wait_for("!document.querySelector('#result-view').hidden && document.querySelector('#after').complete")
    browser.click("#outlines")
    browser.evaluate("scrollTo(0, 0)")
    return Image.open(io.BytesIO(browser.screenshot(0, 0, WIDTH, HEIGHT))).convert("RGB")


if __name__ == "__main__":
    run_main(main)
