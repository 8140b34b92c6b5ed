"""Events: they tell what happens in a pool, as it happens."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, Final, Protocol

import attrs

from snakepit_trio._util.log import get_logger
from snakepit_trio._util.validation import check_answer, check_plain

from .observers import Observers
from .table import FOREIGN, check_pattern

logger = get_logger("snakepit.telemetry")


@attrs.frozen
class Event:
    """One event, for example `worker.crashed`.

    `at` is Unix time in seconds. `metadata` says what the event is about, `measurements` holds numbers.
    """

    name: str
    metadata: dict[str, Any] = attrs.field(factory=dict)
    measurements: dict[str, float] = attrs.field(factory=dict)
    at: float = attrs.field(factory=time.time)


Handler = Callable[[Event], object]


@attrs.frozen(eq=False)
class _Entry:
    pattern: str
    handler: Handler


class Listener(Protocol):
    """Gets all events of a pool."""

    def _hear(self, event: Event, latest_of: object) -> None:
        """Take an event. Of several events of one `latest_of`, only the latest counts; None if each counts."""

    def end(self) -> None:
        """Note that no more events come."""


class _Everywhere:
    """The handlers of all pools of the process."""

    def __init__(self) -> None:
        self.entries: tuple[_Entry, ...] = ()  # replaced and never changed: pools in other threads may read it
        self._changing = threading.Lock()
        self._pools: weakref.WeakSet[Events] = weakref.WeakSet()

    def join(self, events: Events) -> None:
        with self._changing:
            self._pools.add(events)

    def add(self, entry: _Entry) -> None:
        with self._changing:
            self.entries += (entry,)
            self._told()

    def remove(self, entry: _Entry) -> None:
        with self._changing:
            self.entries = _without(self.entries, entry)
            self._told()

    def _told(self) -> None:
        for events in tuple(self._pools):
            events._look()


_everywhere: Final = _Everywhere()


class Events:
    """The events of one pool. Handlers are called where the event happens, so they must be quick and must not block."""

    def __init__(self) -> None:
        #: Whether anybody listens. Code that makes events may look at this first.
        self.is_heard = False
        self._handlers: tuple[_Entry, ...] = ()
        self._listeners: dict[Listener, None] = {}
        self._has_ended = False
        #: The observers of calls, which may give them a trace context. A pool with any is heard.
        self.observers = Observers(self._look)
        self._look()
        _everywhere.join(self)

    def attach(self, pattern: str, handler: Handler) -> Callable[[], None]:
        """Call `handler` with each event of this pool whose name matches `pattern`, such as "call.*".

        Returns a function that detaches it. A handler that raises is detached, and its error is logged. Raises
        `UsageError` for a pattern that no event matches, for a handler that cannot be called, and for a coroutine
        function.
        """
        entry = _entry(pattern, handler)
        self._handlers += (entry,)
        self._look()
        return partial(self._detach, entry)

    def detach(self, handler: Handler) -> bool:
        """Detach a handler from all its patterns. Returns whether it was attached to this pool."""
        mine = [entry for entry in self._handlers if entry.handler == handler]
        for entry in mine:
            self._detach(entry)
        return bool(mine)

    def _detach(self, entry: _Entry) -> None:
        self._handlers = _without(self._handlers, entry)
        self._look()

    def _look(self) -> None:
        self.is_heard = bool(self._handlers or self._listeners or _everywhere.entries or self.observers.active)

    @property
    def is_foreign_heard(self) -> bool:
        """Whether anybody listens to events of foreign workers."""
        patterns = (entry.pattern for entry in (*self._handlers, *_everywhere.entries))
        return bool(self._listeners) or any(
            pattern.startswith(FOREIGN) or fnmatchcase(f"{FOREIGN}*", pattern) for pattern in patterns
        )

    @contextmanager
    def tell(self, listener: Listener) -> Iterator[None]:
        """Tell a listener of all events during the block. A listener that raises gets no more, and the error is logged.

        Afterwards, or when the pool has closed, the listener is told of the end.
        """
        if not self._has_ended:
            self._listeners[listener] = None
            self._look()
        try:
            if self._has_ended:
                listener.end()
            yield
        finally:
            self._dismiss(listener)

    def close(self) -> None:
        """Tell the listeners that the pool has closed. Handlers just hear no more."""
        if not self._has_ended:
            self.emit("pool.closed", {})
        self._has_ended = True
        for listener in tuple(self._listeners):
            self._dismiss(listener)

    def _dismiss(self, listener: Listener) -> None:
        if listener in self._listeners:
            del self._listeners[listener]
            self._look()
            listener.end()

    def emit(self, name: str, metadata: dict[str, Any], latest_of: object = None, **measurements: float) -> None:
        """Make an event, and tell all who listen. `latest_of` is as for `Listener._hear`."""
        if not self.is_heard:
            return
        event = Event(name, metadata, measurements)
        for listener in tuple(self._listeners):
            try:
                listener._hear(event, latest_of)
            except Exception:
                logger.exception("a watch of events failed; it gets no more events")
                self._dismiss(listener)
        for entry in (*self._handlers, *_everywhere.entries):
            if not fnmatchcase(name, entry.pattern):
                continue
            try:
                check_answer("handler", entry.handler, entry.handler(event))
            except Exception:
                logger.exception("the handler of %r failed; it gets no more events", entry.pattern)
                self._detach(entry)
                _everywhere.remove(entry)


def attach(pattern: str, handler: Handler) -> Callable[[], None]:
    """Call `handler` with each event, of any pool of this process, whose name matches `pattern`, such as "call.*".

    The handler is called where the event happens, in the thread of its pool, so it must be quick and must not block.
    Returns a function that detaches it. A handler that raises is detached, and its error is logged. Raises `UsageError`
    for a pattern that no event matches, for a handler that cannot be called, and for a coroutine function.
    """
    entry = _entry(pattern, handler)
    _everywhere.add(entry)
    return partial(_everywhere.remove, entry)


def detach(handler: Handler) -> bool:
    """Detach a handler that `attach` has attached to all pools. Returns whether there was one."""
    mine = [entry for entry in _everywhere.entries if entry.handler == handler]
    for entry in mine:
        _everywhere.remove(entry)
    return bool(mine)


def _without(entries: tuple[_Entry, ...], entry: _Entry) -> tuple[_Entry, ...]:
    return tuple(each for each in entries if each is not entry)


def _entry(pattern: str, handler: Handler) -> _Entry:
    check_plain("handler", handler, "give a pattern and a function, as in attach('worker.*', print)")
    return _Entry(check_pattern(pattern), handler)
