"""Rules of stores: sessions as a whole, programs, counts, and copies of values."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable
from typing import Any, Final

from bridge_py.wire.errors import ProgramNotFound, QuotaExceeded, SessionError, SessionNotFound
from snakepit_trio.state.quotas import Quotas
from snakepit_trio.state.session import Session
from snakepit_trio.state.store import MemoryStore, SessionStore
from snakepit_trio.state.view import SessionView

from .check import Rules, equal, raises, that
from .stores import Stores

rules: Rules[Stores] = Rules()

_VALUES: Final[list[Any]] = [
    None,
    True,
    -(2**100),
    1.5,
    math.inf,
    "ünï\n\x00",
    b"\x00\xff",
    [1, [2, "x"], {}],
    {"a": {"b": [None]}},
    dt.datetime(2024, 2, 29, 12, tzinfo=dt.UTC),
]


@rules
async def a_new_store_is_empty(given: Stores) -> None:
    """Each call of the maker gives a store without sessions, so that checks do not depend on each other."""
    async with given.empty() as store:
        equal(await store.list_sessions(), [], "list_sessions() of a new store")


@rules
async def a_session_lives_until_it_is_deleted(given: Stores) -> None:
    """A created session is found and listed. `delete_session` removes it, and says whether it was there."""
    async with given.empty() as store:
        equal(await store.create_session("s"), "s", "create_session('s')")
        equal(await store.session_exists("s"), True, "session_exists of a session")
        equal(await store.list_sessions(), ["s"], "list_sessions()")
        equal((await store.get_session("s")).id, "s", "the id in get_session('s')")
        equal(await store.delete_session("s"), True, "delete_session of a session")
        equal(await store.session_exists("s"), False, "session_exists of a deleted session")
        equal(await store.list_sessions(), [], "list_sessions() after the deletion")
        equal(await store.delete_session("s"), False, "delete_session for the second time")


@rules
async def ids_are_made_where_none_is_given(given: Stores) -> None:
    """Without an id, each session gets one of its own."""
    async with given.empty() as store:
        ids = [await store.create_session() for _ in range(20)]
        that(all(isinstance(each, str) and each for each in ids), f"expected ids that are texts, but {ids} came")
        that(len(set(ids)) == 20, f"expected twenty ids that differ, but {ids} came")
        equal(await store.list_sessions(), ids, "list_sessions()")


@rules
async def an_id_is_taken_once(given: Stores) -> None:
    """A second session of an id is refused with `SessionError`, and the first one is unharmed."""
    async with given.empty() as store:
        await store.create_session("s", metadata={"whose": "first"})
        await store.of("s").register_variable("x", "integer", 1)
        with raises(SessionError, "create_session with an id that is taken"):
            await store.create_session("s", metadata={"whose": "second"})
        equal((await store.get_session("s")).metadata, {"whose": "first"}, "the metadata of the first session")
        equal(await store.of("s").get_variable_value("x"), 1, "the variable of the first session")


@rules
async def the_id_of_a_deleted_session_is_free(given: Stores) -> None:
    """A new session with the id of a deleted session begins empty."""
    async with given.empty() as store:
        await store.create_session("s", metadata={"whose": "first"})
        await store.of("s").register_variable("x", "integer", 1)
        await store.of("s").store_program("p", {})
        await store.delete_session("s")
        await store.create_session("s")
        info = await store.get_session("s")
        equal(
            (info.metadata, info.variables, info.programs, info.bytes), ({}, 0, 0, 0), "what the second session holds"
        )


@rules
async def what_is_not_there_is_not_found(given: Stores) -> None:
    """Reading, changing and exporting a missing session raises `SessionNotFound`, and makes no session."""
    async with given.empty() as store:
        for what, use in _uses(store).items():
            with raises(SessionNotFound, what):
                await use()
        equal(await store.list_sessions(), [], "list_sessions() afterwards")


@rules
async def a_ttl_that_cannot_be_is_refused(given: Stores) -> None:
    """A ttl that is not more than zero raises `SessionError`, and makes no session."""
    async with given.empty() as store:
        for ttl in (0, -1.0, math.nan):
            with raises(SessionError, f"create_session with ttl={ttl}"):
                await store.create_session("s", ttl=ttl)
        equal(await store.list_sessions(), [], "list_sessions() afterwards")


@rules
async def sessions_are_listed_oldest_first(given: Stores) -> None:
    """`list_sessions` has the order of creation, whatever was used or deleted since."""
    async with given.empty() as store:
        for session_id in ("c", "a", "d", "b"):
            await store.create_session(session_id)
        await store.of("c").register_variable("x", "integer", 1)
        await store.delete_session("a")
        await store.create_session("a")
        equal(await store.list_sessions(), ["c", "d", "b", "a"], "list_sessions()")


@rules
async def get_session_tells_what_it_is(given: Stores) -> None:
    """`get_session` tells the ttl, times, metadata, counts and worker of the session."""
    async with given.empty() as store:
        await store.create_session("s", ttl=500.0, metadata={"a": "1"})
        view = store.of("s")
        await view.put_metadata("b", "2")
        await view.register_variable("x", "string", "text")
        await view.store_program("p", [1])
        await view.store_worker_session("w")
        info = await store.get_session("s")
        equal(info.ttl, 500.0, "ttl")
        equal(info.metadata, {"a": "1", "b": "2"}, "metadata")
        equal((info.variables, info.programs, info.worker_id), (1, 1, "w"), "variables, programs, worker_id")
        that(info.bytes > 0, f"bytes: expected more than 0, but {info.bytes} came")
        that(
            info.created_at <= info.last_accessed,
            f"expected created_at <= last_accessed, but {info.created_at} and {info.last_accessed} came",
        )
        equal(info.expires_at, info.last_accessed + 500.0, "expires_at")
        await store.create_session("for ever", ttl=None)
        endless = await store.get_session("for ever")
        equal((endless.ttl, endless.expires_at), (None, None), "ttl and expires_at of a session without an end")


@rules
async def values_survive(given: Stores) -> None:
    """Values that can be sent can be stored: programs come back equal and of the same types."""
    async with given.empty() as store:
        view = store.of(await store.create_session("s"))
        for number, value in enumerate(_VALUES):
            await view.store_program(f"p{number}", value)
            await store.store_global_program(f"p{number}", value)
            equal(await view.get_program(f"p{number}"), value, "a program of a session")
            equal(await store.get_global_program(f"p{number}"), value, "a program of all sessions")
        equal(await view.list_programs(), [f"p{n}" for n in range(len(_VALUES))], "list_programs(), oldest first")


@rules
async def global_programs_belong_to_all(given: Stores) -> None:
    """Global programs are stored, replaced and removed, apart from the programs of sessions.

    A missing global program raises `ProgramNotFound`.
    """
    async with given.empty() as store:
        view = store.of(await store.create_session("s"))
        await store.store_global_program("p", {"v": 1})
        await store.store_global_program("p", {"v": 2})
        equal(await store.get_global_program("p"), {"v": 2}, "a global program that was replaced")
        with raises(ProgramNotFound, "a global program, looked for in a session"):
            await view.get_program("p")
        await store.delete_session("s")
        equal(await store.get_global_program("p"), {"v": 2}, "a global program, after the end of a session")
        await store.delete_global_program("p")
        with raises(ProgramNotFound, "get_global_program after its deletion"):
            await store.get_global_program("p")
        with raises(ProgramNotFound, "delete_global_program for the second time"):
            await store.delete_global_program("p")


@rules
async def stats_count(given: Stores) -> None:
    """`get_stats` counts what the store holds now, and the sessions that it has created, deleted and expired."""
    async with given.empty() as store:
        for session_id in ("a", "b", "c"):
            await store.create_session(session_id)
            await store.of(session_id).register_variable("x", "integer", 1)
        await store.of("a").store_program("p", [])
        await store.store_global_program("g", [])
        await store.delete_session("c")
        stats = await store.get_stats()
        equal((stats.sessions, stats.variables, stats.programs), (2, 2, 1), "sessions, variables, programs")
        equal((stats.global_programs, stats.created), (1, 3), "global_programs, created")
        equal((stats.deleted, stats.expired), (1, 0), "deleted, expired")
        held = sum([(await store.get_session(each)).bytes for each in ("a", "b")])
        equal(stats.bytes, held, "bytes, the sum of the sessions'")


@rules
async def what_was_given_stays_as_it_was(given: Stores) -> None:
    """Changing a value after it was given to the store does not change the store's copy."""
    async with given.empty() as store:
        metadata, value = {"a": "1"}, {"list": [1]}
        view = store.of(await store.create_session("s", metadata=metadata))
        await view.register_variable("x", "map", value)
        await view.store_program("p", value)
        await store.store_global_program("p", value)
        metadata["a"] = "changed"
        value["list"].append(2)
        await _is_unharmed(store, "by who gave it")


