"""Finds deadlocks: a host tool's call waits for a place, and calls that wait for it hold all its possible places."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Mapping
from typing import Final

import trio

from snakepit_trio.errors import PoolDeadlock

from .call import Call, CallState, CallWorker
from .queues import Limit, Needs, Slot
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

    async def watch(self, coming: Callable[[Container[Call]], int], may_grow: Callable[[Needs], bool]) -> None:
        """Fail deadlocked calls, until cancelled.

        `coming` says how many workers will be ready that are not, even if none of some calls ends. `may_grow` says
        whether calls with some needs that wait for any worker may get a further one.
        """
        suspect: Call | None = None
        while True:
            await self._nested_wait.wait()
            while self._nested:
                await trio.sleep(_MUST_LAST)
                self._nested = {call: None for call in self._nested if call.state is CallState.QUEUED}
                waited_for = self._waited_for()
                stuck = None if coming(waited_for) else self._find_stuck(waited_for, may_grow)
                # Only if found twice: calls that were sent ahead look stuck until they have been recalled.
                if stuck is not None and stuck is suspect and self._withdraw(stuck):
                    stuck.finish(None, self._failure(stuck))
                suspect = stuck
            self._nested_wait = trio.Event()

    def _waited_for(self) -> set[Call]:
        """The calls that wait for a host tool whose own call is queued."""
        return {ancestor for call in self._nested for ancestor in call.ancestors()}

    def _find_stuck(self, waited_for: Container[Call], may_grow: Callable[[Needs], bool]) -> Call | None:
        """The newest call of a host tool for which no place can become free before it has run, or None."""
        for call in reversed(self._nested):
            home = None if call.affinity == "hint" else self._scheduler.home(call.session_id)
            if call.needs and home is not None:
                home = self._scheduler.needy.home(call)
            slots = self._workers if home is None else [home]
            gets_another = home is None and may_grow(call.needs)
            if not gets_another and all(_is_stuck_at(slot, call, waited_for) for slot in slots):
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
        limit = self._limit_held_by(call, self._waited_for())
        if limit is not None:
            return PoolDeadlock(
                f"{call.name!r} was called by a host tool, and would wait for ever: all places of the limit of the"
                f" {limit.name} are held by calls that wait for host tools which wait for it (places={limit.most})."
                " Give the limit more places, or leave it out of the nested calls"
            )
        if not self._workers:
            return PoolDeadlock(
                f"{call.name!r} was called by a host tool, and would wait for ever: its worker is being replaced,"
                " finishes its calls first, and one of them waits for that host tool. Open the pool with more workers,"
                " or with spares="
            )
        resources = " and resources" if call.needs else ""
        return PoolDeadlock(
            f"{call.name!r} was called by a host tool, and would wait for ever: all places{resources} that it may have"
            f" are held by calls that wait for host tools which wait for it (workers={len(self._workers)},"
            f" concurrency={self._concurrency}, affinity={call.affinity!r}). Open the pool with more workers, or a"
            " higher concurrency"
        )


def _is_stuck_at(slot: Slot[Call], call: Call, waited_for: Container[Call]) -> bool:
    """Whether calls that wait for a call hold all places of a worker, or resources of it that the call needs."""
    stuck = [running for running in slot.calls.values() if running in waited_for]
    if len(stuck) == len(slot.calls):
        return True
    held = sum((Counter(dict(running.needs)) for running in stuck), Counter[str]())
    return any(slot.offers.get(name, 0) - held[name] < amount for name, amount in call.needs)
