"""The worker of worker.py, with a StreamTelemetry. Run as a script; the variable TELEMETRY says what it is like."""

from __future__ import annotations

import itertools
import os
import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import worker  # type: ignore[import-not-found]  # beside this script

pb2 = worker.pb2
KIND = os.environ["TELEMETRY"]


def event(parts: str, metadata: dict[str, str], correlation_id: str = "", **measurements: Any) -> Any:
    made = pb2.TelemetryEvent(
        event_parts=parts.split("."), metadata=metadata, timestamp_ns=time.time_ns(), correlation_id=correlation_id
    )
    for name, value in measurements.items():
        field = {int: "int_value", float: "float_value", str: "string_value"}[type(value)]
        setattr(made.measurements[name], field, value)
    return made


EVENTS = [
    event("tool.execution.stop", {"tool": "add", "worker": "me"}, "abc", duration=7, part=0.5, name=1, unit="ms"),
    event("worker.crashed", {"odd\x1b[2J": "a\x1b[2Jb"}),
    event("", {}),
    event(".".join("x" * 1000 for _ in range(100)), {str(n): "y" * 10_000 for n in range(100)}),
    event("log", {"level": "error", "message": "it \x1b[31mburns", "logger": "their.code", "exception": "Error: fire"}),
    event("log.warm", {}),
]


class TellingWorker(worker.Worker):
    """Sends what it is told to send, and what nobody wants."""

    def StreamTelemetry(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:  # noqa: N802
        if KIND == "broken":
            context.abort(grpc.StatusCode.INTERNAL, "no telemetry today")
        if KIND == "flood":
            yield from itertools.repeat(event("tool.flood", {"text": "z" * 100}))
        if KIND == "large":
            yield from itertools.repeat(event("tool.large", {"text": "z" * 10_000_000}))
        if KIND == "silent":
            threading.Event().wait()
        if KIND == "ends":
            yield EVENTS[0]
            return
        yield from self._obey(requests, context)

    def _obey(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        allow: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def read() -> None:
            for control in requests:
                if control.HasField("filter"):
                    allow.put(list(control.filter.allow))

        threading.Thread(target=read, daemon=True).start()
        wanted = allow.get()
        yield from [each for each in EVENTS if not wanted or each.event_parts[0] == "log"]
        while context.is_active():
            time.sleep(0.05)


if __name__ == "__main__":
    worker.main(None, TellingWorker)
