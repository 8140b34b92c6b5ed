"""The worker's end of the link, without I/O: it takes frames, has tools called, and sends replies.

Use it on the thread of the link. Only the methods that tools and executors call are for any thread.
"""

from __future__ import annotations

import os
import platform
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Literal, Protocol

import msgspec

from bridge_py.buffers.buffer_sets import EncodedValue, Packer, Sizes
from bridge_py.buffers.compression import is_available
from bridge_py.buffers.transfers import Transfers
from bridge_py.execution.ending import forks_end
from bridge_py.execution.executor import Executor
from bridge_py.execution.logs import HostHandler
from bridge_py.execution.tool_call import ToolCall
from bridge_py.execution.tracing import trace_of_request
from bridge_py.host.asking import Answer, Deliver, PendingRequest, check_process
from bridge_py.host.cache import Caches
from bridge_py.tools.adapter import BaseAdapter, Tool, unknown_tool
from bridge_py.tools.context import CallContext
from bridge_py.wire import codec
from bridge_py.wire.conversation import NO_AREA, UNTIMED, Conversation, Side, Times
from bridge_py.wire.environment import worker_number
from bridge_py.wire.errors import CANCELLED, NOT_STARTED, Fault, ProtocolError, WrongCallKind, fault_of
from bridge_py.wire.frames import CALL, STREAM, Frame, Kind, most_bytes
from bridge_py.wire.hellos import PROTOCOL_VERSION, HostHello, read_hello
from bridge_py.wire.logs import LOG
from bridge_py.wire.packed import PACKED
from bridge_py.wire.progress import EVERY, Reported, encode_report
from bridge_py.wire.specs import BATCH, FUNCTION_TOOLS, ITEM, SCHEMAS
from bridge_py.wire.trace_context import current_trace

from .batches import Assembly
from .lane import Lane

__uninterruptible__ = True  # interrupts spare the functions of this module, and the code that they call
_INTERRUPT_AGAIN: Final = 0.01  # seconds
_MOST_WAITING: Final = 100  # frames that the host has not taken, while reports of progress go out
_TELLS_DROPPED: Final = 1.0  # seconds until the host learns how many log records were dropped
Verb = Literal["result", "error", "chunk", "end", "progress", "log", "ask", "grant", "drop"]
_ENDS: Final = ("result", "error", "end")


class Driver(Protocol):
    """Moves the bytes of a `LinkEndpoint`, and gives it a clock and timers."""

    def post(self, verb: Verb) -> None:
        """Send what is in the endpoint's outbox. `verb` is the kind of the last entry. Any thread may call this."""

    def later(self, seconds: float, function: Callable[..., None], *args: Any) -> None:
        """Call a function on the link's thread after some time. Only that thread may call this."""

    def flush(self) -> None:
        """Write what the endpoint has to send. Only the link's thread may call this."""

    def clock(self) -> float:
        """Read the clock of the deadlines, in seconds."""
        ...

    def make_queue(self) -> Any:
        """Make the queue at which a thread waits, normally a `SimpleQueue`.

        Any thread calls its `put`; the waiting thread calls its `get`.
        """


class _Report:
    """A call that has reported progress, and which report was sent last."""

    __slots__ = ("context", "sent")

    def __init__(self, context: CallContext) -> None:
        self.context = context
        self.sent: Reported | None = None


