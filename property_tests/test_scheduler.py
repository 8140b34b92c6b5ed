"""Property: under any arrivals, ends, deaths, withdrawals and recalls the scheduler keeps its promises.

No worker holds more than its limit, none more than its places unless it is quick, no call is lost or is in two
places, calls are assigned in the order of their arrival, and no call waits while a worker has a free place.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from snakepit_trio.scheduler import PATIENCE, QUICK, Scheduler, Slot


class Item:
    """A call, as far as the scheduler sees."""

    order = 0
    assigned_at = 0.0


class Machine(RuleBasedStateMachine):
    """The scheduler and a plain account of where every call is."""

    @initialize(concurrency=st.integers(1, 3), ahead=st.integers(0, 4))
    def begin(self, concurrency: int, ahead: int) -> None:
        self.concurrency, self.ahead = concurrency, ahead
        self.scheduler: Scheduler[Item] = Scheduler(concurrency=concurrency, ahead=ahead)
        self.now = 0.0
        self.slots: list[Slot[Item]] = []
        self.waiting: list[Item] = []
        self.held: dict[Item, Slot[Item]] = {}

    def _carry_out(self, assignments: list[tuple[Slot[Item], Item]]) -> None:
        for slot, call in assignments:
            assert call is self.waiting[0], "calls are assigned in their order"
            self.waiting.pop(0)
            self.held[call] = slot

    def _wait(self, call: Item) -> None:
        self.waiting.append(call)
        self.waiting.sort(key=lambda waiting: waiting.order)

    @rule(seconds=st.sampled_from([0.0, QUICK / 10, QUICK * 10, PATIENCE * 2]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def worker_comes(self) -> None:
        if len(self.slots) < 4:
            slot: Slot[Item] = Slot()
            self.slots.append(slot)
            self._carry_out(self.scheduler.add(slot, self.now))

    @rule()
    def call_comes(self) -> None:
        call = Item()
        slot = self.scheduler.submit(call, self.now)
        if slot is None:
            self._wait(call)
        else:
            assert not self.waiting, "no call overtakes the line"
            self.held[call] = slot

    @precondition(lambda self: self.held)
    @rule(data=st.data(), how=st.sampled_from(["release", "give_back"]))
    def call_leaves(self, data: st.DataObject, how: str) -> None:
        call = data.draw(st.sampled_from(sorted(self.held, key=lambda held: held.order)))
        slot = self.held.pop(call)
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

    @precondition(lambda self: self.slots)
    @rule(data=st.data(), again=st.booleans())
    def worker_dies(self, data: st.DataObject, again: bool) -> None:
        slot = self.slots.pop(data.draw(st.integers(0, len(self.slots) - 1)))
        lost = self.scheduler.remove(slot)
        assert len(lost) == len(set(lost))
        assert set(lost) == {call for call, at in self.held.items() if at is slot}
        for call in lost:
            del self.held[call]
        for call in lost if again else []:
            self._wait(call)
            self._carry_out(self.scheduler.requeue(call, self.now))

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
        assert {call: slot for slot in self.slots for call in slot.calls.values()} == self.held
        for slot in self.slots:
            assert len(slot.calls) <= self.concurrency + self.ahead
            if self.waiting:
                assert len(slot.calls) >= self.concurrency, "no call waits while there is a free place"

    def teardown(self) -> None:
        if hasattr(self, "scheduler"):
            assert self.scheduler.clear() == self.waiting


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
