"""Values of pandas, polars and pyarrow: every kind of column and of labels."""

from __future__ import annotations

import datetime as dt
import pathlib
import zoneinfo
from typing import Any, Final

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

Values = st.SearchStrategy[Any]
_ZONES: Final = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Pacific/Apia", "Australia/Lord_Howe"]
_UNITS: Final = ["s", "ms", "us", "ns"]

zones = st.one_of(
    st.sampled_from(_ZONES).map(zoneinfo.ZoneInfo),
    st.integers(-86_399_999_999, 86_399_999_999).map(lambda us: dt.timezone(dt.timedelta(microseconds=us))),
    st.builds(lambda hours, name: dt.timezone(dt.timedelta(hours=hours), name), st.integers(-23, 23), st.text()),
    st.just(dt.UTC),
)
moments = st.builds(
    lambda moment, fold, zone: moment.replace(fold=fold, tzinfo=zone),
    st.datetimes(),
    st.integers(0, 1),
    st.none() | zones,
)
times = st.builds(
    lambda moment, fold, zone: moment.replace(fold=fold, tzinfo=zone), st.times(), st.integers(0, 1), st.none() | zones
)


def _scalar(dtype: Any, data: bytes) -> Any:
    return np.frombuffer(data[: dtype.itemsize].ljust(dtype.itemsize, b"\1"), dtype)[0]


numpy_dtypes = st.one_of(
    hnp.integer_dtypes(endianness="="),
    hnp.unsigned_integer_dtypes(endianness="="),
    hnp.floating_dtypes(endianness="="),
    hnp.complex_number_dtypes(endianness="="),
    hnp.datetime64_dtypes(endianness="="),
    hnp.timedelta64_dtypes(endianness="="),
)
numpy_scalars = st.one_of(
    st.builds(_scalar, numpy_dtypes, st.binary(max_size=32)),
    st.booleans().map(np.bool_),
    st.text().map(np.str_),
    st.binary().map(np.bytes_),
    st.sampled_from([np.longdouble(1) / 3, np.datetime64("NaT"), np.float64("nan")]),
)
pd_scalars = st.one_of(
    st.sampled_from([pd.NaT, pd.NA]),
    st.builds(
        lambda number, unit: pd.Timestamp(np.datetime64(number, unit)),
        st.integers(-(2**31), 2**31),
        st.sampled_from(_UNITS),
    ),
    st.builds(
        lambda number, unit, zone: pd.Timestamp(np.datetime64(number, unit), tz="UTC").tz_convert(zone),
        st.integers(-(2**31), 2**32),
        st.sampled_from(_UNITS),
        zones,
    ),
    st.builds(
        lambda number, unit: pd.Timedelta(np.timedelta64(number, unit)),
        st.integers(-(2**31), 2**31),
        st.sampled_from(_UNITS),
    ),
    st.builds(
        lambda number, freq: pd.Period(ordinal=number, freq=freq),
        st.integers(-1000, 10**5),
        st.sampled_from(["D", "M", "Q-JAN", "2h", "W-TUE", "Y"]),
    ),
    st.builds(
        lambda low, size, closed: pd.Interval(low, low + size, closed),
        st.integers(-9, 9),
        st.integers(0, 9),
        st.sampled_from(["left", "right", "both", "neither"]),
    ),
)

plain_cells = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**80), 2**80),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=5),
    moments,
    st.decimals(),
)
cells = st.one_of(
    plain_cells,
    pd_scalars,
    numpy_scalars,
    st.lists(plain_cells, max_size=2),
    st.lists(plain_cells, max_size=2).map(tuple),
    st.sets(st.integers() | st.text(max_size=2), max_size=2),
    st.dictionaries(st.text(max_size=2), plain_cells, max_size=2),
    st.just(pathlib.PureWindowsPath("a", "b")),
)
labels = st.one_of(
    st.booleans(),
    st.integers(-9, 9),
    st.floats(-9, 9),
    st.text(max_size=3),
    st.tuples(st.integers(-9, 9), st.text(max_size=2)),
    st.dates(),
    st.none(),
    pd_scalars,
    numpy_scalars,
)


