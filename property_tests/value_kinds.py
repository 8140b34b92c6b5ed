"""Values of all the kinds that may be met, also those that cannot be sent, and whether one is the same as another."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import enum
import fractions
import pathlib
import zoneinfo
from typing import Any, Final, NamedTuple

import attrs
import msgspec
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
from hypothesis import strategies as st

from snakepit_trio.testing.strategies import arrays, values

from .table_kinds import (
    arrow_values,
    columns,
    frames,
    indexes,
    moments,
    numpy_scalars,
    pd_scalars,
    polars_values,
    series,
    times,
)

Values = st.SearchStrategy[Any]


class Text(str):
    """A subclass of a builtin."""

    __slots__ = ()


class Colour(enum.Enum):
    RED = "red"
    ONE = 1
    HALF = 0.5
    NONE = None
    PAIR = (1, ("a", None))
    NOTHING = ((),)  # () alone would be an object() in Python 3.11.2


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Word(enum.StrEnum):
    RED = "red"
    BLUE = "blue"


class Right(enum.Flag):
    READ = 1
    WRITE = 2
    RUN = 4


class Mode(enum.IntFlag):
    A = 1
    B = 2


class Pair(NamedTuple):
    first: int
    second: str = "b"


@dataclasses.dataclass(frozen=True)
class Point:
    x: float
    y: int | None = None


@dataclasses.dataclass(frozen=True)
class Place(Point):
    """A subclass with a field more."""

    name: str = ""


@dataclasses.dataclass(frozen=True)
class Dot(Point):
    """A subclass without fields of its own."""


@dataclasses.dataclass
class Tree:
    colour: Colour
    parts: list[Tree] = dataclasses.field(default_factory=list)
    about: dict[Colour, Point] = dataclasses.field(default_factory=dict)
    when: dt.datetime | str | None = None
    size: int = dataclasses.field(init=False, default=0)


def _shout(text: str) -> str:
    return text + "!"


@attrs.define
class Box:
    low: Point
    high: Point | Pair
    _secret: str = attrs.field(default="s", converter=_shout)
    right: Right = Right.READ


class Sample(msgspec.Struct, rename="camel", tag="sample"):
    the_name: str
    mode: Mode = Mode.A


members = st.sampled_from([*Colour, *Level, *Word, Right.READ | Right.RUN, Right(0), Mode(3), Mode(8)])
points = st.one_of(
    st.builds(Point, st.floats(), st.none() | st.integers()),
    st.builds(Place, st.floats(), st.integers(), st.text()),
    st.builds(Dot, st.floats()),
)
pairs = st.builds(Pair, st.integers(), st.text())
trees = st.recursive(
    st.builds(
        Tree,
        st.sampled_from(Colour),
        about=st.dictionaries(st.sampled_from(Colour), points, max_size=2),
        when=st.one_of(st.none(), moments, st.text()),
    ),
    lambda inner: st.builds(Tree, st.sampled_from(Colour), st.lists(inner, max_size=2)),
    max_leaves=3,
)
boxes = st.builds(Box, points, st.one_of(points, pairs), st.text(), st.sampled_from([*Right, Right.READ | Right.RUN]))
samples = st.builds(Sample, st.text(), st.sampled_from([*Mode, Mode(3)]))
objects = st.one_of(points, pairs, trees, boxes, samples)


odd_arrays = st.sampled_from(
    [
        np.zeros(2, []),
        np.zeros(2, [("a", []), ("b", "i4")]),
        np.zeros((0, 3), "S0"),
        np.array(["", "a"], "U"),
        np.array([None, 1], object),
        np.array(["a"], "T"),
        np.zeros(2, np.dtype("f8", metadata={"a": 1})),
        np.zeros(2, np.dtype([("a", "i1"), ("b", "f8")], align=True)),
        np.zeros(2, np.dtype({"names": ["a"], "formats": ["i4"], "offsets": [4], "itemsize": 12})),
        np.zeros(2, np.dtype({"names": ["a", "b"], "formats": ["i4", "i4"], "offsets": [4, 0]})),
        np.zeros(2, [(("title", "a"), "i4")]),
        np.zeros((2, 2), "V3"),
        np.zeros(2, np.dtype((np.void, 0))),
        np.array([(1, 2.0)], "i4,f8").view(np.recarray),
        np.array([[1]]).view(np.matrix),
        np.ma.masked_array([1, 2], [True, False]),
        np.array(["a"]).view(np.char.chararray),
        np.broadcast_to(np.float32(1), (3, 4)),
        np.zeros(2, np.dtype([("a", "f8", (2, 2)), ("b", [("c", "U3")], (1,))])),
    ]
)

_views: Final[list[Any]] = [
    np.zeros((0, 3)),
    np.zeros((2, 3)),
    np.array(1.0),
    np.zeros(3, "i2")[::2],
    np.zeros((2, 2), "u1").T,
]
others = st.one_of(
    st.integers(0, len(_views) - 1).map(lambda index: memoryview(_views[index])),
    st.fractions(),
    st.fractions().map(lambda number: {number: [number]}),
    st.builds(range, st.integers(-9, 9), st.integers(-9, 9), st.integers(1, 9)),
    st.builds(collections.deque, st.lists(st.integers()), st.none() | st.integers(0, 5)),
    st.dictionaries(st.integers() | st.text(), st.integers()).map(collections.OrderedDict),
    st.dictionaries(st.tuples(st.integers()), st.integers()).map(collections.Counter),
    st.dictionaries(st.text(), st.lists(st.integers())).map(lambda items: collections.defaultdict(list, items)),
    st.sampled_from(
        [
            collections.defaultdict(lambda: 1, a=1),
            Text("a"),
            {Text("a"): 1},
            {1: Text("a")},
            {Colour.RED: 1, "red": 2},
            {Level.LOW: 1, 2: 1},
            {Point(1.0): 1},
            {Pair(1): 1, (1, "b"): 2},
            {frozenset([Point(1.0)])},
            {float("nan"): 1, 1: float("nan")},
            {np.float64(1): 1},
            {np.float64("nan"): 1, float("nan"): 2},
            {pd.NaT: 1, None: 2},
            {pd.Timestamp(0): 1},
            {(np.int64(1), 1)},
            {Colour.PAIR: 1},
            {Word.RED},
            {Word.RED: 1},
            pathlib.PurePosixPath("a"),
            pathlib.PureWindowsPath("a/b"),
            dt.UTC,
            zoneinfo.ZoneInfo("UTC"),
            pd.offsets.Day(),
            pd.Index,
            object(),
            Point,
            np.float64,
            [Point],
            "\ud800",
            {"\ud800": 1},
            {1: {"a\ud800"}},
            pl.col("a"),
            pl.LazyFrame(),
            pa.scalar(1),
            pa.int8(),
            pd.CategoricalDtype(),
            np.dtype("f8"),
            fractions.Fraction(1, 3),
            iter([1]),
            1 == 1,
        ]
    ),
)
kinds: Final[dict[str, Values]] = {
    "plain": values(arrays=True),
    "moments": st.one_of(moments, times),
    "members": members,
    "objects": objects,
    "numpy": st.one_of(numpy_scalars, arrays(), odd_arrays),
    "pandas": st.one_of(
        pd_scalars, frames(), series(), st.integers(0, 3).flatmap(indexes), st.integers(0, 3).flatmap(columns)
    ),
    "polars": polars_values(),
    "pyarrow": arrow_values(),
    "others": others,
}


def nested(inner: Values) -> Values:
    """Values, and containers of them."""
    return st.one_of(
        inner,
        st.lists(inner, max_size=2),
        st.lists(inner, min_size=1, max_size=2).map(lambda items: {"a": items, 1: items[0]}),
        inner.map(lambda item: collections.OrderedDict(x=[item])),
    )
