"""Pools of many workers: what one worker costs its host does not grow with the number of the others."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

import snakepit_trio as snakepit
from bridge_py import BaseAdapter, tool
from snakepit_trio import testing
from snakepit_trio.testing import InMemory

FEW, MANY = 50, 150


class Idle(BaseAdapter):
    """Defined here, where workers in memory find it."""

    @tool
    def empty(self) -> None:
        """Do nothing."""


class Slow(Idle):
    """Takes ten seconds to start."""

    async def setup(self) -> None:
        """Load what it needs."""
        await asyncio.sleep(10)


async def functions_in(act: Callable[[], Awaitable[object]]) -> int:
    """How many functions of Python run meanwhile, comprehensions and turns of generators too."""
    count = 0

    def note(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(note)
    try:
        await act()
    finally:
        sys.setprofile(None)
    return count


def cost_of_each(measure: Callable[[int], Awaitable[float]]) -> tuple[float, float]:
    """What `measure` gives with few workers, and with many."""
    few, many = [testing.run(measure, workers, seed=1, limit=3600) for workers in (FEW, MANY)]
    return few, many


def test_a_call_takes_no_longer_because_there_are_more_workers() -> None:
    async def measure(workers: int) -> float:
        async with snakepit.open_pool(Idle, workers=workers, launcher=InMemory(), ping_interval=1000) as pool:
            await pool.execute("empty")
            return await functions_in(lambda: pool.execute("empty"))

    few, many = cost_of_each(measure)
    assert many == pytest.approx(few, rel=0.1)


def test_replacements_that_are_due_together_do_not_look_at_each_other() -> None:
    async def measure(workers: int) -> float:
        policy = snakepit.RecyclePolicy(age=20)
        async with snakepit.open_pool(  # looked at seldom, because the looks are counted too
            Idle, workers=workers, launcher=InMemory(), recycle=policy, ping_interval=1000
        ) as pool:

            async def until_all_are_replaced() -> None:
                while pool.get_stats().recycled < workers:
                    await trio.sleep(1)

            await trio.sleep(999.5)
            return await functions_in(until_all_are_replaced) / workers

    few, many = cost_of_each(measure)
    assert many < 1.3 * few


def test_a_worker_that_dies_in_the_queue_for_its_replacement_is_restarted_at_once() -> None:
    async def main() -> None:
        launcher, policy = InMemory(), snakepit.RecyclePolicy(age=5)
        async with snakepit.open_pool(Slow, workers=3, launcher=launcher, recycle=policy) as pool:
            async with trio.open_nursery() as nursery:
                for _ in range(3):  # workers that have served are restarted without a pause
                    nursery.start_soon(pool.execute, "empty")
            await trio.sleep(3)  # all are due; the first fresh one starts, which takes ten seconds
            ids = Counter(worker.id for worker in pool.list_workers())
            victim = next(worker for worker in pool.list_workers() if ids[worker.id] == 1)
            launcher.kill(victim.id)
            await trio.sleep(1)
            found = pool.workers.get(victim.id)
            assert found is not None
            assert (found.state, found.pid == victim.pid) == (snakepit.WorkerState.STARTING, False)

    testing.run(main, seed=1, limit=3600)


def test_a_standstill_of_the_host_does_not_bring_the_looks_at_all_workers_together() -> None:
    async def main() -> None:
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, trio.testing.MockClock)
        async with snakepit.open_pool(Idle, workers=1, launcher=InMemory(), ping_interval=10) as pool:
            for _ in range(4):
                await trio.sleep(2)
                await pool.workers.start()
            clock.jump(25)  # as if something had blocked the loop
            await trio.sleep(21)
            starters = pool._supervisor.starters.values()
            answers = {round(starter.worker.health.last_answer or 0) % 10 for starter in starters}
            assert len(answers) == 5

    testing.run(main, seed=1, limit=3600)
