"""The link over TCP with mutual TLS, as to workers on other machines, beside the Unix socket and the lane's pipes.

The workers are on this machine, and the packets go over its loopback: the network itself adds its own time. The pools
are open side by side and take turns, so that a machine whose speed drifts does not bend the ratios.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Final

import numpy as np
import trio

import snakepit_trio as snakepit
from tests.helpers.remote_launcher import Remote

ADAPTER: Final = "benchmarks.tools:Tools"
CALLERS: Final = 64
_ROUNDS: Final = 6
_PAYLOAD: Final = "x" * 100
_LARGE: Final = np.ones(1_250_000)  # 10 MB
#: Without the lane, calls take HTTP/2 over the Unix socket, as they do over TCP.
WAYS: Final = ("lane", "unix", "tls")


async def measure(scale: float) -> dict[str, float]:
    """Medians of times and CPU times of calls, of the rates of 64 callers, and of their ratios in the same round."""
    ones: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    many: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    large: dict[str, list[float]] = {way: [] for way in WAYS}
    async with AsyncExitStack() as stack:
        pools = {
            "lane": await stack.enter_async_context(snakepit.open_pool(ADAPTER, workers=2)),
            "unix": await stack.enter_async_context(snakepit.open_pool(ADAPTER, workers=2, lane=False)),
            "tls": await stack.enter_async_context(snakepit.open_pool(ADAPTER, workers=2, launcher=Remote())),
        }
        for pool in pools.values():
            await _from_many(pool, 500)
        for number in range(_ROUNDS):
            for way in WAYS[number % 3 :] + WAYS[: number % 3]:
                ones[way].append(await _one(pools[way], int(1000 * scale)))
                many[way].append(await _from_many(pools[way], int(6000 * scale)))
                large[way].append(await _large(pools[way]))
    return _figures(ones, many, large)


def _figures(
    ones: dict[str, list[tuple[float, float]]],
    many: dict[str, list[tuple[float, float]]],
    large: dict[str, list[float]],
) -> dict[str, float]:
    figures = {}
    for way in WAYS:
        figures[f"{way}, p50 us"] = statistics.median(time for time, _ in ones[way]) * 1e6
        figures[f"{way}, host CPU us"] = statistics.median(cpu for _, cpu in ones[way]) * 1e6
        figures[f"{way}, calls/s of {CALLERS}"] = statistics.median(rate for rate, _ in many[way])
        figures[f"{way}, host CPU us of {CALLERS}"] = statistics.median(cpu for _, cpu in many[way]) * 1e6
        figures[f"{way}, 10 MB ms"] = statistics.median(large[way]) * 1e3
    for way in ("lane", "unix"):
        pairs = list(zip(ones["tls"], ones[way], strict=True))
        figures[f"TLS, time x {way}"] = statistics.median(ours[0] / theirs[0] for ours, theirs in pairs)
        figures[f"TLS, host CPU x {way}"] = statistics.median(ours[1] / theirs[1] for ours, theirs in pairs)
        of_many = list(zip(many["tls"], many[way], strict=True))
        figures[f"TLS, rate x {way}"] = statistics.median(ours[0] / theirs[0] for ours, theirs in of_many)
        figures[f"TLS, host CPU of {CALLERS} x {way}"] = statistics.median(a[1] / b[1] for a, b in of_many)
        figures[f"TLS, 10 MB x {way}"] = _ratio(large["tls"], large[way])
    return figures


def _ratio(ours: list[float], theirs: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


async def _one(pool: snakepit.Pool, calls: int) -> tuple[float, float]:
    """The median time of a call of one caller, and the CPU time of the host for a call."""
    cpu = time.process_time()
    times = await _times(lambda: pool.execute("empty", {"payload": _PAYLOAD}), calls)
    return statistics.median(times), (time.process_time() - cpu) / len(times)


async def _large(pool: snakepit.Pool) -> float:
    return min(await _times(lambda: pool.execute("increase", {"value": _LARGE}), 3))


async def _times(call: Callable[[], Awaitable[object]], calls: int) -> list[float]:
    times = []
    for _ in range(max(3, calls)):
        began = time.perf_counter()
        await call()
        times.append(time.perf_counter() - began)
    return times


async def _from_many(pool: snakepit.Pool, calls: int) -> tuple[float, float]:
    """Calls a second, and the CPU time of the host for a call."""
    left = iter(range(calls))

    async def caller() -> None:
        for _ in left:
            await pool.execute("empty", {"payload": _PAYLOAD})

    cpu, began = time.process_time(), time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(CALLERS):
            nursery.start_soon(caller)
    return calls / (time.perf_counter() - began), (time.process_time() - cpu) / calls
