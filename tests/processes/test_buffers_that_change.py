"""What is sent is what it was when it was sent, in both directions, and no error keeps a buffer locked."""

from __future__ import annotations

import itertools
import threading
from array import array
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import trio
import trio.lowlevel
import trio.testing

import snakepit_trio as snakepit
from bridge_py.wire import codec
from tests.helpers.buffer_tools import buffer_of, fill, number_of

MOMENTS = "tests.helpers.buffer_tools:MomentTools"
WAYS = pytest.mark.parametrize("config", [{}, {"shared_memory": 0}], ids=["shared", "link"])
KINDS = ["numpy", "bytearray", "array"]
SIZES = [1_000, 12_000, 24_000, 100_000]  # inside the message, attached to the frame, lent


class SlowStore(snakepit.MemoryStore):
    """A store that lets others run, as one does that is elsewhere."""

    may_wait = True

    async def read_session(self, session_id: str, read: Callable[[snakepit.Session], Any]) -> Any:
        await trio.sleep(0.05)
        return await super().read_session(session_id, read)


@pytest.mark.parametrize("size", SIZES)
async def test_arguments_that_change_while_a_store_is_asked_for_their_session(size: int) -> None:
    found: dict[str, Any] = {}
    buffer = buffer_of("numpy", size)
    async with (
        snakepit.open_pool(MOMENTS, workers=1, store=SlowStore()) as pool,
        pool.session() as session,
        trio.open_nursery() as nursery,
    ):

        async def call() -> None:
            found["call"] = await session.execute("look", {"buffer": fill(buffer, 1)})

        async def stream() -> None:
            async with session.stream("look_later", {"seconds": 0.0, "buffer": fill(buffer, 2)}) as chunks:
                found["stream"] = [chunk async for chunk in chunks]

        nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(stream)
        await trio.testing.wait_all_tasks_blocked()
        fill(buffer, 3)
    assert found == {"call": 1, "stream": [2]}


