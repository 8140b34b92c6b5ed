"""Sessions as one writer may change them: each write brings the writer's epoch, and the store compares the two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from bridge_py.wire.errors import SessionError, StaleEpoch

from .epochs import Tenure
from .session import Session
from .watching import Hub

T = TypeVar("T")


class Sessions(Protocol):
    """The part of a store that the view of a session needs."""

    @property
    def hub(self) -> Hub:
        """The listeners of sessions."""
        ...

    async def read_session(self, session_id: str, read: Callable[[Session], T]) -> T:
        """Call `read` with a session, and return its result."""
        ...

    async def update_session(self, session_id: str, change: Callable[[Session], T]) -> T:
        """Change a session: call `change` with it, and return the result."""
        ...


class FencedSessions:
    """Sessions for a handle that has taken its session over. Writes raise `StaleEpoch` if others have done so since."""

    def __init__(self, store: Sessions, tenure: Tenure) -> None:
        self.store = store
        self.tenure = tenure
        self.may_wait: bool = getattr(store, "may_wait", True)

    @property
    def hub(self) -> Hub:
        """The listeners of sessions."""
        return self.store.hub

    async def read_session(self, session_id: str, read: Callable[[Session], T]) -> T:
        """Call `read` with a session, and return its result."""
        return await self.store.read_session(session_id, read)

    async def update_session(self, session_id: str, change: Callable[[Session], T]) -> T:
        """Change a session: call `change` with it, and return the result. Raises `StaleEpoch`."""

        def fenced(session: Session) -> T:
            self.tenure.check(session)
            return change(session)

        return await self.store.update_session(session_id, fenced)


class Writer:
    """One worker, as it writes to sessions."""

    def __init__(self, store: Sessions, worker_id: str) -> None:
        self.store = store
        self.worker_id = worker_id
        self.is_gone = False

    def gone(self) -> None:
        """Note that the worker has ended. What it has on the way to the store is refused if it comes too late.

        Call it before anything is run in its place.
        """
        if not self.is_gone:
            self.is_gone = True
            self.store.hub.epochs.writer_gone(self)


class HasTenure(Protocol):
    """A call, as far as it is told here in which epochs it may write."""

    tenure: Tenure | None


class WorkerSessions:
    """The session of a call of a worker. The call may write in the epochs of its tenure.

    A write begins a new epoch if one is needed, in the same step. `is_over` says whether the call is over: its late
    requests are refused. An update raises `StaleEpoch`.
    """

    __slots__ = ("_call", "_is_over", "_writer", "may_wait")

    def __init__(self, writer: Writer, call: HasTenure, is_over: Callable[[], bool]) -> None:
        self._writer = writer
        self._call = call
        self._is_over = is_over
        self.may_wait: bool = getattr(writer.store, "may_wait", True)

    @property
    def hub(self) -> Hub:
        """The listeners of sessions."""
        return self._writer.store.hub

    def _tenure(self, session_id: str) -> Tenure:
        if self._call.tenure is None:
            self._call.tenure = self.hub.epochs.of(session_id)
        return self._call.tenure

    async def enter(self, session_id: str) -> None:
        """Tell the store that the worker serves the session, unless the store knows it. Raises `StaleEpoch`."""
        tenure = self._tenure(session_id)
        if not tenure.is_lost and self._must_enter(tenure):
            await self.update_session(session_id, _nothing)

    def _must_enter(self, tenure: Tenure) -> bool:
        return tenure.needs_entry or self._writer not in tenure.writers

    async def read_session(self, session_id: str, read: Callable[[Session], T]) -> T:
        """Call `read` with a session, and return its result. A first read tells in which epoch the call began."""
        tenure = self._tenure(session_id)
        if tenure.first is not None:
            return await self._writer.store.read_session(session_id, read)

        def seen(session: Session) -> T:
            tenure.sees(session.epoch, session.host_id)
            return read(session)

        return await self._writer.store.read_session(session_id, seen)

    async def update_session(self, session_id: str, change: Callable[[Session], T]) -> T:
        """Change a session: call `change` with it, and return the result. Raises `StaleEpoch`."""
        tenure = self._tenure(session_id)
        if tenure.first is None:
            try:
                return await self._update(session_id, tenure, change)
            except StaleEpoch:
                # The store took its first look at an old copy of the session. This is the call's first access, so the
                # call begins in the epoch that the session has now.
                tenure = self._call.tenure = self.hub.epochs.of(session_id)
        return await self._update(session_id, tenure, change)

    async def _update(self, session_id: str, tenure: Tenure, change: Callable[[Session], T]) -> T:
        writer = self._writer
        if not self._must_enter(tenure):

            def fenced(session: Session) -> T:
                self._check(session, tenure)
                return change(session)

            return await writer.store.update_session(session_id, fenced)

        ended = tenure.ended

        def entering(session: Session) -> tuple[int, T]:
            self._check(session, tenure)
            tenure.enter(session, writer.worker_id)
            return session.epoch, change(session)

        # Before the answer comes: if it never comes, the worker may have written.
        tenure.writers.add(writer)
        epoch, result = await writer.store.update_session(session_id, entering)
        tenure.entered(epoch, ended)
        return result

    def _check(self, session: Session, tenure: Tenure) -> None:
        if self._writer.is_gone:
            raise StaleEpoch(
                f"stale epoch: worker {self._writer.worker_id} has ended, and its request to session {session.id!r}"
                " came too late"
            )
        if self._is_over():
            raise SessionError(f"the call is over: its request to session {session.id!r} came too late")
        tenure.check(session)


async def take_over(store: Sessions, session_id: str) -> FencedSessions:
    """Begin a new epoch of a session that no worker holds yet. Raises `SessionNotFound`."""
    epoch = await store.update_session(session_id, _begin_epoch)
    return FencedSessions(store, store.hub.epochs.begin(session_id, epoch))


def _begin_epoch(session: Session) -> int:
    session.hold(None, session.epoch + 1)
    session.bind(None)
    return session.epoch


def _nothing(_session: Session) -> None:
    pass
