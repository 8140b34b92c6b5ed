"""How the time of a call was spent."""

from __future__ import annotations

from typing import NamedTuple


class Timing(NamedTuple):
    """How the time of a call was spent, in seconds.

    `queued`: it waited for a worker. `sent`: it was on its way there, or waited there for its turn. `ran`: its code
    ran, its arguments were read, and its result was encoded. `returned`: its result was on its way back.

    A worker on another machine has another clock. Then `sent` and `returned` are each half of the time that the call
    was on its way. If a worker does not say how long the call took, `ran` is all the time that the call was there.
    """

    queued: float
    sent: float
    ran: float
    returned: float

    @property
    def total(self) -> float:
        """All of it together, in seconds."""
        return sum(self)

    def __str__(self) -> str:
        return (
            f"{self.queued:.3f} s in the queue, {self.sent:.3f} s on the way to the worker,"
            f" {self.ran:.3f} s in the tool, {self.returned:.3f} s on the way back"
        )
