"""The asyncio loop that a pool's connections share."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import grpclib.utils
import trio

from bridge_py.execution.asyncio_policy import TRIO_ASYNCIO, restore_asyncio

from .log import get_logger

logger = get_logger("snakepit.link")


def _trio_asyncio() -> Any:
    """Import trio-asyncio and return it. It changes asyncio for the whole process, so only pools import it.

    These changes are undone here, unless the application has imported it before.
    """
    is_first = TRIO_ASYNCIO not in sys.modules
    import trio_asyncio

    if is_first:
        restore_asyncio()
    # grpclib keeps `asyncio.current_task` as it was at its import, and from Python 3.12 on the original does not
    # see trio-asyncio's loops. The application may import either of the two first.
    grpclib.utils._current_task = asyncio.current_task
    return trio_asyncio


class AsyncioLoop:
    """The event loop that a pool's links share, on top of trio.

    It runs in a task of its own. So the application's context never sees it, and the
    application may have a trio-asyncio loop of its own.
    """

    def __init__(self) -> None:
        self._loop: Any = None

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled."""
        async with _trio_asyncio().open_loop() as self._loop:
            # An error in a callback of the link must not take the loop, and with it the pool, down.
            self._loop.set_exception_handler(_log_error)
            task_status.started()
            await trio.sleep_forever()

    async def run_coroutine(self, coroutine: Any) -> Any:
        """Run an asyncio coroutine from trio, and return its result. Cancelling this cancels the coroutine."""
        return await self._loop.run_aio_coroutine(coroutine)

    def make_tasks(self, make: Callable[[asyncio.Task[Any]], asyncio.Task[Any]]) -> None:
        """Pass each task that asyncio makes from now on to `make`, which returns the task to use."""
        self._loop.set_task_factory(
            lambda loop, coroutine, **options: make(asyncio.Task(coroutine, loop=loop, **options))
        )

    def create_task(self, coroutine: Any) -> asyncio.Task[Any]:
        """Have asyncio run a coroutine in a task of its own."""
        task: asyncio.Task[Any] = self._loop.create_task(coroutine)
        return task


async def in_trio(function: Callable[..., Any], *args: Any) -> Any:
    """Run a trio function from asyncio, and return its result."""
    # The loop is given by name, because a server's tasks do not inherit it.
    scope = trio.CancelScope()

    async def run() -> Any:
        with scope:
            return await function(*args)

    running = asyncio.ensure_future(_trio_asyncio().trio_as_aio(run, loop=asyncio.get_running_loop())())
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        # The cancelled task goes on to clean up. Its cleanup must not run beside code that still runs in trio.
        scope.cancel()
        await asyncio.wait([running])  # noqa: ASYNC102 - as long as cancelled code takes to end
        raise


def _log_error(_loop: object, context: dict[str, Any]) -> None:
    logger.warning("%s", context.get("message", "error in the link's loop"), exc_info=context.get("exception"))
