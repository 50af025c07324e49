# SPDX-License-Identifier: Apache-2.0
"""README and docs: links, files, commands, options and tests that they name exist."""

from __future__ import annotations

import importlib
import re
import shlex
from argparse import ArgumentParser
from pathlib import Path

import pytest

from common.command_line import Parser
from tests.helpers import ROOT

README = ROOT / "README.md"
DOCUMENTS = [README, *sorted((ROOT / "docs").glob("*.md")), ROOT / "benchmarks" / "README.md"]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# a word that names a file or a folder
PATH = re.compile(r"(?!--)[\w.*{}/-]*(/[\w.*{}-]*|\w\.(py|md|sh|txt|json|h5|png|html|ipynb|css|js))")
# files and folders that the commands make, from the user's data or beside it
MADE = re.compile(
    r"\.venv|demo|datasets/(circle2square|jeans2skirt_ccp)|results|FOLDER_seg|NAME(_\d|_\{i\})?\.(png|json)|train[AB](_seg)?(\.json)?|index\.html"
    r"|(sample|params|best|checkpoint|diverged)_NNNNNN\.\w+|(loss|evaluation)_\*\.png|(evaluation_)?\*\.series\.txt|Training_time\.timer\.txt|args\.json|best\.json"
    r"|/api/.*|metrics\.(json|md)|classifier_\*\.h5|segmenter\.json|\.predicted\.sha256|1\.png"
)
FLAGS_OF_OTHERS = {"--bind-to"}  # of mpirun


class Parsed(BaseException):
    """Ends a script once its command line has been parsed."""

    def __init__(self, parser):
        super().__init__()
        self.parser = parser


def parse_and_stop(kind):
    """`kind.parse_args` that stops the script; a Parser calls that of the ArgumentParser, which then must not stop."""
    original = kind.parse_args

    def parse_args(parser, args=None, namespace=None):
        parsed = original(parser, args, namespace)
        if isinstance(parser, Parser) and kind is not Parser:
            return parsed
        raise Parsed(parser)

    return parse_args


@pytest.fixture
def parse(monkeypatch):
    """`parse("train.py", "--max-iter", "3")` parses a command line as the script does, and returns the parser.

    Raises:
        UserError: if the script refuses it.
    """
    for kind in (Parser, ArgumentParser):
        monkeypatch.setattr(kind, "parse_args", parse_and_stop(kind))

    def parse(script, *words):
        module = importlib.import_module(script[: -len(".py")].replace("/", "."))
        monkeypatch.setattr("sys.argv", [script, *words])
        with pytest.raises(Parsed) as stop:
            module.main()
        return stop.value.parser

    return parse


def title(path):
    return str(path.relative_to(ROOT))


def prose(path):
    """The text without fenced blocks."""
    return FENCE.sub("", path.read_text())


