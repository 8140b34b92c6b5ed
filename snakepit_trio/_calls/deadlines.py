"""The deadlines of calls."""

from __future__ import annotations

import heapq
import math
from typing import Final

import trio

from .call import Call

_LOOK_AGAIN: Final = 0.1  # seconds between two looks at a call whose worker stands at a breakpoint
_SLACK: Final = 1000  # deadlines of ended calls that may be kept before they are removed


class Deadlines:
    """Wakes callers whose time is used up, as exactly as trio would.

    A cancel scope for each call would cost much more. Adding and removing a call is O(1), except for the heap.

    `calls` are the calls that it watches, by `order`. To stop watching a call, because nobody waits for it any more,
    take it out.
    """

    def __init__(self) -> None:
        self.calls: dict[int, Call] = {}
        self._heap: list[tuple[float, int]] = []  # deadline and `order`; may have calls that are over
        self._nap = trio.CancelScope()

    def add(self, call: Call) -> None:
        """Watch a call: at its deadline, set `call.is_late` and wake its caller."""
        deadline, order, heap = call.deadline, call.order, self._heap
        if deadline == math.inf:
            return
        self.calls[order] = call
        heapq.heappush(heap, (deadline, order))
        if heap[0][1] == order:
            self._nap.deadline = deadline
        if len(heap) > 2 * len(self.calls) + _SLACK:
            self._heap = sorted((other.deadline, order) for order, other in self.calls.items())

    async def run(self) -> None:
        """Watch the deadlines, until cancelled."""
        while True:
            self._end_those_before(trio.current_time())
            with trio.CancelScope(deadline=self._heap[0][0] if self._heap else math.inf) as self._nap:
                await trio.sleep_forever()

    def _end_those_before(self, now: float) -> None:
        while self._heap and (self._heap[0][0] <= now or self._heap[0][1] not in self.calls):
            order = heapq.heappop(self._heap)[1]
            call = self.calls.get(order)
            if call is None:
                continue
            if call.deadline <= now and (call.worker is None or not call.worker.stands):
                del self.calls[order]
                call.is_late = True
                call.wake()
            else:  # its worker stands at a breakpoint, or has stood there
                again = call.deadline if now < call.deadline < math.inf else now + _LOOK_AGAIN
                heapq.heappush(self._heap, (again, order))
