"""The pool keeps itself at strength: restarts, quarantine, health, recycling, retries, taint."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing

import snakepit_trio as snakepit
from benchmarks.scenarios import cancel_a_hundred, serve_beside_a_killing_tool
from tests.helpers.spare_tools import Gated
from tests.helpers.workers import TOOLS, is_alive


async def until_new(pool: snakepit.Pool, pids: set[int | None]) -> set[int | None]:
    """Wait until none of the pool's workers is one of those, and all are ready."""
    with trio.fail_after(60):
        while True:
            await pool.await_ready(20)
            now = {worker.pid for worker in pool.list_workers()}
            if not now & pids:
                return now
            await trio.sleep(0.01)


def pids_of(pool: snakepit.Pool) -> set[int | None]:
    """The pool's worker processes."""
    return {worker.pid for worker in pool.list_workers()}


async def test_workers_one_by_one() -> None:
    async with snakepit.open_pool(TOOLS, workers=1, name="w") as pool:
        (first,) = pool.workers.list()
        assert await pool.workers.start(2) == ("w-2", "w-3")
        assert (pool.workers.count(), len(pool.workers.list()), pool.get_stats().ready) == (3, 3, 3)
        assert pool.workers.get("w-1") == pool.workers.by_pid(first.pid or 0) == pool.workers.list()[0]
        assert pool.workers.get("w-9") is pool.workers.by_pid(1) is None
        await pool.workers.stop("w-1")
        assert [worker.id for worker in pool.workers.list()] == ["w-2", "w-3"]
        assert not is_alive(first.pid or 0)
        before = pool.workers.get("w-2")
        await pool.workers.restart("w-2")
        after = pool.workers.get("w-2")
        assert before is not None
        assert after is not None
        assert before.pid != after.pid
        with pytest.raises(snakepit.UsageError, match="no worker 'w-1'; there are: w-2, w-3"):
            await pool.workers.stop("w-1")


async def test_resizing() -> None:
    async with snakepit.open_pool(TOOLS, workers=2) as pool:
        await pool.resize(4)
        assert pool.get_stats().ready == 4
        await pool.resize(1)
        assert [worker.id for worker in pool.list_workers()] == [f"{pool.config.name}-1"]
        with pytest.raises(snakepit.UsageError, match="at least 1"):
            await pool.resize(0)


async def test_a_closed_pool_takes_no_workers() -> None:
    async with snakepit.open_pool(TOOLS, workers=1) as pool:
        pass
    for change in (pool.resize(2), pool.workers.start(), pool.workers.restart("pool-1")):
        with pytest.raises(snakepit.PoolClosed, match="the pool is closed"):
            await change


async def test_a_pool_that_closes_while_workers_are_added_says_so(tmp_path: Path) -> None:
    found: list[Exception] = []

    async def add(change: Callable[[int], Awaitable[object]]) -> None:
        try:
            await change(3)
        except snakepit.PoolClosed as error:
            found.append(error)

    async with trio.open_nursery() as nursery:
        gate = tmp_path / "open"
        gate.touch()
        async with snakepit.open_pool(Gated, workers=1, env={"GATE": str(tmp_path)}) as pool:
            gate.unlink()  # so the added ones do not become ready
            nursery.start_soon(add, pool.resize)
            await trio.testing.wait_all_tasks_blocked()  # first: it would take away what `start` adds
            nursery.start_soon(add, pool.workers.start)
            await trio.testing.wait_all_tasks_blocked()
        assert pool.list_workers() == []
    assert len(found) == 2


async def test_stopping_a_worker_lets_its_calls_end(log: Path) -> None:
    async with snakepit.open_pool(TOOLS, workers=2, name="w") as pool:
        results: list[str] = []

        async def call() -> None:
            results.append(await pool.execute("sleep", {"seconds": 0.5, "path": str(log)}))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            nursery.start_soon(call)
            while pool.get_stats().busy < 2 or not log.exists():
                await trio.sleep(0.01)
            await pool.workers.stop("w-2")
        assert results == ["slept", "slept"]
        assert pool.get_stats().crashed == 0


