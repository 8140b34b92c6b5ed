"""Rules of launchers: what happens to calls when their worker dies, and what is reported of its death."""

from __future__ import annotations

import contextlib
import os
import signal
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import trio

from snakepit_trio._processes.proc import ProcessStat, stat_of
from snakepit_trio.errors import WorkerCrashed, WorkerStartError

from .check import Rules, equal, raises, that
from .launchers import Launchers, Running, Watched, WatchedProcess
from .tools import CannotStart, NeverReady

rules: Rules[Launchers] = Rules()
_Seen = tuple[int, ProcessStat | None]  # a pid, and what it named when it was seen

_SUM: Final = {"a": 2, "b": 3}
_CALLS: Final = 20
_FATAL: Final = 10
_GONE: Final = 2.0  # seconds after which a killed process must be gone
_LONGEST_LOOK: Final = 5.0  # seconds until the host knows what a worker has started
_LOOK_AGAIN: Final = 0.01


@rules
async def a_killed_worker_is_reported_and_replaced(given: Launchers) -> None:
    """The running call of a killed worker raises `WorkerCrashed` with the signal. A new worker serves other calls."""
    async with given.pool() as (pool, watched):
        crashed = await _killed(pool, watched.processes[0], signal.SIGKILL)
        equal(crashed.exit_code, -9, "exit_code of the WorkerCrashed")
        equal(crashed.signal, signal.SIGKILL, "signal of the WorkerCrashed")
        equal(await pool.execute("add", _SUM), 5, "add, in the next worker")
        equal((len(watched.processes), pool.get_stats().restarts), (2, 1), "processes launched, restarts")


@rules
async def a_worker_that_ends_itself_is_reported(given: Launchers) -> None:
    """If a worker ends itself, `WorkerCrashed` has its exit code and the last lines of its stderr."""
    async with given.pool() as (pool, watched):
        given.needs_processes(watched, "what a tool does to its process it does to this one")
        with raises(WorkerCrashed, "a tool that ends its process") as crashed:
            await pool.execute("exit", {"code": 7})
        equal(crashed.error.exit_code, 7, "exit_code of the WorkerCrashed")
        equal(crashed.error.stderr_tail, ("these are its last words",), "stderr_tail of the WorkerCrashed")
        with raises(WorkerCrashed, "a tool that sends its process SIGSEGV") as crashed:
            await pool.execute("signal_self", {"number": int(signal.SIGSEGV)})
        equal(crashed.error.signal, signal.SIGSEGV, "signal of the WorkerCrashed")
        equal(await pool.execute("add", _SUM), 5, "add, in the next worker")


@rules
async def last_started_is_the_last_call_that_has_started(given: Launchers) -> None:
    """`last_started` is 0 before any call, then the id of the running call, even after the worker's death."""
    async with given.pool(send_ahead=0) as (pool, watched), trio.open_nursery() as nursery:
        process = watched.processes[0]
        equal(process.last_started, 0, "last_started before any call")
        await pool.execute("add", _SUM)
        running = Running(pool, "wait")
        nursery.start_soon(running)
        await running.begun.until_all()
        (call_id,) = process.call_ids()
        with trio.move_on_after(_LONGEST_LOOK):  # a host sees another machine with a delay
            while process.last_started != call_id:  # noqa: ASYNC110 - nothing reports it
                await trio.sleep(_LOOK_AGAIN)
        equal(process.last_started, call_id, "last_started while a call runs")
        process.signal_group(signal.SIGKILL)
        await running.over("its worker got SIGKILL")
        equal(process.last_started, call_id, "last_started after the worker's death")


@rules
async def no_call_runs_twice_and_none_is_lost(given: Launchers) -> None:
    """When a worker dies, calls that it had not started run elsewhere. Calls that it had started are not run again."""
    async with given.pool() as (pool, watched):
        fatal, outcomes, marks = await _run_past_a_death(pool, watched)
        failed = [number for number, error in outcomes.items() if error is not None]
        twice = sorted(number for number, times in marks.items() if times > 1)
        that(
            not twice,
            f"expected that no call runs twice, but calls {twice} did: last_started was below their ids",
        )
        that(
            all(isinstance(outcomes[number], WorkerCrashed) for number in failed) and fatal in failed,
            f"expected WorkerCrashed for call {fatal}, in which its worker was killed, but {outcomes} came",
        )
        never = sorted(number for number in failed if not marks[number])
        that(
            not never,
            f"expected that calls which had not started run elsewhere, but {never} failed: last_started was above them",
        )
        equal(len(watched.processes), 2, "processes that were launched")


@rules
async def a_worker_that_cannot_start_says_why(given: Launchers) -> None:
    """If a worker cannot start, opening the pool raises `WorkerStartError` at once, with exit code and stderr."""
    async with given.watched() as watched:
        with raises(WorkerStartError, "a pool whose adapter raises in `setup`") as failed:
            async with given.pool_of(watched, CannotStart):
                pass
        tail = "\n".join(failed.error.stderr_tail)
        that("the device of the contract" in tail, f"expected the adapter's error in stderr_tail, but {tail!r} came")
        equal(failed.error.exit_code, 1, "exit_code of the WorkerStartError")
        watched.check_nothing_is_left()


