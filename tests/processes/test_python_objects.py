"""Where the objects of dynamic calls live, and what becomes of them when workers and sessions end."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
import trio.testing

import snakepit_trio as snakepit
from bridge_py.adapters.python_calls import PythonCalls
from snakepit_trio import Step, StoredObjectLost, StoredObjectNotFound
from snakepit_trio.testing import InMemory
from tests.helpers.workers import kill_worker

TARGETS = "tests.helpers.python_targets"
OPTIONS: dict[str, Any] = {"allow": ["default", TARGETS]}


@asynccontextmanager
async def _pool(workers: int = 1, options: dict[str, Any] | None = None, **config: Any) -> AsyncIterator[snakepit.Pool]:
    async with snakepit.open_pool(PythonCalls, workers=workers, options=options or OPTIONS, **config) as pool:
        yield pool


async def _pid(pool: snakepit.Pool, session: str | None = None) -> int:
    pid: int = await pool.python.call(f"{TARGETS}.pid", session=session)
    return pid


# Where objects live, and how they end.


async def test_two_sessions_on_two_workers() -> None:
    async with _pool(2, concurrency=2) as pool, pool.session() as one, pool.session() as two:
        python = pool.python
        await python.store("x", "one", session=one)
        async with trio.open_nursery() as nursery:  # both places of the first worker are busy
            for _ in range(2):
                nursery.start_soon(_until_cancelled, pool, one.id)
            await _until_running(pool, 2)
            await python.store("x", "two", session=two)
            pids = {await _pid(pool, two.id)}
            nursery.cancel_scope.cancel()
        pids.add(await _pid(pool, one.id))
        assert len(pids) == 2
        assert await python.retrieve("x", session=one) == "one"
        assert await python.retrieve("x", session=two) == "two"
        assert (await python.info(session=one))["stored_sessions"] == 1


async def _until_cancelled(pool: snakepit.Pool, session: str) -> None:
    await pool.python.call(f"{TARGETS}.sleep", {"seconds": 60, "path": os.devnull}, session=session)


async def _until_running(pool: snakepit.Pool, count: int) -> None:
    with trio.fail_after(60):
        while pool.get_stats().running != count:
            await trio.sleep(0.005)


async def test_calls_of_a_session_go_where_its_objects_are() -> None:
    """Also plain calls, which would rather go elsewhere, and when others push it out of the scheduler's memory."""
    async with _pool(2, affinity_sessions=1) as pool, pool.session() as session:
        await pool.python.store("x", 1, session=session)
        home = await _pid(pool, session.id)
        for number in range(10):
            await pool.execute("python_info", {}, session=f"other {number}")
        assert await _pid(pool, session.id) == home
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_until_cancelled, pool, session.id)
            await _until_running(pool, 1)
            with trio.move_on_after(0.2) as waiting:
                await session.execute("python_info", {})
            assert waiting.cancelled_caught, "it waits for its own worker while the other is free"
            nursery.cancel_scope.cancel()
        assert await pool.python.retrieve("x", session=session) == 1
        await pool.python.delete_stored("x", session=session)
        assert not pool._dispatcher.keeps_session(session.id)


async def test_objects_of_a_killed_worker_are_lost_or_restored() -> None:
    async with _pool(2) as pool, pool.session() as session:
        python = pool.python
        array = np.arange(100_000.0)
        await python.store("plain", [1], session=session)
        await python.store("durable", array, durable=True, session=session)
        await python.call("numpy.multiply", args=["stored.durable", 2], store_as="made", durable=True, session=session)
        await python.store("replaced", "old", durable=True, session=session)
        await python.store("replaced", "new", session=session)
        await python.store("gone", 1, durable=True, session=session)
        await python.delete_stored("gone", session=session)
        await python.call("stored.durable.fill", args=[0], session=session)
        pid = await _pid(pool, session.id)
        await kill_worker(pool, pid)
        np.testing.assert_array_equal(await python.retrieve("durable", session=session), array)
        np.testing.assert_array_equal(await python.retrieve("made", session=session), array * 2)
        assert await _pid(pool, session.id) != pid
        for name in ("plain", "replaced"):
            with pytest.raises(
                StoredObjectLost, match=rf"'{name}' of session '{session.id}' is lost: worker .*SIGKILL"
            ):
                await python.call("list", args=[f"stored.{name}"], session=session)
        with pytest.raises(StoredObjectNotFound, match="there are: durable, made"):
            await python.retrieve("gone", session=session)
        await python.store("plain", [2], session=session)
        assert await python.retrieve("plain", session=session) == [2]
        await python.call("stored.durable.fill", args=[7], session=session)
        await kill_worker(pool, await _pid(pool, session.id))
        np.testing.assert_array_equal(await python.retrieve("durable", session=session), array)
        with pytest.raises(StoredObjectLost):
            await python.retrieve("plain", session=session)


