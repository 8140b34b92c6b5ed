"""Each kind of value arrives as itself, or is refused with its path and a remedy."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import fractions
import math
import zoneinfo
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from dateutil import tz  # type: ignore[import-untyped]

import snakepit_trio as snakepit
from bridge_py.wire import codec
from property_tests.same_values import same
from tests.helpers.value_tools import Box, Color, Point

VALUES = "tests.helpers.value_tools:ValueTools"


NO_ROWS: Any = np.zeros((0, 3))


class Loud(str):
    __slots__ = ()


class Pair(NamedTuple):
    first: int
    second: str


@dataclasses.dataclass(frozen=True)
class Fixed:
    x: int


BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
FRAME = pd.DataFrame({"a": [1, 2]})


@pytest.mark.parametrize(
    "value",
    [
        pd.NaT,
        pd.NA,
        pd.Timestamp("2026-01-01 00:00:00.123456789", tz="Europe/Berlin"),
        pd.Timedelta(5, "ns"),
        pd.Period("2026-01", "M"),
        pd.Interval(0, 1, "both"),
        pd.crosstab(pd.Series(["x", "y", "x"]), pd.Series([True, False, True])),
        FRAME.set_index(pd.period_range("2026-01", periods=2, freq="M")),
        FRAME.set_index(pd.interval_range(0, 2)),
        FRAME.set_index(pd.date_range("2026-01-01", periods=2, freq="D")),
        FRAME.set_index(pd.MultiIndex.from_product([[1], ["a", True]], names=["n", ("t", 1)])),
        pd.DataFrame({"id": pd.Series([1239162456494753670, None], dtype=object), "tags": [{"x": 1}, {"y": {2}}]}),
        pd.DataFrame({"a": pd.period_range("2026", periods=2, freq="D"), "b": pd.Categorical(["x", None])}),
        pd.DataFrame({"a": pd.Series([[[1]]], dtype=pd.ArrowDtype(pa.list_(pa.list_(pa.int64()))))}),
        pd.DataFrame({"a": [1, None], "b": ["x", None], "c": pd.array([1, None])}),
        pd.DataFrame([[1, 2]], columns=["a", "a"]),
        pd.Index([1, "a", ("b", 2), None], dtype=object),
        pl.DataFrame({"a": pl.Series(["x"], dtype=pl.Categorical), "b": [[1, None]]}),
        pl.Series("", [None]),
        pa.record_batch({"a": pa.array([], pa.int64())}),
        pa.table({"a": []}),
        pa.array([{"a": [1]}, None]),
        pa.chunked_array([[1], [2]]),
        np.bool_(True),
        np.float32(1.1),
        np.str_("a\0"),
        np.zeros(2, []),
        np.array([(1, (2.0,))], [("a", "i4"), ("b", [("c", "f8")])]),
        dt.datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=BERLIN),
        dt.datetime(2026, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1), "CET")),
        dt.time(2, fold=1, tzinfo=dt.timezone(dt.timedelta(microseconds=1))),
        BERLIN,
        PureWindowsPath("a", "b"),
        PurePosixPath("a"),
        fractions.Fraction(1, 3),
        collections.OrderedDict([((1, (2,)), [3])]),
        collections.Counter("aab"),
        collections.defaultdict(list, a=[1]),
        collections.deque([1, 2], maxlen=2),
        range(0, 9, 3),
        {1: [2], (1, ("a", frozenset({3}))): {4}},
        {math.nan: 1},
        {np.int64(1): 1, pd.Timestamp(0): 2},
    ],
    ids=lambda value: f"{type(value).__module__.partition('.')[0]}.{type(value).__name__}",
)
def test_a_value_arrives_equal_and_of_the_same_type(value: Any) -> None:
    encoded = codec.encode(value)
    found = codec.decode(encoded.body, b"".join(encoded.buffers))
    assert same(value, found)


def _labelled(label: Any) -> pd.Series:
    """A series whose one label may be what cannot be looked up; pandas lets it be."""
    labels = np.empty(1, object)
    labels[0] = label
    return pd.Series([1.0], index=pd.Index(labels, dtype=object, tupleize_cols=False))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({Color.RED: 1, "red": 2}, "value: two of its keys are equal where they arrive"),
        ({"a": {Fixed(1): 1}}, r"value\.a: tests.unit.test_values_arrive.Fixed arrives as dict, which can be no key"),
        ({Pair(1, "a"), (1, "a")} | {Fixed(1)}, "value: .*Fixed arrives as dict"),
        ({(1, Fixed(1))}, "value: tuple arrives as"),
        ([Loud("a")], r"value\[0\]: a tests.unit.test_values_arrive.Loud cannot be sent, .* send a str made from it"),
        ({"a": {Loud("a"): 1}}, r"value\.a"),
        (np.array([1]).view(np.recarray), "numpy.rec.recarray cannot be sent, .* send numpy.asarray"),
        (np.array([{1}], object), r"dtype object cannot be sent.* send \.tolist\(\)"),
        (np.zeros(2, np.dtype("f8", metadata={"a": 1})), "another dtype would arrive"),
        (memoryview(NO_ROWS), "without items, and of several dimensions"),
        (collections.defaultdict(lambda: 1), r"default_factory is no builtin type.* send dict\(value\)"),
        (pl.DataFrame({"a": pl.Series([object()], dtype=pl.Object)}), r"value\['a'\]: .* send \.to_list\(\)"),
        (pd.DataFrame({"a": [1, {"b": object()}]}), r"value\['a'\]\[1\]\.b: an object of type builtins.object"),
        ([pd.Series([object()])], r"value\[0\]\[0\]: an object of type"),
        (pd.Series(pd.arrays.SparseArray([0, 1])), r"SparseArray cannot be sent: convert it with \.sparse"),
        ([_labelled([1])], r"value\[0\]: its label \[1\] is not hashable: give text, or a tuple of plain values"),
        (_labelled((1, [2])), r"its label \(1, \[2\]\) is not hashable"),
        (
            dt.datetime(2026, 1, 1, tzinfo=tz.gettz("Europe/Berlin")),
            "type dateutil.* use zoneinfo.ZoneInfo",
        ),
        (pd.date_range("2026", periods=2, freq=pd.offsets.CDay(holidays=["2026-01-01"])), "set it to None"),
    ],
)
def test_what_would_be_changed_is_refused_with_its_path(value: Any, message: str) -> None:
    with pytest.raises(snakepit.EncodeError, match=message):
        codec.encode(value)


def test_an_object_whose_field_cannot_be_read_is_refused() -> None:
    box = Box(Point(1, 2), Point(3, 4))
    del box.high
    with pytest.raises(snakepit.EncodeError, match=r"value\[0\]: its field 'high' cannot be read: AttributeError"):
        codec.encode([box])


def test_tables_that_arrive_are_ones_own() -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": pd.Categorical(["x", "y"])})
    for value in (frame, frame[["a"]], frame[["b"]]):
        encoded = codec.encode(value)
        found = codec.decode(encoded.body)
        found.iloc[0, 0] = found.iloc[1, 0]
        assert found.iloc[0, 0] == value.iloc[1, 0]
        assert value.iloc[0, 0] != value.iloc[1, 0]
