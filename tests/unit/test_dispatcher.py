"""The dispatcher with fake workers: which calls they get, and how calls end that are over, given up, or lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import snakepit_trio as snakepit
from bridge_py.buffers.buffer_sets import EncodedValue
from bridge_py.wire.frames import Frame, Kind
from bridge_py.wire.specs import ToolSpec
from snakepit_trio import PoolConfig
from snakepit_trio._calls.abandonment import abandon
from snakepit_trio._calls.call import Call, CallState, CallWorker
from snakepit_trio._calls.dispatcher import Dispatcher
from snakepit_trio._calls.queues import Slot


class FakeWorker:
    """A worker that does nothing by itself, and notes what it is told."""

    kills_to_cancel = False
    stands = False  # at a breakpoint
    has_left = False
    exit_reason = "it was asked to"

    def __init__(self, id: str = "w", *killed_to_stop: str) -> None:
        self.id = id
        self.slot: Slot[Call] = Slot()
        self.calls: dict[int, Call] = {}
        self.tools: dict[str, ToolSpec] = {}
        self.failure: snakepit.WorkerCrashed | None = None
        self.is_killed_by_us = False
        self.pid = 7
        self.told: list[tuple[str, Any]] = []
        self.last_started = 0
        self.refuses: Exception | None = None  # raised when a call is sent
        self.deaf_to: dict[str, list[Exception]] = {}  # raised when it is told this, one after the other
        self._killed_to_stop = killed_to_stop
        self._next_id = 1

    def is_killed_to_stop(self, call: Call) -> bool:
        return call.name in self._killed_to_stop

    def must_be_killed_to_stop(self, call: Call) -> bool:
        return self.is_killed_to_stop(call) and self.has_started(call)

    def has_started(self, call: Call) -> bool:
        return self.last_started >= call.id

    def start(self, call: Call) -> None:
        if self.refuses is not None:
            raise self.refuses
        call.worker, call.id = self, self._next_id
        self._next_id += 2
        self.calls[call.id] = call
        self.told.append(("start", call.name))

    def cancel(self, call: Call) -> None:
        self._hear("cancel", call)

    def nudge(self, call: Call) -> None:
        self._hear("nudge", call)

    def _hear(self, event: str, call: Call) -> None:
        self.told.append((event, call.name))
        if errors := self.deaf_to.get(event):
            raise errors.pop()

    def open_item(self, batch: Call, call: Call) -> None:
        if self.refuses is not None:
            raise self.refuses
        call.worker, call.id = self, self._next_id
        self._next_id += 2
        self.told.append(("item", call.name))

    def drop_item(self, call: Call) -> None:
        self.told.append(("drop", call.name))

    def recall(self, call: Call) -> None:
        self.told.append(("recall", call.name))

    def grant(self, call: Call, credit: int) -> None:
        self.told.append(("grant", credit))

    def when_over(self, call: Call, then: Callable[[], None]) -> None:
        then()

    def end_session(self, session_id: str) -> None:
        self.told.append(("end_session", session_id))

    def kill(self, problem: str, *, for_a_call: bool = False) -> None:
        self.told.append(("kill", problem))

    @property
    def started(self) -> list[Any]:
        """The names of its calls, in the order in which it got them."""
        return [what for event, what in self.told if event == "start"]


@attrs.define
class Pool:
    """A dispatcher, and what its workers report to it."""

    dispatcher: Dispatcher
    cancel_grace: float = 1.0

    async def abandon(self, call: Call) -> None:
        """The caller of a call gives it up."""
        await abandon(call, self.dispatcher.withdraw, self.cancel_grace)

    def worker(self, id: str = "w", *killed_to_stop: str) -> FakeWorker:
        """A worker that is ready."""
        worker = FakeWorker(id, *killed_to_stop)
        self.dispatcher.worker_ready(worker)
        return worker

    def call(self, name: str, session: str = "", **more: Any) -> Call:
        """A call that has been submitted."""
        call = make_call(name, session, **more)
        self.dispatcher.submit(call)
        return call

    def answer(self, worker: FakeWorker, call: Call, failure: Exception | None = None) -> None:
        """A worker is done with a call."""
        del worker.calls[call.id]
        self.dispatcher.call_over(worker, call, Frame(Kind.RESULT, call.id), failure)

    def die(self, worker: FakeWorker, last_started: int | None, *, killed_by_us: bool = False) -> None:
        """A worker's process is gone."""
        worker.is_killed_by_us = killed_by_us
        worker.failure = snakepit.WorkerCrashed(worker.id, "died", -9)
        self.dispatcher.worker_leaving(worker)
        self.dispatcher.worker_gone(worker, last_started, worker.failure)


def make_call(name: str, session: str = "", **more: Any) -> Call:
    return Call(name, EncodedValue(b"", None), session, None, **more)


