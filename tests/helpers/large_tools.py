"""Tools whose values are large, and fit into one message each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from bridge_py import BaseAdapter, SessionContext, tool
from tests.helpers.value_tools import Unreadable

MAKERS: dict[str, Callable[[], Any]] = {
    "ints": lambda: list(range(1_000_000)),
    "dicts": lambda: [{"id": number, "name": f"n{number}"} for number in range(200_000)],
    "int_keys": lambda: {number << 20: number for number in range(100_000)},
    "mixed": lambda: {
        "a": [{number: str(number), None: 1.5} for number in range(50_000)],
        "b": {(number, "x"): frozenset([number]) for number in range(20_000)},
        "c": {f"é{number}": b"\xde\xdf" * 10 for number in range(50_000)},
        "d": "é" * 1_000_000,
        "e": 1 << 100,
    },
    "set": lambda: set(range(200_000)),
}


def make(kind: str) -> Any:
    """A large value."""
    return MAKERS[kind]()


def make_numbers(count: int) -> list[int]:
    """Numbers, the last of which is `count`."""
    return [*range(300_000), count]


def yield_numbers(count: int) -> Iterator[list[int]]:
    """Large chunks."""
    for number in range(count):
        yield make_numbers(number)


class LargeTools(BaseAdapter):
    """Tools of large values."""

    @tool
    def make(self, kind: str) -> Any:
        """Give a large value."""
        return make(kind)

    @tool
    def broken(self) -> Any:
        """Give a large value that the host cannot read."""
        return [list(range(200_000)), Unreadable()]

    @tool
    def chunks(self, count: int) -> Iterator[Any]:
        """Yield large chunks."""
        yield from yield_numbers(count)

    @tool
    def ask(self, context: SessionContext, kind: str) -> Any:
        """Have the host count the items of a large value, and keep it as a variable."""
        value = make(kind)
        return context.call_host_tool("count", value=value)
