"""The worker's end of the lane over real pipes: who reads, who writes, and what a full pipe does."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_py.link import lane
from bridge_py.link.lane import Lane
from bridge_py.wire.errors import ProtocolError
from bridge_py.wire.frames import BatchReader, head_of


class Endpoint:
    """Notes what it receives, and in which thread; `call N` goes into `calls`. It says what is put into its outbox."""

    is_ending = False

    def __init__(self) -> None:
        self.calls: SimpleQueue[int | None] = SimpleQueue()
        self.is_stopping = False
        self.waiting = 0
        self.heard: list[bytes] = []
        self.threads: list[int] = []
        self.outbox: deque[bytes] = deque()
        self.said: deque[bytes] = deque()
        self.turns = 0  # how often the outbox was emptied

    @property
    def has_posts(self) -> bool:
        return bool(self.outbox)

    def take_outbox(self) -> None:
        self.turns += 1
        while self.outbox:
            self.said.append(self.outbox.popleft())

    def receive(self, data: bytes) -> None:
        if data == b"broken":
            raise ProtocolError("broken")
        self.threads.append(threading.get_ident())
        if data.startswith(b"call "):
            self.waiting += 1
            self.calls.put(int(data[5:]))
        self.heard.append(data)

    def data_to_send(self) -> bytes:
        return self.said.popleft() if self.said else b""


class Sides:
    """A lane, its endpoint, and the host's ends of the pipes."""

    def __init__(self) -> None:
        self.lost = threading.Event()
        self.endpoint = Endpoint()
        self.reading, self.to_worker = os.pipe()
        self.from_worker, self.writing = os.pipe()
        self.lane = Lane(self.endpoint, self.reading, self.writing, self.lost.set)
        self._batches = BatchReader()

    def send(self, *batches: bytes) -> None:
        os.write(self.to_worker, b"".join(head_of(batch) + batch for batch in batches))

    @contextmanager
    def sending(self, batch: bytes, when: Callable[[], bool]) -> Iterator[None]:
        """A thread sends the batch when the condition holds."""

        def send() -> None:
            try:
                until(when)
            finally:  # else who waits for the batch would hang
                self.send(batch)

        thread = threading.Thread(target=send)
        thread.start()
        yield
        thread.join()

    def next_call(self) -> int | None:
        found = self.lane.next(self.endpoint.calls)
        self.endpoint.waiting -= found is not None
        return found

    def say(self, data: bytes, verb: str = "result") -> None:
        self.endpoint.outbox.append(data)
        self.lane.post(verb)

    def hear(self, count: int) -> list[bytes]:
        found: list[bytes] = []
        while len(found) < count:
            found += self._batches.feed(os.read(self.from_worker, 65536))
        return found


@pytest.fixture
def a_late_follower(monkeypatch: pytest.MonkeyPatch) -> None:
    """The follower does not look twice, so the main thread reads, however late it comes."""
    monkeypatch.setattr(lane, "_TICK", 3600)


@pytest.fixture
def sides() -> Iterator[Sides]:
    sides = Sides()
    sides.lane.open(lambda: sides.endpoint.waiting > 0)
    yield sides
    sides.endpoint.is_ending = True
    sides.lane.close()
    ours = sides.lane._woken, sides.lane._waker
    for descriptor in (sides.reading, sides.writing, sides.to_worker, sides.from_worker, *ours):
        os.close(descriptor)


def until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.001)


@given(batches=st.lists(st.binary(max_size=400), max_size=8), cuts=st.lists(st.integers(1, 300), min_size=1))
def test_batches_are_whole_however_they_are_cut(batches: list[bytes], cuts: list[int]) -> None:
    data = b"".join(head_of(batch) + batch for batch in batches)
    reader, found, at, turn = BatchReader(), list[bytes](), 0, 0
    while at < len(data):
        step = cuts[turn % len(cuts)]
        found += reader.feed(data[at : at + step])
        at, turn = at + step, turn + 1
    assert found == batches


