"""A client of the wire contract, for trio. Its peer is any host or worker that serves the contract."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from functools import partial
from typing import Any, TypeVar

import trio

from bridge_py.contract.client import AsyncioClient
from bridge_py.contract.client_base import ClientBase
from bridge_py.contract.credentials import Credentials, reachable
from bridge_py.wire.any_values import LargeValues
from bridge_py.wire.public_names import expose
from snakepit_trio._util.asyncio_loop import AsyncioLoop
from snakepit_trio._util.blocks import block
from snakepit_trio._util.nurseries import background_nursery
from snakepit_trio._util.ownership import require_trio

R = TypeVar("R")


class Client(ClientBase):
    """A client of the wire contract, made by `open_client`. Cancelling a call cancels it at the peer if possible."""

    def __init__(self, loop: AsyncioLoop, inner: AsyncioClient) -> None:
        self.allow_pickle = inner.allow_pickle
        self._loop = loop
        self._inner = inner

    async def _form(self) -> LargeValues:
        require_trio()
        form: LargeValues = await self._loop.run_coroutine(self._inner._form())
        return form

    async def _call(self, rpc: str, request: Any, response: type[R], timeout: float | None = None) -> R:
        require_trio()
        answer: R = await self._loop.run_coroutine(self._inner._call(rpc, request, response, timeout))
        return answer

    async def _stream(self, rpc: str, requests: Any, response: type[R]) -> AsyncGenerator[R, None]:
        require_trio()
        inner = self._inner._stream(rpc, requests, response)
        try:
            while (item := await self._loop.run_coroutine(_next(inner))) is not None:
                yield item
        finally:
            with trio.CancelScope(shield=True):
                await self._loop.run_coroutine(_close(inner))  # noqa: ASYNC102 - it sends one frame


@block("async with snakepit_trio.open_client(...) as client")
async def open_client(
    address: str,
    *,
    connect_timeout: float = 5.0,
    allow_pickle: bool = False,
    token: str | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Client]:
    """Open a client of the peer at an address, "host:port" or "unix:/path/to/socket".

    Use it as `async with open_client(pool.bridge_address) as client`. The client connects at the first call. When the
    connection has been lost, the client connects again at the next call. `connect_timeout`, in seconds, is how long it
    waits for a peer that is not there yet. `allow_pickle` lets the peer send arrays as pickles, of which only numbers
    are read.

    `token` is the peer's `bridge_token`. `tls` is a context for TLS with a peer at "host:port", such as
    `ssl.create_default_context(cafile="ca.pem")`; it must check the peer's certificate, and its ALPN protocols are set
    to "h2". An address that is not on this machine needs both: without them nothing is sent to it.

    Raises `UsageError` for an invalid address, token or context, without the two for an address in numbers that is not
    on this machine, and outside of trio.
    """
    require_trio()
    reachable(address, Credentials(token, tls))  # before anything is opened
    async with background_nursery() as nursery:
        loop = AsyncioLoop()
        await nursery.start(loop.run)
        make = partial(AsyncioClient, address, connect_timeout=connect_timeout, allow_pickle=allow_pickle)
        inner = await loop.run_coroutine(_make(partial(make, token=token, tls=tls)))
        try:
            yield Client(loop, inner)  # noqa: ASYNC119 - `block` makes a context manager
        finally:
            inner.close()


async def _make(make: Callable[[], AsyncioClient]) -> AsyncioClient:  # noqa: ASYNC124 - in the loop
    return make()


async def _next(items: AsyncGenerator[R, None]) -> R | None:
    # A future of asyncio cannot hold a StopAsyncIteration.
    async for item in items:
        return item
    return None


async def _close(items: AsyncGenerator[Any, None]) -> None:
    await items.aclose()


expose("snakepit_trio", {"Client": Client, "open_client": open_client})
