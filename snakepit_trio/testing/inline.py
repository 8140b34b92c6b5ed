"""The real executor of a worker, without threads: each call is a task of trio."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import trio

from bridge_py.buffers.buffer_sets import EncodedValue
from bridge_py.execution.executor import Executor, Pack, Replies
from bridge_py.execution.tool_call import ToolCall
from bridge_py.wire.errors import ToolCancelled

from .extra import MissingPackage
from .faults import Die, Faults, IgnoreCancel
from .guest_loop import GuestLoop
from .mortal import run_mortal

try:
    import greenback
except ModuleNotFoundError as error:  # this module is the first that needs a package of the extra
    raise MissingPackage(error.name or "greenback") from None

__calls_tools__ = True  # tracebacks of tools leave out the outermost frames of this module


class TrioQueue:
    """A queue for sync code, in place of a `SimpleQueue`. A `get` that waits blocks its task, not the thread."""

    def __init__(self) -> None:
        self._items: deque[Any] = deque()
        self._news = trio.Event()

    def put(self, item: Any) -> None:
        """Add an item."""
        self._items.append(item)
        self._news.set()

    def get(self) -> Any:
        """Wait for the next item, and return it."""
        while not self._items:
            self._news = trio.Event()
            greenback.await_(self._news.wait())
        return self._items.popleft()


class CallFaults:
    """The faults of the calls of one worker. `die` ends the worker."""

    def __init__(self, faults: Faults, worker_id: str, die: Callable[[], None]) -> None:
        self._faults = faults
        self._worker_id = worker_id
        self._deaths: dict[int, Die] = {}  # by call id
        self._waiting: dict[int, trio.CancelScope] = {}
        self.die = die

    def arrives(self, call: ToolCall) -> None:
        """Note that a call has come."""
        if self._faults.faults and (death := self._faults.take(Die, self._worker_id, call.tool.name)):
            self._deaths[call.id] = death
        self._die_if(call, "before")

    def starts(self, call: ToolCall, nursery: trio.Nursery) -> None:
        """Note that a call starts."""
        death = self._deaths.get(call.id)
        if death is not None and death.when == "during":
            nursery.start_soon(self._die_after, call, death.after)

    def ends(self, call: ToolCall) -> None:
        """Note that the code of a call has run, before anybody is told."""
        self._die_if(call, "after")
        self._deaths.pop(call.id, None)
        if (waiting := self._waiting.pop(call.id, None)) is not None:
            waiting.cancel()

    def ignores_cancel(self, call: ToolCall) -> bool:
        """Whether a call goes on although it is cancelled."""
        found = self._faults.faults and self._faults.take(IgnoreCancel, self._worker_id, call.tool.name)
        return bool(found)

    def _die_if(self, call: ToolCall, when: str) -> None:
        death = self._deaths.get(call.id)
        if death is not None and death.when == when:
            self.die()

    async def _die_after(self, call: ToolCall, seconds: float) -> None:
        with trio.CancelScope() as self._waiting[call.id]:
            await trio.sleep(seconds)
            self.die()


class InlineExecutor(Executor):
    """Runs up to `concurrency` calls at a time, each in a task of a nursery.

    When its call is cancelled, a sync tool that waits stops waiting. A sync tool that computes cannot be interrupted.
    """

    tells_begin = False

    def __init__(
        self,
        replies: Replies,
        pack: Pack,
        concurrency: int,
        loop: GuestLoop,
        nursery: trio.Nursery,
        faults: CallFaults,
    ) -> None:
        super().__init__(replies, None, pack)
        self.clock = lambda: round(trio.current_time() * 1e9)
        self._free = concurrency
        self._loop = loop
        self._nursery = nursery
        self._faults = faults
        self._is_stopped = False

    @property
    def last_started(self) -> int:
        """Id of the last call that has started, as a ledger would have it."""
        return self._last_started

    def submit(self, call: ToolCall) -> None:
        self._faults.arrives(call)
        super().submit(call)

    def cancel(self, call_id: int) -> bool:
        call = self._calls.get(call_id)
        if call is not None and call_id not in self._waiting and self._faults.ignores_cancel(call):
            return True
        return super().cancel(call_id)

    def stop(self) -> None:
        """Start no more calls. Running calls end with the nursery."""
        self._is_stopped = True

    def _wake(self, _call_id: int, /) -> None:
        self._start_waiting()

    def _start_waiting(self) -> None:
        while self._free and self._waiting and not self._is_stopped:
            call = self._take(next(iter(self._waiting)))
            if call is not None:
                self._free -= 1
                self._nursery.start_soon(self._perform, call)

    async def _perform(self, call: ToolCall) -> None:
        self._faults.starts(call, self._nursery)
        try:
            if call.tool.is_async:
                await run_mortal(self._loop, self._run_async(call))
            else:
                await greenback.ensure_portal()
                self._run_sync(call, _run, call.note_told)
        finally:
            self._free += 1
            self._start_waiting()

    def _finish(self, call: ToolCall, error: BaseException | None, encoded: EncodedValue | None) -> None:
        self._faults.ends(call)
        super()._finish(call, error, encoded)


def _run(call: ToolCall, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    if call.cancelled and not call.interrupted:
        raise ToolCancelled
    return function(*args, **kwargs)
