"""Attacks on a worker that listens for a link over TCP: each returns what the worker has said to it."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import grpclib.const

from bridge_py.http2 import BoundedChannel
from bridge_py.link.channel import LINK_METHOD, BatchCodec, remote_configuration
from bridge_py.tls import Material
from bridge_py.wire import codec
from bridge_py.wire.conversation import Conversation, Side
from bridge_py.wire.hellos import PROTOCOL_VERSION
from snakepit_trio.launchers.authority import Authority, LinkCertificates

Address = tuple[str, int]
_TIME: Final = 20.0  # seconds that an attack may take


class Kept(Authority):
    """An authority whose certificates a test can look at, and misuse."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.issued: list[LinkCertificates] = []

    def issue(self, worker_id: str) -> LinkCertificates:
        self.issued.append(super().issue(worker_id))
        return self.issued[-1]

    def expired_host(self) -> Material:
        """A certificate for a host that is over."""
        return self._root.sign("late host", None, datetime.now(UTC) - timedelta(minutes=1))[0]


def hello(secret: str) -> bytes:
    """The first batch of a host."""
    conversation = Conversation(Side.HOST)
    conversation.hello(codec.encode_plain({"protocol": PROTOCOL_VERSION, "secret": secret, "pid": 1}))
    return conversation.data_to_send()


def without_certificate(ca: str) -> ssl.SSLContext:
    """The context of a client that has nothing to show."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=ca)
    context.set_alpn_protocols(["h2"])
    return context


async def open_link(address: Address, context: ssl.SSLContext, name: str, first: bytes | None) -> list[bytes]:
    """Open a link like a host, say `first`, and read what comes. Raises what a host would see."""
    channel = BoundedChannel(*address, codec=BatchCodec(), ssl=context, config=remote_configuration(name))
    heard: list[bytes] = []
    try:
        async with asyncio.timeout(_TIME):
            stream_stream = grpclib.const.Cardinality.STREAM_STREAM
            async with channel.request(LINK_METHOD, stream_stream, bytes, bytes) as stream:
                await stream.send_request()
                if first is not None:
                    await stream.send_message(first)
                while (data := await stream.recv_message()) is not None:
                    heard.append(data)
    finally:
        channel.close()
        channel.abort()
    return heard


async def say_plainly(address: Address, words: bytes) -> bytes:
    """Say something without TLS, and read until the end."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        async with asyncio.timeout(_TIME):
            writer.write(words)
            await writer.drain()
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def send_frames(address: Address, context: ssl.SSLContext, name: str, frames: bytes) -> bytes:
    """Say something inside of TLS that is no request, and read until the end."""
    reader, writer = await asyncio.open_connection(*address, ssl=context, server_hostname=name)
    try:
        async with asyncio.timeout(_TIME):
            writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frames)
            return await reader.read()
    except (ConnectionError, ssl.SSLError):
        return b""
    finally:
        writer.transport.abort()


def frame(kind: int, size: int, stream: int = 0) -> bytes:
    """A frame of HTTP/2 that says it has so many bytes, and has them."""
    return size.to_bytes(3) + bytes([kind, 0]) + struct.pack(">I", stream) + bytes(size)


def too_large() -> bytes:
    """The head of a message of a gibibyte."""
    return b"\0" * 100_000_000


def run(attack: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run an attack in a thread of its own; returns what was heard, or the exception."""
    try:
        return asyncio.run(attack())
    except Exception as error:
        return error


class Flood:
    """Connections from another address of this machine, made again and again until the block is over."""

    def __init__(self, address: Address, first: Callable[[], bytes], source: str, most: int = 200) -> None:
        self._address = address
        self._first = first
        self._source = source
        self._most = most
        self.made = 0

    async def run(self) -> None:
        """Flood until cancelled."""
        while True:
            await asyncio.gather(*(self._one(number) for number in range(self._most)), return_exceptions=True)

    async def _one(self, number: int) -> None:
        reader, writer = await asyncio.open_connection(*self._address, local_addr=(self._source, 0))
        self.made += 1
        try:
            async with asyncio.timeout(2):
                for byte in self._first():  # one at a time, as slowly as is allowed
                    writer.write(bytes([byte]))
                    await asyncio.sleep(0.02)
                await reader.read()
        finally:
            writer.transport.abort()


def client_hello() -> bytes:
    """The first flight of a client whose second never comes."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    to_read, to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        context.wrap_bio(to_read, to_send, server_hostname="x").do_handshake()
    except ssl.SSLWantReadError:
        return to_send.read()
    raise AssertionError("a handshake without a server")


def listening(context: ssl.SSLContext, heard: list[bytes]) -> tuple[socket.socket, Callable[[], None]]:
    """A TLS server that pretends to be a worker; `heard` gets what its clients say inside of TLS."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            try:
                with context.wrap_socket(connection, server_side=True) as made:
                    heard.append(made.recv(65536))
            except OSError:
                pass

    return server, serve
