"""Resources with real workers: who runs what, who waits, what is refused, and what a worker's end gives back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

import snakepit_trio as snakepit
from bridge_py import BaseAdapter, tool
from tests.helpers import needy_tools as f
from tests.helpers.needy_tools import Tools


class Stays:
    """The calls that are in their host tool, by the name of their tool."""

    def __init__(self, pool: snakepit.Pool) -> None:
        self.pool = pool
        self.now: list[str] = []
        self._leave: dict[str, trio.Event] = {}
        pool.expose(self.stay)

    async def stay(self, name: str) -> None:
        """Stay until the test opens the way out for this name."""
        self.now.append(name)
        try:
            await self._leave.setdefault(name, trio.Event()).wait()
        finally:
            self.now.remove(name)

    def open(self, name: str) -> None:
        """Let all calls of this name leave."""
        self._leave.setdefault(name, trio.Event()).set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that changes with the calls."""
        with trio.fail_after(30):
            while not condition():
                await trio.sleep(0.005)

    def in_use(self) -> list[dict[str, float]]:
        """What calls take of each worker's resources, by the worker's number."""
        workers = sorted(self.pool.workers.list(), key=lambda worker: worker.number)
        return [worker.resources_in_use for worker in workers]


@asynccontextmanager
async def opened(**options: Any) -> AsyncIterator[Stays]:
    with trio.fail_after(90):
        async with snakepit.open_pool(Tools, **options) as pool:
            yield Stays(pool)


def on_even(number: int) -> snakepit.WorkerOptions:
    return snakepit.WorkerOptions(resources={} if number % 2 else {"gpu": 2})


async def test_calls_go_only_to_workers_that_have_enough_left_and_others_pass_them() -> None:
    async with opened(workers=2, concurrency=6, per_worker=on_even) as stays, trio.open_nursery() as nursery:
        numbers: list[int] = []

        async def call(name: str) -> None:
            numbers.append(await stays.pool.execute(name))

        for _ in range(5):
            nursery.start_soon(call, "one")
        await stays.until(lambda: stays.now.count("one") == 2 and stays.pool.get_stats().queued == 3)
        assert stays.in_use() == [{"gpu": 2}, {}]
        assert [worker.resources for worker in stays.pool.workers.list()] == [{"gpu": 2}, {}]
        stays.open("free")
        await stays.pool.execute("free")
        stays.open("one")
        await stays.until(lambda: len(numbers) == 5)
        assert numbers == [0] * 5
        assert stays.in_use() == [{"gpu": 0}, {}]


async def test_tenths_add_up_exactly_and_a_caller_may_ask_for_more_or_for_nothing() -> None:
    async with opened(workers=1, concurrency=20, resources={"gpu": 1}) as stays, trio.open_nursery() as nursery:
        for _ in range(12):
            nursery.start_soon(stays.pool.execute, "tenth")
        await stays.until(lambda: stays.now.count("tenth") == 10 and stays.pool.get_stats().queued == 2)
        assert stays.in_use() == [{"gpu": 1}]
        nursery.start_soon(stays.pool.options(resources={"gpu": 0}).execute, "one")
        await stays.until(lambda: "one" in stays.now)
        stays.open("tenth")
        stays.open("one")
        await stays.until(lambda: stays.in_use() == [{"gpu": 0}])
        assert await stays.pool.options(resources={"gpu": 1}).run(f.number) == 0


async def test_what_no_worker_offers_is_refused_at_once_and_costs_nothing() -> None:
    async with opened(workers=2, per_worker=on_even) as stays:
        with pytest.raises(snakepit.ResourcesNotOffered, match=r"needs gpu=2.5, .* offers is gpu=2\."):
            await stays.pool.options(resources={"gpu": 2.5}).run(f.number)
        with pytest.raises(snakepit.ResourcesNotOffered, match=r"needs tpu=1, .* offers is tpu=0\. Need less"):
            await stays.pool.options(resources={"tpu": 1}).execute("free")
        with pytest.raises(snakepit.ResourcesNotOffered, match="tpu"):
            async with stays.pool.options(resources={"tpu": 1}).stream("free"):
                """It is not entered."""
        stats = stays.pool.get_stats()
        assert (stats.calls, stats.queued) == (0, 0)
    async with opened(workers=1) as stays:
        with pytest.raises(snakepit.ResourcesNotOffered, match="'one' cannot run: it needs gpu=1"):
            await stays.pool.execute("one")


@pytest.mark.parametrize("amount", [True, -1, float("nan"), 2.0**41, 0.0001, "1"], ids=str)
async def test_what_is_no_amount_is_refused(amount: Any) -> None:
    for refused in (
        lambda: snakepit.PoolConfig(adapter=Tools, resources={"gpu": amount}),
        lambda: snakepit.WorkerOptions(resources={"gpu": amount}),
        lambda: snakepit.WorkerOptions(resources=amount),
    ):
        with pytest.raises(snakepit.UsageError, match="resources="):
            refused()

    class Wrong(BaseAdapter):
        @tool(resources={"gpu": amount})
        def wrong(self) -> None: ...

    with pytest.raises(snakepit.UsageError, match="tool 'wrong': resources="):
        Wrong().tools()


