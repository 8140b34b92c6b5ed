"""Requests without a task: one write sends the request, and what reads the answer hands it on.

That is for a request and an answer of one message each that fit into a frame or a few, and for a peer that takes the
request now. As soon as anything else comes, grpclib goes on with the request, as if it had made it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, cast

import grpclib.protocol
from grpclib.utils import Wrapper
from h2.events import ConnectionTerminated, DataReceived, ResponseReceived, StreamEnded, StreamReset, TrailersReceived
from h2.exceptions import ProtocolError

from .at_once import message_of
from .light_streams import Headers
from .requests import RequestProcessor

_MOST_BYTES: Final = 64 * 1024  # of an answer that is read here
_TYPES: Final = ("application/grpc", "application/grpc+proto")

logger = logging.getLogger("snakepit.link")


class Opened(NamedTuple):
    """A request that has been sent, for grpclib to go on with."""

    stream: grpclib.protocol.Stream
    wrapper: Wrapper
    release: Callable[[], None]


class _Exchange:
    """A request that has been sent, and what has come of its answer."""

    __slots__ = ("data", "headers", "otherwise", "then", "unacknowledged")

    def __init__(self, then: Callable[[bytes, Any], None], otherwise: Callable[[Opened], None]) -> None:
        self.then = then
        self.otherwise = otherwise
        self.headers: Any = None
        self.data = b""
        self.unacknowledged = 0  # bytes of the windows that have been used, with padding


class QuickProcessor(RequestProcessor):
    """Makes requests without a task where it can."""

    def __init__(self, handler: grpclib.protocol.AbstractHandler, connection: grpclib.protocol.Connection) -> None:
        super().__init__(handler, connection)
        self._exchanges: dict[int, _Exchange] = {}

    def try_request(
        self, headers: Headers, body: bytes, then: Callable[[bytes, Any], None], otherwise: Callable[[Opened], None]
    ) -> bool:
        """Send a request if the peer takes it now. Returns whether it was sent; then one of the two is called.

        `then` gets the message of an answer that is as it should be, and its headers. `otherwise` gets the request
        back, when anything else has come or the connection ends. Neither is called before this returns.
        """
        h2 = self._h2
        if self._waiting or self._is_over or self.connection.is_closing() or not self._may_open():
            return False
        window = min(h2.remote_settings.initial_window_size, h2.outbound_flow_control_window)
        if len(body) > min(window, h2.max_outbound_frame_size):
            return False
        try:
            stream_id = h2.request(headers, body)
        except ProtocolError:
            return False  # too many streams, or no more numbers for them: grpclib says it
        self._exchanges[stream_id] = _Exchange(then, otherwise)
        if not self.is_parsing:  # else what parses flushes
            self.connection.flush()
        return True

    def _count_open(self) -> int:
        return super()._count_open() + len(self._exchanges)

    # What comes.

    def process_response_received(self, event: ResponseReceived) -> None:
        exchange = self._exchanges.get(event.stream_id)
        if exchange is not None:
            if event.stream_ended is None and _is_plain(cast("dict[str, str]", dict(event.headers))):
                exchange.headers = event.headers
                return
            self._hand_over(event.stream_id)
        super().process_response_received(event)

    def process_data_received(self, event: DataReceived) -> None:
        exchange = self._exchanges.get(event.stream_id)
        if exchange is not None:
            size = event.flow_controlled_length
            if event.stream_ended is None and size and exchange.unacknowledged + size <= _MOST_BYTES:
                exchange.data = exchange.data + event.data if exchange.data else event.data
                exchange.unacknowledged += size
                return
            self._hand_over(event.stream_id)
        super().process_data_received(event)

    def process_trailers_received(self, event: TrailersReceived) -> None:
        exchange = self._exchanges.get(event.stream_id)
        if exchange is not None:
            message, trailers = message_of(exchange.data), cast("dict[str, str]", dict(event.headers))
            if message is not None and trailers.get("grpc-status") == "0" and exchange.headers is not None:
                self._complete(event.stream_id, exchange, message)
                return
            self._hand_over(event.stream_id)
        super().process_trailers_received(event)

    def _complete(self, stream_id: int, exchange: _Exchange, message: bytes) -> None:
        del self._exchanges[stream_id]
        self._h2.acknowledge_received_data(exchange.unacknowledged, stream_id)
        self.connection.stream_close_waiter.set()
        self._close_if_idle()
        try:
            exchange.then(message, exchange.headers)
        except Exception:
            # It is no fault of the peer, whose bytes are being read.
            logger.exception("an answer could not be handed on")

    # Handing requests over to grpclib.

    def process_stream_ended(self, event: StreamEnded) -> None:
        self._hand_over(event.stream_id)
        super().process_stream_ended(event)

    def process_stream_reset(self, event: StreamReset) -> None:
        self._hand_over(event.stream_id)
        super().process_stream_reset(event)

    def process_connection_terminated(self, event: ConnectionTerminated) -> None:
        self._hand_all_over()
        super().process_connection_terminated(event)

    def close(self, reason: str = "Connection closed") -> None:
        if self._end is None:
            self._hand_all_over()
        super().close(reason)

    def _hand_all_over(self) -> None:
        for stream_id in tuple(self._exchanges):
            self._hand_over(stream_id)

    def _hand_over(self, stream_id: int) -> None:
        exchange = self._exchanges.pop(stream_id, None)
        if exchange is None:
            return
        self._h2.make_full(stream_id)
        wrapper = Wrapper()
        stream = self.create_stream(stream_id=stream_id, wrapper=wrapper)
        release = self.register(stream)
        if exchange.headers is not None:
            stream.headers = exchange.headers
            stream.headers_received.set()
        if exchange.unacknowledged:
            stream.buffer.add(exchange.data, exchange.unacknowledged)
            stream.data_received += len(exchange.data)
        exchange.otherwise(Opened(stream, wrapper, release))


def _is_plain(headers: Mapping[str, str]) -> bool:
    """Whether these are the headers of an answer that goes on, as grpclib would have them."""
    return headers.get(":status") == "200" and headers.get("content-type") in _TYPES and "grpc-status" not in headers
