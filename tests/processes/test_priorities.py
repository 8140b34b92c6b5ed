"""Priorities with real workers: which call leaves the queue first, however it was made, and none waits for ever."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

import snakepit_trio as snakepit
from tests.helpers import ordered_tools as f
from tests.helpers.ordered_tools import Tools

Given = dict[str, Any]


async def _drain(block: AbstractAsyncContextManager[Any]) -> None:
    async with block as items:
        async for _ in items:
            pass


#: All that takes a priority, by name; `item` is a path and a text.
WAYS: dict[str, Callable[[Given, tuple[str, str], int], Awaitable[Any]]] = {
    "execute": lambda its, item, priority: its["pool"].execute("note", _args(item), priority=priority),
    "stream": lambda its, item, priority: _drain(its["pool"].stream("note_in_stream", _args(item), priority=priority)),
    "execute_stream": lambda its, item, priority: its["pool"].execute_stream(
        "note_in_stream", _args(item), print, priority=priority
    ),
    "map": lambda its, item, priority: _drain(its["pool"].map(f.note, [item], priority=priority)),
    "map of a tool": lambda its, item, priority: _drain(its["pool"].map("note", [_args(item)], priority=priority)),
    "map of pieces": lambda its, item, priority: _drain(
        its["pool"].map(f.note, [item], priority=priority, chunksize=2)
    ),
    "options.execute": lambda its, item, priority: its["pool"].options(priority=priority).execute("note", _args(item)),
    "options.run": lambda its, item, priority: its["pool"].options(priority=priority).run(f.note, item),
    "options.run of a tool": lambda its, item, priority: its["pool"].options(priority=priority).run(Tools.note, *item),
    "options.iterate": lambda its, item, priority: _drain(
        its["pool"].options(priority=priority).options(timeout=60).iterate(f.note_and_yield, item)
    ),
    "options.stream": lambda its, item, priority: _drain(
        its["pool"].options(priority=priority).stream("note_in_stream", _args(item))
    ),
    "options.map": lambda its, item, priority: _drain(its["pool"].options(priority=priority).map(f.note, [item])),
    "a call's own against options": lambda its, item, priority: (
        its["pool"].options(priority=-priority).execute("note", _args(item), priority=priority)
    ),
    "session.execute": lambda its, item, priority: its["session"].execute("note", _args(item), priority=priority),
    "session.stream": lambda its, item, priority: _drain(
        its["session"].stream("note_in_stream", _args(item), priority=priority)
    ),
    "session.execute_stream": lambda its, item, priority: its["session"].execute_stream(
        "note_in_stream", _args(item), print, priority=priority
    ),
    "session.map": lambda its, item, priority: _drain(its["session"].map(f.note, [item], priority=priority)),
    "context.execute": lambda its, item, priority: its["context"].execute("note", _args(item), priority=priority),
    "context.stream": lambda its, item, priority: _drain(
        its["context"].stream("note_in_stream", _args(item), priority=priority)
    ),
    "context.map": lambda its, item, priority: _drain(its["context"].map(f.note, [item], priority=priority)),
}


def _args(item: tuple[str, str]) -> dict[str, str]:
    return {"path": item[0], "text": item[1]}


@pytest.fixture(params=["hint", "strict"])
async def its(request: pytest.FixtureRequest) -> AsyncIterator[Given]:
    async with (
        snakepit.open_pool(Tools, workers=1, send_ahead=0, affinity=request.param) as pool,
        pool.session() as session,
        snakepit.Context(pool) as context,
    ):
        await context.to_bridged()
        yield {"pool": pool, "session": session, "context": context}  # noqa: ASYNC119


@asynccontextmanager
async def _held(pool: snakepit.Pool, tmp_path: Path) -> AsyncIterator[None]:
    """A worker is busy for the length of the block."""
    begun = tmp_path / "begun"
    begun.unlink(missing_ok=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.execute, "hold", {"path": str(begun)})
        with trio.fail_after(60):
            while not begun.exists():
                await trio.sleep(0.005)
        yield
        nursery.cancel_scope.cancel()


async def _queue(nursery: trio.Nursery, pool: snakepit.Pool, call: Callable[[], Awaitable[Any]]) -> None:
    """Make a call in a task of its own, and wait until it is in the queue."""
    before = pool.get_stats().queued
    nursery.start_soon(call)
    with trio.fail_after(60):
        while pool.get_stats().queued == before:
            await trio.sleep(0.001)


async def test_each_way_to_call_takes_a_priority(its: Given, tmp_path: Path) -> None:
    pool = its["pool"]
    for name, way in WAYS.items():
        path = tmp_path / "log"
        path.write_text("")
        async with trio.open_nursery() as nursery, _held(pool, tmp_path):
            item = partial(lambda path, text: (str(path), text), path)
            await _queue(nursery, pool, partial(way, its, item("last"), -100))
            await _queue(nursery, pool, partial(pool.execute, "note", _args(item("second"))))
            await _queue(nursery, pool, partial(way, its, item("third"), 0))
            await _queue(nursery, pool, partial(way, its, item("first"), 100))
        assert path.read_text().split() == ["first", "second", "third", "last"], name


async def test_a_call_that_has_waited_is_not_overtaken(its: Given, log: Path) -> None:
    pool = its["pool"]

    async def note(text: str, priority: int) -> None:
        await its["session"].execute("note", {"path": str(log), "text": text}, priority=priority)

    async with trio.open_nursery() as nursery, _held(pool, log.parent):
        await _queue(nursery, pool, partial(note, "old", 0))
        await trio.sleep(1.1)  # a step of priority is a second
        for number in range(20):
            await _queue(nursery, pool, partial(note, f"later{number}", 1))
        await _queue(nursery, pool, partial(note, "soonest", 100))
    assert log.read_text().split() == ["soonest", "old", *(f"later{number}" for number in range(20))]


async def test_the_calls_of_a_calls_host_tools_have_its_priority(log: Path) -> None:
    async with snakepit.open_pool(Tools, workers=2, send_ahead=0) as pool:

        async def note(text: str, priority: int | None = None) -> None:
            await pool.execute("note", {"path": str(log), "text": text}, priority=priority)

        async def both() -> None:
            async with trio.open_nursery() as nursery:
                await _queue(nursery, pool, partial(note, "its own", -100))
                await _queue(nursery, pool, partial(note, "inherited"))

        pool.expose(both)
        async with trio.open_nursery() as nursery, _held(pool, log.parent):
            parent = partial(pool.execute, "call", {"name": "both", "args": {}}, priority=100)
            nursery.start_soon(parent)
            with trio.fail_after(60):
                while pool.get_stats().queued < 2:
                    await trio.sleep(0.001)
            await _queue(nursery, pool, partial(note, "another"))
        assert log.read_text().split("\n")[:-1] == ["inherited", "another", "its own"]


@pytest.mark.parametrize("wrong", [101, -101, True, 1.0, "high", float("nan"), pytest.param(10**5000, id="huge")])
async def test_what_is_no_priority(its: Given, wrong: Any, log: Path) -> None:
    pool = its["pool"]
    before = pool.get_stats().calls
    for name, way in WAYS.items():
        if name != "a call's own against options":
            with pytest.raises(snakepit.UsageError, match=r"^priority=.*: give a whole number from -100 to 100$"):
                await way(its, (str(log), "never"), wrong)
    assert pool.get_stats().calls == before
    assert not log.exists()
