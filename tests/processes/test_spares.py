"""Warm spares: started workers that step in at once for workers that die or are replaced.

The starts of workers wait for a file: while it is missing, only a spare that has started before can serve a call.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import bridge_py
import snakepit_trio as snakepit
from snakepit_trio.testing import InMemory
from tests.helpers.numbered_tools import Numbered
from tests.helpers.spare_tools import Gated
from tests.helpers.stdio_tools import JSON
from tests.helpers.workers import is_alive

BOUND = 60
OWN = str(Path(bridge_py.__file__).with_name("__main__.py"))
SPARE, READY = snakepit.WorkerState.SPARE, snakepit.WorkerState.READY
PROTOCOLS: dict[str, Any] = {
    "link": Numbered,
    "grpc": snakepit.GrpcBridge(script=OWN, adapter="tests.helpers.numbered_tools:Numbered"),
    "grpc-0.13": snakepit.GrpcBridge(script=OWN, adapter="tests.helpers.numbered_tools:Numbered", contract="0.13"),
    "stdio-json": JSON,
}


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A folder whose files let workers start, or fail."""
    (tmp_path / "open").touch()
    return tmp_path


def gated(gate: Path, **settings: Any) -> AbstractAsyncContextManager[snakepit.Pool]:
    made_of: dict[str, Any] = {"workers": 1, "spares": 1, "env": {"GATE": str(gate)}, **settings}
    return snakepit.open_pool(Gated, **made_of)


async def until(is_true: Callable[[], object]) -> None:
    with trio.fail_after(BOUND):
        while not is_true():
            await trio.sleep(0.005)


async def until_spares(pool: snakepit.Pool, number: int = 1) -> None:
    await until(lambda: pool.get_stats().spares == number)


def kill(pool: snakepit.Pool, worker_id: str) -> None:
    worker = pool.workers.get(worker_id)
    assert worker is not None
    os.kill(worker.pid or 0, signal.SIGKILL)


def states(pool: snakepit.Pool) -> dict[str, tuple[str, bool]]:
    """By id: the state, and whether it is a spare."""
    return {worker.id: (worker.state.value, worker.is_spare) for worker in pool.list_workers()}


async def test_a_spare_has_started_and_gets_no_calls(gate: Path) -> None:
    heard: list[snakepit.Event] = []
    async with gated(gate, workers=2) as pool:
        pool.events.attach("worker.*", heard.append)
        await until_spares(pool)
        spare = pool.list_workers()[-1]
        assert (spare.id, spare.state, spare.is_spare, spare.number) == ("pool-3", SPARE, True, 2)
        pids = set()
        for _ in range(20):
            pids.add(await pool.execute("pid"))
        assert spare.pid not in pids
        stats, health = pool.get_stats(), pool.get_health()
        assert (stats.workers, stats.ready, stats.spares, pool.workers.count()) == (2, 2, 1, 2)
        assert (health.status, health.expected, health.working, len(health.workers)) == ("healthy", 2, 2, 3)
        assert [(event.name, event.metadata["worker"]) for event in heard] == [("worker.spare_ready", "pool-3")]