@rules
async def what_is_handed_out_is_a_copy(given: Stores) -> None:
    """Changing a value that the store has returned does not change the store's own."""
    async with given.empty() as store:
        view = store.of(await store.create_session("s", metadata={"a": "1"}))
        await view.register_variable("x", "map", {"list": [1]})
        await view.store_program("p", {"list": [1]})
        await store.store_global_program("p", {"list": [1]})
        for what, value in (await _handed_out(store, view)).items():
            value["list"].append(2)
            await _is_unharmed(store, f"by who got it from {what}")
        (await store.get_session("s")).metadata["a"] = "changed"
        (await store.export_session("s"))["metadata"]["a"] = "changed"
        (await store.list_sessions()).append("t")
        await _is_unharmed(store, "by who got the metadata")
        equal(await store.list_sessions(), ["s"], "list_sessions(), after who got the list has changed it")


@rules
async def an_exported_session_can_be_imported(given: Stores) -> None:
    """Importing an exported session makes the same session, even under another id. A taken id is refused."""
    async with given.empty() as store:
        view = await _rich(store, "s")
        exported = await store.export_session("s")
        with raises(SessionError, "import_session with an id that is taken"):
            await store.import_session(exported)
        equal(await store.import_session(exported, "t"), "t", "import_session(..., 't')")
        await _are_equal(view, store.of("t"), "a session and what was imported of it")
        await store.delete_session("s")
        equal(await store.import_session(exported), "s", "import_session of the old id")
        await _are_equal(store.of("s"), store.of("t"), "a session and what was imported of it")


