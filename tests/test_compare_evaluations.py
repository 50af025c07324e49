# SPDX-License-Identifier: Apache-2.0
"""compare_evaluations.py on evaluations written here."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

import compare_evaluations
from metrics import report
from metrics.report import NO_TRANSLATION, REAL, TRANSLATED, Evaluation


@pytest.fixture()
def evaluation(tmp_path):
    """Write an evaluation whose translations have a PSNR and a grey level; return its folder."""

    def write(name, psnr, grey=50, pictures=("p0", "p1", "p2"), directions=("AtoB",), **more):
        folder, found = tmp_path / name, {}
        for direction in directions:
            found[direction] = Evaluation()
            for i, picture in enumerate(pictures):
                found[direction].measured[TRANSLATED][picture] = {"background_psnr": [psnr]}
                found[direction].measured[NO_TRANSLATION][picture] = {"background_psnr": [100.0]}
                found[direction].measured[REAL][picture] = {"score_pictures": [1.0]}
                found[direction].ranks[picture] = float(i)
                report.write_cells(folder, direction, picture, [np.full((8, 12, 3), grey, np.uint8)] * 5)
        accuracy = {"pictures": 0.97, "instances": 0.85}
        about = {"dataroot": "data/set", "phase": "test", "size": [8, 12], "classifier_accuracy": accuracy}
        report.write(folder, {**about, **more}, found, [])
        return folder

    return write


@pytest.fixture()
def compare(run_main, tmp_path):
    """Run the command into `out`; return (exit code, standard output, standard error)."""

    def run(*arguments):
        return run_main(compare_evaluations, *arguments, "--output", tmp_path / "out")

    return run


def test_a_column_for_each_between_the_two_to_read_them_by(evaluation, compare, tmp_path):
    one, two = evaluation("one", 20.0, directions=("AtoB", "BtoA")), evaluation("two", 30.0, 200)
    code, said, err = compare(f"first={one}", f"second={two}")
    assert code == 0, err
    assert (tmp_path / "out" / "comparison.md").read_text() in said
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in said.splitlines() if line.startswith("|")]
    assert rows[0] == ["", "no translation", "first", "second", "real target pictures"]
    assert ["background PSNR, dB", "100.0", "20.0", "30.0", ""] in rows
    assert ["classification score, whole pictures", "", "", "", "100.0%"] in rows
    assert "- second: the classifiers are right about 97.0% of pictures, 85.0% of instances" in said
    # only what both have is compared
    assert "BtoA" not in said
    picture = np.asarray(Image.open(tmp_path / "out" / "comparison_AtoB.png").convert("L"))
    assert {50, 200} <= set(np.unique(picture))


@pytest.mark.parametrize("arguments", ["one=a", "one two", "one=a one=b", "=a two=b", "one= b=c", "a|b=c d=e"])
def test_other_arguments_are_refused(compare, arguments):
    code, _, err = compare(*arguments.split())
    assert code == 2 and err.count("\n") == 1


def test_what_is_no_evaluation_is_named(evaluation, compare, tmp_path):
    one = evaluation("one", 20.0)
    assert "absent has no metrics.json" in compare(f"one={one}", f"two={tmp_path / 'absent'}")[2]
    (tmp_path / "damaged").mkdir()
    for damaged in ([1], {}, {**json.loads((one / "metrics.json").read_text()), "directions": {"AtoB": {}}}):
        (tmp_path / "damaged" / "metrics.json").write_text(json.dumps(damaged))
        assert "metrics.json is not as" in compare(f"one={one}", f"two={tmp_path / 'damaged'}")[2]


@pytest.mark.parametrize("other", [{"dataroot": "data/other"}, {"phase": "train"}, {"size": [16, 24]}])
def test_evaluations_of_other_data_are_not_compared(evaluation, compare, tmp_path, other):
    code, _, err = compare(f"one={evaluation('one', 20.0)}", f"two={evaluation('two', 30.0, **other)}")
    assert code == 2 and "compare evaluations of the same" in err and not (tmp_path / "out").exists()


def test_the_distances_are_shown_with_their_intervals_and_older_evaluations_without(evaluation, compare):
    """metrics.json of older versions has no distances, and does not name its classifiers."""
    old, new = evaluation("old", 20.0), evaluation("new", 30.0, classifiers="EfficientNet-Lite0")
    found = json.loads((new / "metrics.json").read_text())
    summary = found["directions"]["AtoB"]["summary"]
    summary[TRANSLATED]["kernel_pictures"] = {"mean": 0.02, "interval": [0.01, 0.035]}
    summary[TRANSLATED]["background_distance"] = {"mean": 0.5, "values": 3, "pictures": 3, "standard_error": 0.02}
    (new / "metrics.json").write_text(json.dumps(found))
    code, said, err = compare(f"old={old}", f"new={new}")
    assert code == 0, err
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in said.splitlines() if line.startswith("|")]
    label = report.METRICS["kernel_pictures"][0]
    assert [label, "", "", "0.020 (0.010 to 0.035)", ""] in rows
    assert [report.METRICS["background_distance"][0], "", "", "0.5000 ± 0.0200", ""] in rows
    assert "different classifiers (old: small, new: EfficientNet-Lite0)" in said


def test_names_are_not_read_as_formulas(evaluation, compare):
    assert compare(f"a$\\q$={evaluation('one', 20.0)}", f"two={evaluation('two', 30.0)}")[0] == 0


def test_nothing_in_common_is_said(evaluation, compare):
    one = evaluation("one", 20.0)
    assert "no direction in common" in compare(f"one={one}", f"two={evaluation('two', 1.0, directions=['BtoA'])}")[2]
    assert "no picture in common" in compare(f"one={one}", f"two={evaluation('three', 1.0, pictures=['q'])}")[2]


def test_a_comparison_is_not_overwritten_unasked(evaluation, compare):
    arguments = [f"one={evaluation('one', 20.0)}", f"two={evaluation('two', 30.0)}"]
    assert compare(*arguments)[0] == 0
    code, _, err = compare(*arguments)
    assert code == 2 and "--overwrite" in err
    assert compare(*arguments, "--overwrite")[0] == 0
