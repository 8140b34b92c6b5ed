"""The messages of a plain call of a tool, written and read by hand: betterproto takes ten times as long.

Whatever is not plain here is left to betterproto: arrays, raw bytes, failures, and fields in an odd order.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any, Final

from bridge_py.wire.any_values import STRING_VALUE, encode_parameter
from bridge_py.wire.errors import InvalidValue

# A tag is the number of the field, times 8, plus 2 for a field with a length and 0 for a number.
_FIRST: Final = 0x0A
_SECOND: Final = 0x12
_PARAMETERS: Final = 0x1A
_METADATA: Final = 0x22
_SUCCESS: Final = b"\x08\x01\x12"  # success = true, and the tag of the result
_MILLISECONDS: Final = 0x28
_LONG: Final = 0x80  # a size from here on has several bytes
_MOST_DIGITS: Final = 10  # of a number of 64 bits, in base 128
_URL: Final = bytes((_FIRST, len(STRING_VALUE))) + STRING_VALUE.encode()


def field(tag: int, data: bytes) -> bytes:
    """Write a field that has a length."""
    size = len(data)
    return bytes((tag, size)) + data if size < _LONG else bytes((tag,)) + _varint(size) + data


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number >= _LONG:
        digits.append(number & (_LONG - 1) | _LONG)
        number >>= 7
    digits.append(number)
    return bytes(digits)


def text_entries(tag: int, entries: Iterable[tuple[str, str]]) -> bytes:
    """Write a map of texts."""
    return b"".join([field(tag, field(_FIRST, key.encode()) + field(_SECOND, text.encode())) for key, text in entries])


def write_request(session_id: str, name: str, args: Mapping[str, Any], metadata: Mapping[str, str]) -> bytes | None:
    """Write an ExecuteToolRequest; None if it is not plain, or cannot be written."""
    try:
        parameters = [_parameter(key, value) for key, value in args.items()]
        if None in parameters:
            return None
        found = [_head(session_id, name), *parameters, text_entries(_METADATA, metadata.items())]
        return b"".join(found)  # type: ignore[arg-type]  # none of them is None
    except (InvalidValue, UnicodeEncodeError):
        return None  # betterproto's way says what is wrong


@functools.lru_cache(maxsize=256)
def _head(session_id: str, name: str) -> bytes:
    head = field(_FIRST, session_id.encode()) if session_id else b""
    return head + field(_SECOND, name.encode()) if name else head


def _parameter(key: Any, value: Any) -> bytes | None:
    if not isinstance(key, str) or hasattr(value, "__array__"):
        return None
    packed = encode_parameter(value)
    if packed.type_url != STRING_VALUE:
        return None
    content = _URL + field(_SECOND, packed.value) if packed.value else _URL
    return field(_PARAMETERS, field(_FIRST, key.encode()) + field(_SECOND, content))


def read_result(data: bytes) -> tuple[str, bytes] | None:
    """Read an ExecuteToolResponse of a tool that has succeeded: the type URL and the bytes of its result.

    Returns None if it is not plain.
    """
    if not data.startswith(_SUCCESS):
        return None
    at, end = _sized(data, len(_SUCCESS))
    if at < 0 or not _is_time(data, end):
        return None
    url_at, url_end = _sized(data, at + 1) if data[at : at + 1] == b"\x0a" else (-1, 0)
    if url_at < 0 or data[url_end : url_end + 1] != b"\x12" or url_end >= end:
        return None
    value_at, value_end = _sized(data, url_end + 1)
    if value_at < 0 or value_end != end:
        return None
    try:
        return data[url_at:url_end].decode(), data[value_at:value_end]
    except UnicodeDecodeError:
        return None


def _sized(data: bytes, at: int) -> tuple[int, int]:
    """Where the content of a field with a length begins and ends; (-1, 0) if it is not all there."""
    size, shift = 0, 0
    for index in range(at, min(len(data), at + _MOST_DIGITS)):
        digit = data[index]
        size |= (digit & (_LONG - 1)) << shift
        if digit < _LONG:
            end = index + 1 + size
            return (index + 1, end) if end <= len(data) else (-1, 0)
        shift += 7
    return -1, 0


def _is_time(data: bytes, at: int) -> bool:
    """Whether nothing follows but, maybe, the execution time, which nobody reads."""
    if at == len(data):
        return True
    digits = data[at + 1 :]
    return (
        data[at] == _MILLISECONDS
        and 0 < len(digits) <= _MOST_DIGITS
        and digits[-1] < _LONG
        and all(digit >= _LONG for digit in digits[:-1])
    )


def read_session_id(data: bytes) -> str | None:
    """Read a request that has a session id and nothing else; None if it is another one."""
    if len(data) < 2 or data[0] != _FIRST or data[1] != len(data) - 2 or data[1] >= _LONG:
        return None
    try:
        return data[2:].decode()
    except UnicodeDecodeError:
        return None
