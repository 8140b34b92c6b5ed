"""A worker's life as a table: in which phase which event leads where, and why a worker ends.

A worker stands for one process, from before its start until after its end, and is never used again. What makes a
life hard to get right is that its events come from six places that know nothing of each other: the pool (drain,
stop, hurry), the connection (hello, a lost link, a broken protocol), the kernel (the exit of the process), the
clock (too late, silent), the memory (too much of it) and the calls (one that only a death can stop). They come in
any order, twice, and late. So each of them is only told to the table, which knows whether it still means anything,
and the first reason to end stays the reason: all that follows is its consequence.

What may live in here: phases, events, reasons, and the seconds of patience that a reason is worth. No process, no
call, no await, no clock. What happens on the way from one phase to the next is `Worker`'s to do.

Two promises hang on this table. A worker takes calls in READY and in no other phase, so nothing is sent to one that
is leaving. And its calls are settled once, on the way to STOPPED, which only a reaped process reaches: none of
their code runs any more, whatever the reason was.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, StrEnum
from typing import Final

import attrs

from snakepit_trio.errors import ENDED_EARLY


class Phase(StrEnum):
    """Where a worker is in its life."""

    STARTING = "starting"  # its process is being started, or has not said hello
    READY = "ready"  # it takes calls
    DRAINING = "draining"  # it takes no calls any more; those that it has may end
    ENDING = "ending"  # nothing is said to it any more, and its process is being ended
    STOPPED = "stopped"  # its process is reaped, and its calls are settled


class Event(Enum):
    """What changes a worker's phase."""

    HELLO = "hello"  # it has said what it can do
    DRAIN = "drain"  # another takes its place
    END = "end"  # there is a reason for it to end
    SETTLE = "settle"  # its process is no more


#: From a phase, by an event, to the next one. An event that is not here means nothing in that phase.
TABLE: Final[Mapping[Phase, Mapping[Event, Phase]]] = {
    Phase.STARTING: {Event.HELLO: Phase.READY, Event.DRAIN: Phase.DRAINING, Event.END: Phase.ENDING},
    Phase.READY: {Event.DRAIN: Phase.DRAINING, Event.END: Phase.ENDING},
    Phase.DRAINING: {Event.END: Phase.ENDING},
    Phase.ENDING: {Event.SETTLE: Phase.STOPPED},
    Phase.STOPPED: {},
}


@attrs.frozen
class Reason:
    """Why a worker ends: in words, with `{}` for details, and what follows from it."""

    words: str | None  # None: because the pool wants it to, so it is told goodbye and given time
    at_start: str | None = None  # the words for one that has not said hello, if they are others
    patience: float = 0.0  # seconds to wait for its own exit before it is killed
    patience_at_start: float = 0.0  # the same while nobody waits for it but who wants to know why it did not start
    is_believed: bool = True  # what it has said of its calls


ASKED: Final = Reason(None)
EXITED: Final = Reason("died", ENDED_EARLY)
#: A process whose link ended is usually dying, and its own exit code tells more than our kill.
LINK_LOST: Final = Reason("closed its link", patience=0.5, patience_at_start=5.0)
PROTOCOL_BROKEN: Final = Reason("broke the protocol: {}", is_believed=False)
TOO_LATE: Final = Reason("was not ready within {} s")
NOT_STARTED: Final = Reason("could not be started: {}")
FAILED: Final = Reason("failed: {}")
KILLED: Final = Reason("{}")
TOO_LARGE: Final = Reason("was killed: it held {:.0f} MiB, and may hold {:.0f} (max_resident_bytes)")
OUT_OF_MEMORY: Final = Reason("was killed by the kernel: out of memory")
POOL_ENDED: Final = Reason("was killed: its pool ended")


class Life:
    """The life of one worker."""

    def __init__(self) -> None:
        self.phase = Phase.STARTING
        self.was_ready = False
        self.reason: Reason | None = None  # why it ends, once it does
        self.problem: str | None = None  # the same in words; None if the pool wants it to
        self.is_believed = True  # what it says of the calls that it has started

    @property
    def is_over(self) -> bool:
        """Whether it ends, or has ended: nothing is said to it any more."""
        return self.phase in (Phase.ENDING, Phase.STOPPED)

    @property
    def has_left(self) -> bool:
        """Whether it takes no more calls, and never will again."""
        return self.phase not in (Phase.STARTING, Phase.READY)

    @property
    def patience(self) -> float:
        """Seconds to wait for its own exit before it is killed."""
        if self.reason is None:
            return 0.0
        return self.reason.patience if self.was_ready else self.reason.patience_at_start

    def take(self, event: Event) -> bool:
        """An event has come. Returns False if it means nothing any more."""
        following = TABLE[self.phase].get(event)
        if following is None:
            return False
        self.phase = following
        self.was_ready |= following is Phase.READY
        return True

    def end(self, reason: Reason, *details: object) -> bool:
        """There is a reason to end. Returns False if there has been one before, which stays the reason."""
        self.is_believed &= reason.is_believed
        if not self.take(Event.END):
            return False
        self.name(reason, *details)
        return True

    def name(self, reason: Reason, *details: object) -> None:
        """What has turned out to be the reason, of which the first one was a consequence."""
        words = reason.words if self.was_ready else reason.at_start or reason.words
        self.reason = reason
        self.problem = None if words is None else words.format(*details)
