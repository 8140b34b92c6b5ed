"""Property: each store does what a simple model does, step by step, while time passes.

The same machine drives them directly, two hosts of one store in turn, and the store in memory through the
`SessionContext` of tools in real workers, whose caches must not show.
"""

from __future__ import annotations

import fnmatch
import itertools
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, ClassVar, TypeVar

import attrs
import pytest
import trio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from bridge_py.wire.errors import (
    AccessDenied,
    InvalidValue,
    ProgramNotFound,
    QuotaExceeded,
    SessionError,
    SessionNotFound,
    VariableExists,
    VariableNotFound,
    VersionConflict,
)
from bridge_py.wire.variable import AccessRules
from snakepit_trio._pool.opening import open_pool
from snakepit_trio._pool.pool import Pool
from snakepit_trio._pool.session import SessionHandle
from snakepit_trio.state.store import MemoryStore, SessionStore
from snakepit_trio.state.watching import Watcher

from . import stores_to_check
from .store_model import ModelSession, ModelVariable, ModelWatch, field, next_update, seen, stops, trio_thread
from .stores_to_check import QUOTAS

T = TypeVar("T")
# Most of what happens should happen to sessions that are there, and live for a while.
IDS = st.sampled_from(["s1"] * 8 + ["s2", "s3"])
NAMES = st.sampled_from(["temperature"] * 4 + ["temp_2"] * 2 + ["count"])
PROGRAMS = st.sampled_from(["p", "q"])