async def test_a_worker_killed_in_a_pipeline(log: Path) -> None:
    async with _pool(1) as pool, pool.session() as session:
        python = pool.python
        await python.store("kept", 1, durable=True, session=session)
        await python.store("lost", 2, session=session)
        pid = await _pid(pool, session.id)
        steps = [Step("math.pi", store_as="new"), Step(f"{TARGETS}.sleep", {"seconds": 60, "path": str(log)})]

        async def crash() -> None:
            with pytest.raises(snakepit.WorkerCrashed):
                await python.pipeline(steps, session=session)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash)
            await _until_written(log)
            os.kill(pid, signal.SIGKILL)
        await pool.await_ready()
        assert await python.retrieve("kept", session=session) == 1
        with pytest.raises(StoredObjectLost):
            await python.retrieve("lost", session=session)
        with pytest.raises(StoredObjectNotFound):
            await python.retrieve("new", session=session)


async def _until_written(log: Path) -> None:
    with trio.fail_after(60):
        while not log.exists() or not log.read_text():
            await trio.sleep(0.005)


async def test_calls_in_line_for_a_worker_that_dies_are_made_anew(log: Path) -> None:
    async with _pool(2) as pool, pool.session() as session:
        python = pool.python
        await python.store("d", [1], durable=True, session=session)
        await python.store("x", [2], session=session)
        pid = await _pid(pool, session.id)
        outcomes: dict[str, Any] = {}

        async def read(name: str) -> None:
            try:
                outcomes[name] = await python.retrieve(name, session=session)
            except StoredObjectLost as error:
                outcomes[name] = error

        async def crash() -> None:
            with pytest.raises(snakepit.WorkerCrashed):
                arguments = {"seconds": 60, "path": str(log)}
                await python.call(f"{TARGETS}.sleep", arguments, session=session)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash)
            await _until_written(log)
            nursery.start_soon(read, "d")
            nursery.start_soon(read, "x")
            await trio.testing.wait_all_tasks_blocked()
            os.kill(pid, signal.SIGKILL)
        assert outcomes["d"] == [1]
        assert isinstance(outcomes["x"], StoredObjectLost)


async def test_a_recycled_worker_takes_its_objects_along() -> None:
    async with _pool(1) as pool, pool.session() as session:
        python = pool.python
        await python.store("kept", 1, durable=True, session=session)
        await python.store("lost", 2, session=session)
        await pool.workers.restart(pool.list_workers()[0].id)
        with pytest.raises(StoredObjectLost, match="was replaced: its pool's owner asked for it"):
            await python.retrieve("lost", session=session)
        assert await python.retrieve("kept", session=session) == 1


async def test_what_a_worker_stores_while_it_leaves(tmp_path: Path) -> None:
    async with _pool(1, concurrency=2) as pool, pool.session() as session:
        python = pool.python
        release = tmp_path / "release"

        async def hold(name: str, durable: bool) -> None:
            arguments = {"path": str(tmp_path / name), "release": str(release)}
            ref = await python.call(f"{TARGETS}.hold", arguments, store_as=name, durable=durable, session=session)
            assert ref.name == name

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold, "durable", True)
            nursery.start_soon(hold, "plain", False)
            await _until_written(tmp_path / "durable")
            await _until_written(tmp_path / "plain")
            await pool.workers.restart(pool.list_workers()[0].id)
            await python.store("other", 1, session=session)
            release.touch()
        assert await python.retrieve("durable", session=session) == "held"
        assert await python.retrieve("other", session=session) == 1
        with pytest.raises(StoredObjectLost, match="'plain' .* is lost: .* was leaving"):
            await python.retrieve("plain", session=session)


async def test_objects_are_those_that_were_stored_whatever_dies() -> None:
    """Many operations and deaths, compared with a plain account of what must be there."""
    choose = random.Random(5)
    launcher = InMemory()
    async with _pool(2, concurrency=2, launcher=launcher) as pool, pool.session() as session:
        python = pool.python
        there: dict[str, tuple[int, bool]] = {}  # by name: the value, and whether it is durable
        lost: set[str] = set()
        for number in range(400):
            name = choose.choice("abcde")
            match choose.choice(["store", "store", "read", "read", "delete", "kill", "fail"]):
                case "store":
                    durable = choose.random() < 0.5
                    await python.store(name, number, durable=durable, session=session)
                    there[name] = number, durable
                    lost.discard(name)
                case "read" if name in there:
                    assert await python.retrieve(name, session=session) == there[name][0]
                case "read":
                    with pytest.raises(StoredObjectLost if name in lost else StoredObjectNotFound):
                        await python.retrieve(name, session=session)
                case "delete" if name in there:
                    await python.delete_stored(name, session=session)
                    del there[name]
                case "fail":
                    steps = [Step("math.pi", store_as=name), Step(f"{TARGETS}.fail", {"message": ""})]
                    with pytest.raises(snakepit.ToolError):
                        await python.pipeline(steps, session=session)
                case "kill":
                    for worker in launcher.workers():
                        launcher.kill(worker)
                    lost |= {name for name, (_, durable) in there.items() if not durable}
                    there = {name: kept for name, kept in there.items() if kept[1]}
            if number % 10 == 0:
                assert {ref.name for ref in await python.list_stored(session=session)} == set(there)


