# SPDX-License-Identifier: Apache-2.0
"""The page of examples/browser in a headless Chromium, used with a mouse, against examples/onnx_translate.py."""

from __future__ import annotations

import base64
import functools
import io
import shutil
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

import export
from examples import onnx_translate
from models import Architecture
from tests.helpers import ROOT
from tests.helpers.browser import CHROMIUM, Browser
from tests.helpers.random_generator import save_random_model

for package in ("onnx", "onnxruntime"):
    pytest.importorskip(package, reason=f"needs {package}: pip install -r requirements-test.txt")

PAGE = ROOT / "examples" / "browser"
ARCH = Architecture(ngf=4, ndf=2, n_blocks=1)
SIZE = 64

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium"),
    pytest.mark.skipif(not (PAGE / "onnxruntime").is_dir(), reason="needs onnxruntime-web: make browser"),
]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture()
def site(tmp_path, run_main):
    """The page with a model beside it, served as `python -m http.server` does; its folder and address."""
    folder = tmp_path / "site"
    shutil.copytree(PAGE, folder)
    model = save_random_model(tmp_path / "model.h5", ARCH, "keep")
    size = ["--fineSizeH", SIZE, "--fineSizeW", SIZE]
    code, _, err = run_main(export, "--model", model, *size, "--output", folder / "model.onnx", "--overwrite")
    assert code == 0, err
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def show(browser, address):
    """Open the page and wait until it has loaded its model."""
    browser.call("Emulation.setDeviceMetricsOverride", width=900, height=1200, deviceScaleFactor=1, mobile=False)
    browser.call("Page.navigate", url=address)
    browser.wait_for("document.getElementById('message')?.textContent.startsWith('AtoB')")


def drag(browser, start, end):
    """Drag the mouse over the picture; positions are in its pixels."""
    area = browser.evaluate(
        "(() => { const a = document.getElementById('before').getBoundingClientRect();"
        " return [a.left, a.top, a.width] })()"
    )
    left, top, width = area
    for kind, (x, y) in (("mousePressed", start), ("mouseMoved", end), ("mouseReleased", end)):
        place = dict(x=left + x * width / SIZE, y=top + y * width / SIZE)
        browser.call("Input.dispatchMouseEvent", type=kind, button="left", buttons=1, clickCount=1, **place)


def pixels(browser, canvas):
    url = browser.evaluate(f"document.getElementById('{canvas}').toDataURL()")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB"))


def is_marked(browser):
    """Where a mark is shown, (H, W) bool; the marks are then removed."""
    marked = pixels(browser, "before")
    browser.evaluate("document.getElementById('clear').click()")
    return (marked != pixels(browser, "before")).any(axis=2)


def test_tools(site, tmp_path):
    rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
    with Browser(tmp_path / "profile") as browser:
        show(browser, site[1])
        drag(browser, (10, 12), (50, 32))
        distance = np.hypot((columns - 30) / 20, (rows - 22) / 10)
        ellipse = is_marked(browser)
        browser.evaluate("document.getElementById('tool').value = 'brush'")
        drag(browser, (10, 32), (50, 32))
        stroke = is_marked(browser)
    # pixels on the edge are covered in part
    assert ellipse[distance < 0.9].all() and not ellipse[distance > 1.15].any()
    assert stroke[31:33, 10:50].all() and not stroke[:28].any() and not stroke[36:].any()


def test_drawn_instances_are_translated(site, tmp_path):
    folder, address = site
    with Browser(tmp_path / "profile") as browser:
        show(browser, address)
        picture = pixels(browser, "before")
        drag(browser, (4, 4), (60, 60))
        browser.evaluate("document.getElementById('clear').click(); document.getElementById('tool').value = 'box'")
        for first, last in (((8, 8), (28, 30)), ((36, 16), (56, 34)), ((20, 40), (40, 60))):
            drag(browser, first, last)
        assert (pixels(browser, "before") != picture).any(), "the marks are shown"
        browser.evaluate("document.getElementById('translate').click()")
        browser.wait_for("document.getElementById('message').textContent.startsWith('translated in')")
        got = pixels(browser, "after")
        requests, complaints = browser.requests, browser.complaints
    masks = -np.ones((3, SIZE, SIZE), np.float32)
    masks[0, 8:30, 8:28] = masks[1, 16:34, 36:56] = masks[2, 40:60, 20:40] = 1
    model = onnx_translate.load_model(folder / "model.onnx")
    given = picture.transpose(2, 0, 1).astype(np.float32) / 127.5 - 1
    want, _ = onnx_translate.translate(model, model.get_modelmeta().custom_metadata_map, given, masks)
    difference = np.abs(got.astype(int) - onnx_translate.to_bytes(want).transpose(1, 2, 0))
    assert difference.max() <= 1
    assert np.abs(got.astype(int) - picture).mean() > 5, "that changes nothing"
    assert complaints == []
    assert all(url.startswith(address) for url in requests)
