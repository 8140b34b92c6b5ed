"""The door of a server with TLS: it asks and counts clients before their handshakes, and ends slow handshakes."""

from __future__ import annotations

import asyncio
import socket
import ssl
from functools import partial
from typing import Final, Protocol

from bridge_py.wire.readable import readable

HANDSHAKE: Final = 10.0  # seconds that a handshake may take, and the goodbye of a connection
_AT_ONCE: Final = 16  # handshakes; each may hold up the loop for a millisecond, and all of them in the same turn
_PAUSE: Final = 1.0  # seconds without new connections when the process has no room for one


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

    asyncio's own server would ask and count only after the handshake, so half-done handshakes would have no bound.
    """

    def __init__(self, keeper: Doorkeeper, listener: socket.socket, context: ssl.SSLContext) -> None:
        self._keeper = keeper
        self._listener = listener
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._handshakes: set[asyncio.Task[None]] = set()
        self._room = asyncio.Semaphore(_AT_ONCE)
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
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionError):
            return  # the client has gone already
        except OSError as error:
            self._keeper.warn(f"no connection is accepted for {_PAUSE:g} s: {error}")
            self._loop.remove_reader(self._listener)
            self._loop.call_later(_PAUSE, self._watch)
            return
        if (why := self._keeper.why_not(connection)) is not None:
            self._keeper.warn(why)
            connection.close()
            return
        self._keeper.arriving += 1
        self._unowned.add(connection)
        task = asyncio.ensure_future(self._greet(connection))
        self._handshakes.add(task)
        task.add_done_callback(partial(self._leave, connection))

    async def _greet(self, connection: socket.socket) -> None:
        try:
            async with asyncio.timeout(HANDSHAKE):
                await self._until_it_speaks(connection)  # who says nothing takes no room from others
                async with self._room:
                    await self._shake_hands(connection)
        except Exception as error:
            # Most are the peer's doing. Others must not be lost either, and the server goes on.
            text = readable(str(error)) or f"not done within {HANDSHAKE:g} s"
            self._keeper.warn(f"a connection is closed: TLS with its client failed: {text}")

    async def _until_it_speaks(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        spoken = asyncio.Event()
        self._loop.add_reader(connection, spoken.set)
        try:
            await spoken.wait()
        finally:
            self._loop.remove_reader(connection)

    async def _shake_hands(self, connection: socket.socket) -> None:
        self._unowned.discard(connection)
        await self._loop.connect_accepted_socket(
            self._keeper.welcome,
            connection,
            ssl=self._context,
            ssl_handshake_timeout=HANDSHAKE,
            ssl_shutdown_timeout=HANDSHAKE,
        )

    def _leave(self, connection: socket.socket, task: asyncio.Task[None]) -> None:
        self._handshakes.discard(task)
        self._keeper.arriving -= 1
        if connection in self._unowned:
            self._unowned.remove(connection)
            connection.close()
