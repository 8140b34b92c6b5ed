"""An app of ASGI under a real hypercorn on trio, and clients that speak HTTP/1.1 by hand."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import hypercorn.trio
import trio
from h2.connection import H2Connection
from h2.events import DataReceived, StreamEnded
from hypercorn.config import Config

from snakepit_trio._cli.http_server import guarded_connections


@asynccontextmanager
async def hypercorn_for(app: Any, **settings: Any) -> AsyncIterator[int]:
    """Serve an app; yields the port. What is still open at the end is closed."""
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.graceful_timeout = 0.1
    for name, value in settings.items():
        setattr(config, name, value)
    config.errorlog = logging.getLogger("hypercorn.error")
    with guarded_connections() as streams:
        async with trio.open_nursery() as nursery:
            (url, *_) = await nursery.start(partial(hypercorn.trio.serve, app, config, mode="asgi"))
            try:
                yield int(url.rpartition(":")[2])
            finally:
                nursery.cancel_scope.cancel()
                for stream in list(streams):  # hypercorn waits, shielded, for clients that do not read
                    await trio.aclose_forcefully(stream)


def request(path: str, arguments: Any, *headers: str, length: int | None = None) -> bytes:
    """A POST of JSON."""
    body = json.dumps(arguments).encode()
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        f"Content-Length: {len(body) if length is None else length}",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def read_until(stream: trio.SocketStream, mark: bytes) -> bytes:
    """Read until something has come. Raises `EOFError`."""
    found = b""
    while mark not in found:
        part = await stream.receive_some()
        if not part:
            raise EOFError(found)
        found += part
    return found


class H2Client:
    """A client of HTTP/2 that says what it wants to, on one connection."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._h2 = H2Connection()
        self._h2.initiate_connection()
        self._bodies: dict[int, bytes] = {}
        self._ended: set[int] = set()

    async def post(self, tool: str, arguments: Any, *, path: bytes | None = None, end: bool = True) -> int:
        """Send a request, for a tool or for any path; returns its stream."""
        number: int = self._h2.get_next_available_stream_id()
        headers = [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":authority", b"localhost"),
            (b":path", path or tool.encode()),
            (b"content-type", b"application/json"),
        ]
        self._h2.send_headers(number, headers)
        self._h2.send_data(number, json.dumps(arguments).encode(), end_stream=end)
        await self._stream.send_all(self._h2.data_to_send())
        return number

    async def reset(self, number: int) -> None:
        """Leave one stream."""
        self._h2.reset_stream(number)
        await self._stream.send_all(self._h2.data_to_send())

    async def body_of(self, number: int) -> bytes:
        """Read until a stream has ended, and return its body."""
        while number not in self._ended:
            for event in self._h2.receive_data(await self._stream.receive_some()):
                if isinstance(event, DataReceived):
                    self._bodies[event.stream_id] = self._bodies.get(event.stream_id, b"") + event.data
                elif isinstance(event, StreamEnded):
                    self._ended.add(event.stream_id)
            await self._stream.send_all(self._h2.data_to_send())
        return self._bodies[number]


def events_of(text: str) -> list[tuple[str, Any]]:
    """The names and data of server-sent events; checks that their ids count up. Comments are left out."""
    found: list[tuple[str, Any]] = []
    for block in text.split("\n\n"):
        lines = [line.partition(": ")[::2] for line in block.splitlines() if not line.startswith(":")]
        if lines:
            fields = dict(lines)
            assert fields["id"] == str(len(found) + 1)
            found.append((fields["event"], json.loads("\n".join(value for name, value in lines if name == "data"))))
    return found
