"""The base of all servers of the wire contract."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any, Final

import grpclib.const
import grpclib.server

from bridge_py.wire.messages.snakepit import bridge as messages

from .values import LARGE_VALUES, RAW

#: Whether the client of the request that is being answered reads large arrays in raw bytes.
READS_RAW: Final[ContextVar[bool]] = ContextVar("snakepit_reads_raw", default=False)


class ClosingStreams:
    """A service whose streams end when their clients have gone."""

    async def _call_rpc_handler_server_stream(
        self, handler: Callable[..., Any], stream: grpclib.server.Stream[Any, Any], request: Any
    ) -> None:
        # When a client has gone, the generated method leaves it to the garbage collector to close the generator.
        async with aclosing(handler(request)) as responses:
            async for response in responses:
                await stream.send_message(response)


class ContractService(ClosingStreams, messages.BridgeServiceBase):
    """The service of the contract.

    While a request is answered, `READS_RAW` tells which values its client can read.
    """

    def __mapping__(self) -> dict[str, grpclib.const.Handler]:
        return {name: handler._replace(func=_noting(handler.func)) for name, handler in super().__mapping__().items()}


def _noting(function: Callable[..., Any]) -> Callable[..., Any]:
    async def answer(stream: grpclib.server.Stream[Any, Any]) -> None:
        # The task of the request has this context for itself.
        READS_RAW.set(stream.metadata is not None and stream.metadata.get(LARGE_VALUES) == RAW)
        await function(stream)

    return answer
