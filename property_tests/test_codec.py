"""Property: what is encoded comes back the same, and bytes that are no value raise `DecodeError` and nothing else."""

from __future__ import annotations

import array
import tracemalloc
import uuid
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge_py.wire import codec
from bridge_py.wire.errors import DecodeError, EncodeError
from snakepit_trio.testing.strategies import arrays, equal, values

_frames = st.builds(
    lambda numbers, texts: pd.DataFrame({"n": numbers[:3], "t": texts[:3]}, index=pd.Index([3, 1, 2], name="i")),
    st.lists(st.floats(), min_size=3, max_size=3),
    st.lists(st.one_of(st.none(), st.text(max_size=5)), min_size=3, max_size=3),
)
_values = values(arrays=True, leaves=_frames)


def _round_trip(value: Any, beside: int = codec.BESIDE_BYTES) -> Any:
    packed = codec.encode(value, beside=beside)
    area = b"".join(packed.buffers)
    assert len(area) == packed.size
    return codec.decode(packed.body, area)


@settings(max_examples=300, deadline=None)
@given(_values, st.sampled_from([1, 64, codec.BESIDE_BYTES]))
def test_what_is_encoded_comes_back_the_same(value: Any, beside: int) -> None:
    assert equal(value, _round_trip(value, beside))


@settings(deadline=None)
@given(arrays())
def test_arrays_arrive_read_only(value: Any) -> None:
    found = _round_trip(value)
    assert not found.flags.writeable


@given(st.lists(st.tuples(st.integers(), st.text())))
def test_tuples_become_lists(value: list[tuple[int, str]]) -> None:
    assert _round_trip(value) == [list(item) for item in value]


@given(st.sampled_from("bBhHiIlLqQfd"), st.binary(max_size=400))
def test_array_and_memoryview(kind: str, data: bytes) -> None:
    found: array.array[Any] = array.array(kind, map(float, data) if kind in "fd" else ())
    found.frombytes(data[: len(data) // 8 * 8] if kind not in "fd" else b"")
    assert _round_trip(found) == found
    assert _round_trip(memoryview(found)) == memoryview(found)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(-(2**60), 2**60), st.one_of(st.none(), st.text())), max_size=20))
def test_tables_of_every_library(rows: list[tuple[int, str | None]]) -> None:
    columns = {"n": [n for n, _ in rows], "t": [t for _, t in rows]}
    table = pa.table(columns, schema=pa.schema([("n", pa.int64()), ("t", pa.string())]))
    assert _round_trip(table).equals(table)
    frame = pl.DataFrame(columns, schema={"n": pl.Int64, "t": pl.String})
    assert _round_trip(frame).equals(frame)
    assert _round_trip(frame["t"]).equals(frame["t"], check_names=True)
    series = pd.Series(columns["n"], dtype="int64", name=("a", 1))
    pd.testing.assert_series_equal(_round_trip(series), series)


def _decodes(body: bytes, area: bytes) -> None:
    try:
        codec.decode(body, area)
    except DecodeError:
        return


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=300), st.binary(max_size=100))
def test_random_bytes_raise_nothing_else(body: bytes, area: bytes) -> None:
    _decodes(body, area)


@settings(max_examples=300, deadline=None)
@given(_values, st.data())
def test_broken_bytes_raise_nothing_else(value: Any, data: st.DataObject) -> None:
    packed = codec.encode(value, beside=64)
    body, area = bytearray(packed.body), b"".join(packed.buffers)
    position = data.draw(st.integers(0, len(body) - 1))
    how = data.draw(st.sampled_from(["flip", "cut", "cut the area"]))
    if how == "flip":
        body[position] ^= data.draw(st.integers(1, 255))
    elif how == "cut":
        del body[position:]
    else:
        area = area[: data.draw(st.integers(0, len(area)))]
    _decodes(bytes(body), area)


@pytest.mark.parametrize(
    "body",
    [
        b"\xdd\xff\xff\xff\xff",  # an array of four billion items
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x10",
        b"\x91" * 500_000,  # nested half a million times
        b"\x81" * 500_000,
        bytes(codec.encode(np.zeros(3)).body).replace(b"\x91\x03", b"\x91\xce\xff\xff\xff\xff"),
        codec.encode({uuid.UUID(int=1): 1}).body[:-1],
    ],
)
def test_lies_about_sizes_cost_no_memory(body: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError):
            codec.decode(body)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_what_can_be_encoded_can_be_decoded_at_the_depth_limit() -> None:
    value: Any = {1}
    for _ in range(codec.MAX_DEPTH):
        value = [value, 0]
    assert _round_trip(value) == value
    with pytest.raises(EncodeError, match="value: it is nested deeper than 200 levels, or contains itself"):
        codec.encode([[value]])
