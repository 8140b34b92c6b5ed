"""`Any` as the wire contract has it: its vectors, byte for byte, and what is refused."""

from __future__ import annotations

import json
import math
import pickle
import sys
from typing import Any

import numpy as np
import pytest

from bridge_py.wire.any_values import JSON_VALUE, STRING_VALUE, decode_any, encode_any, encode_parameter
from bridge_py.wire.errors import DecodeError, InvalidValue
from bridge_py.wire.messages.google import protobuf
from bridge_py.wire.messages.snakepit import bridge

OURS = "type.googleapis.com/snakepit."


@pytest.mark.parametrize(
    ("value", "name", "data"),
    [
        (42, "float", b"42.0"),
        (math.nan, "float", b'"NaN"'),
        (math.inf, "float", b'"Infinity"'),
        (-math.inf, "float", b'"-Infinity"'),
        (42.0, "integer", b"42"),
        ([1, 2, 3], "embedding", b"[1.0, 2.0, 3.0]"),
        (np.arange(1, 7).reshape(2, 3), "tensor", b'{"shape": [2, 3], "data": [[1, 2, 3], [4, 5, 6]]}'),
        ("text", "string", b'"text"'),
        (True, "boolean", b"true"),
    ],
)
def test_the_vectors_of_the_contract(value: Any, name: str, data: bytes) -> None:
    found = encode_any(value, name)
    assert (found.type_url, found.value, found.binary) == (OURS + name, data, None)
    decoded_name, decoded = decode_any(found.type_url, found.value)
    assert decoded_name == name
    assert np.array_equal(decoded, value, equal_nan=name == "float") or decoded == value


def test_ints_have_any_size() -> None:
    # Python itself refuses to write, and to read, more than 4300 digits.
    found = encode_any(10**5000, "integer")
    assert found.value == b"1" + b"0" * 5000
    assert decode_any(found.type_url, found.value) == ("integer", 10**5000)


def test_the_request_of_the_contract() -> None:
    parameter = encode_parameter(1)
    message = protobuf.Any(type_url=parameter.type_url, value=parameter.value)
    request = bridge.ExecuteToolRequest(session_id="s1", tool_name="add", parameters={"a": message})
    url = b"type.googleapis.com/google.protobuf.StringValue"
    expected = b"\x0a\x02s1\x12\x03add\x1a\x39\x0a\x01a\x12\x34\x0a\x2f" + url + b"\x12\x011"
    assert bytes(request) == expected


def test_what_the_contract_refuses() -> None:
    with pytest.raises(InvalidValue, match="3.14"):
        encode_any(3.14, "integer")
    with pytest.raises(DecodeError, match="3.14"):
        decode_any(OURS + "integer", b"3.14")


@pytest.mark.parametrize("value", [b'{"shape": [2, 2], "data": [1, 2, 3, 4]}', b'{"shape":[2,2],"data":[[1,2],[3,4]]}'])
def test_flat_data_is_accepted(value: bytes) -> None:
    assert decode_any(OURS + "tensor", value) == ("tensor", [[1, 2], [3, 4]])


@pytest.mark.parametrize("text", ["", "plain", "42", '"quoted"', "ü" * 100, "\n", "x" * 1000])
def test_real_string_values_are_text(text: str) -> None:
    # A message with one text as field 1, as google.protobuf.StringValue is.
    packed = bytes(bridge.PingRequest(message=text))
    assert decode_any(STRING_VALUE, packed) == ("", text)


@pytest.mark.parametrize("value", [1, -2.5, None, True, "text", [1, {"a": "b"}], {"k": "\n"}])
def test_raw_json_under_the_url_of_string_value(value: Any) -> None:
    found = encode_parameter(value)
    assert decode_any(found.type_url, found.value) == ("", value)
    assert decode_any(STRING_VALUE, b"\n " + found.value) == ("", value)
    assert decode_any(JSON_VALUE, found.value) == ("", value)


