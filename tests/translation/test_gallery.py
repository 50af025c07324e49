# SPDX-License-Identifier: Apache-2.0
"""The page of pictures: its contents, the escaping of hostile names, and its behaviour in a browser."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from common.errors import UserError
from data import pictures
from tests.helpers.browser import CHROMIUM, Browser
from tests.helpers.page import Page
from translation import gallery
from translation.drawing import COLOURS, instance_colour, outline_masks
from translation.gallery import Comparison, Link, Row, Section

HOSTILE = [
    "plain",
    "<script>alert(1)<script>",
    '"><img src=x onerror=alert(1)>',
    "' onfocus='alert(1)",
    "a&amp;#60;b",
    "a b#c?d=%41",
    "javascript:alert(1)",
    "two\nlines",
    "ジーンズ",
    "\u202eright to left",
    "{links}",
    "l" * 240,
]
SIZE = 24


def comparison(folder, name, before=(200, 30, 30), after=(30, 30, 200)):
    """Write a picture of one colour and its translation, with the outline of a square in white; return them."""
    mask = np.zeros((1, SIZE, SIZE), bool)
    mask[0, 6:18, 6:18] = True
    paths = [f"{kind}/{name}.png" for kind in ("before", "after", "outlines", "masks")]
    for path, values in zip(paths, (before, after)):
        pictures.write_png(folder / path, np.full((SIZE, SIZE, 3), values, np.uint8))
    pictures.write_png(folder / paths[2], outline_masks(mask))
    pictures.write_png(folder / paths[3], mask[0].astype(np.uint8) * 255)
    return Comparison(name, f"{name} (title)", *paths[:2], paths[2], paths[2], [Link("its mask", paths[3], "#ffb000")])


# --- the contents of a page -------------------------------------------------------------------------------------------


@pytest.fixture()
def page(tmp_path):
    """A page with hostile names wherever names are shown."""
    compared = [comparison(tmp_path, name) for name in HOSTILE]
    sections = [Section(name, name, [Row(name, [(name, f"before/{name}.png")])], table=[[name]]) for name in HOSTILE]
    gallery.write_page(tmp_path / "index.html", HOSTILE[2], [*sections, Section("all", "", comparisons=compared)])
    return Page(tmp_path / "index.html")


def test_everything_from_outside_is_text_or_an_attribute(page):
    for tag in ("h2", "p", "th"):
        assert set(HOSTILE) <= set(page.text(tag)), tag
    assert page.text("title") == page.text("h1") == [HOSTILE[2]]
    assert page.all("article", "data-name") == HOSTILE
    assert set(page.text("h3")) == {*HOSTILE, *(f"{name} (title)" for name in HOSTILE)}
    assert not any(name.startswith("on") for _, values in page.elements for name in values), "no code in attributes"
    # of each name one in its row, and four in its card: input and translation, each with its outlines
    assert len(page.all("img", "src")) == len(HOSTILE) * 5
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"link", "iframe", "object", "base", "form"} and page.all("script", "src") == [None]


def test_every_file_exists_in_the_folder_of_the_page(page, tmp_path):
    found = page.all("img", "src") + page.all("a", "href")
    files = [tmp_path / unquote(path) for path in found if not path.startswith("#")]
    assert len(files) == len(HOSTILE) * (5 + 5)
    for file in files:
        assert file.resolve().parents[1] == tmp_path.resolve()
        Image.open(file).verify()
    anchors = [path[1:] for path in found if path.startswith("#")]
    assert anchors and set(anchors) <= {values.get("id") for _, values in page.elements}


def test_the_policy_lets_nothing_run_or_load_but_what_is_meant(page):
    (policy,) = (v["content"] for t, v in page.elements if t == "meta" and "http-equiv" in v)
    rules = dict(rule.split(maxsplit=1) for rule in policy.split(";"))
    assert rules.pop("img-src") == "'self' file:"
    for tag in ("style", "script"):
        (text,) = page.text(tag)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules.pop(f"{tag}-src") == f"'sha256-{digest}'"
    assert set(rules) == {"default-src", "base-uri", "form-action"} and set(rules.values()) == {"'none'"}
    assert page.elements.index(("meta", {"http-equiv": "Content-Security-Policy", "content": policy})) < 4
    assert "http:" not in page.source and "https:" not in page.source


def test_a_slider_has_a_label_and_pictures_wait_until_they_are_near(page):
    sliders = [values for tag, values in page.elements if tag == "input" and values["type"] == "range"]
    assert len(sliders) == len(HOSTILE)
    assert all(name in slider["aria-label"] for name, slider in zip(HOSTILE, sliders))
    assert set(page.all("img", "loading")) == {"lazy"} and None not in page.all("img", "alt")
    assert page.all("img", "width").count(str(SIZE)) == page.all("img", "height").count(str(SIZE)) == len(HOSTILE) * 3


def test_a_page_tells_the_shape_of_what_is_there(tmp_path):
    """Width and height are given, so that nothing moves when a picture arrives; a missing picture has none."""
    pictures.write_png(tmp_path / "a.png", np.zeros((20, 30, 3), np.uint8))
    (tmp_path / "b.png").write_text("no picture")
    cells = [("", name) for name in ("a.png", "b.png", "absent.png", "\0", "l" * 5000)]
    gallery.write_page(tmp_path / "index.html", "t", [Section("s", "", [Row("r", cells)])])
    page = Page(tmp_path / "index.html")
    assert page.all("img", "width") == ["30", *[None] * 4] and page.all("img", "height") == ["20", *[None] * 4]


def test_without_outlines_there_is_no_picture_of_them(tmp_path):
    one = Comparison("a", "a", "a.png", "b.png", "", "")
    gallery.write_page(tmp_path / "index.html", "t", [Section("s", "", comparisons=[one])])
    assert Page(tmp_path / "index.html").all("img", "src") == ["a.png", "b.png"]


def test_a_page_with_nothing_to_compare_has_no_script(tmp_path):
    gallery.write_page(tmp_path / "index.html", "t", [Section("s", "", [Row("r", [("c", "a.png")])])])
    page = Page(tmp_path / "index.html")
    assert not {"script", "input", "dialog"} & {tag for tag, _ in page.elements}


def test_comparisons_come_back_from_their_file(tmp_path):
    written = {name: comparison(tmp_path, name) for name in HOSTILE}
    gallery.write_comparisons(tmp_path / "record.json", written)
    assert gallery.read_comparisons(tmp_path / "record.json") == written


def test_comparisons_seen_from_the_folder_above(tmp_path):
    found = Comparison("n", "t", "a.png", "b.png", "", "c.png", [Link("m", "m.png", "#000000")]).under("AtoB")
    files = [Link("m", "AtoB/m.png", "#000000")]
    assert found == Comparison("n", "t", "AtoB/a.png", "AtoB/b.png", "", "AtoB/c.png", files)


@pytest.mark.parametrize("path", ["/etc/x.png", "//elsewhere/x.png", "..", "a/../../x.png"])
def test_a_file_of_comparisons_cannot_lead_out_of_its_folder(tmp_path, path):
    for one in (Comparison("a", "a", path, "b", "", ""), Comparison("a", "a", "b", "b", "", "", [Link("c", path)])):
        gallery.write_comparisons(tmp_path / "record.json", {"a": one})
        with pytest.raises(UserError, match=r"record\.json is damaged"):
            gallery.read_comparisons(tmp_path / "record.json")


# --- outlines ---------------------------------------------------------------------------------------------------------


def distances(size, centre, scale):
    """Distances of the centres of a drawing's pixels from a point, in pixels of the picture: (s * H, s * W)."""
    y, x = (np.indices((size[0] * scale, size[1] * scale)) + 0.5) / scale
    return np.hypot(x - centre[0], y - centre[1])


