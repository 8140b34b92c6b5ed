"""Batch tools that note what they get, wait for files, and fail in all ways."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bridge_py import BaseAdapter, tool

KILLS = -1
FAILS = -2
RAISES = -3


@dataclasses.dataclass
class Point:
    """Made again by its hint."""

    x: int


class Tools(BaseAdapter):
    """The tools."""

    def setup(self) -> None:
        """Begin the list of sizes."""
        self._sizes: list[int] = []

    @tool
    def sizes(self) -> list[int]:
        """How many calls the batches had."""
        return self._sizes

    @tool
    def add(self, a: int, b: int) -> int:
        """Add, one call at a time."""
        return a + b

    @tool(batch=4, wait=0.02)
    def double(self, n: list[int]) -> list[Any]:
        """Double, or fail for some, or for all."""
        self._sizes.append(len(n))
        if KILLS in n:
            os._exit(3)
        if RAISES in n:
            raise RuntimeError("all of you")
        return [KeyError(f"not {each}") if each == FAILS else 2 * each for each in n]

    @tool(name="double_async", batch=4, wait=0.02)
    async def double_in_a_loop(self, n: list[int]) -> list[Any]:
        """The same, as a coroutine."""
        await asyncio.sleep(0)
        return self.double(n)

    @tool(batch=4, wait=0.02, idempotent=True)
    def die_once(self, path: list[str]) -> list[str]:
        """Kill the worker, the first time."""
        if not Path(path[0]).exists():
            Path(path[0]).write_text("x")
            os._exit(3)
        return path

    @tool(batch=4)
    def weigh(self, name: list[str], weight: list[float]) -> list[str]:
        """Take two arguments of each caller."""
        return [f"{each}: {heavy}" for each, heavy in zip(name, weight, strict=True)]

    @tool(batch=8, wait=0.02)
    def increase(self, array: list[np.ndarray], by: list[int]) -> list[np.ndarray]:
        """Large arguments, and large results."""
        return [each + more for each, more in zip(array, by, strict=True)]

    @tool(batch=4, wait=0.02)
    def returns(self, value: list[int]) -> Any:
        """Return what no batch tool may return."""
        return {1: value[:-1], 2: tuple(value), 3: None}[value[0]]

    @tool(batch=4, wait=0.02)
    def send_back(self, kind: list[str]) -> list[object]:
        """Results of which some cannot be sent."""
        return [object() if each == "bad" else each for each in kind]

    @tool(batch=4, wait=0.02)
    def move(self, point: list[Point]) -> list[Point]:
        """Objects, by the hints of the items."""
        return [Point(each.x + 1) for each in point]

    # These say in the file `log` that they run, and go on while there is no file `log`.go.

    @tool(batch=2, wait=5.0)
    def hold(self, log: list[str], n: list[int]) -> list[int]:
        """Wait, and note it while it does."""
        for _ in beats(log[0]):
            time.sleep(0.005)
        return n

    @tool(batch=2, wait=5.0)
    async def hold_async(self, log: list[str], n: list[int]) -> list[int]:
        """The same, as a coroutine."""
        for _ in beats(log[0]):
            await asyncio.sleep(0.005)
        return n

    @tool(batch=2, wait=5.0, cancel="kill")
    def hold_to_the_death(self, log: list[str], n: list[int]) -> list[int]:
        """The same, and only its worker's end ends it."""
        return self.hold(log, n)

    @tool(batch=100, wait=1.0)
    def collect(self, n: list[int]) -> list[int]:
        """Give back what has come within a second."""
        return n

    @tool(batch=2, wait=0.0, limit=1)
    def hold_one(self, log: list[str], n: list[int]) -> list[int]:
        """The same, one batch at a time."""
        self._sizes.append(len(n))
        return self.hold(log, n)


def beats(log: str) -> Iterator[None]:
    """Write to a file, until there is a file of its name with `.go`."""
    while not Path(f"{log}.go").exists():
        with open(log, "a") as file:
            file.write("x")
        yield
