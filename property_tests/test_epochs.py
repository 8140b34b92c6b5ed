"""No write of an old epoch ever lands, whoever takes a session over, and however late a write comes.

Two hosts share one session. Each step of each request is a step of the machine: a request is on its way, the store
carries it out, its answer is on its way. So takeovers, deaths of workers and writes meet in every order.
"""

from __future__ import annotations

import contextlib
import types
from collections.abc import Callable, Coroutine, Generator, Sequence
from copy import deepcopy
from typing import Any, Final, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from bridge_py.wire.errors import SessionError, StaleEpoch
from snakepit_trio.state.epochs import Tenure
from snakepit_trio.state.fences import FencedSessions, WorkerSessions, Writer, take_over
from snakepit_trio.state.session import Session
from snakepit_trio.state.watching import Hub

T = TypeVar("T")
S: Final = "s"
HOSTS: Final = st.integers(0, 1)
WORKERS: Final = st.integers(0, 1)
PICK: Final = st.integers(0, 1000)


@types.coroutine
def _pause() -> Generator[None, None, None]:
    yield


class Disk:
    """What all hosts share: one session, and who began each of its epochs."""

    def __init__(self) -> None:
        self.session = Session(S, now=0.0, ttl=None)
        self.session.register("x", "integer", 0)
        self.began: dict[int, str | None] = {0: None}  # by epoch: the id of the host, None for a handle
        self.version = 0
        self.landed: list[int] = []  # writes, by their numbers

    def update(self, change: Callable[[Session], T]) -> T:
        session = self.session
        session.begin()
        epoch, x = session.epoch, session.get("x").value
        try:
            result = change(session)
        except BaseException:
            session.undo()
            raise
        session.commit()
        self._note(epoch, x)
        return result

    def replace(self, tried: Session) -> None:
        before, self.session = self.session, tried
        self._note(before.epoch, before.get("x").value)

    def _note(self, epoch: int, x: int) -> None:
        self.version += 1
        assert self.session.epoch in (epoch, epoch + 1)
        self.began.setdefault(self.session.epoch, self.session.host_id)
        if (now := self.session.get("x").value) != x:
            self.landed.append(now)


class Store:
    """The store as one host sees it. Nobody comes between the steps of a change."""

    may_wait = True

    def __init__(self, disk: Disk) -> None:
        self.hub = Hub()
        self._disk = disk

    async def read_session(self, session_id: str, read: Callable[[Session], T]) -> T:
        await _pause()
        found = read(self._disk.session)
        await _pause()
        return found

    async def update_session(self, session_id: str, change: Callable[[Session], T]) -> T:
        await _pause()
        found = self._disk.update(change)
        await _pause()
        return found


