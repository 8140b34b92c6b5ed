"""Functions and classes of a program's own script, however the program is started, by name and in pickles."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent

PROGRAM = """
import dataclasses, trio
import snakepit_trio as snakepit

print("imported", __name__)

@dataclasses.dataclass
class Point:
    x: int

class Refusal(Exception):
    pass

def moved(point: Point) -> Point:
    if point.x < 0:
        raise Refusal(point.x)
    return Point(point.x + 1)

async def main():
    async with snakepit.open_pool(workers=1) as pool:
        found = await pool.run(moved, Point(1))
        assert type(found) is Point, found
        try:
            await pool.run(moved, Point(-1))
        except Refusal as error:
            print("refused", error)
        print(found)

if __name__ == "__main__":
    trio.run(main)
"""
PICKLING = """
import dataclasses, sys, trio
import snakepit_trio as snakepit

print("imported", __name__)

@dataclasses.dataclass
class Point:
    x: int

class Refused(Exception):
    pass

def moved(point, by=1):
    assert isinstance(point, Point), type(point)
    return Point(point.x + by)

def refuse(point):
    raise Refused(point)

async def main():
    async with snakepit.open_pool(workers=1, pickle=True) as pool:
        by = 2
        for function in (moved, lambda point: moved(point, by), lambda point: Point(point.x + by)):
            found = await pool.run(function, Point(1))
            assert type(found) is Point, found
            print(found.x)
        try:
            await pool.run(refuse, Point(5))
        except Refused as error:
            assert type(error.args[0]) is Point
            print("refused", error)

if __name__ == "__main__":
    trio.run(main)
"""
PRINTED = ["imported __main__", "2", "3", "3", "refused Point(x=5)"]


def run(command: list[str], folder: Path, input: str | None = None, **environment: str) -> Any:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(
        [sys.executable, *command], check=False, cwd=folder, env=environment, input=input, capture_output=True,
        text=True, timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("file", "command"),
    [("program.py", ["program.py"]), ("program.py", ["-m", "program"]), ("program/__main__.py", ["-m", "program"])],
)
def test_functions_of_the_programs_own_script(file: str, command: list[str], tmp_path: Path) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(PROGRAM)
    done = run(command, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["imported __main__", "refused -1", "Point(x=2)"]


def test_functions_from_standard_input_are_refused_in_words(tmp_path: Path) -> None:
    done = run(["-"], tmp_path, PROGRAM)
    assert "UsageError: moved was defined interactively; put it into a module" in done.stderr


@pytest.mark.parametrize(
    ("file", "command"),
    [
        ("program.py", ["program.py"]),
        ("program.py", ["-m", "program"]),
        ("program/__main__.py", ["-m", "program"]),
        (None, ["-"]),
    ],
)
def test_pickled_classes_of_the_program_are_the_same_on_both_sides(
    file: str | None, command: list[str], tmp_path: Path
) -> None:
    if file is not None:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(PICKLING)
    done = run(command, tmp_path, None if file is not None else PICKLING)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == PRINTED


def test_without_cloudpickle_it_is_told_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "cloudpickle.py").write_text("raise ImportError('not for this test')\n")
    done = run(["-"], tmp_path, PICKLING, PYTHONPATH=f"{tmp_path}:{ROOT}")
    message = "UsageError: pickle=True takes the cloudpickle package: pip install 'snakepit-trio[pickle]'"
    assert done.stderr.splitlines()[-1].endswith(message), done.stderr
