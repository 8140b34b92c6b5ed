"""Values in `google.protobuf.Any`, as the wire contract has them: JSON, and raw bytes for many numbers.

Type URLs, after `type.googleapis.com/`, and the contents of `value`:

- `snakepit.<type>`: the JSON of that variable type. Some peers write another text before the type, as in
  `dspex.variables/float`.
- `snakepit.<type>.binary`, for tensors and embeddings: JSON of `shape`, `dtype`, `binary_format` and `type`. The
  numbers are in the message's binary field, in C order and little endian ("raw"). The workers of the Elixir system
  know only the format "pickle", a pickle of plain lists. It is read only if the pool's owner has allowed it.
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
import pickle
import sys
from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec

from .codec import BESIDE_BYTES
from .errors import DecodeError, InvalidValue
from .nested import flatten, fold, shape_of
from .types import get_type, infer_type, list_types, load_json

PREFIX: Final = "type.googleapis.com/"
STRING_VALUE: Final = PREFIX + "google.protobuf.StringValue"
JSON_VALUE: Final = PREFIX + "google.protobuf.Value"
_OURS: Final = PREFIX + "snakepit."
_BINARY: Final = ".binary"
_WITH_BINARY: Final = ("tensor", "embedding")
#: How tensors and embeddings travel: large ones in raw bytes; as JSON; large ones as a pickle of plain lists.
LargeValues = Literal["raw", "json", "pickle"]
_PROTOCOL: Final = 4  # of pickles; Python 3.8 and later read it
_TYPECODES: Final = {
    "float64": "d", "float32": "f", "int8": "b", "uint8": "B", "int16": "h", "uint16": "H",
    "int32": "i", "uint32": "I", "int64": "q", "uint64": "Q", "bool": "B",
}  # fmt: skip


class AnyValue(msgspec.Struct, frozen=True):
    """An `Any`, with the bytes that travel beside it."""

    type_url: str
    value: bytes
    binary: bytes | None = None


def encode_any(
    value: Any,
    type_name: str | None = None,
    *,
    large_values: LargeValues = "raw",
    binary_from: int = BESIDE_BYTES,
    has_binary: bool = True,
) -> AnyValue:
    """Encode a value as a variable of a type, by default the type that the value has by itself.

    Tensors and embeddings of more than `binary_from` bytes, counted as eight for each number, travel as raw bytes. For
    a peer that does not know these, `large_values` is "json", or "pickle" for a pickle of plain lists; then only the
    items of the outer list are counted. Such a peer would take NaN in JSON for a text, so tensors and embeddings with
    NaN or an infinity are pickled for it, whatever their size. `has_binary` says whether the message has a place for
    binary data; without one, such numbers are JavaScript's in the JSON. Raises `InvalidValue`.
    """
    kind = get_type(type_name or infer_type(value))
    value = kind.validate(value)
    if kind.name not in _WITH_BINARY:
        return AnyValue(_OURS + kind.name, kind.serialize(value))
    if large_values == "raw":
        if has_binary and 8 * math.prod(shape_of(value)) > binary_from:
            return _encode_raw(value, kind.name)
        return AnyValue(_OURS + kind.name, kind.serialize(value))
    return _encode_for_others(value, kind.name, large_values, binary_from, has_binary)


def _encode_for_others(
    value: Any, name: str, large_values: LargeValues, binary_from: int, has_binary: bool
) -> AnyValue:
    shape, data = list(shape_of(value)), value.tolist() if hasattr(value, "__array__") else value
    if has_binary and large_values == "pickle" and shape and 8 * shape[0] > binary_from:
        return _encode_pickle(data, shape, name)
    try:
        numbers = json.dumps(data, allow_nan=not has_binary)
    except ValueError:  # NaN or an infinity
        return _encode_pickle(data, shape, name)
    text = numbers if name == "embedding" else f'{{"shape": {json.dumps(shape)}, "data": {numbers}}}'
    return AnyValue(_OURS + name, text.encode())


def _encode_pickle(data: Any, shape: list[int], name: str) -> AnyValue:
    about = {"shape": shape, "dtype": "float32", "binary_format": "pickle", "type": name}
    return AnyValue(_OURS + name + _BINARY, json.dumps(about).encode(), pickle.dumps(data, _PROTOCOL))


def encode_parameter(value: Any) -> AnyValue:
    """Encode a parameter, or a result, of a tool: raw JSON. Raises `InvalidValue`.

    NaN and the infinities have no JSON; each becomes a float, with the JSON of that type.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return encode_any(value, "float")
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
        name = _type_name(type_url)
        if name.endswith(_BINARY):
            return _decode_binary(name.removesuffix(_BINARY), value, binary, allow_pickle)
        return name, get_type(name).deserialize(value)
    except InvalidValue as error:
        raise DecodeError(str(error)) from None


def _type_name(type_url: str) -> str:
    if type_url.startswith(_OURS):
        return type_url.removeprefix(_OURS)
    _, slash, name = type_url.rpartition("/")
    if not slash or name.removesuffix(_BINARY) not in list_types():
        raise DecodeError(f"a value of the unknown type {type_url!r:.200}")
    return name


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


def _encode_raw(value: Any, name: str) -> AnyValue:
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
        return name, _fit(name, about.get("shape"), _unpickle(binary, allow_pickle))
    if about.get("binary_format") != "raw":
        raise DecodeError(f"binary_format {about.get('binary_format')!r:.100} is not known; there is: raw")
    return name, _decode_raw(name, about.get("shape"), about.get("dtype"), binary)


def _unpickle(binary: bytes, allow_pickle: bool) -> Any:
    if not allow_pickle:
        raise DecodeError("a pickle has come, and the pool's owner has not allowed pickle for this adapter")
    from .pickles import load_arrays

    return load_arrays(binary)


def _fit(name: str, shape: Any, found: Any) -> Any:
    """Check the numbers of a pickle, and bring flat data into their shape, as a peer may send them."""
    found = get_type(name).validate(found)
    if name == "tensor" and isinstance(found, (list, tuple)) and _is_shape(shape):
        was = shape_of(found)
        if len(was) == 1 and len(shape) != 1 and math.prod(shape) == was[0] > 0:
            return fold(list(found), tuple(shape))
    return found


def _is_shape(shape: Any) -> bool:
    return isinstance(shape, list) and len(shape) <= 32 and all(type(n) is int and 0 <= n < 1 << 48 for n in shape)


def _decode_raw(name: str, shape: Any, dtype: Any, binary: bytes) -> Any:
    if not isinstance(dtype, str) or (dtype not in _TYPECODES and dtype != "float16"):
        raise DecodeError(f"dtype {dtype!r:.100} is not known; there are: float16, {', '.join(_TYPECODES)}")
    if not _is_shape(shape):
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
