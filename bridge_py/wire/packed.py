"""Frames as a lane carries them: a batch is a MessagePack array of frames, a frame one of the fields of `Frame`.

msgspec reads and writes them in C, in a tenth of the time that protobuf takes in Python (`python -m benchmarks.wire`).
The channel keeps protobuf, for which peers in other languages have a compiler. A lane has our own package at both ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from .errors import RemoteProtocolError
from .frames import Format, Frame

_ARRAY: Final = 0xDD  # an array whose number of items has four bytes
_HEAD: Final = slice(1, 5)

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Frame]).decode
_cut = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode


def join_packed(frames: Sequence[bytes]) -> bytes:
    """Make a batch of encoded frames."""
    return b"".join((b"\xdd", len(frames).to_bytes(4, "big"), *frames))


def decode_packed(data: bytes, max_frame: int | None = None, max_frames: int | None = None) -> list[Frame]:
    """Decode a batch. No bytes are no frames.

    Raises `RemoteProtocolError` for bytes that are no batch, for a frame of more than `max_frame` bytes, and for
    `max_frames` frames or more.
    """
    if not data:
        return []
    if data[0] != _ARRAY:
        raise RemoteProtocolError(f"a batch is broken: it begins with {data[0]}")
    # Before they are read: a frame takes more memory than the two bytes that it may have in a batch.
    if max_frames is not None and int.from_bytes(data[_HEAD], "big") >= max_frames:
        raise RemoteProtocolError(f"a batch of {max_frames} frames or more")
    try:
        if max_frame is not None and len(data) > max_frame:
            _check_sizes(data, max_frame)
        return _decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteProtocolError(f"a batch is broken: {error}") from None


def _check_sizes(data: bytes, max_frame: int) -> None:
    for frame in _cut(data):
        size = memoryview(frame).nbytes
        if size > max_frame:
            raise RemoteProtocolError(f"a frame of {size} bytes is over the limit of {max_frame} bytes")


PACKED: Final = Format(_encode, join_packed, decode_packed)
