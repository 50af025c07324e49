# SPDX-License-Identifier: Apache-2.0
"""`make_env.sh` with stand-ins for Python, uv and pip: no network, and no change outside the test's folder."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "make_env.sh"

pytestmark = pytest.mark.skipif(os.name == "nt", reason="make_env.sh is a POSIX shell script")

# Stands in for Python in its three uses by the script: a question (-c), making an environment, and pip.
FAKE_PYTHON = """#!/bin/sh
case "$1 $2" in
    "-c "*) echo "{minor} {can_make}" ;;
    "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-m pip") echo "$*" >>"{log}"; {pip} ;;
esac
"""
BROKEN_SHIM = "#!/bin/sh\necho 'pyenv: python3.10: command not found' >&2\nexit 127\n"


class Machine:
    """A made-up machine: two folders on PATH, a home with pyenv's versions, and a checkout that holds the script."""

    def __init__(self, root: Path):
        self.root = root
        self.log = root / "pip.calls"
        self.bin = root / "bin"
        self.bin2 = root / "other bin"
        self.home = root / "home"
        self.checkout = root / "my checkout"
        for folder in (self.bin, self.bin2, self.home, self.checkout):
            folder.mkdir()
        shutil.copy(SCRIPT, self.checkout)
        self.requirements = self.checkout / "requirements.txt"
        self.requirements.write_text("nnabla\n")
        (self.checkout / "requirements-test.txt").write_text("pytest\n")

    def script(self, path: Path, text: str) -> str:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return str(path)

    def python(self, path: Path, minor: int, can_make: int = 1, pip: str = "true") -> str:
        return self.script(path, FAKE_PYTHON.format(minor=minor, can_make=can_make, log=self.log, pip=pip))

    def run(self, *args: str, tools: bool = True, **env: str) -> subprocess.CompletedProcess:
        """Run the script. With `tools`, PATH also has this machine's cp, rm, ... (and so its Python, last)."""
        path = f"{self.bin}:{self.bin2}" + (":/usr/bin:/bin" if tools else "")
        return subprocess.run(
            ["/bin/sh", "./make_env.sh", *args], cwd=self.checkout, stdin=subprocess.DEVNULL, timeout=300,
            capture_output=True, text=True,
            env={"PATH": path, "HOME": str(self.home), **env},
        )

    def chosen(self, **env: str) -> str:
        done = self.run("--print-python", tools=False, **env)
        assert done.returncode == 0, done.stderr
        return done.stdout.rstrip("\n")

    def pip_calls(self) -> list:
        calls = self.log.read_text().splitlines() if self.log.exists() else []
        return [call for call in calls if "-r" in call]


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_prefers_3_10_wherever_it_is(machine):
    machine.python(machine.bin / "python3.8", 8)
    machine.python(machine.bin / "python3.9", 9)
    newest = machine.python(machine.bin2 / "python3", 10)
    assert machine.chosen() == newest


def test_takes_an_older_one_if_there_is_no_3_10(machine):
    machine.python(machine.bin / "python3.8", 8)
    newer = machine.python(machine.home / ".pyenv/versions/3.9.18/bin/python", 9)
    assert machine.chosen() == newer


def test_a_broken_shim_is_passed_over_silently_and_hides_nothing(machine):
    machine.script(machine.bin / "python3.10", BROKEN_SHIM)
    works = machine.python(machine.bin2 / "python3.10", 10)
    done = machine.run("--print-python", tools=False)
    assert (done.stdout, done.stderr) == (works + "\n", "")


@pytest.mark.parametrize("where", ["home/.pyenv", "elsewhere"])
def test_finds_pyenv_versions_that_are_not_selected(machine, where):
    machine.script(machine.bin / "python3.10", BROKEN_SHIM)
    root = machine.root / where
    machine.script(root / "versions/3.12.1/bin/python", "#!/bin/sh\nexit 1\n")
    works = machine.python(root / "versions/3.10.13/bin/python", 10)
    assert machine.chosen(**({"PYENV_ROOT": str(root)} if where == "elsewhere" else {})) == works


def fake_uv(machine, path, can_fetch):
    """A uv that knows no Python until it has fetched one, if it can."""
    fetched = machine.root / "uv" / "python3.10"
    machine.python(machine.root / "store" / "python3.10", 10)
    machine.script(path, f"""#!/bin/sh
case "$1 $2" in
    "python find") [ -x "{fetched}" ] && echo "{fetched}" ;;
    "python install") {f'/bin/mkdir -p "{fetched.parent}" && /bin/cp "{machine.root}/store/python3.10" "{fetched}"'
                       if can_fetch else "echo 'error: no network' >&2; exit 2"} ;;
esac
""")
    return str(fetched)