@rules
async def a_failed_import_leaves_nothing(given: Stores) -> None:
    """Importing a broken export raises `SessionError`, and makes no session."""
    async with given.empty() as store:
        await _rich(store, "s")
        exported = await store.export_session("s")
        exported["variables"][-1]["version"] = "not a number"
        with raises(SessionError, "import_session of what is broken"):
            await store.import_session(exported, "t")
        equal(await store.list_sessions(), ["s"], "list_sessions() afterwards")


@rules
async def a_session_moves_between_stores(given: Stores) -> None:
    """Exports of a store in memory can be imported, and exports of the store into memory: `Context` does that."""
    async with given.empty() as store:
        memory = MemoryStore()
        await _rich(memory, "s")
        await store.import_session(await memory.export_session("s"))
        await _are_equal(memory.of("s"), store.of("s"), "a session in memory and in the store")
        await memory.import_session(await store.export_session("s"), "back")
        await _are_equal(memory.of("back"), store.of("s"), "a session of the store, in memory again")


@rules
async def quotas_hold(given: Stores) -> None:
    """More sessions, variables, programs or bytes than allowed raise `QuotaExceeded`, and change nothing."""
    quotas = Quotas(sessions=2, variables=2, programs=1, bytes=1000, history=3)
    async with given.empty(quotas) as store:
        view = store.of(await store.create_session("s"))
        await store.create_session("t")
        with raises(QuotaExceeded, "a third session of two"):
            await store.create_session("u")
        for name in ("x", "y"):
            await view.register_variable(name, "integer", 1)
        with raises(QuotaExceeded, "a third variable of two"):
            await view.register_variable("z", "integer", 1)
        await store.store_global_program("p", [])
        with raises(QuotaExceeded, "a second global program of one"):
            await store.store_global_program("q", [])
        with raises(QuotaExceeded, "a program of more bytes than a session may have"):
            await view.store_program("p", "x" * 1000)
        for number in range(5):
            await view.update_variable("x", number)
        equal(len(await view.history("x")), 3, "versions in the history of three at the most")
        equal(await store.list_sessions(), ["s", "t"], "list_sessions() afterwards")


