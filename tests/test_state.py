"""Sessions and their state on the host: the store, watching, exports, contexts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
import trio
from trio.testing import MockClock

import snakepit_trio as snakepit
from snakepit_trio import AccessRules, MemoryStore, Quotas, Session, SessionView, variables

Test = Callable[[SessionView], Awaitable[None]]
TOOLS = "tests.state_tools:StateTools"


class Clock:
    """Time that passes when it is told to."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def of_a_store() -> AsyncIterator[SessionView]:
    """A session of a store in memory."""
    store = MemoryStore()
    yield store.of(await store.create_session())


@asynccontextmanager
async def local_state() -> AsyncIterator[SessionView]:
    """State without a pool."""
    yield await snakepit.LocalState.open()


@asynccontextmanager
async def bridged_state() -> AsyncIterator[SessionView]:
    """State in a pool."""
    async with snakepit.open_pool(workers=1) as pool:
        yield snakepit.BridgedState(pool, await pool.sessions.create_session())


@asynccontextmanager
async def context() -> AsyncIterator[SessionView]:
    """State that may move."""
    async with snakepit.Context() as found:
        yield found


@asynccontextmanager
async def moved_context() -> AsyncIterator[SessionView]:
    """State that has moved there and back, and there."""
    async with snakepit.Context(lambda: snakepit.open_pool(workers=1)) as found:
        await found.to_bridged()
        await found.to_local()
        await found.to_bridged()
        yield found


PROVIDERS = [of_a_store, local_state, bridged_state, context, moved_context]


def run(test: Test, provider: Any = of_a_store) -> None:
    """Run a test with state."""

    async def main() -> None:
        async with provider() as state:
            await test(state)

    trio.run(main)


# What every provider does.


@pytest.mark.parametrize("provider", PROVIDERS)
def test_conformance(provider: Any) -> None:
    async def test(state: snakepit.StateProvider) -> None:
        made = await state.register_variable("x", "float", 1, constraints={"min": 0, "max": 2}, metadata={"a": "b"})
        assert (made.value, made.version, made.type, made.metadata) == (1.0, 1, "float", {"a": "b"})
        assert await state.get_variable(made.id) == await state.get_variable("x") == made
        assert await state.get_variable_value("x") == 1.0
        with pytest.raises(snakepit.VariableExists):
            await state.register_variable("x", "float", 1)
        with pytest.raises(snakepit.InvalidValue):
            await state.update_variable("x", 3)
        with pytest.raises(snakepit.VersionConflict):
            await state.update_variable("x", 2, expected_version=2)
        changed = await state.update_variable("x", 2, expected_version=1, metadata={"c": "d"})
        assert (changed.value, changed.version, changed.metadata) == (2.0, 2, {"a": "b", "c": "d"})
        with pytest.raises(snakepit.VariableNotFound):
            await state.get_variable("y")
        await state.register_variable("y", value=[1, {"a": [2]}])
        found, missing = await state.get_variables(["y", "z", "x"])
        assert (list(found), missing) == (["y", "x"], ["z"])
        assert [variable.name for variable in await state.list_variables()] == ["x", "y"]
        assert [variable.name for variable in await state.list_variables("[y-z]")] == ["y"]
        outcome = await state.update_variables({"x": 1, "y": 5}, atomic=True)
        assert {name: type(error) for name, error in outcome.items()} == {"y": snakepit.InvalidValue}
        assert (await state.get_variable("x")).version == 2
        outcome = await state.update_variables({"x": 1, "y": 5, "z": 0})
        assert isinstance(outcome["x"], snakepit.Variable)
        assert outcome["x"].version == 3
        assert isinstance(outcome["z"], snakepit.VariableNotFound)
        exported = await state.export_variables()
        with pytest.raises(snakepit.VariableExists):
            await state.import_variables(exported)
        for name in ("x", "y"):
            await state.delete_variable(name)
        assert not await state.has_variable("x")
        with pytest.raises(snakepit.SessionError, match="no exported variable"):
            await state.import_variables([*exported, {"name": "z"}])
        assert await state.list_variables() == []
        assert [variable.version for variable in await state.import_variables(exported)] == [3, 1]
        assert await state.get_variable_value("x") == 1.0
        with pytest.raises(snakepit.InvalidValue):
            await state.update_variable("x", 3)
        assert await state.export_variables() == exported

    run(test, provider)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_nobody_changes_what_is_kept_but_by_an_update(provider: Any) -> None:
    async def test(state: snakepit.StateProvider) -> None:
        given: list[Any] = [1, [2]]
        array = np.zeros(3)
        await state.register_variable("x", "list", given)
        await state.register_variable("a", "tensor", array)
        given[1].append(3)
        array[0] = 1
        (await state.get_variable_value("x"))[1].append(4)
        found, _ = await state.get_variables(["x"])
        found["x"].value.append(5)
        assert await state.get_variable_value("x") == [1, [2]]
        with pytest.raises(ValueError, match="read-only"):
            (await state.get_variable_value("a"))[0] = 1
        assert (await state.get_variable_value("a")).sum() == 0

    run(test, provider)


