"""Serves a dashboard by hypercorn, on trio, for the time of a block."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import trio

from bridge_py.contract.peers import OpenTo, why_no_client
from bridge_py.wire.errors import UsageError
from bridge_py.wire.extras import install
from snakepit_trio._util.log import get_logger
from snakepit_trio._util.nurseries import background_nursery
from snakepit_trio._util.validation import check_whole, refuse

from .app import DashboardApp

logger = get_logger("snakepit.dashboard")

_FAREWELL: Final = 1.0  # seconds in which browsers may read that the pool has ended
_BACKLOG: Final = 64


@asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def serving(app: DashboardApp, host: str, port: int, open_to: OpenTo) -> AsyncIterator[str]:
    """Serve the app during the block; yields the address of the page, with the token.

    After the block, browsers have a second to read that the pool has ended; then their connections are closed. Raises
    `UsageError` without hypercorn, and `OSError` for an address that cannot be used.
    """
    connections = _Connections(app, open_to)
    with trio.socket.from_stdlib_socket(_listen(host, port)) as listening:
        address = listening.getsockname()
        async with background_nursery() as nursery:
            nursery.start_soon(connections.serve, listening)  # noqa: ASYNC113 - connections wait until it serves
            try:
                yield f"http://{_in_url(host, address[0])}:{address[1]}/#token={app.token}"
            finally:
                app.close()
                with trio.CancelScope(shield=True):
                    await connections.end()


def _listen(host: str, port: int) -> socket.socket:
    if not isinstance(host, str) or not host:
        raise refuse("host", host, "give an address of this machine, such as '127.0.0.1'")
    check_whole("port", port, 0, 65535)
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except socket.gaierror as error:
        raise OSError(f"the dashboard cannot listen at {host}, port {port}: {error.strerror}") from error
    except OSError as error:
        told = os.strerror(error.errno or 0)
        raise OSError(error.errno, f"the dashboard cannot listen at {host}, port {port}: {told}") from error


def _in_url(host: str, address: str) -> str:
    # 0.0.0.0 stands for all addresses; a browser needs one.
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address if host != "localhost" else host)  # noqa: S104 - no bind
    return f"[{shown}]" if ":" in shown else shown


class _Connections:
    """The connections of one server.

    hypercorn's own loop is left out: it runs all connections in one nursery, which an error of one of its protocols
    ends, and it waits, shielded, for clients that do not read.
    """

    def __init__(self, app: DashboardApp, open_to: OpenTo) -> None:
        try:
            from hypercorn.config import Config
            from hypercorn.trio.tcp_server import TCPServer
            from hypercorn.trio.worker_context import WorkerContext
            from hypercorn.typing import ConnectionState
            from hypercorn.utils import wrap_app
        except ImportError as error:
            raise UsageError(
                f"a dashboard needs hypercorn, which cannot be imported ({error}): {install('serve')}"
            ) from error
        config = Config()
        config.errorlog = logging.getLogger("hypercorn.error")
        config.loglevel = "WARNING"
        config.include_server_header = False
        wrapped: Any = wrap_app(app, config.wsgi_max_body_size, "asgi")  # type: ignore[arg-type]  # hypercorn wants its own events
        context = WorkerContext(None)
        self._terminated = context.terminated
        self._make: Any = lambda stream: TCPServer(wrapped, config, context, ConnectionState({}), stream)
        self._open_to = open_to
        self._streams: dict[trio.SocketStream, None] = {}
        self._is_empty = trio.Event()

    async def serve(self, listening: trio.socket.SocketType) -> None:
        """Take connections until cancelled."""
        await trio.serve_listeners(self._run, [trio.SocketListener(listening)])

    async def _run(self, stream: trio.SocketStream) -> None:
        self._streams[stream] = None
        try:
            if self._open_to == "user" and (why := why_no_client(stream.socket, takes_other_machines=True)) is not None:
                logger.warning("a connection to the dashboard was refused: %s", why)
                await trio.aclose_forcefully(stream)
            else:
                await self._make(stream).run()
        except Exception as error:
            logger.warning("a connection to the dashboard was closed: %r", error)
        finally:
            del self._streams[stream]
            if not self._streams:
                self._is_empty.set()

    async def end(self) -> None:
        """Wait a moment for streams that end, and close what is left."""
        await self._terminated.set()  # connections without a request close at once
        with trio.move_on_after(_FAREWELL):
            while self._streams:
                self._is_empty = trio.Event()
                await self._is_empty.wait()
        for stream in list(self._streams):
            await trio.aclose_forcefully(stream)
