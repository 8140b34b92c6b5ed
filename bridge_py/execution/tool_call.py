"""A call in the worker: its arguments, its context, and how its code is told to stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from bridge_py.tools.adapter import Tool
from bridge_py.tools.context import CallContext, StateHost

from .credit import AsyncCredit, SyncCredit
from .running_loops import RunningLoop
from .tracing import ToolTrace


class ToolCall:
    """One call in the worker."""

    __slots__ = (
        "area", "attempts", "began", "body", "cancelled", "context", "credit", "id", "interrupted", "loop", "stop",
        "tool", "trace", "tracing",
    )  # fmt: skip

    def __init__(
        self,
        id: int,
        tool: Tool,
        body: bytes,
        area: bytes | memoryview,
        session_id: str,
        timeout_us: int,
        host: StateHost | None = None,
    ) -> None:
        self.id = id
        self.tool = tool
        self.body = body
        self.area = area
        self.context: CallContext | None = None  # if its tool wants one
        if tool.takes_context:
            clock = time.monotonic if host is None else host.clock
            deadline = clock() + timeout_us / 1e6 if timeout_us else None
            self.context = tool.context_class(id, session_id or None, deadline, host)
        self.credit: SyncCredit | AsyncCredit | None = None
        if tool.streaming:
            queue = SimpleQueue() if host is None else host.make_queue()
            self.credit = AsyncCredit() if tool.is_async else SyncCredit(queue)
        self.trace = ""  # as the link carries it; when the code has run, the span of this process
        self.tracing: ToolTrace | None = None
        self.began = 0  # nanoseconds, on the clock of its executor
        self.cancelled = False
        self.interrupted = False  # whether the running code has been told
        self.attempts = 0  # attempts to tell it
        self.loop: RunningLoop | None = None  # the loop that it runs, and that was asked to cancel it
        self.stop: Callable[[], object] | None = None  # tells the running code to stop

    def take_trace(self, text: str) -> None:
        """Take the trace context of the call, as the link carries it. It need not be valid."""
        self.trace = text
        if self.context is not None:
            self.context._trace = text

    def begin_trace(self) -> None:
        """Make the call's trace the current one of the thread or task that runs its code."""
        self.tracing = ToolTrace(self.trace, self.tool.name)

    def end_trace(self, error: BaseException | None) -> None:
        """Undo `begin_trace`, in the same thread or task, and note the span. `error` is what the code has raised."""
        if self.tracing is not None:
            self.tracing.end(error)
            self.trace = self.tracing.traceparent

    def arguments(self) -> dict[str, Any]:
        """Decode its arguments. This works once: then only the tool refers to shared memory, and can let go of it."""
        body, area = self.body, self.area
        self.body = self.area = b""
        return self.tool.arguments(body, area, self.context)

    def cancel(self) -> None:
        """Mark the call as cancelled, and stop its code if it runs. Only the link's thread may call this."""
        self.cancelled = True
        context = self.context
        if context is not None:
            context._cancelled = True
        # This comes first. While an asynchronous exception is pending for a thread that waits in C, a traced thread of
        # Python 3.11 repeats its next call's first instruction forever, and would never end that wait.
        if isinstance(self.credit, SyncCredit):
            self.credit.close()
        if context is not None and self.tool.spec.cancel == "interrupt":
            context._give_up()
        if self.stop is not None and not self.interrupted:
            self.stop()

    def note_told(self) -> None:
        """Count the running code as told: it learns of its cancellation only from its context."""
        self.interrupted = True
