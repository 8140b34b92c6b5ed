"""Stores in a real Redis server that the tests of one process share, each with keys of its own."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from snakepit_trio.state.quotas import Quotas
from snakepit_trio.state.redis import RedisStore
from tests.helpers.redis_server import DURABLE, RedisServer, redis_server, why_no_redis

_numbers = itertools.count()
_running: list[RedisServer] = []
#: Brings the ends of all sessions nearer by so many milliseconds, and takes back the time that has really passed.
_MOVE = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local by = ARGV[1] - (now - (redis.call('GET', KEYS[1] .. 'moved') or now))
redis.call('SET', KEYS[1] .. 'moved', string.format('%.0f', now))
for _, id in ipairs(redis.call('ZRANGE', KEYS[1] .. 'ends', 0, -1)) do
  for _, kind in ipairs({'s:', 'z:'}) do
    local left = redis.call('PTTL', KEYS[1] .. kind .. id)
    if left >= 0 then redis.call('PEXPIRE', KEYS[1] .. kind .. id, math.max(0, left - by)) end
  end
  redis.call('ZINCRBY', KEYS[1] .. 'ends', -by, id)
end
"""
#: Ends are moved by that much more, because a session ends a thousandth of its ttl later, and its use takes time.
_MORE = 1.007


@contextmanager
def shared_server() -> Iterator[RedisServer]:
    """The server of this process of tests. Without one, the test is skipped, with the reason."""
    if reason := why_no_redis():
        pytest.skip(reason)
    if _running:
        yield _running[0]
        return
    with redis_server(*DURABLE) as server:
        _running.append(server)
        try:
            yield server
        finally:
            _running.clear()


def new_prefix() -> str:
    """A prefix that no other store of this process has."""
    return f"test-{next(_numbers)}"


@asynccontextmanager
async def redis_store(quotas: Quotas | None = None) -> AsyncIterator[RedisStore]:
    """An empty store in the shared server, which must run."""
    async with RedisStore(_running[0].url, prefix=new_prefix(), quotas=quotas) as store:
        yield store


def follow_clock(stores: Sequence[RedisStore], clock: Callable[[], float]) -> None:
    """Let the time of stores be that of a clock, which goes on in whole seconds. It is theirs alone.

    Nobody can move the clock of a server, so the ends of the sessions are moved.
    """
    then = clock()

    def wrap(link: Any) -> None:
        call, prefix = link.call, link._prefix

        async def call_in_time(*args: Any, **options: Any) -> Any:
            nonlocal then
            passed, then = clock() - then, clock()
            by = round(1000 * _MORE * max(0.0, passed))
            connection, _ = await link._wait_for_connection()
            await connection.ask(b"EVAL", _MOVE.encode(), 1, prefix, by)
            return await call(*args, **options)

        link.call = call_in_time

    for store in stores:
        wrap(store._backend._link)  # type: ignore[attr-defined]  # of the backend for Redis