def open_pool(**settings: Any) -> Pool:
    config = PoolConfig(**{"send_ahead": 0, **settings})
    return Pool(Dispatcher(config), config.cancel_grace)


async def test_a_fake_worker_is_all_that_the_dispatcher_asks_for() -> None:
    worker: CallWorker = FakeWorker()
    assert worker.id == "w"


async def test_calls_wait_in_line_and_start_in_their_order() -> None:
    pool = open_pool()
    first, second, third = (pool.call(name) for name in "abc")
    assert pool.dispatcher.queued == 3
    worker = pool.worker()
    assert (worker.started, pool.dispatcher.queued, pool.dispatcher.running) == (["a"], 2, 1)
    pool.answer(worker, first)
    pool.answer(worker, second)
    assert worker.started == ["a", "b", "c"]
    assert [call.state for call in (first, second, third)] == [CallState.OVER, CallState.OVER, CallState.ASSIGNED]
    assert first.final is not None
    assert pool.dispatcher.succeeded == 2


async def test_a_call_of_a_higher_priority_starts_first_and_none_waits_for_ever(mock_clock: MockClock) -> None:
    pool = open_pool()
    worker = pool.worker()
    running = pool.call("running")
    calls = {name: pool.call(name, priority=priority) for name, priority in (("low", -3), ("usual", None), ("high", 3))}
    for second in range(10):
        mock_clock.jump(1.0)
        calls[f"after {second}"] = pool.call(f"after {second}", priority=2)
    pool.answer(worker, running)
    while pool.dispatcher.running:
        pool.answer(worker, calls[worker.started[-1]])
    expected = ["high", "after 0", "usual", *(f"after {second}" for second in range(1, 4)), "low"]
    # Those that came after 2 and after 5 seconds have the same ranks as the usual and the low one, and came later.
    assert worker.started == ["running", *expected, *(f"after {second}" for second in range(4, 10))]


async def test_a_call_that_is_returned_keeps_its_place_among_the_priorities(mock_clock: MockClock) -> None:
    pool = open_pool()
    worker = pool.worker()
    back = pool.call("back", priority=1)
    mock_clock.jump(0.5)
    for name, priority in (("usual", 0), ("later", 1), ("high", 2)):
        pool.call(name, priority=priority)
    del worker.calls[back.id]
    pool.dispatcher.call_returned(worker, back)
    assert worker.started == ["back", "high"]
    for name in ("back", "later", "usual"):
        pool.answer(worker, next(iter(worker.calls.values())))
        assert worker.started[-1] == name


async def test_a_call_made_by_a_call_has_its_priority_unless_it_says_another() -> None:
    parent = make_call("parent", priority=7)
    assert make_call("child", parent=parent).priority == 7
    assert make_call("child", parent=parent, priority=0).priority == 0
    assert make_call("child", parent=make_call("grandparent", parent=parent)).priority == 7
    assert parent.again().priority == 7
    assert make_call("usual").priority == 0


async def test_a_free_worker_gets_a_call_at_once() -> None:
    pool = open_pool()
    workers = [pool.worker("v"), pool.worker("w")]
    pool.call("a")
    pool.call("b")
    assert sorted(name for worker in workers for name in worker.started) == ["a", "b"]
    assert all(len(worker.started) == 1 for worker in workers)


async def test_a_full_line_takes_no_more() -> None:
    pool = open_pool(max_queue=1)
    pool.call("a")
    late = make_call("b")
    with pytest.raises(snakepit.PoolSaturated, match=r"queued=1, max_queue=1, running=0, workers=0"):
        pool.dispatcher.submit(late)
    assert late.state is CallState.NEW
    assert pool.dispatcher.submitted == 1


async def test_who_may_not_wait_is_told_that_its_worker_is_busy() -> None:
    pool = open_pool()
    worker = pool.worker("home")
    pool.answer(worker, pool.call("a", "s", affinity="strict_fail_fast"))
    pool.worker("other")
    pool.call("b", "s", affinity="strict_fail_fast")
    with pytest.raises(snakepit.WorkerBusy, match="worker home of session 's' has no free place"):
        pool.call("c", "s", affinity="strict_fail_fast")


async def test_a_closed_pool_ends_the_line_and_refuses() -> None:
    pool = open_pool()
    worker = pool.worker()
    running, waiting = pool.call("a"), pool.call("b")
    pool.dispatcher.close()
    assert isinstance(waiting.failure, snakepit.PoolClosed)
    assert not running.is_over
    with pytest.raises(snakepit.PoolClosed, match="'c' cannot run"):
        pool.call("c")
    pool.dispatcher.call_returned(worker, running)
    assert isinstance(running.failure, snakepit.PoolClosed)


