# SPDX-License-Identifier: Apache-2.0
"""Reading .pth files and converting them:

    python -m pytest tests/test_convert_pytorch.py

The files that PyTorch itself wrote are under tests/fixtures/reference; small ones, good and hostile, are put together
here operation by operation, because a hostile file does not follow the rules of a pickler.
"""

from __future__ import annotations

import io
import json
import pickle
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from collections import OrderedDict

import h5py
import nnabla as nn
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import convert_pytorch
import models
from common.errors import UserError, run_main
from tests.helpers import ROOT
from tests.helpers.damage import EDITS, edited
from tests.helpers.pth_files import (
    FORMATS,
    KINDS,
    MAGIC,
    ORDERED_DICT,
    call,
    legacy_bytes,
    name,
    state_dict,
    storage,
    tensor,
    text,
    tup,
    whole,
    write_arrays,
    write_pth,
)
from weights import model_file
from weights.pth_reader import read_state_dict

REFERENCE = ROOT / "tests" / "fixtures" / "reference"
REFERENCE_FILES = sorted(REFERENCE.glob("*/checkpoint/*.pth"))


def random_state(layers, rng):
    return {key: rng.standard_normal(shape).astype(np.float32) for key, (_, shape) in layers.items()}


def assert_refused(path, *words, peak=40e6):
    """Reading raises a UserError of one line with the file's name and `words`, and takes little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(UserError) as caught:
            read_state_dict(path)
        assert tracemalloc.get_traced_memory()[1] < peak
    finally:
        tracemalloc.stop()
    message = str(caught.value)
    assert str(path) in message and "\n" not in message and message.isprintable()
    for word in words:
        assert word in message


def run_cli(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["convert_pytorch.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        run_main(convert_pytorch.main)
    out, err = capsys.readouterr()
    return caught.value.code, out, err


# Files that PyTorch wrote are read exactly.


class TrustingUnpickler(pickle.Unpickler):
    """Python's own unpickler, for the reference files, which are known to be harmless."""

    def find_class(self, module, attribute):
        return OrderedDict if attribute == "OrderedDict" else (lambda *a: a) if "rebuild" in attribute else attribute

    def persistent_load(self, reference):
        return reference


def truth_of_zip(path):
    """PyTorch numbers the storages of an archive in the order of the state dict."""
    with zipfile.ZipFile(path) as archive:
        folder = path.stem
        state = TrustingUnpickler(io.BytesIO(archive.read(f"{folder}/data.pkl"))).load()
        raw = [np.frombuffer(archive.read(f"{folder}/data/{i}"), "<f4") for i in range(len(state))]
    return {key: numbers.reshape(value[2]) for (key, value), numbers in zip(state.items(), raw)}


def truth_of_legacy(path):
    with path.open("rb") as file:
        _, _, _, state, keys = (TrustingUnpickler(file).load() for _ in range(5))
        raw = {key: np.fromfile(file, "<f4", np.fromfile(file, "<i8", 1)[0]) for key in keys}
        assert not file.read()
    return {key: raw[value[0][2]].reshape(value[2]) for key, value in state.items()}


@pytest.mark.parametrize("path", REFERENCE_FILES, ids=lambda p: f"{p.parts[-3]}-{p.stem}")
def test_reference_files_are_read_exactly(path):
    truth = truth_of_zip(path) if zipfile.is_zipfile(path) else truth_of_legacy(path)
    arrays = read_state_dict(path)
    assert list(arrays) == list(truth)
    for key, value in truth.items():
        assert arrays[key].dtype == np.float32
        np.testing.assert_array_equal(arrays[key], value)


