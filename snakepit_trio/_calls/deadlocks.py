"""Finds deadlocks: a host tool's call waits for a place, and calls that wait for it hold all its possible places."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import Final

import trio

from snakepit_trio.errors import PoolDeadlock

from .call import Call, CallState, CallWorker
from .queues import Limit, Slot
from .scheduler import Scheduler

_MUST_LAST: Final = 0.05  # seconds


class Deadlocks:
    """Finds the calls of host tools for which no place can become free, and fails them."""

    def __init__(
        self,
        scheduler: Scheduler[Call],
        workers: Mapping[Slot[Call], CallWorker],
        concurrency: int,
        withdraw: Callable[[Call], bool],
    ) -> None:
        """`withdraw` takes a call out of its queue, or returns False."""
        self._scheduler = scheduler
        self._withdraw = withdraw
        self._workers = workers
        self._concurrency = concurrency
        self._nested: dict[Call, None] = {}  # queued calls that host tools have made, oldest first
        self._nested_wait = trio.Event()

    def note(self, call: Call) -> None:
        """Note a call of a host tool that has just been queued."""
        self._nested[call] = None
        self._nested_wait.set()

    async def watch(self, missing: Callable[[], int]) -> None:
        """Fail deadlocked calls, until cancelled. `missing` says how many workers should be ready and are not."""
        suspect: Call | None = None
        while True:
            await self._nested_wait.wait()
            while self._nested:
                await trio.sleep(_MUST_LAST)
                self._nested = {call: None for call in self._nested if call.state is CallState.QUEUED}
                stuck = None if missing() else self._find_stuck()
                # Only if found twice: calls that were sent ahead look stuck until they have been recalled.
                if stuck is not None and stuck is suspect and self._withdraw(stuck):
                    stuck.finish(None, self._failure(stuck))
                suspect = stuck
            self._nested_wait = trio.Event()

    def _find_stuck(self) -> Call | None:
        """The newest call of a host tool for which no place can become free before it has run, or None."""
        waited_for = {ancestor for call in self._nested for ancestor in call.ancestors()}
        for call in reversed(self._nested):
            home = None if call.affinity == "hint" else self._scheduler.home(call.session_id)
            slots = self._workers if home is None else [home]
            if all(running in waited_for for slot in slots for running in slot.calls.values()):
                return call
            if self._limit_held_by(call, waited_for) is not None:
                return call
        return None

    def _limit_held_by(self, call: Call, waited_for: Container[Call]) -> Limit | None:
        """The first limit of a call whose places are all held by calls that wait for host tools which wait for it."""
        if not call.limits or self._scheduler.holds(call):
            return None
        for limit in call.limits:
            if limit.is_full and all(holder in waited_for for holder in self._scheduler.holders(limit)):
                return limit
        return None

    def _failure(self, call: Call) -> PoolDeadlock:
        limit = self._limit_held_by(call, {ancestor for other in self._nested for ancestor in other.ancestors()})
        if limit is not None:
            return PoolDeadlock(
                f"{call.name!r} was called by a host tool, and would wait for ever: all places of the limit of the"
                f" {limit.name} are held by calls that wait for host tools which wait for it (places={limit.most})."
                " Give the limit more places, or leave it out of the nested calls"
            )
        return PoolDeadlock(
            f"{call.name!r} was called by a host tool, and would wait for ever: all places that it may have are held by"
            f" calls that wait for host tools which wait for it (workers={len(self._workers)},"
            f" concurrency={self._concurrency}, affinity={call.affinity!r}). Open the pool with more workers, or a"
            " higher concurrency"
        )
