"""Traces and metrics of calls for OpenTelemetry: across host, worker and host tools, by the SDK and by OTLP."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import trio
from opentelemetry import baggage, trace
from opentelemetry import context as contexts
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

import snakepit_trio as snakepit
from snakepit_trio.telemetry import correlated, trace_headers
from snakepit_trio.telemetry.opentelemetry import CallSpans, instrument
from snakepit_trio.testing import InMemory
from tests.helpers.otel_tools import ENDPOINT, PlainTools, TracedTools, collecting

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Telemetry:
    """Providers of the SDK that keep what they get."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])

    @property
    def providers(self) -> dict[str, Any]:
        return {"tracer_provider": self.tracers, "meter_provider": self.meters}

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def named(self, name: str, kind: SpanKind | None = None) -> ReadableSpan:
        (found,) = [each for each in self.spans if each.name == name and kind in (None, each.kind)]
        return found

    def points(self, name: str) -> list[Any]:
        data: Any = self.reader.get_metrics_data()
        found = [
            metric
            for resource in ([] if data is None else data.resource_metrics)
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
        ]
        assert all(metric.unit == "s" for metric in found)
        return [point for metric in found for point in metric.data.data_points]


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    made = Telemetry()
    yield made
    made.tracers.shutdown()
    made.meters.shutdown()


def is_below(child: ReadableSpan, parent: ReadableSpan) -> bool:
    assert parent.context is not None
    times: list[Any] = [parent.start_time, child.start_time, child.end_time, parent.end_time]
    return times == sorted(times) and child.parent is not None and child.parent.span_id == parent.context.span_id


async def test_a_call_has_spans_of_its_queue_wire_and_tool(telemetry: Telemetry) -> None:
    with trio.fail_after(60):
        async with snakepit.open_pool(PlainTools, workers=1) as pool:
            with instrument(pool, **telemetry.providers):
                assert await pool.execute("add", {"a": 1}) == 2
            assert await pool.execute("loads") is False  # a worker never imports it by itself
    client, server = telemetry.named("add", SpanKind.CLIENT), telemetry.named("add", SpanKind.SERVER)
    assert len(telemetry.spans) == 5
    assert client.parent is None
    queue, *wires = (each for each in telemetry.spans if each.name in ("queue", "wire"))
    assert [each.attributes for each in wires] == [
        {"snakepit.wire.direction": "to_worker"},
        {"snakepit.wire.direction": "to_host"},
    ]
    assert all(is_below(each, client) for each in (queue, *wires, server))
    assert queue.end_time == wires[0].start_time
    assert wires[0].end_time == server.start_time
    assert server.end_time == wires[1].start_time
    expected = {"rpc.system.name": "snakepit", "rpc.method": "add", "rpc.status_code": "OK"}
    assert client.attributes == {**expected, "snakepit.worker.id": "pool-1"}
    assert server.attributes is not None
    assert {name: server.attributes[name] for name in expected} == expected
    for name in ("rpc.client.call.duration", "rpc.server.call.duration"):
        (point,) = telemetry.points(name)
        assert (point.count, dict(point.attributes)) == (1, expected)
        assert tuple(point.explicit_bounds) == (
            *(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10),
        )


