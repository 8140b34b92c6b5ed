"""Property: under any arrivals, ends, deaths, withdrawals and recalls the scheduler keeps its promises.

No worker holds more than its limit, none more than its places unless it is quick, no call is lost or is in two
places, and none waits while a worker that it may go to has room. Of the calls that may go to a worker it gets the
one with the lowest rank: the oldest, if their priorities are the same. A strict call goes to its session's worker as
long as that lives, which for a session that is kept none of its other calls can change. A call is refused only if it
would have to wait. Of a limit no more places are taken than it has, and each is given back once; a call holds all of
its places or none, and calls whose places are taken hold up no others. All this holds after the state was mended.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from snakepit_trio._calls.queues import Limit, Slot
from snakepit_trio._calls.scheduler import AGEING, PATIENCE, QUICK, PlaceTaken, QueueFull, Scheduler
from snakepit_trio._config.policies import Affinity

SESSIONS = ["", "", "a", "a", "b", "c", "d"]
PRIORITIES = [0, 0, 0, 0, -100, -2, 1, 2, 100]
LIMITS = [(), (), (), (0,), (0,), (1,), (2,), (0, 1), (1, 0), (1, 2), (0, 1, 2)]


class Item:
    """A call, as far as the scheduler sees."""

    order = 0
    rank = 0.0
    assigned_at = 0.0
    since = 0.0  # for the tests: when it was submitted

    def __init__(
        self,
        session_id: str = "",
        affinity: Affinity = "hint",
        priority: int = 0,
        limits: tuple[Limit, ...] = (),
    ) -> None:
        self.limits = limits
        self.size = 1 + len(session_id)
        self.session_id = session_id
        self.affinity = affinity
        self.priority = priority


def place(call: Item) -> tuple[float, int]:
    """The place of a call among all that wait, by the definition of priorities."""
    return call.since - AGEING * call.priority, call.order


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

    def _may_go(self, call: Item, slot: Slot[Item]) -> bool:
        return self._has_places(call) and (call.affinity == "hint" or self.homes.get(call.session_id, slot) is slot)

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
        may_be_forgotten = call.limits and self.sessions < 4
        assert self._may_go(call, slot) or may_be_forgotten, "a strict call goes to its session's worker"
        # A strict call may have got its places before a call came that has a better place in the queue.
        if call not in self.had:
            self.taken.discard(call)
        for other in self.waiting:
            assert place(other) > place(call) or not self._may_go(other, slot), "calls are assigned in their order"
        assert self._has_places(call), "a call starts only with its places"
        self.taken.add(call)
        assert call not in self.held
        self.held[call] = slot
        if call.session_id and not (call.session_id in self.kept and call.session_id in self.homes):
            self.homes[call.session_id] = slot

    def _carry_out(self, assignments: list[tuple[Slot[Item], Item]]) -> None:
        self.had = self.taken.copy()
        self._strict_calls_have_places()
        for slot, call in assignments:
            self.waiting.remove(call)
            self._hold(slot, call)

    def _wait(self, call: Item) -> None:
        self.waiting.append(call)
        self.waiting.sort(key=place)

    @rule(seconds=st.sampled_from([0.0, QUICK / 10, QUICK * 10, PATIENCE * 2, AGEING, AGEING * 3]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def worker_comes(self) -> None:
        if len(self.slots) < 4:
            slot: Slot[Item] = Slot()
            self.slots.append(slot)
            self._carry_out(self.scheduler.add(slot, self.now))

    @rule(session=st.sampled_from(SESSIONS), priority=st.sampled_from(PRIORITIES), needs=st.sampled_from(LIMITS))
    def call_comes(self, session: str, priority: int, needs: tuple[int, ...]) -> None:
        limits = tuple(self.limits[number] for number in needs)
        call, home = Item(session, self.affinities[session], priority, limits), self.homes.get(session)
        call.since = self.now
        can_run = any(self._may_go(call, slot) and self._has_room(slot) for slot in self.slots)
        has_place = home is not None and len(home.calls) < self.concurrency
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
        assert self.scheduler.queued_bytes == sum(call.size for call in self.waiting)
        assert {call: slot for slot in self.slots for call in slot.calls.values()} == self.held
        self._compare_homes()
        self._compare_limits()
        for slot in self.slots:
            assert len(slot.calls) <= self.concurrency + self.ahead
            if self._has_room(slot):
                assert not any(self._may_go(call, slot) for call in self.waiting), (
                    "no call waits for a worker with room"
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
        strict = [call for call in self.waiting if call.affinity != "hint"]
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


@given(
    arrivals=st.lists(
        st.tuples(st.sampled_from([0.0, 0.1, 1.0, 50.0]), st.integers(-100, 100), st.booleans()), min_size=2
    ),
    session_id=st.sampled_from(["", "a"]),
)
def test_no_call_is_overtaken_for_ever(arrivals: list[tuple[float, int, bool]], session_id: str) -> None:
    """A call is overtaken only by calls that came less than a second later for each step of priority above its own."""
    scheduler: Scheduler[Item] = Scheduler(concurrency=1, ahead=0)
    slot: Slot[Item] = Slot()
    scheduler.add(slot, 0.0)
    now, calls, started = 0.0, [], []
    for pause, priority, one_ends in arrivals:
        now += pause
        call = Item(session_id, "strict", priority)
        call.since = now
        calls.append(call)
        if scheduler.submit(call, now):
            started.append(call)
        if one_ends:
            started += [next_one for _, next_one in scheduler.release(slot, started[-1], now)]
    while slot.calls:
        started += [next_one for _, next_one in scheduler.release(slot, started[-1], now)]
    assert sorted(started, key=lambda call: call.order) == calls, "each has run, and once"
    for number, later in enumerate(started):
        for overtaken in started[number + 1 :]:
            if overtaken.order < later.order:
                ahead = AGEING * (later.priority - overtaken.priority)
                assert later.since - overtaken.since <= min(ahead, 200 * AGEING)
                assert ahead > 0, "calls of one priority keep their order"


def test_a_call_of_a_higher_priority_overtakes_in_its_session_and_its_session_overtakes_others() -> None:
    scheduler: Scheduler[Item] = Scheduler(concurrency=1, ahead=0)
    slot: Slot[Item] = Slot()
    scheduler.add(slot, 0.0)
    running, *waiting = calls = [
        Item(session, "strict", priority) for session, priority in (("a", 0), ("a", 0), ("", 0), ("b", 1), ("a", 2))
    ]
    assert [scheduler.submit(call, 0.0) for call in calls] == [slot, None, None, None, None]
    for expected in (waiting[3], waiting[2], waiting[0], waiting[1]):
        assert scheduler.release(slot, running, 0.0) == [(slot, expected)]
        running = expected
    assert scheduler.queued == 0


def test_a_session_moves_ahead_of_the_others_of_its_worker_with_its_first_call() -> None:
    scheduler: Scheduler[Item] = Scheduler(concurrency=2, ahead=0)
    slot: Slot[Item] = Slot()
    scheduler.add(slot, 0.0)
    held = [Item(session, "strict") for session in "ab"]
    waiting = [Item("a", "strict"), Item("b", "strict", 1), Item("a", "strict", 2)]
    assert [scheduler.submit(call, 0.0) for call in (*held, *waiting)] == [slot, slot, None, None, None]
    assert scheduler.release(slot, held[0], 0.0) == [(slot, waiting[2])]
    assert scheduler.release(slot, held[1], 0.0) == [(slot, waiting[1])]
    assert scheduler.release(slot, waiting[2], 0.0) == [(slot, waiting[0])]


def test_calls_that_come_back_have_their_places_among_all_priorities() -> None:
    scheduler: Scheduler[Item] = Scheduler(concurrency=3, ahead=0)
    slot: Slot[Item] = Slot()
    scheduler.add(slot, 0.0)
    held = [Item(priority=priority) for priority in (0, 5, -5)]
    for call in held:
        scheduler.submit(call, 0.0)
    waiting = [Item(priority=priority) for priority in (0, 5, -5, 9)]
    for call in waiting:
        assert scheduler.submit(call, 1.0) is None
    lost, _ = scheduler.remove(slot, 1.0)
    for call in lost:
        assert scheduler.requeue(call, 1.0) == []
    other: Slot[Item] = Slot()
    assigned = scheduler.add(other, 50.0)
    while len(assigned) < 7:
        assigned += scheduler.release(other, next(iter(other.calls.values())), 50.0)
    assert [call for _, call in assigned] == [waiting[3], held[1], waiting[1], held[0], waiting[0], held[2], waiting[2]]


@pytest.mark.parametrize("affinity", ["hint", "strict"])
@pytest.mark.parametrize("priorities", [[0], [-100, 3, 100, 0]])
def test_cancelled_waiters_and_old_sessions_leave_nothing(affinity: Affinity, priorities: list[int]) -> None:
    scheduler: Scheduler[Item] = Scheduler(concurrency=1, ahead=0, sessions=50)
    slot: Slot[Item] = Slot()
    scheduler.add(slot, 0.0)
    running = Item("mine", affinity)
    scheduler.submit(running, 0.0)
    before = _objects()
    for number in range(5_000):
        call = Item(("mine", f"session {number}", "")[number % 3], affinity, priorities[number % len(priorities)])
        assert scheduler.submit(call, 0.0) is None
        assert scheduler.withdraw(call)
    assert _objects() - before < 1_000
    assert scheduler.release(slot, running, 0.0) == []


def test_all_calls_of_a_dead_workers_session_move_at_once() -> None:
    scheduler: Scheduler[Item] = Scheduler(concurrency=2, ahead=0)
    first: Slot[Item] = Slot()
    scheduler.add(first, 0.0)
    calls = [Item("a", "strict") for _ in range(5)]
    assert [scheduler.submit(call, 0.0) for call in calls] == [first, first, None, None, None]
    second: Slot[Item] = Slot()
    assert scheduler.add(second, 0.0) == []
    assert scheduler.remove(first, 0.0) == (calls[:2], [(second, calls[2]), (second, calls[3])])
    assert scheduler.home("a") is second
    assert scheduler.requeue(calls[1], 0.0) == []
    assert scheduler.requeue(calls[0], 0.0) == []
    assert scheduler.release(second, calls[2], 0.0) == [(second, calls[0])]
    assert scheduler.release(second, calls[3], 0.0) == [(second, calls[1])]
    assert scheduler.release(second, calls[0], 0.0) == [(second, calls[4])]


class Counter:
    """Counts the functions that are called in a block, C's too: the steps that something takes, whatever the time."""

    calls = 0

    def __enter__(self) -> Counter:
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _note(self, _frame: object, event: str, _argument: object) -> None:
        self.calls += event in ("call", "c_call")


