"""The deadlines of calls whose worker stands at a breakpoint."""

from __future__ import annotations

import math
from collections.abc import Iterable

import trio

from .call import Call


class Pause:
    """Takes the deadlines of calls, and gives each of them the time that it had left when the pause began."""

    def __init__(self, calls: Iterable[Call]) -> None:
        """Also takes the deadlines of calls that wait for these, because host tools have made them."""
        self._began = trio.current_time()
        self._left: dict[Call, float] = {}  # in seconds
        for call in calls:
            self._hold(call)
            while call.parent is not None:
                call = call.parent
                self._hold(call)

    def _hold(self, call: Call) -> None:
        if call.deadline != math.inf:
            self._left[call] = call.time_left()
            call.deadline = math.inf

    def end(self, calls: Iterable[Call]) -> None:
        """Give the deadlines back. `calls` are those that the worker has now: some of them may have come meanwhile."""
        now = trio.current_time()
        for call in calls:
            if call not in self._left:
                call.deadline += now - max(self._began, call.assigned_at)
        for call, left in self._left.items():
            call.deadline = now + left
        self._left.clear()
