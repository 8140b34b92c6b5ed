"""`python -m benchmarks.steps`: where the time of one call goes, step by step, in host and worker.

One caller runs an empty tool, one call after the other. Both processes note the time at each read and write of the
lane, on the one clock that they share. The figures are medians in microseconds. "A thread wakes" is the time from the
end of a write on one side to the end of the read on the other.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

import trio

import bridge_py.link.lane
import snakepit_trio as snakepit
import snakepit_trio._connections.lane
from bridge_py import BaseAdapter, tool

CALLS: Final = 3000
_now = time.perf_counter_ns

STEPS: Final = (
    ("host", "check, encode and schedule the call, make its frame", "called", "host writes"),
    ("host", "write", "host writes", "host wrote"),
    ("", "a thread wakes in the worker", "host wrote", "worker read"),
    ("worker", "read the frame, find the tool, check the arguments", "worker read", "tool begins"),
    ("worker", "the tool", "tool begins", "tool ends"),
    ("worker", "encode the result, make its frame", "tool ends", "worker writes"),
    ("worker", "write", "worker writes", "worker wrote"),
    ("", "a thread wakes in the host", "worker wrote", "host read"),
    ("host", "read the frame, end the call, wake the caller, decode", "host read", "returned"),
    ("", "all of it", "called", "returned"),
)


class TimedSystem:
    """The module `os` as the two lanes see it: it notes when reads end, and when writes begin and end."""

    def __init__(self, side: str) -> None:
        self._side = side
        self.times: dict[str, list[int]] = {f"{side} {what}": [] for what in ("read", "writes", "wrote")}

    def read(self, descriptor: int, count: int) -> bytes:
        """`os.read`."""
        data = os.read(descriptor, count)
        self.times[f"{self._side} read"].append(_now())
        return data

    def writev(self, descriptor: int, parts: Sequence[bytes]) -> int:
        """`os.writev`."""
        began = _now()
        written = os.writev(descriptor, parts)
        self.times[f"{self._side} wrote"].append(_now())
        self.times[f"{self._side} writes"].append(began)
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


class Tools(BaseAdapter):
    """An empty tool, and what the worker has noted."""

    def setup(self) -> None:
        """Begin to note."""
        self._system = TimedSystem("worker")
        self._times: dict[str, list[int]] = {"tool begins": [], "tool ends": []}
        vars(bridge_py.link.lane)["os"] = self._system

    @tool
    def empty(self, payload: str) -> str:
        """Give the payload back."""
        self._times["tool begins"].append(_now())
        self._times["tool ends"].append(_now())
        return payload

    @tool
    def times(self) -> dict[str, list[int]]:
        """Nanoseconds on the clock of both processes, by what was noted."""
        return {**self._system.times, **self._times}


async def measure(calls: int) -> list[tuple[str, str, float]]:
    """The medians of the steps: side, step, microseconds."""
    system = TimedSystem("host")
    vars(snakepit_trio._connections.lane)["os"] = system
    # No ping comes in between, which would be one more read on each side.
    async with snakepit.open_pool(f"{__spec__.name}:Tools", workers=1, ping_interval=3600) as pool:
        found: dict[str, list[int]] = {"called": [], "returned": []}
        for _ in range(calls):
            found["called"].append(_now())
            await pool.execute("empty", {"payload": "x" * 100})
            found["returned"].append(_now())
        worker = await pool.execute("times", {})
    times = {name: each[:calls] for name, each in {**found, **system.times, **worker}.items()}
    return [(side, step, _median(times[begin], times[end])) for side, step, begin, end in STEPS]


def _median(begins: list[int], ends: list[int]) -> float:
    half = len(begins) // 2  # the first half is warming up
    return statistics.median(end - begin for begin, end in zip(begins[half:], ends[half:], strict=True)) / 1000


def main() -> None:
    """Print the table."""
    for side, step, microseconds in trio.run(measure, CALLS):
        sys.stdout.write(f"{side:<8}{step:<60}{microseconds:>8.1f}\n")


if __name__ == "__main__":
    main()
