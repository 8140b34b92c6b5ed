"""Values in `google.protobuf.Any`, as the wire contract has them: JSON, and raw bytes for many numbers.

Type URLs, after `type.googleapis.com/`, and the contents of `value`:

- `snakepit.<type>`: the JSON of that variable type.
- `snakepit.<type>.binary`, for tensors and embeddings: JSON of `shape`, `dtype`, `binary_format` and `type`. The
  numbers are in the message's binary field, in C order and little endian ("raw"). Historic peers write the format
  "pickle", which is read only if the pool's owner has allowed it.
- `google.protobuf.StringValue`: a parameter, as raw JSON, or as a real StringValue message, which is text. The decoder
  first tries to read the message, strictly: byte 0x0a, the length, exactly that many bytes of UTF-8, and no more. It
  can mistake JSON for a message only if the JSON begins with a newline and its second byte, read as a length, is
  exactly the length of the rest. Our own JSON never begins with white space. An empty value is the empty text, because
  an empty message is.
- `google.protobuf.Value`: raw JSON, as clients of 0.13 write it for numbers and booleans.
"""

from __future__ import annotations

import array
import json
import math
import sys
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from .codec import BESIDE_BYTES
from .errors import DecodeError, InvalidValue
from .nested import flatten, fold, shape_of
from .types import get_type, infer_type, load_json

PREFIX: Final = "type.googleapis.com/"
STRING_VALUE: Final = PREFIX + "google.protobuf.StringValue"
JSON_VALUE: Final = PREFIX + "google.protobuf.Value"
_OURS: Final = PREFIX + "snakepit."
_BINARY: Final = ".binary"
_WITH_BINARY: Final = ("tensor", "embedding")
_TYPECODES: Final = {
    "float64": "d", "float32": "f", "int8": "b", "uint8": "B", "int16": "h", "uint16": "H",
    "int32": "i", "uint32": "I", "int64": "q", "uint64": "Q", "bool": "B",
}  # fmt: skip


class AnyValue(msgspec.Struct, frozen=True):
    """An `Any`, with the bytes that travel beside it."""

    type_url: str
    value: bytes
    binary: bytes | None = None


def encode_any(value: Any, type_name: str | None = None, *, binary_from: int = BESIDE_BYTES) -> AnyValue:
    """Encode a value as a variable of a type, by default the type that the value has by itself.

    Tensors and embeddings of more than `binary_from` bytes, counted as eight for each number, travel as raw bytes.
    Raises `InvalidValue`.
    """
    kind = get_type(type_name or infer_type(value))
    value = kind.validate(value)
    if kind.name in _WITH_BINARY and 8 * math.prod(shape_of(value)) > binary_from:
        return _encode_binary(value, kind.name)
    return AnyValue(_OURS + kind.name, kind.serialize(value))


