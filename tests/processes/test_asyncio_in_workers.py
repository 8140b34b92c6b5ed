"""asyncio in workers is asyncio's own, and what runs there ends with its call."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

import snakepit_trio as snakepit
from bridge_py.execution.running_loops import is_loops_own
from snakepit_trio.testing import InMemory
from tests.helpers import loop_tools
from tests.helpers.loop_tools import LoopTools
from tests.helpers.workers import is_alive

SCRIPT = f"{loop_tools.__file__}:LoopTools"
LONG = 30.0  # a bound for what must end, and for nothing else


async def _text(log: Path, pattern: str) -> str:
    with trio.fail_after(LONG):
        while not log.exists() or not re.search(pattern, log.read_text()):
            await trio.sleep(0.01)
    return log.read_text()


async def _cancel_in(pool: snakepit.Pool, name: str, log: Path) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.execute, name, {"path": str(log)})
        await _text(log, r"\w ")
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_a_script_that_imports_the_host_has_asyncios_loops(concurrency: int) -> None:
    async with snakepit.open_pool(SCRIPT, workers=1, concurrency=concurrency) as pool:
        assert await pool.execute("say_loop") == "asyncio.unix_events thread"
        await pool.execute("run_pool", {"path": ""})
        assert await pool.execute("say_loop") == "asyncio.unix_events thread"


@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.parametrize(
    "tool",
    [
        "run_waiting",
        "run_with_child",
        "run_in_uvloop",
        "run_until_complete",
        "run_forever",
        "run_blocked",
        "run_two",
        "run_in_trio",
        "run_pool",
    ],
)
async def test_a_cancelled_loop_cleans_up(tool: str, concurrency: int, log: Path) -> None:
    async with snakepit.open_pool(SCRIPT, workers=1, concurrency=concurrency, cancel_grace=LONG) as pool:
        await _cancel_in(pool, tool, log)
        begun, *rest = log.read_text().split()
        assert rest == (["finally", "True"] if tool == "run_forever" else ["finally"])
        assert begun == "begun" or not is_alive(int(begun))
        assert await pool.execute("say_loop") == "asyncio.unix_events thread"
        assert pool.get_stats().restarts == 0


async def test_a_cancelled_loop_in_c_cleans_up_on_the_main_thread(log: Path) -> None:
    """In other threads it is not seen, and costs its worker."""
    async with snakepit.open_pool(SCRIPT, workers=1, cancel_grace=LONG) as pool:
        await _cancel_in(pool, "run_uvloops_loop", log)
        assert log.read_text().split() == ["begun", "finally"]
        await pool.run(os.getpid)  # a worker that was killed would be replaced by now
        assert pool.get_stats().restarts == 0


@pytest.mark.parametrize("tool", ["run_blocked_by_two_signals", "run_blocked_and_nudged"])
async def test_a_second_signal_harms_nothing_while_the_first_one_is_handled(tool: str, log: Path) -> None:
    async with snakepit.open_pool(SCRIPT, workers=1, cancel_grace=LONG) as pool:
        await _cancel_in(pool, tool, log)
        assert log.read_text().split() == ["begun", "finally"]


@pytest.mark.parametrize("tool", ["ignore_signal", "block_signal"])
async def test_a_tool_that_takes_the_signal_away_costs_no_later_call_its_worker(tool: str, log: Path) -> None:
    async with snakepit.open_pool(SCRIPT, workers=1, cancel_grace=LONG) as pool:
        await pool.execute(tool)
        with trio.fail_after(LONG / 2):
            await _cancel_in(pool, "run_two", log)
        assert log.read_text().split() == ["begun", "finally"]
        await pool.run(os.getpid)  # a worker that was killed would be replaced by now
        assert pool.get_stats().restarts == 0


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_tasks_end_with_their_call(concurrency: int, log: Path) -> None:
    async with snakepit.open_pool(SCRIPT, workers=1, concurrency=concurrency) as pool:
        assert await pool.execute("leave_tasks", {"path": str(log)}) == "left"
        assert log.read_text().split() == ["begun", "finally", "cleaned"]
        assert await pool.execute("sleep", {"seconds": 0.4}) == "slept"
        # A task that a callback makes afterwards does not even begin.
        assert log.read_text().split() == ["begun", "finally", "cleaned"]


async def test_tasks_end_with_their_call_in_memory_too(log: Path) -> None:
    async with snakepit.open_pool(LoopTools, workers=1, launcher=InMemory()) as pool:
        assert await pool.execute("leave_tasks", {"path": str(log)}) == "left"
        assert log.read_text().split() == ["begun", "finally", "cleaned"]


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_tasks_end_with_their_stream(concurrency: int, log: Path) -> None:
    async with (
        snakepit.open_pool(SCRIPT, workers=1, concurrency=concurrency) as pool,
        pool.stream("stream_tasks", {"path": str(log)}) as chunks,
    ):
        assert [chunk async for chunk in chunks] == [1]
        assert log.read_text().split() == ["begun", "finally"]


async def test_tasks_of_other_calls_go_on(log: Path) -> None:
    async with (
        snakepit.open_pool(SCRIPT, workers=1, concurrency=2, cancel_grace=0.5) as pool,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(pool.execute, "ignore_cancelling", {"path": str(log)})
        await _text(log, "begun")
        other = log.with_name("other")
        await pool.execute("leave_tasks", {"path": str(other)})
        assert other.read_text().split() == ["begun", "finally", "cleaned"]
        assert pool.get_stats().restarts == 0
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_a_task_that_ignores_its_cancellation_costs_its_worker(concurrency: int, log: Path) -> None:
    async with snakepit.open_pool(SCRIPT, workers=1, concurrency=concurrency, cancel_grace=0.3) as pool:
        await _cancel_in(pool, "ignore_cancelling", log)
        assert log.read_text() == "begun "
        await pool.await_ready(LONG)
        assert pool.get_stats().restarts == 1


@pytest.mark.parametrize("kind", ["SystemExit", "KeyboardInterrupt"])
@pytest.mark.parametrize("concurrency", [1, 2])
async def test_a_task_that_would_end_the_loop_fails_its_call(kind: str, concurrency: int) -> None:
    async with snakepit.open_pool(SCRIPT, workers=1, concurrency=concurrency) as pool:
        with pytest.raises(snakepit.ToolError, match=kind):
            await pool.execute("raise_in_task", {"kind": kind})
        assert await pool.execute("sleep", {"seconds": 0}) == "slept"
        assert pool.get_stats().restarts == 0


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_a_tool_that_stops_its_loop_stops_no_worker(concurrency: int) -> None:
    async with snakepit.open_pool(SCRIPT, workers=1, concurrency=concurrency) as pool:
        assert await pool.execute("stop_its_loop") == "goes on"
        assert pool.get_stats().restarts == 0


async def test_a_tool_that_closes_the_loop_it_finds_harms_no_other() -> None:
    async with snakepit.open_pool(SCRIPT, workers=1) as pool:
        assert await pool.execute("close_loop") == 5
        assert await pool.execute("sleep", {"seconds": 0}) == "slept"
        assert pool.get_stats().restarts == 0


@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.parametrize("how", ["fork", "spawn", "forkserver", "loky"])
async def test_children_of_a_tool_know_the_script(how: str, concurrency: int) -> None:
    async with snakepit.open_pool(SCRIPT, workers=1, concurrency=concurrency, start_timeout=60) as pool:
        assert await pool.execute("square", {"how": how}) == [0, 1, 4]
        assert pool.get_stats().restarts == 0


_APPLICATION = """
import asyncio, threading
import snakepit_trio as snakepit, trio
async def main():
    async with snakepit.open_pool("tests.helpers.loop_tools:LoopTools", workers=1) as pool:
        await pool.execute("pid")
        print(await trio.to_thread.run_sync(asyncio.run, say()))
