"""JSON Schemas of hints: each is valid, what fits it is taken by the tool, and results fit it."""

from __future__ import annotations

import array
import collections
import contextlib
import dataclasses
import datetime as dt
import enum
import math
import re
import uuid
import zoneinfo
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    LiteralString,
    NewType,
    NotRequired,
    Protocol,
    TypedDict,
    TypeVar,
    Unpack,
)

import attrs
import jsonschema
import msgspec
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pydantic
import pytest
from numpy.typing import NDArray

from bridge_py import BaseAdapter, InvalidArguments, tool
from bridge_py.tools.adapter import Tool
from bridge_py.tools.hints.schemas import Schemas
from bridge_py.tools.schemas import schemas_of
from bridge_py.wire import codec
from bridge_py.wire.errors import EncodeError
from snakepit_trio._serving import json_values
from snakepit_trio._serving.json_values import arguments_of, misfit, to_json, to_plain
from snakepit_trio._serving.schemas import ToolSchema, function_schema
from tests.helpers.hint_kinds import Base, Colour, Holder, Job, Mixed, Options, Other, Pair, Planet, Record, Right

UserId = NewType("UserId", int)
Number = TypeVar("Number", int, float)
Positive = Annotated[int, msgspec.Meta(gt=0, le=10, description="a size")]


@dataclasses.dataclass
class Node:
    """A tree."""

    value: int
    children: list[Node] = dataclasses.field(default_factory=list)


@attrs.define
class Link:
    next: Link | None = None


class Row(msgspec.Struct, array_like=True, tag="row"):
    size: int
    name: str = ""


class Film(TypedDict):
    title: str
    year: NotRequired[int]


class Leaf(pydantic.BaseModel):
    name: str = pydantic.Field(alias="leafName")
    parent: Leaf | None = None


class Tree(pydantic.BaseModel):
    leaves: list[Leaf]
    when: dt.datetime
    path: Path = Path()
    sizes: set[int] = set()


class Access(enum.IntFlag):
    READ = 1
    WRITE = 4


class Stranger:
    """A class of which JSON knows nothing."""


class Shy(Protocol):
    a: int


def described(hint: Any, returned: Any = None) -> tuple[Tool, ToolSchema]:
    """A tool with a parameter `value`, and its schema."""

    def take(value: Any) -> Any: ...

    take.__annotations__ = {"value": hint, "return": returned}
    return function_schema(take, "take")


def arrives(tool: Tool, schema: ToolSchema, value: Any) -> Any:
    """What the tool gets for JSON: by the host, the wire and the worker."""
    encoded = codec.encode(arguments_of(schema, {"value": value}))
    return tool.arguments(encoded.body, b"".join(encoded.buffers), None)["value"]


def is_valid(schema: dict[str, Any], value: Any) -> bool:
    jsonschema.Draft202012Validator.check_schema(schema)
    return bool(jsonschema.Draft202012Validator(schema).is_valid(value))


