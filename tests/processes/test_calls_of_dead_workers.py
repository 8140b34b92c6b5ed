"""Every call of a dead worker is settled, whatever else fails. What the host lacks fails single calls, and heals."""

from __future__ import annotations

import contextlib
import errno
import inspect
import os
import re
import signal
from typing import Any

import numpy as np
import pytest
import trio
import trio.testing

import snakepit_trio as snakepit
from bridge_py.buffers.shared_memory import Segments
from snakepit_trio import testing
from snakepit_trio._calls.scheduler import Scheduler
from snakepit_trio._config.policies import TaintPolicy
from snakepit_trio._connections.link import LinkConnection
from snakepit_trio._requests.host_tool_runs import HostToolRuns
from snakepit_trio.launchers import _LocalSite
from tests.helpers.workers import TOOLS

BOUND = 40
ERRORS = [
    OSError(errno.EMFILE, "too many open files"),
    MemoryError(),
    RuntimeError("can't start new thread"),
]


def break_it(patch: pytest.MonkeyPatch, owner: Any, what: str, error: Exception, *, times: int = 1) -> None:
    """Have a method, or a property, raise an error so often, and do then what it did before."""
    owner = next(each for each in owner.__mro__ if what in vars(each))
    before = inspect.getattr_static(owner, what)
    left = [error] * times

    def broken(*args: Any, **kwargs: Any) -> Any:
        if left:
            raise left.pop()
        if isinstance(before, property):
            assert before.fget is not None
            return before.fget(*args)
        return before(*args, **kwargs)

    patch.setattr(owner, what, property(broken) if isinstance(before, property) else broken)


@pytest.fixture(params=ERRORS, ids=lambda error: type(error).__name__ + str(getattr(error, "errno", "")))
def error(request: pytest.FixtureRequest) -> Exception:
    """One of them."""
    found: Exception = request.param
    return found


async def crashed(pool: snakepit.Pool) -> None:
    """A call whose worker dies fails with `WorkerCrashed`, and the pool is whole again afterwards."""
    with pytest.raises(snakepit.WorkerCrashed):
        await pool.execute("exit", {"code": 3}, timeout=None)
    assert await pool.execute("add", {"a": 1, "b": 2}, timeout=None) == 3


@pytest.mark.parametrize("what", ["was_killed_for_memory", "signal_group", "last_started", "is_stopped"])
async def test_a_look_at_a_dead_process_that_fails(
    what: str, error: Exception, monkeypatch: pytest.MonkeyPatch, untraced_workers: None
) -> None:
    async with snakepit.open_pool(TOOLS, workers=1, ping_interval=0.05) as pool:
        with monkeypatch.context() as patch, trio.fail_after(BOUND):
            starter = next(iter(pool._supervisor.starters.values()))
            break_it(patch, type(starter.worker._process), what, error, times=3)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_keep_killing, pool)
                with pytest.raises(snakepit.WorkerCrashed):
                    await pool.execute("sleep", {"seconds": 60}, timeout=None)
                nursery.cancel_scope.cancel()
        with trio.fail_after(BOUND):
            await crashed(pool)


async def _keep_killing(pool: snakepit.Pool) -> None:
    # On a busy machine the first worker may die before it has started the call, which then goes to the next one.
    while True:
        await trio.sleep(0.2)
        if (pid := pool.list_workers()[0].pid) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("owner", "what"), [(TaintPolicy, "killed"), (HostToolRuns, "when_over"), (Scheduler, "requeue")]
)
async def test_a_callback_that_fails_while_a_worker_is_settled(
    owner: Any, what: str, monkeypatch: pytest.MonkeyPatch, untraced_workers: None
) -> None:
    async with snakepit.open_pool(TOOLS, workers=1) as pool:
        failures: list[BaseException] = []

        async def call(name: str, args: dict[str, Any]) -> None:
            try:
                await pool.execute(name, args, timeout=None)
            except snakepit.SnakepitError as error:
                failures.append(error)

        with trio.fail_after(BOUND):
            for _ in range(20):  # until calls are sent ahead
                await pool.execute("add", {"a": 1, "b": 2})
            with monkeypatch.context() as patch:
                break_it(patch, owner, what, ValueError("of the test"))
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(call, "exit", {"code": 3})
                    for _ in range(5):
                        nursery.start_soon(call, "add", {"a": 1, "b": 2})
            assert failures
            assert await pool.execute("add", {"a": 1, "b": 2}, timeout=None) == 3


async def test_handlers_of_events_that_fail(untraced_workers: None) -> None:
    async with snakepit.open_pool(TOOLS, workers=1) as pool:

        def fail(event: snakepit.Event) -> None:
            detach()
            raise ValueError(event.name)

        detach = pool.events.attach("*", fail)
        seen: list[snakepit.Event] = []
        pool.events.attach("worker.*", seen.append)
        with trio.fail_after(BOUND):
            pid = pool.list_workers()[0].pid
            await crashed(pool)
        ended = next(event for event in seen if event.name == "worker.ended")
        assert ended.metadata == {"worker": "pool-1", "pid": pid, "exit_code": 3, "in_order": False}
        seen.clear()
    assert [(event.name, event.metadata["exit_code"], event.metadata["in_order"]) for event in seen] == [
        ("worker.ended", 0, True)
    ]


