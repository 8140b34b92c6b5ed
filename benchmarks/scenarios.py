"""What must hold when the worst happens, each as a function that does it to real processes and returns what it saw.

`make chaos` prints them, the tests check them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import attrs
import psutil
import trio

import snakepit_trio as snakepit
from snakepit_trio._processes import registry

ROOT = Path(__file__).parent.parent
TOOLS = "tests.helpers.tools:Tools"


class Host:
    """A host process with a pool: two workers that hold the GIL in C code, each with two children."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "benchmarks.a_host", str(folder / f"log-{time.monotonic_ns()}")]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.guardian, *pids = (int(word) for word in self.process.stdout.readline().split())
        self.keepers, self.pids = pids[:2], pids[2:]

    def kill(self) -> None:
        """Kill the host, and only that."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def kill_with_helpers(self) -> None:
        """Kill the guardian and the keepers, and the host at the same moment. The workers end with their keepers."""
        for pid in (self.process.pid, self.guardian, *self.keepers):
            os.kill(pid, signal.SIGSTOP)  # so that nobody does anything about the others' ends
        for pid in (self.guardian, *self.keepers):
            os.kill(pid, signal.SIGKILL)
        self.kill()


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def seconds_until(condition: Callable[[], bool], limit: float = 60) -> float:
    """How long it takes until something is so. Raises `trio.TooSlowError`."""
    began = trio.current_time()
    with trio.fail_after(limit):
        while not condition():
            await trio.sleep(0.005)
    return trio.current_time() - began


async def kill_a_busy_host(folder: Path) -> tuple[int, float]:
    """SIGKILL to a host whose workers hold the GIL. Returns its processes, and the seconds until none of them lived."""
    host = await trio.to_thread.run_sync(Host, folder)
    assert len(host.pids) == 6
    assert all(map(is_alive, host.pids))
    host.kill()
    seconds = await seconds_until(lambda: not any(map(is_alive, host.pids)))
    await seconds_until(lambda: not registry.runs() and not is_alive(host.guardian))
    return len(host.pids), seconds


@attrs.frozen
class Sweep:
    """What a sweep had to do: processes and runs before, and the seconds until none was left."""

    processes: int
    runs: int
    seconds: float


async def sweep_ten_dead_hosts(folder: Path) -> Sweep:
    """Kill ten hosts with their guardians and keepers, open a pool, and watch a living one beside it."""
    async with snakepit.open_pool(TOOLS, workers=2) as living:
        before = [worker.pid for worker in living.list_workers()]
        # All are started first, because each start sweeps what was left before.
        hosts = [await trio.to_thread.run_sync(Host, folder) for _ in range(10)]
        for host in hosts:
            host.kill_with_helpers()
        pids = [pid for host in hosts for pid in host.pids[2:]]
        assert all(map(is_alive, pids))
        dead = [run for run in registry.runs() if not run.is_alive]
        async with snakepit.open_pool(TOOLS, workers=1):
            seconds = await seconds_until(lambda: not any(map(is_alive, pids)) and len(registry.runs()) == 2)
        assert [worker.pid for worker in living.list_workers()] == before
        assert await living.execute("pid") in before
        return Sweep(len(pids), len(dead), seconds)


@attrs.frozen
class Rates:
    """Calls served in two seconds: without trouble, and in each two seconds with it; `deaths` of workers."""

    normal: float
    troubled: list[float]
    deaths: int


async def serve_beside_a_killing_tool() -> Rates:
    """Serve sixteen callers, alone and beside one that calls a tool which kills its worker each time."""
    async with snakepit.open_pool(TOOLS, workers=2) as pool:
        normal = await _served_in(pool, 2.0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_kill_again_and_again, pool)
            troubled = [await _served_in(pool, 2.0, deaths=1) for _ in range(3)]
            nursery.cancel_scope.cancel()
        return Rates(normal, troubled, pool.get_stats().crashed)


async def _served_in(pool: snakepit.Pool, seconds: float, deaths: int = 0) -> float:
    """Calls served in this time, on average over one that goes on until so many workers have died."""
    served, began, crashed = 0, trio.current_time(), pool.get_stats().crashed

    async def caller() -> None:
        nonlocal served
        while True:
            assert await pool.execute("add", {"a": 1}, retries=10) == 2
            served += 1

    async with trio.open_nursery() as nursery:
        for _ in range(16):
            nursery.start_soon(caller)
        await trio.sleep(seconds)
        while pool.get_stats().crashed < crashed + deaths:
            await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
    return served * seconds / (trio.current_time() - began)


async def _kill_again_and_again(pool: snakepit.Pool) -> None:
    while True:
        try:
            await pool.execute("exit", {"code": 1})
        except snakepit.WorkerCrashed:
            continue
        except snakepit.Tainted:
            await trio.sleep(0.01)


async def cancel_a_hundred(folder: Path, grace: float) -> tuple[float, int]:
    """Cancel a hundred calls at once: Python loops, `time.sleep`, C code and subprocess waits.

    Returns the seconds until all callers got on, and how many of the calls ran on after that.
    """
    logs = [folder / f"log-{number}" for number in range(100)]
    async with snakepit.open_pool(TOOLS, workers=4, concurrency=25, cancel_grace=grace) as pool:
        async with trio.open_nursery() as nursery:
            for number, log in enumerate(logs):
                args = {"how": ("loop", "sleep", "C", "process")[number % 4], "path": str(log)}
                nursery.start_soon(partial(pool.execute, "run_in_some_way", args, timeout=300))
            await seconds_until(lambda: all(log.exists() for log in logs), 60)
            began = trio.current_time()
            nursery.cancel_scope.cancel()
        seconds = trio.current_time() - began
        sizes = [log.stat().st_size for log in logs]
        await trio.sleep(0.3)
        ran_on = sum(
            log.stat().st_size != size or "end" in log.read_text() for log, size in zip(logs, sizes, strict=True)
        )
        assert await pool.execute("add", {"a": 1}) == 2
    return seconds, ran_on
