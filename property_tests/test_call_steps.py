"""Property: whatever is raised at whichever step of a call's way fails that call alone, and the pool is whole."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import trio
import trio.lowlevel
from hypothesis import given, settings
from hypothesis import strategies as st

import snakepit_trio as snakepit
from bridge_py import BaseAdapter, SessionContext, tool
from snakepit_trio import testing

from .call_steps import raising_at

LARGE = b"x" * 100_000  # goes beside the message
BOUND = 10  # seconds of trio's clock, which jumps: less than the 30 that a lost call would wait for nothing


class Fault(Exception):
    """What nobody foresees."""


FAULTS: dict[str, Callable[[], BaseException]] = {
    "unforeseen": Fault,
    "memory": MemoryError,
    "descriptors": lambda: OSError(24, "Too many open files"),
    "assertion": AssertionError,
    "recursion": RecursionError,
    "key": lambda: KeyError("x"),
}


class Tools(BaseAdapter):
    """One of each kind."""

    @tool
    def echo(self, value: Any) -> Any:
        """The value."""
        return value

    @tool
    async def nap(self, seconds: float) -> str:
        """Sleep."""
        import asyncio

        await asyncio.sleep(seconds)
        return "awake"

    @tool
    def fail(self) -> None:
        """Raise."""
        raise ValueError

    @tool
    def count(self, n: int) -> Iterator[int]:
        """Count."""
        yield from range(n)

    @tool(batch=1)
    def echo_together(self, value: list[Any]) -> list[Any]:
        """The values."""
        return value

    @tool(batch=2)
    def echo_collected(self, value: list[Any]) -> list[Any]:
        """The values."""
        return value

    @tool(batch=1)
    async def nap_together(self, seconds: list[float]) -> list[float]:
        """Sleep."""
        import asyncio

        await asyncio.sleep(max(seconds))
        return seconds

    @tool(limit=2)
    def echo_limited(self, value: Any) -> Any:
        """The value."""
        return value

    @tool(limit=2, resources={"gpu": 1})
    def echo_with_needs(self, value: Any) -> Any:
        """The value."""
        return value

    @tool
    def ask(self, ctx: SessionContext) -> Any:
        """Call a host tool, which calls the pool."""
        return ctx.call_host_tool("deeper")


Way = Callable[[snakepit.Pool], Awaitable[object]]


async def plain(pool: snakepit.Pool) -> None:
    assert await pool.execute("echo", {"value": 1}) == 1


async def large(pool: snakepit.Pool) -> None:
    assert await pool.execute("echo", {"value": LARGE}) == LARGE


async def of_a_session(pool: snakepit.Pool) -> None:
    assert await pool.execute("echo", {"value": 1}, session="s") == 1


async def failing(pool: snakepit.Pool) -> None:
    with pytest.raises(snakepit.ToolError):
        await pool.execute("fail")


async def too_late(pool: snakepit.Pool) -> None:
    with pytest.raises(snakepit.CallTimeout):
        await pool.execute("nap", {"seconds": 500}, timeout=0.1)


async def cancelled(pool: snakepit.Pool) -> None:
    with trio.move_on_after(0.1):
        await pool.execute("nap", {"seconds": 500}, timeout=None)


async def refused(pool: snakepit.Pool) -> None:
    with pytest.raises(snakepit.EncodeError):
        await pool.execute("echo", {"value": object()})


async def streamed(pool: snakepit.Pool) -> None:
    async with pool.stream("count", {"n": 70}) as chunks:
        assert [chunk async for chunk in chunks] == list(range(70))


async def left(pool: snakepit.Pool) -> None:
    async with pool.stream("count", {"n": 10_000}, session="s") as chunks:
        async for chunk in chunks:
            if chunk == 3:
                break


async def nested(pool: snakepit.Pool) -> None:
    assert await pool.execute("ask") == 1


async def in_line(pool: snakepit.Pool) -> None:
    # Others have all places: this one is started by the end of one of theirs.
    async with busy(pool, 0.05):
        assert await pool.execute("echo", {"value": 1}) == 1


async def in_line_for_its_worker(pool: snakepit.Pool) -> None:
    await pool.execute("echo", {"value": 1}, session="strict")
    async with busy(pool, 0.05), pool.session("strict", affinity="strict") as session:
        assert await session.execute("echo", {"value": 1}) == 1


async def limited_in_line(pool: snakepit.Pool) -> None:
    async with busy(pool, 0.05):
        assert await pool.execute("echo_limited", {"value": 1}) == 1


async def with_needs_in_line(pool: snakepit.Pool) -> None:
    async with busy(pool, 0.05):
        assert await pool.execute("echo_with_needs", {"value": 1}) == 1


async def too_late_in_line(pool: snakepit.Pool) -> None:
    async with busy(pool, 0.2):
        with contextlib.suppress(snakepit.CallTimeout):
            await pool.execute("echo", {"value": 1}, timeout=0.1)
            assert failures, "it got a place while all were taken"


async def batched(pool: snakepit.Pool) -> None:
    assert await pool.execute("echo_together", {"value": 1}) == 1


async def batched_large(pool: snakepit.Pool) -> None:
    assert await pool.execute("echo_together", {"value": LARGE}) == LARGE


async def collected(pool: snakepit.Pool) -> None:
    assert await pool.execute("echo_collected", {"value": 1}) == 1


async def batched_in_line(pool: snakepit.Pool) -> None:
    async with busy(pool, 0.05):
        assert await pool.execute("echo_together", {"value": 1}) == 1


async def batched_too_late(pool: snakepit.Pool) -> None:
    with pytest.raises(snakepit.CallTimeout):
        await pool.execute("nap_together", {"seconds": 500}, timeout=0.1)


async def batched_cancelled(pool: snakepit.Pool) -> None:
    with trio.move_on_after(0.1):
        await pool.execute("nap_together", {"seconds": 500}, timeout=None)


WAYS: list[Way] = [
    limited_in_line,
    with_needs_in_line,
    batched,
    batched_large,
    collected,
    batched_in_line,
    batched_too_late,
    batched_cancelled,
    plain,
    large,
    of_a_session,
    failing,
    too_late,
    cancelled,
    refused,
    streamed,
    left,
    nested,
    in_line,
    in_line_for_its_worker,
    too_late_in_line,
]


@contextlib.asynccontextmanager
async def busy(pool: snakepit.Pool, seconds: float) -> AsyncIterator[None]:
    """All places are taken by calls of others, whose outcomes are right."""
    async with trio.open_nursery() as nursery:
        for _ in range(PLACES - pool.get_stats().running):
            nursery.start_soon(bystander, pool, seconds)
        while pool.get_stats().running < PLACES and not failures:
            await trio.lowlevel.checkpoint()
        yield


async def bystander(pool: snakepit.Pool, seconds: float) -> None:
    try:
        assert await pool.execute("nap", {"seconds": seconds}) == "awake"
    except Exception as error:
        failures.append(error)


PLACES = 2
failures: list[Exception] = []  # of the present calls


async def go(pool: snakepit.Pool, way: Way, step: int, make: Callable[[], BaseException]) -> int:
    """One call with something raised at one step. Returns how many steps it took."""
    failures.clear()
    with raising_at(step, make) as steps:
        try:
            await way(pool)
        except Exception as error:
            failures.append(error)
    return steps.count


async def check_whole(pool: snakepit.Pool, workers: list[int | None]) -> None:
    """Nothing is left of a call, all places serve, and no worker has been blamed."""
    stats = pool.get_stats()
    assert (stats.queued, stats.running) == (0, 0)
    failures.clear()
    async with trio.open_nursery() as nursery:
        for _ in range(2 * PLACES):
            nursery.start_soon(bystander, pool, 0.01)
        await trio.sleep(0.001)
        assert pool.get_stats().running >= PLACES, "a place is lost"
    assert failures == []
    assert await pool.execute("echo", {"value": LARGE}, session="s") == LARGE
    assert pool.get_health().status == "healthy"
    assert [worker.pid for worker in pool.list_workers()] == workers, "a worker was blamed"


async def live(shape: dict[str, Any], plan: list[tuple[Way, float, str]], seen: dict[Way, int]) -> None:
    """Open a pool, and have a fault happen in each of several calls. `seen`: how many steps a call has."""
    async with snakepit.open_pool(Tools, launcher=testing.InMemory(), resources={"gpu": 2}, **shape) as pool:

        async def deeper() -> int:
            return int(await pool.execute("echo", {"value": 1}))

        pool.expose(deeper)
        workers = [worker.pid for worker in pool.list_workers()]
        for way, share, kind in plan:
            if way not in seen:
                seen[way] = await go(pool, way, 0, Fault)
                assert failures == []
                await check_whole(pool, workers)
            step = 1 + int(share * seen[way])
            try:
                with trio.fail_after(BOUND):
                    await go(pool, way, step, FAULTS[kind])
                assert len(failures) <= 1, failures
                with trio.fail_after(BOUND):
                    await check_whole(pool, workers)
            except BaseException as error:
                error.add_note(f"after {kind} at step {step} of {way.__name__}")
                raise


SHAPES: list[dict[str, Any]] = [
    {"workers": 2, "send_ahead": 0},
    {"workers": 1, "concurrency": 2, "send_ahead": 0},
    {"workers": 2, "send_ahead": 32},
]
plans = st.lists(
    st.tuples(st.sampled_from(WAYS), st.floats(0, 1, exclude_max=True), st.sampled_from(sorted(FAULTS))),
    min_size=1,
    max_size=5,
)


_seen: list[dict[Way, int]] = [{} for _ in SHAPES]
EXAMPLES = settings().max_examples


def _marks(way: Way) -> list[pytest.MarkDecorator]:
    return [pytest.mark.slow] if way in (streamed, in_line_for_its_worker, left) else []


# They are quick, and there is much to find.
@pytest.mark.slow
@settings(deadline=None, max_examples=10 * EXAMPLES if EXAMPLES > 100 else EXAMPLES)
@given(st.sampled_from(SHAPES), plans)
def test_what_is_raised_on_the_way_of_a_call_fails_that_call_alone(
    shape: dict[str, Any], plan: list[tuple[Way, float, str]]
) -> None:
    testing.run(live, shape, plan, _seen[SHAPES.index(shape)])


@pytest.mark.parametrize("way", [pytest.param(way, id=way.__name__, marks=_marks(way)) for way in WAYS])
def test_each_step_of_a_call(way: Way) -> None:
    seen: dict[Way, int] = {}
    testing.run(live, SHAPES[0], [(way, 0.0, "memory")], seen)
    steps = seen[way]
    assert steps > 5
    testing.run(live, SHAPES[0], [(way, step / steps, "unforeseen") for step in range(steps)], seen)
