"""State: what the host's store does in a second, and what a worker waits for a variable."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Awaitable, Callable

import snakepit_trio as snakepit

ADAPTER = "benchmarks.tools:Tools"
SESSIONS = (10, 10_000, 100_000)


async def measure(scale: float) -> dict[str, float]:
    """All figures."""
    return {**await _host(scale), **await _flat(scale), **await _workers(scale)}


async def _host(scale: float) -> dict[str, float]:
    store = snakepit.MemoryStore()
    view = store.of(await store.create_session())
    await view.register_variable("x", "integer", 1, constraints={"min": 0})
    times = int(50_000 * scale)
    return {
        "host gets/s": 1 / await _time(lambda _: view.get_variable("x"), times),
        "host updates/s": 1 / await _time(lambda n: view.update_variable("x", n), times),
    }


async def _flat(scale: float) -> dict[str, float]:
    """Gets and updates a second in stores of several sizes, as a share of that of the smallest.

    Ten sessions are in use, in all of them, or all 100,000 at random; that shows what the processor's caches hold.
    """
    stores = [await _store(sessions) for sessions in SESSIONS]
    rates: list[list[float]] = [[] for _ in range(len(stores) + 1)]
    for _ in range(7):
        for store, found, sessions in zip(stores, rates, SESSIONS, strict=False):
            found.append(await _rate(store, sessions, 10, scale))
        rates[-1].append(await _rate(stores[-1], SESSIONS[-1], SESSIONS[-1], scale))
    titles = "store with 10,000, x", "store with 100,000, x", "all 100,000 at random, x"
    return {
        title: statistics.median(a / b for a, b in zip(found, rates[0], strict=True))
        for title, found in zip(titles, rates[1:], strict=True)
    }


async def _rate(store: snakepit.MemoryStore, sessions: int, in_use: int, scale: float) -> float:
    numbers = random.sample(range(sessions), in_use)
    views = [store.of(f"session {number}") for number in numbers]
    return 1 / await _time(lambda n: _get_and_update(views[n % in_use], n), int(10_000 * scale))


async def _store(sessions: int) -> snakepit.MemoryStore:
    store = snakepit.MemoryStore()
    for number in range(sessions):
        await store.create_session(f"session {number}")
        await store.of(f"session {number}").register_variable("x", "integer", number)
    return store


async def _get_and_update(view: snakepit.SessionView, number: int) -> None:
    await view.get_variable("x")
    await view.update_variable("x", number)


async def _workers(scale: float) -> dict[str, float]:
    """A round trip is a call of an empty tool, measured in turn with the rest."""
    names = [f"variable {number}" for number in range(100)]
    trips, gets, batches, cached = [], [], [], []
    async with snakepit.open_pool(ADAPTER, workers=1) as pool, pool.session() as session:
        for name in names:
            await session.register_variable(name, value=1.5)
        for _ in range(5):
            trips.append(await _time(lambda _: pool.execute("empty", {"payload": ""}), int(1000 * scale)))
            reading = {"name": names[0], "times": int(1000 * scale), "bypass_cache": True}
            gets.append(await session.execute("time_reads", reading))
            reading = {"name": names[0], "times": int(20_000 * scale), "bypass_cache": False}
            cached.append(await session.execute("time_reads", reading))
            batches.append(await session.execute("time_batches", {"names": names, "times": int(200 * scale)}))
    return {
        "cached get, us": statistics.median(cached) * 1e6,
        "get, round trips": statistics.median(a / b for a, b in zip(gets, trips, strict=True)),
        "batch of 100, round trips": statistics.median(a / b for a, b in zip(batches, trips, strict=True)),
    }


async def _time(step: Callable[[int], Awaitable[object]], times: int) -> float:
    began = time.perf_counter()
    for number in range(times):
        await step(number)
    return (time.perf_counter() - began) / times