async def test_values_that_change_while_a_store_is_asked_for_their_session_by_python_calls() -> None:
    buffer, items = buffer_of("numpy", 12_000), [1]
    kinds = "bridge_py.adapters.python_calls:PythonCalls"
    async with (
        snakepit.open_pool(kinds, workers=1, store=SlowStore()) as pool,
        pool.session() as session,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(partial(pool.python.store, "kept", [fill(buffer, 1), items], durable=True, session=session))
        await trio.testing.wait_all_tasks_blocked()
        fill(buffer, 2)
        items.append(2)
        await trio.sleep(0.2)
        kept, kept_items = await pool.python.retrieve("kept", session=session)
        assert (number_of(kept), kept_items) == (1, [1])


@pytest.mark.slow
@WAYS
@pytest.mark.parametrize("tool", ["refill", "refill_async"])
async def test_a_generator_that_refills_one_buffer(config: dict[str, Any], tool: str) -> None:
    async with snakepit.open_pool(MOMENTS, workers=1, **config) as pool:
        for kind, size in itertools.product(KINDS, SIZES):
            async with pool.stream(tool, {"kind": kind, "size": size, "count": 60}) as chunks:
                found = [(chunk["n"], number_of(chunk["buffer"])) async for chunk in chunks]
            assert found == [(number, number) for number in range(60)]


@WAYS
async def test_a_result_whose_buffer_is_used_again(config: dict[str, Any]) -> None:
    async with snakepit.open_pool(MOMENTS, workers=1, **config) as pool:
        found = {}

        async def call(kind: str, size: int, number: int) -> None:
            args = {"kind": kind, "size": size, "number": number}
            found[number] = number_of(await pool.execute("reuse", args))

        for kind, size in itertools.product(KINDS, SIZES):
            async with trio.open_nursery() as nursery:
                for number in range(60):
                    nursery.start_soon(call, kind, size, number)
            assert found == {number: number for number in range(60)}


@pytest.mark.slow
@WAYS
async def test_arguments_that_change_while_their_calls_wait(config: dict[str, Any]) -> None:
    async with snakepit.open_pool(MOMENTS, workers=1, **config) as pool:
        for kind, size in itertools.product(KINDS, [*SIZES, 2_000_000]):
            await _change_while_calls_wait(pool, buffer_of(kind, size))


async def _change_while_calls_wait(pool: snakepit.Pool, buffer: Any) -> None:
    found = {}

    async def call(number: int) -> None:
        found[number] = await pool.execute("look", {"buffer": buffer})

    async with trio.open_nursery() as nursery:
        for number in range(20):
            fill(buffer, number)
            nursery.start_soon(call, number)
            await trio.testing.wait_all_tasks_blocked()
    assert found == {number: number for number in range(20)}
    async with (
        pool.stream("look_later", {"seconds": 0.05, "buffer": fill(buffer, 1)}) as first,
        pool.stream("look_later", {"seconds": 0.0, "buffer": fill(buffer, 2)}) as second,
    ):
        fill(buffer, 3)
        assert [number async for number in first] == [1]
        assert [number async for number in second] == [2]


@WAYS
@pytest.mark.parametrize("size", SIZES)
async def test_what_host_tools_return_and_yield(config: dict[str, Any], size: int) -> None:
    shared = bytearray(size)

    async def reuse(number: int) -> Any:
        return fill(shared, number)

    async def refill(count: int) -> AsyncIterator[Any]:
        for number in range(count):
            yield fill(shared, number)

    def refill_in_thread(count: int) -> Iterator[Any]:
        for number in range(count):
            yield fill(shared, number)

    async with snakepit.open_pool(MOMENTS, workers=1, **config) as pool:
        for function in (reuse, refill, refill_in_thread):
            pool.expose(function)
        assert await pool.execute("ask_stream", {"name": "refill_in_thread", "count": 40}) == list(range(40))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_keep_changing, shared)
            assert await pool.execute("ask", {"name": "reuse", "count": 20}) == list(range(20))
            assert await pool.execute("ask_stream", {"name": "refill", "count": 40}) == list(range(40))
            nursery.cancel_scope.cancel()


async def _keep_changing(buffer: bytearray) -> None:
    while True:
        await trio.lowlevel.checkpoint()
        fill(buffer, 255)


@WAYS
async def test_host_functions_in_threads_that_share_a_buffer(config: dict[str, Any]) -> None:
    shared, lock = bytearray(100_000), threading.Lock()

    def reuse(number: int) -> Any:
        with lock:
            return fill(shared, number)

    def wipe(value: Any) -> Any:
        """What another thread may do as soon as the function has returned."""
        with lock:
            fill(shared, 255)
        return value

    async with snakepit.open_pool(MOMENTS, workers=1, **config) as pool:
        pool.expose(reuse)
        registry: Any = pool.tools
        in_thread = registry._in_thread
        registry._in_thread = lambda function, nested: in_thread(lambda: wipe(function()), nested)
        assert await pool.execute("ask", {"name": "reuse", "count": 20}) == list(range(20))


@WAYS
async def test_what_tools_tell_the_host(config: dict[str, Any]) -> None:
    async def keep(buffer: Any) -> int:
        return number_of(buffer)

    async with snakepit.open_pool(MOMENTS, workers=1, **config) as pool, pool.session() as session:
        pool.expose(keep)
        for number in range(20):
            await session.register_variable(f"x{number}", "list", [])
        for size in SIZES:
            for kind in KINDS:
                assert await session.execute("tell", {"kind": kind, "size": size, "count": 20}) == list(range(20))
            await session.execute("note", {"size": size, "count": 20})
            values = [await session.get_variable_value(f"x{number}") for number in range(20)]
            assert [number_of(buffer) for (buffer,) in values] == list(range(20))


