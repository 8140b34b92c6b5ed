"""Rules of launchers: calls, streams, errors, cancelling, time."""

from __future__ import annotations

import math
from typing import Any, Final

import trio

from bridge_py.wire.errors import CallTimeout, InvalidArguments, ToolError, UnknownTool

from .check import Rules, equal, raises, that
from .launchers import Launchers, Meeting, Running

rules: Rules[Launchers] = Rules()

_VALUES: Final[list[Any]] = [
    None,
    True,
    -(2**100),
    1.5,
    math.inf,
    "ünï\n\x00",
    b"\x00\xff" * 10,
    b"x" * 3_000_000,
    [1, [2, "x"], {}],
    {"a": {"b": [None]}, 5: "five"},
]
_SUM: Final = {"a": 2, "b": 3}


@rules
async def values_go_there_and_back(given: Launchers) -> None:
    """Arguments and results arrive equal, and of the same types, even large ones."""
    async with given.pool() as (pool, _):
        for value in _VALUES:
            equal(await pool.execute("echo", {"value": value}), value, "echo")


@rules
async def many_calls_get_their_own_results(given: Launchers) -> None:
    """A hundred calls run on two workers, up to fifty at a time. Each call gets its own result."""
    async with given.pool(workers=2) as (pool, _):
        async with pool.map("add", ({"a": n, "b": 1} for n in range(100)), limit=50, ordered=True) as results:
            came = [result async for result in results]
        equal(came, list(range(1, 101)), "results of a hundred calls")
        equal(pool.get_stats().failed, 0, "failed in get_stats()")


@rules
async def workers_run_at_the_same_time(given: Launchers) -> None:
    """Each worker runs as many calls at a time as `concurrency` says."""
    async with given.pool(workers=2, concurrency=2) as (pool, _):
        Meeting(pool, 4)
        came: list[str] = []

        async def meet() -> None:
            came.append(await pool.execute("meet", timeout=None))

        with trio.move_on_after(10):
            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(meet)
        equal(came, ["met"] * 4, "four calls that wait for each other, in two workers with concurrency=2")


@rules
async def streams_come_whole_and_in_order(given: Launchers) -> None:
    """All chunks of a stream come, or none of an empty stream. A stream that raises does so after its chunks."""
    async with given.pool() as (pool, _):
        for n in (0, 1, 1000):
            async with pool.stream("count", {"n": n}) as chunks:
                equal([chunk async for chunk in chunks], list(range(n)), f"chunks of count({n})")
        async with pool.stream("count_and_fail", {"n": 3}) as chunks:
            equal([await anext(chunks) for _ in range(3)], [0, 1, 2], "the chunks before an error")
            with raises(ToolError, "a stream that raises", "no more"):
                await anext(chunks)


@rules
async def a_stream_that_is_left_is_over(given: Launchers) -> None:
    """Leaving a stream early ends its generator, and the worker serves the next call."""
    async with given.pool() as (pool, watched):
        async with pool.stream("tick") as chunks:
            equal(await anext(chunks), 0, "the first chunk")
        equal(await pool.execute("running"), [], "what runs in the worker after a stream was left")
        async with pool.stream("count", {"n": 10**9}) as chunks:
            equal(await anext(chunks), 0, "the first chunk")
        equal(await pool.execute("add", _SUM), 5, "add, in the same worker")
        equal(len(watched.processes), 1, "processes that were launched")


@rules
async def errors_of_tools_come_as_they_are(given: Launchers) -> None:
    """A tool's error, an unknown tool and wrong arguments are reported by name, and cost no worker."""
    async with given.pool() as (pool, watched):
        with raises(ToolError, "a tool that raises", "the message of the contract") as failed:
            await pool.execute("fail", {"message": "the message of the contract"})
        equal(failed.error.type, "LookupError", "the type in the ToolError")
        with raises(UnknownTool, "a tool that is not there", "no_such_tool"):
            await pool.execute("no_such_tool")
        with raises(InvalidArguments, "a call without an argument", "'b'"):
            await pool.execute("add", {"a": 1})
        equal(await pool.execute("add", _SUM), 5, "add, in the same worker")
        equal(len(watched.processes), 1, "processes that were launched")


@rules
async def a_cancelled_coroutine_is_over(given: Launchers) -> None:
    """When a caller's cancellation has taken effect, no code of its async tool runs, and the worker serves on."""
    await _is_over_when_cancelled(given, "wait")


@rules
async def a_cancelled_sync_tool_is_over(given: Launchers) -> None:
    """When a caller's cancellation has taken effect, no code of its sync tool runs, and the worker serves on."""
    async with given.pool() as (_, watched):
        given.needs_processes(watched, "sync tools run in place, and cannot be interrupted")
    await _is_over_when_cancelled(given, "sleep")