async def test_a_worker_that_cannot_be_started_is_tried_again(
    error: Exception, monkeypatch: pytest.MonkeyPatch, untraced_workers: None
) -> None:
    before = _LocalSite.launch
    left = [error] * 3

    async def launch(site: Any, worker_id: str, number: int) -> Any:
        if left:
            raise left.pop()
        return await before(site, worker_id, number)

    async with snakepit.open_pool(TOOLS, workers=1) as pool:
        monkeypatch.setattr(_LocalSite, "launch", launch)
        with trio.fail_after(BOUND):
            await crashed(pool)
        assert left == []
        with pytest.raises(snakepit.WorkerStartError, match=re.escape(str(error)) or "MemoryError"):
            left.append(error)
            await pool.workers.start(1)
        assert await pool.execute("add", {"a": 1, "b": 2}) == 3


@pytest.mark.parametrize("step", ["connect", "outputs"])
async def test_a_start_that_fails_after_its_process_lives(
    step: str, error: Exception, monkeypatch: pytest.MonkeyPatch, untraced_workers: None
) -> None:
    async with snakepit.open_pool(TOOLS, workers=1) as pool:
        with monkeypatch.context() as patch, trio.fail_after(BOUND):
            process = next(iter(pool._supervisor.starters.values())).worker._process
            break_it(patch, type(process), step, error)
            with pytest.raises(snakepit.SnakepitError):
                await pool.workers.start(1)
        with trio.fail_after(BOUND):
            await crashed(pool)


async def test_a_call_that_cannot_be_sent_fails_alone(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    async with snakepit.open_pool(TOOLS, workers=1, launcher=testing.InMemory()) as pool:
        with trio.fail_after(BOUND):
            with monkeypatch.context() as patch:
                break_it(patch, LinkConnection, "open", error)
                with pytest.raises(snakepit.OutOfResources) as caught:
                    await pool.execute("add", {"a": 1, "b": 2})
                assert caught.value.__cause__ is error
            for _ in range(3):
                assert await pool.execute("add", {"a": 1, "b": 2}) == 3
            stats = pool.get_stats()
            assert (stats.running, stats.queued, stats.restarts) == (0, 0, 0)


async def test_thousands_in_line_that_cannot_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = 0

    async def call(pool: snakepit.Pool) -> None:
        nonlocal failed
        with pytest.raises(snakepit.OutOfResources):
            await pool.execute("add", {"a": 1, "b": 2})
        failed += 1

    async with (
        snakepit.open_pool(TOOLS, workers=1, launcher=testing.InMemory()) as pool,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(pool.execute, "sleep_async", {"seconds": 0.5})
        await trio.testing.wait_all_tasks_blocked()
        break_it(monkeypatch, LinkConnection, "open", MemoryError(), times=3000)
        for _ in range(3000):
            nursery.start_soon(call, pool)
    assert failed == 3000


class Broken(Segments):
    """No memory can be had."""

    def get(self, size: int) -> Any:
        """Raise."""
        raise MemoryError


@pytest.mark.parametrize("size", [200_000, 5_000_000])
async def test_a_copy_that_fails_costs_its_call_alone(
    size: int, monkeypatch: pytest.MonkeyPatch, untraced_workers: None
) -> None:
    data = np.zeros(size, np.uint8)
    async with snakepit.open_pool("tests.helpers.value_tools:ValueTools", workers=1) as pool:
        with trio.fail_after(BOUND):
            segments = pool._shared_copies._segments
            monkeypatch.setattr(pool._shared_copies, "_segments", Broken())
            for _ in range(5):  # more than there are places
                with pytest.raises(snakepit.OutOfResources):
                    await pool.execute("echo", {"value": data})
            monkeypatch.setattr(pool._shared_copies, "_segments", segments)
            for _ in range(5):
                assert len(await pool.execute("echo", {"value": data})) == size


async def test_forty_threads_that_wait_for_the_pool(untraced_workers: None) -> None:
    data = np.zeros(5_000_000, np.uint8)
    done: list[int] = []

    async with snakepit.open_pool("tests.helpers.value_tools:ValueTools", workers=1) as pool:

        async def call() -> None:
            done.append(len(await pool.execute("echo", {"value": data}, timeout=None)))

        def wait() -> None:
            trio.from_thread.run(call)

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for _ in range(int(trio.to_thread.current_default_thread_limiter().total_tokens)):
                    nursery.start_soon(trio.to_thread.run_sync, wait)
    assert done == [len(data)] * len(done)
    assert done
