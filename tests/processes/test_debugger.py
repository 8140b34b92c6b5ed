"""`breakpoint()` in tools of a pool with `debug=True`, on a real pseudo-terminal."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

import snakepit_trio as snakepit
from tests.helpers.breakpoint_tools import Tools
from tests.helpers.command import environment
from tests.helpers.terminal_program import Screen, screen

PROMPT = "(Pdb) "


def command(scenario: str, options: dict[str, Any] | None = None, **more: Any) -> list[str]:
    host = [sys.executable, "-m", "tests.helpers.debugged_host"]
    return [*host, scenario, json.dumps(options or {}), json.dumps(more)]


@contextmanager
def host(folder: Path, scenario: str, options: dict[str, Any] | None = None, **more: Any) -> Iterator[Screen]:
    """A program that opens a pool, and a terminal."""
    with screen(command(scenario, options, **more), folder) as made:
        yield made


def end_well(made: Screen, outcome: str) -> None:
    """The program ends with an outcome, the same workers, and the terminal as it was."""
    text = made.expect("well True")
    assert outcome in text
    assert made.ends() == 0
    assert made.is_as_before


OPTIONS: list[dict[str, Any]] = [{}, {"concurrency": 2}, {"template": True}, {"lane": False}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("tool", ["stop", "stop_async"])
def test_a_debugger_opens_and_changes_the_call(tmp_path: Path, tool: str, options: dict[str, Any]) -> None:
    with host(tmp_path, "one", options, tool=tool) as made:
        assert "breakpoint_tools.py:" in made.expect(f"in {tool}")
        made.expect(PROMPT)
        assert not made.is_as_before
        made.type("number = 41\n")
        made.expect(PROMPT)
        made.type("c\n")
        end_well(made, "result 42")


@pytest.mark.parametrize(
    ("tool", "result"), [("function", "3"), ("stop_often", "[0, 1, 2]"), ("stop_often_async", "[0, 1, 2]")]
)
def test_functions_and_streams(tmp_path: Path, tool: str, result: str) -> None:
    with host(tmp_path, "one", tool=tool) as made:
        made.expect(PROMPT)
        made.type("c\n")
        end_well(made, f"result {result}")


@pytest.mark.parametrize("options", [{}, {"concurrency": 2}], ids=str)
@pytest.mark.parametrize("tool", ["stop", "stop_async", "function", "stop_often", "stop_often_async"])
@pytest.mark.parametrize("step", ["n", "s"])
def test_steps_end_with_the_call(tmp_path: Path, tool: str, step: str, options: dict[str, Any]) -> None:
    with host(tmp_path, "one", options, tool=tool) as made:
        text = made.expect(PROMPT)
        while "well True" not in text:
            assert "executor.py" not in text
            made.type(f"{step}\n")
            text = made.expect_any(PROMPT, "well True")
        assert "result" in text
        assert made.ends() == 0
        assert made.is_as_before


def test_a_breakpoint_that_was_set_opens_the_debugger_again(tmp_path: Path) -> None:
    with host(tmp_path, "one", tool="sum_up") as made:
        made.expect(PROMPT)
        made.type("b helper\n")
        made.expect(PROMPT)
        for number in range(3):
            made.type("c\n")
            assert "waits" not in made.expect(PROMPT)
            made.type("p number\n")
            assert f"{number}\r\n" in made.expect(PROMPT)
        made.type("c\n")
        end_well(made, "result 3")


def test_a_breakpoint_in_what_is_stepped_over(tmp_path: Path) -> None:
    with host(tmp_path, "one", tool="stop_twice") as made:
        text = made.expect(PROMPT)
        while "stop_and_add()" not in text:
            made.type("n\n")
            text = made.expect(PROMPT)
        made.type("breakpoint()\n")
        made.expect("breakpoint() does nothing in what the debugger itself runs")
        made.expect(PROMPT)
        made.type("!a = 40\n")  # `a` is a command too
        made.expect(PROMPT)
        while "well True" not in text:
            made.type("n\n")
            text = made.expect_any(PROMPT, "well True")
        assert "result 41" in text
        assert made.ends() == 0
        assert made.is_as_before


def test_a_coroutine_stops_while_another_one_is_stepped_over(tmp_path: Path) -> None:
    with host(tmp_path, "two", {"concurrency": 2}, tool="stop_and_wait") as made:
        text = made.expect(PROMPT)
        while "well True" not in text:
            made.type("n\n")
            text = made.expect_any(PROMPT, "result", "well True")
            if text.endswith("result"):
                text = made.expect_any(PROMPT, "well True")
        assert made.ends() == 0
        assert made.is_as_before


@pytest.mark.parametrize("tool", ["stop", "stop_async"])
def test_two_breakpoints_in_one_worker(tmp_path: Path, tool: str) -> None:
    with host(tmp_path, "two", {"concurrency": 2}, tool=tool) as made:
        for _ in range(2):
            made.expect(PROMPT)
            made.type("c\n")
        end_well(made, "1\r\n")


@pytest.mark.parametrize("options", [{"workers": 2}, {"concurrency": 2}], ids=str)
def test_the_host_is_told_to_end_while_breakpoints_wait(tmp_path: Path, options: dict[str, Any]) -> None:
    with host(tmp_path, "two", options, tool="stop") as made:
        made.expect(PROMPT)
        if "workers" in options:
            made.expect("waits for the debugger")
        children = workers_of(made)
        os.kill(made.process.pid, signal.SIGTERM)
        assert made.ends() in (-signal.SIGTERM, 128 + signal.SIGTERM)
        assert not psutil.wait_procs(children, 20)[1]
        assert made.is_as_before


@pytest.mark.parametrize("tool", ["stop_in_thread", "stop_in_task"])
def test_threads_and_tasks_of_a_tool(tmp_path: Path, tool: str) -> None:
    with host(tmp_path, "one", tool=tool) as made:
        text = made.expect(PROMPT)
        while "well True" not in text:
            made.type("n\n")
            text = made.expect_any(PROMPT, "well True")
        assert "result 2" in text
        assert made.ends() == 0
        assert made.is_as_before


def test_setup_and_its_bound_of_time(tmp_path: Path) -> None:
    with host(tmp_path, "one", {"start_timeout": 3, "env": {"STOP_IN_SETUP": "1"}}, tool="pid") as made:
        made.expect("in setup")
        made.expect(PROMPT)
        time.sleep(4)  # the time in which a worker must start
        made.type("c\n")
        end_well(made, "result")


@pytest.mark.parametrize("keys", ["q\n", "\x04"], ids=["q", "Ctrl-D"])
@pytest.mark.parametrize("options", [{}, {"concurrency": 2}], ids=str)
@pytest.mark.parametrize("tool", ["stop", "stop_async", "stop_often"])
def test_quitting_ends_the_call(tmp_path: Path, tool: str, options: dict[str, Any], keys: str) -> None:
    with host(tmp_path, "one", options, tool=tool) as made:
        made.expect(PROMPT)
        made.type(keys)
        end_well(made, "raised DebuggerQuit the debugger was left with `quit`, which ends the call")


def test_ctrl_c_at_the_prompt(tmp_path: Path) -> None:
    with host(tmp_path, "one", tool="stop") as made:
        made.expect(PROMPT)
        made.type("numb")
        made.expect("numb")
        made.type("\x03")
        made.expect("--KeyboardInterrupt--")
        made.expect(PROMPT)
        made.type("c\n")
        end_well(made, "result 2")


def test_ctrl_c_while_the_code_runs(tmp_path: Path) -> None:
    with host(tmp_path, "one", tool="slow") as made:
        if "-> time.sleep" not in made.expect(PROMPT):  # since Python 3.13 it opens at the line of the breakpoint
            made.type("n\n")
            made.expect(PROMPT)
        made.type("print('begun') or time.sleep(600)\n")
        made.expect("begun\r\n")
        made.type("\x03")
        made.expect(PROMPT)
        made.type("n\n")
        made.expect("n\r\n")
        time.sleep(0.5)  # nothing tells that the tool sleeps
        made.type("\x03")
        made.expect("KeyboardInterrupt")
        made.expect(PROMPT)
        made.type("q\n")
        end_well(made, "raised DebuggerQuit")


def test_lines_are_edited_and_the_window_has_its_size(tmp_path: Path) -> None:
    pytest.importorskip("readline")
    with host(tmp_path, "one", tool="stop") as made:
        made.expect(PROMPT)
        fcntl.ioctl(made.file, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
        made.type("p numb\t + 40\n")
        assert "41" in made.expect(PROMPT)
        made.type("import os; os.get_terminal_size()\n")
        assert "columns=77, lines=33" in made.expect(PROMPT)
        made.type("\x10\x10\n")  # Ctrl-P is the line before
        made.expect("\n41\r\n")
        made.expect(PROMPT)
        made.type("c\n")
        end_well(made, "result 2")


def test_the_time_at_the_prompt_does_not_count(tmp_path: Path) -> None:
    with host(tmp_path, "one", {"cancel_grace": 0.2}, tool="stop_shortly") as made:
        made.expect(PROMPT)
        time.sleep(1.5)  # the tool has a timeout of a second
        made.type("c\n")
        text = made.expect("well True")
        assert 0 < float(re.findall(r"result ([\d.-]+)", text)[0]) <= 1
        assert made.ends() == 0


def test_bounds_of_memory_and_pings_kill_nobody_at_the_prompt(tmp_path: Path) -> None:
    options = {"max_resident_bytes": 300 << 20, "ping_interval": 0.05, "ping_timeout": 1, "missed_pings": 1}
    with host(tmp_path, "one", options, tool="stop") as made:
        made.expect(PROMPT)
        made.type("x = bytes(1) * (400 << 20)\n")
        made.expect(PROMPT)
        time.sleep(1.5)  # the memory is looked at twenty times a second
        made.type("del x\n")
        made.expect(PROMPT)
        made.type("c\n")
        end_well(made, "result 2")


def test_after_the_prompt_the_deadline_counts_again(tmp_path: Path) -> None:
    with host(tmp_path, "one", tool="slow", timeout=1) as made:
        made.expect(PROMPT)
        made.type("c\n")
        end_well(made, "raised CallTimeout 'slow' was stopped: it did not end within 1.0 s")


@pytest.mark.parametrize("options", [{}, {"concurrency": 2}], ids=str)
@pytest.mark.parametrize("tool", ["stop", "stop_async", "stop_often"])
def test_a_caller_that_gives_up_ends_the_debugger(tmp_path: Path, tool: str, options: dict[str, Any]) -> None:
    with host(tmp_path, "given_up", options, tool=tool) as made:
        made.expect(PROMPT)
        made.expect("-- worker pool-1: the call was cancelled, and leaves the debugger")
        end_well(made, "given up True")


def test_other_workers_go_on(tmp_path: Path) -> None:
    with host(tmp_path, "beside", {"workers": 2}, tool="stop") as made:
        made.expect(PROMPT)
        (tmp_path / "begin").touch()
        made.expect("result ")
        made.expect("result ")
        made.type("c\n")
        end_well(made, "result 2")


@pytest.mark.parametrize("tool", ["stop", "stop_async"])
def test_other_calls_of_the_worker_have_no_deadline_meanwhile(tmp_path: Path, tool: str) -> None:
    with host(tmp_path, "beside", {"concurrency": 3, "cancel_grace": 0.1}, tool=tool, timeout=0.3) as made:
        made.expect(PROMPT)
        (tmp_path / "begin").touch()
        time.sleep(1)  # the timeout and the grace of those calls pass
        made.type("c\n")
        text = made.expect("well True")
        assert text.count("result ") == 3
        assert made.ends() == 0


def test_a_second_breakpoint_waits_and_says_so(tmp_path: Path) -> None:
    with host(tmp_path, "two", {"workers": 2}, tool="stop") as made:
        text = made.expect("waits for the debugger at")
        if PROMPT not in text:
            made.expect(PROMPT)
        made.type("p number\n")
        first = made.expect(PROMPT)
        made.type("c\n")
        made.expect(PROMPT)
        made.type("p number\n")
        second = made.expect(PROMPT)
        assert {"10" in first, "10" in second} == {True, False}
        made.type("c\n")
        text = made.expect("well True")
        assert made.ends() == 0
        assert made.is_as_before


def workers_of(made: Screen) -> list[psutil.Process]:
    """The processes of the program."""
    return psutil.Process(made.process.pid).children(recursive=True)


def test_the_host_dies_at_the_prompt(tmp_path: Path) -> None:
    with host(tmp_path, "one", tool="stop") as made:
        made.expect(PROMPT)
        children = workers_of(made)
        assert not made.is_as_before
        os.kill(made.process.pid, signal.SIGKILL)
        assert not psutil.wait_procs(children, 20)[1]
        assert made.is_as_before


@pytest.mark.parametrize("tool", ["stop", "stop_async", "stop_in_thread", "stop_in_task"])
def test_the_host_is_told_to_end_at_the_prompt(tmp_path: Path, tool: str) -> None:
    with host(tmp_path, "one", tool=tool) as made:
        made.expect(PROMPT)
        children = workers_of(made)
        os.kill(made.process.pid, signal.SIGTERM)
        assert made.ends() in (-signal.SIGTERM, 128 + signal.SIGTERM)
        assert not psutil.wait_procs(children, 20)[1]
        assert made.is_as_before


def test_the_worker_dies_at_the_prompt(tmp_path: Path) -> None:
    with host(tmp_path, "one", tool="stop") as made:
        made.expect(PROMPT)
        made.type("import os; os._exit(7)\n")
        made.expect("raised WorkerCrashed")
        assert made.is_as_before
        made.ends()


def test_no_terminal(tmp_path: Path) -> None:
    done = subprocess.run(
        command("one", tool="stop"),
        cwd=tmp_path,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        start_new_session=True,
        check=True,
    )
    assert "UsageError: breakpoint() finds no terminal: the host of this pool has none" in done.stdout
    assert "well True" in done.stdout


def test_a_program_in_the_background_waits(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    shell = ["bash", "-mc", '"$@" & read < fifo; fg', "bash", *command("one", tool="stop")]
    with screen(shell, tmp_path) as made:
        made.expect("and waits until this program is in the foreground (fg)")
        assert made.is_as_before
        (tmp_path / "fifo").write_text("go on\n")
        made.expect(PROMPT)
        made.type("c\n")
        end_well(made, "result 2")


@pytest.mark.parametrize("tool", ["stop_batch", "stop_cooperative", "stop_kill"])
def test_other_kinds_of_tools(tmp_path: Path, tool: str) -> None:
    args = {"args": {"number": 1}} if tool == "stop_batch" else {}
    with host(tmp_path, "one", tool=tool, **args) as made:
        made.expect(PROMPT)
        made.type("c\n")
        end_well(made, "result 2")


def test_where_a_tool_raises(tmp_path: Path) -> None:
    with host(tmp_path, "one", {"debug": "post-mortem"}, tool="fail") as made:
        made.expect("ValueError: no luck, 42")
        made.expect(PROMPT)
        made.type("p secret\n")
        assert "42" in made.expect(PROMPT)
        made.type("q\n")
        end_well(made, "raised ToolError tool 'fail' on worker pool-1 raised ValueError: no luck, 42")


def test_a_child_process_has_no_debugger(tmp_path: Path) -> None:
    with host(tmp_path, "one", tool="fork") as made:
        end_well(made, "result 7")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"debug": 1}, "debug=1: give True, False or 'post-mortem'"),
        ({"debug": "yes"}, "debug='yes': give True, False or 'post-mortem'"),
    ],
    ids=str,
)
async def test_invalid_options(options: Any, text: str) -> None:
    with pytest.raises(snakepit.UsageError, match=re.escape(text)):
        async with snakepit.open_pool(Tools, **options):
            pass
