"""The servers that the service of the wire contract has: one for each foreign worker, and one for clients."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

import trio

from bridge_py.contract.connections import NO_CREDENTIALS, GuardedServer
from bridge_py.contract.credentials import Credentials
from bridge_py.contract.health import Serving
from bridge_py.contract.listening import NEEDS, listen
from bridge_py.contract.peers import OpenTo
from bridge_py.contract.reflection import described
from bridge_py.wire.errors import UsageError
from snakepit_trio._util.asyncio_loop import AsyncioLoop, in_trio
from snakepit_trio._util.changes import Changes

from .quick_answers import quick_answers
from .registrations import RegistrationCodec
from .server import BridgeService

_TURNS: Final = 5  # of the event loop


class ContractServer(GuardedServer):
    """A server that also closes its connections when it ends.

    `services` are what it serves: the service itself and others beside it, or the service alone.
    """

    def __init__(
        self,
        service: BridgeService,
        open_to: OpenTo,
        credentials: Credentials = NO_CREDENTIALS,
        services: Sequence[Any] = (),
    ) -> None:
        answers = quick_answers(service, service.access)
        super().__init__(services or [service], open_to, credentials, codec=RegistrationCodec(), answers=answers)

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


class PoolServing(Serving):
    """Whether a pool takes calls: `is_serving` says so, and may say something else after each of the changes."""

    def __init__(self, is_serving: Callable[[], bool], changes: Changes) -> None:
        self._is_serving = is_serving
        self._changes = changes

    def is_serving(self) -> bool:
        """Whether the pool has a worker that takes calls, and does not close."""
        return self._is_serving()

    async def until(self, serving: bool) -> None:
        """Wait, in asyncio, until `is_serving()` is `serving`."""
        await in_trio(self._until, serving)

    async def _until(self, serving: bool) -> None:
        # It looks and begins to wait in one step of trio, so it misses no change.
        while self._is_serving() != serving:
            await self._changes.wait()


class BridgeServer:
    """Serves a service at an address, "host:port", with gRPC's health and reflection services beside it.

    Port 0 stands for a free port. It listens from the start.

    `open_to` says who may connect, and `credentials` have the token and the TLS context that clients need. Raises
    `UsageError` if the address is malformed, if other machines reach it and the credentials do not suffice for that, or
    if nobody can listen there.
    """

    def __init__(
        self, address: str, service: BridgeService, serving: Serving, open_to: OpenTo, credentials: Credentials
    ) -> None:
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or len(port) > 5 or int(port) > 65535:
            raise UsageError(f'bridge_server={address!r}: write it as "127.0.0.1:50051", or True for a free port')
        try:
            self._listener = listen(host, int(port), other_machines=credentials.suffice)
        except PermissionError as error:
            remedy = ": give both, bridge_tls= and bridge_token=, or listen at 127.0.0.1" if str(error) == NEEDS else ""
            raise UsageError(f"bridge_server: {address} cannot be used: {error}{remedy}") from None
        except OSError as error:
            raise UsageError(f"bridge_server: {address} cannot be used: {error}") from None
        self.address = f"{host}:{self._listener.getsockname()[1]}"
        self._service = service
        self._services = described(service, serving)
        self._open_to: OpenTo = open_to
        self._credentials = credentials

    async def run(  # noqa: ASYNC128 - started where it serves
        self, loop: AsyncioLoop, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until cancelled."""
        with self._listener:
            await loop.run_coroutine(self._serve(task_status))

    async def _serve(self, task_status: trio.TaskStatus[None]) -> None:
        server = ContractServer(self._service, self._open_to, self._credentials, self._services)
        await server.serve(self._listener)
        task_status.started()
        try:
            await asyncio.Event().wait()
        finally:
            await server.end()  # noqa: ASYNC102 - asyncio's turn, once
