"""Codecs of Python's own types that MessagePack lacks."""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import fractions
import pathlib
import struct
import uuid
import zoneinfo
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from .errors import CodecError
from .registry import Decoder, Encode, Encoder, Refused, items_of, keys_of

_STANDARD: Final = 21
_PATHS: Final = ("PurePosixPath", "PureWindowsPath", "PosixPath", "WindowsPath")
_FACTORIES: Final[dict[str, Any]] = {
    kind.__name__: kind for kind in (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset)
}
_DICTS: Final = ("OrderedDict", "Counter", "defaultdict")  # a hint of a dict must not turn these into plain dicts
_FRACTION_BITS: Final = 1 << 16  # about 20,000 digits
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


def _encode_datetime(encoder: Encoder, value: dt.datetime) -> Any:
    if value.fold or _has_name(value.tzinfo):
        moment = value.replace(tzinfo=None, fold=0)
        return encoder.wrap(_STANDARD, ("datetime", (moment.isoformat(), value.fold, zone_of(value.tzinfo))))
    return _ext(5, value.isoformat().encode())


def _encode_time(encoder: Encoder, value: dt.time) -> Any:
    if value.fold or _has_name(value.tzinfo):
        moment = value.replace(tzinfo=None, fold=0)
        return encoder.wrap(_STANDARD, ("time", (moment.isoformat(), value.fold, zone_of(value.tzinfo))))
    return _ext(7, value.isoformat().encode())


def _has_name(zone: dt.tzinfo | None) -> bool:
    if zone is None or zone is dt.UTC:
        return False
    if type(zone) is not dt.timezone:
        return True
    offset = _offset_of(zone)
    # `fromisoformat` reads an offset of less than a second as UTC.
    return bool(offset.microseconds) or zone.tzname(None) != dt.timezone(offset).tzname(None)


def _offset_of(zone: dt.timezone) -> dt.timedelta:
    return zone.utcoffset(None)


def zone_of(zone: dt.tzinfo | None) -> Any:
    """Describe a time zone for `to_zone`: as None, the key of a `ZoneInfo`, or offset and name. Raises `Refused`."""
    if zone is None:
        return None
    if type(zone) is dt.timezone:
        offset = _offset_of(zone)
        return [offset.days, offset.seconds, offset.microseconds, zone.tzname(None)]
    if type(zone) is zoneinfo.ZoneInfo and zone.key is not None and _is_found(zone):
        return zone.key
    kind = type(zone)
    raise Refused(
        f"a time zone of type {kind.__module__}.{kind.__qualname__} cannot be sent: use zoneinfo.ZoneInfo(name), or a "
        "datetime.timezone"
    )


def _is_found(zone: zoneinfo.ZoneInfo) -> bool:
    try:
        zone.__reduce__()  # fails for a zone that was read from a file
        return zoneinfo.ZoneInfo(zone.key).key == zone.key
    except Exception:
        return False


def to_zone(found: Any) -> dt.tzinfo | None:
    """Make the time zone that `zone_of` has described. Raises `CodecError` if it is not known here."""
    if found is None:
        return None
    if isinstance(found, str):
        try:
            return zoneinfo.ZoneInfo(found)
        except (OSError, ValueError) as error:  # ZoneInfoNotFoundError is a KeyError
            raise CodecError(f"the time zone {found!r} cannot be read here: {error}") from error
        except KeyError:
            raise CodecError(f"the time zone {found!r} is not known here: pip install tzdata") from None
    days, seconds, microseconds, name = found
    offset = dt.timedelta(days, seconds, microseconds)
    plain = dt.timezone(offset)
    return plain if plain.tzname(None) == name else dt.timezone(offset, name)


def _encode_standard(name: str, parts: Callable[[Any], Any]) -> Encode:
    return lambda encoder, value: encoder.wrap(_STANDARD, (name, encoder.prepare(parts(value))))


def _encode_defaultdict(encoder: Encoder, value: Any) -> Any:
    factory = value.default_factory
    name = None if factory is None else getattr(factory, "__name__", "")
    if factory is not None and _FACTORIES.get(name or "") is not factory:
        raise Refused("a defaultdict whose default_factory is no builtin type cannot be sent: send dict(value)")
    return encoder.wrap(_STANDARD, ("defaultdict", (name, encoder.prepare_pairs(value))))


def _encode_fraction(encoder: Encoder, value: fractions.Fraction) -> Any:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > _FRACTION_BITS:
        raise Refused(f"a Fraction of ints of more than {_FRACTION_BITS} bits cannot be sent: send its two ints")
    return _encode_standard("Fraction", lambda value: [value.numerator, value.denominator])(encoder, value)


def _encode_pairs(name: str) -> Encode:
    return lambda encoder, value: encoder.wrap(_STANDARD, (name, encoder.prepare_pairs(value)))


def _encode_path(encoder: Encoder, value: pathlib.PurePath) -> Any:
    return encoder.wrap(11, (type(value).__name__, _encode_str(encoder, str(value))))


def _decode_int(_decoder: Decoder, payload: memoryview) -> int:
    return int.from_bytes(payload, "big", signed=True)


def _decode_set(decoder: Decoder, payload: memoryview) -> set[Any]:
    return set(keys_of(decoder.value(payload), set))


def _decode_frozenset(decoder: Decoder, payload: memoryview) -> frozenset[Any]:
    return frozenset(keys_of(decoder.value(payload), set))


