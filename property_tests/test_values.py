"""Property: a value arrives as itself, equal in value and in type, or is refused where it is sent, with its path."""

from __future__ import annotations

import collections
import datetime as dt
import warnings
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge_py.tools.adapter import Tool
from bridge_py.tools.hints.own import of_parts, union_of
from bridge_py.wire import codec
from bridge_py.wire.errors import DecodeError, EncodeError, InvalidArguments

from . import value_kinds as kinds
from .same_values import form, same
from .table_kinds import moments, numpy_scalars

SLOW = settings(deadline=None, suppress_health_check=list(HealthCheck))


def _arrived(value: Any, beside: int) -> Any:
    """What arrives, and the message; None where it is refused."""
    refusal = ""
    try:
        packed = codec.encode(value, "args", beside=beside)
    except EncodeError as error:
        refusal = str(error)
    if refusal:
        assert refusal.startswith("args")
        return None
    return codec.decode(packed.body, b"".join(packed.buffers)), packed


@pytest.mark.parametrize("kind", kinds.kinds)
@SLOW
@given(data=st.data())
def test_a_value_arrives_as_itself_or_is_refused(kind: str, data: st.DataObject) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = data.draw(kinds.nested(kinds.kinds[kind]))
        found = _arrived(value, data.draw(st.sampled_from([1, 64, codec.BESIDE_BYTES])))
        if found is not None:
            assert same(form(value), found[0])
            assert same(found[0], _arrived(found[0], codec.BESIDE_BYTES)[0])


@pytest.mark.parametrize("kind", kinds.kinds)
@SLOW
@given(data=st.data())
def test_an_exact_value_keeps_its_tuples(kind: str, data: st.DataObject) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = data.draw(kinds.nested(kinds.kinds[kind]))
        found, as_usual = _arrived(codec.Exact((value, [(value,)])), 64), _arrived([value, [[value]]], 64)
        assert (found is None) == (as_usual is None)
        if found is not None:
            assert type(found[0]) is type(found[0][1][0]) is tuple
            assert same(form(found[0]), as_usual[0])


HINTED: dict[Any, st.SearchStrategy[Any]] = {
    kinds.Colour: st.sampled_from(kinds.Colour),
    kinds.Level: st.sampled_from(kinds.Level),
    kinds.Right: st.sampled_from([*kinds.Right, kinds.Right(5), kinds.Right(0)]),
    kinds.Mode: st.sampled_from([*kinds.Mode, kinds.Mode(3), kinds.Mode(8)]),
    kinds.Point: kinds.points,
    kinds.Pair: kinds.pairs,
    kinds.Tree: kinds.trees,
    kinds.Box: kinds.boxes,
    kinds.Sample: kinds.samples,
}
BASIC: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(),
    float: st.floats(),
    str: st.text(),
    bool: st.booleans(),
    None: st.none(),
    dt.datetime: moments,
    bytes: st.binary(),
}


KEYS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (str, st.text()),
    (int, st.integers()),
    (kinds.Colour, st.sampled_from(kinds.Colour)),
    (kinds.Level, st.sampled_from(kinds.Level)),
]


@st.composite
def hinted(draw: st.DrawFn, depth: int = 2) -> tuple[Any, st.SearchStrategy[Any]]:
    """A hint, and what fits it."""
    if depth == 0 or draw(st.booleans()):
        known: list[tuple[Any, st.SearchStrategy[Any]]] = list((HINTED | BASIC).items())
        found: tuple[Any, st.SearchStrategy[Any]] = draw(st.sampled_from(known))
        return found
    hint, value = draw(hinted(depth - 1))
    how = draw(st.sampled_from(["list", "dict", "tuple", "union", "optional", "deque", "ordered"]))
    if how == "list":
        return of_parts(list, [hint]), st.lists(value, max_size=2)
    if how == "tuple":
        return of_parts(tuple, [hint, int]), st.tuples(value, st.integers())
    if how == "deque":
        return of_parts(collections.deque, [hint]), st.lists(value, max_size=2).map(collections.deque)
    if how == "optional":
        return union_of([hint, None]), st.none() | value
    if how == "union":
        other, others = draw(hinted(depth - 1).filter(lambda found: "tuple" not in str(found[0])))
        return union_of([hint, other]), value | others
    key, keys = draw(st.sampled_from(KEYS))
    made = st.dictionaries(keys, value, max_size=2)
    if how == "dict":
        return of_parts(dict, [key, hint]), made
    return of_parts(collections.OrderedDict, [key, hint]), made.map(collections.OrderedDict)


@SLOW
@given(st.data())
def test_what_a_hint_names_arrives_as_itself(data: st.DataObject) -> None:
    hint, values = data.draw(hinted())
    value = data.draw(values)

    def take(value: Any) -> None: ...

    take.__annotations__ = {"value": hint}
    packed = codec.encode({"value": value})
    found = Tool(take, "take").arguments(packed.body, b"".join(packed.buffers), None)["value"]
    # In a union a tuple, which is sent as a list, may fit a list first.
    assert same(value, found) or ("tuple" in str(hint) and same(form(value), form(found)))


@SLOW
@given(st.sampled_from(list(HINTED)), kinds.nested(st.one_of([*HINTED.values(), *BASIC.values(), numpy_scalars])))
def test_what_does_not_fit_a_hint_is_refused(hint: Any, value: Any) -> None:
    def take(value: Any) -> None: ...

    take.__annotations__ = {"value": hint}
    try:
        packed = codec.encode({"value": value})
        found = Tool(take, "take").arguments(packed.body, b"".join(packed.buffers), None)["value"]
    except (EncodeError, InvalidArguments):
        return
    assert isinstance(found, hint)
    assert isinstance(value, hint) is False or same(found, value)
    assert same(form(found), form(value)) or not isinstance(value, hint)


@pytest.mark.parametrize("kind", kinds.kinds)
@SLOW
@given(data=st.data())
def test_broken_bytes_are_a_decode_error(kind: str, data: st.DataObject) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = data.draw(kinds.nested(kinds.kinds[kind]))
        found = _arrived(value, data.draw(st.sampled_from([1, codec.BESIDE_BYTES])))
        if found is None:
            return
        body = bytearray(found[1].body)
        body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))
        try:
            codec.decode(bytes(body), b"".join(found[1].buffers))
        except DecodeError:
            return
