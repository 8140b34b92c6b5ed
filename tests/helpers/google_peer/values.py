"""Values of the wire contract for `worker.py`, which shares no code with ours: read and written by hand."""

from __future__ import annotations

import importlib
import json
import math
import struct
from typing import Any

wrappers: Any = importlib.import_module("google.protobuf.wrappers_pb2")

PREFIX = "type.googleapis.com/"
STRING_VALUE = PREFIX + "google.protobuf.StringValue"
VALUE = PREFIX + "google.protobuf.Value"
UNKNOWN = PREFIX + "unknown.Type"

# The struct letter of a tensor's dtype.
DTYPES = {"float64": "d", "float32": "f", "int64": "q", "int32": "i", "uint8": "B"}
VARIABLE_TYPES = {bool: "boolean", int: "integer", float: "float", str: "string", list: "list", dict: "map"}


def decode_any(packed: Any, binary: bytes) -> Any:
    """The value of an Any and of the binary field that belongs to it."""
    name = packed.type_url.removeprefix(PREFIX)
    if packed.type_url == STRING_VALUE:
        return decode_string_value(packed.value)
    if name.startswith("snakepit.") and name.endswith(".binary"):
        return decode_binary(json.loads(packed.value.decode()), binary)
    if name.startswith("snakepit.") or packed.type_url == VALUE:
        return json.loads(packed.value.decode())
    raise ValueError(f"cannot read a value of {packed.type_url!r}")


def decode_string_value(data: bytes) -> Any:
    if not data:
        return ""
    text = real_string(data)
    return json.loads(data.decode()) if text is None else text


def real_string(data: bytes) -> str | None:
    """The text of a StringValue message, or None if the bytes are not exactly one.

    Read by hand, because protobuf's own parser takes bytes that go on with other fields.
    """
    if data[:1] != b"\x0a":
        return None
    length = 0
    for index, byte in enumerate(data[1:11]):
        length |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return utf8(data[index + 2 :], length)
    return None


def utf8(data: bytes, length: int) -> str | None:
    try:
        return data.decode() if len(data) == length else None
    except UnicodeDecodeError:
        return None


def decode_binary(about: dict[str, Any], binary: bytes) -> Any:
    """A tensor as its shape and flat data, an embedding as a list."""
    if about["binary_format"] != "raw":
        raise ValueError(f"cannot read the binary format {about['binary_format']!r}")
    layout = f"<{math.prod(about['shape'])}{DTYPES[about['dtype']]}"
    if struct.calcsize(layout) != len(binary):
        raise ValueError(f"{len(binary)} bytes are no {about['dtype']} of shape {about['shape']}")
    numbers = list(struct.unpack(layout, binary))
    return numbers if about["type"] == "embedding" else {"shape": about["shape"], "data": numbers}


def encode_json(value: Any) -> bytes:
    # NaN and infinity have no JSON: refused here, not by whoever reads it.
    return json.dumps(value, allow_nan=False).encode()


def set_any(target: Any, type_url: str, data: bytes) -> None:
    target.type_url = type_url
    target.value = data


def set_parameter(target: Any, value: Any, modern: bool) -> None:
    """A parameter of a request to the host."""
    if modern and isinstance(value, str):
        set_any(target, STRING_VALUE, wrappers.StringValue(value=value).SerializeToString())
    elif modern and isinstance(value, bool | int | float):
        set_any(target, VALUE, encode_json(value))
    else:
        set_any(target, STRING_VALUE, encode_json(value))


def variable_type(value: Any) -> str:
    if type(value) not in VARIABLE_TYPES:
        raise TypeError(f"no variable holds {value!r}")
    return VARIABLE_TYPES[type(value)]
