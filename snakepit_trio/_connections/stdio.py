"""The connection to a worker that speaks frames on its stdin and stdout (docs/stdio.md): its calls."""

from __future__ import annotations

import itertools
from typing import Any, Final

import msgspec
import trio

from bridge_py.wire import codec
from bridge_py.wire.errors import (
    CANCELLED,
    NOT_STARTED,
    EncodeError,
    Fault,
    ProtocolError,
    RemoteProtocolError,
)
from bridge_py.wire.frames import Frame, Kind, credit_for
from bridge_py.wire.hellos import check_tools
from bridge_py.wire.logs import cost_of_log
from bridge_py.wire.readable import readable
from bridge_py.wire.specs import ToolSpec
from snakepit_trio._calls.call import Call
from snakepit_trio._config.stdio_adapters import StdioJson
from snakepit_trio._requests.contract_requests import ContractRequests
from snakepit_trio._requests.stdio_requests import INSIDE, StdioRequests, number_in, text_of

from .base import Connection, ConnectionContext, Hello
from .link import LinkLost
from .stdio_frames import StdioFrames
from .worker_logs import said_by_foreign

_TO_CALLS: Final = ("result", "error")
_TO_STREAMS: Final = ("chunk", "end", "error")
_LONGEST_VERSION: Final = 100


