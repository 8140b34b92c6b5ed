"""The variables that a worker remembers, until the host says that they have changed.

There are no locks, because an interrupt may hit a tool anywhere while it reads. Only the link's thread counts
invalidations. Each answer carries the count at its arrival. A variable from the answer is valid as long as the number
of the variable's last invalidation is not above that count.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from bridge_py.wire.variable import Variable

_SESSIONS: Final = 256  # sessions that are remembered
_NAMES: Final = 10_000  # variables of one session whose last invalidation is remembered
_NEVER: Final = 1 << 62


class SessionCache:
    """The remembered variables of one session."""

    __slots__ = ("_clock", "_floor", "_ids", "_invalidated", "_variables", "stamp")

    def __init__(self, clock: Callable[[], float]) -> None:
        self.stamp = 0  # how many invalidations have come so far
        self._clock = clock
        self._variables: dict[str, tuple[Variable, int, float]] = {}  # by name, with stamp and time of arrival
        self._ids: dict[str, str] = {}
        self._invalidated: dict[str, int] = {}  # by name
        self._floor = 0

    def get(self, identifier: str, ttl: float) -> Variable | None:
        """Return a variable if it is known, is valid, and came at most `ttl` seconds ago; else None."""
        found = self._variables.get(identifier)
        if found is None:
            found = self._variables.get(self._ids.get(identifier, ""))
            if found is None:
                return None
        variable, stamp, since = found
        if stamp < self._floor or stamp < self._invalidated.get(variable.name, 0) or self._clock() - since > ttl:
            return None
        return variable

    def put(self, variable: Variable, stamp: int) -> None:
        """Remember a variable from an answer. Any thread may call this."""
        known = self._variables.get(variable.name)
        if known is None or known[1] <= stamp:
            self._variables[variable.name] = variable, stamp, self._clock()
            self._ids[variable.id] = variable.name

    def invalidate(self, names: Sequence[str]) -> None:
        """Forget variables that have changed. Only the link's thread may call this."""
        self.stamp += 1
        if len(self._invalidated) + len(names) > _NAMES:
            self._floor = self.stamp
            self._invalidated.clear()
        for name in names:
            self._invalidated[name] = self.stamp
            self._variables.pop(name, None)

    def forget(self) -> None:
        """Forget all variables. Any thread may call this."""
        for name in tuple(self._variables):
            self._variables.pop(name, None)
        self._ids.clear()

    def close(self) -> None:
        """Forget all variables and remember none from now on: the session has ended, or others need the room."""
        self._floor = _NEVER
        self.forget()


class Caches:
    """The caches of all sessions that this worker has served lately."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._sessions: dict[str, SessionCache] = {}
        self._clock = clock

    def of(self, session_id: str) -> SessionCache:
        """Return the cache of a session. Any thread may call this."""
        found = self._sessions.get(session_id)
        if found is None:
            found = self._sessions.setdefault(session_id, SessionCache(self._clock))
        return found

    def stamp(self, session_id: str) -> int:
        """Return how many invalidations of a session have come so far. Only the link's thread may call this."""
        found = self._sessions.get(session_id)
        return 0 if found is None else found.stamp

    def invalidate(self, session_id: str, names: Sequence[str]) -> None:
        """Forget variables of a session that have changed; no names mean that the session has ended.

        Only the link's thread may call this.
        """
        if not names:
            if (gone := self._sessions.pop(session_id, None)) is not None:
                gone.close()
        elif (found := self._sessions.get(session_id)) is not None:
            found.invalidate(names)

    def trim(self) -> None:
        """Forget the oldest sessions if there are too many. Only the link's thread may call this."""
        while len(self._sessions) > _SESSIONS:
            self._sessions.pop(next(iter(tuple(self._sessions)))).close()
