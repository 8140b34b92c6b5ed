"""Resources together with batches, limits, spares and autoscaling: who waits, who is refused, and who is waited for."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

import snakepit_trio as snakepit
from bridge_py import BaseAdapter, SessionContext, tool

BOUND = 60
QUICK: dict[str, Any] = {"scale_up_after": 0.05, "idle_timeout": 60}


class Tools(BaseAdapter):
    """Tools that need resources."""

    @tool(resources={"gpu": 1})
    def one(self) -> int:
        return os.getpid()

    @tool(resources={"gpu": 1}, batch=8, wait=1)
    def many(self, n: list[int]) -> list[int]:
        return [len(n)] * len(n)

    @tool(resources={"gpu": 1})
    def hold(self, folder: str) -> int:
        Path(folder, "held").touch()
        while not Path(folder, "end").exists():
            pass
        return os.getpid()


class Nesting(Tools):
    """A tool that needs resources again, by a host tool."""

    @tool(resources={"gpu": 1})
    def nest(self, context: SessionContext) -> object:
        return context.call_host_tool("again")


def only(number: int) -> Callable[[int], snakepit.WorkerOptions]:
    """Make the `per_worker` with which only the worker of one number has a GPU."""
    return lambda each: snakepit.WorkerOptions(resources={"gpu": 1} if each == number else {})


async def until(is_true: Callable[[], object]) -> None:
    with trio.fail_after(BOUND):
        while not is_true():
            await trio.sleep(0.005)


async def refused(pool: snakepit.Pool, found: list[str], name: str, *args: Any) -> None:
    with pytest.raises(snakepit.ResourcesNotOffered) as caught:
        await pool.execute(name, *args, timeout=BOUND)
    found.append(str(caught.value))


async def test_a_batch_whose_worker_is_taken_out_while_it_is_collected_is_refused() -> None:
    found: list[str] = []
    with trio.fail_after(BOUND / 2):
        async with snakepit.open_pool(Tools, workers=2, per_worker=only(1)) as pool:
            async with trio.open_nursery() as nursery:
                for n in range(2):
                    nursery.start_soon(refused, pool, found, "many", {"n": n})
                await until(lambda: pool.get_stats().queued == 2)
                await pool.resize(1)
            stats = pool.get_stats()
    assert [text[:42] for text in found] == ["'many' cannot run: it needs gpu=1, and the"] * 2
    assert (stats.queued, stats.calls) == (0, 2)


@pytest.mark.parametrize("name", ["one", "many"])
async def test_a_waiting_batch_or_call_is_refused_when_its_worker_is_taken_out(name: str, tmp_path: Path) -> None:
    found: list[str] = []
    args = {"n": 1} if name == "many" else None
    async with snakepit.open_pool(Tools, workers=2, per_worker=only(1)) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(pool.execute, "hold", {"folder": str(tmp_path)})
        await until((tmp_path / "held").exists)
        async with trio.open_nursery() as callers:
            for _ in range(2):
                callers.start_soon(refused, pool, found, name, args)
            await until(lambda: pool.get_stats().queued == 2)
            if name == "many":
                await trio.sleep(1.2)  # it is in the queue then
            nursery.start_soon(pool.resize, 1)
        (tmp_path / "end").touch()
    assert [text.partition(":")[0] for text in found] == [f"{name!r} cannot run any more"] * 2


async def test_a_call_for_a_worker_that_the_load_may_not_start_any_more_is_refused() -> None:
    found: list[str] = []
    settings = {**QUICK, "scale_up_after": 3600}
    with trio.fail_after(BOUND / 2):
        async with snakepit.open_pool(Tools, workers=(1, 2), per_worker=only(1), **settings) as pool:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(refused, pool, found, "one")
                await until(lambda: pool.get_stats().queued == 1)
                await pool.resize(1)
            await refused(pool, found, "one")
    assert len(found) == 2


@pytest.mark.parametrize(("name", "args"), [("one", None), ("many", {"n": 1})])
async def test_the_pool_grows_until_it_has_the_worker_that_a_call_needs(name: str, args: Any) -> None:
    async with snakepit.open_pool(Tools, workers=(1, 4), per_worker=only(3), **QUICK) as pool:
        with trio.fail_after(BOUND):
            assert await pool.execute(name, args, timeout=BOUND)
        assert pool.get_stats().workers == 4


async def test_the_pool_does_not_grow_for_calls_that_no_further_worker_would_take(tmp_path: Path) -> None:
    settings = {"workers": (1, 3), "per_worker": only(0), **QUICK}
    async with snakepit.open_pool(Tools, **settings) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(pool.execute, "hold", {"folder": str(tmp_path)})
        await until((tmp_path / "held").exists)
        nursery.start_soon(pool.execute, "one")
        await trio.sleep(0.5)
        assert (pool.get_stats().queued, pool.get_stats().workers) == (1, 1)
        (tmp_path / "end").touch()


async def test_the_pool_does_not_grow_for_calls_that_wait_for_a_limit_and_counts_them(tmp_path: Path) -> None:
    settings = {"workers": (1, 3), "resources": {"gpu": 2}, "concurrency": 2, **QUICK}
    async with snakepit.open_pool(Tools, **settings) as pool, trio.open_nursery() as nursery:
        limited = pool.limit("one at a time", 1)
        nursery.start_soon(limited.execute, "hold", {"folder": str(tmp_path)})
        await until((tmp_path / "held").exists)
        for _ in range(2):
            nursery.start_soon(limited.execute, "one")
        await trio.sleep(0.5)
        stats = pool.get_stats()
        assert (stats.queued, stats.limited, stats.workers) == (2, 2, 1)
        (tmp_path / "end").touch()


async def test_a_nested_call_for_which_no_further_worker_would_do_is_a_deadlock() -> None:
    async with snakepit.open_pool(Nesting, workers=(1, 3), per_worker=only(0), **QUICK) as pool:

        async def again() -> object:
            return await pool.execute("one", timeout=BOUND)

        pool.expose(again)
        with trio.fail_after(BOUND / 2), pytest.raises(snakepit.ToolError, match="PoolDeadlock"):
            await pool.execute("nest", timeout=BOUND)
        assert pool.get_stats().workers == 1


@pytest.mark.parametrize("by", ["death", "restart", "reload"])
async def test_a_spare_steps_in_only_where_it_offers_what_the_worker_offered(by: str) -> None:
    async with snakepit.open_pool(Tools, workers=2, spares=1, per_worker=only(0)) as pool:
        await until(lambda: pool.get_stats().spares == 1)
        with trio.fail_after(BOUND):
            pid = await pool.execute("one")
            if by == "death":
                os.kill(pid, signal.SIGKILL)
                await until(lambda: pool.get_stats().restarts)
            elif by == "restart":
                await pool.workers.restart("pool-1")
            else:
                await pool.reload()
            assert await pool.execute("one", timeout=BOUND) != pid
            await pool.await_ready(BOUND)
            workers = [(worker.number, worker.is_spare) for worker in pool.list_workers() if worker.state != "draining"]
            assert (0, False) in workers
            other = next(worker.id for worker in pool.list_workers() if worker.number and not worker.is_spare)
            await until(lambda: pool.get_stats().spares == 1)
            await pool.workers.restart(other)
            assert pool.get_health().status == "healthy"
