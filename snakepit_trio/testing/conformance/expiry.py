"""Rules of stores: sessions expire, unless they are used."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio

from bridge_py.wire.errors import SessionNotFound
from snakepit_trio.state.quotas import Quotas
from snakepit_trio.state.store import SessionStore

from .check import LeftOut, Rules, equal, raises, that
from .stores import Ear, Stores, Time

rules: Rules[Stores] = Rules()

_REAPING: Final = 0.02  # seconds between two turns
_OVER: Final = 1.05  # of the ttl
_TRIES: Final = 5


@rules
async def a_session_expires(given: Stores) -> None:
    """When a session's ttl has passed since its last use, it is not found, not listed, and cannot be deleted."""
    async with given.timed() as (store, time):
        await store.create_session("s", ttl=time.ttl)
        await store.create_session("for ever", ttl=None)
        await store.create_session("longer", ttl=10 * time.ttl)
        await time.go_on(_OVER)
        with raises(SessionNotFound, "read_session of a session that has expired"):
            await store.read_session("s", len)
        with raises(SessionNotFound, "update_session of a session that has expired"):
            await store.update_session("s", len)
        equal(await store.session_exists("s"), False, "session_exists of a session that has expired")
        equal(await store.delete_session("s"), False, "delete_session of a session that has expired")
        equal(await store.list_sessions(), ["for ever", "longer"], "list_sessions()")


@rules
async def an_expired_session_is_not_listed(given: Stores) -> None:
    """An expired session is not listed, whether or not it has been removed already, or looked for."""
    async with given.timed() as (store, time):
        await store.create_session("s", ttl=time.ttl)
        await time.go_on(_OVER)
        equal(await store.list_sessions(), [], "list_sessions() when the ttl has passed")
        equal((await store.get_stats()).sessions, 0, "sessions in get_stats()")


@rules
async def use_keeps_a_session(given: Stores) -> None:
    """Reading and changing a session count as use: its ttl begins anew."""

    async def read(store: SessionStore) -> Any:
        return await store.read_session("s", len)

    async def change(store: SessionStore) -> Any:
        return await store.of("s").put_metadata("a", "1")

    for what, use in (("reading", read), ("changing", change)):
        await _is_kept(given, what, use)


@rules
async def looking_does_not_keep_a_session(given: Stores) -> None:
    """`session_exists`, `list_sessions` and `get_stats` do not count as use."""
    async with given.timed() as (store, time):
        await store.create_session("s", ttl=time.ttl)
        await time.go_on(0.6)
        await store.session_exists("s")
        await store.list_sessions()
        await store.get_stats()
        await time.go_on(0.45)
        equal(await store.session_exists("s"), False, "session_exists, when nobody has used it for its ttl")


@rules
async def the_id_of_an_expired_session_is_free(given: Stores) -> None:
    """A new session with the id of an expired session begins empty, and with a ttl of its own."""
    async with given.timed() as (store, time):
        await store.create_session("s", ttl=time.ttl, metadata={"whose": "first"})
        await store.of("s").register_variable("x", "integer", 1)
        await time.go_on(_OVER)
        equal(await store.create_session("s", ttl=None), "s", "create_session of an id whose session has expired")
        info = await store.get_session("s")
        equal((info.metadata, info.variables, info.ttl), ({}, 0, None), "what the second session is")
        await time.go_on(_OVER)
        equal(await store.session_exists("s"), True, "session_exists of the second session, which has no end")
        equal((await store.get_stats()).expired, 1, "expired in get_stats()")


@rules
async def what_has_expired_is_removed_and_counted(given: Stores) -> None:
    """`cleanup_expired_sessions` removes expired sessions, and returns their number. Stats count them as expired."""
    async with given.timed() as (store, time):
        for session_id in ("a", "b"):
            await store.create_session(session_id, ttl=time.ttl)
        await store.create_session("c", ttl=None)
        await time.go_on(_OVER)
        removed = await store.cleanup_expired_sessions()
        stats = await store.get_stats()
        equal((stats.sessions, stats.created, stats.deleted), (1, 3, 0), "sessions, created, deleted in get_stats()")
        equal(stats.expired, 2, "expired in get_stats()")
        # A store may remove expired sessions by itself, before it is asked.
        that(removed in (0, 2) if store.may_wait else removed == 2, f"expected 2 sessions removed, but {removed} were")
        equal(await store.cleanup_expired_sessions(), 0, "cleanup_expired_sessions() for the second time")


