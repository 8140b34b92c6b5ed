"""`python -m benchmarks.floor`: what calls and starts cost at least, in Python, on this machine.

A call at its barest: a task of trio hands bytes to the next write to one of two pipes, a process reads them and writes
them back, and the task is woken. No tool is looked up, nothing is checked, encoded, scheduled, timed or cancelled. A
start at its barest: an interpreter imports what the channel of a worker is made of, and serves nothing. An array of 10
MB at its barest is copied into shared memory that is mapped already, increased by one, and copied into shared memory
again, all by one process.
"""

from __future__ import annotations

import mmap
import os
import resource
import signal
import statistics
import struct
import subprocess
import sys
import time
from collections import deque

import numpy as np
import outcome
import trio

CALLS = 20_000
ROUNDS = 5
HEAD = struct.Struct("<I")
PAYLOAD = b"x" * 120  # about what a call of the other benchmarks has on the wire

STARTS = {
    "an interpreter without site, as for a keeper": ["-I", "-S", "-c", "pass"],
    "a keeper's imports": ["-I", "-S", "-c", "import contextlib, ctypes, math, os, select, signal, time"],
    "an interpreter": ["-c", "pass"],
    "asyncio": ["-c", "import asyncio"],
    "asyncio and grpclib": ["-c", "import grpclib.server"],
    "asyncio, grpclib and msgspec": ["-c", "import grpclib.server, msgspec"],
    "all that a worker imports": ["-c", "import bridge_py.main"],
}


class Echo:
    """A process that sends back what it gets, and the host's ends of its two pipes."""

    def __init__(self) -> None:
        from_host, self._writing = os.pipe()
        self._reading, to_host = os.pipe()
        self._unsent: list[bytes] = []
        self._under_way: deque[trio.lowlevel.Task] = deque()
        self._callers: deque[trio.lowlevel.Task] = deque()
        self._pid = os.fork()
        if not self._pid:
            _send_back(from_host, to_host, self._writing)
        os.close(from_host)
        os.close(to_host)

    async def call(self, data: bytes) -> bytes:
        """Send bytes, and wait until they have come back."""
        self._unsent += (HEAD.pack(len(data)), data)
        self._callers.append(trio.lowlevel.current_task())
        if not self._under_way:
            self._write()
        found: bytes = await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)
        return found

    def _write(self) -> None:
        if self._unsent:
            os.writev(self._writing, self._unsent)
            self._unsent.clear()
            self._under_way += self._callers
            self._callers.clear()

    async def read(self) -> None:
        """Wake the callers whose bytes have come back, and write what has been said meanwhile."""
        held = b""
        while True:
            await trio.lowlevel.wait_readable(self._reading)
            held += os.read(self._reading, 65536)
            at = 0
            while len(held) - at >= HEAD.size + len(PAYLOAD):
                [size] = HEAD.unpack_from(held, at)
                begin, at = at + HEAD.size, at + HEAD.size + size
                trio.lowlevel.reschedule(self._under_way.popleft(), outcome.Value(held[begin:at]))
            held = held[at:]
            self._write()

    def close(self) -> None:
        """End the process."""
        os.close(self._writing)
        os.close(self._reading)
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)


def _send_back(reading: int, writing: int, hosts: int) -> None:
    os.close(hosts)
    while data := os.read(reading, 65536):
        os.write(writing, data)
    os._exit(0)


def main() -> None:
    """Measure, and print medians."""
    calls = [_call_for_real(callers) for _ in range(ROUNDS) for callers in (1, 64)]
    print(f"one caller: {statistics.median(calls[::2]) * 1e6:.0f} µs a call")
    print(f"64 callers, two processes: {1 / statistics.median(calls[1::2]):,.0f} calls/s")
    print(f"10 MB there and back: {_copy_there_and_back() * 1e3:.2f} ms")
    times: dict[str, list[tuple[float, float]]] = {what: [] for what in STARTS}
    for _ in range(ROUNDS):
        for what, arguments in STARTS.items():
            times[what].append(_start(arguments))
    for what, found in times.items():
        wall, cpu = (statistics.median(each) * 1e3 for each in zip(*found, strict=True))
        print(f"{what}: {wall:.0f} ms, {cpu:.0f} ms of CPU time")


def _call_for_real(callers: int) -> float:
    echoes = [Echo() for _ in range(1 if callers == 1 else 2)]
    try:
        return trio.run(_time_calls, echoes, callers)
    finally:
        for echo in echoes:
            echo.close()


async def _time_calls(echoes: list[Echo], callers: int) -> float:
    left = iter(range(CALLS))

    async def caller(echo: Echo) -> None:
        for _ in left:
            await echo.call(PAYLOAD)

    async with trio.open_nursery() as readers:
        for echo in echoes:
            readers.start_soon(echo.read)
        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for number in range(callers):
                nursery.start_soon(caller, echoes[number % len(echoes)])
        took = time.perf_counter() - began
        readers.cancel_scope.cancel()
    return took / CALLS


def _copy_there_and_back() -> float:
    array = np.ones(10_000_000 // 8)
    there, back = (np.frombuffer(mmap.mmap(-1, array.nbytes)) for _ in range(2))
    times = []
    for _ in range(20 * ROUNDS):
        began = time.perf_counter()
        np.copyto(there, array)
        np.copyto(back, there + 1)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _start(arguments: list[str]) -> tuple[float, float]:
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True)
    after, took = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - began
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