def steps_with(waiting: int, affinity: Affinity, priorities: list[int]) -> dict[str, int]:
    """The most steps that each operation takes while so many calls wait, of as many sessions and of none."""
    scheduler: Scheduler[Item] = Scheduler(concurrency=2, ahead=0, sessions=10**6)
    slots: list[Slot[Item]] = [Slot() for _ in range(4)]
    for slot in slots[1:]:
        scheduler.add(slot, 0.0)
    calls = [
        Item(f"session {n}" if n % 2 else "", affinity, priorities[n % len(priorities)]) for n in range(waiting + 40)
    ]
    for call in calls[:-20]:
        scheduler.submit(call, 0.0)
    steps = {"submit": 0, "withdraw": 0, "release": 0, "give back": 0}

    def count(what: str, operation: Callable[[], object]) -> None:
        with Counter() as counter:
            operation()
        steps[what] = max(steps[what], counter.calls)

    for number, new in enumerate(calls[-20:]):
        slot = slots[1 + number % 3]
        first, second = list(slot.calls.values())[:2]
        count("submit", lambda new=new: scheduler.submit(new, 0.0))  # type: ignore[misc]
        count("withdraw", lambda number=number: scheduler.withdraw(calls[-30 - number]))  # type: ignore[misc]
        count("release", lambda slot=slot, first=first: scheduler.release(slot, first, 0.0))  # type: ignore[misc]
        count("give back", lambda slot=slot, second=second: scheduler.give_back(slot, second, 0.0))  # type: ignore[misc]
    return steps


@pytest.mark.parametrize("affinity", ["hint", "strict"])
@pytest.mark.parametrize("priorities", [[0], [0, 7, -3, 7, 100]])
def test_the_steps_do_not_depend_on_how_many_wait(affinity: Affinity, priorities: list[int]) -> None:
    few, many = steps_with(100, affinity, priorities), steps_with(20_000, affinity, priorities)
    assert all(many[what] <= few[what] + 5 for what in few), f"with 100 calls {few}, with 20,000 {many}"


def _objects() -> int:
    gc.collect()
    return len(gc.get_objects())
