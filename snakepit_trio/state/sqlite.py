"""A store in a file of SQLite: sessions outlive the program. Several programs of one machine may share it."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, Literal, NoReturn, TypeVar, get_args

import outcome
import trio

from bridge_py.wire.errors import StoreUnavailable, UsageError
from snakepit_trio._util.validation import is_number, is_utf8, refuse

from . import sqlite_steps as steps
from .backend import Backend, Commit, Committed, Known, NewSession, State, Tell
from .quotas import Quotas
from .shared import SharedStore
from .sqlite_file import SqliteFile, StoreBusy, Write
from .store import StoreStats
from .write_groups import WriteGroups

T = TypeVar("T")
Synchronous = Literal["full", "normal", "off"]
_READERS: Final = 2
_PAUSE: Final = 0.01  # seconds, at the most, between two tries
_UNKNOWN: Final = -1
_EXPIRED_AT_ONCE: Final = 500  # sessions; others who write wait meanwhile


class SqliteStore(SharedStore):
    """Sessions in a file of SQLite: `async with SqliteStore("sessions.db") as store, open_pool(Tools, store=store)`.

    Sessions are there again when a program opens the file again, however the last one ended. Several programs of one
    machine may have the file open, and hear of each other's changes within `poll` seconds. The file must lie on a disk
    of this machine. It is made with mode 0600.

    `synchronous` says what an update that has returned outlives: with "full", a power cut; with "normal" or "off", the
    death of the program and of all others; with "normal" the file also stays whole in a power cut, and loses the last
    updates. `patience` is how many seconds a method waits for other programs before it raises `StoreUnavailable`.
    `clock` gives Unix time in seconds; all programs that share the file need the same time.

    Opening raises `UsageError` for a file that others may write to, of another program, or of a newer format;
    `StoreCorrupt` for a damaged file; and `StoreUnavailable`, as all methods do: if the disk is full, the folder cannot
    be written to, or the file was taken away. What was acknowledged before is kept then. See `SharedStore` for the
    rest.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        quotas: Quotas | None = None,
        synchronous: Synchronous = "full",
        poll: float = 0.05,
        patience: float = 30.0,
        clock: Callable[[], float] = time.time,
        cache_sessions: int = 1000,
        cache_bytes: int = 64 << 20,
    ) -> None:
        if not _is_path(path):
            raise UsageError(f"path={path!r}: give the path of a file; a store in memory is MemoryStore()")
        if synchronous not in get_args(Synchronous):
            raise UsageError(f'synchronous={synchronous!r}: give one of "full", "normal", "off"')
        for name, seconds in (("poll", poll), ("patience", patience)):
            if not is_number(seconds) or seconds <= 0:
                raise UsageError(f"{name}={seconds!r}: give seconds")
        if not callable(clock):
            raise refuse("clock", clock, "give a function that returns Unix time in seconds, such as time.time")
        # SQLite keeps its other files beside the file itself, and not beside a link to it.
        file = SqliteFile(os.path.realpath(os.fspath(path)), synchronous.upper(), _READERS)
        super().__init__(
            _SqliteBackend(file, patience, poll, clock),
            name=f"SqliteStore({str(path)!r})",
            quotas=quotas,
            cache_sessions=cache_sessions,
            cache_bytes=cache_bytes,
        )


def _is_path(path: object) -> bool:
    return (
        isinstance(path, (str, os.PathLike))
        and is_utf8(str(path))
        and str(path) not in ("", ":memory:")
        and ("\0" not in str(path))
    )