@pytest.mark.parametrize("name", ["asks", "asks_async"])
async def test_one_call_is_one_trace_across_host_worker_and_host_tool(name: str) -> None:
    tracers = TracerProvider(resource=Resource({"service.name": "host"}))
    with trio.fail_after(60), collecting() as collector:
        tracers.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{collector.url}/v1/traces")))
        env = {ENDPOINT: f"{collector.url}/v1/traces"}
        async with snakepit.open_pool(TracedTools, workers=2, env=env) as pool:

            @pool.expose
            async def price() -> Any:
                return await pool.execute("add", {"a": 41})

            app = tracers.get_tracer("app")
            with instrument(pool, tracer_provider=tracers), app.start_as_current_span("checkout"):
                found = await pool.execute(name, {"name": "price"})
        tracers.shutdown()
    assert found in (42, [42, {}])
    spans = [(service, span) for service, span in collector.spans if span.name not in ("queue", "wire")]
    assert len({span.trace_id for _, span in spans}) == 1
    by_id = {span.span_id: (service, span) for service, span in spans}
    (at,) = [span for service, span in spans if (service, span.name, span.kind) == ("worker", "add", 2)]
    chain = []
    while at is not None:
        service = by_id[at.span_id][0]
        chain.append((service, at.name, SpanKind(at.kind - 1).name))
        at = by_id[at.parent_span_id][1] if at.parent_span_id else None
    assert chain == [
        ("worker", "add", "SERVER"),
        ("host", "add", "CLIENT"),
        ("host", "price", "SERVER"),
        ("worker", "inside", "INTERNAL"),
        ("worker", name, "SERVER"),
        ("host", name, "CLIENT"),
        ("host", "checkout", "INTERNAL"),
    ]
    assert len(spans) == len(chain)


async def test_metrics_go_out_by_otlp() -> None:
    with trio.fail_after(60), collecting() as collector:
        meters = MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter(f"{collector.url}/v1/metrics"))])
        async with snakepit.open_pool(PlainTools, workers=1) as pool:
            with instrument(pool, meter_provider=meters):
                await pool.execute("add", {"a": 1})
        await trio.to_thread.run_sync(meters.shutdown)
    assert collector.metrics.keys() == {"rpc.client.call.duration", "rpc.server.call.duration"}
    (point,) = collector.metrics["rpc.client.call.duration"].histogram.data_points
    assert point.count == 1


async def test_streams_in_a_worker_with_spans() -> None:
    tracers = TracerProvider()
    with trio.fail_after(60), collecting() as collector:
        env = {ENDPOINT: f"{collector.url}/v1/traces"}
        async with snakepit.open_pool(TracedTools, workers=1, env=env) as pool:
            with instrument(pool, tracer_provider=tracers):
                for name in ("items", "async_items"):
                    async with pool.stream(name) as chunks:
                        assert [chunk async for chunk in chunks][-1:] in ([2], [1])
                with pytest.raises(snakepit.ToolError):
                    await pool.execute("fails")
    found = {span.name: span for _, span in collector.spans}
    assert found.keys() == {"items", "async_items", "inside", "fails"}
    assert found["inside"].parent_span_id == found["async_items"].span_id
    assert found["fails"].status.code == 2
    assert [event.name for event in found["fails"].events] == ["exception"]


async def test_outcomes(telemetry: Telemetry) -> None:
    with trio.fail_after(60):
        async with snakepit.open_pool(PlainTools, workers=1) as pool:
            with instrument(pool, **telemetry.providers):
                with pytest.raises(snakepit.ToolError):
                    await pool.execute("fails")
                with pytest.raises(snakepit.UnknownTool):
                    await pool.execute("missing")
                with pytest.raises(snakepit.CallTimeout):
                    await pool.execute("sleeps", timeout=0.2)
                with trio.move_on_after(0.2):
                    await pool.execute("sleeps", {}, priority=1)
                async with pool.stream("items") as chunks:
                    assert await anext(chunks) == 0
                with pytest.raises(KeyError):
                    async with pool.stream("items") as chunks:
                        raise KeyError("the caller's")
                with pytest.raises(snakepit.ToolError):
                    try:
                        raise LookupError("handled")
                    except LookupError:
                        await pool.execute("fails")
    spans = [each for each in telemetry.spans if each.kind is SpanKind.CLIENT]
    found = [(each.name, (each.attributes or {})["rpc.status_code"], each.status.status_code) for each in spans]
    assert found == [
        ("fails", "ToolError", StatusCode.ERROR),
        ("missing", "UnknownTool", StatusCode.ERROR),
        ("sleeps", "CallTimeout", StatusCode.ERROR),
        ("sleeps", "CANCELLED", StatusCode.ERROR),
        ("items", "OK", StatusCode.UNSET),
        ("items", "CANCELLED", StatusCode.ERROR),
        ("fails", "ToolError", StatusCode.ERROR),
    ]
    (event,) = spans[0].events
    assert (event.attributes or {})["exception.type"] == "ValueError"
    codes = {dict(point.attributes).get("error.type") for point in telemetry.points("rpc.client.call.duration")}
    assert codes == {"ToolError", "UnknownTool", "CallTimeout", "CANCELLED", None}