# The store.


def test_a_change_that_raises_never_was() -> None:
    async def main() -> None:
        store = MemoryStore(quotas=Quotas(history=2), clock=Clock())
        session_id = await store.create_session(metadata={"a": "1"})
        view = store.of(session_id)
        for name in ("x", "y", "z"):
            await view.register_variable(name, value=1)
        await view.add_dependency("y", on="x")
        await view.update_variable("x", 2)
        await view.store_program("p", [1])
        before = await store.export_session(session_id), await view.info()

        def change(session: Session) -> None:
            session.update("x", 3)
            session.delete("y")
            session.register("w", "string", "text")
            session.delete("x")
            session.register("x", "string", "other")
            session.put_program("p", [2])
            session.delete_program("p")
            session.put_metadata("a", "2")
            session.put_metadata("b", "2")
            session.bind("worker")
            raise RuntimeError("no")

        async with view.watch(initial=False) as updates:
            with pytest.raises(RuntimeError, match="no"):
                await store.update_session(session_id, change)
            with trio.move_on_after(0.05):
                await anext(updates)
                pytest.fail("nothing has changed")
        assert (await store.export_session(session_id), await view.info()) == before

    trio.run(main)


def test_quotas() -> None:
    async def main() -> None:
        clock = Clock()
        store = MemoryStore(quotas=Quotas(sessions=1, variables=1, programs=1, bytes=2000, history=2), clock=clock)
        view = store.of(await store.create_session("s", ttl=10))
        with pytest.raises(snakepit.QuotaExceeded, match="the store has 1 sessions, and may have 1"):
            await store.create_session()
        await view.register_variable("x", "string", "a" * 500)
        with pytest.raises(snakepit.QuotaExceeded, match="session 's' has 1 variables"):
            await view.register_variable("y", value=1)
        for _ in range(10):
            await view.update_variable("x", "b" * 900)
        assert 1800 < (await view.info()).bytes < 1900
        with pytest.raises(snakepit.QuotaExceeded, match="may hold 2000"):
            await view.store_program("p", "c" * 300)
        await view.delete_variable("x")
        assert (await view.info()).bytes == 0
        await view.store_program("p", "c" * 300)
        await view.store_program("p", "c" * 200)
        assert 200 < (await view.info()).bytes < 210
        with pytest.raises(snakepit.QuotaExceeded, match="has 1 programs"):
            await view.store_program("q", 1)
        await view.delete_program("p")
        assert (await view.info()).bytes == 0
        await store.store_global_program("g", {"a": [1]})
        (await store.get_global_program("g"))["a"].append(2)
        assert await store.get_global_program("g") == {"a": [1]}
        with pytest.raises(snakepit.QuotaExceeded, match="global programs"):
            await store.store_global_program("h", 1)
        with pytest.raises(snakepit.EncodeError):
            await store.store_global_program("g", object())
        stats = await store.get_stats()
        assert (stats.sessions, stats.global_programs, stats.created) == (1, 1, 1)
        clock.now += 10
        await store.create_session()
        assert (await store.get_stats()).expired == 1
        await store.delete_global_program("g")
        for step in (store.get_global_program("g"), store.delete_global_program("g")):
            with pytest.raises(snakepit.ProgramNotFound):
                await step

    trio.run(main)


