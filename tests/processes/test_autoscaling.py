"""Autoscaled pools of real workers: load comes and goes, and no call fails by it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import trio

import snakepit_trio as snakepit
from tests.helpers.numbered_tools import Exclusive
from tests.helpers.workers import TOOLS, is_alive

QUICK: dict[str, Any] = {"scale_up_after": 0.1, "idle_timeout": 0.4}
BOUND = 60


async def until(pool: snakepit.Pool, workers: int) -> None:
    """Wait until there are so many workers, and no processes of others."""
    with trio.fail_after(BOUND):
        while pool.get_stats().workers != workers or len(pool.list_workers()) != workers:
            await trio.sleep(0.01)
        await pool.await_ready(BOUND)


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_load_comes_and_goes(concurrency: int) -> None:
    async with snakepit.open_pool(TOOLS, workers=(1, 3), concurrency=concurrency, **QUICK) as pool:
        served = 0

        async def load(stop: trio.Event) -> None:
            nonlocal served
            while not stop.is_set():
                assert await pool.execute("sleep", {"seconds": 0.02}, timeout=BOUND) == "slept"
                served += 1

        for _ in range(2):
            stop = trio.Event()
            async with trio.open_nursery() as nursery:
                for _ in range(4 * concurrency):
                    nursery.start_soon(load, stop)
                await until(pool, 3)
                pids = {worker.pid for worker in pool.list_workers()}
                stop.set()
            await until(pool, 1)
            left = {worker.pid for worker in pool.list_workers()}
            assert left < pids
            assert not any(is_alive(pid or 0) for pid in pids - left)
        stats = pool.get_stats()
        assert (stats.succeeded, stats.failed, stats.crashed, stats.restarts) == (served, 0, 0, 0)


async def test_a_little_load_meanwhile_loses_no_call() -> None:
    """Calls come in the very moments at which workers are taken out."""
    async with snakepit.open_pool(TOOLS, workers=(1, 3), scale_up_after=0.02, idle_timeout=0.02) as pool:
        with trio.move_on_after(5):
            while True:
                async with trio.open_nursery() as nursery:
                    for _ in range(6):
                        nursery.start_soon(pool.execute, "sleep", {"seconds": 0.03})
                await trio.sleep(0.019)
        stats = pool.get_stats()
        assert (stats.failed, stats.crashed) == (0, 0)
        assert (stats.queued, stats.running) == (0, 0)
        assert stats.succeeded + stats.cancelled >= stats.calls  # a call that is cancelled as it ends counts as both


async def test_workers_that_die_are_replaced_while_the_pool_scales() -> None:
    async with snakepit.open_pool(TOOLS, workers=(1, 2), **QUICK) as pool:
        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(sleep_with_retries, pool)
            await until(pool, 2)
            for worker in pool.list_workers():
                os.kill(worker.pid or 0, signal.SIGKILL)
        await until(pool, 1)
        assert pool.get_stats().failed == 0


async def sleep_with_retries(pool: snakepit.Pool) -> None:
    for _ in range(10):
        await pool.execute("sleep", {"seconds": 0.1}, retries=10, timeout=BOUND)


async def test_numbers_are_never_shared(tmp_path: Path) -> None:
    """With `per_worker`, a worker that is added has the number of one that was taken out, and only after its end."""

    def per_worker(number: int) -> snakepit.WorkerOptions:
        return snakepit.WorkerOptions(env={"GPU": str(tmp_path / f"gpu-{number}")})

    async with snakepit.open_pool(Exclusive, workers=(1, 3), per_worker=per_worker, **QUICK) as pool:
        for number in range(2):
            stop = tmp_path / f"stop-{number}"
            async with trio.open_nursery() as nursery:
                for _ in range(6):
                    nursery.start_soon(pool.execute, "hold", {"path": str(tmp_path), "until": str(stop)})
                await until(pool, 3)
                assert sorted(worker.number for worker in pool.list_workers()) == [0, 1, 2]
                stop.touch()
            await until(pool, 1)
        assert pool.get_stats().crashed == 0


async def test_closing_while_workers_start() -> None:
    with trio.fail_after(BOUND):
        async with (
            snakepit.open_pool(TOOLS, workers=(1, 8), scale_up_after=0.02) as pool,
            trio.open_nursery() as nursery,
        ):
            for _ in range(40):
                nursery.start_soon(pool.execute, "sleep", {"seconds": 1.0})
            while pool.get_stats().workers == 1:
                await trio.sleep(0.001)
            nursery.cancel_scope.cancel()
    assert pool.list_workers() == []
