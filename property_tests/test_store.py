"""Property: the store in memory does what a simple model does, step by step, while time passes."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Coroutine
from operator import methodcaller
from typing import Any, TypeVar

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bridge_py.wire.errors import (
    AccessDenied,
    InvalidValue,
    QuotaExceeded,
    SessionError,
    SessionNotFound,
    VariableExists,
    VariableNotFound,
    VersionConflict,
)
from bridge_py.wire.variable import AccessRules, Variable
from snakepit_trio.state.session import Quotas, Session
from snakepit_trio.state.store import MemoryStore

T = TypeVar("T")
IDS = st.sampled_from(["s1", "s2", "s3"])
NAMES = st.sampled_from(["temperature", "temp_2", "count"])
QUOTAS = Quotas(sessions=2, variables=2, history=3)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """The store never waits, so its coroutines end at their first step."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    raise AssertionError("the store waited")


@attrs.define
class ModelVariable:
    value: int
    version: int = 1
    read_only: bool = False
    versions: list[tuple[int, int]] = attrs.field(factory=list)
    optimizer: str | None = None
    on: set[str] = attrs.field(factory=set)


@attrs.define
class ModelSession:
    end: float | None
    ttl: float | None
    variables: dict[str, ModelVariable] = attrs.field(factory=dict)


