# SPDX-License-Identifier: Apache-2.0
"""Finding CUDA's libraries, on stand-ins that need each other as NVIDIA's do, and the message where one is missing.

`NEEDS` was read from the wheels of requirements-cuda.txt (`objdump -p`). The stand-ins do not know each other's folders
(no RUNPATH), so each loads only after those that it needs.
"""

import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import nnabla as nn
import pytest

from backend import context, cuda_libraries
from backend.cuda_libraries import NCCL, PACKAGES
from common.errors import UserError
from tests.helpers import ROOT

NEEDS = {
    "libcublas.so.12": ["libcublasLt.so.12"],
    "libcusparse.so.12": ["libnvJitLink.so.12"],
    "libcusolver.so.11": ["libnvJitLink.so.12", "libcusparse.so.12", "libcublas.so.12", "libcublasLt.so.12"],
    "libcudnn_ops_train.so.8": ["libcudnn_ops_infer.so.8"],
    "libcudnn_cnn_infer.so.8": ["libcudnn_ops_infer.so.8"],
    "libcudnn_cnn_train.so.8": ["libcudnn_ops_infer.so.8", "libcudnn_ops_train.so.8", "libcudnn_cnn_infer.so.8"],
    "libnnabla_cuda-120_8.so": ["libcuda.so.1", "libcudart.so.12", "libcublas.so.12", "libcusolver.so.11",
                                "libcurand.so.10", "libcufft.so.11", "libcudnn.so.8"],
    "libnnabla_cuda-116_8.so": ["libcudart.so.11.0", "libcudnn.so.8"],
}
# where NVIDIA's wheels put them
FOLDERS = {"libcudart": "cuda_runtime", "libcublas": "cublas", "libnvJitLink": "nvjitlink", "libcusparse": "cusparse",
           "libcusolver": "cusolver", "libcurand": "curand", "libcufft": "cufft", "libcudnn": "cudnn",
           "libnvrtc": "cuda_nvrtc", "libnccl": "nccl"}

# prints the problem, then the stand-ins that were loaded
PROGRAM = """
import ctypes, os, sys
from backend import cuda_libraries
print(cuda_libraries.load())
root = os.path.realpath(sys.argv[1])
paths = {line.split(None, 5)[5].strip() for line in open("/proc/self/maps") if root in line}
print(" ".join(sorted(os.path.relpath(path, root) for path in paths)))
"""


def _symbol(name):
    return name.partition(".so")[0].replace("-", "_")


def _compile(name, folder, where):
    """A library with one function, which adds 1 to the sum of those in the libraries that it needs."""
    needs = NEEDS.get(name, [])
    declared = "".join(f"int {_symbol(n)}(void);" for n in needs)
    total = "".join(f" + {_symbol(n)}()" for n in needs)
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-xc", "-", "-o", str(folder / name), f"-Wl,-soname,{name},--no-as-needed",
         f"-L{where}", *(f"-l:{n}" for n in needs)],
        input=f"{declared} int {_symbol(name)}(void) {{ return 1{total}; }}", text=True, check=True,
    )


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """A folder with all of the stand-ins, each compiled before those that need it."""
    if sys.platform != "linux" or not shutil.which("gcc"):
        pytest.skip("needs Linux and gcc")
    folder = tmp_path_factory.mktemp("compiled")
    for name in ["libcuda.so.1", "libcudart.so.11.0", NCCL, *PACKAGES, *(n for n in NEEDS if "nnabla" in n)]:
        _compile(name, folder, folder)
    return folder


class Machine:
    """`site` is the environment's site-packages, `system` a folder that the dynamic linker searches."""

    def __init__(self, root, compiled):
        self.root, self.compiled = root, compiled
        self.site, self.system = root / "site", root / "system"
        self.system.mkdir()
        self.install("libcuda.so.1", self.system)
        self.extension("libnnabla_cuda-120_8.so")

    def install(self, name, folder):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.compiled / name, folder)

    def extension(self, name):
        self.install(name, self.site / "nnabla_ext/cuda")
        (self.site / "nnabla_ext/cuda/__init__.py").touch()

    def wheel(self, name):
        return self.site / "nvidia" / FOLDERS[name.partition(".")[0].partition("_")[0].replace("Lt", "")] / "lib" / name

    def install_wheels(self):
        for name in PACKAGES:
            self.install(name, self.wheel(name).parent)

    def load(self):
        """The message about the libraries, and those that are loaded."""
        # -S: the environment that runs the tests may hold NVIDIA's wheels
        done = subprocess.run(
            [sys.executable, "-S", "-c", PROGRAM, str(self.root)], cwd=self.root, capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": f"{self.site}:{ROOT}", "LD_LIBRARY_PATH": str(self.system)},
        )
        assert done.returncode == 0, done.stderr
        message, loaded = done.stdout.split("\n", 1)
        return message, set(loaded.split())


