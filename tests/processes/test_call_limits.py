"""Limits with real workers: no more calls of a tool or a key run at once, others go on, and places come back."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import trio

import snakepit_trio as snakepit
from tests.helpers.limited_tools import Tools


class Stays:
    """The calls that are in their host tool, by the name of their tool."""

    def __init__(self, pool: snakepit.Pool) -> None:
        self.pool = pool
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.total: Counter[str] = Counter()
        self.changed = trio.Event()
        self.leave: dict[str, trio.Event] = {}
        pool.expose(self.stay)

    async def stay(self, name: str) -> None:
        """Stay until the test opens the way out for this name."""
        self.now[name] += 1
        self.total[name] += 1
        self.most[name] = max(self.most[name], self.now[name])
        self._change()
        try:
            await self._way_out(name).wait()
        finally:
            self.now[name] -= 1
            self._change()

    def open(self, name: str) -> None:
        """Let all calls of this name leave."""
        self._way_out(name).set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that changes with the calls or with the queue."""
        with trio.fail_after(30):
            while not condition():
                with trio.move_on_after(0.01):
                    await self.changed.wait()

    def _way_out(self, name: str) -> trio.Event:
        return self.leave.setdefault(name, trio.Event())

    def _change(self) -> None:
        self.changed.set()
        self.changed = trio.Event()


@pytest.fixture
async def stays() -> AsyncIterator[Stays]:
    async with snakepit.open_pool(Tools, workers=3, concurrency=2) as pool:
        yield Stays(pool)  # noqa: ASYNC119


Call = Callable[[], Awaitable[Any]]


@pytest.mark.parametrize("name", ["two", "two_async"])
async def test_no_more_calls_of_a_tool_run_at_once_and_other_tools_are_not_held_up(stays: Stays, name: str) -> None:
    stays.open("free")
    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(stays.pool.execute, name)
        await stays.until(lambda: stays.now[name] == 2 and stays.pool.get_stats().limited == 6)
        assert stays.pool.get_stats().queued == 6
        with trio.fail_after(30):
            await stays.pool.execute("free", timeout=None)
        assert stays.now[name] == 2
        stays.open(name)
    assert (stays.most[name], stays.total[name]) == (2, 8)
    assert stays.pool.get_stats().limited == stays.pool.get_stats().queued == 0


async def test_a_stream_holds_its_place_until_its_code_has_ended(stays: Stays) -> None:
    stays.open("one_stream")
    async with trio.open_nursery() as nursery:
        async with stays.pool.stream("one_stream") as chunks:
            await anext(chunks)
            nursery.start_soon(stays.pool.execute, "free")
            await stays.until(lambda: stays.now["free"] == 1)
            with pytest.raises(snakepit.CallTimeout, match=r"tool 'one_stream' \(1 of 1 places taken\)"):
                async with stays.pool.stream("one_stream", timeout=0.2) as others:
                    await anext(others)
        async with stays.pool.stream("one_stream") as chunks:
            await anext(chunks)
        stays.open("free")


async def test_a_key_bounds_all_calls_of_its_views_streams_too(stays: Stays) -> None:
    async def drain() -> None:
        async with stays.pool.limit("key", 3).stream("one_stream") as chunks:
            await anext(chunks)

    calls: list[Call] = [partial(stays.pool.limit("key", 3).options(timeout=60).execute, "free"), drain]
    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(calls[number % 2])
        await stays.until(lambda: stays.now.total() == 3)
        assert stays.pool.get_stats().limited == 5
        stays.open("free")
        stays.open("one_stream")
    assert stays.total == {"free": 4, "one_stream": 4}


async def test_a_call_under_several_limits_takes_a_place_of_each_or_none(stays: Stays) -> None:
    narrow = stays.pool.limit("wide", 4).limit("narrow", 1)
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(narrow.execute, "two")
        await stays.until(lambda: stays.now["two"] == 1 and stays.pool.get_stats().limited == 3)
        nursery.start_soon(stays.pool.limit("wide", 4).execute, "two")  # overtakes: it needs no narrow place
        await stays.until(lambda: stays.now["two"] == 2)
        nursery.start_soon(stays.pool.limit("wide", 4).execute, "free")
        await stays.until(lambda: stays.now["free"] == 1)
        stays.open("two")
        stays.open("free")
    assert stays.total == {"two": 5, "free": 1}