async def test_a_call_that_cannot_be_sent_fails_alone() -> None:
    pool = open_pool()
    first, second = pool.call("a"), pool.call("b")
    worker = FakeWorker()
    worker.refuses = OSError("no descriptors")
    pool.dispatcher.worker_ready(worker)
    for call in (first, second):
        assert isinstance(call.failure, snakepit.OutOfResources)
        assert "no descriptors" in str(call.failure)
    worker.refuses = None
    assert not pool.call("c").is_over
    assert worker.started == ["c"]


async def test_a_worker_that_may_not_start_a_call_is_passed() -> None:
    pool = open_pool()
    worker = pool.worker()
    call = make_call("a")
    call.claim = lambda found: found is not worker
    pool.dispatcher.submit(call)
    assert "cannot run on worker w" in str(call.failure)
    assert worker.started == []


async def test_what_a_dead_worker_never_started_runs_elsewhere() -> None:
    pool = open_pool(concurrency=2)
    dying = pool.worker("dying")
    ran, waited = pool.call("a"), pool.call("b")
    pool.die(dying, last_started=ran.id)
    assert isinstance(ran.failure, snakepit.WorkerCrashed)
    assert "while it ran 'a' and 1 other" in str(ran.failure)
    assert (waited.state, waited.worker, pool.dispatcher.queued) == (CallState.QUEUED, None, 1)
    assert pool.worker("next").started == ["b"]
    assert pool.dispatcher.crashed == 1


async def test_without_its_ledger_all_calls_of_a_dead_worker_are_lost() -> None:
    pool = open_pool(concurrency=2)
    dying = pool.worker()
    calls = [pool.call("a"), pool.call("b")]
    pool.die(dying, last_started=None)
    assert [type(call.failure) for call in calls] == [snakepit.WorkerCrashed] * 2
    assert pool.dispatcher.queued == 0


async def test_a_call_that_kills_by_arriving_is_not_sent_for_ever() -> None:
    pool = open_pool()
    call = pool.call("poison")
    for _ in range(3):
        pool.die(pool.worker(), last_started=0, killed_by_us=True)
        assert call.state is CallState.QUEUED
    pool.die(pool.worker(), last_started=0, killed_by_us=True)
    assert "before it started 'poison', which is worker number 4 that died with it" in str(call.failure)


async def test_a_command_whose_calls_kill_is_refused_for_a_while(autojump_clock: MockClock) -> None:
    pool = open_pool(taint_after=2, taint_period=60)
    for _ in range(2):
        call = pool.call("poison")
        pool.die(pool.worker(), last_started=1)
        assert call.is_over
    with pytest.raises(snakepit.Tainted) as caught:
        pool.call("poison")
    assert (caught.value.kind, caught.value.name) == ("command", "poison")
    pool.call("harmless")
    await trio.sleep(61)
    pool.call("poison")


async def test_our_own_kills_are_blamed_on_nobody() -> None:
    pool = open_pool(taint_after=1)
    pool.call("slow")
    pool.die(pool.worker(), last_started=1, killed_by_us=True)
    pool.call("slow")


async def test_a_call_in_line_is_given_up_at_once() -> None:
    pool = open_pool()
    call = pool.call("a")
    await pool.abandon(call)
    assert call.is_over
    assert pool.dispatcher.queued == 0
    assert pool.worker().started == []


async def test_a_running_call_is_asked_to_end(autojump_clock: MockClock) -> None:
    pool = open_pool(cancel_grace=5)
    worker = pool.worker()
    call = pool.call("a")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.abandon, call)
        await wait_all_tasks_blocked()
        assert worker.told[-1] == ("cancel", "a")
        pool.answer(worker, call, snakepit.PoolClosed("stopped"))
    assert worker.told == [("start", "a"), ("cancel", "a")]
    assert pool.dispatcher.failed == 0, "its caller has given up, and fails by itself"


async def test_a_call_that_does_not_end_costs_its_worker(autojump_clock: MockClock) -> None:
    pool = open_pool(cancel_grace=5)
    worker = pool.worker()
    call = pool.call("deaf")
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.abandon, call)
        await trio.sleep(0.04)
        assert worker.told[-1] == ("cancel", "deaf")
        await trio.sleep(4.86)
        assert worker.told[-1] == ("nudge", "deaf")
        await trio.sleep(0.2)
        assert worker.told[-1] == ("kill", "was killed: 'deaf' did not end within 5 s of its cancellation")
        pool.die(worker, last_started=call.id, killed_by_us=True)
    assert trio.current_time() - began == pytest.approx(5.1, abs=0.1)
    assert pool.dispatcher.crashed == 0, "its caller has given up, and fails by itself"


