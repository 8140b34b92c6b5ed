"""A property of JSON Schemas: what fits the schema of a hint is taken by the tool, however hints are put together."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import jsonschema
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from bridge_py.tools.hints.own import of_parts, union_of
from tests.helpers.hint_kinds import Base, Colour, Holder, Mixed, Options, Pair, Record

from .test_json_schemas import Film, Leaf, Node, arrives, described

Json = st.SearchStrategy[Any]
LEAVES: list[Any] = [
    int, float, str, bool, None, bytes, dt.date, dt.datetime, dt.timedelta, Decimal, Path, Colour, Mixed, Base, Pair,
    Record, Options, Node, Film, Leaf, Literal["a", 1, None], Holder[int], Any,
]  # fmt: skip
TEXTS = {
    "date": st.dates().map(str),
    "date-time": st.datetimes(timezones=st.just(dt.UTC)).map(dt.datetime.isoformat),
    "duration": st.integers(0, 10_000).map(lambda days: f"P{days}DT1H"),
}


def hints() -> st.SearchStrategy[Any]:
    """Hints that are put together of others."""
    return st.recursive(
        st.sampled_from(LEAVES),
        lambda inner: st.one_of(
            inner.map(lambda one: of_parts(list, [one])),
            inner.map(lambda one: of_parts(tuple, [one, ...])),
            inner.map(lambda one: of_parts(dict, [str, one])),
            inner.map(lambda one: union_of([one, None])),
            st.tuples(inner, inner).map(lambda two: of_parts(tuple, two)),
            st.tuples(inner, st.sampled_from([int, str, Base])).map(union_of),
            st.tuples(st.sampled_from([int, dt.date, Colour]), inner).map(lambda two: of_parts(dict, two)),
        ),
        max_leaves=5,
    )


def fitting(schema: dict[str, Any], parts: dict[str, Any], depth: int = 0) -> Json:
    """JSON that fits a schema."""
    if "$ref" in schema:
        return fitting(parts[schema["$ref"].removeprefix("#/$defs/")], parts, depth + 1)
    if "anyOf" in schema:
        return st.one_of([fitting(each, parts, depth) for each in schema["anyOf"]])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "const" in schema:
        return st.just(schema["const"])
    kinds = schema.get("type", ["null", "integer", "string"])
    return st.one_of([_of_kind(kind, schema, parts, depth) for kind in ([kinds] if isinstance(kinds, str) else kinds)])


def _of_kind(kind: str, schema: dict[str, Any], parts: dict[str, Any], depth: int) -> Json:
    if kind == "array":
        first = [fitting(each, parts, depth) for each in schema.get("prefixItems", ())]
        if first:
            return st.tuples(*first).map(list)
        return st.lists(fitting(schema.get("items", {}), parts, depth), max_size=0 if depth > 3 else 2)
    if kind == "object":
        return _object(schema, parts, depth)
    if kind == "string":
        if schema.get("contentEncoding"):
            return st.sampled_from(["", "aGk="])
        pattern = schema.get("pattern")
        texts = st.from_regex(pattern, fullmatch=True) if pattern else st.text(max_size=3)
        return TEXTS.get(schema.get("format", ""), texts)
    simple: dict[str, Json] = {
        "null": st.none(),
        "boolean": st.booleans(),
        "integer": st.integers() | st.integers(-100, 100).map(float),
        "number": st.floats(allow_nan=False, allow_infinity=False) | st.integers(-100, 100),
    }
    return simple[kind]


def _object(schema: dict[str, Any], parts: dict[str, Any], depth: int) -> Json:
    fields = {name: st.deferred(lambda each=each: fitting(each, parts, depth + 1))  # type: ignore[misc]
              for name, each in schema.get("properties", {}).items()}  # fmt: skip
    needed = {name: fields.pop(name) for name in schema.get("required", ())}
    if depth > 3:
        fields = {}
    if fields or needed or not isinstance(schema.get("additionalProperties"), dict):
        return st.fixed_dictionaries(needed, optional=fields)
    names = schema.get("propertyNames", {})
    keys = st.sampled_from(names["enum"]) if "enum" in names else _of_kind("string", names, parts, depth)
    return st.dictionaries(keys, fitting(schema["additionalProperties"], parts, depth), max_size=2)


@settings(max_examples=150, deadline=None, phases=[Phase.generate])
@given(st.data())
def test_what_fits_is_taken(data: Any) -> None:
    hint = data.draw(hints())
    tool, schema = described(hint)
    value = data.draw(fitting(schema.input["properties"]["value"], schema.input.get("$defs", {})))
    assert jsonschema.Draft202012Validator(schema.input).is_valid({"value": value})
    arrives(tool, schema, value)  # raises nothing
