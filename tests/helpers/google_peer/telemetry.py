"""Checks of telemetry."""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
from connection import (  # type: ignore[import-not-found]  # beside this script
    LONG,
    PATIENCE,
    Client,
    Code,
    check,
    is_free,
    parameters,
    pb2,
)


class Events:
    """A StreamTelemetry, whose controls are obeyed when `control` returns."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._controls: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._sent: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._found: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._call = client.stub.StreamTelemetry(self._requests(), timeout=LONG)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self.control(toggle=pb2.TelemetryToggle(enabled=True))

    def control(self, **fields: Any) -> None:
        self._controls.put(pb2.TelemetryControl(**fields))
        self._sent.get(timeout=PATIENCE)
        # Two round trips behind it, on the same connection.
        for _ in range(2):
            self._client.call("Ping")

    def next(self) -> Any:
        event = self._found.get(timeout=PATIENCE)
        assert event is not None, "the stream has ended"
        assert abs(event.timestamp_ns / 1e9 - time.time()) < 3600
        return event

    def close(self) -> None:
        self._call.cancel()
        self._controls.put(None)
        self._reader.join(PATIENCE)
        assert not self._reader.is_alive()
        assert self._call.code() == Code.CANCELLED, self._call.details()

    def _requests(self) -> Iterator[Any]:
        while (control := self._controls.get()) is not None:
            yield control
            self._sent.put(None)

    def _read(self) -> None:
        try:
            for event in self._call:
                self._found.put(event)
        except grpc.RpcError:
            self._found.put(None)


@check("worker")
def telemetry_of_a_worker(client: Client) -> None:
    events = Events(client)
    try:
        observe(client, events, "first")
        for control, muted, unmuted in CONTROLS:
            events.control(**{control: muted})
            tell(client, f"muted by {control}")
            events.control(**{control: unmuted})
            observe(client, events, f"after {control}")
    finally:
        events.close()
    assert client.execute("add", a=1, b=2) == 3


CONTROLS: list[tuple[str, Any, Any]] = [
    ("toggle", pb2.TelemetryToggle(enabled=False), pb2.TelemetryToggle(enabled=True)),
    ("filter", pb2.TelemetryEventFilter(deny=["call.*"]), pb2.TelemetryEventFilter()),
    ("filter", pb2.TelemetryEventFilter(allow=["other.*"]), pb2.TelemetryEventFilter(allow=["call.*"])),
    (
        "sampling",
        pb2.TelemetrySamplingUpdate(sampling_rate=0, event_patterns=["call.*"]),
        pb2.TelemetrySamplingUpdate(sampling_rate=1),
    ),
]


def tell(client: Client, correlation_id: str) -> None:
    """Make a call that is an event."""
    response = client.call(
        "ExecuteTool",
        session_id="telemetry",
        tool_name="add",
        parameters=parameters({"a": 1, "b": 2}),
        metadata={"correlation_id": correlation_id},
    )
    assert response.success, response


def observe(client: Client, events: Events, correlation_id: str) -> None:
    """A call is the next event."""
    tell(client, correlation_id)
    event = events.next()
    assert event.correlation_id == correlation_id, event
    assert event.event_parts == ["call", "ended"]
    assert event.metadata == {"tool": "add", "session": "telemetry", "success": "true"}
    assert event.measurements["seconds"].WhichOneof("value") == "float_value"
    assert 0 <= event.measurements["seconds"].float_value < PATIENCE


@check("worker")
def telemetry_for_several(client: Client) -> None:
    several = [Events(client) for _ in range(3)]
    try:
        several[0].control(toggle=pb2.TelemetryToggle(enabled=False))
        tell(client, "for two")
        assert [events.next().correlation_id for events in several[1:]] == ["for two"] * 2
        several[0].control(toggle=pb2.TelemetryToggle(enabled=True))
        tell(client, "for all")
        assert [events.next().correlation_id for events in several] == ["for all"] * 3
    finally:
        for events in several:
            events.close()


@check("worker")
def telemetry_without_controls(client: Client) -> None:
    call = client.stub.StreamTelemetry(iter(()), timeout=PATIENCE)
    ended = threading.Event()

    def calls() -> None:
        while not ended.wait(0.1):
            tell(client, "again")

    caller = threading.Thread(target=calls)
    caller.start()
    try:
        assert next(call).correlation_id == "again"
    finally:
        ended.set()
        caller.join()
        call.cancel()


@check("host")
def telemetry_of_a_host(client: Client) -> None:
    events = Events(client)
    crashes = pb2.TelemetryEventFilter(allow=["worker.crashed"])
    try:
        events.control(filter=crashes)
        crash(client, events)
        events.control(toggle=pb2.TelemetryToggle(enabled=False))
        assert "3" in client.fail("die")
        events.control(toggle=pb2.TelemetryToggle(enabled=True))
        crash(client, events)
        events.control(filter=pb2.TelemetryEventFilter(deny=["worker.*", "call.*"]))
        assert "3" in client.fail("die")
        events.control(filter=crashes)
        crash(client, events)
    finally:
        events.close()
    is_free(client)


def crash(client: Client, events: Events) -> None:
    """The end of a worker is the next event."""
    pid = client.execute("pid")
    os.kill(pid, signal.SIGKILL)
    event = events.next()
    assert event.event_parts == ["worker", "crashed"], event
    assert event.metadata["pid"] == str(pid), (event, pid)
    assert event.metadata["worker"]