async def test_pools_in_memory_and_all_pools(telemetry: Telemetry) -> None:
    instrumentation = instrument(**telemetry.providers)
    try:
        async with snakepit.open_pool(PlainTools, workers=1, launcher=InMemory()) as pool:

            @pool.expose
            def price() -> Any:
                assert trace.get_current_span().get_span_context().is_valid
                return trace_headers()

            assert (await pool.execute("asks", {"name": "price"})).keys() == {"traceparent"}
            assert pool.events.observers.active
            instrumentation.uninstrument()
            assert not pool.events.observers.active
            instrumentation.uninstrument()
            await pool.execute("add", {"a": 1})
    finally:
        instrumentation.uninstrument()
    client, tool = telemetry.named("asks", SpanKind.CLIENT), telemetry.named("price")
    assert client.context is not None
    assert tool.parent is not None
    assert tool.parent.trace_id == client.context.trace_id
    assert not [each for each in telemetry.spans if each.name == "add"]


async def test_it_joins_the_trace_of_a_request_and_carries_baggage(telemetry: Telemetry) -> None:
    with trio.fail_after(60), collecting() as collector:
        env = {ENDPOINT: f"{collector.url}/v1/traces"}
        async with snakepit.open_pool(TracedTools, workers=1, env=env) as pool:

            @pool.expose
            def bag() -> Any:
                return dict(baggage.get_all())

            with instrument(pool, **telemetry.providers):
                with correlated("order-17", headers={"traceparent": PARENT, "baggage": "a=1"}):
                    assert await pool.execute("asks", {"name": "bag"}) == [{"a": "1"}, {"a": "1"}]
                token = contexts.attach(baggage.set_baggage("b", "2"))
                try:
                    assert await pool.execute("asks", {"name": "bag"}) == [{"b": "2"}, {"b": "2"}]
                finally:
                    contexts.detach(token)
    first = next(each for each in telemetry.spans if each.kind is SpanKind.CLIENT)
    assert first.parent is not None
    assert f"{first.parent.trace_id:032x}" == PARENT[3:35]
    assert (first.attributes or {})["snakepit.correlation_id"] == "order-17"


class Failing(SpanExporter):
    """An exporter that fails."""

    def export(self, spans: Any) -> Any:
        raise OSError("nobody there")


async def test_what_fails_hurts_no_call(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(Failing()))
    async with snakepit.open_pool(PlainTools, workers=1, launcher=InMemory()) as pool:
        pool.expose(lambda: 1, name="one")
        with instrument(pool, tracer_provider=tracers):
            assert await pool.execute("add", {"a": 1}) == 2
        for broken in ("begins", "ended", "host_tool"):
            caplog.clear()
            with monkeypatch.context() as patch, instrument(pool), caplog.at_level(logging.ERROR):
                patch.setattr(CallSpans, broken, lambda *_: 1 / 0)
                assert await pool.execute("asks", {"name": "one"}) == 1
                assert "it sees no more calls of this pool" in caplog.text
                assert pool.events.observers.active == ()


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.delitem(sys.modules, "snakepit_trio.telemetry.opentelemetry", raising=False)
    with pytest.raises(snakepit.UsageError, match=r"pip install 'snakepit-trio\[opentelemetry\]'"):
        importlib.import_module("snakepit_trio.telemetry.opentelemetry")
