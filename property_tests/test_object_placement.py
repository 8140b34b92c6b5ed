"""Property: host and workers agree on a session's objects, however calls overlap, are given up, and workers die.

Both sides are the real ones, without a pool between them. A call that runs sees what the calls before it on its worker
have done. When a worker dies, an object is restored if the host has a copy of the very object that has its name, and is
lost otherwise; an object that was replaced or deleted never comes back, unless no answer has told the host of that.
"""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from bridge_py.dynamic.allow_list import AllowAll
from bridge_py.dynamic.dynamic_call import DynamicCall
from bridge_py.dynamic.stored_objects import ObjectStore, Placement
from bridge_py.wire.errors import StoredObjectLost, StoredObjectNotFound
from snakepit_trio._python.placements import Copy, ObjectPlacement, new_copy_id

NAMES = ["a", "a", "a", "b"]
LOST, ABSENT = "lost", "absent"


class FakeWorker:
    """A worker, as far as the host's account goes, with what it keeps."""

    exit_reason = "worker w died"

    def __init__(self) -> None:
        self.has_left = False
        self.store = ObjectStore(1 << 20)

    def end_session(self, session_id: str) -> None:
        self.store.end(session_id)


class Call:
    """One call: to store, read or delete."""

    def __init__(self, number: int, kind: str, name: str, is_durable: bool) -> None:
        self.number, self.kind, self.name = number, kind, name
        self.copy = Copy(number, name, new_copy_id()) if is_durable and kind == "store" else None
        self.placement: Placement | None = None
        self.worker: FakeWorker | None = None
        self.reply: dict[str, Any] | None = None
        self.seen: dict[str, Any] = {}  # what there was after it

    def __repr__(self) -> str:
        return f"<{'durable ' if self.copy else ''}{self.kind} of {self.name!r}, number {self.number}>"


class Machine(RuleBasedStateMachine):
    """One session, two workers at a time."""

    @initialize()
    def begin(self) -> None:
        self.objects = ObjectPlacement("s")
        self.workers: list[FakeWorker] = [FakeWorker(), FakeWorker()]
        self.count = self.order = 0
        self.made: list[Call] = []
        self.started: list[Call] = []
        self.answered: list[Call] = []
        self.there: dict[str, Any] = dict.fromkeys(NAMES, ABSENT)  # by name: a call that stored it, LOST or ABSENT
        self.known = dict(self.there)  # the same, as far as answers have told
        self.known_order = 0  # of the answers: by which change
        self.changes = 0
        self.doubted: dict[str, int] = {}
        self.kept: set[Call] = set()  # calls whose copies the host has got

    @precondition(lambda self: len(self.made) + len(self.started) + len(self.answered) < 4)
    @rule(
        kind=st.sampled_from(["store", "store", "read", "delete"]), name=st.sampled_from(NAMES), durable=st.booleans()
    )
    def make(self, kind: str, name: str, durable: bool) -> None:
        self.count += 1
        call = Call(self.count, kind, name, durable)
        self._place(call)
        self.made.append(call)

    def _place(self, call: Call) -> None:
        call.placement = self.objects.placement()
        assert call.placement.order > self.order
        self.order = call.placement.order

    @precondition(lambda self: self.made)
    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(self.made))
        home = [worker for worker in self.workers if worker is cast("Any", self.objects.worker)]
        worker = data.draw(st.sampled_from([*home, *home, *self.workers]))
        assert call.placement is not None
        if self.objects.claim(cast("Any", worker), call.placement.number):
            call.worker = worker
            self.made.remove(call)
            self.started.append(call)
        else:
            self._place(call)

    @precondition(lambda self: self.started)
    @rule(data=st.data())
    def run(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(self.started))
        self.started.remove(call)
        assert call.worker is not None
        assert call.worker is cast("Any", self.objects.worker)
        dynamic = DynamicCall(AllowAll(), call.worker.store, "s", call.placement)
        expected = self.there[call.name]
        try:
            found = self._do(call, dynamic)
        except StoredObjectLost:
            assert expected is LOST
        except StoredObjectNotFound:
            assert expected is ABSENT
        else:
            assert call.kind == "store" or found == expected.number
            call.reply = dynamic.reply(None)
            if call.kind != "read":
                self.changes += 1
                self.there[call.name] = call if call.kind == "store" else ABSENT
            call.seen = {"order": self.changes, "there": dict(self.there)}
            self.answered.append(call)

    def _do(self, call: Call, dynamic: DynamicCall) -> Any:
        if call.kind == "store":
            copy_id = 0 if call.copy is None else call.copy.id
            return dynamic.keep(call.name, call.number, copy_id=copy_id, has_copy=True)
        found = dynamic.find(call.name).value
        if call.kind == "delete":
            dynamic.remove(call.name)
        return found

    @precondition(lambda self: self.answered)
    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(self.answered))
        self.answered.remove(call)
        assert call.placement is not None
        assert call.reply is not None
        copies = {} if call.copy is None else {call.name: call.copy}
        self.objects.hear(call.placement, call.reply, copies)
        self.kept |= {call} if copies else set()
        if call.seen["order"] >= self.known_order:
            self.known, self.known_order = call.seen["there"], call.seen["order"]
        self.doubted = {name: at for name, at in self.doubted.items() if at >= call.placement.order}

    @precondition(lambda self: self.answered)
    @rule(data=st.data())
    def is_given_up(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(self.answered))
        self.answered.remove(call)
        names = [call.name] if call.kind == "store" else []
        self.objects.doubt(names)
        self.doubted |= dict.fromkeys(names, self.order)

    @precondition(lambda self: self.objects.worker in self.workers)
    @rule()
    def worker_dies(self) -> None:
        dead: Any = self.objects.worker
        dead.has_left = True
        self.workers[self.workers.index(dead)] = FakeWorker()
        self.started, self.answered = [], []
        for name, call in self.known.items():
            is_restored = call in self.kept and name not in self.doubted
            if not is_restored and (isinstance(call, Call) or name in self.doubted):
                self.known[name] = LOST
        self.there = dict(self.known)
        self.doubted = {}
        self.known_order = self.changes