class LinkEndpoint:
    """The worker's end of a link: serves one host, and sends it the executor's replies.

    It calls `on_goodbye` when the host says goodbye.
    """

    def __init__(
        self, adapter: BaseAdapter, secret: str, sizes: Sizes, driver: Driver, on_goodbye: Callable[[], None]
    ) -> None:
        self._tools: dict[str, Tool] = adapter.tools()
        self._all_tools = self._tools  # and those that run functions, once the first of them is called
        self._session_ended = adapter.session_ended
        self._adapter_class = type(adapter)
        self.caches = Caches(driver.clock)
        self._use(driver)
        self.cache_ttl = adapter.cache_ttl
        self.strict = adapter.strict
        self.worker_number = worker_number()
        self.is_ending = self.is_stopping = False
        self._asked: dict[int, tuple[str, Deliver]] = {}  # by request: its session, and the receiver of its answer
        self._secret = secret
        self._pid = os.getpid()
        #: The largest batch that it takes, in bytes.
        self.max_batch = most_bytes(sizes.max_frame)
        self._conversation = Conversation(Side.WORKER, max_frame=sizes.max_frame, max_area=sizes.max_area)
        self._transfers = Transfers(self._conversation, sizes, self._deliver)
        #: Encodes the values that tools return.
        self.pack = Packer(sizes, self._transfers)
        self._on_goodbye = on_goodbye
        self._executor: Executor | None = None
        self._assembly = Assembly(self._tools, self._transfers, self._refuse)
        self._outbox: deque[tuple[Verb, int, Any, Times]] = deque()
        self._reports: dict[int, _Report] = {}  # by call, of those that have reported progress
        self._is_reporting = self._is_logging = False  # whether a timer of theirs runs
        #: What the code of this process logs; None in tests whose process is the host's.
        self.logs: HostHandler | None = None
        #: If there is a lane: makes its driver, once the host has offered one too.
        self.make_lane: Callable[[], Lane] | None = None

    def _use(self, driver: Driver) -> None:
        self._driver = driver
        self.clock = driver.clock
        self.make_queue = driver.make_queue

    # For the driver.

    def begin(self, executor: Executor) -> None:
        """Take the executor that runs the calls, and say hello to the host."""
        self._executor = executor
        self._conversation.hello(codec.encode_plain(self._introduction()))

    def receive(self, data: bytes) -> None:
        """Handle bytes from the host. Raises `ProtocolError` or `DecodeError` if the host broke the rules."""
        executor = self._executor
        assert executor is not None
        for frame in self._conversation.receive(data):
            if frame.kind == CALL and not frame.loan:  # a new call, which waits for nothing
                self._opened(frame, executor)
            else:
                self._handle(frame, executor)
        if self._conversation.has_data_to_send:
            self._driver.flush()

    def data_to_send(self) -> bytes:
        """Return the next batch; empty bytes if there is none."""
        self._transfers.tend()
        return self._conversation.data_to_send()

    def _introduction(self) -> dict[str, Any]:
        return {
            "protocol": PROTOCOL_VERSION,
            "secret": self._secret,
            "pid": os.getpid(),
            "python": platform.python_version(),
            "zstd": is_available(),
            "lane": self.make_lane is not None,
            "tools": [tool.spec for tool in self._tools.values()],
        }

    # Frames from the host.

    def _handle(self, frame: Frame, executor: Executor) -> None:
        match frame.kind:
            case Kind.CALL | Kind.STREAM | Kind.CREDIT | Kind.RESULT | Kind.ERROR | Kind.CHUNK | Kind.END:
                self._transfers.receive(frame)
            case Kind.CANCEL | Kind.RECALL if self._withdraw(frame):
                pass
            case Kind.CANCEL:
                self._cancel(frame.call_id, executor)
            case Kind.RECALL:
                executor.recall(frame.call_id)
            case Kind.FETCH | Kind.BUFFER | Kind.TAKEN | Kind.RETURNED:
                self._transfers.handle(frame)
            case Kind.INVALIDATE:
                self._invalidate(frame.session_id, msgspec.msgpack.decode(frame.body, type=list[str]))
            case Kind.PING:
                self._conversation.link(Kind.PONG, Frame(0, number=frame.number))
            case Kind.HELLO:
                self._check_hello(frame, executor)
            case Kind.GOODBYE:
                self.is_ending = True
                self._on_goodbye()
            case _:
                raise ProtocolError(f"the host sent a frame of kind {frame.kind}")

    def _invalidate(self, session_id: str, names: list[str]) -> None:
        self.caches.invalidate(session_id, names)
        if not names:
            with forks_end():
                self._session_ended(session_id)

    def _check_hello(self, frame: Frame, executor: Executor) -> None:
        hello = read_hello(frame.body, HostHello, self._secret)
        self._transfers.peer_pid = hello.pid
        self._transfers.peer_decompresses = hello.zstd and is_available()
        lane = self.make_lane() if self.make_lane is not None and hello.lane else None
        if lane is not None:
            self._conversation.format = PACKED
            self._use(lane)
        if self.logs is not None:
            self.logs.begin(partial(self._post, ("log", 0, self.logs, UNTIMED)))
        if lane is not None:  # last: from here on other threads read the lane and run calls, which reply and log
            executor.use_lane(lane)

    def _withdraw(self, frame: Frame) -> bool:
        """Refuse a call that waits for large buffers or for its batch. Returns False for any other call."""
        fault = Fault(CANCELLED if frame.kind == Kind.CANCEL else NOT_STARTED, "the call had not started")
        if not self._transfers.waits(frame.call_id):
            return self._assembly.withdraw(frame.call_id, fault)
        self._transfers.discard(frame.call_id)
        self._refuse(frame.call_id, fault)
        self._start_batches()
        return True

    def _deliver(self, frame: Frame) -> None:
        assert self._executor is not None
        if frame.kind == Kind.CREDIT:
            self._executor.grant(frame.call_id, frame.number)
        elif frame.kind == Kind.CHUNK:
            session_id, deliver = self._asked[frame.call_id]
            deliver(Answer(frame, 0))
        elif frame.kind in (Kind.RESULT, Kind.ERROR, Kind.END):
            session_id, deliver = self._asked.pop(frame.call_id)
            deliver(Answer(frame, self.caches.stamp(session_id)))
        else:
            self._opened(frame, self._executor)

    def _opened(self, frame: Frame, executor: Executor) -> None:
        tool = self._all_tools.get(frame.name)
        if tool is None and frame.name in FUNCTION_TOOLS:
            tool = self._function_tool(frame.name)
        if tool is None and frame.name in (ITEM, BATCH):
            self._assembly.take(frame)
            self._start_batches()
        elif tool is None:
            self._refuse(frame.call_id, fault_of(unknown_tool(frame.name, self._tools, self._adapter_class)))
        elif tool.streaming != (frame.kind == STREAM):
            verb, kind = ("stream", "a stream") if tool.streaming else ("execute", "no stream")
            error = WrongCallKind(f"tool {tool.name!r} is {kind}: call it with pool.{verb}")
            self._refuse(frame.call_id, fault_of(error))
        else:
            call = ToolCall(frame.call_id, tool, frame.body, frame.attached, frame.session_id, frame.number, self)
            if frame.trace:
                call.take_trace(frame.trace)
            executor.submit(call)

    def _start_batches(self) -> None:
        assert self._executor is not None
        for batch in self._assembly.complete():
            self._executor.submit_batch(batch)

    def _function_tool(self, name: str) -> Tool:
        if name == SCHEMAS:
            from bridge_py.tools.schemas import describer  # only here, for the same reason as below

            return describer(self._tools)
        from bridge_py.tools.functions import TOOLS  # at the first call of a function: workers start sooner

        self._all_tools = {**TOOLS, **self._tools}
        return self._all_tools[name]

    def _cancel(self, call_id: int, executor: Executor) -> None:
        self.is_stopping = not executor.cancel(call_id)
        if self.is_stopping:
            self._driver.later(_INTERRUPT_AGAIN, self._cancel, call_id, executor)

    def _refuse(self, call_id: int, fault: Fault) -> None:
        self._conversation.error(call_id, codec.encode_plain(fault))

    # For the executor and its tools, on their own threads.

    def result(self, call_id: int, encoded: EncodedValue, times: Times) -> None:
        """Send the result of a call that returned."""
        self._outbox.append(("result", call_id, encoded, times))
        self._driver.post("result")

    def error(self, call_id: int, fault: Fault, times: Times = UNTIMED) -> None:
        """Send the error of a call that raised, was cancelled or never started."""
        self._post(("error", call_id, fault, times))

    def chunk(self, call_id: int, encoded: EncodedValue) -> None:
        """Send a chunk that a stream yielded."""
        self._post(("chunk", call_id, encoded, UNTIMED))

    def end(self, call_id: int, times: Times) -> None:
        """Tell the host that a stream, or a batch, is over."""
        self._post(("end", call_id, None, times))

    def outcome(self, call_id: int, outcome: EncodedValue | Fault, times: Times) -> None:
        """Send the outcome of a call of a batch with the next reply, at the latest."""
        self._outbox.append(("error" if isinstance(outcome, Fault) else "result", call_id, outcome, times))

    def report(self, context: CallContext) -> None:
        """Send the latest progress of a call, now and from time to time until the call ends."""
        context._is_reporting = True
        if os.getpid() == self._pid:  # a process that a tool has forked has no link
            self._post(("progress", context.call_id, context, UNTIMED))

    def ask(
        self,
        call_id: int,
        session_id: str,
        verb: str,
        arguments: tuple[Any, ...],
        deliver: Deliver,
        credit: int | None = None,
    ) -> PendingRequest:
        """Ask the host on behalf of a call; the link's thread calls `deliver` with the answer.

        With `credit` the answer is a stream: `deliver` gets each chunk and then the end. Raises
        `EncodeError`, and `SessionError` in a process that a tool has forked.
        """
        check_process(self._pid)
        encoded = self.pack([call_id, *arguments], verb, len(verb))
        asked = PendingRequest()
        trace = "" if current_trace.get() is None else trace_of_request()
        self._post(("ask", call_id, (asked, session_id, verb, encoded, deliver, credit, trace), UNTIMED))
        return asked

    def grant(self, asked: PendingRequest, credit: int) -> None:
        """Give the host more credit for a stream."""
        self._post(("grant", 0, (asked, credit), UNTIMED))

    def drop(self, asked: PendingRequest) -> None:
        """Give up a request whose answer nobody needs any more, so that the host may stop its work on it."""
        self._post(("drop", 0, asked, UNTIMED))

    def _post(self, reply: tuple[Verb, int, Any, Times]) -> None:
        self._outbox.append(reply)
        self._driver.post(reply[0])

    @property
    def has_posts(self) -> bool:
        """Whether the outbox has entries. Any thread may ask."""
        return bool(self._outbox)

    def take_outbox(self) -> None:
        """Make frames of what is in the outbox."""
        while self._outbox:
            self._reply(*self._outbox.popleft())

    def _reply(self, kind: str, call_id: int, content: Any, times: Times) -> None:
        conversation = self._conversation
        if self._reports and kind in _ENDS:
            self._report_last(call_id)
        if kind in ("result", "chunk"):
            buffers = content.buffers
            area = NO_AREA if buffers is None else self._transfers.ref(buffers)
            send = conversation.result if kind == "result" else conversation.chunk
            send(call_id, content.body, area, times)
            if buffers is not None:
                buffers.release()
        elif kind == "end":
            conversation.end(call_id, times)
        elif kind == "error":
            conversation.error(call_id, codec.encode_plain(content), times)
        else:
            self._say(kind, call_id, content)

    def _say(self, kind: str, call_id: int, content: Any) -> None:
        if kind == "progress":
            self._begin_reports(call_id, content)
        elif kind == "log":
            self._send_logs(content)
        elif kind == "ask":
            self._ask(*content)
        elif kind == "grant":
            self._grant(*content)
        elif kind == "drop" and self._conversation.is_open(content.id):
            self._conversation.cancel(content.id)

    def _begin_reports(self, call_id: int, context: CallContext) -> None:
        # Threads that report at the same time may begin twice, and a thread may be left behind by its call.
        if call_id in self._reports or not self._conversation.serves(call_id):
            return
        report = self._reports[call_id] = _Report(context)
        self._report(call_id, report)
        if not self._is_reporting:
            self._is_reporting = True
            self._driver.later(EVERY, self._report_all)

    def _report_all(self) -> None:
        self._is_reporting = bool(self._reports)
        if not self._is_reporting:
            return
        # The host may be slow, and only the latest report matters: older ones must not pile up.
        if self._conversation.waiting_frames < _MOST_WAITING:
            for call_id, report in self._reports.items():
                self._report(call_id, report)
            self._driver.flush()
        self._driver.later(EVERY, self._report_all)

    def _report(self, call_id: int, report: _Report) -> None:
        latest = report.context._latest
        if latest is not None and latest is not report.sent:
            self._conversation.progress(call_id, encode_report(latest))
            report.sent = latest

    def _report_last(self, call_id: int) -> None:
        report = self._reports.pop(call_id, None)
        if report is not None:
            self._report(call_id, report)

    def _send_logs(self, logs: HostHandler) -> None:
        # The host may be slow: what it does not take waits in the queue of `logs`, which has a bound.
        while self._conversation.waiting_frames < _MOST_WAITING and (body := logs.take()) is not None:
            self._conversation.link(Kind.EVENT, Frame(0, name=LOG, body=body))
        if not self._is_logging and (logs.has_more or logs.has_dropped):
            self._is_logging = True
            self._driver.later(EVERY if logs.has_more else _TELLS_DROPPED, self._send_more_logs, logs)

    def _send_more_logs(self, logs: HostHandler) -> None:
        self._is_logging = False
        if not logs.has_more and (body := logs.take_dropped()) is not None:
            self._conversation.link(Kind.EVENT, Frame(0, name=LOG, body=body))
        self._send_logs(logs)
        self._driver.flush()

    def _ask(
        self,
        asked: PendingRequest,
        session_id: str,
        verb: str,
        encoded: EncodedValue,
        deliver: Deliver,
        credit: int | None,
        trace: str,
    ) -> None:
        body, buffers = encoded.body, encoded.buffers
        self.caches.trim()
        asked.id = self._conversation.open(verb, body, credit=credit, area=self._transfers.ref(buffers), trace=trace)
        if buffers is not None:
            buffers.release()
        self._asked[asked.id] = session_id, deliver

    def _grant(self, asked: PendingRequest, credit: int) -> None:
        if self._conversation.is_open(asked.id):
            self._conversation.grant(asked.id, credit)