def encode_parameter(value: Any) -> AnyValue:
    """Encode a parameter, or a result, of a tool: raw JSON. Raises `InvalidValue`."""
    try:
        return AnyValue(STRING_VALUE, json.dumps(value, ensure_ascii=False, allow_nan=False).encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidValue(f"a value of type {type(value).__name__} has no JSON ({error})") from None


def decode_any(
    type_url: str, value: bytes, binary: bytes | None = None, *, allow_pickle: bool = False
) -> tuple[str, Any]:
    """Decode a value; returns its type, empty for a parameter, and the value. Raises `DecodeError`.

    Tensors in raw bytes become numpy arrays where numpy is installed, nested lists elsewhere.
    """
    try:
        if type_url == STRING_VALUE:
            return "", _decode_string_value(value)
        if type_url == JSON_VALUE:
            return "", load_json(value, "value")
        if not type_url.startswith(_OURS):
            raise DecodeError(f"a value of the unknown type {type_url!r:.200}")
        name = type_url.removeprefix(_OURS)
        if name.endswith(_BINARY):
            return _decode_binary(name.removesuffix(_BINARY), value, binary, allow_pickle)
        return name, get_type(name).deserialize(value)
    except InvalidValue as error:
        raise DecodeError(str(error)) from None


def _decode_string_value(value: bytes) -> Any:
    if value == b"":
        return ""
    text = _message_text(value)
    return load_json(value, "parameter") if text is None else text


def _message_text(value: bytes) -> str | None:
    """Return the text of a StringValue message, or None if the bytes are not exactly one message."""
    size, shift, at = 0, 0, 1
    if value[0] != 0x0A:
        return None
    while at < min(len(value), 11):
        size |= (value[at] & 127) << shift
        shift += 7
        at += 1
        if value[at - 1] < 128:
            break
    try:
        return value[at:].decode() if len(value) - at == size else None
    except UnicodeDecodeError:
        return None


def _encode_binary(value: Any, name: str) -> AnyValue:
    if hasattr(value, "__array__"):
        if value.dtype.name not in (*_TYPECODES, "float16"):
            raise InvalidValue(
                f"an array of dtype {value.dtype} has no form in the contract: convert it", name, "dtype"
            )
        little = value.astype(value.dtype.newbyteorder("<"), order="C", copy=False)
        dtype, data = value.dtype.name, little.tobytes()
    else:
        dtype, data = _pack(flatten(value))
    found = {"shape": list(shape_of(value)), "dtype": dtype, "binary_format": "raw", "type": name}
    return AnyValue(_OURS + name + _BINARY, json.dumps(found).encode(), data)


def _pack(numbers: Sequence[Any]) -> tuple[str, bytes]:
    kinds = {type(number) for number in numbers}
    dtype = "bool" if kinds == {bool} else "int64" if kinds == {int} else "float64"
    try:
        packed = array.array(_TYPECODES[dtype], numbers)
    except OverflowError:
        raise InvalidValue("a tensor holds an int beyond 64 bits: make it floats", "tensor") from None
    if sys.byteorder == "big":
        packed.byteswap()
    return dtype, packed.tobytes()


def _decode_binary(name: str, value: bytes, binary: bytes | None, allow_pickle: bool) -> tuple[str, Any]:
    about = load_json(value, name)
    if name not in _WITH_BINARY or not isinstance(about, dict) or binary is None:
        raise DecodeError(f"a {name!r:.100} in binary, without what it takes")
    if about.get("binary_format") == "pickle":
        return name, get_type(name).validate(_unpickle(binary, allow_pickle))
    if about.get("binary_format") != "raw":
        raise DecodeError(f"binary_format {about.get('binary_format')!r:.100} is not known; there is: raw")
    return name, _decode_raw(name, about.get("shape"), about.get("dtype"), binary)


def _unpickle(binary: bytes, allow_pickle: bool) -> Any:
    if not allow_pickle:
        raise DecodeError("a pickle has come, and the pool's owner has not allowed pickle for this adapter")
    from .pickles import load_arrays

    return load_arrays(binary)


def _decode_raw(name: str, shape: Any, dtype: Any, binary: bytes) -> Any:
    if not isinstance(dtype, str) or (dtype not in _TYPECODES and dtype != "float16"):
        raise DecodeError(f"dtype {dtype!r:.100} is not known; there are: float16, {', '.join(_TYPECODES)}")
    if not isinstance(shape, list) or len(shape) > 32 or not all(type(n) is int and 0 <= n < 1 << 48 for n in shape):
        raise DecodeError(f"{shape!r:.100} is no shape")
    size = 2 if dtype == "float16" else array.array(_TYPECODES[dtype]).itemsize
    if math.prod(shape) * size != len(binary) or (0 in shape and sum(shape) > 1 << 20):
        raise DecodeError(f"{len(binary)} bytes are no {dtype} of shape {shape!r:.100}")
    if name == "embedding" and len(shape) != 1:
        raise DecodeError(f"an embedding of shape {shape!r:.100}, which is not one line of numbers")
    return _unpack(name, tuple(shape), dtype, binary)


def _unpack(name: str, shape: tuple[int, ...], dtype: str, binary: bytes) -> Any:
    try:
        import numpy as np
    except ImportError:
        items = _items(dtype, binary)
        return [float(item) for item in items] if name == "embedding" else fold(items, shape)
    found = np.frombuffer(binary, np.dtype(dtype).newbyteorder("<")).reshape(shape)
    return found.astype(float).tolist() if name == "embedding" else found.astype(np.dtype(dtype), copy=False)


def _items(dtype: str, binary: bytes) -> list[Any]:
    if dtype == "float16":
        raise DecodeError("float16 takes numpy, which is not installed here")
    found = array.array(_TYPECODES[dtype])
    found.frombytes(binary)
    if sys.byteorder == "big":
        found.byteswap()
    return [bool(item) for item in found] if dtype == "bool" else found.tolist()
