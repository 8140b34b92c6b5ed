"""Wakes callers whose time is used up. One task for a whole pool: a cancel scope per call costs much more."""

from __future__ import annotations

import heapq
import math
from typing import Final

import trio

from .call import Call

_SLACK: Final = 1000


class Deadlines:
    """The deadlines of all calls under way. O(1) to add and to remove but for the heap, and as exact as trio's."""

    def __init__(self) -> None:
        self._calls: dict[int, Call] = {}
        self._heap: list[tuple[float, int]] = []  # deadline and `order`, also of calls that are over by now
        self._nap = trio.CancelScope()

    def add(self, call: Call) -> None:
        """From its deadline on, `call.is_late`; it is woken then."""
        if call.deadline == math.inf:
            return
        self._calls[call.order] = call
        heapq.heappush(self._heap, (call.deadline, call.order))
        if self._heap[0][1] == call.order:
            self._nap.deadline = call.deadline
        if len(self._heap) > 2 * len(self._calls) + _SLACK:
            self._heap = sorted((other.deadline, order) for order, other in self._calls.items())

    def remove(self, call: Call) -> None:
        """Nobody waits for the call any more."""
        self._calls.pop(call.order, None)

    async def run(self) -> None:
        """Watch, until cancelled."""
        while True:
            self._end_those_before(trio.current_time())
            with trio.CancelScope(deadline=self._heap[0][0] if self._heap else math.inf) as self._nap:
                await trio.sleep_forever()

    def _end_those_before(self, now: float) -> None:
        while self._heap and (self._heap[0][0] <= now or self._heap[0][1] not in self._calls):
            call = self._calls.pop(heapq.heappop(self._heap)[1], None)
            if call is not None:
                call.is_late = True
                call.wake()
