"""The exit codes of all commands, as one table, and what Ctrl-C and SIGTERM do to each."""

from __future__ import annotations

import re
import shlex
import signal
import socket
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.helpers.command import ROOT, TOOLS, command, environment, snakepit

#: A command line in a folder with three adapters, and its exit code.
CODES = [
    ("version", 0),
    ("no-such-command", 2),
    ("ps", 0),
    ("ps --json", 0),
    ("sweep", 0),
    ("ps --no-such-option", 2),
    ("completion bash", 0),
    ("completion csh", 2),
    ("new words", 0),
    ("new 1st", 2),
    ("new no/such/words", 1),
    ("tools given:Tools", 0),
    ("tools given", 2),
    ("tools broken:Tools", 3),
    ("run given:Tools double n=1", 0),
    ("run given:Tools fail", 1),
    ("run given:Tools anything value=@missing", 2),
    ("run given:Tools doubl", 2),
    ("run broken:Tools double", 3),
    ("run given:Tools die", 3),
    ("run given:Tools sleep --timeout 0.1", 4),
    ("doctor given:Tools", 0),
    ("doctor broken:Tools", 1),
    ("doctor given:Tools extra", 2),
    ("bench given:Tools double n=1 --seconds 0.01 --rounds 1", 0),
    ("bench given:Tools fail", 1),
    ("bench given:Tools doubl", 2),
    ("bench broken:Tools double", 3),
    ("demo --path sources", 0),
    ("demo --path empty", 2),
    ("mcp given:Tools", 0),
    ("mcp given", 2),
    ("mcp given:Tools --http 8000", 2),
    ("mcp broken:Tools", 3),
    ("mcp given:Tools --http 127.0.0.1:USED", 1),
    ("serve given --port 0", 2),
    ("serve broken:Tools --port 0", 3),
    ("serve given:Tools --port USED", 1),
]
#: Command lines that wait for a worker which never answers, and the exit codes after SIGINT and SIGTERM.
WAITING = [
    ("tools waits:Tools", 130, 143),
    ("run waits:Tools double n=1", 130, 143),
    ("doctor waits:Tools", 130, 143),
    ("bench waits:Tools double n=1", 130, 143),
    ("mcp waits:Tools", 130, 143),
    ("mcp waits:Tools --http 127.0.0.1:0", 130, 143),
    ("serve waits:Tools --port 0", 0, 0),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "given.py").write_text(TOOLS)
    (tmp_path / "broken.py").write_text("raise OSError('no database')")
    (tmp_path / "waits.py").write_text("import time\nopen('begun', 'w').close()\ntime.sleep(600)")
    for name in ("sources", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "sources" / "one.py").write_text("def one():\n    return 1\n")
    return tmp_path


@pytest.mark.parametrize(("line", "code"), CODES, ids=[line for line, _ in CODES])
def test_the_exit_code(folder: Path, line: str, code: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as used:
        done = snakepit(*shlex.split(line.replace("USED", str(used.getsockname()[1]))), folder=folder)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr or "broken" in line or "fail" in line  # that is the tool's own
    if code and not line.startswith("doctor broken"):
        assert "Error: " in done.stderr


@pytest.mark.parametrize("name", ["ps", "sweep", "tools given:Tools"])
def test_a_run_folder_that_cannot_be_is_wrong_usage(folder: Path, name: str) -> None:
    done = snakepit(*name.split(), folder=folder, SNAKEPIT_RUN_DIR=str(folder / ("x" * 80)))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith("Error: SNAKEPIT_RUN_DIR is longer than the 60 bytes that leave room for sockets\n")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize(("line", "after_int", "after_term"), WAITING, ids=[line for line, _, _ in WAITING])
def test_signals_while_a_worker_starts(
    folder: Path, line: str, after_int: int, after_term: int, number: signal.Signals
) -> None:
    with subprocess.Popen(
        command(*line.split()),
        cwd=folder,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + 60
        while not (folder / "begun").exists():
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.01)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        _, errors = process.communicate(timeout=240)
    assert process.returncode == (after_int if number is signal.SIGINT else after_term), errors
    assert "Traceback" not in errors
    assert ("interrupted" in errors) == (process.returncode == 130)
    assert not psutil.wait_procs(children, 10)[1]


def test_the_page_has_all_of_them() -> None:
    page = (ROOT / "docs" / "cli.md").read_text().partition("**Exit codes**")[2].partition("\n## ")[0]
    told = {int(number) for number in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    seen = {code for _, code in CODES} | {code for _, *codes in WAITING for code in codes}
    assert told == seen
