# SPDX-License-Identifier: Apache-2.0
"""The page in a headless Chromium, used with mouse, finger and keyboard, against a running app.py."""

from __future__ import annotations

import base64
import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("flask", reason="needs Flask: pip install -r requirements-app.txt")

import translate as translate_script
from data.instances import iou
from masks.box_object import find_object
from models import Architecture
from serving.instances import MOST_INSTANCES
from tests.helpers.app import draw_marked_photo, save_random_segmenter, start_app
from tests.helpers.browser import CHROMIUM, Browser
from tests.helpers.random_generator import save_random_model
from translation.drawing import instance_colour

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")

HEIGHT, WIDTH = 120, 180
BOXES = [(12, 15, 62, 60), (90, 20, 160, 90)]
ROWS = "document.querySelectorAll('#instances li').length"


@pytest.fixture()
def photo(tmp_path):
    picture, _ = draw_marked_photo(tmp_path, (HEIGHT, WIDTH), BOXES, margin=5)
    return picture


@pytest.fixture()
def model(tmp_path):
    return save_random_model(tmp_path / "circle2square.h5", Architecture(ngf=4, ndf=2, n_blocks=1), "keep")


@pytest.fixture()
def address(start_script, model):
    return start_app(start_script, "--model", model)


@pytest.fixture()
def browser(tmp_path):
    with Browser(tmp_path / "profile") as browser:
        yield browser


def show(browser, address, width=1280, **media):
    browser.open(address, width, 900, **media)
    browser.wait_for("document.querySelector('#direction-list label') !== null")


def choose(browser, photo):
    browser.choose_files("#photo-file", photo)
    browser.wait_for("!document.querySelector('#work').hidden && document.querySelector('#canvas').clientWidth > 9")


def place_of(browser, selector):
    """Left, top, width and height of an element in the window."""
    place = f"document.querySelector({selector!r}).getBoundingClientRect()"
    return browser.evaluate(f"(r => [r.x, r.y, r.width, r.height])({place})")


def on_canvas(browser, *points):
    """Points of the photo as points of the window."""
    browser.evaluate("document.querySelector('#canvas').scrollIntoView({block: 'center', behavior: 'instant'})")
    x, y, width, _ = place_of(browser, "#canvas")
    return [(x + px * width / WIDTH, y + py * width / WIDTH) for px, py in points]


def mark(browser, *boxes):
    """Drag a box around each instance, and wait until it is found."""
    for x0, y0, x1, y1 in boxes:
        before = browser.evaluate(ROWS)
        browser.drag(on_canvas(browser, (x0, y0), ((x0 + x1) / 2, y1 - 3), (x1, y1)))
        browser.wait_for(f"{ROWS} === {before + 1}")


def use_tool(browser, name):
    browser.evaluate(f"document.querySelector('[name=tool][value={name}]').click()")


def notice(browser):
    text = "document.querySelector('#notice-text').textContent"
    return browser.evaluate(f"document.querySelector('#notice').hidden ? '' : {text}")


def translate(browser):
    """Click Translate, and wait for the result."""
    browser.evaluate("document.querySelector('#after').removeAttribute('src')")
    browser.click("#translate")
    browser.wait_for("document.querySelector('#after').complete && document.querySelector('#after').naturalWidth > 0")
    browser.wait_for("!document.querySelector('#result-view').hidden")


def translate_first(browser, address, photo, box):
    """Open the page, choose a photo, mark one instance, and translate it."""
    show(browser, address)
    choose(browser, photo)
    mark(browser, box)
    translate(browser)


def downloaded(browser, selector):
    """The file behind a link."""
    script = (
        f"fetch(document.querySelector({selector!r}).href).then(a => a.arrayBuffer())"
        ".then(b => btoa(Array.from(new Uint8Array(b), c => String.fromCharCode(c)).join('')))"
    )
    return base64.b64decode(browser.evaluate(script))


def by_translate_py(run_main, model, photo, boxes, folder):
    """The picture, and the second instance's mask, that translate.py makes: their files by folder."""
    words = [word for box in boxes for word in ("--box", ",".join(map(str, box)))]
    arguments = ("--model", model, "--image", photo, *words, "--keep-size", "--output", folder)
    code, _, errors = run_main(translate_script, *arguments)
    assert code == 0, errors
    return {"images": folder / "images" / f"{photo.stem}.png", "masks": folder / "masks" / f"{photo.stem}_1.png"}


def assert_calm(browser, address):
    """Nothing is red in the console, and nothing was asked of another server."""
    assert browser.complaints == []
    assert all(url.startswith((address, "blob:", "about:")) for url in browser.requests), browser.requests


