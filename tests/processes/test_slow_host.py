"""A host whose loop stands still again and again takes no healthy worker for dead, and finds those that are."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import trio
import trio.testing

import snakepit_trio as snakepit
from tests.helpers.workers import TOOLS, is_alive

CONFIG: dict[str, Any] = {"ping_interval": 0.1, "ping_timeout": 0.3, "missed_pings": 2}


async def test_a_blocked_loop_kills_no_idle_worker() -> None:
    async with snakepit.open_pool(TOOLS, workers=2, **CONFIG) as pool:
        before = [worker.pid for worker in pool.list_workers()]
        for _ in range(20):
            time.sleep(0.7)  # noqa: ASYNC251 - a host that computes
            await trio.lowlevel.checkpoint()
        await trio.sleep(1)
        assert [worker.pid for worker in pool.list_workers()] == before
        assert pool.get_stats().restarts == 0


async def test_a_stopped_worker_is_found_all_the_same() -> None:
    async with snakepit.open_pool(TOOLS, workers=1, **CONFIG) as pool:
        pid = pool.list_workers()[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        with trio.fail_after(60):
            while not pool.get_stats().restarts:
                time.sleep(0.03)  # noqa: ASYNC251 - a host that computes
                await trio.lowlevel.checkpoint()
        assert not is_alive(pid)


async def test_a_worker_gets_its_grace_in_time_of_the_loop() -> None:
    async with snakepit.open_pool(TOOLS, workers=1, cancel_grace=0.3) as pool:
        for _ in range(5):
            with trio.move_on_after(0.1):
                await pool.execute("sleep_async", {"seconds": 60})
                raise AssertionError("it sleeps for longer")
            async with trio.open_nursery() as nursery:

                async def compute() -> None:
                    time.sleep(0.5)  # noqa: ASYNC251 - a host that computes
                    await trio.lowlevel.checkpoint()

                async def call(scope: trio.CancelScope) -> None:
                    with scope:
                        await pool.execute("sleep_async", {"seconds": 60})

                scope = trio.CancelScope()
                nursery.start_soon(call, scope)
                await trio.sleep(0.1)
                scope.cancel()
                for _ in range(4):
                    await compute()
        assert pool.get_stats().restarts == 0
