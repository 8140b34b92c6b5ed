"""Which worker runs which call, and when. Plain state: no await, no I/O, and time is an argument.

A call goes to the least loaded worker that has a free place. If none has one, the call waits in the
queue, where up to `most` calls may wait, which hold up to `most_bytes` together. A place is reserved
on assignment, so two calls never get the same place.

Order: each call has a rank, the time of its submission minus `AGEING` seconds for each step of its priority. The call
with the lowest rank goes first; among equal ranks, the one that was submitted first. So a call of priority p waits
behind calls of a higher priority q only if they were submitted less than (q - p) * `AGEING` seconds after it, and no
call waits for ever. The rank never changes: calls are never sorted again, and a call that comes back from a worker
takes the place that it had.

Sessions: a call of a session goes to the worker that served the session last. With the affinity "hint"
it does so only if that worker has a free place. With a strict affinity it waits for that worker, or
fails at once. A worker that has room takes the first call of three kinds: calls in the common queue,
calls of its own sessions, and calls of sessions without a worker. Within a session too, rank decides.

Sending ahead: a worker that has lately answered within `QUICK` seconds gets up to `ahead` calls beyond
its places. So it never idles for a round trip between two small calls. If it then makes no progress
for `PATIENCE` seconds, the calls that it has not started are recalled and go back to their places in
the queue. So a call that is sent ahead loses `PATIENCE` at the most. If calls take longer than `QUICK`, no
call is sent ahead at all. Calls that were sent ahead are not overtaken until they are recalled.

Limits: a call that has limits waits in `LimitedCalls` until a place of each is free and a worker has room, and then
takes all of them at once. A strict call takes its places first, in its turn, and then waits for its worker. Places are
held until the call is over, or back in the queue: also by a call that was sent ahead, and by one whose worker takes no
more calls. A call with limits that waits is run before any later call of the same rank or a higher one that needs the
same places. Workers never wait for a limit: they take the first call that may run.

Resources: a call that needs some waits in `NeedyCalls` until a worker that has a place has enough left. It takes the
places of its limits in the same step. A session whose worker can never give a strict call what it needs moves with that
call to another worker, unless it is kept.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Generic

from .limits import LimitedCalls
from .places import Places
from .queues import LAST, NEVER, C, CallQueue, Group, Limit, SessionQueue, SessionQueues, Slot
from .resources import NeedyCalls, Offers, give_back, occupy

AGEING: Final = 1.0  # seconds in the queue that count as much as a step of priority
PATIENCE: Final = 0.01  # seconds
_SMOOTHING: Final = 0.25


class QueueFull(Exception):
    """A new call would have to wait, but as many calls or bytes as allowed wait already."""


class PlaceTaken(Exception):
    """The worker of a call's session has no free place, and the call does not wait for one."""


