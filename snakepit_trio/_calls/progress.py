"""The progress of a call: how its caller, and the listeners of the pool, hear of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import attrs
import trio

from bridge_py.wire.progress import EVERY
from snakepit_trio._util.validation import check_answer, check_plain

# Workers send a report every 50 ms at most. Reports that have waited, for a slow host, may come all at once.
_SHORTEST: Final = EVERY / 2  # seconds between two reports that are passed on


@attrs.frozen
class Progress:
    """How far a call has come, as its code has reported it by `context.progress`.

    `done` and `total` are amounts of the tool's own; `total` is None if the tool does not know it. `done` may go down,
    and beyond a total that was an estimate. `note` has at most 200 characters.
    """

    done: float
    total: float | None = None
    note: str = ""


OnProgress = Callable[[Progress], object]


class CallProgress:
    """The progress of one call. Only the latest report counts, for the caller and for the pool's listeners alike."""

    __slots__ = ("_heard_at", "_told_at", "handler", "unheard", "untold")

    def __init__(self, handler: OnProgress | None) -> None:
        self.handler = handler
        self.untold: Progress | None = None  # what the handler has not got yet
        self.unheard: Progress | None = None  # what the listeners of the pool have not got yet
        self._told_at = self._heard_at = -math.inf

    @classmethod
    def for_caller(cls, handler: OnProgress) -> CallProgress:
        """The progress of a new call, for a handler of its caller's. Raises `UsageError`."""
        check_on_progress(handler)
        return cls(handler)

    def again(self) -> CallProgress | None:
        """The progress of another run of the call."""
        return None if self.handler is None else CallProgress(self.handler)

    def take(self, progress: Progress) -> None:
        """Take a report of the call's code."""
        self.unheard = progress
        if self.handler is not None:
            self.untold = progress

    def may_be_heard(self, now: float) -> bool:
        """Whether the listeners of the pool get the report now: the others wait for the next one, or for the end."""
        if now < self._heard_at + _SHORTEST:
            return False
        self._heard_at = now
        return True

    def tell(self) -> float:
        """Call the handler, unless it is too early. Returns when to do that again; infinity if all was told.

        What the handler raises comes out.
        """
        if self.untold is None:
            return math.inf
        now = trio.current_time()
        if now < self._told_at + _SHORTEST:
            return self._told_at + _SHORTEST
        self._told_at = now
        self.tell_last()
        return math.inf

    def tell_last(self) -> None:
        """Call the handler with what it has not got yet."""
        if self.untold is not None:
            progress, self.untold = self.untold, None
            assert self.handler is not None
            _call(self.handler, progress)


@trio.lowlevel.disable_ki_protection
def _call(handler: OnProgress, progress: Progress) -> None:
    check_answer("on_progress", handler, handler(progress))


def check_on_progress(handler: Any) -> None:
    """Raise `UsageError` for anything that cannot be called with a `Progress`, and return at once."""
    check_plain("on_progress", handler, "give a function that takes a snakepit_trio.Progress, or None")
