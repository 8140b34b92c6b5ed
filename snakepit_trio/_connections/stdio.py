"""The line to a worker that speaks frames on its stdin and stdout. docs/stdio.md has its rules."""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import msgspec
import trio

from bridge_py.wire import codec
from bridge_py.wire.errors import (
    CANCELLED,
    NOT_STARTED,
    EncodeError,
    Fault,
    InvalidArguments,
    ProtocolError,
    RemoteProtocolError,
    SessionError,
    SnakepitError,
    UnknownTool,
    VariableExists,
    VariableNotFound,
)
from bridge_py.wire.frames import Frame, Kind
from bridge_py.wire.specs import ToolSpec
from snakepit_trio._calls.call import Call
from snakepit_trio._config.stdio_adapters import StdioJson, error_answer, fault_in, number_in, text_of
from snakepit_trio._requests.contract_requests import ContractRequests
from snakepit_trio._util.log import get_logger
from snakepit_trio.state.view import SessionView

from .base import Connection, ConnectionContext, Hello
from .link import LinkLost

_HEADER: Final = 4
_LONGEST: Final = (1 << 32) - 1  # that a header can tell
_LOOKS_LIKE_TEXT: Final = 0x20202020
_MOST_ASKS: Final = 1000
_LAST_WORDS: Final = 0.5  # seconds between the end of a dying worker's stdin and that of its stdout
_INSIDE: Final = 1 << 62  # buffers of any size stay in the message
_TO_CALLS: Final = ("result", "error")
_TO_STREAMS: Final = ("chunk", "end", "error")

logger = get_logger("snakepit.link")


