"""A peer that refuses requests, limits them, or leaves: what it has not processed is made again, all else never."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from h2.errors import ErrorCodes

from bridge_py.contract.client import AsyncioClient
from bridge_py.wire.errors import RemoteError
from tests.helpers.http2_peer import Connection, Peer, serve

LONG = 60.0


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(LONG):
            await main()

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(bounded())


@asynccontextmanager
async def opened(peer: Peer) -> AsyncIterator[AsyncioClient]:
    """A client of the peer. At the end, neither has a connection, and no task is left."""
    async with serve(peer) as port:
        client = AsyncioClient(f"127.0.0.1:{port}", connect_timeout=0.5)
        try:
            yield client
        finally:
            client.close()
            await peer.until(lambda: peer.open_connections == 0)
        assert not client._channel._open_ones
        assert asyncio.all_tasks() == {asyncio.current_task()}


def start(client: AsyncioClient, count: int, **options: Any) -> list[asyncio.Task[str]]:
    return [asyncio.ensure_future(client.ping(str(number), **options)) for number in range(count)]


def once_each(count: int) -> Counter[str]:
    return Counter({str(number): 1 for number in range(count)})


async def held(peer: Peer, count: int, connection: int = 0) -> Connection:
    await peer.until(lambda: len(peer.connections) > connection and len(peer.connections[connection].held) == count)
    return peer.connections[connection]


# Refused streams.


@pytest.mark.parametrize("refusals", [1, 5, 30])
def test_refused_requests_are_made_again(refusals: int) -> None:
    async def main() -> None:
        peer = Peer(refusals=refusals)
        async with opened(peer) as client:
            assert await asyncio.gather(*start(client, 10)) == [str(number) for number in range(10)]
        assert peer.processed == once_each(10)
        assert len(peer.seen) == 10 + refusals
        assert len(peer.connections) == 1

    run(main)


def test_refused_streams_are_made_again() -> None:
    async def main() -> None:
        peer = Peer(refusals=4)
        async with opened(peer) as client, aclosing(client.execute_streaming_tool("count")) as chunks:
            assert [chunk async for chunk in chunks] == ["count"] * 3
        assert peer.processed == Counter(count=1)
        assert peer.seen == ["count"] * 5

    run(main)


def test_the_deadline_bounds_the_attempts() -> None:
    async def main() -> None:
        peer = Peer(refusals=10**6)
        async with opened(peer) as client:
            with pytest.raises(RemoteError, match="did not take the request in time.*REFUSED_STREAM") as caught:
                await client.ping("x", timeout=0.3)
            assert caught.value.status == "DEADLINE_EXCEEDED"
            assert 2 <= len(peer.seen) < 10
            peer.refusals = 0
            assert await client.ping("y") == "y"
        assert peer.processed == Counter(y=1)

    run(main)


def test_attempts_end_when_they_are_cancelled() -> None:
    async def main() -> None:
        peer = Peer(refusals=10**6)
        async with opened(peer) as client:
            for refusals in range(1, 6):
                peer.seen.clear()
                (task,) = start(client, 1)
                await peer.until(lambda wanted=refusals: len(peer.seen) == wanted)  # type: ignore[misc]
                # The refusal is on its way, so that both may come in one turn of the loop.
                for _ in range(refusals % 3):
                    await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert task.cancelling() == 1
        assert not peer.processed

    run(main)


def test_a_timeout_around_attempts_is_a_timeout() -> None:
    async def main() -> None:
        peer = Peer(refusals=10**6)
        async with opened(peer) as client:
            for _ in range(10):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(client.ping("x"), 0.05)
            task = asyncio.current_task()
            assert task is not None
            assert not task.cancelling()

    run(main)


@pytest.mark.parametrize("code", [ErrorCodes.INTERNAL_ERROR, ErrorCodes.ENHANCE_YOUR_CALM, ErrorCodes.CANCEL])
def test_other_resets_are_not_made_again(code: ErrorCodes) -> None:
    async def main() -> None:
        peer = Peer(holds=True)
        async with opened(peer) as client:
            (task,) = start(client, 1)
            (await held(peer, 1)).reset(1, code)
            with pytest.raises(RemoteError, match="cannot be reached") as caught:
                await task
            assert caught.value.status == "UNAVAILABLE"
        assert peer.processed == once_each(1)

    run(main)


def test_a_refusal_of_what_has_an_answer_is_not_believed() -> None:
    async def main() -> None:
        peer = Peer(holds=True)
        async with opened(peer) as client:
            (task,) = start(client, 1)
            connection = await held(peer, 1)
            connection.begin(1)
            connection.reset(1, ErrorCodes.REFUSED_STREAM)
            with pytest.raises(RemoteError, match="UNAVAILABLE"):
                await task
        assert peer.seen == ["0"]

    run(main)


# The peer's limit of streams.


@pytest.mark.parametrize("limit", [1, 2, 7])
def test_the_limit_of_streams_is_kept(limit: int) -> None:
    async def main() -> None:
        peer = Peer(limit=limit, holds=True)
        async with opened(peer) as client:
            tasks = start(client, 50)
            connection = await held(peer, limit)
            peer.holds = False
            for stream in tuple(connection.held):
                connection.answer(stream)
            assert await asyncio.gather(*tasks) == [str(number) for number in range(50)]
        assert peer.most_open == limit
        assert peer.seen == [str(number) for number in range(50)]  # first come, first served

    run(main)


def test_a_change_of_the_limit_wakes_requests() -> None:
    async def main() -> None:
        peer = Peer(limit=1, holds=True)
        async with opened(peer) as client:
            tasks = start(client, 6)
            connection = await held(peer, 1)
            connection.allow(4)
            await held(peer, 4)
            connection.allow(0)
            for stream in tuple(connection.held):
                connection.answer(stream)
            await asyncio.gather(*tasks[:4])
            assert not connection.held
            peer.holds = False
            connection.allow(1)
            await asyncio.gather(*tasks)
        assert peer.processed == once_each(6)
        assert peer.seen == [str(number) for number in range(6)]

    run(main)


def test_a_limit_of_none_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        peer = Peer(limit=0)
        async with opened(peer) as client:
            for _ in range(2):
                with pytest.raises(RemoteError, match="not sent in time: the peer allows 0 open requests") as caught:
                    await client.ping("x", timeout=0.2)
                assert caught.value.status == "DEADLINE_EXCEEDED"
            (waits,) = start(client, 1)
            await asyncio.sleep(0)
            peer.connections[0].allow(1)
            assert await waits == "0"

    with caplog.at_level(logging.WARNING, "snakepit.link"):
        run(main)
    told = [record.message for record in caplog.records if "allows 0" in record.message]
    assert len(told) == 1
    assert told[0].endswith("(SETTINGS_MAX_CONCURRENT_STREAMS)")


def test_waiting_requests_that_are_cancelled_leave_nothing() -> None:
    async def main() -> None:
        peer = Peer(limit=1, holds=True)
        async with opened(peer) as client:
            tasks = start(client, 20, timeout=1000.0)
            connection = await held(peer, 1)
            for task in tasks[1:19]:
                task.cancel()
            await asyncio.wait(tasks[1:19])
            gc.collect()
            processor: Any = client._channel._protocol.processor  # type: ignore[union-attr]
            assert len(processor._waiting) == len(processor.streams) == 1
            connection.answer(1)
            connection = await held(peer, 1)
            tasks[0].cancel()
            connection.answer(3)
            assert await tasks[19] == "19"
            assert not processor._waiting
            assert not processor.streams
        assert peer.processed == Counter({"0": 1, "19": 1})

    run(main)


def test_a_stream_that_is_left_makes_room() -> None:
    async def main() -> None:
        peer = Peer(limit=1, holds=True)
        async with opened(peer) as client:
            chunks = client.execute_streaming_tool("count")
            first = asyncio.ensure_future(anext(chunks))
            await held(peer, 1)
            (waits,) = start(client, 1)
            await asyncio.sleep(0)
            peer.holds = False
            first.cancel()
            assert await waits == "0"
            await chunks.aclose()

    run(main)


def test_a_lost_connection_ends_requests_that_wait() -> None:
    async def main() -> None:
        peer = Peer(limit=1, holds=True)
        async with opened(peer) as client:
            tasks = start(client, 5)
            (await held(peer, 1)).transport.abort()
            await asyncio.wait(tasks)
            statuses = {getattr(task.exception(), "status", None) for task in tasks}
            assert statuses == {"UNAVAILABLE"}
        assert peer.seen == ["0"]

    run(main)


# A peer that leaves.


def test_requests_above_the_last_stream_go_to_a_new_connection() -> None:
    async def main() -> None:
        peer = Peer(holds=True)
        async with opened(peer) as client:
            tasks = start(client, 6)
            connection = await held(peer, 6)
            late = [connection.held[stream] for stream in (7, 9, 11)]
            for text in late:
                peer.processed[text] -= 1  # it says that it has not processed these
            connection.leave(5)
            again = await held(peer, 3, connection=1)
            for stream in (1, 3, 5):
                connection.answer(stream)
            for stream in tuple(again.held):
                again.answer(stream)
            assert await asyncio.gather(*tasks) == [str(number) for number in range(6)]
            await peer.until(connection.transport.is_closing)  # it is of no use any more
        assert peer.processed == once_each(6)
        assert len(peer.connections) == 2

    run(main)


def test_a_peer_that_leaves_and_closes_fails_what_it_has_processed() -> None:
    async def main() -> None:
        peer = Peer(holds=True)
        async with opened(peer) as client:
            tasks = start(client, 4)
            connection = await held(peer, 4)
            for stream in (5, 7):
                peer.processed[connection.held[stream]] -= 1
            connection.leave(3)
            connection.transport.close()
            again = await held(peer, 2, connection=1)
            for stream in tuple(again.held):
                again.answer(stream)
            found = await asyncio.gather(*tasks, return_exceptions=True)
            assert [getattr(each, "status", each) for each in found] == ["UNAVAILABLE", "UNAVAILABLE", "2", "3"]
        assert peer.processed == once_each(4)

    run(main)


def test_a_peer_that_leaves_for_an_error_fails_what_it_has_processed() -> None:
    async def main() -> None:
        peer = Peer(holds=True)
        async with opened(peer) as client:
            tasks = start(client, 2)
            connection = await held(peer, 2)
            peer.processed["1"] -= 1
            connection.leave(1, ErrorCodes.INTERNAL_ERROR)
            (await held(peer, 1, connection=1)).answer(1)
            with pytest.raises(RemoteError, match="GOAWAY, error code"):
                await tasks[0]
            assert await tasks[1] == "1"
        assert peer.processed == once_each(2)

    run(main)


def test_a_peer_that_leaves_in_two_steps() -> None:
    """As servers of gRPC do: first they let all streams go on that may be on their way."""

    async def main() -> None:
        peer = Peer(holds=True)
        async with opened(peer) as client:
            tasks = start(client, 3)
            connection = await held(peer, 3)
            connection.leave(2**31 - 1)
            while client._channel.is_connected:
                await asyncio.sleep(0)
            tasks += [asyncio.ensure_future(client.ping("3"))]
            again = await held(peer, 1, connection=1)
            peer.processed["2"] -= 1
            connection.leave(3)
            await held(peer, 2, connection=1)
            connection.answer(1)
            connection.answer(3)
            for stream in tuple(again.held):
                again.answer(stream)
            assert await asyncio.gather(*tasks) == ["0", "1", "2", "3"]
        assert peer.processed == once_each(4)

    run(main)


@pytest.mark.parametrize("leaves", [True, False])
def test_a_stream_that_has_come_whole_is_read_to_its_end(leaves: bool) -> None:
    async def main() -> None:
        peer = Peer()
        async with opened(peer) as client, aclosing(client.execute_streaming_tool("count")) as chunks:
            assert await anext(chunks) == "count"
            (connection,) = peer.connections
            if leaves:
                connection.leave(1)
            connection.transport.close()
            while client._channel._open_ones:
                await asyncio.sleep(0)
            assert [chunk async for chunk in chunks] == ["count"] * 2
        assert peer.processed == Counter(count=1)

    run(main)


def test_requests_that_wait_go_to_a_new_connection() -> None:
    async def main() -> None:
        peer = Peer(limit=1, holds=True)
        async with opened(peer) as client:
            tasks = start(client, 5)
            connection = await held(peer, 1)
            peer.holds = False
            connection.leave(1)
            assert await asyncio.gather(*tasks[1:]) == ["1", "2", "3", "4"]
            connection.answer(1)
            assert await tasks[0] == "0"
        assert peer.processed == once_each(5)
        assert peer.most_open == 1

    run(main)


def test_a_peer_that_leaves_again_and_again() -> None:
    async def main() -> None:
        peer = Peer()
        peer.leaves_before = 6
        async with opened(peer) as client:
            assert await asyncio.gather(*start(client, 4)) == ["0", "1", "2", "3"]
        assert peer.processed == once_each(4)

    run(main)


def test_a_peer_that_leaves_for_ever_meets_the_deadline() -> None:
    async def main() -> None:
        peer = Peer()
        peer.leaves_before = 10**6
        async with opened(peer) as client:
            with pytest.raises(RemoteError, match="did not take the request in time.*GOAWAY"):
                await client.ping("x", timeout=0.3)
        assert not peer.processed

    run(main)


def test_a_peer_that_is_gone_cannot_be_reached() -> None:
    async def main() -> None:
        peer = Peer(holds=True)
        async with serve(peer) as port:
            client = AsyncioClient(f"127.0.0.1:{port}", connect_timeout=0.2)
            (task,) = start(client, 1)
            connection = await held(peer, 1)
        assert connection.transport.is_closing()
        with pytest.raises(RemoteError) as caught:
            await task
        assert caught.value.status == "UNAVAILABLE"
        with pytest.raises(RemoteError) as caught:
            await client.ping("1")
        assert caught.value.status == "UNAVAILABLE"
        client.close()

    run(main)
