"""Values to bytes and back: MessagePack (https://msgpack.org), with extension types for what it lacks.

    extension  value                          payload
    ---------  -----                          -------
    1          int beyond 64 bits             signed, big endian
    2, 3       set, frozenset                 array
    4          dict with other keys           array of pairs; MessagePack's own map takes text, bytes and numbers
    5, 6, 7    datetime, date, time           ISO 8601
    8          timedelta                      array: days, seconds, microseconds
    9          Decimal                        text
    10         UUID                           16 bytes
    11         path                           text
    12         complex                        two floats
    13         bytes of the area              array: offset, size
    14, 15     bytearray, bytes               bytes, or where they are in the area
    16         array                          see `arrays`
    17         memoryview                     see `arrays`
    18         array.array                    see `arrays`
    19         torch tensor                   see `arrays`
    20         frame or table                 see `tables`
    32         what `register_codec` added    array: tag, value

Tuples become lists. Enums, attrs classes, dataclasses and msgspec Structs are sent as their value or fields, and
become themselves again where a hint of the receiver asks for it. No pickle.

Buffers of `beside` bytes and more are not copied into the message: the message says where in the *area* they are,
which is all of them, one behind the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from .errors import DecodeError, EncodeError, Fault
from .registry import Refused, TooDeep, decoder_of, encoder_of, parts_of

BESIDE_BYTES: Final = 10_240
MAX_DEPTH: Final = 200
_ALIGNMENT: Final = 64
_AREA: Final = 13
_LEAVES: Final = frozenset({type(None), bool, int, float, str})
# What MessagePack cannot take of these must be looked for one by one.
_SURE_LEAVES: Final = frozenset({type(None), bool, float})
_KEYS: Final = _LEAVES | {bytes}
_SURE_KEYS: Final = _SURE_LEAVES | {bytes}

_pack = msgspec.msgpack.Encoder().encode
_decode_fault = msgspec.msgpack.Decoder(Fault).decode


class Packed(msgspec.Struct, gc=False):
    """A value ready to be sent: its message, and the buffers that make up its area of `size` bytes."""

    body: bytes
    buffers: list[memoryview | bytes] = []
    size: int = 0


def encode(value: Any, what: str = "value", *, beside: int = BESIDE_BYTES) -> Packed:
    """Encode a value. `what` is how messages call it.

    The buffers of the outcome are those of the value itself, not copies. Raises `EncodeError`, which says
    where in the value that is which cannot be sent.
    """
    try:
        return _encode(value, _LEAVES, beside)
    except (Refused, RecursionError, OverflowError, ValueError, TypeError):
        pass
    try:
        # Slower, but it takes large ints, and finds who is at fault.
        return _encode(value, _SURE_LEAVES, beside)
    except TooDeep as error:
        raise EncodeError(f"{what}: {error}") from None
    except Refused:
        path, why = _find(value, what)
        raise EncodeError(f"{path}: {why}") from None
    except (RecursionError, OverflowError, ValueError, TypeError) as error:
        raise EncodeError(f"{what}: it cannot be sent: {error}") from None


def decode(body: bytes, area: bytes | memoryview = b"") -> Any:
    """Decode what `encode` wrote. Arrays refer to the memory of `area` and are read-only.

    Raises `DecodeError` for bytes that are no value, of which `CodecError` says that it takes a library, or a codec,
    that is not here.
    """
    try:
        return msgspec.msgpack.decode(body, ext_hook=Decoder(area).decode_extension)
    except DecodeError:
        raise
    except Exception as error:
        raise DecodeError(f"{len(body)} bytes are no value: {type(error).__name__}: {error}") from None


def encode_plain(value: Any) -> bytes:
    """Encode a value of our own that has no buffers."""
    return _pack(value)


def decode_fault(data: bytes) -> Fault:
    """Decode the body of an error frame. Raises `DecodeError`."""
    try:
        return _decode_fault(data)
    except (msgspec.DecodeError, msgspec.ValidationError, ValueError) as error:
        raise DecodeError(f"the body of an error frame is broken: {error}") from None


def let_go(buffers: Iterable[memoryview | bytes]) -> None:
    """Release views of a value's memory: while there is one, as in the traceback of an error, it cannot be resized."""
    for buffer in buffers:
        if isinstance(buffer, memoryview):
            buffer.release()


