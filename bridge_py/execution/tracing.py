"""What a tool's code has of its call's trace, while it runs."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Final

from bridge_py.wire.trace_context import TraceContext, current_trace

if TYPE_CHECKING:
    from .spans import ToolSpan

_API: Final = "opentelemetry.trace"
_logger = logging.getLogger("snakepit.tool")


class ToolTrace:
    """The trace of a call whose code runs in this thread or task, from its making to `end`. Neither raises.

    If the process has imported OpenTelemetry, the call has a span there. A worker never imports it by itself.
    """

    __slots__ = ("_before", "_span", "traceparent")

    def __init__(self, text: str, tool: str) -> None:
        """Begin. `text` is the trace context as it has come over the link."""
        self._before = current_trace.get()
        self._span: ToolSpan | None = None
        #: The span of this process, as others name it; empty if it has made none.
        self.traceparent = ""
        found = TraceContext.read(text)
        if found is not None and _API in sys.modules:
            found = self._begin_span(found, tool)
        current_trace.set(found)

    def _begin_span(self, found: TraceContext, tool: str) -> TraceContext:
        try:
            from .spans import ToolSpan

            self._span = ToolSpan(found, tool)
        except Exception:
            _logger.exception("OpenTelemetry failed at the beginning of %r, which runs without a span", tool)
            return found
        self.traceparent = self._span.traceparent
        return self._span.context

    def end(self, error: BaseException | None) -> None:
        """Put back what was current before. `error` is what the code has raised."""
        current_trace.set(self._before)
        if self._span is not None:
            try:
                self._span.end(error)
            except Exception:
                _logger.exception("OpenTelemetry failed at the end of a call")


def trace_of_request() -> str:
    """The trace context of a request that this thread or task makes of the host; empty if the host knows as much."""
    found = current_trace.get()
    if found is None or _API not in sys.modules:
        return ""
    try:
        from .spans import context_of

        return context_of(None, found).text
    except Exception:
        _logger.exception("OpenTelemetry failed at a request to the host")
        return ""
