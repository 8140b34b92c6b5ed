"""What a tool may know about the call it serves."""

from __future__ import annotations

import logging
import time

_logger = logging.getLogger("snakepit.tool")


class SessionContext:
    """The call that a tool serves. A tool gets it by annotating a parameter with this class.

    Safe to read from any thread of the worker.
    """

    __slots__ = ("_cancelled", "call_id", "deadline", "logger", "session_id")

    def __init__(self, call_id: int, session_id: str | None, deadline: float | None) -> None:
        #: Number of this call, unique in this worker process.
        self.call_id = call_id
        #: The session the caller named, or None.
        self.session_id = session_id
        #: When the call's budget ends, in seconds of `time.monotonic()`, or None.
        self.deadline = deadline
        #: A logger whose records the host passes on as its own.
        self.logger = _logger
        self._cancelled = False

    @property
    def cancelled(self) -> bool:
        """Whether the caller has given up. A loop that cannot be interrupted should look at it."""
        return self._cancelled

    def time_left(self) -> float | None:
        """Seconds until the deadline (negative when it has passed), or None without one."""
        return None if self.deadline is None else self.deadline - time.monotonic()

    def __repr__(self) -> str:
        return f"<SessionContext call={self.call_id} session={self.session_id!r} cancelled={self._cancelled}>"
