"""TLS for servers and for links: the contexts of mutual TLS, and the door of a server.

The door asks and counts clients before their handshakes, and ends slow handshakes.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
from collections import deque
from functools import partial
from typing import Final, Protocol

import msgspec

from bridge_py.wire.errors import UsageError
from bridge_py.wire.readable import readable

HANDSHAKE: Final = 10.0  # seconds that a handshake may take, and the goodbye of a connection
_AT_ONCE: Final = 16  # handshakes; each may hold up the loop for a millisecond, and all of them in the same turn
_PAUSE: Final = 1.0  # seconds without new connections when the process has no room for one
_LOOK_AGAIN: Final = 0.05  # seconds between two looks whether a client has said all of its first words
_RECORD: Final = 5  # bytes of the head of a TLS record; the last two are the size of the rest
_HANDSHAKE_RECORD: Final = 22
_MOST_IN_RECORD: Final = 1 << 14
_FAIR: Final = 1.0  # seconds that a connection has, if its address has too many
_ALPN: Final = ["h2"]


class Material(msgspec.Struct, frozen=True):
    """What one side of mutual TLS needs, as PEM: its certificate and key, and who signs the other side's."""

    ca: str
    certificate: str
    key: str = msgspec.field()

    def __repr__(self) -> str:
        return "Material(...)"  # nobody must log the key

    def server(self) -> ssl.SSLContext:
        """The context of a server that takes clients with a certificate for clients only. Raises `UsageError`."""
        context = self._fill(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        context.verify_mode = ssl.CERT_REQUIRED
        context.num_tickets = 0  # there is one link, which is never resumed
        return context

    def client(self) -> ssl.SSLContext:
        """The context of a client that checks its server's certificate and name. Raises `UsageError`."""
        return self._fill(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))

    def _fill(self, context: ssl.SSLContext) -> ssl.SSLContext:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.set_alpn_protocols(_ALPN)
        try:
            context.load_verify_locations(cadata=self.ca)
            _load_chain(context, self.certificate + "\n" + self.key)
        except (ssl.SSLError, ValueError) as error:
            raise UsageError(
                f"these certificates cannot be used: {error}: give the authority's certificate, the own certificate"
                " and its key, without a password, as PEM"
            ) from None
        return context


def _load_chain(context: ssl.SSLContext, text: str) -> None:
    # Python's ssl reads keys from files only. This file is memory of this process, and gone when it is read.
    file = os.memfd_create("snakepit-tls")
    try:
        with open(file, "w", encoding="ascii", closefd=False) as writing:
            writing.write(text)
        context.load_cert_chain(f"/proc/self/fd/{file}", password=_no_password)
    finally:
        os.close(file)


def _no_password() -> str:
    raise ValueError("the key has a password")  # OpenSSL would ask for it at the terminal


_Arrival = tuple[float, asyncio.Task[None]]


class Doorkeeper(Protocol):
    """A server behind a door: which connections it takes, and what it makes of them."""

    arriving: int  # connections that have not finished their handshakes

    def why_not(self, connection: socket.socket, /) -> str | None:
        """Why a new connection is refused; None if it is taken."""
        ...

    def welcome(self) -> asyncio.BaseProtocol:
        """The protocol of a connection that is taken."""
        ...

    def warn(self, text: str, /) -> None:
        """Log a warning."""


