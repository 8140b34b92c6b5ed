"""Property: every variable type survives its JSON and `Any`, and broken bytes raise `DecodeError` and nothing else."""

from __future__ import annotations

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
from snakepit_trio.testing.strategies import equal, plain_values, variables


@pytest.mark.parametrize("name", list_types())
@given(data=st.data())
def test_every_type_survives(name: str, data: st.DataObject) -> None:
    value = data.draw(variables(name)).value
    kind = get_type(name)
    plain = value.tolist() if isinstance(value, np.ndarray) else value
    assert equal(plain, kind.deserialize(kind.serialize(value)))
    found = encode_any(value, name, binary_from=data.draw(st.sampled_from([0, 80, 10_240])))
    decoded_name, decoded = decode_any(found.type_url, found.value, found.binary)
    assert decoded_name == name
    assert equal(plain, decoded.tolist() if isinstance(decoded, np.ndarray) else decoded)


@given(st.integers(-(10**6000), 10**6000))
def test_ints_survive_that_str_refuses(value: int) -> None:
    kind = get_type("integer")
    assert kind.deserialize(kind.serialize(value)) == value
    found = encode_any(value, "integer")
    assert decode_any(found.type_url, found.value, found.binary) == ("integer", value)


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


@given(plain_values())
def test_parameters_survive(value: Any) -> None:
    found = encode_parameter(value)
    assert equal(value, decode_any(found.type_url, found.value)[1])


_names = ["google.protobuf.StringValue", "google.protobuf.Value", "snakepit.tensor.binary", "snakepit.embedding.binary"]
_urls = st.sampled_from(["", *(PREFIX + name for name in (*_names, *(f"snakepit.{name}" for name in list_types())))])
_jsons = plain_values().map(lambda value: encode_parameter(value).value)


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
