"""The objects that a worker keeps for sessions between dynamic calls.

This module makes each change as a whole, under a lock, and without calling foreign code. `interrupts` raises nothing in
here. So a call that is cancelled leaves the objects as they were before its change, or as they are after it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from bridge_py.wire.errors import QuotaExceeded, SessionNotFound

from .references import RemoteRef

__uninterruptible__ = True  # interrupts spare the functions of this module, and the code that they call
#: How many bytes a worker keeps for one session, unless its adapter's options say otherwise.
STORED_BYTES: Final = 1 << 30


class Placement(msgspec.Struct, omit_defaults=True):
    """The host's data about a session's objects, which come with each call.

    `number` grows whenever the objects begin anew in another worker; the first calls there have `first`. `restore` has,
    by name, the copies that the worker has not had as far as the host knows, each with its id. `lost` has the messages
    for names whose objects are lost. `order` counts the session's calls.
    """

    number: int
    order: int = 0
    first: bool = False
    restore: dict[str, tuple[int, Any]] = {}
    lost: dict[str, str] = {}


class Entry(msgspec.Struct, frozen=True):
    """A stored object. `copy_id` is the id of the host's copy, 0 if there is none."""

    value: Any
    ref: RemoteRef
    copy_id: int = 0


class SessionObjects:
    """The objects of one session, since this worker has had its placement.

    `version` counts the changes. `names` has all names that the session has ever had here, and `seen` the ids of all
    copies. `beside` is for what tools keep for the session until it ends, whatever its placements are.
    """

    __slots__ = ("beside", "entries", "is_over", "names", "number", "seen", "session_id", "version")

    def __init__(self, session_id: str, number: int, beside: dict[str, Any]) -> None:
        self.session_id = session_id
        self.number = number
        self.beside = beside
        self.entries: dict[str, Entry] = {}
        self.names: set[str] = set()
        self.seen: set[int] = set()
        self.version = 0
        self.is_over = False

    @property
    def bytes(self) -> int:
        """The sum of the estimated sizes of its objects."""
        return sum(entry.ref.size for entry in tuple(self.entries.values()))


class ObjectStore:
    """The stored objects of all sessions. `quota` is how many bytes one session may keep."""

    def __init__(self, quota: int) -> None:
        self.quota = quota
        self._sessions: dict[str, SessionObjects] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._sessions)

    @property
    def count(self) -> int:
        """How many objects all sessions have together."""
        return sum(len(objects.entries) for objects in tuple(self._sessions.values()))

    @property
    def kept_beside(self) -> int:
        """For how many sessions tools keep something beside the objects."""
        return sum(bool(objects.beside) for objects in tuple(self._sessions.values()))

    @property
    def bytes(self) -> int:
        """The sum of the estimated sizes of all objects."""
        return sum(objects.bytes for objects in tuple(self._sessions.values()))

    def open(self, session_id: str, placement: Placement) -> SessionObjects:
        """Return the objects of a session; they begin anew if the placement has only just come to this worker.

        Raises `SessionNotFound` if the placement was here before and the objects are gone, because the session has
        ended.
        """
        with self._lock:
            objects = self._sessions.get(session_id)
            if objects is None or objects.number < placement.number:
                if not placement.first:
                    raise _has_ended(session_id)
                beside = {} if objects is None else objects.beside
                objects = self._sessions[session_id] = SessionObjects(session_id, placement.number, beside)
            return objects

    def restore(self, objects: SessionObjects, entries: Mapping[str, Entry]) -> None:
        """Add objects that were made from copies, except for copies that were here before. Raises `SessionNotFound`."""
        with self._lock:
            missing = {name: entry for name, entry in entries.items() if entry.copy_id not in objects.seen}
            if missing:
                self._put(objects, {**objects.entries, **missing}, missing)

    def change(self, objects: SessionObjects, added: Mapping[str, Entry], removed: str = "") -> None:
        """Add objects, which replace objects of the same names, or remove one; all or nothing.

        Raises `QuotaExceeded`, and `SessionNotFound` if the session has ended meanwhile.
        """
        with self._lock:
            before = objects.entries
            entries = {**before, **added}
            entries.pop(removed, None)
            if added:
                self._check_quota(objects, entries, added)
            self._put(objects, entries, added)
        del before  # old objects go when the lock is free, because they may run code of their own

    def _put(self, objects: SessionObjects, entries: dict[str, Entry], added: Mapping[str, Entry]) -> None:
        if objects.is_over:
            raise _has_ended(objects.session_id)
        objects.names.update(added)
        objects.seen.update(entry.copy_id for entry in added.values() if entry.copy_id)
        objects.version += 1
        objects.entries = entries

    def end(self, session_id: str) -> None:
        """Forget a session that has ended. From now on nothing is kept for it, not even by calls that still run."""
        with self._lock:
            objects = self._sessions.pop(session_id, None)
            if objects is None:
                return
            objects.is_over = True
            gone, objects.entries = objects.entries, {}
        del gone

    def _check_quota(self, objects: SessionObjects, entries: Mapping[str, Entry], added: Mapping[str, Entry]) -> None:
        total = sum(entry.ref.size for entry in entries.values())
        if total > self.quota:
            new = ", ".join(f"{name!r}: {entry.ref.size} bytes" for name, entry in added.items())
            raise QuotaExceeded(
                f"session {objects.session_id!r} would keep {total} bytes in this worker, and may keep {self.quota} "
                f"(stored_bytes); new are {new}. Delete what is not needed, or open the pool with more"
            )


def _has_ended(session_id: str) -> SessionNotFound:
    return SessionNotFound(f"session {session_id!r} has ended: nothing is stored for it any more")
