"""Spans of calls, whatever the worker says of their times and traces."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import trio
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from bridge_py.wire.frames import RESULT, Frame
from bridge_py.wire.timing import Timing
from bridge_py.wire.trace_context import TraceContext
from snakepit_trio.telemetry.opentelemetry import CallSpans, _nearest

TRACE = "0af7651916cd43dd8448eb211c80319c"
GIVEN = TraceContext("", f"00-{TRACE}-b7ad6b7169203331-01")


class _Call:
    def __init__(self, **values: Any) -> None:
        vars(self).update(values)


def spans_of(timing: Timing, final: Frame | None, worker: Any) -> list[Any]:
    """The spans of a call with these times."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    observer = CallSpans(provider, None)

    async def main() -> None:
        call: Any = _Call(name="tool", session_id="", trace="", created_at=trio.current_time(), final=None, worker=None)
        observer.begins(call)
        call.final, call.worker = final, worker
        observer.ended(call, timing, None)

    trio.run(main)
    provider.shutdown()
    return list(exporter.get_finished_spans())


WORKER = SimpleNamespace(id="w", pid=1)
seconds = st.floats(0, 1e6)


@given(st.builds(Timing, seconds, seconds, seconds, seconds), st.sampled_from(["", GIVEN.traceparent, "x"]))
def test_each_span_is_within_its_call(timing: Timing, trace: str) -> None:
    spans = spans_of(timing, Frame(RESULT, 1, trace=trace), WORKER)
    (client,) = [each for each in spans if each.kind is SpanKind.CLIENT]
    assert abs(client.end_time - client.start_time - timing.total * 1e9) < 1000
    parts = sorted((each for each in spans if each is not client), key=lambda each: (each.start_time, each.end_time))
    for part in parts:
        assert client.start_time <= part.start_time <= part.end_time <= client.end_time + 1000
    assert len([each for each in parts if each.kind is SpanKind.SERVER]) == (not trace)
    assert len(parts) == 4 - bool(trace)


def test_a_call_that_got_no_worker_was_in_the_queue() -> None:
    queue, client = spans_of(Timing(2.0, 0.0, 0.0, 0.0), None, None)
    assert (queue.name, client.kind) == ("queue", SpanKind.CLIENT)
    assert queue.end_time - queue.start_time == 2_000_000_000


@given(st.text() | st.from_regex(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]", fullmatch=True))
def test_a_worker_joins_no_other_trace(text: str) -> None:
    found = _nearest(GIVEN, TraceContext("", text))
    assert found is not None
    assert found.traceparent[3:35] == TRACE


def test_a_worker_names_its_own_span() -> None:
    own = TraceContext("", GIVEN.traceparent.replace("b7", "b8"))
    assert _nearest(GIVEN, own) is own
    assert _nearest(None, own) is None
