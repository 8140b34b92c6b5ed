"""Host tools that call the pool again: to any depth, with deadlines, deadlocks, and deaths in the middle."""

from __future__ import annotations

import contextlib
import contextvars
import itertools
import math
import os
import random
import signal
import threading
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
import trio
import trio.lowlevel

import snakepit_trio as snakepit

CALLERS = "tests.helpers.host_tools:HostCallers"


class Nested:
    """Host tools that call the pool, which calls host tools."""

    def __init__(self, pool: snakepit.Pool, how: str) -> None:
        self.pool = pool
        self.how = how
        self.depths: list[int] = []

    async def down(self, depth: int, leaf: str = "") -> Any:
        """Go on to the next level, and at the last one do what `leaf` says."""
        self.depths.append(depth)
        if depth > 1:
            args = {"name": "down", "args": {"depth": depth - 1, "leaf": leaf}}
            return [depth, await self.pool.execute(self.how, args)]
        if leaf == "fail":
            raise ValueError("at the bottom")
        if leaf == "sleep":
            await trio.sleep_forever()
        return await self.pool.execute("time_left")

    def down_in_thread(self, depth: int) -> Any:
        """The same, in threads of the host."""
        if depth == 1:
            return depth
        args = {"name": "down_in_thread", "args": {"depth": depth - 1}}
        return [depth, trio.from_thread.run(self.pool.execute, self.how, args)]


@pytest.mark.parametrize("how", ["call", "call_async"])
@pytest.mark.parametrize(("workers", "concurrency"), [(6, 1), (1, 6)])
async def test_five_levels(how: str, workers: int, concurrency: int) -> None:
    async with snakepit.open_pool(CALLERS, workers=workers, concurrency=concurrency, host_threads=1) as pool:
        nested = Nested(pool, how)
        pool.expose(nested.down)
        pool.expose(nested.down_in_thread)
        found = await pool.execute(how, {"name": "down", "args": {"depth": 5}}, timeout=20)
        for depth in (5, 4, 3, 2):
            assert found[0] == depth
            found = found[1]
        assert 0 < found <= 20  # the innermost call has no more time than the outermost
        assert await pool.execute(how, {"name": "down_in_thread", "args": {"depth": 5}}) == [5, [4, [3, [2, 1]]]]

        with pytest.raises(snakepit.HostToolError, match="at the bottom"):
            await pool.execute(how, {"name": "down", "args": {"depth": 5, "leaf": "fail"}})

        nested.depths.clear()
        began = trio.current_time()
        with pytest.raises(snakepit.CallTimeout):
            await pool.execute(how, {"name": "down", "args": {"depth": 5, "leaf": "sleep"}}, timeout=3)
        assert nested.depths == [5, 4, 3, 2, 1]
        assert trio.current_time() - began < 40
        await _is_idle(pool)

        nested.depths.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.execute, how, {"name": "down", "args": {"depth": 5, "leaf": "sleep"}})
            while len(nested.depths) < 5:
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
        await _is_idle(pool)
        await pool.run(os.getpid)  # a worker that was killed would be replaced by now
        assert pool.get_stats().restarts == 0


async def _is_idle(pool: snakepit.Pool) -> None:
    stats = pool.get_stats()
    assert (stats.running, stats.queued) == (0, 0)


@pytest.mark.parametrize("ends", [True, False])
async def test_a_task_that_a_host_tool_hands_to_the_application_is_no_part_of_its_call(ends: bool) -> None:
    """Its calls wait for a worker like all others, have their own time, and end neither with the call nor by it."""
    found: list[Any] = []
    async with snakepit.open_pool(CALLERS, workers=1) as pool, trio.open_nursery() as application:

        async def later() -> None:
            found.append(await pool.execute("time_left", timeout=50))

        async def hand_over() -> None:
            application.start_soon(later)
            while not pool.get_stats().queued:
                await trio.sleep(0.01)
            await trio.sleep(0.3)  # so that a deadlock would have been found
            await trio.sleep(0 if ends else math.inf)

        pool.expose(hand_over)
        with trio.move_on_after(20) as caller:
            async with trio.open_nursery() as calls:
                calls.start_soon(pool.execute, "call_async", {"name": "hand_over", "args": {}})
                while not pool.get_stats().queued:
                    await trio.sleep(0.01)
                if not ends:
                    calls.cancel_scope.cancel()
        assert not caller.cancelled_caught
    assert [20 < each <= 50 for each in found] == [True]
    assert pool.get_stats().cancelled == (0 if ends else 1)


