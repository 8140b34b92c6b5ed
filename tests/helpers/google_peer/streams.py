"""Checks of streams and of calls that are stopped."""

from __future__ import annotations

import json
import time
from typing import Any

from connection import (  # type: ignore[import-not-found]  # beside this script
    ADDRESS,
    LONG,
    PREFIX,
    VALUE,
    Client,
    Code,
    check,
    has_ended,
    is_busy,
    is_free,
    packed_json,
    read_to_end,
    refused,
    text_in,
    workers,
)


@check("host", "worker", "alone")
def streams(client: Client) -> None:
    for n in (0, 1, 3, 500):
        assert read_to_end("count", client.chunks("count", n=n)) == [{"i": i} for i in range(n)]
    assert read_to_end("count", client.chunks("count", n=packed_json(VALUE, 2))) == [{"i": 0}, {"i": 1}]


@check("host", "worker")
def streams_that_fail(client: Client) -> None:
    for n in (0, 3):
        chunks = client.chunks("fail_after", n=n, message="at last")
        assert [json.loads(next(chunks).data) for _ in range(n)] == [{"i": i} for i in range(n)]
        stream_fails(chunks, "ValueError", "at last")
    stream_fails(client.chunks("nope"), "'nope'")
    stream_fails(client.chunks("add", a=1, b=2), "stream")
    stream_fails(client.chunks("count"), "'n'")
    stream_fails(client.chunks("count", n="x"), "'n'")
    stream_fails(client.chunks("count", n=packed_json(PREFIX + "unknown.Type", 1)), "unknown.Type")
    assert client.execute("add", a=1, b=2) == 3


def stream_fails(chunks: Any, *texts: str) -> None:
    with refused(Code.INTERNAL) as said:
        next(chunks)
    told = text_in(said[0])
    assert all(text in told for text in texts), told


@check("host", "worker")
def streams_that_are_cancelled(client: Client) -> None:
    running = [client.chunks("count", timeout=LONG, n=10**9) for _ in range(workers())]
    for chunks in running:
        assert [json.loads(next(chunks).data)["i"] for _ in range(3)] == [0, 1, 2]
    is_busy(client)
    for chunks in running:
        chunks.cancel()
        has_ended(chunks, Code.CANCELLED)
    is_free(client)


@check("host", "worker")
def streams_beyond_their_deadline(client: Client) -> None:
    running = [client.chunks("count", timeout=1, n=10**9) for _ in range(workers())]
    for chunks in running:
        with refused(Code.DEADLINE_EXCEEDED):
            for chunk in chunks:
                assert not chunk.is_final
    is_free(client)


@check("host", "worker")
def streams_that_are_not_read(client: Client) -> None:
    running = [client.chunks("count", timeout=LONG, n=10**9) for _ in range(workers())]
    for chunks in running:
        next(chunks)
    time.sleep(1)  # in which buffers fill
    assert client.call("Ping", message="x").message == "x"
    for chunks in running:
        chunks.cancel()
    is_free(client)


# Cancellation.


@check("host", "worker")
def calls_that_are_cancelled(client: Client) -> None:
    for _ in range(2):
        running = [client.start("slow", seconds=LONG) for _ in range(workers())]
        waiting = client.start("add", a=1, b=2)
        is_busy(client)
        for call in [waiting, *running]:
            call.cancel()
            has_ended(call, Code.CANCELLED)
        is_free(client)


@check("host", "worker")
def calls_beyond_their_deadline(client: Client) -> None:
    running = [client.start("slow", 1, seconds=LONG) for _ in range(workers() + 1)]
    for call in running:
        has_ended(call, Code.DEADLINE_EXCEEDED)
    is_free(client)


@check("host", "worker")
def calls_of_clients_that_leave(client: Client) -> None:
    leaving = Client(ADDRESS)
    running = [leaving.start("slow", seconds=LONG) for _ in range(workers())]
    is_busy(client)
    leaving.close()
    for call in running:
        has_ended(call, Code.CANCELLED)
    is_free(client)