def _objects(items: list[Any]) -> Any:
    found = np.empty(len(items), object)
    for index, item in enumerate(items):
        found[index] = item
    return found


def _instants(numbers: list[int], unit: str, zone: Any) -> Any:
    index = pd.DatetimeIndex(np.array(numbers, "i8").view(f"M8[{unit}]"))
    return index if zone is None else index.tz_localize("UTC").tz_convert(zone)


# Before pandas 3 there is none.
_IS_NEW: Final = int(pd.__version__.partition(".")[0]) >= 3
_NAN_STRINGS: Final[Any] = pd.StringDtype("python", na_value=float("nan")) if _IS_NEW else "string"


def columns(size: int) -> Values:
    """What a column, or an index, of that many rows is made from."""

    def lists(items: Values) -> Values:
        return st.lists(items, min_size=size, max_size=size)

    numbers = lists(st.integers(-(2**31), 2**32))
    small = lists(st.none() | st.integers(0, 100))
    texts = lists(st.none() | st.text(st.characters(codec="utf-8"), max_size=4))
    dtypes = st.sampled_from(["i1", "i8", "u4", "f4", "f8", "c16", ">i4", "?"])
    numeric = st.builds(lambda items, dtype: np.array(items, "i8").astype(dtype), numbers, dtypes)
    masked = st.builds(
        lambda items, dtype: pd.array(items, dtype=dtype),
        small,
        st.sampled_from(["Int8", "UInt64", "Float32", "Float64"]),
    )
    arrow = st.sampled_from(
        [
            pa.int64(),
            pa.float32(),
            pa.string(),
            pa.large_string(),
            pa.list_(pa.int8()),
            pa.struct([("a", pa.int8())]),
            pa.map_(pa.string(), pa.int8()),
            pa.timestamp("ns", "Europe/Berlin"),
            pa.duration("s"),
            pa.decimal128(9, 2),
            pa.date32(),
            pa.dictionary(pa.int8(), pa.string()),
            pa.binary(),
            pa.bool_(),
            pa.null(),
            pa.month_day_nano_interval(),
        ]
    )
    return st.one_of(
        numeric,
        numeric.map(pd.arrays.NumpyExtensionArray),
        lists(cells).map(_objects),
        lists(plain_cells).map(_objects),
        texts.map(lambda items: pd.array(items, dtype="str")),
        texts.map(lambda items: pd.array(items, dtype="string")),
        texts.map(lambda items: pd.array(items, dtype="string[python]")),
        texts.map(lambda items: pd.array(items, dtype=_NAN_STRINGS)),
        st.builds(lambda items, ordered: pd.Categorical(items, ordered=ordered), texts, st.booleans()),
        small.map(pd.Categorical),
        lists(st.sampled_from([pd.Timestamp(0), pd.NaT, None])).map(pd.Categorical),
        masked,
        lists(st.none() | st.booleans()).map(lambda items: pd.array(items, dtype="boolean")),
        st.builds(_instants, numbers, st.sampled_from(_UNITS), st.none() | zones).map(lambda index: index.array),
        st.builds(
            lambda items, unit: pd.TimedeltaIndex(np.array(items, "i8").view(f"m8[{unit}]")).array,
            numbers,
            st.sampled_from(_UNITS),
        ),
        st.builds(
            lambda items, freq: (
                pd.PeriodIndex(
                    [pd.NaT if n is None else pd.Period(ordinal=n, freq=freq) for n in items], freq=freq
                ).array
            ),
            small,
            st.sampled_from(["D", "M", "Q-JAN", "2h", "W-TUE"]),
        ),
        st.builds(
            lambda items, closed: (
                pd.arrays.IntervalArray.from_tuples(
                    [None if n is None else (n, n + 1) for n in items],
                    closed=closed,
                    dtype=None if items else "interval[int64, right]",
                )
                if items
                else pd.arrays.IntervalArray.from_breaks([0], closed=closed)
            ),
            small,
            st.sampled_from(["left", "right", "both", "neither"]),
        ),
        arrow.map(lambda kind: pd.array([None] * size, dtype=pd.ArrowDtype(kind))),
        small.map(lambda items: pd.array(items, dtype=pd.ArrowDtype(pa.int16()))),
        lists(st.none() | st.lists(st.integers(0, 9), max_size=2)).map(
            lambda items: pd.array(items, dtype=pd.ArrowDtype(pa.list_(pa.int64())))
        ),
        small.map(lambda items: pd.arrays.SparseArray([n or 0 for n in items])),
    )