@rules
async def a_worker_that_is_never_ready_is_killed(given: Launchers) -> None:
    """A worker that is not ready after `start_timeout` is killed. Opening the pool raises `WorkerStartError`."""
    async with given.watched() as watched:
        async with given.pool_of(watched):
            given.needs_processes(watched, "an adapter that sleeps in `setup` holds up all")
        with raises(WorkerStartError, "a pool whose adapter sleeps in `setup`", "was not ready within"):
            async with given.pool_of(watched, NeverReady, start_timeout=0.5):
                pass
        watched.check_nothing_is_left()


@rules
async def a_worker_that_was_stopped_is_replaced(given: Launchers) -> None:
    """A worker that a signal has stopped answers no pings: it is killed and replaced."""
    pings: dict[str, Any] = {"ping_interval": 0.1, "ping_timeout": 0.1, "missed_pings": 2}
    async with given.pool(**pings) as (pool, watched):
        given.needs_this_machine(watched, "signals that stop processes")
        await _killed(pool, watched.processes[0], signal.SIGSTOP)
        equal(await pool.execute("add", _SUM), 5, "add, in the next worker")


@rules
async def what_a_worker_started_dies_with_it(given: Launchers) -> None:
    """Killing a worker kills its process group. The end of the pool kills it too."""
    async with given.watched() as watched:
        with _ended_at_last() as started:
            async with given.pool_of(watched) as pool:
                given.needs_this_machine(watched, "processes that tools start")
                started.append(_seen(await pool.execute("spawn")))
                await _killed(pool, watched.processes[0], signal.SIGKILL)
                started.append(_seen(await pool.execute("spawn")))
                await _is_gone(started[0], "a process that a killed worker had started")
            await _is_gone(started[1], "a process that a worker had started, after the pool")


@rules
async def output_never_stops_a_worker(given: Launchers) -> None:
    """Output on stdout and stderr is read while the tool runs, even if it is more than pipes hold."""
    async with given.pool() as (pool, watched):
        given.needs_processes(watched, "what tools print is this process's own output")
        equal(await pool.execute("chatter", {"characters": 1_000_000}), 1_000_000, "a tool that writes much")


@rules
async def the_environment_is_what_the_pool_says(given: Launchers) -> None:
    """Workers have the `env` and the `cwd` of the pool."""
    async with given.pool(env={"OF_THE_CONTRACT": "it is set"}, cwd="/") as (pool, watched):
        given.needs_processes(watched, "their environment is this process's own")
        came = await pool.execute("surroundings", {"name": "OF_THE_CONTRACT"})
        equal(list(came), ["it is set", "/"], "env and cwd in a worker")


# Helpers.


async def _killed(pool: Any, process: WatchedProcess, number: signal.Signals) -> WorkerCrashed:
    """The error of a call that runs while its worker gets a signal."""
    async with trio.open_nursery() as nursery:
        running = Running(pool, "wait")
        nursery.start_soon(running)
        await running.begun.until_all()
        process.signal_group(number)
        await running.over(f"its worker got {number.name}")
    if not isinstance(running.error, WorkerCrashed):
        raise AssertionError(
            f"a call whose worker gets {number.name}: expected WorkerCrashed, but "
            f"{running.error or running.outcome!r} came"
        )
    return running.error


async def _run_past_a_death(pool: Any, watched: Watched) -> tuple[int, dict[int, Exception | None], Counter[int]]:
    """Make many calls of one worker, which dies in the middle of one of them.

    Returns the number of that call, the error of each call, and how often each call has started.
    """
    fatal: list[int] = []
    marks: Counter[int] = Counter()
    outcomes: dict[int, Exception | None] = {}

    async def mark(number: int) -> None:
        marks[number] += 1
        if len(marks) == _FATAL and not fatal:
            fatal.append(number)
            watched.processes[-1].signal_group(signal.SIGKILL)
            await trio.sleep_forever()

    async def call(number: int) -> None:
        try:
            await pool.execute("mark", {"number": number}, timeout=None)
        except Exception as error:
            outcomes[number] = error
        else:
            outcomes[number] = None

    pool.expose(mark)
    for _ in range(_CALLS):  # the pool sends calls ahead to a worker that it knows to be quick
        await pool.execute("add", _SUM)
    async with trio.open_nursery() as nursery:
        for number in range(_CALLS):
            nursery.start_soon(call, number)
    return fatal[0], outcomes, marks


@contextlib.contextmanager
def _ended_at_last() -> Iterator[list[_Seen]]:
    """A list for processes. They are killed at the end of the block, in case the launcher has left them."""
    started: list[_Seen] = []
    try:
        yield started
    finally:
        for process in started:
            if _lives(process):
                os.kill(process[0], signal.SIGKILL)


def _seen(pid: int) -> _Seen:
    return pid, stat_of(pid)


def _lives(process: _Seen) -> bool:
    """Whether a process still runs. Another one may have its pid by now."""
    pid, then = process
    now = stat_of(pid)
    return now is not None and then is not None and now.started == then.started and now.state != "Z"


async def _is_gone(process: _Seen, what: str) -> None:
    with trio.move_on_after(_GONE):
        while _lives(process):  # noqa: ASYNC110 - it is no child of ours, so nothing tells of its end
            await trio.sleep(0.01)
        return
    raise AssertionError(f"expected that {what} is gone, but pid {process[0]} runs")
