"""Events: they tell what happens in a pool, as it happens."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import attrs

from snakepit_trio._util.log import get_logger

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


class Events:
    """The events of one pool. Handlers are called where the event happens, so they must be quick and must not block."""

    def __init__(self) -> None:
        self._handlers: list[tuple[str, Handler]] = []

    @property
    def has_handlers(self) -> bool:
        """Whether anybody listens."""
        return bool(self._handlers)

    def attach(self, handler: Handler, prefix: str = "") -> Callable[[], None]:
        """Call `handler` with each event whose name starts with `prefix`. Returns a function that detaches it.

        A handler that raises is detached and its error logged.
        """
        entry = (prefix, handler)
        self._handlers.append(entry)

        def detach() -> None:
            if entry in self._handlers:
                self._handlers.remove(entry)

        return detach

    def emit(self, name: str, metadata: dict[str, Any], **measurements: float) -> None:
        """Make an event, and call the handlers with it."""
        if not self._handlers:
            return
        event = Event(name, metadata, measurements)
        for entry in [entry for entry in self._handlers if name.startswith(entry[0])]:
            try:
                entry[1](event)
            except Exception:
                logger.exception("an event handler failed; it gets no more events")
                # The handler may have detached itself before it failed.
                if entry in self._handlers:
                    self._handlers.remove(entry)
