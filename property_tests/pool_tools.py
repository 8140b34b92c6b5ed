"""What the calls of `scenarios` and `pool_machine` do. Its workers start light: it imports nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, ClassVar

from bridge_py import AsyncSessionContext, BaseAdapter, SessionContext, tool

LINGER = 0.5  # seconds
FOLDER_VARIABLE = "SNAKEPIT_TEST_RUNNING"


class Tools(BaseAdapter):
    """What the calls do. `running` has the tokens of the calls whose code runs, `started` how often each began."""

    running: ClassVar[set[int]] = set()
    started: ClassVar[Counter[int]] = Counter()

    @contextlib.contextmanager
    def _runs(self, token: int) -> Iterator[None]:
        self.running.add(token)
        self.started[token] += 1
        try:
            yield
        finally:
            self.running.discard(token)

    @tool
    async def nap(self, token: int, seconds: float) -> int:
        """Sleep."""
        with self._runs(token):
            await asyncio.sleep(seconds)
        return token

    @tool
    async def linger(self, token: int, seconds: float) -> int:
        """Sleep, and take some time to end."""
        with self._runs(token):
            try:
                await asyncio.sleep(seconds)
            finally:
                await asyncio.sleep(LINGER)
        return token

    @tool
    def count(self, token: int, n: int) -> Iterator[int]:
        """Count."""
        with self._runs(token):
            yield from range(n)

    @tool
    async def tick(self, token: int, n: int) -> AsyncIterator[int]:
        """Count slowly."""
        with self._runs(token):
            for number in range(n):
                await asyncio.sleep(0.1)
                yield number

    @tool
    def ask(self, token: int, ctx: SessionContext) -> Any:
        """Call the host."""
        with self._runs(token):
            return ctx.call_host_tool("host")

    @tool
    async def ask_async(self, token: int, ctx: AsyncSessionContext) -> Any:
        """Call the host, in a coroutine."""
        with self._runs(token):
            return await ctx.call_host_tool("host")

    @tool
    def take(self, token: int, ctx: SessionContext) -> int:
        """Take what the host yields."""
        with self._runs(token):
            return sum(ctx.stream_host_tool("items"))

    @tool
    def read(self, token: int, ctx: SessionContext) -> Any:
        """Read a variable."""
        with self._runs(token):
            return ctx["n"]


class RealTools(Tools):
    """The same in processes: that code runs is noted in files."""

    @contextlib.contextmanager
    def _runs(self, token: int) -> Iterator[None]:
        path = Path(os.environ[FOLDER_VARIABLE], str(token))
        with path.open("a") as file:
            file.write(f"{os.getpid()}\n")
        try:
            yield
        finally:
            path.with_suffix(".over").touch()