def indexes(size: int) -> Values:
    """Labels of that many rows."""
    names = st.none() | labels
    several = st.lists(st.lists(labels, min_size=size, max_size=size), min_size=1, max_size=3)
    return st.one_of(
        st.just(pd.RangeIndex(size)),
        st.builds(
            lambda start, step, name: pd.RangeIndex(start, start + step * size, step, name=name),
            st.integers(-5, 5),
            st.sampled_from([-2, 1, 3]),
            names,
        ),
        st.builds(
            lambda items, name: pd.Index(_objects(items), dtype=object, name=name, tupleize_cols=False),
            st.lists(labels, min_size=size, max_size=size),
            names,
        ),
        st.builds(_index, columns(size), names),
        st.builds(
            lambda freq, zone: pd.date_range("2024-03-30", periods=size, freq=freq, tz=zone),
            st.sampled_from(["D", "h", "ME", "W-TUE", "2B"]),
            st.sampled_from([None, "UTC", "Europe/Berlin"]),
        ),
        st.builds(lambda: pd.timedelta_range("1h", periods=size, freq="3h")),
        several.map(_multi_index),
    )


def _multi_index(parts: list[list[Any]]) -> Any:
    try:
        return pd.MultiIndex.from_arrays([_objects(part) for part in parts], names=[None] * len(parts))
    except Exception:  # such as of numpy.longdouble
        return pd.RangeIndex(len(parts[0]))


def _index(column: Any, name: Any) -> Any:
    try:
        return pd.Index(column, name=name)
    except Exception:  # not all columns can be labels
        return pd.RangeIndex(len(column))


@st.composite
def frames(draw: st.DrawFn) -> Any:
    """Frames of pandas."""
    size, width = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    found = {
        at: pd.Series(column, dtype=column.dtype) for at, column in enumerate(draw(st.tuples(*[columns(size)] * width)))
    }
    frame = pd.DataFrame(found, index=range(size))
    frame.index, frame.columns = draw(indexes(size)), draw(indexes(width))
    if draw(st.booleans()):
        frame.attrs["source"] = draw(plain_cells)
    return frame


@st.composite
def series(draw: st.DrawFn) -> Any:
    """Series of pandas."""
    size = draw(st.integers(0, 3))
    column = draw(columns(size))
    found = pd.Series(column, dtype=column.dtype)
    found.index = draw(indexes(size))
    found.name = draw(st.none() | labels)
    return found


_PL_DTYPES: Final = [
    pl.Int8,
    pl.UInt64,
    pl.Int128,
    pl.Float32,
    pl.Float64,
    pl.Boolean,
    pl.String,
    pl.Binary,
    pl.Date,
    pl.Time,
    pl.Null,
    pl.Datetime("ms"),
    pl.Datetime("us", "Europe/Berlin"),
    pl.Duration("ns"),
    pl.Categorical,
    pl.Enum(["a", "b"]),
    pl.Decimal(10, 2),
    pl.List(pl.Int8),
    pl.Array(pl.Int16, 2),
    pl.Struct({"a": pl.Int8, "b": pl.List(pl.String)}),
    pl.Object,
    pl.List(pl.Categorical),
    pl.Struct({"e": pl.Enum(["x"])}),
]
_PL_CELLS: Final[dict[Any, Values]] = {
    pl.Int8: st.integers(-128, 127),
    pl.UInt64: st.integers(0, 2**64 - 1),
    pl.Float64: st.floats(),
    pl.Boolean: st.booleans(),
    pl.String: st.text(st.characters(codec="utf-8"), max_size=4),
    pl.Binary: st.binary(max_size=4),
    pl.Date: st.dates(),
    pl.Categorical: st.sampled_from("abc"),
    pl.Time: st.times(),
    pl.Object: st.builds(object),
    pl.Duration("ns"): st.timedeltas(dt.timedelta(-9), dt.timedelta(9)),
}


