"""The scheduler's order of calls, of their priorities and sessions, and the steps that its operations take."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_trio._calls.queues import Slot
from snakepit_trio._calls.scheduler import AGEING, Scheduler
from snakepit_trio._config.policies import Affinity

from .test_scheduler import Item


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