@pytest.mark.parametrize(("size", "scale"), [((64, 64), 6), ((60, 90), 5), ((500, 400), 1)])
def test_a_disc_is_outlined_where_it_ends(size, scale):
    """The outline is on the whole edge in its colour, dark beside that, and nowhere else."""
    height, width = size
    discs = [((0.3 * width, 0.35 * height), 0.2 * min(size)), ((0.7 * width, 0.6 * height), 0.25 * min(size))]
    masks = np.stack([distances(size, centre, 1) <= radius for centre, radius in discs])
    drawn = outline_masks(masks)
    np.testing.assert_array_equal(outline_masks(pictures.masks_to_network(masks)), drawn)
    assert drawn.shape == (height * scale, width * scale, 4) and drawn.dtype == np.uint8
    line = 0.011 * (height * width) ** 0.5
    for i, (centre, radius) in enumerate(discs):
        for angle in np.linspace(0, 2 * np.pi, 16):
            off = distances(size, centre + radius * np.array([np.cos(angle), np.sin(angle)]), scale)
            near, beside = drawn[off < line / 4 + 0.7].astype(int), drawn[off < line + 0.7]
            assert (np.abs(near - [*COLOURS[i], 255]).max(axis=1) < 40).any(), (i, angle)
            assert ((beside[:, :3].max(axis=1) < 40) & (beside[:, 3] > 100)).any(), "the rim"
    # pixels of the mask are squares, so that its edge is up to 0.7 of one from the circle's
    off = np.min([np.abs(distances(size, centre, scale) - radius) for centre, radius in discs], axis=0)
    assert (drawn[off > line * 0.9 + 0.7 + 1 / scale] == 0).all()


