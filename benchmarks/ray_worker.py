"""What Ray makes an actor of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


class RayWorker:
    """The tools of the other peers."""

    def empty(self, payload: str) -> str:
        """Give the payload back."""
        return payload

    def count(self, n: int) -> Iterator[int]:
        """Yield the numbers below `n`."""
        for number in range(n):  # noqa: UP028 - Ray wants a generator that has `send`
            yield number

    def increase(self, value: Any) -> Any:
        """Give back a new array, or the same frame."""
        return value if type(value).__name__ == "DataFrame" else value + 1
