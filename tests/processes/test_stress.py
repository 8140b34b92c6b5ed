"""Many calls, cancelled at random moments: everything is afterwards as it was before."""

from __future__ import annotations

import os
import random
from pathlib import Path

import trio

import snakepit_trio as snakepit
from snakepit_trio.testing.leaks import descriptors, processes
from tests.helpers.workers import TOOLS

CALLS = 10_000
CALLERS = 64


async def test_ten_thousand_calls_with_a_fifth_cancelled_at_random() -> None:
    dice = random.Random(20)
    async with snakepit.open_pool(TOOLS, workers=2, cancel_grace=30) as pool:
        await _call(pool, dice, 0, 0.0)
        before = processes(), descriptors(), [worker.pid for worker in pool.list_workers()]
        numbers = iter(range(CALLS))
        counts = {"done": 0, "cancelled": 0, "streams": 0}

        async def caller() -> None:
            for number in numbers:
                tool, done = await _call(pool, dice, number, 0.2)
                counts["done" if done else "streams" if tool == "count" else "cancelled"] += 1

        async with trio.open_nursery() as nursery:
            for _ in range(CALLERS):
                nursery.start_soon(caller)
        assert (processes(), descriptors(), [worker.pid for worker in pool.list_workers()]) == before
        stats = pool.get_stats()
        assert (stats.queued, stats.running, stats.busy, stats.ready, stats.restarts) == (0, 0, 0, 2, 0)
        assert stats.failed == stats.crashed == 0
        # A stream may be over in its worker when its consumer is cancelled: that is no cancelled call.
        cancelled = counts["cancelled"] + counts["streams"]
        assert counts["cancelled"] <= stats.cancelled <= cancelled
        assert sum(counts.values()) == CALLS
        # Some that were to be cancelled got their result first.
        assert 0.05 * CALLS < cancelled < 0.25 * CALLS
        assert await pool.execute("add", {"a": 1}) == 2


async def _call(pool: snakepit.Pool, dice: random.Random, number: int, chance: float) -> tuple[str, bool]:
    """Returns the tool, and whether the call was done before it was cancelled."""
    tool = dice.choice(["add", "add_async", "count"])
    after = dice.expovariate(1 / 0.001) if dice.random() < chance else 60
    with trio.move_on_after(after):
        if tool != "count":
            assert await pool.execute(tool, {"a": number, "b": 5}) == number + 5
        else:
            async with pool.stream("count", {"n": 10}) as chunks:
                assert [chunk async for chunk in chunks] == list(range(10))
        return tool, True
    return tool, False


async def test_interrupts_never_hit_a_call_they_were_not_meant_for() -> None:
    """Hammers the edges of the window in which an interrupt may be raised: cancelled and not, side by side."""
    dice = random.Random(7)
    for concurrency in (1, 4):
        async with snakepit.open_pool(TOOLS, workers=1, concurrency=concurrency, cancel_grace=30) as pool:

            async def victim(pool: snakepit.Pool = pool) -> None:
                for _ in range(400):
                    with trio.move_on_after(dice.random() * 0.003):
                        await pool.execute("sleep", {"seconds": dice.random() * 0.003})

            async def bystander(pool: snakepit.Pool = pool) -> None:
                for number in range(400):
                    assert await pool.execute("sleep", {"seconds": 0.0005}) == "slept"
                    assert await pool.execute("add", {"a": number}) == number + 1

            async with trio.open_nursery() as nursery:
                nursery.start_soon(victim)
                nursery.start_soon(victim)
                nursery.start_soon(bystander)
            await pool.run(os.getpid)  # a worker that was killed would be replaced by now
            assert pool.get_stats().restarts == 0


async def test_cancelled_computations_always_end(tmp_path: Path) -> None:
    """Calls that compute, in Python and in C, are cancelled at any moment, with others waiting behind them."""
    dice = random.Random(3)
    source = tmp_path / "source.py"
    source.write_text("def f(x):\n    if x:\n        return [y for y in x if y]\n" * 500)
    async with snakepit.open_pool(
        "bridge_py.adapters.source_metrics:SourceMetrics", workers=2, cancel_grace=30
    ) as pool:
        for _ in range(40):
            with trio.move_on_after(dice.random() * 0.1):
                async with trio.open_nursery() as nursery:
                    for _ in range(8):
                        nursery.start_soon(pool.execute, "measure_file", {"path": str(source)})
            assert pool.get_stats().running == 0
        assert pool.get_stats().restarts == 0
