"""Waits a bounded time for a worker. The time is measured by the turns of the host's own loop.

A worker's answer may lie unread because this process computed, or stood still. So a wait that judges a worker is cut
into slices. A slice that was overrun is the host's fault, and counts little. A missing answer says something about the
worker only after the loop has had many turns.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import trio

_SLICES: Final = 10
_LATE: Final = 1.5  # a slice is overrun if it took longer than its length times this
_OVERRUN: Final = 0.2  # an overrun slice counts as this part of a slice


async def comes_within(seconds: float, waiting: Callable[[], Awaitable[object]]) -> bool:
    """Await `waiting()` for `seconds` of a loop that runs. Returns whether it ended.

    `waiting()` is cancelled and called again meanwhile, so cancelling it must lose nothing.
    """
    length = seconds / _SLICES
    left = float(_SLICES if seconds > 0 else 1)
    while left > 0:
        began = trio.current_time()
        with trio.move_on_after(length) as slice_:
            await waiting()
        if not slice_.cancelled_caught:
            return True
        left -= 1 if length <= 0 or trio.current_time() - began <= _LATE * length else _OVERRUN
    return False
