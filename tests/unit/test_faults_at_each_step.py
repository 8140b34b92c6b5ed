"""A table of steps and faults: at each step of a pool's life in memory, something goes wrong, and it ends in order.

The life: two workers start, calls of all kinds run, the block is left. Whatever comes at whichever step, the block is
left in bounded time, each call has its outcome, and no task and no worker is left.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

import snakepit_trio as snakepit
from bridge_py import BaseAdapter, SessionContext, tool
from snakepit_trio import testing
from tests.helpers.stepping import at_step, tasks

BOUND = 30


class Fault(Exception):
    """What goes wrong."""


class Tools(BaseAdapter):
    """One of each kind."""

    @tool
    def add(self, a: int, b: int) -> int:
        """Add."""
        return a + b

    @tool
    def count(self, n: int) -> Iterator[int]:
        """Count."""
        yield from range(n)

    @tool
    def ask(self, ctx: SessionContext, name: str) -> Any:
        """Call a host tool."""
        return ctx.call_host_tool(name)


class FaultyStore(snakepit.MemoryStore):
    """Its reaper, which is a service of the pool, raises when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.told = trio.Event()

    async def run_reaper(self, interval: float) -> None:
        """Wait for that."""
        await self.told.wait()
        raise Fault("of a service")


class Life:
    """One life of a pool."""

    def __init__(self, *faults: testing.faults.Fault) -> None:
        self.scope = trio.CancelScope()
        self.store = FaultyStore()
        self.launcher = testing.InMemory(testing.Faults(*faults))
        self.pool: snakepit.Pool | None = None
        self.made = self.over = 0

    async def live(self, at: int, then: Callable[[], None]) -> int:
        """Live, with something done at one step. Returns how many steps there were."""
        before = tasks()
        with trio.fail_after(BOUND), self.scope, at_step(at, then) as steps:
            async with snakepit.open_pool(Tools, launcher=self.launcher, workers=2, store=self.store) as self.pool:
                self.pool.expose(self.deeper)
                async with trio.open_nursery() as nursery:
                    for work in (self.call, self.stream, self.ask, self.map):
                        nursery.start_soon(work, self.pool)
        await trio.testing.wait_all_tasks_blocked()
        assert (tasks(), self.launcher.workers()) == (before, [])
        assert self.made == self.over
        if self.pool is not None:
            stats = self.pool.get_stats()
            assert (stats.running, stats.queued) == (0, 0)
        return steps.count

    async def deeper(self) -> int:
        """A host tool."""
        assert self.pool is not None
        return int(await self.pool.execute("add", {"a": 1, "b": 2}))

    @contextlib.asynccontextmanager
    async def counted(self) -> AsyncIterator[None]:
        """Work that has an outcome."""
        self.made += 1
        try:
            with contextlib.suppress(snakepit.SnakepitError):
                yield
        finally:
            self.over += 1

    async def call(self, pool: snakepit.Pool) -> None:
        """Some calls, one after another."""
        for _ in range(3):
            async with self.counted():
                assert await pool.execute("add", {"a": 1, "b": 2}) == 3

    async def stream(self, pool: snakepit.Pool) -> None:
        """A stream."""
        async with self.counted(), pool.stream("count", {"n": 5}) as chunks:
            assert [chunk async for chunk in chunks] == list(range(5))

    async def ask(self, pool: snakepit.Pool) -> None:
        """A call that calls the host, which calls another worker."""
        async with self.counted():
            assert await pool.execute("ask", {"name": "deeper"}) == 3

    async def map(self, pool: snakepit.Pool) -> None:
        """Many calls."""
        async with self.counted(), pool.map("add", [{"a": n, "b": 1} for n in range(3)], ordered=True) as results:
            assert [result async for result in results] == [1, 2, 3]

    def cancel(self) -> None:
        """Cancel all that there is of it."""
        self.scope.cancel()

    def fail(self) -> None:
        """Have a service raise."""
        self.store.told.set()

    def kill_all(self) -> None:
        """Kill all workers that live."""
        for worker in self.launcher.workers():
            self.launcher.kill(worker)

    def hurry(self) -> None:
        """Have closing be short, whenever it comes."""
        if self.pool is not None:
            self.pool._hurry()


FAULTS: dict[str, list[Callable[[Life], None]]] = {
    "cancel": [Life.cancel],
    "a service raises": [Life.fail],
    "workers die": [Life.kill_all],
    "hurry": [Life.hurry],
    "a service raises and workers die": [Life.fail, Life.kill_all],
    "cancel and workers die": [Life.cancel, Life.kill_all],
}


def happen(fault: str, life: Life) -> None:
    """Let a fault come true."""
    for each in FAULTS[fault]:
        each(life)


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_at_each_step(fault: str, autojump_clock: trio.testing.MockClock) -> None:
    steps = await Life().live(-1, lambda: None)
    assert steps > 100
    for step in range(steps):
        life = Life()
        with contextlib.suppress(Fault, snakepit.WorkerStartError):
            await life.live(step, partial(happen, fault, life))


@pytest.mark.parametrize("how", ["launch", "exit", "hang"])
@pytest.mark.parametrize("fault", ["cancel", "a service raises", "hurry"])
async def test_a_fault_at_each_step_while_workers_do_not_start(
    fault: str, how: Any, autojump_clock: trio.testing.MockClock
) -> None:
    for step in range(0, 150, 2):
        life = Life(testing.RefuseStart(skip=1, how=how))
        with contextlib.suppress(Fault, snakepit.WorkerStartError), trio.move_on_after(0.2):
            await life.live(step, partial(happen, fault, life))
