"""`python -m benchmarks.counts`: what Python executes for one call, in the host and in a worker.

64 callers call an empty tool on two workers. The table has the CPU time of a call, and how many functions of Python,
functions of C and instructions of Python run for it, and in which folders. The counts are of the threads that run trio,
and the tools. Below it is what a function and an instruction cost at least on this machine. Counting slows a process
down, and then fewer calls share a read and a write: the counts are somewhat too high.
"""

from __future__ import annotations

import sys
import time
import timeit
from collections import Counter as Tally
from collections.abc import Callable
from pathlib import PurePath
from types import CodeType, FrameType
from typing import Any, Final

import trio

import snakepit_trio as snakepit
from bridge_py import BaseAdapter, tool

CALLERS: Final = 64
TIMED: Final = 40_000
COUNTED: Final = 2_000
Counts = dict[str, float]


class Counter:
    """Counts what the thread executes that begins and ends it."""

    def __init__(self) -> None:
        self._functions = Tally[str]()
        self._instructions = Tally[CodeType]()

    def begin(self, *, instructions: bool) -> None:
        """Count instructions, or functions: they are counted one after the other, as one would count the other."""
        if instructions:
            sys.settrace(self._trace)
            frame: FrameType | None = sys._getframe(1)
            while frame is not None:  # those that run already
                frame.f_trace, frame.f_trace_opcodes = self._trace, True
                frame = frame.f_back
        else:
            sys.setprofile(self._profile)

    def end(self) -> Counts:
        """Return the counts since `begin`."""
        sys.settrace(None)
        sys.setprofile(None)
        found = dict[str, float](self._functions)
        for code, count in self._instructions.items():
            folder = PurePath(code.co_filename).parent.name
            found[folder] = found.get(folder, 0) + count
        self._functions.clear()
        self._instructions.clear()
        return found

    def _profile(self, _frame: FrameType, event: str, _argument: object) -> None:
        if event in ("call", "c_call"):
            self._functions[event] += 1

    def _trace(self, frame: FrameType, event: str, _argument: object) -> Any:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            self._instructions[frame.f_code] += 1
        return self._trace


class Tools(BaseAdapter):
    """An empty tool, and the counts of the worker."""

    def setup(self) -> None:
        """Count nothing yet."""
        self._counter = Counter()

    @tool
    def empty(self, payload: str) -> str:
        """Give the payload back."""
        return payload

    @tool
    def begin(self, instructions: bool) -> None:
        """Begin to count."""
        self._counter.begin(instructions=instructions)

    @tool
    def end(self) -> Counts:
        """The counts since then."""
        return self._counter.end()


async def from_many(pool: snakepit.Pool, calls: int) -> None:
    """64 callers share a number of calls."""
    left = iter(range(calls))

    async def caller() -> None:
        for _ in left:
            await pool.execute("empty", {"payload": "x" * 100})

    async with trio.open_nursery() as nursery:
        for _ in range(CALLERS):
            nursery.start_soon(caller)


def _cpu_of(pid: int) -> float:
    return time.clock_gettime(~pid << 3 | 2)  # the clock of a process: clock_getcpuclockid(3)


async def times() -> tuple[float, float]:
    """Microseconds of CPU time for a call: of the host, and of the workers."""
    async with snakepit.open_pool(f"{__spec__.name}:Tools", workers=2, ping_interval=3600) as pool:
        pids = [worker.pid for worker in pool.list_workers() if worker.pid]
        await from_many(pool, TIMED // 4)
        host, workers = time.process_time(), sum(map(_cpu_of, pids))
        await from_many(pool, TIMED)
        host, workers = time.process_time() - host, sum(map(_cpu_of, pids)) - workers
    return host / TIMED * 1e6, workers / TIMED * 1e6


async def counts() -> tuple[Counts, Counts]:
    """What is executed for a call: by the host, and by the worker."""
    host, worker, counter = Counts(), Counts(), Counter()
    # One worker, which gets the calls that begin and end its counting before and after all others.
    async with snakepit.open_pool(f"{__spec__.name}:Tools", workers=1, ping_interval=3600) as pool:
        await from_many(pool, COUNTED)
        for instructions in (False, True):
            await pool.execute("begin", {"instructions": instructions})
            await from_many(pool, COUNTED)
            worker = _summed(worker, await pool.execute("end"))
            counter.begin(instructions=instructions)
            await from_many(pool, COUNTED)
            host = _summed(host, counter.end())
    return host, worker


def _summed(one: Counts, other: Counts) -> Counts:
    return {name: one.get(name, 0) + other.get(name, 0) / COUNTED for name in {**one, **other}}


def _shares(found: Counts, total: float) -> list[str]:
    largest = sorted(found.items(), key=lambda item: -item[1])[:10]
    return [f"{name or 'generated'} {100 * count / total:.0f} %" for name, count in largest]


def _nanoseconds(statement: str, names: dict[str, Callable[[], object]] | None = None) -> float:
    timer = timeit.Timer(";".join([statement] * 100), globals=names)
    return min(timer.repeat(50, 200)) / 200 / 100 * 1e9


def main() -> None:
    """Measure, and print the table."""
    cpu = trio.run(times)
    for side, microseconds, found in zip(("host", "worker"), cpu, trio.run(counts), strict=True):
        functions, of_c = found.pop("call"), found.pop("c_call")
        total = sum(found.values())
        print(f"{side}: {microseconds:.1f} us of CPU time, {functions:.0f} functions of Python, {of_c:.0f} of C")
        print(f"  {total:.0f} instructions: {', '.join(_shares(found, total))}")

    def function() -> None:
        pass

    print(f"an empty function of Python: {_nanoseconds('f()', {'f': function}):.0f} ns")
    print(f"an instruction: {_nanoseconds('x = y', {'y': function}) / 2:.1f} ns")


if __name__ == "__main__":
    main()
