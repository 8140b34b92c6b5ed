"""Closing is bounded whatever raises, sleeps or does not end in it, and leaves nothing."""

from __future__ import annotations

import contextlib
import inspect
import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

import snakepit_trio as snakepit
from bridge_py import BaseAdapter, SessionContext, tool
from snakepit_trio._python.api import PythonAPI
from snakepit_trio._workers.supervisor import Supervisor
from snakepit_trio.testing import InMemory
from tests.helpers.stepping import at_step, tasks
from tests.helpers.workers import TOOLS

BOUND = 25  # seconds in which a machine with much else to do has long ended a pool


class Fault(Exception):
    """What is raised at some step."""


class Asking(BaseAdapter):
    """Has work for the host."""

    @tool
    def ask(self, ctx: SessionContext, name: str) -> Any:
        """Call a host tool."""
        return ctx.call_host_tool(name)

    @tool
    def add(self, a: int, b: int) -> int:
        """Add."""
        return a + b

    @tool
    def sleep(self) -> None:
        """Sleep."""
        time.sleep(60)


class Slow(Asking):
    """Does not want to end."""

    def close(self) -> None:
        """Take some time."""
        time.sleep(60)


def fault(*_: Any) -> None:
    """Raise it."""
    raise Fault("at this step")


def once(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
    """Have a method do what it does, and raise then, the first time it is called."""
    before = getattr(owner, name)
    left = [1]

    def broken(*args: Any) -> Any:
        found = before(*args)
        if left:
            left.pop()
            if inspect.iscoroutine(found):
                found.close()
            fault()
        return found

    monkeypatch.setattr(owner, name, broken)


@pytest.mark.parametrize(
    "step",
    ["dispatcher.close", "python.close", "supervisor.stop", "site.close", "shared_copies.close", "supervisor.hurry"],
)
@pytest.mark.parametrize("launcher", [None, InMemory()], ids=["processes", "memory"])
async def test_a_step_that_raises(step: str, launcher: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tasks()
    with trio.fail_after(BOUND), pytest.raises(Fault):
        async with snakepit.open_pool(TOOLS, launcher=launcher, workers=2) as pool:
            assert isinstance(pool.python, PythonAPI)
            owner, _, method = step.partition(".")
            once(monkeypatch, getattr(pool, f"_{owner}"), method)
    await trio.testing.wait_all_tasks_blocked()
    assert tasks() == before


async def test_a_step_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(_: Any) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(Supervisor, "stop", hang)
    with trio.fail_after(BOUND):
        async with snakepit.open_pool(TOOLS, shutdown_timeout=1):
            pass


class BrokenStore(snakepit.MemoryStore):
    """Its reaper fails."""

    async def run_reaper(self, interval: float) -> None:
        """Raise, after a moment."""
        await trio.sleep(interval)
        fault()


@pytest.mark.parametrize("launcher", [None, InMemory()], ids=["processes", "memory"])
async def test_a_service_that_raises_ends_the_block(launcher: Any) -> None:
    config: dict[str, Any] = {"store": BrokenStore(), "cleanup_interval": 0.1, "launcher": launcher, "workers": 1}
    with trio.fail_after(BOUND), pytest.raises(Fault):
        async with snakepit.open_pool(TOOLS, **config) as pool:
            try:
                await trio.sleep_forever()
            finally:
                # There is nobody left to run it, or to look at its deadline.
                with trio.CancelScope(shield=True), pytest.raises(snakepit.PoolClosed):
                    await pool.execute("add", {"a": 1, "b": 2})


async def test_calls_in_line_end_when_a_service_has_raised() -> None:
    failures: list[Exception] = []

    async def call(pool: snakepit.Pool) -> None:
        with trio.CancelScope(shield=True):
            try:
                await pool.execute("sleep", {"seconds": 60}, timeout=None)
            except snakepit.SnakepitError as error:
                failures.append(error)

    with trio.fail_after(BOUND), pytest.raises(Fault):
        opening = snakepit.open_pool(TOOLS, store=BrokenStore(), cleanup_interval=0.5, workers=1)
        async with opening as pool, trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(call, pool)
    assert len(failures) == 5


async def test_a_worker_that_does_not_want_to_end() -> None:
    with trio.fail_after(BOUND):
        async with snakepit.open_pool(Slow, shutdown_timeout=2, workers=2) as pool:
            assert await pool.execute("add", {"a": 1, "b": 2}) == 3
            began = trio.current_time()
    assert trio.current_time() - began < 10


async def test_threads_of_host_tools_are_abandoned() -> None:
    go = threading.Event()
    begun = threading.Event()

    def block() -> None:
        begun.set()
        go.wait(120)

    async def call(pool: snakepit.Pool) -> None:
        with pytest.raises(snakepit.PoolClosed):
            await pool.execute("ask", {"name": "block"}, timeout=None)

    try:
        with trio.fail_after(BOUND):
            opening = snakepit.open_pool(Slow, shutdown_timeout=2, workers=1)
            async with trio.open_nursery() as nursery, opening as pool:
                pool.expose(block)
                nursery.start_soon(call, pool)
                await trio.to_thread.run_sync(begun.wait)
        assert not go.is_set()
    finally:
        go.set()


async def test_calls_of_abandoned_threads_do_no_harm() -> None:
    go = threading.Event()
    begun = threading.Event()
    found: list[BaseException] = []
    over = threading.Event()

    async def call(pool: snakepit.Pool) -> None:
        with pytest.raises(snakepit.PoolClosed):
            await pool.execute("ask", {"name": "block"}, timeout=None)

    with trio.fail_after(BOUND):
        opening = snakepit.open_pool(Slow, shutdown_timeout=1, workers=1)
        async with trio.open_nursery() as nursery, opening as pool:

            def block() -> None:
                begun.set()
                go.wait(120)
                try:
                    trio.from_thread.run(pool.execute, "add", {"a": 1, "b": 2})
                except BaseException as error:
                    found.append(error)
                over.set()

            pool.expose(block)
            nursery.start_soon(call, pool)
            await trio.to_thread.run_sync(begun.wait)
        go.set()
        await trio.to_thread.run_sync(over.wait)
    assert isinstance(found[0], snakepit.PoolClosed)


async def test_a_call_of_a_thread_ends_with_the_call_that_it_is_made_for() -> None:
    stopped: list[BaseException] = []

    async with snakepit.open_pool(Asking, workers=2) as pool:

        def wait() -> None:
            try:
                trio.from_thread.run(partial(pool.execute, "sleep", timeout=None))
            except BaseException as error:
                stopped.append(error)
                raise

        pool.expose(wait)
        with trio.fail_after(BOUND):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(pool.execute, "ask", {"name": "wait"}, timeout=None))
                while pool.get_stats().running < 2:
                    await trio.sleep(0.01)
                nursery.cancel_scope.cancel()
        stats = pool.get_stats()
        assert (stats.running, stats.queued, stats.restarts) == (0, 0, 0)
    assert [type(error).__name__ for error in stopped] == ["ToolCancelled"]


async def steps_of_closing(at: int, what: str) -> int:
    """Do something at a step of closing a pool in memory; returns how many steps there were."""
    before, launcher = tasks(), InMemory()
    with trio.fail_after(BOUND), trio.CancelScope() as scope, contextlib.ExitStack() as counting:
        async with snakepit.open_pool(TOOLS, launcher=launcher, workers=2) as pool:
            assert await pool.execute("add", {"a": 1, "b": 2}) == 3
            actions: dict[str, Callable[[], None]] = {"cancel": scope.cancel, "hurry": pool._hurry}
            then = actions.get(what, partial(kill_all, launcher))
            steps = counting.enter_context(at_step(at, then))
    await trio.testing.wait_all_tasks_blocked()
    assert (tasks(), launcher.workers()) == (before, [])
    return steps.count


def kill_all(launcher: InMemory) -> None:
    """Kill all workers that live."""
    for worker in launcher.workers():
        launcher.kill(worker)


@pytest.mark.parametrize("what", ["cancel", "hurry", "kill"])
async def test_at_each_step_of_closing(what: str) -> None:
    steps = await steps_of_closing(-1, what)
    assert steps > 20
    for step in range(steps):
        await steps_of_closing(step, what)


async def test_a_handler_that_raises_costs_nothing() -> None:
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            fault()

    handler = Broken()
    logging.getLogger("snakepit").addHandler(handler)
    try:
        with trio.fail_after(BOUND):
            async with snakepit.open_pool(TOOLS, workers=1) as pool:
                assert await pool.execute("print_lines", {"n": 3}) == 3
                with pytest.raises(snakepit.WorkerCrashed):
                    await pool.execute("exit", {"code": 3})
                assert await pool.execute("add", {"a": 1, "b": 2}) == 3
    finally:
        logging.getLogger("snakepit").removeHandler(handler)
