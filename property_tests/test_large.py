"""Property: a message that is read piece by piece is the value that msgspec reads in one go."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge_py.wire.errors import DecodeError
from bridge_py.wire.large import read_large

from .same_values import same

PIECES = st.sampled_from([1, 7, 20, 100, 1000])
SLOW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # on a busy machine
EXTENSIONS = st.builds(
    msgspec.msgpack.Ext, st.integers(-128, 127).filter(lambda code: code != -1), st.binary(max_size=40)
)
NUMBERS = st.integers(-(1 << 63), (1 << 64) - 1) | st.floats(allow_nan=False)
KEYS = st.none() | st.booleans() | NUMBERS | st.text() | st.binary()
LEAVES = KEYS | EXTENSIONS
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner) | st.lists(inner, min_size=16, max_size=40),
    max_leaves=100,
)


def extension(code: int, payload: memoryview) -> Any:
    return "extension", code, bytes(payload)


@SLOW
@given(VALUES, PIECES)
def test_a_value_is_what_msgspec_reads(value: Any, piece: int) -> None:
    body = msgspec.msgpack.encode(value)
    assert same(read_large(body, extension, piece), msgspec.msgpack.decode(body, ext_hook=extension))


@SLOW
@given(VALUES, PIECES, st.data())
def test_a_broken_message_is_refused_or_read_as_msgspec_does(value: Any, piece: int, data: st.DataObject) -> None:
    body = bytearray(msgspec.msgpack.encode(value))
    match data.draw(st.sampled_from(["cut", "longer", "changed"])):
        case "cut":
            del body[data.draw(st.integers(0, len(body) - 1)) :]
        case "longer":
            body += data.draw(st.binary(min_size=1, max_size=3))
        case _:
            body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        expected = msgspec.msgpack.decode(body, ext_hook=extension)
    except (ValueError, TypeError, RecursionError):
        with pytest.raises((ValueError, TypeError)):
            read_large(bytes(body), extension, piece)
    else:
        try:
            found = read_large(bytes(body), extension, piece)
        except DecodeError:
            assert b"\xde" in body or b"\xdf" in body  # a large map, of keys that are refused
        else:
            assert same(found, expected)
