"""Servers and channels that check who is at the other end, and keep the limits that all of ours have."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from grpclib.events import SendInitialMetadata, listen

from bridge_py.http2 import BoundedProcessor, BoundedServer
from bridge_py.tls import HANDSHAKE, TlsDoor

from .at_once import AnsweringProcessor, Answers
from .credentials import Credentials
from .health import CHECK
from .light_streams import LightConnection
from .listening import NEEDS, Address, is_loopback
from .peers import OpenTo, why_no_client, why_no_server
from .quick_requests import QuickProcessor
from .requests import RequestChannel
from .values import LARGE_VALUES, RAW

if TYPE_CHECKING:
    import grpclib.protocol
    from grpclib.encoding.base import CodecBase

NO_CREDENTIALS: Final = Credentials()
_ALPN: Final = ["h2"]  # clients of gRPC demand it


class GuardedServer(BoundedServer):
    """A server with limits.

    `open_to` says who may connect: "user" for programs of this user and of root, "machine" for all of this machine.
    All other connections are closed at once. With a token among the `credentials`, each request must have it, else it
    ends with UNAUTHENTICATED; only health checks need no token. With both a token and TLS, connections of other
    machines are taken too. Requests that `answers` can answer at once get no task.
    """

    def __init__(
        self,
        services: Sequence[Any],
        open_to: OpenTo,
        credentials: Credentials = NO_CREDENTIALS,
        codec: CodecBase | None = None,
        answers: Answers | None = None,
    ) -> None:
        super().__init__(services, codec)
        self.h2_connection = LightConnection
        self._open_to: OpenTo = open_to
        self._credentials = credentials
        self._answers = answers or {}
        if credentials.token is not None:
            self.why_not_request = credentials.why_not
            self.open_paths = {CHECK}
        self._door: TlsDoor | None = None
        listen(self, SendInitialMetadata, _tell)

    async def serve(self, listener: socket.socket) -> None:
        """Begin to serve at a socket that listens."""
        if self._credentials.tls is None:
            await self.start(sock=listener)
            return
        self._credentials.tls.set_alpn_protocols(_ALPN)
        self._door = TlsDoor(self, listener, self._credentials.tls)
        self._server = cast("asyncio.AbstractServer", self._door)  # it has what grpclib calls of it
        self._server_closed_fut = asyncio.get_running_loop().create_future()

    async def wait_arrived(self) -> None:
        """Wait until no connection is about to become one. Call it after `close`."""
        if self._door is not None:
            await self._door.wait_closed()

    def make_processor(
        self, handler: grpclib.protocol.AbstractHandler, connection: grpclib.protocol.Connection
    ) -> BoundedProcessor:
        """Make what handles the events of a new connection."""
        return AnsweringProcessor(handler, connection, self.why_not_request, self._answers)

    def why_not(self, connection: Any) -> str | None:
        """Why a new connection, of a socket, is refused; None if it is taken."""
        if self._open_to == "user":
            why = why_no_client(connection, takes_other_machines=self._credentials.suffice)
            if why is not None:
                return f'{why}: it is refused, because only this user and root may connect (open_to="user")'
        return super().why_not(connection)


async def _tell(event: SendInitialMetadata) -> None:  # noqa: ASYNC124 - grpclib awaits it
    event.metadata[LARGE_VALUES] = RAW


class GuardedChannel(RequestChannel):
    """A channel with limits, to a Unix socket (`path`) or to a TCP port.

    With `check_server` it uses a port only if it is served by this user or by root: connecting raises
    `PermissionError` otherwise. It raises that too if another machine is at the end, and the `credentials` do not
    suffice for that.
    """

    _processor = QuickProcessor

    def __init__(self, address: Address, credentials: Credentials, *, check_server: bool) -> None:
        super().__init__(address.host, address.port, path=address.path, ssl=credentials.tls)
        if credentials.tls is not None:
            credentials.tls.set_alpn_protocols(_ALPN)
        self._checks = check_server and address.path is None
        self._credentials = credentials

    @property
    def quick(self) -> QuickProcessor | None:
        """What makes requests at once on the connection; None if a request needs a new connection."""
        return cast("QuickProcessor", cast("Any", self._protocol).processor) if self.is_connected else None

    async def _create_connection(self) -> grpclib.protocol.H2Protocol:
        protocol = await self._connect()
        try:
            self._check_reach(protocol)
            # The port may be another program's by now. So this looks after connecting: a program that has the
            # connection, and that served the port before, still serves it.
            if self._checks and (why := why_no_server(self._host, self._port)) is not None:
                raise PermissionError(f"{why}: it is not used")
        except BaseException:
            cast("Any", protocol).transport.abort()
            raise
        return protocol

    async def _connect(self) -> grpclib.protocol.H2Protocol:
        if self._credentials.tls is None:
            return await super()._create_connection()
        try:
            async with asyncio.timeout(HANDSHAKE):
                return await super()._create_connection()
        except TimeoutError:
            raise ConnectionError(f"there was no connection with TLS within {HANDSHAKE:g} s") from None

    def _check_reach(self, protocol: grpclib.protocol.H2Protocol) -> None:
        # A name may stand for any address, so this looks at the connection. No request has been sent yet.
        if self._path is not None or self._credentials.suffice:
            return
        peer = cast("Any", protocol).transport.get_extra_info("peername")
        if peer is None:
            raise ConnectionError("the connection was lost at once")
        if not is_loopback(peer[0]):
            raise PermissionError(NEEDS)
