"""What only our own pool is asked for: cost by the number of workers, the replacement of a worker, a million calls."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

import trio

import snakepit_trio as snakepit

ADAPTER = "benchmarks.tools:Tools"
ARGUMENTS = {"payload": "x" * 100}
CALLERS = 64
MIB = 1 << 20


async def cost_by_workers(scale: float) -> dict[str, float]:
    """CPU time of the host for a call of one caller, in microseconds, with 1, 8 and 64 workers, and their ratio."""
    figures = {}
    for workers in (1, 8, 64):
        async with snakepit.open_pool(ADAPTER, workers=workers, start_timeout=120) as pool:
            for _ in range(200):
                await pool.execute("empty", ARGUMENTS)
            calls = int(4000 * scale)
            began = time.process_time()
            for _ in range(calls):
                await pool.execute("empty", ARGUMENTS)
            figures[f"CPU us, {workers} workers"] = (time.process_time() - began) / calls * 1e6
    figures["1 to 64 workers, x"] = max(figures.values()) / min(figures.values())
    return figures


async def replacement(scale: float) -> dict[str, float]:
    """From the death of a worker until another one has taken its place: milliseconds, the median."""
    times = []
    async with snakepit.open_pool(ADAPTER, workers=2) as pool:
        ready = trio.Event()
        pool.events.attach(lambda _event: ready.set(), "worker.ready")
        for _ in range(max(5, int(20 * scale))):
            await pool.execute("empty", ARGUMENTS)  # a worker that has served is replaced without a pause
            [victim, _] = pool.list_workers()
            assert victim.pid is not None
            ready = trio.Event()
            began = time.perf_counter()
            os.kill(victim.pid, 9)
            await ready.wait()
            times.append(time.perf_counter() - began)
            await trio.sleep(0.05)
    return {"replaced in, ms": statistics.median(times) * 1e3}


async def million(scale: float) -> dict[str, float]:
    """A million calls: what the host has grown by, and what its workers have, in MiB, and its descriptors."""
    async with snakepit.open_pool(ADAPTER, workers=2) as pool:
        await _calls(pool, int(50_000 * scale))
        before = _held(pool)
        await _calls(pool, int(1_000_000 * scale))
        after = _held(pool)
    names = "host grew, MiB", "workers grew, MiB", "descriptors"
    return {name: late - early for name, late, early in zip(names, after, before, strict=True)}


def _held(pool: snakepit.Pool) -> tuple[float, float, float]:
    workers = sum(worker.resident_bytes or 0 for worker in pool.list_workers())
    return _resident() / MIB, workers / MIB, len(os.listdir("/proc/self/fd"))


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def _calls(pool: snakepit.Pool, calls: int) -> None:
    left = iter(range(calls))

    async def caller() -> None:
        for _ in left:
            await pool.execute("empty", ARGUMENTS)

    async with trio.open_nursery() as nursery:
        for _ in range(CALLERS):
            nursery.start_soon(caller)
