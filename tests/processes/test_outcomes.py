"""Each call that the pool has taken counts once, and has one event for its start and one for its end."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress

import pytest
import trio

import snakepit_trio as snakepit
from bridge_py import BaseAdapter, SessionContext, tool


class Tools(BaseAdapter):
    """Tools that end in their own way when they are stopped."""

    @tool(cancel="cooperative")
    def obey(self, context: SessionContext) -> int:
        """Return a result when cancelled."""
        context.progress(1)
        while not context.cancelled:
            time.sleep(0.005)
        return 1

    @tool(batch=2)
    def gather(self, a: list[int]) -> list[int]:
        """Return the results when cancelled."""
        with suppress(BaseException):
            time.sleep(60)
        return a

    @tool
    def count(self) -> Iterator[int]:
        """Yield, and end well when stopped."""
        with suppress(GeneratorExit):
            yield from range(10**9)

    @tool
    def die(self) -> None:
        """End the process."""
        os._exit(3)


async def cancelled(pool: snakepit.Pool) -> None:
    with trio.move_on_after(0.2):
        await pool.execute("obey")


async def late(pool: snakepit.Pool) -> None:
    with pytest.raises(snakepit.CallTimeout):
        await pool.execute("obey", timeout=0.2)


async def batch_is_cancelled(pool: snakepit.Pool) -> None:
    with trio.move_on_after(0.2):
        await pool.execute("gather", {"a": 1})


async def handler_raises(pool: snakepit.Pool) -> None:
    with pytest.raises(ZeroDivisionError):
        await pool.execute("obey", on_progress=lambda _: 1 // 0)


async def stream_is_left(pool: snakepit.Pool) -> None:
    async with pool.stream("count") as chunks:
        assert await anext(chunks) == 0


async def block_raises(pool: snakepit.Pool) -> None:
    with pytest.raises(ZeroDivisionError):
        async with pool.stream("count") as chunks:
            raise ZeroDivisionError(await anext(chunks))


async def cancelled_by_id(pool: snakepit.Pool) -> None:
    with pytest.raises(snakepit.CallCancelled):
        async with pool.stream("count") as chunks:
            pool.cancel_call(pool.list_calls()[0].id)
            async for _ in chunks:
                pass


async def cancelled_before_it_is_queued(pool: snakepit.Pool) -> None:
    with pytest.raises(snakepit.WorkerCrashed):
        await pool.execute("die")
    with trio.CancelScope() as scope:  # the same call waits now until the worker is back
        scope.cancel()
        await pool.execute("die")


@pytest.fixture
async def pool() -> AsyncIterator[snakepit.Pool]:
    with trio.fail_after(60):
        async with snakepit.open_pool(Tools, workers=1, cancel_grace=20) as opened:
            yield opened  # noqa: ASYNC119


@pytest.mark.parametrize(
    ("end", "outcomes"),
    [
        (cancelled, {"cancelled": 1}),
        (late, {"timed_out": 1}),
        (batch_is_cancelled, {"cancelled": 1}),
        (handler_raises, {"cancelled": 1}),
        (stream_is_left, {"succeeded": 1}),
        (block_raises, {"cancelled": 1}),
        (cancelled_by_id, {"cancelled": 1}),
        (cancelled_before_it_is_queued, {"cancelled": 1, "crashed": 1}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_each_call_has_one_outcome(
    pool: snakepit.Pool, end: Callable[[snakepit.Pool], Awaitable[None]], outcomes: dict[str, int]
) -> None:
    heard: Counter[str] = Counter()
    pool.events.attach("*", lambda event: heard.update([event.name.rpartition(".")[2]]))
    await end(pool)
    stats = pool.get_stats()
    names = ("succeeded", "failed", "cancelled", "timed_out", "crashed")
    assert {name: count for name in names if (count := getattr(stats, name))} == outcomes
    assert stats.calls == sum(outcomes.values())
    assert heard["start"] == heard["stop"] + heard["exception"] == stats.calls
