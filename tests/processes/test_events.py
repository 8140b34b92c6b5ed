"""The events of real pools: all that the table names happen, with exactly the facts that it promises."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Awaitable, Callable

import pytest
import trio

import snakepit_trio as snakepit
from bridge_py import BaseAdapter, SessionContext, tool
from snakepit_trio import telemetry
from snakepit_trio.telemetry import Event, Timing
from snakepit_trio.testing import InMemory

Plant = Callable[[snakepit.Pool], Awaitable[None]]
TABLE = {kind.name: kind for kind in telemetry.events()}


class Tools(BaseAdapter):
    """Tools that take time."""

    @tool
    def rest(self, seconds: float) -> int:
        """Sleep."""
        time.sleep(seconds)
        return os.getpid()

    @tool
    def fail(self) -> None:
        """Raise."""
        time.sleep(0.1)
        raise ValueError("no")

    @tool
    def ask(self, ctx: SessionContext, name: str) -> object:
        """Call a tool of the host."""
        return ctx.call_host_tool(name, n=1)

    @tool
    def count(self, to: int, seconds: float = 0.0) -> object:
        """Yield numbers."""
        for number in range(to):
            time.sleep(seconds)
            yield number

    @tool
    def create_program(self, program_id: str) -> dict[str, str]:
        """Make a program."""
        return {"program_id": program_id}

    @tool
    def kill(self) -> None:
        """Die."""
        os.kill(os.getpid(), signal.SIGKILL)


def check(events: list[Event]) -> None:
    """Each event has the facts that the table promises, and no others."""
    for event in events:
        kind = TABLE[event.name]
        assert set(event.metadata) == set(kind.metadata), event
        assert set(kind.measurements) - set(event.measurements) <= {"total"}, event
        assert set(event.measurements) <= set(kind.measurements), event
        assert all(value >= 0 and math.isfinite(value) for value in event.measurements.values()), event


async def test_the_table_is_what_happens() -> None:
    heard: list[Event] = []
    detach = telemetry.attach("*", heard.append)
    with trio.fail_after(120):
        async with snakepit.open_pool(Tools, workers=1, spares=1, concurrency=1, taint_after=1) as pool:
            await exercise(pool)
        detach()
    check(heard)
    never_here = {"pool.scaled", "pool.scaling_failed", "call.progress", "foreign.*"}  # other tests have these
    assert {event.name for event in heard} == set(TABLE) - never_here


async def exercise(pool: snakepit.Pool) -> None:
    pool.expose(lambda n: n + 1, name="add_one")

    @pool.expose
    async def refuse(n: int) -> None:
        raise ValueError(n)

    async with pool.session() as session:
        await session.register_variable("x", "integer", 1)
        await session.delete_variable("x")
        assert await session.execute("ask", {"name": "add_one"}) == 2
        with pytest.raises(snakepit.ToolError):
            await session.execute("ask", {"name": "refuse"})
        await snakepit.session_helpers.execute_program_command(pool, session, "create_program", {"program_id": "p"})
        with pytest.raises(snakepit.ProgramNotFound):
            await snakepit.session_helpers.execute_program_command(pool, session, "get_program", {"program_id": "q"})
    async with pool.stream("count", {"to": 3}) as chunks:
        assert [chunk async for chunk in chunks] == [0, 1, 2]
    with pytest.raises(snakepit.CallTimeout):
        async with pool.stream("count", {"to": 100, "seconds": 1.0}, timeout=0.3) as chunks:
            async for _ in chunks:
                pass
    while not pool.get_stats().spares:
        await trio.sleep(0.01)
    with pytest.raises(snakepit.WorkerCrashed):
        await pool.execute("kill")
    await pool.resize(2)


async def timing_of_failure(
    pool: snakepit.Pool, error: type[snakepit.SnakepitError], name: str, **more: float
) -> Timing:
    timeout = more.pop("timeout", 30.0)
    with pytest.raises(error) as caught:
        await pool.execute(name, more, timeout=timeout)
    assert caught.value.timing is not None
    return caught.value.timing


async def test_errors_tell_where_the_time_went() -> None:
    with trio.fail_after(60):
        async with snakepit.open_pool(Tools, workers=1, concurrency=1) as pool:
            failed = await timing_of_failure(pool, snakepit.ToolError, "fail")
            assert failed.ran >= 0.1
            assert failed.total == pytest.approx(failed.queued + failed.sent + failed.ran + failed.returned)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(pool.execute, "rest", {"seconds": 0.6})
                await trio.testing.wait_all_tasks_blocked()
                waited = await timing_of_failure(pool, snakepit.CallTimeout, "rest", seconds=9.0, timeout=1.0)
                assert waited.queued + waited.sent >= 0.4
                nursery.start_soon(pool.execute, "rest", {"seconds": 0.6})
                await trio.testing.wait_all_tasks_blocked()
                queued = await timing_of_failure(pool, snakepit.CallTimeout, "rest", seconds=9.0, timeout=0.1)
                assert queued.ran == 0

            crashed = await timing_of_failure(pool, snakepit.WorkerCrashed, "kill")
            assert crashed.total > 0
            assert snakepit.SnakepitError("of no call").timing is None


async def test_a_timeout_says_how_long_the_call_waited_and_ran() -> None:
    with trio.fail_after(60):
        async with snakepit.open_pool(Tools, workers=1) as pool:
            with pytest.raises(
                snakepit.CallTimeout, match=r"it waited 0\.\d{3} s in the queue, and ran for 0\.[45]\d\d s"
            ):
                await pool.execute("rest", {"seconds": 9}, timeout=0.5)


async def test_events_and_counts_split_the_time_of_calls() -> None:
    stops: list[Event] = []
    with trio.fail_after(60):
        async with snakepit.open_pool(Tools, workers=1, concurrency=1) as pool:
            pool.events.attach("call.stop", stops.append)
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(pool.execute, "rest", {"seconds": 0.2})
            stats = pool.get_stats()
    assert len(stops) == 3
    for event in stops:
        assert 0.2 <= event.measurements["ran"] <= event.measurements["total"]
    # The worker gets the next call while it runs one: then it waits there, and not in the queue.
    behind = [event.measurements["queued"] + event.measurements["sent"] for event in stops]
    assert max(behind) >= 0.4
    assert stats.run_time == pytest.approx(sum(event.measurements["ran"] for event in stops))
    assert stats.queue_time == pytest.approx(sum(event.measurements["queued"] for event in stops))
    away = sum(event.measurements["sent"] + event.measurements["returned"] for event in stops)
    assert stats.link_time == pytest.approx(away)


async def test_a_nested_call_names_its_parent() -> None:
    starts: list[Event] = []
    with trio.fail_after(60):
        async with snakepit.open_pool(Tools, workers=2, concurrency=1) as pool:
            pool.events.attach("call.start", starts.append)

            @pool.expose
            async def again(n: int) -> int:
                return int(await pool.execute("rest", {"seconds": 0.0}))

            async with pool.session() as session:
                await session.execute("ask", {"name": "again"})
    first, second = starts
    assert first.metadata["parent"] is None
    assert second.metadata["parent"] == first.metadata["call"]


async def test_a_refused_and_a_cancelled_call_end_too() -> None:
    heard: list[Event] = []
    with trio.fail_after(60):
        async with snakepit.open_pool(Tools, workers=1, concurrency=1, max_queue=0) as pool:
            pool.events.attach("call.*", heard.append)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pool.execute, "rest", {"seconds": 30})
                while pool.get_stats().running == 0:
                    await trio.sleep(0.01)
                with pytest.raises(snakepit.PoolSaturated):
                    for _ in range(3):
                        with trio.move_on_after(0.1):
                            await pool.execute("rest", {"seconds": 30})
                nursery.cancel_scope.cancel()
    begun = [event.metadata["call"] for event in heard if event.name == "call.start"]
    ended = {event.metadata["call"]: event.metadata["error"] for event in heard if event.name == "call.exception"}
    assert set(begun) == set(ended)
    assert "PoolSaturated" in ended.values()
    assert ended[begun[0]] == "Cancelled"


async def test_handlers_that_fail_hurt_no_call(caplog: pytest.LogCaptureFixture) -> None:
    def fail(event: Event) -> None:
        raise MemoryError

    with trio.fail_after(60):
        async with snakepit.open_pool(Tools, workers=1) as pool:
            for pattern in ("call.start", "call.stop", "stream.*", "tool.*", "session.*", "variable.*"):
                pool.events.attach(pattern, fail)
            pool.expose(lambda n: n, name="same")
            async with pool.session() as session:
                await session.register_variable("x", "integer", 1)
                assert await session.execute("ask", {"name": "same"}) == 1
                async with session.stream("count", {"to": 2}) as chunks:
                    assert [chunk async for chunk in chunks] == [0, 1]
            assert not pool.events.is_heard
    assert sum("it gets no more events" in record.getMessage() for record in caplog.records) == 6


async def test_in_memory_the_clock_of_the_test_counts(autojump_clock: trio.testing.MockClock) -> None:
    stops: list[Event] = []

    class Resting(BaseAdapter):
        @tool
        async def rest(self, seconds: float) -> None:
            import asyncio

            await asyncio.sleep(seconds)

    async with snakepit.open_pool(Resting, workers=1, launcher=InMemory()) as pool:
        pool.events.attach("call.stop", stops.append)
        await pool.execute("rest", {"seconds": 5.0})
    assert stops[0].measurements["ran"] == pytest.approx(5.0)
    assert stops[0].measurements["total"] == pytest.approx(5.0)


async def _crowd(pool: snakepit.Pool) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(pool.execute, "rest", {"seconds": 0.2})


async def _hold_up_the_loop(pool: snakepit.Pool) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.execute, "rest", {"seconds": 0.05})
        await trio.testing.wait_all_tasks_blocked()
        time.sleep(1)  # noqa: ASYNC251 - this is the delay


@pytest.mark.parametrize(
    ("plant", "part"),
    [
        (_crowd, "queued"),
        (_hold_up_the_loop, "returned"),
        (lambda pool: pool.execute("rest", {"seconds": 1.0}), "ran"),
    ],
    ids=["queue", "wire", "tool"],
)
async def test_the_slowest_call_tells_which_delay_was_planted(plant: Plant, part: str) -> None:
    stops: list[Event] = []
    with trio.fail_after(60):
        async with snakepit.open_pool(Tools, workers=1, concurrency=1) as pool:
            pool.events.attach("call.stop", stops.append)
            await plant(pool)
    slowest = max(stops, key=lambda event: event.measurements["total"]).measurements
    assert max(("queued", "sent", "ran", "returned"), key=slowest.__getitem__) == part
