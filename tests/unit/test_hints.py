"""Hints of tools: each is enforced, or refused when the tool is made."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import enum
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Never, Protocol, Self, TypedDict, Unpack

import msgspec
import numpy as np
import pandas as pd
import pytest

from bridge_py import InvalidArguments, UsageError
from bridge_py.tools.adapter import Tool
from bridge_py.wire import codec
from tests.helpers.hint_kinds import (
    Base,
    Box,
    Colour,
    Counting,
    Floats,
    Holder,
    Job,
    Mixed,
    Options,
    Other,
    Pair,
    Picky,
    Planet,
    Record,
    Right,
    Same,
    Shape,
    Sub,
    WithInit,
)


def _tool(hint: Any, default: Any = dataclasses.MISSING) -> Tool:
    def take(value: Any) -> None: ...

    def take_or_not(value: Any = default) -> None: ...

    taker: Any = take if default is dataclasses.MISSING else take_or_not
    taker.__annotations__ = {"value": hint}
    return Tool(taker, "take")


def _bound(tool: Tool, **arguments: Any) -> Any:
    encoded = codec.encode(arguments)
    return tool.arguments(encoded.body, b"".join(encoded.buffers), None)


def _taken(hint: Any, value: Any) -> Any:
    return _bound(_tool(hint), value=value)["value"]


MOMENT = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
JOB = Job(Path("p"), "soon", Planet.MARS)


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (Planet, Planet.EARTH),
        (Mixed, Mixed.HALF),
        (Mixed, Mixed.NONE),
        (Right, Right.READ | Right.WRITE),
        (Right, Right(0)),
        (list[Planet], [Planet.EARTH, Planet.MARS]),
        (set[Planet], {Planet.EARTH}),
        (dict[Colour, Base], {Colour.RED: Base(1)}),
        (Mapping[Planet, int], {Planet.MARS: 1}),
        (Colour | int, Colour.RED),
        (Colour | str, "red"),
        (Colour | Shape, Shape.ROUND),
        (Base | Other, Other(1)),
        (Base | Other | None, Base(1)),
        (list[Base | Other], [Base(1), Other(1)]),
        (Base, Sub(1, 3)),
        (Base, Same(1)),
        (list[Base], [Sub(1), Base(2)]),
        (dt.datetime | str, MOMENT),
        (dt.datetime | str, "2026-01-02T00:00:00"),
        (Path | str, Path("p")),
        (Path | str, "p"),
        (Decimal | float, Decimal("1.1")),
        (list[int] | list[float], [1.5]),
        (list[float] | list[int], [1]),
        (list[int] | dict[str, Base], {"a": Base(1)}),
        (Job, JOB),
        (Box, Box(Other(1), "y")),
        (Record, Record(Planet.MARS)),
        (Pair, Pair(Colour.RED, 3)),
        (list[Pair], [Pair(Colour.RED)]),
        (Holder[int], Holder(1)),
        (Holder[Planet], Holder(Planet.EARTH)),
        (Options, {"depth": 1}),
        (np.int64, np.int64(3)),
        (np.float32, np.float32(1.5)),
        (np.bool_, np.bool_(True)),
        (np.floating, np.float32(1.5)),
        (np.int64 | int, 3),
        (Any, np.bool_(True)),
        (list, [np.int8(3)]),
        (pd.Timestamp, pd.Timestamp("2026-01-01", tz="Europe/Berlin")),
        (collections.deque[Planet], collections.deque([Planet.EARTH], 3)),
        (collections.OrderedDict[str, int], collections.OrderedDict(a=1)),
        (collections.Counter[str], collections.Counter("aab")),
        (collections.defaultdict[str, list[int]], collections.defaultdict(list, a=[1])),
        (dict[str, int], collections.OrderedDict(a=1)),
        (Mapping[Colour, Base], collections.OrderedDict([(Colour.RED, Base(1))])),
        (dict, collections.defaultdict(list, a=[1])),
        (collections.deque[Colour] | list[Colour], [Colour.RED]),
        (collections.OrderedDict[Planet, Base | Other], collections.OrderedDict([(Planet.MARS, Other(1))])),
        (Literal[Colour.RED, 3], Colour.RED),
        (Literal[True, b"x"], b"x"),
        (Iterable[int], [1]),
    ],
)
def test_what_a_hint_names_arrives_as_itself(hint: Any, value: Any) -> None:
    found = _taken(hint, value)
    assert type(found) is type(value)
    assert found == value
    assert repr(found) == repr(value)


@pytest.mark.parametrize(
    ("hint", "value", "expected"),
    [
        (Planet, [5.9e24, 6.3e6], Planet.EARTH),  # as JSON has it
        (Mixed, 1, Mixed.ONE),
        (Mixed, None, Mixed.NONE),
        (dict[Colour, int], {"red": 1}, {Colour.RED: 1}),
        (Base | Job, {"a": 1}, Base(1)),
        (Holder[Planet], {"item": [5.9e24, 6.3e6]}, Holder(Planet.EARTH)),
        (Record, {"type": "record", "theItem": None}, Record()),
        (Pair, ["red"], Pair(Colour.RED)),
        (int, np.int64(3), 3),
        (float, np.float32(1.5), 1.5),
        (bool, np.bool_(True), True),
        (list[int], [np.int64(3), 4], [3, 4]),
        (Annotated[int, msgspec.Meta(ge=1)], np.int8(3), 3),
        (int | str, np.int64(3), 3),
        (np.int64, 3, np.int64(3)),
        (np.float64, 1.5, np.float64(1.5)),
        (dict[str, Any], Base(1), {"a": 1}),
        (Any, Base(1), {"a": 1}),
        (Any, [Colour.RED, {Colour.RED: Base(1)}], ["red", {"red": {"a": 1}}]),
        (int, Mixed.ONE, 1),
        (collections.deque[int], [1], collections.deque([1])),
        (Sequence[int], (1, 2), [1, 2]),
    ],
)
def test_what_a_hint_makes_of_other_values(hint: Any, value: Any, expected: Any) -> None:
    found = _taken(hint, value)
    assert type(found) is type(expected)
    assert found == expected


@pytest.mark.parametrize(
    ("hint", "value", "message"),
    [
        (Planet, "Pluto", "Invalid enum value 'Pluto'"),
        (Mixed, True, "Invalid enum value True"),
        (Mixed, 1.0, r"Invalid enum value 1\.0"),
        (Right, 8, "Invalid enum value 8"),
        (Colour, Shape.ROUND, "Expected `Colour`, got `Shape`"),
        (Base, Other(1), "Expected `Base`, got `Other`"),
        (Same, Base(1), "Expected `Same`, got `Base`"),
        (Base, {"a": 1, "b": 2}, "Object contains unknown field `b`"),
        (Options, {"depth": 1, "breadth": 2}, "Object contains unknown field `breadth`"),
        (Record, {"type": "record", "item": 1}, "Object contains unknown field `item`"),
        (Record, {"type": "tape"}, r"Invalid value 'tape' - at `value\.type`"),
        (Base | Other, {"a": 1}, "fits several, Base, Other: send an object of one of them"),
        (Base | Other, {"c": 1}, r"Expected `.*Base \| .*Other`, got `dict`"),
        (list[Job], [{"where": 1, "when": "x", "planet": None}], r"at `value\[0\]\.where`"),
        (Job, {"where": "p", "when": "x", "planet": "x"}, r"Invalid enum value 'x' - at `value\.planet`"),
        (Holder[int], Holder("x"), r"Expected `int`, got `str` - at `value\.item`"),
        (Pair, [], r"Expected `array` of length 1 to 2, got 0"),
        (dict[Path, int], {"a": 1}, r"Expected `pathlib.*Path`, got `str` \(its key 'a'\) - at `value`"),
        (Iterable[int], "abc", "Expected `array`, got `str`"),
        (np.int8, 300, "Expected `numpy.int8`, got `int` 300"),
        (np.float32, 0.1, r"Expected `numpy.float32`, got `float` 0\.1"),
        (np.int64, 1.0, "Expected `numpy.int64`, got `float`"),
        (np.int64, True, "Expected `numpy.int64`, got `bool`"),
        (np.bool_, 1, "Expected `numpy.bool"),
        (Floats, np.zeros(2, "f4"), "Expected an array of `float64`, got one of dtype `float32`"),
        (np.ndarray[tuple[int, int], Any], np.zeros(2), "Expected an array of 2 dimensions, got one of 1"),
        (Callable[[], int], 3, "Expected `collections.abc.Callable`, got `int`"),
        (Literal[True], 1, "Invalid value 1: give True"),
        (Annotated[int, msgspec.Meta(ge=1)], np.int8(0), "Expected `int` >= 1"),
        (collections.deque[int], collections.deque(["x"]), r"Expected `int`, got `str`"),
        (Path | str, 3, r"Expected `pathlib.*Path \| str`, got `int`"),
        (set[Base], [{"a": 1}, {"a": "x"}], r"Expected `int`, got `str` - at `value\[1\]\.a`"),
    ],
)
def test_what_does_not_fit_is_refused_and_named(hint: Any, value: Any, message: str) -> None:
    with pytest.raises(InvalidArguments, match=message) as caught:
        _taken(hint, value)
    assert caught.value.parameter == "value"


class _Shy(Protocol):
    a: int


@pytest.mark.parametrize(
    ("hint", "message"),
    [
        (Never, "Never"),
        (Self, "Self"),
        (_Shy, "_Shy"),
        (list[_Shy], "_Shy"),
        (WithInit, "'b', an InitVar"),
        (Annotated[Path | str, msgspec.Meta(min_length=1)], "min_length"),
        (set[list[int]] | _Shy, "_Shy"),
        (Holder[_Shy], "_Shy"),
    ],
)
def test_a_hint_that_cannot_be_enforced_is_refused_at_start(hint: Any, message: str) -> None:
    with pytest.raises(UsageError, match=f"tool 'take': the hint of parameter 'value' cannot be enforced: .*{message}"):
        _tool(hint)


def test_an_object_that_was_sent_is_not_changed_by_its_class() -> None:
    found = _taken(Job, JOB)
    assert (JOB.size, found.size) == (1, 1)  # not what __post_init__ makes of 1
    assert _taken(Box, Box(Base(1), "y")).name == "Y"
    assert _taken(Picky, Picky(2)) == Picky(2)
    assert _taken(Counting, Counting(1)).count == 2
    assert _taken(Counting, {"count": 1}).count == 2
    with pytest.raises(InvalidArguments, match="Picky cannot be made: TypeError: .*'seconds'"):
        _taken(Picky, {"seconds": 120})


def test_other_arguments_have_a_hint_too() -> None:
    class Named(TypedDict):
        size: int

    def each(first: int, **rest: Colour) -> None: ...

    def whole(**rest: Unpack[Named]) -> None: ...

    class Owner:
        def method(self, ctx: Any = None, **rest: Any) -> None: ...

    whole.__annotations__ = {"rest": Unpack[Named]}
    tool = Tool(each, "each")
    assert _bound(tool, first=1, more=Colour.RED) == {"first": 1, "more": Colour.RED}
    with pytest.raises(
        InvalidArguments, match="each: the argument 'more' does not fit: Invalid enum value 3"
    ) as caught:
        _bound(tool, first=1, more=3)
    assert caught.value.parameter == "more"
    assert _bound(Tool(whole, "whole"), size=1) == {"size": 1}
    with pytest.raises(InvalidArguments, match="Expected `int`, got `str` - at `size`"):
        _bound(Tool(whole, "whole"), size="x")
    with pytest.raises(InvalidArguments, match="there is no parameter 'self'"):
        _bound(Tool(Owner().method, "method"), self=3)


def test_a_default_of_none_lets_none_through() -> None:
    assert _bound(_tool(Base | Other, None), value=None) == {"value": None}
    assert _bound(_tool(Base | Other, None)) == {}
    assert _bound(_tool(Planet, Planet.EARTH), value=Planet.MARS) == {"value": Planet.MARS}


def test_an_enum_that_finds_its_members_itself_is_asked() -> None:
    class Loud(enum.Enum):
        A = "a"

        @classmethod
        def _missing_(cls, value: object) -> Any:
            return cls.A if value == "A" else None

    assert _taken(Loud, "A") is Loud.A
    with pytest.raises(InvalidArguments, match="Invalid enum value 'B'"):
        _taken(Loud, "B")


@pytest.mark.skipif(sys.version_info < (3, 12), reason="`type` is a statement since Python 3.12")
def test_aliases_and_classes_of_python_3_12() -> None:
    found: dict[str, Any] = {"Base": Base, "dataclass": dataclasses.dataclass}
    exec("type Many[T] = list[T] | None\n@dataclass\nclass Of[T]:\n    item: T", found)
    assert _taken(found["Many"][Base], [Base(1)]) == [Base(1)]
    assert _taken(found["Of"][Base], found["Of"](Base(1))).item == Base(1)
    with pytest.raises(InvalidArguments, match="Expected `int`, got `str`"):
        _taken(found["Of"][int], found["Of"]("x"))
