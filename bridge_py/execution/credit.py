"""Credit of a stream: how much its consumer still takes. A chunk may go while any is left, and may leave a debt."""

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

    @property
    def is_left(self) -> bool:
        """Whether `take` would return at once. Only the thread that takes may ask."""
        return self._left > 0

    def grant(self, credit: int) -> None:
        """Add credit. Any thread may call this."""
        self._grants.put(credit)

    def close(self) -> None:
        """End the waiting of `take`, now and from now on. Any thread may call this."""
        self._closed = True
        self._grants.put(0)  # an asynchronous exception does not end a wait in C

    def take(self, cost: int = 1) -> None:
        """Use credit; blocks until some is left. Raises `ToolCancelled` if there will be none."""
        while self._left <= 0:
            if self._closed:
                raise ToolCancelled
            self._left += self._grants.get()
        self._left -= cost


class AsyncCredit:
    """Credit of an async generator on the worker's event loop."""

    def __init__(self) -> None:
        self._left = 0
        self._more = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._grants: SimpleQueue[int] = SimpleQueue()

    def grant(self, credit: int) -> None:
        """Add credit. Any thread may call this."""
        self._grants.put(credit)
        # The loop is known from the first `take` on, which finds earlier grants in the queue.
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._more.set)

    async def take(self, cost: int = 1) -> None:
        """Use credit; waits until some is left."""
        self._loop = asyncio.get_running_loop()
        while self._left <= 0:
            self._more.clear()
            if self._grants.empty():
                await self._more.wait()
            else:
                self._left += self._grants.get()
        self._left -= cost
