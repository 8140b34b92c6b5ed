"""The host's end of a link: it sends frames, and passes on the frames that come."""

from __future__ import annotations

import math
import os
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final, NoReturn

import trio

from bridge_py.buffers.compression import is_available
from bridge_py.buffers.transfers import Transfers
from bridge_py.wire import codec
from bridge_py.wire.conversation import NO_AREA, Conversation, Side
from bridge_py.wire.errors import DecodeError, ProtocolError, RemoteProtocolError
from bridge_py.wire.frames import PROGRESS, RESULT, Frame, Kind, most_bytes
from bridge_py.wire.hellos import PROTOCOL_VERSION, WorkerHello, read_hello, tools_of
from bridge_py.wire.logs import LOG, cost_of_log, read_logged
from bridge_py.wire.packed import PACKED
from bridge_py.wire.readable import readable
from bridge_py.wire.specs import ITEM
from snakepit_trio._calls.call import Call
from snakepit_trio._requests.worker_requests import WorkerRequests
from snakepit_trio._util.log import get_logger
from snakepit_trio.errors import WorkerError

from .base import Connection, ConnectionContext, Hello

_OUTCOMES: Final = frozenset({Kind.RESULT, Kind.CHUNK, Kind.END, Kind.ERROR})
_FRAMES_AT_ONCE: Final = 32

logger = get_logger("snakepit.link")


class LinkLost(WorkerError):
    """The connection to a worker has ended."""


class PeerLost(LinkLost):
    """The connection has ended because nothing is heard from the worker's machine any more. The worker may live on."""


