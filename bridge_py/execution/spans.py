"""Spans of OpenTelemetry in a worker. Import this only where opentelemetry has been imported already."""

from __future__ import annotations

from typing import Final

from opentelemetry import context, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from bridge_py.wire import semantics
from bridge_py.wire.errors import SnakepitError
from bridge_py.wire.trace_context import TraceContext

from .running_loops import is_cancellation

_LONGEST: Final = 1000  # characters of a description
_trace: Final = TraceContextTextMapPropagator()
_baggage: Final = W3CBaggagePropagator()


class ToolSpan:
    """The span of a call's code, which is the current one of this thread or task until `end`.

    If the process has no tracer provider, there is no span, and the caller's is the current one.
    """

    def __init__(self, found: TraceContext, tool: str) -> None:
        headers = found.headers
        here = _baggage.extract(headers, _trace.extract(headers, Context()))
        self._span: trace.Span | None = None
        self.context = found
        if headers.get("traceparent") and not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            attributes = {semantics.SYSTEM_NAME: semantics.SYSTEM, semantics.METHOD: tool}
            tracer = trace.get_tracer(semantics.SCOPE, schema_url=semantics.SCHEMA)
            span = tracer.start_span(tool, here, trace.SpanKind.SERVER, attributes)
            here = trace.set_span_in_context(span, here)
            own = context_of(here, found)
            if own.traceparent and own.traceparent != found.traceparent:
                self._span, self.context = span, own
        self._token = context.attach(here)

    @property
    def traceparent(self) -> str:
        """The span as others name it; empty if there is no span."""
        return "" if self._span is None else self.context.traceparent

    def end(self, error: BaseException | None) -> None:
        """End the span. `error` is what the code has raised."""
        context.detach(self._token)
        if self._span is None:
            return
        status = _status_of(error)
        self._span.set_attribute(semantics.STATUS_CODE, status)
        if error is not None:
            self._span.set_attribute(semantics.ERROR_TYPE, status)
            self._span.set_status(trace.StatusCode.ERROR, str(error)[:_LONGEST])
            if isinstance(error, Exception):
                self._span.record_exception(error)
        self._span.end()


def _status_of(error: BaseException | None) -> str:
    if error is None:
        return semantics.OK
    if is_cancellation(error):
        return semantics.CANCELLED
    return type(error).__name__ if isinstance(error, SnakepitError) else semantics.TOOL_FAILED


def context_of(here: Context | None, found: TraceContext | None) -> TraceContext:
    """The trace context of a context of OpenTelemetry. What that does not know is as `found` has it."""
    headers = {} if found is None else found.metadata
    _trace.inject(headers, here)
    _baggage.inject(headers, here)
    return TraceContext.of(headers) or TraceContext()