def test_boxes_are_translated_as_translate_py_does(browser, address, model, photo, run_main, tmp_path):
    show(browser, address)
    choose(browser, photo)
    mark(browser, *BOXES)
    colours = browser.evaluate(
        "[...document.querySelectorAll('.swatch')].map(s => getComputedStyle(s).getPropertyValue('--colour'))"
    )
    assert colours == [f"#{bytes(instance_colour(i)).hex()}" for i in range(2)]
    translate(browser)
    assert "photo, A → B: 2 instances in " in browser.evaluate("document.querySelector('#result-text').textContent")
    # the mouse is exact to a pixel of the screen, which is less than one of this photo
    expected = by_translate_py(run_main, model, photo, BOXES, tmp_path / "expected")
    assert downloaded(browser, "#download-picture") == expected["images"].read_bytes()
    with zipfile.ZipFile(io.BytesIO(downloaded(browser, "#download-all"))) as zipped:
        assert zipped.read("masks/picture_1.png") == expected["masks"].read_bytes()
    assert browser.evaluate("document.querySelectorAll('#download-masks a').length") == 2
    assert browser.evaluate("document.querySelector('#download-picture').download") == "photo_AtoB.png"
    assert_calm(browser, address)


def test_the_slider_shows_before_and_after(browser, address, photo):
    translate_first(browser, address, photo, BOXES[1])
    browser.wait_for("document.querySelector('#before').complete && document.querySelector('#before').naturalWidth > 0")
    after = np.asarray(Image.open(io.BytesIO(downloaded(browser, "#download-picture"))).convert("RGB"))
    before = np.asarray(Image.open(photo))
    x0, y0, x1, y1 = BOXES[1]
    inside = slice(y0, y1), slice(x0, x1)

    def shown():
        browser.evaluate("document.querySelector('#compare').scrollIntoView({block: 'start', behavior: 'instant'})")
        image = Image.open(io.BytesIO(browser.screenshot(*place_of(browser, "#compare")))).convert("RGB")
        return np.asarray(image.resize((WIDTH, HEIGHT), Image.BOX), float)

    browser.evaluate("for (const one of document.querySelectorAll('#divider, .corner')) one.style.opacity = 0")
    for value, truth in ((100, before), (0, after)):
        browser.evaluate(
            f"s = document.querySelector('#slide'); s.value = {value}; s.dispatchEvent(new Event('input'))"
        )
        difference = np.abs(shown() - truth)[inside].mean()
        other = np.abs(np.subtract(before, after, dtype=float))[inside].mean()
        assert difference < other / 2, (value, difference, other)
    # by mouse, and by keyboard
    x, y, width, height = place_of(browser, "#compare")
    browser.drag([(x + 0.9 * width, y + height / 2), (x + 0.2 * width, y + height / 2)])
    assert abs(float(browser.evaluate("document.querySelector('#slide').value")) - 20) <= 1
    browser.evaluate("document.querySelector('#slide').focus()")
    browser.press("ArrowRight")
    assert abs(float(browser.evaluate("document.querySelector('#slide').value")) - 21) <= 1
    before_outlines = shown()
    browser.click("#outlines")
    assert np.abs(shown() - before_outlines).max() > 60


def found_outline(browser, number=0):
    """The mask of an instance, by the new-instance masks that a translation of it alone was asked for."""
    script = (
        "new Promise(done => { const old = window.fetch; window.fetch = async (path, options) => {"
        " if (path !== '/api/translate') return old(path, options); window.fetch = old;"
        " const files = await Promise.all(options.body.getAll('masks').map(f => f.arrayBuffer()));"
        " done(JSON.stringify([options.body.get('select'), files.map(b => btoa(Array.from(new Uint8Array(b),"
        " c => String.fromCharCode(c)).join('')))]));"
        ' return new Response(\'{"error": "caught by a test"}\', { status: 503 }); };'
        " document.querySelector('#translate').click(); })"
    )
    select, files = json.loads(browser.evaluate(script))
    images = [Image.open(io.BytesIO(base64.b64decode(file))).convert("L") for file in files]
    browser.wait_for("!document.querySelector('#translate').hidden")
    return json.loads(select), [np.asarray(image) > 127 for image in images]


