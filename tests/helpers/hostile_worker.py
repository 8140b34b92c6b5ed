"""A worker that attacks its host in a way of its choice, over the lane or by what it prints. Run in place of the real.

`--how` names the attack. The worker says hello as it should, unless the attack is the hello, and attacks with each call
that comes. The attack `none` answers calls with the number of the call.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import mmap
import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpclib.const
import grpclib.server
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    HeadersFrame,
    PushPromiseFrame,
    RstStreamFrame,
    WindowUpdateFrame,
)

from bridge_py.execution.ledger import LEDGER_BYTES, take_secret
from bridge_py.link.channel import LINK_METHOD, BatchCodec
from bridge_py.wire import codec
from bridge_py.wire.frames import BatchReader, Frame, Kind, decode_batch, encode_batch, head_of
from bridge_py.wire.hellos import PROTOCOL_VERSION
from bridge_py.wire.logs import LOG, Logged, encode_logged
from bridge_py.wire.packed import PACKED, decode_packed
from tests.helpers import large_bodies, stranger

TOOLS = [{"name": "attack"}, {"name": "stream", "streaming": True}]
EVIL = "a\x1b[2Jb\x07\u2028c\u202ed\x9be\x00\r<"
HELLOS: dict[str, dict[str, Any]] = {
    "secret_not_ascii": {"secret": "\u00e9"},
    "secret_number": {"secret": 7},
    "protocol_nan": {"protocol": float("nan")},
    "pid_negative": {"pid": -1},
    "pid_huge": {"pid": 1 << 63},
    "zstd_list": {"zstd": [1]},
    "python_long": {"python": "3" * 1000},
    "timeout_nan": {"tools": [{"name": "t", "timeout": float("nan")}]},
    "timeout_negative": {"tools": [{"name": "t", "timeout": -1.0}]},
    "timeout_text": {"tools": [{"name": "t", "timeout": "1"}]},
    "many_tools": {"tools": [{"name": f"t{number}"} for number in range(10_001)]},
    "same_name": {"tools": [{"name": "t"}, {"name": "t"}]},
    "no_name": {"tools": [{"name": ""}]},
    "long_name": {"tools": [{"name": "t" * 1001}]},
    "evil_name": {"tools": [{"name": EVIL}]},
    "many_parameters": {"tools": [{"name": "t", "parameters": [{"name": f"p{number}"} for number in range(1001)]}]},
    "evil_parameter": {"tools": [{"name": "t", "parameters": [{"name": EVIL}]}]},
    "evil_enum": {"tools": [{"name": "t", "cancel": EVIL}]},
    "large": {"python": "x" * (17 * 1024 * 1024)},
    "evil_description": {"tools": [{"name": "t", "description": EVIL + "d" * 200_000}]},
}


def hello_of(how: str, secret: str) -> bytes:
    """The hello of an attack."""
    if how == "hello_list":
        return codec.encode_plain([secret])
    if how == "hello_deep":
        return b"\x91" * 100_000 + b"\xc0"
    if how == "hello_extension":
        return codec.encode({"protocol": PROTOCOL_VERSION, "secret": secret, "python": {1, 2}}).body
    hello = {"protocol": PROTOCOL_VERSION, "secret": secret, "pid": os.getpid(), "tools": TOOLS}
    hello["lane"] = not how.startswith("channel_")
    return codec.encode_plain(hello | HELLOS.get(how, {}))


def error(message: str, kind: str = "T", traceback: str = "", parameter: str = "") -> bytes:
    """The body of an error frame."""
    fault = {"code": "tool", "message": message, "type": kind, "traceback": traceback, "parameter": parameter}
    return codec.encode_plain(fault)


def ask(ask_id: int, call_id: int, verb: str = "get_variable", *arguments: Any) -> Frame:
    """A request of a call."""
    return Frame(Kind.CALL, ask_id, verb, body=codec.encode_plain([call_id, *arguments]))


def packed(*frames: Frame) -> bytes:
    """A batch for the lane."""
    return PACKED.join([PACKED.encode(frame) for frame in frames])


def empties() -> Iterator[bytes]:
    """Empty frames of the one stream."""
    while True:
        yield DataFrame(1, b"").serialize() * 100


def tinies() -> Iterator[bytes]:
    """A large batch in frames of one byte, which never ends."""
    yield DataFrame(1, b"\0" + (70 * 1024 * 1024).to_bytes(4, "big")).serialize()
    while True:
        yield DataFrame(1, b"x").serialize() * 100


def resets() -> Iterator[bytes]:
    """The end of the one stream, again and again."""
    while True:
        yield RstStreamFrame(1, error_code=8).serialize() * 100


def endless_trailers() -> Iterator[bytes]:
    """Trailers that never end."""
    yield HeadersFrame(1, Encoder().encode([("grpc-status", "0")]), flags=["END_STREAM"]).serialize()
    while True:
        yield ContinuationFrame(1, b"").serialize() * 100


def large_trailers() -> Iterator[bytes]:
    """Trailers that are small on their way and grow when they are read."""
    encoder = Encoder()
    block = encoder.encode([("x", "y" * 3000)]) + encoder.encode([("x", "y" * 3000)]) * 10_000
    while True:
        yield HeadersFrame(1, block, flags=["END_STREAM", "END_HEADERS"]).serialize()


def odd_trailers() -> Iterator[bytes]:
    """Trailers that are not ASCII, behind frames that take a while."""
    odd = HeadersFrame(1, Encoder().encode([("x", b"\xff")]), flags=["END_STREAM", "END_HEADERS"])
    while True:
        yield WindowUpdateFrame(0, window_increment=1).serialize() * 20_000 + odd.serialize()


def pushes() -> Iterator[bytes]:
    """Streams that nobody asked for."""
    encoder = Encoder()
    for stream in range(2, 2**31, 2):
        yield PushPromiseFrame(1, stream, encoder.encode(stranger.HEADERS), flags=["END_HEADERS"]).serialize()


def windows() -> Iterator[bytes]:
    """More room, byte by byte."""
    while True:
        yield WindowUpdateFrame(0, window_increment=1).serialize() * 100


HTTP2 = {
    each.__name__: each
    for each in (
        *(stranger.pings, stranger.settings, stranger.priorities, stranger.unknowns, stranger.unknowns_late),
        *(stranger.goaways, empties, tinies, resets, endless_trailers, large_trailers, odd_trailers, pushes, windows),
    )
}


class Attacks:
    """What the worker writes to its lane."""

    def __init__(self, how: str, writing: int) -> None:
        self._how = how
        self._writing = writing
        self._asks = iter(range(2, 1 << 40, 2))
        self._lock = threading.Lock()
        self._waiting: list[int] = []
        self._refused = self._left = 0
        self.is_deaf = False

    def write(self, data: bytes) -> None:
        """Write all of it, or stop when the host has gone."""
        view = memoryview(data)
        with self._lock, contextlib.suppress(BrokenPipeError):
            while view:
                view = view[os.write(self._writing, view) :]
            return
        os._exit(0)

    def say(self, *frames: Frame) -> None:
        """Write frames as one batch."""
        batch = packed(*frames)
        self.write(head_of(batch) + batch)

    def on(self, frame: Frame) -> None:
        """Attack with a call, or answer a frame as a worker should."""
        if frame.kind == Kind.PING and self._how != "pongs":
            self.say(Frame(Kind.PONG, number=frame.number))
        elif self._how in ("behind", "first"):
            self._behind(frame)
        elif self._waiting and frame.kind in (Kind.RESULT, Kind.ERROR):
            self._count(frame)
        elif frame.kind in (Kind.CALL, Kind.STREAM):
            attack = self._flood_channel if self._how.startswith("http2_") else getattr(self, self._how, None)
            if attack is None and self._how.startswith("large_"):
                data = large_bodies.body(self._how.removeprefix("large_"))
                self.say(Frame(Kind.RESULT, frame.call_id, body=data))
            elif attack is None:
                self.say(Frame(Kind.RESULT, frame.call_id, body=codec.encode_plain(frame.call_id)))
            else:
                threading.Thread(target=attack, args=[frame.call_id], daemon=True).start()

    def _flood(self, frames: Iterator[Frame]) -> None:
        for frame in frames:
            batch = packed(frame)
            data = head_of(batch) + batch
            while True:
                self.write(data * max(1, 65_536 // len(data)))

    def pongs(self, _call_id: int) -> None:
        self._flood(iter([Frame(Kind.PONG, number=1)]))

    def pings(self, _call_id: int) -> None:
        self._flood(iter([Frame(Kind.PING, number=1)]))

    def progress(self, call_id: int) -> None:
        self._flood(iter([Frame(Kind.PROGRESS, call_id, body=codec.encode_plain([1, None, "flood"]))]))

    def single_progress(self, call_id: int) -> None:
        """Report progress for ever, in batches that come one after the other."""
        while True:
            time.sleep(0.0005)
            self.say(Frame(Kind.PROGRESS, call_id, body=codec.encode_plain([1, None, "flood"])))

    def logs(self, _call_id: int) -> None:
        self._flood(iter([Frame(Kind.EVENT, name=LOG, body=encode_logged(Logged("x", 40, message="flood")))]))

    def large_logs(self, _call_id: int) -> None:
        """Log records that take long to escape, and too large ones."""
        odd = "\x85" * 16_000
        logged = Logged("x", 40, "X", message=odd, exception="\n" * 16_000, stack=odd)
        self.say(*[Frame(Kind.EVENT, name=LOG, body=encode_logged(logged)) for _ in range(100)])
        huge = "\x85" * 10_000_000
        self._flood(iter([Frame(Kind.EVENT, name=LOG, body=encode_logged(Logged(huge, 40, huge)))]))

    def dropped_logs(self, _call_id: int) -> None:
        self._flood(iter([Frame(Kind.EVENT, name=LOG, body=encode_logged(Logged(dropped=1 << 63)))]))

    def cancels(self, call_id: int) -> None:
        self.say(ask(2, call_id, "list_variables", "*"))
        self._flood(iter([Frame(Kind.CANCEL, 2)]))

    def empty_batches(self, _call_id: int) -> None:
        while True:
            self.write(bytes(65_536))

    def huge_batch(self, _call_id: int) -> None:
        self.write(b"\xff\xff\xff\xff" + bytes(1 << 20))

    def many_frames(self, call_id: int) -> None:
        self.say(*[Frame(Kind.CREDIT, call_id, number=1) for _ in range(1_000_000)])

    def unknown_fields(self, _call_id: int) -> None:
        fields = PACKED.encode(Frame(Kind.PONG))[1:]
        batch = b"\xdd\0\0\0\1\xdd\0\x20\0\0" + fields + b"\1" * (0x200000 - 11)
        self.write(head_of(batch) + batch)

    def more_than_said(self, _call_id: int) -> None:
        batch = b"\xdd\0\0\0\1" + b"\x91\x0b" * 2_000_000
        self.write(head_of(batch) + batch)

    def short_array(self, _call_id: int) -> None:
        batch = b"\x9f" + b"\x91\x0b" * 15
        self.write(head_of(batch) + batch)

    def negative(self, call_id: int) -> None:
        self.say(Frame(Kind.RESULT, -call_id))

    def large_frame(self, call_id: int) -> None:
        self.say(Frame(Kind.PONG), Frame(Kind.RESULT, call_id, body=bytes(65 << 20)))

    def asks(self, call_id: int) -> None:
        """Ask for ever, in batches of many frames, for what cannot be answered."""
        while True:
            self.say(*[ask(next(self._asks), call_id, "no such verb") for _ in range(1000)])

    def single_asks(self, call_id: int) -> None:
        """Ask for ever, each in a batch of its own."""
        while True:
            batches = [packed(ask(next(self._asks), call_id, "has_variable", "x")) for _ in range(1000)]
            self.write(b"".join(head_of(batch) + batch for batch in batches))

    def odd_asks(self, _call_id: int) -> None:
        """Ask for ever with bodies that are no requests."""
        while True:
            bodies = [codec.encode_plain(body) for body in (5, [], [[1]], {"a": 1}, [None], ["x"], [float("nan")])]
            self.say(*[Frame(Kind.CALL, next(self._asks), "get_variable", body=body) for body in bodies * 100])

    def long_verb(self, call_id: int) -> None:
        self.say(ask(2, call_id, "v" * 1_000_000))

    def no_requests(self, call_id: int) -> None:
        """Send what is no request, and then answer the call."""
        for ask_id, body in enumerate((5, [], {"a": 1}, None, [[1]], "text"), 1):
            self.say(Frame(Kind.CALL, 2 * ask_id, "get_variable", body=codec.encode_plain(body)))
        self.say(Frame(Kind.RESULT, call_id, body=codec.encode_plain(None)))

    def host_tools(self, call_id: int) -> None:
        """Call a host tool that never ends, for ever."""
        while True:
            self.say(*[ask(next(self._asks), call_id, "call_host_tool", "wait", {}) for _ in range(500)])

    def large_asks(self, call_id: int, count: int = 4, megabytes: int = large_bodies.MEGABYTES) -> None:
        """Send large requests of both kinds, and return how many were answered by errors."""
        self._left = count
        self._waiting.append(call_id)
        items = large_bodies.body("int_keys", megabytes)
        call, other = codec.encode_plain(call_id), codec.encode_plain("count")
        for number in range(count):
            if number % 2:
                frame = Frame(Kind.CALL, next(self._asks), "get_variable", body=b"\x92" + call + items)
            else:
                args = b"\x93" + call + other + b"\x81\xa5items" + items
                frame = Frame(Kind.CALL, next(self._asks), "call_host_tool", body=args)
            self.say(frame)

    def large_asks_at_once(self, call_id: int) -> None:
        self.large_asks(call_id, 20, 1)

    def _count(self, frame: Frame) -> None:
        fault = codec.decode_fault(frame.body).message if frame.kind == Kind.ERROR else ""
        self._refused += "wait to be read" in fault
        self._left -= 1
        if not self._left:
            self.say(Frame(Kind.RESULT, self._waiting.pop(), body=codec.encode_plain(self._refused)))

    def unread(self, call_id: int) -> None:
        """Ask for a variable for ever, and read nothing any more."""
        self.is_deaf = True
        while True:
            self.say(*[ask(next(self._asks), call_id, "get_variable", "large") for _ in range(100)])

    def unread_stream(self, call_id: int) -> None:
        """Have a host tool stream, with credit without end, and read nothing any more."""
        self.is_deaf = True
        body = codec.encode_plain([call_id, "pour", {}])
        self.say(Frame(Kind.STREAM, 2, "call_host_tool", body=body), Frame(Kind.CREDIT, 2, number=1 << 40))

    def _behind(self, frame: Frame) -> None:
        """Read the session of the call that stands behind the one that runs, and return what the host answers."""
        if frame.kind in (Kind.RESULT, Kind.ERROR):
            body = codec.decode_fault(frame.body).message if frame.kind == Kind.ERROR else "its value"
            for call_id in self._waiting:
                self.say(Frame(Kind.RESULT, call_id, body=codec.encode_plain(body)))
            self._waiting.clear()
        elif frame.kind == Kind.CALL and not frame.session_id:
            self.say(Frame(Kind.RESULT, frame.call_id, body=codec.encode_plain(None)))
        elif frame.kind == Kind.CALL:
            self._waiting.append(frame.call_id)
            if len(self._waiting) == 2:
                asker = self._waiting[1 if self._how == "behind" else 0]
                self.say(ask(next(self._asks), asker, "get_variable", "secret"))

    def close_and_flood(self, call_id: int) -> None:
        """Close the channel and go on writing what is allowed."""
        self.say(ask(2, call_id, "list_variables", "*"))
        threading.Thread(target=self._flood, args=[iter([Frame(Kind.CANCEL, 2)])]).start()
        CHANNEL[0].shutdown(socket.SHUT_RDWR)

    def many_chunks(self, call_id: int) -> None:
        self._flood(iter([Frame(Kind.CHUNK, call_id, body=b"\xc0")]))

    def large_chunks(self, call_id: int) -> None:
        self._flood(iter([Frame(Kind.CHUNK, call_id, body=codec.encode_plain("x" * 400_000))]))

    def attached_chunks(self, call_id: int) -> None:
        self._flood(iter([Frame(Kind.CHUNK, call_id, number=1, body=b"\xc0", attached=bytes(400_000))]))

    def _flood_channel(self, _call_id: int) -> None:
        """Write frames of HTTP/2 to the channel, for ever, and read nothing there any more."""
        loop, transport = CHANNEL[1:]
        loop.call_soon_threadsafe(transport.pause_reading)
        channel = os.dup(CHANNEL[0].fileno())
        for data in HTTP2[self._how.removeprefix("http2_")]():
            view = memoryview(data)
            while view:
                select.select([], [channel], [])
                try:
                    view = view[os.write(channel, view) :]
                except BlockingIOError:
                    continue
                except OSError:
                    return  # the host has closed it

    def evil_error(self, call_id: int) -> None:
        trace = f"Traceback:\n\tline 1\n{EVIL}\n"
        self.say(Frame(Kind.ERROR, call_id, body=error(EVIL, EVIL, trace, EVIL)))

    def giant_error(self, call_id: int) -> None:
        text = "\x1b" * 10_000_000
        self.say(Frame(Kind.ERROR, call_id, body=error(text, text, text, text)))

    def evil_break(self, call_id: int) -> None:
        self.say(Frame(Kind.ERROR, call_id, body=codec.encode_plain({"code": EVIL * 10_000, "message": 5})))

    def newlines(self, call_id: int) -> None:
        for _ in range(8):
            os.write(2, b"\n" * 65_536)
        self.say(Frame(Kind.RESULT, call_id, body=codec.encode_plain(None)))

    def long_lines(self, call_id: int) -> None:
        for _ in range(64):
            os.write(2, b"\x1b" * 65_536)
        os.write(2, b"\nend\n")
        self.say(Frame(Kind.RESULT, call_id, body=codec.encode_plain(None)))

    def evil_lines(self, call_id: int) -> None:
        os.write(1, EVIL.encode() + b"\n")
        os.write(2, EVIL.encode() + b"\r\n")
        os.write(2, b"\xff\xfe tab\there\n")
        self.say(Frame(Kind.RESULT, call_id, body=codec.encode_plain(None)))

    def evil_death(self, _call_id: int) -> None:
        os.write(2, EVIL.encode() + b"\n" + b"y" * 60_000 + b"\n")
        os._exit(3)


CHANNEL: list[Any] = []  # its socket, its loop and its transport


class HostileLink:
    """The Link service; after the hellos everything goes by the lane."""

    def __init__(self, how: str, secret: str, lane: list[int]) -> None:
        self._how = how
        self._secret = secret
        self._reading, writing = lane
        self._attacks = Attacks(how, writing)

    def __mapping__(self) -> dict[str, Any]:
        cardinality = grpclib.const.Cardinality.STREAM_STREAM
        return {LINK_METHOD: grpclib.const.Handler(self._open, cardinality, bytes, bytes)}

    async def _open(self, stream: Any) -> None:
        transport = stream._stream._transport
        CHANNEL.extend([transport.get_extra_info("socket"), asyncio.get_running_loop(), transport])
        await stream.recv_message()
        await stream.send_message(encode_batch([Frame(Kind.HELLO, body=hello_of(self._how, self._secret))]))
        if self._how.startswith("channel_"):
            await self._attack_on_channel(stream)
        threading.Thread(target=self._read, daemon=True).start()
        await stream.recv_message()

    async def _attack_on_channel(self, stream: Any) -> None:
        call_id = 0
        while not call_id:  # there may be pings first
            call_id = decode_batch(await stream.recv_message())[0].call_id
        if self._how == "channel_deaf":
            CHANNEL[2].pause_reading()
            await asyncio.sleep(2)
            await stream._stream.send_data(b"\1\0\0\0\1x")
            await asyncio.sleep(1000)
        if self._how == "channel_huge":
            await stream._stream.send_data(b"\0\xff\xff\xff\xff" + bytes(1000))
        elif self._how == "channel_compressed":
            await stream._stream.send_data(b"\1\0\0\0\1x")
        elif self._how == "channel_cut":
            await stream._stream.send_data(b"\0\0\0\0\x09x", end_stream=True)
        elif self._how == "channel_fields":
            await stream.send_message(b"\x10\x01" * 2_000_000)
        batch = encode_batch([ask(2, call_id, "list_variables", "*")])
        await stream.send_message(batch)
        message = encode_batch([Frame(Kind.CANCEL, 2)])
        flood = (b"\0" + len(message).to_bytes(4, "big") + message) * 10_000
        while True:
            await stream._stream.send_data(flood)

    def _read(self) -> None:
        batches = BatchReader()
        while not self._attacks.is_deaf and (data := os.read(self._reading, 65_536)):
            for batch in batches.feed(data):
                for frame in decode_packed(batch):
                    self._attacks.on(frame)
        if not self._attacks.is_deaf:
            os._exit(0)


async def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--how")
    parser.add_argument("--listen-fd", type=int)
    parser.add_argument("--ledger-fd", type=int)
    parser.add_argument("--lane-fds", type=int, nargs=2)
    options, _ = parser.parse_known_args()
    link = HostileLink(options.how, take_secret(mmap.mmap(options.ledger_fd, LEDGER_BYTES)), options.lane_fds)
    server = grpclib.server.Server([link], codec=BatchCodec())
    await server.start(sock=socket.socket(fileno=options.listen_fd))
    await server.wait_closed()


if __name__ == "__main__":
    asyncio.run(main())