class OptimisticStore(Store):
    """A change is tried on a copy, which may be old, and made if the session is still as the copy was."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(disk)
        self._copy = deepcopy(disk.session)
        self._version = disk.version

    def _fetch(self) -> None:
        if self._version != self._disk.version:
            self._copy, self._version = deepcopy(self._disk.session), self._disk.version

    async def read_session(self, session_id: str, read: Callable[[Session], T]) -> T:
        await _pause()
        self._fetch()
        found = read(self._copy)
        await _pause()
        return found

    async def update_session(self, session_id: str, change: Callable[[Session], T]) -> T:
        while True:
            tried, version = deepcopy(self._copy), self._version
            try:
                found = change(tried)
            except SessionError:
                if version == self._disk.version:
                    raise
                await _pause()
                self._fetch()
                continue
            await _pause()
            if version == self._disk.version:
                self._disk.replace(tried)
                await _pause()
                self._fetch()
                return found
            self._fetch()


class Host:
    def __init__(self, store: Store) -> None:
        self.store = store
        self.epochs = self.store.hub.epochs
        self.workers = [Writer(self.store, f"w-{number}") for number in range(2)]


class Request:
    """A read, a write or a takeover that is under way, of a call, a handle or a host."""

    def __init__(self, work: Coroutine[Any, Any, Any], number: int, caller: Any, dead: Sequence[Writer]) -> None:
        self.work, self.number, self.caller = work, number, caller
        self.dead = dead  # workers of the host that had ended before it began


class OneCall:
    def __init__(self, host: Host, worker: Writer) -> None:
        self.host, self.worker = host, worker
        self.is_over = False
        self.tenure: Tenure | None = host.epochs.of(S)
        # The epoch in which it began, if the host knew; else that of its first access.
        self.began = None if self.tenure is None or self.tenure.first is None else self.tenure.last
        self.sessions = WorkerSessions(worker, self, lambda: self.is_over)


async def _read(sessions: WorkerSessions) -> None:
    with contextlib.suppress(StaleEpoch):
        await sessions.enter(S)
    await sessions.read_session(S, lambda session: session.epoch)


class Epochs(RuleBasedStateMachine):
    kind: type[Store] = Store

    def __init__(self) -> None:
        super().__init__()
        self.disk = Disk()
        self.hosts = [Host(self.kind(self.disk)) for _ in range(2)]
        self.dead: dict[Host, list[Writer]] = {host: [] for host in self.hosts}
        self.fenced: set[Writer] = set()  # those that have ended, and a later request of their host is done
        self.calls: list[OneCall] = []
        self.handles: list[tuple[Host, FencedSessions, int]] = []
        self.requests: list[Request] = []
        self.numbers = 0

    # What happens.

    @rule(host=HOSTS, worker=WORKERS, asks=st.booleans())
    def begin_call(self, host: int, worker: int, asks: bool) -> None:
        here = self.hosts[host]
        if asks:  # as a handle does before a call
            here.epochs.note(S, self.disk.session.epoch, self.disk.session.host_id)
        call = OneCall(here, here.workers[worker])
        assert call.began == self.disk.session.epoch if asks else True
        self.calls.append(call)

    @precondition(lambda self: self.calls)
    @rule(pick=PICK, is_whole=st.booleans())
    def write(self, pick: int, is_whole: bool) -> None:
        call = self.calls[pick % len(self.calls)]
        self._begin(call, call.sessions)
        self._finish(is_whole)

    @rule(host=HOSTS, worker=WORKERS)
    def call_and_write(self, host: int, worker: int) -> None:
        self.begin_call(host, worker, asks=True)
        self._begin(self.calls[-1], self.calls[-1].sessions)
        self._finish(True)

    @precondition(lambda self: self.calls)
    @rule(pick=PICK, is_whole=st.booleans())
    def read(self, pick: int, is_whole: bool) -> None:
        call = self.calls[pick % len(self.calls)]
        self._send(_read(call.sessions), 0, call)
        self._finish(is_whole)

    @rule(host=HOSTS, is_whole=st.booleans())
    def take_over(self, host: int, is_whole: bool) -> None:
        here = self.hosts[host]
        self._send(take_over(here.store, S), 0, here)
        self._finish(is_whole)

    @precondition(lambda self: self.handles)
    @rule(pick=PICK, is_whole=st.booleans())
    def write_by_handle(self, pick: int, is_whole: bool) -> None:
        handle = self.handles[pick % len(self.handles)]
        self._begin(handle, handle[1])
        self._finish(is_whole)

    @precondition(lambda self: self.requests)
    @rule(pick=PICK)
    def step(self, pick: int) -> None:
        self._step(self.requests[pick % len(self.requests)])

    @precondition(lambda self: self.requests)
    @rule(pick=PICK)
    def cancel(self, pick: int) -> None:
        self.requests.pop(pick % len(self.requests)).work.close()

    @rule(host=HOSTS, worker=WORKERS)
    def worker_dies(self, host: int, worker: int) -> None:
        here = self.hosts[host]
        here.workers[worker].gone()
        self.dead[here].append(here.workers[worker])
        here.workers[worker] = Writer(here.store, f"w-{worker}")

    @precondition(lambda self: self.calls)
    @rule(pick=PICK)
    def call_ends(self, pick: int) -> None:
        self.calls.pop(pick % len(self.calls)).is_over = True

    # What must hold.

    def _begin(self, caller: Any, sessions: Any) -> None:
        self.numbers += 1
        number = self.numbers
        work = sessions.update_session(S, lambda session: session.update("x", number))
        self._send(work, number, caller)

    def _send(self, work: Coroutine[Any, Any, Any], number: int, caller: Any) -> None:
        dead = tuple(self.dead[caller.host]) if isinstance(caller, OneCall) else ()
        self.requests.append(Request(work, number, caller, dead))
        self._step(self.requests[-1])

    def _finish(self, is_whole: bool) -> None:
        if is_whole and self.requests:
            request = self.requests[-1]
            while request in self.requests:
                self._step(request)

    def _step(self, request: Request) -> None:
        before = len(self.disk.landed)
        allowed = self._may(request) if request.number else None
        answer: Any = None
        try:
            request.work.send(None)
        except StopIteration as stop:
            self.requests.remove(request)
            answer = stop.value
            self.fenced.update(request.dead)
            if isinstance(request.caller, OneCall) and request.caller.began is None:
                assert request.caller.tenure is not None
                request.caller.began = request.caller.tenure.first
        except SessionError as error:
            self.requests.remove(request)
            if allowed:
                raise AssertionError(f"a write that may land was refused: {error}") from error
            assert len(self.disk.landed) == before
            return
        if len(self.disk.landed) > before:
            assert self.disk.landed[before:] == [request.number]
            assert allowed is not False, f"a late write has landed, in epoch {self.disk.session.epoch}"
        if isinstance(answer, FencedSessions) and isinstance(request.caller, Host):
            self.handles.append((request.caller, answer, answer.tenure.last))

    def _may(self, request: Request) -> bool | None:
        """Whether a write may land now; None if the machine does not know."""
        if isinstance(request.caller, OneCall):
            call = request.caller
            if call.worker in self.fenced:
                return False
            if call.began is None:
                return None
            is_certain = not (call.worker.is_gone or call.is_over)  # else, it may be in the store already
            return (is_certain or None) if self._is_own(call.host, call.began) else False
        host, _, began = request.caller
        return self._is_own(host, began)

    def _is_own(self, host: Host, began: int) -> bool:
        """Whether all epochs after this one were begun by workers of the host."""
        later = range(began + 1, self.disk.session.epoch + 1)
        return all(self.disk.began[epoch] == host.epochs.host_id for epoch in later)

    @invariant()
    def every_epoch_has_one_holder(self) -> None:
        assert self.disk.session.host_id == self.disk.began[self.disk.session.epoch]

    def teardown(self) -> None:
        for request in self.requests:
            request.work.close()


class OptimisticEpochs(Epochs):
    kind = OptimisticStore


@pytest.mark.parametrize("machine", [Epochs, OptimisticEpochs], ids=["locking", "optimistic"])
def test_no_late_write_lands_and_no_other_is_refused(machine: type[Epochs]) -> None:
    run_state_machine_as_test(machine, settings=settings(max_examples=400, stateful_step_count=30, deadline=None))


def test_the_next_access_refuses_what_a_dead_worker_has_on_the_way() -> None:
    machine = OptimisticEpochs()
    machine.call_and_write(0, 0)
    machine.call_and_write(0, 1)
    machine.write(0, is_whole=False)  # the store is about to make it
    machine.worker_dies(0, 0)
    machine.begin_call(0, 1, asks=True)
    machine.read(2, is_whole=True)
    while machine.requests:
        machine.step(0)
    assert machine.disk.landed == [1, 2]
