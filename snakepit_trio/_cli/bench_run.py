"""A run of `snakepit bench`: rounds in which a pool and its peer take turns."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any, Final, TypeVar

import attrs
import trio

import snakepit_trio as snakepit
from bridge_py.tools.adapter import unknown_tool
from snakepit_trio._config.settings_file import SHOWCASE
from snakepit_trio._serving.schemas import tool_schemas

from . import bench_peer as peer
from .arguments import Given, make_arguments
from .bench_figures import PEER, Results, Sample
from .terminal import Terminal

_WARM_UP: Final = 0.2  # of the seconds of a figure
_TEXT: Final = "x" * 100
_SIZES: Final[Mapping[str, int]] = {"64 KiB": 1 << 16, "1 MiB": 1 << 20, "16 MiB": 1 << 24}
Call = Callable[[], Awaitable[object]]
T = TypeVar("T")


@attrs.frozen(kw_only=True)
class Plan:
    """What to measure. Without a tool, the machine is measured, with tools of the showcase.

    `seconds` is the time of each figure in each round. `tell` is told of each round that begins.
    """

    adapter: str | None
    tool: str | None
    given: Sequence[Given]
    workers: int
    callers: int
    seconds: float
    rounds: int
    tell: Callable[[str], None]


async def measure(plan: Plan, results: Results) -> None:
    """Measure, and note each value as soon as it is there. When this ends, in whatever way, no process is left.

    Raises what `open_pool` and the tool raise. If the peer cannot run the tool, it has no figures, and a note says why.
    """
    target = plan.adapter or SHOWCASE
    executor = peer.make_executor(plan.workers)
    try:
        with Terminal().hears_workers():
            await _measure(plan, results, target, executor)
        results.is_complete = True
    finally:
        peer.end(executor)


async def _measure(plan: Plan, results: Results, target: str, executor: ProcessPoolExecutor) -> None:
    async with snakepit.open_pool(target, workers=plan.workers, name="bench") as pool:
        if plan.tool is None:
            await _measure_machine(plan, results, pool, executor)
        else:
            await _measure_tool(plan, results, pool, executor, target)


async def _measure_tool(
    plan: Plan, results: Results, pool: snakepit.Pool, executor: ProcessPoolExecutor, target: str
) -> None:
    assert plan.tool is not None
    schemas = await tool_schemas(pool)
    if plan.tool not in schemas:
        raise unknown_tool(plan.tool, schemas)
    arguments = make_arguments(schemas[plan.tool], plan.given)
    ours = partial(_consume if schemas[plan.tool].streaming else _execute, pool, plan.tool, arguments)
    theirs = (peer.run_tool, target, plan.tool, arguments)
    await _check_of_both(results, ours, executor, theirs)
    has_peer = not results.notes
    for number in range(plan.rounds):
        plan.tell(f"round {number + 1} of {plan.rounds}")
        await _pair(plan, results, ours, executor, theirs if has_peer else None, is_odd=bool(number % 2))


async def _check_of_both(results: Results, ours: Call, executor: ProcessPoolExecutor, theirs: tuple[Any, ...]) -> None:
    await ours()
    try:
        await _in_thread(partial(_result, executor, theirs))
    except Exception as error:  # a tool that takes a context, or is a stream or a coroutine
        results.notes.append(f"{PEER} cannot run this tool: {type(error).__name__}: {error}")


def _result(executor: ProcessPoolExecutor, call: tuple[Any, ...]) -> object:
    return executor.submit(*call).result()


async def _measure_machine(plan: Plan, results: Results, pool: snakepit.Pool, executor: ProcessPoolExecutor) -> None:
    async with snakepit.open_pool(SHOWCASE, workers=1, name="bench-killed") as mortal:
        for number in range(plan.rounds):
            is_odd = bool(number % 2)
            plan.tell(f"round {number + 1} of {plan.rounds}")
            arguments = {"text": _TEXT}
            ours = partial(_execute, pool, "echo", arguments)
            theirs = (peer.run_tool, SHOWCASE, "echo", arguments)
            await _pair(plan, results, ours, executor, theirs, is_odd=is_odd)
            for name, size in _SIZES.items():
                value = {"array": _array(size)}
                call = partial(_execute, pool, "echo", value)
                other = (peer.run_tool, SHOWCASE, "echo", value)
                await _pair_of_arrays(plan, results, name, call, executor, other, is_odd=is_odd)
            results.add("a stream", "chunks/s", await _stream(pool, plan.seconds))
            results.add("killed worker to next result", "ms", 1e3 * await _recover(mortal))
            theirs_took = await _in_thread(peer.recover)
            results.add("killed worker to next result", "ms", 1e3 * theirs_took, is_peer=True)


def _array(size: int) -> Any:
    try:
        import numpy as np
    except ImportError:
        return bytes(size)
    return np.zeros(size // 8)


async def _pair(
    plan: Plan,
    results: Results,
    ours: Call,
    executor: ProcessPoolExecutor,
    theirs: tuple[Any, ...] | None,
    *,
    is_odd: bool,
) -> None:
    """One caller, then many, on both sides. The side that begins changes from round to round."""
    for name, callers in (("one caller", 1), (f"{plan.callers} callers", plan.callers)):
        for is_peer in (is_odd, not is_odd):
            if not is_peer:
                results.add_sample(name, await _load(ours, callers, plan.seconds))
            elif theirs is not None:
                sample = await _load_peer(executor, theirs, callers, plan.seconds)
                results.add_sample(name, sample, is_peer=True)


async def _pair_of_arrays(
    plan: Plan,
    results: Results,
    name: str,
    ours: Call,
    executor: ProcessPoolExecutor,
    theirs: tuple[Any, ...],
    *,
    is_odd: bool,
) -> None:
    for is_peer in (is_odd, not is_odd):
        if is_peer:
            sample = await _load_peer(executor, theirs, 1, plan.seconds / 2)
        else:
            sample = await _load(ours, 1, plan.seconds / 2)
        results.add(f"an array of {name} and back, p50", "ms", sample.quantile(0.5), is_peer=is_peer)


async def _load(call: Call, callers: int, seconds: float) -> Sample:
    """Have callers make calls, each one after the other, for some seconds."""
    await _calls(call, callers, seconds * _WARM_UP)
    return await _calls(call, callers, seconds)


async def _calls(call: Call, callers: int, seconds: float) -> Sample:
    times: list[float] = []
    began = time.perf_counter()

    async def caller() -> None:
        before = began
        while before < began + seconds:
            await call()
            after = time.perf_counter()
            times.append(after - before)
            before = after

    async with trio.open_nursery() as nursery:
        for _ in range(callers):
            nursery.start_soon(caller)
    return Sample(times, time.perf_counter() - began)


async def _load_peer(executor: ProcessPoolExecutor, call: tuple[Any, ...], callers: int, seconds: float) -> Sample:
    def both() -> Sample:
        peer.load(executor, call, callers, seconds * _WARM_UP)
        return peer.load(executor, call, callers, seconds)

    return await _in_thread(both)


async def _in_thread(function: Callable[[], T]) -> T:
    # Left behind, the thread ends as soon as its executor has been ended.
    return await trio.to_thread.run_sync(function, abandon_on_cancel=True)


async def _execute(pool: snakepit.Pool, tool: str, arguments: Mapping[str, Any]) -> object:
    return await pool.execute(tool, arguments)


async def _consume(pool: snakepit.Pool, tool: str, arguments: Mapping[str, Any]) -> object:
    async with pool.stream(tool, arguments) as chunks:
        async for _ in chunks:
            pass
    return None


async def _stream(pool: snakepit.Pool, seconds: float) -> float:
    """Chunks a second of one stream, from its first chunk on."""
    count, began = 0, 0.0
    async with pool.stream("ping_stream", {"count": 1 << 40}, timeout=None) as chunks:
        async for _ in chunks:
            if not count:
                began = time.perf_counter()
            count += 1
            if not count % 64 and time.perf_counter() > began + seconds:
                break
    return (count - 1) / (time.perf_counter() - began)


async def _recover(pool: snakepit.Pool) -> float:
    """Kill the only worker of a pool, and return the seconds until the next result."""
    await pool.execute("ping")
    [worker] = pool.list_workers()
    assert worker.pid is not None
    began = time.perf_counter()
    os.kill(worker.pid, signal.SIGKILL)
    while True:
        try:
            await pool.execute("ping")
            return time.perf_counter() - began
        except snakepit.WorkerCrashed:  # the call went to the worker before its death was known
            continue
