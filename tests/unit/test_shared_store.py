"""What the base of shared stores does when hosts meet, links break and notices get lost. The backend is in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import pytest
import trio

import snakepit_trio as snakepit
from snakepit_trio.state import parts
from snakepit_trio.state.backend import Commit, Committed, State
from snakepit_trio.state.parts import VARIABLE
from snakepit_trio.state.session import Change, Session
from snakepit_trio.state.shared import SharedStore
from snakepit_trio.testing import InMemory
from snakepit_trio.testing.conformance.tools import Tools
from tests.helpers.memory_backend import MemoryBackend, World, host


class Ear:
    """What a hub tells of one session."""

    def __init__(self, store: snakepit.SessionStore, session_id: str = "s") -> None:
        self.heard: list[Change | None] = []
        self._news = trio.Event()
        store.hub.subscribe(session_id, self, self._hear)

    def _hear(self, changes: Sequence[Change] | None) -> None:
        self.heard.extend([None] if changes is None else changes)
        self._news.set()

    async def until(self, count: int) -> list[Any]:
        with trio.fail_after(30):
            while len(self.heard) < count:
                self._news = trio.Event()
                await self._news.wait()
        return [change and change.variable and change.variable.value for change in self.heard]


async def add_one(store: snakepit.SessionStore, times: int = 1) -> None:
    def change(session: Session) -> None:
        session.update("n", session.get("n").value + 1)

    for _ in range(times):
        await store.update_session("s", change)


async def counter(store: snakepit.SessionStore) -> snakepit.SessionView:
    view = store.of(await store.create_session("s"))
    await view.register_variable("n", "integer", 0)
    return view


async def test_hosts_see_each_others_changes_and_lose_none() -> None:
    world = World()
    async with host(world) as first, host(world) as second:
        view = await counter(first)
        async with trio.open_nursery() as nursery:
            for store in (first, second, first, second):
                nursery.start_soon(add_one, store, 25)
        assert await second.of("s").get_variable_value("n") == 100
        assert (await view.get_variable("n")).version == 101
        assert len(await view.history("n")) == 100
        assert await view.get_variable("n") == await second.of("s").get_variable("n")


async def test_a_session_is_the_same_on_all_hosts() -> None:
    world = World()
    async with host(world) as first, host(world) as second:
        view = store_view = await counter(first)
        rules = snakepit.AccessRules(owner="tune")
        await view.register_variable("x", "map", {"a": (1, 2)}, metadata={"m": "1"}, access_rules=rules)
        await view.register_variable("y", "float", 0.5, constraints={"max": 2.0})
        await second.of("s").get_variable("x")  # from now on the second host only gets what changes
        await view.update_variable("y", 1.5, metadata={"by": "me"}, source="worker")
        await view.add_dependency("y", "n")
        await view.start_optimization("n", "o", config={"k": "v"})
        for name in ("q", "p"):
            await view.store_program(name, {"step": [1, (2, b"3")]})
        await view.delete_variable("x", owner="tune")
        await view.register_variable("x", "list", [1])
        await view.delete_program("q")
        await view.store_program("q", 1)
        await view.store_worker_session("w")
        for store in (second, first):
            view = store.of("s")
            assert [each.name for each in await view.list_variables()] == ["n", "y", "x"]
            assert await view.list_programs() == ["p", "q"]
        exports = [await store.export_session("s") for store in (first, second)]
        assert exports[0] == exports[1]
        assert exports[0]["programs"]["p"] == {"step": [1, (2, b"3")]}
        infos = [attrs.evolve(await store.get_session("s"), last_accessed=0, expires_at=0) for store in (first, second)]
        assert infos[0] == infos[1]
        await store_view.delete_variable("n")
        for name in ("x", "y"):
            await second.of("s").delete_variable(name)
        for name in ("p", "q"):
            await second.of("s").delete_program(name)
        assert (await store_view.info()).bytes == 0


async def test_changes_of_other_hosts_are_told_of() -> None:
    world = World()
    async with host(world) as first, host(world) as second:
        await counter(first)
        ear, other = Ear(first), Ear(second)
        await second.of("s").get_variable("n")
        for number in range(1, 5):
            await add_one(second)
            assert await ear.until(number) == list(range(1, number + 1))
        await first.delete_session("s")
        assert await other.until(5) == [1, 2, 3, 4, None]
        assert await ear.until(5) == [1, 2, 3, 4, None]


@pytest.mark.parametrize("recheck", [0.02, 30.0])
async def test_a_lost_notice_is_no_lost_change(recheck: float) -> None:
    world = World()
    async with host(world, recheck=recheck) as first, host(world) as second:
        await counter(first)
        ear = Ear(first)
        world.loses_notices = True
        await add_one(second, 2)
        if recheck > 1:
            world.gap()
        assert (await ear.until(1))[-1] == 2
        world.loses_notices = False
        await add_one(second)
        assert (await ear.until(2))[-1] == 3
        world.loses_notices = True
        await second.delete_session("s")
        if recheck > 1:
            world.gap()
        assert (await ear.until(3))[-1] is None


async def test_a_dependent_is_told_of_on_the_other_host_and_a_bystander_is_not() -> None:
    world = World()
    async with host(world) as first, host(world) as second:
        view = await counter(first)
        await view.register_variable("d", "integer", 0)
        await view.register_variable("other", "integer", 0)
        await second.of("s").get_variable("n")
        ear = Ear(second)
        await view.add_dependency("d", "n")
        await add_one(first)
        await ear.until(2)
        told = {(change.name, change.cause) for change in ear.heard if change is not None}
        assert told == {("n", None), ("d", "n")}


@pytest.mark.parametrize("is_done", [[True], [False], [False, True], [False, False, True]])
async def test_a_commit_whose_outcome_is_unknown_is_made_once(is_done: list[bool]) -> None:
    world = World()
    async with host(world) as store:
        view = await counter(store)
        ear = Ear(store)
        world.commits_made = 0
        world.unknown = list(is_done)
        await add_one(store)
        assert world.commits_made == 1
        assert await view.get_variable_value("n") == 1
        assert await ear.until(1) == [1]


async def test_a_host_that_was_late_many_times_asks_for_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    world, asked = World(), []
    async with host(world) as first, host(world) as second:
        await counter(first)
        backend = second._backend
        make = backend.commit

        async def commit(wanted: Commit) -> Committed | State | None:
            asked.append(wanted.asks_for_turn)
            if len(asked) < 15:
                await add_one(first)  # just before
            return await make(wanted)

        monkeypatch.setattr(backend, "commit", commit)
        await add_one(second)
        assert await first.of("s").get_variable_value("n") == 15
        assert asked == [False] * 10 + [True] * 5
        await add_one(second)
        assert not asked[-1]


async def test_an_outcome_that_stays_unknown_is_said_to_be() -> None:
    world = World()
    async with host(world) as store:
        await counter(store)
        world.unknown = [False] * 5
        with pytest.raises(snakepit.StoreUnavailable, match="nobody knows whether the change was made"):
            await add_one(store)
        await add_one(store)
        assert await store.of("s").get_variable_value("n") == 1


async def test_a_store_that_is_away_says_so_and_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    async with host(world) as store, trio.open_nursery() as nursery:
        view = await counter(store)
        nursery.start_soon(store.run_reaper, 0.01)
        world.is_away = True
        for step in (view.get_variable("n"), view.update_variable("n", 5), store.create_session("t")):
            with pytest.raises(snakepit.StoreUnavailable, match="away"):
                await step
        with trio.fail_after(30):
            while "expired sessions are not removed: the world is away" not in caplog.text:
                await trio.sleep(0.01)
        world.is_away = False
        assert await view.get_variable_value("n") == 0
        nursery.cancel_scope.cancel()


async def test_a_session_made_anew_elsewhere_is_another_one() -> None:
    world = World()
    async with host(world) as first, host(world) as second:
        await counter(first)
        ear = Ear(first)
        world.loses_notices = True
        await second.delete_session("s")
        await second.create_session("s", metadata={"whose": "second"})
        with pytest.raises(snakepit.VariableNotFound):
            await add_one(first)
        assert await ear.until(1) == [None]
        assert (await first.get_session("s")).metadata == {"whose": "second"}


async def test_a_broken_part_is_refused_by_name() -> None:
    world = World()
    async with host(world) as first, host(world) as second:
        view = await counter(first)
        await view.store_program("p", {"a": 1})
        kept = world.sessions["s"].parts
        whole = dict(kept)
        for key, name in ((VARIABLE + "n", "variable 'n'"), ("pp", "program 'p'"), ("h", "the head")):
            for damaged in (b"", whole[key][1][:-1], b"\xc1", b"\x90", whole["pp" if key != "pp" else "h"][1]):
                kept[key] = whole[key][0], damaged
                with pytest.raises(snakepit.StoreCorrupt, match=f"session 's': {name} in the store cannot be read"):
                    await second.get_session("s")
                kept[key] = whole[key]
        kept["?"] = 1, b""
        with pytest.raises(snakepit.StoreCorrupt, match="of no known kind"):
            await second.get_session("s")
        del kept["?"]
        assert await second.of("s").get_variable_value("n") == 0


def test_a_variable_under_a_wrong_name_is_refused() -> None:
    session = Session("s", now=0.0, ttl=None)
    session.register("x", "integer", 1)
    part = parts.encode_variable(session._entries["x"], None)
    with pytest.raises(snakepit.StoreCorrupt, match="it is of variable 'x'"):
        parts.decode_variable(part, "y", None)


async def test_what_cannot_be_kept_is_refused_and_nothing_is_lost() -> None:
    async with host(World()) as store:
        view = await counter(store)
        with pytest.raises(snakepit.EncodeError):
            await view.store_program("p", object())
        with pytest.raises(snakepit.EncodeError, match="n cannot be kept outside of this process"):
            await view.update_variable("n", 1, metadata={"a": 1})  # type: ignore[dict-item]  # it is what must be refused
        with pytest.raises(snakepit.EncodeError, match="program id"):
            await store.store_global_program(1, "x")  # type: ignore[arg-type]  # it is what must be refused
        assert (await view.get_variable("n")).version == 1


async def test_a_function_that_raises_on_an_old_copy_gets_the_new_one() -> None:
    world = World()
    async with host(world) as first, host(world) as second:
        view = await counter(first)
        await second.of("s").register_variable("x", "integer", 7)
        await view.update_variable("x", 8)  # this host has not heard of it yet
        assert await second.of("s").get_variable_value("x") == 8


async def test_sessions_that_nobody_watches_leave_the_copies() -> None:
    world = World()
    async with host(world, cache_sessions=3) as store:
        for number in range(10):
            await store.create_session(f"s{number}")
            if number < 5:
                store.hub.subscribe(f"s{number}", "key", lambda _changes: None)
        assert len(list(store._copies)) <= 6
        for number in range(10):
            await store.of(f"s{number}").register_variable("x", "integer", number)
        assert await store.of("s9").get_variable_value("x") == 9


async def test_a_cancelled_update_does_not_keep_its_session_among_the_copies() -> None:
    async with host(World(), cache_sessions=3) as store:
        for number in range(10):
            view = store.of(await store.create_session(f"s{number}"))
            with trio.CancelScope() as scope:
                scope.cancel()
                await view.register_variable("x", "integer", number)
            assert not await view.has_variable("x")
        assert len(list(store._copies)) <= 3


@pytest.mark.parametrize("exported", [{}, None, 5, {"id": "s", "ttl": None}], ids=["empty", "none", "number", "part"])
@pytest.mark.parametrize("kind", ["memory", "shared"])
async def test_what_is_no_export_is_refused(kind: str, exported: Any) -> None:
    async with host(World()) as shared:
        store = shared if kind == "shared" else snakepit.MemoryStore()
        with pytest.raises(snakepit.SessionError, match="this is no exported session: .*give what export_session has"):
            await store.import_session(exported)


async def test_it_is_used_inside_of_its_block() -> None:
    store = SharedStore(MemoryBackend(World()), name="host()")
    with pytest.raises(snakepit.UsageError, match=r"the store is not open: use it inside of `async with host\(\)"):
        await store.create_session()
    async with store:
        await store.create_session("s")
        with pytest.raises(snakepit.UsageError, match="opened already"):
            await store.__aenter__()
    with pytest.raises(snakepit.UsageError, match="the store is closed"):
        await store.of("s").info()


async def test_another_run_of_trio_is_refused() -> None:
    async with host(World()) as store:
        await store.create_session("s")
        with pytest.raises(snakepit.UsageError, match=r"this store was opened in another trio\.run: call it there"):
            await trio.to_thread.run_sync(trio.run, store.get_session, "s")
        assert await trio.to_thread.run_sync(trio.from_thread.run, store.session_exists, "s")


async def test_an_import_is_one_step() -> None:
    world = World()
    async with host(world) as first, host(world) as second:
        view = await counter(first)
        await view.store_program("p", 1)
        exported = await first.export_session("s")
        changes = next(world.numbers)
        await second.import_session(exported, "t")
        assert next(world.numbers) == changes + 2
        assert {**await first.export_session("t"), "id": "s"} == await second.export_session("s")
        exported["programs"] = None
        with pytest.raises(snakepit.SessionError, match="this is no exported session"):
            await second.import_session(exported, "u")
        assert await second.list_sessions() == ["s", "t"]


async def test_a_pool_needs_an_open_store() -> None:
    store = SharedStore(MemoryBackend(World()), name="host()")
    with pytest.raises(snakepit.UsageError, match="the store is not open"):
        async with snakepit.open_pool(Tools, workers=1, launcher=InMemory(), store=store):
            await trio.sleep_forever()


async def test_errors_of_the_block_come_out_as_themselves() -> None:
    with pytest.raises(ZeroDivisionError):
        async with host(World()):
            _ = 1 / 0