class Machine(RuleBasedStateMachine):
    """The same steps in the store and in dicts."""

    call: ClassVar[Callable[..., Any]]  # runs an async function in trio's thread
    pool: ClassVar[Pool | None] = None
    stores: ClassVar[list[SessionStore]]  # several hosts of one store take turns
    turn: ClassVar[Iterator[SessionStore]]
    clock: ClassVar[list[float]]
    tools: ClassVar[Iterator[str]] = itertools.cycle(["call", "call_async"])

    def __init__(self) -> None:
        super().__init__()
        self.clock[0] = 1000.0
        self.model: dict[str, ModelSession] = {}
        self.watch: ModelWatch | None = None
        for session_id in self.run(self.store.list_sessions):
            self.run(self.store.delete_session, session_id)

    @classmethod
    def run(cls, function: Callable[..., Awaitable[T]], *args: Any, **options: Any) -> T:
        async def step() -> T:
            return await function(*args, **options)

        found: T = cls.call(step)
        return found

    @property
    def store(self) -> SessionStore:
        """The store, or the next host of it."""
        return next(self.turn)

    @property
    def now(self) -> float:
        return self.clock[0]

    def _alive(self, session_id: str) -> ModelSession | None:
        found = self.model.get(session_id)
        if found is not None and found.end is not None and self.now >= found.end:
            del self.model[session_id]
            found = None
        return found

    def _used(self, session_id: str) -> None:
        if (found := self._alive(session_id)) is not None and found.ttl is not None:
            found.end = self.now + found.ttl

    def host(self, session_id: str, method: str, *args: Any, **options: Any) -> Any:
        """What only the host can do."""
        self._used(session_id)
        return self.run(getattr(self.store.of(session_id), method), *args, **options)

    def do(self, session_id: str, method: str, *args: Any, **options: Any) -> Any:
        """What workers can do too."""
        if self.pool is None:
            return self.host(session_id, method, *args, **options)
        self._used(session_id)
        asked = {"method": method, "args": list(args), "options": options}
        return self.run(SessionHandle(self.pool, session_id).execute, next(self.tools), asked)

    def _variable(self, session_id: str, name: str) -> ModelVariable | type[Exception]:
        session = self._alive(session_id)
        if session is None:
            return SessionNotFound
        return session.variables.get(name, VariableNotFound)

    def _changed(self, session_id: str, *names: str, told: set[str] | None = None) -> None:
        """Note what watchers are told: of these, and of what depends on them."""
        session, watch = self.model[session_id], self.watch
        if watch is None or watch.session is not session:
            return
        for name in names:
            variable = session.variables.get(name)
            watch.tell(name, "deleted" if variable is None else "changed", None if variable is None else variable.value)
        for name in (session.dependents(names) if told is None else told) - {*names}:
            watch.tell(name, "dependency", session.variables[name].value)

    # Sessions.

    @initialize(values=st.lists(st.integers(0, 10), max_size=2), ttl=st.sampled_from([None, 100.0]))
    def begin(self, values: list[int], ttl: float | None) -> None:
        self.create("s1", ttl)
        for name, value in zip(["temperature", "temp_2"], values, strict=False):
            self.register("s1", name, value, read_only=False)

    @rule(seconds=st.sampled_from([1, 1, 1, 1, 30, 100]))
    def pass_time(self, seconds: int) -> None:
        self.clock[0] += seconds

    @rule(session_id=IDS, ttl=st.sampled_from([None, 30.0, 100.0]))
    def create(self, session_id: str, ttl: float | None) -> None:
        if self._alive(session_id) is not None:
            with pytest.raises(SessionError, match="already"):
                self.run(self.store.create_session, session_id, ttl=ttl)
        elif len([s for s in list(self.model) if self._alive(s)]) == QUOTAS.sessions:
            with pytest.raises(QuotaExceeded):
                self.run(self.store.create_session, session_id, ttl=ttl)
        else:
            assert self.run(self.store.create_session, session_id, ttl=ttl) == session_id
            self.model[session_id] = ModelSession(None if ttl is None else self.now + ttl, ttl)

    @rule(session_id=st.sampled_from(["s1", "s2", "s2", "s3", "s3"]))
    def delete(self, session_id: str) -> None:
        assert self.run(self.store.delete_session, session_id) == (self._alive(session_id) is not None)
        self.model.pop(session_id, None)

    @rule()
    def reap(self) -> None:
        expired = [s for s in list(self.model) if self._alive(s) is None]
        # Some of them may be gone already: they were asked for.
        assert self.run(self.store.cleanup_expired_sessions) <= QUOTAS.sessions  # type: ignore[operator]
        assert not set(expired) & set(self.run(self.store.list_sessions))

    @precondition(lambda self: self.model)
    @rule(session_id=IDS)
    def move(self, session_id: str) -> None:
        """Out of the store and in again."""
        session = self._alive(session_id)
        if session is None:
            return
        exported = self.run(self.store.export_session, session_id)
        self.run(self.store.delete_session, session_id)
        assert self.run(self.store.import_session, exported) == session_id
        moved = attrs.evolve(session, end=None if session.ttl is None else self.now + session.ttl)
        self.model[session_id] = moved

    # Variables.

    @rule(session_id=IDS, name=NAMES, value=st.integers(0, 12), read_only=st.sampled_from([False, False, True]))
    def register(self, session_id: str, name: str, value: int, read_only: bool) -> None:
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
        # Rules are objects, and a tool's arguments here are plain.
        do = self.host if read_only else self.do
        options = {"access_rules": AccessRules(read_only=True)} if read_only else {}
        if error is not None:
            with pytest.raises(error):
                do(session_id, "register_variable", name, "integer", value, constraints={"max": 10}, **options)
            return
        assert session is not None
        made = do(session_id, "register_variable", name, "integer", value, constraints={"max": 10}, **options)
        assert seen(made) == (value, 1)
        session.variables[name] = ModelVariable(value, read_only=read_only, versions=[(1, value)])
        self._changed(session_id, name)

    def _write(self, session_id: str, name: str, value: int, version: int | None, step: Callable[[], Any]) -> None:
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
                step()
            return
        assert isinstance(found, ModelVariable)
        self._set(found, value)
        assert seen(step()) == (value, found.version)
        self._changed(session_id, name)

    def _set(self, found: ModelVariable, value: int) -> None:
        found.value, found.version = value, found.version + 1
        found.versions = [*found.versions, (found.version, value)][-QUOTAS.history :]

    @rule(session_id=IDS, name=NAMES, value=st.integers(0, 12), version=st.sampled_from([None, None, None, 1, 2]))
    def update(self, session_id: str, name: str, value: int, version: int | None) -> None:
        self._write(
            session_id,
            name,
            value,
            version,
            lambda: self.do(session_id, "update_variable", name, value, expected_version=version),
        )

    @rule(session_id=IDS, name=NAMES, version=st.integers(1, 5))
    def rollback(self, session_id: str, name: str, version: int) -> None:
        found = self._variable(session_id, name)
        known = dict(found.versions) if isinstance(found, ModelVariable) else {}
        if isinstance(found, ModelVariable) and version not in known:
            with pytest.raises(VersionConflict, match="is not known"):
                self.host(session_id, "rollback", name, version)
            return
        self._write(
            session_id, name, known.get(version, 0), None, lambda: self.host(session_id, "rollback", name, version)
        )

    @rule(session_id=IDS, updates=st.dictionaries(NAMES, st.integers(0, 12)), atomic=st.booleans())
    def update_many(self, session_id: str, updates: dict[str, int], atomic: bool) -> None:
        session = self._alive(session_id)
        if session is None:
            with pytest.raises(SessionNotFound):
                self.host(session_id, "update_variables", updates, atomic=atomic)
            return
        bad = {
            name
            for name, value in updates.items()
            if name not in session.variables or session.variables[name].read_only or value > 10
        }
        outcome = self._update_many(session_id, updates, atomic)
        assert {name for name, found in outcome.items() if found is None} == bad
        if atomic and bad:
            assert outcome.keys() == bad
            return
        for name in updates.keys() - bad:
            self._set(session.variables[name], updates[name])
            assert outcome[name] == session.variables[name].version
        if updates.keys() - bad:
            self._changed(session_id, *(updates.keys() - bad))

    def _update_many(self, session_id: str, updates: dict[str, int], atomic: bool) -> dict[str, int | None]:
        """The versions; None for what failed."""
        if self.pool is not None:
            self._used(session_id)
            asked = {"updates": updates, "atomic": atomic}
            found = self.run(SessionHandle(self.pool, session_id).execute, "outcomes", asked)
            return {name: None if isinstance(version, str) else version for name, version in found.items()}
        found = self.host(session_id, "update_variables", updates, atomic=atomic)
        return {name: None if isinstance(one, Exception) else one.version for name, one in found.items()}

    @rule(session_id=IDS, name=NAMES)
    def remove(self, session_id: str, name: str) -> None:
        found = self._variable(session_id, name)
        if not isinstance(found, ModelVariable) or found.read_only:
            with pytest.raises(AccessDenied if isinstance(found, ModelVariable) else found):
                self.do(session_id, "delete_variable", name)
            return
        self.do(session_id, "delete_variable", name)
        session = self.model[session_id]
        told = session.dependents([name])
        del session.variables[name]
        for other in session.variables.values():
            other.on.discard(name)
        self._changed(session_id, name, told=told)

    @rule(session_id=IDS, name=NAMES, start=st.booleans())
    def optimize(self, session_id: str, name: str, start: bool) -> None:
        found = self._variable(session_id, name)
        if not isinstance(found, ModelVariable):
            return
        if start and found.optimizer is not None:
            with pytest.raises(AccessDenied, match="is being optimized by 'o'"):
                self.host(session_id, "start_optimization", name, "p")
            return
        if start:
            self.host(session_id, "start_optimization", name, "o")
        else:
            assert not self.host(session_id, "stop_optimization", name).optimizing
        if start or found.optimizer is not None:
            found.optimizer = "o" if start else None
            self._changed(session_id, name)

    @rule(session_id=IDS, name=NAMES, on=NAMES)
    def depend(self, session_id: str, name: str, on: str) -> None:
        found, base = self._variable(session_id, name), self._variable(session_id, on)
        if not isinstance(found, ModelVariable) or not isinstance(base, ModelVariable):
            return
        if name == on or on in self.model[session_id].dependents([name]):
            with pytest.raises(AccessDenied, match="cannot depend on"):
                self.host(session_id, "add_dependency", name, on)
        else:
            self.host(session_id, "add_dependency", name, on)
            found.on.add(on)

    @precondition(lambda self: self.model)
    @rule(session_id=IDS, pattern=st.sampled_from(["*", "temp*", "temp_?", "x"]))
    def look(self, session_id: str, pattern: str) -> None:
        session = self._alive(session_id)
        if session is None:
            with pytest.raises(SessionNotFound):
                self.do(session_id, "list_variables")
            return
        listed = self.do(session_id, "list_variables", pattern)
        assert [field(v, "name") for v in listed] == [n for n in session.variables if fnmatch.fnmatchcase(n, pattern)]
        found, missing = self.do(session_id, "get_variables", [*session.variables, "nobody"])
        assert missing == ["nobody"]
        for name, expected in session.variables.items():
            variable = found[name]
            assert seen(variable) == (expected.value, expected.version)
            assert (field(variable, "optimization") is not None) == (expected.optimizer is not None)
            assert self.do(session_id, "get_variable", field(variable, "id")) == variable
            history = self.host(session_id, "history", name)
            assert [(entry.version, entry.value) for entry in reversed(history)] == expected.versions

    @rule(session_id=IDS, name=NAMES)
    def read(self, session_id: str, name: str) -> None:
        found = self._variable(session_id, name)
        if isinstance(found, ModelVariable):
            assert self.do(session_id, "get_variable_value", name) == found.value
            assert self.do(session_id, "has_variable", name)
        else:
            with pytest.raises(found):
                self.do(session_id, "get_variable_value", name)

    # Programs.

    @rule(
        session_id=IDS, name=PROGRAMS, what=st.sampled_from(["store", "update", "delete", "get"]), n=st.integers(0, 9)
    )
    def program(self, session_id: str, name: str, what: str, n: int) -> None:
        session = self._alive(session_id)
        args: tuple[Any, ...] = ({f"n{n % 3}": n},) if what in ("store", "update") else ()
        error: type[Exception] | None = None
        if session is None:
            error = SessionNotFound
        elif what == "store":
            error = QuotaExceeded if {*session.programs} - {name} else None
        elif name not in session.programs:
            error = ProgramNotFound
        if error is not None:
            with pytest.raises(error):
                self.do(session_id, f"{what}_program", name, *args)
            return
        assert session is not None
        found = self.do(session_id, f"{what}_program", name, *args)
        if what == "delete":
            del session.programs[name]
        elif args:
            session.programs[name] = {**(session.programs.get(name, {}) if what == "update" else {}), **args[0]}
        if what in ("update", "get"):
            assert found == session.programs[name]

    # Watching.

    # The model knows what a watcher has heard at each moment, so this host must make all changes.
    @precondition(lambda self: self.watch is None and len(self.stores) == 1)
    @rule(session_id=IDS, names=st.sets(NAMES), initial=st.booleans())
    def begin_to_watch(self, session_id: str, names: set[str], initial: bool) -> None:
        session = self._alive(session_id)
        if session is None:
            return
        self._used(session_id)
        # What `SessionView.watch` does, without its block.
        watcher = Watcher(sorted(names))
        watched = frozenset(names or {"temperature", "temp_2", "count"})
        self.watch = ModelWatch(session, watcher, watched)
        self.stores[0].hub.subscribe(session_id, watcher, watcher.hear)
        if initial:
            there = self.host(session_id, "list_variables")
            watcher.begin([variable for variable in there if variable.name in watched])
            for name, variable in session.variables.items():
                self.watch.tell(name, "initial", variable.value)

    @precondition(lambda self: self.watch is not None)
    @rule()
    def take_updates(self) -> None:
        watch = self.watch
        assert watch is not None
        found = {}
        for _ in watch.pending:
            update = self.run(next_update, watch.watcher)
            found[update.name] = update.kind, update.value, update.missed
        assert found == watch.pending
        watch.pending.clear()
        for session_id in list(self.model):
            self._alive(session_id)
        if not any(session is watch.session for session in self.model.values()):
            self.run(self.store.cleanup_expired_sessions)
            with pytest.raises(StopAsyncIteration):
                self.run(stops, watch.watcher)
            self.watch = None

    @invariant()
    def the_same_sessions_live(self) -> None:
        alive = {session_id for session_id in list(self.model) if self._alive(session_id) is not None}
        assert set(self.run(self.store.list_sessions)) == alive


