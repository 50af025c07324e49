# SPDX-License-Identifier: Apache-2.0
"""Hostile and damaged files: each is read rightly or refused in one line, runs nothing, and takes little memory.

tests/helpers/fuzz_pth_reader.py is run some thousand times here; by hand it runs as long as one likes. Hostile .pth
files are in tests/test_convert_pytorch.py.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import resource
import signal
import subprocess
import sys
import traceback
import zipfile
import zlib
from pathlib import Path

import h5py
import nnabla as nn
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image, PngImagePlugin

import models
from args import train_args
from common.errors import UserError
from data import pictures
from tests.helpers.damage import EDITS, edited
from tests.helpers.scripts import DEADLINE
from training import checkpoint
from weights import model_file

FUZZER = "tests.helpers.fuzz_pth_reader"
MOST_MB = 100


def damage(examples):
    checks = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
    return settings(max_examples=examples, deadline=None, suppress_health_check=checks)


def outcome(read, path):
    """The result of `read`, or None where it refuses the file in one line."""
    try:
        return read(path)
    except UserError as error:
        assert "\n" not in str(error)
        # of args.json, an argument's name may be enough
        assert str(path.parent) in str(error) or str(error).startswith("--")
        return None


def in_child(read, path, most_mb=MOST_MB):
    """Return whether `read` accepts `path`, in a child process, which has to succeed and may grow by `most_mb`.

    Its peak is measured: a limit would raise a MemoryError, which readers take for damage.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            taken = outcome(read, path) is not None
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            os.write(writing, json.dumps([taken, grown / 1024]).encode())
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        result = pipe.read()
    assert os.waitpid(child, 0)[1] == 0, "the process that read it died, or something else was raised"
    taken, grown = json.loads(result)
    assert grown < most_mb, f"reading took {grown:.0f} MB"
    return taken


def test_the_measure_of_memory_works(tmp_path):
    with pytest.raises(AssertionError, match="MB"):
        in_child(lambda _: np.ones(MOST_MB << 19, np.float32).sum(), tmp_path)
    with pytest.raises(AssertionError, match="died"):
        in_child(lambda _: os.kill(os.getpid(), signal.SIGKILL), tmp_path)
    assert in_child(lambda _: 1, tmp_path)


# --- .pth -------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not importlib.util.find_spec("atheris"), reason="atheris has no wheel for this system")
def test_fuzzing_of_the_pth_reader_finds_nothing(tmp_path):
    command = [sys.executable, "-m", FUZZER, "-runs=4000", "-seed=1", f"-artifact_prefix={tmp_path}/"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Done 4000 runs" in done.stderr
    assert not list(tmp_path.iterdir())


# --- checkpoints ------------------------------------------------------------------------------------------------------


ARRAYS = {"gen/W": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array(3), "f": np.ones((2, 2), order="F")}


def members_of(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_members(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def check_checkpoint(path):
    arrays, state = checkpoint.load(path)
    assert type(state) is dict and sum(a.nbytes for a in arrays.values()) <= path.stat().st_size
    return arrays


@pytest.mark.parametrize("inside", [False, True])
def test_damaged_checkpoints(tmp_path, inside):
    path = checkpoint.save(tmp_path, 1, ARRAYS, {"iteration": 1})
    raw, members = path.read_bytes(), members_of(path)

    @damage(150)
    @given(EDITS, st.sampled_from(sorted(members)))
    def test(edits, name):
        if inside:  # checksums would otherwise keep most damage from the arrays
            write_members(path, {**members, name: edited(members[name], edits)})
        else:
            path.write_bytes(edited(raw, edits))
        outcome(check_checkpoint, path)

    test()
    path.write_bytes(raw)
    assert in_child(check_checkpoint, path)


def npy(header, data=b"", version=b"\1\0"):
    length = len(header).to_bytes(2 if version == b"\1\0" else 4, "little")
    return b"\x93NUMPY" + version + length + header.encode() + data


def described(dtype, shape):
    return f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}}}\n"


