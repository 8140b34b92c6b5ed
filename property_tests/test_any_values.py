"""Property: every variable type survives its JSON and `Any`, and broken bytes raise `DecodeError` and nothing else."""

from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bridge_py.wire.any_values import PREFIX, decode_any, encode_any, encode_parameter
from bridge_py.wire.errors import DecodeError
from bridge_py.wire.types import get_type, list_types

_plain = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda values: st.one_of(st.lists(values, max_size=4), st.dictionaries(st.text(), values, max_size=4)),
    max_leaves=10,
)
_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "float": st.floats(),
    "integer": st.one_of(st.integers(), st.integers(-(10**6000), 10**6000)),
    "string": st.text(),
    "boolean": st.booleans(),
    "choice": st.text(),
    "module": st.text(min_size=1),
    "embedding": st.lists(st.floats()),
    "tensor": hnp.arrays(st.sampled_from(["float64", "int64", "bool"]), hnp.array_shapes()).map(np.ndarray.tolist),
    "list": st.lists(_plain),
    "map": st.dictionaries(st.text(), _plain),
}


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, float):
        return bool(one == other or (math.isnan(one) and math.isnan(other)))
    return type(one) is type(other) and bool(one == other)


@pytest.mark.parametrize("name", list_types())
@given(data=st.data())
def test_every_type_survives(name: str, data: st.DataObject) -> None:
    value = data.draw(_VALUES[name])
    kind = get_type(name)
    assert _same(value, kind.deserialize(kind.serialize(value)))
    found = encode_any(value, name, binary_from=data.draw(st.sampled_from([0, 80, 10_240])))
    decoded_name, decoded = decode_any(found.type_url, found.value, found.binary)
    assert decoded_name == name
    assert _same(value, decoded.tolist() if isinstance(decoded, np.ndarray) else decoded)


_DTYPES = ["float16", "float32", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]


@given(hnp.arrays(st.sampled_from([*_DTYPES, "bool", ">f4", ">i8"]), hnp.array_shapes(min_side=0)), st.booleans())
def test_arrays_survive_in_raw_bytes(array: Any, transposed: bool) -> None:
    array = array.T if transposed else array
    found = encode_any(array, binary_from=-1)
    name, decoded = decode_any(found.type_url, found.value, found.binary)
    assert name == "tensor"
    assert np.array_equal(decoded, array, equal_nan=True)
    assert decoded.dtype == array.dtype.newbyteorder("=")
    empty = encode_any(array[:0])
    assert len(decode_any(empty.type_url, empty.value)[1]) == 0


@given(_plain)
def test_parameters_survive(value: Any) -> None:
    found = encode_parameter(value)
    assert _same(decode_any(found.type_url, found.value)[1], value)


_names = ["google.protobuf.StringValue", "google.protobuf.Value", "snakepit.tensor.binary", "snakepit.embedding.binary"]
_urls = st.sampled_from(["", *(PREFIX + name for name in (*_names, *(f"snakepit.{name}" for name in list_types())))])
_jsons = _plain.map(lambda value: encode_parameter(value).value)


@settings(max_examples=300)
@given(_urls, st.one_of(st.binary(), st.text().map(str.encode), _jsons), st.binary())
def test_any_bytes_are_read_or_a_decode_error(url: str, value: bytes, binary: bytes) -> None:
    try:
        decode_any(url, value, binary, allow_pickle=True)
    except DecodeError:
        return


@settings(max_examples=300, deadline=None)
@given(hnp.arrays("float64", 5), st.data())
def test_broken_pickles_are_read_or_a_decode_error(array: Any, data: st.DataObject) -> None:
    broken = bytearray(pickle.dumps(array, data.draw(st.integers(0, 5))))
    broken[data.draw(st.integers(0, len(broken) - 1))] ^= data.draw(st.integers(1, 255))
    about = b'{"shape": [5], "dtype": "float64", "binary_format": "pickle", "type": "tensor"}'
    try:
        decode_any(PREFIX + "snakepit.tensor.binary", about, bytes(broken), allow_pickle=True)
    except DecodeError:
        return