async def test_what_cannot_be_copied_is_not_stored() -> None:
    async with _pool(launcher=InMemory()) as pool, pool.session() as session:
        with pytest.raises(snakepit.EncodeError, match=r"Thing does not come back as itself .*'trusted': True"):
            await pool.python.call(f"{TARGETS}.Thing", store_as="t", durable=True, session=session)
        assert await pool.python.list_stored(session=session) == []


async def test_trusted_workers_copy_by_pickle() -> None:
    launcher = InMemory()
    async with _pool(2, {"trusted": True}, launcher=launcher) as pool, pool.session() as session:
        python = pool.python
        await python.call(f"{TARGETS}.Thing", store_as="t", durable=True, session=session)
        with pytest.raises(snakepit.EncodeError, match="its pickle failed"):
            await python.call("threading.Lock", store_as="lock", durable=True, session=session)
        for worker in launcher.workers():
            launcher.kill(worker)
        assert await python.call("stored.t.call", session=session) == 1
        assert [ref.name for ref in await python.list_stored(session=session)] == ["t"]


async def test_a_cancelled_call_leaves_all_or_nothing(log: Path) -> None:
    async with _pool(1, concurrency=2) as pool, pool.session() as session:
        python = pool.python
        await python.store("x", "before", durable=True, session=session)
        steps = [Step("math.pi", store_as="x"), Step(f"{TARGETS}.sleep", {"seconds": 60, "path": str(log)})]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: python.pipeline(steps, session=session))
            await _until_written(log)
            nursery.cancel_scope.cancel()
        assert await python.retrieve("x", session=session) == "before"
        for delay in range(12):
            with trio.move_on_after(delay / 4000):
                await python.pipeline([Step("math.pi", store_as="a"), Step("math.e", store_as="b")], session=session)
            there = {ref.name for ref in await python.list_stored(session=session)}
            assert there in ({"x"}, {"x", "a", "b"})


async def test_the_quota() -> None:
    async with _pool(options={"stored_bytes": 10_000}, launcher=InMemory()) as pool, pool.session() as session:
        python = pool.python
        await python.store("x", np.zeros(1000), session=session)
        with pytest.raises(snakepit.QuotaExceeded, match=r"16000 bytes .* may keep 10000 .*'y': 8000 bytes"):
            await python.store("y", np.zeros(1000), session=session)
        with pytest.raises(snakepit.QuotaExceeded):
            await python.pipeline([Step("numpy.zeros", args=[1000], store_as="y")], session=session)
        await python.store("x", np.zeros(1100), session=session)
        async with pool.session() as other:
            await python.store("x", np.zeros(1000), session=other)
        assert [ref.size for ref in await python.list_stored(session=session)] == [8800]


async def test_the_end_of_a_session_frees_its_objects() -> None:
    async with _pool() as pool:
        python = pool.python
        session = await python.create_session(metadata={"for": "tests"})
        await python.call(f"{TARGETS}.Thing", store_as="t", session=session)
        assert await python.call(f"{TARGETS}.alive") == 1
        assert await pool.sessions.delete_session(session)
        assert await python.call(f"{TARGETS}.alive") == 0
        assert (await python.info())["stored_sessions"] == 0
        with pytest.raises(snakepit.SessionNotFound):
            await python.retrieve("t", session=session)
        await pool.sessions.create_session(session)
        with pytest.raises(StoredObjectNotFound):
            await python.retrieve("t", session=session)
        await python.store("t", 2, session=session)
        assert await python.retrieve("t", session=session) == 2


async def test_objects_expire_with_their_session(autojump_clock: trio.testing.MockClock) -> None:
    async with _pool(launcher=InMemory(), ping_interval=1000) as pool:
        python = pool.python
        session = await python.create_session(ttl=100)
        await python.store("x", 1, session=session)
        for _ in range(3):
            await trio.sleep(90)
            assert await python.retrieve("x", session=session) == 1, "each use counts"
        await trio.sleep(200)
        assert (await python.info())["stored"] == 0
        with pytest.raises(snakepit.SessionNotFound):
            await python.retrieve("x", session=session)


async def test_nothing_is_stored_for_a_session_that_has_ended_meanwhile(log: Path) -> None:
    async with _pool(1, concurrency=2) as pool:
        python = pool.python
        session = await python.create_session()
        failures: list[type[Exception]] = []

        async def store_late() -> None:
            arguments = {"seconds": 0.3, "path": str(log)}
            try:
                await python.call(f"{TARGETS}.sleep", arguments, store_as="x", session=session)
            except snakepit.SessionNotFound as error:
                failures.append(type(error))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(store_late)
            await _until_written(log)
            await pool.sessions.delete_session(session)
            await pool.sessions.create_session(session)
            await python.store("y", 1, session=session)
        assert failures == [snakepit.SessionNotFound]
        assert [ref.name for ref in await python.list_stored(session=session)] == ["y"]