async def test_a_dead_workers_resources_come_back_with_its_replacement() -> None:
    async with opened(workers=1, resources={"gpu": 1}) as stays, trio.open_nursery() as nursery:

        async def crash() -> None:
            with pytest.raises(snakepit.WorkerCrashed):
                await stays.pool.execute("die")

        nursery.start_soon(crash)
        await stays.until(lambda: "die" in stays.now)
        nursery.start_soon(stays.pool.execute, "one")
        await stays.until(lambda: stays.pool.get_stats().queued == 1)
        stays.open("die")
        await stays.until(lambda: "one" in stays.now)
        assert stays.pool.get_stats().restarts == 1
        assert stays.in_use() == [{"gpu": 1}]
        stays.open("one")


async def test_a_large_call_is_not_passed_for_ever_by_small_ones() -> None:
    async with opened(workers=1, concurrency=8, resources={"gpu": 2}) as stays, trio.open_nursery() as nursery:
        nursery.start_soon(stays.pool.execute, "one")
        await stays.until(lambda: stays.now == ["one"])
        nursery.start_soon(stays.pool.execute, "two")
        await stays.until(lambda: stays.pool.get_stats().queued == 1)
        nursery.start_soon(stays.pool.execute, "tenth")  # there is room, but the worker is reserved
        await stays.until(lambda: stays.pool.get_stats().queued == 2)
        stays.open("one")
        await stays.until(lambda: stays.now == ["two"])
        stays.open("two")
        await stays.until(lambda: stays.now == ["tenth"])
        stays.open("tenth")


async def test_calls_that_wait_fail_when_the_last_worker_that_offers_enough_is_taken_out() -> None:
    async with opened(workers=2, per_worker=on_even, shutdown_timeout=3) as stays, trio.open_nursery() as nursery:
        failures: list[str] = []

        async def call() -> None:
            with pytest.raises(snakepit.ResourcesNotOffered) as caught:
                await stays.pool.execute("two")
            failures.append(str(caught.value))

        nursery.start_soon(stays.pool.execute, "one")
        await stays.until(lambda: stays.now == ["one"])
        nursery.start_soon(call)
        await stays.until(lambda: stays.pool.get_stats().queued == 1)
        first = stays.pool.workers.list()[0]
        nursery.start_soon(stays.pool.workers.stop, first.id)
        await stays.until(lambda: len(failures) == 1)
        assert "'two' cannot run any more: it needs gpu=2" in failures[0]
        assert stays.now == ["one"], "the worker ends its call first"
        stays.open("one")


@pytest.mark.parametrize("how", ["cancelled", "late"])
async def test_a_call_that_leaves_the_queue_lets_those_behind_it_start(how: str) -> None:
    async with opened(workers=1, concurrency=8, resources={"gpu": 2}) as stays, trio.open_nursery() as nursery:
        nursery.start_soon(stays.pool.execute, "one")
        await stays.until(lambda: stays.now == ["one"])
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as inner:

                async def large() -> None:
                    try:
                        await stays.pool.execute("two", timeout=1.0 if how == "late" else None)
                    except snakepit.CallTimeout as error:
                        assert "it needs gpu=2" in str(error)  # noqa: PT017
                        scope.cancel()

                inner.start_soon(large)
                await stays.until(lambda: stays.pool.get_stats().queued == 1)
                nursery.start_soon(stays.pool.execute, "tenth")
                await stays.until(lambda: stays.pool.get_stats().queued == 2 or scope.cancel_called)
                if how == "cancelled":
                    scope.cancel()
        await stays.until(lambda: sorted(stays.now) == ["one", "tenth"])
        stays.open("one")
        stays.open("tenth")


async def test_a_session_goes_where_its_resources_are_and_limits_hold_too() -> None:
    async with opened(workers=2, per_worker=on_even, affinity="strict") as stays, trio.open_nursery() as nursery:
        for name in ("free", "one", "limited"):
            stays.open(name)
        async with stays.pool.session() as session:
            numbers = [await session.execute(name) for name in ("free", "one", "limited", "free")]
            numbers.append(await stays.pool.options(session=session, resources={"gpu": 1}).run(f.number))
        assert numbers[1:] == [0] * 4
        for _ in range(4):
            nursery.start_soon(stays.pool.execute, "limited")


async def test_a_nested_call_that_needs_what_only_its_caller_holds_is_a_deadlock() -> None:
    async with opened(workers=1, concurrency=4, resources={"gpu": 1}) as stays:

        async def again() -> object:
            return await stays.pool.execute("one")

        stays.pool.expose(again)
        with pytest.raises(snakepit.ToolError, match="PoolDeadlock.*resources"):
            await stays.pool.execute("nest", timeout=None)


async def test_a_replacement_starts_only_when_the_old_worker_has_ended() -> None:
    async with opened(workers=1, resources={"gpu": 1}) as stays, trio.open_nursery() as nursery:
        old = stays.pool.workers.list()[0]
        nursery.start_soon(stays.pool.execute, "one")
        await stays.until(lambda: stays.now == ["one"])
        nursery.start_soon(stays.pool.workers.restart, old.id)
        await stays.until(lambda: stays.pool.workers.list()[0].state is snakepit.WorkerState.DRAINING)
        assert len(stays.pool.workers.list()) == 1
        nursery.start_soon(stays.pool.execute, "tenth")
        await stays.until(lambda: stays.pool.get_stats().queued == 1)
        stays.open("one")
        await stays.until(lambda: stays.now == ["tenth"])
        assert stays.pool.workers.list()[0].pid != old.pid
        stays.open("tenth")
