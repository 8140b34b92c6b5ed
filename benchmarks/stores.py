"""Stores of sessions: gets and updates a second, by one caller, by 32, and from two hosts at once."""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

import trio

import snakepit_trio as snakepit
from snakepit_trio.state.redis import RedisStore
from snakepit_trio.state.shared import SharedStore
from snakepit_trio.state.sqlite import SqliteStore, Synchronous
from tests.helpers.redis_server import DURABLE, redis_server, why_no_redis

CALLERS: Final = 32
#: Gives a number of hosts, each with a store of its own, which share sessions. A store in memory has one host.
Hosts = Callable[[int], AbstractAsyncContextManager[list[snakepit.SessionStore]]]


@asynccontextmanager
async def in_memory(_hosts: int) -> AsyncIterator[list[snakepit.SessionStore]]:
    """The store in this process."""
    yield [snakepit.MemoryStore()]


@asynccontextmanager
async def sqlite(hosts: int) -> AsyncIterator[list[snakepit.SessionStore]]:
    """A file on the disk of the temporary folder, synced with each update."""
    async with _sqlite(hosts, "full") as stores:
        yield stores


@asynccontextmanager
async def sqlite_normal(hosts: int) -> AsyncIterator[list[snakepit.SessionStore]]:
    """The same, not synced with each update."""
    async with _sqlite(hosts, "normal") as stores:
        yield stores


@asynccontextmanager
async def _sqlite(hosts: int, synchronous: Synchronous) -> AsyncIterator[list[snakepit.SessionStore]]:
    with tempfile.TemporaryDirectory() as folder:
        stores = [SqliteStore(f"{folder}/sessions.db", synchronous=synchronous) for _ in range(hosts)]
        async with _opened(stores) as opened:
            yield opened


@asynccontextmanager
async def _opened(stores: Sequence[SharedStore]) -> AsyncIterator[list[snakepit.SessionStore]]:
    if not stores:
        yield []
        return
    async with stores[0] as store, _opened(stores[1:]) as others:
        yield [store, *others]


@asynccontextmanager
async def redis(hosts: int) -> AsyncIterator[list[snakepit.SessionStore]]:
    """A server on this machine that writes each update to its disk."""
    async with _redis(hosts, *DURABLE) as stores:
        yield stores


@asynccontextmanager
async def redis_everysec(hosts: int) -> AsyncIterator[list[snakepit.SessionStore]]:
    """The same, with a sync of the disk each second."""
    async with _redis(hosts, "--appendonly", "yes", "--appendfsync", "everysec") as stores:
        yield stores


@asynccontextmanager
async def _redis(hosts: int, *settings: str) -> AsyncIterator[list[snakepit.SessionStore]]:
    with redis_server(*settings) as server:
        async with _opened([RedisStore(server.url) for _ in range(hosts)]) as opened:
            yield opened


#: A store is measured if it is here. Redis is left out where there is no server.
STORES: Final[Mapping[str, Hosts]] = {
    "memory": in_memory,
    "sqlite": sqlite,
    "sqlite, normal": sqlite_normal,
    "redis": redis,
    "redis, everysec": redis_everysec,
}


async def measure(scale: float) -> dict[str, float]:
    """All figures of all stores, and times of gets and updates as multiples of those of the store in memory."""
    figures: dict[str, float] = {}
    for name, make in STORES.items():
        if name.startswith("redis") and why_no_redis():
            continue
        fast = name == "memory"
        async with make(1) as (store, *_):
            figures |= {f"{name}, {what}": found for what, found in (await _alone(store, scale, fast)).items()}
        if not fast:
            async with make(2) as stores:
                figures[f"{name}, updates/s of one session from two hosts"] = await _together(stores, scale)
            for what in ("gets/s", "updates/s"):
                figures[f"{name}, {what}, memory x"] = figures[f"memory, {what}"] / figures[f"{name}, {what}"]
    return figures


async def _alone(store: snakepit.SessionStore, scale: float, fast: bool) -> dict[str, float]:
    views = [await _session(store, f"session {number}") for number in range(CALLERS)]
    gets, updates = int(scale * (50_000 if fast else 3000)), int(scale * (50_000 if fast else 500))

    async def get(number: int) -> object:
        return await views[number].get_variable("x")

    async def update(number: int) -> object:
        return await views[number].update_variable("x", number)

    return {
        "gets/s": await _rate(get, 1, gets),
        "updates/s": await _rate(update, 1, updates),
        f"gets/s of {CALLERS}": await _rate(get, CALLERS, gets),
        f"updates/s of {CALLERS}": await _rate(update, CALLERS, updates),
    }


async def _together(stores: list[snakepit.SessionStore], scale: float) -> float:
    views = [await _session(stores[0], "shared"), *(store.of("shared") for store in stores[1:])]

    async def update(number: int) -> object:
        return await views[number].update_variable("x", number)

    return await _rate(update, len(views), int(400 * scale))


async def _session(store: snakepit.SessionStore, session_id: str) -> snakepit.SessionView:
    view = store.of(await store.create_session(session_id))
    await view.register_variable("x", "integer", 1)
    return view


async def _rate(step: Callable[[int], Awaitable[object]], callers: int, times: int) -> float:
    async def call(number: int) -> None:
        for _ in range(max(1, times // callers)):
            await step(number)

    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for number in range(callers):
            nursery.start_soon(call, number)
    return max(1, times // callers) * callers / (time.perf_counter() - began)
