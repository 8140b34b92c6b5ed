"""What is measured: tools that do nothing."""

from __future__ import annotations

from collections.abc import Iterator

from bridge_py import BaseAdapter, tool


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
    def count(self, n: int) -> Iterator[int]:
        """Yield the numbers below `n`."""
        yield from range(n)