@pytest.fixture
def machine(tmp_path, compiled):
    return Machine(tmp_path, compiled)


@pytest.fixture
def no_cuda_here():
    """Skip where this system has a library that a test needs to be missing."""
    program = "import ctypes, sys\nfor n in sys.argv[1:]:\n try: ctypes.CDLL(n); print(n)\n except OSError: pass"
    names = ["libcuda.so.1", "libcudart.so.11.0", *PACKAGES]
    present = subprocess.run([sys.executable, "-c", program, *names], capture_output=True, text=True, check=True).stdout
    if present:
        pytest.skip(f"this system has {present.split()[0]}")


def _inside(machine, paths):
    return {str(path.relative_to(machine.root)) for path in paths}


def test_nccl_is_loaded_where_it_is_there(machine):
    """NNabla opens it by its name, and would look in folders of the system only."""
    machine.install_wheels()
    machine.install(NCCL, machine.wheel(NCCL).parent)
    message, loaded = machine.load()
    assert message == "" and str(machine.wheel(NCCL).relative_to(machine.root)) in loaded


def test_libraries_of_the_environment_are_loaded_before_those_that_need_them(machine):
    machine.install_wheels()
    message, loaded = machine.load()
    assert message == ""
    files = [*map(machine.wheel, PACKAGES), machine.system / "libcuda.so.1",
             machine.site / "nnabla_ext/cuda/libnnabla_cuda-120_8.so"]
    assert loaded == _inside(machine, files)


def test_the_stand_ins_do_not_load_by_themselves(machine, no_cuda_here):
    # or the test above could not fail
    machine.install_wheels()
    program = "import ctypes, sys\ntry: ctypes.CDLL(sys.argv[1])\nexcept OSError as error: print(error)"
    for name in (n for n in NEEDS if n in PACKAGES):
        run = [sys.executable, "-c", program, str(machine.wheel(name))]
        assert subprocess.run(run, capture_output=True, text=True).stdout.startswith(f"{NEEDS[name][0]}: cannot open")


def test_libraries_of_the_system_serve_where_the_environment_has_none(machine):
    for name in PACKAGES:
        machine.install(name, machine.system)
    message, loaded = machine.load()
    assert message == ""
    assert {f"system/{name}" for name in NEEDS["libnnabla_cuda-120_8.so"]} < loaded


def test_the_environment_goes_before_the_system(machine):
    machine.install_wheels()
    for name in PACKAGES:
        machine.install(name, machine.system)
    message, loaded = machine.load()
    assert message == "" and {path for path in loaded if path.startswith("system")} == {"system/libcuda.so.1"}


@pytest.mark.parametrize("name", ["libcudart.so.12", "libcublasLt.so.12", "libnvJitLink.so.12", "libcufft.so.11",
                                  "libcudnn.so.8", "libcudnn_ops_infer.so.8"])
def test_a_missing_one_is_named_with_its_package(machine, no_cuda_here, name):
    machine.install_wheels()
    machine.wheel(name).unlink()
    message, _ = machine.load()
    all_of_it = "pip install -r requirements-cuda.txt"
    assert message == f"{name} is missing: pip install {PACKAGES[name]}, or all of it: {all_of_it}"


def test_a_missing_driver_is_not_for_pip(machine, no_cuda_here):
    machine.install_wheels()
    (machine.system / "libcuda.so.1").unlink()
    message, loaded = machine.load()
    assert message.startswith("libcuda.so.1 is missing: it comes with the NVIDIA driver") and "pip" not in message
    assert not loaded  # that would read gigabytes for nothing


