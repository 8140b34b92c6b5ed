"""Progress of calls, with real workers: who hears of it, how often, in which order, and when no more."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

import snakepit_trio as snakepit
from bridge_py.wire.progress import EVERY
from tests.helpers import progress_tools as f
from tests.helpers.progress_tools import Tools

Heard = list[Any]


@pytest.fixture
async def pool() -> AsyncIterator[snakepit.Pool]:
    with trio.fail_after(60):
        async with snakepit.open_pool(Tools, workers=1, concurrency=1) as opened:
            yield opened  # noqa: ASYNC119


async def _drain(block: AbstractAsyncContextManager[Any]) -> int:
    taken = 0
    async with block as chunks:
        async for _ in chunks:
            taken += 1
    return taken


WAYS: dict[str, Callable[[snakepit.Pool, Any, Callable[[snakepit.Progress], object]], Awaitable[Any]]] = {
    "execute": lambda pool, session, hear: pool.execute("count", {"n": 9}, on_progress=hear),
    "execute a coroutine": lambda pool, session, hear: pool.execute("count_async", {"n": 9}, on_progress=hear),
    "stream": lambda pool, session, hear: _drain(pool.stream("chunks", {"n": 9}, on_progress=hear)),
    "stream of a coroutine": lambda pool, session, hear: _drain(
        pool.stream("chunks_async", {"n": 9}, on_progress=hear)
    ),
    "execute_stream": lambda pool, session, hear: pool.execute_stream("chunks", {"n": 9}, str, on_progress=hear),
    "run": lambda pool, session, hear: pool.options(on_progress=hear).run(f.count, 9),
    "run a coroutine": lambda pool, session, hear: pool.options(on_progress=hear).run(f.count_async, 9),
    "iterate": lambda pool, session, hear: _drain(pool.options(on_progress=hear).iterate(f.count_and_yield, 9)),
    "iterate a coroutine": lambda pool, session, hear: _drain(
        pool.options(on_progress=hear).iterate(f.count_and_yield_async, 9)
    ),
    "map": lambda pool, session, hear: _drain(pool.options(on_progress=hear).map(f.count, [9])),
    "map of pieces": lambda pool, session, hear: _drain(
        pool.options(on_progress=hear).map(f.count, [8, 9], chunksize=2)
    ),
    "options.execute": lambda pool, session, hear: pool.options(on_progress=hear).execute("count", {"n": 9}),
    "options.stream": lambda pool, session, hear: _drain(
        pool.options(on_progress=hear).options(timeout=30).stream("chunks", {"n": 9})
    ),
    "session.execute": lambda pool, session, hear: session.execute("count", {"n": 9}, on_progress=hear),
    "session.stream": lambda pool, session, hear: _drain(session.stream("chunks", {"n": 9}, on_progress=hear)),
    "session.execute_stream": lambda pool, session, hear: session.execute_stream(
        "chunks", {"n": 9}, str, on_progress=hear
    ),
}


@pytest.mark.parametrize("way", WAYS)
async def test_every_kind_of_call_reports_and_its_last_report_comes_before_its_result(
    pool: snakepit.Pool, way: str
) -> None:
    heard: Heard = []
    async with pool.session() as session:
        await WAYS[way](pool, session, heard.append)
        assert heard[-1] == snakepit.Progress(9, 9, "done")
        assert len(heard) >= 1
        before = len(heard)
        await pool.execute("count", {"n": 3})  # nobody asked to hear of it
        assert len(heard) == before


async def test_a_million_reports_become_a_few_and_the_last_is_one_of_them(pool: snakepit.Pool) -> None:
    heard: Heard = []
    began = time.monotonic()
    assert await pool.execute("count", {"n": 1_000_000}, timeout=60, on_progress=heard.append) == 1_000_000
    took = time.monotonic() - began
    assert heard[-1] == snakepit.Progress(1_000_000, 1_000_000, "done")
    assert [each.done for each in heard] == sorted(each.done for each in heard)
    assert len(heard) <= 2 + took / EVERY


async def test_a_report_is_not_kept_until_the_next_one(pool: snakepit.Pool, tmp_path: Path) -> None:
    heard: Heard = []

    def hear(progress: snakepit.Progress) -> None:
        heard.append(progress.done)
        if progress.done == 2:
            (tmp_path / "heard").touch()

    await pool.execute("report_and_wait", {"path": str(tmp_path / "heard")}, on_progress=hear)
    assert heard[-1] == 2


@pytest.mark.parametrize("lane", [True, False])
async def test_calls_side_by_side_report_for_themselves(lane: bool) -> None:
    heard: dict[int, list[snakepit.Progress]] = {n: [] for n in range(1, 9)}

    async def call(pool: snakepit.Pool, n: int) -> None:
        name = "count" if n % 2 else "count_async"
        await pool.execute(name, {"n": n, "pause": 0.03}, on_progress=heard[n].append)

    with trio.fail_after(60):
        async with (
            snakepit.open_pool(Tools, workers=1, concurrency=8, lane=lane) as pool,
            trio.open_nursery() as nursery,
        ):
            for n in heard:
                nursery.start_soon(call, pool, n)
    for n, reports in heard.items():
        assert reports[-1] == snakepit.Progress(n, n, "done")
        assert {report.total for report in reports} == {n}


async def test_threads_of_a_call_report_for_it(pool: snakepit.Pool) -> None:
    heard: Heard = []
    await pool.execute("from_threads", on_progress=heard.append)
    assert heard[-1] == snakepit.Progress(8, 8, "done")


async def test_a_report_of_a_failed_call_comes_before_its_error(pool: snakepit.Pool) -> None:
    heard: Heard = []
    with pytest.raises(snakepit.ToolError, match="at the end"):
        await pool.execute("fail", on_progress=heard.append)
    assert heard[-1] == snakepit.Progress(9)


async def test_what_the_handler_raises_ends_the_call_and_comes_out(pool: snakepit.Pool) -> None:
    heard: Heard = []

    def refuse(progress: snakepit.Progress) -> None:
        heard.append(progress)
        raise LookupError("enough")

    pids = [worker.pid for worker in pool.list_workers()]
    with pytest.raises(LookupError, match="enough"):
        await pool.execute("report_for_ever", on_progress=refuse)
    assert len(heard) == 1
    assert pool.get_stats().running == 0
    with pytest.raises(LookupError, match="enough"):
        await _drain(pool.stream("chunks", {"n": 1000}, on_progress=refuse))
    with pytest.raises(LookupError, match="enough"):  # where the result of the item would have come
        await _drain(pool.options(on_progress=refuse).map(f.count, [1]))
    assert await pool.execute("count", {"n": 2}) == 2
    assert [worker.pid for worker in pool.list_workers()] == pids


async def test_a_cancelled_call_reports_no_more(pool: snakepit.Pool) -> None:
    heard: Heard = []
    with trio.CancelScope() as scope:

        def hear(progress: snakepit.Progress) -> None:
            assert not scope.cancel_called
            heard.append(progress)
            if len(heard) == 3:
                scope.cancel()

        await pool.execute("report_for_ever", on_progress=hear)
    assert len(heard) == 3
    with pytest.raises(snakepit.CallTimeout):
        await pool.execute("report_for_ever", timeout=0.2, on_progress=heard.append)
    after = len(heard)
    await pool.execute("count", {"n": 3, "pause": 0.06})
    assert len(heard) == after


async def test_a_thread_that_is_left_behind_is_not_heard(pool: snakepit.Pool, tmp_path: Path) -> None:
    go, stop = tmp_path / "go", tmp_path / "stop"
    heard: Heard = []
    events: list[snakepit.Event] = []
    pool.events.attach("call.progress", events.append)
    await pool.execute("leave_a_thread", {"path": str(go), "stop": str(stop)}, on_progress=heard.append)
    go.touch()
    other: Heard = []
    await pool.execute("count", {"n": 4, "pause": 0.06}, on_progress=other.append)
    stop.touch()
    assert not heard
    assert 99 not in {each.done for each in other}
    assert 99 not in {event.measurements["done"] for event in events}


async def test_a_fork_of_a_call_is_not_heard_and_does_no_harm(pool: snakepit.Pool) -> None:
    heard: Heard = []
    assert await pool.execute("from_a_fork", on_progress=heard.append) == 0
    assert not heard
    await pool.execute("count", {"n": 1}, on_progress=heard.append)
    assert heard[-1].note == "done"


async def test_a_run_after_a_crash_begins_anew(pool: snakepit.Pool, tmp_path: Path) -> None:
    heard: Heard = []

    def hear(progress: snakepit.Progress) -> None:
        heard.append(progress)
        (tmp_path / "died and heard").touch()

    await pool.execute("die_once", {"path": str(tmp_path / "died")}, on_progress=hear)
    assert heard == [snakepit.Progress(5), snakepit.Progress(2, None, "again")]


async def test_notes_are_cut_and_made_fit_to_be_shown(pool: snakepit.Pool) -> None:
    heard: Heard = []
    for note in ("x" * 1000, "a\x1b[2Jb", "half \ud800", ""):
        await pool.options(on_progress=heard.append).run(f.report_note, note.encode(errors="surrogatepass"))
    assert [each.note for each in heard] == ["x" * 200, "a\\x1b[2Jb", "half ?", ""]


async def test_what_is_no_amount_is_refused_in_the_tool(pool: snakepit.Pool) -> None:
    heard: Heard = []
    messages = await pool.execute("numbers", on_progress=heard.append)
    assert heard == [snakepit.Progress(3, 4.5)]
    assert len(messages) == 2 * len(f.VALUES) + 1
    assert messages[0] == "bool: progress: done=True is no amount; give a number from 0 to 2**63"
    assert messages[1].endswith("give a number from 0 to 2**63, or None if it is not known")
    assert messages[-1] == "progress: note=3 is a int; give a short text"


async def test_events_of_the_pool_have_the_progress_of_all_calls(pool: snakepit.Pool) -> None:
    events: list[snakepit.Event] = []
    detach = pool.events.attach("call.progress", events.append)
    began = time.monotonic()
    await pool.execute("count", {"n": 400, "pause": 0.001})
    took = time.monotonic() - began
    assert len(events) <= 3 + took / EVERY
    assert events[-1].measurements == {"done": 400, "total": 400}
    assert events[-1].metadata["name"] == "count"
    assert events[-1].metadata["note"] == "done"
    assert {event.metadata["call"] for event in events} == {events[0].metadata["call"]}
    detach()
    await pool.execute("count", {"n": 3})
    assert events[-1].measurements["done"] == 400


async def test_a_watch_keeps_the_latest_report_of_each_call_and_ends_with_the_pool() -> None:
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery, snakepit.open_pool(Tools, workers=2, concurrency=1) as pool:
            ended: list[str] = []
            watching = trio.Event()

            async def watch() -> None:
                async with pool.watch("worker.*") as events:
                    watching.set()
                    ended.extend([event.name async for event in events])

            nursery.start_soon(watch)
            await watching.wait()
            async with pool.watch("call.progress") as events:
                async with trio.open_nursery() as callers:
                    for _ in range(2):
                        callers.start_soon(pool.execute, "count", {"n": 200, "pause": 0.001})
                # Nobody has taken anything meanwhile: of each call, the last report waits.
                found = [await anext(events) for _ in range(2)]
            assert [event.measurements["done"] for event in found] == [200, 200]
            assert events.replaced >= 2
            assert events.dropped == 0
            assert [event async for event in events] == []
        assert ended == ["worker.ended", "worker.ended"]


async def test_what_is_no_prefix_or_no_number_is_refused(pool: snakepit.Pool) -> None:
    refused: list[tuple[Any, Any]] = [((3,), 1), (("call.",), 0), ((), True)]
    for prefixes, most in refused:
        with pytest.raises(snakepit.UsageError):
            async with pool.watch(*prefixes, most=most):
                """It is not entered."""


async def _hear(progress: snakepit.Progress) -> None:
    """A coroutine function, which nobody would await."""


class _Hearing:
    async def __call__(self, progress: snakepit.Progress) -> None:
        """A callable object of the same kind."""


@pytest.mark.parametrize("handler", [3, _hear, _Hearing()], ids=["number", "coroutine function", "async object"])
async def test_a_handler_that_cannot_be_called_is_refused_at_once(pool: snakepit.Pool, handler: Any) -> None:
    with pytest.raises(snakepit.UsageError, match="on_progress="):
        await pool.execute("count", {"n": 1}, on_progress=handler)
    with pytest.raises(snakepit.UsageError, match="on_progress="):
        await _drain(pool.stream("chunks", {"n": 1}, on_progress=handler))
    with pytest.raises(snakepit.UsageError, match="on_progress="):
        pool.options(on_progress=handler)
    assert pool.get_stats().calls == 0


def _call(function: Callable[[snakepit.Progress], object], progress: snakepit.Progress) -> object:
    return function(progress)


async def test_a_handler_that_returns_a_coroutine_is_refused_when_it_does(pool: snakepit.Pool) -> None:
    with pytest.raises(snakepit.UsageError, match="coroutine"):
        await pool.execute("count", {"n": 1}, on_progress=partial(_call, _hear))


async def test_a_function_is_told_where_its_context_is(pool: snakepit.Pool) -> None:
    assert "a thread takes it from the function" in await pool.run(f.in_a_new_thread)
    assert f.count(3) == 3  # without a worker, the progress goes nowhere
