"""Something done at one step of a trio run, by the number of the step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio


class Steps(trio.abc.Instrument):
    """Counts the steps of all tasks, and calls a function before one of them."""

    def __init__(self, at: int, then: Callable[[], None]) -> None:
        self.count = 0
        self.at = at
        self._then = then

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """A task is about to take a step."""
        if self.count == self.at:
            self._then()
        self.count += 1


@contextmanager
def at_step(number: int, then: Callable[[], None]) -> Iterator[Steps]:
    """Call `then` before the step of that number, counted from here."""
    steps = Steps(number, then)
    trio.lowlevel.add_instrument(steps)
    try:
        yield steps
    finally:
        trio.lowlevel.remove_instrument(steps)


def tasks() -> int:
    """How many tasks there are."""
    return trio.lowlevel.current_statistics().tasks_living
