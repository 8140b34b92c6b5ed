"""Limits of tools and keys, as plain state: who waits, who passes, and what is left of a key."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from bridge_py import BaseAdapter, tool
from bridge_py.wire.errors import RemoteProtocolError, UsageError
from bridge_py.wire.hellos import check_tools
from bridge_py.wire.specs import ToolSpec
from property_tests.test_scheduler import Item
from snakepit_trio._calls.limits import Limits
from snakepit_trio._calls.queues import Limit, Slot
from snakepit_trio._calls.scheduler import PlaceTaken, QueueFull, Scheduler


def scheduler_with(workers: int, **options: Any) -> tuple[Scheduler[Item], list[Slot[Item]]]:
    scheduler: Scheduler[Item] = Scheduler(concurrency=1, ahead=0, **options)
    slots: list[Slot[Item]] = [Slot() for _ in range(workers)]
    for slot in slots:
        scheduler.add(slot, 0.0)
    return scheduler, slots


def test_calls_that_wait_for_a_place_hold_up_no_others_and_keep_their_order() -> None:
    scheduler, _ = scheduler_with(3)
    limit = Limit("one", 1)
    calls = [Item(limits=(limit,), priority=priority) for priority in (0, 0, 5, 0)]
    first = scheduler.submit(calls[0], 0.0)
    assert first is not None
    assert [scheduler.submit(call, 0.0) for call in calls[1:]] == [None, None, None]
    assert scheduler.submit(Item(), 0.0) is not None
    assert (scheduler.queued, scheduler.queued_with_limits) == (3, 3)
    running = calls[0]
    for expected in (calls[2], calls[1], calls[3]):
        ((first, running),) = scheduler.release(first, running, 0.0)
        assert running is expected
    assert scheduler.release(first, running, 0.0) == []
    assert limit.taken == 0


def test_one_end_may_start_calls_on_several_workers() -> None:
    scheduler, slots = scheduler_with(3)
    a, b = Limit("a", 1), Limit("b", 1)
    both, of_a, of_b = Item(limits=(a, b)), Item(limits=(a,)), Item(limits=(b,))
    slot = scheduler.submit(both, 0.0)
    assert slot is not None
    assert scheduler.submit(of_a, 0.0) is scheduler.submit(of_b, 0.0) is None
    assigned = scheduler.release(slot, both, 0.0)
    assert [call for _, call in assigned] == [of_a, of_b]
    assert len({at for at, _ in assigned}) == 2 <= len(slots)


def test_a_strict_call_takes_its_place_and_waits_for_its_worker_with_it() -> None:
    scheduler, _ = scheduler_with(2)
    limit = Limit("one", 1)
    running = Item("a", "strict")
    home = scheduler.submit(running, 0.0)
    assert home is not None
    waits = Item("a", "strict", limits=(limit,))
    assert scheduler.submit(waits, 0.0) is None
    assert scheduler.holds(waits)
    assert scheduler.submit(other := Item(limits=(limit,)), 0.0) is None
    assert scheduler.withdraw(waits)
    assert [call for _, call in scheduler.admit(0.0)] == [other]


def test_a_call_that_fails_fast_does_not_wait_for_a_worker_but_for_a_place() -> None:
    scheduler, _ = scheduler_with(2)
    limit = Limit("one", 1)
    slot = scheduler.submit(Item("a", "strict_fail_fast", limits=(limit,)), 0.0)
    assert slot is not None
    with pytest.raises(PlaceTaken):
        scheduler.submit(Item("a", "strict_fail_fast", limits=(limit,)), 0.0)
    assert scheduler.submit(Item("b", "strict_fail_fast", limits=(limit,)), 0.0) is None


def test_a_call_that_is_refused_leaves_nothing() -> None:
    scheduler, _ = scheduler_with(2, most=0)
    limit = Limit("one", 1)
    assert scheduler.submit(Item(limits=(limit,)), 0.0) is not None
    with pytest.raises(QueueFull):
        scheduler.submit(Item(limits=(limit,)), 0.0)
    assert (scheduler.queued, scheduler.queued_with_limits, limit.taken) == (0, 0, 1)


def test_keys_without_calls_leave_nothing() -> None:
    scheduler, (slot,) = scheduler_with(1)
    limits = Limits()
    wide = limits.of_key("wide", 10)
    scheduler.submit(running := Item(), 0.0)
    before = _objects()
    for number in range(5_000):
        call = Item(limits=(limits.of_key(f"key {number}", 1), wide))
        assert scheduler.submit(call, 0.0) is None
        assert scheduler.withdraw(call)
    assert _objects() - before < 1_000
    assert scheduler.release(slot, running, 0.0) == []


def test_a_key_is_one_limit_with_the_number_that_was_named_last() -> None:
    limits = Limits()
    limit = limits.of_key("key", 2)
    assert limits.of_key("key", 3) is limit
    assert limit.most == 3
    assert limits.of_key("other", 3) is not limit


@pytest.mark.parametrize("wrong", [0, -1, True, 1.5, "2", 1 << 63])
def test_what_is_no_limit_of_a_tool(wrong: Any) -> None:
    class Tools(BaseAdapter):
        @tool(limit=wrong)
        def work(self) -> None:
            """Work."""

    with pytest.raises(
        UsageError, match=r"^tool 'work': limit=.* is invalid: give a whole number of at least 1, or No"
    ):
        Tools().tools()


def test_a_worker_that_tells_of_a_wrong_limit_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="tool 't' has the limit 0"):
        check_tools([ToolSpec("t", limit=0)])


def _objects() -> int:
    gc.collect()
    return len(gc.get_objects())
