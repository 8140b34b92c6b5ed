"""The wrong run, thread or task gets a clear error, and the pool is unharmed."""

from __future__ import annotations

from typing import Any

import pytest
import trio

import snakepit_trio as snakepit
from tests.helpers.workers import TOOLS


async def test_a_call_from_another_run() -> None:
    async with snakepit.open_pool(TOOLS, workers=1) as pool:

        async def call() -> Any:
            return await pool.execute("add", {"a": 1})

        async def stream() -> None:
            async with pool.stream("count", {"n": 1}):
                pytest.fail("the block was entered")

        for foreign in (call, stream):
            with pytest.raises(snakepit.UsageError, match=r"opened in another trio\.run.*trio\.from_thread\.run"):
                await trio.to_thread.run_sync(trio.run, foreign)
        assert await trio.to_thread.run_sync(trio.from_thread.run, call) == 2
        stats = pool.get_stats()
        assert (stats.queued, stats.running, stats.restarts) == (0, 0, 0)
        assert await call() == 2
    with pytest.raises(snakepit.PoolClosed):
        await trio.to_thread.run_sync(trio.run, call)


async def test_two_tasks_that_take_from_one_stream() -> None:
    async with snakepit.open_pool(TOOLS, workers=1) as pool:
        async with pool.stream("sleep_and_count", {"seconds": 60}) as chunks, trio.open_nursery() as nursery:
            nursery.start_soon(_take_until_cancelled, chunks)
            await trio.testing.wait_all_tasks_blocked(0.01)
            with pytest.raises(trio.BusyResourceError, match="another task takes from this stream"):
                await anext(chunks)
            nursery.cancel_scope.cancel()
        assert await pool.execute("add", {"a": 1}) == 2
        assert pool.get_stats().restarts == 0


async def _take_until_cancelled(source: Any) -> None:
    await anext(source)
    pytest.fail("something came")


async def test_two_tasks_that_take_from_one_map() -> None:
    async with (
        snakepit.open_pool(TOOLS, workers=1) as pool,
        pool.map("sleep_async", [{"seconds": 60}]) as results,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(_take_until_cancelled, results)
        await trio.testing.wait_all_tasks_blocked(0.01)
        with pytest.raises(trio.BusyResourceError, match="another task takes from this map"):
            await anext(results)
        nursery.cancel_scope.cancel()


async def test_two_tasks_that_take_from_one_watch() -> None:
    async with snakepit.open_pool(TOOLS, workers=1) as pool, pool.session() as session:
        await session.register_variable("x", "integer", 1)
        async with session.watch("x") as updates, trio.open_nursery() as nursery:
            await anext(updates)
            nursery.start_soon(_take_until_cancelled, updates)
            await trio.testing.wait_all_tasks_blocked(0.01)
            with pytest.raises(trio.BusyResourceError, match="another task takes from this watch"):
                await anext(updates)
            nursery.cancel_scope.cancel()


async def test_a_stream_after_its_block() -> None:
    async with snakepit.open_pool(TOOLS, workers=1) as pool:
        async with pool.stream("count", {"n": 3}) as chunks:
            assert await anext(chunks) == 0
        with pytest.raises(snakepit.UsageError, match="the block of this stream of 'count' has been left"):
            await anext(chunks)
        async with pool.stream("count", {"n": 3}) as chunks:
            assert [chunk async for chunk in chunks] == [0, 1, 2]
        with pytest.raises(snakepit.UsageError, match="has been left"):
            await anext(chunks)


async def test_a_stream_that_one_task_leaves_while_another_waits() -> None:
    async with snakepit.open_pool(TOOLS, workers=1) as pool, trio.open_nursery() as nursery:
        ended = trio.Event()

        async def take(chunks: Any) -> None:
            with pytest.raises(snakepit.UsageError, match="has been left"):
                await anext(chunks)
            ended.set()

        async with pool.stream("sleep_and_count", {"seconds": 60}) as chunks:
            nursery.start_soon(take, chunks)
            await trio.testing.wait_all_tasks_blocked(0.01)
        with trio.fail_after(30):
            await ended.wait()
        assert await pool.execute("add", {"a": 1}) == 2
