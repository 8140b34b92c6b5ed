"""What is measured: tools that do nothing, or next to nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bridge_py import BaseAdapter, tool


def increase(value: Any) -> Any:
    """What all peers do with a value: a new array, or the same frame."""
    # Without an import of pandas, which would count as the start of each worker.
    return value if type(value).__name__ == "DataFrame" else value + 1


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
    def increase(self, value: Any) -> Any:
        """Add one to an array, or give a frame back."""
        return increase(value)

    @tool
    def total(self, value: Any) -> float:
        """Look at all of an array."""
        return float(value.sum())

    @tool
    def count(self, n: int) -> Iterator[int]:
        """Yield the numbers below `n`."""
        yield from range(n)
