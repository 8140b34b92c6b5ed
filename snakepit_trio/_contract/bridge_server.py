"""The servers that the service of the wire contract has: one for each foreign worker, and one for clients."""

from __future__ import annotations

import asyncio
from typing import Final

import trio

from bridge_py.contract.connections import NO_CREDENTIALS, GuardedServer
from bridge_py.contract.credentials import Credentials
from bridge_py.contract.listening import NEEDS, listen
from bridge_py.contract.peers import OpenTo
from bridge_py.wire.errors import UsageError
from snakepit_trio._util.asyncio_loop import AsyncioLoop

from .registrations import RegistrationCodec
from .server import BridgeService

_TURNS: Final = 5  # of the event loop


class ContractServer(GuardedServer):
    """A server that also closes its connections when it ends."""

    def __init__(self, service: BridgeService, open_to: OpenTo, credentials: Credentials = NO_CREDENTIALS) -> None:
        super().__init__(service, open_to, credentials, codec=RegistrationCodec())

    async def end(self) -> None:
        """Cancel all running RPCs, wait for their end, and close all connections."""
        self.close()
        await self.wait_arrived()
        running = [handler.wait_closed() for handler in self._handlers]
        await asyncio.gather(*running, return_exceptions=True)
        # A client that was accepted in this turn gets its protocol in the next, and its connection in the one after.
        for _ in range(_TURNS):
            for protocol in list(self.connections):
                protocol.connection.close()
            await asyncio.sleep(0)
        self.abort()
        await asyncio.sleep(0)


class BridgeServer:
    """Serves a service at an address, "host:port". Port 0 stands for a free port. It listens from the start.

    `open_to` says who may connect, and `credentials` have the token and the TLS context that clients need. Raises
    `UsageError` if the address is malformed, if other machines reach it and the credentials do not suffice for that, or
    if it cannot be had.
    """

    def __init__(self, address: str, service: BridgeService, open_to: OpenTo, credentials: Credentials) -> None:
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit():
            raise UsageError(f'bridge_server={address!r}: write it as "127.0.0.1:50051", or True for a free port')
        try:
            self._listener = listen(host, int(port), other_machines=credentials.suffice)
        except PermissionError as error:
            remedy = ": give both, bridge_tls= and bridge_token=, or listen at 127.0.0.1" if str(error) == NEEDS else ""
            raise UsageError(f"bridge_server: {address} cannot be had: {error}{remedy}") from None
        except OSError as error:
            raise UsageError(f"bridge_server: {address} cannot be had: {error}") from None
        self.address = f"{host}:{self._listener.getsockname()[1]}"
        self._service = service
        self._open_to: OpenTo = open_to
        self._credentials = credentials

    async def run(  # noqa: ASYNC128 - started where it serves
        self, loop: AsyncioLoop, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until cancelled."""
        with self._listener:
            await loop.run_coroutine(self._serve(task_status))

    async def _serve(self, task_status: trio.TaskStatus[None]) -> None:
        server = ContractServer(self._service, self._open_to, self._credentials)
        await server.serve(self._listener)
        task_status.started()
        try:
            await asyncio.Event().wait()
        finally:
            await server.end()  # noqa: ASYNC102 - asyncio's turn, once
