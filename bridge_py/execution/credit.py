"""Credit of a stream: how many chunks its consumer still takes."""

from __future__ import annotations

import asyncio
from queue import SimpleQueue

from bridge_py.wire.errors import ToolCancelled


class SyncCredit:
    """Credit of a generator that runs in a thread.

    `take` blocks in one C call, so that an interrupt finds no half-done state.
    """

    def __init__(self, grants: SimpleQueue[int]) -> None:
        self._grants = grants
        self._left = 0
        self._closed = False

    def grant(self, chunks: int) -> None:
        """Add credit. Any thread may call this."""
        self._grants.put(chunks)

    def close(self) -> None:
        """End the waiting of `take`, now and from now on. Any thread may call this."""
        self._closed = True
        self._grants.put(0)  # an asynchronous exception does not end a wait in C

    def take(self) -> None:
        """Use one credit; blocks until there is one. Raises `ToolCancelled` if there will be none."""
        while self._left == 0:
            if self._closed:
                raise ToolCancelled
            self._left = self._grants.get()
        self._left -= 1


class AsyncCredit:
    """Credit of an async generator on the worker's event loop."""

    def __init__(self) -> None:
        self._left = 0
        self._more = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._grants: SimpleQueue[int] = SimpleQueue()

    def grant(self, chunks: int) -> None:
        """Add credit. Any thread may call this."""
        self._grants.put(chunks)
        # The loop is known from the first `take` on, which finds earlier grants in the queue.
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._more.set)

    async def take(self) -> None:
        """Use one credit; waits until there is one."""
        self._loop = asyncio.get_running_loop()
        while self._left == 0:
            self._more.clear()
            if self._grants.empty():
                await self._more.wait()
            else:
                self._left = self._grants.get()
        self._left -= 1
