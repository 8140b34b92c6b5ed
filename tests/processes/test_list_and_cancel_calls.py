"""`pool.list_calls` and `pool.cancel_call`, with real workers: in each state of a call, and for each kind of call."""

from __future__ import annotations

import math
import os
import pickle
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel

import snakepit_trio as snakepit
from tests.helpers import batch_tools, host_tools
from tests.helpers.tools import Tools


@pytest.fixture
async def pool() -> AsyncIterator[snakepit.Pool]:
    with trio.fail_after(60):
        async with snakepit.open_pool(Tools, workers=1, cancel_grace=0.5) as opened:
            yield opened  # noqa: ASYNC119


async def listed(pool: snakepit.Pool, *states: str) -> list[snakepit.CallInfo]:
    """The calls, once they are in these states."""
    while True:
        found = pool.list_calls()
        if sorted(each.state for each in found) == sorted(states):
            return found
        await trio.sleep(0.01)


class Outcome:
    """What became of a call."""

    def __init__(self) -> None:
        self.value: object = None
        self.error: BaseException | None = None

    async def of(self, function: Callable[..., Awaitable[object]], *args: Any) -> None:
        try:
            self.value = await function(*args)
        except snakepit.SnakepitError as error:
            self.error = error


async def test_a_call_is_listed_while_it_runs_and_while_it_is_queued(pool: snakepit.Pool, tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery, pool.session("mine") as session:
        nursery.start_soon(pool.execute, "sleep", {"seconds": 60, "path": str(tmp_path / "began")})
        (running,) = await listed(pool, "running")
        (worker,) = pool.list_workers()
        assert (running.tool, running.session_id, running.parent) == ("sleep", None, None)
        assert (running.worker_id, running.pid) == (worker.id, worker.pid)
        assert not running.is_stream
        assert running.on_worker > 0
        assert 0 < (running.time_left or 0) <= 30
        nursery.start_soon(lambda: session.execute("pid", timeout=None, priority=3))
        _, queued = sorted(await listed(pool, "running", "queued"), key=lambda each: each.id)
        assert (queued.tool, queued.session_id, queued.priority) == ("pid", "mine", 3)
        assert (queued.worker_id, queued.pid, queued.on_worker, queued.time_left) == (None, None, 0, None)
        assert 0 <= queued.queued < 60
        assert queued.id != running.id
        assert [each.state for each in pool.list_calls(most=1)] == ["running"]
        nursery.cancel_scope.cancel()
    assert pool.list_calls() == []


@pytest.mark.parametrize("tool", ["sleep", "sleep_async", "spin", "stubborn"])
async def test_a_running_call_is_over_when_its_caller_hears_of_it(
    pool: snakepit.Pool, tmp_path: Path, tool: str
) -> None:
    path = tmp_path / "path"
    outcome = Outcome()
    args: dict[str, Any] = {"path": str(path)} | ({"seconds": 60} if "sleep" in tool else {})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outcome.of, pool.execute, tool, args)
        (call,) = await listed(pool, "running")
        assert pool.cancel_call(call.id, "enough")
        assert pool.cancel_call(call.id)  # it is being stopped: the caller will get the error
        (stopping,) = pool.list_calls()
        assert (stopping.id, stopping.state) == (call.id, "stopping")
    assert isinstance(outcome.error, snakepit.CallCancelled)
    assert (outcome.error.tool, outcome.error.reason) == (tool, "enough")
    assert outcome.error.timing is not None
    assert outcome.error.timing.ran > 0
    assert str(outcome.error) == f"{tool!r} was cancelled through the pool: enough"
    assert pool.list_calls() == []
    assert not pool.cancel_call(call.id)
    assert await pool.execute("add", {"a": 1}) == 2
    stats = pool.get_stats()
    assert (stats.cancelled, stats.timed_out, stats.failed) == (1, 0, 0)


async def test_a_queued_call_is_cancelled_and_the_others_go_on(pool: snakepit.Pool) -> None:
    first, second, third = Outcome(), Outcome(), Outcome()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(first.of, pool.execute, "sleep", {"seconds": 1})
        await listed(pool, "running")
        nursery.start_soon(second.of, pool.execute, "add", {"a": 1})
        await listed(pool, "running", "queued")
        nursery.start_soon(third.of, pool.execute, "add", {"a": 2})
        calls = sorted(await listed(pool, "running", "queued", "queued"), key=lambda each: each.id)
        assert pool.cancel_call(calls[1].id)
    assert isinstance(second.error, snakepit.CallCancelled)
    assert (first.error, third.error, third.value) == (None, None, 3)
    assert pool.get_stats().restarts == 0


