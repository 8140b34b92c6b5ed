"""Which worker runs which call, and when. Plain state: no await, no I/O, and time is an argument.

A call goes to the least loaded worker that has a free place, else it waits in one line. Places are
reserved on assignment, so two calls never get the same one.

Sending ahead: a worker that has lately been answering within `QUICK` seconds gets calls beyond its
places, up to `ahead` of them, so that it never idles for a round trip between two small calls. If
such a worker then makes no progress for `PATIENCE` seconds, the calls it has not started are
recalled and go back to the head of the line. A call sent ahead therefore loses `PATIENCE` at the
most, and where calls take longer than `QUICK` none is sent ahead at all.
"""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict
from typing import Final, Generic, Protocol, TypeVar

QUICK: Final = 0.002
PATIENCE: Final = 0.01
_SMOOTHING: Final = 0.25
_NEVER: Final = float("inf")


class Schedulable(Protocol):
    """What the scheduler writes on a call."""

    order: int
    assigned_at: float


C = TypeVar("C", bound=Schedulable)


class Slot(Generic[C]):
    """A worker in the scheduler's eyes: the calls it holds, in order of assignment, and how quick it has been."""

    __slots__ = ("calls", "last_progress", "pace", "place", "recalled")

    def __init__(self) -> None:
        self.calls: OrderedDict[int, C] = OrderedDict()
        self.pace = _NEVER  # smoothed seconds between two ends of calls while it was busy
        self.last_progress = 0.0
        self.recalled = False
        self.place: OrderedDict[Slot[C], None] | None = None  # where the scheduler would find it for a call


