"""The calls of a pool that are under way: finds them all, and cancels one of them.

Nothing is kept for a call that goes its usual way: the queue and the workers know it. Only calls that are held up
before they are queued, and calls that are being cancelled, are noted here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import trio

from snakepit_trio._util.background import Background
from snakepit_trio._util.log import get_logger
from snakepit_trio.errors import CallCancelled

from .batches import Batch
from .call import Call
from .dispatcher import Dispatcher

logger = get_logger("snakepit.calls")


class CallsUnderWay:
    """The calls that are under way, at the moment of asking."""

    def __init__(self, dispatcher: Dispatcher, stop: Callable[[Call], Awaitable[None]]) -> None:
        """`stop` stops a call, and returns when it is over. It does nothing for a call that is over."""
        self.cancelled = 0
        self._dispatcher = dispatcher
        self._stop = stop
        self._held_up: dict[Call, trio.CancelScope] = {}
        self._stopping: dict[Call, trio.Event] = {}
        self._background = Background()

    async def run(self) -> None:
        """Stop the calls that are cancelled, until this is cancelled. Calls that are being stopped then are stopped."""
        await self._background.run()

    def __iter__(self) -> Iterator[Call]:
        """All calls: those that workers have, then those that are queued, then those that are held up.

        Take all of them before the next checkpoint.
        """
        dispatcher = self._dispatcher
        for worker in (*dispatcher._workers.values(), *dispatcher._leaving.values()):
            yield from _unpacked(worker.calls.values())
        scheduler = dispatcher._scheduler
        for queue in (scheduler._queue, scheduler._sessions, scheduler._limited, scheduler.needy):
            yield from _unpacked(queue)
        yield from _unpacked(dispatcher.batches.collecting())
        yield from self._held_up

    def is_held_up(self, call: Call) -> bool:
        """Whether a call waits for something else than its turn."""
        return call in self._held_up

    def sent_as(self, call: Call) -> Call:
        """What is sent to a worker, and started there, for a call: its batch, or the call."""
        return self._dispatcher.batches._of.get(call, call)

    @contextmanager
    def held_up(self, call: Call) -> Iterator[None]:
        """Note that a call waits, during the block, before it is queued, or before it runs again.

        Raises the error of its cancellation after the block, if it was cancelled meanwhile.
        """
        with trio.CancelScope() as scope:
            self._held_up[call] = scope
            try:
                yield
            finally:
                del self._held_up[call]
        if call.unwanted is not None:
            raise call.unwanted()

    def find(self, number: int) -> Call | None:
        """The call of that number, or None."""
        return next((call for call in self if call.number == number), None)

    def cancel(self, number: int, reason: str) -> bool:
        """Have a call stopped, and its caller get `CallCancelled` then. Returns whether its caller will get that."""
        call = self.find(number)
        if call is None:
            return False
        if call.unwanted is not None or call.abandoned:
            return isinstance(call.unwanted, partial)  # else its caller has left it, or a host tool's end stops it
        call.unwanted, call.is_late = partial(CallCancelled, call.name, reason), True
        self.cancelled += 1
        if (scope := self._held_up.get(call)) is not None:
            scope.cancel()
        elif self._background.start(self._stop_it, call):
            # Not by its caller: the consumer of a stream may be busy with a chunk for long.
            self._stopping[call] = trio.Event()
        call.wake()
        return True

    async def _stop_it(self, call: Call) -> None:
        try:
            with trio.CancelScope(shield=True), logger.tolerates("stopping a call"):  # its caller stops it again
                await self._stop(call)
        finally:
            self._stopping.pop(call).set()

    async def until_stopped(self, call: Call) -> None:
        """Wait while a call is being stopped here. Only one task at a time may wait for the end of a call."""
        stopping = self._stopping.get(call)
        if stopping is not None:
            await stopping.wait()


def _unpacked(calls: Iterable[Call]) -> Iterator[Call]:
    for call in calls:
        if isinstance(call, Batch):
            yield from call.members
        else:
            yield call
