# SPDX-License-Identifier: Apache-2.0
"""The rules about imports and folders, checked on the syntax trees of the project's Python files.

Imports inside functions count too. Each folder, and each file at the top, must have a row in the table.
"""

from __future__ import annotations

import ast
import os
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Dict, List, NamedTuple, Set

import pytest

ROOT = Path(__file__).resolve().parents[1]

TRANSLATION = {"common", "data", "backend", "models", "weights"}
BELOW_SCRIPTS = {*TRANSLATION, "losses", "masks", "translation", "training", "metrics", "exporting", "instagan", "args"}
SCRIPTS = (
    *("train", "translate", "evaluate", "segment", "export", "convert_pytorch", "compare_evaluations", "demo", "app"),
)

# A name stands for a folder with all its modules, a file at the top, or one module of a folder. Each folder may also
# import its own modules.
MAY_IMPORT = {
    "common": set(),
    "losses": {"backend", "models"},
    "backend": {"common"},
    "data": {"common"},
    "models": {"backend"},
    "weights": {"common", "models"},
    "masks": {"common", "data", "backend", "weights"},
    "translation": TRANSLATION,
    "training": {*TRANSLATION, "translation", "metrics", "losses"},
    "metrics": {*TRANSLATION, "translation"},
    "exporting": {*TRANSLATION, "translation"},
    "serving": {*TRANSLATION, "translation", "masks"},
    "instagan": {"training", "translation", "models", "weights", "backend", "data"},
    "args": {"common", "models", "masks.formats"},
    **{script: BELOW_SCRIPTS for script in SCRIPTS},
    # the only one that starts a server
    "app": {*BELOW_SCRIPTS, "serving"},
    "datasets": {"common", "data", "masks"},
    "benchmarks": {*BELOW_SCRIPTS, *SCRIPTS, "datasets"},
    # people copy them: they stand alone
    "examples": set(),
    "tests": {*BELOW_SCRIPTS, *SCRIPTS, "serving", "datasets", "benchmarks", "examples"},
}
MOST_LINES = {"backend/onednn": 370}


class Import(NamedTuple):
    """A module that a line of a file imports."""

    file: str
    line: int
    module: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"


@lru_cache(maxsize=None)
def files() -> Dict[str, str]:
    """The modules of the project's Python files: {module: file}, as {"data.items": "data/items.py"}."""
    paths = tracked_files() or files_on_disk()
    return {path[: -len(".py")].replace("/", ".").replace(".__init__", ""): path for path in sorted(paths)}


def tracked_files() -> List[str]:
    """The Python files that git tracks; none without git, or in a copy that is not a repository."""
    try:
        listed = subprocess.run(["git", "ls-files", "-z", "*.py"], cwd=ROOT, capture_output=True, encoding="utf-8")
    except FileNotFoundError:
        return []
    # a deleted file may still be tracked
    return [path for path in listed.stdout.split("\0") if path and (ROOT / path).exists()]


def files_on_disk() -> List[str]:
    """All Python files outside hidden folders, such as .venv."""
    paths = []
    for folder, subfolders, names in os.walk(ROOT):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        paths += [Path(folder, name).relative_to(ROOT).as_posix() for name in names if name.endswith(".py")]
    return paths


@lru_cache(maxsize=None)
def nodes(file: str) -> List[ast.AST]:
    return list(ast.walk(ast.parse((ROOT / file).read_bytes(), file)))