def test_every_instance_has_a_colour_of_its_own():
    colours = np.array([instance_colour(i) for i in range(20)])
    assert colours[: len(COLOURS)].tolist() == list(map(list, COLOURS))
    far = np.abs(colours[:, None] - colours[None]).max(axis=2) + 255 * np.eye(20)
    assert far.min() > 10 and 0 <= colours.min() and colours.max() <= 255


def test_an_instance_at_the_edge_is_outlined_there_too():
    mask = np.zeros((1, 400, 400), bool)
    mask[0, 100:200, :50] = True
    drawn = outline_masks(mask)
    assert (drawn[110:190, 0] == 255).all() and (drawn[150, 49:51] == 255).all() and (drawn[150, 10:40] == 0).all()


@pytest.mark.parametrize("shape", [(0, 10, 20), (2, 1, 1), (1, 3, 900)])
def test_outlines_of_none_and_of_odd_shapes(shape):
    drawn = outline_masks(np.ones(shape, np.float32))
    scale = drawn.shape[1] // shape[2]
    assert drawn.shape == (shape[1] * scale, shape[2] * scale, 4) and drawn.any() == (shape[0] > 0)


def test_a_single_pixel_is_seen():
    mask = np.zeros((1, 64, 64), bool)
    mask[0, 20, 30] = True
    drawn = outline_masks(mask)
    assert (drawn[20 * 6 : 21 * 6, 30 * 6 : 31 * 6] == 255).all(axis=2).any()


# --- in a browser -----------------------------------------------------------------------------------------------------

RED, BLUE = (200, 30, 30), (30, 30, 200)


def colour(browser, x, y):
    """The colour at a point of the window."""
    return Image.open(io.BytesIO(browser.screenshot(int(x), int(y), 1, 1))).convert("RGB").getpixel((0, 0))


def box(browser, selector):
    """(left, top, width, height) of an element, in the window."""
    values = f"(b => [b.left, b.top, b.width, b.height])(document.querySelector({selector!r}).getBoundingClientRect())"
    return browser.evaluate(values)


def mouse(browser, kind, x, y):
    browser.call("Input.dispatchMouseEvent", type=f"mouse{kind}", x=x, y=y, button="left", buttons=1, clickCount=1)


