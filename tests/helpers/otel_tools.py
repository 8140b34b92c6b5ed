"""Tools of a worker that has set up OpenTelemetry, and a collector that takes what is exported by OTLP over HTTP."""

from __future__ import annotations

import gzip
import os
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from bridge_py import AsyncSessionContext, BaseAdapter, SessionContext, tool

ENDPOINT = "TEST_OTLP_ENDPOINT"


class PlainTools(BaseAdapter):
    """Tools of a worker without OpenTelemetry."""

    @tool
    def add(self, a: int, b: int = 1) -> int:
        return a + b

    @tool
    def fails(self) -> None:
        raise ValueError("no")

    @tool
    def sleeps(self) -> None:
        import time

        time.sleep(60)

    @tool
    def items(self) -> Iterator[int]:
        yield from range(3)

    @tool
    def asks(self, name: str, context: SessionContext) -> Any:
        return context.call_host_tool(name)

    @tool
    def loads(self) -> bool:
        import sys

        return "opentelemetry" in sys.modules


class TracedTools(PlainTools):
    """The same, of a worker with OpenTelemetry, whose tools have spans of their own."""

    def setup(self) -> None:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor

        provider = TracerProvider(resource=Resource({"service.name": "worker", "process.pid": os.getpid()}))
        provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(os.environ[ENDPOINT])))
        trace.set_tracer_provider(provider)

    @tool
    def asks(self, name: str, context: SessionContext) -> Any:
        from opentelemetry import baggage, trace

        with trace.get_tracer("tools").start_as_current_span("inside"):
            return [context.call_host_tool(name), dict(baggage.get_all())]

    @tool
    async def asks_async(self, name: str, context: AsyncSessionContext) -> Any:
        from opentelemetry import trace

        with trace.get_tracer("tools").start_as_current_span("inside"):
            return await context.call_host_tool(name)

    @tool
    async def async_items(self) -> AsyncIterator[int]:
        from opentelemetry import trace

        with trace.get_tracer("tools").start_as_current_span("inside"):
            yield 1


class Collector:
    """What has come, parsed: spans by their names, with the service that sent them, and metrics."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, Any]] = []
        self.metrics: dict[str, Any] = {}
        self.url = ""

    def take(self, path: str, body: bytes) -> None:
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        if path == "/v1/traces":
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                names = {each.key: each.value.string_value for each in resource.resource.attributes}
                for scope in resource.scope_spans:
                    self.spans += [(names.get("service.name", ""), span) for span in scope.spans]
        else:
            for found in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                self.metrics |= {metric.name: metric for scope in found.scope_metrics for metric in scope.metrics}


@contextmanager
def collecting() -> Iterator[Collector]:
    """Run a collector on loopback."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            collector.take(self.path, body)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = False
        collector.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()
