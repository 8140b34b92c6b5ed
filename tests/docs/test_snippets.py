"""Every block of code in the README and the pages runs, and prints what the page says; commands are real ones."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

import pytest

from snakepit_trio._cli.main import main
from tests.helpers import snippets
from tests.helpers.snippets import ROOT, Block, Program

PAGES: Final = snippets.pages()
#: What runs the blocks of these pages, as it needs more than to run them.
ELSEWHERE: Final = {"migrating.md", "testing.md"}  # test_migrating.py, test_pytest_plugin.py
#: Programs of others, which are not here.
FOREIGN: Final = {"curl", "grpcurl", "grpc_health_probe", "npx", "py-spy", "uv"}
LANGUAGES: Final = {"python", "console", "sh", "text", "json", "yaml", "toml", "{toctree}", "{names}", "{include}"}
BLOCKS: Final = [block for page in PAGES for block in snippets.blocks(page)]
PROGRAMS: Final = [program for page in PAGES if page.name not in ELSEWHERE for program in snippets.programs(page)]
CONSOLES: Final = [
    (block, command, printed)
    for block in BLOCKS
    if block.language == "console"
    for command, printed in snippets.commands(block)
]
SHELL: Final = [
    (block, line) for block in BLOCKS if block.language == "sh" for line in block.body.splitlines() if line.strip()
]
PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TARGETS: Final = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def prepare(block: Block, folder: Path) -> None:
    for name, text in snippets.files(block.page, block.line).items():
        (folder / name).write_text(text)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: str(program.first))
def test_a_block_runs(program: Program, tmp_path: Path) -> None:
    prepare(program.first, tmp_path)
    (tmp_path / "program.py").write_text(program.source)
    done = run([sys.executable, "program.py"], tmp_path)
    assert done.returncode == 0, f"{program.source}\n{done.stdout}\n{done.stderr}"
    if program.prints is not None:
        assert snippets.same(program.prints, done.stdout), done.stdout


@pytest.mark.parametrize(
    ("block", "command", "printed"), CONSOLES, ids=[f"{block}: {command}" for block, command, _ in CONSOLES]
)
def test_a_command_prints_what_the_page_says(block: Block, command: str, printed: str, tmp_path: Path) -> None:
    prepare(block, tmp_path)
    program, *arguments = shlex.split(command)
    programs = {"python": [sys.executable], "snakepit": [sys.executable, "-m", "snakepit_trio"]}
    done = run([*programs[program], *arguments], tmp_path)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    for line in done.stderr.splitlines(keepends=True):  # in a terminal it stands between the lines of stdout
        said = [each for each in printed.splitlines(keepends=True) if snippets.same(each, line)]
        assert said, done.stderr
        printed = printed.replace(said[0], "", 1)
    assert snippets.same(printed, done.stdout), done.stdout


def check_command(line: str) -> None:
    """Raise an error if a command could not work: of our own ones all arguments are read, of others the names."""
    program, *arguments = shlex.split(line, comments=True)
    if program == "snakepit":
        main.commands[arguments[0]].make_context(arguments[0], arguments[1:])
    elif program == "pip":
        extras = ",".join(re.findall(r"snakepit-trio\[(.*?)\]", line))
        assert set(extras.split(",")) <= {"", *PROJECT["optional-dependencies"]}, line
    elif program == "make":
        assert {word for word in arguments if "=" not in word} <= TARGETS, line
    elif program == "python":
        assert arguments[0] != "-m" or importlib.util.find_spec(arguments[1]), line
    else:
        assert program in FOREIGN or os.access(ROOT / program, os.X_OK), line


@pytest.mark.parametrize(("block", "line"), SHELL, ids=[f"{block}: {line}" for block, line in SHELL])
def test_a_command_is_a_real_one(block: Block, line: str) -> None:
    check_command(line)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_sentences_are_real_ones(page: Path) -> None:
    for line in re.findall(r"(?<!`)`((?:make|python -m) [^`]+)`(?!`)", page.read_text()):
        check_command(line)
    for name in re.findall(r"(?<!`)`snakepit ([a-z]+)[^`]*`(?!`)", page.read_text()):
        assert name in main.commands, name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_block_escapes(page: Path) -> None:
    """A block without a language could be anything, and a sketch says why it is one."""
    for block in snippets.blocks(page):
        assert block.language in LANGUAGES, f"{block}: say what the block is, such as console, sh or text"
        if block.language == "json":
            json.loads(block.body)
        why = (block.comment or "").removeprefix("not run: ")
        for test in re.findall(r"\btest_\w+\.py", why):
            assert list(ROOT.glob(f"tests/*/{test}")), f"{block}: there is no {test}"


def test_what_a_page_says_is_compared() -> None:
    assert snippets.same("a\n...\nz\n", "a\nb\n\nc\nz\n")
    assert snippets.same("...\nz\n", "z\n")
    assert not snippets.same("a\n...\n", "b\na\n")
    assert not snippets.same("a\n", "a\nb\n")


def test_the_readme_opens_with_three_lines_that_run_and_a_picture() -> None:
    first, _, *_ = snippets.blocks(ROOT / "README.md")
    assert len(first.body.splitlines()) == 3
    assert PROGRAMS[0].first == first
    assert (ROOT / "README.md").read_text().index("](docs/pictures/") < 2500


def test_the_readme_has_the_figures_of_the_benchmarks() -> None:
    """A figure, or a ratio, of its table is on the page of benchmarks too."""
    table = (ROOT / "README.md").read_text().partition("## Beside others")[2]
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    figures = re.findall(r"\d[\d.,]*\d", "".join(line for line in table.splitlines() if line.startswith("| ")))
    assert len(figures) > 30
    assert {figure for figure in figures if figure not in page} == set()
