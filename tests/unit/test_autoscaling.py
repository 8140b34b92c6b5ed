"""Autoscaled pools in memory, on trio's clock: when they grow and shrink, what they leave alone, what goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

import snakepit_trio as snakepit
from bridge_py import AsyncSessionContext, BaseAdapter, tool
from snakepit_trio import testing
from snakepit_trio._config.policies import bounds_of
from snakepit_trio._config.worker_options import WorkerOptions
from snakepit_trio.testing import InMemory


class Local(BaseAdapter):
    """Naps. `broken` says whether workers cannot start; `seconds` is how long a start takes."""

    broken = False
    seconds = 0.0

    async def setup(self) -> None:
        """Take time, or raise."""
        await asyncio.sleep(Local.seconds)
        if Local.broken:
            raise OSError("no GPU is free")

    @tool
    async def nap(self, seconds: float) -> str:
        """Sleep."""
        await asyncio.sleep(seconds)
        return "awake"

    @tool(limit=1)
    async def alone(self, seconds: float) -> str:
        """Sleep, one at a time."""
        await asyncio.sleep(seconds)
        return "awake"

    @tool
    async def ask(self, ctx: AsyncSessionContext, name: str) -> Any:
        """Call a host tool."""
        return await ctx.call_host_tool(name)


@pytest.fixture(autouse=True)
def all_is_well() -> None:
    Local.broken, Local.seconds = False, 0.0


@pytest.fixture
def clock() -> trio.testing.MockClock:
    """Time that jumps to the next deadline whenever all tasks wait."""
    return trio.testing.MockClock(autojump_threshold=0)


@asynccontextmanager
async def open_it(workers: Any = (2, 8), **config: Any) -> AsyncIterator[tuple[snakepit.Pool, list[snakepit.Event]]]:
    """A pool, and its events about scaling."""
    launcher = config.pop("launcher", None) or InMemory()
    events: list[snakepit.Event] = []
    async with snakepit.open_pool(Local, launcher=launcher, workers=workers, **config) as pool:
        pool.events.attach("pool.scal*", events.append)
        yield pool, events


def steps(events: list[snakepit.Event]) -> list[tuple[float, float]]:
    return [(each.measurements["before"], each.measurements["workers"]) for each in events]


async def keep_busy(pool: snakepit.Pool, calls: int, seconds: float, tool_name: str = "nap", **options: Any) -> None:
    """So many calls at a time, one after another, for that time."""
    until = trio.current_time() + seconds

    async def one_after_another() -> None:
        while trio.current_time() < until:
            assert await pool.execute(tool_name, {"seconds": 0.5}, timeout=None, **options) == "awake"

    async with trio.open_nursery() as nursery:
        for _ in range(calls):
            nursery.start_soon(one_after_another)


async def test_it_grows_while_calls_wait_and_shrinks_when_workers_idle(clock: Any) -> None:
    async with open_it() as (pool, events):
        assert pool.get_stats().workers == 2
        await keep_busy(pool, 6, 20)
        assert steps(events) == [(2, 4), (4, 6)]  # it doubles at most, and starts no more than calls wait
        assert pool.get_stats().workers == pool.get_stats().ready == pool.get_health().expected == 6
        assert events[0].metadata["reason"] == "calls have waited for 1.0 s"
        await keep_busy(pool, 3, 200)  # a lower load keeps three workers busy, and the others go
        assert pool.get_stats().workers == 3
        await keep_busy(pool, 3, 200)
        assert steps(events)[2:] == [(6, 3)]
        await trio.sleep(100)
        assert steps(events)[3:] == [(3, 2)]
        assert events[-1].metadata["reason"] == "idle for 60 s"
        stats = pool.get_stats()
        assert (stats.failed, stats.crashed, stats.restarts) == (0, 0, 0)
        await trio.sleep(1000)
        assert len(events) == 4


async def test_short_queues_do_not_count(clock: Any) -> None:
    async with open_it((1, 8), scale_up_after=5) as (pool, events):
        for _ in range(20):
            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(pool.execute, "nap", {"seconds": 1.0})
        assert events == []


async def test_workers_that_start_slowly_are_waited_for(clock: Any) -> None:
    Local.seconds = 20.0
    async with open_it() as (pool, events):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_busy, pool, 100, 61)
            await trio.sleep(20)
            assert steps(events) == [(2, 4)]
            await trio.sleep(10)
            assert steps(events) == [(2, 4), (4, 8)]
        assert steps(events) == [(2, 4), (4, 8)]
        assert pool.get_stats().ready == 8


async def test_calls_that_wait_for_a_limit_or_for_their_worker_start_none(clock: Any) -> None:
    async with open_it() as (pool, events):
        await keep_busy(pool, 10, 30, "alone")
        async with pool.session(affinity="strict") as session, trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(keep_session_busy, pool, session.id)
        assert events == []


async def test_strict_sessions_without_a_worker_count_once_each(clock: Any) -> None:
    async with open_it((1, 8), affinity="strict") as (pool, events):
        async with trio.open_nursery() as nursery:
            for number in range(3):
                for _ in range(10):
                    nursery.start_soon(keep_session_busy, pool, f"s{number}")
        assert pool.get_stats().workers <= 3
        assert events


async def keep_session_busy(pool: snakepit.Pool, session_id: str) -> None:
    await pool.execute("nap", {"seconds": 1.0}, session=session_id, timeout=None)


async def test_the_worker_of_a_session_stays_longer_than_others(clock: Any) -> None:
    async with open_it((1, 4), affinity="strict") as (pool, _):
        await keep_busy(pool, 4, 20)
        assert pool.get_stats().workers == 4
        await pool.resize((3, 4))
        newest = pool.list_workers()[-1]
        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(keep_session_busy, pool, f"s{number}")
        await trio.sleep(100)
        assert newest.id not in {each.id for each in pool.list_workers()}  # all have sessions: the newest goes
        await pool.resize((1, 4))
        served = {each.id: each.calls_served for each in pool.list_workers()}
        assert len(served) == 3


async def test_a_worker_with_stored_objects_is_not_idle(clock: Any) -> None:
    async with open_it((1, 3)) as (pool, _):
        await keep_busy(pool, 3, 20)
        for number in range(3):
            pool._dispatcher.keep_session(f"s{number}")  # as `pool.python` does
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(keep_session_busy, pool, f"s{number}")
        await trio.sleep(1000)
        assert pool.get_stats().workers == 3
        pool._dispatcher.let_session_go("s0")
        pool._dispatcher.let_session_go("s1")
        await trio.sleep(2)
        assert pool.get_stats().workers == 1
        assert pool._dispatcher.keeps_session("s2")
        await keep_session_busy(pool, "s2")
        assert pool.list_workers()[0].calls_served > 1


async def test_workers_that_are_recycled_meanwhile_are_idle_all_the_same(clock: Any) -> None:
    for per_worker in (None, lambda _number: WorkerOptions()):
        async with open_it((1, 3), recycle=snakepit.RecyclePolicy(age=20), per_worker=per_worker) as (pool, _):
            await keep_busy(pool, 3, 20)
            assert pool.get_stats().workers == 3
            await trio.sleep(90)
            assert pool.get_stats().recycled > 3
            assert pool.get_stats().workers == 1


async def test_a_worker_that_cannot_start_stops_growth_for_a_while(clock: Any) -> None:
    async with open_it((1, 4), quarantine=30) as (pool, events):
        Local.broken = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_busy, pool, 3, 100)
            await trio.sleep(20)
            assert [each.name for each in events] == ["pool.scaled", "pool.scaling_failed"]
            assert "no GPU is free" in events[-1].metadata["problem"]
            assert pool.get_stats().workers == pool.get_stats().ready == 1
            await trio.sleep(20)
            assert len(events) == 4
            Local.broken = False
        assert pool.get_stats().ready == 3
        assert pool.get_stats().failed == 0


async def test_what_the_machine_cannot_hold_is_refused_at_once(clock: Any) -> None:
    with pytest.raises(snakepit.UsageError, match="workers"):
        async with open_it((1, 10**7)):
            pass


async def test_per_worker_is_asked_for_all_numbers_at_the_start(clock: Any) -> None:
    asked: list[int] = []

    def per_worker(number: int) -> WorkerOptions:
        asked.append(number)
        return WorkerOptions()

    async with open_it((1, 3), per_worker=per_worker) as (pool, _):
        assert asked == [0, 1, 2]
        for _ in range(2):
            await keep_busy(pool, 5, 20)
            assert sorted(each.number for each in pool.list_workers()) == [0, 1, 2]
            await trio.sleep(100)
            assert pool.get_stats().workers == 1
        assert asked == [0, 1, 2]


async def test_resizing(clock: Any) -> None:
    async with open_it((2, 4)) as (pool, events):
        await pool.resize((3, 5))
        assert pool.get_stats().ready == 3
        await pool.resize((1, 2))
        assert pool.get_stats().workers == 2
        await trio.sleep(100)
        assert pool.get_stats().workers == 1
        await pool.resize(3)
        await trio.sleep(1000)
        await keep_busy(pool, 10, 30)
        assert pool.get_stats().workers == 3
        await pool.resize((3, 4))
        await keep_busy(pool, 10, 30)
        assert pool.get_stats().workers == 4
        assert steps(events) == [(2, 1), (3, 4)]
        with pytest.raises(snakepit.UsageError, match=r"workers=\(4, 3\): give a whole number of at least 1, or two"):
            await pool.resize((4, 3))
        with pytest.raises(snakepit.UsageError, match=r"at most 4 workers: resize\(\(least, most\)\)"):
            await pool.workers.start(1)
        await pool.workers.stop(pool.list_workers()[0].id)
        await pool.workers.stop(pool.list_workers()[0].id)
        await trio.sleep(2)
        assert steps(events)[2:] == [(2, 3)]
        assert events[-1].metadata["reason"] == "there are at least 3"


async def test_growth_ends_with_other_bounds_and_with_the_pool(clock: Any) -> None:
    Local.seconds = 10.0
    async with open_it((2, 8)) as (pool, _):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_busy, pool, 20, 6)
            await trio.sleep(2)
            assert pool.get_stats().workers == 4
            await pool.resize(2)
            assert pool.get_stats().workers == 2
        Local.seconds = 1000.0
        await pool.resize((2, 8))
        with trio.move_on_after(10):
            await keep_busy(pool, 20, 100)
        assert pool.get_stats().workers == 4  # two of them start when the pool closes
    assert pool.get_stats().workers == 0


async def test_a_nested_call_gets_a_further_worker_in_place_of_a_deadlock(clock: Any) -> None:
    async with open_it((1, 2)) as (pool, events):

        async def deeper() -> Any:
            return await pool.execute("nap", {"seconds": 1.0})

        async def deepest() -> Any:
            return await pool.execute("ask", {"name": "deeper"})

        pool.expose(deeper)
        pool.expose(deepest)
        assert await pool.execute("ask", {"name": "deeper"}) == "awake"
        assert steps(events) == [(1, 2)]
        with pytest.raises(snakepit.ToolError, match="would wait for ever"):
            await pool.execute("ask", {"name": "deepest"}, timeout=None)


async def test_a_quarantined_worker_goes_first(clock: Any) -> None:
    # The third worker dies as soon as it has started again, and again.
    faults = testing.Faults(testing.RefuseStart(worker="pool-3", skip=1, times=None))
    config = {"max_restarts": 1, "quarantine": 1000, "launcher": InMemory(faults)}
    async with open_it((3, 4), **config) as (pool, _):
        pool._supervisor.starters["pool-3"].worker.kill("was killed by the test")
        await trio.sleep(50)
        assert [str(each.state) for each in pool.list_workers()] == ["ready", "ready", "quarantined"]
        await pool.resize((2, 4))
        await trio.sleep(100)
        assert [each.id for each in pool.list_workers()] == ["pool-1", "pool-2"]


@pytest.mark.parametrize("workers", [(), (1,), (1, 2, 3), (0, 2), (3, 2), (1, True), (1.0, 2), "12", (None, 2), 0])
def test_bounds_that_are_none(workers: Any) -> None:
    with pytest.raises(snakepit.UsageError, match=r"workers=.* at least 1"):
        snakepit.PoolConfig(adapter=Local, workers=workers)


def test_bounds() -> None:
    assert bounds_of(3) == (3, 3)
    assert bounds_of([2, 8]) == (2, 8)
    assert bounds_of((2, 8)).is_range
    assert not bounds_of((2, 2)).is_range
    for name in ("scale_up_after", "idle_timeout"):
        no_time: Any = {name: 0}
        with pytest.raises(snakepit.UsageError, match=f"{name}=0: give seconds, more than 0"):
            snakepit.PoolConfig(adapter=Local, **no_time)