@rules
async def the_hub_is_told_of_an_expiry(given: Stores) -> None:
    """When a session that has expired is removed, its listeners hear None, once."""
    async with given.timed() as (store, time):
        await store.create_session("s", ttl=time.ttl)
        with Ear(store, "s", given.patience) as ear:
            await time.go_on(_OVER)
            await store.cleanup_expired_sessions()
            await store.session_exists("s")
            await store.cleanup_expired_sessions()
            equal(await ear.until(1, "an expiry"), [None], "what the hub told of")


@rules
async def the_reaper_removes_what_has_expired(given: Stores) -> None:
    """`run_reaper` removes expired sessions again and again, until it is cancelled. So watching ends by itself."""
    async with given.timed() as (store, time), trio.open_nursery() as nursery:
        nursery.start_soon(store.run_reaper, _REAPING)
        for session_id in ("a", "b"):
            await store.create_session(session_id, ttl=time.ttl)
            async with store.of(session_id).watch() as updates:
                await time.go_on(_OVER)
                with trio.move_on_after(given.patience) as waiting:
                    async for _ in updates:
                        pass
            that(not waiting.cancelled_caught, f"expected that the reaper ends session {session_id!r}, but it lives on")
        nursery.cancel_scope.cancel()


@rules
async def expired_sessions_leave_their_quota(given: Stores) -> None:
    """Expired sessions make room for new ones, whether or not they have been removed already."""
    async with given.timed(Quotas(sessions=1)) as (store, time):
        await store.create_session("s", ttl=time.ttl)
        await time.go_on(_OVER)
        equal(await store.create_session("t"), "t", "create_session in the place of one that has expired")


@rules
async def expired_sessions_leave_their_bytes(given: Stores) -> None:
    """Expired sessions make room for what grows: a session that is changed, and a global program."""
    async with given.timed(Quotas(store_bytes=5000)) as (store, time):
        for grow in (_grow_session, _grow_program):
            await store.create_session("s", ttl=time.ttl)
            await store.of("s").register_variable("x", "string", "x" * 1500)
            await store.create_session("t", ttl=None)
            await time.go_on(_OVER)
            await grow(store)
            await store.delete_session("t")


async def _grow_session(store: SessionStore) -> None:
    await store.of("t").register_variable("x", "string", "x" * 2000)


async def _grow_program(store: SessionStore) -> None:
    await store.store_global_program("p", "x" * 3000)


async def _is_kept(given: Stores, what: str, use: Callable[[SessionStore], Awaitable[Any]]) -> None:
    async with given.timed() as (store, time):
        for _ in range(_TRIES):
            await store.delete_session("s")
            if await _lives_on(store, time, what, use):
                break
        else:
            raise LeftOut(f"this machine is too slow for sessions of {time.ttl} s: give a longer ttl")
        await time.go_on(_OVER)
        equal(await store.session_exists("s"), False, f"session_exists, a ttl after the last time of {what}")


async def _lives_on(store: SessionStore, time: Time, what: str, use: Callable[[SessionStore], Awaitable[Any]]) -> bool:
    """Use a new session before each end of its ttl. Returns False if the machine was too slow for that."""
    used = time.now()
    await store.create_session("s", ttl=time.ttl)
    for _ in range(3):
        await time.go_on(0.6)
        before = time.now()
        try:
            await use(store)
        except SessionNotFound:
            if time.now() - used >= time.ttl:
                return False
            raise AssertionError(f"expected that {what} keeps a session for its ttl, but it expired") from None
        used = before
    return True