def test_the_reference_has_both_formats():
    assert {zipfile.is_zipfile(path) for path in REFERENCE_FILES} == {True, False} and len(REFERENCE_FILES) == 8


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("dtype", sorted(KINDS))
def test_types_and_layouts(tmp_path, fmt, dtype):
    numbers = np.arange(24).astype(f"<{dtype}")
    held = storage("0", KINDS[dtype], 24, fmt)
    entries = {
        "whole": tensor(held, 0, (2, 3, 4), (12, 4, 1)),
        "part": tensor(held, 5, (2, 3), (3, 1)),
        "turned": tensor(held, 1, (4, 3), (1, 5)),
        "single": tensor(held, 7, (), ()),
        "one": tensor(held, 23, (1, 1), (2**70, 1)),
    }
    arrays = read_state_dict(write_pth(tmp_path / "a.pth", fmt, state_dict(entries), [("0", numbers)]))
    assert all(array.dtype == np.dtype(dtype) and array.dtype.isnative for array in arrays.values())
    np.testing.assert_array_equal(arrays["whole"], numbers.reshape(2, 3, 4))
    np.testing.assert_array_equal(arrays["part"], numbers[5:11].reshape(2, 3))
    np.testing.assert_array_equal(arrays["turned"], numbers[1:16].reshape(3, 5).T[:4])
    assert arrays["single"].shape == () and arrays["single"] == 7
    assert arrays["one"].shape == (1, 1) and arrays["one"] == 23


def test_big_endian_archives(tmp_path):
    body = state_dict({"w": tensor(storage("0", "FloatStorage", 3, "zip"), 0, (3,), (1,))})
    path = write_pth(tmp_path / "a.pth", "zip", body, [("0", np.array([1, 2, 3], ">f4"))], byteorder=b"big")
    np.testing.assert_array_equal(read_state_dict(path)["w"], np.array([1, 2, 3], np.float32))


@pytest.mark.parametrize("fmt", FORMATS)
def test_parameters_and_data_parallel(tmp_path, fmt):
    held = tensor(storage("0", "FloatStorage", 2, fmt), 0, (2,), (1,))
    parameter = call(name("torch._utils", "_rebuild_parameter"), held, b"\x88", ORDERED_DICT)
    data = [("0", np.array([4, 5], np.float32))]
    path = write_pth(tmp_path / "a.pth", fmt, state_dict({"module.a.module.w": parameter}), data)
    assert read_state_dict(path)["a.module.w"].tolist() == [4, 5]


def test_a_state_dict_of_python_2(tmp_path):
    old = call(
        name("torch._utils", "_rebuild_tensor"), storage("0", "FloatStorage", 2, "legacy"), b"K\x00", b"K\x02\x85"
    )
    old = old[:-2] + b"K\x01\x85" + b"tR"
    body = call(name("collections", "OrderedDict"), b"](](U\x01w" + old + b"ee")
    path = write_pth(tmp_path / "a.pth", "legacy", body, [("0", np.array([4, 5], np.float32))])
    assert read_state_dict(path)["w"].tolist() == [4, 5]


# Hostile files.


def evil_bodies(sentinel):
    """Pickles that would make the file `sentinel`, and the name under which each is to be refused."""
    touch, write = f"touch {sentinel}", f"open({str(sentinel)!r}, 'w')"
    harmless = tensor(storage("0", "FloatStorage", 1, "zip"), 0, (1,), (1,))
    stacked = b"\x8c\x02os\x8c\x06system\x93" + tup(text(touch)) + b"R"
    return {
        "os.system": call(name("os", "system"), text(touch)),
        "posix.system": state_dict({"w": call(name("posix", "system"), text(touch))}),
        "builtins.eval": state_dict({"w": harmless, "v": call(name("builtins", "eval"), text(write))}),
        "builtins.exec": b"0".join([call(name("builtins", "exec"), text(write)), state_dict({})]),
        "subprocess.Popen": state_dict({}) + tup(text(touch)) + name("subprocess", "Popen"),
        "__builtin__.eval": b"(" + text(write) + b"i__builtin__\neval\n",
        "system": stacked,
        "torch.load": call(name("torch", "load"), text("other.pth")),
        "torch.hub.load": call(name("torch.hub", "load"), text("other")),
        "collections.Counter": state_dict({"w": name("collections", "Counter")}),
        "collections.OrderedDict.__init__": call(name("collections", "OrderedDict.__init__"), b"}"),
        "torch._utils._rebuild_tensor_v2.__globals__": name("torch._utils", "_rebuild_tensor_v2.__globals__"),
        "models.networks.ResnetSetGenerator": name("models.networks", "ResnetSetGenerator") + b")\x81}b",
        "torch.BFloat16Storage": storage("0", "BFloat16Storage", 1, "zip"),
    }


