"""How many calls of a map may be under way: more as long as they are quick."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import snakepit_trio as snakepit
from snakepit_trio._calls.mapping import Room
from snakepit_trio.testing import InMemory
from tests.helpers import functions as f


def taken(room: Room) -> int:
    """Take all that the room has now; returns for how many calls that is."""
    count = 0
    while room._free.value:
        room._free.acquire_nowait()
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


@pytest.mark.parametrize(("limit", "most"), [(None, 64), (3, 3)])
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
