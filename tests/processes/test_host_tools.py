"""Functions of the host that workers call: results, streams, errors, and how they end."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest
import trio
import trio.lowlevel

import snakepit_trio as snakepit

CALLERS = "tests.helpers.host_tools:HostCallers"


def shout(text: str, times: int = 1) -> str:
    """Make it loud.

    Args:
        text: what to say
        times: how often
    """
    return text.upper() * times


async def whisper(text: str) -> str:
    """Make it quiet."""
    await trio.lowlevel.checkpoint()
    return text.lower()


def numbers() -> Iterator[int]:
    """Count, in a thread."""
    yield from range(100)


async def numbers_async() -> AsyncIterator[int]:
    """Count, in a task."""
    for number in range(100):
        await trio.lowlevel.checkpoint()
        yield number


@pytest.mark.parametrize("tool", ["call", "call_async"])
async def test_results(tool: str) -> None:
    async with snakepit.open_pool(CALLERS, workers=1) as pool:
        assert pool.expose(shout) is shout
        pool.expose(whisper, name="hush")
        pool.expose(lambda array: array * 2, name="double")
        assert await pool.execute(tool, {"name": "shout", "args": {"text": "a", "times": 3}}) == "AAA"
        assert await pool.execute(tool, {"name": "hush", "args": {"text": "A"}}) == "a"
        large = np.arange(1 << 18, dtype=float)
        doubled = await pool.execute(tool, {"name": "double", "args": {"array": large}})
        assert np.array_equal(doubled, large * 2)


@pytest.mark.parametrize("tool", ["describe", "describe_async"])
async def test_what_there_is(tool: str) -> None:
    async with snakepit.open_pool(CALLERS, workers=1) as pool, pool.session() as session:
        pool.expose(shout)
        session.expose(whisper)
        pool.tools.register_host_tool(None, numbers, exposed=False)
        everything = {
            "shout": ["shout", "Make it loud.", "(text: 'str', times: 'int' = 1)"],
            "whisper": ["whisper", "Make it quiet.", "(text: 'str')"],
        }
        assert await session.execute(tool) == everything
        assert await pool.execute(tool) == {"shout": everything["shout"]}
        assert [tool.name for tool in pool.tools.list_exposed_tools(session.id)] == ["shout", "whisper"]
        assert {"numbers", "call"} < {tool.name for tool in pool.tools.list_tools(session.id)}
        with pytest.raises(snakepit.UnknownTool, match="no tool 'numbers'"):
            await pool.execute("call", {"name": "numbers", "args": {}})


@pytest.mark.parametrize("tool", ["by_proxy", "by_proxy_async"])
async def test_proxies(tool: str) -> None:
    async with snakepit.open_pool(CALLERS, workers=1) as pool:
        pool.expose(shout)
        pool.expose(numbers)
        pool.expose(numbers_async)
        assert await pool.execute(tool, {"name": "shout", "args": ["x", 2]}) == "XX"
        assert await pool.execute(tool, {"name": "numbers", "args": []}) == list(range(100))
        assert await pool.execute(tool, {"name": "numbers_async", "args": []}) == list(range(100))
        with pytest.raises(snakepit.SnakepitError, match="shuot|missing"):
            await pool.execute(tool, {"name": "shuot", "args": []})


async def test_sessions_have_their_own() -> None:
    async with snakepit.open_pool(CALLERS, workers=1) as pool:
        pool.expose(lambda: "pool", name="who")
        async with pool.session("a") as a, pool.session("b") as b:
            a.expose(lambda: "a", name="who")
            assert await a.execute("call", {"name": "who", "args": {}}) == "a"
            assert await b.execute("call", {"name": "who", "args": {}}) == "pool"
            with pytest.raises(snakepit.UsageError, match="'who' in session 'a' already"):
                a.expose(lambda: "again", name="who")
        await pool.sessions.delete_session("a")
        assert pool.tools.get_tool("a", "who").session_id is None


@pytest.mark.parametrize("how", ["call", "call_async"])
async def test_errors(how: str) -> None:
    def fail(text: str) -> None:
        raise KeyError(text)

    async def fail_async(text: str) -> None:
        raise KeyError(text)

    async with snakepit.open_pool(CALLERS, workers=1) as pool:
        for function in (fail, fail_async):
            pool.expose(function)
            with pytest.raises(snakepit.HostToolError) as caught:
                await pool.execute(how, {"name": function.__name__, "args": {"text": "x"}})
            error = caught.value
            assert (error.tool, error.type, error.message) == (function.__name__, "KeyError", "'x'")
            found = await pool.execute("call_caught", {"name": function.__name__, "args": {"text": "x"}})
            assert found[:3] == [function.__name__, "KeyError", "'x'"]
            assert f"host tool '{function.__name__}' raised KeyError: 'x'" == found[3]
            assert "test_host_tools.py" in found[4]
        with pytest.raises(snakepit.InvalidArguments, match="fail: the argument 'text' does not fit"):
            await pool.execute(how, {"name": "fail", "args": {"text": 1}})
        with pytest.raises(snakepit.UnknownTool, match="no tool 'fial'; did you mean 'fail'"):
            await pool.execute(how, {"name": "fial", "args": {}})
        with pytest.raises(snakepit.WrongCallKind, match="'numbers' is a stream"):
            pool.expose(numbers)
            await pool.execute(how, {"name": "numbers", "args": {}})
        with pytest.raises(snakepit.EncodeError, match="host tool bad"):
            pool.expose(object, name="bad")
            await pool.execute(how, {"name": "bad", "args": {}})


async def test_a_coroutine_must_not_block() -> None:
    async with snakepit.open_pool(CALLERS, workers=1) as pool:
        with pytest.raises(snakepit.ToolError, match="AsyncSessionContext"):
            await pool.execute("blocked")


async def test_what_cannot_be_exposed() -> None:
    async with snakepit.open_pool(CALLERS, workers=1) as pool:
        with pytest.raises(snakepit.UsageError, match="give a name="):
            pool.expose(lambda: 1)
        with pytest.raises(snakepit.UsageError, match="position only"):
            pool.expose(len)
        pool.expose(shout)
        with pytest.raises(snakepit.UsageError, match="'shout' in the pool already"):
            pool.expose(shout)
        pool.tools.unregister(None, "shout")
        pool.expose(shout)


@pytest.mark.parametrize("how", ["take", "take_async"])
@pytest.mark.parametrize("endless", ["sync", "async"])
async def test_streams_are_bounded_and_stop(how: str, endless: str) -> None:
    produced: list[int] = []
    closed = threading.Event()

    def sync() -> Iterator[int]:
        try:
            while True:
                produced.append(len(produced))
                yield produced[-1]
        finally:
            closed.set()

    async def async_() -> AsyncIterator[int]:
        try:
            while True:
                await trio.lowlevel.checkpoint()
                produced.append(len(produced))
                yield produced[-1]
        finally:
            closed.set()

    async with snakepit.open_pool(CALLERS, workers=1) as pool:
        pool.expose(sync if endless == "sync" else async_, name="endless")
        assert await pool.execute(how, {"name": "endless", "number": 20, "pause": 0.3}) == list(range(20))
        assert closed.is_set()
        # What was taken, what was granted beyond, and the one that waits for credit.
        assert len(produced) <= 20 + 64 + 1


@pytest.mark.parametrize("how", ["relay", "relay_async"])
async def test_streams_through_streams(how: str) -> None:
    async with snakepit.open_pool(CALLERS, workers=1) as pool:
        pool.expose(numbers)
        async with pool.stream(how, {"name": "numbers"}) as chunks:
            assert [chunk async for chunk in chunks] == list(range(100))


@pytest.mark.parametrize("how", ["call", "call_async"])
async def test_the_end_of_a_call_is_the_end_of_its_host_tools(how: str) -> None:
    running = 0
    started = trio.Event()

    async def forever() -> None:
        nonlocal running
        running += 1
        started.set()
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.1)
            running -= 1

    async with snakepit.open_pool(CALLERS, workers=1) as pool:
        pool.expose(forever)
        timeout = 0.3
        while not started.is_set():  # on a busy machine, the time may be over before the host tool has begun
            with pytest.raises(snakepit.CallTimeout):
                await pool.execute(how, {"name": "forever", "args": {}}, timeout=timeout)
            assert running == 0
            timeout *= 2
        async with trio.open_nursery() as nursery:
            started = trio.Event()
            nursery.start_soon(pool.execute, how, {"name": "forever", "args": {}})
            await started.wait()
            nursery.cancel_scope.cancel()
        assert running == 0
        await pool.run(os.getpid)  # a worker that was killed would be replaced by now
        assert pool.get_stats().restarts == 0


async def test_code_in_threads_is_waited_for() -> None:
    ended = 0

    def slow() -> None:
        nonlocal ended
        time.sleep(1.5)
        ended += 1

    async with snakepit.open_pool(CALLERS, workers=1, cancel_grace=0.3) as pool:
        pool.expose(slow)
        with pytest.raises(snakepit.CallTimeout):
            await pool.execute("call", {"name": "slow", "args": {}}, timeout=0.2)
        assert ended == 1
        await pool.run(os.getpid)  # a worker that was killed would be replaced by now
        assert pool.get_stats().restarts == 0  # the worker was not to blame


async def test_a_call_that_leaves_host_tools_behind_ends_them() -> None:
    events: list[str] = []

    async def forever() -> None:
        events.append("begin")
        try:
            await trio.sleep_forever()
        finally:
            events.append("end")

    async with snakepit.open_pool(CALLERS, workers=1) as pool:
        pool.expose(forever)
        assert await pool.execute("leave_behind", {"name": "forever"}) == "left"
        assert events == ["begin", "end"]
        assert await pool.execute("give_up", {"name": "forever", "seconds": 0.1}) == "gave up"
        assert events == ["begin", "end"] * 2


async def test_who_calls() -> None:
    async def who(call: snakepit.HostCall, n: int = 0) -> list[Any]:
        return [call.session_id, call.worker_id, call.tool, n]

    who.__annotations__["call"] = snakepit.HostCall
    async with snakepit.open_pool(CALLERS, workers=1, name="p") as pool, pool.session("s") as session:
        pool.expose(who)
        assert await pool.execute("call", {"name": "who", "args": {}}) == [None, "p-1", "call", 0]
        assert await session.execute("call", {"name": "who", "args": {"n": 2}}) == ["s", "p-1", "call", 2]
        assert await pool.tools.execute_local_tool("s", "who") == ["s", None, "", 0]
        assert await pool.tools.execute_tool("s", "call", {"name": "who", "args": {}}) == ["s", "p-1", "call", 0]
        with pytest.raises(snakepit.InvalidArguments, match="no parameter 'call'"):
            await pool.execute("call", {"name": "who", "args": {"call": 1}})


async def test_many_at_once() -> None:
    async def square(n: int) -> int:
        await trio.sleep(0.001)
        return n * n

    async with snakepit.open_pool(CALLERS, workers=1) as pool:
        pool.expose(square)
        assert await pool.execute("many", {"name": "square", "number": 500}) == [n * n for n in range(500)]


async def test_budgets_that_tools_have() -> None:
    async with snakepit.open_pool(CALLERS, workers=1) as pool:
        with pytest.raises(snakepit.CallTimeout, match="within 0.2 s"):
            await pool.execute("impatient")
        assert pool.tools.get_tool(None, "impatient").spec.timeout == 0.2


async def test_a_worker_that_dies_in_a_host_tool() -> None:
    ended: list[str] = []

    async def kill(pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        try:
            await trio.sleep_forever()
        finally:
            ended.append("end")

    async with snakepit.open_pool(CALLERS, workers=1) as pool:
        pool.expose(kill)
        (worker,) = pool.list_workers()
        with pytest.raises(snakepit.WorkerCrashed):
            await pool.execute("call", {"name": "kill", "args": {"pid": worker.pid}})
        assert ended == ["end"]
        assert await pool.execute("time_left") is not None
