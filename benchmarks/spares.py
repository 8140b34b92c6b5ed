"""How soon the next call is served when a worker is killed whose model takes five seconds to load, with a spare."""

from __future__ import annotations

import os
import signal
import statistics
import time

import trio

import snakepit_trio as snakepit
from bridge_py import BaseAdapter, tool

ADAPTER = "benchmarks.spares:Slow"
_LOADING = 5.0  # seconds
_KILLS = 7  # each waits for the next spare to load


class Slow(BaseAdapter):
    """A model that takes long to load."""

    def setup(self) -> None:
        """Load."""
        time.sleep(_LOADING)

    @tool
    def empty(self) -> None:
        """Do nothing."""


async def measure(scale: float) -> dict[str, float]:
    """Milliseconds from the kill of the only worker to the return of a call that was made at once."""
    async with snakepit.open_pool(ADAPTER, workers=1, spares=1) as pool:
        times = [await _time_to_next_call(pool) for _ in range(max(2, int(_KILLS * scale)))]
    return {"next call, ms": statistics.median(times) * 1e3, "slowest, ms": max(times) * 1e3}


async def _time_to_next_call(pool: snakepit.Pool) -> float:
    with trio.fail_after(60):
        while not pool.get_stats().spares:  # noqa: ASYNC110 - what is measured begins after it
            await trio.sleep(0.05)
    await trio.sleep(1)  # the next spare has loaded: the machine is as quiet as it becomes
    (pid,) = [worker.pid for worker in pool.list_workers() if not worker.is_spare]
    began = time.perf_counter()
    os.kill(pid or 0, signal.SIGKILL)
    # A call that reaches the dying worker before its death is known fails with it; the next one is what counts.
    await pool.execute("empty", retries=1)
    return time.perf_counter() - began
