"""Property: under any arrivals, ends, deaths, withdrawals and recalls the scheduler keeps its promises.

No worker holds more than its limit, none more than its places unless it is quick, no call is lost or is in two
places, and none waits while a worker that it may go to has room. Of the calls that may go to a worker it gets the
one with the lowest rank: the oldest, if their priorities are the same. A strict call goes to its session's worker as
long as that lives, which for a session that is kept none of its other calls can change. A call is refused only if it
would have to wait. Of a limit no more places are taken than it has, and each is given back once; a call holds all of
its places or none, and calls whose places are taken hold up no others. A worker's calls never need more than it offers.
Where a call has a reservation, no later call starts that needs the same resources, and each call has one as soon as it
finds too little left. All this holds after the state was mended.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from snakepit_trio._calls.places import QUICK
from snakepit_trio._calls.queues import Limit, Needs, Slot
from snakepit_trio._calls.scheduler import AGEING, PATIENCE, PlaceTaken, QueueFull, Scheduler
from snakepit_trio._config.policies import Affinity

SESSIONS = ["", "", "a", "a", "b", "c", "d"]
PRIORITIES = [0, 0, 0, 0, -100, -2, 1, 2, 100]
LIMITS = [(), (), (), (0,), (0,), (1,), (2,), (0, 1), (1, 0), (1, 2), (0, 1, 2)]
OFFERS: list[dict[str, int]] = [{}, {"gpu": 1000}, {"gpu": 4000}, {"gpu": 2000, "memory": 8000}, {"memory": 3000}]
NEEDS: list[Needs] = [
    *[()] * 8,
    (("gpu", 500),),
    (("gpu", 1000),),
    (("gpu", 2000),),
    (("gpu", 4000),),
    (("gpu", 1000), ("memory", 2500)),
    (("memory", 1000),),
    (("memory", 3000),),
]
#: For each queue of calls with the same needs that has a reservation: where, from which place on, and of what.
Reservations = list[tuple[Slot["Item"], tuple[float, int], set[str]]]


class Item:
    """A call, as far as the scheduler sees."""

    order = 0
    rank = 0.0
    assigned_at = 0.0
    weight = 1
    since = 0.0  # for the tests: when it was submitted

    def __init__(
        self,
        session_id: str = "",
        affinity: Affinity = "hint",
        priority: int = 0,
        limits: tuple[Limit, ...] = (),
        needs: Needs = (),
        passes: bool = False,
    ) -> None:
        self.limits = limits
        self.needs = needs
        self.passes = passes
        self.size = 1 + len(session_id)
        self.session_id = session_id
        self.affinity = affinity
        self.priority = priority


def place(call: Item) -> tuple[float, int]:
    """The place of a call among all that wait, by the definition of priorities."""
    return call.since - AGEING * call.priority, call.order


def offers_enough(slot: Slot[Item], call: Item) -> bool:
    """Whether a worker with nothing to do has enough for a call."""
    return all(slot.offers.get(name, 0) >= amount for name, amount in call.needs)


class Machine(RuleBasedStateMachine):
    """The scheduler and a plain account of where every call and every session is."""

    @initialize(
        concurrency=st.integers(1, 3),
        ahead=st.integers(0, 4),
        most=st.sampled_from([0, 1, 3, 8, float("inf")]),
        affinities=st.fixed_dictionaries(
            {session: st.sampled_from(["hint", "strict", "strict", "strict_fail_fast"]) for session in SESSIONS}
        ),
        sessions=st.sampled_from([1, 2, 10]),
        limits=st.tuples(*[st.integers(1, 3)] * 3),
    )
    def begin(
        self,
        concurrency: int,
        ahead: int,
        most: float,
        affinities: dict[str, Affinity],
        sessions: int,
        limits: tuple[int, ...],
    ) -> None:
        self.concurrency, self.ahead, self.most = concurrency, ahead, most
        self.affinities, self.sessions = affinities, sessions
        self.scheduler: Scheduler[Item] = Scheduler(concurrency=concurrency, ahead=ahead, most=most, sessions=sessions)
        self.now = 0.0
        self.slots: list[Slot[Item]] = []
        self.waiting: list[Item] = []
        self.held: dict[Item, Slot[Item]] = {}
        self.of_the_dead: list[Item] = []
        self.draining: list[Item] = []  # calls that run on in workers which take no more
        self.homes: dict[str, Slot[Item]] = {}
        self.kept: set[str] = set()
        self.limits = [Limit(f"limit {number}", places) for number, places in enumerate(limits)]
        self.taken: set[Item] = set()  # the calls that hold places, if they have limits
        self.had: set[Item] = set()  # those that held some before the latest step
        self.reserved: Reservations = []  # before the latest step
        self.started: list[Item] = []  # in the latest step

    def _may_go(self, call: Item, slot: Slot[Item], is_free: bool = False) -> bool:
        may_be_there = call.affinity == "hint" or self._home(call) in (None, slot)
        return may_be_there and self._has_places(call) and self._has_enough(call, slot, is_free)

    def _home(self, call: Item) -> Slot[Item] | None:
        """The worker of a call's session, if it can ever give the call what it needs."""
        home = self.homes.get(call.session_id)
        return home if home is not None and offers_enough(home, call) else None

    def _has_enough(self, call: Item, slot: Slot[Item], is_free: bool = False) -> bool:
        """Whether a worker has enough left for a call, and no reservation holds the call up."""
        has_enough = all(self._left(slot, name) >= amount for name, amount in call.needs)
        return has_enough and (is_free or not self._is_held_up(call, slot, self._reservations()))

    def _left(self, slot: Slot[Item], name: str) -> int:
        taken = sum(dict(call.needs).get(name, 0) for call, at in self.held.items() if at is slot)
        return slot.offers.get(name, 0) - taken

    def _is_held_up(self, call: Item, slot: Slot[Item], reservations: Reservations) -> bool:
        names = {name for name, _ in call.needs}
        return not call.passes and any(
            at is slot and first < place(call) and names & of for at, first, of in reservations
        )

    def _may_have_been_held_up(self, call: Item, later: Item) -> bool:
        """Whether a call may have been held up in the latest step, before this later one started."""
        if call.needs and later.session_id and later.affinity != "hint" and set(call.limits) & set(later.limits):
            return True  # the later one took its places before it waited for its worker
        # By the reservation of a call that has started in the meantime.
        names = {name for name, _ in call.needs}
        return any(place(other) < place(call) and names & {name for name, _ in other.needs} for other in self.started)

    def _reservations(self) -> Reservations:
        return [(at, place(calls[0]), {name for name, _ in calls[0].needs}) for calls, at in self._reserving() if at]

    def _reserving(self) -> Iterator[tuple[list[Item], Slot[Item] | None]]:
        """The waiting calls that need the same, in their order, with the worker that is reserved for them."""
        needy = self.scheduler.needy
        for same in needy._queues.values():
            if calls := sorted((call for call in same.queue), key=place):
                yield calls, needy._reserved(same)

    def _has_places(self, call: Item) -> bool:
        """Whether a call has places of its limits, or all of them are free."""
        return call in self.taken or not any(self._is_full(limit) for limit in call.limits)

    def _is_full(self, limit: Limit) -> bool:
        return sum(limit in call.limits for call in self.taken) >= limit.most

    def _strict_calls_have_places(self) -> None:
        """Strict calls take their places when it is their turn, and wait for their worker with them."""
        strict = {call for call in self.waiting if call.session_id and call.affinity != "hint" and call.limits}
        self.taken |= {call for call in strict if self.scheduler.holds(call)}

    def _has_room(self, slot: Slot[Item]) -> bool:
        load = len(slot.calls)
        return load < self.concurrency or (load < self.concurrency + self.ahead and slot.pace < QUICK)

    def _hold(self, slot: Slot[Item], call: Item) -> None:
        assert slot in self.slots
        may_be_forgotten = (call.limits or call.needs) and self.sessions < 4
        is_free = not self._is_held_up(call, slot, self.reserved)  # it may be held up since its start only
        assert self._may_go(call, slot, is_free) or may_be_forgotten, "a strict call goes to its session's worker"
        # A strict call may have got its places before a call came that has a better place in the queue.
        if call not in self.had:
            self.taken.discard(call)
        for other in self.waiting:
            was_held_up = self._is_held_up(other, slot, self.reserved) or self._may_have_been_held_up(other, call)
            is_later = place(other) > place(call) or was_held_up
            assert is_later or not self._may_go(other, slot), "calls are assigned in their order"
        assert self._has_places(call), "a call starts only with its places"
        self.taken.add(call)
        assert call not in self.held
        self.held[call] = slot
        if call.session_id and not (call.session_id in self.kept and call.session_id in self.homes):
            self.homes[call.session_id] = slot

    @invariant()
    def note_reservations(self) -> None:
        if hasattr(self, "scheduler"):
            self.reserved = self._reservations()

    def _carry_out(self, assignments: list[tuple[Slot[Item], Item]]) -> None:
        self.had = self.taken.copy()
        self._strict_calls_have_places()
        self.started = [call for _, call in assignments]
        for slot, call in assignments:
            self.waiting.remove(call)
            self._hold(slot, call)

    def _wait(self, call: Item) -> None:
        self.waiting.append(call)
        self.waiting.sort(key=place)

    @rule(seconds=st.sampled_from([0.0, QUICK / 10, QUICK * 10, PATIENCE * 2, AGEING, AGEING * 3]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(offers=st.sampled_from(OFFERS))
    def worker_comes(self, offers: dict[str, int]) -> None:
        if len(self.slots) < 4:
            slot: Slot[Item] = Slot(offers)
            self.slots.append(slot)
            unserved = self.scheduler.unserved([offers])
            assigned = self.scheduler.add(slot, self.now)
            assert bool(assigned) == bool(unserved), "calls are unserved if another worker would take some"
            self._carry_out(assigned)

    @rule(
        session=st.sampled_from(SESSIONS),
        priority=st.sampled_from(PRIORITIES),
        numbers=st.sampled_from(LIMITS),
        needs=st.sampled_from(NEEDS),
        passes=st.sampled_from([False, False, False, True]),
    )
    def call_comes(self, session: str, priority: int, numbers: tuple[int, ...], needs: Needs, passes: bool) -> None:
        limits = tuple(self.limits[number] for number in numbers)
        call = Item(session, self.affinities[session], priority, limits, needs, passes)
        call.since, call.order = self.now, 1 << 62  # it comes after all that wait
        home = self._home(call)
        can_run = any(self._may_go(call, slot) and self._has_room(slot) for slot in self.slots)
        has_place = home is not None and len(home.calls) < self.concurrency and self._has_enough(call, home)
        try:
            slot = self.scheduler.submit(call, self.now)
        except QueueFull:
            assert not can_run
            assert len(self.waiting) >= self.most
        except PlaceTaken:
            assert call.affinity == "strict_fail_fast"
            assert home is not None
            assert not has_place
        else:
            assert (slot is not None) == can_run
            assert home is None or has_place or call.affinity != "strict_fail_fast"
            if slot is None:
                assert len(self.waiting) < self.most
                self._wait(call)
            else:
                assert slot is home or not has_place, "a session keeps to its worker while that has a place"
                self._hold(slot, call)
            self._strict_calls_have_places()

    @rule(session=st.sampled_from(SESSIONS[2:]), is_kept=st.booleans())
    def session_is_kept_or_let_go(self, session: str, is_kept: bool) -> None:
        (self.scheduler.keep if is_kept else self.scheduler.let_go)(session)
        (self.kept.add if is_kept else self.kept.discard)(session)
        assert self.scheduler.keeps(session) == is_kept

    @precondition(lambda self: self.held)
    @rule(data=st.data(), how=st.sampled_from(["release", "give_back"]))
    def call_leaves(self, data: st.DataObject, how: str) -> None:
        call = data.draw(st.sampled_from(sorted(self.held, key=lambda held: held.order)))
        slot = self.held.pop(call)
        self.taken.discard(call)
        if how == "release":
            self._carry_out(self.scheduler.release(slot, call, self.now))
            assert self.scheduler.release(slot, call, self.now) == [], "a call is released once"
        else:
            self._wait(call)
            self._carry_out(self.scheduler.give_back(slot, call, self.now))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def call_is_withdrawn(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(self.waiting))
        assert self.scheduler.withdraw(call)
        assert not self.scheduler.withdraw(call)
        self.waiting.remove(call)
        self.taken.discard(call)
        self._carry_out(self.scheduler.admit(self.now))

    @precondition(lambda self: self.slots)
    @rule(data=st.data(), how=st.sampled_from(["its calls come back", "its calls end", "its calls go on"]))
    def worker_dies(self, data: st.DataObject, how: str) -> None:
        slot = self.slots.pop(data.draw(st.integers(0, len(self.slots) - 1)))
        self.homes = {session: home for session, home in self.homes.items() if home is not slot}
        lost, assignments = self.scheduler.remove(slot, self.now)
        assert len(lost) == len(set(lost))
        assert set(lost) == {call for call, at in self.held.items() if at is slot}
        for call in lost:
            del self.held[call]
        self._carry_out(assignments)
        if how == "its calls come back":
            self.of_the_dead += lost
        elif how == "its calls go on":
            self.draining += lost
        else:
            self._end(lost)

    @precondition(lambda self: self.draining)
    @rule()
    def calls_of_a_worker_that_takes_no_more_end(self) -> None:
        self._end([self.draining.pop(0)])

    def _end(self, calls: list[Item]) -> None:
        for call in calls:
            self.taken.discard(call)
            self._carry_out(self.scheduler.end(call, self.now))
            assert self.scheduler.end(call, self.now) == [], "a call gives its places back once"

    @rule(number=st.sampled_from([0, 1, 2]), most=st.integers(1, 3))
    def a_limit_changes(self, number: int, most: int) -> None:
        self.limits[number].most = most
        self._carry_out(self.scheduler.resized(self.limits[number], self.now))

    @precondition(lambda self: self.of_the_dead)
    @rule()
    def calls_of_the_dead_come_back(self) -> None:
        for call in self.of_the_dead:
            self._wait(call)
            self.taken.discard(call)
            self._carry_out(self.scheduler.requeue(call, self.now))
            self._compare_homes()
        self.of_the_dead = []

    @rule(data=st.data())
    def state_is_mended(self, data: st.DataObject) -> None:
        calls = sorted((*self.held, *self.waiting), key=lambda call: call.order)
        lost = data.draw(st.sets(st.sampled_from(calls), max_size=3)) if calls else set()
        self.waiting = [call for call in self.waiting if call not in lost]
        self.held = {call: slot for call, slot in self.held.items() if call not in lost}
        self.taken -= lost
        self.scheduler.mend(self.now, lambda call: call in lost)
        assigned = [(slot, call) for slot, call in self.scheduler.held() if call not in self.held]
        self._carry_out(sorted(assigned, key=lambda assignment: place(assignment[1])))

    @rule()
    def look_for_stalls(self) -> None:
        for slot, calls in self.scheduler.stalled(self.now):
            assert slot in self.slots
            assert list(slot.calls.values())[self.concurrency :] == calls
        assert self.scheduler.stalled(self.now) == [], "a call is recalled once"

    @invariant()
    def accounts_agree(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        assert self.scheduler.queued == len(self.waiting)
        assert self.scheduler.needy.queued == sum(bool(call.needs) for call in self.waiting)
        assert self.scheduler.queued_bytes == sum(call.size for call in self.waiting)
        assert {call: slot for slot in self.slots for call in slot.calls.values()} == self.held
        self._compare_homes()
        self._compare_limits()
        self._compare_resources()
        for slot in self.slots:
            assert len(slot.calls) <= self.concurrency + self.ahead
            if self._has_room(slot):
                # A session that is forgotten while its call waits for its worker's resources wakes nobody.
                waiting = [call for call in self.waiting if not self._may_be_forgotten(call)]
                assert not any(self._may_go(call, slot) for call in waiting), "no call waits for a worker with room"

    def _may_be_forgotten(self, call: Item) -> bool:
        return bool(call.needs and call.affinity != "hint" and call.session_id and self.sessions < 4)

    def _compare_resources(self) -> None:
        for slot in self.slots:
            assert slot.free == {name: self._left(slot, name) for name in slot.offers}
            assert all(left >= 0 for left in slot.free.values())
        for calls, at in self._reserving():
            able = [slot for slot in self.slots if offers_enough(slot, calls[0])]
            assert at is None or at in able
            short = [slot for slot in able if self._has_room(slot)]
            if self._has_places(calls[0]) and short and not self._may_be_forgotten(calls[0]):
                assert at is not None or calls[0].affinity != "hint", (
                    "a call that finds too little left has a reservation"
                )

    def _compare_limits(self) -> None:
        for limit in self.limits:
            holders = {call for call in self.taken if limit in call.limits}
            assert limit.taken == len(holders)
            assert set(self.scheduler.holders(limit)) == holders
        assert all(call in self.taken for call in self.held)
        hints = [call for call in self.waiting if call.limits and (call.affinity == "hint" or not call.session_id)]
        assert not any(self.scheduler.holds(call) for call in hints), "a call waits for a worker without places"

    def _compare_homes(self) -> None:
        # A session may be forgotten while its calls wait for places, and not yet for its worker.
        strict = [call for call in self.waiting if call.affinity != "hint" and not call.needs]
        waiting = {call.session_id for call in strict if not call.limits or self.scheduler.holds(call)}
        for session in set(SESSIONS) - {""}:
            if session in self.homes and self.scheduler.home(session) is None:
                assert self.sessions < 4, "a session is forgotten only if there are too many"
                assert session not in waiting
                assert session not in self.kept, "a session that is kept is not forgotten"
                del self.homes[session]
            assert self.scheduler.home(session) is self.homes.get(session)
        assert len(self.homes) <= self.sessions + len(waiting) + len(self.kept)

    def teardown(self) -> None:
        if hasattr(self, "scheduler"):
            assert self.scheduler.clear() == sorted(self.waiting, key=lambda call: call.order)
            assert self.scheduler.queued == self.scheduler.queued_with_limits == 0
            for call in (*self.held, *self.of_the_dead, *self.draining):
                self.scheduler.end(call, self.now)
            assert [limit.taken for limit in self.limits] == [0, 0, 0], "all places are given back"


TestMachine = pytest.mark.slow(Machine.TestCase)
TestMachine.settings = settings(max_examples=300, stateful_step_count=60, deadline=None)
