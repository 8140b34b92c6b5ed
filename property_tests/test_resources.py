"""Properties of resources: amounts are exact, no call waits for ever, and steps do not depend on how many wait."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_py.wire.amounts import MOST, plain, thousandths
from snakepit_trio._calls.queues import Needs, Slot
from snakepit_trio._calls.scheduler import Scheduler

from .test_scheduler import Item
from .test_scheduler_order import Counter

SMALL = st.lists(st.tuples(st.integers(1, 3), st.integers(0, 5)), min_size=1, max_size=80)


def gpus(amount: float) -> Needs:
    return tuple(thousandths({"gpu": amount}).items())


@given(st.integers(0, MOST * 1000))
def test_what_has_three_decimals_is_exact(amount: int) -> None:
    number = plain({"gpu": amount})["gpu"]
    assert thousandths({"gpu": number}) == {"gpu": amount} or amount > 2**43  # a float has 53 bits
    assert abs(Fraction(number) - Fraction(amount, 1000)) < Fraction(1, 1000)


@given(st.one_of(st.booleans(), st.text(), st.floats(), st.integers(), st.none(), st.binary()))
def test_anything_else_is_a_value_error(value: object) -> None:
    is_amount = type(value) in (int, float) and 0 <= value <= MOST and value * 1000 % 1 == 0  # type: ignore[operator]
    if is_amount:
        assert thousandths({"gpu": value}) == {"gpu": value * 1000}  # type: ignore[operator]
    elif not isinstance(value, float) or not value > 0:
        with pytest.raises(ValueError, match="give"):
            thousandths({"gpu": value})


@given(
    large=st.integers(2, 4),
    offers=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    arrivals=SMALL,
    is_strict=st.booleans(),
)
def test_a_large_call_starts_as_soon_as_the_calls_of_one_worker_have_ended(
    large: int, offers: list[int], arrivals: list[tuple[int, int]], is_strict: bool
) -> None:
    """Small calls come without end. Behind the large call only those start that do not delay it."""
    scheduler: Scheduler[Item] = Scheduler(concurrency=4, ahead=0)
    slots: list[Slot[Item]] = [Slot({"gpu": 1000 * amount}) for amount in (*offers, 4)]
    for slot in slots:
        scheduler.add(slot, 0.0)
    running: list[tuple[Slot[Item], Item]] = []

    def submit(call: Item) -> None:
        if (slot := scheduler.submit(call, 0.0)) is not None:
            running.append((slot, call))

    for _ in range(20):
        submit(Item(needs=gpus(0.5)))
    call = Item("a" if is_strict else "", "strict" if is_strict else "hint", needs=gpus(large))
    submit(call)
    before = len(running)
    ends = 0
    for small, which in arrivals * 10:
        if any(each is call for _, each in running):
            break
        submit(Item(needs=gpus(small / 2)))
        slot, ended = running.pop(which % len(running))
        ends += 1
        running += scheduler.release(slot, ended, 0.0)
    # Each end is drawn from all that run, so those at the reserved worker may be drawn late. Let the rest end in order.
    while not any(each is call for _, each in running):
        slot, ended = running.pop(0)
        running += scheduler.release(slot, ended, 0.0)
        submit(Item(needs=gpus(0.5)))
        ends += 1
        assert ends < 10 * len(arrivals) + before + 4 * len(slots) + 40, "it is passed again and again"


def steps_with(waiting: int) -> dict[str, int]:
    """The most steps that each operation takes while so many calls wait, of three different needs."""
    scheduler: Scheduler[Item] = Scheduler(concurrency=2, ahead=0)
    slots: list[Slot[Item]] = [Slot({"gpu": 2000}) for _ in range(3)]
    for slot in slots:
        scheduler.add(slot, 0.0)
    calls = [Item(needs=gpus((0.5, 1, 2)[n % 3])) for n in range(waiting + 40)]
    for call in calls[:-20]:
        scheduler.submit(call, 0.0)
    steps = {"submit": 0, "withdraw": 0, "release": 0}
    for number, new in enumerate(calls[-20:]):
        slot = slots[number % 3]
        first = next(iter(slot.calls.values()))
        for what, operation in (
            ("submit", lambda new=new: scheduler.submit(new, 0.0)),
            ("withdraw", lambda number=number: scheduler.withdraw(calls[-30 - number])),
            ("release", lambda slot=slot, first=first: scheduler.release(slot, first, 0.0)),
        ):
            with Counter() as counter:
                operation()
            steps[what] = max(steps[what], counter.calls)
    return steps


def test_the_steps_do_not_depend_on_how_many_wait() -> None:
    few, many = steps_with(99), steps_with(19_998)
    assert all(many[what] <= few[what] + 20 for what in few), f"with 99 calls {few}, with 19,998 {many}"


def test_a_nested_call_of_a_call_with_resources_is_not_held_up_by_a_reservation() -> None:
    scheduler: Scheduler[Item] = Scheduler(concurrency=4, ahead=0)
    slot: Slot[Item] = Slot({"gpu": 4000})
    scheduler.add(slot, 0.0)
    assert scheduler.submit(Item(needs=gpus(1)), 0.0) is slot
    assert scheduler.submit(Item(needs=gpus(4)), 0.0) is None
    assert scheduler.submit(Item(needs=gpus(1)), 0.0) is None
    assert scheduler.submit(Item(needs=gpus(1), passes=True), 0.0) is slot


@pytest.mark.parametrize("priority", [0, 5])
def test_a_higher_priority_goes_first_and_reserves_first(priority: int) -> None:
    scheduler: Scheduler[Item] = Scheduler(concurrency=4, ahead=0)
    slot: Slot[Item] = Slot({"gpu": 4000})
    scheduler.add(slot, 0.0)
    running, large, other = Item(needs=gpus(4)), Item(needs=gpus(4)), Item(needs=gpus(2), priority=priority)
    assert [scheduler.submit(call, 0.0) for call in (running, large, other)] == [slot, None, None]
    first = other if priority else large
    assert scheduler.release(slot, running, 0.0) == [(slot, first)]


def test_those_behind_a_large_call_start_when_it_leaves_the_queue() -> None:
    scheduler: Scheduler[Item] = Scheduler(concurrency=4, ahead=0)
    slot: Slot[Item] = Slot({"gpu": 2000})
    scheduler.add(slot, 0.0)
    running, large, small = Item(needs=gpus(1)), Item(needs=gpus(2)), Item(needs=gpus(1))
    assert [scheduler.submit(call, 0.0) for call in (running, large, small)] == [slot, None, None]
    assert scheduler.withdraw(large)
    assert scheduler.admit(0.0) == [(slot, small)]
