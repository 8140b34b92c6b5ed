"""Stores of sessions: the interface, and a store in memory."""

from __future__ import annotations

import heapq
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import attrs
import trio

from bridge_py.wire.errors import SessionError
from bridge_py.wire.owning import own
from snakepit_trio._util.ownership import require_trio

from . import exports
from .checks import check_new_session, check_program_id, no_program, no_session
from .quotas import SESSION_BYTES, Quotas, check_bytes, check_quota, quotas_of, size_in, size_of
from .session import Session
from .view import SessionInfo, SessionView
from .watching import Hub

T = TypeVar("T")
DEFAULT_TTL: Final = 3600.0
_NOTHING: Final[Mapping[str, str]] = {}


@attrs.frozen
class StoreStats:
    """Counts of a store: what it holds now, and the sessions that were created, deleted and expired."""

    sessions: int
    variables: int
    programs: int
    global_programs: int
    bytes: int
    created: int
    deleted: int
    expired: int


class SessionStore(ABC):
    """Sessions by their id.

    Every method is atomic: no other task sees, or changes, anything in between. A session that has expired is not
    found, whether or not it has been removed already. `of(session_id)` gives the methods for one session.
    """

    @property
    @abstractmethod
    def hub(self) -> Hub:
        """The listeners of sessions. A store tells it of every new session, of every change, and of every end."""

    #: Whether the methods of the store may ever wait. Workers get faster answers from a store that never waits.
    may_wait: bool = True

    def of(self, session_id: str) -> SessionView:
        """A view of one session. Each use of the view looks for the session."""
        return SessionView(self, session_id)

    @abstractmethod
    async def create_session(
        self, session_id: str | None = None, *, ttl: float | None = DEFAULT_TTL, metadata: Mapping[str, str] = _NOTHING
    ) -> str:
        """Make a session and return its id. It expires `ttl` seconds after its last use; None means never.

        Raises `SessionError` if the id is taken or an argument is invalid, and `QuotaExceeded`.
        """

    @abstractmethod
    async def read_session(self, session_id: str, read: Callable[[Session], T]) -> T:
        """Call `read` with a session, and return its result. `read` must not change the session. Counts as use.

        Raises `SessionNotFound`.
        """

    @abstractmethod
    async def update_session(self, session_id: str, change: Callable[[Session], T]) -> T:
        """Change a session: call `change` with it, and return the result. `change` must not await.

        If `change` raises, the session is as it was before, and the error is raised here. Raises `SessionNotFound`.
        """

    @abstractmethod
    async def delete_session(self, session_id: str) -> bool:
        """Remove a session. Returns whether there was one."""

    @abstractmethod
    async def list_sessions(self) -> list[str]:
        """The ids of all sessions, oldest first."""

    @abstractmethod
    async def get_stats(self) -> StoreStats:
        """The store's counts."""

    @abstractmethod
    async def cleanup_expired_sessions(self) -> int:
        """Remove the sessions that have expired, and return how many they were."""

    @abstractmethod
    async def store_global_program(self, program_id: str, program: Any) -> None:
        """Keep a program for all sessions. Raises `QuotaExceeded` and `EncodeError`."""

    @abstractmethod
    async def get_global_program(self, program_id: str) -> Any:
        """A program of all sessions. Raises `ProgramNotFound`."""

    @abstractmethod
    async def delete_global_program(self, program_id: str) -> None:
        """Remove a program of all sessions. Raises `ProgramNotFound`."""

    async def run_reaper(self, interval: float) -> None:
        """Remove the sessions that have expired, every `interval` seconds, until cancelled."""
        require_trio()
        while True:
            await trio.sleep(interval)
            await self.cleanup_expired_sessions()

    async def get_session(self, session_id: str) -> SessionInfo:
        """The facts about a session at this moment. Raises `SessionNotFound`."""
        return await self.read_session(session_id, SessionInfo.of)

    async def session_exists(self, session_id: str) -> bool:
        """Whether there is such a session. Does not count as use."""
        return session_id in await self.list_sessions()

    async def import_session(self, exported: Mapping[str, Any], session_id: str | None = None) -> str:
        """Make a session from an export of `export_session`, and return its id: by default the exported one.

        Raises `SessionError` if the id is taken or this is no export, and `QuotaExceeded`.
        """
        exported_id, ttl, metadata = exports.head_of(exported)
        session_id = await self.create_session(session_id or exported_id, ttl=ttl, metadata=metadata)
        try:
            await self.update_session(session_id, lambda session: exports.import_session(session, exported))
        except BaseException:
            with trio.CancelScope(shield=True):
                await self.delete_session(session_id)  # noqa: ASYNC102 - shielded
            raise
        return session_id

    async def export_session(self, session_id: str) -> dict[str, Any]:
        """All that a session holds, as a plain value. Raises `SessionNotFound`."""
        return await self.read_session(session_id, exports.export_session)


