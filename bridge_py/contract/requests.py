"""Requests that a peer has not processed are made again: it has refused them, or has left for a new connection.

RFC 9113 says in 8.7 which requests these are: those that end with REFUSED_STREAM, and those above the last stream of a
GOAWAY. Whoever sent one may send it again, for nothing of it has run. All other requests that a connection takes with
it may have run, and are never made again here.

A request opens its stream when the peer allows one more (SETTINGS_MAX_CONCURRENT_STREAMS); requests wait for that in
the order in which they came. grpclib's own wait has no order, and does not end with its connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

import grpclib.protocol
from grpclib.exceptions import StreamTerminatedError
from grpclib.metadata import Deadline
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, Event, RemoteSettingsChanged, StreamReset
from hyperframe.frame import GoAwayFrame

from bridge_py.http2 import BoundedBuffer, BoundedChannel, BoundedProcessor, BoundedProtocol

from .light_streams import LightConnection

if TYPE_CHECKING:
    from grpclib.utils import Wrapper
    from h2.connection import H2Connection

_FIRST_PAUSE: Final = 0.01  # seconds before a request is made again; each pause is twice as long as the one before
_LONGEST_PAUSE: Final = 0.5

logger = logging.getLogger("snakepit.link")


class NotProcessed(StreamTerminatedError):
    """The peer says that it has not begun with a request. `has_cancelled` tells whether this has cancelled the task."""

    has_cancelled = False


class NotTaken(TimeoutError):
    """The deadline of a request passed before the peer took the request. The text says why it did not."""


class Attempts:
    """The attempts to make one request, until the peer takes it. Make one of these in the task that makes the request.

    `timeout`, in seconds, is the time for all attempts; None sets no bound.
    """

    def __init__(self, timeout: float | None = None) -> None:
        self.deadline = None if timeout is None else Deadline.from_timeout(timeout)
        self._pause = _FIRST_PAUSE
        self._task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._cancels = self._task.cancelling()

    async def pause(self, error: NotProcessed) -> None:
        """Wait before the next attempt. Raises `NotTaken` at the deadline."""
        # grpclib wakes a task by cancelling it. If somebody else has cancelled it too, then it is over.
        if error.has_cancelled:
            self._task.uncancel()
        if self._task.cancelling() > self._cancels:
            raise asyncio.CancelledError
        pause, self._pause = self._pause, min(2 * self._pause, _LONGEST_PAUSE)
        if self.deadline is None:
            await asyncio.sleep(pause)
            return
        await asyncio.sleep(min(pause, self.deadline.time_remaining()))
        if not self.deadline.time_remaining():
            raise NotTaken(f"the peer did not take the request in time: {error}") from None


class _Stream(grpclib.protocol.Stream):
    """A stream that is opened when the peer allows one more."""

    wrapper: Wrapper

    async def send_request(self, headers: Any, end_stream: bool = False, *, _processor: Any) -> Callable[[], None]:
        try:
            await _processor.wait_for_stream()
        except asyncio.CancelledError:
            if isinstance(self.wrapper._error, TimeoutError):  # the deadline has cancelled it
                self.wrapper._error = NotTaken(f"the request was not sent in time: {_processor.why_wait()}")
            raise
        return await super().send_request(headers, end_stream, _processor=_processor)


class RequestProcessor(BoundedProcessor):
    """Keeps to the peer's limit of streams, and tells which requests the peer has not processed."""

    def __init__(self, handler: grpclib.protocol.AbstractHandler, connection: grpclib.protocol.Connection) -> None:
        super().__init__(handler, connection)
        self._h2 = cast("LightConnection", connection._connection)
        self._waiting: deque[asyncio.Event] = deque()  # one event for each request, the oldest first
        self._is_settled = False  # the peer has told its settings
        self._has_left = False  # a GOAWAY came: new requests need another connection
        self._end: str | None = None  # why the connection is closed
        self._has_warned = False
        # h2 refuses all that comes behind a GOAWAY, also the answers to earlier requests.
        dispatch: dict[Any, Any] = self._h2._frame_dispatch_table
        dispatch[GoAwayFrame] = _read_goaway

    # Waiting for a stream.

    async def wait_for_stream(self) -> None:
        """Wait until a stream may be opened. The caller opens it at once, without another wait.

        Raises `NotProcessed` when the peer leaves, and `StreamTerminatedError` when the connection is lost.
        """
        if self._waiting or not self._may_open():
            await self._wait_for_turn()
        if self._has_left:
            raise NotProcessed("the peer has closed its connection for new requests (GOAWAY)")
        if self._end is not None:
            raise StreamTerminatedError(self._end)

    async def _wait_for_turn(self) -> None:
        turn = asyncio.Event()
        self._waiting.append(turn)
        self._warn()
        try:
            while not (self._is_over or (self._waiting[0] is turn and self._may_open())):
                turn.clear()
                await turn.wait()
        finally:
            self._waiting.remove(turn)
            self.wake()

    @property
    def _is_over(self) -> bool:
        return self._has_left or self._end is not None

    def _may_open(self) -> bool:
        if self._is_over:
            return True  # it need not wait to learn that
        if not self._is_settled or not self.connection.write_ready.is_set():
            return False
        most = self._h2.remote_settings.max_concurrent_streams
        # Streams that the peer has ended, and whose end nobody has read yet, are not open. Counting them takes longer.
        return self._count_open() < most or self._h2.open_outbound_streams < most

    def _count_open(self) -> int:
        return len(self.streams)

    def wake(self) -> None:
        """Let the oldest request look whether it may go."""
        if self._waiting:
            self._waiting[0].set()

    def why_wait(self) -> str:
        """Why requests wait now."""
        if not self._is_settled:
            return "the peer has not said yet how many open requests it allows (SETTINGS)"
        if not self.connection.write_ready.is_set():
            return "the peer reads nothing"
        most = self._h2.remote_settings.max_concurrent_streams
        return f"the peer allows {most} open requests on a connection (SETTINGS_MAX_CONCURRENT_STREAMS)"

    def _warn(self) -> None:
        if self._is_settled and not self._h2.remote_settings.max_concurrent_streams and not self._has_warned:
            self._has_warned = True
            logger.warning("requests wait until the peer allows some: %s", self.why_wait())

    # What comes.

    def create_stream(self, *, stream_id: int | None = None, wrapper: Wrapper | None = None) -> grpclib.protocol.Stream:
        return _Stream(self.connection, self._h2, self.connection._transport, stream_id=stream_id, wrapper=wrapper)

    def register(self, stream: grpclib.protocol.Stream) -> Any:
        release = super().register(stream)

        def release_and_wake() -> None:
            release()
            self._close_if_idle()
            self.wake()

        return release_and_wake

    def process(self, event: Event) -> None:
        super().process(event)
        self.wake()

    def process_remote_settings_changed(self, event: RemoteSettingsChanged) -> None:
        self._is_settled = True
        super().process_remote_settings_changed(event)
        if self._waiting:
            self._warn()

    def process_stream_reset(self, event: StreamReset) -> None:
        if event.remote_reset and event.error_code == ErrorCodes.REFUSED_STREAM:
            self._return(event.stream_id, "the peer refused the request (REFUSED_STREAM)")
        super().process_stream_reset(event)

    def process_connection_terminated(self, event: ConnectionTerminated) -> None:
        self._count("GOAWAY frames")
        self._has_left = True
        self.handler.close()  # the next request makes a new connection
        for stream_id in [each for each in self.streams if each > (event.last_stream_id or 0)]:
            self._return(stream_id, "the peer has closed its connection for new requests (GOAWAY)")
        if event.error_code != ErrorCodes.NO_ERROR:
            self.close(f"the peer closed the connection (GOAWAY, error code {event.error_code})")
            return
        for turn in self._waiting:
            turn.set()
        self._close_if_idle()

    def _return(self, stream_id: int, why: str) -> None:
        """Give a request back to its caller, who may make it again, unless the peer has begun to answer."""
        stream = self.streams.get(stream_id)
        wrapper = None if stream is None else stream.wrapper
        # A deadline that has passed in the same turn of the loop stays what ends the request.
        if stream is None or wrapper is None or stream.headers is not None or wrapper._error is not None:
            return
        error = NotProcessed(why)
        error.has_cancelled = bool(wrapper._tasks)
        wrapper.cancel(error)
        stream.wrapper = None  # its end is told

    def _close_if_idle(self) -> None:
        if self._has_left and not self._count_open() and self._end is None:
            self.close("the peer has closed its connection for new requests (GOAWAY)")

    def close(self, reason: str = "Connection closed") -> None:
        if self._end is not None:
            return  # the first reason is the true one
        self._end = reason
        for stream in self.streams.values():
            if self._is_complete(stream):
                stream.wrapper = None  # its reader goes on
                cast("BoundedBuffer", stream.buffer).detach()
        super().close(reason)
        for turn in self._waiting:
            turn.set()

    def _is_complete(self, stream: grpclib.protocol.Stream) -> bool:
        """Whether both sides have ended a stream, so that it needs no connection any more."""
        inner = self._h2.streams.get(stream.id or 0)
        return stream.trailers is not None and stream.buffer._eof and (inner is None or inner.closed)