@pytest.mark.parametrize("where", ["bin/uv", "home/.local/bin/uv", "home/.cargo/bin/uv"])
def test_uv_fetches_one_if_there_is_none_and_only_once(machine, where):
    fetched = fake_uv(machine, machine.root / where, can_fetch=True)
    first, second = (machine.run("--print-python", tools=False) for _ in range(2))
    assert first.stdout == second.stdout == fetched + "\n"
    assert "uv fetches" in first.stderr and second.stderr == ""


def test_uv_does_not_fetch_if_there_is_a_python(machine):
    there = machine.python(machine.bin / "python", 8)
    fake_uv(machine, machine.bin / "uv", can_fetch=True)
    assert machine.chosen() == there
    assert not (machine.root / "uv").exists()


def test_a_uv_that_cannot_fetch_says_what_to_do(machine):
    fake_uv(machine, machine.bin / "uv", can_fetch=False)
    done = machine.run("--print-python", tools=False)
    assert done.returncode == 2 and done.stdout == ""
    assert "error: no network" in done.stderr
    assert "install python3.10" in done.stderr.splitlines()[-1]


def test_without_a_python_one_line_says_what_to_install(machine):
    machine.script(machine.bin / "python3", "#!/bin/sh\nexit 1\n")
    machine.script(machine.bin / "uv", BROKEN_SHIM)
    for args in ((), ("--print-python",)):
        done = machine.run(*args, tools=False)
        assert (done.returncode, done.stdout) == (2, "")
        assert "install uv" in done.stderr and "python3.10" in done.stderr and done.stderr.count("\n") == 1
    assert not (machine.checkout / ".venv").exists()


