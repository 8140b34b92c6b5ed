"""Pools whose workers run in the test's own process: the same behaviour, on trio's clock, without waiting."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import trio
import trio.testing

import snakepit_trio as snakepit
from bridge_py import AsyncSessionContext, BaseAdapter, SessionContext, tool
from snakepit_trio import testing
from snakepit_trio.testing import InMemory


class Local(BaseAdapter):
    """Defined here, where no worker process could import it from a closure."""

    closed = 0
    beats = 0

    @tool
    def add(self, a: int, b: int) -> int:
        """Add."""
        return a + b

    @tool
    async def nap(self, seconds: float) -> str:
        """Sleep."""
        await asyncio.sleep(seconds)
        return "awake"

    @tool
    async def resist(self) -> None:
        """Go on, whatever comes."""
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                while True:
                    await asyncio.sleep(1)
                    Local.beats += 1

    @tool
    def fail(self) -> None:
        """Raise."""
        raise KeyError("x")

    @tool
    def count(self, n: int) -> Iterator[int]:
        """Count."""
        yield from range(n)

    @tool
    async def tick(self, seconds: float) -> AsyncIterator[float]:
        """Tick for ever."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            await asyncio.sleep(seconds)
            yield loop.time() - began

    @tool
    def ask(self, ctx: SessionContext, name: str) -> Any:
        """Call a host tool."""
        return ctx.call_host_tool(name)

    @tool
    async def ask_async(self, ctx: AsyncSessionContext, name: str) -> Any:
        """Call a host tool."""
        return await ctx.call_host_tool(name)

    @tool
    def bump(self, ctx: SessionContext, name: str) -> int:
        """Add one to a variable."""
        ctx[name] = ctx[name] + 1
        return int(ctx[name])

    def close(self) -> None:
        """Note it."""
        Local.closed += 1


class Broken(BaseAdapter):
    """Cannot start."""

    def setup(self) -> None:
        """Raise."""
        raise OSError("no such device")


def open_it(adapter: Any = Local, **config: Any) -> Any:
    """A pool in memory."""
    return snakepit.open_pool(adapter, launcher=InMemory(), **config)


@pytest.fixture
def clock() -> trio.testing.MockClock:
    """Time that jumps to the next deadline whenever all tasks wait."""
    return trio.testing.MockClock(autojump_threshold=0)


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_calls_and_streams(clock: Any, concurrency: int) -> None:
    Local.closed = 0
    async with open_it(workers=2, concurrency=concurrency) as pool:
        assert await pool.execute("add", {"a": 1, "b": 2}) == 3
        assert await pool.execute("nap", {"seconds": 5}) == "awake"
        with pytest.raises(snakepit.ToolError, match="KeyError"):
            await pool.execute("fail")
        with pytest.raises(snakepit.InvalidArguments, match="'b' is missing"):
            await pool.execute("add", {"a": 1})
        async with pool.stream("count", {"n": 1000}) as chunks:
            assert [chunk async for chunk in chunks] == list(range(1000))
        async with pool.stream("count", {"n": 10**9}) as chunks:
            assert await anext(chunks) == 0
        async with pool.stream("tick", {"seconds": 3600}, timeout=None) as ticks:
            assert [round(await anext(ticks)) for _ in range(3)] == [3600, 7200, 10800]
        async with pool.map("add", ({"a": n, "b": 1} for n in range(100)), ordered=True) as results:
            assert [result async for result in results] == list(range(1, 101))
    assert Local.closed == 2


async def test_time_is_trios(clock: Any) -> None:
    began, real = trio.current_time(), time.monotonic()
    async with open_it(workers=1) as pool, pool.session(ttl=3600) as session:
        with pytest.raises(snakepit.CallTimeout):
            await pool.execute("nap", {"seconds": 10**6}, timeout=10**4)
        with trio.move_on_after(500) as scope:
            await pool.execute("nap", {"seconds": 10**6}, timeout=None)
        assert scope.cancelled_caught
        assert trio.current_time() - began > 10**4
        with pytest.raises(snakepit.SessionNotFound):
            await session.get_variable("x")  # it has expired long ago
        assert await pool.execute("add", {"a": 1, "b": 2}) == 3
        assert pool.get_stats().restarts == 0
    assert time.monotonic() - real < 60


