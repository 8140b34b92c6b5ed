"""Tools that the checks of launchers and stores call in workers. They need only `bridge_py`, so workers start light."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from bridge_py import AsyncSessionContext, BaseAdapter, SessionContext, tool
from bridge_py.wire.errors import ToolCancelled


class Tools(BaseAdapter):
    """The tools of the checks. The last ones need a worker that is a process of its own."""

    def setup(self) -> None:
        """Begin without calls."""
        self._running: list[str] = []

    @tool
    def echo(self, value: Any) -> Any:
        """Return the value."""
        return value

    @tool
    def add(self, a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    @tool
    def fail(self, message: str) -> None:
        """Raise."""
        raise LookupError(message)

    @tool
    def count(self, n: int) -> Iterator[int]:
        """Count."""
        yield from range(n)

    @tool
    def count_and_fail(self, n: int) -> Iterator[int]:
        """Count, and raise."""
        yield from range(n)
        raise LookupError("no more")

    @tool
    async def tick(self) -> AsyncIterator[int]:
        """Yield for ever; note that it runs."""
        self._running.append("tick")
        try:
            for number in itertools.count():
                yield number
        finally:
            self._running.remove("tick")

    @tool
    def running(self) -> list[str]:
        """The names of the running tools that note that they run."""
        return list(self._running)

    @tool
    async def wait(self, context: AsyncSessionContext) -> None:
        """Say that it has begun, and wait for ever; note that it runs."""
        self._running.append("wait")
        try:
            await context.call_host_tool("begun")
            await asyncio.Event().wait()
        finally:
            self._running.remove("wait")

    @tool(cancel="kill")
    async def wait_for_kill(self, context: AsyncSessionContext) -> None:
        """Say that it has begun, and wait for ever."""
        await context.call_host_tool("begun")
        await asyncio.Event().wait()

    @tool
    async def meet(self, context: AsyncSessionContext) -> str:
        """Return when the other calls have come."""
        await context.call_host_tool("meet")
        return "met"

    @tool
    def mark(self, context: SessionContext, number: int) -> int:
        """Tell the host the number, and return it."""
        context.call_host_tool("mark", number=number)
        return number

    @tool
    def bump(self, context: SessionContext, name: str) -> int:
        """Add one to a variable."""
        context[name] = context[name] + 1
        return int(context[name])

    @tool
    def read(self, context: SessionContext, name: str) -> Any:
        """Read a variable."""
        return context[name]

    # For workers that are processes of their own.

    @tool
    def sleep(self, context: SessionContext) -> None:
        """Say that it has begun, and sleep; note that it runs."""
        self._running.append("sleep")
        try:
            context.call_host_tool("begun")
            time.sleep(1000)
        finally:
            self._running.remove("sleep")

    @tool
    def resist(self, context: SessionContext) -> None:
        """Say that it has begun, and sleep, even when it is cancelled."""
        # The cancellation may come before the answer of the host tool.
        with contextlib.suppress(ToolCancelled):
            context.call_host_tool("begun")
            time.sleep(1000)
        while True:
            with contextlib.suppress(ToolCancelled):
                time.sleep(1000)

    @tool
    def exit(self, code: int) -> None:
        """End the process."""
        print("these are its last words", file=sys.stderr, flush=True)
        os._exit(code)

    @tool
    def signal_self(self, number: int) -> None:
        """Send a signal to the process."""
        os.kill(os.getpid(), number)
        time.sleep(1000)

    @tool
    def spawn(self) -> int:
        """Start a process in the worker's group that would live on; returns its pid."""
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"]).pid

    @tool
    def surroundings(self, name: str) -> tuple[str | None, str]:
        """A variable of the environment, and the working directory."""
        return os.environ.get(name), os.path.realpath(os.curdir)

    @tool
    def chatter(self, characters: int) -> int:
        """Write much to stdout and stderr."""
        for stream in (sys.stdout, sys.stderr):
            for _ in range(characters // 1000):
                print("x" * 999, file=stream)
            stream.flush()
        return characters


class CannotStart(BaseAdapter):
    """Its workers do not start."""

    def setup(self) -> None:
        """Raise."""
        raise OSError("the device of the contract is not there")


class NeverReady(BaseAdapter):
    """Its workers are never ready."""

    def setup(self) -> None:
        """Sleep."""
        time.sleep(1000)
