"""Threads for the pool's own work: starting processes, copying large buffers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar, TypeVarTuple

import outcome
import trio

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_MOST: Final = 16
# Not trio's usual limiter: forty threads of the application that wait for the pool would leave it no thread.
_limiter: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("snakepit threads")


async def run_in_thread(function: Callable[[*Ts], T], *args: *Ts) -> T:
    """Run a function in a thread, and return its result or raise its exception.

    It cannot be cancelled. If the machine can start no thread, the function runs here, and blocks the loop meanwhile.
    """
    try:
        result = await trio.to_thread.run_sync(lambda: outcome.capture(function, *args), limiter=_own_limiter())
    except RuntimeError:
        # The start of a thread raised this: exceptions of the function are captured.
        result = outcome.capture(function, *args)
    return result.unwrap()


def _own_limiter() -> trio.CapacityLimiter:
    try:
        return _limiter.get()
    except LookupError:
        limiter = trio.CapacityLimiter(_MOST)
        _limiter.set(limiter)
        return limiter