def test_programs_metadata_and_exports() -> None:
    async def main() -> None:
        store, other = MemoryStore(), MemoryStore()
        view = store.of(await store.create_session("s", ttl=50, metadata={"who": "me"}))
        await view.register_variable("x", value=1, access_rules=AccessRules(owner="o"))
        await view.update_variable("x", 2, owner="o")
        await view.register_variable("y", value=[1])
        await view.add_dependency("y", on="x", kind="math")
        await view.start_optimization("y", "optimizer", config={"a": "b"})
        await view.store_program("p", {"steps": [1]})
        await view.put_metadata("more", "data")
        await view.store_worker_session("worker_1")
        with pytest.raises(snakepit.SessionError, match="no dict"):
            await view.store_program("q", 1)
            await view.update_program("q", {"a": 1})
        exported = await store.export_session("s")
        assert await other.import_session(exported) == "s"
        assert await other.export_session("s") == exported
        assert await other.of("s").history("x") == await view.history("x")
        assert (await other.of("s").rollback("x", 1, owner="o")).value == 1
        assert (await other.get_session("s")).metadata == {"who": "me", "more": "data"}
        assert await other.import_session(exported, "copy") == "copy"
        exported["variables"][0]["value"] = "text"
        with pytest.raises(snakepit.InvalidValue):
            await other.import_session(exported, "broken")
        with pytest.raises(snakepit.SessionError, match="no exported session"):
            await other.import_session({**exported, "programs": 1}, "broken")
        assert await other.list_sessions() == ["s", "copy"]

    trio.run(main)


def test_expiring_costs_what_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[str] = []
    expired = Session.expired

    def count(session: Session, now: float) -> bool:
        looked_at.append(session.id)
        return expired(session, now)

    monkeypatch.setattr(Session, "expired", count)

    async def main() -> None:
        clock = Clock()
        store = MemoryStore(clock=clock)
        for number in range(100_000):
            await store.create_session(f"long {number}", ttl=1000)
        for number in range(2_000):
            await store.create_session(f"short {number}", ttl=10)
        clock.now += 5
        for number in range(100):
            await store.of(f"short {number}").info()
        clock.now += 5
        looked_at.clear()
        assert await store.cleanup_expired_sessions() == 1_900
        assert len(looked_at) == 2_000, "those that expire, and those that were used meanwhile"
        assert await store.cleanup_expired_sessions() == 0
        assert len(looked_at) == 2_000
        clock.now += 5
        assert await store.cleanup_expired_sessions() == 100
        assert (await store.get_stats()).sessions == 100_000

    trio.run(main)


def test_the_pool_reaps() -> None:
    async def main() -> None:
        async with snakepit.open_pool(workers=1, cleanup_interval=0.05, session_ttl=0.1) as pool:
            async with pool.session("kept") as session:
                assert (await session.info()).ttl == 0.1
            async with pool.session("for ever", ttl=None):
                pass
            assert await pool.sessions.list_sessions() == ["kept", "for ever"]
            with trio.fail_after(60):
                while (await pool.sessions.get_stats()).expired < 1:
                    await trio.sleep(0.01)
            assert await pool.sessions.list_sessions() == ["for ever"]

    trio.run(main)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"ttl": 0}, snakepit.SessionError, "ttl is 0"),
        ({"ttl": -1.0}, snakepit.SessionError, "ttl is -1.0"),
        ({"affinity": "sticky"}, snakepit.UsageError, "'sticky' cannot be; give one of hint, strict"),
    ],
)
def test_sessions_that_cannot_be(options: Any, error: type[Exception], message: str) -> None:
    async def main() -> None:
        async with snakepit.open_pool(workers=1) as pool:
            with pytest.raises(error, match=message):
                async with pool.session(**options):
                    pytest.fail("there is none")
        with pytest.raises(snakepit.UsageError, match="give a snakepit_trio.SessionStore"):
            async with snakepit.open_pool(store=7):  # type: ignore[arg-type]
                pytest.fail("there is none")

    trio.run(main)


def test_a_session_ends_with_its_block_if_it_has_no_id() -> None:
    async def main() -> None:
        store = MemoryStore()
        async with snakepit.open_pool(workers=1, store=store) as pool:
            with pytest.raises(RuntimeError, match="mine"):
                async with pool.session() as session:
                    assert await store.session_exists(session.id)
                    raise RuntimeError("mine")
            with trio.move_on_after(0.01):
                async with pool.session():
                    await trio.sleep_forever()
            assert await store.list_sessions() == []
            async with pool.session("s") as session:
                await session.register_variable("x", value=1)
            async with pool.session("s") as session:
                assert await session.get_variable_value("x") == 1
        assert await store.list_sessions() == ["s"]

    trio.run(main)


def test_a_session_may_have_its_own_affinity() -> None:
    async def main() -> None:
        async with snakepit.open_pool("tests.tools:Tools", workers=2) as pool:

            async def pids(session: snakepit.SessionHandle) -> set[int]:
                found = set()

                async def call() -> None:
                    await session.execute("sleep", {"seconds": 0.02})
                    found.add(await session.execute("pid"))

                async with trio.open_nursery() as nursery:
                    for _ in range(8):
                        nursery.start_soon(call)
                return found

            async with pool.session("s", affinity="strict") as session:
                assert len(await pids(session)) == 1
            async with pool.session("s") as session:
                assert len(await pids(session)) == 2

    trio.run(main)