def test_brush_eraser_polygon_and_undo_change_the_masks(browser, address, photo):
    show(browser, address)
    choose(browser, photo)
    mark(browser, BOXES[0])
    _, (boxed,) = found_outline(browser)
    np.testing.assert_array_equal(boxed, find_object(np.asarray(Image.open(photo)), BOXES[0]))
    use_tool(browser, "brush")
    browser.evaluate("s = document.querySelector('#size'); s.value = 40; s.dispatchEvent(new Event('input'))")
    radius = (0.4**2 / 4 + 0.002) * WIDTH
    browser.drag(on_canvas(browser, (60, 100), (100, 100), (120, 100)))
    _, (painted,) = found_outline(browser)
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    stroke = np.hypot(x - np.clip(x, 60, 120), y - 100) <= radius
    assert iou(painted & ~boxed, stroke & ~boxed) > 0.95 and (painted & boxed).sum() == boxed.sum()
    use_tool(browser, "eraser")
    browser.drag(on_canvas(browser, (90, 100), (140, 100)))
    _, (erased,) = found_outline(browser)
    assert not erased[95:105, 90:130].any() and erased[98:102, 62:75].all()
    use_tool(browser, "polygon")
    for point in [(100, 30), (150, 30), (150, 80), (100, 80), (100, 30)]:
        browser.drag(on_canvas(browser, point))
    _, masks = found_outline(browser)
    square = np.zeros((HEIGHT, WIDTH), bool)
    square[30:80, 100:150] = True
    assert len(masks) == 2 and iou(masks[1], square) > 0.95
    browser.press("z", "z", modifiers=2)
    _, (undone,) = found_outline(browser)
    np.testing.assert_array_equal(undone, painted)
    browser.press("z", modifiers=2 + 8)
    _, (redone,) = found_outline(browser)
    np.testing.assert_array_equal(redone, erased)
    # a drag of nothing with the box tool chooses what is clicked, or explains itself
    use_tool(browser, "box")
    browser.drag(on_canvas(browser, (170, 110)))
    assert "That was a click" in browser.evaluate("document.querySelector('#hint').textContent")


def test_instances_are_switched_off_and_deleted(browser, address, photo):
    show(browser, address)
    choose(browser, photo)
    mark(browser, *BOXES)
    browser.click("#instances li:first-child input")
    select, masks = found_outline(browser)
    assert select == [1] and len(masks) == 2
    browser.click("#instances li:first-child .delete")
    assert browser.evaluate(ROWS) == 1
    browser.click("#undo")
    assert browser.evaluate(ROWS) == 2
    browser.click("#undo")
    assert found_outline(browser)[0] == [0, 1]


def test_mask_files_and_the_segmenter_give_instances(browser, start_script, model, photo, tmp_path):
    segmenter = save_random_segmenter(tmp_path / "segmenter.h5")
    address = start_app(start_script, "--model", model, "--segmenter", segmenter)
    show(browser, address)
    choose(browser, photo)
    files = [tmp_path / "photo_0.png", tmp_path / "photo_1.png"]
    browser.choose_files("#mask-file", *files)
    browser.wait_for(f"{ROWS} === 2")
    _, masks = found_outline(browser)
    np.testing.assert_array_equal(masks, [np.asarray(Image.open(path)) > 127 for path in files])
    browser.click("#segment")
    browser.wait_for(f"{ROWS} > 2")
    assert browser.evaluate(ROWS) <= 2 + MOST_INSTANCES


def test_all_of_it_by_keyboard(browser, address, photo):
    show(browser, address)
    choose(browser, photo)
    browser.wait_for("document.activeElement.id === 'canvas'")
    # from the middle to the upper left corner of the second instance, in steps of a fortieth of the width
    browser.press(*["ArrowUp"] * 9, "Enter")
    browser.press(*["ArrowRight"] * 16, *["ArrowDown"] * 16, "Enter")
    browser.wait_for(f"{ROWS} === 1")
    assert found_outline(browser)[1][0][40:80, 110:150].mean() > 0.9
    browser.evaluate("document.querySelector('#canvas').focus()")
    browser.press("Delete")
    assert browser.evaluate(ROWS) == 0
    for _ in range(60):
        browser.press("Tab")
        if browser.evaluate("document.activeElement.id") == "translate":
            break
    browser.press("Enter")
    browser.wait_for("!document.querySelector('#notice').hidden")
    assert notice(browser) == "Mark an instance first: drag a box around it."


def test_everything_has_a_name_for_screen_readers(browser, address, photo):
    translate_first(browser, address, photo, BOXES[0])
    browser.evaluate("document.querySelector('#mark-view').hidden = false")
    browser.call("Accessibility.enable")
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    controls = {"button", "radio", "checkbox", "slider", "link", "combobox", "tab", "application", "progressbar"}
    found = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]]
    named = [(role, name) for role, name in found if role in controls]
    assert len(named) > 15 and all(name for _, name in named), named
    assert ("checkbox", "Translate instance 1") in named and ("button", "Delete instance 1") in named
    assert browser.evaluate("document.querySelector('#status').textContent").startswith("photo, A → B: 1 instance in ")


