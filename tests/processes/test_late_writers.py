"""Workers that have ended, and calls that began before a takeover, do not write any more."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
import trio

import snakepit_trio as snakepit
from snakepit_trio.state.session import Session
from tests.helpers.epoch_tools import TOOLS, make_pipes

pytestmark = pytest.mark.processes
T = TypeVar("T")


class HeldStore(snakepit.MemoryStore):
    """A store whose next write waits on its way, even if its worker dies, until it is let go. It counts its uses."""

    may_wait = True

    def __init__(self) -> None:
        super().__init__()
        self.uses = 0
        self.holds_next = ""
        self.is_held, self.is_free = trio.Event(), trio.Event()
        self.late: list[BaseException | None] = []

    async def read_session(self, session_id: str, read: Callable[[Session], T]) -> T:
        self.uses += 1
        return await super().read_session(session_id, read)

    async def update_session(self, session_id: str, change: Callable[[Session], T]) -> T:
        self.uses += 1
        if self.holds_next != session_id:
            return await super().update_session(session_id, change)
        self.holds_next = ""
        self.is_held.set()
        with trio.CancelScope(shield=True):
            await self.is_free.wait()
        try:
            result = await super().update_session(session_id, change)  # no checkpoint
        except BaseException as error:
            self.late.append(error)
            raise
        self.late.append(None)
        return result


async def test_what_a_dead_worker_had_on_the_way_does_not_come_after_its_successor() -> None:
    store = HeldStore()
    async with snakepit.open_pool(TOOLS, workers=2, store=store) as pool, pool.session("s") as session:
        await session.register_variable("x", value="first")
        await session.execute("write", {"name": "x", "value": "second"})  # its worker has met the session now
        worker_id = (await session.info()).worker_id
        assert (await session.info()).epoch == 1
        async with trio.open_nursery() as nursery:
            store.holds_next = "s"
            nursery.start_soon(_crashes, session)
            await store.is_held.wait()
            pid = next(worker.pid for worker in pool.list_workers() if worker.id == worker_id)
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
        assert await session.execute("write", {"name": "x", "value": "of the successor"}) == "second"
        assert (await session.info()).epoch == 2
        store.is_free.set()
        while not store.late:
            await trio.testing.wait_all_tasks_blocked()
        assert isinstance(store.late[0], snakepit.StaleEpoch)
        assert "has ended" in str(store.late[0])
        assert await session.get_variable_value("x") == "of the successor"


async def _crashes(session: snakepit.SessionHandle) -> None:
    with pytest.raises(snakepit.WorkerCrashed):
        await session.execute("write", {"name": "x", "value": "too late"})


async def test_a_dead_worker_does_no_harm_to_calls_of_its_neighbours(tmp_path: Path) -> None:
    make_pipes(tmp_path)
    async with snakepit.open_pool(TOOLS, workers=2) as pool, pool.session("s") as session:
        await session.register_variable("x", value="first")
        found: list[str] = []

        async def run() -> None:
            arguments = {"folder": str(tmp_path), "name": "x", "value": "of the neighbour", "looks": True}
            found.append(await session.execute("write_late", arguments))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await trio.to_thread.run_sync((tmp_path / "begun").read_text)
            await session.execute("write", {"name": "x", "value": "second"})  # in the other worker
            dead = (await session.info()).worker_id
            pid = next(worker.pid for worker in pool.list_workers() if worker.id == dead)
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            while any(worker.pid == pid for worker in pool.list_workers()):
                await trio.sleep(0.01)
            await session.execute("write", {"name": "x", "value": "of the successor"})
            assert (await session.info()).epoch == 2
            await trio.to_thread.run_sync((tmp_path / "go").write_text, "go")
        assert found == ["written"]
        assert await session.get_variable_value("x") == "of the neighbour"


async def test_pools_with_one_store_are_one_host() -> None:
    store = snakepit.MemoryStore()
    async with (
        snakepit.open_pool(TOOLS, workers=1, store=store) as one,
        snakepit.open_pool(TOOLS, workers=1, store=store) as two,
    ):
        await store.create_session("s")
        await store.of("s").register_variable("x", value="first")
        async with trio.open_nursery() as nursery:
            for pool in (one, two) * 10:
                nursery.start_soon(_write, pool)
        assert (await store.get_session("s")).epoch == 1


async def _write(pool: snakepit.Pool) -> None:
    await pool.execute("write", {"name": "x", "value": "text"}, session="s")


async def test_epochs_cost_no_use_of_the_store() -> None:
    store = HeldStore()
    async with snakepit.open_pool(TOOLS, workers=1, store=store) as pool:
        await store.create_session("s")
        await _write(pool)
        uses = []
        for _ in range(3):
            before = store.uses
            await _write(pool)
            uses.append(store.uses - before)
        assert uses[1:] == [1, 1]  # the write itself: the worker remembers the rest


async def test_a_call_that_began_before_a_takeover_writes_no_more(tmp_path: Path) -> None:
    make_pipes(tmp_path)
    async with snakepit.open_pool(TOOLS, workers=2) as pool, pool.session() as session:
        await session.register_variable("x", value="first")
        found: list[str] = []

        async def run() -> None:
            arguments = {"folder": str(tmp_path), "name": "x", "value": "late"}
            found.append(await session.execute("write_late", arguments))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await trio.to_thread.run_sync((tmp_path / "begun").read_text)
            assert await session.take_over() == 1
            await session.update_variable("x", "of the handle")
            await trio.to_thread.run_sync((tmp_path / "go").write_text, "go")
        assert found[0].startswith("StaleEpoch, and reads of the handle")
        assert await session.execute("write", {"name": "x", "value": "of a new call"}) == "of the handle"


async def test_of_two_handles_that_take_a_session_over_the_later_one_has_it() -> None:
    async with (
        snakepit.open_pool(TOOLS, workers=1) as pool,
        pool.session("s") as first,
        pool.session("s") as second,
        pool.session("s") as plain,
    ):
        assert await first.take_over() == 1
        await first.register_variable("x", value="of the first")
        assert await second.take_over() == 2
        with pytest.raises(snakepit.StaleEpoch, match="stale epoch: session 's' is at epoch 2, held by a handle"):
            await first.update_variable("x", "late")
        with pytest.raises(snakepit.StaleEpoch):
            await first.execute("write", {"name": "x", "value": "late"})
        await plain.update_variable("x", "of a plain handle")
        assert await second.execute("write", {"name": "x", "value": "of the second"}) == "of a plain handle"
        assert (await plain.info()).epoch == 3  # the worker's
        await second.update_variable("x", "of the second, again")
        assert await first.get_variable_value("x") == "of the second, again"
        assert await first.take_over() == 4
        assert await first.execute("write", {"name": "x", "value": "of the first"}) == "of the second, again"
        assert first._is_of(pool.sessions)


async def test_a_taken_session_that_ends_is_not_found() -> None:
    async with snakepit.open_pool(TOOLS, workers=1) as pool, pool.session("s") as session:
        await session.take_over()
        await pool.sessions.delete_session("s")
        with pytest.raises(snakepit.SessionNotFound):
            await session.take_over()
        with pytest.raises(snakepit.SessionNotFound):
            await session.register_variable("x", value=1)
        await pool.sessions.create_session("s")  # another one
        with pytest.raises(snakepit.StaleEpoch):
            await session.register_variable("x", value=1)
