"""An h2 connection that carries plain unary RPCs without h2's streams, whose state machines take most of the time.

A light stream is one request and one answer, in frames without padding, priorities or CONTINUATION. This module reads
and writes these frames. Everything else is h2's: settings, pings, the windows of the connection, errors, and each
stream on which anything else comes. Such a stream becomes one of h2's, in the state that it would have there.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from h2.connection import AllowedStreamIDs, ConnectionState, H2Connection, _decode_headers
from h2.events import (
    DataReceived,
    Event,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    TrailersReceived,
    WindowUpdated,
)
from h2.exceptions import ProtocolError
from h2.stream import H2Stream, StreamClosedBy, StreamInputs
from hpack.table import HeaderTable
from hyperframe.frame import WindowUpdateFrame

_HEADER: Final = struct.Struct(">HBBBI")  # of a frame: its size in two parts, its kind, flags, and stream
_WINDOW: Final = struct.Struct(">I")
_DATA: Final = 0
_HEADERS: Final = 1
_PUSH_PROMISE: Final = 5
_WINDOW_UPDATE: Final = 8
_CONTINUATION: Final = 9
_WITH_HEADERS: Final = (_HEADERS, _PUSH_PROMISE)
_OF_NEW: Final = (_HEADERS, _PUSH_PROMISE, _WINDOW_UPDATE)  # kinds that matter on other streams too
_END_STREAM: Final = 1
_END_HEADERS: Final = 4
_ID: Final = 0x7FFFFFFF
_LARGEST: Final = 0x7FFFFFFF  # window
_MOST_BYTES: Final = 64 * 1024  # of the body of a light stream
_KEPT: Final = 64  # blocks of headers that were read
_LONGEST: Final = 1024  # bytes of such a block
_ENTRY: Final = 32  # bytes that a header has in a block, beside its name and value, at most
_OPEN: Final = (ConnectionState.CLIENT_OPEN, ConnectionState.SERVER_OPEN)

Headers = tuple[tuple[str, str], ...]


class _Table(HeaderTable):
    """A table of HPACK's that counts its changes: until the next one, equal blocks have equal headers."""

    def __init__(self) -> None:
        self.changes = 0
        super().__init__()

    def add(self, name: bytes, value: bytes) -> None:
        self.changes += 1
        super().add(name, value)

    @property
    def maxsize(self) -> int:
        return self._maxsize

    @maxsize.setter
    def maxsize(self, newmax: int) -> None:
        self.changes += 1
        HeaderTable.maxsize.fset(self, newmax)  # type: ignore[attr-defined]  # mypy knows no property by its class


class _Light:
    """What h2 would have to know of a light stream."""

    __slots__ = ("consumed", "inputs", "window")

    def __init__(self, *inputs: StreamInputs) -> None:
        self.inputs = list(inputs)  # what would have brought h2's state machine where the stream is
        self.consumed = 0  # bytes of its inbound window
        self.window = 0  # bytes that its outbound window has beside the initial ones


