"""Sessions and their state in the store: quotas, programs, exports, expiry."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

import snakepit_trio as snakepit
from snakepit_trio import AccessRules, MemoryStore, Quotas, Session, SessionView, variables
from tests.helpers.memory_backend import World, host
from tests.helpers.state_runs import run


class Clock:
    """Time that passes when it is told to."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


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


@pytest.mark.parametrize("program_id", [3, None, b"x", [], "\ud800"], ids=repr)
async def test_ids_of_programs_are_texts(program_id: Any) -> None:
    """So a program that one store keeps can be kept by every store."""
    async with host(World()) as shared:
        for store in (snakepit.MemoryStore(), shared):
            view = store.of(await store.create_session("s"))
            for put in (view.store_program, store.store_global_program):
                with pytest.raises(snakepit.EncodeError, match="^program id .*: give text that UTF-8 can hold$"):
                    await put(program_id, 1)


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
