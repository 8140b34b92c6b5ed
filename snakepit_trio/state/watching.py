"""The listeners that are told when variables change: watchers in the application, and workers that remember values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import attrs
import trio

from bridge_py.wire.variable import Variable
from snakepit_trio._util.log import get_logger
from snakepit_trio._util.news import News

from .epochs import Epochs
from .session import Change

logger = get_logger("snakepit.state")

#: Called with the changes in a session, or with None when the session has ended.
Listener = Callable[[Sequence[Change] | None], None]
#: Called with the id of a session and the changes in it: none if it is new, and None when it has ended.
Observer = Callable[[str, Sequence[Change] | None], None]


class Hub:
    """Listeners by session. They are called in order, must not raise and must not block."""

    def __init__(self) -> None:
        #: In which epochs this host holds its sessions.
        self.epochs = Epochs()
        self._listeners: dict[str, dict[object, Listener]] = {}
        self._observers: tuple[Observer, ...] = ()

    def observe(self, observer: Observer) -> Callable[[], None]:
        """From now on, tell `observer` of all sessions. Returns a function that ends it."""
        self._observers += (observer,)
        return partial(self._leave, observer)

    def _leave(self, observer: Observer) -> None:
        self._observers = tuple(each for each in self._observers if each is not observer)

    def begin(self, session_id: str) -> None:
        """Tell the observers that there is a new session."""
        self._observed(session_id, ())

    def subscribe(self, session_id: str, key: object, listener: Listener) -> None:
        """From now on, tell `listener` of changes in a session. `unsubscribe` takes the same `key`."""
        self._listeners.setdefault(session_id, {})[key] = listener

    def unsubscribe(self, session_id: str, key: object) -> None:
        """Stop telling the listener that was subscribed with `key`."""
        listeners = self._listeners.get(session_id)
        if listeners is not None and listeners.pop(key, None) is not None and not listeners:
            del self._listeners[session_id]

    def has_listeners(self, session_id: str) -> bool:
        """Whether anybody listens to a session."""
        return session_id in self._listeners

    def sessions(self) -> list[str]:
        """The ids of all sessions that somebody listens to."""
        return list(self._listeners)

    def publish(self, session_id: str, changes: Sequence[Change]) -> None:
        """Tell the listeners of a session which variables have changed."""
        if self._observers:
            self._observed(session_id, changes)
        for listener in tuple(self._listeners.get(session_id, {}).values()):
            _tell(listener, changes)

    def hand_over(self, session_id: str, other: Hub) -> None:
        """Move the watchers of a session to the hub of another store, because the session has moved there.

        All other listeners are told that the session has ended here.
        """
        for key, listener in self._listeners.pop(session_id, {}).items():
            if isinstance(key, Watcher):
                other.subscribe(session_id, key, listener)
            else:
                _tell(listener, None)

    def end(self, session_id: str) -> None:
        """Tell the listeners of a session that it has ended."""
        self.epochs.end(session_id)
        self._observed(session_id, None)
        for listener in tuple(self._listeners.pop(session_id, {}).values()):
            _tell(listener, None)

    def _observed(self, session_id: str, changes: Sequence[Change] | None) -> None:
        for observer in self._observers:
            with logger.tolerates("an observer of sessions"):
                observer(session_id, changes)


@trio.lowlevel.enable_ki_protection
def _tell(listener: Listener, changes: Sequence[Change] | None) -> None:
    # If a listener fails, the other listeners are told all the same, and the change stays made.
    with logger.tolerates("a listener to a session"):
        listener(changes)


@attrs.frozen
class Update:
    """News of one watched variable, by its name and id.

    `kind` is "initial": how the variable is when the watch begins; "changed": it has changed, or is new; "deleted":
    `variable` is None; or "dependency": a variable that it depends on has changed, and `cause` names that variable.
    `missed` counts the updates of this variable that came after the last one taken and were replaced by this one.
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


class Watcher(News[Update]):
    """The updates of some variables: the latest update of each.

    Iterating waits for the next update, and ends when the session ends. Only one task at a time may iterate: a second
    one gets `trio.BusyResourceError`. Cancelling loses no update.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__("watch")
        self._names = frozenset(names)

    def begin(self, variables: Sequence[Variable]) -> None:
        """Add an update for each variable that tells how it is now."""
        for variable in variables:
            self._waiting[variable.name] = Update(variable.name, "initial", variable.detached(), id=variable.id)

    def hear(self, changes: Sequence[Change] | None) -> None:
        """Take in changes, or None for the end of the session. This is the watcher's `Listener`."""
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
            # The news of the variable's own change goes before the news of its dependency.
            self._waiting[change.name] = attrs.evolve(late, variable=variable, missed=missed)
            return
        kind: Literal["changed", "deleted", "dependency"]
        kind = "deleted" if variable is None else "changed" if change.cause is None else "dependency"
        known = variable or change.before
        known_id = "" if known is None else known.id
        self._waiting[change.name] = Update(change.name, kind, variable, change.cause, missed, known_id)