def _machine(
    call: Callable[..., Any], stores: list[SessionStore], clock: list[float], pool: Pool | None
) -> type[Machine]:
    turn = itertools.cycle(stores)
    members = {"call": staticmethod(call), "stores": stores, "turn": turn, "clock": clock, "pool": pool}
    return type("Store", (Machine,), members)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "examples"),
    [
        (stores_to_check.in_memory, 200),
        (stores_to_check.hosts_in_memory, 60),
        (stores_to_check.in_a_file, 30),
        (stores_to_check.hosts_of_a_file, 30),
        pytest.param(stores_to_check.hosts_of_redis, 10, marks=pytest.mark.processes),
    ],
)
def test_the_store_and_a_model(make: Callable[..., Any], examples: int) -> None:
    clock = [1000.0]

    async def main(ready: Callable[[Any], None], end: trio.Event) -> None:
        async with make(lambda: clock[0]) as stores:
            ready(stores)
            await end.wait()

    with trio_thread(main) as (stores, call):
        run_state_machine_as_test(
            _machine(call, stores, clock, None),
            settings=settings(
                max_examples=examples,
                stateful_step_count=100,
                deadline=None,
                suppress_health_check=[HealthCheck.too_slow],
            ),
        )


@pytest.mark.processes
def test_the_store_through_real_workers_and_a_model() -> None:
    clock = [1000.0]
    store = MemoryStore(quotas=QUOTAS, clock=lambda: clock[0])

    async def main(ready: Callable[[Any], None], end: trio.Event) -> None:
        async with open_pool("tests.helpers.state_tools:StateTools", workers=2, store=store) as pool:
            ready(pool)
            await end.wait()

    with trio_thread(main) as (pool, call):
        run_state_machine_as_test(
            _machine(call, [store], clock, pool),
            settings=settings(
                max_examples=120, stateful_step_count=100, deadline=None, suppress_health_check=[HealthCheck.too_slow]
            ),
        )
