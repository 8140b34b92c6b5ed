"""Something raised at one step of a call's way through the host. A step is the entry of a function of ours."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

import trio

from bridge_py.buffers import buffer_sets, compression, shared_memory, transfers
from bridge_py.wire import codec, conversation, frames, loans, owning, packed
from snakepit_trio._calls import (
    abandonment,
    batches,
    call,
    counting,
    deadlocks,
    dispatcher,
    limits,
    nesting,
    queues,
    runner,
    scheduler,
    shared_copies,
    stalls,
    streams,
)
from snakepit_trio._connections import link
from snakepit_trio._util import ownership
from snakepit_trio._workers import worker_calls

#: The code that a call goes through on the host.
WAY: Final = frozenset(
    str(module.__file__)
    for module in (
        *(runner, call, batches, dispatcher, scheduler, queues, limits, deadlocks, stalls, abandonment, counting),
        nesting,
        *(shared_copies, streams, ownership),
        *(link, worker_calls),
        *(buffer_sets, transfers, shared_memory, compression),
        *(codec, conversation, loans, owning, frames, packed),
    )
)
# What others do for a call: they start it when a place is free, and hear of its end.
_FOR_CALLS: Final = ("Dispatcher._start", "Dispatcher._put", "WorkerCalls._ends", "WorkerCalls._look_at")
# A coroutine's or a generator's frame is entered each time that it goes on, and what is raised there skips its
# `finally` blocks, which nothing in the world does.
_GOES_ON: Final = 0x20 | 0x80 | 0x200  # CO_GENERATOR, CO_COROUTINE, CO_ASYNC_GENERATOR: inspect


class Steps:
    """Counts the steps of a task, and those at which others start and end calls, and raises at one of them."""

    def __init__(self, at: int, make: Callable[[], BaseException]) -> None:
        self.count = 0
        self._at = at
        self._make = make
        self._task = trio.lowlevel.current_task()

    def __call__(self, frame: FrameType, event: str, _argument: Any) -> None:
        """What `sys.setprofile` wants."""
        code = frame.f_code
        if event != "call" or code.co_filename not in WAY or code.co_flags & _GOES_ON:
            return
        if not self._is_on_its_way(frame):
            return
        self.count += 1
        if self.count == self._at:
            error = self._make()
            error.add_note(f"raised at the entry of {code.co_qualname}")
            raise error

    def _is_on_its_way(self, frame: FrameType) -> bool:
        try:
            if trio.lowlevel.current_task() is self._task:
                return True
        except RuntimeError:
            return False  # trio's own turn, in which nothing may be raised
        above: FrameType | None = frame
        while above is not None:
            if above.f_code.co_qualname in _FOR_CALLS and above is not frame:
                return True
            above = above.f_back
        return False


@contextmanager
def raising_at(step: int, make: Callable[[], BaseException]) -> Iterator[Steps]:
    """Raise what `make` makes at the step of that number, from 1 on; 0 for none."""
    steps = Steps(step, make)
    before = sys.getprofile()
    sys.setprofile(steps)
    try:
        yield steps
    finally:
        sys.setprofile(before)
