"""A worker that forges what it sends: the name of the call says how. Run in place of the real one by tests."""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import mmap
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import grpclib.const
import grpclib.server
import msgspec

from bridge_py.execution.ledger import LEDGER_BYTES, take_secret
from bridge_py.link.channel import LINK_METHOD, BatchCodec
from bridge_py.wire import codec
from bridge_py.wire.errors import Fault
from bridge_py.wire.frames import Frame, Kind, decode_batch, encode_batch
from bridge_py.wire.hellos import PROTOCOL_VERSION
from bridge_py.wire.loans import PIECE_BYTES

SIZE = 200_000
OURS = b"o" * SIZE
NOTHING = codec.encode(None).body
ASKED = {"all_pieces": [1 << 39], "without_reading": [8] * 200}
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
Send = Callable[[Frame], Awaitable[None]]


def in_area(size: int) -> bytes:
    """The message of a memoryview of its area, which has `size` bytes."""
    return codec.encode(memoryview(bytes(size))).body


def pickle_of(data: bytes) -> Any:
    """The extension that stands for a pickle."""
    return msgspec.msgpack.Ext(33, msgspec.msgpack.encode(data))


def memory(data: bytes, name: str, seals: int = SEALS) -> int:
    """Make memory as an honest worker has it, except for the seals."""
    descriptor = os.memfd_create(name, os.MFD_ALLOW_SEALING)
    os.pwrite(descriptor, data, 0)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def words(rows: int) -> Any:
    """Make a table of texts."""
    import pyarrow as pa

    return pa.table({"word": [f"{number:09}" for number in range(rows)]})