class _Opened:
    """A call that the worker has, or will get."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.credit = call.credit or 0
        self.is_cancelled = False
        self._moved = trio.Event()

    def grant(self, chunks: int) -> None:
        self.credit += chunks
        self._moved.set()

    def cancel(self) -> None:
        self.is_cancelled = True
        self._moved.set()

    async def takes_chunk(self) -> bool:
        """Wait for credit, and use it. False if nobody wants chunks any more."""
        while not self.credit and not self.is_cancelled:
            self._moved = trio.Event()
            await self._moved.wait()
        self.credit -= 1
        return not self.is_cancelled


class _Outgoing(NamedTuple):
    """What waits to be written: a call, the answer to an ask, or neither."""

    data: bytes
    call_id: int = 0
    ask: int | None = None


class _Tool(msgspec.Struct):
    """A tool, as a worker describes it."""

    name: str
    description: str = ""
    streaming: bool = False


class StdioConnection(Connection):
    """That line. `adapter` writes and reads its frames."""

    def __init__(
        self, context: ConnectionContext, adapter: StdioJson, stdin: trio.abc.SendStream, stdout: trio.abc.ReceiveStream
    ) -> None:
        #: True until the worker says that it understands cancel frames.
        self.kills_to_cancel = True
        self.last_sent = 0  # id of the last call that the worker may have got
        self._adapter = adapter
        self._stdin = stdin
        self._stdout = stdout
        self._max_frame = min(context.services.sizes.max_frame, _LONGEST)
        self._on_ready = context.on_ready
        self._on_frame = context.on_frame
        self._requests = ContractRequests(context.services, context.worker_id)
        self._asks = _Asks(context, self._requests, self._answer)
        self._numbers = itertools.count(1)
        self._opened: dict[int, _Opened] = {}
        self._buffer = bytearray()
        self._queue: deque[_Outgoing] = deque()
        self._to_write = trio.Event()
        self._is_ready = self._is_leaving = False
        self._nursery: trio.Nursery | None = None
        self._problem: Exception | None = None

    async def run(self) -> None:
        self._send({"id": 0, "command": "hello", "args": {}, "session": None, "timeout": None, "stream": False})
        async with trio.open_nursery() as nursery:
            await nursery.start(self._requests.run)
            self._nursery = nursery
            nursery.start_soon(self._write)
            try:
                await self._read()
            except (LinkLost, ProtocolError) as error:
                self._problem = error
            finally:
                self._nursery = None
            nursery.cancel_scope.cancel()
        assert self._problem is not None
        raise self._problem

    # Calls.

    def open(self, call: Call, timeout_us: int) -> int:
        call_id = next(self._numbers)
        if self._nursery is None:
            return call_id  # the line has ended: what was not sent is settled elsewhere
        try:
            self._send(self._frame_of(call, call_id, timeout_us), call_id=call_id)
        except Exception as error:
            # Codecs and adapters may be the application's; what they raise is for this call only.
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
        """Ask for a call back: only what was not sent comes back."""
        if self._withdraw(call_id):
            self._deliver_soon(_failure(call_id, Fault(NOT_STARTED, "it was not sent")))

    def _withdraw(self, call_id: int) -> bool:
        for outgoing in self._queue:
            if outgoing.call_id == call_id:
                self._queue.remove(outgoing)
                del self._opened[call_id]
                return True
        return False

    def grant(self, call_id: int, chunks: int) -> None:
        self._opened[call_id].grant(chunks)

    def is_open(self, call_id: int) -> bool:
        return call_id in self._opened

    def ping(self, number: int) -> None:
        """Answer at once: the protocol has no pings, and that the process lives is all that is known."""
        self._on_frame(Frame(Kind.PONG, number=number))

    def goodbye(self) -> bool:
        """Close its stdin, whose end tells the worker that it is to end."""
        self._is_leaving = True
        self._to_write.set()
        return True

    def cancel_for(self, call: Call) -> None:
        self._requests.cancel_for(call)

    def is_serving(self, call: Call) -> bool:
        return self._asks.is_serving(call)

    def when_over(self, call: Call, then: Callable[[], None]) -> None:
        self._asks.when_over(call, then)

    def _deliver_soon(self, frame: Frame) -> None:
        # Who opens a call learns its id first.
        if self._nursery is not None:
            self._nursery.start_soon(self._deliver, frame)

    async def _deliver(self, frame: Frame) -> None:
        self._on_frame(frame)

    # Writing.

    def _send(self, frame: dict[str, Any], *, call_id: int = 0, ask: int | None = None) -> None:
        data = self._adapter.encode(frame)
        if len(data) > self._max_frame:
            raise EncodeError(f"{len(data)} bytes; a frame takes {self._max_frame} (max_frame_bytes)")
        self._queue.append(_Outgoing(len(data).to_bytes(_HEADER, "big") + data, call_id, ask))
        self._to_write.set()

    async def _write(self) -> None:
        try:
            while self._queue or not self._is_leaving:
                await self._to_write.wait()
                self._to_write = trio.Event()
                while self._queue:
                    await self._write_one(self._queue.popleft())
            await self._stdin.aclose()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await self._outlive_stdin()

    async def _write_one(self, outgoing: _Outgoing) -> None:
        before, self.last_sent = self.last_sent, outgoing.call_id or self.last_sent
        try:
            await self._stdin.send_all(outgoing.data)
        except trio.BrokenResourceError:
            # Its last byte never came through, so the worker cannot have started it.
            self.last_sent = before
            raise
        if outgoing.ask is not None:
            self._asks.unanswered.remove(outgoing.ask)

    async def _outlive_stdin(self) -> None:
        # It is usually dying, and may have said more before that.
        await trio.sleep(_LAST_WORDS)
        self._problem = LinkLost("the worker closed its stdin")
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()

    # Reading.

    async def _read(self) -> None:
        while True:
            header = await self._take(_HEADER)
            size = int.from_bytes(header, "big")
            if size > self._max_frame:
                raise RemoteProtocolError(_too_large(size, header, self._max_frame))
            data = await self._take(size)
            try:
                frame = self._adapter.decode(data)
            except Exception as error:
                raise RemoteProtocolError(str(error)) from error
            await self._hear(frame)

    async def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            try:
                data = await self._stdout.receive_some()
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise LinkLost("the worker's stdout was lost") from error
            if not data:
                raise LinkLost("the worker closed its stdout")
            self._buffer += data
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    async def _hear(self, frame: dict[str, Any]) -> None:
        if "ask" in frame:
            assert self._nursery is not None
            self._asks.take(frame, self._nursery)
            return
        said = [key for key in ("result", "error", "chunk", "end") if key in frame]
        if len(said) != 1:
            raise RemoteProtocolError(f"a frame with {len(said)} of result, error, chunk, end: it takes one")
        if not self._is_ready and number_in(frame, "id") == 0:
            self._hear_hello(said[0], frame)
        else:
            await self._hear_answer(said[0], frame)

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
        self._is_ready = True
        self._on_ready(Hello([self._spec_of(tool) for tool in tools], str(found.get("version", ""))))

    def _spec_of(self, tool: _Tool) -> ToolSpec:
        cancel: Final = "kill" if self.kills_to_cancel else "cooperative"
        return ToolSpec(tool.name, tool.description, streaming=tool.streaming, cancel=cancel)

    async def _hear_answer(self, kind: str, frame: dict[str, Any]) -> None:
        call_id = number_in(frame, "id")
        opened = self._opened.get(call_id)
        # What waits to be written cannot have been answered.
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
            body = codec.encode(value, f"{opened.call.name}: chunk", beside=_INSIDE).body
        except EncodeError as error:
            body = codec.encode_unreadable(str(error))  # the stream's own failure; the worker is not at fault
        if await opened.takes_chunk():
            self._on_frame(Frame(Kind.CHUNK, call_id, body=body))

    def _answer(self, ask: int, answer: dict[str, Any]) -> None:
        try:
            self._send({"answer": ask, **answer}, ask=ask)
        except Exception as error:
            # Short, so that it can be sent for certain.
            self._send({"answer": ask, "error": {"type": "EncodeError", "message": text_of(error)[:200]}}, ask=ask)


class _Ask(NamedTuple):
    """One ask, while the host works on it."""

    number: int
    call: Call
    verb: Any
    args: Any
    scope: trio.CancelScope


class _Asks:
    """What a worker asks while it serves calls. `reply` takes the number of an ask, and its answer."""

    def __init__(
        self, context: ConnectionContext, requests: ContractRequests, reply: Callable[[int, dict[str, Any]], None]
    ) -> None:
        self.unanswered: set[int] = set()  # until the answer is written
        self._calls = context.calls
        self._worker_id = context.worker_id
        self._services = context.services
        self._requests = requests
        self._reply = reply
        self._running: dict[int, _Ask] = {}
        self._waiting: dict[int, Callable[[], None]] = {}  # by call: what to do when none is left

    def take(self, frame: dict[str, Any], nursery: trio.Nursery) -> None:
        """An ask has come. Raises `RemoteProtocolError`."""
        number = number_in(frame, "ask")
        if number in self.unanswered:
            raise RemoteProtocolError(f"ask {number} has no answer yet, and comes again")
        if len(self.unanswered) >= _MOST_ASKS:
            raise RemoteProtocolError(f"more than {_MOST_ASKS} asks without an answer that it has read")
        self.unanswered.add(number)
        call = self._calls.get(number_in(frame, "id"))
        if call is None:
            self._reply(number, error_answer(SessionError("the call that it is asked for is over")))
            return
        ask = self._running[number] = _Ask(
            number, call, frame.get("command"), frame.get("args", {}), trio.CancelScope()
        )
        nursery.start_soon(self._serve, ask)

    def is_serving(self, call: Call) -> bool:
        """Whether the host runs anything for a call."""
        return bool(self._asks_of(call)) or self._requests.is_serving(call)

    def when_over(self, call: Call, then: Callable[[], None]) -> None:
        """Stop the host tools of a call; a variable that is being set will be."""
        asks = self._asks_of(call)
        if not asks:
            self._requests.when_over(call, then)
            return
        self._waiting[call.id] = then
        for ask in asks:
            if ask.verb == "call_host_tool":
                ask.scope.cancel()

    def _asks_of(self, call: Call) -> list[_Ask]:
        return [ask for ask in self._running.values() if ask.call is call]

    async def _serve(self, ask: _Ask) -> None:
        answer = {"error": {"type": CANCELLED, "message": "the call is over"}}
        try:
            with ask.scope:
                answer = await self._answer_to(ask)
            self._reply(ask.number, answer)
        finally:
            self._forget(ask)

    def _forget(self, ask: _Ask) -> None:
        del self._running[ask.number]
        if not self._asks_of(ask.call) and (then := self._waiting.pop(ask.call.id, None)) is not None:
            self._requests.when_over(ask.call, then)

    async def _answer_to(self, ask: _Ask) -> dict[str, Any]:
        try:
            # Only what goes through the codec, in the form in which it comes out: a list for a tuple.
            packed = codec.encode(await self._find(ask), "result", beside=_INSIDE)
            return {"result": codec.decode(packed.body, plain=True)}
        except Exception as error:
            if not isinstance(error, SnakepitError):
                logger.exception("worker %s asked for %r, which failed", self._worker_id, ask.verb)
            if ask.call.abandoned and ask.verb == "call_host_tool":
                return {"error": {"type": CANCELLED, "message": "the call is being stopped"}}
            return error_answer(error)

    async def _find(self, ask: _Ask) -> Any:
        match ask.verb:
            case "get_variable":
                return (await self._view(ask).get_variable(_name(ask))).value
            case "set_variable":
                return await _set_variable(self._view(ask), ask)
            case "call_host_tool":
                return await self._requests.call_host_tool(ask.call, _name(ask), ask.args.get("args") or {})
            case "list_host_tools":
                tools = self._services.tools.list_exposed_tools(ask.call.session_id or None)
                return [{"name": tool.name, "description": tool.spec.description} for tool in tools]
        verbs = "get_variable, set_variable, call_host_tool, list_host_tools"
        raise UnknownTool(f"a worker cannot ask for {ask.verb!r}; it can for: {verbs}")

    def _view(self, ask: _Ask) -> SessionView:
        if not ask.call.session_id:
            raise SessionError(f"{ask.verb}: the call has no session")
        return self._services.store.of(ask.call.session_id)


async def _set_variable(view: SessionView, ask: _Ask) -> int:
    name = _name(ask)
    if "value" not in ask.args:
        raise InvalidArguments("set_variable takes a value", "value")
    value = ask.args["value"]
    while True:
        # Between the two, others may register it, or delete it.
        with contextlib.suppress(VariableNotFound):
            return (await view.update_variable(name, value, source="worker", owner=ask.call.name)).version
        with contextlib.suppress(VariableExists):
            return (await view.register_variable(name, None, value, source="worker")).version


def _name(ask: _Ask) -> str:
    if not isinstance(ask.args, Mapping) or not isinstance(ask.args.get("name"), str):
        raise InvalidArguments(f"{ask.verb} takes a map of arguments, with a name", "name")
    name: str = ask.args["name"]
    return name


def _too_large(size: int, header: bytes, limit: int) -> str:
    hint = f": it begins with {header!r}; was text printed to stdout?" if size >= _LOOKS_LIKE_TEXT else ""
    return f"a frame of {size} bytes is over the limit of {limit} bytes{hint}"


def _final(kind: str, call_id: int, opened: _Opened, value: Any) -> Frame:
    if kind == "end":
        return Frame(Kind.END, call_id)
    if kind == "error":
        return _failure(call_id, fault_in(value, is_cancelled=opened.is_cancelled))
    try:
        packed = codec.encode(value, f"{opened.call.name}: result", beside=_INSIDE)
        return Frame(Kind.RESULT, call_id, body=packed.body)
    except EncodeError as error:
        return _failure(call_id, Fault("encode", str(error)))


def _failure(call_id: int, fault: Fault) -> Frame:
    return Frame(Kind.ERROR, call_id, body=codec.encode_plain(fault))
