"""Host tools that call the pool again: to any depth, with deadlines, deadlocks, and deaths in the middle."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
import trio.lowlevel

import snakepit_trio as snakepit

CALLERS = "tests.helpers.host_tools:HostCallers"


class Nested:
    """Host tools that call the pool, which calls host tools."""

    def __init__(self, pool: snakepit.Pool, how: str) -> None:
        self.pool = pool
        self.how = how
        self.depths: list[int] = []

    async def down(self, depth: int, leaf: str = "") -> Any:
        """Go on to the next level, and at the last one do what `leaf` says."""
        self.depths.append(depth)
        if depth > 1:
            args = {"name": "down", "args": {"depth": depth - 1, "leaf": leaf}}
            return [depth, await self.pool.execute(self.how, args)]
        if leaf == "fail":
            raise ValueError("at the bottom")
        if leaf == "sleep":
            await trio.sleep_forever()
        return await self.pool.execute("time_left")

    def down_in_thread(self, depth: int) -> Any:
        """The same, in threads of the host."""
        if depth == 1:
            return depth
        args = {"name": "down_in_thread", "args": {"depth": depth - 1}}
        return [depth, trio.from_thread.run(self.pool.execute, self.how, args)]


@pytest.mark.parametrize("how", ["call", "call_async"])
@pytest.mark.parametrize(("workers", "concurrency"), [(6, 1), (1, 6)])
async def test_five_levels(how: str, workers: int, concurrency: int) -> None:
    async with snakepit.open_pool(CALLERS, workers=workers, concurrency=concurrency, host_threads=1) as pool:
        nested = Nested(pool, how)
        pool.expose(nested.down)
        pool.expose(nested.down_in_thread)
        found = await pool.execute(how, {"name": "down", "args": {"depth": 5}}, timeout=20)
        for depth in (5, 4, 3, 2):
            assert found[0] == depth
            found = found[1]
        assert 0 < found <= 20  # the innermost call has no more time than the outermost
        assert await pool.execute(how, {"name": "down_in_thread", "args": {"depth": 5}}) == [5, [4, [3, [2, 1]]]]

        with pytest.raises(snakepit.HostToolError, match="at the bottom"):
            await pool.execute(how, {"name": "down", "args": {"depth": 5, "leaf": "fail"}})

        nested.depths.clear()
        began = trio.current_time()
        with pytest.raises(snakepit.CallTimeout):
            await pool.execute(how, {"name": "down", "args": {"depth": 5, "leaf": "sleep"}}, timeout=3)
        assert nested.depths == [5, 4, 3, 2, 1]
        assert trio.current_time() - began < 40
        await _is_idle(pool)

        nested.depths.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.execute, how, {"name": "down", "args": {"depth": 5, "leaf": "sleep"}})
            while len(nested.depths) < 5:
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
        await _is_idle(pool)
        assert pool.get_stats().restarts == 0


async def _is_idle(pool: snakepit.Pool) -> None:
    stats = pool.get_stats()
    assert (stats.running, stats.queued) == (0, 0)


@pytest.mark.parametrize("how", ["call", "call_async"])
@pytest.mark.parametrize(("workers", "callers"), [(1, 1), (2, 2), (3, 8)])
async def test_a_deadlock_is_an_error(how: str, workers: int, callers: int) -> None:
    async with snakepit.open_pool(CALLERS, workers=workers) as pool:
        nested = Nested(pool, how)
        pool.expose(nested.down)
        failed = 0

        async def call() -> None:
            nonlocal failed
            with pytest.raises(snakepit.HostToolError, match="PoolDeadlock"):
                await pool.execute(how, {"name": "down", "args": {"depth": workers + 1}}, timeout=20)
            failed += 1

        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(callers):
                nursery.start_soon(call)
        assert failed == callers  # each needs one place more than there are
        assert trio.current_time() - began < 19
        assert await pool.execute("time_left") is not None


async def test_a_strict_session_that_waits_for_its_own_worker() -> None:
    async with (
        snakepit.open_pool(CALLERS, workers=2) as pool,
        pool.session(affinity="strict") as session,
    ):

        async def again() -> Any:
            return await session.execute("time_left")

        session.expose(again)
        with pytest.raises(snakepit.HostToolError, match="PoolDeadlock"):
            await session.execute("call", {"name": "again", "args": {}}, timeout=10)
        assert await session.execute("time_left") is not None


@pytest.mark.parametrize("how", ["call", "call_async"])
@pytest.mark.parametrize(("workers", "concurrency"), [(1, 4), (4, 1)])
async def test_a_death_of_all_who_wait_for_each_other(how: str, workers: int, concurrency: int) -> None:
    async with snakepit.open_pool(CALLERS, workers=workers, concurrency=concurrency) as pool:
        nested = Nested(pool, how)
        pool.expose(nested.down)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_crashes, pool, how)
            while len(nested.depths) < 4:
                await trio.sleep(0.01)
            for worker in pool.list_workers():
                assert worker.pid
                os.kill(worker.pid, signal.SIGKILL)
        await _is_idle(pool)
        assert await pool.execute("time_left") is not None


async def _crashes(pool: snakepit.Pool, how: str) -> None:
    with pytest.raises(snakepit.WorkerCrashed):
        await pool.execute(how, {"name": "down", "args": {"depth": 4, "leaf": "sleep"}})


class Storm:
    """Calls of every kind, cancelled, timed out and killed at random."""

    def __init__(self, pool: snakepit.Pool, seed: int) -> None:
        self.pool = pool
        self.running = 0
        self.random = random.Random(seed)
        self.ended = 0
        for function in (self.host, self.endless):
            pool.expose(function)

    async def host(self, depth: int) -> int:
        """Wait a little, and go down to the next level."""
        self.running += 1
        try:
            await trio.sleep(self.random.random() * 0.01)
            args = {"name": "host", "args": {"depth": depth - 1}}
            return depth and await self.pool.execute(self.random.choice(["call", "call_async"]), args, timeout=5)
        finally:
            self.running -= 1

    async def endless(self) -> AsyncIterator[int]:
        """Count."""
        self.running += 1
        try:
            for number in itertools.count():
                await trio.lowlevel.checkpoint()
                yield number
        finally:
            self.running -= 1

    async def call(self) -> None:
        """One call of some kind, given up after some time."""
        with trio.move_on_after(self.random.choice([10, 10, 0.01, 0.05])):
            with contextlib.suppress(snakepit.WorkerCrashed, snakepit.HostToolError, snakepit.CallTimeout):
                await self._call(self.random.random())
        self.ended += 1

    async def _call(self, kind: float) -> None:
        if kind < 0.6:
            args = {"name": "host", "args": {"depth": self.random.randint(0, 2)}}
            await self.pool.execute("call", args, timeout=self.random.choice([5, 0.02]))
        elif kind < 0.8:
            await self.pool.execute("take", {"name": "endless", "number": self.random.randint(1, 60)})
        else:
            async with self.pool.stream("relay_async", {"name": "endless"}) as chunks:
                for _ in range(self.random.randint(0, 60)):
                    await anext(chunks)

    async def kill(self) -> None:
        """Kill workers, one after another."""
        while True:
            await trio.sleep(0.2)
            worker = self.random.choice(self.pool.list_workers())
            if worker.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGKILL)


@pytest.mark.parametrize(("seed", "concurrency"), [(1, 1), (2, 3)])
async def test_a_storm(seed: int, concurrency: int, untraced_workers: None) -> None:
    # It is not the calls that kill: they are not to be refused for it.
    config: dict[str, Any] = {"workers": 3, "concurrency": concurrency, "cancel_grace": 0.5, "taint_after": 1000}
    async with snakepit.open_pool(CALLERS, **config) as pool:
        storm = Storm(pool, seed)
        async with trio.open_nursery() as killing:
            killing.start_soon(storm.kill)
            async with trio.open_nursery() as calling:
                for _ in range(6):
                    calling.start_soon(_calls, storm, 25)
            killing.cancel_scope.cancel()
        assert storm.ended == 150
        assert storm.running == 0
        await _is_idle(pool)


async def _calls(storm: Storm, number: int) -> None:
    for _ in range(number):
        await storm.call()
