"""grpclib's servers and channels, for peers that may be hostile: all that a peer can make them keep or do has limits.

h2 limits the open streams of a connection (100), the size of a frame (16 KiB) and the headers of a message (64 KiB).
grpclib lets all else grow as the peer likes. So here are limits of the rest, and each connection that exceeds one is
closed at once. Bytes are parsed for a few milliseconds at a time, so that no peer stops the loop with tiny frames.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

import grpclib.client
import grpclib.protocol
import grpclib.server
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.metadata import decode_timeout, encode_grpc_message
from h2.connection import H2Connection
from h2.events import (
    DataReceived,
    Event,
    PingReceived,
    PriorityUpdated,
    RemoteSettingsChanged,
    RequestReceived,
    StreamReset,
)
from h2.settings import SettingCodes

from bridge_py.wire.readable import readable

if TYPE_CHECKING:
    from grpclib.config import Configuration
    from grpclib.encoding.base import CodecBase

MAX_MESSAGE_BYTES: Final = 256 * 1024 * 1024
MAX_CONNECTIONS: Final = 256  # of one server
MAX_UNSENT_BYTES: Final = 16 * 1024 * 1024  # answers to frames of a peer that does not read them
MAX_STRANGE_BYTES: Final = 4096  # unread, of a request that needs no token
MAX_SILENT_BYTES: Final = 5 * 1024 * 1024  # of frames that mean nothing; a reset leaves a window of 4 MiB on its way
#: Resets of unanswered requests, pings, settings, priorities, empty, late and unknown frames: so many at once, so many
#: a second.
MAX_CONTROLS: Final = 1000
CONTROLS_PER_SECOND: Final = 100
STRANGER: Final = 10.0  # seconds that a client has for its first request with a token, where the server wants one
_SLICE: Final = 8 * 1024  # bytes that are parsed at once: a thousand tiny frames
_TURN: Final = 0.005  # seconds that one connection may parse before the loop goes on with other things
_NO_TIME: Final = 0.001  # seconds: a request with less has no chance
_QUIET: Final = 10.0  # seconds between two warnings of one server
_CONTROLS: Final = (PingReceived, RemoteSettingsChanged, PriorityUpdated)
#: Says why a request with these headers is refused; None if it is taken.
WhyNot = Callable[[Any], str | None]

logger = logging.getLogger("snakepit.link")


class Allowance:
    """How many things may still come: some at once, and some more each second."""

    def __init__(self, most: int, each_second: float) -> None:
        self._most = most
        self._each_second = each_second
        self._left = float(most)
        self._since = time.monotonic()

    def take(self) -> bool:
        """Take one; returns whether there was one."""
        now = time.monotonic()
        self._left = min(self._most, self._left + (now - self._since) * self._each_second) - 1
        self._since = now
        return self._left >= 0


class BoundedBuffer(grpclib.protocol.Buffer):
    """The unread bytes of one stream, at most its window, however tiny the frames are that they came in.

    Reading a message that is too large fails before its bytes are fetched.
    """

    def __init__(self, acknowledge: Callable[[int], None]) -> None:
        super().__init__(acknowledge)
        self._acknowledge = acknowledge
        self._data = bytearray()
        self._fetched = 0  # bytes of the data that are acknowledged: the peer may send as many again
        self._more = asyncio.Event()

    def add(self, data: bytes, ack_size: int) -> None:
        self._data += data
        if ack_size > len(data):
            self._acknowledge(ack_size - len(data))  # padding
        self._more.set()

    def eof(self) -> None:
        self._eof = True
        self._more.set()

    def held_bytes(self) -> int:
        """The bytes that have come and are not read."""
        return len(self._data)

    async def read(self, size: int) -> bytes:
        if size > MAX_MESSAGE_BYTES:
            text = f"a message of {size} bytes; it may have {MAX_MESSAGE_BYTES}: send it in parts"
            raise GRPCError(Status.RESOURCE_EXHAUSTED, text)
        while True:
            self._fetch(size)
            if len(self._data) >= size or self._eof:
                break
            self._more.clear()
            await self._more.wait()
        if self._data and len(self._data) < size:
            raise AssertionError("Received less data than expected")  # as grpclib says it
        found = bytes(self._data[:size])
        del self._data[:size]
        self._fetched -= len(found)
        return found

    def unacked_size(self) -> int:
        return len(self._data) - self._fetched

    def detach(self) -> None:
        """Let what has come be read after the end of the connection."""
        self._acknowledge = _ignore

    def _fetch(self, size: int) -> None:
        fresh = min(size, len(self._data)) - self._fetched
        if fresh > 0:
            self._fetched += fresh
            self._acknowledge(fresh)


def _ignore(_size: int) -> None:
    pass


class BoundedProcessor(grpclib.protocol.EventsProcessor):
    """Handles what h2 has read; notes in `abuse` which limit the peer has exceeded."""

    def __init__(
        self,
        handler: grpclib.protocol.AbstractHandler,
        connection: grpclib.protocol.Connection,
        why_not: WhyNot | None = None,
    ) -> None:
        super().__init__(handler, connection)
        self.abuse: str | None = None
        self.open_paths: AbstractSet[str] = frozenset()  # of requests that are taken from everybody
        self.is_parsing = False  # what has been read is being processed; what that writes is flushed at the end
        self.is_known = why_not is None  # whether a request of the peer has been taken, if that says who it is
        self._why_not = why_not
        self.silent_bytes = 0  # since the last event
        self._controls = Allowance(MAX_CONTROLS, CONTROLS_PER_SECOND)

    def register(self, stream: grpclib.protocol.Stream) -> Any:
        assert stream.id is not None
        stream.buffer = BoundedBuffer(partial(self.connection.ack, stream.id))
        return super().register(stream)

    def process(self, event: Event) -> None:
        self.silent_bytes = 0
        # After its end, a connection has no processors.
        is_known = type(event) in getattr(self, "processors", {type(event): None})
        if isinstance(event, _CONTROLS) or not is_known:
            self._count(type(event).__name__)
        if is_known:
            super().process(event)

    def process_request_received(self, event: RequestReceived) -> None:
        if self._why_not is not None and (why := self._why_not(event.headers)) is not None:
            self._count("requests without the token")
            if any(name == ":path" and value in self.open_paths for name, value in cast("Any", event.headers)):
                self.begin(event)
                return
            assert event.stream_id is not None
            self.refuse(event.stream_id, why)
            return
        self.is_known = True
        if _is_late(event.headers):
            assert event.stream_id is not None
            self.refuse(event.stream_id, "its time was over when it came", Status.DEADLINE_EXCEEDED)
            return
        self.take_request(event)

    def take_request(self, event: RequestReceived) -> None:
        """Serve a request that is not refused."""
        self.begin(event)

    def begin(self, event: RequestReceived) -> None:
        """Begin to serve a request, in a task."""
        super().process_request_received(event)

    def refuse(self, stream_id: int, why: str, status: Status = Status.UNAUTHENTICATED) -> None:
        """Refuse a request."""
        # Here and not in a handler: a refused request gets no task, and nothing of its body is kept.
        stream = self.connection.create_stream(stream_id=stream_id)
        if stream.closable:
            outcome = [("grpc-status", str(status.value)), ("grpc-message", encode_grpc_message(why))]
            headers = [(":status", "200"), ("content-type", "application/grpc+proto"), *outcome]
            self.connection._connection.send_headers(stream_id, headers, end_stream=True)
        if stream.closable:  # the peer has not sent everything
            stream.reset_nowait()

    def process_stream_reset(self, event: StreamReset) -> None:
        stream = self.streams.get(event.stream_id)
        if stream is not None and not stream.data_sent:
            self._count("resets of requests without an answer")
        super().process_stream_reset(event)

    def process_data_received(self, event: DataReceived) -> None:
        super().process_data_received(event)
        stream = self.streams.get(event.stream_id)
        if event.stream_ended is None and (stream is None or not event.flow_controlled_length):
            self._count("frames that are empty, or of requests that are over")
        if (
            not self.is_known
            and stream is not None
            and cast("BoundedBuffer", stream.buffer).held_bytes() > MAX_STRANGE_BYTES
        ):
            self.abuse = f"more than {MAX_STRANGE_BYTES} bytes in a request without the token"

    def _count(self, kind: str) -> None:
        if not self._controls.take():
            self.abuse = f"more than {MAX_CONTROLS} {kind} and the like, at more than {CONTROLS_PER_SECOND} a second"


def _is_late(headers: Any) -> bool:
    """Whether the time that a client gives to a request is over. grpclib would answer UNKNOWN."""
    for name, value in headers:
        if name == "grpc-timeout":
            try:
                return decode_timeout(value) < _NO_TIME
            except ValueError:
                return False  # grpclib says that it cannot be read
    return False


class BoundedProtocol(grpclib.protocol.H2Protocol):
    """One connection, whose peer holds up the loop for a few milliseconds at a time at most."""

    transport: asyncio.Transport
    _bounded: BoundedProcessor
    _rest = b""  # came, and is not parsed yet
    _goes_on = False  # parses the rest in the loop's next turn

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # As grpclib does it, with other objects.
        self.transport = cast("asyncio.Transport", transport)
        if (connected := transport.get_extra_info("socket")) is not None:
            grpclib.protocol._set_nodelay(connected)
        h2 = self._make_h2()
        h2.initiate_connection()
        initial = h2.local_settings.initial_window_size
        if more := self.config.http2_connection_window_size - initial:
            h2.increment_flow_control_window(more)
        if self.config.http2_stream_window_size != initial:
            h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: self.config.http2_stream_window_size})
        self.connection = grpclib.protocol.Connection(h2, self.transport, config=self.config)
        self.connection.flush()
        self.connection.initialize()
        self.processor = self._bounded = self._make_processor()

    def _make_h2(self) -> H2Connection:
        return H2Connection(config=self.h2_config)

    def _make_processor(self) -> BoundedProcessor:
        return BoundedProcessor(self.handler, self.connection)

    def data_received(self, data: bytes) -> None:
        self._rest += data
        if not self._goes_on:
            self._parse()

    def _parse(self) -> None:
        was_paused, self._goes_on = self._goes_on, False
        data, at, until = self._rest, 0, time.monotonic() + _TURN
        while at < len(data) and time.monotonic() < until and not self.transport.is_closing():
            self._bounded.silent_bytes += min(_SLICE, len(data) - at)
            self._bounded.is_parsing = True
            try:
                super().data_received(data[at : at + _SLICE])
            except Exception as error:
                # asyncio would close the connection, but not in a turn in which nothing has come.
                logger.debug("what a peer sent cannot be read", exc_info=True)
                self._bounded.abuse = f"what cannot be read ({type(error).__name__}: {readable(str(error))})"
            finally:
                self._bounded.is_parsing = False
            at += _SLICE
            self._check()
        self._rest = b"" if self.transport.is_closing() else data[at:]
        if self._rest:
            self._goes_on = True
            self.transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._parse)
        elif was_paused:
            self.transport.resume_reading()

    def _check(self) -> None:
        unsent = self.transport.get_write_buffer_size()
        if unsent > MAX_UNSENT_BYTES:
            self._bounded.abuse = f"more than {MAX_UNSENT_BYTES} bytes of answers that the peer does not read"
        if self._bounded.silent_bytes > MAX_SILENT_BYTES:
            self._bounded.abuse = f"more than {MAX_SILENT_BYTES} bytes of frames that mean nothing"
        if self._bounded.abuse is not None:
            self.complain(f"a connection is closed: its peer sent {self._bounded.abuse}")
            self.processor.close(f"the peer sent {self._bounded.abuse}")
        elif not (unsent and self.transport.is_closing()):
            return
        # Closing would wait until the peer has read everything.
        self.transport.abort()

    @property
    def abuse(self) -> str | None:
        """What the peer sent that has cost it the connection; None if that was nothing."""
        bounded: BoundedProcessor | None = getattr(self, "_bounded", None)
        return None if bounded is None else bounded.abuse

    def complain(self, text: str) -> None:
        """Say why the connection is closed."""
        logger.warning("%s", text)


class _ServerProtocol(BoundedProtocol):
    """A connection of a server, if the server takes it."""

    is_welcome = False  # the server has taken it already
    _ending: asyncio.TimerHandle | None = None

    def __init__(self, server: BoundedServer, made: grpclib.protocol.H2Protocol) -> None:
        super().__init__(made.handler, made.config, made.h2_config)
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        why = None if self.is_welcome else self._server.why_not(transport.get_extra_info("socket"))
        why = why or self._server.why_not_peer(transport)
        if why is not None:
            self._server.warn(why)
            self.handler.close()
            cast("asyncio.Transport", transport).abort()
            return
        self._server.connections.add(self)
        super().connection_made(transport)
        self._bounded.open_paths = self._server.open_paths
        if not self._bounded.is_known:
            self._ending = asyncio.get_running_loop().call_later(STRANGER, self._end_stranger)

    def _make_h2(self) -> H2Connection:
        return self._server.h2_connection(config=self.h2_config)

    def _make_processor(self) -> BoundedProcessor:
        return self._server.make_processor(self.handler, self.connection)

    def _end_stranger(self) -> None:
        if not self._bounded.is_known:
            self._bounded.abuse = f"no request with the token within {STRANGER:g} s"
            self._check()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._ending is not None:
            self._ending.cancel()
        if self in self._server.connections:
            self._server.connections.remove(self)
            super().connection_lost(exc)

    def complain(self, text: str) -> None:
        self._server.warn(text)


class BoundedServer(grpclib.server.Server):
    """grpclib's server, with the limits of this module. It closes all connections that it refuses."""

    #: Refuses requests, and connections that have made only such requests for a while; None takes all requests.
    why_not_request: WhyNot | None = None
    open_paths: AbstractSet[str] = frozenset()  # of small requests that are never refused
    h2_connection: type[H2Connection] = H2Connection
    arriving = 0  # connections that are no connections of HTTP/2 yet

    def __init__(
        self, services: Sequence[Any], codec: CodecBase | None = None, config: Configuration | None = None
    ) -> None:
        super().__init__(services, codec=codec, config=config)
        self.connections: set[_ServerProtocol] = set()
        self._warned = -_QUIET

    def _protocol_factory(self) -> grpclib.protocol.H2Protocol:
        return _ServerProtocol(self, super()._protocol_factory())

    def welcome(self) -> asyncio.BaseProtocol:
        """The protocol of a connection that `why_not` has let in already."""
        protocol = _ServerProtocol(self, super()._protocol_factory())
        protocol.is_welcome = True
        return protocol

    def make_processor(
        self, handler: grpclib.protocol.AbstractHandler, connection: grpclib.protocol.Connection
    ) -> BoundedProcessor:
        """Make what handles the events of a new connection."""
        return BoundedProcessor(handler, connection, self.why_not_request)

    def why_not(self, _connection: Any) -> str | None:
        """Why a new connection, of a socket, is refused; None if it is taken."""
        if len(self.connections) + self.arriving >= MAX_CONNECTIONS:
            return f"a connection is refused: there are {MAX_CONNECTIONS} already"
        return None

    def why_not_peer(self, _transport: Any) -> str | None:
        """Why a connection is refused, after its handshake if it has TLS; None if it is taken."""
        return None

    def warn(self, text: str) -> None:
        """Log a warning. Strangers may cause many: so only some are logged, and the others are debug records."""
        now = time.monotonic()
        is_due = now - self._warned >= _QUIET
        logger.log(logging.WARNING if is_due else logging.DEBUG, "%s", text)
        if is_due:
            self._warned = now

    def take_no_more(self) -> None:
        """Take no more connections. Those that are open go on."""
        assert self._server is not None
        self._server.close()

    def abort(self) -> None:
        """Close all connections, whatever their peers have not read yet."""
        for protocol in list(self.connections):
            protocol.transport.abort()


class BoundedChannel(grpclib.client.Channel):
    """grpclib's channel, with the limits of this module."""

    _latest: BoundedProtocol | None = None

    def _protocol_factory(self) -> grpclib.protocol.H2Protocol:
        self._latest = self._protocol_of(super()._protocol_factory())
        return self._latest

    def _protocol_of(self, made: grpclib.protocol.H2Protocol) -> BoundedProtocol:
        return BoundedProtocol(made.handler, made.config, made.h2_config)

    @property
    def abuse(self) -> str | None:
        """What the peer sent on the latest connection that has cost it the connection; None if that was nothing."""
        return None if self._latest is None else self._latest.abuse

    def abort(self) -> None:
        """Close the latest connection at once, whatever its peer has not read yet."""
        transport = getattr(self._latest, "transport", None)
        if transport is not None:
            transport.abort()

    @property
    def has_connected(self) -> bool:
        """Whether there has been a connection, with or without a handshake."""
        return self._latest is not None

    @property
    def is_stuck(self) -> bool:
        """Whether the peer does not read: all that is sent now waits for it."""
        return self._latest is not None and not self._latest.connection.write_ready.is_set()
