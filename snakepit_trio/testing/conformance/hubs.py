"""Rules of stores: the hub is told of each change and each end, so that watchers and workers' caches are right."""

from __future__ import annotations

from typing import Any

import trio

import snakepit_trio._pool.opening
from snakepit_trio.state.store import MemoryStore
from snakepit_trio.testing.memory import InMemory

from .check import Rules, equal, that
from .stores import Ear, Stores
from .tools import Tools

rules: Rules[Stores] = Rules()


@rules
async def the_hub_is_told_of_each_change(given: Stores) -> None:
    """The hub is told of each variable that is registered, changed or deleted, in order: how it was and how it is."""
    async with given.empty() as store:
        view = store.of(await store.create_session("s"))
        with Ear(store, "s", given.patience) as ear:
            await view.register_variable("x", "integer", 1)
            await view.update_variable("x", 2)
            await view.update_variable("x", 3)
            await view.delete_variable("x")
            heard = await ear.until(4, "register, update, update and delete")
        values = [
            (each.before and each.before.value, each.variable and each.variable.value)
            for each in heard
            if each is not None
        ]
        equal(
            values, [(None, 1), (1, 2), (2, 3), (3, None)], "values before and after each change that the hub told of"
        )


@rules
async def the_hub_is_told_of_all_that_one_update_changes(given: Stores) -> None:
    """The hub is told once of each variable that one update changes, and of its dependents, with the cause."""
    async with given.empty() as store:
        view = store.of(await store.create_session("s"))
        for name in ("a", "b", "c"):
            await view.register_variable(name, "integer", 0)
        await view.add_dependency("c", "a")
        with Ear(store, "s", given.patience) as ear:
            await view.update_variables({"a": 1, "b": 2})
            heard = await ear.until(3, "an update of two variables, on one of which a third depends")
        told = {each.name: each.cause for each in heard if each is not None}
        equal(told, {"a": None, "b": None, "c": "a"}, "names and causes that the hub told of")


@rules
async def the_hub_is_told_of_nothing_else(given: Stores) -> None:
    """The hub is not told of reads, of other sessions, or of updates that change no variable.

    A listener that has unsubscribed is told nothing.
    """
    async with given.empty() as store:
        view = store.of(await store.create_session("s"))
        other = store.of(await store.create_session("other"))
        await view.register_variable("x", "integer", 1)
        with Ear(store, "s", given.patience) as gone:
            pass
        with Ear(store, "s", given.patience) as ear:
            await view.get_variable("x")
            await view.put_metadata("a", "1")
            await view.store_program("p", 1)
            await other.register_variable("y", "integer", 1)
            await store.delete_session("other")
            await view.update_variable("x", 2)
            heard = await ear.until(1, "one update, and what is none")
        equal(heard[0] and heard[0].name, "x", "what the hub told of")
        equal(gone.heard, [], "what one heard who had unsubscribed")


@rules
async def the_hub_is_told_of_the_end(given: Stores) -> None:
    """When a session is deleted, its listeners hear None, once and last."""
    async with given.empty() as store:
        view = store.of(await store.create_session("s"))
        with Ear(store, "s", given.patience) as ear:
            await view.register_variable("x", "integer", 1)
            await store.delete_session("s")
            await store.delete_session("s")
            heard = await ear.until(2, "a change and the end")
        that(heard[-1] is None, f"expected that the end is told of last, but {heard} came")


@rules
async def no_change_is_told_of_twice(given: Stores) -> None:
    """If many tasks change a variable at the same time, the hub is told of each version once, in order."""
    async with given.empty() as store:
        view = store.of(await store.create_session("s"))
        await view.register_variable("x", "integer", 0)
        with Ear(store, "s", given.patience) as ear:
            async with trio.open_nursery() as nursery:
                for number in range(20):
                    nursery.start_soon(view.update_variable, "x", number)
            heard = await ear.until(20, "twenty updates")
        versions = [each.variable.version for each in heard if each is not None and each.variable is not None]
        equal(versions, list(range(2, 22)), "versions that the hub told of")


@rules
async def watching_shows_what_happens(given: Stores) -> None:
    """`watch` gives the values at its beginning and each change, and it ends with the session."""
    async with given.empty() as store:
        view = store.of(await store.create_session("s"))
        await view.register_variable("x", "integer", 1)
        seen: list[tuple[str, Any]] = []
        has_ended = False
        with trio.move_on_after(given.patience):
            async with view.watch("x") as updates:
                seen.append(_seen(await anext(updates)))
                await view.update_variable("x", 2)
                seen.append(_seen(await anext(updates)))
                await view.delete_variable("x")
                seen.append(_seen(await anext(updates)))
                await store.delete_session("s")
                seen += [_seen(update) async for update in updates]
                has_ended = True
        equal(seen, [("initial", 1), ("changed", 2), ("deleted", None)], "what a watcher saw")
        equal(has_ended, True, "whether watching has ended with the session")


@rules
async def watchers_move_to_another_store(given: Stores) -> None:
    """`hub.hand_over` gives a session's watchers to another store's hub, as `Context` needs it."""
    async with given.empty() as store:
        view = store.of(await store.create_session("s"))
        await view.register_variable("x", "integer", 1)
        memory = MemoryStore()
        seen = None
        with trio.move_on_after(given.patience):
            async with view.watch("x", initial=False) as updates:
                await memory.import_session(await store.export_session("s"))
                store.hub.hand_over("s", memory.hub)
                await store.delete_session("s")
                await memory.of("s").update_variable("x", 2)
                seen = _seen(await anext(updates))
        equal(seen, ("changed", 2), "what the watcher saw of the other store")


@rules
async def a_pool_keeps_its_sessions_in_it(given: Stores) -> None:
    """Tools in workers see and change variables of the store, and keep no old values. Two pools can share the store."""
    async with given.empty() as store, _pool(store) as first, _pool(store) as second, first.session("s") as session:
        await session.register_variable("n", "integer", 1)
        equal(await session.execute("bump", {"name": "n"}), 2, "a variable that a tool raised from 1")
        equal(await session.get_variable_value("n"), 2, "the variable, afterwards")
        await session.update_variable("n", 10)
        # A worker remembers what it has read until the hub says that it has changed.
        with trio.move_on_after(given.patience if store.may_wait else 0.1):
            while await session.execute("read", {"name": "n"}) != 10:  # noqa: ASYNC110 - in a worker
                await trio.sleep(0.02)
        equal(await session.execute("read", {"name": "n"}), 10, "a variable that the host has set, read by a tool")
        equal(await second.execute("bump", {"name": "n"}, session="s"), 11, "the variable, raised in another pool")
        equal(await session.get_variable_value("n"), 11, "the variable, afterwards")


def _pool(store: Any) -> Any:
    return snakepit_trio._pool.opening.open_pool(Tools, workers=1, launcher=InMemory(), store=store)


def _seen(update: Any) -> tuple[str, Any]:
    return update.kind, update.value
