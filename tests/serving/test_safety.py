# SPDX-License-Identifier: Apache-2.0
"""What the server refuses and how it ends: other sites, odd requests, taken ports, Ctrl-C."""

from __future__ import annotations

import builtins
import http.client
import importlib.util
import io
import json
import random
import re
import shutil
import signal
import socket
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

pytest.importorskip("flask", reason="needs Flask: pip install -r requirements-app.txt")

import app
from benchmarks.app_load import multipart
from models import Architecture
from serving import safety
from serving.openapi import document
from tests.helpers import ROOT
from tests.helpers.app import ADDRESS, as_form, draw_photo, ended, make_client, start_app, translate
from tests.helpers.random_generator import save_random_model

ARCH = Architecture(ngf=2, ndf=2, n_blocks=0)


@pytest.fixture()
def model(tmp_path):
    return save_random_model(tmp_path / "model.h5", ARCH, "keep")


@pytest.fixture()
def photo(tmp_path):
    mask = np.zeros((24, 32), bool)
    mask[4:14, 6:20] = True
    Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "mask.png")
    return draw_photo(tmp_path / "photo.png", [mask]), tmp_path / "mask.png"


# --- other sites ------------------------------------------------------------------------------------------------------


def test_only_own_names_are_answered(client):
    for host in ("127.0.0.1:8000", "localhost:8000", "LOCALHOST", "[::1]:8000", "localhost:9000"):
        assert client.get("/", headers={"Host": host}).status_code == 200, host
    for host in ("evil.example:8000", "127.0.0.1.evil.example", "192.168.0.7:8000", "[", "", "localhost@evil"):
        answer = client.get("/api/about", headers={"Host": host})
        assert answer.status_code == 421 and "open it by the address" in answer.get_json()["error"], host