async def test_a_caught_error_keeps_no_buffer_locked() -> None:
    kept = []
    async with snakepit.open_pool(MOMENTS, workers=1, max_buffer_bytes=1_000_000) as pool:
        for size in (20_000, 200_000):
            buffer = bytearray(size)
            for args, kind in (
                ({"buffer": [buffer, object()]}, snakepit.EncodeError),
                ({"buffer": [buffer, 10**30, {"a": object()}]}, snakepit.EncodeError),
                ({"buffer": [buffer, bytes(1_000_000)]}, snakepit.EncodeError),
                ({"buffer": [buffer, buffer]}, snakepit.ToolError),
            ):
                with pytest.raises(kind) as caught:
                    await pool.execute("look", args)
                kept.append(caught.value)
                buffer.append(1)
            with pytest.raises(snakepit.CallTimeout) as late:
                async with pool.stream("look_later", {"seconds": 0.3, "buffer": buffer}, timeout=0.1) as chunks:
                    buffer.append(1)  # also while the call runs
                    async for _ in chunks:
                        pass
            kept.append(late.value)
            buffer.append(1)
    assert len(kept) == 10


@pytest.mark.parametrize("tool", ["fail", "fail_async"])
async def test_a_tool_that_fails_keeps_no_shared_memory(tool: str) -> None:
    async with snakepit.open_pool(MOMENTS, workers=1) as pool:
        worker = pool.list_workers()[0].pid
        for _ in range(60):
            with pytest.raises(snakepit.ToolError):
                await pool.execute(tool, {"buffer": np.zeros(100_000, np.uint8)})
        mapped = Path(f"/proc/{worker}/maps").read_text().splitlines()
        assert sum("memfd:snakepit-" in line and "ledger" not in line for line in mapped) <= 20  # 16 are kept for later


@pytest.mark.slow
@WAYS
async def test_buffers_of_all_kinds_of_items(config: dict[str, Any]) -> None:
    async with snakepit.open_pool("tests.helpers.value_tools:ValueTools", workers=1, **config) as pool:
        for count in (2_000, 40_000, 3_000_000):
            numbers: Any = np.arange(count)
            for value in (pa.table({"a": numbers}), memoryview(numbers), array("q", numbers.tolist())):
                found = await pool.execute("echo", {"value": [value, numbers]})
                assert found[0] == value
                assert np.array_equal(found[1], numbers)


def _arrived(value: Any) -> Any:
    encoded = codec.encode(value)
    return codec.decode(encoded.body, b"".join(encoded.buffers))


@pytest.mark.parametrize("size", [3, 20_000])
def test_arrays_and_memoryviews_arrive_read_only_and_nobody_can_change_that(size: int) -> None:
    for sent in (np.zeros(size), np.asfortranarray(np.zeros((size, 2))), np.zeros(size, [("a", "u1"), ("b", "f8")])):
        found = _arrived(sent)
        assert not found.flags.writeable
        with pytest.raises(ValueError, match="WRITEABLE"):
            found.flags.writeable = True
        mine = found.copy()
        mine[0] = 0
    assert _arrived(memoryview(bytearray(size))).readonly


@pytest.mark.parametrize("size", [2, 20_000])
def test_all_else_arrives_to_be_changed(size: int) -> None:
    for column in (
        [1.5, 2.5] * size,
        pd.Categorical(["x", "y"] * size),
        pd.to_datetime(["2024-01-01", "2024-01-02"] * size),
        pd.array([1, 2] * size, dtype="Int64"),
        ["x", "y"] * size,
        [True, False] * size,
    ):
        frame = _arrived(pd.DataFrame({"a": column}))
        frame.iloc[0, 0] = frame.iloc[1, 0]
        assert frame.iloc[0, 0] == frame.iloc[1, 0]
        series = _arrived(pd.Series(column))
        series.iloc[0] = series.iloc[1]
        assert series.iloc[0] == series.iloc[1]
    found = _arrived([bytearray(size), {"a": {1}}])
    found[0].append(1)
    found[1]["a"].add(2)
    assert (len(found[0]), found[1]) == (size + 1, {"a": {1, 2}})