class _Opened:
    """A call that the worker has, or will get."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.credit = call.credit or 0
        self.is_cancelled = False
        self._moved = trio.Event()

    def grant(self, credit: int) -> None:
        self.credit += credit
        self._moved.set()

    def cancel(self) -> None:
        self.is_cancelled = True
        self._moved.set()

    async def takes_chunk(self, cost: int) -> bool:
        """Wait for credit, and use it. Returns False if the call was cancelled: nobody wants chunks any more."""
        while self.credit <= 0 and not self.is_cancelled:
            self._moved = trio.Event()
            await self._moved.wait()
        self.credit -= cost
        return not self.is_cancelled


class _Tool(msgspec.Struct):
    """A tool, as a worker describes it."""

    name: str
    description: str = ""
    streaming: bool = False


class StdioConnection(Connection):
    """The connection to one worker. `adapter` writes and reads its frames."""

    def __init__(
        self, context: ConnectionContext, adapter: StdioJson, stdin: trio.abc.SendStream, stdout: trio.abc.ReceiveStream
    ) -> None:
        #: True until the worker says that it understands cancel frames.
        self.kills_to_cancel = True
        self._on_ready = context.on_ready
        self._on_frame = context.on_frame
        self._logs = context.logs
        self._requests = ContractRequests(context.services, context.worker_id)
        self._asks = self.host_work = StdioRequests(
            context.services, context.worker_id, context.calls, self._requests, self._answer
        )
        max_frame, answered = context.services.sizes.max_frame, self._asks.unanswered.remove
        self._frames = StdioFrames(adapter, max_frame, stdin, stdout, answered)
        self._send = self._frames.send
        self._numbers = itertools.count(1)
        self._opened: dict[int, _Opened] = {}
        self._is_ready = False
        self._nursery: trio.Nursery | None = None
        self._problem: Exception | None = None

    async def run(self) -> None:
        self._send({"id": 0, "command": "hello", "args": {}, "session": None, "timeout": None, "stream": False})
        async with trio.open_nursery() as nursery:
            await nursery.start(self._requests.run)
            self._nursery = nursery
            nursery.start_soon(self._write, nursery.cancel_scope)
            try:
                await self._read()
            except (LinkLost, ProtocolError) as error:
                self._problem = error
            finally:
                self._nursery = None
            nursery.cancel_scope.cancel()
        assert self._problem is not None
        raise self._problem

    async def _write(self, link: trio.CancelScope) -> None:
        try:
            await self._frames.write()
        except LinkLost as error:
            self._problem = error
            link.cancel()

    async def _read(self) -> None:
        while True:
            await self._hear(await self._frames.receive())

    @property
    def last_sent(self) -> int:
        """Id of the last call that the worker may have got."""
        return self._frames.last_sent

    def worker_gone(self) -> None:
        self._requests.worker_gone()

    # Calls.

    def open(self, call: Call, timeout_us: int) -> int:
        call_id = next(self._numbers)
        if self._nursery is None:
            return call_id  # the connection has ended: calls that were not sent are settled elsewhere
        try:
            self._send(self._frame_of(call, call_id, timeout_us), call_id=call_id)
        except Exception as error:
            # Codecs and adapters may be the application's own code: their errors fail this call only.
            self._deliver_soon(_failure(call_id, Fault("encode", f"{call.name}: {text_of(error)}")))
        else:
            self._opened[call_id] = _Opened(call)
        return call_id

    def _frame_of(self, call: Call, call_id: int, timeout_us: int) -> dict[str, Any]:
        area = b"" if call.buffers is None else call.buffers.joined()
        return {
            "id": call_id,
            "command": call.name,
            "args": codec.decode(call.body, area, plain=True),
            "session": call.session_id or None,
            "timeout": timeout_us / 1e6 if timeout_us else None,
            "stream": call.credit is not None,
        }

    def cancel(self, call_id: int) -> list[Frame]:
        opened = self._opened.get(call_id)
        if opened is None or opened.is_cancelled:
            return []
        if self._withdraw(call_id):
            return [_failure(call_id, Fault(CANCELLED, "it was not sent"))]
        opened.cancel()
        if not self.kills_to_cancel:
            self._send({"id": call_id, "cancel": True})
        return []

    def recall(self, call_id: int) -> None:
        """Take a call back, if it was not sent. A call that was sent does not come back."""
        if self._withdraw(call_id):
            self._deliver_soon(_failure(call_id, Fault(NOT_STARTED, "it was not sent")))

    def _withdraw(self, call_id: int) -> bool:
        if not self._frames.withdraw(call_id):
            return False
        del self._opened[call_id]
        return True

    def grant(self, call_id: int, credit: int) -> None:
        self._opened[call_id].grant(credit)

    def is_open(self, call_id: int) -> bool:
        return call_id in self._opened

    def ping(self, number: int) -> None:
        """Answer at once: the protocol has no pings, and the host knows only that the process lives."""
        self._on_frame(Frame(Kind.PONG, number=number))

    def goodbye(self) -> bool:
        """Close the worker's stdin: its end tells the worker to end."""
        self._frames.end()
        return True

    def _deliver_soon(self, frame: Frame) -> None:
        # Not now: the code that opens a call must learn its id first.
        if self._nursery is not None:
            self._nursery.start_soon(self._deliver, frame)

    async def _deliver(self, frame: Frame) -> None:
        self._on_frame(frame)

    async def _hear(self, frame: dict[str, Any]) -> None:
        if "ask" in frame:
            assert self._nursery is not None
            self._asks.take(frame, self._nursery)
            return
        if "log" in frame:
            self._hear_log(frame)
            await trio.lowlevel.checkpoint()  # many may have come at once
            return
        said = [key for key in ("result", "error", "chunk", "end") if key in frame]
        if len(said) != 1:
            raise RemoteProtocolError(f"a frame with {len(said)} of result, error, chunk, end: it takes one")
        if not self._is_ready and number_in(frame, "id") == 0:
            self._hear_hello(said[0], frame)
        else:
            await self._hear_answer(said[0], frame)

    def _hear_log(self, frame: dict[str, Any]) -> None:
        said = frame["log"]
        if not isinstance(said, dict):
            raise RemoteProtocolError(f"a log record of type {type(said).__name__}, which is no map")
        call_id = 0 if frame.get("id") is None else number_in(frame, "id")
        texts = {key: text_of(said.get(key)) for key in ("message", "level", "logger", "exception")}
        if self._logs.is_taken(cost_of_log(sum(map(len, texts.values())))):
            self._logs.take(said_by_foreign(texts, call_id=call_id if call_id in self._opened else 0))

    def _hear_hello(self, kind: str, frame: dict[str, Any]) -> None:
        if kind not in _TO_CALLS:
            raise RemoteProtocolError(f"the answer to hello is {kind!r}")
        found = frame.get("result")
        found = found if isinstance(found, dict) else {}
        self.kills_to_cancel = found.get("cancel") is not True
        try:
            tools = msgspec.convert(found.get("tools", []), list[_Tool])
        except msgspec.ValidationError as error:
            raise RemoteProtocolError(f"its hello describes its tools wrongly: {error}") from None
        specs = check_tools([self._spec_of(tool) for tool in tools])
        self._is_ready = True
        self._on_ready(Hello(specs, readable(text_of(found.get("version")), _LONGEST_VERSION)))

    def _spec_of(self, tool: _Tool) -> ToolSpec:
        cancel: Final = "kill" if self.kills_to_cancel else "cooperative"
        return ToolSpec(tool.name, tool.description, streaming=tool.streaming, cancel=cancel)

    async def _hear_answer(self, kind: str, frame: dict[str, Any]) -> None:
        call_id = number_in(frame, "id")
        opened = self._opened.get(call_id)
        # A call that still waits to be written cannot have been answered.
        if opened is None or call_id > self.last_sent:
            raise RemoteProtocolError(f"an answer to call {call_id}, which is not open")
        is_stream = opened.call.credit is not None
        if kind not in (_TO_STREAMS if is_stream else _TO_CALLS):
            raise RemoteProtocolError(f"{kind!r} for call {call_id}, which is {'a' if is_stream else 'no'} stream")
        if kind == "chunk":
            await self._hear_chunk(call_id, opened, frame["chunk"])
        else:
            del self._opened[call_id]
            self._on_frame(_final(kind, call_id, opened, frame.get(kind)))

    async def _hear_chunk(self, call_id: int, opened: _Opened, value: Any) -> None:
        try:
            body = codec.encode(value, f"{opened.call.name}: chunk", beside=INSIDE).body
        except EncodeError as error:
            body = codec.encode_unreadable(str(error))  # the stream's own failure; the worker is not at fault
        cost = credit_for(len(body))
        if await opened.takes_chunk(cost):
            self._on_frame(Frame(Kind.CHUNK, call_id, number=cost, body=body))

    def _answer(self, ask: int, answer: dict[str, Any]) -> None:
        try:
            self._send({"answer": ask, **answer}, ask=ask)
        except Exception as error:
            # Short, so that it can be sent for certain.
            self._send({"answer": ask, "error": {"type": "EncodeError", "message": text_of(error)[:200]}}, ask=ask)


