"""The base of all servers of the wire contract."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import grpclib.server

from bridge_py.wire.messages.snakepit import bridge as messages


class ContractService(messages.BridgeServiceBase):
    """The service of the contract. A stream of it ends when the client of the stream has gone."""

    async def _call_rpc_handler_server_stream(
        self, handler: Callable[..., Any], stream: grpclib.server.Stream[Any, Any], request: Any
    ) -> None:
        # When a client has gone, the generated method leaves it to the garbage collector to close the generator.
        async with aclosing(handler(request)) as responses:
            async for response in responses:
                await stream.send_message(response)
