"""How many calls of a map may be under way: more as long as they are quick."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import trio
import trio.testing

import snakepit_trio as snakepit
from snakepit_trio._calls.mapping import Room
from snakepit_trio.testing import InMemory
from tests.helpers import functions as f


def taken(room: Room) -> int:
    """Take all that the room has now; returns for how many calls that is."""
    count = 0
    while room.free:
        room.free -= 1
        count += 1
    return count


def test_quick_calls_make_room_for_more_and_slow_ones_take_it_back() -> None:
    room = Room(2, 5)
    assert taken(room) == 2
    for _ in range(10):
        room.note(0.001)
    assert taken(room) == 3
    room.note(0.005)  # neither quick nor slow
    room.note(0.1)
    room.note(0.1)
    for _ in range(5):
        room.give_back()
    assert taken(room) == 3  # of five, two have gone for good
    room.note(0.1)
    room.note(0.1)
    for _ in range(3):
        room.give_back()
    assert taken(room) == 2


def test_a_limit_that_was_given_stays() -> None:
    room = Room(3, 3)
    assert taken(room) == 3
    for seconds in (0.0, 1.0, 0.0, 1.0):
        room.note(seconds)
    assert taken(room) == 0


@pytest.mark.parametrize(("limit", "most"), [(None, 128), (3, 3)])
async def test_a_map_draws_no_more_than_it_may(limit: int | None, most: int) -> None:
    drawn = taken = 0
    largest = 0

    def items() -> Iterator[int]:
        nonlocal drawn, largest
        for n in range(500):
            drawn += 1
            largest = max(largest, drawn - taken)
            yield n

    async with (
        snakepit.open_pool(f.Tools, workers=1, launcher=InMemory()) as pool,
        pool.map(f.add, items(), limit=limit) as results,
    ):
        async for _ in results:
            taken += 1
    assert taken == 500
    assert 1 < largest <= most


async def test_calls_start_in_the_order_of_their_items() -> None:
    async with (
        snakepit.open_pool(f.Tools, workers=1, launcher=InMemory()) as pool,
        pool.map(f.numbered, range(200), ordered=False) as results,
    ):
        places = [place async for place in results]
    first = places[0][1]
    assert sorted(places) == [(n, first + n) for n in range(200)]


async def test_a_source_may_have_scopes_and_nurseries_of_its_own() -> None:
    async def items() -> AsyncIterator[int]:
        for n in range(100):
            with trio.fail_after(10):
                async with trio.open_nursery():
                    await trio.lowlevel.checkpoint()
                    yield n

    async with (
        snakepit.open_pool(f.Tools, workers=2, launcher=InMemory()) as pool,
        pool.map(f.add, items(), chunksize=3) as results,
    ):
        assert [n async for n in results] == list(range(1, 101))


async def test_a_map_ends_while_callers_wait_for_room() -> None:
    async with snakepit.open_pool(f.Tools, workers=1, launcher=InMemory()) as pool:
        for items in (0, 1, 4, 5, 200):
            async with pool.map(f.add, iter(range(items)), limit=4) as results:
                assert [n async for n in results] == list(range(1, items + 1))
            async with pool.map(f.add, range(items), limit=4) as results:
                await trio.testing.wait_all_tasks_blocked()  # all results that have room wait, and nobody takes them
        assert await pool.run(f.add, 1) == 2