def _final(kind: str, call_id: int, opened: _Opened, value: Any) -> Frame:
    if kind == "end":
        return Frame(Kind.END, call_id)
    if kind == "error":
        return _failure(call_id, _fault_in(value, is_cancelled=opened.is_cancelled))
    try:
        packed = codec.encode(value, f"{opened.call.name}: result", beside=INSIDE)
        return Frame(Kind.RESULT, call_id, body=packed.body)
    except EncodeError as error:
        return _failure(call_id, Fault("encode", str(error)))


def _fault_in(error: Any, *, is_cancelled: bool) -> Fault:
    """The fault that a worker's error stands for. Raises `RemoteProtocolError`."""
    if isinstance(error, str):
        error = {"message": error}
    if not isinstance(error, dict):
        raise RemoteProtocolError(f"an error of type {type(error).__name__}, which is neither text nor a map")
    message, kind, trace = (text_of(error.get(key)) for key in ("message", "type", "traceback"))
    # Without a cancellation, the tool has raised an error of its own that has this name.
    return Fault(CANCELLED if is_cancelled and kind == CANCELLED else "tool", message, kind, trace)


def _failure(call_id: int, fault: Fault) -> Frame:
    return Frame(Kind.ERROR, call_id, body=codec.encode_plain(fault))
