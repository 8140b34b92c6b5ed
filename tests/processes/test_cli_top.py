"""`snakepit top` and `ps`: other processes look at the pools of a host."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from snakepit_trio._processes.registry import FOLDER_VARIABLE
from tests.helpers.command import command, environment, snakepit
from tests.helpers.hosts import Host, host
from tests.helpers.terminal_emulator import Terminal

RUNS = Path(os.environ[FOLDER_VARIABLE])


@pytest.fixture
def looked_at(tmp_path: Path) -> Iterator[Host]:
    with host(tmp_path) as it:
        yield it


def top_of(pid: int) -> dict[str, Any]:
    done = snakepit("top", str(pid), "--json")
    assert (done.returncode, done.stderr) == (0, "")
    (found,) = json.loads(done.stdout)
    return dict(found)


def test_json_has_workers_counts_and_rates(looked_at: Host) -> None:
    looked_at.say("add")
    looked_at.say("call sleep_long")
    found = top_of(looked_at.pid)
    assert (found["pool"], found["host"], found["answers"], found["problem"]) == ("looked at", looked_at.pid, True, "")
    assert sorted(worker["state"] for worker in found["workers"]) == ["busy", "ready"]
    assert all(worker["memory"] > 1 << 20 and worker["cpu"] is not None for worker in found["workers"])
    assert (found["stats"]["running"], found["stats"]["succeeded"], found["rates"]["succeeded"]) == (1, 1, 0)
    assert found["memory"] > 1 << 20
    (call,) = found["calls"]
    (busy,) = [worker for worker in found["workers"] if worker["state"] == "busy"]
    assert (call["tool"], call["state"], call["pid"], call["session_id"]) == (
        "sleep_long",
        "running",
        busy["pid"],
        None,
    )
    assert 0 < call["on_worker"] < 600 - call["time_left"] + 1


def test_a_worker_names_its_host(looked_at: Host) -> None:
    pid = top_of(looked_at.pid)["workers"][0]["pid"]
    assert top_of(pid)["host"] == looked_at.pid


def test_once_prints_a_table(looked_at: Host) -> None:
    done = snakepit("top", "--once")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(rf"^looked at  host {looked_at.pid} \(cpu \d+ %, \d+ MiB, answers in \d+ ms\)", done.stdout)
    assert len(re.findall(r"^looked at-\d +\d+ ready +\d+ % +\d+ MiB", done.stdout, re.MULTILINE)) == 2
    assert "\x1b" not in done.stdout
    looked_at.say("call sleep_long")
    done = snakepit("top", "--once")
    assert re.search(r"^looked at-\d +\d+ busy .*  sleep_long \d+\.\d s$", done.stdout, re.MULTILINE)
    assert re.search(r"^ +1 sleep_long +running +looked at-\d +\d+\.\d s +9:\d\d  -$", done.stdout, re.MULTILINE)


def test_there_is_no_such_pool() -> None:
    done = snakepit("top", "1", "--once")
    assert (done.returncode, done.stdout) == (1, "")
    assert "process 1 has no open pool" in done.stderr
    done = snakepit("top")
    assert (done.returncode, done.stderr) == (1, "Error: no pool of this user is open\n")


def test_a_host_whose_loop_is_blocked(looked_at: Host) -> None:
    looked_at.say("block 20", "blocked")
    done = snakepit("top", str(looked_at.pid), "--once")
    assert done.returncode == 1
    assert "has not answered in 2 s: something blocks its loop" in done.stdout
    assert len(re.findall(r"^looked at-\d +\d+ \? +\d+ % +\d+ MiB", done.stdout, re.MULTILINE)) == 2
    listed = snakepit("ps")
    assert listed.returncode == 0
    assert re.search(r"looked at +\d+ +no answer +looked at-1 +\d+ +active", listed.stdout)
    looked_at.process.kill()


def test_ps_tells_the_states(looked_at: Host) -> None:
    looked_at.say("call sleep_long")
    done = snakepit("ps")
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 running, 0 queued" in done.stdout
    assert len(re.findall(r"looked at-\d +\d+ +(?:busy|ready) ", done.stdout)) == 2
    (run,) = json.loads(snakepit("ps", "--json").stdout)
    assert {name: run[name] for name in ("answers", "ready", "busy", "running", "queued")} == {
        "answers": True,
        "ready": 2,
        "busy": 1,
        "running": 1,
        "queued": 0,
    }


@pytest.mark.parametrize("words", ["ps", "ps --json", "sweep", "top --once", "top --json"], ids=str)
def test_a_reader_that_leaves_is_no_failure(words: str, looked_at: Host) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            command(*words.split()),
            env=environment(),
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            timeout=240,
            check=False,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("words", ["ps", "sweep", "top --once", "dump {pid}"], ids=lambda words: words.split()[0])
def test_looking_runs_no_code_of_the_working_directory(words: str, looked_at: Host, tmp_path: Path) -> None:
    for name in ("psutil", "rich", "msgspec"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('code of a stranger')\n")
    # As the installed command, and unlike `python -m`, which has the working directory on its path by itself.
    done = snakepit(*words.format(pid=looked_at.pid).split(), folder=tmp_path, PYTHONSAFEPATH="1")
    assert (done.returncode, done.stderr) == (0, "")


def test_nothing_is_left_of_a_killed_host(looked_at: Host) -> None:
    (folder,) = RUNS.iterdir()
    assert (folder / "look").is_socket()
    looked_at.process.kill()
    looked_at.process.wait()
    end = time.monotonic() + 30
    while folder.exists() and time.monotonic() < end:
        snakepit("sweep")
    assert not folder.exists()
    assert snakepit("top", "--once").returncode == 1


def screen(*words: str, rows: int = 24, columns: int = 100, **variables: str) -> Terminal:
    return Terminal(command(*words), rows=rows, columns=columns, env=environment(**variables))


def check_rows(text: str) -> None:
    """Each thing is to be seen once: what an earlier picture has left would be there too."""
    lines = text.splitlines()
    for beginning in ("looked at  host", "since its start", "worker  ", "looked at-1 ", "looked at-2 "):
        assert sum(line.startswith(beginning) for line in lines) == 1, text


def test_the_live_view_follows_the_size_of_the_terminal(looked_at: Host) -> None:
    # A shell may have exported the size that the terminal had when it began.
    with screen("top", "--interval", "0.1", COLUMNS="100", LINES="24") as terminal:
        check_rows(terminal.until(lambda text: "answers in" in text and "/s succeeded" in text))
        assert terminal.process.poll() is None
        for rows, columns in ((12, 50), (30, 120), (9, 40), (24, 100)):
            terminal.resize(rows, columns)
            picture = terminal.next_picture()
            lines = picture.splitlines()
            assert len(lines) <= rows
            assert max(map(len, lines)) <= columns
            check_rows(picture)
        assert not terminal.echoes()
        terminal.type("q")
        assert terminal.wait() == 0
        assert terminal.text == ""
        assert terminal.echoes()


@pytest.mark.parametrize(("keys", "code"), [("Q", 0), ("\x03", 0)], ids=["q", "ctrl-c"])
def test_a_key_leaves(keys: str, code: int, looked_at: Host) -> None:
    with screen("top") as terminal:
        terminal.until(lambda text: "answers in" in text)
        terminal.type(f"x{keys}")
        assert terminal.wait() == code
        assert (terminal.text, terminal.other) == ("", None)
        assert terminal.echoes()


def test_sigterm_gives_the_terminal_back(looked_at: Host) -> None:
    with screen("top") as terminal:
        terminal.until(lambda text: "answers in" in text)
        terminal.signal(signal.SIGTERM)
        assert terminal.wait() == 128 + signal.SIGTERM
        assert (terminal.text, terminal.other) == ("", None)
        assert terminal.echoes()


def test_ctrl_z_gives_the_terminal_to_the_shell_for_a_while(looked_at: Host) -> None:
    with screen("top", "--interval", "0.1") as terminal:
        terminal.until(lambda text: "answers in" in text)
        terminal.type("\x1a")
        terminal.until(lambda _: psutil.Process(terminal.process.pid).status() == psutil.STATUS_STOPPED)
        terminal.until(lambda _: terminal.other is None)
        assert terminal.echoes()
        terminal.signal(signal.SIGCONT)
        terminal.until(lambda text: "answers in" in text)
        assert not terminal.echoes()
        terminal.type("q")
        assert terminal.wait() == 0
        assert (terminal.text, terminal.echoes()) == ("", True)


def test_warnings_of_a_view_are_told_once_and_after_it(looked_at: Host) -> None:
    strange = RUNS / "no run"
    strange.touch()
    try:
        with screen("top", "--interval", "0.1", columns=200) as terminal:
            assert "no run" not in terminal.until(lambda text: "answers in" in text)
            assert "no run" not in terminal.next_picture()
            terminal.type("q")
            assert terminal.wait() == 0
            assert terminal.text.count(f"{strange} is no run of a pool, and is left alone") == 2  # before it, and after
    finally:
        strange.unlink()


def test_the_live_view_ends_with_the_pool(looked_at: Host) -> None:
    with screen("top", str(looked_at.pid), "--interval", "0.1") as terminal:
        terminal.until(lambda text: "answers in" in text)
        looked_at.close()
        assert terminal.wait() == 0
        assert terminal.text.strip() == "the pools that were shown have closed"


def test_the_view_of_the_demo_leaves_no_stale_lines(tmp_path: Path) -> None:
    source = "def f(x):\n    if x:\n        return [y for y in x if y]\n" * 2000
    for number in range(60):
        (tmp_path / f"{number}.py").write_text(source)
    with screen("demo", "--path", str(tmp_path), "--workers", "1") as terminal:
        terminal.until(lambda text: re.search(r"^[1-9]\d*/60 files, ", text, re.MULTILINE))
        for rows, columns in ((20, 30), (24, 90)):
            terminal.resize(rows, columns)
            picture = terminal.next_picture()
            assert len(re.findall(r"\d+/60 files", picture)) == 1, picture
        assert terminal.wait() == 0
        assert "/60 files, " not in terminal.text
        assert "0 worker processes left" in terminal.text


def test_ctrl_c_in_the_demo_gives_the_terminal_back(tmp_path: Path) -> None:
    source = "def f(x):\n    if x:\n        return [y for y in x if y]\n" * 2000
    for number in range(300):
        (tmp_path / f"{number}.py").write_text(source)
    with screen("demo", "--path", str(tmp_path), "--workers", "1") as terminal:
        terminal.until(lambda text: re.search(r"^[1-9]\d*/300 files, ", text, re.MULTILINE))
        terminal.type("\x03")
        assert terminal.wait() == 130
        assert terminal.other is None
        assert "interrupted; 0 worker processes left" in terminal.text
        assert "/300 files, " not in terminal.text