def key(browser, name, code):
    for kind in ("rawKeyDown", "keyUp"):
        browser.call("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code)


def check_slider(browser):
    """Dragged, and by key, it shows the red input over the translation, from the left; return the middle's x, y."""
    left, top, width, height = box(browser, "article:not([hidden]) figure:last-child .picture")
    middle, quarter = left + width / 2, top + height * 0.1
    assert [colour(browser, left + width * share, quarter) for share in (0.25, 0.75)] == [BLUE, BLUE]
    mouse(browser, "Pressed", left, quarter)
    mouse(browser, "Moved", middle, quarter)
    mouse(browser, "Released", middle, quarter)
    assert [colour(browser, left + width * share, quarter) for share in (0.25, 0.75)] == [RED, BLUE]
    for _ in range(40):
        key(browser, "ArrowRight", 39)
    assert [colour(browser, left + width * share, quarter) for share in (0.25, 0.75)] == [RED, RED]
    return middle, top + height * 0.9


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on the PATH")
def test_in_a_browser(tmp_path):
    """Nothing is wider than the window at two widths; filter, slider, outlines and the enlarged view work, and only
    files of the folder are requested."""
    folder = tmp_path / "the page"
    compared = [comparison(folder, name, RED, BLUE) for name in [*HOSTILE, *(f"more {i}" for i in range(18))]]
    sections = [Section("One", "", comparisons=compared[:10]), Section("Two", "", comparisons=compared[10:])]
    gallery.write_page(folder / "index.html", "t", sections)
    with Browser(tmp_path / "profile") as browser:
        for width in (1280, 390):
            browser.open(folder / "index.html", width, prefers_color_scheme="dark" if width < 500 else "light")
            assert browser.evaluate("document.documentElement.scrollWidth") == width
            check_filter(browser)
            browser.wait_for("[...document.querySelectorAll('article:not([hidden]) img')].every(i => i.naturalWidth)")
            point = check_slider(browser)
            check_outlines(browser)
            check_large_view(browser, point)
        assert browser.complaints == []
        asked = {Path(unquote(url[len("file://") :])) for url in browser.requests if re.match("file:///", url)}
        assert len(asked) > 3 and all(path == folder / "index.html" or path.parents[1] == folder for path in asked)
        assert all(url.startswith(("file:///", "about:blank")) for url in browser.requests)


def check_filter(browser):
    def count():
        return browser.evaluate("document.getElementById('count').value")

    def names():
        return browser.evaluate("[...document.querySelectorAll('article:not([hidden])')].map(a => a.dataset.name)")

    assert count() == "30 of 30"
    browser.evaluate("document.getElementById('filter').focus()")
    browser.call("Input.insertText", text="SCRIPT")
    assert count() == "2 of 30" and names() == [HOSTILE[1], HOSTILE[6]]
    browser.evaluate("document.getElementById('filter').select()")
    browser.call("Input.insertText", text="more 7")
    assert count() == "1 of 30" and names() == ["more 7"]


def check_outlines(browser):
    left, top, width, height = box(browser, "article:not([hidden]) figure:first-child .picture")
    edge = left + width * 6 / SIZE, top + height / 2
    assert min(colour(browser, *edge)) > 120, "white, if a little of what is beside it"
    browser.evaluate("document.getElementById('outlines').click()")
    assert colour(browser, *edge) == RED
    browser.evaluate("document.getElementById('outlines').click()")


def check_large_view(browser, point):
    before = box(browser, "article:not([hidden]) .picture")
    mouse(browser, "Pressed", *point)
    mouse(browser, "Released", *point)
    assert browser.evaluate("document.querySelector('dialog').open")
    assert box(browser, "dialog .picture")[2] > 1.3 * before[2]
    assert browser.evaluate("document.documentElement.scrollWidth === innerWidth")
    key(browser, "Escape", 27)
    browser.wait_for("!document.querySelector('dialog').open")