def test_one_without_the_venv_module_is_named(machine):
    python = machine.python(machine.bin / "python3.10", 10, can_make=0)
    done = machine.run("--print-python", tools=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert python in done.stderr and "venv" in done.stderr
    complete = machine.python(machine.bin2 / "python3.9", 9)
    assert machine.chosen() == complete


def test_the_probe_accepts_a_real_python(machine):
    (machine.bin / "python3").symlink_to(sys.executable)
    assert machine.chosen() == str(machine.bin / "python3")


def test_only_the_first_run_and_changed_requirements_install(machine):
    machine.python(machine.bin / "python3.10", 10)
    assert machine.run().returncode == 0
    assert len(machine.pip_calls()) == 1
    again = machine.run()
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert len(machine.pip_calls()) == 1

    assert machine.run("requirements.txt", "requirements-test.txt").returncode == 0
    assert "-r requirements.txt -r requirements-test.txt" in machine.pip_calls()[1]
    machine.run()
    machine.run("requirements.txt", "requirements-test.txt")
    assert len(machine.pip_calls()) == 2

    machine.requirements.write_text("nnabla\nnumpy\n")
    machine.run()
    machine.run()
    assert len(machine.pip_calls()) == 3


def test_packages_of_an_earlier_call_stay(machine):
    machine.python(machine.bin / "python3.10", 10)
    cuda = machine.checkout / "requirements-cuda.txt"
    cuda.write_text("nnabla-ext-cuda120\n")
    with_cuda = ("requirements.txt", cuda.name)
    first = machine.run(*with_cuda)
    assert first.returncode == 0 and "GB" in first.stderr
    assert machine.run().stderr == "" and len(machine.pip_calls()) == 1

    # other packages are installed beside it, and changed requirements again
    machine.run("requirements.txt", "requirements-test.txt")
    machine.requirements.write_text("nnabla\nnumpy\n")
    assert "GB" not in machine.run().stderr
    assert len(machine.pip_calls()) == 3 and not any(cuda.name in call for call in machine.pip_calls()[1:])
    assert machine.run(*with_cuda).stderr == "" and len(machine.pip_calls()) == 3

    cuda.write_text("nnabla-ext-cuda120==1.39.0\n")
    assert machine.run().stderr == "" and len(machine.pip_calls()) == 3
    machine.run(*with_cuda)
    assert len(machine.pip_calls()) == 4


def test_going_back_after_a_failure_installs_again(machine):
    # pip may have stopped halfway, so the packages of before are not taken for granted
    machine.python(machine.bin / "python3.10", 10)
    assert machine.run().returncode == 0
    machine.requirements.write_text("nnabla==2\n")
    machine.python(machine.checkout / ".venv/bin/python", 10, pip="exit 1")
    assert machine.run().returncode == 1
    machine.requirements.write_text("nnabla\n")
    assert machine.run().returncode == 1


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_make_asks_for_cuda_with_the_context_cudnn_only():
    def asked(*words):
        run = ["make", "-n", *words]
        return subprocess.run(run, cwd=SCRIPT.parent, capture_output=True, text=True, check=True).stdout

    assert "make_env.sh requirements.txt requirements-cuda.txt" in asked("demo", "CONTEXT=cudnn")
    assert "make_env.sh requirements.txt  requirements-app.txt" in asked("app")
    assert "requirements-cuda.txt" not in asked("demo") + asked("demo", "CONTEXT=cpu") + asked("test", "CONTEXT=cpu")


def test_a_failing_pip_shows_its_output_and_is_tried_again(machine):
    machine.script(machine.bin / "uname", "#!/bin/sh\necho Linux x86_64\n")
    machine.python(machine.bin / "python3.10", 10, pip='echo "ERROR: no matching distribution" >&2; exit 1')
    done = machine.run()
    assert done.returncode == 1 and "ERROR: no matching distribution" in done.stderr
    assert "network" in done.stderr.splitlines()[-1]
    machine.python(machine.checkout / ".venv/bin/python", 10)
    done = machine.run()
    assert done.returncode == 0 and "making it again" not in done.stderr
    assert machine.run().stderr == ""


def test_a_failing_pip_on_a_machine_without_nnabla_says_so(machine):
    machine.python(machine.bin / "python3.10", 10, pip="exit 1")
    machine.script(machine.bin / "uname", "#!/bin/sh\necho Darwin arm64\n")
    assert "x86-64 Linux and Windows, this is Darwin arm64" in machine.run().stderr.splitlines()[-1]


def test_a_warning_of_pip_is_not_a_failure(machine):
    machine.python(machine.bin / "python3.10", 10, pip='echo "WARNING: ignored" >&2')
    done = machine.run()
    assert done.returncode == 0 and "WARNING" not in done.stderr


def test_an_interrupted_installation_starts_from_nothing(machine):
    # kill -9 of the script by its pip, halfway through
    machine.python(machine.bin / "python3.10", 10, pip="case $* in *-r*) touch .venv/half; kill -9 $PPID; esac")
    assert machine.run().returncode == -9
    assert (machine.checkout / ".venv/half").exists()
    machine.python(machine.bin / "python3.10", 10)
    done = machine.run()
    assert done.returncode == 0 and "making it again" in done.stderr
    assert not (machine.checkout / ".venv/half").exists()
    assert machine.run().stderr == ""


@pytest.mark.parametrize("damage", ["python gone", "dangling link", "an empty folder", "a file"])
def test_a_broken_environment_is_made_again(machine, damage):
    machine.python(machine.bin / "python3.10", 10)
    assert machine.run().returncode == 0
    venv = machine.checkout / ".venv"
    if damage in ("python gone", "dangling link"):
        (venv / "bin/python").unlink()
        if damage == "dangling link":
            (venv / "bin/python").symlink_to("/nowhere/python3.10")
    else:
        shutil.rmtree(venv)
        venv.mkdir() if damage == "an empty folder" else venv.write_text("")
    done = machine.run()
    assert done.returncode == 0 and "making it again" in done.stderr
    assert len(machine.pip_calls()) == 2
    assert machine.run().stderr == ""


def test_nothing_is_thrown_away_before_a_python_is_found(machine):
    machine.python(machine.bin / "python3.10", 10)
    assert machine.run().returncode == 0
    (machine.checkout / ".venv/bin/python").unlink()
    (machine.bin / "python3.10").unlink()
    assert machine.run(tools=False).returncode == 2
    assert (machine.checkout / ".venv/installed/requirements.txt").exists()


def test_an_environment_made_by_hand_is_completed_not_replaced(machine):
    machine.python(machine.checkout / ".venv/bin/python", 9)
    (machine.checkout / ".venv/mine").touch()
    assert machine.run().returncode == 0
    assert (machine.checkout / ".venv/mine").exists()
    assert len(machine.pip_calls()) == 1