class Scheduler(Generic[C]):
    """Assigns calls to slots. Each returned pair is an assignment that the caller now carries out."""

    def __init__(
        self,
        *,
        concurrency: int,
        ahead: int,
        most: float = NEVER,
        most_bytes: float = NEVER,
        sessions: int = 10_000,
    ) -> None:
        self._concurrency = concurrency
        self._most = most
        self._most_bytes = most_bytes
        self._order = itertools.count(1)
        self._queue: CallQueue[C] = CallQueue()  # calls that may go to any worker
        self._sessions: SessionQueues[C] = SessionQueues(sessions)
        self._limited: LimitedCalls[C] = LimitedCalls()
        self._homes: list[Slot[C]] = []  # workers for which strict calls wait since they have taken their places
        self._slots: dict[Slot[C], None] = {}  # in the order of arrival, so that runs can be replayed
        self.needy: NeedyCalls[C] = NeedyCalls(self._slots, self._sessions.home)
        self._queued = self._queued_bytes = 0
        places: Places[C] = Places(concurrency, ahead)
        self._places = places
        self._choose, self._has_room, self._place = places.choose, places.has_room, places.place

    @property
    def queued(self) -> int:
        """Calls that wait for a worker."""
        return self._queued

    @property
    def queued_with_limits(self) -> int:
        """Those of them that wait for places of limits, or for a worker together with such places."""
        return sum(call.weight for call in (*self._limited, *self.needy) if call.limits)

    @property
    def queued_bytes(self) -> int:
        """The bytes that waiting calls hold."""
        return self._queued_bytes

    def unserved(self, further: Sequence[Offers]) -> int:
        """Waiting calls that a further worker would take. `further` is what further workers would offer.

        Those of one session count as one, as do all with limits, and all that need resources.
        """
        bounded = (self._limited.first is not None) + (self.needy.queued > 0 and self.needy.fits(further))
        return len(self._queue) + len(self._sessions.unbound) + bounded

    @property
    def homes(self) -> set[Slot[C]]:
        """The workers that sessions are bound to. Takes longer the more sessions there are."""
        return self._sessions.homes

    @property
    def kept_homes(self) -> set[Slot[C]]:
        """The workers of the sessions that `keep` holds."""
        return self._sessions.kept_homes

    @property
    def has_sent_ahead(self) -> bool:
        """Whether any worker holds more calls than it has places."""
        return any(len(slot.calls) > self._concurrency for slot in self._slots)

    def add(self, slot: Slot[C], now: float) -> list[tuple[Slot[C], C]]:
        """Add a worker, which is ready for calls."""
        self._slots[slot] = None
        slot.last_progress = now
        assigned = self._replace(slot, now)
        if self.needy.queued:
            self.needy.reserve()
        return assigned

    def remove(self, slot: Slot[C], now: float) -> tuple[list[C], list[tuple[Slot[C], C]]]:
        """A worker takes no more calls. Calls that waited for it may go to any worker.

        Returns the calls that it held, in the order of their assignment, and the new assignments.
        """
        slot.is_gone = True
        self._slots.pop(slot, None)
        self._places.remove(slot)
        self._sessions.unbind(slot)
        calls = list(slot.calls.values())
        slot.calls.clear()
        if self.needy.queued:
            self.needy.reserve()
        return calls, self._spread(now)

    def submit(self, call: C, now: float) -> Slot[C] | None:
        """Take a new call. Returns the worker that it is assigned to, or None if it waits in the queue.

        If the call may not wait, forgets the call and raises `QueueFull` or `PlaceTaken`.
        """
        call.order = next(self._order)
        call.rank = now - AGEING * call.priority
        if call.needs:
            return self._submit_needy(call, now)
        if call.limits:
            return self._submit_limited(call, now)
        # No call waits for a slot that has room: the slot took all of them when it got the room.
        slot = self._choose_for(call) if call.session_id else self._choose()
        if slot is not None:
            self._assign(slot, call, now)
            self._place(slot)
            return slot
        self.count_more(call.weight, call.size)
        if call.session_id and call.affinity != "hint":
            self._sessions.append(call)
        else:
            self._queue.append(call)
        return None

    def number(self, call: C) -> None:
        """Give a call its order. It waits elsewhere: in a batch, which is submitted in its place."""
        call.order = next(self._order)

    def count_more(self, calls: int, size: int) -> None:
        """Count calls that wait from now on, and their bytes; fewer than none if they leave a waiting batch.

        Raises `QueueFull`, and then counts nothing.
        """
        if calls > 0:
            self._check_room(calls, size)
        self._queued += calls
        self._queued_bytes += size

    def check_more(self, calls: int, size: int) -> None:
        """Raise `QueueFull` if calls that are collected would have to wait in the queue, and do not fit into it."""
        if next(iter(self._places), None) is None:
            self._check_room(calls, size)

    def _check_room(self, calls: int, size: int) -> None:
        if self._queued + calls > self._most or self._queued_bytes + size > self._most_bytes:
            raise QueueFull

    def _submit_limited(self, call: C, now: float) -> Slot[C] | None:
        slot = self._choose_for(call) if call.session_id else self._choose()
        # No call waits for places that are all free while a worker that it may go to has room.
        if slot is not None and not any(limit.is_full for limit in call.limits):
            self._limited.take(call)
            self._assign(slot, call, now)
            self._place(slot)
            return slot
        self.count_more(call.weight, call.size)
        self._limited.append(call)
        self._admit_strict()
        return None

    def _submit_needy(self, call: C, now: float) -> Slot[C] | None:
        home = self.needy.home(call)
        slot = self.needy.choose(call, self._with_room_for(call, home))
        if slot is None and home is not None and call.affinity == "strict_fail_fast":
            raise PlaceTaken
        if slot is not None and not any(limit.is_full for limit in call.limits):
            if call.limits:
                self._limited.take(call)
            occupy(slot, call)
            self._assign(slot, call, now)
            self._place(slot)
            return slot
        self.count_more(call.weight, call.size)
        self.needy.append(call)
        return None

    def _with_room_for(self, call: C, home: Slot[C] | None) -> Iterator[Slot[C]]:
        if home is not None:
            is_free = len(home.calls) < self._concurrency
            if is_free or (call.affinity == "strict" and self._has_room(home)):
                yield home
        if home is None or call.affinity == "hint":
            yield from self._places

    def withdraw(self, call: C) -> bool:
        """Take a waiting call out of the queue. Returns False if it does not wait.

        If the call has limits or needs, `admit` must be called next: the call may have held places, or held up others.
        """
        if call.needs:
            found = self.needy.remove(call)
        elif call.limits:
            found = self._limited.remove(call) or self._sessions.remove(call)
            if found:
                self._limited.free(call)
        else:
            found = self._queue.remove(call) or self._sessions.remove(call)
        if found:
            self._count(call, -1)
        return found

    def admit(self, now: float) -> list[tuple[Slot[C], C]]:
        """Assign calls that can run now, because places of limits have become free, or a call was withdrawn."""
        return self._spread(now, self.needy.has_limits) + self._refill(now)

    def _refill(self, now: float) -> list[tuple[Slot[C], C]]:
        """Fill workers that calls may go to which could not go there before."""
        assigned: list[tuple[Slot[C], C]] = []
        while (slots := self._homes) or (slots := self.needy.loosened):
            slot = slots.pop()
            if slot in self._slots:
                assigned += self._fill(slot, now)
        return assigned

    def end(self, call: C, now: float) -> list[tuple[Slot[C], C]]:
        """A call is over that no worker holds any more: take back its places, if it has any."""
        return self.admit(now) if self._limited.free(call) else []

    def resized(self, limit: Limit, now: float) -> list[tuple[Slot[C], C]]:
        """The number of a limit's places has changed."""
        self._limited.renew(limit)
        return self.admit(now)

    def holds(self, call: C) -> bool:
        """Whether a call holds places of its limits."""
        return self._limited.holds(call)

    def holders(self, limit: Limit) -> list[C]:
        """The calls that hold the places of a limit. Takes longer the more calls with limits there are."""
        return self._limited.holders(limit)

    def release(self, slot: Slot[C], call: C, now: float) -> list[tuple[Slot[C], C]]:
        """A call of a worker has ended. Its place may go to the next call in the queue."""
        if slot.calls.pop(call.order, None) is None:
            return self.end(call, now) if call.limits else []
        sample = now - max(slot.last_progress, call.assigned_at)
        slot.pace = sample if slot.pace is NEVER else slot.pace + _SMOOTHING * (sample - slot.pace)
        slot.last_progress = now
        slot.recalled = False
        return self._replace(slot, now) if not (call.limits or call.needs) else self._free(slot, call, now)

    def unassign(self, slot: Slot[C], call: C, now: float) -> list[tuple[Slot[C], C]]:
        """Take back an assignment: the call will not run. Its place may go to the next call in the queue."""
        if slot.calls.pop(call.order, None) is None:
            return self.end(call, now) if call.limits else []
        return self._replace(slot, now) if not (call.limits or call.needs) else self._free(slot, call, now)

    def give_back(self, slot: Slot[C], call: C, now: float) -> list[tuple[Slot[C], C]]:
        """A worker has given back a call that it had not started: put it back at its position in the queue."""
        if slot.calls.pop(call.order, None) is None:
            return []
        give_back(slot, call)
        return self.requeue(call, now) + self._replace(slot, now)

    def requeue(self, call: C, now: float) -> list[tuple[Slot[C], C]]:
        """Put a call that was assigned, but never started, back at its position in the queue."""
        self._count(call)
        if call.needs:
            self._limited.free(call)
            self.needy.put_back(call)
            return self._spread(now) + self._refill(now)
        if call.limits:
            self._limited.free(call)
            self._limited.put_back(call)
            return self.admit(now)
        if call.session_id and call.affinity != "hint":
            slot = self._sessions.put_back(call)
            return self._spread(now) if slot is None else self._fill(slot, now)
        self._queue.put_back(call)
        return self._spread(now)

    def stalled(self, now: float) -> list[tuple[Slot[C], list[C]]]:
        """Workers without progress for `PATIENCE`, and the calls to recall from each."""
        found = []
        for slot in self._slots:
            waiting = len(slot.calls) - self._concurrency
            if waiting > 0 and not slot.recalled and now - slot.last_progress > PATIENCE:
                slot.pace = NEVER
                slot.recalled = True
                self._place(slot)
                found.append((slot, list(slot.calls.values())[self._concurrency :]))
        return found

    def mend(self, now: float, forget: Callable[[C], bool]) -> None:
        """Rebuild the scheduler's state after an error in the middle of a change.

        It is certain which calls each worker holds, and which calls wait. All other state is made from that. Calls for
        which `forget` returns True are dropped. Workers with room take waiting calls; the caller finds these
        assignments in `held`.
        """
        for slot in self._slots:
            slot.calls = OrderedDict((order, call) for order, call in slot.calls.items() if not forget(call))
        for call in [call for call in (*self._queue, *self._sessions) if forget(call)]:
            self._queue.remove(call)
            self._sessions.drop(call)
        self._sessions.mend(self._slots)
        held = [call for _, call in self.held()]
        needy = {call.order for call in self.needy} - {call.order for call in held}
        self._limited.mend(
            [call for call in held if call.limits],
            [call for call in self._sessions if call.limits],
            lambda call: call.order in needy or forget(call),
        )
        self.needy.mend(held, forget)  # when the limits are right again
        self._queued = sum(call.weight for call in self._waiting())
        self._queued_bytes = sum(call.size for call in self._waiting())
        for slot in self._slots:
            self._fill(slot, now)
        self.admit(now)

    def held(self) -> list[tuple[Slot[C], C]]:
        """All calls that workers hold."""
        return [(slot, call) for slot in self._slots for call in slot.calls.values()]

    def clear(self) -> list[C]:
        """Empty the queue. Returns the calls that waited, oldest first."""
        calls = sorted(self._waiting(), key=lambda call: call.order)
        for call in calls:
            self.withdraw(call)
        return calls

    def _waiting(self) -> list[C]:
        return [*self._queue, *self._sessions, *self._limited, *self.needy]

    def home(self, session_id: str) -> Slot[C] | None:
        """The worker that served a session last, as long as it takes calls and the session is not forgotten."""
        return self._sessions.home(session_id)

    def keep(self, session_id: str) -> None:
        """Keep a session with its worker, or with the next one that serves it, as long as that worker takes calls.

        Its strict calls go to no other worker, even if other calls of it do. A kept session is not forgotten.
        """
        self._sessions.keep(session_id)

    def let_go(self, session_id: str) -> None:
        """Undo `keep`: the session is still bound to its worker, but may move and be forgotten again."""
        self._sessions.let_go(session_id)

    def keeps(self, session_id: str) -> bool:
        """Whether `keep` holds for a session."""
        return self._sessions.keeps(session_id)

    def _choose_for(self, call: C) -> Slot[C] | None:
        home = self._sessions.home(call.session_id)
        if home is None:
            return self._choose()
        if len(home.calls) < self._concurrency:
            return home
        if call.affinity == "strict_fail_fast":
            raise PlaceTaken
        if call.affinity == "strict":
            return home if self._has_room(home) else None
        # First choice: a free place elsewhere. Then: sent ahead to the home. Last: sent ahead to another worker.
        other = self._choose()
        ahead_at_home = other is not None and len(other.calls) >= self._concurrency and self._has_room(home)
        return home if ahead_at_home else other

    def _assign(self, slot: Slot[C], call: C, now: float) -> None:
        slot.calls[call.order] = call
        if len(slot.calls) == 1:
            slot.last_progress = now
        call.assigned_at = now
        if call.session_id:
            if call.needs and call.affinity != "hint" and self._sessions.home(call.session_id) not in (None, slot):
                self._homes.extend(self._slots)  # the session moves: its other calls may go elsewhere now
            self._sessions.bind(call.session_id, slot)

    def _free(self, slot: Slot[C], call: C, now: float) -> list[tuple[Slot[C], C]]:
        if call.needs:
            give_back(slot, call)
        if not call.limits:
            return self._replace(slot, now)
        self._limited.free(call)
        return self._replace(slot, now) + self.admit(now)

    def _replace(self, slot: Slot[C], now: float) -> list[tuple[Slot[C], C]]:
        assigned = self._fill(slot, now) if slot in self._slots else []
        return assigned + self._refill(now) if self.needy.loosened or self._homes else assigned

    def _fill(self, slot: Slot[C], now: float) -> list[tuple[Slot[C], C]]:
        """Give a worker the calls that it has room for, and note what room is left."""
        assigned = []
        while self._queued and self._has_room(slot) and (call := self._take_for(slot)) is not None:
            slot.calls[call.order] = call  # at once, so that no error from here on loses the call
            self._assign(slot, call, now)
            assigned.append((slot, call))
        self._place(slot)
        return assigned

    def _spread(self, now: float, with_needs: bool = True) -> list[tuple[Slot[C], C]]:
        assigned: list[tuple[Slot[C], C]] = []
        while (self._queue or self._sessions.unbound or self._limited.queued) and (slot := self._choose()) is not None:
            call = self._take_for(slot)
            if call is None:  # all that is left waits for limits
                break
            slot.calls[call.order] = call
            self._assign(slot, call, now)
            self._place(slot)
            assigned.append((slot, call))
            if slot.group:  # the session's other waiting calls may go to no other worker now
                assigned += self._fill(slot, now)
        if with_needs and self.needy.queued:  # which worker has enough is another question than which has room
            for slot in self._slots:
                assigned += self._fill(slot, now)
        return assigned

    def _take_for(self, slot: Slot[C]) -> C | None:
        if self._limited.queued:
            self._admit_strict()
        group = self._next_group(slot) if self._sessions.queued else None
        if self.needy.queued and (same := self.needy.first_for(slot)) is not None:
            others = (self._queue.head, self._limited.head, LAST if group is None else group.head)
            if same.queue.head < min(others):
                occupy(slot, same.queue.first)
                return self._take_bounded(slot, same.queue.first, self.needy)
        if self._limited.queued and self._limited.head < min(self._queue.head, LAST if group is None else group.head):
            assert self._limited.first is not None
            return self._take_bounded(slot, self._limited.first, self._limited)
        call = self._queue.pop() if group is None or self._queue.head <= group.head else self._sessions.take(group)
        if call is not None:
            self._queued -= call.weight  # not by a call of a function, at which memory may run out
            self._queued_bytes -= call.size
        return call

    def _take_bounded(self, slot: Slot[C], call: C, queue: LimitedCalls[C] | NeedyCalls[C]) -> C:
        if call.limits:
            self._limited.take(call)  # while it still waits, so that no error loses it
        self._queued -= call.weight
        self._queued_bytes -= call.size
        slot.calls[call.order] = call  # before it leaves its queue, for the same reason
        queue.remove(call)
        return call

    def _admit_strict(self) -> None:
        """Let strict calls take their places, as far as these are free and it is their turn."""
        while (call := self._limited.first) is not None and call.session_id and call.affinity != "hint":
            self._limited.take(call)
            home = self._sessions.put_back(call)  # before it leaves, so that no error loses it
            self._limited.remove(call)
            if home is not None and self._has_room(home):
                self._homes.append(home)

    def _count(self, call: C, change: int = 1) -> None:
        self._queued += change * call.weight
        self._queued_bytes += change * call.size

    def _next_group(self, slot: Slot[C]) -> Group[SessionQueue[C]]:
        own, unbound = slot.group, self._sessions.unbound
        return own if own.head < unbound.head else unbound
