"""What a worker remembers of its sessions' variables, and forgets when the host says that they have changed.

No locks: tools that read may be interrupted anywhere. The link's thread alone counts invalidations. Each answer
carries the count at its arrival, and a variable from it counts only as long as its last invalidation is not above that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from bridge_py.wire.variable import Variable

_SESSIONS: Final = 256  # that are remembered
_NAMES: Final = 10_000  # whose last invalidation is remembered, in one session
_NEVER: Final = 1 << 62


class SessionCache:
    """The variables of one session."""

    __slots__ = ("_clock", "_floor", "_ids", "_invalidated", "_variables", "stamp")

    def __init__(self, clock: Callable[[], float]) -> None:
        self.stamp = 0  # invalidations so far
        self._clock = clock
        self._variables: dict[str, tuple[Variable, int, float]] = {}  # by name, with its stamp and when it came
        self._ids: dict[str, str] = {}
        self._invalidated: dict[str, int] = {}  # by name
        self._floor = 0

    def get(self, identifier: str, ttl: float) -> Variable | None:
        """A variable, if it is known, valid, and not known for longer than `ttl` seconds."""
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
        """Remember a variable from an answer. From any thread."""
        known = self._variables.get(variable.name)
        if known is None or known[1] <= stamp:
            self._variables[variable.name] = variable, stamp, self._clock()
            self._ids[variable.id] = variable.name

    def invalidate(self, names: Sequence[str]) -> None:
        """Variables have changed. On the link's thread."""
        self.stamp += 1
        if len(self._invalidated) + len(names) > _NAMES:
            self._floor = self.stamp
            self._invalidated.clear()
        for name in names:
            self._invalidated[name] = self.stamp
            self._variables.pop(name, None)

    def forget(self) -> None:
        """Everything that is known, from any thread."""
        for name in tuple(self._variables):
            self._variables.pop(name, None)
        self._ids.clear()

    def close(self) -> None:
        """Nothing is remembered from here on: the session has ended, or others need the room."""
        self._floor = _NEVER
        self.forget()


class Caches:
    """The caches of all sessions that this worker has met lately."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._sessions: dict[str, SessionCache] = {}
        self._clock = clock

    def of(self, session_id: str) -> SessionCache:
        """The cache of a session. From any thread."""
        found = self._sessions.get(session_id)
        if found is None:
            found = self._sessions.setdefault(session_id, SessionCache(self._clock))
        return found

    def stamp(self, session_id: str) -> int:
        """Invalidations of a session so far. On the link's thread."""
        found = self._sessions.get(session_id)
        return 0 if found is None else found.stamp

    def invalidate(self, session_id: str, names: Sequence[str]) -> None:
        """Variables of a session have changed; no names: the session has ended. On the link's thread."""
        if not names:
            if (gone := self._sessions.pop(session_id, None)) is not None:
                gone.close()
        elif (found := self._sessions.get(session_id)) is not None:
            found.invalidate(names)

    def trim(self) -> None:
        """Forget the oldest if there are too many. On the link's thread."""
        while len(self._sessions) > _SESSIONS:
            self._sessions.pop(next(iter(tuple(self._sessions)))).close()
