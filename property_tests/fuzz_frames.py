"""Broken batches of frames, for `fuzz`."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from typing import ClassVar, Final

import msgspec
from hypothesis import strategies as st

from bridge_py.wire.conversation import BufferRef, Conversation, Side
from bridge_py.wire.errors import LocalProtocolError, RemoteProtocolError
from bridge_py.wire.frames import PROTOBUF, BatchReader, Format, Frame, Kind, head_of
from bridge_py.wire.hellos import HostHello, WorkerHello, read_hello, tools_of
from bridge_py.wire.packed import PACKED
from snakepit_trio.testing.strategies import tool_specs

from .fuzz_target import Parts, Target, drawn


class Frames(Target):
    """Batches of frames of the channel, both ways: as a batch alone, and as bytes in pieces."""

    format: ClassVar[Format] = PROTOBUF
    errors = (RemoteProtocolError,)
    tokens: ClassVar = [
        *(bytes((tag,)) for tag in (0x0A, 0x08, 0x10, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x40, 0x48, 0x50, 0x5A)),
        *(bytes((0x10, kind)) for kind in Kind),
        *(b"\x80" * 10, b"\xff" * 9 + b"\x01", b"\x0a\xff\xff\xff\xff\x0f", b"\x0b", b"\x0c", b"\x00\x00\x00\x00"),
    ]
    _SECRET: ClassVar = "s" * 16

    def valid(self, number: int, count: int) -> list[Parts]:
        numbers = st.one_of(st.integers(0, 9), st.integers(0, 9), st.integers(0, 2**64 - 1))
        texts = st.text(max_size=20)
        frames = st.builds(
            Frame,
            kind=st.sampled_from(list(Kind)).map(int),
            call_id=numbers,
            name=texts,
            session_id=texts,
            number=numbers,
            body=st.binary(max_size=60),
            attached=st.binary(max_size=60),
            loan=numbers,
            size=numbers,
            descriptor=numbers,
            segment=texts,
        )
        tools = st.lists(tool_specs(), max_size=3).map(msgspec.msgpack.encode)
        hellos = [
            *(self._hello(tools) for tools in drawn(tools, count // 4 + 1, number)),
            Frame(Kind.HELLO, body=msgspec.msgpack.encode(HostHello(protocol=1, secret=self._SECRET, pid=1))),
        ]
        return [(self.format.encode(frame),) for frame in [*hellos, *drawn(frames, count, number)]]

    def _hello(self, tools: bytes) -> Frame:
        hello = {"protocol": 1, "secret": self._SECRET, "pid": 2, "python": "3.11", "tools": tools}
        return Frame(Kind.HELLO, body=msgspec.msgpack.encode(hello))

    def broken(self, chance: random.Random) -> Parts:
        """Make what the peer of a side sends: frames that are legal there, or any frames, of which some are changed."""
        side = chance.choice(list(Side))
        if chance.random() < 0.6:
            data = self._legal(side, chance)
        else:
            data = self.format.join([chance.choice(self._valid)[0] for _ in range(chance.choice((1, 1, 2, 3, 8)))])
        for _ in range(chance.choice((0, 1, 1, 2))):
            data = self._mutations.changed(chance, data)
        return data, b"host" if side is Side.HOST else b"worker"

    def _legal(self, side: Side, chance: random.Random) -> bytes:
        peer = Conversation(Side.WORKER if side is Side.HOST else Side.HOST)
        peer.format = self.format
        peer.hello(b"")
        peer.receive(_begun(side, self.format).data_to_send())
        peer.data_to_send()
        for _ in range(chance.randrange(1, 12)):
            with contextlib.suppress(LocalProtocolError):
                chance.choice(_STEPS)(peer, chance.randrange(1, 6))
        return peer.data_to_send()

    def read(self, parts: Parts, chance: random.Random) -> None:
        side = Side.HOST if parts[1] == b"host" else Side.WORKER
        if chance.random() < 0.1:
            conversation = Conversation(side, max_frame=4_000)
            conversation.format = self.format
        else:
            conversation = _begun(side, self.format)
        for frame in self._frames_of(parts[0], conversation, chance):
            self._use(frame, side)
        conversation.data_to_send()

    def _frames_of(self, data: bytes, conversation: Conversation, chance: random.Random) -> list[Frame]:
        if chance.random() < 0.5:
            return conversation.receive(data)
        reader = BatchReader(8_000)
        lane = head_of(data) + data if chance.random() < 0.8 else data
        frames = []
        step = chance.randrange(1, len(lane) + 2)
        for at in range(0, len(lane), step):
            for batch in reader.feed(lane[at : at + step]):
                frames += conversation.receive(batch)
        self.format.decode(data, None, None)
        return frames

    def _use(self, frame: Frame, side: Side) -> None:
        if frame.kind == Kind.HELLO:
            if side is Side.HOST:
                tools_of(read_hello(frame.body, WorkerHello, self._SECRET))
            else:
                read_hello(frame.body, HostHello, self._SECRET)


class LaneFrames(Frames):
    """Batches of frames of a lane, likewise."""

    format: ClassVar[Format] = PACKED
    tokens: ClassVar = [
        *(b"\xdd\x00\x00\x00\x01", b"\xdd\xff\xff\xff\xff", b"\xdc\xff\xff", b"\x9b", b"\x90", b"\xc0", b"\xc1"),
        *(bytes((0x9B, kind)) for kind in Kind),
        *(b"\xcf" + b"\xff" * 8, b"\xd3" + b"\x80" + b"\x00" * 7, b"\xcb" + b"\x7f" * 8, b"\xc6\xff\xff\xff\xff"),
        *(b"\xdb\x00\x00\x00\x02\xff\xfe", b"\x91" * 40, b"\x81\xc0\xc0", b"\xc7\x01\x05\x00"),
    ]


def _begun(side: Side, format: Format) -> Conversation:
    """One side of a link, with two calls and a loan."""
    conversation = Conversation(side, max_frame=4_000, max_area=1 << 20, max_frames=50, max_served=4)
    conversation.format = format
    conversation.hello(b"")
    conversation.receive(format.join([format.encode(Frame(Kind.HELLO))]))
    conversation.open("a", b"")
    conversation.open("b", b"", credit=2, area=BufferRef(loan=conversation.loans.lend(2_000), size=2_000))
    return conversation


# What a peer may send, of a call or a loan. What is not legal at that point is left out.
_STEPS: Final[list[Callable[[Conversation, int], object]]] = [
    lambda peer, number: peer.open("tool", b"\x80", session_id="s", timeout_us=number),
    lambda peer, number: peer.open("tool", b"\x80", credit=number),
    lambda peer, number: peer.open("tool", b"", area=BufferRef(loan=peer.loans.lend(number), size=number)),
    lambda peer, number: peer.grant(number, 2),
    lambda peer, number: peer.cancel(number),
    lambda peer, number: peer.recall(number),
    lambda peer, number: peer.result(number, b"\xc0"),
    lambda peer, number: peer.error(number, b""),
    lambda peer, number: peer.chunk(number, b"\x01"),
    lambda peer, number: peer.end(number),
    lambda peer, number: peer.link(Kind.PING, Frame(0, number=number)),
    lambda peer, number: peer.link(Kind.EVENT, Frame(0, name="e", body=b"\xc0")),
    lambda peer, number: peer.loans.fetch(number, 1),
    lambda peer, number: peer.loans.take(number),
    lambda peer, number: peer.loans.give_back(number),
    lambda peer, number: peer.goodbye(),
]
