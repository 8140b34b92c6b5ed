"""Frames of the Link service, and their protobuf encoding.

The bytes are the same that betterproto2 writes and reads for `Batch` and `Frame` of
`proto/snakepit_bridge.proto`; a property test proves it. The code is written by hand because this is
the hottest path of the system: `python -m benchmarks.wire` shows the saving.
Encoding: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

import msgspec

from .errors import RemoteProtocolError

if TYPE_CHECKING:
    _Area = bytes | memoryview
else:
    _Area = bytes  # of the two, msgspec decodes one

_HEAD_BYTES: Final = 4
# A side sends no larger batch, unless a single frame is larger. It takes batches that are somewhat larger.
BATCH_BYTES: Final = 4 * 1024 * 1024
BATCH_FRAMES: Final = 1_000
MOST_FRAMES: Final = 5_000
_CREDIT_BYTES: Final = 4096


class Kind(IntEnum):
    """The purpose of a frame. `Kind` in the `.proto` has the same numbers."""

    HELLO = 1
    CALL = 2
    STREAM = 3
    RESULT = 4
    ERROR = 5
    CHUNK = 6
    END = 7
    CREDIT = 8
    CANCEL = 9
    RECALL = 10
    PING = 11
    PONG = 12
    EVENT = 13
    INVALIDATE = 14
    GOODBYE = 15
    FETCH = 16
    BUFFER = 17
    TAKEN = 18
    RETURNED = 19
    PROGRESS = 20


# The kinds that each call needs. Python 3.11 takes as long to look up an enum's member as to call a function.
CALL: Final = int(Kind.CALL)
STREAM: Final = int(Kind.STREAM)
RESULT: Final = int(Kind.RESULT)
ERROR: Final = int(Kind.ERROR)
CHUNK: Final = int(Kind.CHUNK)
PROGRESS: Final = int(Kind.PROGRESS)

_Number = Annotated[int, msgspec.Meta(ge=0)]


class Frame(msgspec.Struct, gc=False, array_like=True, forbid_unknown_fields=True):
    """One step of a conversation.

    `call_id` is odd for calls the host opens, even for the worker's, 0 for the link itself.
    `number` is the time left in microseconds on CALL and STREAM (0: no limit), the microseconds that a call took in
    its worker on RESULT, ERROR and END (0: not said), the credit that CREDIT grants, the pieces asked for on FETCH, and
    an opaque number on PING and PONG. On a CHUNK that has come it is the credit that it has cost. `trace` is the W3C
    trace context of CALL and STREAM, and on RESULT, ERROR and END the traceparent of the span that the worker has made
    of the call. `began` on RESULT, ERROR and END is the nanoseconds of CLOCK_MONOTONIC at which the call began in its
    worker (0: not said). The large buffers of a value are `attached`, or lent: then `loan` is the loan's id and `size`
    its bytes, and `descriptor` (plus one; 0 for none) and `segment` say where the area is in shared memory.
    """

    kind: _Number
    call_id: _Number = 0
    name: str = ""
    session_id: str = ""
    number: _Number = 0
    body: bytes = b""
    attached: _Area = b""
    loan: _Number = 0
    size: _Number = 0
    descriptor: _Number = 0
    segment: str = ""
    trace: str = ""
    began: _Number = 0


_BATCH_FRAMES: Final = 0x0A
_CALL_ID: Final = 0x08
_KIND: Final = 0x10
_NAME: Final = 0x1A
_SESSION_ID: Final = 0x22
_NUMBER: Final = 0x28
_BODY: Final = 0x32
_ATTACHED: Final = 0x3A
_LOAN: Final = 0x40
_SIZE: Final = 0x48
_DESCRIPTOR: Final = 0x50
_SEGMENT: Final = 0x5A
_TRACE: Final = 0x62
_BEGAN: Final = 0x69
_FIXED: Final = 8  # bytes
_FIELD_OF_TEXT: Final = {_NAME: "name", _SESSION_ID: "session_id", _SEGMENT: "segment", _TRACE: "trace"}
_FIELD_OF_NUMBER: Final = {_LOAN: "loan", _SIZE: "size", _DESCRIPTOR: "descriptor", _BEGAN: "began"}
_U64: Final = (1 << 64) - 1
_ONE_BYTE: Final = tuple(bytes((n,)) for n in range(128))


def _varint(value: int) -> bytes:
    if value < 128:
        return _ONE_BYTE[value]
    if value < 1 << 14:
        return bytes((value & 127 | 128, value >> 7))
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode_frame(frame: Frame) -> bytes:
    """Encode one frame as an element of a `Batch`; the concatenation of elements is a `Batch`."""
    parts: list[bytes | memoryview] = []
    if frame.call_id:
        parts += (b"\x08", _varint(frame.call_id))
    if frame.kind:
        parts += (b"\x10", _varint(frame.kind))
    if frame.name:
        name = frame.name.encode()
        parts += (b"\x1a", _varint(len(name)), name)
    if frame.session_id:
        session_id = frame.session_id.encode()
        parts += (b"\x22", _varint(len(session_id)), session_id)
    if frame.number:
        parts += (b"\x28", _varint(frame.number))
    if frame.body:
        parts += (b"\x32", _varint(len(frame.body)), frame.body)
    if frame.attached:
        parts += (b"\x3a", _varint(len(frame.attached)), frame.attached)
    if frame.loan:
        parts += _encode_loan(frame)
    if frame.trace or frame.began:
        parts += _encode_facts(frame)
    content = b"".join(parts)
    return b"\x0a" + _varint(len(content)) + content


def _encode_loan(frame: Frame) -> list[bytes]:
    parts = [b"\x40", _varint(frame.loan)]
    if frame.size:
        parts += (b"\x48", _varint(frame.size))
    if frame.descriptor:
        parts += (b"\x50", _varint(frame.descriptor))
    if frame.segment:
        segment = frame.segment.encode()
        parts += (b"\x5a", _varint(len(segment)), segment)
    return parts


def _encode_facts(frame: Frame) -> list[bytes]:
    parts: list[bytes] = []
    if frame.trace:
        trace = frame.trace.encode()
        parts += (b"\x62", _varint(len(trace)), trace)
    if frame.began:
        parts += (b"\x69", frame.began.to_bytes(_FIXED, "little"))
    return parts


def credit_for(size: int) -> int:
    """The credit that a chunk of that many bytes costs: one for each 4 KiB that it has begun, and one at least."""
    return -(-size // _CREDIT_BYTES) or 1


def credit_of(chunk: Frame) -> int:
    """The credit that a chunk costs."""
    size = len(chunk.body)
    if chunk.size or chunk.attached:
        size += max(chunk.size, len(chunk.attached))  # a hostile sender may give both
    return credit_for(size)


def encode_batch(frames: list[Frame]) -> bytes:
    """Encode frames as one `Batch`."""
    return b"".join([encode_frame(frame) for frame in frames])


def most_bytes(max_frame: int) -> int:
    """The size of the largest batch that a side takes, in bytes, if a frame may have `max_frame` bytes."""
    return max_frame + 2 * BATCH_BYTES


def decode_batch(data: bytes, max_frame: int | None = None, max_frames: int | None = None) -> list[Frame]:
    """Decode a `Batch`. Unknown fields are skipped, as protobuf asks.

    Raises `RemoteProtocolError` for bytes that are not a `Batch`, for a frame of more than `max_frame` bytes, and for
    more than `max_frames` fields.
    """
    frames: list[Frame] = []
    fields = 0
    try:
        at, end = 0, len(data)
        while at < end:
            tag, at = _read_varint(data, at)
            fields += 1
            if fields == max_frames:
                raise RemoteProtocolError(f"a batch of {max_frames} frames or more")
            if tag != _BATCH_FRAMES:
                at = _skip(data, at, tag)
                continue
            size, at = _read_varint(data, at)
            if max_frame is not None and size > max_frame:
                raise RemoteProtocolError(f"a frame of {size} bytes is over the limit of {max_frame} bytes")
            stop = at + size
            if stop > end:
                raise RemoteProtocolError("a batch ends in the middle of a frame")
            frames.append(_decode_frame(data, at, stop))
            at = stop
    except (IndexError, UnicodeDecodeError) as error:
        raise RemoteProtocolError(f"a batch is broken: {error}") from None
    return frames


def _decode_frame(data: bytes, at: int, stop: int) -> Frame:
    frame = Frame(0)
    while at < stop:
        tag = data[at]
        at += 1
        if tag == _CALL_ID:
            frame.call_id, at = _read_varint(data, at)
        elif tag == _KIND:
            frame.kind, at = _read_varint(data, at)
        elif tag == _NUMBER:
            frame.number, at = _read_varint(data, at)
        elif tag in (_BODY, _NAME, _SESSION_ID, _ATTACHED, _SEGMENT, _TRACE):
            size, at = _read_varint(data, at)
            piece = data[at : at + size]
            at += size
            if tag == _BODY:
                frame.body = piece
            elif tag == _ATTACHED:
                frame.attached = piece
            else:
                setattr(frame, _FIELD_OF_TEXT[tag], piece.decode())
        elif tag in _FIELD_OF_NUMBER:
            number, at = _read_fixed(data, at) if tag == _BEGAN else _read_varint(data, at)
            setattr(frame, _FIELD_OF_NUMBER[tag], number)
        else:
            tag, at = _read_varint(data, at - 1)
            at = _skip(data, at, tag)
    if at != stop:
        raise RemoteProtocolError("a field runs over the end of its frame")
    return frame


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    byte = data[at]
    at += 1
    if byte < 128:
        return byte, at
    value, shift = byte & 127, 7
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            break
        shift += 7
        if shift > 63:
            raise RemoteProtocolError("a number of more than ten bytes")
    return value & _U64, at


def _read_fixed(data: bytes, at: int) -> tuple[int, int]:
    return int.from_bytes(data[at : at + _FIXED], "little"), at + _FIXED


def _skip(data: bytes, at: int, tag: int) -> int:
    wire_type = tag & 7
    if wire_type == 0:
        return _read_varint(data, at)[1]
    if wire_type == 2:
        size, at = _read_varint(data, at)
    else:
        size = {1: 8, 5: 4}.get(wire_type, -1)
    if size < 0 or tag >> 3 == 0:
        raise RemoteProtocolError(f"a field with the impossible tag {tag}")
    if at + size > len(data):
        raise RemoteProtocolError("a field runs over the end of its batch")
    return at + size


class Format(NamedTuple):
    """How frames become bytes: one frame, a batch of encoded frames, and back, as `decode_batch` does."""

    encode: Callable[[Frame], bytes]
    join: Callable[[Sequence[bytes]], bytes]
    decode: Callable[[bytes, int | None, int | None], list[Frame]]


PROTOBUF: Final = Format(encode_frame, b"".join, decode_batch)


# On a lane, four bytes before each batch say its size, the least significant byte first.


def head_of(batch: bytes) -> bytes:
    """What precedes a batch."""
    return len(batch).to_bytes(_HEAD_BYTES, "little")


class BatchReader:
    """Cuts what comes from a pipe, in whatever pieces, into batches of at most `max_batch` bytes (None: no limit)."""

    def __init__(self, max_batch: int | None = None) -> None:
        self._max_batch = max_batch
        self._held = bytearray()  # the beginning of a batch that is not whole yet

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes. Returns the batches that are whole now, in order.

        Raises `RemoteProtocolError` for a batch that is too large as soon as its size has come.
        """
        if not self._held and _size_at(data, 0) == len(data) - _HEAD_BYTES:
            return [data[_HEAD_BYTES:]]  # one batch and nothing else, as nearly always
        self._held += data
        batches, at = [], 0
        with memoryview(self._held) as view:
            while (size := _size_at(view, at)) is not None and at + _HEAD_BYTES + size <= len(view):
                begin, at = at + _HEAD_BYTES, at + _HEAD_BYTES + size
                batches.append(bytes(view[begin:at]))
        del self._held[:at]
        if size is not None and self._max_batch is not None and size > self._max_batch:
            raise RemoteProtocolError(f"a batch of {size} bytes is over the limit of {self._max_batch} bytes")
        return batches


def _size_at(data: bytes | memoryview, at: int) -> int | None:
    """The size that is written at a place; None if it is not there yet."""
    return int.from_bytes(data[at : at + _HEAD_BYTES], "little") if len(data) - at >= _HEAD_BYTES else None