DAMAGES = {
    "not a library": lambda whole: b"no library" * 20,
    "noise": lambda whole: b"\xff" * 99,
    "empty": lambda whole: b"",
    "cut off": lambda whole: whole[: len(whole) // 2],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_broken_one_is_reported(machine, damage):
    machine.install_wheels()
    path = machine.wheel("libcusparse.so.12")
    path.write_bytes(damage(path.read_bytes()))
    message, _ = machine.load()
    assert f"{path} does not load: " in message and f"--force-reinstall {PACKAGES[path.name]}" in message


def test_an_extension_for_cuda_11_does_not_meet_the_libraries_of_cuda_12(machine):
    machine.install_wheels()
    (machine.site / "nnabla_ext/cuda/libnnabla_cuda-120_8.so").unlink()
    machine.extension("libnnabla_cuda-116_8.so")
    for name in ("libcudart.so.11.0", "libcudnn.so.8"):
        machine.install(name, machine.system)
    message, loaded = machine.load()
    assert message == "" and not any("nvidia" in path for path in loaded)
    assert {"system/libcudnn.so.8", "system/libcudart.so.11.0"} < loaded


def test_nothing_is_loaded_without_an_extension(machine):
    machine.install_wheels()
    shutil.rmtree(machine.site / "nnabla_ext/cuda")
    assert machine.load() == ("", set())


def test_the_packages_are_those_of_the_requirements():
    lines = (line.partition("#")[0].strip() for line in (ROOT / "requirements-cuda.txt").read_text().splitlines())
    required = {line for line in lines if line}
    assert required == {*PACKAGES.values(), "nnabla-ext-cuda120==1.39.0"}


# The messages of context.py about it


def _refusal():
    with pytest.raises(UserError) as refused:
        context.set_context("cudnn", "1")
    # auto prints the same reason, and takes the CPU
    message = context.set_context("auto", "1")
    assert message.startswith("context: cpu, since ") and message[20:] in str(refused.value)
    assert nn.get_current_context().backend == ["cpu:float"]
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.fixture
def extension(monkeypatch):
    """An extension that works, with the devices 0 and 1; only, NNabla's context is the CPU's."""
    cpu = nn.Context(["cpu:float"], "CpuCachedArray", "0")
    module = SimpleNamespace(get_devices=lambda: ["0", "1"], check_gpu=lambda device: None, context=lambda **_: cpu)
    monkeypatch.setitem(sys.modules, "nnabla_ext.cudnn", module)
    monkeypatch.setattr(cuda_libraries, "load", lambda: "")
    monkeypatch.setattr(nn, "available_contexts", ["cpu", "cuda", "cudnn"])
    return module


def _failing(message):
    def fail(*_):
        raise RuntimeError(message)

    return fail


def test_a_gpu_that_works_is_taken(extension):
    assert context.set_context("auto", "1") == context.set_context("cudnn", "1") == "context: cudnn, device 1"


def test_a_missing_library_is_why_the_gpu_is_not_taken(monkeypatch, extension):
    monkeypatch.setattr(cuda_libraries, "load", lambda: "libfoo.so.1 is missing")
    assert "libfoo.so.1 is missing" in _refusal()


def test_the_cause_is_taken_from_nnablas_error(extension):
    cause = '(cudaGetDeviceCount(&count)) failed with "no CUDA-capable device is detected" (cudaErrorNoDevice)'
    extension.get_devices = _failing(f"target_specific error in get\n/src/init.cpp:1725\n{cause}.\n\n")
    message = _refusal()
    assert f"there is no CUDA device: {cause};" in message and "init.cpp" not in message


def test_another_device_than_asked_for_is_not_taken(extension):
    extension.get_devices = lambda: ["0"]
    assert "no CUDA device 1; there are 0" in _refusal()


def test_a_driver_that_does_not_answer_about_the_device(extension):
    extension.check_gpu = _failing("NVML Shared Library Not Found")
    assert "device 1: NVML Shared Library Not Found" in _refusal()


def test_no_extension_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "nnabla_ext.cudnn", None)
    monkeypatch.setattr(cuda_libraries, "load", lambda: "")
    assert "not installed; for an NVIDIA GPU: pip install -r requirements-cuda.txt" in _refusal()


@pytest.fixture
def write_extension(monkeypatch, tmp_path):
    """Write the module nnabla_ext.cudnn, to be imported."""
    module = tmp_path / "nnabla_ext/cudnn/__init__.py"
    module.parent.mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(cuda_libraries, "load", lambda: "")
    sys.modules.pop("nnabla_ext.cudnn", None)
    yield module.write_text
    sys.modules.pop("nnabla_ext.cudnn", None)


def test_messages_that_the_extension_prints_and_logs_become_one_line(write_extension, capsys, caplog):
    # as nnabla-ext-cuda120 does where cuDNN is not there
    write_extension(
        "from nnabla.logger import logger\n"
        "print('GPU compatibility could not be verified')\n"
        "logger.warning('Cudnn initialization failed.\\n/src/init.cpp:1\\n(cudnnCreate()) failed.\\n')\n"
        "get_devices = lambda: ['1']\n"
    )
    with pytest.raises(UserError, match="cuDNN does not start: .*cudnnCreate.* failed;"):
        context.set_context("cudnn", "1")
    assert capsys.readouterr().out == "" and caplog.text == ""


def test_an_extension_that_cannot_be_imported_is_reported(write_extension):
    write_extension("raise ValueError('your GPU is not supported\\nset this to avoid it')")
    assert "the CUDA extension does not load: your GPU is not supported;" in _refusal()


def test_the_cpu_asks_for_no_library(monkeypatch):
    monkeypatch.setattr(cuda_libraries, "load", _failing("asked"))
    assert context.set_context("cpu") == "context: cpu"
