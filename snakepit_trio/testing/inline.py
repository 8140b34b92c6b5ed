"""The real executor of a worker, without threads: calls are tasks of trio."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any

import greenback
import trio

from bridge_py.executor import Call, Executor, Pack, Replies
from bridge_py.wire.errors import ToolCancelled


class TrioQueue:
    """What sync code waits at, in place of a `SimpleQueue`: the task waits, and not the thread."""

    def __init__(self) -> None:
        self._items: deque[Any] = deque()
        self._news = trio.Event()

    def put(self, item: Any) -> None:
        """Add an item."""
        self._items.append(item)
        self._news.set()

    def get(self) -> Any:
        """The next item, when there is one."""
        while not self._items:
            self._news = trio.Event()
            greenback.await_(self._news.wait())
        return self._items.popleft()


class InlineExecutor(Executor):
    """Runs up to `concurrency` calls at a time, each in a task.

    A sync tool that waits ends its wait when its call is cancelled; one that computes cannot be interrupted.
    """

    def __init__(self, replies: Replies, pack: Pack, concurrency: int, run_coroutine: Callable[[Any], Any]) -> None:
        super().__init__(replies, None, pack)
        self._free = concurrency
        self._run_coroutine = run_coroutine
        self._nursery: trio.Nursery | None = None

    @property
    def last_started(self) -> int:
        """Id of the last call that has started: what a ledger has."""
        return self._last_started

    async def run_in(self, nursery: trio.Nursery) -> None:
        """Take calls from now on, and run them in a nursery."""
        self._nursery = nursery
        self._start_waiting()

    def stop(self) -> None:
        """See `Executor`. Its nursery ends."""

    def _wake(self, _call_id: int) -> None:
        self._start_waiting()

    def _start_waiting(self) -> None:
        if trio.current_effective_deadline() == -math.inf:
            return  # its worker has been killed: what has not started never will, and may run elsewhere
        while self._free and self._waiting and self._nursery is not None:
            call = self._take(next(iter(self._waiting)))
            if call is not None:
                self._free -= 1
                self._nursery.start_soon(self._perform, call)

    async def _perform(self, call: Call) -> None:
        try:
            if call.tool.is_async:
                coroutine = self._run_async(call)
                try:
                    await self._run_coroutine(coroutine)
                finally:
                    coroutine.close()  # its worker may have been killed before it began
            else:
                await greenback.ensure_portal()
                self._run_sync(call, _run, call.note_told)
        finally:
            self._free += 1
            self._start_waiting()


def _run(call: Call, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    if call.cancelled and not call.interrupted:
        raise ToolCancelled
    return function(*args, **kwargs)
