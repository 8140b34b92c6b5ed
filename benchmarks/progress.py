"""What reports of progress cost the tool that makes them, with and without a watcher: CPU time of its thread."""

from __future__ import annotations

import trio

import snakepit_trio as snakepit

from .tools import Tools


async def measure(scale: float) -> dict[str, float]:
    """Microseconds of one report, and how much slower a tool is that reports each 20 us, in percent."""
    async with snakepit.open_pool(Tools, workers=1) as pool, trio.open_nursery() as nursery:
        alone = await _cost(pool, scale)
        slowed = await _slowed(pool, scale)
        await nursery.start(_watch, pool)
        figures = {
            "report, us": alone,
            "slowed, %": slowed,
            "watched report, us": await _cost(pool, scale),
            "watched, slowed, %": await _slowed(pool, scale),
        }
        nursery.cancel_scope.cancel()
    return figures


async def _watch(pool: snakepit.Pool, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    async with pool.watch("call.progress") as events:
        task_status.started()
        async for _ in events:
            """Take it."""


async def _time(pool: snakepit.Pool, work: int, scale: float) -> list[float]:
    args = {"blocks": int(800 * scale), "steps": 200 if work else 10_000, "work": work}
    return await pool.execute("time_progress", args, returns=list[float], timeout=200)


async def _cost(pool: snakepit.Pool, scale: float) -> float:
    without, reporting = await _time(pool, 0, scale)
    return (reporting - without) * 1e6


async def _slowed(pool: snakepit.Pool, scale: float) -> float:
    one = (await _time(pool, 1_000, 0.1))[0]
    without, reporting = await _time(pool, int(1_000 * 20e-6 / one), scale)
    return (reporting / without - 1) * 100