HEADERS = {
    "long": npy(described("'<f4'", "(1000000000,)"), bytes(8)),
    "short": npy(described("'<f4'", "(1,)"), bytes(8)),
    "negative": npy(described("'<f4'", "(-1,)"), bytes(4)),
    "twice negative": npy(described("'<f4'", "(-1, -1)"), bytes(4)),
    "overflowing": npy(described("'<f4'", f"(0, {2**70})")),
    "wrapping": npy(described("'<f4'", f"({2**62}, 4)")),
    "many dimensions": npy(described("'<f4'", "(1,) * 9"), bytes(4)),
    "sixty dimensions": npy(described("'<f4'", repr((1,) * 60)), bytes(4)),
    "no size": npy(described("'V0'", "(3,)")),
    "objects": npy(described("'O'", "(1,)"), bytes(8)),
    "hidden objects": npy(described("[('a', [('b', 'O')])]", "(1,)"), bytes(8)),
    "huge text": npy(described("'<U536870911'", "(1,)"), bytes(8)),
    "a call": npy(described("__import__('os').system('true')", "(1,)"), bytes(4)),
    "unclosed": npy("{'descr': '<f4', 'shape': (((\n", bytes(4)),
    "deep": npy("(" * 9000 + "\n", bytes(4)),
    "deep minus": npy("-" * 9000 + "1\n", bytes(4)),
    "longer than it is": b"\x93NUMPY\2\0\xff\xff\xff\xff{}",
    "of another version": npy("{}", version=b"\7\0"),
    "empty": b"",
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("what", sorted(HEADERS))
def test_checkpoints_whose_arrays_lie(tmp_path, what):
    path = checkpoint.save(tmp_path, 1, ARRAYS, {})
    assert in_child(check_checkpoint, path)
    write_members(path, {**members_of(path), "arrays/gen/W.npy": HEADERS[what]})
    assert not in_child(check_checkpoint, path)


def state_of(text):
    buffer = io.BytesIO()
    np.save(buffer, np.array(text))
    return buffer.getvalue()


@pytest.mark.parametrize("text", ["[]", "3", "", "{", "[" * 10**5, "9" * 10**5, "\ud800"])
def test_checkpoints_whose_state_is_none(tmp_path, text):
    path = checkpoint.save(tmp_path, 1, ARRAYS, {})
    write_members(path, {**members_of(path), "state.npy": state_of(text)})
    assert not in_child(check_checkpoint, path)


@pytest.mark.parametrize("name", ["W.npy", "arrays/.npy", "arrays/W", "arrays/a\nb.npy", "\x1b[2J"])
def test_checkpoints_with_other_members(tmp_path, name):
    path = checkpoint.save(tmp_path, 1, ARRAYS, {})
    members = members_of(path)
    write_members(path, {**members, name: members["arrays/n.npy"]})
    assert not in_child(check_checkpoint, path)


def test_a_checkpoint_is_not_unpickled(tmp_path):
    sentinel, path = tmp_path / "sentinel", tmp_path / "checkpoint_000001.npz"

    class Evil:
        def __reduce__(self):
            return open, (str(sentinel), "w")

    np.savez(path, **{"state": np.array("{}"), "arrays/W": np.array([Evil()], object)})
    assert outcome(check_checkpoint, path) is None and not sentinel.exists()
    with np.load(path, allow_pickle=True) as arrays:
        arrays["arrays/W"]
    assert sentinel.exists(), "it would show nothing if the pickle did not work"


def test_checkpoints_that_are_bombs(tmp_path):
    zeros, path = np.zeros(130 << 18, np.float32), tmp_path / "checkpoint_000001.npz"
    np.savez_compressed(path, **{"state": np.array("{}"), "arrays/W": zeros})
    assert path.stat().st_size < 1 << 20 and not in_child(check_checkpoint, path)


def test_a_small_checkpoint_cannot_have_the_same_data_a_hundred_times(tmp_path):
    """Each array's numbers are the whole of the next member, so that 2 MB become 200."""
    path, infos, content = tmp_path / "checkpoint_000001.npz", [], bytes(2 << 20)
    for i in range(100):
        content = npy(described("'|u1'", f"({len(content)},)"), content)
        infos.append(zipfile.ZipInfo(f"arrays/{i}.npy"))
        infos[-1].file_size = infos[-1].compress_size = len(content)
        infos[-1].CRC = zlib.crc32(content)
        content = infos[-1].FileHeader() + content
    lengths = [len(info.FileHeader()) + info.file_size for info in infos]
    with zipfile.ZipFile(path, "w") as archive:
        archive.fp.write(content)
        for info, length in zip(infos, lengths):
            info.header_offset = len(content) - length
        archive.filelist, archive.start_dir = infos, len(content)
        archive.writestr("state.npy", state_of("{}"))
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None, "it would show nothing if the file were not as it should be"
    assert not in_child(check_checkpoint, path)


# --- models -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A whole model of the smallest size, which tests copy."""
    path = tmp_path_factory.mktemp("model") / "params_000001.h5"
    arch = models.Architecture(ngf=2, ndf=1, n_blocks=1, n_layers_D=1)
    nn.clear_parameters()
    models.create_parameters(arch, np.random.RandomState(0))
    parameters = {name: v.d.copy() for name, v in nn.get_parameters(grad_only=False).items()}
    more = {"networks": list(models.NETWORKS), "ins_per": 2, "set_order": "decreasing", "fineSizeH": 8, "fineSizeW": 8}
    model_file.save_model(path, parameters, model_file.model_config(arch, **more))
    return path, parameters, json.loads(path.with_suffix(".json").read_text())


def check_parameters(path):
    arrays = model_file.read_parameters(path)
    assert sum(a.nbytes for a in arrays.values()) <= path.stat().st_size
    assert all(a.dtype == np.float32 and name.isprintable() for name, a in arrays.items())
    return arrays


def check_model(path):
    parameters, config = model_file.load_model(path)
    arch = model_file.architecture_of(config)
    assert (arch.ngf, arch.ndf, arch.n_blocks, arch.n_layers_D) == (2, 1, 1, 1)
    return parameters


def test_a_good_model_is_read_as_hdf5_s_library_reads_it(tmp_path, model):
    path, parameters, _ = model
    found = check_model(path)
    assert list(found) == sorted(found) and found.keys() == parameters.keys()
    # enough names for trees of several levels
    many = {f"{group}/{i:05d}": np.float32([[i, group]]) for group in (1, 2) for i in range(200)}
    model_file.save_model(tmp_path / "many.h5", many, {})
    for read, truth in ((found, path), (check_parameters(tmp_path / "many.h5"), tmp_path / "many.h5")):
        with h5py.File(truth, "r") as file:
            for name, array in read.items():
                assert array.shape == file[name].shape
                np.testing.assert_array_equal(array, file[name][()])
    assert len(check_parameters(tmp_path / "many.h5")) == 400


def test_what_nnabla_itself_saves_is_read(tmp_path):
    nn.clear_parameters()
    truth = np.arange(6, dtype=np.float32).reshape(2, 3)
    nn.parameter.get_parameter_or_create("a/conv/W", (2, 3), truth)
    nn.save_parameters(str(tmp_path / "a.h5"))
    np.testing.assert_array_equal(check_parameters(tmp_path / "a.h5")["a/conv/W"], truth)


SMALL = {"gen/a/W": np.ones((2, 3), np.float32), "gen/b": np.zeros(3, np.float32), "s": np.float32(2)}


@pytest.mark.parametrize("whole", [False, True])
def test_damaged_models(tmp_path, model, whole):
    path, good = tmp_path / "m.h5", tmp_path / "good.h5"
    model_file.save_model(good, model[1] if whole else SMALL, model[2])
    raw = good.read_bytes()

    @damage(40 if whole else 300)
    @given(EDITS)
    def test(edits):
        path.write_bytes(edited(raw, edits))
        outcome(check_parameters, path)

    test()
    assert in_child(check_parameters, good)


def test_every_truncation_of_a_model_is_noticed(tmp_path):
    path = tmp_path / "m.h5"
    model_file.save_model(path, {"a": SMALL["gen/b"]}, {})
    raw = path.read_bytes()
    assert raw.endswith(SMALL["gen/b"].tobytes())
    for length in range(len(raw)):
        path.write_bytes(raw[:length])
        assert outcome(check_parameters, path) is None


SECRET = np.array([1, 2, 3], np.float32)


def compressed(file):
    file.create_dataset("w", shape=(130 << 18,), dtype="f4", chunks=(1 << 20,), compression="gzip")[:] = 0


def elsewhere(file):
    path = f"{file.filename}.secret"
    SECRET.tofile(path)
    file.create_dataset("w", shape=(3,), dtype="f4", external=[(path, 0, 12)])


def virtual(file):
    with h5py.File(f"{file.filename}.secret", "w") as other:
        other["x"] = SECRET
    layout = h5py.VirtualLayout((3,), "f4")
    layout[:] = h5py.VirtualSource(f"{file.filename}.secret", "x", shape=(3,))
    file.create_virtual_dataset("w", layout)


def external_link(file):
    with h5py.File(f"{file.filename}.secret", "w") as other:
        other["x"] = SECRET
    file["w"] = h5py.ExternalLink(f"{file.filename}.secret", "x")


def compact(file):
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_layout(h5py.h5d.COMPACT)
    h5py.h5d.create(file.id, b"w", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((3,)), layout)


def named_type(file):
    file["t"] = np.dtype("f4")
    file.create_dataset("w", (3,), dtype=file["t"])


def holding(value):
    return lambda file: file.create_dataset("w", data=value)


def linking(name, target):
    def make(file):
        file.create_dataset("g/w", data=SECRET)
        file[name] = file[target] if type(target) is str else target

    return make


HOSTILE = {
    "a name of two lines": lambda file: file.create_dataset("a\nb", data=SECRET),
    "a name for the terminal": lambda file: file.create_dataset("\x1b[2J", data=SECRET),
    "a name that is no text": lambda file: file.create_dataset(b"\xff", data=SECRET),
    "a long name": lambda file: file.create_dataset("n" * 300, data=SECRET),
    "deep groups": lambda file: file.create_dataset("/".join("g" * 300), data=SECRET),
    "integers": holding(np.arange(3)),
    "doubles": holding(np.ones(3)),
    "halves": holding(np.ones(3, np.float16)),
    "big-endian": holding(np.ones(3, ">f4")),
    "text": holding("text"),
    "bytes": holding(np.array([b"abc"])),
    "records": holding(np.zeros(2, [("x", "f4"), ("y", "i4")])),
    "arrays of arrays": lambda file: file.create_dataset("w", (3,), dtype=np.dtype(("f4", (2,)))),
    "lists": lambda file: file.create_dataset("w", (3,), dtype=h5py.vlen_dtype(np.float32)),
    "references": lambda file: file.create_dataset("w", (3,), dtype=h5py.ref_dtype),
    "a type elsewhere": named_type,
    "nothing": holding(h5py.Empty("f4")),
    "an empty array": holding(np.zeros((3, 0), np.float32)),
    "huge without data": lambda file: file.create_dataset("w", (2**20, 2**20), dtype="f4"),
    "huge in pieces": lambda file: file.create_dataset("w", (2**20, 2**20), dtype="f4", chunks=(64, 64)),
    "huge, of one value": lambda file: file.create_dataset("w", (2**20, 2**7), dtype="f4", fillvalue=3),
    "compressed bomb": compressed,
    "in pieces": lambda file: file.create_dataset("w", data=SECRET, chunks=(2,)),
    "compact": compact,
    "data elsewhere": elsewhere,
    "virtual": virtual,
    "external link": external_link,
    "soft link": linking("s", h5py.SoftLink("/g/w")),
    "dangling link": linking("s", h5py.SoftLink("/absent")),
    "circle": linking("g/again", "/"),
    "circle of one": linking("g/again", "g"),
    "same array twice": linking("g/again", "g/w"),
}


@pytest.mark.parametrize("what", sorted(HOSTILE))
def test_hostile_models(tmp_path, what):
    path = tmp_path / "m.h5"
    with h5py.File(path, "w") as file:
        HOSTILE[what](file)
    if what in ("data elsewhere", "virtual", "external link"):
        with h5py.File(path, "r") as file:
            assert file["w"][()].tolist() == SECRET.tolist(), "it would show nothing if the link did not work"
    taken = in_child(check_parameters, path)
    # a second name for an array may be read twice, if the file has room for it
    assert not taken or what == "same array twice"


@pytest.mark.parametrize("libver", ["v108", "latest"])
def test_models_in_newer_versions_of_the_format_are_refused(tmp_path, libver):
    with h5py.File(tmp_path / "m.h5", "w", libver=libver) as file:
        file["a"] = SECRET
    assert not in_child(check_parameters, tmp_path / "m.h5")


def patched(path, old, new):
    raw = path.read_bytes()
    assert len(old) == len(new) and old in raw
    path.write_bytes(raw.replace(old, new))
    return path


def numbers(*values):
    return b"".join(value.to_bytes(8, "little") for value in values)


def test_models_that_lie_about_shapes(tmp_path):
    path, address = tmp_path / "m.h5", None
    data = np.arange(77 * 55, dtype=np.float32).reshape(77, 55)
    for shape, size in (((2**31, 2**31), 77 * 55 * 4), ((2**31, 2**31), 2**64), ((0, 55), 0), ((77, 56), 77 * 55 * 4)):
        model_file.save_model(path, {"a": data}, {})
        with h5py.File(path, "r") as file:
            address = file["a"].id.get_offset()
        patched(path, numbers(77, 55), numbers(*shape))
        patched(path, numbers(address, 77 * 55 * 4), numbers(address, size % 2**64))
        assert not in_child(check_parameters, path)


def test_a_small_model_cannot_have_the_same_data_a_thousand_times(tmp_path):
    path, shared = tmp_path / "m.h5", np.ones(1 << 18, np.float32)
    with h5py.File(path, "w", libver="earliest") as file:
        file["0"] = shared
        for i in range(1, 300):
            file.create_dataset(str(i), (1 << 18,), dtype="f4")
        address = file["0"].id.get_offset()
    raw = path.read_bytes()
    # no place yet, and the size
    nowhere = b"\xff" * 8 + numbers(1 << 20)
    assert raw.count(nowhere) == 299
    path.write_bytes(raw.replace(nowhere, numbers(address, 1 << 20)))
    with h5py.File(path, "r") as file:
        assert (file["299"][:9] == 1).all(), "it would show nothing if the file were not as it should be"
    assert not in_child(check_parameters, path)


@pytest.mark.parametrize(
    "changes",
    [
        {"gen_x2y/encoder_image/conv1/W": np.ones((2, 3, 7), np.float32)},
        {"gen_x2y/encoder_image/conv1/W": np.ones((4096, 3), np.float32)},
        {"gen_x2y/encoder_image/conv1/W": np.float32(1)},
        {"dis_x/classifier/conv1/W": np.ones(1, np.float32)},
        {"gen_y2x/absent": np.ones(1, np.float32)},
        {"gen_y2x/decoder_mask/conv/W": np.full((1, 4, 7, 7), np.nan, np.float32)},
        {"gen_y2x/decoder_mask/conv/W": None},
    ],
    ids=lambda changes: "{}={}".format(*next(iter(changes.items())))[:50],
)
def test_models_with_other_names_and_shapes(tmp_path, model, changes):
    path = tmp_path / "m.h5"
    kept = {name: v for name, v in {**model[1], **changes}.items() if v is not None}
    model_file.save_model(path, kept, model[2])

    def use(path):
        values, config = model_file.load_model(path)
        models.create_parameters(model_file.architecture_of(config), np.random.RandomState(0))
        model_file.set_parameters(values, models.NETWORKS, path)
        return values

    assert outcome(use, model[0])
    nn.clear_parameters()
    assert outcome(use, path) is None


# --- the .json beside a model -----------------------------------------------------------------------------------------

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
JSON = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(st.text(max_size=3), SCALARS, max_size=2)
VALUES = JSON | st.sampled_from([2.0, 1e400, -1, 10**30, 10**4000, "a\nb", "\ud800", [[]], {}, "2", "instance", True])
TEXTS = ("", "null", "[]", "3", "9" * 10**5, "\ufeff{}", '{"ngf": 1e999}')
BOMBS_OF_JSON = ("[" * 10**5, '{"a":' * 10**5, "[" + "[3]," * 10**6 + "3]")


@pytest.fixture
def own_model(tmp_path, model, monkeypatch):
    """A copy of the model whose .json may be changed; its parameters are not read again."""
    path = tmp_path / "m.h5"
    path.write_bytes(model[0].read_bytes())
    monkeypatch.setattr(model_file, "read_parameters", lambda _: model[1])
    return path


def test_damaged_json_of_a_model(own_model, model):
    raw = json.dumps(model[2], indent=2).encode()

    @damage(250)
    @given(EDITS)
    def test(edits):
        own_model.with_suffix(".json").write_bytes(edited(raw, edits))
        outcome(check_model, own_model)

    test()


def test_json_of_a_model_with_other_values(own_model, model):
    @damage(150)
    @given(st.dictionaries(st.sampled_from(sorted(model[2])), VALUES, max_size=3))
    def test(changes):
        own_model.with_suffix(".json").write_text(json.dumps({**model[2], **changes}))
        outcome(check_model, own_model)

    test()
    for name in ("ngf", "ndf", "n_blocks", "n_layers_D"):
        for value in (float(model[2][name]), True, "a\nb", None):
            own_model.with_suffix(".json").write_text(json.dumps({**model[2], name: value}))
            assert outcome(check_model, own_model) is None


@pytest.mark.parametrize("text", (*TEXTS, *BOMBS_OF_JSON), ids=lambda text: repr(text[:12]))
def test_hostile_json_of_a_model(own_model, text):
    own_model.with_suffix(".json").write_text(text)
    assert not in_child(check_model, own_model, 40)


# --- args.json of a run -----------------------------------------------------------------------------------------------

GIVEN = vars(train_args("", []))


def check_args(path):
    args = vars(train_args("", ["--resume", "-m", str(path.parent)]))
    assert args.keys() == GIVEN.keys()
    for name in ("ngf", "batch_size", "seed"):
        assert type(args[name]) is int and 0 <= args[name] < 2**32
    return args


def test_damaged_arguments_of_a_run(tmp_path):
    path, raw = tmp_path / "args.json", json.dumps(GIVEN, indent=2).encode()
    path.write_bytes(raw)
    assert check_args(path) == {**GIVEN, "resume": True, "monitor_path": str(tmp_path)}

    @damage(100)
    @given(EDITS)
    def test(edits):
        path.write_bytes(edited(raw, edits))
        outcome(check_args, path)

    test()


def test_arguments_of_a_run_with_other_values(tmp_path):
    path = tmp_path / "args.json"

    @damage(100)
    @given(st.dictionaries(st.sampled_from(sorted(GIVEN)) | st.text(max_size=3), VALUES, max_size=3))
    def test(changes):
        path.write_text(json.dumps({**GIVEN, **changes}))
        outcome(check_args, path)

    test()


@pytest.mark.parametrize(
    "changes",
    [{"help": True}, {"==SUPPRESS==": True}, {"n_layers_D": 10**5}, {"n_layers_D": 10**9}, {"batch_size": 10**3000}],
    ids=lambda changes: repr(changes)[:24],
)
def test_hostile_arguments_of_a_run(tmp_path, changes):
    (tmp_path / "args.json").write_text(json.dumps({**GIVEN, **changes}))
    assert not in_child(check_args, tmp_path / "args.json", 40)


@pytest.mark.parametrize("text", (*TEXTS, *BOMBS_OF_JSON), ids=lambda text: repr(text[:12]))
def test_arguments_of_a_run_that_are_other_json(tmp_path, text):
    (tmp_path / "args.json").write_text(text)
    assert not in_child(check_args, tmp_path / "args.json", 40)


# --- pictures ---------------------------------------------------------------------------------------------------------


def encoded(mode, kind, **options):
    rows = np.random.default_rng(0).integers(0, 256, (11, 13, 3), np.uint8)
    image = Image.fromarray(rows[..., 0] * np.uint16(257)) if mode == "I;16" else Image.fromarray(rows).convert(mode)
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    image.save(buffer, kind, exif=exif, **options)
    return buffer.getvalue()


def with_text():
    text = PngImagePlugin.PngInfo()
    text.add_text("key", "value " * 20, zip=True)
    text.add_itxt("other", "value", zip=True)
    return text


PICTURES = {
    **{f"{mode}.png": encoded(mode, "PNG", pnginfo=with_text()) for mode in ("1", "L", "P", "RGB", "RGBA")},
    "deep.png": encoded("I;16", "PNG"),
    **{f"{mode}.jpg": encoded(mode, "JPEG") for mode in ("L", "RGB", "CMYK")},
    "progressive.jpg": encoded("RGB", "JPEG", progressive=True),
    "webp.png": encoded("RGB", "WEBP"),
    "gif.png": encoded("P", "GIF"),
    "bmp.png": encoded("RGB", "BMP"),
}


def check_picture(path):
    picture, mask = outcome(pictures.read_picture, path), outcome(pictures.read_mask, path)
    assert (picture is None) == (mask is None)
    if picture is None:
        return None
    assert picture.shape == (*mask.shape, 3) and picture.dtype == np.uint8 and mask.dtype == bool
    return picture


def chunk(kind, data):
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def checksums_made_right(raw):
    """Checksums would otherwise keep most damage from what reads the chunks of a PNG."""
    made, at = raw[:8], 8
    while at + 12 <= len(raw):
        length = int.from_bytes(raw[at : at + 4], "big")
        made += chunk(raw[at + 4 : at + 8], raw[at + 8 : at + 8 + length])
        at += 12 + length
    return made


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_pictures(tmp_path):
    @damage(350)
    @given(st.sampled_from(sorted(PICTURES)), EDITS, st.booleans())
    def test(name, edits, fix_checksums):
        raw = edited(PICTURES[name], edits)
        path = tmp_path / f"damaged{Path(name).suffix}"
        path.write_bytes(checksums_made_right(raw) if fix_checksums and raw[1:4] == b"PNG" else raw)
        outcome(check_picture, path)

    test()
    for name, raw in PICTURES.items():
        (tmp_path / name).write_bytes(raw)
        assert check_picture(tmp_path / name).shape in ((13, 11, 3), (11, 13, 3))


def png(width, height, data=b"", *chunks):
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\0\0\0\0"
    parts = (chunk(b"IHDR", header), *chunks, chunk(b"IDAT", zlib.compress(data, 1)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def zeros(megabytes):
    return zlib.compress(bytes(megabytes << 20), 9)


TEXT_BOMBS = [chunk(b"zTXt", b"key%d\0\0" % i + zlib.compress(bytes(1000 << 10))) for i in range(200)]
JPEG = PICTURES["RGB.jpg"]
JPEG_SIZE = JPEG.index(b"\xff\xc0") + 5
BOMBS = {
    "50000x50000.png": png(50000, 50000),
    "10000x10000.png": png(10000, 10000, bytes(10000 * 10001)),
    "2x2147483647.png": png(2, 2**31 - 1),
    "text.png": png(1, 1, b"\0\0", chunk(b"zTXt", b"key\0\0" + zeros(200))),
    "international text.png": png(1, 1, b"\0\0", chunk(b"iTXt", b"key\0\1\0\0\0" + zeros(200))),
    "colour profile.png": png(1, 1, b"\0\0", chunk(b"iCCP", b"key\0\0" + zeros(200))),
    "texts.png": png(1, 1, b"\0\0", *TEXT_BOMBS),
    "65500x65500.jpg": JPEG[:JPEG_SIZE] + b"\xff\xdc\xff\xdc" + JPEG[JPEG_SIZE + 4 :],
    "pixels cut short.png": PICTURES["RGB.png"].replace(b"\0\0\0\x0d\0\0\0\x0b\x08", b"\x7f\0\0\0\0\0\0\x0b\x08"),
}


@pytest.mark.parametrize("name", sorted(BOMBS))
def test_pictures_that_are_bombs(tmp_path, name):
    (tmp_path / name).write_bytes(BOMBS[name])
    assert len(BOMBS[name]) < 1 << 20 and not in_child(check_picture, tmp_path / name)


def test_a_part_said_to_have_gigabytes(tmp_path, monkeypatch):
    """If the system does not provide that much memory, Python raises the error, not the picture's reader."""

    def load(self):
        raise MemoryError

    (tmp_path / "a.png").write_bytes(PICTURES["RGB.png"])
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", load)
    assert outcome(check_picture, tmp_path / "a.png") is None


def test_no_program_is_started_for_a_picture(tmp_path, monkeypatch):
    """Pillow would have Ghostscript draw it, whatever it is called."""
    sentinel, path = tmp_path / "sentinel", tmp_path / "a.png"
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\necho > '{sentinel}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n")
    assert outcome(check_picture, path) is None and not sentinel.exists()
    sentinel.unlink(missing_ok=True)
    with pytest.raises(Exception):  # noqa: B017
        Image.open(path).load()
    assert sentinel.exists(), "it would show nothing if Pillow did not start it"
