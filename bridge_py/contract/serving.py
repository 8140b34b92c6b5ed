"""What all servers of the wire contract share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import grpclib.server

from bridge_py.wire.messages.snakepit import bridge as messages


class ContractService(messages.BridgeServiceBase):
    """The service, whose streams end when their client has gone."""

    async def _call_rpc_handler_server_stream(
        self, handler: Callable[..., Any], stream: grpclib.server.Stream[Any, Any], request: Any
    ) -> None:
        # The generated one leaves the end of a generator whose client has gone to the garbage collector.
        async with aclosing(handler(request)) as responses:
            async for response in responses:
                await stream.send_message(response)
