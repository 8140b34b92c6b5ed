"""Requests that are answered where they are read: without a task, and in one write.

A request that came in one piece, and whose answer is known, gets it at once. Each other request goes to grpclib, as if
it had gone there from the start.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

import grpclib.protocol
from grpclib.const import Status
from h2.events import DataReceived, RequestReceived, StreamEnded, StreamReset, TrailersReceived

from bridge_py.http2 import BoundedProcessor, WhyNot

from .light_streams import LightConnection
from .values import LARGE_VALUES, RAW

#: By the paths of RPCs: returns the message of the answer to the message of a request, or None if it is not known at
#: once. Then, and after any exception, the request is answered in grpclib's way.
Answers = Mapping[str, Callable[[bytes], bytes | None]]
_MOST_BYTES: Final = 64 * 1024  # of a request that is answered at once
_HEADERS: Final = ((":status", "200"), ("content-type", "application/grpc+proto"), (LARGE_VALUES, RAW))
_TRAILERS: Final = (("grpc-status", "0"),)
_TYPES: Final = ("application/grpc", "application/grpc+proto")
_prefix: Final = struct.Struct(">BI")  # whether it is compressed, and the size of the message

logger = logging.getLogger("snakepit.link")


def message_of(data: bytes) -> bytes | None:
    """The one message in the whole body of a request or an answer; None if there is not exactly one, as it is."""
    if len(data) < _prefix.size or _prefix.unpack_from(data) != (0, len(data) - _prefix.size):
        return None
    return data[_prefix.size :]


def body_of(message: bytes) -> bytes:
    """The body of a request or an answer with one message."""
    return _prefix.pack(0, len(message)) + message


class AnsweringProcessor(BoundedProcessor):
    """Answers requests at once where it can."""

    def __init__(
        self,
        handler: grpclib.protocol.AbstractHandler,
        connection: grpclib.protocol.Connection,
        why_not: WhyNot | None,
        answers: Answers,
    ) -> None:
        super().__init__(handler, connection, why_not)
        self._h2 = cast("LightConnection", connection._connection)
        self._answers = answers
        self._begun: dict[int, RequestReceived] = {}  # requests of which nothing but the headers has come

    def take_request(self, event: RequestReceived) -> None:
        headers: Any = dict(event.headers)
        if event.stream_ended is None and headers.get(":path") in self._answers and _is_plain(headers):
            self._begun[event.stream_id] = event
        else:
            self.begin(event)

    def begin(self, event: RequestReceived) -> None:
        self._h2.make_full(event.stream_id)
        super().begin(event)

    def refuse(self, stream_id: int, why: str, status: Status = Status.UNAUTHENTICATED) -> None:
        self._h2.make_full(stream_id)
        super().refuse(stream_id, why, status)

    def process_data_received(self, event: DataReceived) -> None:
        request = self._begun.pop(event.stream_id, None)
        if request is not None:
            if event.stream_ended is not None and self._answer(request, event):
                return
            self.begin(request)
        super().process_data_received(event)

    def _answer(self, request: RequestReceived, event: DataReceived) -> bool:
        headers: Any = dict(request.headers)
        stream_id = event.stream_id
        message = message_of(event.data) if len(event.data) <= _MOST_BYTES else None
        # More has been read than is processed: the request may be reset already.
        may_send = self.connection.write_ready.is_set() and not self.connection.is_closing()
        if message is None or not may_send or not self._h2.can_send(stream_id):
            return False
        try:
            answer = self._answers[headers[":path"]](message)
        except Exception:
            logger.debug("a request is answered again, to report its error", exc_info=True)
            return False
        if answer is None or len(answer) + _prefix.size > self._h2.can_send(stream_id):
            return False
        self._h2.acknowledge_received_data(event.flow_controlled_length, stream_id)
        self._h2.respond(stream_id, _HEADERS, body_of(answer), _TRAILERS)
        return True

    # What else may come of a request that has begun, or end it.

    def process_trailers_received(self, event: TrailersReceived) -> None:
        self._pass_on(event.stream_id)
        super().process_trailers_received(event)

    def process_stream_ended(self, event: StreamEnded) -> None:
        self._pass_on(event.stream_id)
        super().process_stream_ended(event)

    def process_stream_reset(self, event: StreamReset) -> None:
        self._pass_on(event.stream_id)
        super().process_stream_reset(event)

    def _pass_on(self, stream_id: int) -> None:
        request = self._begun.pop(stream_id, None)
        if request is not None:
            self.begin(request)

    def close(self, reason: str = "Connection closed") -> None:
        self._begun.clear()
        super().close(reason)


def _is_plain(headers: Mapping[str, str]) -> bool:
    """Whether grpclib would take a request with these headers, and it has no deadline."""
    return (
        headers.get(":method") == "POST"
        and headers.get("content-type") in _TYPES
        and headers.get("te") == "trailers"
        and "grpc-timeout" not in headers
    )
