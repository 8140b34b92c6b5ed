"""The telemetry events that one peer of the wire contract sends to another, which controls the selection."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from fnmatch import fnmatchcase
from typing import Final

from bridge_py.wire.messages.snakepit import bridge as messages

_MOST: Final = 1000  # events that wait for a slow listener; the oldest are dropped


class TelemetryFeed:
    """The events of one `StreamTelemetry` RPC: all events, until a control selects some.

    Patterns are matched against names with dots, such as `worker.crashed`. Use it only on the thread of its event loop.
    """

    def __init__(self) -> None:
        self._events: deque[messages.TelemetryEvent] = deque(maxlen=_MOST)
        self._more = asyncio.Event()
        self._enabled = True
        self._rates: list[tuple[str, float]] = []  # pattern and rate, the latest last
        self._allow: list[str] = []
        self._deny: list[str] = []

    def put(
        self, name: str, measurements: Mapping[str, float], metadata: Mapping[str, str], correlation_id: str = ""
    ) -> None:
        """Add an event that has happened, if the controls select it."""
        if not self._wants(name):
            return
        self._events.append(
            messages.TelemetryEvent(
                event_parts=name.split("."),
                measurements={key: _measurement(value) for key, value in measurements.items()},
                metadata=dict(metadata),
                timestamp_ns=time.time_ns(),
                correlation_id=correlation_id,
            )
        )
        self._more.set()

    async def obey(self, controls: AsyncIterable[messages.TelemetryControl]) -> None:
        """Apply controls as they come, until they end."""
        async for control in controls:
            if control.toggle is not None:
                self._enabled = control.toggle.enabled
            elif control.sampling is not None:
                patterns = control.sampling.event_patterns or ["*"]
                self._rates += [(pattern, control.sampling.sampling_rate) for pattern in patterns]
            elif control.filter is not None:
                self._allow, self._deny = list(control.filter.allow), list(control.filter.deny)

    async def events(self) -> AsyncIterator[messages.TelemetryEvent]:
        """Yield the selected events as they happen, without an end."""
        while True:
            self._more.clear()
            while self._events:
                yield self._events.popleft()
            await self._more.wait()

    def _wants(self, name: str) -> bool:
        if not self._enabled or any(fnmatchcase(name, pattern) for pattern in self._deny):
            return False
        if self._allow and not any(fnmatchcase(name, pattern) for pattern in self._allow):
            return False
        rate = next((rate for pattern, rate in reversed(self._rates) if fnmatchcase(name, pattern)), 1.0)
        return random.random() < rate  # noqa: S311 - a sample of events


def _measurement(value: float) -> messages.TelemetryValue:
    if isinstance(value, int):
        return messages.TelemetryValue(int_value=value)
    return messages.TelemetryValue(float_value=value)