async def test_a_call_that_was_sent_ahead_is_cancelled_without_harm_to_the_one_before_it() -> None:
    first, second = Outcome(), Outcome()
    with trio.fail_after(60):
        async with snakepit.open_pool(Tools, workers=1, concurrency=1) as pool, trio.open_nursery() as nursery:
            for _ in range(20):
                await pool.execute("pid")  # quick calls: others are sent ahead
            nursery.start_soon(first.of, pool.execute, "sleep", {"seconds": 0.5})
            while not pool.list_calls():
                await trio.lowlevel.checkpoint()
            nursery.start_soon(second.of, pool.execute, "add", {"a": 1})
            while len(calls := pool.list_calls()) < 2:
                await trio.lowlevel.checkpoint()
            later = max(calls, key=lambda each: each.id)
            assert later.state in ("sent", "queued")
            assert pool.cancel_call(later.id)
    assert isinstance(second.error, snakepit.CallCancelled)
    assert first.error is None


@pytest.mark.parametrize("consumer", ["waits", "is busy"])
async def test_a_stream_is_stopped_at_once_even_if_its_consumer_is_busy(
    pool: snakepit.Pool, tmp_path: Path, consumer: str
) -> None:
    taken = 0

    async def cancel(number: int) -> None:
        assert pool.cancel_call(number)

    async with trio.open_nursery() as nursery:
        with pytest.raises(snakepit.CallCancelled):
            async with pool.stream("count", {"n": 10**9}) as chunks:
                async for _ in chunks:
                    taken += 1
                    (call,) = pool.list_calls()
                    assert call.is_stream
                    if taken == 3 and consumer == "is busy":
                        await cancel(call.id)
                        await listed(pool)  # it is over before its consumer takes another chunk
                        assert await pool.execute("add", {"a": 1}) == 2
                    elif taken == 3:
                        nursery.start_soon(cancel, call.id)
    assert taken >= 3
    assert (taken == 3) is (consumer == "is busy")
    assert pool.list_calls() == []


async def test_a_cancelled_stream_never_looks_complete(pool: snakepit.Pool) -> None:
    async with pool.stream("count", {"n": 1000}) as chunks:
        assert await anext(chunks) == 0
        (call,) = pool.list_calls()
        assert pool.cancel_call(call.id)
        await listed(pool)
        for _ in range(2):
            with pytest.raises(snakepit.CallCancelled):
                await anext(chunks)
    assert pool.get_stats().cancelled == 1


async def test_a_call_of_a_batch_is_cancelled_alone() -> None:
    outcomes = [Outcome() for _ in range(3)]
    with trio.fail_after(60):
        async with snakepit.open_pool(batch_tools.Tools, workers=1) as pool:
            async with trio.open_nursery() as nursery:
                for n, outcome in enumerate(outcomes):
                    nursery.start_soon(outcome.of, pool.execute, "double", {"n": n})
                calls = await listed(pool, "queued", "queued", "queued")
                assert len({each.id for each in calls}) == 3
                assert all(each.queued < 60 for each in calls)
                assert pool.cancel_call(min(each.id for each in calls))
            errors = [outcome.error for outcome in outcomes]
            assert [type(error) for error in errors].count(snakepit.CallCancelled) == 1
            assert errors.count(None) == 2
            assert {0, 2, 4} > {outcome.value for outcome in outcomes if outcome.error is None}


async def test_a_call_that_a_host_tool_makes_names_the_call_above_it() -> None:
    inner = Outcome()
    with trio.fail_after(60):
        async with snakepit.open_pool(host_tools.HostCallers, workers=2) as pool:

            async def nested() -> None:
                await inner.of(pool.run, time.sleep, 60)

            pool.expose(nested)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pool.execute, "call", {"name": "nested", "args": {}})
                outer, nested_call = sorted(await listed(pool, "running", "running"), key=lambda each: each.id)
                assert (outer.parent, nested_call.parent) == (None, outer.id)
                assert pool.cancel_call(nested_call.id)
    assert isinstance(inner.error, snakepit.CallCancelled)


