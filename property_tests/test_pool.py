"""The whole pool in memory, under random deaths and cancellations: when a call is over, it is over, and the pool heals.

Each example is a seed: workers, concurrency, calls that call host tools which call the pool again, streams that are
left, timeouts, cancellations, and workers that are killed. Afterwards no host tool runs, no call waits, and the pool
works.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

import snakepit_trio as snakepit
from bridge_py import AsyncSessionContext, BaseAdapter, SessionContext, tool
from snakepit_trio.testing import InMemory

FOR_EVER = 10_000.0  # seconds of a clock that jumps: whatever is not over by then hangs


class Tools(BaseAdapter):
    """What the calls do."""

    @tool
    async def nap(self, seconds: float) -> float:
        """Sleep."""
        await asyncio.sleep(seconds)
        return seconds

    @tool
    def count(self, n: int) -> Iterator[int]:
        """Count."""
        yield from range(n)

    @tool
    def ask(self, ctx: SessionContext) -> Any:
        """Call the host."""
        return ctx.call_host_tool("host")

    @tool
    async def ask_async(self, ctx: AsyncSessionContext) -> Any:
        """Call the host, in a coroutine."""
        return await ctx.call_host_tool("host")


class Scenario:
    """What happens, by a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.running = 0
        self.launcher = InMemory()
        self.kinds: list[Callable[[snakepit.Pool], Any]] = [self._ask, self._ask, self._nap, self._stream]

    async def run(self) -> None:
        """All of it."""
        choose = self.random.choice
        workers, concurrency = self.random.randint(1, 4), self.random.randint(1, 3)
        async with snakepit.open_pool(
            Tools,
            launcher=self.launcher,
            workers=workers,
            concurrency=concurrency,
            send_ahead=choose([0, 32]),
            taint_after=1000,  # it is not the calls that kill them
        ) as pool:
            self.pool = pool
            pool.expose(self.host)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._kill)
                for _ in range(self.random.randint(1, 8)):
                    nursery.start_soon(self._call)
            stats = pool.get_stats()
            assert (self.running, stats.running, stats.queued) == (0, 0, 0)
            await pool.await_ready(60)
            assert await pool.execute("nap", {"seconds": 0.0}) == 0.0
        assert self.launcher.workers() == []

    async def host(self) -> int:
        """A host tool that may call the pool again."""
        self.running += 1
        try:
            await trio.sleep(self.random.random())
            if self.random.random() < 0.6:
                await self._ask(self.pool)
            return 1
        finally:
            self.running -= 1

    async def _call(self) -> None:
        with trio.move_on_after(self.random.choice([0.1, 1, 3, 100])):
            with contextlib.suppress(snakepit.WorkerCrashed, snakepit.CallTimeout, snakepit.HostToolError):
                await self.random.choice(self.kinds)(self.pool)

    async def _ask(self, pool: snakepit.Pool) -> None:
        how, timeout = self.random.choice(["ask", "ask_async"]), self.random.choice([0.5, 5, None])
        assert await pool.execute(how, timeout=timeout) == 1

    async def _nap(self, pool: snakepit.Pool) -> None:
        seconds, timeout = self.random.random() * 2, self.random.choice([0.5, 5])
        assert await pool.execute("nap", {"seconds": seconds}, timeout=timeout, retries=self.random.choice([0, 2]))

    async def _stream(self, pool: snakepit.Pool) -> None:
        taken = 0
        async with pool.stream("count", {"n": 200}) as chunks:
            async for chunk in chunks:
                assert chunk == taken
                taken += 1
                if self.random.random() < 0.01:
                    return
        assert taken == 200

    async def _kill(self) -> None:
        for _ in range(self.random.randint(0, 6)):
            await trio.sleep(self.random.random() * 2)
            if living := self.launcher.workers():
                self.launcher.kill(self.random.choice(living))


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Deaths are logged, and there are many."""
    caplog.set_level(logging.CRITICAL)


@given(st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_when_a_call_is_over_it_is_over(seed: int) -> None:
    async def main() -> None:
        with trio.fail_after(FOR_EVER):
            await Scenario(seed).run()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
