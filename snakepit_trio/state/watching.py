"""The listeners that are told when variables change: watchers in the application, and workers that remember values."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Literal, Self

import attrs
import trio

from bridge_py.wire.variable import Variable
from snakepit_trio._util.log import get_logger
from snakepit_trio._util.ownership import OneTaker

from .session import Change

logger = get_logger("snakepit.state")

#: Called with what has changed in a session, or with None when the session has ended.
Listener = Callable[[Sequence[Change] | None], None]


class Hub:
    """Listeners by session. They are called in order, must not raise and must not block."""

    def __init__(self) -> None:
        self._listeners: dict[str, dict[object, Listener]] = {}

    def subscribe(self, session_id: str, key: object, listener: Listener) -> None:
        """From now on, `listener` hears of a session; `key` is what to give to `unsubscribe`."""
        self._listeners.setdefault(session_id, {})[key] = listener

    def unsubscribe(self, session_id: str, key: object) -> None:
        """Undo that."""
        listeners = self._listeners.get(session_id)
        if listeners is not None and listeners.pop(key, None) is not None and not listeners:
            del self._listeners[session_id]

    def publish(self, session_id: str, changes: Sequence[Change]) -> None:
        """Variables have changed."""
        for listener in tuple(self._listeners.get(session_id, {}).values()):
            _tell(listener, changes)

    def hand_over(self, session_id: str, other: Hub) -> None:
        """A session has moved to another store: its watchers go with it, and for all others it has ended here."""
        for key, listener in self._listeners.pop(session_id, {}).items():
            if isinstance(key, Watcher):
                other.subscribe(session_id, key, listener)
            else:
                _tell(listener, None)

    def end(self, session_id: str) -> None:
        """A session has ended."""
        for listener in tuple(self._listeners.pop(session_id, {}).values()):
            _tell(listener, None)


@trio.lowlevel.enable_ki_protection
def _tell(listener: Listener, changes: Sequence[Change] | None) -> None:
    # One that fails must not keep the others from hearing, nor the change from having been made.
    with logger.tolerates("a listener to a session"):
        listener(changes)


@attrs.frozen
class Update:
    """News of one watched variable, by its name and id.

    `kind`: "initial", how it is when the watch begins; "changed", also when it is new; "deleted", then `variable` is
    None; "dependency", then a variable that it depends on has changed, which `cause` names. `missed` counts the
    updates of this variable that came after the last one taken and were replaced by this one.
    """

    name: str
    kind: Literal["initial", "changed", "deleted", "dependency"]
    variable: Variable | None
    cause: str | None = None
    missed: int = 0
    id: str = ""

    @property
    def value(self) -> Any:
        """The variable's value; None if it is deleted."""
        return None if self.variable is None else self.variable.value


class Watcher(AsyncIterator[Update]):
    """The updates of some variables, the latest of each.

    Iterating waits for the next update; it ends when the session does. For one task at a time: a second one gets
    `trio.BusyResourceError`. Cancelling loses nothing.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = frozenset(names)
        self._waiting: dict[str, Update] = {}
        self._has_ended = False
        self._news = trio.Event()
        self._taker = OneTaker("watch")

    def begin(self, variables: Sequence[Variable]) -> None:
        """How they are now."""
        for variable in variables:
            self._waiting[variable.name] = Update(variable.name, "initial", variable.detached(), id=variable.id)

    def hear(self, changes: Sequence[Change] | None) -> None:
        """A `Listener`."""
        if changes is None:
            self._has_ended = True
        for change in changes or ():
            if not self._names or change.name in self._names:
                self._add(change)
        self._news.set()

    def _add(self, change: Change) -> None:
        late = self._waiting.get(change.name)
        missed = 0 if late is None else late.missed + 1
        variable = None if change.variable is None else change.variable.detached()
        if change.cause is not None and late is not None:
            # Its own change is the greater news.
            self._waiting[change.name] = attrs.evolve(late, variable=variable, missed=missed)
            return
        kind: Literal["changed", "deleted", "dependency"]
        kind = "deleted" if variable is None else "changed" if change.cause is None else "dependency"
        known = variable or change.before
        known_id = "" if known is None else known.id
        self._waiting[change.name] = Update(change.name, kind, variable, change.cause, missed, known_id)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Update:
        with self._taker:
            await trio.lowlevel.checkpoint_if_cancelled()
            while not self._waiting:
                if self._has_ended:
                    raise StopAsyncIteration
                self._news = trio.Event()
                await self._news.wait()
            return self._waiting.pop(next(iter(self._waiting)))