async def test_the_caller_hears_of_the_call_above_when_all_below_is_over() -> None:
    outer = Outcome()
    over = False
    with trio.fail_after(60):
        async with snakepit.open_pool(host_tools.HostCallers, workers=2) as pool:

            async def nested() -> None:
                nonlocal over
                try:
                    await pool.run(time.sleep, 60)
                finally:
                    over = True

            pool.expose(nested)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(outer.of, pool.execute, "call", {"name": "nested", "args": {}})
                calls = await listed(pool, "running", "running")
                assert pool.cancel_call(min(each.id for each in calls))
            assert isinstance(outer.error, snakepit.CallCancelled)
            assert over
            assert pool.list_calls() == []


async def test_a_call_keeps_its_id_over_retries_and_is_cancelled_while_it_waits_for_the_next_run() -> None:
    outcome = Outcome()
    policy = snakepit.RetryPolicy(retries=9, first_delay=30, longest_delay=30)
    with trio.fail_after(60):
        async with snakepit.open_pool(Tools, workers=1) as pool:

            async def call() -> None:
                await pool.execute("exit", {"code": 3}, timeout=None, retries=policy)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(outcome.of, call)
                while not (calls := pool.list_calls()):
                    await trio.lowlevel.checkpoint()
                (waiting,) = await listed(pool, "waiting")
                assert waiting.id == calls[0].id
                assert (waiting.worker_id, waiting.on_worker) == (None, 0)
                assert pool.cancel_call(waiting.id)
            assert isinstance(outcome.error, snakepit.CallCancelled)
            assert pool.list_calls() == []
            assert pool.get_stats().retried == 0


async def test_the_id_stays_when_the_call_runs_again(tmp_path: Path) -> None:
    outcome = Outcome()
    with trio.fail_after(60):
        async with snakepit.open_pool(Tools, workers=1) as pool:

            async def call() -> None:
                await pool.execute("sleep", {"seconds": 60, "path": str(tmp_path / "p")}, timeout=None, retries=9)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(outcome.of, call)
                (first,) = await listed(pool, "running")
                assert first.pid is not None
                os.kill(first.pid, 9)
                while (again := await listed(pool, "running"))[0].pid == first.pid:
                    await trio.sleep(0.01)
                assert again[0].id == first.id
                assert pool.cancel_call(first.id)
            assert isinstance(outcome.error, snakepit.CallCancelled)


async def test_a_function_is_cancelled_by_its_id_too() -> None:
    outcome = Outcome()
    with trio.fail_after(60):
        async with snakepit.open_pool(Tools, workers=1) as pool, trio.open_nursery() as nursery:
            nursery.start_soon(outcome.of, pool.run, math.factorial, 10**7)
            (call,) = await listed(pool, "running")
            assert "factorial" in call.tool
            assert pool.cancel_call(call.id)
    assert isinstance(outcome.error, snakepit.CallCancelled)


async def test_what_is_no_id_is_refused_and_an_unknown_id_is_over(pool: snakepit.Pool) -> None:
    assert not pool.cancel_call(0)
    assert not pool.cancel_call(10**9)
    for wrong in ("1", 1.0, None, True):
        with pytest.raises(snakepit.UsageError, match="cancel_call"):
            pool.cancel_call(wrong)  # type: ignore[arg-type]
    with pytest.raises(snakepit.UsageError, match="reason"):
        pool.cancel_call(1, 2)  # type: ignore[arg-type]
    with pytest.raises(snakepit.UsageError, match="most"):
        pool.list_calls(most=-1)


async def test_a_call_whose_caller_has_left_is_not_cancelled_again(pool: snakepit.Pool, tmp_path: Path) -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.execute, "stubborn", {"path": str(tmp_path / "p")})
            (call,) = await listed(pool, "running")
            scope.cancel()
            with trio.CancelScope(shield=True):
                await listed(pool, "stopping")
                assert not pool.cancel_call(call.id)
    assert pool.list_calls() == []


async def test_a_closed_pool_has_no_calls() -> None:
    async with snakepit.open_pool(Tools, workers=1) as pool:
        pass
    assert pool.list_calls() == []
    assert not pool.cancel_call(1)


def test_the_error_can_be_pickled() -> None:
    error = pickle.loads(pickle.dumps(snakepit.CallCancelled("tool", "why")))
    assert (error.tool, error.reason, str(error)) == ("tool", "why", "'tool' was cancelled through the pool: why")
