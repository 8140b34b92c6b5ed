"""Opening that is cancelled, or fails, at any step: it comes out at once, and nothing is left."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import trio
import trio.testing

import snakepit_trio as snakepit
from snakepit_trio.testing import InMemory
from tests.helpers.stepping import at_step, tasks
from tests.helpers.workers import TOOLS

BOUND = 20  # seconds in which a machine with much else to do has long ended a pool


async def cancelled_at(step: int, **config: Any) -> tuple[bool, int]:
    """Open a pool, cancel at a step, and return whether the block was entered, and how many steps there were."""
    before = tasks()
    entered = False
    with trio.fail_after(BOUND), trio.CancelScope() as scope, at_step(step, scope.cancel) as steps:
        async with snakepit.open_pool(TOOLS, **config):
            entered = True
    await trio.testing.wait_all_tasks_blocked()
    assert tasks() == before
    return entered, steps.count


async def test_cancelled_at_each_step_of_opening_and_closing_in_memory() -> None:
    _, steps = await cancelled_at(-1, workers=2, launcher=InMemory())
    assert steps > 50
    for step in range(steps):
        await cancelled_at(step, workers=2, launcher=InMemory())


@pytest.mark.slow
async def test_cancelled_at_steps_of_opening_and_closing_real_workers(untraced_workers: None) -> None:
    _, steps = await cancelled_at(-1, workers=2)
    assert steps > 100
    for step in (*range(0, 40, 3), *range(40, steps, steps // 20)):
        await cancelled_at(step, workers=2)


async def test_a_sibling_that_fails_ends_opening_at_once(untraced_workers: None) -> None:
    async def fail() -> None:
        await trio.sleep(0.01)
        raise KeyError("x")

    with trio.fail_after(BOUND), pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            async with snakepit.open_pool(TOOLS):
                pass
    assert caught.group_contains(KeyError)


async def test_workers_that_never_get_ready_get_no_goodbye() -> None:
    # A program that ignores SIGTERM, and never speaks: only SIGKILL ends it.
    program = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"
    worker = snakepit.StdioJson("", executable=sys.executable, args=["-c", program])
    with trio.fail_after(BOUND):
        with trio.move_on_after(0.5) as scope:
            async with snakepit.open_pool(worker, shutdown_timeout=300):
                raise AssertionError("it never says that it is ready")
    assert scope.cancelled_caught