def test_large_numbers_travel_raw() -> None:
    array = np.arange(2000, dtype=">f4").reshape(40, 50).T
    found = encode_any(array)
    assert found.type_url == OURS + "tensor.binary"
    assert json.loads(found.value) == {"shape": [50, 40], "dtype": "float32", "binary_format": "raw", "type": "tensor"}
    assert found.binary == array.astype("<f4").tobytes()
    name, decoded = decode_any(found.type_url, found.value, found.binary)
    assert name == "tensor"
    assert np.array_equal(decoded, array)
    # The threshold counts eight bytes for each number: 10,240 are not over it.
    assert encode_any([0.0] * 1280, "embedding").binary is None
    found = encode_any([0.5] * 1281, "embedding")
    assert decode_any(found.type_url, found.value, found.binary) == ("embedding", [0.5] * 1281)


def test_without_numpy_tensors_are_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    nested = [[float(n + m) for n in range(100)] for m in range(20)]
    found = encode_any(nested, "tensor")
    monkeypatch.setitem(sys.modules, "numpy", None)
    assert decode_any(found.type_url, found.value, found.binary) == ("tensor", nested)


def _binary(**changes: Any) -> tuple[str, bytes, bytes]:
    about = {"shape": [2, 2], "dtype": "float64", "binary_format": "raw", "type": "tensor"} | changes
    return OURS + "tensor.binary", json.dumps(about).encode(), bytes(32)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (_binary(shape=[3, 3]), "32 bytes are no float64 of shape"),
        (_binary(shape=[-2, -2]), "is no shape"),
        (_binary(shape=[1 << 60]), "is no shape"),
        (_binary(shape=[0, 1 << 40]), "32 bytes"),
        (_binary(shape="2"), "is no shape"),
        (_binary(dtype="object"), "dtype 'object' is not known"),
        (_binary(dtype=["f8"]), "is not known"),
        (_binary(binary_format="arrow"), "binary_format 'arrow' is not known"),
        (_binary(binary_format="pickle"), "has not allowed pickle for this adapter"),
        ((OURS + "string.binary", b"{}", b""), "without what it takes"),
        ((OURS + "nonsense", b"1", None), "no variable type 'nonsense'"),
        (("type.googleapis.com/other", b"1", None), "unknown type"),
        ((OURS + "float", b"[" * 200_000, None), "is no JSON of a float"),
    ],
)
def test_what_cannot_be_read(case: tuple[str, bytes, bytes | None], message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        decode_any(*case)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "value",
    [np.arange(6.0).reshape(2, 3), np.arange(6).reshape(2, 3).T, np.float32(2.5), [1.5, 2.5], np.zeros((0, 3))],
    ids=str,
)
def test_pickles_of_arrays_where_they_are_allowed(value: Any, protocol: int) -> None:
    url, about, _ = _binary(binary_format="pickle")
    data = pickle.dumps(value, protocol)
    name, found = decode_any(url, about, data, allow_pickle=True)
    assert name == "tensor"
    assert np.array_equal(found, value)
    old = data.replace(b"numpy._core.", b"numpy.core.") if protocol < 2 else data
    assert np.array_equal(decode_any(url, about, old, allow_pickle=True)[1], value)


class _Evil:
    def __reduce__(self) -> Any:
        return print, ("this must not be printed",)


