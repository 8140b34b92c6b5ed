"""Light streams are h2's: whatever frames come, in whatever pieces, both tell the same and answer the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bridge_py.contract.light_streams import LightConnection

REQUEST: Final = ((":method", "POST"), (":scheme", "http"), (":path", "/a/B"), (":authority", "x"), ("te", "trailers"))
ANSWER: Final = ((":status", "200"), ("content-type", "application/grpc"))
TRAILERS: Final = (("grpc-status", "0"),)
BLOCKS: Final[dict[str, Any]] = {
    "plain": {True: REQUEST, False: ANSWER},
    "trailers": {True: TRAILERS, False: TRAILERS},
    "long": {True: (*REQUEST, ("x-long", "x" * 3000)), False: (*ANSWER, ("x-long", "y" * 3000))},
    "sized": {True: (*REQUEST, ("content-length", "5")), False: (*ANSWER, ("content-length", "5"))},
    "hundred": {True: REQUEST, False: ((":status", "103"),)},
    "other": {True: (("x-other", "1"),), False: (*ANSWER, ("x-other", "1"))},
    "bad": {True: (*REQUEST, ("x-bad", b"\xff")), False: (*ANSWER, ("x-bad", b"\xff"))},
}
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

STREAMS: Final = st.sampled_from([1, 3, 3, 3, 5, 5, 7, 2])
FLAGS: Final = st.lists(st.sampled_from(["END_STREAM", "END_HEADERS", "PADDED", "PRIORITY"]), max_size=3)
HEADERS: Final = st.tuples(
    st.just("headers"),
    STREAMS,
    st.sampled_from(["plain", "plain", "plain", "trailers", "trailers", *BLOCKS]),
    st.one_of(st.just(["END_HEADERS"]), st.just(["END_HEADERS", "END_STREAM"]), FLAGS),
)
DATA: Final = st.tuples(
    st.just("data"),
    STREAMS,
    st.sampled_from([b"hello", b"hello", b"", b"x" * 16_384, b"x" * 20_000]),
    st.sampled_from([[], [], ["END_STREAM"], ["END_STREAM"], ["PADDED"], ["PADDED", "END_STREAM"]]),
)
OTHERS: Final = st.one_of(
    st.tuples(st.just("window"), st.one_of(st.just(0), STREAMS), st.sampled_from([1, 7, 0, 1 << 30, (1 << 31) - 1])),
    st.tuples(st.just("reset"), STREAMS),
    st.tuples(st.just("continue"), STREAMS, st.booleans()),
    st.tuples(st.just("priority"), STREAMS),
    st.tuples(st.just("settings"), st.sampled_from([{4: 10}, {4: 1 << 20}, {1: 0}, {1: 4096}, {3: 2}, {5: 30_000}])),
    st.tuples(st.just("ping")),
    st.tuples(st.just("unknown"), st.one_of(st.just(0), STREAMS)),
    st.tuples(st.just("goaway")),
)
ODD: Final = st.one_of(HEADERS, DATA, OTHERS, OTHERS)
QUIET: Final = st.sampled_from(
    [("window", 0, 7), ("ping",), ("settings", {4: 1 << 20}), ("settings", {1: 100}), ("settings", {1: 4096})]
)
BODIES: Final = st.lists(st.sampled_from([b"hello", b"x" * 16_384]), max_size=5)


@st.composite
def conversations(draw: st.DrawFn, *, is_client: bool) -> list[Any]:
    """What a peer sends for some requests, in turn. Now and then there is something odd."""
    queues = [draw(exchanges(is_client=is_client)) for _ in range(draw(st.integers(1, 4)))]
    numbers: dict[int, int] = {}
    steps = []
    while live := [place for place, queue in enumerate(queues) if queue]:
        place = draw(st.sampled_from(live))
        stream = numbers.setdefault(place, 2 * len(numbers) + (3 if is_client else 1))
        kind, *how = queues[place].pop(0)
        steps.append((kind, stream, *how))
        steps += draw(st.sampled_from([0] * 7 + [1])) * [draw(QUIET)]
        steps += draw(st.sampled_from([0] * 30 + [1])) * [draw(ODD)]
    return steps


@st.composite
def exchanges(draw: st.DrawFn, *, is_client: bool) -> list[Any]:
    """The frames of one request, or of one answer, without the stream."""
    steps: list[Any] = [("headers", draw(st.sampled_from(["plain"] * 6 + list(BLOCKS))), ["END_HEADERS"])]
    steps += draw(st.lists(st.sampled_from([("window", 7)]), max_size=1))
    bodies = draw(BODIES)
    steps += [("data", each, []) for each in bodies]
    if draw(st.booleans()):
        return steps  # it goes on
    if is_client:
        return [*steps, ("data", draw(st.sampled_from([b"hello", b"", b"x" * 16_384])), ["END_STREAM"])]
    return [*steps, ("headers", "trailers", ["END_HEADERS", "END_STREAM"])]


CUTS: Final[st.SearchStrategy[list[int]]] = st.lists(st.integers(1, 60), max_size=30) | st.just([])


class Wire:
    """The frames of a peer, as bytes."""

    def __init__(self, *, is_client: bool) -> None:
        self._is_client = is_client
        self._encoder = Encoder()

    def frame(self, kind: str, *how: Any) -> bytes:
        make: Callable[..., Frame] = getattr(self, kind)
        return bytes(make(*how).serialize())

    def headers(self, stream: int, block: str, flags: list[str]) -> Frame:
        frame = HeadersFrame(stream, self._encoder.encode(BLOCKS[block][self._is_client]), flags=flags)
        frame.pad_length = 3 if "PADDED" in flags else 0
        return frame

    def data(self, stream: int, content: bytes, flags: list[str]) -> Frame:
        return DataFrame(stream, content, flags=flags, pad_length=3 if "PADDED" in flags else 0)

    def window(self, stream: int, increment: int) -> Frame:
        frame = WindowUpdateFrame(stream, window_increment=1)
        frame.window_increment = increment
        return frame

    def reset(self, stream: int) -> Frame:
        return RstStreamFrame(stream, error_code=8)

    def priority(self, stream: int) -> Frame:
        return PriorityFrame(stream, stream_weight=3)

    def settings(self, values: dict[int, int]) -> Frame:
        return SettingsFrame(0, settings=values)

    def ping(self) -> Frame:
        return PingFrame(0, b"12345678")

    def unknown(self, stream: int) -> Frame:
        frame = PingFrame(0, b"12345678")
        frame.stream_id, frame.type = stream, 0x42
        return frame

    def goaway(self) -> Frame:
        return GoAwayFrame(0, last_stream_id=1)

    def continue_(self, stream: int, is_end: bool) -> Frame:
        return ContinuationFrame(stream, b"", flags=["END_HEADERS"] if is_end else [])


def bytes_of(steps: list[Any], wire: Wire) -> bytes:
    return b"".join(wire.frame("continue_" if kind == "continue" else kind, *how) for kind, *how in steps)


def config(*, client_side: bool) -> H2Configuration:
    """As grpclib has it."""
    return H2Configuration(
        client_side=client_side,
        header_encoding="ascii",
        validate_inbound_headers=False,
        validate_outbound_headers=False,
        normalize_inbound_headers=False,
        normalize_outbound_headers=False,
    )


class Side:
    """One connection, and all that it has told."""

    def __init__(self, connection: H2Connection) -> None:
        self.connection = connection
        self.told: list[Any] = []
        connection.initiate_connection()
        self.sent = connection.data_to_send()
        self._has_failed = False

    def feed(self, data: bytes) -> None:
        if self._has_failed:
            return
        try:
            for event in self.connection.receive_data(data):
                self.told.append(repr(event) if "Settings" in repr(event) else (type(event), plain(vars(event))))
        except Exception as error:
            self.told.append(type(error))
            self._has_failed = True
        else:
            self.connection.open_inbound_streams  # noqa: B018 - it forgets streams that are closed
        self.sent += self.connection.data_to_send()

    def state(self) -> Any:
        """The state of the connection and of the streams that are open."""
        h2 = self.connection
        if isinstance(h2, LightConnection):
            for stream_id in tuple(h2._lights):
                h2.make_full(stream_id)
        streams = {
            number: (
                stream.state_machine.state,
                stream.outbound_flow_control_window,
                stream.inbound_flow_control_window,
            )
            for number, stream in sorted(h2.streams.items())
            if not stream.closed
        }
        windows = h2.outbound_flow_control_window, h2.inbound_flow_control_window
        return h2.state_machine.state, streams, windows, h2.highest_inbound_stream_id, h2.highest_outbound_stream_id


def plain(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: plain(each) for name, each in content.items()}
    if isinstance(content, (list, tuple)):
        return [plain(each) for each in content]
    return plain(vars(content)) if hasattr(content, "__dict__") else content


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    found, at = [], 0
    for cut in cuts:
        found.append(data[at : at + cut])
        at += cut
    return [*found, data[at:]]


def compare(h2: Side, light: Side, data: bytes, cuts: list[int]) -> None:
    for piece in pieces(data, cuts):
        h2.feed(piece)
        light.feed(piece)
    assert light.told == h2.told
    assert light.sent == h2.sent
    if not h2._has_failed:
        assert light.state() == h2.state()


FIRST: Final[list[Any]] = [("settings", {}), ("headers", 1, "plain", ["END_HEADERS"]), ("data", 1, b"", ["END_STREAM"])]


#: The newest header of HPACK's table has the same number whatever it is.
SAME_BYTES: Final[list[Any]] = [
    ("headers", 2 * number + 3, block, ["END_HEADERS"])
    for number, block in enumerate(["trailers"] * 4 + ["other"] * 2 + ["trailers"] * 2)
]


@settings(deadline=None, max_examples=150)
@given(conversations(is_client=True), CUTS)
@example([("headers", 3, "plain", ["END_HEADERS"]), ("window", 3, 7), ("data", 3, b"hello", ["END_STREAM"])], [])
@example([("headers", 3, "plain", []), ("continue", 3, True), ("data", 3, b"hello", ["END_STREAM"])], [80] * 3)
@example([("headers", 3, "plain", ["END_HEADERS"]), ("headers", 5, "plain", []), ("data", 3, b"", [])], [])
@example([("headers", 3, "plain", ["END_HEADERS"]), ("window", 3, (1 << 31) - 1)], [])
@example([("headers", 3, "plain", ["END_HEADERS"]), ("window", 3, 0)], [])
@example([("window", 0, (1 << 31) - 1)], [])
@example([("headers", 2 * number + 3, "plain", ["END_HEADERS"]) for number in range(101)], [])
@example([("headers", 5, "plain", ["END_HEADERS"]), ("headers", 3, "plain", ["END_HEADERS"])], [])
@example(SAME_BYTES, [])
def test_a_server_reads_the_same(steps: list[Any], cuts: list[int]) -> None:
    sides = [Side(kind(config=config(client_side=False))) for kind in (H2Connection, LightConnection)]
    wire = Wire(is_client=True)
    first = PREFACE + bytes_of(FIRST, wire)
    for side in sides:
        side.feed(first)
    compare(sides[0], sides[1], bytes_of(steps, wire), cuts)


@settings(deadline=None, max_examples=150)
@given(conversations(is_client=False), CUTS, st.integers(1, 5))
@example(
    [
        ("settings", {}),
        ("headers", 3, "plain", ["END_HEADERS"]),
        ("data", 3, b"hello", []),
        ("headers", 3, "trailers", ["END_HEADERS", "END_STREAM"]),
    ],
    [],
    2,
)
def test_a_client_reads_the_same(steps: list[Any], cuts: list[int], requests: int) -> None:
    h2 = Side(H2Connection(config=config(client_side=True)))
    light_connection = LightConnection(config=config(client_side=True))
    light = Side(light_connection)
    for _ in range(requests):
        stream = h2.connection.get_next_available_stream_id()
        h2.connection.send_headers(stream, REQUEST)
        h2.connection.send_data(stream, b"question", end_stream=True)
        assert light_connection.request(REQUEST, b"question") == stream
    compare(h2, light, bytes_of(steps, Wire(is_client=False)), cuts)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from([{1: 0}, {1: 4096}, {1: 100}, {4: 1 << 20}]), max_size=5), st.booleans())
def test_what_is_written_is_what_h2_writes(changes: list[dict[int, int]], is_plain: bool) -> None:
    """A server answers requests, with settings that change the table of headers in between."""
    h2, light_connection = H2Connection(config(client_side=False)), LightConnection(config=config(client_side=False))
    sides = Side(h2), Side(light_connection)
    wire = Wire(is_client=True)
    for side in sides:
        side.feed(PREFACE)
    for number in range(8):
        stream = 2 * number + 1
        change = changes[number : number + 1]
        data = b"".join(wire.frame("settings", each) for each in change)
        data += wire.frame("headers", stream, "plain" if is_plain else "long", ["END_HEADERS"])
        data += wire.frame("data", stream, b"hello", ["END_STREAM"])
        for side in sides:
            side.feed(data)
        h2.send_headers(stream, ANSWER)
        h2.send_data(stream, b"answer")
        h2.send_headers(stream, TRAILERS, end_stream=True)
        assert light_connection.can_send(stream) == min(h2.max_outbound_frame_size, h2.outbound_flow_control_window + 6)
        light_connection.respond(stream, ANSWER, b"answer", TRAILERS)
        assert light_connection.data_to_send() == h2.data_to_send()
    assert sides[0].told == sides[1].told
    assert sides[0].state() == sides[1].state()
