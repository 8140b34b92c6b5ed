"""Property: state shares nothing that can change with anybody, however deep it is nested."""

from __future__ import annotations

import dataclasses
import datetime as dt
from array import array
from collections import OrderedDict, defaultdict
from typing import Any, NamedTuple

import attrs
import msgspec
import numpy as np
import pandas as pd
import polars as pl
import trio
import trio.lowlevel
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

import snakepit_trio as snakepit
from bridge_py.host.cache import Caches
from bridge_py.host.session_state import SessionState
from bridge_py.wire.variable import Variable
from snakepit_trio.state.exports import export_session, export_variables, import_session, import_variables


@dataclasses.dataclass
class Loose:
    """One that can be changed."""

    content: Any


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    """One whose content can be changed."""

    content: Any


@attrs.define
class Box:
    """One of attrs."""

    content: Any


class Fixed(msgspec.Struct, frozen=True):
    """One of msgspec."""

    content: Any


class Pair(NamedTuple):
    """A tuple with names."""

    content: Any
    number: int


leaves = st.one_of(
    st.none(),
    st.integers(),
    st.text(max_size=3),
    st.binary(max_size=3).map(bytearray),
    st.sets(st.integers(0, 9), max_size=3),
    st.lists(st.integers(0, 9), max_size=3).map(lambda items: array("i", items)),
    st.lists(st.integers(0, 9), max_size=3).map(np.array),
    st.lists(st.integers(0, 9), min_size=1, max_size=3).map(pd.Series),
    st.lists(st.integers(0, 9), min_size=1, max_size=3).map(lambda items: pd.DataFrame({"a": items})),
    st.lists(st.integers(0, 9), min_size=1, max_size=3).map(lambda items: pl.DataFrame({"a": items})),
    st.dates().map(lambda day: dt.datetime.combine(day, dt.time())),
)


def _around(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=2), inner, max_size=3),
        st.dictionaries(st.integers(), inner, max_size=3),
        st.dictionaries(st.text(max_size=2), inner, max_size=3).map(OrderedDict),
        st.dictionaries(st.text(max_size=2), inner, max_size=3).map(lambda items: defaultdict(list, items)),
        *(inner.map(kind) for kind in (Loose, Frozen, Box, Fixed)),
        inner.map(lambda content: Pair(content, 1)),
    )


values = st.recursive(leaves, _around, max_leaves=8)


def image(value: Any) -> Any:
    """What a value is, for comparing: types and content."""
    kind = type(value).__name__
    if isinstance(value, dict):
        return kind, [(key, image(item)) for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return kind, [image(item) for item in value]
    if isinstance(value, np.ndarray):
        return kind, value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, (pd.Series, pd.DataFrame, pl.DataFrame)):
        return kind, value.to_dict() if not isinstance(value, pl.DataFrame) else value.to_dict(as_series=False)
    if isinstance(value, (Loose, Frozen, Box, Fixed)):
        return kind, image(value.content)
    if isinstance(value, Variable):
        return [image(part) for part in (value.value, value.constraints, value.metadata, value.optimization)]
    return kind, repr(value)


def spoil(value: Any) -> None:
    """Change all of a value that can be changed."""
    if isinstance(value, dict):
        for item in value.values():
            spoil(item)
        value["spoilt"] = 1
    elif isinstance(value, (list, tuple)):
        for item in value:
            spoil(item)
        if isinstance(value, list):
            value.append("spoilt")
    elif isinstance(value, set):
        value.add("spoilt")
    elif isinstance(value, (bytearray, array)):
        value.append(7)
    elif isinstance(value, (Loose, Frozen, Box, Fixed)):
        spoil(value.content)
    else:
        _spoil_table(value)
    if isinstance(value, (Loose, Box)):
        value.content = "spoilt"


def _spoil_table(value: Any) -> None:
    if isinstance(value, np.ndarray) and (value.flags.writeable or value.flags.owndata):
        value.flags.writeable = True
        value += 1
    elif isinstance(value, pd.Series):
        value.iloc[0] += 1
    elif isinstance(value, pd.DataFrame):
        value.iloc[0, 0] += 1
        value["spoilt"] = 1
    elif isinstance(value, pl.DataFrame):
        value[0, "a"] = 77


def _spoil_variable(variable: Variable) -> None:
    for part in (variable.value, variable.constraints, variable.metadata):
        spoil(part)
    if variable.optimization is not None:
        spoil(variable.optimization.config)


def _session() -> snakepit.Session:
    session = snakepit.Session("s", now=0.0, ttl=None, metadata={"a": "b"})
    session.begin()
    return session


@settings(deadline=None)
@given(first=values, second=values)
def test_variables_are_snapshots(first: Any, second: Any) -> None:
    session = _session()
    constraints, metadata, config = {"max_length": 5}, {"k": "v"}, {"c": "d"}
    before, after = image([first]), image([second])
    made = session.register("x", "list", taken := [first], constraints=constraints, metadata=metadata)
    assert image(made.value) == before
    session.start_optimization("x", "o", config=config)
    updated = session.update("x", latest := [second], metadata=metadata)
    for part in (taken, latest, constraints, metadata, config):
        spoil(part)
    found = image(session.get("x"))
    assert found[:1] == [after]
    for each in (made, updated, session.get("x"), session.get_many(["x"])[0]["x"], *session.matching()):
        _spoil_variable(each)
        assert image(session.get("x")) == found
    session.commit()
    session.begin()
    _spoil_variable(session.delete("x"))
    session.undo()
    assert image(session.get("x")) == found