@pytest.mark.usefixtures("a_late_follower")
def test_the_main_thread_reads_while_it_waits_for_a_call(sides: Sides) -> None:
    for number in range(1, 4):
        sides.send(b"call %d" % number)
        assert sides.next_call() == number
    assert set(sides.endpoint.threads) == {threading.get_ident()}


def test_a_batch_that_comes_byte_by_byte_is_whole(sides: Sides) -> None:
    def send() -> None:
        for each in head_of(b"call 7") + b"call 7":
            os.write(sides.to_worker, bytes([each]))
            time.sleep(0.001)

    thread = threading.Thread(target=send)
    thread.start()
    assert sides.next_call() == 7
    thread.join()


def test_what_comes_while_a_tool_runs_is_heard(sides: Sides) -> None:
    sides.send(b"call 1")
    assert sides.next_call() == 1
    sides.send(b"cancel")
    until(lambda: sides.endpoint.heard == [b"call 1", b"cancel"])
    assert sides.endpoint.threads[1] != threading.get_ident()


@pytest.mark.usefixtures("a_late_follower")
def test_the_main_thread_reads_again_after_the_call_that_the_follower_brought(
    sides: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides.send(b"call 1")
    assert sides.next_call() == 1
    with monkeypatch.context() as soon:
        soon.setattr(lane, "_TICK", 0.002)
        sides.lane._bell.ring()
        sides.send(b"cancel")
        until(lambda: len(sides.endpoint.heard) == 2)
    with sides.sending(b"call 2", when=lambda: sides.lane._main_waits):
        assert sides.next_call() == 2
    until(lambda: not sides.lane._read_lock.locked())
    sides.send(b"call 3")
    assert sides.next_call() == 3
    me = threading.get_ident()
    assert [thread == me for thread in sides.endpoint.threads] == [True, False, False, True]


def test_what_is_said_is_written_by_who_says_it(sides: Sides) -> None:
    sides.say(b"one")
    assert os.read(sides.from_worker, 100) == head_of(b"one") + b"one"


def test_small_replies_in_quick_succession_travel_together(sides: Sides) -> None:
    sides.send(b"call 1")
    assert sides.next_call() == 1
    for number in range(1000):
        sides.say(b"%d" % number, "chunk")
    assert sides.hear(1000) == [b"%d" % number for number in range(1000)]
    assert sides.endpoint.turns < 900


def test_a_full_pipe_blocks_nobody_and_loses_nothing(sides: Sides) -> None:
    replies = [bytes([number]) * 50_000 for number in range(40)]
    for reply in replies:
        sides.say(reply)
    assert sides.endpoint.said, "the pipe takes no such amount"
    assert sides.hear(len(replies)) == replies
    sides.say(b"after")
    assert sides.hear(1) == [b"after"]


def test_both_sides_may_write_at_once_until_the_pipes_are_full(sides: Sides) -> None:
    sides.send(b"call 1")
    assert sides.next_call() == 1
    sent = [b"%d" % number * 20_000 for number in range(10, 60)]
    sender = threading.Thread(target=sides.send, args=sent)
    sender.start()
    for reply in sent:
        sides.say(reply)
    assert sides.hear(len(sent)) == sent
    sender.join()
    until(lambda: sides.endpoint.heard[1:] == sent)


def test_many_threads_may_speak_at_once(sides: Sides) -> None:
    def speak(name: int) -> None:
        for number in range(300):
            sides.say(b"%d %d" % (name, number), "chunk" if number % 3 else "result")

    threads = [threading.Thread(target=speak, args=[name]) for name in range(6)]
    for thread in threads:
        thread.start()
    heard = sides.hear(6 * 300)
    for thread in threads:
        thread.join()
    for name in range(6):
        assert [each for each in heard if each.startswith(b"%d " % name)] == [b"%d %d" % (name, n) for n in range(300)]


def test_a_record_is_written_when_it_is_logged_though_another_thread_has_the_link(
    a_late_follower: None, sides: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That thread may get no turn before the process dies."""
    monkeypatch.setattr(lane, "_LOG_WAITS", 30)
    has_link, may_leave = threading.Event(), threading.Event()

    def read() -> None:
        with sides.lane._endpoint_lock:
            has_link.set()
            may_leave.wait(30)

    reader = threading.Thread(target=read)
    reader.start()
    assert has_link.wait(30)
    logging = threading.Thread(target=sides.say, args=(b"record", "log"))
    logging.start()
    logging.join(0.05)
    assert logging.is_alive()  # it waits
    may_leave.set()
    logging.join(30)
    assert sides.hear(1) == [b"record"]
    reader.join()


def test_who_logs_while_it_has_the_link_itself_does_not_wait(
    a_late_follower: None, sides: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "_LOG_WAITS", 3600)
    receive = sides.endpoint.receive

    def log_and_receive(data: bytes) -> None:
        sides.say(b"record", "log")
        receive(data)

    monkeypatch.setattr(sides.endpoint, "receive", log_and_receive)
    sides.send(b"call 1")
    assert sides.next_call() == 1
    assert sides.hear(1) == [b"record"]


def test_signals_do_not_end_the_waiting_for_a_call(sides: Sides) -> None:
    heard = 0

    def note(*_: object) -> None:
        nonlocal heard
        heard += 1

    before = signal.signal(signal.SIGUSR1, note)

    def disturb() -> None:
        for _ in range(20):
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.002)
        sides.send(b"call 1")

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        assert sides.next_call() == 1
        thread.join()
        assert heard > 0
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_an_answer_that_a_tool_waits_for_comes_though_the_main_thread_is_the_one_that_waits(sides: Sides) -> None:
    sides.send(b"call 1")
    assert sides.next_call() == 1
    queue = sides.lane.make_queue()
    answer = threading.Timer(0.02, lambda: queue.put(sides.endpoint.heard[-1]))
    sides.send(b"answer")
    answer.start()
    assert queue.get() == b"answer"
    answer.join()


def test_timers_run_while_the_main_thread_is_busy(sides: Sides) -> None:
    sides.send(b"call 1")
    assert sides.next_call() == 1
    ran = threading.Event()
    with sides.lane._endpoint_lock:
        sides.lane.later(0.01, ran.set)
    assert ran.wait(20)


def test_the_end_of_the_host_is_the_end_of_the_link(sides: Sides) -> None:
    sides.send(b"call 1")
    assert sides.next_call() == 1
    os.close(sides.to_worker)
    try:
        assert sides.lost.wait(20)
    finally:
        sides.to_worker = os.open(os.devnull, os.O_WRONLY)


def test_a_host_that_breaks_the_protocol_is_the_end_of_the_link(sides: Sides, caplog: pytest.LogCaptureFixture) -> None:
    sides.send(b"call 1")
    assert sides.next_call() == 1
    sides.send(b"broken")
    assert sides.lost.wait(20)
    assert "the host broke the protocol: broken" in caplog.text


def test_a_host_that_does_not_read_any_more_is_the_end_of_the_link(sides: Sides) -> None:
    os.close(sides.from_worker)
    try:
        sides.say(b"one")
        assert sides.lost.wait(20)
    finally:
        sides.from_worker = os.open(os.devnull, os.O_RDONLY)


def test_an_idle_worker_looks_at_nothing(sides: Sides) -> None:
    """The follower sleeps after a while, unless it came to read first, and wakes when a call begins."""
    sleeps, number = False, 0

    def sleeps_or_reads() -> bool:
        nonlocal sleeps
        sleeps = sides.lane._sleeps
        return sleeps or sides.lane._main_waits

    while not sleeps:
        number += 1
        with sides.sending(b"call %d" % number, when=sleeps_or_reads):
            assert sides.next_call() == number
    sides.send(b"cancel")
    until(lambda: len(sides.endpoint.heard) == number + 1)
