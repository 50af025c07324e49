# SPDX-License-Identifier: Apache-2.0
"""The user's environment does not reach the result: closed streams, terminals that go, locales, homes, backends."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest
from PIL import Image

from datasets import generate_shapes_dataset
from tests.helpers import ROOT
from tests.helpers.scripts import DEADLINE

GENERATE = [sys.executable, str(ROOT / "datasets" / "generate_shapes_dataset.py"), "--size", "48", "--train", "2"]


def run(code, **environment):
    """Run Python code that can import the project's modules, with these changes to the environment (None: unset)."""
    changed = {name: value for name, value in {**os.environ, **environment}.items() if value is not None}
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}"]
    return subprocess.run(command, env=changed, capture_output=True, text=True, timeout=DEADLINE)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&-", "<&- >&- 2>&-"])
def test_a_script_whose_streams_are_closed_does_the_same(tmp_path, closed):
    generate_shapes_dataset.generate(tmp_path / "want", height=48, width=48, train=2, test=1)
    words = [*GENERATE, "--test", "1", "--save_root", str(tmp_path / "got")]
    done = subprocess.run(["sh", "-c", f'exec "$@" {closed}', "sh", *words], capture_output=True, timeout=DEADLINE)
    assert (done.returncode, done.stderr) == (0, b"")
    assert contents(tmp_path / "got") == contents(tmp_path / "want")


def test_no_file_gets_the_number_of_a_closed_stream(tmp_path):
    code = f"""
from common import streams
streams.open_missing()
file = open({str(tmp_path / "data")!r}, "wb")
import os
os.write(2, b"a library's warning")
file.write(b"data")
"""
    words = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}){code}"]
    subprocess.run(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *words], timeout=DEADLINE, check=True)
    assert (tmp_path / "data").read_bytes() == b"data"


def test_what_is_printed_to_a_terminal_that_is_gone_is_dropped(tmp_path):
    mark = tmp_path / "mark"
    code = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
import signal, time
signal.signal(signal.SIGHUP, signal.SIG_IGN)
from common import streams
streams.outlive_terminal()
print("ready", flush=True)
time.sleep(0.5)
for stream in (sys.stdout, sys.stderr):
    print("nobody reads this", file=stream, flush=True)
open({str(mark)!r}, "w").close()
"""
    process, terminal = pty.fork()
    if not process:
        os.execv(sys.executable, [sys.executable, "-c", code])
    assert b"ready" in os.read(terminal, 1 << 16)
    os.close(terminal)
    _, status = os.waitpid(process, 0)
    assert os.WEXITSTATUS(status) == 0 and mark.exists()


def test_names_of_files_are_utf8_in_any_locale(tmp_path):
    """In an ASCII locale, Python would take a name of two bytes a letter for one that is not valid."""
    for letter in "ab":
        (tmp_path / letter).mkdir()
        (tmp_path / f"{letter}_seg").mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / letter / "zürich.png")
        Image.new("L", (8, 8), 255).save(tmp_path / f"{letter}_seg" / "zürich_0.png")
    folders = ["--a", tmp_path / "a", "--b", tmp_path / "b", "--save_root", tmp_path / "naïve"]
    words = ["datasets/import_masks.py", *folders]
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environment.pop("PYTHONIOENCODING", None)
    done = subprocess.run(
        [sys.executable, *map(os.fsencode, words)], cwd=ROOT, env=environment, capture_output=True, timeout=DEADLINE
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "naïve" / "trainA_seg" / "zürich_0.png").is_file()


CURVES = """
from pathlib import Path
from training.monitors import KINDS, draw_curves
folder = Path(sys.argv[1]) if sys.argv[1:] else Path.cwd()
for name in draw_curves(folder):
    assert (folder / name).stat().st_size > 1000
"""


@pytest.mark.parametrize(
    "environment",
    [{"MPLBACKEND": "module://matplotlib_inline.backend_inline"}, {"MPLBACKEND": "nonsense"}, {"HOME": None}],
    ids=["notebook", "nonsense", "no home"],
)
def test_curves_are_drawn_in_any_environment(tmp_path, environment):
    series = [f"{kind}_loss_{domain}.series.txt" for kind in ("generator", "discriminator") for domain in "xy"]
    for name in series:
        (tmp_path / name).write_text("0 1.0\n1 0.5\n")
    # whoever has no home has no entry with one either
    no_entry = "import pwd\ndef getpwuid(number): raise KeyError(number)\npwd.getpwuid = getpwuid\n"
    code = f"import os; os.chdir({str(tmp_path)!r})\n{no_entry}{CURVES}"
    done = run(code, **{"XDG_CONFIG_HOME": None, "XDG_CACHE_HOME": None, "MPLCONFIGDIR": None, **environment})
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    if "HOME" in environment:
        done = run(f"{no_entry}from metrics import inception\nprint(inception.find(None))", **environment)
        assert done.returncode == 0 and "FID and KID are left out" in done.stdout, done.stderr


def test_a_checkout_has_the_line_ends_that_scripts_and_pages_want():
    """Also where git is set to change them."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout")
    words = ["git", "-C", str(ROOT), "check-attr", "text", "eol", "--", "Makefile", ".ci/run", "translation/gallery.js"]
    listed = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    assert {line.rpartition(": ")[2] for line in listed} == {"auto", "lf"}