class Store(RuleBasedStateMachine):
    """The same steps in the store and in dicts."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.store = MemoryStore(quotas=QUOTAS, clock=lambda: self.now)
        self.model: dict[str, ModelSession] = {}

    def _alive(self, session_id: str) -> ModelSession | None:
        found = self.model.get(session_id)
        if found is not None and found.end is not None and self.now >= found.end:
            del self.model[session_id]
            found = None
        return found

    def _in(self, session_id: str, change: Callable[[Session], T]) -> T:
        """Change a session in the store, and note in the model that it was used."""
        if (found := self._alive(session_id)) is not None and found.ttl is not None:
            found.end = self.now + found.ttl
        return run(self.store.update_session(session_id, change))

    def _variable(self, session_id: str, name: str) -> ModelVariable | type[Exception]:
        session = self._alive(session_id)
        if session is None:
            return SessionNotFound
        return session.variables.get(name, VariableNotFound)

    @rule(seconds=st.sampled_from([1, 30, 60]))
    def pass_time(self, seconds: int) -> None:
        self.now += seconds

    @rule(session_id=IDS, ttl=st.sampled_from([None, 30.0, 100.0]))
    def create(self, session_id: str, ttl: float | None) -> None:
        if self._alive(session_id) is not None:
            with pytest.raises(SessionError, match="already"):
                run(self.store.create_session(session_id, ttl=ttl))
        elif len([s for s in list(self.model) if self._alive(s)]) == QUOTAS.sessions:
            with pytest.raises(QuotaExceeded):
                run(self.store.create_session(session_id, ttl=ttl))
        else:
            assert run(self.store.create_session(session_id, ttl=ttl)) == session_id
            self.model[session_id] = ModelSession(None if ttl is None else self.now + ttl, ttl)

    @rule(session_id=IDS)
    def delete(self, session_id: str) -> None:
        assert run(self.store.delete_session(session_id)) == (self._alive(session_id) is not None)
        self.model.pop(session_id, None)

    @rule()
    def reap(self) -> None:
        expired = [s for s in list(self.model) if self._alive(s) is None]
        # Some of them may be gone already: they were asked for.
        assert run(self.store.cleanup_expired_sessions()) <= QUOTAS.sessions  # type: ignore[operator]
        assert not set(expired) & set(run(self.store.list_sessions()))

    @rule(session_id=IDS, name=NAMES, value=st.integers(0, 12), read_only=st.booleans())
    def register(self, session_id: str, name: str, value: int, read_only: bool) -> None:
        def step(session: Session) -> Variable:
            rules = AccessRules(read_only=read_only)
            bounds = {"max": 10}
            return session.register(name, "integer", value, constraints=bounds, access_rules=rules)

        there = self._variable(session_id, name)
        session = self.model.get(session_id)
        error: type[Exception] | None = None
        if there is SessionNotFound:
            error = SessionNotFound
        elif isinstance(there, ModelVariable):
            error = VariableExists
        elif session is not None and len(session.variables) == QUOTAS.variables:
            error = QuotaExceeded
        elif value > 10:
            error = InvalidValue
        if error is not None:
            with pytest.raises(error):
                self._in(session_id, step)
            return
        assert session is not None
        assert self._in(session_id, step).version == 1
        session.variables[name] = ModelVariable(value, read_only=read_only, versions=[(1, value)])

    def _write(
        self, session_id: str, name: str, value: int, version: int | None, step: Callable[[Session], Variable]
    ) -> None:
        found = self._variable(session_id, name)
        error: type[Exception] | None = None
        if not isinstance(found, ModelVariable):
            error = found
        elif found.read_only:
            error = AccessDenied
        elif version is not None and version != found.version:
            error = VersionConflict
        elif value > 10:
            error = InvalidValue
        if error is not None:
            with pytest.raises(error):
                self._in(session_id, step)
            return
        assert isinstance(found, ModelVariable)
        found.value, found.version = value, found.version + 1
        found.versions = [*found.versions, (found.version, value)][-QUOTAS.history :]
        assert self._in(session_id, step).version == found.version

    @rule(session_id=IDS, name=NAMES, value=st.integers(0, 12), version=st.sampled_from([None, 1, 2]))
    def update(self, session_id: str, name: str, value: int, version: int | None) -> None:
        self._write(
            session_id,
            name,
            value,
            version,
            lambda session: session.update(name, value, expected_version=version),
        )

    @rule(session_id=IDS, name=NAMES, version=st.integers(1, 5))
    def rollback(self, session_id: str, name: str, version: int) -> None:
        found = self._variable(session_id, name)
        known = dict(found.versions) if isinstance(found, ModelVariable) else {}
        if isinstance(found, ModelVariable) and version not in known:
            with pytest.raises(VersionConflict, match="is not known"):
                self._in(session_id, lambda session: session.rollback(name, version))
            return
        self._write(
            session_id,
            name,
            known.get(version, 0),
            None,
            lambda session: session.rollback(name, version),
        )

    @rule(session_id=IDS, updates=st.dictionaries(NAMES, st.integers(0, 12)), atomic=st.booleans())
    def update_many(self, session_id: str, updates: dict[str, int], atomic: bool) -> None:
        def step(session: Session) -> dict[str, Variable | Exception]:
            return session.update_many(updates, atomic=atomic)

        session = self._alive(session_id)
        if session is None:
            with pytest.raises(SessionNotFound):
                self._in(session_id, step)
            return
        bad = {
            name
            for name, value in updates.items()
            if name not in session.variables or session.variables[name].read_only or value > 10
        }
        outcome = self._in(session_id, step)
        assert {name for name, result in outcome.items() if isinstance(result, Exception)} == bad
        if atomic and bad:
            assert outcome.keys() == bad
            return
        for name in updates.keys() - bad:
            found = session.variables[name]
            found.value, found.version = updates[name], found.version + 1
            found.versions = [*found.versions, (found.version, found.value)][-QUOTAS.history :]

    @rule(session_id=IDS, name=NAMES)
    def remove(self, session_id: str, name: str) -> None:
        found = self._variable(session_id, name)
        if isinstance(found, ModelVariable) and not found.read_only:
            self._in(session_id, lambda session: session.delete(name))
            variables = self.model[session_id].variables
            del variables[name]
            for other in variables.values():
                other.on.discard(name)
        else:
            with pytest.raises(AccessDenied if isinstance(found, ModelVariable) else found):
                self._in(session_id, lambda session: session.delete(name))

    @rule(session_id=IDS, name=NAMES, start=st.booleans())
    def optimize(self, session_id: str, name: str, start: bool) -> None:
        found = self._variable(session_id, name)
        if not isinstance(found, ModelVariable):
            return
        if not start:
            assert not self._in(session_id, lambda session: session.stop_optimization(name)).optimizing
            found.optimizer = None
        elif found.optimizer is None:
            self._in(session_id, lambda session: session.start_optimization(name, "o"))
            found.optimizer = "o"
        else:
            with pytest.raises(AccessDenied, match="is being optimized by 'o'"):
                self._in(session_id, lambda session: session.start_optimization(name, "p"))

    @rule(session_id=IDS, name=NAMES, on=NAMES)
    def depend(self, session_id: str, name: str, on: str) -> None:
        found, base = self._variable(session_id, name), self._variable(session_id, on)
        if not isinstance(found, ModelVariable) or not isinstance(base, ModelVariable):
            return
        variables = self.model[session_id].variables
        reached, left = {on}, [on]
        while left:
            following = variables[left.pop()].on - reached
            reached |= following
            left.extend(following)
        if name in reached:
            with pytest.raises(AccessDenied, match="cannot depend on"):
                self._in(session_id, lambda session: session.add_dependency(name, on))
        else:
            self._in(session_id, lambda session: session.add_dependency(name, on))
            found.on.add(on)

    @precondition(lambda self: self.model)
    @rule(session_id=IDS, pattern=st.sampled_from(["*", "temp*", "temp_?", "x"]))
    def look(self, session_id: str, pattern: str) -> None:
        session = self._alive(session_id)
        if session is None:
            with pytest.raises(SessionNotFound):
                self._in(session_id, len)
            return
        listed = self._in(session_id, lambda s: s.matching(pattern))
        assert [v.name for v in listed] == [n for n in session.variables if fnmatch.fnmatchcase(n, pattern)]
        found, missing = self._in(session_id, lambda s: s.get_many([*session.variables, "nobody"]))
        assert missing == ["nobody"]
        for name, expected in session.variables.items():
            variable = found[name]
            assert (variable.value, variable.version) == (expected.value, expected.version)
            assert variable.optimizing == (expected.optimizer is not None)
            by_id = self._in(session_id, methodcaller("get", variable.id))
            assert by_id is variable
            history = self._in(session_id, methodcaller("history", name))
            assert [(entry.version, entry.value) for entry in reversed(history)] == expected.versions
            dependents = self._in(session_id, methodcaller("dependents", name))
            assert dependents.keys() == {other for other, v in session.variables.items() if name in v.on}

    @invariant()
    def the_same_sessions_live(self) -> None:
        alive = {session_id for session_id in list(self.model) if self._alive(session_id) is not None}
        assert set(run(self.store.list_sessions())) == alive


TestStore = Store.TestCase
TestStore.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
