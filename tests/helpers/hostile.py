"""Pools of hostile workers, and how many turns the host's loop gives to others meanwhile."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

import snakepit_trio as snakepit

ROOT = Path(__file__).parents[2]
_NAP = 0.001  # seconds
_IS_SLOW = "coverage" in sys.modules and sys.modules["coverage"].Coverage.current() is not None
#: How long a loop may stand still under an attack, by itself, in seconds. Measuring the coverage takes its time.
LONGEST = 0.4 if _IS_SLOW else 0.05


@attrs.frozen
class HelperAdapter(snakepit.Adapter):
    """Runs a script of tests/helpers as a worker."""

    script: str
    args: list[str]

    def executable_path(self, python: str) -> str:
        return python

    def script_path(self) -> str:
        return str(ROOT / "tests" / "helpers" / self.script)

    def script_args(self) -> list[str]:
        return self.args


def open_helper(script: str, *args: str, **options: Any) -> AbstractAsyncContextManager[snakepit.Pool]:
    """Open a pool of workers that run a script of tests/helpers; one worker, unless `workers` says more."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    options = {"workers": 1, "shutdown_timeout": 1} | options
    return snakepit.open_pool(HelperAdapter(script, list(args)), env={"PYTHONPATH": path}, **options)


def open_hostile(how: str, **options: Any) -> AbstractAsyncContextManager[snakepit.Pool]:
    """Open a pool of one worker that attacks as `how` says."""
    return open_helper("hostile_worker.py", "--how", how, **{"taint_after": 1000, "lane": True} | options)


def open_forged(**options: Any) -> AbstractAsyncContextManager[snakepit.Pool]:
    """Open a pool of workers that lend, and send, what they should not."""
    return open_helper("forged_worker.py", **options)


class Turns:
    """Counts the turns that the loop gives to another task, and the longest times between two of them, in seconds.

    `longest` is by the clock. `own` leaves out how long other programs had the processor while the loop was ready to
    run, so a busy machine does not change it. `cpu` is the CPU time of the loop's thread.
    """

    count = 0
    longest = 0.0
    own = 0.0
    cpu = 0.0

    def tell(self, what: str) -> None:
        """Print how long the loop stood still, for `pytest -s`."""
        print(
            f"{what}: the loop stood still for {self.own * 1000:.0f} ms ({self.longest * 1000:.0f} ms by the clock, "
            f"{self.cpu * 1000:.0f} ms of CPU time), in {self.count} turns"
        )


@contextmanager
def run_delay() -> Iterator[Callable[[], float]]:
    """Yields a function that tells how long, in seconds, this thread has waited for a processor so far.

    It tells 0 where the kernel does not say it.
    """
    try:
        descriptor = os.open(f"/proc/self/task/{threading.get_native_id()}/schedstat", os.O_RDONLY)
    except FileNotFoundError:
        yield lambda: 0.0
        return
    try:
        yield lambda: int(os.pread(descriptor, 100, 0).split()[1]) / 1e9
    finally:
        os.close(descriptor)


@asynccontextmanager
async def counted_turns() -> AsyncIterator[Turns]:
    """Count the turns of a task beside the block."""
    turns = Turns()

    async def turn() -> None:
        with run_delay() as delayed:
            at, delay, cpu = time.monotonic(), delayed(), time.thread_time()
            while True:
                await trio.sleep(_NAP)
                now, delay_now, cpu_now = time.monotonic(), delayed(), time.thread_time()
                turns.count += 1
                turns.longest = max(turns.longest, now - at - _NAP)
                turns.own = max(turns.own, now - at - _NAP - (delay_now - delay))
                turns.cpu = max(turns.cpu, cpu_now - cpu)
                at, delay, cpu = now, delay_now, cpu_now

    gc.collect()
    gc.freeze()  # looking through the objects of pytest would take tens of milliseconds
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(turn)
            yield turns
            nursery.cancel_scope.cancel()
    finally:
        gc.unfreeze()
