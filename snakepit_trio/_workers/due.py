"""Whether a worker is to be replaced, and why."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import trio

from snakepit_trio._config.policies import RecyclePolicy

_POSTPONE: Final = 5.0  # seconds until the replacement of a worker is tried again


class Due:
    """Why one worker should be replaced by a fresh one, as soon as there is a reason."""

    def __init__(self, policy: RecyclePolicy) -> None:
        self.reason: str | None = None
        self.turn = trio.Event()  # there is a reason, or the worker has ended
        self.most_calls = math.inf if policy.calls is None else policy.calls
        self._policy = policy
        self._born = trio.current_time()
        self._not_before = 0.0

    def ask(self, reason: str, *, at_once: bool = False) -> None:
        """Note a reason to replace the worker, if it is the first, and no replacement has just failed.

        `at_once`: even if a replacement has just failed.
        """
        if self.reason is None and (at_once or trio.current_time() >= self._not_before):
            self.reason = reason
            self.turn.set()

    def postpone(self) -> None:
        """Keep the worker for now, because its replacement could not start."""
        self.reason = None
        self.turn = trio.Event()
        self._not_before = trio.current_time() + _POSTPONE

    def look(self, calls: int, resident_bytes: Callable[[], int]) -> None:
        """Ask for the replacement if the number of served calls, the age or the memory of the worker is a reason."""
        resident = resident_bytes() if self._policy.resident_bytes else 0
        age = trio.current_time() - self._born
        if reason := self._policy.reason(calls=calls, age=age, resident_bytes=resident):
            self.ask(reason)
