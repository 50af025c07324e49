# SPDX-License-Identifier: Apache-2.0
"""A headless Chromium without a library: it takes commands of the DevTools protocol, JSON ended by NUL, from a pipe."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars --remote-debugging-pipe"
)

# of keys that are not letters
KEY_CODES = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "Delete": 46}
KEY_CODES.update(ArrowLeft=37, ArrowUp=38, ArrowRight=39, ArrowDown=40)


class Browser:
    """One page of a browser that is killed when the `with` block ends; `folder` is for its profile.

    `requests` are the URLs that were asked for, `complaints` what the console would show in red or yellow.
    """

    def __init__(self, folder: Path) -> None:
        self.requests: List[str] = []
        self.complaints: List[str] = []
        self._number, self._rest = 0, b""
        read, self._write = os.pipe()
        self._read, write = os.pipe()
        # the browser reads from 3 and writes to 4; a shell puts them there, whatever they are called here
        script = f'exec "$@" 3<&{read} 4>&{write}'
        words = ["bash", "-c", script, "bash", CHROMIUM, *FLAGS.split(), f"--user-data-dir={folder}", "about:blank"]
        self._process = subprocess.Popen(
            words, pass_fds=(read, write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        os.close(read)
        os.close(write)

    def __enter__(self) -> Browser:
        end, pages = time.monotonic() + 120, []
        while not pages:
            # on a busy machine the page comes later than the answers
            assert time.monotonic() < end, "the browser shows no page"
            targets = self._send("Target.getTargets", {})["targetInfos"]
            pages = [target["targetId"] for target in targets if target["type"] == "page"]
        self._session = self._send("Target.attachToTarget", {"targetId": pages[0], "flatten": True})["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *_: Any) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._read)
        os.close(self._write)

    def call(self, method: str, **parameters: Any) -> Dict[str, Any]:
        """Send a command of the protocol to the page; return its result."""
        return self._send(method, parameters, sessionId=self._session)

    def open(self, page: Path | str, width: int, height: int = 1600, **media: str) -> None:
        """Load a file or an address at this size of the window, with media features such as
        `prefers_color_scheme="dark"`."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        features = [{"name": name.replace("_", "-"), "value": value} for name, value in media.items()]
        self.call("Emulation.setEmulatedMedia", features=features)
        address = page.as_uri() if isinstance(page, Path) else page
        self.call("Page.navigate", url=address)
        self.wait_for("document.readyState === 'complete' && location.protocol !== 'about:'")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait_for(self, condition: str, seconds: float = 120) -> None:
        """Wait until a JavaScript expression is true."""
        end = time.monotonic() + seconds
        while not self.evaluate(condition):
            assert time.monotonic() < end, f"not within {seconds} s: {condition}"
            time.sleep(0.02)

    def choose_files(self, selector: str, *paths: Path) -> None:
        """Choose files in an `input`, as its dialog does."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path) for path in paths])

    def click(self, selector: str) -> None:
        """Click the middle of an element, which is scrolled to."""
        place = f"document.querySelector({selector!r})"
        self.evaluate(f"{place}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
        x, y, width, height = self.evaluate(f"(r => [r.x, r.y, r.width, r.height])({place}.getBoundingClientRect())")
        self.drag([(x + width / 2, y + height / 2)])

    def drag(self, points: Sequence[Tuple[float, float]]) -> None:
        """Press the mouse at the first point of the window, move it over the others, and release it at the last."""
        held = {"button": "left", "clickCount": 1}
        for kind, place, buttons in [
            ("mouseMoved", points[0], 0),
            ("mousePressed", points[0], 1),
            *(("mouseMoved", point, 1) for point in points[1:]),
            ("mouseReleased", points[-1], 0),
        ]:
            self.call("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], buttons=buttons, **held)

    def touch(self, points: Sequence[Tuple[float, float]]) -> None:
        """Move a finger over these points of the window."""
        for kind, point in [("touchStart", points[0]), *(("touchMove", point) for point in points[1:])]:
            self.call("Input.dispatchTouchEvent", type=kind, touchPoints=[{"x": point[0], "y": point[1]}])
        self.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def press(self, *keys: str, modifiers: int = 0) -> None:
        """Press keys, by their names in JavaScript; `modifiers` are the protocol's: 2 is Ctrl, 8 is Shift."""
        for key in keys:
            letter = {"Enter": "\r", " ": " "}.get(key, key if len(key) == 1 and not modifiers & 2 else "")
            code = KEY_CODES.get(key, ord(key[0].upper()))
            values = {"key": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
            self.call("Input.dispatchKeyEvent", type="keyDown", text=letter, **values)
            self.call("Input.dispatchKeyEvent", type="keyUp", **values)

    def screenshot(self, x: int, y: int, width: int, height: int) -> bytes:
        """A screenshot of a part of the window, as a PNG."""
        left, top = self.evaluate("[scrollX, scrollY]")
        clip = {"x": left + x, "y": top + y, "width": width, "height": height, "scale": 1}
        return base64.b64decode(self.call("Page.captureScreenshot", clip=clip)["data"])

    def _send(self, method: str, parameters: Dict[str, Any], **more: str) -> Dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters, **more}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "result" in answer, answer
                return answer["result"]
            self._note(answer)

    def _receive(self) -> Dict[str, Any]:
        while b"\0" not in self._rest:
            assert select.select([self._read], [], [], 20)[0], "the browser does not answer"
            self._rest += os.read(self._read, 1 << 20)
        answer, _, self._rest = self._rest.partition(b"\0")
        return json.loads(answer)

    def _note(self, event: Dict[str, Any]) -> None:
        method, values = event.get("method"), event.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(values["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(values["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and values["type"] in ("error", "warning", "assert"):
            self.complaints.append(str(values["args"]))
        elif method == "Log.entryAdded" and values["entry"]["level"] in ("error", "warning"):
            self.complaints.append(str(values["entry"]))
