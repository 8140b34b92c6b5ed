"""A worker's life as a table: which event leads from which phase to which, and why a worker ends.

A worker stands for one process, from before its start until after its end, and is never used again. A life is hard
to get right, because its events come from six places that know nothing of each other: the pool (drain, stop,
hurry), the connection (hello, a lost link, a broken protocol), the kernel (the exit of the process), the clock (too
late, silent), the memory (too much of it) and the calls (a call that only the worker's death can stop). Events come
in any order, twice, and late. So every event goes to the table, which knows whether the event still means anything.
The first reason to end stays the reason: everything that follows is its consequence.

This module has phases, events, reasons, and the seconds of patience for each reason. It has no process, no call, no
await and no clock. `Worker` does what is to be done between one phase and the next.

Two promises depend on this table. A worker takes calls in READY and in no other phase, so no call is sent to a
worker that is leaving, or to a spare that has not stepped in. Every worker is a spare after its hello; a worker that
is to take calls steps in at once. Its calls are settled once, on the way to STOPPED, when its process has been reaped:
none of their code runs any more, whatever the reason was. (`Worker` waits a bounded time for a process that the kernel
holds even after SIGKILL.)
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
    SPARE = "spare"  # it is started, and gets no calls until it steps in
    READY = "ready"  # it takes calls
    DRAINING = "draining"  # it takes no calls any more; the calls that it has may end
    ENDING = "ending"  # its process is being ended
    STOPPED = "stopped"  # its process is reaped, and its calls are settled


class Event(Enum):
    """What changes a worker's phase."""

    HELLO = "hello"  # it has said what it can do
    STEP_IN = "step_in"  # it shall take calls
    DRAIN = "drain"  # it shall finish its calls and leave
    END = "end"  # there is a reason for it to end
    SETTLE = "settle"  # its process has ended


#: For each phase: the next phase, by event. An event that is missing here means nothing in that phase.
TABLE: Final[Mapping[Phase, Mapping[Event, Phase]]] = {
    Phase.STARTING: {Event.HELLO: Phase.SPARE, Event.DRAIN: Phase.DRAINING, Event.END: Phase.ENDING},
    Phase.SPARE: {Event.STEP_IN: Phase.READY, Event.DRAIN: Phase.DRAINING, Event.END: Phase.ENDING},
    Phase.READY: {Event.DRAIN: Phase.DRAINING, Event.END: Phase.ENDING},
    Phase.DRAINING: {Event.END: Phase.ENDING},
    Phase.ENDING: {Event.SETTLE: Phase.STOPPED},
    Phase.STOPPED: {},
}


@attrs.frozen
class Reason:
    """Why a worker ends: in words, with `{}` for details, and what follows from it."""

    words: str | None  # None: the pool wants it to end, so it gets a goodbye and time
    at_start: str | None = None  # other words for a worker that has not said hello
    patience: float = 0.0  # seconds to wait for its own exit before it is killed
    patience_at_start: float = 0.0  # the same before it was ready: only its starter waits, to learn the cause
    is_believed: bool = True  # whether its ledger is believed


ASKED: Final = Reason(None)
EXITED: Final = Reason("died", ENDED_EARLY)
#: A process whose link ended is usually dying, and its own exit code tells more than our kill.
LINK_LOST: Final = Reason("closed its link", patience=0.5, patience_at_start=5.0)
#: Its machine, or the network between, is gone. It may live a little longer, until it has noticed that too.
LOST: Final = Reason("was lost: {}")
PROTOCOL_BROKEN: Final = Reason("broke the protocol: {}", is_believed=False)
TOO_LATE: Final = Reason(
    "was not ready within {} s: see what it waits for at its start, or give it more time with start_timeout="
)
UNREACHED: Final = Reason(
    "was not reached within {} s: {}: see that the host can reach its ports, or give it more time with start_timeout="
)
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
        self.was_ready = False  # ready to take calls, even if it was a spare that never stepped in
        self.reason: Reason | None = None  # why it ends, once it does
        self.problem: str | None = None  # the same in words; None if the pool wants it to end
        self.is_believed = True  # whether its ledger is believed

    @property
    def is_over(self) -> bool:
        """Whether it is ending, or has ended."""
        return self.phase in (Phase.ENDING, Phase.STOPPED)

    @property
    def has_left(self) -> bool:
        """Whether it has stopped taking calls for good."""
        return self.phase not in (Phase.STARTING, Phase.SPARE, Phase.READY)

    @property
    def patience(self) -> float:
        """Seconds to wait for its own exit before it is killed."""
        if self.reason is None:
            return 0.0
        return self.reason.patience if self.was_ready else self.reason.patience_at_start

    def take(self, event: Event) -> bool:
        """Take an event. Returns False if the event means nothing in the present phase."""
        following = TABLE[self.phase].get(event)
        if following is None:
            return False
        self.phase = following
        self.was_ready |= following is Phase.SPARE
        return True

    def end(self, reason: Reason, *details: object) -> bool:
        """End for a reason. Returns False if there was an earlier reason, which stays the reason."""
        self.is_believed &= reason.is_believed
        if not self.take(Event.END):
            return False
        self.name(reason, *details)
        return True

    def name(self, reason: Reason, *details: object) -> None:
        """Set the reason. Also replaces a first reason that has turned out to be a consequence of this one."""
        words = reason.words if self.was_ready else reason.at_start or reason.words
        self.reason = reason
        self.problem = None if words is None else words.format(*details)
