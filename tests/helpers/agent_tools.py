"""Tools for agents: they hang, crash, count, and print."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

import bridge_py
from bridge_py import AsyncSessionContext, BaseAdapter, SessionContext, current_context, tool


@dataclasses.dataclass
class Point:
    """A point."""

    x: float
    y: float = 0.0


def _mark(path: str, word: str) -> None:
    with open(path, "a") as file:
        file.write(f"{word}\n")


def double(number: int, times: int = 2) -> int:
    """Multiply a number."""
    current_context().progress(1, 1)
    return number * times


def halves(number: int) -> Iterator[float]:
    """Divide a number."""
    while number > 1:
        number //= 2
        yield number


class Tools(BaseAdapter):
    """What the tests serve."""

    @tool
    def trace(self) -> dict[str, str]:
        return bridge_py.trace_headers()

    @tool(idempotent=True)
    def add(self, a: int, b: int = 1) -> int:
        """Add two numbers.

        Args:
            a: The first one.
        """
        return a + b

    @tool
    def move(self, point: Point, by: float) -> Point:
        """Move a point."""
        return Point(point.x + by, point.y + by)

    @tool
    def scale(self, values: NDArray[np.float64], by: float = 2.0) -> NDArray[np.float64]:
        """Scale an array."""
        return values * by

    @tool
    def pid(self) -> int:
        """The worker's process id."""
        return os.getpid()

    @tool
    def fail(self, text: str) -> None:
        """Raise."""
        raise ValueError(text)

    @tool
    def lie(self) -> int:
        """Return what the hint does not say."""
        return "no number"  # type: ignore[return-value]

    @tool
    def strange(self) -> Any:
        """Return what is no JSON."""
        return {(1, 2): 3}

    @tool
    def crash(self) -> None:
        """End the process."""
        os._exit(3)

    @tool(timeout=300)
    def hang(self, path: str) -> None:
        """Hang; says to a file when it begins and ends."""
        _mark(path, "begin")
        try:
            time.sleep(300)
        finally:
            _mark(path, "end")

    @tool(timeout=0.5)
    def slow(self) -> None:
        """Take too long."""
        time.sleep(300)

    @tool
    def count(self, context: SessionContext, n: int, pause: float = 0.06) -> int:
        """Count to n."""
        for done in range(1, n + 1):
            context.progress(done, n, f"{done} of {n}")
            time.sleep(pause)
        return n

    @tool
    async def numbers(self, n: int) -> AsyncIterator[int]:
        """Yield numbers."""
        for number in range(n):
            yield number

    @tool
    def flood(self) -> Iterator[str]:
        """Yield without end."""
        while True:
            yield "x" * 100_000

    @tool
    async def visits(self, context: AsyncSessionContext) -> int:
        """How often this session has called it."""
        found = 1 + (await context["visits"] if await context.has_variable("visits") else 0)
        await context.assign("visits", found)
        return int(found)

    @tool
    def shout(self) -> str:
        """Print to stdout and stderr, and to file 1."""
        print("printed by a worker")
        print("printed by a worker", file=sys.stderr)
        os.write(1, b"written by a worker\n")
        return "shouted"


class Conformance(BaseAdapter):
    """The tools that the protocol's conformance suite calls."""

    @tool
    def test_simple_text(self) -> str:
        """Return a text."""
        return "This is a simple text response for testing."

    @tool
    def test_error_handling(self) -> str:
        """Raise."""
        raise ValueError("This tool intentionally returns an error for testing")

    @tool
    def test_tool_with_progress(self, context: SessionContext) -> str:
        """Report progress three times."""
        for done in (0, 50, 100):
            context.progress(done, 100)
            time.sleep(0.15)
        return "done"
