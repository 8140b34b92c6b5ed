"""A grpc.aio server with the same tools, as generic handlers of bytes: `python -m benchmarks.grpc_server PATH`."""

from __future__ import annotations

import asyncio
import pickle
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio

UNBOUNDED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


async def _empty(request: bytes, _context: Any) -> bytes:  # noqa: ASYNC124 - grpc.aio wants coroutines
    return request


async def _count(request: bytes, _context: Any) -> AsyncIterator[bytes]:  # noqa: ASYNC124 - as above
    for number in range(int(request)):
        yield b"%d" % number


async def _increase(request: bytes, _context: Any) -> bytes:  # noqa: ASYNC124 - as above
    import numpy as np

    result: bytes = (np.frombuffer(request) + 1).tobytes()
    return result


async def _send_back(request: bytes, _context: Any) -> bytes:  # noqa: ASYNC124 - as above
    return pickle.dumps(pickle.loads(request), 5)


async def main() -> None:
    """Serve until killed."""
    server = grpc.aio.server(options=UNBOUNDED)
    handlers = {
        "Empty": grpc.unary_unary_rpc_method_handler(_empty),
        "Increase": grpc.unary_unary_rpc_method_handler(_increase),
        "SendBack": grpc.unary_unary_rpc_method_handler(_send_back),
        "Count": grpc.unary_stream_rpc_method_handler(_count),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Bench", handlers),))
    server.add_insecure_port(f"unix:{sys.argv[1]}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
