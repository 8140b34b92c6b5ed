"""Batch tools, with real workers: each caller has its own outcome, and a batch ends with its last caller."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio

import snakepit_trio as snakepit
from tests.helpers.batch_tools import FAILS, KILLS, RAISES, Point, Tools

HELD = ["hold", "hold_async", "hold_to_the_death"]


@pytest.fixture(params=[{}, {"concurrency": 2, "lane": False}], ids=["serial", "concurrent"])
async def pool(request: pytest.FixtureRequest) -> AsyncIterator[snakepit.Pool]:
    with trio.fail_after(60):
        async with snakepit.open_pool(Tools, workers=1, cancel_grace=10, **request.param) as opened:
            yield opened  # noqa: ASYNC119


async def outcomes(pool: snakepit.Pool, name: str, args: Sequence[dict[str, Any]], **options: Any) -> list[Any]:
    """Make calls at the same time; returns their results and errors."""
    found: list[Any] = [None] * len(args)

    async def call(at: int) -> None:
        try:
            found[at] = await pool.execute(name, args[at], **options)
        except snakepit.SnakepitError as error:
            found[at] = error

    async with trio.open_nursery() as nursery:
        for at in range(len(args)):
            nursery.start_soon(call, at)
    return found


def numbers(*values: Any) -> list[dict[str, Any]]:
    return [{"n": value} for value in values]


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await trio.sleep(0.005)


def is_quiet(log: Path) -> bool:
    size = log.stat().st_size
    time.sleep(0.05)
    return log.stat().st_size == size


async def test_calls_run_together_and_each_has_its_own_result(pool: snakepit.Pool) -> None:
    assert await outcomes(pool, "double", numbers(*range(8))) == [0, 2, 4, 6, 8, 10, 12, 14]
    assert await pool.execute("sizes") == [4, 4]
    assert await pool.execute("double", {"n": 4}) == 8
    stats = pool.get_stats()
    assert (stats.calls, stats.succeeded, stats.failed, stats.queued, stats.running) == (10, 10, 0, 0, 0)


@pytest.mark.parametrize("name", ["double", "double_async"])
async def test_errors_reach_the_callers_that_they_are_for(pool: snakepit.Pool, name: str) -> None:
    one, bad, missing, other = await outcomes(pool, name, [{"n": 1}, {"n": "x"}, {}, {"n": FAILS}])
    assert one == 2
    assert isinstance(bad, snakepit.InvalidArguments)
    assert bad.parameter == "n"
    assert isinstance(missing, snakepit.InvalidArguments)
    assert (other.type, other.message) == ("KeyError", f"'not {FAILS}'")
    assert await pool.execute("sizes") == [2]


async def test_what_the_tool_raises_reaches_all_callers_one_error_each(pool: snakepit.Pool) -> None:
    found = await outcomes(pool, "double", numbers(1, RAISES, 3))
    assert [(each.type, each.message) for each in found] == [("RuntimeError", "all of you")] * 3
    assert len(set(map(id, found))) == 3


@pytest.mark.parametrize(("value", "told"), [(1, "1 results for 2 calls"), (2, "a tuple"), (3, "a NoneType")])
async def test_a_wrong_return_value_is_an_error_of_all_that_names_the_tool(
    pool: snakepit.Pool, value: int, told: str
) -> None:
    for error in await outcomes(pool, "returns", [{"value": value}] * 2):
        assert isinstance(error, snakepit.ToolError)
        assert f"batch tool 'returns' returned {told}" in error.message


async def test_a_result_that_cannot_be_sent_is_the_error_of_one_caller(pool: snakepit.Pool) -> None:
    good, bad = await outcomes(pool, "send_back", [{"kind": "good"}, {"kind": "bad"}])
    assert good == "good"
    assert isinstance(bad, snakepit.SnakepitError)
    assert "object" in str(bad)


async def test_all_arguments_bad_and_the_function_is_not_called(pool: snakepit.Pool) -> None:
    found = await outcomes(pool, "double", numbers("x", "y"))
    assert [type(each) for each in found] == [snakepit.InvalidArguments] * 2
    assert await pool.execute("sizes") == []


@pytest.mark.parametrize("shares", [True, False])
async def test_large_arguments_and_results(shares: bool) -> None:
    with trio.fail_after(60):
        options: dict[str, Any] = {} if shares else {"shared_memory": 0}
        async with snakepit.open_pool(Tools, workers=1, **options) as pool:
            sizes = [10, 5_000, 300_000, 40_000]
            args = [{"array": np.full(size, size), "by": at} for at, size in enumerate(sizes)]
            found = await outcomes(pool, "increase", args)
            for at, size in enumerate(sizes):
                assert np.array_equal(found[at], np.full(size, size + at))


async def test_two_parameters_and_objects_by_hints(pool: snakepit.Pool) -> None:
    assert await pool.execute("weigh", {"name": "a", "weight": 1.5}) == "a: 1.5"
    assert await pool.execute("move", {"point": Point(1)}, returns=Point) == Point(2)
    found: Any = await pool.execute(Tools.move, {"point": Point(2)})
    assert found == Point(3)


async def test_map_fills_batches(pool: snakepit.Pool) -> None:
    async with pool.map("double", numbers(*range(100))) as results:
        assert [value async for value in results] == [2 * n for n in range(100)]
    assert len(await pool.execute("sizes")) <= 40


async def test_calls_of_a_session_and_of_several_priorities(pool: snakepit.Pool) -> None:
    async with pool.session() as session:
        assert await session.execute("double", {"n": 1}) == 2
    found: list[int] = []

    async def call(n: int) -> None:
        found.append(await pool.execute("double", {"n": n}, priority=n % 2))

    async with trio.open_nursery() as nursery:
        for n in range(8):
            nursery.start_soon(call, n)
    assert sorted(found) == [0, 2, 4, 6, 8, 10, 12, 14]


async def test_a_streaming_call_of_it_is_refused(pool: snakepit.Pool) -> None:
    with pytest.raises(snakepit.WrongCallKind):
        async with pool.stream("double", {"n": 1}) as chunks:
            await anext(chunks)


# Leaving.


@pytest.mark.parametrize("name", HELD)
async def test_one_caller_leaves_and_the_batch_goes_on_for_the_other(
    pool: snakepit.Pool, name: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    found: list[int] = []

    async def stay() -> None:
        found.append(await pool.execute(name, {"log": str(log), "n": 1}))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stay)
        async with trio.open_nursery() as inner:
            inner.start_soon(pool.execute, name, {"log": str(log), "n": 2})
            await until(log.exists)
            inner.cancel_scope.cancel()
        assert found == []
        assert not is_quiet(log)
        Path(f"{log}.go").touch()
    assert found == [1]
    stats = pool.get_stats()
    assert (stats.cancelled, stats.succeeded, stats.restarts, stats.running) == (1, 1, 0, 0)


@pytest.mark.parametrize("name", HELD)
async def test_the_last_caller_that_leaves_stops_the_batch(pool: snakepit.Pool, name: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with trio.open_nursery() as nursery:
        for n in range(2):
            nursery.start_soon(pool.execute, name, {"log": str(log), "n": n})
        await until(log.exists)
        nursery.cancel_scope.cancel()
    assert is_quiet(log)
    await pool.await_ready(20)
    assert pool.get_stats().restarts == (name == "hold_to_the_death")
    assert await pool.execute("add", {"a": 1, "b": 2}) == 3


async def test_a_deadline_takes_one_caller_out(pool: snakepit.Pool, tmp_path: Path) -> None:
    log = tmp_path / "log"
    args = {"log": str(log)}
    found: list[Any] = []

    async def stay() -> None:
        found.append(await pool.execute("hold", {**args, "n": 1}))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stay)
        with pytest.raises(snakepit.CallTimeout, match="did not end within 1.5 s"):
            await pool.execute("hold", {**args, "n": 2}, timeout=1.5)
        Path(f"{log}.go").touch()
    assert found == [1]
    assert pool.get_stats().timed_out == 1


async def test_a_caller_that_leaves_while_calls_are_collected_takes_its_call_along(
    pool: snakepit.Pool, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with trio.move_on_after(0.05):
        await pool.execute("hold", {"log": str(log), "n": 2})  # it waits for a second one
    assert not log.exists()
    assert pool.get_stats().queued == 0
    with pytest.raises(snakepit.CallTimeout, match="never started"):
        await pool.execute("hold", {"log": str(log), "n": 2}, timeout=0.05)
    Path(f"{log}.go").touch()
    assert await outcomes(pool, "hold", [{"log": str(log), "n": n} for n in range(2)]) == [0, 1]


async def test_calls_that_wait_for_a_worker_join_a_batch_of_the_queue(pool: snakepit.Pool, tmp_path: Path) -> None:
    log = tmp_path / "log"
    found: list[Any] = []

    async def call(count: int) -> None:
        found.extend(await outcomes(pool, "hold_one", [{"log": str(log), "n": n} for n in range(count)]))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, 1)
        await until(log.exists)
        nursery.start_soon(call, 1)
        await until(lambda: pool.get_stats().queued == 1)
        await until(lambda: pool.get_stats().limited == 1)
        nursery.start_soon(call, 2)
        await until(lambda: pool.get_stats().queued == 3)
        await until(lambda: pool.get_stats().limited == 3)
        Path(f"{log}.go").touch()
    assert found.count(0) == 3
    assert await pool.execute("sizes") == [1, 2, 1]


async def test_a_full_queue_refuses_a_caller_alone(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with trio.fail_after(60):
        async with snakepit.open_pool(Tools, workers=1, max_queue=1) as pool, trio.open_nursery() as nursery:
            call = partial(pool.execute, "hold_one", {"log": str(log), "n": 1})
            nursery.start_soon(call)
            await until(log.exists)
            nursery.start_soon(call)
            await until(lambda: pool.get_stats().limited == 1)
            with pytest.raises(snakepit.PoolSaturated, match="the queue is full"):
                await call()
            Path(f"{log}.go").touch()


async def test_calls_that_are_collected_count_if_they_would_wait_for_a_worker(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with trio.fail_after(60):
        async with snakepit.open_pool(Tools, workers=1, max_queue=2, send_ahead=0) as pool:
            assert await outcomes(pool, "collect", numbers(1, 2, 3)) == [1, 2, 3]  # the worker was free
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pool.execute, "hold", {"log": str(log), "n": 1})
                await until(log.exists)
                nursery.start_soon(pool.execute, "collect", {"n": 1})
                nursery.start_soon(pool.execute, "collect", {"n": 2})
                await until(lambda: pool.get_stats().queued == 2)
                with pytest.raises(snakepit.PoolSaturated, match="queued=2, max_queue=2"):
                    await pool.execute("collect", {"n": 3})
                Path(f"{log}.go").touch()


# Workers that die.


@pytest.mark.parametrize("name", ["double", "double_async"])
async def test_a_worker_that_dies_fails_all_callers(pool: snakepit.Pool, name: str) -> None:
    found = await outcomes(pool, name, numbers(1, KILLS, 3))
    assert [type(each) for each in found] == [snakepit.WorkerCrashed] * 3
    assert len(set(map(id, found))) == 3
    assert all(each.tool == name for each in found)
    await pool.await_ready(20)
    assert await pool.execute(name, {"n": 4}) == 8
    assert pool.get_stats().crashed == 3


async def test_retries_are_of_each_caller(pool: snakepit.Pool, tmp_path: Path) -> None:
    path = str(tmp_path / "died")
    assert await outcomes(pool, "die_once", [{"path": path}] * 3) == [path] * 3
    assert pool.get_stats().retried == 3


async def test_closing_the_pool_ends_calls_that_are_collected(tmp_path: Path) -> None:
    with trio.fail_after(60):
        found: list[Any] = []
        async with trio.open_nursery() as nursery:

            async def call(pool: snakepit.Pool) -> None:
                with pytest.raises(snakepit.PoolClosed) as caught:
                    await pool.execute("hold", {"log": str(tmp_path / "log"), "n": 1})
                found.append(caught.value)

            async with snakepit.open_pool(Tools, workers=1) as pool:
                nursery.start_soon(call, pool)
                await until(lambda: pool.get_stats().queued == 1)
        assert len(found) == 1