async def test_a_call_that_is_cancelled_gives_its_place_back_in_whatever_state(stays: Stays) -> None:
    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as others:
            for _ in range(5):
                others.start_soon(stays.pool.execute, "two")
            await stays.until(lambda: stays.now["two"] == 2 and stays.pool.get_stats().limited == 3)
            others.cancel_scope.cancel()
        assert stays.pool.get_stats().limited == 0
        for _ in range(3):
            nursery.start_soon(stays.pool.execute, "two")
        await stays.until(lambda: stays.now["two"] == 2 and stays.pool.get_stats().limited == 1)
        with pytest.raises(snakepit.CallTimeout):
            await stays.pool.execute("two", timeout=0.1)
        stays.open("two")
    assert stays.most["two"] == 2


async def test_a_worker_that_dies_gives_the_places_of_its_calls_back(stays: Stays) -> None:
    stays.open("die")
    for _ in range(2):
        with trio.fail_after(30), pytest.raises(snakepit.WorkerCrashed):
            await stays.pool.execute("die")
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(stays.pool.limit("key", 1).execute, "plain")
    assert stays.pool.get_stats().limited == 0


async def test_a_call_that_waits_for_a_place_of_its_own_parent_fails(stays: Stays) -> None:
    async def again() -> object:
        return await stays.pool.execute("nest", timeout=None)

    stays.pool.expose(again)
    with trio.fail_after(30), pytest.raises(snakepit.ToolError, match="all places of the limit of the tool 'nest'"):
        await stays.pool.execute("nest", timeout=None)


async def test_calls_of_strict_sessions_and_quick_calls_keep_the_limit_and_all_end() -> None:
    async with snakepit.open_pool(Tools, workers=2, affinity="strict") as pool, trio.open_nursery() as nursery:
        stays = Stays(pool)
        for session in "abc":
            for _ in range(20):
                nursery.start_soon(pool.limit("some", 2).options(session=session).execute, "plain")
        for _ in range(100):
            nursery.start_soon(pool.execute, "plain")
        await stays.until(lambda: pool.get_stats().succeeded == 160)
    assert pool.get_stats().limited == 0


@pytest.mark.parametrize("wrong", [0, -1, True, 1.5, "2", None])
async def test_what_is_no_number_of_calls(stays: Stays, wrong: Any) -> None:
    with pytest.raises(
        snakepit.UsageError, match=r"^most calls of the key 'db'=.*: give a whole number of at least 1$"
    ):
        stays.pool.limit("db", wrong)


@pytest.mark.parametrize("wrong", ["", None, 3, b"key"])
async def test_what_is_no_key(stays: Stays, wrong: Any) -> None:
    with pytest.raises(snakepit.UsageError, match=r"^key=.*: give the limit's key, which is text and not empty$"):
        stays.pool.limit(wrong, 3)


async def test_a_key_has_the_number_that_was_named_last(stays: Stays) -> None:
    view = stays.pool.limit("key", 1)
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(view.execute, "free")
        await stays.until(lambda: stays.now["free"] == 1 and stays.pool.get_stats().limited == 3)
        stays.pool.limit("key", 3)
        await stays.until(lambda: stays.now["free"] == 3)
        stays.open("free")


async def test_waiting_calls_count_for_max_queue() -> None:
    async with snakepit.open_pool(Tools, workers=2, max_queue=1) as pool, trio.open_nursery() as nursery:
        stays = Stays(pool)
        view = pool.limit("key", 1)
        for _ in range(2):
            nursery.start_soon(view.execute, "free")
        await stays.until(lambda: stays.now["free"] == 1 and pool.get_stats().queued == 1)
        with pytest.raises(snakepit.PoolSaturated):
            await view.execute("free")
        stays.open("free")
