"""The examples run and print what the docs say, and every public name is documented."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import attrs
import pytest

import bridge_py
import snakepit_trio as snakepit

ROOT = Path(__file__).parents[2]
#: The programs; tools.py is a module of theirs.
EXAMPLES = sorted(set((ROOT / "docs" / "examples").glob("*.py")) - {ROOT / "docs" / "examples" / "tools.py"})


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda script: script.stem)
def test_an_example_prints_what_its_docstring_says(script: Path) -> None:
    docstring = ast.get_docstring(ast.parse(script.read_text()))
    assert docstring
    _, said, lines = docstring.partition("\n\nIt prints:\n\n")
    assert said, "say what the example prints"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    printed = done.stdout.splitlines()
    for line in textwrap.dedent(lines).splitlines():  # calls that run side by side may print in any order
        pattern = re.escape(line).replace(re.escape("..."), ".*")
        assert any(re.fullmatch(pattern, each) for each in printed), f"{line!r} is not in:\n{done.stdout}"


def test_all_examples_are_on_their_page() -> None:
    page = (ROOT / "docs" / "examples.md").read_text()
    assert set(re.findall(r"\]\(examples/(\w+)\.py\)", page)) == {script.stem for script in EXAMPLES} | {"tools"}


@pytest.mark.parametrize("module", [snakepit, bridge_py])
def test_every_public_name_has_a_docstring(module: object) -> None:
    missing = []
    for name in module.__all__:  # type: ignore[attr-defined]
        thing = getattr(module, name)
        members = inspect.getmembers(thing) if inspect.isclass(thing) else []
        for member, value in [("", thing), *members]:
            ours = getattr(value, "__module__", "") or ""
            public = (
                inspect.isfunction(value) and not member.startswith("_") and ours.startswith(("snakepit", "bridge"))
            )
            if (value is thing or public) and not inspect.getdoc(value):
                missing.append(f"{name}.{member}")
    assert missing == []


def rows_of(heading: str) -> list[list[str]]:
    """The cells of the rows of the first table below a heading of the guide."""
    section = (ROOT / "docs" / "guide.md").read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row.strip("|").split(" |")] for row in rows[2:]]


def shown(default: bool | float | str) -> str:
    """A default as the guide writes it."""
    if isinstance(default, (bool, str)):
        return str(default)
    for size, unit in ((1 << 30, " GiB"), (1 << 20, " MiB")):
        if default >= size and default % size == 0:
            return f"{default // size:g}{unit}"
    return f"{default:,}" if default >= 10_000 else f"{default:g}"


def test_the_guide_has_every_setting_and_its_default() -> None:
    fields = {field.name: field.default for field in attrs.fields(snakepit.PoolConfig) if field.init}
    named: list[str] = []
    for names, defaults, *_ in rows_of("Settings"):
        row, said = re.findall(r"`(\w+)`", names), re.split(r", ", re.sub(r'[`"]', "", defaults))
        named += row
        for name, default in zip(row, said, strict=False):
            found = fields.get(name)
            if isinstance(found, (bool, int, float, str)) and name not in ("python", "log_level"):
                assert default == shown(found), name
    assert sorted(named) == sorted({*fields, "adapters"})


def test_the_guide_has_every_error() -> None:
    public = [getattr(snakepit, name) for name in snakepit.__all__]
    errors = {each.__name__ for each in public if isinstance(each, type) and issubclass(each, Exception)}
    named = set(re.findall(r"`(\w+)`", " ".join(error for error, *_ in rows_of("Errors"))))
    assert errors - {"SnakepitError"} == named - {"TimeoutError"}


def test_security_and_its_tests_name_each_other() -> None:
    """A line that is meant to hold has a test, and no attack is without its line."""
    named = set(re.findall(r"`(test_\w+)\.py`", (ROOT / "SECURITY.md").read_text()))
    assert named == {path.stem for path in (ROOT / "tests" / "security").glob("test_*.py")}


def test_the_attacks_are_named_where_the_parts_are() -> None:
    """What concerns this project alone is in no row: how it is installed, and how its own errors look."""
    named = set(re.findall(r"\.\./tests/security/(test_\w+)\.py", (ROOT / "docs" / "parity.md").read_text()))
    there = {path.stem for path in (ROOT / "tests" / "security").glob("test_*.py")}
    assert there - named == {"test_packages", "test_supply_chain", "test_text_that_misleads"}
