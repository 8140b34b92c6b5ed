"""The connection to a foreign worker that speaks the contract: one RPC for each call."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import socket
import time
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from bridge_py.contract.client import AsyncioClient
from bridge_py.contract.listening import UNIX
from bridge_py.contract.peers import OpenTo
from bridge_py.wire import codec
from bridge_py.wire.errors import Fault, RemoteError, SnakepitError, ToolError, fault_of
from bridge_py.wire.frames import Frame, Kind, credit_of
from bridge_py.wire.trace_context import TraceContext
from snakepit_trio._calls.call import Call
from snakepit_trio._config.adapters import GrpcBridge
from snakepit_trio._contract.access import WorkerAccess
from snakepit_trio._contract.bridge_server import ContractServer
from snakepit_trio._contract.server import BridgeService
from snakepit_trio._requests.contract_requests import ContractRequests
from snakepit_trio._util.asyncio_loop import AsyncioLoop, in_trio
from snakepit_trio._util.log import get_logger

from .base import Connection, ConnectionContext, Hello
from .foreign_events import ForeignEvents
from .link import LinkLost

_READY: Final = re.compile(r"GRPC_READY:(\d{1,5}|unix)\b")
# A worker of 0.13 asks the host each 2 s whether a session is alive. To clean it up and to open it anew costs as much
# as five of these questions.
_IDLE: Final = 10.0  # seconds, from which on a session is cleaned up
_IDLE_SESSIONS: Final = 64  # that are left alone all the same
_MOST_SESSIONS: Final = 256  # that a worker may keep things for, besides those of its calls
_CLEANING: Final = 5.0  # seconds that a worker gets to clean up a session
_LATE: Final = 1.0  # seconds that a host's deadline may come after the worker's
_LOOK: Final = 0.02  # seconds between two looks for a ready file; nothing reports that it is there


logger = get_logger("snakepit.link")


class _Served:
    """A call that the worker has."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.credit = call.credit or 0
        self._granted: asyncio.Event | None = None  # while a stream waits for credit

    def grant(self, credit: int) -> None:
        self.credit += credit
        if self._granted is not None:
            self._granted.set()

    async def take_credit(self, cost: int) -> None:
        while self.credit <= 0:
            self._granted = asyncio.Event()
            await self._granted.wait()
        self.credit -= cost