@pytest.mark.parametrize("fmt", (*FORMATS, "bare"))
@pytest.mark.parametrize("what", sorted(evil_bodies("")))
def test_hostile_names_are_refused_by_name(tmp_path, fmt, what):
    sentinel = tmp_path / "sentinel"
    body = evil_bodies(sentinel)[what]
    path = tmp_path / "latest_net_G_A.pth"
    if fmt == "bare":
        path.write_bytes(b"\x80\x02" + body + b".")
    else:
        write_pth(path, fmt, body, [("0", np.zeros(1, np.float32))])
    # `exec` behind a POP is refused when named, before the POP
    assert_refused(path, "refused", what)
    assert not sentinel.exists()


def test_the_hostile_pickles_would_work(tmp_path):
    """Otherwise the tests above would show nothing."""
    for i, what in enumerate(("os.system", "posix.system", "builtins.exec", "system", "__builtin__.eval")):
        sentinel = tmp_path / str(i)
        body = evil_bodies(sentinel)[what]
        subprocess.run([sys.executable, "-c", f"import pickle; pickle.loads({b'%c%c' % (128, 2) + body + b'.'!r})"])
        assert sentinel.exists(), what


@pytest.mark.parametrize("protocol", range(6))
def test_a_real_pickler_s_hostile_object(tmp_path, protocol):
    sentinel = tmp_path / "sentinel"

    class Evil:
        def __reduce__(self):
            return eval, (f"open({str(sentinel)!r}, 'w')",)

    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps({"w": Evil()}, protocol=protocol))
    assert_refused(path, "refused")
    path.write_bytes(pickle.dumps({"w": Evil()}, protocol=protocol))
    assert_refused(path)
    assert not sentinel.exists()


