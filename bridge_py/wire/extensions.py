"""Codecs of what Python's own types need beyond MessagePack."""

from __future__ import annotations

import datetime as dt
import decimal
import pathlib
import struct
import uuid
from typing import TYPE_CHECKING, Any, Final

import msgspec

from .registry import Refused

if TYPE_CHECKING:
    from .codec import Decoder, Encoder

_TWO_FLOATS: Final = struct.Struct("<2d")


def _ext(code: int, payload: bytes) -> Any:
    return msgspec.msgpack.Ext(code, payload)


def _encode_int(_encoder: Encoder, value: int) -> Any:
    value = int(value)
    if -(1 << 63) <= value < 1 << 64:
        return value
    return _ext(1, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def _encode_str(_encoder: Encoder, value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise Refused(f"the text cannot be sent: {error}") from None
    return str.__str__(value)


def _encode_bytes(encoder: Encoder, value: bytes) -> Any:
    found = encoder.buffer(value)
    return found if isinstance(found, bytes) else encoder.wrap(15, found)


def _encode_bytearray(encoder: Encoder, value: bytearray) -> Any:
    return encoder.wrap(14, encoder.buffer(memoryview(value)))


def _encode_timedelta(encoder: Encoder, value: dt.timedelta) -> Any:
    return encoder.wrap(8, (value.days, value.seconds, value.microseconds))


def _encode_complex(_encoder: Encoder, value: complex) -> Any:
    return _ext(12, _TWO_FLOATS.pack(value.real, value.imag))


def _encode_memoryview(encoder: Encoder, value: memoryview) -> Any:
    from .arrays import encode_memoryview

    return encode_memoryview(encoder, value)


def _encode_time(_encoder: Encoder, value: dt.time) -> Any:
    if value.tzinfo is not None and value.utcoffset() is None:
        raise Refused("the offset of its time zone depends on a date: send a datetime")
    return _ext(7, value.isoformat().encode())


def _decode_int(_decoder: Decoder, payload: memoryview) -> int:
    return int.from_bytes(payload, "big", signed=True)


def _decode_set(decoder: Decoder, payload: memoryview) -> set[Any]:
    return set(map(hashable, decoder.value(payload)))


def _decode_frozenset(decoder: Decoder, payload: memoryview) -> frozenset[Any]:
    return frozenset(map(hashable, decoder.value(payload)))


def _decode_dict(decoder: Decoder, payload: memoryview) -> dict[Any, Any]:
    return {hashable(key): value for key, value in decoder.value(payload)}


def _decode_timedelta(decoder: Decoder, payload: memoryview) -> dt.timedelta:
    return dt.timedelta(*decoder.value(payload))


def _decode_bytearray(decoder: Decoder, payload: memoryview) -> bytearray:
    return bytearray(_buffer_of(decoder, payload))


def _decode_bytes(decoder: Decoder, payload: memoryview) -> bytes:
    return bytes(_buffer_of(decoder, payload))


def _buffer_of(decoder: Decoder, payload: memoryview) -> bytes | memoryview:
    found = decoder.value(payload)
    # bytes(n) would make n zeros.
    if not isinstance(found, (bytes, memoryview)):
        raise TypeError(f"a {type(found).__name__} in place of bytes")
    return found


def hashable(key: Any) -> Any:
    """A key as it was: MessagePack has made lists of its tuples."""
    return tuple(map(hashable, key)) if isinstance(key, list) else key


def _text(payload: memoryview) -> str:
    return str(payload, "utf-8")


ENCODERS: Final = {
    "builtins.int": _encode_int,
    "builtins.float": lambda _encoder, value: float(value),
    "builtins.str": _encode_str,
    "builtins.bytes": _encode_bytes,
    "builtins.bytearray": _encode_bytearray,
    "builtins.list": lambda encoder, value: encoder.prepare(list(value)),
    "builtins.tuple": lambda encoder, value: encoder.prepare(list(value)),
    "builtins.dict": lambda encoder, value: encoder.prepare(dict(value)),
    "builtins.set": lambda encoder, value: encoder.extension(2, list(value)),
    "builtins.frozenset": lambda encoder, value: encoder.extension(3, list(value)),
    "builtins.complex": _encode_complex,
    "builtins.memoryview": _encode_memoryview,
    "datetime.datetime": lambda _encoder, value: _ext(5, dt.datetime.isoformat(value).encode()),
    "datetime.date": lambda _encoder, value: _ext(6, value.isoformat().encode()),
    "datetime.time": _encode_time,
    "datetime.timedelta": _encode_timedelta,
    "decimal.Decimal": lambda _encoder, value: _ext(9, str(value).encode()),
    "uuid.UUID": lambda _encoder, value: _ext(10, value.bytes),
    "pathlib.PurePath": lambda encoder, value: _ext(11, _encode_str(encoder, str(value)).encode()),
}
DECODERS: Final = {
    1: _decode_int,
    2: _decode_set,
    3: _decode_frozenset,
    4: _decode_dict,
    5: lambda _decoder, payload: dt.datetime.fromisoformat(_text(payload)),
    6: lambda _decoder, payload: dt.date.fromisoformat(_text(payload)),
    7: lambda _decoder, payload: dt.time.fromisoformat(_text(payload)),
    8: _decode_timedelta,
    9: lambda _decoder, payload: decimal.Decimal(_text(payload)),
    10: lambda _decoder, payload: uuid.UUID(bytes=bytes(payload)),
    11: lambda _decoder, payload: pathlib.Path(_text(payload)),
    12: lambda _decoder, payload: complex(*_TWO_FLOATS.unpack(payload)),
    14: _decode_bytearray,
    15: _decode_bytes,
}
