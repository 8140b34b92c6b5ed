"""Answers the questions of one worker, and tells it which variables have changed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, Protocol

import msgspec
import outcome
import trio

from bridge_py.buffers.buffer_sets import EncodedValue, copy_at_once
from bridge_py.buffers.transfers import Transfers
from bridge_py.wire import codec
from bridge_py.wire.conversation import Conversation
from bridge_py.wire.errors import (
    CANCELLED,
    Fault,
    InvalidArguments,
    RemoteProtocolError,
    SessionError,
    SnakepitError,
    StaleEpoch,
    WrongCallKind,
    fault_of,
)
from bridge_py.wire.frames import Frame, Kind
from snakepit_trio._calls.call import Call
from snakepit_trio._calls.shared_copies import copy
from snakepit_trio._util.log import get_logger
from snakepit_trio._util.threads import read_in_thread
from snakepit_trio.errors import OutOfResources
from snakepit_trio.state.fences import WorkerSessions, Writer
from snakepit_trio.state.session import Change
from snakepit_trio.state.view import SessionView

from .handlers import handle
from .host_tool_runs import HostToolRuns
from .services import HostServices

_LONGEST_VERB: Final = 1_000
_MOST_TO_READ: Final = 256 * 1024 * 1024  # bytes

logger = get_logger("snakepit.bridge")


class SendsAnswers(Protocol):
    """The part of the link to a worker that answers need."""

    conversation: Conversation
    transfers: Transfers

    def flush(self) -> None:
        """Have the link send what the conversation holds."""

    def check_unread(self) -> None:
        """End the link if the worker leaves too much of what it is sent unread."""


class WorkerRequests:
    """The requests of one worker.

    A question names the call that it is asked for. The host's own record of that call tells which session it is about.
    A call that must still wait behind others in the worker asks nothing.
    """

    def __init__(
        self,
        services: HostServices,
        worker_id: str,
        calls: dict[int, Call],
        link: SendsAnswers,
        concurrency: int = 1,
    ) -> None:
        self._services = services
        self._worker_id = worker_id
        self._calls = calls
        self._link = link
        self._concurrency = concurrency
        self._nursery: trio.Nursery | None = None
        self._reading: dict[int, trio.CancelScope] = {}  # by ask id: calls of host tools that are being read
        self._bytes_to_read = 0  # of large requests
        self._writer = Writer(services.store, worker_id)
        self._sessions: set[str] = set()  # the sessions whose variables the worker may remember
        self.host_tool_runs = HostToolRuns(services, worker_id, self)

    def begin(self, nursery: trio.Nursery) -> None:
        """Answer from now on. The link's nursery runs the host tools, and the answers that take their time."""
        self._nursery = nursery

    def end(self) -> None:
        """Answer no more. Call this when the nursery has closed: until then its tasks may follow a session."""
        self._nursery = None
        self.worker_gone()
        for session_id in self._sessions:
            self._services.store.hub.unsubscribe(session_id, self)

    def worker_gone(self) -> None:
        """Note that the worker has ended. Its writes that are on their way to the store are refused from now on."""
        self._writer.gone()

    def take(self, frame: Frame) -> None:
        """Answer a question that has come, at once or in a task. Raises `RemoteProtocolError`."""
        if self._nursery is None:
            return
        if len(frame.name) > _LONGEST_VERB:
            raise RemoteProtocolError(f"a request whose name has {len(frame.name)} characters")
        if frame.name == "call_host_tool":
            self._call_host_tool(frame, self._nursery)
            return
        if frame.kind == Kind.STREAM:
            self.fail(frame, fault_of(WrongCallKind(f"{frame.name} is no stream")))
        elif self._services.store.may_wait or len(frame.body) > self._services.most_at_once:
            self._nursery.start_soon(self._answer, frame)
        else:
            self._answer_at_once(frame, self._nursery)

    def cancel(self, ask_id: int) -> None:
        """Cancel the host tool of an ask, because the worker does not want its outcome any more.

        Other questions are not cancelled: those that are answered at once have their answers by now.
        """
        if (scope := self._reading.get(ask_id)) is not None:
            scope.cancel()
        self.host_tool_runs.cancel(ask_id)

    def granted(self, ask_id: int) -> None:
        """Note that the worker takes more chunks of a stream."""
        self.host_tool_runs.granted(ask_id)

    def _call_host_tool(self, frame: Frame, nursery: trio.Nursery) -> None:
        if len(frame.body) <= self._services.most_at_once:
            self._open_host_tool(frame, outcome.capture(_host_call, frame), nursery)
            return
        scope = trio.CancelScope()
        nursery.start_soon(self._read_host_call, frame, scope, nursery)
        self._reading[frame.call_id] = scope

    async def _read_host_call(self, frame: Frame, scope: trio.CancelScope, nursery: trio.Nursery) -> None:
        found: outcome.Maybe[Any] | None = None
        try:
            with scope:
                found = outcome.Value(await self._read(frame, _host_call))
        except Exception as error:
            found = outcome.Error(error)
        finally:
            del self._reading[frame.call_id]
        if found is None:
            self.fail(frame, Fault(CANCELLED, "the host tool was stopped"))
        else:
            self._open_host_tool(frame, found, nursery)

    def _open_host_tool(self, frame: Frame, found: outcome.Maybe[Any], nursery: trio.Nursery) -> None:
        try:
            call_id, name, args = found.unwrap()
            call = self._record(call_id, frame.name)
            if call.abandoned:
                raise SessionError("call_host_tool: the call is being stopped")
        except Exception as error:
            self.fail(frame, fault_of(error))
        else:
            self.host_tool_runs.open(frame, call, name, args, nursery)

    async def _read(self, frame: Frame, read: Callable[[Frame], Any]) -> Any:
        """Read a request: at once, without a checkpoint, or in a thread if it is large."""
        size = len(frame.body)
        if size <= self._services.most_at_once:
            return read(frame)
        if self._bytes_to_read and self._bytes_to_read + size > _MOST_TO_READ:
            raise OutOfResources(
                f"{frame.name}: more than {_MOST_TO_READ} bytes of large requests wait to be read: send fewer at a time"
            )
        self._bytes_to_read += size
        try:
            return await read_in_thread(read, frame)
        finally:
            self._bytes_to_read -= size

    def _record(self, call_id: object, verb: str) -> Call:
        call = self._calls.get(call_id) if isinstance(call_id, int) else None
        if call is None:
            raise SessionError(f"{verb}: the call is over")
        if self._is_behind(call):
            raise SessionError(f"{verb}: the call has not started: the worker runs {self._concurrency} at a time")
        return call

    def _is_behind(self, call: Call) -> bool:
        """Whether so many earlier calls are open in the worker that this one cannot have started."""
        if len(self._calls) <= self._concurrency:
            return False
        before = 0
        for other_id, other in self._calls.items():  # in the order of their ids
            if other_id >= call.id:
                return False
            if self._link.conversation.is_open(other_id) and not self._may_start_late(other):
                before += 1
                if before == self._concurrency:
                    return True
        return False

    def _may_start_late(self, call: Call) -> bool:
        """Whether later calls may start first, because the arguments of this one are sent piece by piece."""
        return call.buffers is not None and call.buffers.is_large and self._link.transfers.peer_fetches

    def _answer_at_once(self, frame: Frame, nursery: trio.Nursery) -> None:
        # Starting a task would cost as much as the rest of the answer.
        found = _run_at_once(self._find(frame))
        if isinstance(found, outcome.Error) or not _is_large(found.value):
            self._reply(frame, found)
        else:
            nursery.start_soon(self._send_large, frame, found.value)

    async def _answer(self, frame: Frame) -> None:
        found = await outcome.acapture(self._find, frame)
        if isinstance(found, outcome.Value) and _is_large(found.value):
            await self._send_large(frame, found.value)
        else:
            self._reply(frame, found)

    async def _find(self, frame: Frame) -> EncodedValue:
        asked = await self._read(frame, _asked)
        if not isinstance(asked, list) or not asked:
            raise InvalidArguments(f"{frame.name}: a request is a list that begins with the id of its call")
        call_id, *arguments = asked
        call = self._record(call_id, frame.name)
        if frame.name == "list_host_tools":
            tools = self._services.tools.list_exposed_tools(call.session_id or None)
            return self._services.encode([msgspec.to_builtins(tool.spec) for tool in tools], frame.name)
        if not call.session_id:
            raise SessionError(f"{frame.name}: the call has no session")
        sessions = WorkerSessions(self._writer, call, lambda: self._calls.get(call_id) is not call)
        await self._follow(call.session_id, sessions)
        value = await handle(SessionView(sessions, call.session_id), call.name, frame.name, arguments)
        return self._services.encode(value, frame.name)

    async def _follow(self, session_id: str, sessions: WorkerSessions) -> None:
        with contextlib.suppress(StaleEpoch):  # it may still read
            await sessions.enter(session_id)
        if session_id in self._sessions:
            return
        self._sessions.add(session_id)
        self._services.store.hub.subscribe(session_id, self, lambda changes: self.tell(session_id, changes))

    def tell(self, session_id: str, changes: Sequence[Change] | None) -> None:
        """Tell the worker of changes in a session; None tells it that the session has ended."""
        names = [change.name for change in changes or () if change.cause is None]
        if changes is None:
            self._sessions.discard(session_id)
        elif not names:
            return
        body = codec.encode_plain(names)
        self._link.conversation.link(Kind.INVALIDATE, Frame(Kind.INVALIDATE, session_id=session_id, body=body))
        self._flush()

    def _reply(self, frame: Frame, found: outcome.Maybe[EncodedValue]) -> None:
        if isinstance(found, outcome.Value):
            self._say(frame, Kind.RESULT, found.value)
            return
        error = found.error
        if not isinstance(error, Exception):
            raise error
        if not isinstance(error, SnakepitError):
            logger.error("worker %s asked for %r, which failed", self._worker_id, frame.name, exc_info=error)
        self.fail(frame, fault_of(error))

    async def encode(self, value: Any, what: str) -> EncodedValue:
        """Encode a result or a chunk as it is now. The caller must then send it or drop it.

        `what` names the value in errors. Raises `EncodeError`.
        """
        return await self._copied(self._services.encode(value, what))

    def encode_in_thread(self, value: Any, what: str) -> EncodedValue:
        """Encode a result or a chunk as it is now, as `encode` does, but in any thread."""
        encoded = self._services.encode(value, what)
        if encoded.buffers is not None and encoded.buffers.is_large:
            copy_at_once(encoded.buffers, self._services.segments)
        return encoded

    def has_credit(self, frame: Frame) -> bool:
        """Whether the worker takes another chunk of the stream."""
        return self._link.conversation.has_credit(frame.call_id)

    def send(self, frame: Frame, kind: Kind, encoded: EncodedValue) -> None:
        """Send an encoded result or chunk."""
        self._say(frame, kind, encoded)
        self.drop(encoded)

    def drop(self, encoded: EncodedValue) -> None:
        """Let go of an encoded value that will not be sent."""
        if encoded.buffers is not None:
            encoded.buffers.release()

    def end_stream(self, frame: Frame) -> None:
        """Report that the stream has ended."""
        self._link.conversation.end(frame.call_id)
        self._flush()

    def fail(self, frame: Frame, fault: Fault) -> None:
        """Report that the host tool raised an error, or was stopped."""
        self._link.conversation.error(frame.call_id, codec.encode_plain(fault))
        self._flush()

    def _say(self, frame: Frame, kind: Kind, encoded: EncodedValue) -> None:
        body, buffers = encoded.body, encoded.buffers
        say = self._link.conversation.result if kind == Kind.RESULT else self._link.conversation.chunk
        say(frame.call_id, body, self._link.transfers.ref(buffers))
        self._flush()

    def _flush(self) -> None:
        self._link.flush()
        self._link.check_unread()

    async def _send_large(self, frame: Frame, encoded: EncodedValue) -> None:
        self.send(frame, Kind.RESULT, await self._copied(encoded))

    async def _copied(self, encoded: EncodedValue) -> EncodedValue:
        buffers = encoded.buffers
        if buffers is not None and buffers.is_large:
            try:
                await copy(buffers, self._services.segments)
            except BaseException:
                buffers.release()
                raise
        return encoded


def _host_call(frame: Frame) -> Any:
    return codec.decode_marked(frame.body, frame.attached)[0]


def _asked(frame: Frame) -> Any:
    return codec.decode(frame.body, frame.attached, plain=True)


def _is_large(encoded: EncodedValue) -> bool:
    return encoded.buffers is not None and encoded.buffers.is_large


def _run_at_once(answering: Coroutine[Any, Any, EncodedValue]) -> outcome.Maybe[EncodedValue]:
    """Run a coroutine that does not wait."""
    try:
        answering.send(None)
    except StopIteration as stop:
        return outcome.Value(stop.value)
    except Exception as error:
        return outcome.Error(error)
    answering.close()
    raise AssertionError("a store that says that it never waits has waited")