@lru_cache(maxsize=None)
def imports(file: str) -> List[Import]:
    """All imports of a file; for a name imported from a module of ours, that module."""
    imported = []
    for node in nodes(file):
        if isinstance(node, ast.Import):
            imported += [Import(file, node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = absolute_base(node, file)
            for alias in node.names:
                module = f"{base}.{alias.name}"
                imported.append(Import(file, node.lineno, module if module in files() else base))
    return list(dict.fromkeys(imported))


def absolute_base(node: ast.ImportFrom, file: str) -> str:
    """The module after `from`; a relative one starts at the file's folder."""
    if not node.level:
        return node.module
    folders = file.split("/")[: -node.level]
    return ".".join([*folders, node.module] if node.module else folders)


def imports_of_ours() -> List[Import]:
    """All imports of our modules in all files."""
    return [one for file in files().values() for one in imports(file) if one.module.split(".")[0] in MAY_IMPORT]


def row_of(file: str) -> str:
    """The row of the table that a file belongs to."""
    return file.split("/")[0].replace(".py", "")


def is_allowed(one: Import) -> bool:
    allowed = {row_of(one.file), *MAY_IMPORT[row_of(one.file)]}
    parts = one.module.split(".")
    return any(".".join(parts[:n]) in allowed for n in range(1, len(parts) + 1))


def is_script(file: str) -> bool:
    """Return whether a file has `if __name__ == "__main__"`."""
    return any(isinstance(node, ast.Name) and node.id == "__name__" for node in nodes(file))


def test_the_files_on_disk_are_found_without_git():
    assert set(files_on_disk()) >= set(files().values())


def test_the_init_file_of_each_folder_is_one_docstring():
    inits = [file for file in files().values() if file.endswith("/__init__.py") and file != "tests/helpers/__init__.py"]
    assert "common/__init__.py" in inits
    for file in inits:
        text = (ROOT / file).read_text(encoding="utf-8")
        licence, _, docstring = text.partition("\n")
        assert licence == "# SPDX-License-Identifier: Apache-2.0", file
        assert is_one_docstring(docstring), f"{file} has more than a licence line and a docstring"


def is_one_docstring(text: str) -> bool:
    """Return whether a module's text is a docstring, without any comment or code."""
    tree = ast.parse(text)
    starts_and_ends = text.startswith('"""') and text.rstrip().endswith('"""')
    return starts_and_ends and len(tree.body) == 1 and ast.get_docstring(tree) is not None


def test_every_file_has_a_row_in_the_table():
    unknown = [file for file in files().values() if row_of(file) not in MAY_IMPORT]
    assert not unknown, "these have no row in MAY_IMPORT"


@pytest.mark.parametrize("row", MAY_IMPORT)
def test_imports_are_those_of_the_table(row):
    assert any(row_of(file) == row for file in files().values()), f"{row} does not exist; remove its row"
    allowed = ", ".join(sorted(MAY_IMPORT[row])) or "nothing of ours"
    wrong = [str(one) for one in imports_of_ours() if row_of(one.file) == row and not is_allowed(one)]
    assert not wrong, f"{row} may import {allowed}"


def test_no_script_imports_another_script():
    scripts = {module for module, file in files().items() if is_script(file)}
    assert scripts >= {"train", "datasets.check_dataset"}
    importers = [one for one in imports_of_ours() if one.module in scripts]
    wrong = [str(one) for one in importers if row_of(one.file) not in ("benchmarks", "tests")]
    assert not wrong, "only benchmarks and tests may import scripts; move shared code into a folder"


def test_only_the_backend_names_onednn():
    wrong = [
        f"{file}:{node.lineno}"
        for file in files().values()
        if row_of(file) != "backend" and not file.startswith("tests/backend/")
        for node in nodes(file)
        if "onednn" in module_names(node)
    ]
    assert not wrong, "only backend/ may name onednn; backend/kernels.py is the door to it"


def module_names(node: ast.AST) -> List[str]:
    """The names in a node that can be those of modules."""
    if isinstance(node, ast.Import):
        return [part for alias in node.names for part in alias.name.split(".")]
    if isinstance(node, ast.ImportFrom):
        return [*(node.module or "").split("."), *(alias.name for alias in node.names)]
    if isinstance(node, ast.Attribute):
        return [node.attr]
    return [node.id] if isinstance(node, ast.Name) else []


def test_there_is_no_circle_of_imports():
    without_circle: Set[str] = set()
    for module in files():
        circle = find_circle(module, [], without_circle)
        assert not circle, "a circle of imports: " + "; ".join(map(str, circle))


def find_circle(module: str, path: List[Import], without_circle: Set[str]) -> List[Import]:
    """The imports of a circle that can be reached from `module`, which was reached by `path`; [] if there is none.

    `without_circle` collects the modules from which none can be reached.
    """
    if module in without_circle:
        return []
    modules_on_path = [one.file for one in path] + [files()[module]]
    for one in imports(files()[module]):
        if one.module not in files():
            continue
        if files()[one.module] in modules_on_path:
            return [*path, one][modules_on_path.index(files()[one.module]) :]
        circle = find_circle(one.module, [*path, one], without_circle)
        if circle:
            return circle
    without_circle.add(module)
    return []


@pytest.mark.parametrize("folder, most", MOST_LINES.items())
def test_files_are_short(folder, most):
    in_folder = [file for file in files().values() if file.startswith(f"{folder}/")]
    lengths = {file: len((ROOT / file).read_bytes().splitlines()) for file in in_folder}
    wrong = [f"{file} has {length} lines" for file, length in lengths.items() if length > most]
    assert not wrong, f"files in {folder} have at most {most} lines"


def test_no_test_edits_the_path_of_modules():
    wrong = [
        f"{file}:{node.lineno}"
        for file in files().values()
        if row_of(file) == "tests"
        for node in nodes(file)
        if names_sys_path(node)
    ]
    assert not wrong, "pytest's settings find the modules; tests leave sys.path alone"


def names_sys_path(node: ast.AST) -> bool:
    """Return whether a node is `sys.path`, or imports `path` from `sys`."""
    if isinstance(node, ast.ImportFrom):
        return node.module == "sys" and any(alias.name == "path" for alias in node.names)
    is_path = isinstance(node, ast.Attribute) and node.attr == "path"
    return is_path and isinstance(node.value, ast.Name) and node.value.id == "sys"