def _decode_dict(decoder: Decoder, payload: memoryview) -> dict[Any, Any]:
    return dict(_pairs_of(decoder.value(payload)))


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


def _pairs_of(pairs: Any) -> Iterator[tuple[Any, Any]]:
    keys, values = [], []
    for key, value in items_of(pairs):
        keys.append(key)
        values.append(value)
    return zip(keys_of(keys), values, strict=True)


def _decode_standard(decoder: Decoder, payload: memoryview) -> Any:
    name, content = decoder.value(payload)
    if name not in _STANDARD_DECODERS:
        raise CodecError(f"a {name!r:.100} has come, which is not known here: the other side is newer")
    decoder.is_special = decoder.is_special or name in _DICTS
    return _STANDARD_DECODERS[name](content)


def _to_datetime(content: Any) -> dt.datetime:
    text, fold, zone = content
    return dt.datetime.fromisoformat(text).replace(fold=fold, tzinfo=to_zone(zone))


def _to_time(content: Any) -> dt.time:
    text, fold, zone = content
    return dt.time.fromisoformat(text).replace(fold=fold, tzinfo=to_zone(zone))


def _to_fraction(content: Any) -> fractions.Fraction:
    numerator, denominator = content
    if type(numerator) is not int or type(denominator) is not int:
        raise TypeError("a Fraction that is not made of two ints")
    # The time to make one grows with the square of their size.
    if max(numerator.bit_length(), denominator.bit_length()) > _FRACTION_BITS:
        raise ValueError(f"a Fraction of ints of more than {_FRACTION_BITS} bits")
    return fractions.Fraction(numerator, denominator)


def _to_deque(content: Any) -> collections.deque[Any]:
    items, most = content
    return collections.deque(items_of(items), most)


def _to_defaultdict(content: Any) -> Any:
    name, pairs = content
    return collections.defaultdict(None if name is None else _FACTORIES[name], _pairs_of(pairs))


def _to_counter(pairs: Any) -> Any:
    found: collections.Counter[Any] = collections.Counter()
    found.update(dict(_pairs_of(pairs)))
    return found


def _decode_path(decoder: Decoder, payload: memoryview) -> pathlib.PurePath:
    name, text = decoder.value(payload)
    if name not in _PATHS:
        raise CodecError(f"a path of the class {name!r:.100} has come")
    try:
        path: pathlib.PurePath = getattr(pathlib, name)(text)
    except (NotImplementedError, TypeError) as error:
        raise CodecError(f"a {name} cannot be made here: {error}") from None
    return path


def _decode_tuple(decoder: Decoder, payload: memoryview) -> tuple[Any, ...]:
    return tuple(items_of(decoder.value(payload)))


def _text(payload: memoryview) -> str:
    return str(payload, "utf-8")


ENCODERS: Final = {
    "builtins.int": _encode_int,
    "builtins.float": lambda _encoder, value: float(value),
    "builtins.str": _encode_str,
    "builtins.bytes": _encode_bytes,
    "builtins.bytearray": _encode_bytearray,
    # The registry refuses subclasses, so a value of these entries is of exactly that class.
    "builtins.list": lambda encoder, value: encoder.items(value),
    "builtins.tuple": lambda encoder, value: encoder.items(value),
    "builtins.dict": lambda encoder, value: encoder.prepare(value),
    "builtins.set": lambda encoder, value: encoder.wrap(2, encoder.keys(value)),
    "builtins.frozenset": lambda encoder, value: encoder.wrap(3, encoder.keys(value)),
    "builtins.range": _encode_standard("range", lambda value: [value.start, value.stop, value.step]),
    "builtins.complex": _encode_complex,
    "builtins.memoryview": _encode_memoryview,
    "datetime.datetime": _encode_datetime,
    "datetime.date": lambda _encoder, value: _ext(6, value.isoformat().encode()),
    "datetime.time": _encode_time,
    "datetime.timedelta": _encode_timedelta,
    "datetime.timezone": lambda encoder, value: encoder.wrap(_STANDARD, ("zone", zone_of(value))),
    "zoneinfo.ZoneInfo": lambda encoder, value: encoder.wrap(_STANDARD, ("zone", zone_of(value))),
    "decimal.Decimal": lambda _encoder, value: _ext(9, str(value).encode()),
    "uuid.UUID": lambda _encoder, value: _ext(10, value.bytes),
    "fractions.Fraction": _encode_fraction,
    "collections.deque": _encode_standard("deque", lambda value: [list(value), value.maxlen]),
    "collections.OrderedDict": _encode_pairs("OrderedDict"),
    "collections.Counter": _encode_pairs("Counter"),
    "collections.defaultdict": _encode_defaultdict,
    **{f"pathlib.{name}": _encode_path for name in _PATHS},
}
_STANDARD_DECODERS: Final[dict[str, Callable[[Any], Any]]] = {
    "datetime": _to_datetime,
    "time": _to_time,
    "zone": to_zone,
    "range": lambda content: range(*content),
    "Fraction": _to_fraction,
    "deque": _to_deque,
    "OrderedDict": lambda content: collections.OrderedDict(_pairs_of(content)),
    "Counter": _to_counter,
    "defaultdict": _to_defaultdict,
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
    11: _decode_path,
    12: lambda _decoder, payload: complex(*_TWO_FLOATS.unpack(payload)),
    14: _decode_bytearray,
    15: _decode_bytes,
    21: _decode_standard,
    24: _decode_tuple,
}
