"""Tools that fork, and whose children go on like them."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from bridge_py import BaseAdapter, SessionContext, tool


def _log(path: str, text: str) -> None:
    with Path(path).open("a") as file:
        file.write(f"{text}\n")


def _end(how: str) -> str:
    if how == "exits":
        sys.exit(5)
    if how == "says":
        sys.exit("said by a child")
    if how == "raises":
        raise ValueError("raised by a child")
    return "returned by a child"


def _fork(how: str, path: str) -> int | str:
    """The child's exit code; in the child, what it returns."""
    child = os.fork()
    if child == 0:
        _log(path, "child")
        return _end(how)
    return _status(child)


def _status(child: int) -> int:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return 1000


class ForkingTools(BaseAdapter):
    """Of each kind one. All return their child's exit code."""

    def __init__(self, log: str = "") -> None:
        self.log = log

    def setup(self) -> None:
        """Fork."""
        if self.log:
            _log(self.log, f"setup {_fork('returns', self.log)}")

    def session_ended(self, session_id: str) -> None:
        """Fork, on the link's thread."""
        if self.log:
            _log(self.log, f"{session_id} {_fork('returns', self.log)}")

    @tool
    def sync(self, how: str, path: str) -> int | str:
        """Fork in a sync tool."""
        return _fork(how, path)

    @tool
    async def coroutine(self, how: str, path: str) -> int | str:
        """Fork in a coroutine."""
        return _fork(how, path)

    @tool
    def generator(self, how: str, path: str) -> Iterator[int | str]:
        """Fork in a generator."""
        yield _fork(how, path)

    @tool
    async def async_generator(self, how: str, path: str) -> AsyncIterator[int | str]:
        """Fork in an asynchronous generator."""
        yield _fork(how, path)

    @tool
    async def task(self, how: str, path: str) -> int | str:
        """Fork in a task."""

        async def fork() -> int | str:
            return _fork(how, path)

        return await asyncio.create_task(fork())

    @tool
    async def callback(self, how: str, path: str) -> int | str:
        """Fork in a callback."""
        loop = asyncio.get_running_loop()
        found: asyncio.Future[int | str] = loop.create_future()
        loop.call_soon(lambda: found.set_result(_fork(how, path)))
        return await found

    @tool
    async def thread(self, how: str, path: str) -> int | str:
        """Fork in a thread of a coroutine."""
        return await asyncio.to_thread(_fork, how, path)

    @tool
    async def waiting(self, path: str) -> int:
        """Fork, and have the child wait on the loop."""
        child = os.fork()
        if child == 0:
            _log(path, "child")
            await asyncio.sleep(0)
            await asyncio.sleep(0.01)
            _log(path, "waited")
        await asyncio.sleep(0.2)
        return _status(child)

    @tool
    def asking(self, ctx: SessionContext, path: str) -> int:
        """Fork, and have the child ask the host."""
        child = os.fork()
        if child == 0:
            _log(path, "child")
            ctx.register_variable("asked", "integer", 1)
            _log(path, "answered")
        return _status(child)

    @tool
    def remember(self, ctx: SessionContext) -> int:
        """Hold something of the session."""
        ctx.register_variable("held", "integer", 1)
        held: int = ctx["held"]
        return held

    @tool
    def atexit(self, path: str) -> int | str:
        """Fork after something was registered for the end of the process."""
        import atexit

        atexit.register(_log, path, "atexit")
        return _fork("exits", path)
