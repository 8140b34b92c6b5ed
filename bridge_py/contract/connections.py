"""Servers and channels that look who is at the other end, beside the limits that all have."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from grpclib.events import SendInitialMetadata, listen

from bridge_py.http2 import BoundedChannel, BoundedServer

from .peers import OpenTo, why_no_client, why_no_server
from .values import LARGE_VALUES, RAW

if TYPE_CHECKING:
    import grpclib.protocol


class GuardedServer(BoundedServer):
    """A server for one service, with limits.

    `open_to` says who may connect: "user" for programs of this user and of root, "machine" for all of this machine.
    All other connections are closed at once.
    """

    def __init__(self, service: Any, open_to: OpenTo) -> None:
        super().__init__(service)
        self._open_to: OpenTo = open_to
        listen(self, SendInitialMetadata, _tell)

    def why_not(self, transport: asyncio.BaseTransport) -> str | None:
        """Why a new connection is refused; None if it is taken."""
        if self._open_to == "user" and (why := why_no_client(transport.get_extra_info("socket"))) is not None:
            return f'{why}: it is refused, because only this user and root may connect (open_to="user")'
        return super().why_not(transport)


async def _tell(event: SendInitialMetadata) -> None:
    event.metadata[LARGE_VALUES] = RAW


class GuardedChannel(BoundedChannel):
    """A channel with limits, to a Unix socket (`path`) or to a TCP port.

    With `check_server` it uses a port only if it is served by this user or by root: connecting raises
    `PermissionError` otherwise.
    """

    def __init__(self, host: str | None, port: int | None, path: str | None, *, check_server: bool) -> None:
        super().__init__(host, port, path=path)
        self._checks = check_server and path is None

    async def _create_connection(self) -> grpclib.protocol.H2Protocol:
        protocol = await super()._create_connection()
        try:
            # The port may be another program's by now. So this looks after connecting: a program that has the
            # connection, and that served the port before, still serves it.
            if self._checks and (why := why_no_server(self._host, self._port)) is not None:
                raise PermissionError(f"{why}: it is not used")
        except BaseException:
            cast("Any", protocol).transport.abort()
            raise
        return protocol