class ContractConnection(Connection):
    """The connection to a foreign worker.

    `listener` is the socket at which the worker reaches the host. The worker may write its port into `ready_file`.
    A worker of our own serves at a Unix socket in the same folder, `worker_socket`. `open_to` says who may connect to
    the host, and whose port a worker's may be. A worker of 0.13 is told which sessions have ended or
    have not been used for long: such workers keep a thread for each session id that they meet.
    """

    kills_to_cancel = True  # the contract has no message that stops a call

    def __init__(
        self,
        context: ConnectionContext,
        loop: AsyncioLoop,
        listener: socket.socket,
        ready_file: Path,
        *,
        worker_socket: Path | None,
        open_to: OpenTo,
        bridge: GrpcBridge,
    ) -> None:
        self.last_opened = 0
        self._context = context
        self._loop = loop
        self._listener = listener
        self._ready_file = ready_file
        self._worker_socket = worker_socket
        self._open_to: OpenTo = open_to
        self._bridge = bridge
        self._requests = ContractRequests(context.services, context.worker_id, reuses_names=True)
        self._met: dict[str, float] = {}  # when sessions of callers had their latest call here, the latest last
        self.host_work = self._requests.host_tool_runs
        self._numbers = itertools.count(1)
        self._served: dict[int, _Served] = {}
        self._to_do: deque[Coroutine[Any, Any, None]] = deque()
        self._wake: asyncio.Event | None = None
        self._lost: str | None = None
        self._pinging = False
        self._address = ""
        self._client: AsyncioClient | None = None
        self._events: ForeignEvents | None = None

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(self._requests.run)
            with contextlib.suppress(LinkLost):
                await self._loop.run_coroutine(self._live())
            nursery.cancel_scope.cancel()
        raise LinkLost(self._lost or "the worker closed the connection")

    def hear(self, line: str) -> None:
        """Look for the worker's port in a line that it has printed."""
        if found := _READY.search(line):
            self._note_ready(found.group(1))

    def _note_ready(self, port: str) -> None:
        if not self._address and self._worker_socket is not None:
            self._address = f"{UNIX}{self._worker_socket}"
        elif not self._address and port.isdecimal() and int(port):
            self._address = f"127.0.0.1:{int(port)}"

    async def _live(self) -> None:
        self._wake = asyncio.Event()
        server = ContractServer(self._service(), self._open_to)
        await server.start(sock=self._listener)
        tasks: set[asyncio.Task[None]] = set()
        try:
            await self._until_ready()
            while self._lost is None:
                await self._wake.wait()
                self._wake.clear()
                while self._to_do:
                    task = asyncio.ensure_future(self._to_do.popleft())
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
        finally:
            self._wake = None
            for coroutine in self._to_do:
                coroutine.close()
            for task in tasks:
                task.cancel()
            if self._client is not None:
                self._client.close()
            await server.end()  # noqa: ASYNC102 - asyncio code, run once
        raise LinkLost(self._lost)

    def _service(self) -> BridgeService:
        around = self._context
        access = WorkerAccess(
            around.services,
            self._requests,
            self._bridge.allow_pickle,
            around.on_tools,
            large_values=self._bridge.large_values,
            is_modern=self._bridge.contract == "0.13",
        )
        return BridgeService(access, around.services.events)

    async def _until_ready(self) -> None:
        while not self._address:
            await asyncio.sleep(_LOOK)
            with contextlib.suppress(OSError, ValueError):
                self._note_ready(self._ready_file.read_text("ascii"))
        self._client = self._connected()
        try:
            await self._ask_whether_it_is_there()
        except LinkLost as error:
            logger.warning("worker %s said that it is ready: %s", self._context.worker_id, error)
            raise
        self._context.on_ready(Hello())
        if self._bridge.has_telemetry:
            here = self._context
            self._events = ForeignEvents(here.worker_id, here.services.events, here.logs, self._connected)
            self._do(self._events.run())

    def _connected(self) -> AsyncioClient:
        return AsyncioClient(
            self._address,
            allow_pickle=self._bridge.allow_pickle,
            large_values=self._bridge.large_values,
            check_server=self._open_to == "user",
        )

    async def _ask_whether_it_is_there(self) -> None:
        assert self._client is not None
        try:
            await self._client.ping("snakepit-trio")
        except SnakepitError as error:
            # Whatever it answers, it is there.
            if isinstance(error, RemoteError) and error.status == "UNAVAILABLE":
                self._lost = str(error)
                raise LinkLost(self._lost) from error

    def worker_gone(self) -> None:
        self._requests.worker_gone()

    # Calls.

    def open(self, call: Call, timeout_us: int) -> int:
        call_id = self.last_opened = next(self._numbers)
        served = self._served[call_id] = _Served(call)
        session = self._requests.begin(call)
        metadata = {"timeout_ms": str(timeout_us // 1000)} if timeout_us else {}
        if call.trace and (context := TraceContext.read(call.trace)) is not None:
            metadata |= context.metadata
        if call.credit is not None:
            self._do(self._serve(call_id, served, partial(self._stream, call_id, served, session, metadata)))
        elif not self._begin(call_id, served, session, metadata):
            self._do(self._serve(call_id, served, partial(self._execute, call_id, served, session, metadata)))
        return call_id

    def _begin(self, call_id: int, served: _Served, session: str, metadata: dict[str, str]) -> bool:
        """Send a call at once. Returns False for a call that needs a task, or whose arguments cannot be read."""
        if self._client is None or self._wake is None:
            return False
        try:
            args = _arguments(served.call)
        except SnakepitError:
            return False

        def answer(message: bytes) -> None:
            self._answer(call_id, served, message)

        def go_on(rest: Callable[[], Coroutine[Any, Any, Any]]) -> None:
            self._do(self._serve(call_id, served, partial(self._result, call_id, served, rest)))

        name = served.call.name
        return self._client.begin_tool(name, args, answer, go_on, session_id=session, metadata=metadata)

    def _answer(self, call_id: int, served: _Served, message: bytes) -> None:
        assert self._client is not None
        try:
            final = _frame(Kind.RESULT, call_id, self._client.result_of(message), served.call.name)
        except Exception as error:
            final = self._failure(call_id, error)
        del self._served[call_id]
        if self._requests.has_made_session(served.call):
            self._do(self._finish(served.call, final))
        else:
            self._requests.end(served.call)
            self._deliver(served.call, final)

    def _failure(self, call_id: int, error: Exception) -> Frame:
        if isinstance(error, SnakepitError):
            return _failure(call_id, error)
        # A fault of our own must not leave the caller waiting.
        logger.error("call %d of worker %s failed", call_id, self._context.worker_id, exc_info=error)
        return Frame(Kind.ERROR, call_id, body=codec.encode_plain(fault_of(error)))

    async def _serve(self, call_id: int, served: _Served, work: Callable[[], Coroutine[Any, Any, Frame]]) -> None:
        try:
            final = await work()
        except RemoteError as error:
            if error.status == "UNAVAILABLE":
                self._lose(str(error))
                return  # its process will be reaped, and that ends its calls
            if error.status == "DEADLINE_EXCEEDED":
                await asyncio.sleep(_LATE)  # the host's own deadline comes, and says more
            final = _failure(call_id, error)
        except Exception as error:
            final = self._failure(call_id, error)
        del self._served[call_id]
        if self._requests.has_made_session(served.call):
            await self._finish(served.call, final)
        else:
            self._requests.end(served.call)
            self._deliver(served.call, final)

    async def _finish(self, call: Call, final: Frame) -> None:
        await in_trio(self._requests.finish, call)
        self._deliver(call, final)

    def _deliver(self, call: Call, final: Frame) -> None:
        self._note_session(call.session_id)
        self._context.on_frame(final)

    # Sessions that the worker keeps something for.

    def _note_session(self, session_id: str | None) -> None:
        if not session_id or self._bridge.contract == "0.4":
            return
        self._met.pop(session_id, None)
        self._met[session_id] = now = time.monotonic()
        if len(self._met) > _IDLE_SESSIONS:
            idle = (each for each in self._met if not self._requests.has_calls(each))
            oldest = next(idle, None)
            if oldest is not None and (len(self._met) > _MOST_SESSIONS or now - self._met[oldest] > _IDLE):
                self._do(self._clean(oldest))

    async def _clean_ended(self) -> None:
        now = time.monotonic()
        idle = [name for name, since in self._met.items() if now - since > _IDLE and not self._requests.has_calls(name)]
        for session_id in await in_trio(self._requests.ended, idle) if idle else ():
            await self._clean(session_id)

    async def _clean(self, session_id: str) -> None:
        assert self._client is not None
        if self._requests.has_calls(session_id):
            return  # it has got one meanwhile
        self._met.pop(session_id, None)
        # A worker need not know this RPC.
        with contextlib.suppress(SnakepitError, TimeoutError):
            await asyncio.wait_for(self._client.cleanup_session(session_id), _CLEANING)

    async def _execute(self, call_id: int, served: _Served, session: str, metadata: dict[str, str]) -> Frame:
        assert self._client is not None
        call = served.call
        value = await self._client.execute_tool(call.name, _arguments(call), session_id=session, metadata=metadata)
        return _frame(Kind.RESULT, call_id, value, call.name)

    async def _result(self, call_id: int, served: _Served, work: Callable[[], Coroutine[Any, Any, Any]]) -> Frame:
        return _frame(Kind.RESULT, call_id, await work(), served.call.name)

    async def _stream(self, call_id: int, served: _Served, session: str, metadata: dict[str, str]) -> Frame:
        assert self._client is not None
        call = served.call
        stream = self._client.execute_streaming_tool(call.name, _arguments(call), session_id=session, metadata=metadata)
        async with contextlib.aclosing(stream) as chunks:
            async for chunk in chunks:
                frame = _frame(Kind.CHUNK, call_id, chunk, call.name)
                frame.number = credit_of(frame)
                await served.take_credit(frame.number)
                self._context.on_frame(frame)
        return Frame(Kind.END, call_id)

    def cancel(self, _call_id: int) -> list[Frame]:
        """Return no frames: a call of this worker is stopped by killing the worker."""
        return []

    def recall(self, _call_id: int) -> None:
        """Do nothing: a call that was sent has started."""

    def grant(self, call_id: int, credit: int) -> None:
        self._served[call_id].grant(credit)

    def is_open(self, call_id: int) -> bool:
        return call_id in self._served

    def ping(self, number: int) -> None:
        """Ask the worker whether it is there, one ping at a time: a busy worker answers no pings."""
        if not self._pinging:
            self._pinging = True
            self._do(self._ping(number))

    async def _ping(self, number: int) -> None:
        try:
            await self._ask_whether_it_is_there()
        except LinkLost:
            self._lose(self._lost)
        else:
            self._context.on_frame(Frame(Kind.PONG, number=number))
            if self._events is not None:
                self._events.look()
            with contextlib.suppress(SnakepitError):
                await self._clean_ended()
        finally:
            self._pinging = False

    def goodbye(self) -> bool:
        return False

    def _do(self, coroutine: Coroutine[Any, Any, None]) -> None:
        if self._wake is None:
            coroutine.close()
            return
        self._to_do.append(coroutine)
        self._wake.set()

    def _lose(self, why: str | None) -> None:
        self._lost = self._lost or why
        if self._wake is not None:
            self._wake.set()


def _arguments(call: Call) -> dict[str, Any]:
    area = b"" if call.buffers is None else call.buffers.joined()
    args: dict[str, Any] = codec.decode(call.body, area, plain=True)
    return args


def _frame(kind: Kind, call_id: int, value: Any, name: str) -> Frame:
    packed = codec.encode(value, name, beside=1 << 62)
    return Frame(kind, call_id, body=packed.body)


def _failure(call_id: int, error: SnakepitError) -> Frame:
    if isinstance(error, ToolError):
        fault = Fault("tool", error.message, error.type, error.remote_traceback)
    elif isinstance(error, RemoteError):
        fault = Fault("tool", str(error), error.status)
    else:
        fault = fault_of(error)
    return Frame(Kind.ERROR, call_id, body=codec.encode_plain(fault))
