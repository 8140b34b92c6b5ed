"""The yardstick of `snakepit bench`: concurrent.futures.ProcessPoolExecutor, used from asyncio, as its users do."""

from __future__ import annotations

import asyncio
import functools
import multiprocessing
import os
import signal
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Final

from bridge_py.main import load_adapter
from bridge_py.tools.adapter import BaseAdapter

from .bench_figures import Sample

# Runs in each of its processes. They leave Ctrl-C to the program, and end with it, which they would not otherwise.
_PREPARE: Final = """
import multiprocessing, multiprocessing.connection, os, signal, threading
def watch(parent=multiprocessing.parent_process()):
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)
signal.signal(signal.SIGINT, signal.SIG_IGN)
threading.Thread(target=watch, daemon=True).start()
"""


def make_executor(workers: int) -> ProcessPoolExecutor:
    """Make an executor. Its processes start with its first calls; forking a program with threads would be unsafe."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=exec, initargs=(_PREPARE, {}))


def end(executor: ProcessPoolExecutor) -> None:
    """End an executor at once, whatever its processes do."""
    processes = list((executor._processes or {}).values())
    for process in processes:
        process.kill()
    executor.shutdown(wait=True, cancel_futures=True)


@functools.cache
def _adapter(target: str) -> BaseAdapter:
    adapter = load_adapter(target)
    adapter.setup()
    return adapter


def run_tool(target: str, tool: str, arguments: Mapping[str, Any]) -> Any:
    """Run a tool of an adapter, in a process of the executor."""
    return getattr(_adapter(target), tool)(**arguments)


def load(executor: ProcessPoolExecutor, call: tuple[Any, ...], callers: int, seconds: float) -> Sample:
    """Have callers make calls, each one after the other, for some seconds. Raises what the calls raise."""
    return asyncio.run(_load(executor, call, callers, seconds))


async def _load(executor: ProcessPoolExecutor, call: tuple[Any, ...], callers: int, seconds: float) -> Sample:
    loop = asyncio.get_running_loop()
    times: list[float] = []
    began = time.perf_counter()

    async def caller() -> None:
        before = began
        while before < began + seconds:
            await loop.run_in_executor(executor, *call)
            after = time.perf_counter()
            times.append(after - before)
            before = after

    await asyncio.gather(*(caller() for _ in range(callers)))
    return Sample(times, time.perf_counter() - began)


def recover() -> float:
    """Kill the process of an executor, and return the seconds until the next result.

    An executor that has lost a process is broken, so its user makes another one.
    """
    executor = make_executor(1)
    try:
        pid = executor.submit(os.getpid).result()
        began = time.perf_counter()
        os.kill(pid, signal.SIGKILL)
        while True:
            try:
                executor.submit(os.getpid).result()
                return time.perf_counter() - began
            except BrokenProcessPool:
                executor.shutdown()
                executor = make_executor(1)
    finally:
        end(executor)