def _read_goaway(frame: GoAwayFrame) -> tuple[list[Any], list[Event]]:
    event = ConnectionTerminated()
    event.error_code = _error_code(frame.error_code)
    event.last_stream_id = frame.last_stream_id
    return [], [event]


def _error_code(number: int) -> Any:
    return ErrorCodes(number) if number in set(ErrorCodes) else number


class _Protocol(BoundedProtocol):
    def __init__(
        self, made: grpclib.protocol.H2Protocol, open_ones: set[_Protocol], processor: type[RequestProcessor]
    ) -> None:
        super().__init__(made.handler, made.config, made.h2_config)
        self._open_ones = open_ones
        self._processor = processor

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._open_ones.add(self)

    def _make_h2(self) -> H2Connection:
        return LightConnection(config=self.h2_config)

    def _make_processor(self) -> BoundedProcessor:
        processor = self._requests = self._processor(self.handler, self.connection)
        cast("Any", self.connection).create_stream = processor.create_stream
        return processor

    def resume_writing(self) -> None:
        super().resume_writing()
        self._requests.wake()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._open_ones.discard(self)
        super().connection_lost(exc)


class RequestChannel(BoundedChannel):
    """A channel whose requests fail with `NotProcessed` if the peer has not processed them.

    A connection that the peer has closed for new requests stays until its earlier requests are answered.
    """

    _processor: type[RequestProcessor] = RequestProcessor

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._open_ones: set[_Protocol] = set()

    def _protocol_of(self, made: grpclib.protocol.H2Protocol) -> BoundedProtocol:
        return _Protocol(made, self._open_ones, self._processor)

    @property
    def is_connected(self) -> bool:
        """Whether a request needs no new connection."""
        return bool(self._connected)

    def close(self) -> None:
        super().close()
        for protocol in tuple(self._open_ones):
            protocol.processor.close()
