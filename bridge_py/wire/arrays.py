"""Codecs of arrays: numpy, torch (on the CPU), memoryview and array.array.

    extension  payload, an array
    ---------  -----------------
    16         numpy: dtype (as numpy.lib.format describes it), shape, order ("C", "F", or "S" for a scalar), data
    17         memoryview: format, shape, data in C order
    18         array.array: typecode, item size in bytes, byte order, data
    19         torch: name of the dtype, shape, data in C order

Data that lie in one piece are sent without a copy. A numpy array or memoryview that arrives refers to the received
memory, read-only. A torch tensor cannot be read-only, so it gets a copy of its own.
"""

from __future__ import annotations

import array
import functools
import importlib
import sys
import warnings
from typing import Any, Final

import msgspec

from .errors import CodecError
from .registry import Decoder, Encoder, Refused, type_of

_LONGEST_DTYPE: Final = 100  # characters


def library(name: str) -> Any:
    """Import the library that a value needs to be decoded. Raises `CodecError` if the import fails."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise CodecError(f"a value of {name} has come, and {name} cannot be imported here: {error}") from error


def encode_memoryview(encoder: Encoder, value: memoryview) -> Any:
    """Encode a memoryview of any shape whose format is one native type."""
    if value.format not in memoryview(b"").cast("B").format + "bhilqnBHILQNefd?c":
        raise Refused(f"a memoryview of format {value.format!r} cannot be sent; cast it to bytes, or use an array")
    if not value.nbytes and value.ndim != 1:
        raise Refused("a memoryview without items, and of several dimensions, cannot be sent: use an array")
    flat = value.cast("B") if value.c_contiguous and value.nbytes else value.tobytes()
    return encoder.wrap(17, (value.format, value.shape, encoder.buffer(flat)))


def _encode_array(encoder: Encoder, value: Any) -> Any:
    import numpy as np

    descr = _describe(value.dtype)
    value = np.asarray(value)
    order = "C"
    flat: Any
    if value.flags.f_contiguous and not value.flags.c_contiguous:
        order = "F"
        flat = value.T.reshape(-1)
    else:
        flat = np.ascontiguousarray(value).reshape(-1)
    data = memoryview(flat.view(np.uint8)) if flat.nbytes else b""
    return encoder.wrap(16, (descr, value.shape, order, encoder.buffer(data)))


def _describe(dtype: Any) -> Any:
    """Describe a dtype, so that `_dtype_of` makes the same dtype from the description. Raises `Refused`."""
    # Equal dtypes may differ in their metadata, or be different integer types of the same size.
    is_plain = dtype.names is None and dtype.metadata is None
    return _describe_plain(dtype, dtype.char) if is_plain else _description(dtype)


@functools.lru_cache(1000)
def _describe_plain(dtype: Any, _char: str) -> Any:
    return _description(dtype)


def _description(dtype: Any) -> Any:
    import numpy as np

    if dtype.hasobject or dtype.kind == "T":
        raise Refused(
            f"a numpy array of dtype {dtype} cannot be sent, its items have no bytes of their own: send .tolist()"
        )
    descr: Any = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # numpy warns if the description leaves something out
            descr = np.lib.format.dtype_to_descr(dtype)
        if dtype.kind in "iu":
            descr = f"{descr[0]}{dtype.char}"
        found = _dtype_of(msgspec.msgpack.decode(msgspec.msgpack.encode(descr)))
        # When numpy makes an array of a dtype without bytes, such as "S0", it gives the dtype some bytes.
        is_same = found == dtype and found.type is dtype.type and np.ndarray(1, found).itemsize == dtype.itemsize
    except Exception:
        is_same = False
    if not is_same:
        raise Refused(f"a numpy array of dtype {dtype!r} cannot be sent: another dtype would arrive; convert it")
    return descr


def _refuse_masked(_encoder: Encoder, _value: Any) -> Any:
    raise Refused("a masked array would lose its mask: send its .data and .mask")


def _encode_scalar(encoder: Encoder, value: Any) -> Any:
    if type(value).__name__ == "str_":
        # An array would cut off zero characters at the end of the text.
        return encoder.wrap(16, ("U", (), "S", encoder.prepare(str.__str__(value))))
    if type(value).__name__ == "bytes_":
        return encoder.wrap(16, ("S", (), "S", encoder.buffer(bytes.__getitem__(value, slice(None)))))
    if type(value) is not value.dtype.type:
        raise Refused(f"a scalar of type {type_of(value)} cannot be sent: send .item()")
    return encoder.wrap(16, (_describe(value.dtype), (), "S", encoder.buffer(value.tobytes())))


def _encode_array_array(encoder: Encoder, value: array.array[Any]) -> Any:
    data = memoryview(value).cast("B") if len(value) else b""
    return encoder.wrap(18, (value.typecode, value.itemsize, sys.byteorder, encoder.buffer(data)))


def _encode_tensor(encoder: Encoder, value: Any) -> Any:
    import torch  # pyright: ignore[reportMissingImports] - a machine that checks types needs no torch

    if value.layout is not torch.strided or value.device.type != "cpu" or value.is_quantized:
        raise Refused(f"a tensor of layout {value.layout} on {value.device} cannot be sent; send .to_dense().cpu()")
    flat = value.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
    data = memoryview(flat.view(torch.uint8).numpy()) if flat.numel() else b""
    name = str(value.dtype).removeprefix("torch.")
    return encoder.wrap(19, (name, tuple(value.shape), encoder.buffer(data)))


def _decode_array(decoder: Decoder, payload: memoryview) -> Any:
    np = library("numpy")
    descr, shape, order, data = decoder.value(payload)
    if descr in ("U", "S") and order == "S":
        data = data if descr == "U" else bytes(data)
        return data if decoder.is_plain else decoder.scalar(np.str_(data) if descr == "U" else np.bytes_(data))
    dtype = _dtype_of(descr)
    if dtype.hasobject:
        raise TypeError(f"an array of dtype {dtype}")
    found = np.ndarray(_shape(shape), dtype, data, order="F" if order == "F" else "C")
    if found.nbytes != len(data):
        raise ValueError(f"{len(data)} bytes for an array of {found.nbytes}")
    found.flags.writeable = False
    return decoder.scalar(found[()]) if order == "S" else found


def _dtype_of(descr: Any) -> Any:
    import numpy as np

    return np.lib.format.descr_to_dtype(_with_tuples(descr))


def _with_tuples(descr: Any) -> Any:
    """Turn lists in a dtype's description back into tuples, as numpy wants it: MessagePack makes lists of tuples."""
    if not isinstance(descr, list):
        # numpy parses a text that is no plain dtype as Python code.
        if type(descr) is not str or len(descr) > _LONGEST_DTYPE:
            raise ValueError(f"a dtype that is no text of up to {_LONGEST_DTYPE} characters: {descr!r:.50}")
        return descr
    if not descr or isinstance(descr[0], list):
        return [_field(field) for field in descr]
    # A dtype of fixed-size subarrays: the item's description and the shape.
    item, shape = descr
    return _with_tuples(item), _shape(shape)