def test_a_wrong_file_is_told(browser, address, photo, tmp_path):
    show(browser, address)
    (tmp_path / "notes.png").write_text("no picture")
    browser.choose_files("#photo-file", tmp_path / "notes.png")
    browser.wait_for("!document.querySelector('#notice').hidden")
    assert notice(browser).startswith('"notes" cannot be read as a picture')
    assert browser.evaluate("!document.querySelector('#start').hidden && document.querySelector('#work').hidden")
    choose(browser, photo)
    assert notice(browser) == ""
    Image.new("L", (50, 50), 255).save(tmp_path / "square.png")
    browser.choose_files("#mask-file", tmp_path / "square.png")
    browser.wait_for("!document.querySelector('#notice').hidden")
    assert notice(browser).startswith("Mask 0 is 50x50, its picture 180x120")


def test_two_tabs_at_once_each_get_their_own(browser, address, model, photo, run_main, tmp_path):
    second_photo = tmp_path / "second.png"
    Image.open(photo).transpose(Image.FLIP_LEFT_RIGHT).save(second_photo)
    flipped = [(WIDTH - x1, y0, WIDTH - x0, y1) for x0, y0, x1, y1 in BOXES]
    with Browser(tmp_path / "profile2") as second:
        tabs = [(browser, photo, BOXES), (second, second_photo, flipped)]
        for tab, picture, boxes in tabs:
            show(tab, address)
            choose(tab, picture)
            mark(tab, *boxes)
        for tab, _, _ in tabs:
            tab.evaluate("document.querySelector('#translate').click()")
        for tab, picture, boxes in tabs:
            tab.wait_for("!document.querySelector('#result-view').hidden")
            expected = by_translate_py(run_main, model, picture, boxes, tmp_path / picture.stem)
            assert downloaded(tab, "#download-picture") == expected["images"].read_bytes()
            assert tab.complaints == []


def test_results_stay_in_the_history(browser, address, photo):
    translate_first(browser, address, photo, BOXES[0])
    first = browser.evaluate("document.querySelector('#download-picture').href")
    browser.click("[name=direction][value=BtoA]")
    translate(browser)
    browser.wait_for("document.querySelectorAll('#history-list li').length === 2")
    assert browser.evaluate("document.querySelector('#download-picture').href") != first
    browser.click("#history-list li:last-child button")
    assert browser.evaluate("document.querySelector('#download-picture').href") == first
    assert browser.evaluate("document.querySelector('[aria-current=true] img').src.startsWith('blob:')")


def test_a_phone_with_a_finger(browser, address, photo):
    browser.call("Emulation.setTouchEmulationEnabled", enabled=True)
    show(browser, address, 390, prefers_color_scheme="dark")
    choose(browser, photo)
    x0, y0, x1, y1 = BOXES[1]
    browser.touch(on_canvas(browser, (x0, y0), (120, 50), (x1, y1)))
    browser.wait_for(f"{ROWS} === 1")
    assert browser.evaluate("document.documentElement.scrollWidth") == 390
    translate(browser)
    assert browser.evaluate("document.documentElement.scrollWidth") == 390
    small = browser.evaluate(
        "[...document.querySelectorAll('button, .button, select')].filter(b => b.offsetWidth)"
        ".filter(b => b.offsetHeight < 32).map(b => b.id || b.textContent)"
    )
    assert small == []
    assert_calm(browser, address)


def test_samples_come_with_their_instances(browser, address):
    show(browser, address)
    browser.wait_for("document.querySelectorAll('#sample-list li').length === 6")
    browser.click("#sample-list li:last-child button")
    browser.wait_for(f"{ROWS} > 0")
    assert browser.evaluate("document.querySelector('[name=direction]:checked').value") == "BtoA"
    translate(browser)
    assert_calm(browser, address)


def test_a_running_translation_is_cancelled(browser, address, photo):
    show(browser, address)
    choose(browser, photo)
    mark(browser, BOXES[0])
    # the answer says that others are before it, for ever
    browser.evaluate(
        "old = window.fetch; window.fetch = async (path, options) => { const answer = await old(path, options);"
        " if (!/^.api.jobs/.test(path) || options?.method) return answer; const job = await answer.json();"
        " return new Response(JSON.stringify(job.state === 'done' ? {...job, state: 'queued', position: 3} : job)); }"
    )
    browser.click("#translate")
    browser.wait_for("document.querySelector('#progress-text').textContent === 'Waiting: 3 before this one'")
    browser.evaluate("window.fetch = old")
    browser.click("#cancel")
    browser.wait_for("!document.querySelector('#translate').hidden")


def test_the_page_says_when_the_server_is_gone(browser, start_script, model, photo):
    script = start_script("app.py", "--port", 0, "--model", model)
    script.wait_for(lambda: "Ctrl-C" in script.output)
    show(browser, script.output.split("open ")[1].split()[0])
    script.kill()
    browser.choose_files("#photo-file", photo)
    browser.wait_for("!document.querySelector('#notice').hidden")
    assert notice(browser).startswith("The server does not answer. Does app.py still run?")