@st.composite
def polars_values(draw: st.DrawFn) -> Any:
    """Frames and series of polars."""
    size, width = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    found = []
    for at in range(width):
        dtype: Any = draw(st.sampled_from(_PL_DTYPES))
        cell = st.none() | _PL_CELLS.get(dtype, st.none())
        items = draw(st.lists(cell, min_size=size, max_size=size))
        found.append(pl.Series(f"{at}{draw(st.text(st.characters(codec='utf-8'), max_size=3))}", items, dtype=dtype))
    frame = pl.DataFrame(found)
    return frame.to_series() if width == 1 and draw(st.booleans()) else frame


_PA_TYPES: Final = [
    pa.int8(),
    pa.uint64(),
    pa.float16(),
    pa.float64(),
    pa.bool_(),
    pa.string(),
    pa.large_binary(),
    pa.string_view(),
    pa.null(),
    pa.date64(),
    pa.time32("ms"),
    pa.timestamp("us", "UTC"),
    pa.duration("ns"),
    pa.month_day_nano_interval(),
    pa.decimal128(9, 2),
    pa.decimal256(50, 3),
    pa.list_(pa.int8()),
    pa.list_(pa.int8(), 2),
    pa.large_list(pa.string()),
    pa.list_view(pa.int8()),
    pa.struct([("a", pa.int8()), ("b", pa.dictionary(pa.int8(), pa.string()))]),
    pa.map_(pa.string(), pa.list_(pa.int8())),
    pa.dictionary(pa.int32(), pa.string(), ordered=True),
    pa.run_end_encoded(pa.int16(), pa.string()),
    pa.binary(3),
    pa.dense_union([pa.field("a", pa.int8()), pa.field("b", pa.string())]),
    pa.uuid(),
    *([pa.json_()] if hasattr(pa, "json_") else []),
]
_PA_CELLS: Final[dict[Any, Values]] = {
    pa.int8(): st.integers(-128, 127),
    pa.float64(): st.floats(),
    pa.bool_(): st.booleans(),
    pa.string(): st.text(st.characters(codec="utf-8"), max_size=4),
    pa.list_(pa.int8()): st.lists(st.integers(0, 9), max_size=2),
    pa.dictionary(pa.int32(), pa.string(), ordered=True): st.sampled_from("abc"),
    pa.large_binary(): st.binary(max_size=3),
}


@st.composite
def arrow_values(draw: st.DrawFn) -> Any:
    """Arrays, batches and tables of pyarrow."""
    size, width = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    parts = []
    for _ in range(width):
        kind = draw(st.sampled_from(_PA_TYPES))
        items = draw(st.lists(st.none() | _PA_CELLS.get(kind, st.none()), min_size=size, max_size=size))
        parts.append(_arrow_array(items, kind))
    fields = [
        pa.field(draw(st.text(st.characters(codec="utf-8"), max_size=3)), part.type, metadata={"k": "v"})
        for part in parts
    ]
    batch = pa.record_batch(parts, schema=pa.schema(fields, metadata=draw(st.sampled_from([None, {"a": "b"}]))))
    batch = batch.slice(draw(st.integers(0, size)))
    how = draw(st.sampled_from(["batch", "table", "array", "chunks", "tables"]))
    if how in ("array", "chunks") and width:
        return (
            batch.column(0)
            if how == "array"
            else pa.chunked_array([batch.column(0)] * draw(st.integers(0, 2)), parts[0].type)
        )
    if how == "batch":
        return batch
    return pa.Table.from_batches([batch] * (1 if how == "table" else draw(st.integers(0, 3))), batch.schema)


def _arrow_array(items: list[Any], kind: Any) -> Any:
    try:
        return pa.array(items, kind)
    except (pa.ArrowException, TypeError, ValueError):
        return pa.nulls(len(items), kind)
