"""Which workers have room for a call. Plain state, as in `scheduler`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final, Generic

from .queues import C, Slot

QUICK: Final = 0.002  # seconds within which a worker answers that gets calls ahead

_Slots = OrderedDict[Slot[C], None]


class Places(Generic[C]):
    """The workers that have room: free places, and room for `ahead` calls more where answers come quickly."""

    def __init__(self, concurrency: int, ahead: int) -> None:
        self._concurrency = concurrency
        self._limit = concurrency + ahead
        # Slots with free places, by how many calls they hold.
        self._by_load: list[_Slots[C]] = [OrderedDict() for _ in range(concurrency)]
        self._quick: _Slots[C] = OrderedDict()  # all places taken, with room for calls ahead

    def __iter__(self) -> Iterator[Slot[C]]:
        """All workers with room, the best ones first."""
        for slots in (*self._by_load, self._quick):
            yield from reversed(slots)

    def choose(self) -> Slot[C] | None:
        """The best worker for a call; None if none has room."""
        for slots in self._by_load:
            if slots:
                return next(reversed(slots))  # the last one used has the warmest caches
        slot = next(iter(self._quick), None)
        if slot is not None:
            self._quick.move_to_end(slot)  # all of them in turn
        return slot

    def has_room(self, slot: Slot[C]) -> bool:
        """Whether a worker has room."""
        load = len(slot.calls)
        return load < self._concurrency or (load < self._limit and slot.pace < QUICK)

    def place(self, slot: Slot[C]) -> None:
        """Note how many calls a worker has now, and how quick it is."""
        load = len(slot.calls)
        place: _Slots[C] | None = None
        if load < self._concurrency:
            place = self._by_load[load]
        elif self.has_room(slot):
            place = self._quick
        if place is not slot.place:
            self._put(slot, place)

    def remove(self, slot: Slot[C]) -> None:
        """Note that a worker takes no more calls."""
        self._put(slot, None)

    def _put(self, slot: Slot[C], place: _Slots[C] | None) -> None:
        if slot.place is not None:
            del slot.place[slot]
        if place is not None:
            place[slot] = None
        slot.place = place
