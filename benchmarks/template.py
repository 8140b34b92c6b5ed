"""Workers with scikit-learn imported, forked from a template and not: their start, their replacement, their memory."""

from __future__ import annotations

import os
import signal
import statistics
import time
from pathlib import Path

import psutil
import trio

import snakepit_trio as snakepit

ADAPTER = "benchmarks.sklearn_tools:Learning"
_STARTS = 20
_PLAIN_STARTS = 3  # each takes seconds
_WORKERS = 8


async def measure(scale: float) -> dict[str, float]:
    """Milliseconds for one more worker and for a replacement, and MiB (PSS) of all processes of a pool of eight.

    On a busy machine the CPU time of a start tells more: that of the host, the template, the keeper and the worker.
    """
    forked, plain = await _times(True, int(_STARTS * scale)), await _times(False, _PLAIN_STARTS)
    memory = {template: await _memory(template) for template in (True, False)}
    return {
        "a forked start, ms": forked[0],
        "a start, ms": plain[0],
        "a forked start, CPU ms": forked[2],
        "replaced by a fork in, ms": forked[1],
        "replaced in, with scikit-learn, ms": plain[1],
        "MiB of 8 forked": memory[True],
        "MiB of 8": memory[False],
        "forked, x the memory": memory[True] / memory[False],
    }


async def _times(template: bool, number: int) -> tuple[float, float, float]:
    starts, replacements, cpu = [], [], []
    async with snakepit.open_pool(ADAPTER, workers=1, template=template, start_timeout=300) as pool:
        for _ in range(number):
            began, before = time.perf_counter(), _cpu_by_pid()
            (worker,) = await pool.workers.start()
            starts.append(time.perf_counter() - began)
            cpu.append(sum(ns - before.get(pid, 0) for pid, ns in _cpu_by_pid().items()))
            await pool.workers.stop(worker)
            replacements.append(await _replacement(pool))
    return statistics.median(starts) * 1e3, statistics.median(replacements) * 1e3, statistics.median(cpu) / 1e6


def _cpu_by_pid() -> dict[int, int]:
    """The CPU time of this process and of each process below it, in nanoseconds."""
    found = {}
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        tasks = Path(f"/proc/{process.pid}/task").glob("*/schedstat")
        found[process.pid] = sum(int(task.read_text().split()[0]) for task in tasks)
    return found


async def _replacement(pool: snakepit.Pool) -> float:
    await pool.execute("empty")
    (pid,) = [worker.pid for worker in pool.list_workers()]
    assert pid is not None
    began = time.perf_counter()
    os.kill(pid, signal.SIGKILL)
    with trio.fail_after(60):
        while _ready(pool) in ([], [pid]):  # noqa: ASYNC110 - what is measured begins outside of the pool
            await trio.sleep(0.001)
    return time.perf_counter() - began


def _ready(pool: snakepit.Pool) -> list[int | None]:
    return [worker.pid for worker in pool.list_workers() if worker.state == "ready"]


async def _memory(template: bool) -> float:
    async with snakepit.open_pool(ADAPTER, workers=_WORKERS, template=template, start_timeout=300) as pool:
        async with trio.open_nursery() as nursery:
            for _ in range(10 * _WORKERS):
                nursery.start_soon(pool.execute, "empty")
        children = psutil.Process().children(recursive=True)
        return sum(_pss(child.pid) for child in children) / 1024


def _pss(pid: int) -> int:
    """The proportional share of memory of a process, in KiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