async def test_the_next_call_is_served_while_the_model_of_a_killed_worker_loads(gate: Path) -> None:
    heard: list[snakepit.Event] = []
    async with gated(gate) as pool:
        await until_spares(pool)
        pool.events.attach("worker.*", heard.append)
        first, spare = (worker.pid for worker in pool.list_workers())
        (gate / "open").unlink()
        kill(pool, "pool-1")
        with trio.fail_after(BOUND):
            assert await pool.execute("pid", timeout=BOUND) == spare
        await until(lambda: states(pool) == {"pool-1": ("starting", True), "pool-2": ("ready", False)})
        assert (pool.get_stats().spares, pool.get_stats().restarts, pool.get_health().status) == (0, 1, "healthy")
        (gate / "open").touch()
        await until_spares(pool)
        assert states(pool) == {"pool-1": ("spare", True), "pool-2": ("ready", False)}
        kill(pool, "pool-2")
        assert await pool.execute("pid", timeout=BOUND) not in (first, spare)
        stepped_in = [event.metadata for event in heard if event.name == "worker.stepped_in"]
        assert [(told["worker"], told["replaced"]) for told in stepped_in] == [
            ("pool-2", "pool-1"),
            ("pool-1", "pool-2"),
        ]


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_workers_of_all_protocols_have_spares(protocol: str) -> None:
    async with snakepit.open_pool(PROTOCOLS[protocol], workers=1, spares=1) as pool:
        for _ in range(2):
            await until_spares(pool)
            spare = next(worker for worker in pool.list_workers() if worker.is_spare)
            worker = next(worker for worker in pool.list_workers() if not worker.is_spare)
            kill(pool, worker.id)
            await until(lambda: pool.get_stats().ready == 1 and pool.workers.by_pid(spare.pid or 0).state is READY)  # type: ignore[union-attr] # noqa: B023 - used at once
            if protocol != "stdio-json":
                assert (await pool.execute("report"))["pid"] == spare.pid


async def test_workers_in_memory_have_spares(autojump_clock: MockClock) -> None:
    launcher = InMemory()
    async with snakepit.open_pool(Numbered, workers=1, spares=1, launcher=launcher) as pool:
        await until_spares(pool)
        launcher.kill("pool-1")
        assert (await pool.execute("report"))["number"] == 1
        await until_spares(pool)
        assert states(pool) == {"pool-1": ("spare", True), "pool-2": ("ready", False)}


async def test_more_deaths_than_spares(gate: Path) -> None:
    async with gated(gate, workers=2) as pool:
        await until_spares(pool)
        (gate / "open").unlink()
        for each in ("pool-1", "pool-2"):
            kill(pool, each)
        await until(lambda: pool.get_stats().restarts == 2)
        assert (pool.get_stats().ready, sorted(states(pool).values())) == (
            1,
            [("ready", False), ("starting", False), ("starting", True)],
        )
        (gate / "open").touch()
        await pool.await_ready(BOUND)
        await until_spares(pool)


# Spares that end.


async def test_a_spare_that_dies_is_started_again(gate: Path) -> None:
    async with gated(gate) as pool:
        await until_spares(pool)
        worker = pool.list_workers()[0]
        kill(pool, "pool-2")
        await until(lambda: pool.get_stats().restarts == 1)
        await until_spares(pool)
        assert await pool.execute("pid") == worker.pid


async def test_a_spare_that_cannot_start_is_in_quarantine_and_harms_no_worker(gate: Path) -> None:
    async with gated(gate, spares=0) as pool:
        (gate / "fail").touch()  # no spare may start before it is there
        pool._supervisor.keep_spares(1)
        assert states(pool)["pool-2"] == ("starting", True)
    (gate / "fail").unlink()
    async with gated(gate, max_restarts=2, quarantine=0.2) as pool:
        await until_spares(pool)
        (gate / "fail").touch()
        kill(pool, "pool-2")
        await until(lambda: states(pool)["pool-2"] == ("quarantined", True))
        assert (pool.get_health().status, await pool.execute("pid")) == ("healthy", pool.list_workers()[0].pid)
        (gate / "fail").unlink()
        await until_spares(pool)


async def test_a_worker_in_quarantine_gives_its_place_to_a_spare(gate: Path) -> None:
    async with gated(gate, max_restarts=1, quarantine=600) as pool:
        await until_spares(pool)
        (gate / "fail").touch()
        for each in ("pool-1", "pool-2"):
            kill(pool, each)
        await until(lambda: [state for state, _ in states(pool).values()] == ["quarantined", "quarantined"])
        (gate / "fail").unlink()
        spare = next(each for each, (_, is_spare) in states(pool).items() if is_spare)
        await pool.workers.stop(spare)  # another spare is started, without quarantine
        assert await pool.execute("pid", timeout=BOUND)
        assert states(pool)["pool-3"] == ("ready", False)