class TlsDoor:
    """Accepts connections at a socket until it is closed, and makes TLS with each of them beside the others.

    A handshake may take `handshake` seconds, 10 by default; `at_once` of them run at a time. One address may have
    `most_of_one` connections that have not finished theirs, or else the oldest of them ends; None for no such bound.
    asyncio's own server would ask and count only after the handshake, so half-done handshakes would have no bound.
    """

    def __init__(
        self,
        keeper: Doorkeeper,
        listener: socket.socket,
        context: ssl.SSLContext,
        *,
        handshake: float | None = None,
        at_once: int = _AT_ONCE,
        most_of_one: int | None = None,
    ) -> None:
        self._keeper = keeper
        self._handshake = HANDSHAKE if handshake is None else handshake
        self._most_of_one = most_of_one
        self._arriving_from: dict[str, deque[_Arrival]] = {}  # by address, the oldest first
        self._listener = listener
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._handshakes: set[asyncio.Task[None]] = set()
        self._room = asyncio.Semaphore(at_once)
        self._unowned: set[socket.socket] = set()  # connections that no transport closes yet
        self._is_open = True
        listener.setblocking(False)
        self._watch()

    def close(self) -> None:
        """Accept no more connections, and end the handshakes."""
        if self._is_open:
            self._is_open = False
            self._loop.remove_reader(self._listener)
            for task in self._handshakes:
                task.cancel()

    async def wait_closed(self) -> None:
        """Wait until the handshakes have ended."""
        await asyncio.gather(*self._handshakes, return_exceptions=True)

    def _watch(self) -> None:
        if self._is_open:
            self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        # One connection in a turn of the loop, so that many of them leave others their turns.
        try:
            connection, address = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionError):
            return  # the client has gone already
        except OSError as error:
            self._keeper.warn(f"no connection is accepted for {_PAUSE:g} s: {error}")
            self._loop.remove_reader(self._listener)
            self._loop.call_later(_PAUSE, self._watch)
            return
        peer = str(address[0]) if address else ""
        if (why := self._why_not_more(peer) or self._keeper.why_not(connection)) is not None:
            self._keeper.warn(why)
            connection.close()
            return
        self._keeper.arriving += 1
        self._unowned.add(connection)
        task = asyncio.ensure_future(self._greet(connection))
        self._handshakes.add(task)
        arrival = time.monotonic(), task
        self._arriving_from.setdefault(peer, deque()).append(arrival)
        task.add_done_callback(partial(self._leave, connection, peer, arrival))

    def _why_not_more(self, peer: str) -> str | None:
        arrivals: deque[_Arrival] = self._arriving_from.get(peer, deque())
        if self._most_of_one is None or len(arrivals) < self._most_of_one:
            return None
        came, oldest = arrivals[0]
        if time.monotonic() - came > _FAIR:  # it has had its time, and makes room for a client that may be honest
            oldest.cancel()
            return None
        return f"a connection is refused: {peer} has {self._most_of_one} that have not finished their handshakes"

    async def _greet(self, connection: socket.socket) -> None:
        try:
            async with asyncio.timeout(self._handshake):
                await self._until_it_speaks(connection)  # a client that says nothing takes no room from others
                async with self._room:
                    await self._shake_hands(connection)
        except Exception as error:
            # Most are the peer's doing. Others must not be lost either, and the server goes on.
            text = readable(str(error)) or f"not done within {self._handshake:g} s"
            self._keeper.warn(f"a connection is closed: TLS with its client failed: {text}")

    async def _until_it_speaks(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        spoken = asyncio.Event()
        self._loop.add_reader(connection, spoken.set)
        try:
            await spoken.wait()
        finally:
            self._loop.remove_reader(connection)
        while not _has_said_hello(connection):  # noqa: ASYNC110 - a socket with half a record is readable all the time
            await asyncio.sleep(_LOOK_AGAIN)

    async def _shake_hands(self, connection: socket.socket) -> None:
        self._unowned.discard(connection)
        await self._loop.connect_accepted_socket(
            self._keeper.welcome,
            connection,
            ssl=self._context,
            ssl_handshake_timeout=self._handshake,
            ssl_shutdown_timeout=HANDSHAKE,
        )

    def _leave(self, connection: socket.socket, peer: str, arrival: _Arrival, task: asyncio.Task[None]) -> None:
        self._handshakes.discard(task)
        self._keeper.arriving -= 1
        self._arriving_from[peer].remove(arrival)
        if not self._arriving_from[peer]:
            del self._arriving_from[peer]
        if connection in self._unowned:
            self._unowned.remove(connection)
            connection.close()


def _has_said_hello(connection: socket.socket) -> bool:
    """Whether the first record of a client has come as a whole, or the client has ended. Who dribbles takes no room."""
    head = connection.recv(_RECORD, socket.MSG_PEEK)
    if len(head) < _RECORD:
        return not head
    size = int.from_bytes(head[3:])
    if head[0] != _HANDSHAKE_RECORD or size > _MOST_IN_RECORD:
        return True  # this is no TLS: the handshake says so
    return len(connection.recv(_RECORD + size, socket.MSG_PEEK)) == _RECORD + size