@rules
async def a_call_that_takes_too_long_is_over(given: Launchers) -> None:
    """After its timeout a call raises `CallTimeout`. Then none of its code runs, and its worker serves on."""
    async with given.pool() as (pool, watched):
        Meeting(pool, 1, "begun")
        with raises(CallTimeout, "a call that takes for ever", "wait"):
            await pool.execute("wait", timeout=0.3)
        equal(await pool.execute("running"), [], "what runs in the worker after a call that has timed out")
        equal(len(watched.processes), 1, "processes that were launched")


@rules
async def what_waits_in_the_queue_is_just_withdrawn(given: Launchers) -> None:
    """Cancelling a call that waits in the queue for a busy worker leaves the running call alone."""
    async with given.pool(send_ahead=0) as (pool, watched), trio.open_nursery() as nursery:
        running = Running(pool, "wait")
        nursery.start_soon(running)
        await running.begun.until_all()
        with trio.move_on_after(0.1) as waiting:
            await pool.execute("add", _SUM)
        equal(waiting.cancelled_caught, True, "whether a call waits for the only worker, which is busy")
        equal((running.error, len(watched.processes)), (None, 1), "error of the running call, processes launched")
        running.scope.cancel()
        await running.over("its cancellation")
        equal(await pool.execute("add", _SUM), 5, "add, afterwards")


@rules
async def tools_reach_their_session_and_the_host(given: Launchers) -> None:
    """Tools read and set variables of their session, and call host tools, which may call the pool in turn."""
    async with given.pool(workers=2) as (pool, _), pool.session() as session:
        marks: list[int] = []

        async def mark(number: int) -> None:
            marks.append(int(await pool.execute("add", {"a": number, "b": 1})))

        session.expose(mark)
        await session.register_variable("n", "integer", 1)
        equal(await session.execute("bump", {"name": "n"}), 2, "a variable that a tool raised from 1")
        equal(await session.get_variable_value("n"), 2, "the variable, afterwards")
        await session.update_variable("n", 10)
        equal(await session.execute("read", {"name": "n"}), 10, "a variable that the host has set, read by a tool")
        equal(await session.execute("mark", {"number": 5}), 5, "a tool that calls the host")
        equal(marks, [6], "what the host tool did, which called the pool")


@rules
async def a_tool_that_is_killed_to_cancel_costs_its_worker(given: Launchers) -> None:
    """With `cancel="kill"` the worker is killed, and another one takes its place."""
    async with given.pool() as (pool, watched):
        await _cancel(pool, "wait_for_kill")
        equal(await pool.execute("add", _SUM), 5, "add, in the next worker")
        equal(len(watched.processes), 2, "processes that were launched")
        that(
            watched.processes[0].exit_code not in (0, None),
            f"exit_code of the killed one: expected minus a signal, but {watched.processes[0].exit_code} came",
        )


@rules
async def a_tool_that_resists_costs_its_worker(given: Launchers) -> None:
    """Code that does not end within `cancel_grace` is killed with its worker. Only then is the call over."""
    async with given.pool(cancel_grace=0.2) as (pool, watched):
        given.needs_processes(watched, "sync tools run in place, and cannot be interrupted")
        await _cancel(pool, "resist")
        equal(watched.processes[0].exit_code, -9, "exit_code of its worker, when the call is over")
        equal(await pool.execute("add", _SUM), 5, "add, in the next worker")


@rules
async def what_the_block_raises_leaves_as_itself(given: Launchers) -> None:
    """An error that a pool's block raises comes out unchanged, even while calls run. Then everything is ended."""
    async with given.watched() as watched:
        with raises(KeyError, "a pool's block that raises", "of the contract"):
            await _raise_in_pool(given, watched)
        watched.check_nothing_is_left()


async def _raise_in_pool(given: Launchers, watched: Any) -> None:
    async with given.pool_of(watched, workers=2) as pool, pool.stream("tick") as chunks:
        await anext(chunks)
        raise KeyError("of the contract")


async def _is_over_when_cancelled(given: Launchers, name: str) -> None:
    async with given.pool() as (pool, watched):
        await _cancel(pool, name)
        equal(await pool.execute("running"), [], "what runs in the worker after a call was cancelled")
        equal(len(watched.processes), 1, "processes that were launched")


async def _cancel(pool: Any, name: str) -> None:
    """Cancel a call that has begun; returns when it is over."""
    async with trio.open_nursery() as nursery:
        running = Running(pool, name)
        nursery.start_soon(running)
        await running.begun.until_all()
        running.scope.cancel()
        await running.over("its cancellation")
    that(running.error is None, f"a call that is cancelled: expected its cancellation, but {running.error!r} came")