async def test_a_worker_that_cannot_be_added_says_why(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    async with snakepit.open_pool("tests.helpers.tools:StartsOnce", workers=1, env={"FLAG": str(flag)}) as pool:
        with pytest.raises(snakepit.WorkerStartError, match="exit code 3"):
            await pool.workers.start()
        assert pool.workers.count() == 1
        assert await pool.execute("ready") is True


async def test_a_worker_that_never_starts_again_is_quarantined_and_tried(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    async with snakepit.open_pool(
        "tests.helpers.tools:StartsOnce", workers=1, env={"FLAG": str(flag)}, max_restarts=3, quarantine=0.5
    ) as pool:
        (worker,) = pool.list_workers()
        os.kill(worker.pid or 0, signal.SIGKILL)
        with trio.fail_after(60):
            while pool.list_workers()[0].state is not snakepit.WorkerState.QUARANTINED:
                await trio.sleep(0.01)
        assert pool.get_health().status == "unavailable"
        with pytest.raises(snakepit.CallTimeout):
            await pool.execute("ready", timeout=0.1)
        flag.unlink()
        assert await pool.execute("ready", timeout=20) is True
        assert pool.get_health().status == "healthy"


async def test_a_stopped_worker_is_replaced() -> None:
    async with snakepit.open_pool(TOOLS, workers=2, ping_interval=0.1, ping_timeout=1.0) as pool:
        before = pids_of(pool)
        pid = min(pid for pid in before if pid)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.execute, "sleep", {"seconds": 0.5})
            os.kill(pid, signal.SIGSTOP)
            await until_new(pool, {pid})
        assert len(before & pids_of(pool)) == 1


async def test_a_stopped_worker_fails_its_calls(log: Path) -> None:
    async with (
        snakepit.open_pool(TOOLS, workers=1, ping_interval=0.1, ping_timeout=0.2) as pool,
        trio.open_nursery() as nursery,
    ):
        (worker,) = pool.list_workers()

        async def stop() -> None:
            while not log.exists():
                await trio.sleep(0.01)
            os.kill(worker.pid or 0, signal.SIGSTOP)

        nursery.start_soon(stop)
        with pytest.raises(snakepit.WorkerCrashed, match="did not answer 2 pings in a row"):
            await pool.execute("sleep", {"seconds": 60, "path": str(log)})


async def test_a_stopped_worker_may_be_allowed_for_a_debugger() -> None:
    async with snakepit.open_pool(TOOLS, workers=1, ping_interval=0.05, ping_timeout=0.25, allow_debugger=True) as pool:
        (worker,) = pool.list_workers()
        os.kill(worker.pid or 0, signal.SIGSTOP)
        await trio.sleep(1.2)  # several pings
        os.kill(worker.pid or 0, signal.SIGCONT)
        assert await pool.execute("pid") == worker.pid


async def test_a_call_that_holds_the_gil_is_not_unresponsive() -> None:
    async with snakepit.open_pool(TOOLS, workers=1, ping_interval=0.05, ping_timeout=0.5) as pool:
        (worker,) = pool.list_workers()
        await pool.execute("hold_the_gil", {"seconds": 3})
        assert await pool.execute("pid") == worker.pid


async def test_health_and_information() -> None:
    async with snakepit.open_pool(TOOLS, workers=2, ping_interval=0.05, name="h") as pool:
        with trio.fail_after(60):
            while any(worker.latency is None for worker in pool.list_workers()):
                await trio.sleep(0.01)
        health = pool.get_health()
        assert (health.status, health.expected, health.working, len(health.workers)) == ("healthy", 2, 2, 2)
        assert all(0 < (worker.latency or 0) < 5 and worker.missed_pings == 0 for worker in health.workers)
        info = pool.get_info()
        assert (info["name"], info["workers"], info["protocol"]) == ("h", 2, 1)
        assert info["worker_python"] == [".".join(map(str, sys.version_info[:3]))]
        assert "add" in {tool["name"] for tool in info["tools"]}


@pytest.mark.parametrize(
    "recycle",
    [
        snakepit.RecyclePolicy(calls=20),
        snakepit.RecyclePolicy(age=0.3),
        snakepit.RecyclePolicy(resident_bytes=150 * 2**20),
    ],
)
async def test_recycling_fails_no_call(recycle: snakepit.RecyclePolicy) -> None:
    async with snakepit.open_pool(TOOLS, workers=2, recycle=recycle, ping_interval=0.1) as pool:
        before = pids_of(pool)
        if recycle.resident_bytes:
            async with trio.open_nursery() as nursery:
                for _ in range(2):
                    nursery.start_soon(pool.execute, "grow", {"mebibytes": 200})
        with trio.fail_after(30):
            while pids_of(pool) & before:
                async with trio.open_nursery() as nursery:
                    for number in range(10):
                        nursery.start_soon(pool.execute, "add", {"a": number})
        stats = pool.get_stats()
        assert (stats.crashed, stats.failed, stats.restarts) == (0, 0, 0)
        assert stats.recycled >= 2


async def test_idempotent_tools_run_again_after_a_crash(log: Path) -> None:
    async with snakepit.open_pool(TOOLS, workers=2) as pool:
        assert await pool.execute("die_twice", {"path": str(log)}) == 3
        assert pool.get_stats().retried == 2
        with pytest.raises(snakepit.WorkerCrashed):
            await pool.execute("die_twice", {"path": f"{log}-more"}, retries=1)


async def test_only_whom_the_caller_allows_runs_again(log: Path) -> None:
    async with snakepit.open_pool(TOOLS, workers=2, taint_after=1000) as pool:
        with pytest.raises(snakepit.WorkerCrashed):
            await pool.execute("die_and_tell", {"path": str(log)})
        assert log.read_text().split() == ["die"]
        with pytest.raises(snakepit.WorkerCrashed):
            await pool.execute("die_and_tell", {"path": str(log)}, retries=2)
        assert log.read_text().split() == ["die"] * 4
        policy = snakepit.RetryPolicy(retries=100, first_delay=0.2, longest_delay=0.2)
        with trio.fail_after(60), pytest.raises((snakepit.WorkerCrashed, snakepit.CallTimeout)):
            await pool.execute("die_twice", {"path": str(log) + "x", "times": 100}, retries=policy, timeout=1)


async def test_a_refusal_does_not_hide_why_a_call_should_run_again(log: Path) -> None:
    async with snakepit.open_pool(TOOLS, workers=2, taint_after=2) as pool:
        with pytest.raises(snakepit.WorkerCrashed) as caught:
            await pool.execute("die_and_tell", {"path": str(log)}, retries=5)
        assert log.read_text().split() == ["die"] * 2
        assert "not run again: command 'die_and_tell' is refused" in caught.value.__notes__[-1]


async def test_what_keeps_killing_workers_is_refused() -> None:
    events: list[snakepit.Event] = []
    async with snakepit.open_pool(TOOLS, workers=2, taint_after=3, taint_period=2.0) as pool:
        pool.events.attach("call.tainted", events.append)
        for _ in range(3):
            with pytest.raises(snakepit.WorkerCrashed):
                await pool.execute("exit", {"code": 7}, session="bad")
        with pytest.raises(snakepit.Tainted, match="command 'exit' is refused for .* killed 3 workers in a row"):
            await pool.execute("exit", {"code": 7})
        with pytest.raises(snakepit.Tainted, match="session 'bad'"):
            await pool.execute("add", {"a": 1}, session="bad")
        assert await pool.execute("add", {"a": 1}) == 2
        assert [(event.name, event.metadata["kind"]) for event in events] == [
            ("call.tainted", "command"),
            ("call.tainted", "session"),
        ]
        with trio.fail_after(60):
            while True:
                try:
                    assert await pool.execute("add", {"a": 1}, session="bad") == 2
                    break
                except snakepit.Tainted as error:
                    await trio.sleep(error.seconds)


async def test_a_success_between_clears_the_suspicion() -> None:
    async with snakepit.open_pool(TOOLS, workers=1, taint_after=2) as pool:
        for _ in range(3):
            with pytest.raises(snakepit.WorkerCrashed):
                await pool.execute("exit_if", {"really": True})
            await pool.execute("exit_if", {"really": False})


@pytest.mark.parametrize("how", ["ignores SIGTERM", "stopped", "holds the GIL"])
async def test_closing_is_bounded(how: str, log: Path) -> None:
    async with trio.open_nursery() as nursery:
        async with snakepit.open_pool(TOOLS, workers=2, shutdown_timeout=1.5) as pool:
            pids = [pid for pid in pids_of(pool) if pid]
            if how == "stopped":
                for pid in pids:
                    os.kill(pid, signal.SIGSTOP)
            else:
                name = "ignore_signals" if how == "ignores SIGTERM" else "hold_the_gil"
                for _ in pids:
                    nursery.start_soon(_expect_closed, pool, name, {"seconds": 60, "path": str(log)})
                while not log.exists() or len(log.read_text().split()) < len(pids):
                    await trio.sleep(0.01)
            began = trio.current_time()
        assert trio.current_time() - began < 20
        assert not any(is_alive(pid) for pid in pids)


async def _expect_closed(pool: snakepit.Pool, name: str, args: dict[str, object]) -> None:
    with pytest.raises((snakepit.PoolClosed, snakepit.WorkerCrashed)):
        await pool.execute(name, args, timeout=None)


async def test_others_are_served_while_a_tool_kills_its_workers(untraced_workers: None) -> None:
    """All the time; at which rate, which is half of the usual one at the least, is for `make chaos`."""
    rates = await serve_beside_a_killing_tool()
    assert min(rates.troubled) > 0, rates
    assert rates.deaths >= 3


async def test_a_hundred_calls_cancelled_at_once(tmp_path: Path) -> None:
    """`make chaos` has all callers get on within two seconds."""
    seconds, ran_on = await cancel_a_hundred(tmp_path, grace=1.0)
    assert seconds < 20  # and not the calls' 300
    assert ran_on == 0