@pytest.mark.parametrize(
    "host, expected",
    [("127.0.0.1", True), ("127.0.0.2", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("me", False)],
)
def test_hosts_that_only_this_machine_reaches(host, expected):
    assert safety.is_loopback(host) is expected


def test_a_loopback_address_is_reached_by_no_other(tmp_path, model):
    client = make_client(tmp_path / "files", "--model", model, host="127.0.0.2")
    for name, status in (("127.0.0.2:8000", 200), ("localhost", 200), ("192.168.0.7:8000", 421)):
        assert client.get("/", headers={"Host": name}).status_code == status, name


def test_a_public_host_is_reached_by_address_and_own_name(tmp_path, model):
    client = make_client(tmp_path / "files", "--model", model, host="0.0.0.0")
    for host in ("192.168.0.7:8000", "[fe80::1]:8000", socket.gethostname(), "localhost"):
        assert client.get("/", headers={"Host": host}).status_code == 200, host
    assert client.get("/", headers={"Host": "evil.example:8000"}).status_code == 421


@pytest.mark.parametrize(
    "method, path", [("post", "/api/translate"), ("post", "/api/pictures"), ("delete", "/api/jobs/x")]
)
def test_other_sites_change_nothing(client, method, path):
    def send(path, headers):
        return getattr(client, method)(path, headers={"Host": "127.0.0.1:8000", **headers})

    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:8001"},
        {"Origin": "http://localhost:8000"},
        {"Origin": "http://["},
        {"Origin": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        answer = send(path, headers=headers)
        assert answer.status_code == 403 and "another site's page" in answer.get_json()["error"], headers
    for headers in ({"Origin": ADDRESS}, {"Sec-Fetch-Site": "same-origin"}, {}):
        assert send(path, headers=headers).status_code in (404, 422), headers


def test_every_answer_has_the_headers(client):
    for path in ("/", "/static/page.js", "/api/about", "/api/nothing", "/nothing"):
        headers = client.get(path).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy, path
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["X-Frame-Options"] == "DENY"
        assert "Access-Control-Allow-Origin" not in headers
    assert client.get("/static/page.js").mimetype == "text/javascript"
    assert client.get("/api/about").headers["Cache-Control"] == "no-store"


def test_the_page_has_no_inline_script_or_style_and_names_no_other_server():
    folder = ROOT / "serving" / "static"
    page = (folder / "page.html").read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|javascript:", page)
    for path in folder.iterdir():
        addresses = set(re.findall(r"https?://[^\s\"')]+", path.read_text()))
        assert addresses <= {"http://www.w3.org/2000/svg"}, path


# --- odd requests -----------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NUMBERS = st.integers(-50, 50) | st.integers(-(10**20), 10**20)
BOXES = st.lists(st.lists(NUMBERS, min_size=3, max_size=5), max_size=3)
TEXTS = (
    st.text(max_size=30)
    | JSON.map(json.dumps)
    | BOXES.map(json.dumps)
    | st.sampled_from(["AtoB", "BtoA", "true", "false", "A", "model", "[" * 9000, "1" * 9000, "1e999", "[[1e3,2,3,4]]"])
)


def odd_files(photo, mask):
    """Files as a form has them, (content, name): pictures, damaged ones, anything else."""
    good = st.sampled_from([photo.read_bytes(), mask.read_bytes()])
    cut = st.tuples(good, st.integers(0, 300)).map(lambda both: both[0][: both[1]])
    changed = st.tuples(good, st.integers(0, 500), st.integers(0, 255)).map(
        lambda all_: all_[0][: all_[1]] + bytes([all_[2]]) + all_[0][all_[1] + 1 :]
    )
    letters = st.characters(blacklist_categories=("Cs",))
    names = st.text(letters, max_size=20) | st.sampled_from(["../../x.png", "/etc/p"])
    return st.tuples(good | cut | changed | st.binary(max_size=60), names)


def fields_of(operation):
    """The fields of an operation's form in the OpenAPI document."""
    return operation["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]


def is_file(schema):
    return schema.get("format") == "binary" or ("items" in schema and is_file(schema["items"]))


def odd_requests(photo, mask):
    """Requests as (path, operation, form or bytes): most fields of the kind that the document says, some not, in forms
    of odd fields only, or in right ones."""
    image, white = ((path.read_bytes(), "x.png") for path in (photo, mask))
    right = {
        "/api/pictures": [{"image": [image]}],
        "/api/pictures/{id}/instances": [{"boxes": ["[[1,1,20,20]]"]}, {"masks": [white, white]}],
        "/api/translate": [
            {"image": [image], "masks": [white], "direction": ["BtoA"]},
            {"picture": ["ID"], "boxes": ["[[1,1,20,20]]"], "select": ["[0]"]},
        ],
    }
    files = odd_files(photo, mask)
    requests = []
    for path, operations in document()["paths"].items():
        if "post" not in operations:
            continue
        fields = {}
        for name, schema in fields_of(operations["post"]).items():
            own, other = (files, TEXTS) if is_file(schema) else (TEXTS, files)
            own = own | st.just("ID") if name == "picture" else own
            fields[name] = st.tuples(own) | st.lists(own, min_size=1, max_size=2) | st.tuples(other)
        form = st.fixed_dictionaries({}, optional={**fields, "else": st.tuples(TEXTS)})
        nearly = st.builds(
            lambda base, odd, name: {**base, **({name: odd[name]} if name in odd else {})},
            st.sampled_from(right[path]),
            form,
            st.sampled_from(sorted([*fields, "else"])),
        )
        body = nearly | nearly | form | st.binary(max_size=99)
        requests.append(st.tuples(st.just(path), st.just(operations["post"]), body))
    assert len(requests) == 3
    return st.one_of(requests)


def test_a_thousand_odd_bodies_get_answers_of_the_document(client, photo, tmp_path, monkeypatch, capfd):
    """Requests made from the document: no 500, no trace, no status that is not described, and no job without an end."""
    monkeypatch.setattr("serving.jobs.MOST_QUEUED", 8)
    id = client.post("/api/pictures", data=as_form({"image": photo[0]})).get_json()["id"]
    statuses, accepted = [], []
    types = ("multipart/form-data", "multipart/form-data; boundary=x", "text/x")

    def in_form(value):
        return (io.BytesIO(value[0]), value[1]) if isinstance(value, tuple) else value.replace("ID", id)

    checks = list(HealthCheck)

    @settings(max_examples=1100, deadline=None, database=None, derandomize=True, suppress_health_check=checks)
    @given(odd_requests(*photo))
    def send(drawn):
        path, operation, body = drawn
        if isinstance(body, bytes):
            body_type = types[len(body) % 3]
        else:
            body = {name: [in_form(value) for value in values] for name, values in body.items()}
            body_type = types[0]
        answer = client.post(path.replace("{id}", id), data=body, content_type=body_type)
        statuses.append(answer.status_code)
        assert answer.status_code not in (500, 507), answer.get_json()
        assert str(answer.status_code) in operation["responses"], (answer.status_code, answer.get_json())
        text = answer.get_data(as_text=True)
        assert "Traceback" not in text and str(tmp_path) not in text
        if answer.status_code >= 400:
            assert list(answer.get_json()) == ["error"] and answer.get_json()["error"]
        if answer.status_code == 202:
            accepted.append(answer.get_json()["id"])

    send()
    assert len(statuses) >= 1000 and {200, 201, 202, 422} <= set(statuses)
    for job_id in accepted:
        answer = client.get(f"/api/jobs/{job_id}")
        if answer.status_code == 200:  # not beyond what is kept
            job = ended(client, job_id)
            assert str(tmp_path) not in json.dumps(job) and "a bug" not in (job["error"] or ""), job
    assert "unexpected" not in capfd.readouterr().err
    # the server is as before
    assert translate(client, image=photo[0], masks=[photo[1]])["state"] == "done"


def test_bytes_that_are_no_requests_do_not_stop_the_server(start_script, model):
    address = urlsplit(start_app(start_script, "--model", model))
    rng = random.Random(0)
    start = b"POST /api/translate HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    bodies = [
        b"\x00" * 100,
        b"GET / HTTP/1.1\r\n\r\n",
        start + b"Content-Length: -5\r\n\r\n",
        start + b"Content-Length: 99999999999\r\n\r\n",
        start + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n",
        start + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab",
        start + b"Content-Length: 10\r\nContent-Type: multipart/form-data; boundary=\r\n\r\n0123456789",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /api/jobs/%ff%00 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        *(bytes(rng.randrange(256) for _ in range(200)) for _ in range(20)),
    ]
    open_ones = []
    for body in bodies:
        connection = socket.create_connection((address.hostname, address.port), timeout=10)
        connection.sendall(body)
        connection.shutdown(socket.SHUT_WR)
        open_ones.append(connection)
    for connection in open_ones:
        connection.settimeout(3)
        answer = b""
        try:
            while chunk := connection.recv(1 << 16):
                answer += chunk
        except (ConnectionError, socket.timeout):
            pass
        assert b"Traceback" not in answer and b" 500 " not in answer[:40]
        connection.close()
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        connection.sendall(b"GET /api/about HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 200")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_large_photos_leave_no_memory_behind(start_script, model, tmp_path):
    """Photos that each of the server's threads has read do not stay in memory."""
    script = start_script("app.py", "--model", model, "--port", 0)
    script.wait_for(lambda: "Ctrl-C" in script.output)
    port = int(re.search(r":(\d+) ", script.output)[1])
    Image.new("RGB", (3000, 2000), (90, 20, 200)).save(tmp_path / "large.jpg")
    photo = (tmp_path / "large.jpg").read_bytes()

    def memory():
        status = Path(f"/proc/{script.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024

    def send(_):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        body, kind = multipart([("image", photo)])
        connection.request("POST", "/api/pictures", body, {"Content-Type": kind})
        return connection.getresponse().status

    before = memory()
    with ThreadPoolExecutor(app.THREADS) as pool:
        assert set(pool.map(send, range(app.THREADS))) == {201}
    # one photo is 18 MB, and 24 MB in Pillow
    assert memory() - before < 60


# --- start and end ----------------------------------------------------------------------------------------------------


def test_files_that_come_while_the_folder_is_removed_go_too(tmp_path, monkeypatch):
    folder = tmp_path / "files"
    folder.mkdir()
    remove_tree = shutil.rmtree
    calls = []

    def remove_tree_while_a_thread_writes(path, ignore_errors):
        remove_tree(path, ignore_errors)
        calls.append(path)
        if len(calls) < 3:
            (folder / "late").mkdir(parents=True)

    monkeypatch.setattr(shutil, "rmtree", remove_tree_while_a_thread_writes)
    monkeypatch.setattr(tempfile, "tempdir", tempfile.tempdir)
    handler = signal.getsignal(signal.SIGTERM)
    app.remove(folder)
    assert len(calls) == 3 and not folder.exists() and signal.getsignal(signal.SIGTERM) is handler


@pytest.mark.parametrize("number, times", [(signal.SIGINT, 1), (signal.SIGINT, 3), (signal.SIGTERM, 1)])
def test_a_signal_ends_it_at_once_and_leaves_nothing(start_script, model, temporary_folder, number, times):
    script = start_script("app.py", "--model", model, "--port", 0)
    script.wait_for(lambda: "Ctrl-C" in script.output)
    assert len(list(temporary_folder.glob("instagan_*"))) == 1
    start = time.monotonic()
    for _ in range(times):
        script.send_signal(number)
    done = script.finish(60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("\nstopped\n")
    assert time.monotonic() - start < 10
    assert list(temporary_folder.glob("instagan_*")) == []


def test_a_port_in_use_is_told_in_one_line(run_main, model):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, output, errors = run_main(app, "--model", model, "--port", port)
    assert code == 2 and output == ""
    fix = f"give another, such as --port {port % 65535 + 1}, or end the program that uses it"
    assert errors == f"app.py: error: port {port} is in use; {fix}\n"


def test_an_unknown_host_is_told_in_one_line(run_main, model):
    for host in ("no.such.name.invalid", "203.0.113.7"):
        code, _, errors = run_main(app, "--model", model, "--host", host, "--port", 0)
        assert code == 2 and errors.startswith(f"app.py: error: --host {host} is no address of this machine"), errors


def test_missing_packages_are_told_in_one_line(run_main, model, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "waitress" else find(name))
    code, _, errors = run_main(app, "--model", model)
    fix = "install it: pip install -r requirements-app.txt"
    assert (code, errors) == (2, f"app.py: error: app.py needs waitress; {fix}\n")


def test_the_script_needs_its_packages_only_when_it_serves(monkeypatch):
    """`app.py --help`, and its message about missing packages, work without them."""
    original = builtins.__import__

    def refuse(name, *rest, **more):
        if name.split(".")[0] in app.PACKAGES:
            raise ModuleNotFoundError(name)
        return original(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    for name in [name for name in sys.modules if name.split(".")[0] in ("app", "serving", *app.PACKAGES)]:
        monkeypatch.delitem(sys.modules, name)
    importlib.import_module("app")


def test_a_model_that_is_missing_is_told_before_the_page_opens(run_main, tmp_path):
    before = set(Path(tempfile.gettempdir()).glob("instagan_*"))
    code, _, errors = run_main(app, "--model", tmp_path / "none", "--port", 0)
    assert code == 2 and errors.startswith(f"app.py: error: no model at {tmp_path / 'none'}")
    assert set(Path(tempfile.gettempdir()).glob("instagan_*")) <= before


def test_a_public_host_is_warned_about(start_script, model):
    script = start_script("app.py", "--model", model, "--port", 0, "--host", "0.0.0.0")
    script.wait_for(lambda: "Ctrl-C" in script.output)
    assert "without a password" in script.errors
