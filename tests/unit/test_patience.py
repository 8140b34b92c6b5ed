"""A wait goes on while the loop of the host stands still; a silent worker in memory is found."""

from __future__ import annotations

import pytest
import trio
import trio.testing

import snakepit_trio as snakepit
from snakepit_trio import testing
from snakepit_trio._util.patience import comes_within
from tests.helpers.workers import TOOLS


async def test_a_wait_in_slices() -> None:
    event = trio.Event()
    began = trio.current_time()
    assert not await comes_within(0.2, event.wait)
    assert trio.current_time() - began >= 0.2
    assert not await comes_within(0, event.wait)
    event.set()
    assert await comes_within(10, event.wait)


async def test_a_wait_on_a_clock_that_jumps(autojump_clock: trio.testing.MockClock) -> None:
    began = trio.current_time()
    assert not await comes_within(1000, trio.Event().wait)
    assert trio.current_time() - began == pytest.approx(1000)


async def test_a_silent_worker_in_memory_is_found(autojump_clock: trio.testing.MockClock) -> None:
    faults = testing.Faults(testing.Silence(skip=3))
    async with snakepit.open_pool(TOOLS, launcher=testing.InMemory(faults), workers=1) as pool:
        with trio.fail_after(1000):
            while not pool.get_stats().restarts:
                await trio.sleep(1)
