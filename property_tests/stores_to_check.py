"""The stores that `test_store` compares with its model. Several stores of one maker are hosts that share one."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from snakepit_trio.state.quotas import Quotas
from snakepit_trio.state.redis import RedisStore
from snakepit_trio.state.sqlite import SqliteStore
from snakepit_trio.state.store import MemoryStore, SessionStore
from tests.helpers.memory_backend import World, host
from tests.helpers.redis_stores import follow_clock, new_prefix, shared_server

QUOTAS = Quotas(sessions=2, variables=2, programs=1, history=3)


@asynccontextmanager
async def in_memory(clock: Callable[[], float]) -> AsyncIterator[list[SessionStore]]:
    yield [MemoryStore(quotas=QUOTAS, clock=clock)]


@asynccontextmanager
async def hosts_in_memory(clock: Callable[[], float]) -> AsyncIterator[list[SessionStore]]:
    world = World(clock)
    async with host(world, quotas=QUOTAS) as first, host(world, quotas=QUOTAS, cache_sessions=1) as second:
        yield [first, second]


@asynccontextmanager
async def in_a_file(clock: Callable[[], float]) -> AsyncIterator[list[SessionStore]]:
    with tempfile.TemporaryDirectory() as folder:
        async with SqliteStore(f"{folder}/sessions.db", quotas=QUOTAS, clock=clock, poll=0.01) as store:
            yield [store]


@asynccontextmanager
async def hosts_of_a_file(clock: Callable[[], float]) -> AsyncIterator[list[SessionStore]]:
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {"quotas": QUOTAS, "clock": clock, "synchronous": "off"}
        path = f"{folder}/sessions.db"
        async with SqliteStore(path, **options) as first, SqliteStore(path, **options, cache_sessions=1) as second:
            yield [first, second]


@asynccontextmanager
async def hosts_of_redis(clock: Callable[[], float]) -> AsyncIterator[list[SessionStore]]:
    with shared_server() as server:
        options: dict[str, Any] = {"prefix": new_prefix(), "quotas": QUOTAS}
        async with (
            RedisStore(server.url, **options) as first,
            RedisStore(server.url, **options, cache_sessions=1) as second,
        ):
            follow_clock([first, second], clock)
            yield [first, second]