class ForgedLink:
    """The Link service."""

    def __init__(self, secret: str, ledger: int) -> None:
        self._secret = secret
        self._ledger = ledger
        self._loan = 0
        self._open = memory(OURS, "lent")
        self._unsealed = memory(OURS, "unsealed", seals=0)
        self._table = -1
        self._pieces: dict[int, Iterator[bytes]] = {}
        self._asked: dict[int, int] = {}  # calls, by the requests that they have made

    def __mapping__(self) -> dict[str, Any]:
        cardinality = grpclib.const.Cardinality.STREAM_STREAM
        return {LINK_METHOD: grpclib.const.Handler(self._serve, cardinality, bytes, bytes)}

    async def _serve(self, stream: Any) -> None:
        async def send(frame: Frame) -> None:
            await stream.send_message(encode_batch([frame]))

        hello = {"protocol": PROTOCOL_VERSION, "secret": self._secret, "pid": os.getpid(), "tools": []}
        await send(Frame(Kind.HELLO, body=codec.encode_plain(hello)))
        while (data := await stream.recv_message()) is not None:
            for frame in decode_batch(data):
                await self._answer(frame, send)

    async def _answer(self, frame: Frame, send: Send) -> None:
        if frame.kind == Kind.CALL and frame.name == "ask_for_pieces":
            for number in ASKED[frame.session_id]:
                await send(Frame(Kind.FETCH, number=number, loan=frame.loan))
        elif frame.kind == Kind.CALL and frame.name == "ask":
            await send(self._ask(frame))
        elif frame.kind in (Kind.CALL, Kind.STREAM) and frame.name.startswith("snakepit:"):
            await send(self._function(frame))
        elif frame.kind == Kind.CALL:
            answer = getattr(self, f"_{frame.name}")(**codec.decode(frame.body, frame.attached))
            answer.kind, answer.call_id = answer.kind or Kind.RESULT, frame.call_id
            await send(answer)
        elif frame.kind in (Kind.RESULT, Kind.ERROR) and (call_id := self._asked.pop(frame.call_id, 0)):
            text = codec.decode_fault(frame.body).message if frame.kind == Kind.ERROR else "it was taken"
            await send(Frame(Kind.RESULT, call_id, body=codec.encode(text).body))
        elif frame.kind == Kind.FETCH:
            for _ in range(frame.number):
                if (piece := next(self._pieces[frame.loan], None)) is not None:
                    await send(Frame(Kind.BUFFER, loan=frame.loan, body=piece))

    def _lend(self, descriptor: int, name: str, size: int = SIZE, body: bytes = b"") -> Frame:
        self._loan += 1
        self._pieces[self._loan] = (OURS[at : at + PIECE_BYTES] for at in range(0, size, PIECE_BYTES))
        body = body or in_area(size)
        return Frame(0, body=body, loan=self._loan, size=size, descriptor=descriptor + 1, segment=name)

    def _ask(self, frame: Frame) -> Frame:
        """Make a request with a pickle among its arguments, where the test says "PICKLE"."""
        given = codec.decode(frame.body, frame.attached)
        arguments = [pickle_of(given["pickle"]) if each == "PICKLE" else each for each in given["arguments"]]
        arguments = [{"x": pickle_of(given["pickle"])} if each == "PICKLES" else each for each in arguments]
        ask_id = 2 * (len(self._asked) + frame.call_id)
        self._asked[ask_id] = frame.call_id
        body = msgspec.msgpack.encode([frame.call_id, *arguments])
        return Frame(Kind.CALL, ask_id, given["verb"], body=body)

    def _function(self, frame: Frame) -> Frame:
        """Answer the call of any function with a pickle. Its arguments are the pickle, and where it is."""
        given, _ = codec.decode_marked(frame.body, frame.attached)
        found = pickle_of(given["args"][0])
        where = given["args"][1] if "args" in given else ""
        if where == "error":
            fault = Fault("tool", "forged", "Forged", pickled=given["args"][0])
            return Frame(Kind.ERROR, frame.call_id, body=codec.encode_plain(fault))
        body = msgspec.msgpack.encode({"deep": [found]} if where == "deep" else found)
        return Frame(Kind.CHUNK if frame.kind == Kind.STREAM else Kind.RESULT, frame.call_id, body=body)

    # Answers.

    def _say(self, body: bytes) -> Frame:
        """Send any message as a value."""
        return Frame(0, body=body)

    def _fail(self, data: bytes) -> Frame:
        """Raise what is a pickle."""
        return Frame(Kind.ERROR, body=codec.encode_plain(Fault("tool", "forged", "Forged", pickled=data)))

    def _lend_honestly(self) -> Frame:
        return self._lend(self._open, "lent")

    def _lend_more_of_it(self, size: int) -> Frame:
        return self._lend(self._open, "lent", size)

    def _lend_unsealed(self) -> Frame:
        return self._lend(self._unsealed, "unsealed")

    def _shrink_unsealed(self) -> Frame:
        os.ftruncate(self._unsealed, 0)
        return self._say(NOTHING)

    def _lend_file(self, path: str) -> Frame:
        return self._lend(os.open(path, os.O_PATH), path)

    def _lend_table(self, rows: int) -> Frame:
        encoded = codec.encode(words(rows))
        self._table = memory(b"".join(encoded.buffers), "table")
        return self._lend(self._table, "table", encoded.size, encoded.body)

    def _scribble(self) -> Frame:
        os.pwrite(self._table, b"\xff" * os.fstat(self._table).st_size, 0)
        return self._say(NOTHING)

    def _shrink_ledger_and_end(self) -> Frame:
        try:
            os.ftruncate(self._ledger, 0)
        finally:
            os._exit(3)


async def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen-fd", type=int)
    parser.add_argument("--ledger-fd", type=int)
    options, _ = parser.parse_known_args()
    link = ForgedLink(take_secret(mmap.mmap(options.ledger_fd, LEDGER_BYTES)), options.ledger_fd)
    server = grpclib.server.Server([link], codec=BatchCodec())
    await server.start(sock=socket.socket(fileno=options.listen_fd))
    await server.wait_closed()


if __name__ == "__main__":
    asyncio.run(main())
