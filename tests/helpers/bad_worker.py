"""A worker that breaks the rules of the link in a way of its choice. Run in place of the real one by tests."""

from __future__ import annotations

import argparse
import asyncio
import mmap
import os
import socket
from typing import Any

import grpclib.const
import grpclib.server

from bridge_py.execution.ledger import LEDGER_BYTES, take_secret
from bridge_py.link.channel import LINK_METHOD, BatchCodec
from bridge_py.wire import codec
from bridge_py.wire.frames import Frame, Kind, decode_batch, encode_batch
from bridge_py.wire.hellos import PROTOCOL_VERSION

ERROR_BODY = codec.encode_plain({"code": "tool", "message": "late", "type": "T"})


def _report(done: object, total: object = None, note: str = "") -> bytes:
    return codec.encode_plain([done, total, note])


def _answer(how: str, call_id: int) -> bytes:
    answers = {
        "unknown_kind": encode_batch([Frame(77, call_id)]),
        "too_large": encode_batch([Frame(Kind.RESULT, call_id, body=bytes(200_000))]),
        "broken_result": encode_batch([Frame(Kind.RESULT, call_id, body=b"\xc1")]),
        "broken_error": encode_batch([Frame(Kind.ERROR, call_id, body=b"\xc1")]),
        "no_batch": b"\x0a\xff\xff",
        "twice": encode_batch(
            [Frame(Kind.ERROR, call_id, body=ERROR_BODY), Frame(Kind.ERROR, call_id, body=ERROR_BODY)]
        ),
        "chunk": encode_batch([Frame(Kind.CHUNK, call_id, body=b"\xc0")]),
        "progress_of_another": encode_batch([Frame(Kind.PROGRESS, call_id + 2, body=_report(1))]),
        "progress_too_late": encode_batch(
            [Frame(Kind.RESULT, call_id, body=b"\xc0"), Frame(Kind.PROGRESS, call_id, body=_report(1))]
        ),
        "progress_of_nobody": encode_batch([Frame(Kind.PROGRESS, body=_report(1))]),
        "progress_broken": encode_batch([Frame(Kind.PROGRESS, call_id, body=b"\xc1")]),
        "progress_bool": encode_batch([Frame(Kind.PROGRESS, call_id, body=_report(True))]),
        "progress_nan": encode_batch([Frame(Kind.PROGRESS, call_id, body=_report(float("nan")))]),
        "progress_negative": encode_batch([Frame(Kind.PROGRESS, call_id, body=_report(1, -1))]),
        "progress_long_note": encode_batch([Frame(Kind.PROGRESS, call_id, body=_report(1, None, "x" * 201))]),
        "progress_loan": encode_batch([Frame(Kind.PROGRESS, call_id, body=_report(1), loan=1, size=9)]),
        "event_unknown": encode_batch([Frame(Kind.EVENT, name="party", body=b"\xc0")]),
        "event_of_a_call": encode_batch([Frame(Kind.EVENT, call_id, name="log", body=b"\xc0")]),
        "log_broken": encode_batch([Frame(Kind.EVENT, name="log", body=b"\xc1")]),
        "log_of_text": encode_batch([Frame(Kind.EVENT, name="log", body=b"\xa3log")]),
        "other_call": encode_batch([Frame(Kind.RESULT, call_id + 2, body=b"\xc0")]),
    }
    return answers[how]


class BadLink:
    """The Link service."""

    def __init__(self, how: str, secret: str) -> None:
        self._how = how
        self._secret = secret

    def __mapping__(self) -> dict[str, Any]:
        cardinality = grpclib.const.Cardinality.STREAM_STREAM
        return {LINK_METHOD: grpclib.const.Handler(self._open, cardinality, bytes, bytes)}

    async def _open(self, stream: Any) -> None:
        secret = "wrong" if self._how == "wrong_secret" else self._secret
        version = 99 if self._how == "wrong_version" else PROTOCOL_VERSION
        tools = [{"name": "t", "cancel": "politely"}] if self._how == "wrong_tools" else []
        hello = codec.encode_plain({"protocol": version, "secret": secret, "pid": os.getpid(), "tools": tools})
        if self._how == "no_hello":
            await stream.send_message(encode_batch([Frame(Kind.PING)]))
        await stream.send_message(encode_batch([Frame(Kind.HELLO, body=hello)]))
        while (data := await stream.recv_message()) is not None:
            for frame in decode_batch(data):
                if frame.kind == Kind.CALL and self._how == "hang_up":
                    return
                if frame.kind == Kind.CALL:
                    await stream.send_message(_answer(self._how, frame.call_id))


async def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--how")
    parser.add_argument("--listen-fd", type=int)
    parser.add_argument("--ledger-fd", type=int)
    options, _ = parser.parse_known_args()
    link = BadLink(options.how, take_secret(mmap.mmap(options.ledger_fd, LEDGER_BYTES)))
    server = grpclib.server.Server([link], codec=BatchCodec())
    await server.start(sock=socket.socket(fileno=options.listen_fd))
    await server.wait_closed()


if __name__ == "__main__":
    asyncio.run(main())
