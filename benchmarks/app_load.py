# SPDX-License-Identifier: Apache-2.0
"""Let many users translate at once with app.py, for a minute, and check that each gets the right result.

    python benchmarks/app_load.py --model runs/shapes
    python benchmarks/app_load.py --model runs/shapes --users 30 --seconds 30

Each user has a picture of shapes of its own. Before the minute begins, each picture is translated alone; every later
result must have the same bytes. A user sends the picture with its masks, asks for the job's state until it has ended,
fetches the result, and begins again. Meanwhile one more visitor loads the page's files. app.py runs on this machine,
so users and network share its cores.
"""

from __future__ import annotations

import http.client
import io
import json
import re
import subprocess
import sys
import threading
import time
import uuid
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Callable, Dict, List, Tuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from common.errors import UserError, begin_script, run_main

begin_script(__name__)

import numpy as np
from PIL import Image

from common.command_line import Parser, real, whole
from data.pictures import mask_png
from datasets.generate_shapes_dataset import COLOURS, draw

PAGE = ("/", "/static/page.css", "/static/page.js", "/static/editor.js", "/api/about")
ASK_EVERY = 0.15  # seconds between two questions about a job, as the page asks
PATIENCE = 120  # seconds for an answer, and for a job
File = Tuple[str, bytes]  # the field's name and the content


@dataclass
class Counted:
    """Times and counts of all users; each appends from its own thread."""

    answer_seconds: List[float] = field(default_factory=list)  # of each request but the page's
    page_seconds: List[float] = field(default_factory=list)
    job_seconds: List[float] = field(default_factory=list)  # from sending to the result
    waiting: List[int] = field(default_factory=list)  # jobs before an accepted one
    refused: int = 0  # because the queue was full
    accepted: int = 0
    wrong: List[str] = field(default_factory=list)


class Client:
    """A connection to the server."""

    def __init__(self, port: int, counted: Counted) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        self._counted = counted

    def ask(self, method: str, path: str, body: bytes = b"", kind: str = "") -> Tuple[int, bytes, Dict[str, str]]:
        """The status, the body and the headers of an answer."""
        start = time.perf_counter()
        self._connection.request(method, path, body or None, {"Content-Type": kind} if kind else {})
        answer = self._connection.getresponse()
        content = answer.read()
        seconds = time.perf_counter() - start
        (self._counted.page_seconds if path in PAGE else self._counted.answer_seconds).append(seconds)
        return answer.status, content, dict(answer.getheaders())

    def translate(self, files: List[File]) -> bytes | None:
        """The translated picture as a PNG file; None if the queue was full."""
        start = time.perf_counter()
        status, content, headers = self.ask("POST", "/api/translate", *multipart(files))
        if status == 503:
            self._counted.refused += 1
            # a user of flesh and blood may be impatient
            time.sleep(min(2.0, float(headers["Retry-After"])))
            return None
        if status != 202:
            raise UserError(f"app.py refuses: {content[:200]!r}")
        job = json.loads(content)
        self._counted.accepted += 1
        self._counted.waiting.append(job["position"] or 0)
        while job["state"] in ("queued", "running"):
            if time.perf_counter() - start > PATIENCE:
                raise UserError(f"a job has not ended in {PATIENCE} s: {job}")
            time.sleep(ASK_EVERY)
            job = json.loads(self.ask("GET", f"/api/jobs/{job['id']}")[1])
        if job["state"] != "done":
            raise UserError(f"a job did not succeed: {job}")
        picture = self.ask("GET", job["result"]["picture"])[1]
        self._counted.job_seconds.append(time.perf_counter() - start)
        return picture