def tensor_bodies(fmt):
    """Tensors that do not fit the 6 numbers that they are said to view, and a word of the reason to be given."""
    held = storage("0", "FloatStorage", 6, fmt)
    huge = storage("0", "FloatStorage", 2**40, fmt)
    function = name("torch._utils", "_rebuild_tensor_v2")
    return {
        "offset outside": (tensor(held, 6, (1,), (1,)), "outside"),
        "size outside": (tensor(held, 0, (7,), (1,)), "outside"),
        "strides outside": (tensor(held, 0, (2, 3), (4, 1)), "outside"),
        "offset and strides": (tensor(held, 1, (2, 3), (3, 1)), "outside"),
        "negative offset": (tensor(held, -1, (2,), (1,)), "negative"),
        "negative size": (tensor(held, 0, (-1, -6), (1, 1)), "negative"),
        "negative stride": (tensor(held, 5, (6,), (-1,)), "negative"),
        "empty": (tensor(held, 0, (0, 2**62), (1, 1)), "empty"),
        "stride 0 expansion": (tensor(held, 0, (2**40, 2**40), (0, 0)), "outside"),
        "overflowing": (tensor(held, 0, (2**32, 2**32), (2**32, 2**32)), "outside"),
        "huge numbers": (tensor(held, 2**900, (1,), (1,)), "outside"),
        "true for a number": (call(function, held, b"\x88", b"K\x01\x85", b"K\x01\x85", b"\x89", b"}"), "bool"),
        "too few strides": (tensor(held, 0, (2, 3), (1,)), "kind"),
        "too many dimensions": (tensor(held, 0, (1,) * 100, (1,) * 100), "kind"),
        "storage that is not one": (call(function, b"}", b"K\x00", b"K\x01\x85", b"K\x01\x85", b"\x89", b"}"), "dict"),
        "too few arguments": (call(function, held), "argument"),
        "bogus count": (tensor(huge, 0, (2**40,), (1,)), "damaged"),
        "bogus huge count": (tensor(storage("0", "FloatStorage", 2**900, fmt), 0, (6,), (1,)), "damaged"),
        "count too small": (tensor(storage("0", "FloatStorage", 5, fmt), 0, (5,), (1,)), "not as long"),
        "negative count": (tensor(storage("0", "FloatStorage", -6, fmt), 0, (6,), (1,)), "negative"),
        "reference too short": (tup(text("storage"), name("torch", "FloatStorage")) + b"Q", "reference"),
        "two kinds": (tup(held, storage("0", "IntStorage", 6, fmt)), "two descriptions"),
        "absent data": (tensor(storage("1", "FloatStorage", 6, fmt), 0, (6,), (1,)), "damaged"),
        "climbing key": (tensor(storage("../data/0", "FloatStorage", 6, fmt), 0, (6,), (1,)), "damaged"),
    }


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("what", sorted(tensor_bodies("zip")))
def test_tensors_outside_their_data(tmp_path, fmt, what):
    value, word = tensor_bodies(fmt)[what]
    body = state_dict({"w": value})
    assert_refused(write_pth(tmp_path / "a.pth", fmt, body, [("0", np.zeros(6, np.float32))]), word)


@pytest.mark.parametrize("fmt", FORMATS)
def test_many_tensors_of_the_same_data(tmp_path, fmt):
    held = tensor(storage("0", "FloatStorage", 10**5, fmt), 0, (10**5,), (1,))
    body = state_dict({str(i): held for i in range(500)})
    assert_refused(write_pth(tmp_path / "a.pth", fmt, body, [("0", np.zeros(10**5, np.float32))]), "larger than")


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize(
    "body",
    (
        b"]" + b"]" * 10**5 + b"a" * 10**5,
        b"}" + b"N" + b"\x85" * 10**5 + b"Ns",
        b"}" * 3 * 10**5 + b"N",
        b"(" * 3 * 10**5,
        b"I" + b"9" * 4 * 10**5 + b"\n",
        b"Nr\xff\xff\xff\xff",
        b"N\x96" + b"\xff" * 6 + b"\x00\x00",
        b"\x8e" + b"\xff" * 6 + b"\x00\x00",
        b"0" * 10,
        b"tsbeaQR",
        b"K\x05",
        b"}}s",
        ORDERED_DICT + b"K\x05" + b"K\x05s",
        call(name("collections", "OrderedDict"), b"K\x05"),
        call(name("torch", "FloatStorage"), b"K\x05"),
        b"](" + b"N" * 5 + b"tb",
    ),
    ids=lambda body: ascii(body[:12]),
)
def test_pickles_made_to_exhaust_or_confuse(tmp_path, fmt, body):
    assert_refused(write_pth(tmp_path / "a.pth", fmt, body), peak=60e6)