def anchors(path):
    """The anchors of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(path):
    """The commands of the shell blocks as lists of words, without comments."""
    for language, block in FENCE.findall(path.read_text()):
        if language == "sh":
            for line in block.replace("\\\n", " ").splitlines():
                yield shlex.split(line, comments=True)


def script_calls():
    """Each call of one of our scripts: the document, the script and its arguments."""
    for path in DOCUMENTS:
        for words in commands(path):
            if "python" in words:
                script, *arguments = words[words.index("python") + 1 :]
                # results.md says what it stands for
                yield title(path), script, [word for word in arguments if word != "SETTINGS"]


def flags_of(parser):
    """The flags of a parser and of its subcommands."""
    flags = set()
    for action in parser._actions:
        flags.update(action.option_strings)
        if action.nargs == "A..." and action.choices:
            for subparser in action.choices.values():
                flags |= flags_of(subparser)
    return flags


def test_the_readme_is_short():
    assert len(README.read_text().splitlines()) <= 220


@pytest.mark.parametrize("path", DOCUMENTS, ids=title)
def test_links_lead_somewhere(path):
    links = re.findall(r"\]\(([^)\s]+)\)", prose(path))
    for link in links:
        if not re.match(r"https?://", link):
            file, _, anchor = link.partition("#")
            target = (path.parent / file).resolve() if file else path
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link
    assert links or path.name == "reliability.md"


@pytest.mark.parametrize("path", DOCUMENTS, ids=title)
def test_files_that_are_named_exist(path):
    missing = []
    for code in re.findall(r"`([^`\n]+)`", prose(path)):
        for word in code.split():
            if PATH.fullmatch(word) and not (ROOT / word).exists():
                if not any(MADE.fullmatch(part) for part in (word, *map(str, Path(word).parents))):
                    missing.append(word)
    assert missing == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=title)
def test_tests_that_are_named_exist(path):
    tests = "\n".join(file.read_text() for file in (ROOT / "tests").rglob("*.py"))
    for name in re.findall(r"`(test_\w+)`", prose(path)):
        assert f"def {name}(" in tests, name


def test_commands_are_understood(parse):
    calls = list(script_calls())
    assert len(calls) > 40
    for document, script, arguments in calls:
        try:
            parse(script, *arguments)
        except Exception as error:
            pytest.fail(f"{document}: {script} {' '.join(arguments)}: {error}")


def test_make_targets_exist():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for path in DOCUMENTS:
        inline = re.findall(r"`make\s+(\w+)", prose(path))
        fenced = [words[1] for words in commands(path) if words[:1] == ["make"]]
        assert set(inline + fenced) <= targets, path


def test_options_that_are_named_exist(parse):
    scripts = {script for _, script, _ in script_calls()} | {"demo.py"}
    required = {
        "translate.py": ["--model=m", "--image=i"],
        "evaluate.py": ["--model=m", "--dataroot=d"],
        "segment.py": ["predict", "--dataroot=d"],
        "convert_pytorch.py": ["--source=s", "--output=o.h5"],
        "export.py": ["--model=m", "--output=o.onnx"],
        "app.py": ["--model=m"],
        "benchmarks/app_load.py": ["--model=m"],
        "examples/onnx_translate.py": ["--model=m", "--image=i"],
        "compare_evaluations.py": ["a=b"],
        "datasets/check_dataset.py": ["d"],
        "datasets/import_masks.py": ["--a=a", "--b=b"],
    }
    known = set(FLAGS_OF_OTHERS)
    for script in scripts:
        known |= flags_of(parse(script, *required.get(script, [])))
    for path in DOCUMENTS:
        for code in re.findall(r"`([^`]+)`", prose(path)):
            for flag in re.findall(r"(?<![\w-])--[a-zA-Z][\w-]*", code):
                assert flag in known, (title(path), flag)


def default_of(action):
    """The default of an option as the tables show it."""
    if action.nargs == 0:
        return "off"
    if isinstance(action.default, str) and not action.default.isdigit():
        return f"`{action.default}`"
    return "none" if action.default in (None, []) else str(action.default)


@pytest.mark.parametrize(
    "document, script, arguments",
    [
        ("docs/training.md", "train.py", []),
        ("docs/translating.md", "translate.py", ["--model=m", "--image=i"]),
        ("docs/deploying.md", "export.py", ["--model=m", "--output=o.onnx"]),
        ("docs/app.md", "app.py", ["--model=m"]),
    ],
)
def test_the_table_of_options_is_that_of_the_script(parse, document, script, arguments):
    rows = re.findall(r"^\| (`-.*?) \| (.*?) \|", (ROOT / document).read_text(), re.MULTILINE)
    documented = {flags: default for flags, default in rows}
    assert len(documented) == len(rows)
    actual = {}
    for action in parse(script, *arguments)._actions:
        if action.dest != "help":
            flags = ", ".join(f"`{flag}`" for flag in action.option_strings)
            actual[flags] = "required" if action.required else default_of(action)
    assert documented == actual
