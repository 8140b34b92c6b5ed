"""Real workers of gRPC that limit the requests of a connection, or end connections that are old."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

import snakepit_trio as snakepit
from tests.helpers import http2_peer
from tests.helpers.http2_peer import Peer, served_in_a_thread
from tests.peers.test_grpc_contract import Contract, open_google

CONTRACTS: list[Contract] = ["0.4", "0.13"]


async def use(pool: Any, calls: int, seconds: float) -> None:
    """Make calls and streams at once; each must succeed."""

    async def call(number: int) -> None:
        assert await pool.execute("slow", {"seconds": seconds}) == "done"
        assert await pool.execute("add", {"a": number, "b": 1}) == number + 1

    async def stream() -> None:
        async with pool.stream("count", {"n": 20}) as chunks:
            assert [chunk async for chunk in chunks] == [{"i": i} for i in range(20)]

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for number in range(calls):
                nursery.start_soon(call, number)
                nursery.start_soon(stream)


@pytest.mark.parametrize("contract", CONTRACTS)
async def test_a_worker_that_allows_fewer_requests_than_the_pool_makes(stubs: Path, contract: Contract) -> None:
    async with open_google(stubs, contract, "few_streams", workers=1, concurrency=8, ping_interval=0.2) as pool:
        pid = await pool.execute("pid")
        await use(pool, 24, 0.05)
        assert await pool.execute("pid") == pid
        assert pool.get_stats().restarts == 0


@pytest.mark.parametrize("contract", CONTRACTS)
async def test_a_worker_that_ends_connections_that_are_old(stubs: Path, contract: Contract) -> None:
    async with open_google(stubs, contract, "short_connections", workers=1, concurrency=8, ping_interval=0.2) as pool:
        pid = await pool.execute("pid")
        for _ in range(5):
            await use(pool, 8, 0.3)
        assert await pool.execute("pid") == pid
        assert pool.get_stats().restarts == 0


async def test_a_worker_that_refuses_requests_and_leaves_connections() -> None:
    worker = Path(http2_peer.__file__).with_name("refusing_worker.py")
    got: list[list[str]] = []

    async def stream() -> None:
        async with pool.stream("count", {}) as chunks:
            got.append([chunk async for chunk in chunks])

    async with snakepit.open_pool(snakepit.GrpcBridge(script=worker), workers=1, concurrency=8) as pool:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(stream)
        assert got == [["count"] * 3] * 20
        assert pool.get_stats().restarts == 0


async def test_clients_of_applications_make_requests_again() -> None:
    peer = Peer(limit=2, refusals=7)
    peer.leaves_before = 3
    answers = []
    with served_in_a_thread(peer) as port:
        async with snakepit.open_client(f"127.0.0.1:{port}") as client:

            async def ask(number: int) -> None:
                answers.append(await client.ping(str(number)))

            with trio.fail_after(60):
                async with trio.open_nursery() as nursery:
                    for number in range(20):
                        nursery.start_soon(ask, number)
                assert [chunk async for chunk in client.execute_streaming_tool("count")] == ["count"] * 3
    assert sorted(answers, key=int) == [str(number) for number in range(20)]
    assert peer.processed == {"count": 1} | dict.fromkeys(answers, 1)
    assert peer.most_open <= 2


async def test_clients_of_applications_can_cancel_requests_that_are_refused() -> None:
    peer = Peer(refusals=10**6)
    with served_in_a_thread(peer) as port:
        async with snakepit.open_client(f"127.0.0.1:{port}") as client:
            for _ in range(20):
                with trio.fail_after(30), trio.move_on_after(0.03) as scope:
                    await client.ping("x")
                assert scope.cancelled_caught
            peer.refusals = 0
            assert await client.ping("y", timeout=30) == "y"
    assert peer.processed == {"y": 1}
