"""Property: areas that are lent arrive whole and in order, whatever the delays, and every loan ends exactly once."""

from __future__ import annotations

import os
import random
from collections import deque
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from bridge_py.buffers import transfers
from bridge_py.buffers.buffer_sets import ATTACH_BYTES, BufferSet, Sizes, copy_at_once
from bridge_py.buffers.shared_memory import Segments
from bridge_py.buffers.transfers import Transfers
from bridge_py.wire.conversation import BufferRef, Conversation, Side
from bridge_py.wire.errors import LocalProtocolError, RemoteProtocolError
from bridge_py.wire.frames import Frame, Kind, encode_batch
from bridge_py.wire.loans import PIECE_BYTES

LOANS = {Kind.FETCH, Kind.BUFFER, Kind.TAKEN, Kind.RETURNED}


class OneWay(RuleBasedStateMachine):
    """A host that sends calls with areas to a worker, with lines of delayed batches between them."""

    def __init__(self) -> None:
        super().__init__()
        self.host = Conversation(Side.HOST)
        self.worker = Conversation(Side.WORKER)
        self.lines: dict[Side, deque[bytes]] = {side: deque() for side in Side}
        self.segments = Segments()
        self.sent: dict[int, bytes] = {}
        self.got: dict[int, list[bytes]] = {}
        self.kept: list[object] = []
        self.discarded: set[int] = set()

    @initialize(limit=st.sampled_from([0, 300_000, 1 << 30]), compress_from=st.sampled_from([None, 1, 200_000]))
    def join(self, limit: int, compress_from: int | None) -> None:
        self.sizes = Sizes(shared=limit, compress_from=compress_from)
        self.lending = Transfers(self.host, self.sizes, lambda frame: None)
        self.borrowing = Transfers(self.worker, self.sizes, self._deliver)
        self.borrowing.peer_pid = os.getpid()
        self.lending.peer_decompresses = True
        self.host.hello(b"")
        self.worker.hello(b"")
        self._settle()

    def _deliver(self, frame: Frame) -> None:
        self.got.setdefault(frame.call_id, []).append(bytes(frame.attached))
        self.kept.append(frame.attached)

    @rule(
        size=st.sampled_from([100, ATTACH_BYTES, ATTACH_BYTES + 1, 3 * PIECE_BYTES, 20 * PIECE_BYTES + 5]),
        share=st.booleans(),
    )
    def call(self, size: int, share: bool) -> None:
        # Half of it can be compressed.
        content = (random.Random(size).randbytes(size // 2) + bytes([len(self.sent) % 251 + 1]) * size)[:size]
        changing = bytearray(content)
        buffers = BufferSet([content[: size // 3], memoryview(changing)[size // 3 :]], size)
        copy_at_once(buffers, self.segments if share and buffers.is_large else None)
        changing.clear()  # which needs that nobody has a view of it
        call_id = self.host.open("tool", b"", area=self.lending.ref(buffers))
        buffers.release()
        self.sent[call_id] = content

    @rule(side=st.sampled_from(Side))
    def post(self, side: Side) -> None:
        (self.lending if side is Side.HOST else self.borrowing).tend()
        if data := (self.host if side is Side.HOST else self.worker).data_to_send():
            self.lines[side].append(data)

    @rule(side=st.sampled_from(Side))
    def take(self, side: Side) -> None:
        """Deliver the oldest batch that this side has sent."""
        if not self.lines[side]:
            return
        receiver = self.worker if side is Side.HOST else self.host
        receiving = self.borrowing if side is Side.HOST else self.lending
        for frame in receiver.receive(self.lines[side].popleft()):
            if frame.kind in LOANS:
                receiving.handle(frame)
            elif frame.kind == Kind.CALL:
                receiving.receive(frame)

    @rule()
    def let_go(self) -> None:
        self.kept.clear()

    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        waiting = [call_id for call_id in self.sent if self.borrowing.waits(call_id)]
        if waiting:
            call_id = data.draw(st.sampled_from(waiting))
            assert [frame.call_id for frame in self.borrowing.discard(call_id)] == [call_id]
            self.discarded.add(call_id)

    @invariant()
    def what_arrived_is_what_was_sent(self) -> None:
        assert all(areas == [self.sent[call_id]] for call_id, areas in self.got.items())

    def _settle(self) -> None:
        for _ in range(3):
            while any(self.lines.values()) or self.host.has_data_to_send or self.worker.has_data_to_send:
                for side in Side:
                    self.post(side)
                    self.take(side)
            # What may wait goes along with the next frame that does not.
            self.borrowing.tend()
            for conversation in (self.host, self.worker):
                conversation.link(Kind.PING, Frame(Kind.PING))

    def teardown(self) -> None:
        if not hasattr(self, "borrowing"):
            return
        self._settle()
        self.kept.clear()
        self._settle()
        assert set(self.got) == set(self.sent) - self.discarded
        assert self.host.loans.open_loans == self.worker.loans.open_loans == 0
        assert self.lending.room == self.sizes.shared
        self.segments.close()


TestOneWay = pytest.mark.slow(OneWay.TestCase)
TestOneWay.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)

_about_loans = st.builds(
    Frame,
    kind=st.sampled_from([*LOANS, Kind.RESULT, Kind.CREDIT]).map(int),
    call_id=st.sampled_from([0, 1]),
    number=st.integers(0, 3),
    body=st.binary(max_size=5),
    loan=st.integers(0, 3),
    size=st.sampled_from([0, 5, 1 << 50]),
)


@given(st.lists(_about_loans, max_size=12))
def test_any_input_is_taken_or_a_remote_protocol_error(batch: list[Frame]) -> None:
    conversation = Conversation(Side.HOST)
    conversation.hello(b"")
    conversation.receive(encode_batch([Frame(Kind.HELLO)]))
    lending = Transfers(conversation, Sizes(shared=0), lambda frame: None)
    area = lending.ref(BufferSet([bytes(ATTACH_BYTES + 1)], ATTACH_BYTES + 1))
    conversation.open("tool", b"", area=area)
    try:
        for frame in conversation.receive(encode_batch(batch)):
            if frame.kind in LOANS:
                lending.handle(frame)
    except RemoteProtocolError:
        return
    assert conversation.loans.open_loans <= 1 + len(batch)


def _lend(conversation: Conversation) -> None:
    conversation.open("tool", b"", area=BufferRef(loan=conversation.loans.lend(10), size=10))


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([Frame(Kind.FETCH, loan=2, number=1)], "cannot be asked for"),
        ([Frame(Kind.FETCH, loan=1, number=0)], "cannot be asked for"),
        ([Frame(Kind.TAKEN, loan=1), Frame(Kind.FETCH, loan=1, number=1)], "cannot be asked for"),
        ([Frame(Kind.TAKEN, loan=1), Frame(Kind.TAKEN, loan=1)], "cannot be taken"),
        ([Frame(Kind.RETURNED, loan=1), Frame(Kind.RETURNED, loan=1)], "not open"),
        ([Frame(Kind.BUFFER, loan=1, body=b"x")], "nobody asked for"),
        ([Frame(Kind.PING, loan=1)], "with a loan"),
        ([Frame(Kind.CALL, 2, loan=1, size=1 << 50)], "a loan of"),
        ([Frame(Kind.CALL, 2, loan=1)], "a loan of 0 bytes"),
        ([Frame(Kind.CALL, 2, loan=2, size=1), Frame(Kind.CALL, 4, loan=1, size=1)], "is not new"),
    ],
)
def test_each_broken_rule_is_named(frames: list[Frame], message: str) -> None:
    conversation = Conversation(Side.HOST)
    conversation.hello(b"")
    conversation.receive(encode_batch([Frame(Kind.HELLO)]))
    _lend(conversation)
    with pytest.raises(RemoteProtocolError, match=message):
        conversation.receive(encode_batch(frames))


@pytest.mark.parametrize(
    "say",
    [
        lambda loans: loans.lend(0),
        lambda loans: loans.lend(1 << 60),
        lambda loans: loans.piece(1, b"x"),
        lambda loans: loans.fetch(1, 1),
        lambda loans: loans.take(1),
        lambda loans: loans.give_back(1),
    ],
)
def test_what_this_side_may_not_say(say: Callable[[object], None]) -> None:
    conversation = Conversation(Side.HOST)
    conversation.hello(b"")
    conversation.receive(encode_batch([Frame(Kind.HELLO)]))
    _lend(conversation)
    with pytest.raises(LocalProtocolError):
        say(conversation.loans)


def test_a_batch_holds_one_piece_and_it_is_the_last() -> None:
    conversation = Conversation(Side.HOST)
    conversation.hello(b"")
    conversation.receive(encode_batch([Frame(Kind.HELLO)]))
    lending = Transfers(conversation, Sizes(shared=0), lambda frame: None)
    conversation.open("tool", b"", area=lending.ref(BufferSet([bytes(4 * PIECE_BYTES)], 4 * PIECE_BYTES)))
    conversation.data_to_send()
    for frame in conversation.receive(encode_batch([Frame(Kind.FETCH, loan=1, number=transfers._WINDOW)])):
        lending.handle(frame)
    conversation.open("small", b"")
    sizes = []
    while data := conversation.data_to_send():
        sizes.append(len(data))
    assert len(sizes) == 4
    assert max(sizes) < PIECE_BYTES + 100