def test_compressed_archives(tmp_path):
    numbers = np.zeros(50_000_000, np.uint8)
    body = state_dict({"w": tensor(storage("0", "ByteStorage", numbers.size, "zip"), 0, (numbers.size,), (1,))})
    path = write_pth(tmp_path / "a.pth", "zip", body, [("0", numbers)], compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 10**5
    assert_refused(path, "compressed")


def test_archives_that_lie_about_sizes(tmp_path):
    count = 2**30
    body = state_dict({"w": tensor(storage("0", "ByteStorage", count, "zip"), 0, (count,), (1,))})
    path = write_pth(tmp_path / "a.pth", "zip", body, [("0", np.zeros(6, np.uint8))])
    raw = bytearray(path.read_bytes())
    entry = raw.rindex(b"archive/data/0") - 46
    raw[entry + 20 : entry + 28] = struct.pack("<II", count, count)
    path.write_bytes(raw)
    assert_refused(path)
    # the directory itself, which zipfile reads whole
    end = raw.rindex(b"PK\x05\x06")
    path.write_bytes(bytes(raw[:end]) + bytes(10**7) + raw[end : end + 12] + struct.pack("<II", 10**7, end) + b"\0\0")
    assert_refused(path, "directory")


def test_a_wrong_checksum_is_noticed(tmp_path):
    path = write_arrays(tmp_path / "a.pth", "zip", {"w": np.full(9, 1.5, np.float32)})
    raw = path.read_bytes()
    path.write_bytes(raw.replace(np.full(9, 1.5, np.float32).tobytes(), np.full(9, 1.25, np.float32).tobytes()))
    assert_refused(path, "damaged")


@pytest.mark.parametrize("fmt", FORMATS)
def test_every_truncation_is_noticed(tmp_path, fmt):
    raw = write_arrays(tmp_path / "a.pth", fmt, {"w": np.arange(6, dtype=np.float32)}).read_bytes()
    path = tmp_path / "short.pth"
    for length in range(len(raw)):
        path.write_bytes(raw[:length])
        with pytest.raises(UserError):
            read_state_dict(path)


@pytest.mark.parametrize(
    "content, word",
    (
        (b"", "empty"),
        (b"<!DOCTYPE html><title>Sign in</title>", "not a PyTorch file"),
        (b"\x89PNG\r\n\x1a\n", "not a PyTorch file"),
        (b"PK", "not a PyTorch file"),
        (b"PK\x03\x04", "damaged"),
        (pickle.dumps({"a": 1}, protocol=2), "not one of torch.save"),
        (b"\x80\x02K\x05.", "not one of torch.save"),
        (b"\x80\x02" + whole(MAGIC) + b".\x80\x02K\x05.", "version"),
        (legacy_bytes(b"K\x05", []), "no state dict"),
        (legacy_bytes(state_dict({"epoch": b"K\x05"}), []), "epoch"),
        (legacy_bytes(state_dict({"\x1b[2J\n": b"K\x05"}), []), "not a tensor"),
    ),
)
def test_files_that_are_no_state_dict(tmp_path, content, word):
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    assert_refused(path, word)


def test_things_that_are_no_files(tmp_path):
    assert_refused(tmp_path, "not a file")
    assert_refused(tmp_path / "absent.pth", "not a file")
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("readme.txt", "no data.pkl")
    assert_refused(tmp_path / "a.pth", "data.pkl")


@pytest.mark.parametrize("fmt", (*FORMATS, "zipped again"))
def test_damaged_files_never_raise_anything_else(tmp_path_factory, fmt):
    path = tmp_path_factory.mktemp("fuzz") / "a.pth"
    arrays = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "a.bias": np.ones(2, np.float32)}
    raw = write_arrays(path, "legacy" if fmt == "legacy" else "zip", arrays).read_bytes()
    with zipfile.ZipFile(io.BytesIO(raw)) if fmt == "zipped again" else io.BytesIO() as archive:
        members = {n: archive.read(n) for n in archive.namelist()} if fmt == "zipped again" else {}

    @settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(EDITS)
    def damaged(edits):
        if members:  # checksums would otherwise keep most damage from the pickle
            body = edited(members["archive/data.pkl"], edits)
            with zipfile.ZipFile(path, "w") as again:
                for member, content in {**members, "archive/data.pkl": body}.items():
                    again.writestr(member, content)
        else:
            path.write_bytes(edited(raw, edits))
        try:
            result = read_state_dict(path)
        except UserError as error:
            assert "\n" not in str(error)
        else:
            assert sum(array.nbytes for array in result.values()) <= path.stat().st_size

    damaged()