NODE: Final = {"value": 1, "children": [{"value": 2, "children": [{"value": 3}]}]}
JOB: Final = {"where": "p", "when": "soon", "planet": [6.4e23, 3.3e6]}
INPUTS: Final[list[tuple[Any, list[Any], list[Any]]]] = [  # a hint, JSON that fits its schema, and JSON that does not
    (Any, [None, 1, "x", [{}]], []),
    (object, [None, 1], []),
    (None, [None], [0, ""]),
    (bool, [True], [1, "true", None]),
    (int, [1, 1.0, -7, 2**70], ["1", 1.5, True, None]),
    (float, [1, 1.5], ["1", None, True]),
    (str, ["", "x"], [1, None]),
    (LiteralString, ["x"], [1]),
    (bytes, ["aGk=", ""], [1]),
    (bytearray, ["aGk="], [1]),
    (memoryview, ["aGk="], [1]),
    (complex, ["1+2j", "3"], [1]),
    (dt.datetime, ["2026-01-02T03:04:05Z", "2026-01-02T03:04:05.5+02:00"], [1]),
    (dt.date, ["2026-01-02"], [1]),
    (dt.time, ["03:04:05Z"], [1]),
    (dt.timedelta, ["P1DT2H"], [1]),
    (dt.datetime | str, ["soon"], [1]),
    (uuid.UUID, ["12345678-1234-5678-1234-567812345678"], [1]),
    (Decimal, ["1.10", "-1e5", 1, 1.5], ["x", "", None]),
    (Fraction, ["1/3", "-2"], ["1/0", "x", 1]),
    (zoneinfo.ZoneInfo, ["Europe/Berlin"], [1]),
    (Path, ["a/b"], [1]),
    (PurePosixPath, ["a/b"], [1]),
    (Path | str, ["a/b"], [1]),
    (Path | None, ["a/b", None], [1]),
    (int | str, [1, "x"], [None, [], True]),
    (int | float, [1, 1.5], ["x"]),
    (int | Any, [1, None, []], []),
    (Base | Job, [{"a": 1}, JOB], [{"c": 1}, 3]),
    (list, [[], [1, "x"]], [{}, "x"]),
    (list[int], [[], [1, 2.0]], [["x"], 1]),
    (Sequence[Path], [["a"]], ["a"]),
    (Iterable[int], [[1]], ["x"]),
    (set[int], [[1, 2]], [1, ["x"]]),
    (frozenset[Colour], [["red"]], [["blue"]]),
    (tuple, [[], [1, "x"]], [1]),
    (tuple[int, str], [[1, "x"]], [[1], [1, "x", 2], ["x", 1]]),
    (tuple[int, ...], [[], [1, 2]], [["x"]]),
    (tuple[()], [[]], [1]),
    (collections.deque[Planet], [[[5.9e24, 6.3e6]]], [[1]]),
    (dict, [{}, {"a": [1]}], [[], 1]),
    (dict[str, int], [{"a": 1}], [{"a": "x"}]),
    (dict[int, str], [{"1": "x", "-20": "y"}], [{"x": "y"}, {"1.5": "y"}]),
    (dict[float, str], [{"1.5": "x"}], [{"x": "y"}]),
    (dict[Path, int], [{"a": 1}], [{"a": "x"}]),
    (dict[dt.date, int], [{"2026-01-01": 1}], [{"2026-01-01": "x"}]),
    (dict[uuid.UUID, int], [{"12345678-1234-5678-1234-567812345678": 1}], [[]]),
    (dict[Decimal, int], [{"1.5": 1}], [{"x": 1}]),
    (dict[Literal[1, 2], int], [{"1": 3}], [{"3": 3}]),
    (dict[int | str, int], [{"a": 3}], [{"3": "x"}]),
    (Mapping[Colour, Base], [{"red": {"a": 1}}], [{"blue": {"a": 1}}]),
    (collections.OrderedDict[str, int], [{"a": 1}], [{"a": "x"}]),
    (collections.Counter[str], [{"a": 1}], [{"a": "x"}]),
    (collections.defaultdict[str, list[int]], [{"a": [1]}], [{"a": 1}]),
    (Literal["a", 1, None, True], ["a", 1, 1.0, None, True], ["b", 2, False]),
    (Literal[Colour.RED, 3], ["red", 3], ["blue"]),
    (Colour, ["red"], ["RED", 1]),
    (Planet, [[5.9e24, 6.3e6]], ["EARTH", [1, 2]]),
    (Mixed, [0.5, 1, 1.0, "a", None], [2, "b", True]),
    (Right, [0, 1, 2, 3], [4, -1, "READ"]),
    (Access, [0, 1, 5], ["READ"]),
    (Base, [{"a": 1}], [{}, {"a": 1, "b": 2}, {"a": "x"}, [1]]),
    (Job, [JOB, {**JOB, "size": 3}], [{**JOB, "size": "x"}, {}]),
    (Other, [{"a": 1}], [{}]),
    (Holder[int], [{"item": 1}], [{"item": "x"}]),
    (Holder[Planet], [{"item": [5.9e24, 6.3e6]}], [{"item": 1}]),
    (Record, [{"type": "record", "theItem": [5.9e24, 6.3e6]}, {"type": "record"}], [{}, {"type": "x"}]),
    (Row, [["row", 1], ["row", 1, "x"]], [["row"], ["x", 1], [1]]),
    (Pair, [["red"], ["red", 3]], [[], ["blue"], ["red", 3, 4]]),
    (Options, [{}, {"depth": 1}], [{"depth": "x"}, {"breadth": 1}]),
    (Film, [{"title": "t"}, {"title": "t", "year": 1}], [{"year": 1}]),
    (Node, [NODE], [{"value": 1, "children": [{"value": "x"}]}]),
    (Link, [{"next": {"next": None}}, {}], [{"next": 1}]),
    (Leaf, [{"leafName": "a", "parent": {"leafName": "b"}}], [{"name": "a"}, {"leafName": "a", "parent": 1}]),
    (Tree, [{"leaves": [], "when": "2026-01-01T00:00:00Z", "path": "p", "sizes": [1]}], [{"leaves": []}]),
    (list[Leaf | Tree], [[{"leafName": "a"}]], [[1]]),
    (UserId, [1], ["x"]),
    (Number, [1, 1.5], ["x"]),
    (Positive, [1, 10], [0, 11, "x"]),
    (Annotated[str, msgspec.Meta(min_length=1, max_length=2, pattern="^a")], ["a", "ab"], ["", "abc", "b"]),
    (Annotated[list[Planet], msgspec.Meta(min_length=1)], [[[5.9e24, 6.3e6]]], [[]]),
    (Annotated[dict[str, int], msgspec.Meta(max_length=1)], [{"a": 1}], [{"a": 1, "b": 2}]),
    (Annotated[float, msgspec.Meta(ge=0, multiple_of=0.5)], [0, 1.5], [-1, 0.7]),
    (Annotated[dt.datetime, msgspec.Meta(tz=True)], ["2026-01-02T03:04:05Z"], [1]),
    (Annotated[bytes, msgspec.Meta(max_length=2)], ["aGk="], [1]),
    (np.bool_, [True], [1]),
    (np.int8, [1, 1.0, -128], [300, "x", 1.5]),
    (np.float32, [0.1, 1], ["x"]),
    (np.float64, [0.1, 1], ["x"]),
    (np.floating, [0.1], ["x"]),
    (np.integer, [3], ["x"]),
    (np.complex128, ["1+2j"], [1]),
    (np.str_, ["x"], [1]),
    (np.ndarray, [[1, 2], [[1.5], [2]], []], [1, "x", {}]),
    (NDArray[np.float64], [[1, 2.5], [[1]]], [["x"], 3]),
    (NDArray[np.uint8], [[1, 255]], [["x"]]),
    (NDArray[np.bool_], [[True]], [["x"]]),
    (NDArray[np.floating], [[1]], [["x"]]),
    (np.ndarray[tuple[int, int], np.dtype[np.float64]], [[[1, 2]], []], [[1], [["x"]]]),
    (NDArray[np.float64] | None, [None, [1.0]], ["x"]),
    (dict[str, NDArray[np.float64]], [{"a": [1]}], [{"a": 1}]),
    (pd.DataFrame, [[{"a": 1}, {"a": 2}], []], [1, [1], {"a": 1}]),
    (pd.Series, [[1, 2]], [1]),
    (pd.Timestamp, ["2026-01-02T00:00:00+01:00"], [1]),
    (pd.Timedelta, ["P1DT2H"], [1]),
    (pl.DataFrame, [[{"a": 1}]], [1]),
    (pl.Series, [[1, 2]], [1]),
    (pa.Table, [[{"a": 1}]], [1]),
]  # fmt: skip


