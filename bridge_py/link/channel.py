"""What both ends of a link's gRPC channel have in common: the method, the codec, the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from grpclib.config import Configuration
from grpclib.encoding.base import CodecBase

from bridge_py.wire.errors import RemoteProtocolError

if TYPE_CHECKING:
    import grpclib.protocol

LINK_METHOD: Final = "/snakepit.bridge.Link/Open"
WINDOW_BYTES: Final = 16 * 1024 * 1024
_HEAD_BYTES: Final = 5  # gRPC's own: whether the message is compressed, and its size


class BatchCodec(CodecBase):
    """Lets grpclib send and receive `Batch` messages as bytes, in which form they are already."""

    # The same as that of grpclib's own codec.
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


async def receive_batch(stream: grpclib.protocol.Stream, max_batch: int) -> bytes | None:
    """Receive the next batch; None at the end.

    grpclib's own `recv_message` holds a message of any size before anybody can look at it. This one raises
    `RemoteProtocolError` for a batch of more than `max_batch` bytes before its content is taken, and for a compressed
    one.
    """
    head = await stream.recv_data(_HEAD_BYTES)
    if not head:
        return None
    size = int.from_bytes(head[1:], "big")
    if head[0]:
        raise RemoteProtocolError("a compressed batch")
    if size > max_batch:
        raise RemoteProtocolError(f"a batch of {size} bytes is over the limit of {max_batch} bytes")
    return await stream.recv_data(size)