# From the authors' names to ours.


def test_parameter_counts_of_the_paper_s_networks():
    def count(layers):
        return sum(int(np.prod(shape)) for name, (ours, shape) in layers.items() if not ours.endswith("/u"))

    assert count(convert_pytorch.generator_layers(64, 9)) == 26_815_108
    assert count(convert_pytorch.discriminator_layers(64)) == 9_721_729


@pytest.mark.parametrize("case", ("one-pass", "two-pass"))
def test_conversion_of_the_reference(case, tmp_path, monkeypatch, capsys):
    source, output = REFERENCE / case / "checkpoint", tmp_path / "model.h5"
    sizes = ("--fineSizeH", 64, "--fineSizeW", 48)
    code, out, err = run_cli(monkeypatch, capsys, "--source", source, "--output", output, *sizes, "--ins-per", 3)
    assert (code, err) == (0, "")
    assert "ngf 4, ndf 4, n_blocks 9" in out and "translate.py --model" in out and "107,788" in out
    config = json.loads(output.with_suffix(".json").read_text())
    assert config == {
        **{"ngf": 4, "ndf": 4, "n_blocks": 9, "n_layers_D": 3, "norm": "instance", "set_order": "decreasing"},
        **{"fineSizeH": 64, "fineSizeW": 48, "ins_per": 3, "ins_max": 4, "iteration": None},
        "networks": ["dis_x", "dis_y", "gen_x2y", "gen_y2x"],
    }
    with h5py.File(output, "r") as saved:
        for file, theirs, ours in (
            ("G_A", "encoder_img.1.weight", "gen_x2y/encoder_image/conv1/W"),
            ("G_A", "encoder_seg.7.bias", "gen_x2y/encoder_mask/conv3/b"),
            ("G_A", "encoder_img.18.conv_block.5.weight", "gen_x2y/encoder_image/block9/conv2/W"),
            ("G_B", "encoder_seg.10.conv_block.1.bias", "gen_y2x/encoder_mask/block1/conv1/b"),
            ("G_B", "decoder_img.3.weight", "gen_y2x/decoder_image/deconv2/W"),
            ("G_B", "decoder_seg.7.weight", "gen_y2x/decoder_mask/conv/W"),
            ("D_A", "feature_seg.5.module.weight_bar", "dis_y/feature_mask/conv3/W"),
            ("D_B", "classifier.3.module.bias", "dis_x/classifier/conv2/b"),
            ("D_B", "feature_img.2.module.weight_u", "dis_x/feature_image/conv2/u"),
        ):
            truth = read_state_dict(source / f"latest_net_{file}.pth")[theirs]
            np.testing.assert_array_equal(saved[ours][()], truth[None] if ours.endswith("u") else truth)


def test_a_converted_model_has_the_parameters_that_the_networks_have(tmp_path):
    output = tmp_path / "model.h5"
    source = str(REFERENCE / "one-pass" / "checkpoint")
    assert convert_pytorch.main(["--source", source, "--output", str(output)]) == 0
    parameters, config = model_file.load_model(output)
    nn.clear_parameters()
    try:
        models.create_parameters(model_file.architecture_of(config), np.random.RandomState(0))
        own = {key: value.shape for key, value in nn.get_parameters(grad_only=False).items()}
    finally:
        nn.clear_parameters()
    assert {key: value.shape for key, value in parameters.items()} == own


@pytest.fixture
def folder(tmp_path):
    """Two small generators as `latest`, one in each format, the first as an old PyTorch on several GPUs saved it."""
    rng = np.random.default_rng(0)
    layers = convert_pytorch.generator_layers(2, 1)
    for network, fmt, prefix in (("G_A", "legacy", "module."), ("G_B", "zip", "")):
        state = {prefix + key: value for key, value in random_state(layers, rng).items()}
        state[f"{prefix}encoder_img.2.running_mean"] = np.zeros(2, np.float32)
        state[f"{prefix}encoder_img.2.num_batches_tracked"] = np.array([5], np.int64)
        write_arrays(tmp_path / f"latest_net_{network}.pth", fmt, state)
    return tmp_path


