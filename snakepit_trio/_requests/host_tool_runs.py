"""Host tools while they run for the calls of one worker.

A host tool that runs for a call is part of that call: it is cancelled with the call, and the call is not over before
the host tool has ended.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any, Final, Protocol

import outcome
import trio

from bridge_py.wire.errors import CANCELLED, Fault, InvalidArguments, ToolCancelled, fault_of
from bridge_py.wire.frames import Frame, Kind
from bridge_py.wire.trace_context import TraceContext, current_trace
from snakepit_trio._calls.call import Call
from snakepit_trio._calls.nesting import serve
from snakepit_trio._util.log import get_logger
from snakepit_trio._util.signals import for_the_application
from snakepit_trio.telemetry.spans import told

from .services import HostServices
from .tool_registry import HostCall

logger = get_logger("snakepit.bridge")

__calls_tools__ = True  # tracebacks of tools leave out this module's frames where they are outermost
_CANCELLED: Final = Fault(CANCELLED, "the host tool was stopped")


class Replies(Protocol):
    """Takes the outcomes of host tools, and sends them to the worker."""

    async def encode(self, value: Any, what: str) -> Any:
        """Encode a result or a chunk as it is now. The caller must then send it or drop it.

        `what` names the value in errors. Raises `EncodeError`.
        """

    def encode_in_thread(self, value: Any, what: str) -> Any:
        """Encode a result or a chunk as it is now, as `encode` does, but in any thread."""

    def send(self, frame: Frame, kind: Kind, encoded: Any, /) -> None:
        """Send an encoded result or chunk."""

    def drop(self, encoded: Any) -> None:
        """Let go of an encoded value that will not be sent."""

    def has_credit(self, frame: Frame) -> bool:
        """Whether the worker takes another chunk of the stream."""
        ...

    def end_stream(self, frame: Frame) -> None:
        """Report that the stream has ended."""

    def fail(self, frame: Frame, fault: Fault) -> None:
        """Report that the host tool raised an error, or was stopped."""


class _Running:
    """One host tool that runs."""

    def __init__(self, frame: Frame, call: Call) -> None:
        self.frame = frame
        self.call = call
        self.scope = trio.CancelScope()
        self.granted = trio.Event()

    def cancel(self) -> None:
        self.scope.cancel()
        self.call.stop_children()


class _Kept:
    """A result that was encoded in the thread that made it, or the error that encoding it raised."""

    def __init__(self, replies: Replies, what: str, value: Any) -> None:
        self.outcome = outcome.capture(replies.encode_in_thread, value, what)


class HostToolRuns:
    """The host tools that run for the calls of one worker."""

    def __init__(self, services: HostServices, worker_id: str, replies: Replies) -> None:
        self._services = services
        self._worker_id = worker_id
        self._replies = replies
        self._running: dict[int, _Running] = {}  # by ask id
        self.serving: dict[int, set[int]] = {}  # by call id: the ids of the asks whose host tools run
        self._waiting: dict[int, Callable[[], None]] = {}  # by call id: called when none of its host tools is left

    def open(self, frame: Frame, call: Call, name: str, args: Any, nursery: trio.Nursery) -> None:
        """Start a host tool for a call."""
        running = _Running(frame, call)
        # This comes first: if it raises, nothing is noted, so nobody waits for the end of the host tool.
        nursery.start_soon(self._serve, running, name, args)
        self._running[frame.call_id] = running
        self.serving.setdefault(call.id, set()).add(frame.call_id)

    def cancel(self, ask_id: int) -> None:
        """Cancel a host tool whose outcome nobody wants any more."""
        if (running := self._running.get(ask_id)) is not None:
            running.cancel()

    def granted(self, ask_id: int) -> None:
        """Note that a stream has got more credit."""
        if (running := self._running.get(ask_id)) is not None:
            running.granted.set()

    def cancel_for(self, call: Call) -> None:
        """Cancel all host tools that run for a call."""
        for ask_id in self.serving.get(call.id, ()):
            self._running[ask_id].cancel()

    def when_over(self, call: Call, then: Callable[[], None]) -> None:
        """Cancel all host tools that run for a call, and call `then` when they have ended."""
        if call.id in self.serving:
            self._waiting[call.id] = then
            self.cancel_for(call)
        else:
            then()

    async def _serve(self, running: _Running, name: str, args: Any) -> None:
        frame = running.frame
        serve(running.call)
        # Always: this task has the context of whoever opened the pool.
        current_trace.set(TraceContext.read(running.call.trace))
        fault: Fault | None = _CANCELLED
        try:
            with running.scope:
                try:
                    about = {"name": name, "call": running.call.number, "worker": self._worker_id}
                    with told(self._services.events, "tool", about):
                        await self._observed(running, name, args)
                    fault = None
                except ToolCancelled:
                    pass  # from a call that was stopped while a thread of the host tool waited for it
                except Exception as error:
                    fault = fault_of(error)
        finally:
            self._forget(running)
            with logger.tolerates("telling a worker of a host tool's end"):
                if fault is not None:
                    self._replies.fail(frame, fault)
                elif frame.kind == Kind.STREAM:
                    self._replies.end_stream(frame)

    async def _observed(self, running: _Running, name: str, args: Any) -> None:
        observers = self._services.events.observers
        if not observers.active:
            await self._run(running, name, args)
            return
        with observers.host_tool(running.call, str(name), running.frame.trace):
            await self._run(running, name, args)

    async def _run(self, running: _Running, name: str, args: Any) -> None:
        if not isinstance(name, str) or not isinstance(args, Mapping):
            raise InvalidArguments("a host tool is called by its name, with a dict of arguments")
        call, frame, tools = running.call, running.frame, self._services.tools
        tool = tools.exposed(call.session_id or None, name)
        who = HostCall(call.session_id or None, self._worker_id, call.name)
        nested = call.parent is not None
        large = len(frame.body) > self._services.most_at_once
        what = f"host tool {name}"
        # Encode in the thread of the function: once it has returned, another thread may change its result.
        keep = partial(_Kept, self._replies, what)
        if frame.kind == Kind.STREAM:
            items = tools.stream(tool, args, who, nested=nested, large=large, keep=keep)
            await self._stream(running, items, what)
        else:
            value = await for_the_application(
                partial(tools.run, tool, args, who, nested=nested, large=large, keep=keep)
            )
            self._replies.send(frame, Kind.RESULT, await self._encode(value, what))

    async def _stream(self, running: _Running, items: AsyncGenerator[Any, None], what: str) -> None:
        async with aclosing(items):
            while True:
                try:
                    item = await for_the_application(items.__anext__)
                except StopAsyncIteration:
                    return
                # Encode first: while this task waits for credit, other tasks may change the item.
                encoded = await self._encode(item, what)
                try:
                    # A worker may give endless credit to a host tool that never waits. Others must have their turns.
                    await trio.lowlevel.checkpoint()
                    while not self._replies.has_credit(running.frame):
                        running.granted = trio.Event()
                        await running.granted.wait()
                except BaseException:
                    self._replies.drop(encoded)
                    raise
                self._replies.send(running.frame, Kind.CHUNK, encoded)

    async def _encode(self, value: Any, what: str) -> Any:
        if isinstance(value, _Kept):
            return value.outcome.unwrap()
        return await self._replies.encode(value, what)

    def _forget(self, running: _Running) -> None:
        del self._running[running.frame.call_id]
        asks = self.serving[running.call.id]
        asks.remove(running.frame.call_id)
        if not asks:
            del self.serving[running.call.id]
            if (then := self._waiting.pop(running.call.id, None)) is not None:
                then()