@rules
async def who_says_that_it_never_waits_never_waits(given: Stores) -> None:
    """No method of a store with `may_wait = False` waits or is a checkpoint, because workers are answered in place."""
    async with given.empty() as store:
        if store.may_wait:
            await store.list_sessions()
            return
        await store.create_session("s")
        await store.of("s").register_variable("x", "integer", 1)
        steps: dict[str, Any] = {
            "create_session": store.create_session("t"),
            "session_exists": store.session_exists("t"),
            "export_session": store.export_session("s"),
            "get_session": store.get_session("s"),
            "read_session": store.read_session("s", len),
            "update_session": store.update_session("s", lambda session: session.update("x", 2)),
            "store_global_program": store.store_global_program("p", []),
            "get_global_program": store.get_global_program("p"),
            "delete_global_program": store.delete_global_program("p"),
            "get_stats": store.get_stats(),
            "cleanup_expired_sessions": store.cleanup_expired_sessions(),
            "list_sessions": store.list_sessions(),
            "delete_session": store.delete_session("t"),
        }
        _never_wait(steps)


def _never_wait(steps: dict[str, Any]) -> None:
    waited = []
    for what, coroutine in steps.items():
        try:
            coroutine.send(None)
        except StopIteration:
            continue
        waited.append(what)
        coroutine.close()
    that(not waited, f"expected that nothing waits, as `may_wait = False` says, but these did: {', '.join(waited)}")


def _uses(store: SessionStore) -> dict[str, Callable[[], Any]]:
    view = store.of("s")
    return {
        "read_session": lambda: store.read_session("s", len),
        "update_session": lambda: store.update_session("s", _nothing),
        "get_session": lambda: store.get_session("s"),
        "export_session": lambda: store.export_session("s"),
        "of('s').get_variable": lambda: view.get_variable("x"),
        "of('s').update_variable": lambda: view.update_variable("x", 1),
        "of('s').register_variable": lambda: view.register_variable("x", "integer", 1),
        "of('s').store_program": lambda: view.store_program("p", 1),
    }


def _nothing(_session: Session) -> None:
    pass


async def _handed_out(store: SessionStore, view: SessionView) -> dict[str, Any]:
    variables, _ = await view.get_variables(["x"])
    exported = await store.export_session("s")
    return {
        "get_variable": (await view.get_variable("x")).value,
        "get_variables": variables["x"].value,
        "list_variables": (await view.list_variables())[0].value,
        "history": (await view.history("x"))[0].value,
        "export_variables": (await view.export_variables())[0]["value"],
        "get_program": await view.get_program("p"),
        "get_global_program": await store.get_global_program("p"),
        "export_session": exported["variables"][0]["value"],
        "export_session, its programs": exported["programs"]["p"],
    }


async def _is_unharmed(store: SessionStore, whom: str) -> None:
    view = store.of("s")
    held = {
        "a variable": await view.get_variable_value("x"),
        "its history": (await view.history("x"))[0].value,
        "a program": await view.get_program("p"),
        "a global program": await store.get_global_program("p"),
    }
    for what, value in held.items():
        equal(value, {"list": [1]}, f"{what}, after its value was changed {whom}")
    equal((await view.info()).metadata, {"a": "1"}, f"the metadata, after they were changed {whom}")


async def _rich(store: SessionStore, session_id: str) -> SessionView:
    """A session that has some of everything."""
    view = store.of(await store.create_session(session_id, ttl=500.0, metadata={"a": "1"}))
    await view.register_variable("x", "float", 0.5, constraints={"max": 2.0}, metadata={"m": "n"})
    await view.update_variable("x", 1.5)
    await view.register_variable("y", "map", {"k": [1]})
    await view.add_dependency("y", "x")
    await view.store_program("p", {"step": 1})
    await store.update_session(session_id, lambda session: session.hold("host", 3))
    return view


async def _are_equal(first: SessionView, second: SessionView, what: str) -> None:
    for view in (first, second):
        await view.info()
    equal(await second.export_variables(), await first.export_variables(), f"{what}: variables")
    for name in ("x", "y"):
        pairs = [[(entry.version, entry.value) for entry in await view.history(name)] for view in (first, second)]
        equal(pairs[1], pairs[0], f"{what}: history of {name!r}")
    equal(await second.get_program("p"), await first.get_program("p"), f"{what}: a program")
    infos = [await view.info() for view in (first, second)]
    facts = [(info.ttl, info.metadata, info.variables, info.programs, info.epoch) for info in infos]
    equal(facts[1], facts[0], f"{what}: ttl, metadata, counts, epoch")
    equal(infos[0].epoch, 3, f"{what}: the epoch")
