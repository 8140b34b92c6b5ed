"""Values of which a message is large: they are read in a thread, whole, and the calls around them go on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import trio

import snakepit_trio as snakepit
from bridge_py.wire import large
from bridge_py.wire.large import between_pieces
from snakepit_trio._util.threads import _readers
from tests.helpers.large_tools import MAKERS, LargeTools, make, make_numbers, yield_numbers


class Pieces:
    """Counts the threads that read pieces, and can hold them between two pieces."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.threads: set[threading.Thread] = set()
        self.begun = threading.Event()
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        real = large.read_large

        def read(data: Any, extension: Callable[[int, memoryview], Any]) -> Any:
            self.threads.add(threading.current_thread())
            check = between_pieces.get()

            def hold() -> None:
                self.begun.set()
                self.may_go_on.wait(20)
                check()

            between_pieces.set(hold)
            return real(data, extension)

        monkeypatch.setattr("bridge_py.wire.codec.read_large", read)

    async def until_begun(self) -> None:
        with trio.fail_after(20):
            while not self.begun.is_set():
                await trio.sleep(0.001)

    async def until_ended(self) -> None:
        """Wait until no thread reads any more."""
        with trio.fail_after(20):
            while _readers.get().borrowed_tokens:
                await trio.sleep(0.001)


@pytest.fixture
def pieces(monkeypatch: pytest.MonkeyPatch) -> Pieces:
    return Pieces(monkeypatch)


@pytest.mark.parametrize("kind", MAKERS)
async def test_large_values_arrive(kind: str) -> None:
    async with snakepit.open_pool(LargeTools, workers=1) as pool:
        assert await pool.execute("make", {"kind": kind}) == make(kind)
        assert await pool.run(make, kind) == make(kind)


async def test_they_are_read_in_threads_and_small_ones_are_not(pieces: Pieces) -> None:
    async with snakepit.open_pool(LargeTools, workers=1) as pool:
        await pool.execute("make", {"kind": "ints"})
        assert pieces.threads
        assert threading.current_thread() not in pieces.threads
        pieces.threads.clear()
        await pool.run(len, "abc")
        assert not pieces.threads


async def test_several_at_once_and_maps() -> None:
    async with snakepit.open_pool(LargeTools, workers=2) as pool, trio.open_nursery() as nursery:
        found: list[int] = []

        async def call(number: int) -> None:
            found.append((await pool.run(make_numbers, number))[-1])

        for number in range(8):
            nursery.start_soon(call, number)
        async with pool.map(make_numbers, range(6)) as results:
            assert [numbers[-1] async for numbers in results] == list(range(6))
        async with pool.map(make_numbers, range(6), chunksize=3) as results:
            assert [numbers[-1] async for numbers in results] == list(range(6))
    assert sorted(found) == list(range(8))


async def test_large_chunks_arrive_in_order() -> None:
    async with snakepit.open_pool(LargeTools, workers=1) as pool:
        async with pool.stream("chunks", {"count": 4}) as chunks:
            assert [chunk[-1] async for chunk in chunks] == list(range(4))
        async with pool.iterate(yield_numbers, 3) as numbers:
            assert [each[-1] async for each in numbers] == list(range(3))


async def test_a_cancelled_caller_does_not_wait_and_the_thread_ends(pieces: Pieces) -> None:
    async with snakepit.open_pool(LargeTools, workers=1) as pool:
        pieces.may_go_on.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.execute, "make", {"kind": "ints"})
            await pieces.until_begun()
            nursery.cancel_scope.cancel()
        pieces.may_go_on.set()
        await pieces.until_ended()
        assert await pool.execute("make", {"kind": "ints"}) == make("ints")
        assert pool.get_stats().cancelled == 0, "the call was over"


async def test_the_time_of_a_call_is_that_of_its_tool(pieces: Pieces) -> None:
    async with snakepit.open_pool(LargeTools, workers=1) as pool:
        pieces.may_go_on.clear()

        async def go_on() -> None:
            await pieces.until_begun()
            await trio.sleep(2.5)
            pieces.may_go_on.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(go_on)
            assert await pool.execute("make", {"kind": "ints"}, timeout=2) == make("ints")


async def test_a_chunk_whose_reading_was_cancelled_is_there_still(pieces: Pieces) -> None:
    async with (
        snakepit.open_pool(LargeTools, workers=1) as pool,
        pool.stream("chunks", {"count": 2}) as chunks,
    ):
        pieces.may_go_on.clear()
        async with trio.open_nursery() as nursery:

            async def take() -> None:
                await anext(chunks)

            nursery.start_soon(take)
            await pieces.until_begun()
            with pytest.raises(trio.BusyResourceError):
                await anext(chunks)
            nursery.cancel_scope.cancel()
        pieces.may_go_on.set()
        assert [chunk[-1] async for chunk in chunks] == [0, 1]


async def test_a_task_that_reads_a_chunk_when_the_block_is_left_gets_none(pieces: Pieces) -> None:
    async def take(chunks: Any) -> None:
        with pytest.raises(snakepit.UsageError, match="has been left"):
            await anext(chunks)

    async with snakepit.open_pool(LargeTools, workers=1) as pool, trio.open_nursery() as nursery:
        async with pool.stream("chunks", {"count": 2}) as chunks:
            pieces.may_go_on.clear()
            nursery.start_soon(take, chunks)
            await pieces.until_begun()
        pieces.may_go_on.set()


async def test_large_arguments_of_host_tools_arrive_and_can_be_cancelled(pieces: Pieces) -> None:
    got: list[Any] = []

    async def count(value: Any) -> int:
        got.append(value)
        return len(value)

    async with snakepit.open_pool(LargeTools, workers=1) as pool, pool.session() as session:
        pool.expose(count)
        assert await session.execute("ask", {"kind": "ints"}) == 1_000_000
        assert got.pop() == make("ints")
        assert threading.current_thread() not in pieces.threads
        pieces.begun.clear()
        pieces.may_go_on.clear()
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(session.execute, "ask", {"kind": "ints"})
                await pieces.until_begun()
                nursery.cancel_scope.cancel()
        pieces.may_go_on.set()
        await pieces.until_ended()
        assert not got, "nobody wanted its result any more"
        assert pool.get_stats().crashed == 0


async def test_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_args: Any, **_options: Any) -> None:
        raise RuntimeError("can't start new thread")

    async with snakepit.open_pool(LargeTools, workers=1) as pool:
        await pool.run(len, "abc")
        monkeypatch.setattr(trio.to_thread, "run_sync", refuse)
        assert await pool.execute("make", {"kind": "ints"}) == make("ints")


async def test_a_large_value_that_cannot_be_read_fails_its_call() -> None:
    async with snakepit.open_pool(LargeTools, workers=1) as pool:
        with pytest.raises(snakepit.DecodeError, match="ArithmeticError: no"):
            await pool.execute("broken")
        assert await pool.run(len, "abc") == 3
