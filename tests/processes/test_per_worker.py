"""`open_pool(per_worker=...)`: each worker has a number, and what differs for it, and its replacement has the same."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel
import trio.testing

import bridge_py
import snakepit_trio as snakepit
from snakepit_trio._config.options import FurtherOptions
from snakepit_trio._config.worker_options import RESERVED
from snakepit_trio.testing import InMemory
from tests.helpers.numbered_tools import Exclusive, Numbered
from tests.helpers.stdio_tools import JSON, MSGPACK

BOUND = 60
CPUS = sorted(os.sched_getaffinity(0))
OWN = str(Path(bridge_py.__file__).with_name("__main__.py"))
PROTOCOLS: dict[str, Any] = {
    "link": Numbered,
    "grpc": snakepit.GrpcBridge(script=OWN, adapter="tests.helpers.numbered_tools:Numbered"),
    "grpc-0.13": snakepit.GrpcBridge(script=OWN, adapter="tests.helpers.numbered_tools:Numbered", contract="0.13"),
    "stdio-json": JSON,
    "stdio-msgpack": MSGPACK,
}


def own(number: int) -> snakepit.WorkerOptions:
    """A GPU and a CPU for each worker."""
    return snakepit.WorkerOptions(env={"CUDA_VISIBLE_DEVICES": str(number)}, cpus={CPUS[number % len(CPUS)]})


def with_options(number: int) -> snakepit.WorkerOptions:
    """As `own`, with options of the adapter."""
    return snakepit.WorkerOptions(
        env={"CUDA_VISIBLE_DEVICES": str(number)}, cpus=[CPUS[number % len(CPUS)]], options={"model": f"m{number}"}
    )


def seen_from_outside(pool: snakepit.Pool) -> dict[int, tuple[str, str, set[int]]]:
    """What the processes of a pool were started with, by number: as GPU libraries need it, before any code ran."""
    found = {}
    for worker in pool.list_workers():
        pairs = Path(f"/proc/{worker.pid}/environ").read_bytes().split(b"\0")
        env = dict(pair.decode().split("=", 1) for pair in pairs if b"=" in pair)
        number, gpu = env["SNAKEPIT_WORKER_NUMBER"], env["CUDA_VISIBLE_DEVICES"]
        found[worker.number] = (number, gpu, os.sched_getaffinity(worker.pid or 0))
    return found


async def every_report(pool: snakepit.Pool) -> dict[int, dict[str, Any]]:
    """What each worker says of itself: one after another, all others are taken out."""
    found: dict[int, dict[str, Any]] = {}
    with trio.fail_after(BOUND):
        for _ in range(pool.workers.count()):
            report = await pool.execute("report")
            found[report["number"]] = report
            if pool.workers.count() > 1:
                await pool.workers.stop(
                    next(each.id for each in pool.list_workers() if each.number == report["number"])
                )
    return found


async def until_new(pool: snakepit.Pool, before: set[int | None]) -> None:
    """Wait until a worker has replaced one of those processes."""
    with trio.fail_after(BOUND):
        while not {worker.pid for worker in pool.list_workers()} - before - {None}:
            await trio.sleep(0.005)
        await pool.await_ready(BOUND)


async def test_each_worker_has_its_own() -> None:
    config: FurtherOptions = {"options": {"model": "all", "level": 7}, "env": {"CUDA_VISIBLE_DEVICES": "all"}}
    config |= {"workers": 3, "per_worker": with_options}
    async with snakepit.open_pool(Numbered, **config) as pool:
        pids = {worker.number: worker.pid for worker in pool.list_workers()}
        assert [worker.number for worker in pool.list_workers()] == [0, 1, 2]
        assert await every_report(pool) == {
            number: {
                "pid": pids[number],
                "options": [f"m{number}", 7],
                "number": number,
                "cpus": [CPUS[number % len(CPUS)]],
                "gpu": str(number),
                "variable": str(number),
                "threads": "1",
            }
            for number in range(3)
        }


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_it_is_there_before_the_program_starts(protocol: str) -> None:
    async with snakepit.open_pool(PROTOCOLS[protocol], workers=2, per_worker=own) as pool:
        for _ in range(2):
            assert seen_from_outside(pool) == {
                number: (str(number), str(number), {CPUS[number % len(CPUS)]}) for number in range(2)
            }
            first = pool.list_workers()[0].pid
            os.kill(first or 0, signal.SIGKILL)
            await until_new(pool, {worker.pid for worker in pool.list_workers()})
        if protocol.startswith("grpc"):
            assert {report["number"] for report in (await every_report(pool)).values()} == {0, 1}


@pytest.mark.parametrize("how", ["killed", "hanging", "recycled", "restarted"])
async def test_a_replacement_has_the_same(how: str) -> None:
    asked: list[int] = []

    def count(number: int) -> snakepit.WorkerOptions:
        asked.append(number)
        return snakepit.WorkerOptions(env={"CUDA_VISIBLE_DEVICES": str(len(asked))}, options={"level": len(asked)})

    pings = {"ping_interval": 0.05, "ping_timeout": 1.0} if how == "hanging" else {}
    recycle = snakepit.RecyclePolicy(calls=1 if how == "recycled" else None)
    async with snakepit.open_pool(Numbered, workers=1, per_worker=count, recycle=recycle, **pings) as pool:  # type: ignore[arg-type]
        before = await pool.execute("report")
        pid = before.pop("pid")
        for _ in range(2):
            match how:
                case "killed":
                    os.kill(pid, signal.SIGKILL)
                case "hanging":
                    os.kill(pid, signal.SIGSTOP)
                case "restarted":
                    await pool.workers.restart("pool-1")
                case _:
                    pass  # its one call was enough
            await until_new(pool, {pid})
            after = await pool.execute("report", timeout=BOUND)
            new_pid = after.pop("pid")
            assert new_pid != pid
            assert after == before
            pid = new_pid
        assert asked == [0]


# Never two at once.


def files_in(folder: Path, number: int) -> snakepit.WorkerOptions:
    """Each number has a file that only one process at a time may have."""
    return snakepit.WorkerOptions(env={"GPU": str(folder / f"gpu-{number}")})


async def test_a_recycled_worker_ends_before_its_replacement_starts(tmp_path: Path) -> None:
    per_worker = partial(files_in, tmp_path)
    async with snakepit.open_pool(
        Exclusive, workers=2, per_worker=per_worker, recycle=snakepit.RecyclePolicy(calls=3), ping_interval=0.05
    ) as pool:
        with trio.fail_after(BOUND):
            while pool.get_stats().recycled < 4:
                await pool.execute("gpu")
            for worker_id in ("pool-1", "pool-2", "pool-1"):
                await pool.workers.restart(worker_id)
        assert pool.get_stats().restarts == pool.get_stats().crashed == 0
        assert pool.get_stats().recycled >= 4


async def test_a_replacement_waits_for_the_calls_of_the_old_worker(tmp_path: Path) -> None:
    until = tmp_path / "until"
    async with (
        snakepit.open_pool(Exclusive, workers=2, per_worker=partial(files_in, tmp_path)) as pool,
        trio.open_nursery() as nursery,
    ):
        held = tmp_path / "held"
        held.mkdir()
        nursery.start_soon(pool.execute, "hold", {"path": str(held), "until": str(until)})
        with trio.fail_after(BOUND):
            while not (busy := [worker for worker in pool.list_workers() if worker.state == "busy"]):
                await trio.sleep(0.005)
            (idle,) = (worker for worker in pool.list_workers() if worker.id != busy[0].id)
            nursery.start_soon(pool.workers.restart, busy[0].id)
            while pool.workers.get(busy[0].id).state != "draining":  # type: ignore[union-attr]
                await trio.sleep(0.005)
            # The other one is due as well, and dies while it waits: it does not wait for the recycling of the first.
            nursery.start_soon(pool.workers.restart, idle.id)
            await trio.testing.wait_all_tasks_blocked()
            os.kill(idle.pid or 0, signal.SIGKILL)
            while pool.workers.get(idle.id) in (None, idle) or pool.workers.get(idle.id).state != "ready":  # type: ignore[union-attr]
                await trio.sleep(0.005)
            assert pool.list_workers()[0].state == "draining" or pool.list_workers()[1].state == "draining"
            until.touch()


async def test_a_number_is_free_only_when_its_worker_has_ended(tmp_path: Path) -> None:
    until, held = tmp_path / "until", tmp_path / "held"
    held.mkdir()
    async with (
        snakepit.open_pool(Exclusive, workers=2, per_worker=partial(files_in, tmp_path)) as pool,
        trio.open_nursery() as nursery,
    ):
        for _ in range(2):
            nursery.start_soon(pool.execute, "hold", {"path": str(held), "until": str(until)})
        with trio.fail_after(BOUND):
            while len(os.listdir(held)) < 2:
                await trio.sleep(0.005)
            nursery.start_soon(pool.resize, 1)
            while pool.workers.count() != 1:
                await trio.lowlevel.checkpoint()
            nursery.start_soon(pool.resize, 2)
            while len(pool.list_workers()) < 3:
                await trio.sleep(0.005)
            await trio.testing.wait_all_tasks_blocked(0.1)
            assert [(worker.number, worker.state, worker.pid is None) for worker in pool.list_workers()] == [
                (0, "busy", False),
                (1, "draining", False),
                (1, "starting", True),
            ]
            until.touch()
            while [worker.number for worker in pool.list_workers() if worker.state == "ready"] != [0, 1]:
                await trio.sleep(0.005)


async def test_a_worker_that_waits_for_its_number_can_be_taken_out(tmp_path: Path) -> None:
    until, held = tmp_path / "until", tmp_path / "held"
    held.mkdir()
    async with (
        snakepit.open_pool(Exclusive, workers=1, per_worker=partial(files_in, tmp_path)) as pool,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(pool.execute, "hold", {"path": str(held), "until": str(until)})
        with trio.fail_after(BOUND):
            while not os.listdir(held):
                await trio.sleep(0.005)
            nursery.start_soon(pool.workers.stop, "pool-1")
            while pool.workers.count():
                await trio.lowlevel.checkpoint()
            nursery.start_soon(pool.workers.start, 1)
            while len(pool.list_workers()) < 2:
                await trio.sleep(0.005)
            await pool.workers.stop("pool-2")
            assert [worker.state for worker in pool.list_workers()] == ["draining"]
            until.touch()


async def test_a_pool_closes_while_a_worker_waits_for_its_number(tmp_path: Path) -> None:
    held = tmp_path / "held"
    held.mkdir()
    with trio.fail_after(BOUND):
        async with (
            snakepit.open_pool(Exclusive, workers=1, per_worker=partial(files_in, tmp_path)) as pool,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(pool.execute, "hold", {"path": str(held), "until": str(tmp_path / "never")})
            while not os.listdir(held):
                await trio.sleep(0.005)
            nursery.start_soon(pool.workers.stop, "pool-1")
            while pool.workers.count():
                await trio.lowlevel.checkpoint()
            nursery.start_soon(pool.workers.start, 1)
            while len(pool.list_workers()) < 2:
                await trio.sleep(0.005)
            nursery.cancel_scope.cancel()


# More workers, and none.


async def test_further_workers_have_the_lowest_free_numbers() -> None:
    asked: list[int] = []

    def per_worker(number: int) -> snakepit.WorkerOptions:
        asked.append(number)
        if number == 3:
            raise LookupError("there are three GPUs")
        return snakepit.WorkerOptions()

    async with snakepit.open_pool(Numbered, workers=1, per_worker=per_worker) as pool:
        await pool.resize(3)
        await pool.workers.stop("pool-2")
        await pool.workers.start()
        assert {worker.id: worker.number for worker in pool.list_workers()} == {"pool-1": 0, "pool-3": 2, "pool-4": 1}
        with pytest.raises(snakepit.UsageError, match=r"per_worker\(3\) raised LookupError: there are three GPUs"):
            await pool.resize(4)
        assert (pool.workers.count(), asked) == (3, [0, 1, 2, 3])


async def test_numbers_are_there_without_a_function() -> None:
    async with snakepit.open_pool(Numbered, workers=2) as pool:
        assert [worker.number for worker in pool.list_workers()] == [0, 1]
        assert sorted(await every_report(pool)) == [0, 1]


# Invalid options.


def without_any(_number: int) -> Any:
    """It returns None."""


async def coroutine(_number: int) -> snakepit.WorkerOptions:
    """It has to be awaited, and nobody does."""
    return snakepit.WorkerOptions()


def invalid(**fields: Any) -> Callable[[int], snakepit.WorkerOptions]:
    """Worker 1 has invalid options."""
    return lambda number: snakepit.WorkerOptions(**fields if number == 1 else {})


WRONG: dict[str, tuple[Any, str]] = {
    "no function": (3, "per_worker=3: give a function of the worker's number"),
    "none": (without_any, r"per_worker\(0\) returned None: return a snakepit_trio.WorkerOptions"),
    "a coroutine": (coroutine, r"per_worker\(0\) returned <coroutine .*: return a snakepit_trio.WorkerOptions"),
    "no parameter": (lambda: None, r"per_worker\(0\) raised TypeError: .* takes 0 positional"),
    "env": (invalid(env=["A"]), r"per_worker\(1\): env=\['A'\]: give a dict of texts"),
    "env key": (invalid(env={1: "a"}), r"per_worker\(1\): env=\{1: 'a'\}: give names that are text"),
    "env sign": (invalid(env={"A=B": "a"}), r"per_worker\(1\): env=.*: give names that are text, with no '='"),
    "env value": (invalid(env={"GPU": 1}), r"per_worker\(1\): env=\{'GPU': 1\}: give text, such as '1'"),
    "options": (invalid(options=[1]), r"per_worker\(1\): options \[1\]: give a dict"),
    "options name": (invalid(options={1: 1}), r"per_worker\(1\): options \{1: 1\}: give a dict"),
    "options value": (invalid(options={"a": object()}), r"per_worker\(1\): options: 'a' is no plain JSON value"),
    "cpus": (invalid(cpus=0), r"per_worker\(1\): cpus=0: give a set of CPU numbers"),
    "cpus text": (invalid(cpus="01"), r"per_worker\(1\): cpus='01': give a set of CPU numbers"),
    "cpus bool": (invalid(cpus={True}), r"per_worker\(1\): cpus=\{True\}: give a set of CPU numbers"),
    "no cpus": (invalid(cpus=()), r"per_worker\(1\): cpus=frozenset\(\): give a set of CPU numbers"),
    "cpus that are not there": (
        invalid(cpus={CPUS[0], 1 << 40}),
        rf"per_worker\(1\): cpus=.*: this process may not use CPU {1 << 40}: choose from .*, CPU {CPUS[0]}",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("launcher", [None, InMemory], ids=["processes", "memory"])
async def test_invalid_options(wrong: str, launcher: Any) -> None:
    per_worker, message = WRONG[wrong]
    with pytest.raises(snakepit.UsageError, match=message):
        async with snakepit.open_pool(
            Numbered, workers=2, per_worker=per_worker, launcher=None if launcher is None else launcher()
        ):
            pytest.fail("the block was entered")


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_variables_of_the_pool_are_refused(name: str) -> None:
    with pytest.raises(snakepit.UsageError, match=f"env: the pool sets {name} itself: leave it out"):
        snakepit.WorkerOptions(env={name: "x"})


async def test_options_are_for_python_classes() -> None:
    with pytest.raises(snakepit.UsageError, match=r"per_worker\(0\): options are for adapters that are Python classes"):
        async with snakepit.open_pool(JSON, per_worker=with_options):
            pytest.fail("the block was entered")


async def test_where_processes_cannot_be_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_setaffinity")
    with pytest.raises(snakepit.UsageError, match=rf"cpus=\[{CPUS[0]}\]: this system cannot bind a process to CPUs"):
        snakepit.WorkerOptions(cpus={CPUS[0]})


@pytest.mark.parametrize("adapter", [Numbered, JSON], ids=["link", "stdio"])
async def test_a_cpu_that_has_gone(adapter: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1023})
    with pytest.raises(snakepit.WorkerStartError, match="it cannot be bound to CPU 1023: Invalid argument"):
        async with snakepit.open_pool(
            adapter, workers=1, per_worker=lambda _number: snakepit.WorkerOptions(cpus={1023})
        ):
            pytest.fail("the block was entered")


def test_options_are_copies() -> None:
    env, options, cpus = {"A": "a"}, {"b": [1]}, {CPUS[0]}
    made = snakepit.WorkerOptions(env=env, options=options, cpus=cpus)
    env["A"], options["b"] = "changed", []
    cpus.clear()
    assert made == snakepit.WorkerOptions(env={"A": "a"}, options={"b": [1]}, cpus=frozenset({CPUS[0]}))
    with pytest.raises(AttributeError):
        made.cpus = None  # type: ignore[misc]


async def test_workers_in_memory_have_options_and_numbers() -> None:
    def per_worker(number: int) -> snakepit.WorkerOptions:
        return snakepit.WorkerOptions(options={"level": number})

    async with snakepit.open_pool(Numbered, workers=2, per_worker=per_worker, launcher=InMemory()) as pool:
        found = await every_report(pool)
        assert [(number, found[number]["options"]) for number in sorted(found)] == [(0, ["none", 0]), (1, ["none", 1])]


@pytest.mark.parametrize("fields", [{"env": {"A": "a"}}, {"cpus": {CPUS[0]}}], ids=["env", "cpus"])
async def test_workers_in_memory_have_no_process_of_their_own(fields: dict[str, Any]) -> None:
    with pytest.raises(snakepit.UsageError, match=r"per_worker\(1\): workers in memory have no env= and no cpus="):
        async with snakepit.open_pool(Numbered, workers=2, per_worker=invalid(**fields), launcher=InMemory()):
            pytest.fail("the block was entered")
