"""Whether a worker answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from snakepit_trio._config.config import PoolConfig
from snakepit_trio._util.patience import comes_within

MIB: Final = 1 << 20
_LOOK_AGAIN: Final = 0.05  # seconds


class Heartbeat:
    """The pings of one worker, and what their answers tell.

    The worker's link has a thread of its own. So a busy tool delays an answer only while it runs C code that holds
    the GIL. That is legal, and the deadline of its call bounds it. So a worker with calls is excused, unless its
    process is stopped.
    """

    def __init__(self, config: PoolConfig) -> None:
        self.missed = 0
        self.latency: float | None = None  # seconds, of the last answer
        self.last_answer: float | None = None  # seconds of trio's clock
        self.answered = trio.Event()
        self._timeout = config.ping_timeout
        self._limit = config.missed_pings
        self._allow_debugger = config.allow_debugger
        self._number = 0
        self._sent_at = 0.0

    @property
    def complaint(self) -> str:
        """Why it counts as unresponsive."""
        return f"it did not answer {self.missed} pings in a row"

    async def ask(
        self, ping: Callable[[int], None], is_stopped: Callable[[], bool], is_busy: Callable[[], bool]
    ) -> bool:
        """Ask once, by `ping`, and wait for the answer. Returns True if the worker counts as unresponsive now."""
        ping(self.sent(trio.current_time()))
        await comes_within(self._timeout, self.answered.wait)
        return self.misses(is_stopped, is_busy=is_busy())

    def sent(self, now: float) -> int:
        """Note that the next ping is sent. Returns its number."""
        self._number += 1
        self._sent_at = now
        self.answered = trio.Event()
        return self._number

    def answer(self, number: int, now: float) -> None:
        """Note an answer. An answer to an earlier ping proves life as well, but shows no latency."""
        self.missed = 0
        self.last_answer = now
        if number == self._number:
            self.latency = now - self._sent_at
            self.answered.set()

    def misses(self, is_stopped: Callable[[], bool], *, is_busy: bool) -> bool:
        """The time for an answer is over. Returns True if the worker counts as unresponsive now."""
        if self.answered.is_set():
            return False
        stopped = is_stopped()
        if (stopped and self._allow_debugger) or (is_busy and not stopped):
            return False
        self.missed += 1
        return self.missed >= self._limit


async def beyond(most: int, resident_bytes: Callable[[], int]) -> int:
    """Wait until a process holds more than `most` bytes; returns how many. It is looked at twenty times a second."""
    while (held := resident_bytes()) <= most:  # noqa: ASYNC110 - nothing reports it
        await trio.sleep(_LOOK_AGAIN)
    return held