async def say():
    return type(asyncio.get_running_loop()).__module__
print(asyncio.run(say()))
trio.run(main)
print(asyncio.run(say()))
asyncio.set_event_loop_policy(None)
print(asyncio.run(say()))
import uvloop
asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
print(asyncio.run(say()))
thread = threading.Thread(target=lambda: print(asyncio.run(say())))
thread.start()
thread.join()
"""


def test_an_application_has_asyncios_loops_before_and_after_a_pool() -> None:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", _APPLICATION]
    said = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True).stdout.split()
    before, during, *after = said
    assert (before, during) == ("asyncio.unix_events", "asyncio.unix_events")
    assert after == ["asyncio.unix_events", "asyncio.unix_events", "uvloop", "uvloop"]


@pytest.mark.parametrize(
    ("modules", "is_own"),
    [
        (["tool", "trio._core._run", "tool"], False),
        (["tool", "trio._core._run", "trio.x"], True),
        (["tool", "trio._core._run", "tool", "snakepit_trio._processes.registry", "tempfile"], True),
        (["snakepit_trio._pool.scripts", "trio._core._run", "tool"], False),
    ],
)
def test_code_of_a_pool_inside_the_worker_is_not_left_half_way(modules: list[str], is_own: bool) -> None:
    code = compile("def call(inner):\n    return inner()", "code", "exec")

    def look() -> bool:
        return is_loops_own(sys._getframe(1), in_loop=True)

    inner: Any = look
    for module in reversed(modules):
        names: dict[str, Any] = {"__name__": module}
        exec(code, names)
        inner = functools.partial(names["call"], inner)
    assert inner() is is_own
