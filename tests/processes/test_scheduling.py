"""The line has a bound, and sessions keep to their worker; end to end, with real workers."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

import snakepit_trio as snakepit
from tests.helpers.workers import TOOLS


@asynccontextmanager
async def _busy_worker(pool: snakepit.Pool, log: Path, session: str | None = None) -> AsyncIterator[None]:
    """The worker of a session is busy for the length of the block."""
    log.write_text("")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(_sleep, pool, log, session))
        while not log.read_text():
            await trio.sleep(0.005)
        yield
        nursery.cancel_scope.cancel()


async def _sleep(pool: snakepit.Pool, log: Path, session: str | None) -> None:
    with suppress(snakepit.WorkerCrashed):
        await pool.execute("sleep", {"seconds": 60, "path": str(log)}, session=session)


async def _pid(pool: snakepit.Pool, session: str | None = None) -> int:
    with trio.fail_after(50):
        pid: int = await pool.execute("pid", session=session)
        return pid


async def _note_pid(pool: snakepit.Pool, session: str | None, pids: list[int]) -> None:
    pids.append(await _pid(pool, session))


async def _until_queued(pool: snakepit.Pool, count: int) -> None:
    with trio.fail_after(60):
        while pool.get_stats().queued != count:
            await trio.sleep(0.001)


async def test_a_full_line_refuses_calls_and_loses_none(log: Path) -> None:
    pids: list[int] = []
    async with snakepit.open_pool(TOOLS, workers=1, send_ahead=0, max_queue=2) as pool, trio.open_nursery() as nursery:
        async with _busy_worker(pool, log):
            for _ in range(2):
                nursery.start_soon(_note_pid, pool, None, pids)
            await _until_queued(pool, 2)
            problem = r"'pid' was not taken: .*queued=2, max_queue=2, running=1, workers=1.* larger max_queue"
            with pytest.raises(snakepit.PoolSaturated, match=problem):
                await pool.execute("pid")
            with pytest.raises(snakepit.PoolSaturated):
                async with pool.stream("count", {"n": 1}):
                    pass
            stats = pool.get_stats()
            assert (stats.calls, stats.queued, stats.running) == (3, 2, 1)
        pids.append(await _pid(pool))
        with trio.fail_after(60):
            while len(pids) < 3:
                await trio.sleep(0.001)
        assert pids == pids[:1] * 3


async def test_no_call_may_wait(log: Path) -> None:
    async with snakepit.open_pool(TOOLS, workers=1, send_ahead=0, max_queue=0) as pool:
        async with _busy_worker(pool, log):
            with pytest.raises(snakepit.PoolError):
                await pool.execute("pid")
        assert await _pid(pool)
        async with pool.map("add", [{"a": 1}] * 10, limit=1) as results:
            assert [result async for result in results] == [2] * 10


@pytest.mark.parametrize(
    ("setting", "error"),
    [
        ({"max_queue": -1}, "max_queue=-1: give a number of calls"),
        ({"max_queue": True}, "max_queue=True: give"),
        ({"max_queue": 1.5}, "max_queue=1.5: give"),
        ({"affinity": "sticky"}, "affinity='sticky': give one of .*'strict_fail_fast'"),
        ({"affinity_sessions": 0}, "affinity_sessions=0: give"),
    ],
)
def test_settings_that_cannot_be(setting: dict[str, Any], error: str) -> None:
    with pytest.raises(snakepit.UsageError, match=error):
        snakepit.PoolConfig(**setting)


def test_no_bound() -> None:
    assert snakepit.PoolConfig(max_queue=None) == snakepit.PoolConfig(max_queue=float("inf"))


async def test_a_hint_keeps_a_session_on_its_worker_while_that_is_free(log: Path) -> None:
    async with snakepit.open_pool(TOOLS, workers=2) as pool:
        home = await _pid(pool, "a")
        async with _busy_worker(pool, log, "a"):
            other = await _pid(pool, "b")
            assert other != home
        for _ in range(5):
            assert await _pid(pool, "a") == home
            assert await _pid(pool, "b") == other
        async with _busy_worker(pool, log, "a"):
            assert await _pid(pool, "a") == other
        assert await _pid(pool, "a") == other


@pytest.mark.parametrize("send_ahead", [0, 32])
async def test_strict_calls_wait_although_another_worker_is_free(send_ahead: int, log: Path) -> None:
    pids: list[int] = []
    async with (
        snakepit.open_pool(TOOLS, workers=2, send_ahead=send_ahead, affinity="strict") as pool,
        trio.open_nursery() as nursery,
    ):
        home = await _pid(pool, "a")
        async with _busy_worker(pool, log, "a"):
            for _ in range(3):
                nursery.start_soon(_note_pid, pool, "a", pids)
            await _until_queued(pool, 3)
            assert await _pid(pool) != home
            assert await _pid(pool, "b") != home
            assert not pids
        async with pool.map("pid", [{}] * 20, session="a") as results:
            assert {result async for result in results} == {home}
        assert pids == [home] * 3


async def test_fail_fast_does_not_wait(log: Path) -> None:
    async with snakepit.open_pool(TOOLS, workers=2, affinity="strict_fail_fast", name="p") as pool:
        home = await _pid(pool, "a")
        async with _busy_worker(pool, log, "a"):
            before = pool.get_stats()
            with pytest.raises(snakepit.WorkerBusy, match=r"worker p-\d of session 'a' .*running=1.*affinity='strict'"):
                await pool.execute("pid", session="a")
            with pytest.raises(snakepit.WorkerBusy):
                async with pool.stream("count", {"n": 1}, session="a"):
                    pass
            assert pool.get_stats().calls == before.calls
            assert await _pid(pool, "b") != home
        assert await _pid(pool, "a") == home


async def test_the_sessions_of_a_killed_worker_move_on(log: Path) -> None:
    pids: list[int] = []
    async with snakepit.open_pool(TOOLS, workers=2, affinity="strict") as pool, trio.open_nursery() as nursery:
        home = await _pid(pool, "a")
        async with _busy_worker(pool, log, "a"):
            for _ in range(3):
                nursery.start_soon(_note_pid, pool, "a", pids)
            await _until_queued(pool, 3)
            os.kill(home, signal.SIGKILL)
            with trio.fail_after(50):
                while len(pids) < 3:
                    await trio.sleep(0.001)
        assert home not in pids
        assert len(set(pids)) == 1
        await pool.await_ready(20)
        assert [await _pid(pool, "a") for _ in range(3)] == pids


async def test_a_cancelled_waiter_leaves_the_line_of_its_worker(log: Path) -> None:
    pids: list[int] = []
    async with snakepit.open_pool(TOOLS, workers=2, affinity="strict") as pool, trio.open_nursery() as nursery:
        home = await _pid(pool, "a")
        async with _busy_worker(pool, log, "a"):
            with trio.CancelScope() as scope:
                nursery.start_soon(_cancel_when_queued, pool, scope)
                await pool.execute("pid", session="a")
            assert scope.cancelled_caught
            assert pool.get_stats().queued == 0
            with pytest.raises(snakepit.CallTimeout):
                await pool.execute("pid", session="a", timeout=0.02)
            nursery.start_soon(_note_pid, pool, "a", pids)
            await _until_queued(pool, 1)
        assert await _pid(pool, "a") == home
        assert pids == [home]


async def _cancel_when_queued(pool: snakepit.Pool, scope: trio.CancelScope) -> None:
    await _until_queued(pool, 1)
    scope.cancel()
