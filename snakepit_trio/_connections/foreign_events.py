"""The telemetry of a foreign worker: its events become events of the pool, and those that are logs become log records.

It comes on a connection of its own. So whatever the worker sends, or however much, calls have their own windows, limits
and streams.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Final

from bridge_py.contract.client import AsyncioClient
from bridge_py.wire.errors import RemoteError
from bridge_py.wire.logs import LONGEST_NAME, MOST_AT_ONCE, MOST_PER_SECOND, Bucket, cost_of_log
from bridge_py.wire.messages.snakepit import bridge as messages
from bridge_py.wire.readable import readable
from snakepit_trio._util.log import get_logger
from snakepit_trio.telemetry import Events
from snakepit_trio.telemetry.table import FOREIGN

from .worker_logs import WorkerLogs, said_by_foreign

_LOG: Final = "log"
_FIRST_PAUSE: Final = 1.0  # seconds between two streams of one worker
_LONGEST_PAUSE: Final = 60.0
_FULL: Final = 0.1  # seconds that a worker waits that sends more than is taken
_MOST_PARTS: Final = 10
_MOST_ENTRIES: Final = 50
_LONGEST_ENTRY: Final = 1_000  # characters
_RESERVED: Final = frozenset({"self", "name", "metadata", "latest_of"})

logger = get_logger("snakepit.telemetry")


class ForeignEvents:
    """Listens to the StreamTelemetry of one worker. `connect` makes a client of the worker.

    While nobody listens to such events, the worker is asked for its logs alone.
    """

    def __init__(self, worker_id: str, events: Events, logs: WorkerLogs, connect: Callable[[], AsyncioClient]) -> None:
        self._worker_id = worker_id
        self._events = events
        self._logs = logs
        self._connect = connect
        self._bucket = Bucket(MOST_AT_ONCE, MOST_PER_SECOND)
        self._wants_all = False
        self._turn: asyncio.Timeout | None = None

    async def run(self) -> None:
        """Listen until cancelled, or until the worker says that it has no telemetry. Raises no `Exception`."""
        pause = _FIRST_PAUSE
        with contextlib.closing(self._connect()) as client:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(None) as self._turn:
                        if not await self._listen(client):
                            return
                        await asyncio.sleep(pause)
                        pause = min(2 * pause, _LONGEST_PAUSE)
                self._turn = None

    def look(self) -> None:
        """Tell the worker what to send, if that has changed."""
        if self._turn is not None and self._wants_all != self._events.is_foreign_heard and not self._turn.expired():
            self._turn.reschedule(asyncio.get_running_loop().time())

    async def _listen(self, client: AsyncioClient) -> bool:
        """Take the events of one stream. Returns False if there will never be any."""
        try:
            async with contextlib.aclosing(client.stream_telemetry(self._controls())) as stream:
                async for event in stream:
                    cost = _cost_of(event)
                    while not self._bucket.take(min(cost, MOST_AT_ONCE)):  # noqa: ASYNC110 - time brings room
                        await asyncio.sleep(_FULL)  # unread events make the worker wait
                    self._hear(event)
        except RemoteError as error:
            if error.status == "UNIMPLEMENTED":
                return False
            logger.debug("the telemetry of worker %s has ended: %s", self._worker_id, error)
        except Exception:
            logger.debug("the telemetry of worker %s is broken", self._worker_id, exc_info=True)
        return True

    def _controls(self) -> list[messages.TelemetryControl]:
        self._wants_all = self._events.is_foreign_heard
        allow = [] if self._wants_all else [_LOG, f"{_LOG}.*"]
        return [
            messages.TelemetryControl(toggle=messages.TelemetryToggle(enabled=True)),
            messages.TelemetryControl(filter=messages.TelemetryEventFilter(allow=allow)),
        ]

    def _hear(self, event: messages.TelemetryEvent) -> None:
        if event.event_parts[:1] == [_LOG]:
            logger = ".".join(event.event_parts[1:_MOST_PARTS])
            self._logs.take(said_by_foreign(event.metadata, logger, created=event.timestamp_ns / 1e9))
            return
        name = ".".join(_short(part) for part in event.event_parts[:_MOST_PARTS])
        metadata = _entries(event.metadata)
        measurements: dict[str, float] = {}
        for key, value in list(event.measurements.items())[:_MOST_ENTRIES]:
            key = f"{_short(key)}_" if key in _RESERVED else _short(key)
            if value.string_value is not None:
                metadata[key] = readable(value.string_value, _LONGEST_ENTRY)
            else:
                measurements[key] = (value.int_value if value.int_value is not None else value.float_value) or 0
        correlation = {"correlation_id": _short(event.correlation_id)} if event.correlation_id else {}
        ours = {"worker": self._worker_id, "pid": self._logs.pid}
        self._events.emit(FOREIGN + name, {**metadata, **correlation, **ours}, **measurements)


def _cost_of(event: messages.TelemetryEvent) -> int:
    texts = [*event.event_parts, *event.metadata, *event.metadata.values(), *event.measurements]
    return cost_of_log(sum(map(len, texts)))


def _entries(entries: Mapping[str, str]) -> dict[str, str]:
    return {_short(key): readable(value, _LONGEST_ENTRY) for key, value in list(entries.items())[:_MOST_ENTRIES]}


def _short(text: str) -> str:
    return readable(text, LONGEST_NAME).replace("\n", "\\n")
