"""A service that runs tasks which are asked for later, as long as it runs itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio


class Background:
    """Runs tasks until it is cancelled. What its tasks raise ends it, so they should raise nothing."""

    def __init__(self) -> None:
        self._nursery: trio.Nursery | None = None

    async def run(self) -> None:
        """Run the tasks that `start` is given, until cancelled."""
        async with trio.open_nursery() as self._nursery:
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None  # from now on a task could not start, or would not end

    def start(self, function: Callable[..., Awaitable[object]], *args: Any) -> bool:
        """Run a coroutine function as a task. Returns False, and does nothing, if this does not run."""
        if self._nursery is None:
            return False
        self._nursery.start_soon(function, *args)
        return True
