"""Pools of programs whose folder, module search path or warnings are unusual."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.command import environment

TOOLS = """
from bridge_py import BaseAdapter, tool

class Tools(BaseAdapter):
    @tool
    def add(self, a: int, b: int) -> int:
        return a + b
"""
PROGRAM = """
import sys, trio
import snakepit_trio as snakepit
from their_sums import Tools

async def main():
    async with snakepit.open_pool(Tools, workers=1) as pool:
        print(await pool.execute("add", {"a": 1, "b": 2}))

trio.run(main)
"""


@pytest.mark.parametrize("name", ["co:lon", "new\nline", "a space, ünï", '"quotes"', "per%cent;"])
def test_workers_find_the_modules_of_a_folder_whatever_its_name(tmp_path: Path, name: str) -> None:
    assert _run(tmp_path / name) == ("3\n", "")


def test_entries_of_the_search_path_that_are_no_text_are_passed_over_as_python_does(tmp_path: Path) -> None:
    program = PROGRAM.replace("async def", "sys.path += [b'/bytes', None, 3]\nasync def", 1)
    assert _run(tmp_path, program) == ("3\n", "")


@pytest.mark.parametrize("warnings", ["default", "error"])
def test_workers_end_without_warnings_of_our_own(tmp_path: Path, warnings: str) -> None:
    assert _run(tmp_path, PYTHONWARNINGS=warnings, PYTHONDEVMODE="1") == ("3\n", "")


def _run(folder: Path, program: str = PROGRAM, **variables: str) -> tuple[str, str]:
    folder.mkdir(exist_ok=True)
    (folder / "their_sums.py").write_text(TOOLS)
    (folder / "program.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=folder,
        # Not measured: coverage itself breaks by what these tests do to a program.
        env={name: value for name, value in environment(**variables).items() if not name.startswith("COV")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stdout, done.stderr
