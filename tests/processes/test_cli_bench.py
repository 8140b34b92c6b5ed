"""`snakepit bench` as users run it."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.helpers.command import TOOLS, command, environment, snakepit

SHORT = ["--seconds", "0.05", "--rounds", "2"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "given.py").write_text(TOOLS)
    return tmp_path


def figures(text: str) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in json.loads(text)["figures"]}


def test_the_machine(folder: Path) -> None:
    done = snakepit("bench", *SHORT, "--json", folder=folder)
    assert (done.returncode, done.stderr) == (0, "")
    whole = json.loads(done.stdout)
    assert (whole["workers"], whole["callers"], whole["is_complete"], whole["notes"]) == (2, 16, True, [])
    found = figures(done.stdout)
    assert {"one caller, p50", "16 callers", "an array of 16 MiB and back, p50", "a stream"} <= set(found)
    assert all(each["snakepit"] > 0 and len(each["snakepit_rounds"]) == 2 for each in found.values())
    lacking = {name for name, each in found.items() if each["peer"] is None}
    assert lacking == {"a stream"}
    assert all(each["ratio"] > 0 for name, each in found.items() if name not in lacking)
    assert found["one caller, p50"]["snakepit"] <= found["one caller, p99"]["snakepit"]


def test_a_tool_of_the_user(folder: Path) -> None:
    done = snakepit("bench", "given:Tools", "double", "n=21", *SHORT, "--callers", "4", "--workers", "1", folder=folder)
    assert (done.returncode, done.stderr) == (0, "")
    first, heading, *lines = done.stdout.splitlines()
    assert first == "1 workers, 2 rounds of 0.05 s for each figure; medians"
    assert heading.split() == ["snakepit", "ProcessPoolExecutor", "ratio"]
    assert [line.partition(", ")[0] for line in lines] == ["one caller"] * 3 + ["4 callers"] * 3
    assert all(line.endswith(" x") for line in lines)


@pytest.mark.parametrize(
    ("tool", "note"), [("count", "cannot pickle 'generator' object"), ("steps", "missing 1 required")], ids=str
)
def test_what_the_peer_cannot_run(folder: Path, tool: str, note: str) -> None:
    done = snakepit("bench", "given:Tools", tool, *SHORT, "--json", folder=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(each["peer"] is None and each["snakepit"] > 0 for each in figures(done.stdout).values())
    [told] = json.loads(done.stdout)["notes"]
    assert told.startswith("ProcessPoolExecutor cannot run this tool: TypeError: ")
    assert note in told


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        ("given:Tools", 2, "Error: name a TOOL of the adapter too, or no adapter\n"),
        ("given:Tools doubl n=1", 2, "Error: no tool 'doubl'; did you mean 'double'?\n"),
        ("given:Tools double n=x", 2, "Error: double: n=x does not fit"),
        ("given:Tools fail", 1, "raised ValueError: no such luck\n"),
        ("given:Tools die", 3, "Error: worker bench-"),
        ("nothing:Tools double", 3, "No module named 'nothing'"),
        ("--seconds nan", 2, "Error: --seconds is nan: give seconds"),
    ],
    ids=str,
)
def test_errors(folder: Path, args: str, code: int, text: str) -> None:
    done = snakepit("bench", *args.split(), folder=folder)
    assert (done.returncode, done.stdout) == (code, "")
    assert text in done.stderr


@contextmanager
def begun(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A long benchmark, after its first round."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command("bench", "--seconds", "0.02", "--rounds", "1000", "--json"),
        cwd=folder,
        env=environment(TERM="dumb"),
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        told = ""
        while "round 2 of 1000" not in told:
            told += os.read(ours, 1000).decode()
        yield process
    os.close(ours)


def test_ctrl_c_prints_what_there_is(folder: Path) -> None:
    with begun(folder) as process:
        children = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the processes of the executor as well
        stdout, _ = process.communicate(timeout=240)
    assert process.returncode == 130
    assert json.loads(stdout)["is_complete"] is False
    assert figures(stdout)["one caller, p50"]["peer"] > 0
    assert not psutil.wait_procs(children, 10)[1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_nothing_is_left_after_signals(folder: Path, number: signal.Signals) -> None:
    with begun(folder) as process:
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) > 4
        process.send_signal(number)
        process.communicate(timeout=240)
        assert not psutil.wait_procs(children, 20)[1]
