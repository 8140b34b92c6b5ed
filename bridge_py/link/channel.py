"""What both ends of a link's gRPC channel have in common: the method, the codec, the settings."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final

from grpclib.config import Configuration
from grpclib.encoding.base import CodecBase

from bridge_py.wire.errors import RemoteProtocolError

if TYPE_CHECKING:
    import grpclib.protocol

LINK_METHOD: Final = "/snakepit.bridge.Link/Open"
WINDOW_BYTES: Final = 16 * 1024 * 1024


class BatchCodec(CodecBase):
    """Lets grpclib send and receive `Batch` messages as bytes, in which form they are already."""

    # The same as that of grpclib's own codec, for which grpclib's hints want a property.
    __content_subtype__ = "proto"  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]

    def encode(self, message: Any, message_type: Any) -> bytes:
        """Return the message, which is bytes already."""
        data: bytes = message
        return data

    def decode(self, data: bytes, message_type: Any) -> bytes:
        """Return the bytes as they came."""
        return data


def link_configuration() -> Configuration:
    """Return the HTTP/2 settings of both ends: windows so large that flow control never adds a round trip."""
    return Configuration(http2_connection_window_size=WINDOW_BYTES, http2_stream_window_size=WINDOW_BYTES)


def remote_configuration(server_name: str) -> Configuration:
    """Return the settings of a host's end over TCP; `server_name` is the name in the worker's certificate."""
    return dataclasses.replace(link_configuration(), ssl_target_name_override=server_name)


def bound_batches(stream: grpclib.protocol.Stream, max_batch: int) -> None:
    """Have a stream raise `RemoteProtocolError` for a batch of more than `max_batch` bytes.

    grpclib itself would hold a message of any size before anybody could look at it.
    """
    receive = stream.recv_data

    async def receive_data(size: int) -> bytes:
        if size > max_batch:
            raise RemoteProtocolError(f"a batch of {size} bytes is over the limit of {max_batch} bytes")
        return await receive(size)

    stream.recv_data = receive_data  # type: ignore[method-assign]  # of this stream alone