class _SqliteBackend(Backend):
    asks_after = 3  # each time costs a wait for the lock of the file
    shields_itself = True  # a transaction runs in a thread, to its end

    def __init__(self, file: SqliteFile, patience: float, poll: float, clock: Callable[[], float]) -> None:
        self.patience = 2 * patience  # its own message comes first
        self._patience = patience
        self._file = file
        self._poll = poll
        self._clock = clock
        self._threads = trio.CapacityLimiter(_READERS + 1)
        self._reading = trio.CapacityLimiter(_READERS)
        self._writes = WriteGroups(self._write_group)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        await self._in_thread(self._file.open)
        try:
            yield
        finally:
            with trio.move_on_after(self.patience, shield=True):
                await self._writes.idle()  # no thread must use what is closed
                async with contextlib.AsyncExitStack() as stack:
                    for _ in range(_READERS):
                        await stack.enter_async_context(_one_of(self._reading))
                    try:
                        await trio.to_thread.run_sync(self._file.close)
                    except RuntimeError:  # the machine can start no thread
                        self._file.close()
                # Who still waits to read gets its turn now, and is told that the store is closed.

    def now(self) -> float:
        return self._clock()

    async def create(self, new: NewSession) -> State | None:
        return await self._write(lambda connection: steps.create(connection, new, self._clock()))

    async def fetch(self, session_id: str, known: Known | None, *, use: bool) -> State | None:
        now = self._clock()
        state = await self._read(lambda connection: steps.fetch(connection, session_id, known, now))
        if state is None or not use or now - state.last_accessed < steps.noted_after(state.ttl):
            return state
        is_there = await self._write(lambda connection: steps.touch(connection, state.birth, now), is_synced=False)
        return steps.used(state, now) if is_there else None

    async def commit(self, commit: Commit) -> Committed | State | None:
        return await self._write(lambda connection: steps.commit_change(connection, commit, self._clock()))

    async def delete(self, session_id: str) -> bool:
        return await self._write(lambda connection: steps.delete(connection, session_id, self._clock()))

    async def list_ids(self) -> list[str]:
        return await self._read(lambda connection: steps.list_ids(connection, self._clock()))

    async def exists(self, session_id: str) -> bool:
        state = await self._read(lambda connection: steps.find(connection, session_id, self._clock()))
        return state is not None

    async def versions(self, session_ids: Iterable[str]) -> dict[str, Known]:
        wanted = list(session_ids)
        return await self._read(lambda connection: steps.find_versions(connection, wanted, self._clock()))

    async def stats(self) -> StoreStats:
        while await self.expire():
            pass
        return await self._read(steps.count)

    async def expire(self) -> list[str]:
        now = self._clock()
        if not await self._read(lambda connection: steps.find_expired(connection, now, 1)):
            return []
        return await self._write(lambda connection: steps.expire(connection, now, _EXPIRED_AT_ONCE))

    async def put_program(self, program_id: str, data: bytes, size: int, quotas: Quotas) -> None:
        await self._write(
            lambda connection: steps.put_program(connection, program_id, data, size, quotas, self._clock())
        )

    async def get_program(self, program_id: str) -> bytes | None:
        found = await self._read(
            lambda connection: connection.execute("SELECT data FROM programs WHERE id = ?", (program_id,)).fetchone()
        )
        return None if found is None else found[0]

    async def delete_program(self, program_id: str) -> bool:
        return await self._write(lambda connection: steps.delete_program(connection, program_id))

    async def follow(self, tell: Tell) -> NoReturn:
        last, seen = await self._read(steps.last_number), _UNKNOWN
        tell(None, None)
        while True:
            # Costs microseconds, and waits for nothing: it needs no thread.
            if (version := self._data_version()) != seen or version == _UNKNOWN:
                found, last = await self._read(partial(steps.notices_after, since=last))
                seen = version
                for session_id, changed in found:
                    tell(session_id, changed)
            await trio.sleep(self._poll)

    def _data_version(self) -> int:
        try:
            with self._file.translating():
                return int(self._file.looker.execute("PRAGMA data_version").fetchone()[0])
        except StoreBusy:
            return _UNKNOWN  # it does not wait here: the notices are read in a thread

    async def _write(self, step: Callable[[sqlite3.Connection], T], *, is_synced: bool = True) -> T:
        found: T = await self._writes.make(Write(step, is_synced))
        return found

    async def _write_group(self, group: Sequence[Write]) -> list[outcome.Maybe[Any]]:
        return await self._in_thread(lambda: self._file.write(group))

    async def _read(self, step: Callable[[sqlite3.Connection], T]) -> T:
        async with self._reading:
            connection = self._file.readers.pop()
            try:
                return await self._in_thread(lambda: self._file.read(step, connection))
            finally:
                self._file.readers.append(connection)

    async def _in_thread(self, step: Callable[[], T]) -> T:
        """Do a step in a thread. Cancelling ends the waiting for other processes; a step that has begun is done.

        Raises `StoreUnavailable`.
        """
        end = trio.current_time() + self._patience
        while True:
            try:
                found = await trio.to_thread.run_sync(lambda: outcome.capture(step), limiter=self._threads)
            except RuntimeError as error:
                raise StoreUnavailable(f"the machine can start no thread: {error}") from error
            try:
                return found.unwrap()
            except StoreBusy:
                if trio.current_time() > end:
                    raise
            await trio.sleep(random.uniform(0, _PAUSE))  # noqa: S311 - so that others get their turn


@asynccontextmanager
async def _one_of(limiter: trio.CapacityLimiter) -> AsyncIterator[None]:
    """One token of a limiter, for a task that takes several."""
    owner = object()
    await limiter.acquire_on_behalf_of(owner)
    try:
        yield
    finally:
        limiter.release_on_behalf_of(owner)