class Scheduler(Generic[C]):
    """Assigns calls to slots. Each returned pair is an assignment that the caller now carries out."""

    def __init__(self, *, concurrency: int, ahead: int) -> None:
        self._concurrency = concurrency
        self._limit = concurrency + ahead
        self._order = itertools.count(1)
        self._line: OrderedDict[int, C] = OrderedDict()
        self._returned: list[tuple[int, C]] = []  # heap of calls given back, all older than the line
        self._withdrawn: set[int] = set()  # of those given back
        # Slots by how many calls they hold, as far as they have free places.
        self._by_load: list[OrderedDict[Slot[C], None]] = [OrderedDict() for _ in range(concurrency)]
        self._quick: OrderedDict[Slot[C], None] = OrderedDict()  # all places taken, room ahead
        self._slots: set[Slot[C]] = set()

    @property
    def queued(self) -> int:
        """Calls that wait for a worker."""
        return len(self._line) + len(self._returned) - len(self._withdrawn)

    @property
    def has_sent_ahead(self) -> bool:
        """Whether any worker holds more calls than it has places."""
        return any(len(slot.calls) > self._concurrency for slot in self._slots)

    def add(self, slot: Slot[C], now: float) -> list[tuple[Slot[C], C]]:
        """A worker is ready for calls."""
        self._slots.add(slot)
        slot.last_progress = now
        self._place(slot)
        return self._fill(slot, now)

    def remove(self, slot: Slot[C]) -> list[C]:
        """A worker takes no more calls. Returns those it held, in the order of their assignment."""
        self._slots.discard(slot)
        self._put(slot, None)
        calls = list(slot.calls.values())
        slot.calls.clear()
        return calls

    def submit(self, call: C, now: float) -> Slot[C] | None:
        """A new call: returns the worker it is assigned to, or None if it waits in line."""
        call.order = next(self._order)
        slot = None if self.queued else self._choose()
        if slot is None:
            self._line[call.order] = call
            return None
        self._assign(slot, call, now)
        return slot

    def withdraw(self, call: C) -> bool:
        """Take a waiting call out of the line; False if it does not wait."""
        if self._line.pop(call.order, None) is not None:
            return True
        if any(order == call.order for order, _ in self._returned) and call.order not in self._withdrawn:
            self._withdrawn.add(call.order)
            return True
        return False

    def release(self, slot: Slot[C], call: C, now: float) -> list[tuple[Slot[C], C]]:
        """A call of a worker has ended; its place may go to the next in line."""
        if slot.calls.pop(call.order, None) is None:
            return []
        sample = now - max(slot.last_progress, call.assigned_at)
        slot.pace = sample if slot.pace is _NEVER else slot.pace + _SMOOTHING * (sample - slot.pace)
        slot.last_progress = now
        slot.recalled = False
        return self._replace(slot, now)

    def give_back(self, slot: Slot[C], call: C, now: float) -> list[tuple[Slot[C], C]]:
        """A worker has given back a call that it had not started: back to its place in line."""
        if slot.calls.pop(call.order, None) is None:
            return []
        return self.requeue(call, now) + self._replace(slot, now)

    def requeue(self, call: C, now: float) -> list[tuple[Slot[C], C]]:
        """Put a call that was assigned once, and never started, back to its place in line."""
        heapq.heappush(self._returned, (call.order, call))
        slot = self._choose()
        return [] if slot is None else self._fill(slot, now)

    def stalled(self, now: float) -> list[tuple[Slot[C], list[C]]]:
        """Workers without progress for `PATIENCE`, and the calls to recall from each."""
        found = []
        for slot in self._slots:
            waiting = len(slot.calls) - self._concurrency
            if waiting > 0 and not slot.recalled and now - slot.last_progress > PATIENCE:
                slot.pace = _NEVER
                slot.recalled = True
                self._place(slot)
                found.append((slot, list(slot.calls.values())[self._concurrency :]))
        return found

    def is_ahead(self, slot: Slot[C]) -> bool:
        """Whether a worker holds more calls than it has places."""
        return len(slot.calls) > self._concurrency

    def clear(self) -> list[C]:
        """Empty the line. Returns the calls that waited, oldest first."""
        calls = []
        while (call := self._next_in_line()) is not None:
            calls.append(call)
        return calls

    def _choose(self) -> Slot[C] | None:
        for slots in self._by_load:
            if slots:
                return next(reversed(slots))  # the last one used has the warmest caches
        slot = next(iter(self._quick), None)
        if slot is not None:
            self._quick.move_to_end(slot)  # all of them in turn
        return slot

    def _assign(self, slot: Slot[C], call: C, now: float) -> None:
        if not slot.calls:
            slot.last_progress = now
        slot.calls[call.order] = call
        call.assigned_at = now
        self._place(slot)

    def _replace(self, slot: Slot[C], now: float) -> list[tuple[Slot[C], C]]:
        if slot not in self._slots:
            return []
        self._place(slot)
        return self._fill(slot, now)

    def _fill(self, slot: Slot[C], now: float) -> list[tuple[Slot[C], C]]:
        assigned = []
        while self._has_room(slot) and (call := self._next_in_line()) is not None:
            self._assign(slot, call, now)
            assigned.append((slot, call))
        return assigned

    def _next_in_line(self) -> C | None:
        while self._returned:
            order, call = heapq.heappop(self._returned)
            if order not in self._withdrawn:
                return call
            self._withdrawn.discard(order)
        return self._line.popitem(last=False)[1] if self._line else None

    def _has_room(self, slot: Slot[C]) -> bool:
        load = len(slot.calls)
        return load < self._concurrency or (load < self._limit and slot.pace < QUICK)

    def _place(self, slot: Slot[C]) -> None:
        load = len(slot.calls)
        if load < self._concurrency:
            self._put(slot, self._by_load[load])
        else:
            self._put(slot, self._quick if self._has_room(slot) else None)

    def _put(self, slot: Slot[C], place: OrderedDict[Slot[C], None] | None) -> None:
        if place is slot.place:
            return
        if slot.place is not None:
            del slot.place[slot]
        if place is not None:
            place[slot] = None
        slot.place = place
