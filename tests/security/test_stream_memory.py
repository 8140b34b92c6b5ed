"""Streams whose chunks are large: neither an honest worker nor a hostile one has the host keep more than the window.

A chunk costs its sender credit: one for each 4 KiB. While credit is left, one chunk of any size may go.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import trio

import snakepit_trio as snakepit
from bridge_py.buffers.buffer_sets import Packer, Sizes, cost_of
from bridge_py.buffers.transfers import Transfers
from bridge_py.wire.conversation import Conversation, Side
from bridge_py.wire.errors import RemoteProtocolError
from bridge_py.wire.frames import Frame, Kind, encode_batch
from tests.helpers.hostile import open_hostile
from tests.helpers.workers import TOOLS

KIB = 1024


@pytest.mark.parametrize("how", ["large_chunks", "attached_chunks", "many_chunks"])
async def test_a_worker_that_sends_more_bytes_than_it_has_credit_for_is_ended(how: str) -> None:
    async with open_hostile(how) as pool, pool.stream("stream") as chunks:
        with trio.fail_after(60):
            while pool.get_stats().restarts == 0:
                await trio.sleep(0.01)
        taken = 0
        with pytest.raises(
            snakepit.WorkerCrashed, match="a chunk for call 1, which is no open stream with credit left"
        ):
            async for _ in chunks:
                taken += 1
        # What it sent before was within its credit.
        assert taken == {"large_chunks": 3, "attached_chunks": 3, "many_chunks": 256}[how]


@pytest.mark.parametrize("tool", ["blobs", "blobs_async"])
@pytest.mark.parametrize("size", [9_000, 20_000, 100_000, 3_000_000])  # in the message, attached, and lent
async def test_a_worker_gets_ahead_of_a_slow_consumer_by_a_number_of_bytes(tool: str, size: int, log: Path) -> None:
    async with snakepit.open_pool(TOOLS, workers=1) as pool:
        async with pool.stream(tool, {"n": 10_000, "size": size, "path": str(log)}) as chunks:
            for _ in range(3):
                assert len(await anext(chunks)) == size
            await trio.sleep(0.3)
        made = int(log.read_text().split()[-1]) + 1
        # Those that were taken, what the window holds, one more as a debt, and one that was made and not sent.
        assert made <= 3 + 1024 * KIB // size + 2


@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.parametrize("window", [1, 2, 1000])
async def test_chunks_larger_than_the_window_come(window: int, concurrency: int) -> None:
    async with snakepit.open_pool(TOOLS, workers=1, concurrency=concurrency, stream_window=window) as pool:
        for tool, size in itertools.product(("blobs", "blobs_async"), (1, 4_096, 4_097, 20_000, 300_000)):
            async with pool.stream(tool, {"n": 20, "size": size}) as chunks:
                with trio.fail_after(60):
                    assert [len(chunk) async for chunk in chunks] == [size] * 20


def opened(credit: int) -> Conversation:
    """A host that has opened a stream."""
    host = Conversation(Side.HOST)
    host.hello(b"")
    host.receive(encode_batch([Frame(Kind.HELLO)]))
    host.open("stream", b"", credit=credit)
    return host


@pytest.mark.parametrize(
    ("chunk", "cost"),
    [
        (Frame(Kind.CHUNK, 1), 1),
        (Frame(Kind.CHUNK, 1, body=bytes(4 * KIB)), 1),
        (Frame(Kind.CHUNK, 1, body=bytes(4 * KIB + 1)), 2),
        (Frame(Kind.CHUNK, 1, number=1, body=bytes(40 * KIB)), 10),
        (Frame(Kind.CHUNK, 1, body=bytes(KIB), attached=bytes(39 * KIB)), 10),
        (Frame(Kind.CHUNK, 1, attached=bytes(40 * KIB), loan=2, size=1), 10),
        (Frame(Kind.CHUNK, 1, loan=2, size=40 * KIB), 10),
    ],
)
def test_the_host_charges_what_a_chunk_has(chunk: Frame, cost: int) -> None:
    host = opened(cost + 1)
    assert [frame.number for frame in host.receive(encode_batch([chunk]))] == [cost]
    host.receive(encode_batch([Frame(Kind.CHUNK, 1)]))
    with pytest.raises(RemoteProtocolError, match="no open stream with credit left"):
        host.receive(encode_batch([Frame(Kind.CHUNK, 1)]))


def test_a_debt_is_paid_before_the_next_chunk() -> None:
    host, large = opened(1), encode_batch([Frame(Kind.CHUNK, 1, body=bytes(40 * KIB))])
    host.receive(large)
    host.grant(1, 9)
    with pytest.raises(RemoteProtocolError, match="no open stream with credit left"):
        host.receive(large)
    host = opened(1)
    host.receive(large)
    host.grant(1, 10)
    host.receive(large)


@pytest.mark.parametrize("size", [0, 4_000, 4_200, 10_239, 10_240, 24_000, 25_000, 1_000_000])
@pytest.mark.parametrize("parts", [1, 3])
def test_both_sides_charge_the_same(size: int, parts: int) -> None:
    host, worker = opened(1), Conversation(Side.WORKER)
    worker.hello(b"")
    worker.receive(host.data_to_send())
    worker.data_to_send()  # its hello
    sizes = Sizes(shared=0)
    transfers = Transfers(worker, sizes, lambda _frame: None)
    value: Any = [bytes(size) for _ in range(parts)]
    encoded = Packer(sizes, transfers)(value, "chunk")
    cost = cost_of(encoded)
    worker.chunk(1, encoded.body, transfers.ref(encoded.buffers))
    assert [frame.number for frame in host.receive(worker.data_to_send())] == [cost]
    assert not worker.has_credit(1)
    host.grant(1, cost - 1)
    worker.receive(host.data_to_send())
    assert not worker.has_credit(1)
    host.grant(1, 1)
    worker.receive(host.data_to_send())
    assert worker.has_credit(1)
    transfers.close()