class MemoryStore(SessionStore):
    """Sessions in this process.

    `clock` gives Unix time in seconds. Its methods never wait and are no checkpoints.
    """

    may_wait = False

    def __init__(self, *, quotas: Quotas | None = None, clock: Callable[[], float] = time.time) -> None:
        self._hub = Hub()
        self._quotas = quotas_of(quotas)
        self._clock = clock
        self._sessions: dict[str, Session] = {}
        # One entry for each session that expires, never later than the session's end. If a session was used meanwhile,
        # it gets a later entry when its entry comes up. So a cleanup costs only the entries that come up.
        self._ends: list[tuple[float, int, str]] = []
        self._numbers: dict[str, int] = {}  # by session id: tells the entries of deleted sessions
        self._created = self._deleted = self._expired = 0
        self._global_programs: dict[str, Any] = {}
        self._held = 0  # bytes

    @property
    def hub(self) -> Hub:
        return self._hub

    async def create_session(
        self, session_id: str | None = None, *, ttl: float | None = DEFAULT_TTL, metadata: Mapping[str, str] = _NOTHING
    ) -> str:
        check_new_session(session_id, ttl, metadata)
        session_id = session_id or f"session_{secrets.token_hex(8)}"
        if self._find(session_id) is not None:
            raise SessionError(f"there is a session {session_id!r} already: give another id, or delete that one first")
        if self._quotas.sessions is not None and len(self._sessions) >= self._quotas.sessions:
            self._clean_up()
        check_quota(len(self._sessions), self._quotas.sessions, "the store", "sessions")
        session = Session(session_id, now=self._clock(), ttl=ttl, metadata=metadata, quotas=self._quotas)
        self._grow(_size_of(session))
        self._sessions[session_id] = session
        self._created += 1
        self._await_end(session)
        self._hub.begin(session_id)
        return session_id

    async def read_session(self, session_id: str, read: Callable[[Session], T]) -> T:
        return read(self._use(session_id))

    async def update_session(self, session_id: str, change: Callable[[Session], T]) -> T:
        session = self._use(session_id)
        session.begin()
        before = session.bytes
        try:
            result = change(session)
            if session.bytes != before:
                self._grow(session.bytes - before, session)
        except BaseException:
            session.undo()
            raise
        if changes := session.commit():
            self._hub.publish(session_id, changes)
        return result

    async def delete_session(self, session_id: str) -> bool:
        if self._find(session_id) is None:
            return False
        self._deleted += 1
        self._remove(session_id)
        return True

    async def list_sessions(self) -> list[str]:
        now = self._clock()
        return [session.id for session in self._sessions.values() if not session.expired(now)]

    async def session_exists(self, session_id: str) -> bool:
        return self._find(session_id) is not None

    async def store_global_program(self, program_id: str, program: Any) -> None:
        check_program_id(program_id)
        if program_id not in self._global_programs:
            check_quota(len(self._global_programs), self._quotas.programs, "the store", "global programs")
        mine = own(program, program_id)
        self._grow(size_of([program_id, mine], program_id) - size_in(self._global_programs, program_id))
        self._global_programs[program_id] = mine

    async def get_global_program(self, program_id: str) -> Any:
        self._check_global(program_id)
        return own(self._global_programs[program_id])

    async def delete_global_program(self, program_id: str) -> None:
        self._check_global(program_id)
        self._grow(-size_in(self._global_programs, program_id))
        del self._global_programs[program_id]

    def _grow(self, size: int, growing: Session | None = None) -> None:
        most = self._quotas.store_bytes
        if size > 0 and most is not None and self._held + size > most:
            self._clean_up(growing)
        check_bytes(self._held, size, self._quotas.store_bytes, "the store")
        self._held += size

    def _check_global(self, program_id: str) -> None:
        if program_id not in self._global_programs:
            raise no_program(program_id)

    async def get_stats(self) -> StoreStats:
        await self.cleanup_expired_sessions()
        sessions = self._sessions.values()
        return StoreStats(
            sessions=len(sessions),
            variables=sum(map(len, sessions)),
            programs=sum(len(session.program_ids()) for session in sessions),
            global_programs=len(self._global_programs),
            bytes=sum(session.bytes for session in sessions),
            created=self._created,
            deleted=self._deleted,
            expired=self._expired,
        )

    async def cleanup_expired_sessions(self) -> int:
        return self._clean_up()

    def _clean_up(self, growing: Session | None = None) -> int:
        """Remove what has expired, except for a session in the middle of its change. Returns how many they were."""
        now, before = self._clock(), self._expired
        kept = []
        while self._ends and self._ends[0][0] <= now:
            _, number, session_id = entry = heapq.heappop(self._ends)
            if self._numbers.get(session_id) != number:
                continue
            session = self._sessions[session_id]
            if session is growing:
                kept.append(entry)
            elif session.expired(now):
                self._expire(session)
            else:
                self._await_end(session)
        for entry in kept:
            heapq.heappush(self._ends, entry)
        return self._expired - before

    def _use(self, session_id: str) -> Session:
        session = self._find(session_id)
        if session is None:
            raise no_session(session_id)
        session.touch(self._clock())
        return session

    def _find(self, session_id: str) -> Session | None:
        session = self._sessions.get(session_id)
        if session is not None and session.expired(self._clock()):
            self._expire(session)
            return None
        return session

    def _expire(self, session: Session) -> None:
        self._expired += 1
        self._remove(session.id)

    def _remove(self, session_id: str) -> None:
        self._grow(-_size_of(self._sessions.pop(session_id)))
        self._numbers.pop(session_id, None)
        self._hub.end(session_id)

    def _await_end(self, session: Session) -> None:
        end = session.expires_at()
        if end is not None:
            number = self._numbers.setdefault(session.id, self._created)
            heapq.heappush(self._ends, (end, number, session.id))


def _size_of(session: Session) -> int:
    return SESSION_BYTES + size_of(session.id, "session_id") + session.bytes