def _nested_bomb() -> list[Any]:
    found: list[Any] = []
    for _ in range(9):
        found = [found] * 100
    return found


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pickle.dumps(_Evil()), "names builtins.print is not read"),
        (pickle.dumps(np.array([object()])), "dtype 'O8' is not read"),
        (pickle.dumps(np.array(["a"])), "dtype 'U1' is not read"),
        (b"cnumpy\nndarray\n((I1000000000000\ntR.", "no pickle of an array"),
        (pickle.dumps(np.zeros(5)).replace(b"K\x05", b"K\x06"), "of the shape \\(6,\\), which its data does not have"),
        (pickle.dumps(np.zeros(5), 4).replace(b"\x8c\x01<", b"\x8c\x01?"), "byte order '\\?'"),
        (b"cnumpy._core.multiarray\n_reconstruct\n(tR.", "without its dtype"),
        (b"]r\xff\xff\xff\xff.", "memo entry 4294967295"),
        (pickle.dumps(_nested_bomb()), "more items than"),
        (b"c_codecs\nencode\n(Vx\nVrot13\ntR.", "encodes text as 'rot13'"),
        (b"Psomething\n.", "persistent id"),
        (pickle.dumps({1, 2}, 4), "a pickle of a set"),
        (b"junk", "no pickle of an array"),
        (b"", "no pickle of an array"),
    ],
)
def test_pickles_of_anything_else(data: bytes, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    url, about, _ = _binary(binary_format="pickle")
    with pytest.raises(DecodeError, match=message):
        decode_any(url, about, data, allow_pickle=True)
    assert capsys.readouterr().out == ""


# Peers with the habits of the Elixir system's Python programs.


@pytest.mark.parametrize(
    ("url", "data", "value"),
    [
        ("dspex.variables/float", b"2", ("float", 2.0)),
        ("dspex.variables/integer", b"7", ("integer", 7)),
        ("elsewhere.org/a/string", b'"x"', ("string", "x")),
        (OURS + "integer", b"true", ("integer", 1)),
        (OURS + "module", b'""', ("module", "")),
        (OURS + "tensor", b'{"shape": [2], "data": [1, 2], "dtype": "float32", "x": null}', ("tensor", [1, 2])),
    ],
)
def test_what_others_write(url: str, data: bytes, value: tuple[str, Any]) -> None:
    assert decode_any(url, data) == value


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("tensor", b'{"shape": [3], "data": [NaN, null, 1]}'),
        ("tensor", b'{"shape": [3], "data": ["NaN", null, 1]}'),
        ("tensor", b'["NaN", null, 1]'),
        ("embedding", b'["NaN", null, 1]'),
        ("embedding", b"[NaN, null, 1]"),
    ],
)
def test_nan_inside_of_arrays_is_read_as_a_number(name: str, data: bytes) -> None:
    assert str(decode_any(OURS + name, data)[1][:2]) == "[nan, nan]"


@pytest.mark.parametrize("name", ["tensor", "embedding"])
def test_null_and_text_are_no_arrays(name: str) -> None:
    for data in (b"null", b'"NaN"', b'["x"]'):
        with pytest.raises(DecodeError):
            decode_any(OURS + name, data)


def test_plain_nan_as_a_parameter() -> None:
    found = encode_parameter(math.nan)
    assert (found.type_url, found.value) == (OURS + "float", b'"NaN"')
    assert encode_parameter(-math.inf).value == b'"-Infinity"'


@pytest.mark.parametrize("large_values", ["json", "pickle"])
@pytest.mark.parametrize("shape", [(3,), (1280,), (1281,), (100, 100), (1281, 2), (0,), ()])
def test_arrays_for_peers_that_know_no_raw_bytes(large_values: Any, shape: tuple[int, ...]) -> None:
    array = np.arange(math.prod(shape), dtype=float).reshape(shape)
    found = encode_any(array, large_values=large_values)
    is_pickled = large_values == "pickle" and bool(shape) and shape[0] > 1280
    assert (found.binary is not None) == is_pickled
    if found.binary is not None:
        assert pickle.loads(found.binary) == array.tolist()
        assert json.loads(found.value)["binary_format"] == "pickle"
    assert np.array_equal(decode_any(found.type_url, found.value, found.binary, allow_pickle=True)[1], array)


@pytest.mark.parametrize("large_values", ["json", "pickle"])
def test_nan_never_goes_to_them_as_a_text(large_values: Any) -> None:
    for value, name in (([1.0, math.nan], "embedding"), (np.array([math.inf, 1.0]), "tensor")):
        found = encode_any(value, name, large_values=large_values)
        assert found.binary is not None
        assert all(type(item) is float for item in pickle.loads(found.binary))
        # Without a place for a pickle, the JSON is what Python's own module writes.
        found = encode_any(value, name, large_values=large_values, has_binary=False)
        assert found.binary is None
        assert b'"NaN"' not in found.value
        assert b'"Infinity"' not in found.value


def test_flat_pickles_get_the_shape_that_comes_with_them() -> None:
    url, about, _ = _binary(binary_format="pickle")
    assert decode_any(url, about, pickle.dumps([1, 2, 3, 4]), allow_pickle=True)[1] == [[1, 2], [3, 4]]
