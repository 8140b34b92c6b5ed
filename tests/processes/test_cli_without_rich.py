"""The commands without rich, as a plain `pip install snakepit-trio` leaves them: plain text, and no live views."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from bridge_py.wire.extras import install
from tests.helpers.command import TOOLS, environment

CODE = "import sys; sys.modules['rich'] = None; import snakepit_command; snakepit_command.main()"


def snakepit(*args: str, folder: Path, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CODE, *args]
    pipe = subprocess.PIPE
    return subprocess.run(
        command, cwd=folder, env=environment(), stdout=stdout, stderr=pipe, text=True, timeout=90, check=False
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "given.py").write_text(TOOLS)
    return tmp_path


def test_the_demo_prints_lines(folder: Path) -> None:
    done = snakepit("demo", "--path", ".", "--workers", "1", folder=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert "The longest functions\nlength  complexity  function" in done.stdout
    assert done.stdout.endswith("0 worker processes left\n")


def test_tools_are_a_table(folder: Path) -> None:
    done = snakepit("tools", "given:Tools", folder=folder)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["tool", "description"]
    assert "  n: int" in [line.partition("   ")[0] for line in lines] or "  n: int  The number." in done.stdout


def test_results_are_printed(folder: Path) -> None:
    done = snakepit("run", "given:Tools", "pair", "first=a", "second=[1.5]", folder=folder)
    assert (done.returncode, done.stdout) == (0, "['a', [1.5]]\n"), done.stderr


@pytest.mark.parametrize("command", ["ps", "sweep"])
def test_runs_are_listed(folder: Path, command: str) -> None:
    assert snakepit(command, folder=folder).returncode == 0


def test_a_reader_who_leaves_ends_the_command(folder: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = snakepit("ps", folder=folder, stdout=writing)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_top_says_what_a_live_view_needs(folder: Path) -> None:
    ours, theirs = pty.openpty()
    try:
        done = snakepit("top", str(os.getpid()), folder=folder, stdout=theirs)
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 1
    assert f"a live view needs the package rich, {install('cli')}" in done.stderr
