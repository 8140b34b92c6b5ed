"""What is measured: tools that do nothing, or next to nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from bridge_py import BaseAdapter, SessionContext, tool


def increase(value: Any) -> Any:
    """What all peers do with a value: a new array, or the same frame."""
    # Without an import of pandas, which would count as the start of each worker.
    return value if type(value).__name__ == "DataFrame" else value + 1


def nothing(_item: object = None) -> None:
    """A function that does nothing."""


class Tools(BaseAdapter):
    """An empty tool in two forms, and an empty stream."""

    @tool
    def empty(self, payload: str) -> str:
        """Give the payload back."""
        return payload

    @tool
    async def empty_async(self, payload: str) -> str:
        """Give the payload back, from a coroutine."""
        return payload

    @tool
    def nap(self, seconds: float, payload: str) -> str:
        """Take some time, and no CPU time, like a tool that waits for a disk, a network or a GPU."""
        if seconds:
            time.sleep(seconds)
        return payload

    @tool
    def increase(self, value: Any) -> Any:
        """Add one to an array, or give a frame back."""
        return increase(value)

    @tool
    def total(self, value: Any) -> float:
        """Look at all of an array."""
        return float(value.sum())

    @tool
    def time_progress(self, context: SessionContext, blocks: int, steps: int, work: int) -> list[float]:
        """Seconds of a step that counts to `work`, without and with a report, in turns: CPU time of this thread."""
        taken = [0.0, 0.0]
        for block in range(blocks):
            reports = block % 4 in (1, 2)
            began = time.thread_time()
            for done in range(steps):
                sum(range(work))
                if reports:
                    context.progress(done, steps)
            taken[reports] += time.thread_time() - began
        return [2 * seconds / (blocks * steps) for seconds in taken]

    @tool
    def time_reads(self, context: SessionContext, name: str, times: int, bypass_cache: bool) -> float:
        """Seconds for one reading of a variable."""
        context.get_variable(name)
        began = time.perf_counter()
        for _ in range(times):
            context.get_variable(name, bypass_cache=bypass_cache)
        return (time.perf_counter() - began) / times

    @tool
    def time_batches(self, context: SessionContext, names: list[str], times: int) -> float:
        """Seconds for one reading of many, from the host."""
        began = time.perf_counter()
        for _ in range(times):
            context.get_variables(names, bypass_cache=True)
        return (time.perf_counter() - began) / times

    @tool
    def count(self, n: int) -> Iterator[int]:
        """Yield the numbers below `n`."""
        yield from range(n)
