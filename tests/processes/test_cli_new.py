"""`snakepit new` as users run it, and the project that it makes."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from snakepit_trio._cli.new import write_project
from tests.helpers.command import environment, snakepit
from tests.helpers.wheels import build, build_ours, make_empty_environment, make_environment


def python(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *args]
    return subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=120, check=False
    )


def test_a_new_project_works(tmp_path: Path) -> None:
    done = snakepit("new", "Word-counter", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    project = tmp_path / "Word-counter"
    known = tomllib.loads((project / "pyproject.toml").read_text())
    assert known["project"]["name"] == "Word-counter"
    assert known["project"]["scripts"] == {"Word-counter": "word_counter.__main__:run"}
    assert not any("OF_PROJECT" in path.read_text() for path in project.rglob("*") if path.is_file())

    tests = python(project, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert tests.returncode == 0, tests.stdout + tests.stderr
    assert "5 passed" in tests.stdout
    program = python(project, "-m", "word_counter", "The cat, the dog")
    assert (program.returncode, program.stderr) == (0, "")
    assert program.stdout == "{'the': 2, 'cat': 1, 'dog': 1}\nT-H-E\nC-A-T\nT-H-E\nD-O-G\n"
    linted = python(project, "-m", "ruff", "check", "--isolated", "--select", "E,F,B,I,UP", "--line-length", "120", ".")
    assert linted.returncode == 0, linted.stdout


def lines_of(readme: str) -> list[str]:
    """The command lines of a README: those of its blocks, and those in its text."""
    blocks = re.findall(r"^```\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines()] + re.findall(r"`(\.venv/bin/[^`]+)`", readme)


def test_the_commands_of_its_readme(tmp_path: Path) -> None:
    """With what users have: the wheel, in a virtual environment of the project, and no sources of ours."""
    pytest.importorskip("hatchling", reason="hatchling is not installed here: make .venv/.run")
    (ours := tmp_path / "ours").mkdir()
    assert snakepit("new", "word-counter", folder=tmp_path).returncode == 0
    project = tmp_path / "word-counter"
    venv = make_environment(project / ".venv", *build_ours(ours), build(project, tmp_path / "theirs"))
    first, second, *lines = lines_of((project / "README.md").read_text())
    assert (first, second) == ("python -m venv .venv", ".venv/bin/pip install -e '.[test]'")  # done, without a network
    printed = {line: run_as_user(project, line) for line in [*lines, ".venv/bin/word-counter 'a cat'"]}
    assert "5 passed" in printed[".venv/bin/pytest"]
    assert "count_words" in printed[".venv/bin/snakepit tools"]
    assert printed[".venv/bin/word-counter 'a cat'"] == "{'a': 1, 'cat': 1}\nA\nC-A-T\n"
    assert str(venv) in printed[".venv/bin/snakepit doctor"]
    [counted] = [text for line, text in printed.items() if "snakepit run" in line]
    assert counted == "{'the': 2, 'cat': 1, 'sees': 1, 'dog': 1}\n"
    [ran] = [text for line, text in printed.items() if "python -m word_counter" in line]
    assert ran.startswith(counted)


@pytest.mark.slow
def test_it_type_checks_and_its_tests_pass_with_the_wheels_alone(tmp_path: Path) -> None:
    """In an environment with both wheels, the project's own, and nothing that none of them asks for."""
    pytest.importorskip("hatchling", reason="hatchling is not installed here: make .venv/.run")
    assert snakepit("new", "word-counter", folder=tmp_path).returncode == 0
    project = tmp_path / "word-counter"
    wheels = (*build_ours(tmp_path / "ours"), build(project, tmp_path / "theirs"))
    venv = make_empty_environment(tmp_path / "venv", *wheels, extras=["test", "testing"])
    run_as_user(project, f"{venv}/bin/python -m pytest -q -p no:cacheprovider")
    checks = f"--python-executable {venv}/bin/python word_counter tests"
    run_as_user(project, f"{sys.executable} -m mypy --strict --cache-dir={tmp_path / 'mypy'} {checks}")
    pyright = Path(sys.executable).with_name("pyright")
    if pyright.exists():
        (project / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
        run_as_user(project, f"{pyright} --pythonpath {venv}/bin/python")


def run_as_user(project: Path, line: str) -> str:
    kept = {name: value for name, value in environment().items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(
        ["bash", "-c", line], cwd=project, env=kept, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), line + done.stdout
    return done.stdout


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("mine")
    for name in ("empty", "file"):
        done = snakepit("new", name, folder=tmp_path)
        assert done.returncode == 2
        assert f"Error: {name} is there already, and is left as it is: give another name" in done.stderr
    assert not list((tmp_path / "empty").iterdir())
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "code", "text"),
    [
        ("1st", 2, "'1st' cannot name a project"),
        ("a--b", 2, "'a--b' cannot name a project"),
        ("ünder", 2, "'ünder' cannot name a project"),
        ("", 2, "'' cannot name a project"),
        ("..", 2, "'..' cannot name a project"),
        ("a" * 65, 2, "cannot name a project"),
        ("JSON", 2, "has the name 'json': give another"),
        ("class", 2, "has the name 'class': give another"),
        ("snakepit-trio", 2, "has the name 'snakepit_trio': give another"),
        ("no/where/words", 1, "no/where/words cannot be made: No such file or directory"),
    ],
)
def test_names_that_cannot_be(tmp_path: Path, name: str, code: int, text: str) -> None:
    done = snakepit("new", name, folder=tmp_path)
    assert (done.returncode, done.stdout) == (code, "")
    assert text in done.stderr
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="File name too long"):
        write_project(tmp_path / "words", {"README.md": "", "x" * 300: ""})
    assert not list(tmp_path.iterdir())
