"""Rules of stores: changes are whole, none is lost, and cancelling breaks nothing."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Awaitable, Callable
from typing import Any, Final

import attrs
import trio

from bridge_py.wire.errors import SessionError, SessionNotFound, VariableNotFound, VersionConflict
from snakepit_trio.state.session import Session
from snakepit_trio.state.store import SessionStore
from snakepit_trio.state.view import SessionView

from .check import Rules, equal, raises, that
from .stores import Ear, Stores

rules: Rules[Stores] = Rules()

_TASKS: Final = 20
_TURNS: Final = 10
_MOST_STEPS: Final = 2_000


class Unusual(BaseException):
    """An error that is no `Exception`. An update that raises it is undone all the same."""


@rules
async def an_update_returns_what_its_function_returns(given: Stores) -> None:
    """An update returns what its function returns, and all readers see the change."""
    async with given.empty() as store:
        view = await _counter(store)
        equal(await store.update_session("s", _increment), 1, "update_session(...) returns")
        equal(await view.get_variable_value("n"), 1, "the variable afterwards")
        equal((await view.get_variable("n")).version, 2, "its version")
        await view.store_program("p", 1)
        await view.delete_program("p")
        await view.delete_variable("n")
        with raises(VariableNotFound, "get_variable of a deleted variable"):
            await view.get_variable("n")


@rules
async def an_update_that_raises_is_undone(given: Stores) -> None:
    """After an update that raises, every part of the session is as it was.

    The error is raised unchanged, and the hub hears nothing of the update.
    """
    async with given.empty() as store:
        view = await _full(store)
        before = await _state(view)
        with Ear(store, "s", given.patience) as ear:
            for error in (ValueError("of the contract"), Unusual("of the contract")):
                with raises(type(error), "an update whose function raises", "of the contract"):
                    await store.update_session("s", functools.partial(_change_all, error=error))
                equal(await _state(view), before, f"the session, after an update that raised {error!r}")
            await view.update_variable("x", 5)
            heard = await ear.until(1, "two updates that raised, and one that did not")
            equal(heard[0] and heard[0].name, "x", "what the hub told of")


@rules
async def reading_that_raises_is_just_raised(given: Stores) -> None:
    """The error of a reading function is raised unchanged, and its result is returned."""
    async with given.empty() as store:
        view = await _full(store)
        before = await _state(view)
        with raises(ZeroDivisionError, "read_session with a function that raises"):
            await store.read_session("s", lambda session: len(session) / 0)
        equal(await store.read_session("s", len), 2, "read_session(..., len)")
        equal(await _state(view), before, "the session afterwards")


@rules
async def no_update_is_lost(given: Stores) -> None:
    """When many tasks raise a counter at the same time, all their steps count."""
    async with given.empty() as store:
        view = await _counter(store)
        results: list[int] = []

        async def count() -> None:
            for _ in range(_TURNS):
                results.append(await store.update_session("s", _increment))
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            for _ in range(_TASKS):
                nursery.start_soon(count)
        total = _TASKS * _TURNS
        equal(await view.get_variable_value("n"), total, f"a counter that {_TASKS} tasks raised {_TURNS} times each")
        equal((await view.get_variable("n")).version, total + 1, "its version")
        equal(sorted(results), list(range(1, total + 1)), "what the updates returned")


@rules
async def of_many_who_expect_a_version_one_gets_it(given: Stores) -> None:
    """Of many updates with one `expected_version`, one succeeds. All others raise `VersionConflict`."""
    async with given.empty() as store:
        view = await _counter(store)
        winners: list[int] = []

        async def try_it(number: int) -> None:
            try:
                await view.update_variable("n", number, expected_version=1)
            except VersionConflict:
                return
            winners.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(_TASKS):
                nursery.start_soon(try_it, number)
        that(len(winners) == 1, f"expected that one update of version 1 succeeds, but {len(winners)} did")
        equal(await view.get_variable_value("n"), winners[0], "the variable has the value of the one that succeeded")


@rules
async def nobody_sees_half_an_update(given: Stores) -> None:
    """Variables that are changed together are read together: no reader sees only some of the changes."""
    async with given.empty() as store:
        view = await _pair(store)
        torn: list[Any] = []

        async def write(number: int) -> None:
            for turn in range(_TURNS):
                await view.update_variables({"a": [number, turn], "b": [number, turn]}, atomic=True)
                await trio.lowlevel.checkpoint()

        async def read() -> None:
            for _ in range(_TASKS):
                found, _ = await view.get_variables(["a", "b"])
                if found["a"].value != found["b"].value:
                    torn.append((found["a"].value, found["b"].value))
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            for number in range(_TASKS):
                nursery.start_soon(write, number)
                nursery.start_soon(read)
        that(not torn, f"expected two variables that are always equal, but {torn[:3]} came")


@rules
async def of_many_who_create_an_id_one_succeeds(given: Stores) -> None:
    """Of many tasks that create one id at the same time, one succeeds. Of many that delete it, one succeeds."""
    async with given.empty() as store:
        made: list[str] = []
        deleted: list[bool] = []

        async def create() -> None:
            with contextlib.suppress(SessionError):
                made.append(await store.create_session("s"))

        async def delete() -> None:
            deleted.append(await store.delete_session("s"))

        for task in (create, delete):
            async with trio.open_nursery() as nursery:
                for _ in range(_TASKS):
                    nursery.start_soon(task)
        that(len(made) == 1, f"expected that one of {_TASKS} creates the session, but {len(made)} did")
        that(deleted.count(True) == 1, f"expected that one of {_TASKS} deletes it, but {deleted.count(True)} did")
        stats = await store.get_stats()
        equal((stats.created, stats.deleted), (1, 1), "created and deleted in get_stats()")


@rules
async def a_cancelled_update_is_whole_or_nothing(given: Stores) -> None:
    """Wherever an update is cancelled, all of it was done and told, or nothing. If it returned, it was done."""
    async with given.empty() as store:
        view = await _pair(store)
        with Ear(store, "s", given.patience) as ear:
            for steps in _steps():
                before = await view.get_variable_value("a")
                ear.heard.clear()
                done = await _cancelled_after(
                    steps, functools.partial(view.update_variables, {"a": [steps], "b": [steps]})
                )
                found, _ = await view.get_variables(["a", "b"])
                equal(found["b"].value, found["a"].value, f"two variables, after an update cancelled in step {steps}")
                took_place = found["a"].value != before
                that(took_place or not done, f"an update returned in step {steps}, but nothing has changed")
                # The hub is told only of updates that the store has done.
                await ear.until(2 if took_place else 0, f"an update cancelled in step {steps}")
                if done:
                    return


@rules
async def a_cancelled_create_or_delete_is_whole_or_nothing(given: Stores) -> None:
    """Wherever creating or deleting is cancelled, the session is there and can be used, or is not there at all."""
    async with given.empty() as store:
        for steps in _steps():
            session_id = f"s{steps}"
            created = await _cancelled_after(steps, functools.partial(store.create_session, session_id))
            await _is_whole(store, session_id, f"a session whose creation was cancelled in step {steps}")
            there = await store.session_exists(session_id)
            that(there or not created, f"create_session returned in step {steps}, but there is no session")
            deleted = await _cancelled_after(steps, functools.partial(store.delete_session, session_id))
            await _is_whole(store, session_id, f"a session whose deletion was cancelled in step {steps}")
            gone = not await store.session_exists(session_id)
            that(gone or not deleted, f"delete_session returned in step {steps}, but the session is there")
            if created and deleted:
                return


# Helpers.


async def _counter(store: SessionStore) -> SessionView:
    view = store.of(await store.create_session("s"))
    await view.register_variable("n", "integer", 0)
    return view


async def _pair(store: SessionStore) -> SessionView:
    view = store.of(await store.create_session("s"))
    for name in ("a", "b"):
        await view.register_variable(name, "list", [])
    return view


async def _full(store: SessionStore) -> SessionView:
    view = store.of(await store.create_session("s", metadata={"kept": "1", "gone": "1"}))
    for name in ("x", "y"):
        await view.register_variable(name, "integer", 1)
    for name in ("p", "q"):
        await view.store_program(name, {"step": 1})
    await view.store_worker_session("w")
    return view


def _increment(session: Session) -> int:
    return int(session.update("n", session.get("n").value + 1).value)


def _change_all(session: Session, error: BaseException) -> None:
    session.update("y", 2)
    session.delete("x")
    session.register("z", "integer", 3)
    session.put_program("p", {"step": 2})
    session.delete_program("q")
    session.put_metadata("kept", "2")
    session.delete_metadata("gone")
    session.bind("another")
    raise error


async def _state(view: SessionView) -> dict[str, Any]:
    """All that a session holds, except its times."""
    info = await view.info()
    return {
        "variables": [variable.to_map() for variable in await view.list_variables()],
        "history": [(entry.version, entry.value) for entry in await view.history("y")],
        "programs": {name: await view.get_program(name) for name in await view.list_programs()},
        "info": attrs.asdict(attrs.evolve(info, last_accessed=0.0, expires_at=0.0)),
    }


def _steps() -> itertools.chain[int]:
    """The steps in which an action is cancelled: each of the first 20, then 20, 40, 80 and so on."""
    doubling = itertools.takewhile(lambda steps: steps < _MOST_STEPS, (20 * 2**n for n in itertools.count()))
    return itertools.chain(range(20), doubling)


async def _cancelled_after(steps: int, act: Callable[[], Awaitable[Any]]) -> bool:
    """Do something, and cancel it after `steps` turns of the other tasks. Returns whether it came to its end."""
    done = False
    async with trio.open_nursery() as nursery:

        async def cancel() -> None:
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()

        if steps:
            nursery.start_soon(cancel)
        else:
            nursery.cancel_scope.cancel()
        await act()
        done = True
        nursery.cancel_scope.cancel()
    return done


async def _is_whole(store: SessionStore, session_id: str, what: str) -> None:
    listed, exists = session_id in await store.list_sessions(), await store.session_exists(session_id)
    equal(listed, exists, f"{what}: whether it is listed, and whether it exists")
    if exists:
        await store.of(session_id).store_program("p", 1)
        return
    with raises(SessionNotFound, f"{what}: reading what does not exist"):
        await store.read_session(session_id, len)