def _field(field: list[Any]) -> tuple[Any, ...]:
    name, descr, *shape = field
    name = tuple(name) if isinstance(name, list) else name
    return (name, _with_tuples(descr), *map(_shape, shape))


def _shape(found: Any) -> tuple[int, ...]:
    # A range would be one of any length, and -1 a length that numpy chooses.
    if type(found) is not list or not all(type(length) is int and length >= 0 for length in found):
        raise ValueError(f"a shape that is no list of sizes: {found!r:.100}")
    return tuple(found)


def _decode_memoryview(decoder: Decoder, payload: memoryview) -> memoryview:
    kind, shape, data = decoder.value(payload)
    view = memoryview(data).toreadonly()
    if len(shape) == 1 and kind == "B":
        return view
    return view.cast("B").cast(kind, _shape(shape)) if data else memoryview(b"").cast("B").cast(kind)


def _decode_array_array(decoder: Decoder, payload: memoryview) -> array.array[Any]:
    kind, size, order, data = decoder.value(payload)
    found: array.array[Any] = array.array(kind)
    if found.itemsize != size:
        raise CodecError(f"array.array of type {kind!r} has items of {size} bytes there and {found.itemsize} here")
    found.frombytes(data)
    if order != sys.byteorder:
        found.byteswap()
    return found


def _decode_tensor(decoder: Decoder, payload: memoryview) -> Any:
    torch = library("torch")
    name, shape, data = decoder.value(payload)
    dtype = getattr(torch, name)
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"a tensor of dtype {name}")
    return (
        torch.frombuffer(bytearray(data), dtype=dtype).reshape(_shape(shape))
        if data
        else torch.empty(_shape(shape), dtype=dtype)
    )


ENCODERS: Final = {
    "numpy.ndarray": _encode_array,
    "numpy.memmap": _encode_array,
    "numpy.generic": _encode_scalar,
    # These derive from a class of Python's too, which may come before numpy.generic in their MRO.
    **dict.fromkeys(("numpy.str_", "numpy.bytes_", "numpy.float64", "numpy.complex128"), _encode_scalar),
    "numpy.MaskedArray": _refuse_masked,
    "array.array": _encode_array_array,
    "torch.Tensor": _encode_tensor,
}
DECODERS: Final = {16: _decode_array, 17: _decode_memoryview, 18: _decode_array_array, 19: _decode_tensor}