def test_a_lost_name_that_was_stored_again_and_deleted_is_absent() -> None:
    """Also when only the deletion's answer has come, and in the next worker."""
    objects = ObjectPlacement("s")

    def call(worker: FakeWorker) -> tuple[Placement, DynamicCall]:
        placement = objects.placement()
        assert objects.claim(cast("Any", worker), placement.number)
        return placement, DynamicCall(AllowAll(), worker.store, "s", placement)

    first, second, third = FakeWorker(), FakeWorker(), FakeWorker()
    placement, dynamic = call(first)
    dynamic.keep("a", 1)
    objects.hear(placement, dynamic.reply(None), {})
    first.has_left = True
    with pytest.raises(StoredObjectLost):
        call(second)[1].find("a")
    _, dynamic = call(second)
    dynamic.keep("a", 2)
    dynamic.reply(None)
    placement, dynamic = call(second)
    dynamic.remove("a")
    objects.hear(placement, dynamic.reply(None), {})
    with pytest.raises(StoredObjectNotFound):
        call(second)[1].find("a")
    second.has_left = True
    with pytest.raises(StoredObjectNotFound):
        call(third)[1].find("a")


def test_a_copy_that_comes_when_its_object_is_known_to_be_deleted_is_not_kept() -> None:
    objects = ObjectPlacement("s")
    worker, copy = FakeWorker(), Copy(1, "a", new_copy_id())
    stores, deletes = objects.placement(), objects.placement()
    assert objects.claim(cast("Any", worker), stores.number)
    dynamic = DynamicCall(AllowAll(), worker.store, "s", stores)
    dynamic.keep("a", 1, copy_id=copy.id, has_copy=True)
    stored = dynamic.reply(None)
    dynamic = DynamicCall(AllowAll(), worker.store, "s", deletes)
    dynamic.remove("a")
    objects.hear(deletes, dynamic.reply(None), {})
    objects.hear(stores, stored, {"a": copy})
    worker.has_left = True
    assert objects.placement().restore == {}


TestMachine = pytest.mark.slow(Machine.TestCase)
TestMachine.settings = settings(max_examples=400, stateful_step_count=60, deadline=None)