@pytest.mark.parametrize(("hint", "fitting", "strange"), INPUTS, ids=[f"{at}" for at in range(len(INPUTS))])
def test_what_fits_the_schema_is_taken_by_the_tool(hint: Any, fitting: list[Any], strange: list[Any]) -> None:
    tool, schema = described(hint)
    for value in fitting:
        assert is_valid(schema.input, {"value": value}), (value, schema.input)
        arrives(tool, schema, value)
    for value in strange:
        assert not is_valid(schema.input, {"value": value}), (value, schema.input)
        with pytest.raises(InvalidArguments) as caught:
            arrives(tool, schema, value)
        assert caught.value.parameter == "value"


@pytest.mark.parametrize(
    "hint",
    [Stranger, Callable[[], int], type[int], list[Stranger], range, array.array, dict[tuple[int, int], int]],
    ids=str,
)
def test_what_json_cannot_express_says_so(hint: Any) -> None:
    _, schema = described(hint)
    assert is_valid(schema.input, {"value": []}) or "object" in str(schema.input)
    assert "which no" in str(schema.input)


OUTPUTS: Final[list[tuple[Any, Any, Any]]] = [  # a hint of a result, what arrives at the host, and its JSON
    (None, None, None),
    (int, 2**70, 2**70),
    (float, 1.5, 1.5),
    (float, math.nan, None),
    (float, -math.inf, None),
    (list[float], [1.0, math.nan], [1.0, None]),
    (str, "x", "x"),
    (bytes, b"hi", "aGk="),
    (bytearray, bytearray(b"hi"), "aGk="),
    (memoryview, memoryview(b"hi"), "aGk="),
    (complex, 1 + 2j, "1+2j"),
    (dt.datetime, dt.datetime.fromisoformat("2026-01-02T03:00:00"), "2026-01-02T03:00:00"),
    (dt.datetime, dt.datetime(2026, 1, 2, 3, tzinfo=dt.UTC), "2026-01-02T03:00:00+00:00"),
    (dt.date, dt.date(2026, 1, 2), "2026-01-02"),
    (dt.time, dt.time(3, 4), "03:04:00"),
    (dt.timedelta, dt.timedelta(1, 2), "P1DT2S"),
    (uuid.UUID, uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    (Decimal, Decimal("1.10"), "1.10"),
    (Fraction, Fraction(1, 3), "1/3"),
    (zoneinfo.ZoneInfo, zoneinfo.ZoneInfo("Europe/Berlin"), "Europe/Berlin"),
    (Path, Path("a/b"), "a/b"),
    (set[int], {1}, [1]),
    (frozenset[int], frozenset([1]), [1]),
    (tuple[int, str], [1, "x"], [1, "x"]),
    (collections.deque[int], collections.deque([1]), [1]),
    (range, range(3), [0, 1, 2]),
    (array.array, array.array("d", [1, math.nan]), [1.0, None]),
    (dict[int, str], {1: "x"}, {"1": "x"}),
    (dict[float, str], {1.5: "x"}, {"1.5": "x"}),
    (dict[dt.date, int], {dt.date(2026, 1, 2): 1}, {"2026-01-02": 1}),
    (dict[uuid.UUID, int], {uuid.UUID(int=1): 1}, {"00000000-0000-0000-0000-000000000001": 1}),
    (collections.Counter[str], collections.Counter("aab"), {"a": 2, "b": 1}),
    (collections.defaultdict[str, list[int]], collections.defaultdict(list, a=[1]), {"a": [1]}),
    (Colour, "red", "red"),
    (Planet, [5.9e24, 6.3e6], [5.9e24, 6.3e6]),
    (Right, 3, 3),
    (Base, {"a": 1, "b": 2}, {"a": 1, "b": 2}),  # of a subclass
    (Record, {"theItem": None}, {"theItem": None}),
    (Row, [1, "x"], [1, "x"]),
    (Pair, ["red", 0], ["red", 0]),
    (Leaf, {"name": "a", "parent": None}, {"name": "a", "parent": None}),
    (Iterator[int], 1, 1),
    (np.float64, np.float64("nan"), None),
    (np.int8, np.int8(3), 3),
    (np.bool_, np.bool_(True), True),
    (np.complex64, np.complex64(1 + 2j), "1+2j"),
    (np.str_, np.str_("x"), "x"),
    (np.ndarray, np.array(3.5), 3.5),
    (np.ndarray, np.array([["a"]]), [["a"]]),
    (np.ndarray, np.array(["2026-01-02", "NaT"], "M8[D]"), ["2026-01-02", None]),
    (NDArray[np.float64], np.array([[1, np.nan]]), [[1.0, None]]),
    (NDArray[np.uint8], np.array([1], "u1"), [1]),
    (np.ndarray[tuple[int, int], np.dtype[np.float64]], np.zeros((1, 2)), [[0.0, 0.0]]),
    (pd.DataFrame, pd.DataFrame({"a": [1.0, None], "b": ["x", None]}), [{"a": 1.0, "b": "x"}, {"a": None, "b": None}]),
    (pd.Series, pd.Series([1, None], dtype="Int64"), [1, None]),
    (pd.Series, pd.Series(pd.to_datetime(["2026-01-02", None])), ["2026-01-02T00:00:00", None]),
    (pd.Timestamp, pd.Timestamp("2026-01-02"), "2026-01-02T00:00:00"),
    (pd.Timedelta, pd.Timedelta(days=1, seconds=1), "P1DT1S"),
    (pd.Timestamp, pd.NaT, None),
    (pl.DataFrame, pl.DataFrame({"a": [1, None]}), [{"a": 1}, {"a": None}]),
    (pl.Series, pl.Series([1.5]), [1.5]),
    (pa.Table, pa.table({"a": [1]}), [{"a": 1}]),
]  # fmt: skip


@pytest.mark.parametrize(("hint", "value", "expected"), OUTPUTS, ids=[f"{at}" for at in range(len(OUTPUTS))])
def test_results_fit_their_schema(hint: Any, value: Any, expected: Any) -> None:
    schemas = Schemas(output=True)
    found = schemas.of(Any if hint is Iterator[int] else hint)
    arrived = codec.encode(value)
    plain = to_plain(codec.decode(arrived.body, b"".join(arrived.buffers)))
    assert plain == expected
    assert msgspec.json.decode(to_json(value)) == expected
    document = {**found, "$defs": schemas.definitions}
    assert is_valid(document, plain), found
    assert misfit(plain, document) == ""


def _nested(levels: int) -> Any:
    found: list[Any] = []
    for _ in range(levels):
        found = [found]
    return found


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [Stranger()]}, r"the result\['a'\]\[0\] cannot become JSON: it is an object of type tests\.Stranger"),
        ({1: 0, "1": 0}, "two of its keys become the same text"),
        ({(1, 2): 0}, r"its key \(1, 2\) is no text"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "two columns of the frame have the same name"),
        (_nested(300), "nested too deeply"),
        ([10**5000], "Exceeds the limit .* digits"),
        ({10**5000: 1}, "Exceeds the limit .* digits"),
        (Fraction(10**5000), "Exceeds the limit .* digits"),
    ],
)
def test_what_cannot_become_json_is_named(value: Any, message: str) -> None:
    with pytest.raises(EncodeError, match=message):
        to_json(value)


