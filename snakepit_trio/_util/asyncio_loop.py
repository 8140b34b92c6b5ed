"""The asyncio loop that a pool's connections share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import trio

from .log import get_logger
from .own_trio_asyncio import own_trio_asyncio

logger = get_logger("snakepit.link")


class AsyncioLoop:
    """The event loop that a pool's links share, on top of trio.

    It runs in a task of its own. So the application's context never sees it, and the application may have a
    trio-asyncio loop of its own.
    """

    def __init__(self) -> None:
        self._loop: Any = None

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled."""
        async with own_trio_asyncio().open_loop() as self._loop:
            # An error in a callback of the link must not take the loop, and with it the pool, down.
            self._loop.set_exception_handler(_log_error)
            task_status.started()
            await trio.sleep_forever()

    async def run_coroutine(self, coroutine: Any) -> Any:
        """Run an asyncio coroutine from trio, and return its result. Cancelling this cancels the coroutine."""
        return await self._loop.run_aio_coroutine(coroutine)


async def in_trio(function: Callable[..., Any], *args: Any) -> Any:
    """Run a trio function from asyncio, and return its result."""
    # The loop is given by name, because a server's tasks do not inherit it.
    scope = trio.CancelScope()

    async def run() -> Any:
        with scope:
            return await function(*args)

    running = asyncio.ensure_future(own_trio_asyncio().trio_as_aio(run, loop=asyncio.get_running_loop())())
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        # The cancelled task goes on to clean up. Its cleanup must not run beside code that still runs in trio.
        scope.cancel()
        await asyncio.wait([running])  # noqa: ASYNC102 - as long as cancelled code takes to end
        raise


def _log_error(_loop: object, context: dict[str, Any]) -> None:
    logger.warning("%s", context.get("message", "error in the link's loop"), exc_info=context.get("exception"))