async def test_a_thread_of_a_host_tool_that_runs_trio_has_calls_of_its_own() -> None:
    """Its calls belong to another loop: the call of the host tool may neither wake them nor give them its time."""
    found: list[Any] = []

    async def inner(begun: threading.Event) -> None:
        async with snakepit.open_pool(CALLERS, workers=1) as pool:
            call = partial(pool.execute, "time_left", timeout=50)
            found.append(await call())
            begun.set()
            await trio.sleep(0.3)  # the call of the host tool is cancelled meanwhile
            found.append(await call())

    async with snakepit.open_pool(CALLERS, workers=1) as pool:
        begun = threading.Event()
        pool.expose(lambda: trio.run(inner, begun), name="another_run")
        async with trio.open_nursery() as calls:
            calls.start_soon(pool.execute, "call_async", {"name": "another_run", "args": {}})
            while not begun.is_set():
                await trio.sleep(0.01)
            calls.cancel_scope.cancel()
    assert [20 < each <= 50 for each in found] == [True, True]


async def test_a_thread_of_a_host_tools_own_stops_with_the_call() -> None:
    """The host tool waits for the thread, so calls that the thread waits for are part of its call."""
    stopped: list[str] = []
    async with snakepit.open_pool(CALLERS, workers=2) as pool:
        token = trio.lowlevel.current_trio_token()

        def wait() -> None:
            try:
                trio.from_thread.run(pool.execute, "call_async", {"name": "forever", "args": {}}, trio_token=token)
            except BaseException as error:
                stopped.append(type(error).__name__)

        def with_thread() -> None:
            thread = threading.Thread(target=contextvars.copy_context().run, args=(wait,))
            thread.start()
            thread.join()

        pool.expose(with_thread)
        pool.expose(trio.sleep_forever, name="forever")
        async with trio.open_nursery() as calls:
            calls.start_soon(pool.execute, "call_async", {"name": "with_thread", "args": {}})
            while pool.get_stats().running < 2:
                await trio.sleep(0.01)
            calls.cancel_scope.cancel()
        await _is_idle(pool)
    assert stopped == ["ToolCancelled"]


@pytest.mark.parametrize("how", ["call", "call_async"])
@pytest.mark.parametrize(("workers", "callers"), [(1, 1), (2, 2), (3, 8)])
async def test_a_deadlock_is_an_error(how: str, workers: int, callers: int) -> None:
    async with snakepit.open_pool(CALLERS, workers=workers) as pool:
        nested = Nested(pool, how)
        pool.expose(nested.down)
        failed = 0

        async def call() -> None:
            nonlocal failed
            with pytest.raises(snakepit.HostToolError, match="PoolDeadlock"):
                await pool.execute(how, {"name": "down", "args": {"depth": workers + 1}}, timeout=20)
            failed += 1

        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(callers):
                nursery.start_soon(call)
        assert failed == callers  # each needs one place more than there are
        assert trio.current_time() - began < 19
        assert await pool.execute("time_left") is not None


async def test_a_strict_session_that_waits_for_its_own_worker() -> None:
    async with (
        snakepit.open_pool(CALLERS, workers=2) as pool,
        pool.session(affinity="strict") as session,
    ):

        async def again() -> Any:
            return await session.execute("time_left")

        session.expose(again)
        with pytest.raises(snakepit.HostToolError, match="PoolDeadlock"):
            await session.execute("call", {"name": "again", "args": {}}, timeout=10)
        assert await session.execute("time_left") is not None


def _same(_number: int) -> snakepit.WorkerOptions:
    return snakepit.WorkerOptions()


@pytest.mark.parametrize(
    "settings", [{"per_worker": _same}, {"resources": {"gpu": 1}}], ids=["per_worker", "resources"]
)
@pytest.mark.parametrize("how", ["reload", "restart"])
async def test_a_call_for_a_worker_that_is_replaced_only_after_it(how: str, settings: dict[str, Any]) -> None:
    """The worker finishes its calls before it is replaced, and one of them waits for a call that needs a worker."""
    async with (
        snakepit.open_pool(CALLERS, workers=1, concurrency=2, **settings) as pool,
        trio.open_nursery() as nursery,
    ):

        async def replace() -> Any:
            nursery.start_soon(pool.reload if how == "reload" else lambda: pool.workers.restart("pool-1"))
            while pool.get_stats().ready:
                await trio.sleep(0.01)
            return await pool.execute("time_left", timeout=None)

        pool.expose(replace)
        with trio.fail_after(60):
            with pytest.raises(snakepit.HostToolError, match="its worker is being replaced, finishes its calls first"):
                await pool.execute("call_async", {"name": "replace", "args": {}}, timeout=None)
            assert await pool.execute("time_left") is not None
    assert pool.get_stats().recycled == 1