async def test_a_spare_that_does_not_answer_is_replaced(gate: Path) -> None:
    async with gated(gate, ping_interval=0.1, ping_timeout=0.5) as pool:
        await until_spares(pool)
        pid = pool.list_workers()[1].pid or 0
        os.kill(pid, signal.SIGSTOP)
        await until(lambda: pool.get_stats().restarts == 1)
        await until_spares(pool)
        assert not is_alive(pid)


# Replacement, and numbers.


@pytest.mark.parametrize("how", ["recycled", "restarted"])
async def test_a_spare_steps_in_for_a_worker_that_is_replaced(how: str, gate: Path, tmp_path: Path) -> None:
    running, end = tmp_path / "running", tmp_path / "end"
    recycle = snakepit.RecyclePolicy(calls=3 if how == "recycled" else None)
    async with gated(gate, recycle=recycle, concurrency=2) as pool, trio.open_nursery() as nursery:
        await until_spares(pool)
        old, spare = (worker.pid for worker in pool.list_workers())
        (gate / "open").unlink()
        held: list[int] = []

        async def hold() -> None:
            held.append(await pool.execute("hold", {"path": str(running), "until": str(end)}))

        nursery.start_soon(hold)
        await until(running.exists)
        for _ in range(3):
            assert await pool.execute("pid") == old
        if how == "restarted":
            with trio.fail_after(BOUND):
                await pool.workers.restart("pool-1")
        with trio.fail_after(BOUND):
            while await pool.execute("pid") != spare:
                await trio.sleep(0.005)
        assert sorted((worker.id, worker.state.value, worker.is_spare) for worker in pool.list_workers()) == [
            ("pool-1", "draining", False),
            ("pool-1", "starting", True),
            ("pool-2", "ready", False),
        ]
        end.touch()
        (gate / "open").touch()
        await until(lambda: held == [old])
        await until_spares(pool)
        assert (pool.get_stats().recycled, pool.get_stats().restarts, pool.get_stats().crashed) == (1, 0, 0)


async def test_spares_are_recycled_too(gate: Path) -> None:
    async with gated(gate, recycle=snakepit.RecyclePolicy(age=0.5), ping_interval=0.1) as pool:
        await until_spares(pool)
        before = {worker.pid for worker in pool.list_workers()}
        await until(lambda: not before & {worker.pid for worker in pool.list_workers()})
        assert pool.get_stats().restarts == 0
        assert await pool.execute("pid") not in before


async def test_a_spare_can_be_restarted_and_stopped(gate: Path) -> None:
    async with gated(gate) as pool:
        await until_spares(pool)
        before = pool.list_workers()[1].pid
        with trio.fail_after(BOUND):
            await pool.workers.restart("pool-2")
            assert states(pool)["pool-2"] == ("spare", True)
            assert pool.list_workers()[-1].pid != before
            await pool.workers.stop("pool-2")
        assert pool.workers.count() == 1
        await until_spares(pool)
        assert states(pool) == {"pool-1": ("ready", False), "pool-3": ("spare", True)}


async def test_each_spare_has_a_number_of_its_own() -> None:
    asked: list[int] = []

    def per_worker(number: int) -> snakepit.WorkerOptions:
        asked.append(number)
        return snakepit.WorkerOptions(env={"CUDA_VISIBLE_DEVICES": f"gpu{number}"}, options={"level": number})

    async with snakepit.open_pool(Numbered, workers=1, spares=1, per_worker=per_worker) as pool:
        assert asked == [0, 1]
        for number in (1, 0, 1):
            await until_spares(pool)
            kill(pool, next(worker.id for worker in pool.list_workers() if not worker.is_spare))
            await until(lambda: pool.get_stats().ready == 1)
            report = await pool.execute("report")
            assert (report["number"], report["gpu"], report["options"]) == (number, f"gpu{number}", ["none", number])
        await until_spares(pool)
        await pool.resize(2)
        assert sorted(worker.number for worker in pool.list_workers()) == [0, 1, 2]
        assert asked == [0, 1, 2]


