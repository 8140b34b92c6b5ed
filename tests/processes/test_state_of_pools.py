"""Sessions and their state through pools: one conformance suite for all providers, watching, affinity."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
import trio

import snakepit_trio as snakepit
from snakepit_trio import MemoryStore, SessionView
from snakepit_trio._config.policies import Affinity
from tests.helpers.state_runs import of_a_store, run

TOOLS = "tests.helpers.state_tools:StateTools"


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
        ({"affinity": "sticky"}, snakepit.UsageError, "'sticky' is unknown; give one of hint, strict"),
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
        async with snakepit.open_pool("tests.helpers.tools:Tools", workers=2) as pool:

            async def waits_for_its_worker(affinity: Affinity | None, seconds: float) -> bool:
                async with pool.session("s", affinity=affinity) as session, trio.open_nursery() as nursery:
                    first = await session.execute("pid")
                    nursery.start_soon(session.execute, "sleep", {"seconds": seconds})
                    while not pool.get_stats().running:
                        await trio.sleep(0.001)
                    second = await session.execute("pid")
                    nursery.cancel_scope.cancel()
                return bool(first == second)

            assert await waits_for_its_worker("strict", 0.3)
            assert not await waits_for_its_worker(None, 60)

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
