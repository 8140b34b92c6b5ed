"""Threads for the pool's own work: starting processes, copying large buffers, reading large values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar, TypeVarTuple

import outcome
import trio

from bridge_py.wire.large import between_pieces

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_MOST: Final = 16
# Not trio's usual limiter: forty threads of the application that wait for the pool would leave it no thread.
_limiter: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("snakepit threads")
# Each further thread that reads makes the loop wait for its turn 5 ms longer, and none makes the others faster.
_MOST_READERS: Final = 2
_readers: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("snakepit readers")


async def run_in_thread(function: Callable[[*Ts], T], *args: *Ts) -> T:
    """Run a function in a thread, and return its result or raise its exception.

    It cannot be cancelled. If the machine can start no thread, the function runs here, and blocks the loop meanwhile.
    """
    try:
        result = await trio.to_thread.run_sync(
            lambda: outcome.capture(function, *args), limiter=_limiter_of(_limiter, _MOST)
        )
    except RuntimeError:
        # The start of a thread raised this: exceptions of the function are captured.
        result = outcome.capture(function, *args)
    return result.unwrap()


async def read_in_thread(function: Callable[[*Ts], T], *args: *Ts) -> T:
    """Run a function that reads a large value in a thread, and return its result or raise its exception.

    If cancelled, it leaves the thread alone, which ends with the next piece of the value. If the machine can start no
    thread, the function runs here, and blocks the loop meanwhile.
    """

    def read() -> outcome.Maybe[T]:
        between_pieces.set(trio.from_thread.check_cancelled)  # in this thread's own context
        return outcome.capture(function, *args)

    try:
        limiter = _limiter_of(_readers, _MOST_READERS)
        result = await trio.to_thread.run_sync(read, abandon_on_cancel=True, limiter=limiter)
    except RuntimeError:
        # The start of a thread raised this: exceptions of the function are captured.
        result = outcome.capture(function, *args)
    return result.unwrap()


def _limiter_of(variable: trio.lowlevel.RunVar[trio.CapacityLimiter], most: int) -> trio.CapacityLimiter:
    try:
        return variable.get()
    except LookupError:
        limiter = trio.CapacityLimiter(most)
        variable.set(limiter)
        return limiter