async def test_sessions_and_host_tools(clock: Any) -> None:
    async with open_it(workers=3) as pool, pool.session() as session:

        async def deeper() -> int:
            return int(await session.execute("bump", {"name": "n"}))

        session.expose(deeper)
        pool.expose(lambda: "plain", name="plain")
        await session.register_variable("n", "integer", 0)
        for tool_name in ("ask", "ask_async"):
            assert await session.execute(tool_name, {"name": "plain"}) == "plain"
        assert await session.execute("ask", {"name": "deeper"}) == 1
        assert await session.execute("ask_async", {"name": "deeper"}) == 2
        assert await session.get_variable_value("n") == 2
        pool.expose(trio.sleep_forever, name="forever")
        for tool_name in ("ask", "ask_async"):
            with pytest.raises(snakepit.CallTimeout):
                await pool.execute(tool_name, {"name": "forever"}, timeout=1000)


async def test_a_worker_that_cannot_start(clock: Any) -> None:
    with pytest.raises(snakepit.WorkerStartError, match="could not start: OSError: no such device") as caught:
        async with open_it(Broken):
            pass
    assert "OSError: no such device" in "".join(caught.value.__notes__)


async def test_recycling_and_resizing(clock: Any) -> None:
    async with open_it(workers=2, recycle=snakepit.RecyclePolicy(calls=10)) as pool:
        for n in range(100):
            assert await pool.execute("add", {"a": n, "b": 1}) == n + 1
            await trio.sleep(1)
        await pool.resize(4)
        assert len(pool.list_workers()) == 4
        await pool.workers.restart(pool.list_workers()[0].id)
        await pool.resize(1)
        assert await pool.execute("add", {"a": 1, "b": 1}) == 2
        assert pool.get_stats().recycled >= 8


async def test_a_worker_that_dies_while_its_replacement_starts(clock: Any) -> None:
    # The greeting of the first worker passes, and that of its replacement is slow.
    faults = testing.Faults(testing.Slow(skip=1, seconds=5), testing.Die(tool="nap", after=2))
    config: dict[str, Any] = {"workers": 1, "ping_interval": 1000.0}
    async with snakepit.open_pool(Local, launcher=InMemory(faults), **config) as pool:
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pool.workers.restart, pool.list_workers()[0].id)
                with pytest.raises(snakepit.WorkerCrashed):
                    await pool.execute("nap", {"seconds": 5.0})
                await pool.await_ready()
        assert trio.current_time() == pytest.approx(5)


async def test_code_that_resists_ends_with_its_worker(clock: Any) -> None:
    async with open_it(workers=1) as pool:
        with pytest.raises(snakepit.CallTimeout):
            await pool.execute("resist", timeout=10)
        beats = Local.beats
        assert beats >= 9
        await trio.sleep(100)
        assert Local.beats == beats, "no code of it runs any more"
        assert await pool.execute("add", {"a": 1, "b": 2}) == 3
        assert pool.get_stats().restarts == 1


async def test_what_cannot_run_in_memory(clock: Any) -> None:
    with pytest.raises(snakepit.UsageError, match="only adapters of Python classes"):
        async with open_it(snakepit.StdioJson(__file__)):
            pass
    with pytest.raises(snakepit.UsageError, match="serves no clients"):
        async with open_it(bridge_server=True):
            pass


def test_many_pools_one_after_another() -> None:
    async def scenario() -> None:
        async with open_it(workers=2) as pool:
            assert await pool.execute("add", {"a": 1, "b": 2}) == 3

    for _ in range(50):
        trio.run(scenario, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_large_values_are_read_without_a_thread(autojump_clock: trio.testing.MockClock) -> None:
    class Large(BaseAdapter):
        @tool
        def make(self) -> list[int]:
            """Give many numbers."""
            return list(range(300_000))

        @tool
        def chunks(self) -> Iterator[list[int]]:
            """Yield many numbers."""
            yield list(range(300_000))

        @tool
        def ask(self, context: SessionContext) -> int:
            """Give many numbers to the host."""
            count: int = context.call_host_tool("count", items=list(range(300_000)))
            return count

    async def count(items: list[int]) -> int:
        return len(items)

    async def refuse(*_args: Any, **_options: Any) -> None:
        raise AssertionError("a thread")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trio.to_thread, "run_sync", refuse)
        async with snakepit.open_pool(Large, launcher=InMemory()) as pool:
            pool.expose(count)
            assert len(await pool.execute("make")) == 300_000
            assert await pool.execute("ask") == 300_000
            async with pool.stream("chunks") as chunks:
                assert [len(chunk) async for chunk in chunks] == [300_000]