def main() -> int:
    """Print the figures; the exit code is 1 if a result is wrong or missing."""
    parser = Parser(__doc__)
    parser.add_argument("--model", required=True, help="a run folder or .h5 file of shapes")
    parser.add_argument("--users", type=whole(1, 500), default=20, help="users at once")
    parser.add_argument("--seconds", type=real(zero=False), default=60.0, help="how long they go on")
    parser.add_argument("--size", type=whole(32, 4096), default=256, help="height and width of their pictures")
    args = parser.parse_args()
    command = [sys.executable, str(ROOT / "app.py"), "--model", args.model, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            port = port_of(server)
            pictures = [shapes_picture(number, args.size) for number in range(args.users)]
            return measure(server.pid, port, pictures, args.seconds)
        finally:
            server.terminate()


def port_of(server: subprocess.Popen) -> int:
    """The port that the server prints once it listens."""
    for line in server.stdout:
        match = re.match(r"open http://.*:(\d+) ", line)
        if match:
            return int(match[1])
    raise UserError("app.py does not start; its message is above")


def shapes_picture(number: int, size: int) -> List[File]:
    """A picture of 1 to 4 circles with its masks, as fields of a form."""
    random = np.random.default_rng(number)
    picture, masks, _ = draw(random, "circle", COLOURS["A"], 1 + number % 4, size, size)
    png = io.BytesIO()
    Image.fromarray(picture).save(png, "PNG")
    return [("image", png.getvalue()), *(("masks", mask_png(mask > 0)) for mask in masks)]


def multipart(files: List[File]) -> Tuple[bytes, str]:
    """The body of a form with these files, and its content type."""
    boundary = uuid.uuid4().hex
    body = b"".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{name}.png"\r\n\r\n'.encode()
        + content
        + b"\r\n"
        for name, content in files
    )
    return body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def measure(process: int, port: int, pictures: List[List[File]], seconds: float) -> int:
    """Let each picture's user go on for so long, and print the figures; returns the exit code."""
    alone = Counted()
    client = Client(port, alone)
    expected = [client.translate(files) for files in pictures]
    before = memory(process)
    counted = Counted()
    start = time.perf_counter()
    end = start + seconds

    def use(number: int) -> None:
        client = Client(port, counted)
        while time.perf_counter() < end:
            result = client.translate(pictures[number])
            if result is not None and result != expected[number]:
                counted.wrong.append(f"user {number} got another result than alone")

    def visit() -> None:
        client = Client(port, counted)
        while time.perf_counter() < end:
            for path in PAGE:
                client.ask("GET", path)
            time.sleep(0.2)

    people = {f"user {number}": partial(use, number) for number in range(len(pictures))}
    people["visitor"] = visit
    threads = [threading.Thread(target=run_noted, args=(*person, counted.wrong)) for person in people.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds / 2 / len(threads))
    half_way = memory(process)
    for thread in threads:
        thread.join()
    # each user's last translation ends after `seconds`
    taken = time.perf_counter() - start
    after = memory(process)
    report(counted, alone, taken, len(pictures))
    print(f"| memory of app.py before, half way, after | {before:.0f}, {half_way:.0f}, {after:.0f} MB |")
    lost = counted.accepted - len(counted.job_seconds)
    print(f"| accepted jobs without a result, wrong results | {lost}, {len(counted.wrong)} |")
    for problem in counted.wrong[:5]:
        print(problem, file=sys.stderr)
    return 1 if lost or counted.wrong else 0


def run_noted(who: str, act: Callable[[], None], wrong: List[str]) -> None:
    """Run `act`; note in `wrong` whose results are missing if it fails, whatever the reason."""
    try:
        act()
    except Exception as error:
        wrong.append(f"{who}: {type(error).__name__}: {error}")


def report(counted: Counted, alone: Counted, seconds: float, users: int) -> None:
    """Print the times as rows of a table; `seconds` passed until the last user had ended."""
    print(f"\n| {users} users for {seconds:.0f} s | |\n|---|---|")
    rate = len(counted.job_seconds) / seconds
    print(f"| translations | {len(counted.job_seconds)}, {rate:.1f} per second |")
    print(f"| refused because the queue was full | {counted.refused} |")
    print(f"| jobs before an accepted one: median, most | {np.median(counted.waiting):.0f}, {max(counted.waiting)} |")
    for name, times in (
        ("a translation alone", alone.job_seconds),
        ("a translation, from sending to the result", counted.job_seconds),
        ("an answer of the API", counted.answer_seconds),
        ("a file of the page", counted.page_seconds),
    ):
        middle, slow = np.quantile(times, (0.5, 0.95))
        print(f"| {name}: median, 95 %, slowest | {middle:.3f}, {slow:.3f}, {max(times):.3f} s |")


def memory(process: int) -> float:
    """The resident memory of a process, in MB."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024


if __name__ == "__main__":
    run_main(main)