class LinkConnection(Connection):
    """The connection to a worker that speaks our own protocol: one stream of batches of frames, on any carrier.

    The worker must know `secret`. `connected` is called when the worker has shown that it does.
    """

    #: Whether the hello offers a lane.
    has_lane = False
    #: Frames that a batch of the worker's may have; None for no limit, where a carrier joins batches.
    max_frames: int | None = None
    #: How many seconds a turn of the loop may spend on a batch of many frames. The others wait for `handle_late`.
    seconds_per_turn: float = math.inf

    def __init__(self, context: ConnectionContext, secret: str, pid: int, connected: Callable[[], None]) -> None:
        sizes = context.services.sizes
        self.conversation = Conversation(
            Side.HOST,
            max_frame=sizes.max_frame,
            max_area=sizes.max_area,
            max_frames=self.max_frames,
            max_served=context.max_asks,
            max_unread=context.max_unread_bytes,
        )
        #: The largest batch that is taken from the worker, in bytes.
        self.max_batch = most_bytes(sizes.max_frame)
        self.transfers = Transfers(self.conversation, sizes, self._handle)
        self.transfers.peer_pid = pid
        self._requests = WorkerRequests(context.services, context.worker_id, context.calls, self, context.concurrency)
        self.host_work = self._requests.host_tool_runs
        #: Has the data of the conversation sent soon. Frames that are added before the sender runs go with it.
        self.flush: Callable[[], None] = _send_nothing
        self._nursery: trio.Nursery | None = None
        self._problem: Exception | None = None
        self._late: deque[Frame] = deque()  # frames that have come and are not handled yet
        self._is_lost = False
        self._secret = secret
        self._max_unread = context.max_unread_bytes
        self._connected = connected
        self._on_ready = context.on_ready
        self._on_frame = context.on_frame
        self._on_fault = context.on_fault
        self._logs = context.logs

    def lose(self, why: str) -> None:
        """End the link, because the worker's machine is lost."""
        self._problem = self._problem or PeerLost(why)
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()

    def check_unread(self) -> None:
        """End the link if the worker leaves too much of what it is sent unread."""
        if self.conversation.is_overdue:
            self._problem = self._problem or RemoteProtocolError(
                f"it leaves more than {self._max_unread} bytes of answers unread (max_unread_bytes)"
            )
            if self._nursery is not None:
                self._nursery.cancel_scope.cancel()

    async def run(self) -> None:
        hello = {
            "protocol": PROTOCOL_VERSION,
            "secret": self._secret,
            "pid": os.getpid(),
            "zstd": is_available(),
            "lane": self.has_lane,
        }
        self.conversation.hello(codec.encode_plain(hello))
        try:
            async with trio.open_nursery() as self._nursery:
                self._requests.begin(self._nursery)
                try:
                    await self._carry(self.carry)
                finally:
                    self.transfers.close()
        finally:
            self._requests.end()
        assert self._problem is not None
        raise self._problem

    def carry_also(self, carry: Callable[[], Coroutine[Any, Any, NoReturn]]) -> None:
        """Run another function that carries the link, until either ends."""
        assert self._nursery is not None
        self._nursery.start_soon(self._carry, carry)

    @trio.lowlevel.enable_ki_protection
    async def _carry(self, carry: Callable[[], Coroutine[Any, Any, NoReturn]]) -> None:
        assert self._nursery is not None
        try:
            await carry()
        except Exception as error:
            if isinstance(error, LinkLost):
                with logger.tolerates("reading the last frames of a worker"):
                    self.read_rest()
            self._problem = self._problem or error
        finally:
            self._nursery.cancel_scope.cancel()

    @abstractmethod
    async def carry(self) -> NoReturn:
        """Give each batch that comes to `receive`, and send the batches of `next_batch`, until the link ends.

        Raises `LinkLost`, and the errors of `receive`.
        """
        raise NotImplementedError

    def open_lane(self) -> None:
        """Send all frames after the hello through the lane, which both sides have offered."""

    def read_rest(self) -> None:
        """Read the frames that the worker has written before the link was lost."""
        self.handle_rest()

    def receive(self, data: bytes) -> None:
        """Take a batch that has come, and handle its frames until the turn's time is used up.

        Raises `ProtocolError` and `DecodeError` if the worker broke the rules.
        """
        try:
            frames = self.conversation.receive(data)
            if self._late or len(frames) > _FRAMES_AT_ONCE:
                self._late += frames
                self._handle_some(self.seconds_per_turn)
            else:
                for frame in frames:
                    if frame.kind == RESULT and not frame.loan:  # the only frame of its call, and it is whole
                        self._on_frame(frame)
                    else:
                        self._route(frame)
            if self.conversation.has_data_to_send:
                self.flush()
        except (ProtocolError, DecodeError):
            raise
        except Exception as error:
            self._on_fault(error)
            raise

    @property
    def is_late(self) -> bool:
        """Whether frames that have come are not handled yet. Call `handle_late` in the next turn, and read no more."""
        return bool(self._late)

    def handle_late(self) -> None:
        """Handle more of the frames that have come. Raises as `receive` does."""
        self.receive(b"")

    def handle_rest(self) -> None:
        """After the link was lost: handle all frames that have come, except requests. Raises as `receive` does."""
        self._is_lost = True
        self.seconds_per_turn = math.inf
        self.receive(b"")

    def _handle_some(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while self._late:
            for _ in range(min(_FRAMES_AT_ONCE, len(self._late))):
                self._route(self._late.popleft())
            if time.monotonic() >= until:
                break

    def next_batch(self) -> bytes:
        """The next bytes to send; empty if there are none."""
        if self.transfers.returned:
            self.transfers.tend()
        return self.conversation.data_to_send()

    # Calls.

    def open(self, call: Call, timeout_us: int) -> int:
        area = NO_AREA if call.buffers is None else self.transfers.ref(call.buffers)
        try:
            call_id = self.conversation.open(
                call.tool,
                call.body,
                session_id=call.session_id,
                timeout_us=timeout_us,
                credit=call.credit,
                area=area,
                trace=call.trace,
            )
        except BaseException:
            self.transfers.give_back(area)
            raise
        try:
            self.flush()
        except Exception:
            # The call is in the conversation. It goes out with the next message, a ping at the latest.
            logger.exception("what was said to a worker goes out later")
        return call_id

    def open_item(self, call: Call) -> int:
        area = NO_AREA if call.buffers is None else self.transfers.ref(call.buffers)
        try:
            return self.conversation.open(ITEM, call.body, area=area)  # it goes out with its batch
        except BaseException:
            self.transfers.give_back(area)
            raise

    def fetches(self, call_id: int) -> bool:
        return self.transfers.waits(call_id)

    def cancel(self, call_id: int) -> list[Frame]:
        lost = self.transfers.discard(call_id)
        if self.conversation.is_open(call_id):
            self.conversation.cancel(call_id)
        self.flush()
        return lost

    def recall(self, call_id: int) -> None:
        self.conversation.recall(call_id)
        self.flush()

    def grant(self, call_id: int, credit: int) -> None:
        self.conversation.grant(call_id, credit)
        self.flush()

    def is_open(self, call_id: int) -> bool:
        return self.conversation.is_open(call_id)

    def ping(self, number: int) -> None:
        self.conversation.link(Kind.PING, Frame(Kind.PING, number=number))
        self.flush()

    def worker_gone(self) -> None:
        self._requests.worker_gone()

    def end_session(self, session_id: str) -> None:
        self._requests.tell(session_id, None)

    def goodbye(self) -> bool:
        self.conversation.goodbye()
        self.flush()
        return True

    # What comes from the worker.

    def _handle(self, frame: Frame) -> None:
        if frame.kind in _OUTCOMES:
            self._on_frame(frame)
            return
        match frame.kind:
            case Kind.CALL | Kind.STREAM:
                if not self._is_lost:
                    self._requests.take(frame)
            case Kind.CANCEL:
                self._requests.cancel(frame.call_id)
            case Kind.CREDIT:
                self._requests.granted(frame.call_id)
            case Kind.RECALL:
                raise RemoteProtocolError("a worker does not call anything back")
            case Kind.HELLO:
                self._hear_hello(frame)
            case Kind.EVENT:
                self._hear_event(frame)
            case _:
                self._on_frame(frame)

    def _hear_hello(self, frame: Frame) -> None:
        hello = read_hello(frame.body, WorkerHello, self._secret)
        self._connected()
        self.transfers.peer_decompresses = hello.zstd and is_available()
        tools = tools_of(hello)
        if self.has_lane and hello.lane:
            self.conversation.format = PACKED
            self.open_lane()
        self._on_ready(Hello(tools, readable(hello.python)))

    def _hear_event(self, frame: Frame) -> None:
        if frame.name != LOG:
            raise RemoteProtocolError(f"an event {readable(frame.name, 100)!r}, which a worker does not send")
        if self._logs.is_taken(cost_of_log(len(frame.body))):
            self._logs.take(read_logged(frame.body))

    def _route(self, frame: Frame) -> None:
        if frame.kind == PROGRESS:
            self._on_frame(frame)  # it waits for no large buffers of its call: nothing bounds how many there are
        elif frame.call_id and (frame.loan or frame.call_id in self.transfers.waiting):
            self.transfers.receive(frame)
        elif frame.call_id:
            self._handle(frame)
        elif frame.loan:
            self.transfers.handle(frame)
        else:
            self._handle(frame)


def _send_nothing() -> None:
    pass
