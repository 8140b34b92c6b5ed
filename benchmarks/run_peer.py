"""Measures one peer in a process of its own: `python -m benchmarks.run_peer NAME FIGURE SCALE` prints JSON.

All figures of all peers come from the functions below. Times are wall-clock seconds of `time.perf_counter`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Awaitable, Callable

from .peers import PEERS, Peer, Session

CALLERS = 64
Figures = dict[str, float]


async def latency(peer: Peer, scale: float) -> Figures:
    """One caller, one call after the other: p50 and p99, in milliseconds."""
    async with peer.open(2) as session:
        await _repeat(session, 200)
        times = []
        for _ in range(int(2000 * scale)):
            began = time.perf_counter()
            await session.call()
            times.append(time.perf_counter() - began)
    times.sort()
    return {"p50 ms": times[len(times) // 2] * 1e3, "p99 ms": times[len(times) * 99 // 100] * 1e3}


async def throughput(peer: Peer, scale: float) -> Figures:
    """64 callers on two workers: calls a second."""
    async with peer.open(2) as session:
        await _from_many(peer, session, 2000)
        calls = int(20_000 * scale)
        began = time.perf_counter()
        await _from_many(peer, session, calls)
        return {"calls/s": calls / (time.perf_counter() - began)}


async def stream(peer: Peer, scale: float) -> Figures:
    """One stream with one consumer: chunks a second."""
    async with peer.open(2) as session:
        if session.stream is None:
            return {}
        await session.stream(1000)
        chunks = int(20_000 * scale)
        began = time.perf_counter()
        await session.stream(chunks)
        return {"chunks/s": chunks / (time.perf_counter() - began)}


async def startup(peer: Peer, _scale: float) -> Figures:
    """From nothing until 2, and until 8, workers have all answered: seconds."""
    figures = {}
    for workers in (2, 8):
        began = time.perf_counter()
        async with peer.open(workers):
            figures[f"start of {workers}, s"] = time.perf_counter() - began
    return figures


FIGURES: dict[str, Callable[[Peer, float], Awaitable[Figures]]] = {
    "latency": latency,
    "throughput": throughput,
    "stream": stream,
    "startup": startup,
}


async def _repeat(session: Session, calls: int) -> None:
    for _ in range(calls):
        await session.call()


async def _from_many(peer: Peer, session: Session, calls: int) -> None:
    left = iter(range(calls))

    async def caller() -> None:
        for _ in left:
            await session.call()

    await peer.together([caller] * CALLERS)


def main() -> None:
    """Measure what the command line names."""
    name, figure, scale = sys.argv[1:]
    peer = PEERS[name]

    async def run() -> Figures:
        return await FIGURES[figure](peer, float(scale))

    print(json.dumps(peer.run(run)))


if __name__ == "__main__":
    main()