def change(path, **changes):
    """Replace (or with None remove) parameters; `__` stands for the dots of their names."""
    state = {**read_state_dict(path), **{key.replace("__", "."): value for key, value in changes.items()}}
    write_arrays(path, "zip", {key: value for key, value in state.items() if value is not None})


def test_generators_alone(folder, monkeypatch, capsys):
    output = folder / "model.h5"
    code, out, err = run_cli(monkeypatch, capsys, "--source", folder, "--output", output)
    assert (code, err) == (0, "") and "--fineSizeH" in out
    parameters, config = model_file.load_model(output)
    assert config["networks"] == ["gen_x2y", "gen_y2x"] and config["ngf"] == 2 and config["n_blocks"] == 1
    assert config["ndf"] is config["n_layers_D"] is config["fineSizeH"] is None
    assert len(parameters) == 2 * len(convert_pytorch.generator_layers(2, 1))
    (folder / "latest_net_G_A.pth").unlink()
    code, out, _ = run_cli(monkeypatch, capsys, "--source", folder, "--output", folder / "b.h5")
    assert code == 0 and "BtoA" in out and model_file.load_model(folder / "b.h5")[1]["networks"] == ["gen_y2x"]


def test_half_and_double_become_single(folder):
    bias = np.array([0.5, 0.25])
    change(folder / "latest_net_G_B.pth", encoder_img__1__bias=bias, encoder_seg__1__bias=bias.astype(np.float16))
    convert_pytorch.main(["--source", str(folder), "--output", str(folder / "model.h5")])
    parameters, _ = model_file.load_model(folder / "model.h5")
    for encoder in ("encoder_image", "encoder_mask"):
        assert parameters[f"gen_y2x/{encoder}/conv1/b"].dtype == np.float32
        np.testing.assert_array_equal(parameters[f"gen_y2x/{encoder}/conv1/b"], bias)


@pytest.mark.parametrize(
    "changes, words",
    (
        ({"decoder_img__3__bias": None}, ("decoder_img.3.bias missing",)),
        ({"encoder_img__2__weight": np.ones(2, np.float32)}, ("encoder_img.2.weight not known", "instance")),
        ({"decoder_seg__7__weight": np.ones((2, 6, 7, 7), np.float32)}, ("decoder_seg.7.weight", "(1, 6, 7, 7)")),
        ({"encoder_img__1__weight": None}, ("encoder_img.1.weight",)),
        ({"encoder_img__1__weight": np.ones((2, 147), np.float32)}, ("encoder_img.1.weight",)),
        ({"encoder_img__1__bias": np.array([1, np.nan], np.float32)}, ("encoder_img.1.bias", "NaN")),
        ({"encoder_img__1__bias": np.array([1, 1e300])}, ("encoder_img.1.bias", "infinity")),
        ({"encoder_img__1__bias": np.array([1, 2])}, ("encoder_img.1.bias", "int64")),
    ),
)
def test_networks_of_another_kind(folder, monkeypatch, capsys, changes, words):
    change(folder / "latest_net_G_B.pth", **changes)
    check_refused(monkeypatch, capsys, folder, "latest_net_G_B.pth", *words)