async def test_a_call_is_over_though_asking_for_its_end_fails(autojump_clock: MockClock) -> None:
    pool = open_pool(cancel_grace=5)
    worker = pool.worker()
    call = pool.call("a")
    worker.deaf_to = {"cancel": [MemoryError("the second"), MemoryError("the first")]}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.abandon, call)
        await wait_all_tasks_blocked()
        assert worker.told[1:] == [
            ("cancel", "a"),
            ("cancel", "a"),
            ("kill", "was killed: 'a' was cancelled, and could not be asked to end: MemoryError('the second')"),
        ]
        pool.die(worker, last_started=call.id, killed_by_us=True)
    assert call.is_over


async def test_a_call_is_asked_again_before_its_worker_is_killed(autojump_clock: MockClock) -> None:
    pool = open_pool(cancel_grace=5)
    worker = pool.worker()
    call = pool.call("a")
    worker.deaf_to = {"cancel": [MemoryError()]}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.abandon, call)
        await wait_all_tasks_blocked()
        assert worker.told[1:] == [("cancel", "a"), ("cancel", "a")]
        pool.answer(worker, call, snakepit.PoolClosed("stopped"))
    assert call.is_over


async def test_a_nudge_that_fails_changes_nothing(autojump_clock: MockClock) -> None:
    pool = open_pool(cancel_grace=5)
    worker = pool.worker()
    call = pool.call("a")
    worker.deaf_to = {"nudge": [MemoryError() for _ in range(1000)]}
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.abandon, call)
        await trio.sleep(1)
        assert [event for event, _ in worker.told[1:3]] == ["cancel", "nudge"]
        await trio.sleep(4.1)
        assert worker.told[-1] == ("kill", "was killed: 'a' did not end within 5 s of its cancellation")
        pool.die(worker, last_started=call.id, killed_by_us=True)
    assert trio.current_time() - began == pytest.approx(5.1, abs=0.1)


async def test_a_tool_that_is_stopped_by_a_kill_costs_its_worker_at_once(autojump_clock: MockClock) -> None:
    pool = open_pool(cancel_grace=1000)
    worker = pool.worker("w", "deadly")
    call = pool.call("deadly")
    worker.last_started = call.id
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.abandon, call)
        await wait_all_tasks_blocked()
        killed = "was killed: 'deadly' was cancelled, and is a tool with cancel='kill'"
        assert worker.told == [("start", "deadly"), ("kill", killed)]
        pool.die(worker, last_started=call.id, killed_by_us=True)
    assert call.is_over


async def test_a_call_that_starts_while_its_cancel_is_under_way_is_killed_then(autojump_clock: MockClock) -> None:
    pool = open_pool(cancel_grace=1000)
    worker = pool.worker("w", "deadly")
    call = pool.call("deadly")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.abandon, call)
        await trio.sleep(1)
        assert [event for event, _ in worker.told if event != "nudge"] == ["start", "cancel"]
        worker.last_started = call.id
        await trio.sleep(1)
        assert [event for event, _ in worker.told if event != "nudge"] == ["start", "cancel", "kill"]
        pool.die(worker, last_started=call.id, killed_by_us=True)


async def test_what_was_sent_ahead_to_a_stuck_worker_is_called_back(autojump_clock: MockClock) -> None:
    pool = open_pool(send_ahead=8)
    worker = pool.worker()
    pool.answer(worker, pool.call("quick"))  # so it gets calls ahead
    stuck, ahead = pool.call("stuck"), pool.call("ahead")
    assert worker.started == ["quick", "stuck", "ahead"]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.dispatcher.stalls.watch)
        await trio.sleep(1)
        assert worker.told[-1] == ("recall", "ahead")
        del worker.calls[ahead.id]
        pool.dispatcher.call_returned(worker, ahead)
        nursery.cancel_scope.cancel()
    assert ahead.state is CallState.QUEUED
    assert stuck.state is CallState.ASSIGNED
    assert pool.worker("other").started == ["ahead"]


async def test_a_call_that_waits_for_itself_is_found(autojump_clock: MockClock) -> None:
    pool = open_pool()
    pool.worker()
    outer = pool.call("outer")
    inner = pool.call("inner", parent=outer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.dispatcher.deadlocks.watch, lambda _: 0, lambda _: False)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert isinstance(inner.failure, snakepit.PoolDeadlock)
    assert not outer.is_over


async def test_no_deadlock_is_told_while_workers_are_missing(autojump_clock: MockClock) -> None:
    pool = open_pool()
    pool.worker()
    inner = pool.call("inner", parent=pool.call("outer"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.dispatcher.deadlocks.watch, lambda _: 1, lambda _: False)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert inner.state is CallState.QUEUED


async def test_workers_come_and_go_as_events() -> None:
    pool = open_pool()
    seen: list[str] = []
    pool.dispatcher.events.attach("*", lambda event: seen.append(event.name))
    worker = pool.worker()
    pool.die(worker, last_started=0)
    pool.dispatcher.tell_end(worker, -9)
    assert seen == ["worker.ready", "worker.crashed", "worker.ended"]