class LightConnection(H2Connection):
    """A connection with light streams: those of requests that `request` makes, or that come to a server."""

    def __init__(self, config: Any) -> None:
        super().__init__(config=config)
        self._lights: dict[int, _Light] = {}
        self._rest = b""  # the beginning of a frame
        self._written, self._read = _Table(), _Table()
        self.encoder.header_table, self.decoder.header_table = self._written, self._read
        self._blocks: dict[Headers, bytes] = {}  # as they are written since the latest change of the table
        self._blocks_at = 0
        self._found: dict[bytes, list[tuple[str, str]]] = {}  # the same of those that are read
        self._found_at = 0

    # What the processors do with light streams.

    def request(self, headers: Headers, body: bytes) -> int:
        """Send a whole request. Returns its stream. The windows and the limit of streams must allow it.

        Raises `ProtocolError`.
        """
        stream_id = self.get_next_available_stream_id()
        # A block that is encoded must be sent: the peer's table of headers has to follow.
        is_short = sum(len(name) + len(value) + _ENTRY for name, value in headers) <= self.max_outbound_frame_size
        if not is_short or not self._is_open():
            self.send_headers(stream_id, headers)
            self.send_data(stream_id, body, end_stream=True)
            return stream_id
        light = self._lights[stream_id] = _Light(StreamInputs.SEND_HEADERS, StreamInputs.SEND_END_STREAM)
        self.highest_outbound_stream_id = stream_id
        self._write(_HEADERS, _END_HEADERS, stream_id, self._block(headers))
        self._write_body(stream_id, body, _END_STREAM)
        light.window -= len(body)
        return stream_id

    def respond(self, stream_id: int, headers: Headers, body: bytes, trailers: Headers) -> None:
        """Send a whole answer to a request that has come as a whole. The windows must allow it."""
        light = self._lights.pop(stream_id, None)
        if light is None:
            self.send_headers(stream_id, headers)
            self.send_data(stream_id, body)
            self.send_headers(stream_id, trailers, end_stream=True)
            return
        self._closed_streams[stream_id] = StreamClosedBy.SEND_END_STREAM
        self._write(_HEADERS, _END_HEADERS, stream_id, self._block(headers))
        self._write_body(stream_id, body, 0)
        self._write(_HEADERS, _END_HEADERS | _END_STREAM, stream_id, self._block(trailers))

    def can_send(self, stream_id: int) -> int:
        """How many bytes a frame with data may have on a stream now; 0 if the stream is closed."""
        if (light := self._lights.get(stream_id)) is not None:
            window = min(self.outbound_flow_control_window, self._window_of(light))
        elif (stream := self.streams.get(stream_id)) is None or stream.closed:
            return 0
        else:
            window = self.local_flow_control_window(stream_id)
        return max(0, min(window, self.max_outbound_frame_size))

    def acknowledge_received_data(self, acknowledged_size: int, stream_id: int) -> None:
        """Give back the window that a stream has used."""
        if stream_id in self.streams:
            super().acknowledge_received_data(acknowledged_size, stream_id)
        elif increment := self._inbound_flow_control_window_manager.process_bytes(acknowledged_size):
            frame = WindowUpdateFrame(0)
            frame.window_increment = increment
            self._prepare_for_sending([frame])

    def make_full(self, stream_id: int) -> None:
        """Make a light stream one of h2's."""
        light = self._lights.pop(stream_id, None)
        if light is None:
            return
        stream = self.streams[stream_id] = H2Stream(
            stream_id,
            config=self.config,
            inbound_window_size=self.local_settings.initial_window_size,
            outbound_window_size=self._window_of(light),
        )
        stream.max_outbound_frame_size = self.max_outbound_frame_size
        for each in light.inputs:
            stream.state_machine.process_input(each)
        stream._inbound_window_manager.window_consumed(light.consumed)

    def _window_of(self, light: _Light) -> int:
        return self.remote_settings.initial_window_size + light.window

    def _open_streams(self, remainder: int) -> int:
        # Light streams are those of the client, and these have odd numbers.
        return super()._open_streams(remainder) + (len(self._lights) if remainder else 0)

    # Writing.

    def _write(self, kind: int, flags: int, stream_id: int, content: bytes) -> None:
        size = len(content)
        self._data_to_send += _HEADER.pack(size >> 8, size & 255, kind, flags, stream_id) + content

    def _write_body(self, stream_id: int, body: bytes, flags: int) -> None:
        self.outbound_flow_control_window -= len(body)
        self._write(_DATA, flags, stream_id, body)

    def _block(self, headers: Headers) -> bytes:
        if self._blocks_at != self._written.changes:
            self._blocks.clear()
            self._blocks_at = self._written.changes
        found = self._blocks.get(headers)
        if found is None:
            is_resized = self._written.resized  # then the block tells it
            found = bytes(self.encoder.encode(headers))
            if not is_resized and self._blocks_at == self._written.changes and len(self._blocks) < _KEPT:
                self._blocks[headers] = found
        return found

    # Reading.

    def receive_data(self, data: Any) -> list[Event]:
        """Read what has come. Returns the events. Raises as h2 does."""
        data, self._rest = self._rest + bytes(data), b""
        events: list[Event] = []
        at = since = 0  # from `since` on, frames are h2's, which reads them before the next one that is not
        is_open, most, lights = self._is_open(), self.max_inbound_frame_size, self._lights
        in_headers = bool(self.incoming_buffer._headers_buffer)  # in a block of them that goes on in other frames
        while is_open:
            if len(data) - at < _HEADER.size:
                self._rest, data = data[at:], data[:at]
                break
            high, low, kind, flags, stream_id = _HEADER.unpack_from(data, at)
            size, stream_id, begin = high << 8 | low, stream_id & _ID, at + _HEADER.size
            if size > most:
                break  # h2 says so
            if len(data) - begin < size:
                self._rest, data = data[at:], data[:at]
                break
            if in_headers:
                in_headers = kind != _CONTINUATION or not flags & _END_HEADERS  # h2 refuses other frames
            elif stream_id in lights or kind in _OF_NEW:
                content = data[begin : begin + size]
                if self._may_be_light(kind, flags, stream_id, content):
                    if since < at:
                        events += super().receive_data(data[since:at])
                        since, is_open = at, self._is_open()
                        continue  # what h2 has read may change how this frame is to be read
                    events += self._read_light(kind, flags, stream_id, content)
                    since = begin + size
                else:
                    self.make_full(stream_id)
                    in_headers = kind in _WITH_HEADERS and not flags & _END_HEADERS
            at = begin + size
        return events + super().receive_data(data[since:]) if since < len(data) else events

    def _is_open(self) -> bool:
        """Whether the connection is open, and h2 has no part of a frame."""
        return self.state_machine.state in _OPEN and not self.incoming_buffer._data

    def _may_be_light(self, kind: int, flags: int, stream_id: int, content: bytes) -> bool:
        if kind == _WINDOW_UPDATE:
            return len(content) == _WINDOW.size and self._may_grow(stream_id, _WINDOW.unpack(content)[0])
        light = self._lights.get(stream_id)
        if light is None:
            return kind == _HEADERS and flags == _END_HEADERS and self._may_begin(stream_id)
        if kind == _DATA:
            may_end = flags == (0 if self.config.client_side else _END_STREAM)
            return may_end and 0 < len(content) <= _MOST_BYTES - light.consumed and _has_headers(light)
        if not self.config.client_side or kind != _HEADERS:
            return False
        return flags == (_END_HEADERS | _END_STREAM if _has_headers(light) else _END_HEADERS)

    def _may_grow(self, stream_id: int, increment: int) -> bool:
        """Whether a window grows in a way that h2 would only note."""
        if stream_id == 0:
            window = self.outbound_flow_control_window
        elif (light := self._lights.get(stream_id)) is not None:
            window = self._window_of(light)
        else:
            return False
        return 0 < increment <= _LARGEST - window

    def _may_begin(self, stream_id: int) -> bool:
        """Whether a frame of headers begins a request, and there may be one more."""
        if self.config.client_side or stream_id % 2 == 0 or stream_id <= self.highest_inbound_stream_id:
            return False
        return self.open_inbound_streams < self.local_settings.max_concurrent_streams

    def _read_light(self, kind: int, flags: int, stream_id: int, content: bytes) -> list[Event]:
        try:
            if kind == _DATA:
                return self._read_body(flags, stream_id, content)
            if kind == _WINDOW_UPDATE:
                return self._read_window(stream_id, _WINDOW.unpack(content)[0])
            return self._read_headers(flags, stream_id, content)
        except ProtocolError as error:
            self._terminate_connection(error.error_code)
            raise

    def _read_body(self, flags: int, stream_id: int, content: bytes) -> list[Event]:
        light, size = self._lights[stream_id], len(content)
        self._inbound_flow_control_window_manager.window_consumed(size)
        light.consumed += size
        light.inputs.append(StreamInputs.RECV_DATA)
        if not flags & _END_STREAM:
            return [DataReceived(stream_id=stream_id, data=content, flow_controlled_length=size)]
        light.inputs.append(StreamInputs.RECV_END_STREAM)
        ended = StreamEnded(stream_id=stream_id)
        return [
            DataReceived(stream_id=stream_id, data=content, flow_controlled_length=size, stream_ended=ended),
            ended,
        ]

    def _read_window(self, stream_id: int, increment: int) -> list[Event]:
        if stream_id:
            self._lights[stream_id].window += increment
        else:
            self.outbound_flow_control_window += increment
        return [WindowUpdated(stream_id=stream_id, delta=increment)]

    def _read_headers(self, flags: int, stream_id: int, block: bytes) -> list[Event]:
        if self._found_at == self._read.changes and (known := self._found.get(block)) is not None:
            return self._tell_headers(flags, stream_id, known)
        raw = list(_decode_headers(self.decoder, block))
        headers = [(name.decode("ascii"), value.decode("ascii")) for name, value in raw]
        if not self._is_plain(flags, headers):
            return self._read_odd_headers(flags, stream_id, raw)
        self._keep(block, headers)
        return self._tell_headers(flags, stream_id, headers)

    def _keep(self, block: bytes, headers: list[tuple[str, str]]) -> None:
        # A block that has changed the table means something else the next time.
        if self._found_at != self._read.changes or len(self._found) >= _KEPT:
            self._found.clear()
            self._found_at = self._read.changes
        elif len(block) <= _LONGEST:
            self._found[block] = headers

    def _is_plain(self, flags: int, headers: list[tuple[str, str]]) -> bool:
        names = dict(headers)
        is_answer = self.config.client_side and not flags & _END_STREAM
        return "content-length" not in names and names.get(":status") == ("200" if is_answer else None)

    def _read_odd_headers(self, flags: int, stream_id: int, raw: list[Any]) -> list[Event]:
        """Have h2 read headers that mean more to it than to this module."""
        if self.config.client_side:
            self.make_full(stream_id)
            stream = self.streams[stream_id]
        else:
            stream = self._begin_new_stream(stream_id, AllowedStreamIDs.ODD)
        frames, events = stream.receive_headers(raw, bool(flags & _END_STREAM), self.config.header_encoding)
        self._prepare_for_sending(frames)
        return events

    def _tell_headers(self, flags: int, stream_id: int, headers: Any) -> list[Event]:
        if not self.config.client_side:
            self._lights[stream_id] = _Light(StreamInputs.RECV_HEADERS)
            self.highest_inbound_stream_id = stream_id
            return [RequestReceived(stream_id=stream_id, headers=headers)]
        if not flags & _END_STREAM:
            self._lights[stream_id].inputs.append(StreamInputs.RECV_HEADERS)
            return [ResponseReceived(stream_id=stream_id, headers=headers)]
        del self._lights[stream_id]
        self._closed_streams[stream_id] = StreamClosedBy.RECV_END_STREAM
        ended = StreamEnded(stream_id=stream_id)
        return [TrailersReceived(stream_id=stream_id, headers=headers, stream_ended=ended), ended]


def _has_headers(light: _Light) -> bool:
    """Whether the headers of the request, or of the answer, have come, and not its end."""
    return StreamInputs.RECV_HEADERS in light.inputs and StreamInputs.RECV_END_STREAM not in light.inputs
