"""What functions cost: a `run` beside an `execute`, and a `map` beside that of ProcessPoolExecutor.

Both are ratios of CPU time, of host and workers together, in turns: so they hold on a busy machine, too.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor

import psutil

import snakepit_trio as snakepit

from .tools import Tools, nothing

_ITEMS = 100_000
_CHUNKS = (1, 10, 100)


async def measure(scale: float) -> dict[str, float]:
    """`run` of an empty function as a multiple of `execute`, and maps of 100,000 items, by the size of their chunks."""
    figures = {"run, x execute": await _run_beside_execute(int(20_000 * scale))}
    for size in _CHUNKS:
        figures[f"map by {size}, x faster"] = await _map_beside_executor(size, int(_ITEMS * scale))
    return figures


async def _run_beside_execute(calls: int) -> float:
    taken = {True: 0.0, False: 0.0}
    async with snakepit.open_pool(Tools, workers=1) as pool:
        pids = [worker.pid for worker in pool.list_workers() if worker.pid]
        await pool.run(nothing)  # the worker finds the function
        for number in range(40):
            runs = number % 4 in (0, 3)  # run, execute, execute, run
            began = _cpu(pids)
            for _ in range(calls // 20):
                await (pool.run(nothing, "") if runs else pool.execute("empty", {"payload": ""}))
            taken[runs] += _cpu(pids) - began
    return taken[True] / taken[False]


async def _map_beside_executor(size: int, items: int) -> float:
    """How many times as much CPU time the executor takes."""
    with ProcessPoolExecutor(2) as executor:
        list(executor.map(nothing, range(100)))  # starts its processes
        theirs = _spent(list(executor._processes), functools.partial(_exhaust, executor, size, items))
    async with snakepit.open_pool(Tools, workers=2) as pool:
        await _exhaust_ours(pool, 1, 100)
        pids = [worker.pid for worker in pool.list_workers() if worker.pid]
        began = _cpu(pids)
        await _exhaust_ours(pool, size, items)
        return theirs / (_cpu(pids) - began)


async def _exhaust_ours(pool: snakepit.Pool, size: int, items: int) -> None:
    async with pool.map(nothing, range(items), chunksize=size) as results:
        async for _ in results:
            pass


def _exhaust(executor: ProcessPoolExecutor, size: int, items: int) -> None:
    results: Iterable[None] = executor.map(nothing, range(items), chunksize=size)
    for _ in results:
        pass


def _spent(pids: list[int], work: Callable[[], object]) -> float:
    began = _cpu(pids)
    work()
    return _cpu(pids) - began


def _cpu(pids: list[int]) -> float:
    """The CPU time of these processes and of this one, in seconds."""
    return time.process_time() + sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)