# Watching.


def test_watching() -> None:
    async def test(state: SessionView) -> None:
        await state.register_variable("x", value=1)
        await state.register_variable("y", value=[1])
        async with state.watch("x", "new") as updates:
            first = await anext(updates)
            assert (first.name, first.kind, first.value, first.missed) == ("x", "initial", 1, 0)
            for number in range(2, 7):
                await state.update_variable("x", number)
                await state.update_variable("y", [number])
            await state.register_variable("new", value="text")
            late = await anext(updates)
            assert (late.name, late.kind, late.value, late.missed) == ("x", "changed", 6, 4)
            new = await anext(updates)
            assert (new.name, new.kind, new.value, new.missed) == ("new", "changed", "text", 0)
            await state.update_variables({"x": 0, "y": "wrong"}, atomic=True)
            await state.delete_variable("x")
            gone = await anext(updates)
            assert (gone.name, gone.kind, gone.variable, gone.value, gone.missed) == ("x", "deleted", None, None, 0)
            with trio.move_on_after(0.05) as waiting:
                await anext(updates)
            assert waiting.cancelled_caught

    for provider in (of_a_store, context, moved_context):
        run(test, provider)


def test_dependents_are_told() -> None:
    async def test(state: SessionView) -> None:
        for name in ("base", "middle", "top", "other"):
            await state.register_variable(name, value=1)
        await state.add_dependency("middle", on="base")
        await state.add_dependency("top", on="middle")
        with pytest.raises(snakepit.AccessDenied, match="'base' cannot depend on 'top'"):
            await state.add_dependency("base", on="top")
        async with state.watch("top", "other", initial=False) as updates:
            await state.update_variable("base", 2)
            told = await anext(updates)
            assert (told.name, told.kind, told.cause, told.value) == ("top", "dependency", "base", 1)
            await state.update_variables({"base": 3, "top": 3})
            told = await anext(updates)
            assert (told.kind, told.cause, told.value) == ("changed", None, 3)
            await state.update_variable("top", 4)
            await state.update_variable("base", 4)
            told = await anext(updates)
            assert (told.kind, told.value, told.missed) == ("changed", 4, 1)
            await state.delete_variable("middle")
            await state.update_variable("base", 5)
            await state.update_variable("other", 5)
            # Deleting told the top one, which depends on nothing now.
            assert [(await anext(updates)).name for _ in range(2)] == ["top", "other"]

    run(test)


def test_watching_ends_with_the_session() -> None:
    async def main() -> None:
        async with snakepit.open_pool(workers=1) as pool:
            ended = trio.Event()

            async def watch(view: SessionView, task_status: trio.TaskStatus[None]) -> None:
                async with view.watch() as updates:
                    task_status.started()
                    assert [update.name async for update in updates] == ["x"]
                ended.set()

            async with trio.open_nursery() as nursery:
                async with pool.session() as session:
                    await session.register_variable("x", value=1)
                    await nursery.start(watch, session)
                with trio.fail_after(60):
                    await ended.wait()
            with pytest.raises(snakepit.SessionNotFound):
                async with session.watch():
                    pytest.fail("there is nothing to watch")

    trio.run(main)


def test_variables_without_a_session() -> None:
    made = variables.create_variable("x", value=[1.5], metadata={"a": "b"})
    assert (made.type, made.value, made.version) == ("list", [1.5], 1)
    assert set(variables.supported_types()) >= {"float", "tensor", "map"}
    assert variables.validate(1, "float") == 1.0
    with pytest.raises(snakepit.InvalidValue):
        variables.create_variable("x", "float", "text")
    assert made.age(made.created_at + 3) == pytest.approx(3)
    assert made.time_since_update(made.updated_at + 3) == pytest.approx(3)
    assert not made.optimizing


def test_the_ttl_counts_from_the_last_use() -> None:
    async def main() -> None:
        clock = Clock()
        store = MemoryStore(clock=clock)
        view = store.of(await store.create_session(ttl=10))
        for _ in range(5):
            clock.now += 9
            await view.has_variable("x")
        assert (await view.info()).expires_at == clock.now + 10
        clock.now += 9.999
        assert await store.session_exists(view.id)
        clock.now += 0.001
        assert not await store.session_exists(view.id)
        with pytest.raises(snakepit.SessionNotFound, match="has expired"):
            await view.list_variables()

    trio.run(main, clock=MockClock())