def test_arguments_that_are_no_object_are_refused() -> None:
    _, schema = described(int)
    with pytest.raises(InvalidArguments, match="give the arguments as an object"):
        arguments_of(schema, [1])
    _, schema = described(Node)
    deep: Any = {"value": 1}
    for _ in range(500):
        deep = {"value": 1, "children": [deep]}
    with pytest.raises(InvalidArguments, match="nested too deeply"):
        arguments_of(schema, {"value": deep})


def test_the_schema_of_a_tool() -> None:
    class Rest(TypedDict):
        size: int

    async def grow(
        tree: Node, colour: Colour = Colour.RED, *, times: int | None = None, **rest: int
    ) -> AsyncIterator[Node]:
        """Grow a tree.

        Not told to anybody.

        Args:
            times: How often.
        """
        yield tree

    def whole(**rest: Any) -> None: ...

    whole.__annotations__["rest"] = Unpack[Rest]
    found = function_schema(grow)[1]
    node = {
        "type": "object",
        "properties": {"value": {"type": "integer"}, "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}}},
        "required": ["value"],
        "description": "A tree.",
    }
    assert (found.name, found.description, found.streaming) == ("grow", "Grow a tree.", True)
    assert found.input == {
        "type": "object",
        "properties": {
            "tree": {"$ref": "#/$defs/Node"},
            "colour": {"enum": ["red"], "default": "red"},
            "times": {"anyOf": [{"type": "integer"}, {"type": "null"}], "description": "How often.", "default": None},
        },
        "additionalProperties": {"type": "integer"},
        "required": ["tree"],
        "$defs": {"Node": {**node, "additionalProperties": False}},
    }
    assert found.output == {"$ref": "#/$defs/Node", "$defs": {"Node": node}}
    assert schemas_of(Tool(whole, "whole"))["input"]["required"] == ["size"]
    assert schemas_of(Tool(lambda a: a, "nameless")) == {
        "input": {"type": "object", "properties": {"a": {}}, "additionalProperties": False, "required": ["a"]},
        "output": None,
    }


class Batches(BaseAdapter):
    @tool(batch=4)
    def sizes(self, text: list[str], times: Sequence[int]) -> list[float]:
        return [len(each) * number for each, number in zip(text, times, strict=True)]


def test_the_schema_of_a_batch_tool_is_that_of_one_call() -> None:
    assert schemas_of(Batches().tools()["sizes"]) == {
        "input": {
            "type": "object",
            "properties": {"text": {"type": "string"}, "times": {"type": "integer"}},
            "additionalProperties": False,
            "required": ["text", "times"],
        },
        "output": {"type": ["number", "null"], "description": "null stands for NaN and the infinities"},
    }


@pytest.mark.parametrize(
    ("value", "schema", "problem"),
    [
        ("x", {"type": "integer"}, "expected integer, got 'x'"),
        ([1, "x"], {"type": "array", "items": {"type": "integer"}}, "expected integer, got 'x'"),
        ([1], {"type": "array", "minItems": 2}, r"\[1\] does not keep to minItems 2"),
        (11, {"type": "integer", "maximum": 10}, "11 does not keep to maximum 10"),
        ({}, {"type": "object", "required": ["a"]}, "'a' is missing"),
        ({"b": 1}, {"type": "object", "additionalProperties": False}, "there is no field 'b'"),
        ({"a": 1}, {"properties": {"a": {"enum": ["x"]}}}, r"1 is none of \['x'\]"),
        (1, {"anyOf": [{"type": "string"}, {"type": "null"}]}, "1 fits no part of the union"),
    ],
)
def test_a_result_that_does_not_fit_is_told_why(value: Any, schema: dict[str, Any], problem: str) -> None:
    assert not is_valid(schema, value)
    assert re.fullmatch(problem, misfit(value, schema))


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}},
        {"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}]}}},
        {"$ref": 3},
        {"anyOf": 3},
        {"type": "array", "items": 3, "prefixItems": 3},
        {"type": 3, "minItems": "x"},
        {"properties": [], "required": 3},
        {"pattern": "(a*)*b"},
    ],
)
def test_a_schema_of_a_hostile_worker_takes_no_endless_time(schema: dict[str, Any], monkeypatch: Any) -> None:
    monkeypatch.setattr(json_values, "_MOST_STEPS", 10_000)
    tool = ToolSchema("t", "", False, {"properties": {"value": schema}, "$defs": schema.get("$defs", {})}, None)
    for value in ([1], {"a": 1}, "a" * 40):
        misfit(value, schema)
        with contextlib.suppress(InvalidArguments):
            arguments_of(tool, {"value": value})
