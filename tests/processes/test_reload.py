"""`pool.reload()`: fresh workers, which import the code as it is now, replace all others, and no call fails by it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import bridge_py
import snakepit_trio as snakepit
from snakepit_trio.testing import InMemory
from tests.helpers.numbered_tools import Numbered
from tests.helpers.spare_tools import Gated
from tests.helpers.stdio_tools import JSON

BOUND = 60
OWN = str(Path(bridge_py.__file__).with_name("__main__.py"))
CODE = """
import os, time
from bridge_py import BaseAdapter, tool
{broken}
class App(BaseAdapter):
    @tool
    def version(self) -> int:
        return {version}

    @tool
    def hold(self, path: str, until: str) -> int:
        open(path, "w").close()
        while not os.path.exists(until):
            time.sleep(0.005)
        return {version}

    @tool
    def only_in_{version}(self) -> int:
        return os.getpid()
"""
FOREIGN: dict[str, Any] = {
    "grpc": snakepit.GrpcBridge(script=OWN, adapter="tests.helpers.numbered_tools:Numbered"),
    "grpc-0.13": snakepit.GrpcBridge(script=OWN, adapter="tests.helpers.numbered_tools:Numbered", contract="0.13"),
    "stdio-json": JSON,
}


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """The file of an adapter, in its first version."""
    write(tmp_path / "app.py", 1)
    return tmp_path / "app.py"


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A folder whose files let workers start, or fail."""
    (tmp_path / "open").touch()
    return tmp_path


def write(app: Path, version: int, broken: str = "") -> None:
    # Python may take a compiled file for new that is as old as its source, to the second, and of the same size.
    app.write_text(CODE.format(version=version, broken=broken) + "#" * version)


def opened(app: Path, **settings: Any) -> AbstractAsyncContextManager[snakepit.Pool]:
    return snakepit.open_pool(f"{app}:App", **settings)


def gated(gate: Path, **settings: Any) -> AbstractAsyncContextManager[snakepit.Pool]:
    made_of: dict[str, Any] = {"workers": 2, "env": {"GATE": str(gate)}, **settings}
    return snakepit.open_pool(Gated, **made_of)


async def until(is_true: Callable[[], object]) -> None:
    with trio.fail_after(BOUND):
        while not is_true():
            await trio.sleep(0.005)


async def reload(pool: snakepit.Pool) -> None:
    with trio.fail_after(BOUND):
        await pool.reload()


def pids_of(pool: snakepit.Pool) -> set[int | None]:
    return {worker.pid for worker in pool.list_workers()}


def in_service(pool: snakepit.Pool) -> set[int | None]:
    """The processes of workers and spares, without old ones that may still be ending."""
    return {worker.pid for worker in pool.list_workers() if worker.state in ("ready", "busy", "spare")}


def tools_of(pool: snakepit.Pool) -> set[str]:
    return {tool.name for tool in pool.tools.list_tools()}


async def call_all_the_time(pool: snakepit.Pool, found: list[int]) -> None:
    while True:
        found.append(await pool.execute("version"))


@pytest.mark.parametrize(
    "settings",
    [{}, {"spares": 1}, {"concurrency": 3, "send_ahead": 0}, {"per_worker": lambda _: snakepit.WorkerOptions()}],
    ids=["plain", "spare", "concurrency", "per worker"],
)
async def test_no_call_fails_under_load(settings: dict[str, Any], app: Path) -> None:
    found: list[int] = []
    async with opened(app, workers=2, **settings) as pool, trio.open_nursery() as nursery:
        await until(lambda: pool.get_stats().spares == pool.config.spares)
        for _ in range(8):
            nursery.start_soon(call_all_the_time, pool, found)
        for version in (2, 3):
            before = pids_of(pool)
            write(app, version)
            await reload(pool)
            number = len(found)
            await until(lambda: len(found) > number + 50)  # noqa: B023 - used at once
            # A call that had its outcome before the reload was over may have come back to its caller only now.
            assert set(found[number + 8 :]) == {version}
            assert tools_of(pool) >= {"version", f"only_in_{version}"}
            assert f"only_in_{version - 1}" not in tools_of(pool)
            assert await pool.execute(f"only_in_{version}") not in before
            assert (pool.get_stats().ready, pool.get_stats().spares) == (2, pool.config.spares)
        stats = pool.get_stats()
        assert (stats.failed, stats.crashed, stats.restarts, stats.cancelled, stats.timed_out) == (0, 0, 0, 0, 0)
        nursery.cancel_scope.cancel()


async def test_calls_of_old_workers_end_in_them(app: Path, tmp_path: Path) -> None:
    running, end = tmp_path / "running", tmp_path / "end"
    held: list[int] = []
    async with opened(app, workers=1) as pool, trio.open_nursery() as nursery:

        async def hold() -> None:
            held.append(await pool.execute("hold", {"path": str(running), "until": str(end)}))

        nursery.start_soon(hold)
        await until(running.exists)
        write(app, 2)
        await reload(pool)
        assert await pool.execute("version") == 2
        assert ([worker.state for worker in pool.list_workers()], held) == (["draining", "ready"], [])
        end.touch()
        await until(lambda: held == [1])


@pytest.mark.parametrize("spares", [0, 1])
async def test_broken_code_leaves_the_old_workers_in_service(spares: int, app: Path) -> None:
    async with opened(app, workers=2, spares=spares) as pool:
        await until(lambda: pool.get_stats().spares == spares)
        before = pids_of(pool)
        write(app, 2, broken="raise RuntimeError('half a change')")
        for _ in range(2):
            with pytest.raises(snakepit.WorkerStartError, match="could not start: RuntimeError: half a change"):
                await reload(pool)
            assert await pool.execute("version") == 1
        assert (pids_of(pool), pool.get_stats().ready, tools_of(pool) >= {"only_in_1"}) == (before, 2, True)
        write(app, 3)
        await reload(pool)
        assert not in_service(pool) & before
        assert (await pool.execute("version"), "only_in_1" in tools_of(pool)) == (3, False)


