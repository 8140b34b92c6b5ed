"""Property: our frames are, byte for byte, what betterproto2 writes and reads; broken bytes are a protocol error.

The frames of a lane arrive as they were sent, and their broken bytes are protocol errors too.
"""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_py.wire.errors import RemoteProtocolError
from bridge_py.wire.frames import Frame, Kind, decode_batch, encode_batch
from bridge_py.wire.messages.snakepit import bridge
from bridge_py.wire.packed import PACKED, decode_packed, join_packed

_numbers = st.one_of(st.integers(0, 300), st.integers(0, 2**64 - 1))
_texts = st.text(max_size=200)
_unlent = st.builds(
    Frame,
    kind=st.sampled_from(list(Kind)).map(int),
    call_id=_numbers,
    name=_texts,
    session_id=_texts,
    number=_numbers,
    body=st.binary(max_size=400),
    attached=st.binary(max_size=400),
    trace=_texts,
    began=_numbers,
)
# Whose area is lent: only then the other fields of a loan are written.
frames = st.one_of(
    _unlent,
    st.builds(
        lambda frame, loan, size, descriptor, segment: msgspec.structs.replace(
            frame, loan=loan, size=size, descriptor=descriptor, segment=segment
        ),
        _unlent,
        st.integers(1, 2**64 - 1),
        _numbers,
        _numbers,
        _texts,
    ),
)


def _generated(frame: Frame) -> bridge.Frame:
    return bridge.Frame(
        call_id=frame.call_id,
        kind=bridge.Kind(frame.kind),
        name=frame.name,
        session_id=frame.session_id,
        number=frame.number,
        body=frame.body,
        attached=bytes(frame.attached),
        loan=frame.loan,
        size=frame.size,
        descriptor=frame.descriptor,
        segment=frame.segment,
        trace=frame.trace,
        began=frame.began,
    )


@given(st.lists(frames, max_size=5))
def test_the_bytes_are_those_of_betterproto2(batch: list[Frame]) -> None:
    ours = encode_batch(batch)
    theirs = bridge.Batch(frames=[_generated(frame) for frame in batch])
    assert ours == bytes(theirs)
    assert decode_batch(bytes(theirs)) == batch
    assert bridge.Batch.parse(ours) == theirs


@given(frames, st.integers(14, 500), st.binary(max_size=50))
def test_unknown_fields_are_skipped(frame: Frame, number: int, content: bytes) -> None:
    tag = bridge.Frame(call_id=number << 3 | 2).__bytes__()[1:]
    field = tag + bridge.Frame(call_id=len(content) or 1).__bytes__()[1:] + (content or b"\0")
    inner = bytes(_generated(frame)) + field
    outer = b"\x0a" + (bridge.Frame(call_id=len(inner)).__bytes__()[1:]) + inner + field
    assert decode_batch(outer) == [frame]


@given(st.one_of(st.binary(max_size=300), st.tuples(st.lists(frames, min_size=1, max_size=3), st.data())))
def test_broken_bytes_raise_nothing_else(case: object) -> None:
    if isinstance(case, tuple):
        batch, data = case
        whole = bytearray(encode_batch(batch))
        position = data.draw(st.integers(0, len(whole) - 1))
        if data.draw(st.booleans()):
            whole[position] ^= data.draw(st.integers(1, 255))
        else:
            del whole[position:]
        broken = bytes(whole)
    else:
        assert isinstance(case, bytes)
        broken = case
    try:
        decoded = decode_batch(broken)
    except RemoteProtocolError:
        return
    assert all(isinstance(frame, Frame) for frame in decoded)


@given(st.lists(frames, max_size=5))
def test_packed_frames_arrive_as_they_were(batch: list[Frame]) -> None:
    packed = join_packed([PACKED.encode(frame) for frame in batch])
    assert decode_packed(packed, 10_000, 6) == batch
    views = [msgspec.structs.replace(frame, attached=memoryview(frame.attached)) for frame in batch]
    assert join_packed([PACKED.encode(frame) for frame in views]) == packed
    assert decode_packed(b"") == []


@given(st.one_of(st.binary(max_size=300), st.binary(max_size=300).map(b"\xdd\0\0\0\1".__add__)))
def test_bytes_that_are_no_packed_batch_raise_nothing_else(data: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        assert all(isinstance(frame, Frame) for frame in decode_packed(data, 100, 10))


def test_packed_frames_over_the_limits_are_refused_before_they_are_read() -> None:
    three = join_packed([PACKED.encode(Frame(Kind.CALL, 1, body=bytes(70)))] * 3)
    assert len(decode_packed(three, max_frame=90, max_frames=4)) == 3
    with pytest.raises(RemoteProtocolError, match=r"a frame of 86 bytes is over the limit of 85 bytes"):
        decode_packed(three, max_frame=85)
    with pytest.raises(RemoteProtocolError, match="a batch of 3 frames or more"):
        decode_packed(three + b"rest", max_frames=3)


def test_a_frame_over_the_limit_is_refused_before_it_is_read() -> None:
    with pytest.raises(RemoteProtocolError, match=r"a frame of \d+ bytes is over the limit of 100 bytes"):
        decode_batch(encode_batch([Frame(Kind.CALL, 1, body=bytes(200))]), max_frame=100)