async def test_a_worker_with_options_of_its_own_ends_before_the_spare_of_its_number_starts(
    gate: Path, tmp_path: Path
) -> None:
    running, end = tmp_path / "running", tmp_path / "end"
    async with (
        gated(gate, per_worker=lambda _number: snakepit.WorkerOptions()) as pool,
        trio.open_nursery() as nursery,
    ):
        await until_spares(pool)
        nursery.start_soon(pool.execute, "hold", {"path": str(running), "until": str(end)})
        await until(running.exists)
        with trio.fail_after(BOUND):
            await pool.workers.restart("pool-1")
            assert await pool.execute("number") == 1
        assert states(pool) == {"pool-1": ("draining", True), "pool-2": ("ready", False)}
        end.touch()
        await until_spares(pool)


async def test_a_session_moves_to_the_spare(gate: Path) -> None:
    async with gated(gate, affinity="strict") as pool:
        await until_spares(pool)
        old, spare = (worker.pid for worker in pool.list_workers())
        assert await pool.execute("pid", session="s") == old
        (gate / "open").unlink()
        kill(pool, "pool-1")
        await until(lambda: pool.workers.get("pool-2").state is READY)  # type: ignore[union-attr]
        assert await pool.execute("pid", session="s", timeout=BOUND) == spare
        (gate / "open").touch()


# The number of workers, and the end.


async def test_resizing_leaves_spares_alone(gate: Path) -> None:
    async with gated(gate) as pool:
        await until_spares(pool)
        await pool.resize(3)
        assert (pool.get_stats().ready, pool.get_stats().spares) == (3, 1)
        await pool.resize(1)
        assert states(pool) == {"pool-1": ("ready", False), "pool-2": ("spare", True)}
        await pool.workers.stop("pool-1")
        assert states(pool) == {"pool-2": ("spare", True)}
        assert (pool.workers.count(), await pool.workers.start()) == (0, ("pool-5",))


@pytest.mark.parametrize("is_hurried", [False, True])
async def test_a_pool_closes_while_a_spare_starts(gate: Path, *, is_hurried: bool) -> None:
    pids: list[int] = []
    with trio.fail_after(BOUND):
        async with gated(gate, spares=0, shutdown_timeout=0.001 if is_hurried else 6) as pool:
            (gate / "open").unlink()
            pool._supervisor.keep_spares(2)
            await until(lambda: all(worker.pid for worker in pool.list_workers()))
            pids += [worker.pid or 0 for worker in pool.list_workers()]
            assert sorted(states(pool).values()) == [("ready", False), ("starting", True), ("starting", True)]
    assert not any(is_alive(pid) for pid in pids)


async def test_a_pool_closes_before_its_spares_have_a_process(gate: Path) -> None:
    with trio.fail_after(BOUND):
        async with gated(gate, spares=2) as pool:
            assert states(pool)["pool-2"] == ("starting", True)


@pytest.mark.parametrize("spares", [-1, 1.0, True, "1", None], ids=repr)
async def test_invalid_numbers(spares: Any) -> None:
    with pytest.raises(snakepit.UsageError, match=f"spares={spares!r}: give a whole number"):
        async with snakepit.open_pool(Numbered, spares=spares):
            pytest.fail("the block was entered")


async def test_the_machine_must_hold_workers_and_spares(gate: Path) -> None:
    with pytest.raises(
        snakepit.UsageError, match=r"workers=2 with spares=10000000: workers=10000002: this machine can hold \d+ at"
    ):
        async with gated(gate, workers=2, spares=10_000_000):
            pytest.fail("the block was entered")


async def test_an_invalid_option_of_a_spare_is_told_before_any_worker_starts() -> None:
    def per_worker(number: int) -> snakepit.WorkerOptions:
        return snakepit.WorkerOptions(env={"GPU": ["a", "b"][number]})

    with pytest.raises(snakepit.UsageError, match=r"per_worker\(2\) raised IndexError"):
        async with snakepit.open_pool(Numbered, workers=2, spares=1, per_worker=per_worker):
            pytest.fail("the block was entered")
