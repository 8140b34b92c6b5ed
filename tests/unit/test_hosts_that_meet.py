"""Many tasks of three hosts change one session at random, and some are cancelled or do not hear of their outcome.

Afterwards all hosts have the same session, no acknowledged change is missing, and what each hub told, one change after
the other, leads to what is there.
"""

from __future__ import annotations

import contextlib
import functools
import random
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio

import snakepit_trio as snakepit
from snakepit_trio.state.session import Change, Session
from snakepit_trio.state.sqlite import SqliteStore
from tests.helpers.memory_backend import World, host

HOSTS = 3
TASKS = 4  # of each host
STEPS = 40
NAMES = ("a", "b", "c")


class Mirror:
    """The variables of a session as its hub tells of them. Each change must begin where the last one has ended."""

    def __init__(self, store: snakepit.SessionStore) -> None:
        self.variables: dict[str, snakepit.Variable] = {}
        self.gaps: list[Change] = []
        store.hub.subscribe("s", self, self._hear)

    def _hear(self, changes: Sequence[Change] | None) -> None:
        assert changes is not None
        for change in changes:
            if change.cause is None:
                if self.variables.get(change.name) != change.before:
                    self.gaps.append(change)
                if change.variable is None:
                    del self.variables[change.name]
                else:
                    self.variables[change.name] = change.variable


@attrs.define
class Counts:
    acknowledged: int = 0
    unknown: int = 0  # cancelled, or nobody knows whether it was done


@asynccontextmanager
async def hosts(kind: str, worlds: list[World]) -> AsyncIterator[list[snakepit.SessionStore]]:
    async with contextlib.AsyncExitStack() as stack:
        if kind == "memory":
            worlds.append(World())
            blocks: list[Any] = [host(worlds[0], recheck=0.2) for _ in range(HOSTS)]
        else:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            blocks = [SqliteStore(f"{folder}/s.db", synchronous="off", poll=0.005) for _ in range(HOSTS)]
        yield [await stack.enter_async_context(each) for each in blocks]


def increment(session: Session) -> None:
    session.update("n", session.get("n").value + 1)


async def step(store: snakepit.SessionStore, what: str, chance: random.Random) -> None:
    view, name = store.of("s"), chance.choice(NAMES)
    if what == "increment":
        await store.update_session("s", increment)
    elif what == "register":
        await view.register_variable(name, "integer", chance.randrange(9))
    elif what == "update":
        await view.update_variables({each: chance.randrange(9) for each in chance.sample(NAMES, 2)}, atomic=True)
    elif what == "delete":
        await view.delete_variable(name)
    elif what == "depend":
        await view.add_dependency(*chance.sample(NAMES, 2))
    elif what == "mark":
        await (view.start_optimization(name, "o") if chance.random() < 0.5 else view.stop_optimization(name))
    elif what == "program":
        await (view.store_program(name, [chance.random()]) if chance.random() < 0.6 else view.delete_program(name))
    else:
        await view.list_variables()


async def work(store: snakepit.SessionStore, counts: Counts, worlds: list[World], chance: random.Random) -> None:
    kinds = ["increment", "increment", "register", "update", "delete", "depend", "mark", "program", "read"]
    for _ in range(STEPS):
        what = chance.choice(kinds)
        if worlds and len(worlds[0].unknown) < 3 and chance.random() < 0.1:
            worlds[0].unknown.append(chance.random() < 0.5)
        is_unknown = False
        with trio.move_on_after(chance.choice([60, 60, 0.01 * chance.random()])) as scope:
            try:
                with contextlib.suppress(snakepit.VariableError, snakepit.ProgramNotFound):
                    await step(store, what, chance)
                    counts.acknowledged += what == "increment"
            except snakepit.StoreUnavailable:  # three outcomes in a row were not heard of
                is_unknown = True
        counts.unknown += (is_unknown or scope.cancelled_caught) and what == "increment"


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_hosts_that_meet_agree(kind: str, seed: int) -> None:
    counts, worlds = Counts(), list[World]()
    async with hosts(kind, worlds) as stores:
        await stores[0].create_session("s")
        for store in stores:
            await store.get_session("s")
        mirrors = [Mirror(store) for store in stores]
        await stores[0].of("s").register_variable("n", "integer", 0)
        async with trio.open_nursery() as nursery:
            for number in range(HOSTS * TASKS):
                chance = random.Random(1000 * seed + number)
                nursery.start_soon(functools.partial(work, stores[number % HOSTS], counts, worlds, chance))
        count = await stores[0].of("s").get_variable_value("n")
        assert counts.acknowledged <= count <= counts.acknowledged + counts.unknown
        exported = await stores[0].export_session("s")
        for store, mirror in zip(stores, mirrors, strict=True):
            assert await store.export_session("s") == exported  # and reading tells what the hub has not told yet
            assert mirror.gaps == []
            assert mirror.variables == {each.name: each for each in await store.of("s").list_variables()}
        await empty(stores[1].of("s"))
        assert (await stores[2].get_session("s")).bytes == 0
        assert (await stores[0].get_stats()).bytes == 0


async def empty(view: snakepit.SessionView) -> None:
    for variable in await view.list_variables():
        await view.delete_variable(variable.name)
    for program_id in await view.list_programs():
        await view.delete_program(program_id)
