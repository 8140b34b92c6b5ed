"""asyncio's own loop as a guest of trio, for coroutine tools in memory: trio runs its turns, on trio's clock.

A worker process has a loop of the same class. Links need trio-asyncio's loop, because trio code runs for them in
asyncio as well. That costs ten times as much for each turn.
"""

from __future__ import annotations

import asyncio
import math
import selectors
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import sniffio
import trio

from bridge_py.execution.tool_loop import call_that_raised, of_call
from snakepit_trio._util.own_trio_asyncio import run_inside, tell_application
from snakepit_trio.errors import OutOfResources


class GuestLoop(asyncio.SelectorEventLoop):
    """Runs the coroutines of tools, and knows which task belongs to which call. Made by `open_guest_loop`."""

    def __init__(self) -> None:
        self._news = trio.Event()  # there is something to do in the next turn
        self._nap = trio.CancelScope()
        self._serving = trio.CancelScope(shield=True)
        self._ending = trio.CancelScope(shield=True)  # cancelled when nothing runs the loop any more
        try:
            self._files = _Selector()
            super().__init__(self._files)
        except OSError as error:
            self._closed = True  # else `__del__` would close a loop that is half made
            raise OutOfResources(f"a pool in memory cannot open the loop of its tools: {error}") from error
        self._thread_id: int | None = threading.get_ident()  # so that it says that it runs

    def time(self) -> float:
        """Read trio's clock, in seconds."""
        return trio.current_time()

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        """Make a task, which belongs to the call whose code makes it."""
        return of_call(super().create_task(coro, **options))

    # Other threads wake the loop through a socket, as they wake any loop of asyncio. Typeshed has narrower hints for
    # these two methods, and none for the private attributes of loops below.

    def call_soon(self, callback: Callable[..., object], *args: Any, **context: Any) -> asyncio.Handle:  # type: ignore[override]
        """Call a function in the next turn."""
        self._news.set()
        return super().call_soon(callback, *args, **context)

    def call_at(self, when: float, callback: Callable[..., object], *args: Any, **context: Any) -> asyncio.TimerHandle:  # type: ignore[override]
        """Call a function at a time of trio's clock."""
        self._nap.deadline = min(self._nap.deadline, when)
        return super().call_at(when, callback, *args, **context)

    async def run_coroutine(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine from trio, and return its result. Cancelling this cancels the coroutine."""
        ended = trio.Event()
        task = self.create_task(coroutine)
        task.add_done_callback(lambda _: ended.set())
        try:
            await ended.wait()
        except trio.Cancelled:
            task.cancel()
            with trio.CancelScope(shield=True):
                await ended.wait()
            raise
        return task.result()

    async def serve(self) -> None:
        """Run until `end`."""
        try:
            with self._serving:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._watch_files)
                    await self._take_turns()
        finally:
            self._thread_id = None
            self._ending.cancel()

    async def _take_turns(self) -> None:
        while True:
            timers: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
            with trio.CancelScope(deadline=timers[0].when() if timers else math.inf) as self._nap:
                await self._news.wait()
            self._news = trio.Event()
            self._turn()

    async def _watch_files(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._files.fileno())
            self._turn()

    def _turn(self) -> None:
        library, sniffio.thread_local.name = sniffio.thread_local.name, "asyncio"
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(self._asyncgen_firstiter_hook, self._asyncgen_finalizer_hook)  # type: ignore[attr-defined]
        tell_application(self)
        try:
            run_inside(self, self._run_once)  # type: ignore[attr-defined]
        except (SystemExit, KeyboardInterrupt) as error:
            if (call := call_that_raised(error.__traceback__)) is None:
                raise
            call.fail(error)
        finally:
            sys.set_asyncgen_hooks(*hooks)
            sniffio.thread_local.name = library
            if self._ready:  # type: ignore[attr-defined]
                self._news.set()  # what this thread added as other threads do, or what an exception has left undone

    async def end(self) -> None:
        """Cancel all tasks, wait for their end, and stop running. Cancelling this has no effect."""
        left = asyncio.all_tasks(self)
        if self.is_running() and (left or self._asyncgens):  # type: ignore[attr-defined]
            ended = trio.Event()
            self.create_task(self._end_all(left)).add_done_callback(lambda _: ended.set())
            with self._ending:
                await ended.wait()
        self._serving.cancel()

    async def _end_all(self, left: set[asyncio.Task[Any]]) -> None:
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)
        await self.shutdown_asyncgens()


class _Selector(selectors.EpollSelector):
    """A selector that never waits: trio does."""

    def select(self, timeout: float | None = None) -> Any:  # noqa: ARG002 - see above
        return super().select(0)


@asynccontextmanager
async def open_guest_loop() -> AsyncIterator[GuestLoop]:
    """Run a loop for the time of a block, however the block ends. Its tasks end with the block.

    Raises `OutOfResources`.
    """
    loop = GuestLoop()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(loop.serve)  # noqa: ASYNC113 - the loop takes work before it is served
            try:
                yield loop
            finally:
                await loop.end()  # noqa: ASYNC102 - shielded in there
    finally:
        loop.close()
