"""Each example that `--help` shows works as it stands, in a folder that has the files it names."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from click import Context

from snakepit_trio._cli.main import main
from tests.helpers.certificates import Authority
from tests.helpers.command import command, environment

#: These need a terminal, a pool that runs, or another shell: their own tests run their examples.
ELSEWHERE = {"top", "dump", "debug", "completion"}
#: Added to some, which would take long otherwise, or use a port that may be in use.
ADDED = {
    "bench": "--seconds 0.02 --rounds 1",
    "demo": "--path src",
    "serve": "--port 0",
}
SERVERS = {"serve": r"snakepit serves .* at http", "mcp": r"serving MCP at http"}
TOOLS = """
from typing import Any

from bridge_py import BaseAdapter, tool


class Tools(BaseAdapter):
    @tool
    def double(self, n: int) -> int:
        return 2 * n

    @tool
    def train(self, epochs: int, sizes: list[int]):
        yield from range(epochs)

    @tool
    def classify(self, image: list[list[int]]) -> dict[str, Any]:
        return {"rows": len(image)}
"""


def examples(name: str) -> list[str]:
    """The examples of a command's help; what follows after two spaces is a note."""
    shown = main.commands[name].get_help(Context(main.commands[name], info_name=f"snakepit {name}"))
    found = re.search(r"^  Examples?[^\n]*:\n((?:    .+\n)+)", shown + "\n", re.MULTILINE)
    assert found is not None, shown
    return [line.strip().partition("  ")[0] for line in found[1].splitlines()]


EXAMPLES = [
    (name, line)
    for name in sorted(set(main.commands) - ELSEWHERE)
    for line in examples(name)
    if "--dashboard" not in line
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("my_app/__init__.py", "src/one.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("def one():\n    return 1\n")
    for name in ("my_app/tools.py", "tools.py"):
        (tmp_path / name).write_text(TOOLS)
    (tmp_path / "image.json").write_text("[[0, 1], [1, 0]]")
    (tmp_path / "token").write_text("a-long-secret-token\n")
    authority = Authority(tmp_path, "authority")
    authority.server("c", ["127.0.0.1"])
    (tmp_path / "c.key").rename(tmp_path / "k.pem")
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "snakepit"
    program.write_text(f'#!/bin/sh\nexec {" ".join(command())} "$@"\n')
    program.chmod(0o755)
    return tmp_path


def as_it_runs(name: str, line: str) -> str:
    line = re.sub(r"(127\.0\.0\.1|0\.0\.0\.0):\d+", r"\1:0", line)
    return f"{line} {ADDED[name]}" if name in ADDED else line


def started(folder: Path, line: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["bash", "--norc", "-c", line],
        cwd=folder,
        env=environment(PATH=f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}", HOME=str(folder)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize(("name", "line"), EXAMPLES, ids=[line for _, line in EXAMPLES])
def test_an_example_of_the_help_works(folder: Path, name: str, line: str) -> None:
    is_server = name == "serve" or "--http" in line
    with started(folder, f"exec {as_it_runs(name, line)}" if is_server else as_it_runs(name, line)) as process:
        assert process.stdout is not None
        if is_server:
            told = process.stdout.readline()
            assert re.match(SERVERS[name], told), told + process.stdout.read()
            process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=240)
    assert process.returncode == ((0 if name == "serve" else 143) if is_server else 0), output
    assert "Traceback" not in output