async def test_broken_code_where_the_old_worker_must_end_first(app: Path) -> None:
    async with opened(app, workers=2, per_worker=lambda _: snakepit.WorkerOptions()) as pool:
        write(app, 2, broken="raise RuntimeError('half a change')")
        with pytest.raises(snakepit.WorkerStartError, match="half a change"):
            await reload(pool)
        assert await pool.execute("version") == 1
        write(app, 3)
        await reload(pool)
        assert (await pool.execute("version"), pool.get_stats().ready) == (3, 2)
        assert [worker.number for worker in pool.list_workers()] == [0, 1]


@pytest.mark.parametrize("protocol", FOREIGN)
async def test_foreign_workers(protocol: str) -> None:
    async with snakepit.open_pool(FOREIGN[protocol], workers=2, spares=1) as pool:
        await until(lambda: pool.get_stats().spares == 1)
        before = pids_of(pool)
        await reload(pool)
        assert (len(in_service(pool)), in_service(pool) & before) == (3, set())


async def test_workers_in_memory(autojump_clock: MockClock) -> None:
    async with snakepit.open_pool(Numbered, workers=2, spares=1, launcher=InMemory()) as pool:
        await until(lambda: pool.get_stats().spares == 1)
        before = pids_of(pool)
        await reload(pool)
        assert (len(in_service(pool)), in_service(pool) & before) == (3, set())


# What else happens meanwhile. The gate holds the start of the first fresh worker.


async def test_a_second_reload_replaces_what_was_started_before_it(gate: Path) -> None:
    async with gated(gate) as pool, trio.open_nursery() as nursery:
        (gate / "open").unlink()
        nursery.start_soon(reload, pool)
        await until(lambda: len(pids_of(pool)) == 3)
        before = pids_of(pool)
        for _ in range(3):
            nursery.start_soon(reload, pool)
        await wait_all_tasks_blocked()
        (gate / "open").touch()
        await until(lambda: len(nursery.child_tasks) == 0)
        assert not in_service(pool) & before
        # Of the first reload two, and of the three others together one: the worker that was starting.
        assert (pool.get_stats().ready, pool.get_stats().recycled) == (2, 3)


async def test_a_reload_is_cancelled(gate: Path) -> None:
    async with gated(gate) as pool, trio.open_nursery() as nursery:
        before = pids_of(pool)
        (gate / "open").unlink()
        nursery.start_soon(pool.reload)
        await until(lambda: len(pids_of(pool)) == 3)
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            (gate / "open").touch()
            await until(lambda: pool.get_stats().recycled == 1)
            await until(lambda: len(pids_of(pool)) == 2)
            assert len(pids_of(pool) & before) == 1
            await reload(pool)
            assert not in_service(pool) & before


async def test_a_pool_closes_while_it_is_reloaded(gate: Path) -> None:
    async def reload_closed(pool: snakepit.Pool) -> None:
        with pytest.raises(snakepit.PoolClosed):
            await reload(pool)

    with trio.fail_after(BOUND):
        async with trio.open_nursery() as nursery, gated(gate) as pool:
            (gate / "open").unlink()
            for _ in range(2):
                nursery.start_soon(reload_closed, pool)
            await until(lambda: len(pids_of(pool)) == 3)
        with pytest.raises(snakepit.PoolClosed, match="the pool is closed"):
            await pool.reload()


@pytest.mark.parametrize("workers", [1, 4])
async def test_a_pool_is_resized_while_it_is_reloaded(workers: int, gate: Path) -> None:
    async with gated(gate, workers=3) as pool, trio.open_nursery() as nursery:
        before = pids_of(pool)
        (gate / "open").unlink()
        nursery.start_soon(reload, pool)
        await until(lambda: len(pids_of(pool)) == 4)
        nursery.start_soon(pool.resize, workers)
        await until(lambda: pool.workers.count() == workers)
        (gate / "open").touch()
        await until(lambda: not nursery.child_tasks)
        assert (len(in_service(pool)), in_service(pool) & before) == (workers, set())


async def test_workers_die_while_they_are_replaced(gate: Path) -> None:
    async with gated(gate, spares=1) as pool, trio.open_nursery() as nursery:
        await until(lambda: pool.get_stats().spares == 1)
        before = pids_of(pool)
        (gate / "open").unlink()
        nursery.start_soon(reload, pool)
        await until(lambda: len(pids_of(pool)) == 4)
        for worker in pool.list_workers():
            if worker.pid in before:
                os.kill(worker.pid or 0, signal.SIGKILL)
        (gate / "open").touch()
        await until(lambda: not nursery.child_tasks)
        await pool.await_ready(BOUND)
        assert await pool.execute("pid", timeout=BOUND) not in before
        assert not in_service(pool) & before


async def test_a_restart_whose_worker_cannot_start_says_so(gate: Path) -> None:
    async with gated(gate) as pool:
        before = pids_of(pool)
        (gate / "fail").touch()
        with trio.fail_after(BOUND), pytest.raises(snakepit.WorkerStartError, match="the model is missing"):
            await pool.workers.restart("pool-1")
        assert (pids_of(pool), pool.get_stats().ready) == (before, 2)
        (gate / "fail").unlink()
        with trio.fail_after(BOUND):
            await pool.workers.restart("pool-1")
        assert (await pool.execute("pid"), pool.get_stats().recycled) != (None, 0)
