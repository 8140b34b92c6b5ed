"""What only our own pool is asked for: cost by the number of workers, the replacement of a worker, a million calls."""

from __future__ import annotations

import os
import signal
import statistics
import time

import psutil
import trio

import snakepit_trio as snakepit

from .peers import Peer, from_many, repeat

MIB = 1 << 20


async def cost_by_workers(peer: Peer, scale: float) -> dict[str, float]:
    """CPU time of the host for a call of one caller, in microseconds, with 1, 8 and 64 workers, and their ratio."""
    figures = {}
    for workers in (1, 8, 64):
        async with peer.open(workers) as session:
            await repeat(session, 200)
            calls = int(4000 * scale)
            began = time.process_time()
            await repeat(session, calls)
            figures[f"CPU us, {workers} workers"] = (time.process_time() - began) / calls * 1e6
    figures["1 to 64 workers, x"] = max(figures.values()) / min(figures.values())
    return figures


async def replacement(peer: Peer, scale: float) -> dict[str, float]:
    """From the death of a worker until another one has taken its place: milliseconds, the median."""
    times = []
    async with peer.open(2) as session:
        pool, ready = session.pool, trio.Event()
        assert pool is not None
        pool.events.attach("worker.ready", lambda _event: ready.set())
        for _ in range(max(5, int(20 * scale))):
            await session.call()  # a worker that has served is replaced without a pause
            [victim, _] = pool.list_workers()
            assert victim.pid is not None
            ready = trio.Event()
            began = time.perf_counter()
            os.kill(victim.pid, signal.SIGKILL)
            await ready.wait()
            times.append(time.perf_counter() - began)
            await trio.sleep(0.05)
    return {"replaced in, ms": statistics.median(times) * 1e3}


async def million(peer: Peer, scale: float) -> dict[str, float]:
    """A million calls: what the host has grown by, and what its workers have, in MiB, and its descriptors."""
    async with peer.open(2) as session:
        assert session.pool is not None
        await from_many(peer, session, int(50_000 * scale))
        before = _held(session.pool)
        await from_many(peer, session, int(1_000_000 * scale))
        after = _held(session.pool)
    names = "host grew, MiB", "workers grew, MiB", "descriptors"
    return {name: late - early for name, late, early in zip(names, after, before, strict=True)}


def _held(pool: snakepit.Pool) -> tuple[float, float, float]:
    host = psutil.Process()
    workers = sum(worker.resident_bytes or 0 for worker in pool.list_workers())
    return host.memory_info().rss / MIB, workers / MIB, host.num_fds()
