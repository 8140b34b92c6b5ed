"""Traces and metrics of calls for OpenTelemetry: `instrument()`. Needs the extra `opentelemetry`."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final, NamedTuple, Protocol

import trio

from bridge_py.wire import semantics
from bridge_py.wire.errors import SnakepitError, ToolCancelled, ToolError, UsageError
from bridge_py.wire.extras import install
from bridge_py.wire.timing import Timing
from bridge_py.wire.trace_context import TraceContext, current_trace
from snakepit_trio._util.nurseries import told

from .observers import ObservedCall, Observers, observe
from .tallies import MOST_NAMES

try:
    from opentelemetry import context as contexts
    from opentelemetry import metrics, trace
    from opentelemetry.baggage.propagation import W3CBaggagePropagator
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ModuleNotFoundError as missing:
    raise UsageError(f"this needs the package opentelemetry-api: {install('opentelemetry')} ({missing})") from missing

__all__ = ["Instrumentation", "instrument"]

_LONGEST: Final = 1000  # characters of a description
_DIRECTION: Final = "snakepit.wire.direction"
_trace: Final = TraceContextTextMapPropagator()
_baggage: Final = W3CBaggagePropagator()


class _HasObservers(Protocol):
    observers: Observers


class _Pool(Protocol):
    @property
    def events(self) -> _HasObservers: ...


class Instrumentation:
    """Instrumented pools, from `instrument` to `uninstrument`, or to the end of a `with` block."""

    def __init__(self, uninstrument: Callable[[], None]) -> None:
        self._end = uninstrument

    def uninstrument(self) -> None:
        """End it. The spans of calls under way end now, without an outcome. May be called twice."""
        self._end()

    def __enter__(self) -> Instrumentation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.uninstrument()


def instrument(
    pool: _Pool | None = None,
    *,
    tracer_provider: trace.TracerProvider | None = None,
    meter_provider: metrics.MeterProvider | None = None,
) -> Instrumentation:
    """Make spans and metrics of the calls of a pool; of all pools of this process, later ones included, without one.

    The providers are by default those of the process. Each call has a CLIENT span below the span that is current where
    the call is made. Below it are spans of its time in the queue and on the wire, and a SERVER span of its tool. The
    worker makes that span if its adapter has set up OpenTelemetry, and otherwise this process does. Host tools have
    spans below. The metrics are `rpc.client.call.duration` and `rpc.server.call.duration`, in seconds.

    Returns an object to end it by; it is a context manager too. What fails in OpenTelemetry is logged, and never hurts
    a call.
    """
    observer = CallSpans(tracer_provider, meter_provider)
    stop = observe(observer, None if pool is None else pool.events.observers)

    def end() -> None:
        stop()
        observer.close()

    return Instrumentation(end)


class _Open(NamedTuple):
    """A call under way: its span, as the current one of a context."""

    span: trace.Span
    here: Context
    began: int  # Unix time in nanoseconds

    def at(self, seconds: float) -> int:
        """Unix time in nanoseconds, `seconds` after its beginning."""
        return self.began + round(seconds * 1e9)


class CallSpans:
    """Makes spans and metrics of calls: a `CallObserver`."""

    def __init__(
        self, tracer_provider: trace.TracerProvider | None, meter_provider: metrics.MeterProvider | None
    ) -> None:
        self._tracer = trace.get_tracer(semantics.SCOPE, tracer_provider=tracer_provider, schema_url=semantics.SCHEMA)
        meter = metrics.get_meter(semantics.SCOPE, meter_provider=meter_provider, schema_url=semantics.SCHEMA)
        self._client, self._server = (
            meter.create_histogram(name, "s", told, explicit_bucket_boundaries_advisory=semantics.BOUNDARIES)
            for name, told in (
                (semantics.CLIENT_DURATION, "The duration of outgoing calls."),
                (semantics.SERVER_DURATION, "The duration of calls in their workers."),
            )
        )
        self._open: dict[ObservedCall, _Open] = {}
        self._methods: set[str] = set()

    def close(self) -> None:
        """End the spans of the calls under way."""
        while self._open:
            self._open.popitem()[1].span.end()

    def begins(self, call: ObservedCall, /) -> None:
        """Begin the span of a call, in its caller's task, and give the call its trace context."""
        given = current_trace.get()
        here = contexts.get_current()
        if given is not None and not trace.get_current_span(here).get_span_context().is_valid:
            here = _trace.extract(given.headers, here)
        attributes: dict[str, Any] = _attributes(call.name)
        if call.session_id:
            attributes["snakepit.session.id"] = call.session_id
        if given is not None and given.correlation_id:
            attributes["snakepit.correlation_id"] = given.correlation_id
        start = time.time_ns() - round((trio.current_time() - call.created_at) * 1e9)
        span = self._tracer.start_span(call.name, here, trace.SpanKind.CLIENT, attributes, start_time=start)
        here = trace.set_span_in_context(span, here)
        self._open[call] = _Open(span, here, start)
        call.trace = _context_of(here, given).text

    def ended(self, call: ObservedCall, timing: Timing, error: BaseException | None, /) -> None:
        """End the span of a call, with those of its parts, and measure it."""
        found = self._open.pop(call, None)
        if found is None:
            return
        status = _status_of(error)
        measured = self._measured(call.name, status)
        self._client.record(timing.total, measured, found.here)
        if call.worker is not None:
            self._server.record(timing.ran, measured, found.here)
        if found.span.is_recording():
            self._tell_parts(call, found, timing, error)
            _tell_outcome(found.span, status, error)
        found.span.end(found.at(timing.total))

    def _tell_parts(self, call: ObservedCall, found: _Open, timing: Timing, error: BaseException | None) -> None:
        assigned, began, ended, over = itertools.accumulate(timing)
        self._begin("queue", found, 0.0).end(found.at(assigned))
        if call.worker is None:
            return
        found.span.set_attribute("snakepit.worker.id", call.worker.id)
        self._begin("wire", found, assigned, {_DIRECTION: "to_worker"}).end(found.at(began))
        if call.final is None or not call.final.trace:  # else the worker has made it
            tool = self._begin(call.name, found, began, _attributes(call.name), trace.SpanKind.SERVER)
            if call.worker.pid is not None:
                tool.set_attribute("process.pid", call.worker.pid)
            _tell_outcome(tool, _status_of(error), error)
            tool.end(found.at(ended))
        self._begin("wire", found, ended, {_DIRECTION: "to_host"}).end(found.at(over))

    def _begin(
        self,
        name: str,
        found: _Open,
        at: float,
        attributes: dict[str, Any] | None = None,
        kind: trace.SpanKind = trace.SpanKind.INTERNAL,
    ) -> trace.Span:
        return self._tracer.start_span(name, found.here, kind, attributes, start_time=found.at(at))

    @contextmanager
    def host_tool(self, call: ObservedCall, name: str, asked: str, /) -> Iterator[None]:
        """Make the span of a host tool, which is the current one in the block."""
        given = TraceContext.read(call.trace)
        parent = _nearest(given, TraceContext.read(asked))
        headers = {} if parent is None else parent.headers
        here = _baggage.extract(headers, _trace.extract(headers, Context()))
        span = self._tracer.start_span(name, here, trace.SpanKind.SERVER, _attributes(name))
        here = trace.set_span_in_context(span, here)
        token, before = contexts.attach(here), current_trace.get()
        current_trace.set(_context_of(here, given))
        error: BaseException | None = None
        try:
            yield
        except BaseException as raised:
            error = raised
            raise
        finally:
            current_trace.set(before)
            contexts.detach(token)
            _tell_outcome(span, _status_of(error, semantics.HOST_TOOL_FAILED), error)
            span.end()
            del error  # its traceback refers to this frame

    def _measured(self, method: str, status: str) -> dict[str, Any]:
        if method not in self._methods:
            if len(self._methods) < MOST_NAMES:
                self._methods.add(method)
            else:
                method = semantics.OTHER
        measured = {**_attributes(method), semantics.STATUS_CODE: status}
        if status != semantics.OK:
            measured[semantics.ERROR_TYPE] = status
        return measured


