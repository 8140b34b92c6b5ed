"""Property: two conversations, joined with batches cut and delayed at will, agree.

Every call ends exactly once on both sides, chunks arrive in order and never beyond credit, and illegal
input, such as a batch that is cut within a frame, is a remote protocol error and never an exception of another kind.
"""

from __future__ import annotations

import contextlib
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bridge_py.wire.conversation import Conversation, Side
from bridge_py.wire.errors import FrameTooLarge, LocalProtocolError, RemoteProtocolError
from bridge_py.wire.frames import PROTOBUF, Format, Frame, Kind, decode_batch, encode_batch
from bridge_py.wire.packed import PACKED

TERMINAL = {Kind.RESULT, Kind.ERROR, Kind.END}


def _batch_of(frames: list[Frame], format: Format) -> bytes:
    return format.join([format.encode(frame) for frame in frames])


class Joined(RuleBasedStateMachine):
    """A host and a worker, with a line of delayed batches each way."""

    format = PROTOBUF

    def __init__(self) -> None:
        super().__init__()
        self.sides = {side: Conversation(side) for side in Side}
        for conversation in self.sides.values():
            conversation.format = self.format
        self.lines: dict[Side, deque[bytes]] = {side: deque() for side in Side}
        self.opened: dict[tuple[Side, int], Kind] = {}
        self.credit: dict[tuple[Side, int], int] = {}
        self.sent: dict[tuple[Side, int], int] = {}
        self.received: dict[tuple[Side, int], int] = {}
        self.serving: dict[tuple[Side, int], Kind] = {}
        self.ended: dict[tuple[Side, int], int] = {}
        for side, conversation in self.sides.items():
            conversation.hello(b"hello")
            self._post(side)
        for side in Side:
            self._take(side)

    def _post(self, side: Side) -> None:
        if data := self.sides[side].data_to_send():
            self.lines[side].append(data)

    def _take(self, side: Side) -> None:
        """Deliver the oldest batch that this side has sent."""
        other = Side.WORKER if side is Side.HOST else Side.HOST
        for frame in self.sides[other].receive(self.lines[side].popleft()):
            self._got(other, side, frame)

    def _got(self, side: Side, sender: Side, frame: Frame) -> None:
        if frame.kind in (Kind.CALL, Kind.STREAM):
            self.serving[sender, frame.call_id] = Kind(frame.kind)
        elif frame.kind == Kind.CREDIT:
            self.credit[sender, frame.call_id] += frame.number
        elif frame.kind == Kind.CHUNK:
            assert int(frame.body) == self.received[side, frame.call_id]
            assert frame.number == -(-len(frame.body) // 4096)
            self.received[side, frame.call_id] += 1
        elif frame.kind in TERMINAL:
            self.ended[side, frame.call_id] += 1

    @rule(side=st.sampled_from(Side), stream=st.booleans(), credit=st.integers(0, 3))
    def open(self, side: Side, stream: bool, credit: int) -> None:
        call_id = self.sides[side].open("tool", b"", credit=credit if stream else None)
        assert call_id % 2 == side.value % 2
        key = side, call_id
        self.opened[key] = Kind.STREAM if stream else Kind.CALL
        self.credit[key] = self.sent[key] = self.received[key] = self.ended[key] = 0

    @precondition(lambda self: self.serving)
    @rule(
        data=st.data(),
        how=st.sampled_from(["end", "error", "chunk", "progress"]),
        size=st.sampled_from([1, 4096, 4097, 20_000]),
    )
    def serve(self, data: st.DataObject, how: str, size: int) -> None:
        key = data.draw(st.sampled_from(sorted(self.serving, key=lambda key: (key[0].value, key[1]))))
        opener, call_id = key
        conversation = self.sides[Side.WORKER if opener is Side.HOST else Side.HOST]
        stream = self.serving[key] is Kind.STREAM
        if how == "progress":
            conversation.progress(call_id, b"")
            return
        if how == "chunk":
            if stream and self.credit[key] > 0:
                body = str(self.sent[key]).encode().rjust(size)
                conversation.chunk(call_id, body)
                self.credit[key] -= -(-len(body) // 4096)
                self.sent[key] += 1
            else:
                with pytest.raises(LocalProtocolError):
                    conversation.chunk(call_id, b"")
            return
        if how == "error":
            conversation.error(call_id, b"")
        elif stream:
            conversation.end(call_id)
        else:
            conversation.result(call_id, b"")
        del self.serving[key]
        with pytest.raises(LocalProtocolError):
            conversation.error(call_id, b"")
        with pytest.raises(LocalProtocolError):
            conversation.progress(call_id, b"")

    @precondition(lambda self: any(not count for count in self.ended.values()))
    @rule(data=st.data(), how=st.sampled_from(["cancel", "recall", "grant"]))
    def ask(self, data: st.DataObject, how: str) -> None:
        alive = [key for key, count in self.ended.items() if not count]
        side, call_id = data.draw(st.sampled_from(sorted(alive, key=lambda key: (key[0].value, key[1]))))
        conversation = self.sides[side]
        if how != "grant":
            getattr(conversation, how)(call_id)
        elif self.opened[side, call_id] is Kind.STREAM:
            conversation.grant(call_id, 2)
        else:
            with pytest.raises(LocalProtocolError):
                conversation.grant(call_id, 2)

    @rule(side=st.sampled_from(Side))
    def post(self, side: Side) -> None:
        self._post(side)

    @rule(side=st.sampled_from(Side), cut=st.integers(0, 3))
    def take(self, side: Side, cut: int) -> None:
        if not self.lines[side]:
            return
        frames = self.format.decode(self.lines[side].popleft(), None, None)
        parts = [frames[:cut], frames[cut:]]
        self.lines[side].extendleft(_batch_of(part, self.format) for part in reversed(parts) if part)
        self._take(side)

    @invariant()
    def no_call_ends_twice(self) -> None:
        assert all(count <= 1 for count in self.ended.values())

    def teardown(self) -> None:
        self._settle()
        for key, kind in sorted(self.serving.items(), key=lambda item: item[0][1]):
            conversation = self.sides[Side.WORKER if key[0] is Side.HOST else Side.HOST]
            if kind is Kind.STREAM:
                conversation.end(key[1])
            else:
                conversation.result(key[1], b"")
        self._settle()
        assert set(self.ended.values()) <= {1}
        assert self.received == self.sent
        assert all(conversation.open_calls == 0 for conversation in self.sides.values())

    def _settle(self) -> None:
        for side in Side:
            self._post(side)
            while self.lines[side]:
                self._take(side)


class JoinedByALane(Joined):
    """The same over the frames of a lane."""

    format = PACKED


TestJoined = Joined.TestCase
TestJoinedByALane = JoinedByALane.TestCase
for _case in (TestJoined, TestJoinedByALane):
    _case.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)

_frames = st.builds(
    Frame,
    kind=st.integers(0, 17),
    call_id=st.integers(0, 6),
    number=st.integers(0, 5),
    body=st.binary(max_size=5),
)


@given(st.lists(_frames, max_size=15), st.integers(0, 3), st.booleans())
def test_any_input_in_any_state_is_taken_or_a_remote_protocol_error(
    batch: list[Frame], calls: int, stream: bool
) -> None:
    conversation = Conversation(Side.HOST)
    conversation.hello(b"")
    conversation.receive(encode_batch([Frame(Kind.HELLO)]))
    for _ in range(calls):
        conversation.open("tool", b"", credit=2 if stream else None)
    try:
        taken = conversation.receive(encode_batch(batch))
    except RemoteProtocolError:
        return
    ends = [frame.call_id for frame in taken if frame.kind in TERMINAL]
    assert len(ends) == len(set(ends))
    assert set(ends) <= {1 + 2 * number for number in range(calls)}


@given(st.lists(_frames, min_size=1, max_size=5), st.sampled_from([PROTOBUF, PACKED]), st.data())
def test_a_batch_that_is_cut_anywhere_is_taken_in_part_or_a_remote_protocol_error(
    batch: list[Frame], format: Format, data: st.DataObject
) -> None:
    whole = _batch_of(batch, format)
    damaged = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for _ in range(data.draw(st.integers(0, 2)) if damaged else 0):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    conversation = Conversation(Side.WORKER)
    conversation.hello(b"")
    conversation.receive(encode_batch([Frame(Kind.HELLO)]))
    conversation.format = format
    with contextlib.suppress(RemoteProtocolError):
        conversation.receive(bytes(damaged))


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([Frame(Kind.CALL, 2)], "before hello"),
        ([Frame(Kind.HELLO), Frame(Kind.HELLO)], "a second hello"),
        ([Frame(Kind.HELLO), Frame(99)], "unknown kind 99"),
        ([Frame(Kind.HELLO), Frame(Kind.RESULT, 1)], "no open plain call"),
        ([Frame(Kind.HELLO), Frame(Kind.CHUNK, 1)], "no open stream with credit"),
        ([Frame(Kind.HELLO), Frame(Kind.END, 1)], "no open stream"),
        ([Frame(Kind.HELLO), Frame(Kind.ERROR, 1)], "not open"),
        ([Frame(Kind.HELLO), Frame(Kind.PROGRESS, 1)], "not open"),
        ([Frame(Kind.HELLO), Frame(Kind.CALL, 1)], "not the peer's to open"),
        ([Frame(Kind.HELLO), Frame(Kind.CALL, 4), Frame(Kind.CALL, 2)], "not the peer's to open"),
        ([Frame(Kind.HELLO), Frame(Kind.CANCEL, 4)], "never opened"),
        ([Frame(Kind.HELLO), Frame(Kind.CALL, 2), Frame(Kind.CREDIT, 2, number=1)], "no stream"),
        ([Frame(Kind.HELLO), Frame(Kind.PING, 3)], "not for the link"),
        ([Frame(Kind.HELLO), Frame(Kind.GOODBYE), Frame(Kind.CALL, 2)], "after goodbye"),
    ],
)
def test_each_broken_rule_is_named(frames: list[Frame], message: str) -> None:
    conversation = Conversation(Side.HOST)
    with pytest.raises(RemoteProtocolError, match=message):
        conversation.receive(encode_batch(frames))


def test_what_this_side_may_not_say() -> None:
    conversation = Conversation(Side.WORKER, max_frame=100)
    with pytest.raises(LocalProtocolError, match="hello comes first"):
        conversation.goodbye()
    conversation = Conversation(Side.WORKER, max_frame=100)
    conversation.hello(b"")
    with pytest.raises(LocalProtocolError, match="said already"):
        conversation.hello(b"")
    with pytest.raises(LocalProtocolError, match="between hello and goodbye"):
        conversation.open("tool", b"")
    conversation.receive(encode_batch([Frame(Kind.HELLO)]))
    with pytest.raises(FrameTooLarge, match="over the limit of 100"):
        conversation.open("tool", bytes(100))
    assert conversation.open("tool", b"") == 2
    with pytest.raises(LocalProtocolError):
        conversation.cancel(4)
    assert [frame.kind for frame in decode_batch(conversation.data_to_send())] == [Kind.HELLO, Kind.CALL]
    assert not conversation.has_data_to_send
