# SPDX-License-Identifier: Apache-2.0
"""demo.py before and around its commands; `make demo` runs them all."""

from __future__ import annotations

import shlex

import pytest

import demo
from common.errors import UserError


def test_an_earlier_demo_is_replaced(tmp_path):
    demo.clear(tmp_path / "demo")
    (tmp_path / "demo" / "run").mkdir()
    (tmp_path / "demo" / "run" / "x").touch()
    demo.clear(tmp_path / "demo")
    assert [path.name for path in (tmp_path / "demo").iterdir()] == [demo.MARK]


@pytest.mark.parametrize(("marked", "name"), [(False, "run"), (False, "index.html"), (True, "thesis"), (False, "x")])
def test_what_is_not_the_demo_s_is_left_alone(tmp_path, marked, name):
    if marked:
        (tmp_path / demo.MARK).touch()
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=name):
        demo.clear(tmp_path)
    assert (tmp_path / name).is_dir()


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "demo").touch()
    with pytest.raises(UserError, match="is a file"):
        demo.clear(tmp_path / "demo")


def test_it_works_from_anywhere_and_with_any_name(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    demo.step("datasets/generate_shapes_dataset.py", "--size 32 --train 1 --test 0", save_root=tmp_path / "a folder")
    assert (tmp_path / "a folder" / "trainA" / "0000.png").is_file()
    shown = next(line for line in capfd.readouterr().out.splitlines() if line.startswith("$ "))
    assert shlex.split(shown)[-1] == str(tmp_path / "a folder")
    with pytest.raises(UserError, match="stops"):
        demo.step("datasets/generate_shapes_dataset.py", "--size 0")
