"""More workers than the machine can hold are refused; many are started a few at a time."""

from __future__ import annotations

import pytest
import trio

import snakepit_trio as snakepit
from snakepit_trio.testing import InMemory
from tests.helpers.workers import TOOLS

# More than the machine can hold.


@pytest.mark.parametrize("workers", [10**6, 10**9])
async def test_more_workers_than_the_machine_can_hold(workers: int) -> None:
    with pytest.raises(snakepit.UsageError, match=f"workers={workers}: this machine can hold [0-9]+ at the most, by"):
        async with snakepit.open_pool(TOOLS, workers=workers):
            pytest.fail("the block was entered")
    with pytest.raises(snakepit.UsageError, match=f"workers={workers}: give a whole number from 0 to 10000"):
        async with snakepit.open_pool(TOOLS, workers=workers, launcher=InMemory()):
            pytest.fail("the block was entered")


async def test_more_workers_later_than_the_machine_can_hold() -> None:
    async with snakepit.open_pool(TOOLS, workers=1) as pool:
        for grow in (pool.resize, pool.workers.start):
            with pytest.raises(snakepit.UsageError, match="this machine can hold"):
                await grow(10**6)
        assert pool.workers.count() == 1
        assert await pool.execute("add", {"a": 1}) == 2


async def test_many_starts_are_made_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snakepit.Site, "starts_at_once", 2)
    most = 0
    async with trio.open_nursery() as nursery:

        async def look(pool: snakepit.Pool) -> None:
            nonlocal most
            while True:
                most = max(most, sum(worker.state == "starting" for worker in pool.list_workers()))
                await trio.sleep(0.001)

        async with snakepit.open_pool(TOOLS, workers=1) as pool:
            nursery.start_soon(look, pool)
            await pool.resize(6)
            assert pool.get_stats().ready == 6
            nursery.cancel_scope.cancel()
    assert most == 2


async def test_starting_many_is_interrupted_at_once() -> None:
    async with snakepit.open_pool(TOOLS, workers=1) as pool:
        with trio.move_on_after(0.2) as scope:
            await pool.resize(300)
        assert scope.cancelled_caught
        assert pool.workers.count() < 100
        assert await pool.execute("add", {"a": 1}) == 2
