"""Deadlines of calls whose worker stands at a breakpoint."""

from __future__ import annotations

import math
from typing import Any

import pytest
import trio
import trio.testing

from bridge_py.buffers.buffer_sets import EncodedValue
from snakepit_trio._calls.call import Call
from snakepit_trio._calls.deadlines import Deadlines
from snakepit_trio._calls.pauses import Pause


class Worker:
    """A worker that stands, or does not."""

    stands = False


def make(timeout: float | None, worker: Worker | None = None, parent: Call | None = None) -> Call:
    call = Call("tool", EncodedValue(b"", None), "", timeout, None, "hint", parent, None)
    call.worker = worker  # type: ignore[assignment]
    call.assigned_at = trio.current_time()
    return call


async def late(call: Call) -> float:
    """When a call is late."""
    while not call.is_late:
        await call.wait()
    return trio.current_time()


async def test_the_time_that_was_left_is_left_again(autojump_clock: trio.testing.MockClock) -> None:
    call, endless = make(5), make(None)
    await trio.sleep(2)
    pause = Pause([call, endless])
    assert call.time_left() == math.inf
    await trio.sleep(100)
    pause.end([call, endless])
    assert call.time_left() == pytest.approx(3)
    assert endless.time_left() == math.inf


async def test_calls_that_wait_for_a_call_wait_longer(autojump_clock: trio.testing.MockClock) -> None:
    grandparent = make(5)
    call = make(4, parent=make(5, parent=grandparent))
    pause = Pause([call])
    await trio.sleep(100)
    pause.end([])
    assert grandparent.time_left() == pytest.approx(5)
    assert call.time_left() == pytest.approx(4)


async def test_a_call_that_comes_meanwhile(autojump_clock: trio.testing.MockClock) -> None:
    pause = Pause([])
    await trio.sleep(10)
    call = make(20)
    await trio.sleep(10)
    pause.end([call])
    assert call.time_left() == pytest.approx(20)


@pytest.mark.parametrize("pauses", [[(2.0, 100.0)], [(2.0, 0.5)], [(1.0, 50.0), (53.0, 10.0)]], ids=str)
@pytest.mark.parametrize("is_there", [True, False], ids=["before", "meanwhile"])
async def test_a_deadline_comes_later_by_the_pauses(
    autojump_clock: trio.testing.MockClock, pauses: list[tuple[float, float]], is_there: bool
) -> None:
    worker, deadlines = Worker(), Deadlines()
    found: list[Any] = []

    async def watch(call: Call) -> None:
        found.append(await late(call))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(deadlines.run)
        call = make(5, worker)
        deadlines.add(call)
        nursery.start_soon(watch, call)
        began = trio.current_time()
        for at, seconds in pauses:
            await trio.sleep_until(began + at)
            worker.stands = True
            pause = Pause([call] if is_there else [])
            call.assigned_at = began if is_there else trio.current_time()
            await trio.sleep(seconds)
            worker.stands = False
            pause.end([call])
        while not found:
            await trio.sleep(0.05)
        nursery.cancel_scope.cancel()
    expected = 5 + sum(seconds for _, seconds in pauses)
    assert expected <= found[0] - began <= expected + 0.11
