"""Warm spares: which started worker steps in for which worker that dies or is replaced.

Each worker of a pool has a starter, and so has each spare. Stepping in swaps the roles of two starters: the starter of
the spare becomes a worker's, and the starter that has lost its worker becomes a spare's. It goes on with what it would
do anyway, and starts the next worker, now as a spare. So restarts of spares have the same pauses, quarantine and
numbers as restarts of workers, and there are never more processes than starters, recycling aside.

A spare steps in only for a worker whose resources it offers, too. Else calls that need them would be refused, although
the worker comes back in a moment.

This module has no await and no clock: it decides at once, whenever something has changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from snakepit_trio._calls.resources import offers_enough
from snakepit_trio._util.log import get_logger

logger = get_logger("snakepit.supervisor")


class Starter(Protocol):
    """The part of a starter that spares are about."""

    @property
    def id(self) -> str:
        """The id of its workers."""
        ...

    @property
    def is_spare(self) -> bool:
        """Whether its worker is a spare, or will be one."""
        ...

    @property
    def is_stopping(self) -> bool:
        """Whether it has been told to end."""
        ...

    @property
    def lacks_worker(self) -> bool:
        """Whether it should have a worker that takes calls, had one, and has none now."""
        ...

    @property
    def has_ready_spare(self) -> bool:
        """Whether its worker has started, and waits to step in."""
        ...

    @property
    def is_due(self) -> bool:
        """Whether its worker is to be replaced soon."""
        ...

    @property
    def offers(self) -> Mapping[str, int]:
        """The resources that its worker offers, in thousandths by name."""
        ...

    def step_in(self, replaced: str) -> None:
        """Become the starter of a worker: its worker takes calls from now on."""

    def stand_by(self) -> None:
        """Become the starter of a spare."""


class Spares:
    """The spares of a pool, and how many there should be."""

    def __init__(self, starters: Mapping[str, Starter]) -> None:
        self.target = 0
        self._starters = starters

    def fill(self) -> None:
        """Have spares step in for workers that have ended, as far as there are spares that could."""
        for starter in [each for each in self._starters.values() if each.lacks_worker]:
            self._swap(starter, self._ready())

    def step_in_for(self, starter: Starter) -> bool:
        """Have a spare step in for a worker that is due. Returns False if no spare could.

        A spare that is due itself could not: it would have to be replaced in turn.
        """
        return self._swap(starter, (each for each in self._ready() if not each.is_due))

    def _ready(self) -> list[Starter]:
        """The spares that could step in, the best first."""
        ready = [each for each in self._starters.values() if each.has_ready_spare]
        return sorted(ready, key=lambda each: each.is_due)

    def _swap(self, starter: Starter, spares: Iterable[Starter]) -> bool:
        offered = tuple(starter.offers.items())
        spare = next((each for each in spares if offers_enough(each.offers, offered)), None)
        if spare is None:
            return False
        logger.info("spare %s steps in for worker %s", spare.id, starter.id)
        starter.stand_by()  # first: if anything below raised, there would be a worker too few, and not one too many
        spare.step_in(starter.id)
        return True
