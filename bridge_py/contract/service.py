"""Lets our own worker serve the wire contract: the worker listens on a port, and each call is an RPC."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import socket
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, Final

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from bridge_py.execution.executor import Executor
from bridge_py.execution.tool_call import ToolCall
from bridge_py.link.server import die
from bridge_py.tools.adapter import BaseAdapter, Tool, unknown_tool
from bridge_py.wire import codec
from bridge_py.wire.conversation import UNTIMED, Times
from bridge_py.wire.errors import Fault, SnakepitError, WrongCallKind, fault_of
from bridge_py.wire.messages.snakepit import bridge as messages
from bridge_py.wire.trace_context import TraceContext

from . import values
from .client import AsyncioClient
from .connections import GuardedServer
from .credentials import Credentials
from .health import AlwaysServing
from .host import ContractHost
from .peers import OpenTo
from .reflection import described
from .serving import READS_RAW, ContractService
from .statuses import json_text, plain_text
from .telemetry import TelemetryFeed

_WINDOW: Final = 16  # chunks that a tool may be ahead of its client
_AGAIN: Final = 0.01  # seconds until an interrupt is tried again
_SESSIONS: Final = 1000  # sessions that are remembered
_LOOK: Final = 1.0  # seconds between two checks of the parent process

logger = logging.getLogger("snakepit.contract")


class ContractServer:
    """Serves the contract on a thread of its own, and takes the executor's replies.

    It calls `ready` on that thread, once it accepts connections at `listener`.
    """

    def __init__(
        self,
        adapter: BaseAdapter,
        listener: socket.socket,
        host_address: str,
        ready: Callable[[], None],
        modern: bool,
        open_to: OpenTo,
        host_credentials: Credentials,
    ) -> None:
        self.tools: dict[str, Tool] = adapter.tools()
        self.client: AsyncioClient | None = None
        self.host = ContractHost(adapter.strict)
        self.text = json_text if modern else plain_text
        self.feeds: set[TelemetryFeed] = set()
        self._listener = listener
        self._open_to: OpenTo = open_to
        self._host_address = host_address
        self._host_credentials = host_credentials
        self._ready = ready
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Queue[tuple[str, Any]]] = {}
        self._executor: Executor | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, executor: Executor) -> None:
        """Serve until the process ends."""
        self._executor = executor
        threading.Thread(target=self._run, name="contract", daemon=True).start()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException:  # noqa: ASYNC103 - the process ends below
            logger.exception("serving failed")
        finally:
            die()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        if self._host_address:
            token, tls = self._host_credentials.token, self._host_credentials.tls
            self.client = AsyncioClient(self._host_address, token=token, tls=tls)
        self.host.begin(self.client)
        server = GuardedServer(described(WorkerService(self), AlwaysServing()), self._open_to)
        parent = os.getppid()
        with self._listener:
            await server.start(sock=self._listener)
            self._ready()
            while os.getppid() == parent:  # noqa: ASYNC110 - no event reports its end
                await asyncio.sleep(_LOOK)

    # Calls, on the thread of the event loop.

    async def run(
        self, tool: Tool, args: dict[str, Any], session_id: str, trace: str = ""
    ) -> AsyncGenerator[tuple[str, Any], None]:
        """Run a tool; yields its chunks and its outcome, each with its kind. Closing the generator stops the tool."""
        executor, call_id = self._executor, next(self._numbers)
        assert executor is not None
        answers: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
        self._answers[call_id] = answers
        body = codec.encode(args, tool.name, beside=1 << 62).body
        call = ToolCall(call_id, tool, body, b"", session_id, 0, self.host)
        call.take_trace(trace)
        executor.submit(call)
        if tool.streaming:
            executor.grant(call_id, _WINDOW)
        try:
            while True:
                kind, content = await answers.get()
                yield kind, content
                if kind != "chunk":
                    return
                executor.grant(call_id, 1)
        finally:
            if call_id in self._answers:
                self._stop(call_id, executor)

    def _stop(self, call_id: int, executor: Executor) -> None:
        if not executor.cancel(call_id):
            assert self._loop is not None
            self._loop.call_later(_AGAIN, self._stop, call_id, executor)

    # The executor's replies, from its own threads: see `Replies`.

    def result(self, call_id: int, encoded: Any, _times: Times) -> None:
        self._post(call_id, "result", encoded)

    def error(self, call_id: int, fault: Fault, _times: Times = UNTIMED) -> None:
        self._post(call_id, "error", fault)

    def chunk(self, call_id: int, encoded: Any) -> None:
        self._post(call_id, "chunk", encoded)

    def end(self, call_id: int, _times: Times) -> None:
        self._post(call_id, "end", None)

    def outcome(self, call_id: int, outcome: Any, _times: Times) -> None:
        self._post(call_id, "error" if isinstance(outcome, Fault) else "result", outcome)

    def pack(self, value: Any, what: str) -> Any:
        """Encode a result or a chunk of a tool. Raises `EncodeError`."""
        return values.chunk_data(value, what) if what == "chunk" else values.to_any(value, what)

    def _post(self, call_id: int, kind: str, content: Any) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._deliver, call_id, kind, content)

    def _deliver(self, call_id: int, kind: str, content: Any) -> None:
        answers = self._answers[call_id] if kind == "chunk" else self._answers.pop(call_id)
        answers.put_nowait((kind, content))


class WorkerService(ContractService):
    """The RPCs that a worker answers; all others are UNIMPLEMENTED."""

    def __init__(self, server: ContractServer) -> None:
        self._server = server
        self._sessions: dict[str, float] = {}  # session id -> Unix time since which it is known

    async def ping(self, message: messages.PingRequest) -> messages.PingResponse:
        return messages.PingResponse(message=message.message, server_time=values.timestamp(time.time()))

    async def heartbeat(self, message: messages.HeartbeatRequest) -> messages.HeartbeatResponse:
        return messages.HeartbeatResponse(
            server_time=values.timestamp(time.time()), session_valid=message.session_id in self._sessions
        )

    async def get_session(self, message: messages.GetSessionRequest) -> messages.GetSessionResponse:
        since = self._sessions.get(message.session_id)
        if since is None:
            raise GRPCError(Status.NOT_FOUND, f"session {message.session_id!r} not found: it has made no call here")
        return messages.GetSessionResponse(
            session_id=message.session_id, created_at=values.timestamp(since), tool_count=len(self._server.tools)
        )

    async def execute_tool(self, message: messages.ExecuteToolRequest) -> messages.ExecuteToolResponse:
        response = messages.ExecuteToolResponse()
        began = time.monotonic()
        try:
            tool, args = await self._prepare(message, streaming=False)
            async with aclosing(self._server.run(tool, args, message.session_id, _trace_of(message))) as answers:
                kind, content = await _next(answers, message, began)
            if kind == "result":
                response.success = True
                # The tool's thread has encoded it, and does not know the client.
                response.result, response.binary_result = content if READS_RAW.get() else values.as_json(*content)
            else:
                response.error_message = self._server.text(content)
        except SnakepitError as error:
            response.error_message = self._server.text(fault_of(error))
        ended = time.monotonic()
        response.execution_time_ms = values.execution_ms(began, ended)
        self._tell(message, ended - began, response.success)
        return response

    async def execute_streaming_tool(self, message: messages.ExecuteToolRequest) -> AsyncIterator[messages.ToolChunk]:
        name, number, began = message.tool_name, 0, time.monotonic()
        success = False
        try:
            tool, args = await self._prepare(message, streaming=True)
            async with aclosing(self._server.run(tool, args, message.session_id, _trace_of(message))) as answers:
                is_final = False
                while not is_final:
                    kind, content = await _next(answers, message, began)
                    if kind == "error":
                        raise GRPCError(Status.INTERNAL, self._server.text(content))
                    chunk_id, is_final = f"{name}-{number}", kind == "end"
                    yield messages.ToolChunk(chunk_id, content or b"", is_final)  # noqa: ASYNC119 - closed below
                    number += 1
            success = True
        except SnakepitError as error:
            raise GRPCError(Status.INTERNAL, self._server.text(fault_of(error))) from None
        finally:
            self._tell(message, time.monotonic() - began, success)

    async def stream_telemetry(
        self, messages: AsyncIterator[messages.TelemetryControl]
    ) -> AsyncIterator[messages.TelemetryEvent]:
        feed = TelemetryFeed()
        self._server.feeds.add(feed)
        obeying = asyncio.ensure_future(feed.obey(messages))
        try:
            async for event in feed.events():
                yield event
        finally:
            self._server.feeds.discard(feed)
            obeying.cancel()

    def _tell(self, message: messages.ExecuteToolRequest, seconds: float, success: bool) -> None:
        metadata = {"tool": message.tool_name, "session": message.session_id, "success": str(success).lower()}
        for feed in self._server.feeds:
            feed.put("call.ended", {"seconds": seconds}, metadata, message.metadata.get("correlation_id", ""))

    async def _prepare(self, message: messages.ExecuteToolRequest, *, streaming: bool) -> tuple[Tool, dict[str, Any]]:
        name, tools = message.tool_name, self._server.tools
        tool = tools.get(name)
        if tool is None:
            raise unknown_tool(name, tools)
        if tool.streaming != streaming:
            rpc, kind = ("ExecuteStreamingTool", "a stream") if tool.streaming else ("ExecuteTool", "no stream")
            raise WrongCallKind(f"tool {name!r} is {kind}: call it with {rpc}")
        await self._introduce(message.session_id)
        return tool, values.unpack_parameters(message.parameters, message.binary_parameters)

    async def _introduce(self, session_id: str) -> None:
        """Open the session at the host and register the tools there, once for each session."""
        if not session_id or session_id in self._sessions:
            return
        client = self._server.client
        if client is not None:
            await client.initialize_session(session_id)
            specs = [tool.spec for tool in self._server.tools.values()]
            await client.register_tools(session_id, specs, str(os.getpid()))
        if len(self._sessions) >= _SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        self._sessions[session_id] = time.time()


def _trace_of(message: messages.ExecuteToolRequest) -> str:
    context = TraceContext.of(message.metadata) if message.metadata else None
    return "" if context is None else context.text


async def _next(
    answers: AsyncGenerator[tuple[str, Any], None], message: messages.ExecuteToolRequest, began: float
) -> tuple[str, Any]:
    """What a tool says next. When the time is over that the client gave it, this ends the tool and the request."""
    seconds = values.timeout_of(message.metadata)
    left = None if seconds is None else began + seconds - time.monotonic()
    try:
        async with asyncio.timeout(left):
            return await anext(answers)
    except TimeoutError:
        text = f"tool {message.tool_name!r} took longer than the {seconds:g} s that its client gave it"
        raise GRPCError(Status.DEADLINE_EXCEEDED, text) from None