async def test_a_call_for_a_worker_whose_number_is_not_free_yet() -> None:
    """A worker that was taken out finishes its calls, and the one that `resize` adds waits for its number."""
    settings: dict[str, Any] = {"workers": 2, "per_worker": _same}
    async with snakepit.open_pool(CALLERS, **settings) as pool, trio.open_nursery() as nursery:
        both, begun = trio.Event(), 0

        async def resize() -> Any:
            nonlocal begun
            begun += 1
            if begun == 2:
                nursery.start_soon(pool.resize, 1)
                while pool.get_stats().ready > 1:
                    await trio.sleep(0.01)
                nursery.start_soon(pool.resize, 2)
                both.set()
            await both.wait()
            return await pool.execute("time_left", timeout=None)

        async def call() -> None:
            with contextlib.suppress(snakepit.HostToolError):
                await pool.execute("call_async", {"name": "resize", "args": {}}, timeout=None)

        pool.expose(resize)
        with trio.fail_after(60):
            async with trio.open_nursery() as calls:
                calls.start_soon(call)
                calls.start_soon(call)
            assert await pool.execute("time_left") is not None
            await pool.await_ready()
    assert pool.get_stats().workers == 0


@pytest.mark.parametrize("how", ["call", "call_async"])
@pytest.mark.parametrize(("workers", "concurrency"), [(1, 4), (4, 1)])
async def test_a_death_of_all_who_wait_for_each_other(how: str, workers: int, concurrency: int) -> None:
    async with snakepit.open_pool(CALLERS, workers=workers, concurrency=concurrency) as pool:
        nested = Nested(pool, how)
        pool.expose(nested.down)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_crashes, pool, how)
            while len(nested.depths) < 4:
                await trio.sleep(0.01)
            for worker in pool.list_workers():
                assert worker.pid
                os.kill(worker.pid, signal.SIGKILL)
        await _is_idle(pool)
        assert await pool.execute("time_left") is not None


async def _crashes(pool: snakepit.Pool, how: str) -> None:
    with pytest.raises(snakepit.WorkerCrashed):
        await pool.execute(how, {"name": "down", "args": {"depth": 4, "leaf": "sleep"}})


class Storm:
    """Calls of every kind, cancelled, timed out and killed at random."""

    def __init__(self, pool: snakepit.Pool, seed: int) -> None:
        self.pool = pool
        self.running = 0
        self.random = random.Random(seed)
        self.ended = 0
        for function in (self.host, self.endless):
            pool.expose(function)

    async def host(self, depth: int) -> int:
        """Wait a little, and go down to the next level."""
        self.running += 1
        try:
            await trio.sleep(self.random.random() * 0.01)
            args = {"name": "host", "args": {"depth": depth - 1}}
            return depth and await self.pool.execute(self.random.choice(["call", "call_async"]), args, timeout=5)
        finally:
            self.running -= 1

    async def endless(self) -> AsyncIterator[int]:
        """Count."""
        self.running += 1
        try:
            for number in itertools.count():
                await trio.lowlevel.checkpoint()
                yield number
        finally:
            self.running -= 1

    async def call(self) -> None:
        """One call of some kind, given up after some time."""
        with trio.move_on_after(self.random.choice([10, 10, 0.01, 0.05])):
            with contextlib.suppress(snakepit.WorkerCrashed, snakepit.HostToolError, snakepit.CallTimeout):
                await self._call(self.random.random())
        self.ended += 1

    async def _call(self, kind: float) -> None:
        if kind < 0.6:
            args = {"name": "host", "args": {"depth": self.random.randint(0, 2)}}
            await self.pool.execute("call", args, timeout=self.random.choice([5, 0.02]))
        elif kind < 0.8:
            await self.pool.execute("take", {"name": "endless", "number": self.random.randint(1, 60)})
        else:
            async with self.pool.stream("relay_async", {"name": "endless"}) as chunks:
                for _ in range(self.random.randint(0, 60)):
                    await anext(chunks)

    async def kill(self) -> None:
        """Kill workers, one after another."""
        while True:
            await trio.sleep(0.2)
            worker = self.random.choice(self.pool.list_workers())
            if worker.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGKILL)


@pytest.mark.parametrize(("seed", "concurrency"), [(1, 1), (2, 3)])
async def test_a_storm(seed: int, concurrency: int, untraced_workers: None) -> None:
    # It is not the calls that kill: they are not to be refused for it.
    config: dict[str, Any] = {"workers": 3, "concurrency": concurrency, "cancel_grace": 0.5, "taint_after": 1000}
    async with snakepit.open_pool(CALLERS, **config) as pool:
        storm = Storm(pool, seed)
        async with trio.open_nursery() as killing:
            killing.start_soon(storm.kill)
            async with trio.open_nursery() as calling:
                for _ in range(6):
                    calling.start_soon(_calls, storm, 25)
            killing.cancel_scope.cancel()
        assert storm.ended == 150
        assert storm.running == 0
        await _is_idle(pool)


async def _calls(storm: Storm, number: int) -> None:
    for _ in range(number):
        await storm.call()
