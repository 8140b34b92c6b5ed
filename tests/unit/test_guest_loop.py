"""Coroutine tools in memory: they find asyncio as they find it in a worker process."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
import sniffio
import trio.testing

import snakepit_trio as snakepit
from bridge_py import BaseAdapter, tool
from snakepit_trio.testing import InMemory


class Loops(BaseAdapter):
    """Uses asyncio in many ways."""

    left: list[str]

    async def setup(self) -> None:
        """Begin work that outlives every call, until its loop ends."""
        Loops.left = []
        self._kept = [asyncio.create_task(self._stay()), asyncio.ensure_future(self._numbers().__anext__())]
        await asyncio.sleep(0)

    async def _stay(self) -> None:
        try:
            await asyncio.sleep(10**9)
        finally:
            Loops.left.append("task")

    async def _numbers(self) -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            Loops.left.append("generator")

    @tool
    async def thread(self) -> int:
        """Wait for another thread."""
        return await asyncio.to_thread(sum, [1, 2])

    @tool
    async def sockets(self) -> str:
        """Wait for files, in both directions."""
        here, there = socket.socketpair()
        _, writer = await asyncio.open_connection(sock=here)
        reader, other = await asyncio.open_connection(sock=there)
        writer.write(b"word\n")
        found = await reader.readline()
        for each in (writer, other):
            each.close()
            await each.wait_closed()
        return found.decode()

    @tool
    async def threadsafe(self) -> str:
        """Call back twice in the way of other threads, once from such a callback."""
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        loop.call_soon_threadsafe(loop.call_soon_threadsafe, done.set_result, "done")
        return str(await done)

    @tool
    async def library(self) -> list[Any]:
        """Say where it runs."""
        loop = asyncio.get_running_loop()
        return [sniffio.current_async_library(), loop.is_running(), asyncio.current_task() is not None]

    @tool
    async def late(self, seconds: float) -> list[str]:
        """Wait for several timers, of which one is cancelled."""
        found: list[str] = []
        loop = asyncio.get_running_loop()
        loop.call_later(seconds, found.append, "last")
        loop.call_later(seconds / 2, found.append, "first")
        loop.call_later(seconds / 4, found.append, "never").cancel()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 2 * seconds)
        return found

    @tool
    async def leave(self) -> None:
        """Have a task that would end the process."""

        async def end() -> None:
            raise SystemExit(2)

        task = asyncio.create_task(end())
        await asyncio.sleep(10**6)
        await task


async def test_coroutines_use_threads_and_sockets() -> None:
    async with snakepit.open_pool(Loops, launcher=InMemory(), workers=1) as pool:
        assert await pool.execute("thread") == 3
        assert await pool.execute("sockets") == "word\n"
        assert await pool.execute("threadsafe") == "done"
        assert await pool.execute("library") == ["asyncio", True, True]
        assert sniffio.current_async_library() == "trio"
    assert sorted(Loops.left) == ["generator", "task"]


async def test_timers_go_by_trios_clock(autojump_clock: trio.testing.MockClock) -> None:
    async with snakepit.open_pool(Loops, launcher=InMemory(), workers=1) as pool:
        assert await pool.execute("late", {"seconds": 3600}, timeout=None) == ["first", "last"]


async def test_a_task_that_would_end_the_process_ends_its_call(autojump_clock: trio.testing.MockClock) -> None:
    async with snakepit.open_pool(Loops, launcher=InMemory(), workers=1, concurrency=2) as pool:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.execute, "late", {"seconds": 1})
            with pytest.raises(snakepit.ToolError, match="SystemExit"):
                await pool.execute("leave", timeout=None)
        assert pool.get_stats().restarts == 0