def _encode(value: Any, leaves: frozenset[type], beside: int) -> Packed:
    encoder = Encoder(leaves, beside)
    try:
        body = _pack(encoder.prepare(value))
    except BaseException:
        let_go(encoder.buffers)
        raise
    return Packed(body, encoder.buffers, encoder.size) if encoder.size else Packed(body)


class Encoder:
    """Turns one value into what msgspec encodes, and collects its large buffers."""

    def __init__(self, leaves: frozenset[type], beside: int) -> None:
        self.buffers: list[memoryview | bytes] = []
        self.size = 0
        self._leaves = leaves
        self._beside = beside
        self._depth = 0

    def prepare(self, value: Any) -> Any:
        """The value in terms of MessagePack. Raises `Refused`."""
        kind = type(value)
        if kind in self._leaves:
            return value
        if kind is dict:
            return self._prepare_dict(value)
        if kind is list or kind is tuple:
            return self._prepare_items(value)
        return encoder_of(kind)(self, value)

    def extension(self, code: int, content: Any) -> Any:
        """An extension whose payload is a value. Raises `Refused`."""
        return self.wrap(code, self.prepare(content))

    def wrap(self, code: int, prepared: Any) -> Any:
        """An extension whose payload is prepared already."""
        return msgspec.msgpack.Ext(code, _pack(prepared))

    def buffer(self, data: memoryview | bytes) -> Any:
        """The bytes of a buffer, or their place in the area."""
        size = len(data)
        if size < self._beside:
            return bytes(data)
        if gap := -self.size % _ALIGNMENT:
            self.buffers.append(bytes(gap))
        offset = self.size + gap
        self.buffers.append(data)
        self.size = offset + size
        return msgspec.msgpack.Ext(_AREA, _pack((offset, size)))

    def _prepare_dict(self, value: dict[Any, Any]) -> Any:
        if not self._has_plain_keys(value):
            return self.extension(4, [list(pair) for pair in value.items()])
        if self._leaves.issuperset(map(type, value.values())):
            return value
        return dict(zip(value, self._prepare_items(value.values()), strict=True))

    def _has_plain_keys(self, value: dict[Any, Any]) -> bool:
        if not _KEYS.issuperset(map(type, value)):
            return False
        return self._leaves is _LEAVES or _SURE_KEYS.issuperset(map(type, value))

    def _prepare_items(self, values: Iterable[Any]) -> list[Any]:
        if self._leaves.issuperset(map(type, values)):
            return values if type(values) is list else list(values)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise TooDeep(f"it is nested deeper than {MAX_DEPTH} levels, or contains itself")
        prepare = self.prepare
        items = [prepare(item) for item in values]
        self._depth -= 1
        return items


def _find(value: Any, path: str) -> tuple[str, str]:
    """Where in a value that cannot be sent the culprit is, and what is wrong with it."""
    why = "it cannot be sent"
    for label, part in [("", value), *parts_of(value)]:
        try:
            _encode(part, _SURE_LEAVES, BESIDE_BYTES)
        except Refused as error:
            if label:
                return _find(part, path + label)
            why = str(error)
        except (RecursionError, OverflowError, ValueError, TypeError):
            continue
    return path, why


class Decoder:
    """Reads the extensions of one message."""

    def __init__(self, area: bytes | memoryview) -> None:
        self._area = memoryview(area)

    def decode_extension(self, code: int, payload: memoryview) -> Any:
        if code == _AREA:
            offset, size = msgspec.msgpack.decode(payload, type=tuple[int, int])
            if not 0 <= offset <= offset + size <= len(self._area):
                raise DecodeError(f"bytes {offset} to {offset + size} of an area of {len(self._area)}")
            return self._area[offset : offset + size]
        return decoder_of(code)(self, payload)

    def value(self, payload: memoryview) -> Any:
        """The value that is an extension's payload."""
        return msgspec.msgpack.decode(payload, ext_hook=self.decode_extension)