def check_refused(monkeypatch, capsys, folder, *words, options=(), output="model.h5"):
    """The command line says `words` in one line, exits with 2 and writes nothing."""
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    code, _, err = run_cli(monkeypatch, capsys, "--source", folder, "--output", folder / output, *options)
    assert code == 2 and err.count("\n") == 1 and err.endswith("\n")
    for word in words:
        assert word in err
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_different_trainings_are_not_mixed(folder, monkeypatch, capsys):
    state = random_state(convert_pytorch.generator_layers(3, 1), np.random.default_rng(0))
    write_arrays(folder / "latest_net_G_B.pth", "zip", state)
    check_refused(monkeypatch, capsys, folder, "ngf", "2 in gen_x2y", "3 in gen_y2x")
    state = random_state(convert_pytorch.generator_layers(2, 2), np.random.default_rng(0))
    write_arrays(folder / "latest_net_G_B.pth", "zip", state)
    check_refused(monkeypatch, capsys, folder, "n_blocks")


def test_discriminators_come_complete(folder, monkeypatch, capsys):
    state = random_state(convert_pytorch.discriminator_layers(2), np.random.default_rng(0))
    write_arrays(folder / "latest_net_D_A.pth", "legacy", state)
    check_refused(monkeypatch, capsys, folder, "latest_net_D_B.pth")
    write_arrays(folder / "latest_net_D_B.pth", "zip", {**state, "x.module.weight_v": np.ones(3, np.float32)})
    assert convert_pytorch.main(["--source", str(folder), "--output", str(folder / "model.h5")]) == 0
    write_arrays(folder / "latest_net_D_B.pth", "zip", read_state_dict(folder / "latest_net_G_A.pth"))
    check_refused(monkeypatch, capsys, folder, "latest_net_D_B.pth", "discriminator", output="other.h5")


def test_epochs_that_are_there_are_named(folder, monkeypatch, capsys):
    for network in ("G_A", "G_B"):
        path = folder / f"latest_net_{network}.pth"
        path.rename(folder / f"200_net_{network}.pth")
    (folder / "90_net_G_A.pth").write_bytes(b"")
    check_refused(monkeypatch, capsys, folder, "90, 200", "--epoch 200")
    assert convert_pytorch.main(["--source", str(folder), "--epoch", "200", "--output", str(folder / "m.h5")]) == 0


def test_outputs_are_checked_first(folder, monkeypatch, capsys):
    check_refused(monkeypatch, capsys, folder, ".h5", output="model.pth")
    check_refused(monkeypatch, capsys, folder, "mkdir", output="absent/model.h5")
    check_refused(monkeypatch, capsys, folder, "fineSizeW", options=("--fineSizeH", "20"))
    (folder / "model.json").write_text("precious")
    check_refused(monkeypatch, capsys, folder, "model.json", "--overwrite")
    code, _, _ = run_cli(monkeypatch, capsys, "--source", folder, "--output", folder / "model.h5", "--overwrite")
    assert code == 0 and json.loads((folder / "model.json").read_text())["ngf"] == 2
    check_refused(monkeypatch, capsys, folder, "model.h5", "--overwrite")
    code, _, err = run_cli(monkeypatch, capsys, "--source", folder, "--output", folder / "c.h5", "--ins-per", "0")
    assert code == 2 and "--ins-per" in err


@pytest.mark.parametrize("content", (b"", b"<html>", b"\x80\x02cos\nsystem\n", b"PK\x03\x04 cut", b"\x80\x02}"))
def test_bad_files_on_the_command_line(folder, monkeypatch, capsys, content):
    (folder / "latest_net_G_B.pth").write_bytes(content)
    check_refused(monkeypatch, capsys, folder, "latest_net_G_B.pth")


@pytest.mark.parametrize("fmt", FORMATS)
def test_the_command_itself_refuses_a_hostile_file(tmp_path, fmt):
    sentinel = tmp_path / "sentinel"
    write_pth(tmp_path / "latest_net_G_A.pth", fmt, evil_bodies(sentinel)["posix.system"])
    command = [sys.executable, "convert_pytorch.py", "--source", str(tmp_path), "--output", str(tmp_path / "m.h5")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert "latest_net_G_A.pth: refused: the file wants to run posix.system" in done.stderr
    assert not sentinel.exists() and not (tmp_path / "m.h5").exists()