@settings(deadline=None)
@given(first=values, second=values)
def test_history_and_rollback_are_snapshots(first: Any, second: Any) -> None:
    session = _session()
    before, after = image([first]), image([second])
    _spoil_variable(session.register("x", "list", given_first := [first], constraints={"max_length": 5}))
    _spoil_variable(session.update("x", given_second := [second], metadata={"k": "v"}))
    spoil(given_first)
    spoil(given_second)
    for _ in range(2):
        assert [image(entry.value) for entry in session.history("x")] == [after, before]
        for entry in session.history("x"):
            spoil(entry.value)
            spoil(entry.metadata)
        for entry in export_session(session)["variables"]:
            spoil(entry)
        spoil(export_variables(session))
        _spoil_variable(session.get("x"))
    found = session.get("x")
    assert (found.constraints, found.metadata) == ({"max_length": 5}, {"k": "v"})
    rolled = session.rollback("x", 1)
    assert image(rolled.value) == before
    _spoil_variable(rolled)
    assert image(session.get("x").value) == before
    session.commit()
    session.begin()
    _spoil_variable(session.update("x", [1]))
    session.undo()
    assert image(session.get("x").value) == before


@settings(deadline=None)
@given(value=values)
def test_exports_and_programs_are_snapshots(value: Any) -> None:
    session, before = _session(), image([value])
    session.register("x", "list", [value])
    session.put_program("p", given := [value])
    exported, variables = export_session(session), export_variables(session)
    session.put_metadata("k", "v")
    other, third = _session(), _session()
    import_session(other, exported)
    import_variables(third, variables)
    for each in (given, exported, variables, session.get_program("p"), dict(session.programs), dict(session.metadata)):
        spoil(each)
    for each in (session, other, third):
        assert image(each.get("x").value) == before
    for each in (session, other):
        assert image(each.get_program("p")) == before
    session.put_program("q", {"a": [value]})
    spoil(session.change_program("q", {"b": (changed := [value])}))
    spoil(changed)
    assert list(session.get_program("q")) == ["a", "b"]
    assert dict(session.metadata) == {"a": "b", "k": "v"}


@settings(deadline=None)
@given(value=values)
def test_what_a_worker_remembers_is_a_snapshot(value: Any) -> None:
    session = _session()
    state = SessionState(Caches().of("s"), ttl=1e9, strict=False)
    variable = session.register("x", "list", [value], constraints={"max_length": 5})
    before = image(variable)
    for _ in range(3):
        _spoil_variable(state._keep(variable.detached().pack(), 0))
        found = state.cached("x")
        assert found is not None
        assert image(found) == before
        _spoil_variable(found.detached())
        assert image(state.cached("x")) == before


async def test_watchers_and_global_programs_get_their_own() -> None:
    store = snakepit.MemoryStore()
    first = await store.create_session("s")
    view = store.of(first)
    await store.store_global_program("g", given := {"a": [{1}]})
    given["a"][0].add(2)
    (await store.get_global_program("g"))["a"][0].add(3)
    assert await store.get_global_program("g") == {"a": [{1}]}
    await view.register_variable("x", "list", [{1}])
    async with view.watch("x") as one, view.watch("x") as two:
        await view.update_variable("x", [{2}], metadata={"k": "v"})
        update = await anext(one)
        assert update.variable is not None
        _spoil_variable(update.variable)
        update = await anext(two)
        assert update.variable is not None
        assert (update.value, update.variable.metadata) == ([{2}], {"k": "v"})
    assert await view.get_variable_value("x") == [{2}]


class _SlowStore(snakepit.MemoryStore):
    """One that waits before it looks at what it is given."""

    may_wait = True

    async def update_session(self, session_id: str, change: Any) -> Any:
        await trio.testing.wait_all_tasks_blocked()
        return await super().update_session(session_id, change)


async def test_a_store_that_waits_takes_what_was_given() -> None:
    store = _SlowStore()
    view = store.of(await store.create_session("s"))
    given: dict[str, Any] = {"a": [{1}]}
    exported = [{"name": "z", "type": "map", "value": given, "constraints": {}, "metadata": {}}]
    await view.register_variable("x", "map", {})
    await view.store_program("p", {})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: view.register_variable("new", "map", given))
        nursery.start_soon(view.update_variable, "x", given)
        nursery.start_soon(view.store_program, "q", given)
        nursery.start_soon(view.update_program, "p", given)
        nursery.start_soon(view.import_variables, exported)
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        given["a"][0].add(2)
    for name in ("x", "new", "z"):
        assert await view.get_variable_value(name) == {"a": [{1}]}
    for name in ("p", "q"):
        assert await view.get_program(name) == {"a": [{1}]}
