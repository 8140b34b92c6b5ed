"""How the time of a call was spent: its times on the host, and what its worker says."""

from __future__ import annotations

import time

import trio

from bridge_py.wire.errors import SnakepitError
from bridge_py.wire.frames import Frame
from bridge_py.wire.timing import Timing
from snakepit_trio._util.log import get_logger

from .call import Call

logger = get_logger("snakepit.calls")


def timing_of(call: Call) -> Timing:
    """The timing of a call that is over, or of one that runs, as far as it has come."""
    now = trio.current_time()
    ended = call.ended_at or now
    if call.worker is None:
        return Timing(ended - call.created_at, 0.0, 0.0, 0.0)
    queued = max(0.0, call.assigned_at - call.created_at)
    there = max(0.0, ended - call.assigned_at)
    if call.final is not None:
        return Timing(queued, *_split(call.final, call.assigned_at, there, now))
    if is_started(call):
        return Timing(queued, 0.0, there, 0.0)
    return Timing(queued, there, 0.0, 0.0)


def is_started(call: Call) -> bool:
    """Whether the call is known to run in its worker. A look that fails, as without descriptors, shows nothing."""
    if call.worker is not None:
        with logger.tolerates("looking at what a worker has started"):
            return call.worker.has_started(call)
    return False


def seconds_there(final: Frame, there: float) -> float:
    """How long the code of a call ran, of the seconds that the call was with its worker."""
    return min(final.number / 1e6, there) if final.number or final.began else there


def _split(final: Frame, assigned_at: float, there: float, now: float) -> tuple[float, float, float]:
    ran = seconds_there(final, there)
    away = there - ran
    # Trio's clock has an offset of its own. A clock of the tests, or of another machine, gives an impossible time.
    sent = final.began / 1e9 + now - time.monotonic() - assigned_at
    if not final.began or not 0 <= sent <= away:
        sent = away / 2
    return sent, ran, away - sent


class TimeSpent:
    """How the time of all calls was spent that workers have ended, in seconds."""

    def __init__(self) -> None:
        self.queued = 0.0
        self._there = self._ran = 0.0
        self._took = 0  # microseconds, of the calls whose workers say how long they took

    @property
    def ran(self) -> float:
        """In the tools."""
        return self._ran + self._took / 1e6

    @property
    def on_link(self) -> float:
        """Between host and workers."""
        return max(0.0, self._there - self.ran)

    def note(self, call: Call, final: Frame, failure: Exception | None, now: float) -> None:
        """Note that a call has ended, and tell its error how the time was spent."""
        call.ended_at = now
        there = now - call.assigned_at
        self.queued += call.assigned_at - call.created_at
        self._there += there
        if final.number or final.began:
            self._took += final.number
        else:
            self._ran += there
        if failure is not None:
            call.final = final
            note_timing(call, failure)


def note_timing(call: Call, failure: BaseException) -> None:
    """Tell the error of a call how the time was spent."""
    if isinstance(failure, SnakepitError):
        failure.timing = timing_of(call)
