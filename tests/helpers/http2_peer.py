"""A server of the contract, made by hand of h2, that refuses streams, limits them and leaves when it is told.

It answers `Ping` with the message of the request, and a stream with three chunks of the tool's name. It counts how
often it has processed each.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

import h2.config
import h2.connection
import h2.events
from h2.errors import ErrorCodes
from h2.exceptions import StreamClosedError
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame

from bridge_py.wire.messages.snakepit import bridge as messages

_HEADERS: Final = [(":status", "200"), ("content-type", "application/grpc+proto")]
_TRAILERS: Final = [("grpc-status", "0")]


class Peer:
    """Settings for all connections, and what has come on them.

    `limit` is the SETTINGS_MAX_CONCURRENT_STREAMS of new connections. `refusals` is how many streams are still
    refused. With `holds`, requests are answered when `Connection.answer` says so.
    """

    def __init__(self, *, limit: int = 1000, refusals: int = 0, holds: bool = False) -> None:
        self.limit = limit
        self.refusals = refusals
        self.holds = holds
        self.leaves_before = -1  # how many connections are still left (GOAWAY) before their first request
        self.processed: Counter[str] = Counter()
        self.seen: list[str] = []  # each request that came, refused or not, in order
        self.most_open = 0
        self.connections: list[Connection] = []
        self._changed = asyncio.Event()

    @property
    def open_connections(self) -> int:
        return sum(not each.transport.is_closing() for each in self.connections)

    def change(self) -> None:
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something has come that makes the condition true."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()


class Connection(asyncio.Protocol):
    """One connection to the peer."""

    transport: asyncio.Transport

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._bodies: dict[int, bytearray] = {}
        self._paths: dict[int, str] = {}
        self._last = 1 << 31  # streams above this one are not processed
        self.held: dict[int, str] = {}  # streams that are processed and not answered, with their texts

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="ascii"))
        limit = {SettingCodes.MAX_CONCURRENT_STREAMS: self._peer.limit}
        self._h2.local_settings = Settings(client=False, initial_values=limit)
        self._h2.initiate_connection()
        self._peer.connections.append(self)
        self._send()

    def data_received(self, data: bytes) -> None:
        events = self._h2.receive_data(data)
        self._peer.most_open = max(self._peer.most_open, self._h2.open_inbound_streams)
        for event in events:
            self._take(event)
        self._send()
        self._peer.change()

    def connection_lost(self, exc: Exception | None) -> None:
        self._peer.change()

    def _take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            headers: dict[Any, Any] = dict(event.headers or [])
            self._paths[event.stream_id or 0] = headers[":path"]
            self._bodies[event.stream_id or 0] = bytearray()
        elif isinstance(event, h2.events.DataReceived):
            self._bodies[event.stream_id or 0] += event.data or b""
            self._h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
        elif isinstance(event, h2.events.StreamEnded):
            self._process(event.stream_id or 0)
        elif isinstance(event, h2.events.StreamReset):
            self.held.pop(event.stream_id or 0, None)

    def _process(self, stream: int) -> None:
        if stream > self._last:
            return
        body = bytes(self._bodies[stream][5:])
        is_ping = self._paths[stream].endswith("/Ping")
        text = (
            messages.PingRequest.parse(body).message if is_ping else messages.ExecuteToolRequest.parse(body).tool_name
        )
        self._peer.seen.append(text)
        if self._peer.refusals:
            self._peer.refusals -= 1
            with contextlib.suppress(StreamClosedError):  # the client has reset it, and h2 has read that already
                self._h2.reset_stream(stream, error_code=ErrorCodes.REFUSED_STREAM)
            return
        if self._peer.leaves_before > 0:
            self._peer.leaves_before -= 1
            self.leave(0)
            return
        self.held[stream] = text
        self._peer.processed[text] += 1
        if not self._peer.holds:
            self.answer(stream)

    # What the tests have it do.

    def answer(self, stream: int) -> None:
        text = self.held.pop(stream)
        is_ping = self._paths[stream].endswith("/Ping")
        chunk = messages.ToolChunk(data=b'"%s"' % text.encode())
        self._h2.send_headers(stream, _HEADERS)
        for each in [messages.PingResponse(message=text)] if is_ping else [chunk] * 3:
            body = bytes(each)
            self._h2.send_data(stream, struct.pack(">?I", False, len(body)) + body)
        self._h2.send_headers(stream, _TRAILERS, end_stream=True)
        self._send()

    def begin(self, stream: int) -> None:
        """Send the headers of an answer."""
        self._h2.send_headers(stream, _HEADERS)
        self._send()

    def reset(self, stream: int, code: ErrorCodes) -> None:
        self.held.pop(stream)
        self._h2.reset_stream(stream, error_code=code)
        self._send()

    def allow(self, limit: int) -> None:
        self._h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: limit})
        self._send()

    def leave(self, last_stream: int, code: ErrorCodes = ErrorCodes.NO_ERROR) -> None:
        """Send a GOAWAY. h2 would close the connection with it."""
        self._last = last_stream
        self._send()
        self.transport.write(GoAwayFrame(0, last_stream_id=last_stream, error_code=code).serialize())

    def _send(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(self._h2.data_to_send())


@contextlib.asynccontextmanager
async def serve(peer: Peer, port: int = 0) -> AsyncIterator[int]:
    """Serve the peer; gives the port."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(peer), "127.0.0.1", port)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for each in peer.connections:
            each.transport.abort()
        await server.wait_closed()


@contextlib.contextmanager
def served_in_a_thread(peer: Peer) -> Iterator[int]:
    """Serve the peer in a thread, for clients of trio; gives the port."""
    found: list[Any] = []
    is_up = threading.Event()

    async def main() -> None:
        end = asyncio.Event()
        async with serve(peer) as port:
            found.extend((port, asyncio.get_running_loop(), end))
            is_up.set()
            await end.wait()

    def run() -> None:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(main())

    thread = threading.Thread(target=run)
    thread.start()
    is_up.wait()
    port, loop, end = found
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join()