def _attributes(method: str) -> dict[str, Any]:
    return {semantics.SYSTEM_NAME: semantics.SYSTEM, semantics.METHOD: method}


def _context_of(here: Context, given: TraceContext | None) -> TraceContext:
    parts = {} if given is None else given.metadata
    _trace.inject(parts, here)
    _baggage.inject(parts, here)
    return TraceContext.of(parts) or TraceContext()


def _nearest(given: TraceContext | None, asked: TraceContext | None) -> TraceContext | None:
    """The worker's own span, if it is of the call's trace; else the call's. A worker joins no other trace."""
    if given is None or asked is None or not asked.traceparent:
        return given
    return asked if asked.traceparent.split("-")[1] == given.traceparent[3:35] else given


def _status_of(error: BaseException | None, other: str = semantics.CANCELLED) -> str:
    """The status of a call that ended with an error. `other` is for errors that are not ours.

    By default they come from the caller's own code, in the block of a stream: they have stopped the call.
    """
    if error is None:
        return semantics.OK
    if isinstance(error, ToolCancelled) or not isinstance(error, Exception):
        return semantics.CANCELLED
    return type(error).__name__ if isinstance(error, SnakepitError) else other


def _tell_outcome(span: trace.Span, status: str, error: BaseException | None) -> None:
    span.set_attribute(semantics.STATUS_CODE, status)
    if error is None:
        return
    span.set_attribute(semantics.ERROR_TYPE, status)
    message = told(error)[:_LONGEST]
    span.set_status(trace.StatusCode.ERROR, message)
    if isinstance(error, Exception):
        kind = error.type if isinstance(error, ToolError) else type(error).__qualname__
        span.add_event("exception", {"exception.type": str(kind), "exception.message": message})
