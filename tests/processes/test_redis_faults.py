"""A Redis server is killed, paused and failed over while two host processes update one session."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial

import pytest
import trio

from snakepit_trio.state.redis import RedisStore
from tests.helpers.redis_load import SESSION, SHARED
from tests.helpers.redis_server import DURABLE, RedisServer, redis_server

pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("redis")]

PATIENCE = 60.0


class Host:
    """A host process under load."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._text = b""

    async def acknowledges(self, updates: int) -> None:
        """Wait until so many more updates are acknowledged."""
        assert self._process.stdout is not None
        self._text = self._text.rpartition(b"\n")[2]
        while self._text.count(b"ACK") < updates:
            more = await self._process.stdout.receive_some()
            assert more, "the host has ended"
            self._text += more

    async def end(self) -> dict[str, tuple[int, int]]:
        """End the load. Returns by variable how many updates were acknowledged, and how many more may be made."""
        assert self._process.stdout is not None
        assert self._process.stdin is not None
        await self._process.stdin.aclose()
        while more := await self._process.stdout.receive_some():
            self._text += more
        await self._process.stdout.aclose()
        assert await self._process.wait() == 0
        found: dict[str, tuple[int, int]] = json.loads(self._text.splitlines()[-1])
        return found


@asynccontextmanager
async def hosts(replicas: int, *urls: str) -> AsyncIterator[list[Host]]:
    async with trio.open_nursery() as nursery:
        made = []
        for name in ("a", "b"):
            line = [sys.executable, "-m", "tests.helpers.redis_load", name, str(replicas), *urls]
            run = partial(trio.run_process, line, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            process: trio.Process = await nursery.start(run)
            made.append(Host(process))
        yield made
        nursery.cancel_scope.cancel()


async def nothing_is_lost(replicas: int, urls: list[str], fault: Callable[[], Awaitable[None]]) -> None:
    """Under load, `fault` is done. Then each acknowledged update is there, once, and watchers see the last value."""
    with trio.fail_after(PATIENCE):
        async with RedisStore(*urls, timeout=10, recheck=1000) as store:
            await store.create_session(SESSION)
            await store.of(SESSION).register_variable(SHARED, "integer", 0)
            async with trio.open_nursery() as nursery, hosts(replicas, *urls) as made:
                seen: list[int] = []
                nursery.start_soon(watch, store, seen)
                for each in made:
                    await each.acknowledges(20)
                await fault()
                for each in made:
                    await each.acknowledges(20)
                results = {name: counts for each in made for name, counts in (await each.end()).items()}
                total = await check(store, results)
                while not seen or seen[-1] != total:
                    await trio.sleep(0.02)
                assert seen == sorted(seen)
                nursery.cancel_scope.cancel()


async def watch(store: RedisStore, seen: list[int]) -> None:
    async with store.of(SESSION).watch(SHARED) as updates:
        async for update in updates:
            seen.append(update.value)  # noqa: PERF401 - the list is read meanwhile


async def check(store: RedisStore, results: dict[str, tuple[int, int]]) -> int:
    found, missing = await store.of(SESSION).get_variables([*results, SHARED])
    assert not missing
    for name, (acknowledged, unsure) in results.items():
        # The load was cancelled at its end: that update was made, and nobody was told.
        assert acknowledged <= found[name].value <= acknowledged + unsure + 1, (name, results)
    total: int = found[SHARED].value
    assert total == sum(found[name].value for name in results)
    return total


async def test_killed_and_started_again() -> None:
    with redis_server(*DURABLE) as server:

        async def fault() -> None:
            for _ in range(3):
                await trio.to_thread.run_sync(server.kill)
                await trio.sleep(0.2)
                await trio.to_thread.run_sync(server.start)
                await trio.sleep(0.2)

        await nothing_is_lost(0, [server.url], fault)


async def test_paused() -> None:
    with redis_server(*DURABLE) as server:

        async def fault() -> None:
            server.pause()
            await trio.sleep(3.5)  # longer than the timeout of the hosts, shorter than that of the watcher
            server.resume()

        await nothing_is_lost(0, [server.url], fault)


@contextmanager
def primary_and_replica() -> Iterator[tuple[RedisServer, RedisServer]]:
    with redis_server(*DURABLE, has_port=True) as primary, redis_server(*DURABLE, has_port=True) as replica:
        replica.follow(primary)
        yield primary, replica


async def test_failed_over() -> None:
    with primary_and_replica() as (primary, replica):

        async def fault() -> None:
            await trio.to_thread.run_sync(primary.kill)
            await trio.to_thread.run_sync(replica.promote)
            await trio.sleep(0.5)
            await trio.to_thread.run_sync(primary.start)
            await trio.to_thread.run_sync(primary.follow, replica)

        # With one replica asked for, each acknowledged update is at the replica already.
        await nothing_is_lost(1, [primary.url, replica.url], fault)
