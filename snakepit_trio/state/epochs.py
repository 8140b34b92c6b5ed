"""Epochs: which calls and handles of this host may still write to a session.

Several hosts may share a store. A host that was stopped or cut off for a while must not go on with what it began
before, if another host has taken its session over meanwhile. No host can know this by itself, and no clock tells it.
So each session has a number in the store, its *epoch*, that rises whenever the session is taken over. A writer brings
the epoch that it began in, and the store refuses the write, in the same step, if the session has another one. (Others
call such a number a fencing token.)

The epoch rises when the first access of a worker finds

    another host's worker, or nobody, as the holder of the session
    a worker of this host that has written and has ended since
    a host that no longer remembers that it holds the session

and when a handle takes the session over. Workers of one host do not fence each other as long as they live: calls of a
session may run side by side. So an epoch that this host has begun itself, right after its own, still is its own: a
`Tenure` is such a row of epochs. It belongs to the session's calls on this host from the first that it was met in. Each
number is begun by one holder only. For this reason a row has no gap in which another holder could have been.

Plain state: no I/O, no await, no clock. The functions that take a `Session` run inside `SessionStore.update_session`,
and a store may run them again. So they note only what the store had before; the rest is noted when the store is done.
"""

from __future__ import annotations

import os
import platform
import secrets
from typing import Final, Protocol

from bridge_py.wire.errors import StaleEpoch

from .session import Session

_MOST: Final = 10_000  # sessions that are remembered


class Holding(Protocol):
    """Who holds a session, and in which epoch."""

    @property
    def id(self) -> str:
        """The id of the session."""
        ...

    @property
    def epoch(self) -> int:
        """How often the session was taken over."""
        ...

    @property
    def host_id(self) -> str | None:
        """The host that holds the session."""
        ...

    @property
    def worker_id(self) -> str | None:
        """The worker that serves it."""
        ...


class Tenure:
    """The epochs in which this host holds a session, from `first` to `last`.

    `first` is None until an epoch is known: that of the first access. `is_held` says whether a worker of this host has
    taken the session over, or has found that one has.
    """

    __slots__ = ("ended", "fenced", "first", "host_id", "is_held", "is_lost", "last", "writers")

    def __init__(self, host_id: str, epoch: int | None = None) -> None:
        self.host_id = host_id
        self.first = epoch
        self.last = 0 if epoch is None else epoch
        self.is_held = False
        self.is_lost = False
        self.writers: set[object] = set()  # the workers that have accessed the session
        self.ended = 0  # how many of them have ended,
        self.fenced = 0  # and how many of these have an earlier epoch than the session has now

    @property
    def needs_entry(self) -> bool:
        """Whether the next write must begin a new epoch."""
        return not self.is_held or self.fenced < self.ended

    def sees(self, epoch: int, host_id: str | None) -> bool:
        """Note the session's epoch, and which host holds it. Returns whether that is an epoch of this tenure."""
        if self.first is None:
            self.first = self.last = epoch
        if epoch == self.last + 1 and host_id == self.host_id:
            self.last, self.is_held = epoch, True
        self.is_lost = self.is_lost or epoch > self.last
        return not self.is_lost and epoch >= self.first  # a lower one is that of an old copy, or of another session

    def check(self, session: Holding) -> None:
        """Raise `StaleEpoch` if the session was taken over since. `session` is the session, or the facts about it."""
        if not self.sees(session.epoch, session.host_id):
            raise StaleEpoch(
                f"stale epoch: session {session.id!r} is at epoch {session.epoch}, held by {_holder(session)}. This"
                f" began at epoch {self.last}, and the session was taken over since. Nothing was written: read the"
                " session again, in a new call or with a new handle"
            )

    def enter(self, session: Session, worker_id: str) -> None:
        """Let a worker hold the session, in a new epoch if one is needed. Raises `StaleEpoch`."""
        self.check(session)
        if self.needs_entry or session.host_id != self.host_id:
            session.hold(self.host_id, session.epoch + 1)
        session.bind(worker_id)

    def entered(self, epoch: int, ended: int) -> None:
        """Note that the store has let a worker in, in this epoch, when `ended` workers had ended."""
        self.last = max(self.last, epoch)
        self.is_held = True
        self.fenced = max(self.fenced, ended)


def _holder(session: Holding) -> str:
    if session.host_id is None:
        return "a handle"
    return f"worker {session.worker_id!r} of host {session.host_id!r}"


class Epochs:
    """The tenures of this host, by session. Pools of one process that use the same store object are one host."""

    def __init__(self) -> None:
        #: The id of this host: unlike that of any other process, and of any other store in this one.
        self.host_id = f"{platform.node()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._tenures: dict[str, Tenure] = {}

    def of(self, session_id: str) -> Tenure:
        """The tenure that a call which begins now has."""
        tenure = self._tenures.get(session_id)
        if tenure is None or tenure.is_lost:
            tenure = self._put(session_id, Tenure(self.host_id))
        return tenure

    def note(self, session_id: str, epoch: int, host_id: str | None) -> None:
        """Note what the store says now, before a call begins."""
        tenure = self.of(session_id)
        if tenure.first is not None and epoch < tenure.first:
            return  # the answer is late
        if not tenure.sees(epoch, host_id):
            self._put(session_id, Tenure(self.host_id, epoch))

    def hear(self, session_id: str, epoch: int, host_id: str | None) -> None:
        """Note what the store has told of a session, if this host has had calls of it. Later calls go by that."""
        if session_id in self._tenures:
            self.note(session_id, epoch, host_id)

    def begin(self, session_id: str, epoch: int) -> Tenure:
        """Note that a handle of this host has taken a session over. Returns its tenure; earlier calls lose theirs."""
        known = self._tenures.get(session_id)
        tenure = Tenure(self.host_id, epoch)
        if known is not None and not known.is_lost and known.first is not None and known.last >= epoch:
            # Others were faster than the answer of the store: calls in this epoch, or who took the session over since.
            if known.first == epoch:
                return known
            tenure.is_lost = True
            return tenure
        return self._put(session_id, tenure)

    def end(self, session_id: str) -> None:
        """Note that a session has ended. One of the same name that is made later is another one."""
        if (tenure := self._tenures.pop(session_id, None)) is not None:
            tenure.is_lost = True

    def writer_gone(self, writer: object) -> None:
        """Note that a worker has ended: what it has on the way to the store must not come after its successor."""
        for tenure in self._tenures.values():
            if writer in tenure.writers:
                tenure.writers.discard(writer)
                tenure.ended += 1

    def _put(self, session_id: str, tenure: Tenure) -> Tenure:
        known = self._tenures.pop(session_id, None)
        if known is not None:
            known.is_lost = True
        self._tenures[session_id] = tenure
        if len(self._tenures) > _MOST:
            del self._tenures[next(iter(self._tenures))]  # its calls go on; the next one begins a new epoch
        return tenure
